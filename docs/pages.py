"""Pages of the site that are made of the code, so that they cannot go stale."""

import ast
import inspect
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name

import nbformat
import pandas as pd

import helpers.record
from helpers.core.chinese import CHINESE
from helpers.core.classes import ICE_TYPES
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.figures import main_figures
from helpers.prepare.registry import covariates
from helpers.record.dictionary import make_dictionary
from launcher.reference import sections, settings
from launcher.stages import STAGES, record_path
from testbed.settings import VirtualStudy

PACKAGES = ("helpers", "testbed", "launcher")


def write_pages(folder: Path) -> None:
    """Write all pages into a folder, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    study = Study.open("config/virtual.yaml")
    pages = {
        "settings": settings_page(),
        "gallery": gallery(study),
        "glossary": glossary(study),
        "dictionary": dictionary(study, Study.open("config/quick.yaml").results_dir / "maps"),
        "notebooks/index": notebooks(folder / "notebooks"),
        "api": api(),
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def settings_page() -> str:
    """Return the reference of settings: a table a section."""
    parts = [
        "# All settings\n\nA study file has any of these; the rest take their defaults. "
        "`.venv/bin/python -m launcher study config/virtual.yaml` prints the settings of a study "
        "with the same comments. Names with `[]` are lists. A study with `source: virtual` has "
        "the settings of the test bed besides."
    ]
    for title, model in (("Every study", Study), ("The test bed", VirtualStudy)):
        parts.append(f"## {title}")
        for name, section in sections(model):
            if model is VirtualStudy and not section.__module__.startswith("testbed"):
                continue
            head = f"`{name}`" if name else "Top level"
            rows = [
                (f"`{row.name}`", row.type, f"`{row.default}`" if row.default else "", row.meaning)
                for row in settings(section)
            ]
            about = (inspect.getdoc(section) or "").replace("\n\n", "\n")
            parts += [f"### {head}", about, _table(("setting", "type", "default", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def gallery(study: Study) -> str:
    """Return the figures for print, each with the call that makes it."""
    parts = [
        "# Gallery\n\nThe figures of the default study (SIMULATED). Each is drawn from results "
        "only, by one function. `LANGUAGE=zh` draws it in Chinese, `STUDY=` for another study."
    ]
    for name, function in main_figures(study).items():
        title = (inspect.getdoc(resolve_name(function)) or name).partition("\n")[0].rstrip(".")
        parts.append(f"## {name}\n\n{title}.")
        if (ROOT / f"figures/{study.name}/{name}.png").is_file():
            parts.append(f"![{title}](../../figures/{study.name}/{name}.png)")
        parts.append(
            f"```sh\nmake figures ONLY={name}\n```\n\n```python\n"
            "from helpers.core.study import Study\nfrom helpers.figures.publish import draw\n\n"
            f'draw(Study.open("config/{study.name}.yaml"), "{name}")\n```'
        )
    return "\n\n".join(parts) + "\n"


def glossary(study: Study) -> str:
    """Return the terms in English and Chinese, and the classes with their limits."""
    limits = [*study.ice.thresholds, 1]
    bounds = ["-", f"< {limits[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(limits[:-1]))]
    bounds.append(f">= {limits[-2]:g}")
    classes = [
        (str(kind.code), kind.name, kind.chinese_name, bound)
        for kind, bound in zip(ICE_TYPES, bounds, strict=True)
    ]
    terms = {english: chinese for english, chinese in CHINESE.items() if "{" not in english}
    rows = sorted(terms.items(), key=lambda pair: pair[0].lower())
    heads = ("code", "English", "中文", "ice content, m3 m-3")
    return (
        "# Glossary 术语\n\n## Ice types 冻土类型\n\n"
        f"The classes are those of GB/T 50324; the limits are settings (`ice.thresholds`).\n\n"
        f"{_table(heads, classes)}\n\n## Terms 术语\n\nAs figures have them.\n\n"
        f"{_table(('English', '中文'), rows)}\n"
    )


def dictionary(study: Study, maps: Path) -> str:
    """Return what each column, predictor and band means; bands where a run has its maps."""
    folder = Path(inspect.getfile(helpers.record)).parent
    columns = pd.read_csv(folder / "columns.csv", keep_default_na=False)
    bands = make_dictionary(study, maps) if maps.is_dir() else pd.DataFrame()
    if bands.empty:
        bands = pd.read_csv(folder / "bands.csv").rename(columns={"raster": "file"})
    bands = bands[
        [one for one in ("file", "name", "unit", "meaning", "meaning_zh") if one in bands]
    ]
    predictors = [(f"`{name}`", one.long_name, one.unit) for name, one in covariates(study).items()]
    return (
        "# Data dictionary\n\nThe record of a run has the same as a table, "
        "`data-dictionary.csv`, of its own files ([a record to deposit](../record.md))."
        "\n\n## Columns of tables\n\n"
        "A name that ends with `_lower` or `_upper` is an end of an interval; `macro_`, "
        "`weighted_` and `adjusted_` at its beginning are means over classes, by samples and by "
        f"mapped area.\n\n{_frame(columns)}\n\n## Predictors\n\n"
        f"{_table(('name', 'meaning', 'unit'), predictors)}\n\n## Rasters\n\n{_frame(bands)}\n"
    )


def notebooks(folder: Path) -> str:
    """Copy all notebooks, executed ones where the coarse study has run, and return their list."""
    quick = Study.open("config/quick.yaml")
    names = sorted(
        (ROOT / "notebooks").rglob("*.ipynb"),
        key=lambda path: (
            list(STAGES).index(_stage(path)) if _stage(path) in STAGES else len(STAGES)
        ),
    )
    pages = []
    for path in (path for path in names if ".ipynb_checkpoints" not in path.parts):
        stage = _stage(path)
        executed = path
        if stage in STAGES and STAGES[stage].applies(quick):
            executed = record_path(quick, stage).with_suffix(".ipynb")
        page = stage.replace("/", "-")
        notebook = nbformat.read(executed if executed.is_file() else path, as_version=4)
        # Papermill's own cell has a path of this machine; links are as from `notebooks/`.
        for cell in notebook.cells:
            cell.source = cell.source.replace("](../docs/", "](../../")
        notebook.cells = [
            one
            for one in notebook.cells
            if "injected-parameters" not in one.metadata.get("tags", ())
        ]
        nbformat.write(notebook, folder / f"{page}.ipynb")
        pages.append(page)
    listed = "\n".join(pages)
    return (
        "# Notebooks\n\nIn the order in which they run. Outputs, where there are any, are those of "
        "the coarse virtual study (`config/quick.yaml`, SIMULATED).\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


def api() -> str:
    """Return the page of all modules, by their docstrings and by the notebooks that call them."""
    parts = [
        "# Functions and classes\n\nFunctions that take values, arrays or small tables have an "
        "example, unless their first sentence says it all; tests run every one. Functions that "
        "take a `study`, a finished run's files or a grown forest are at work in the notebooks, "
        "with what they give; below each module stands which notebook calls what."
    ]
    calls = calls_by_module(sorted((ROOT / "notebooks").rglob("*.ipynb")))
    for package in PACKAGES:
        parts.append(f"## {package}")
        for path in sorted((ROOT / "src" / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
            if not name.endswith("__main__"):
                name = name.removesuffix(".__init__")
                lines = [f".. automodule:: {name}", "   :members:"]
                parts.append(f"### {name}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```")
                shown = [
                    f"`{function}` in " + ", ".join(f"[{one}](notebooks/{one}.ipynb)" for one in at)
                    for function, at in sorted(calls[name].items())
                ]
                if shown:
                    parts.append("*At work:* " + "; ".join(shown) + ".")
    return "\n\n".join(parts) + "\n"


def calls_by_module(paths: Iterable[Path]) -> dict[str, dict[str, list[str]]]:
    """Return by module, and by what notebooks use of it, the pages of these notebooks."""
    calls: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in (path for path in paths if ".ipynb_checkpoints" not in path.parts):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(one.source for one in cells if one.cell_type == "code")
        nodes = list(ast.walk(ast.parse(code)))
        imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        used = {
            (".".join(imported[node.value.id]), node.attr)
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in imported
        }
        modules = {module for module, _ in used}
        for module, name in {*imported.values(), *used}:
            if f"{module}.{name}" not in modules:
                calls[module][name].append(_stage(path).replace("/", "-"))
    return calls


def _stage(path: Path) -> str:
    return path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()


def _frame(frame: pd.DataFrame) -> str:
    rows = frame.fillna("").astype(str).itertuples(index=False)
    return _table(tuple(frame.columns), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("*", "\\*")
