"""The documentation names only what is there: files, links, commands, settings, functions."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT
from docutils.utils.math.latex2mathml import tex2mathml

from helpers.core.study import Study, valid_names
from launcher.__main__ import _COMMANDS
from launcher.sweep import Sweep, planned_runs
from testbed.settings import VirtualStudy

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [page for page in PAGES if page.is_file()]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SETTINGS = valid_names(VirtualStudy)
MADE = {"settings", "gallery", "glossary", "dictionary", "api", "notebooks/index"}


def anchors(page):
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def code(text):
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_formulas_can_be_shown(page):
    check_formulas(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=lambda p: p.stem
)
def test_formulas_of_notebooks_can_be_shown(path):
    cells = nbformat.read(path, as_version=4).cells
    check_formulas("\n\n".join(one.source for one in cells if one.cell_type == "markdown"))


def check_formulas(text):
    """Write each formula as MathML, as the site has it: what cannot be raises an error."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.DOTALL):
        tex2mathml(block or inline, as_block=bool(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        if file.startswith("generated/"):
            assert file.removeprefix("generated/").removesuffix(".md") in MADE, link
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)(?= [A-Z]+=|`|$)", text, re.M)) <= TARGETS
    assert set(re.findall(r"-m launcher ([a-z]+)", text)) <= set(_COMMANDS)
    for name in code(text):
        if re.fullmatch(r"(helpers|testbed|launcher)(\.\w+)+", name):
            module, _, function = name.rpartition(".")
            spec = find_spec(name) if find_spec(module) and _is_package(module) else None
            assert spec or hasattr(__import__(module, fromlist=[function]), function), name


def _is_package(name):
    spec = find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_settings_exist(page):
    heads = {name.partition(".")[0] for name in SETTINGS if "." in name}
    files = {"csv", "json", "tif", "yaml", "py", "md", "html", "npz", "xlsx", "gpkg", "txt"}
    for name in code(page.read_text(encoding="utf-8")):
        if re.match(r"(src|tests|benchmarks|config|notebooks|explorer)/[^ <>*{}]+$", name):
            mine = name.startswith(("config/sweeps/mine", "config/my-", "config/basin"))
            assert (ROOT / name).exists() or mine or "NAME" in name, name
        dotted = re.fullmatch(r"([a-z_]+)\.([a-z_.]+)", name)
        if dotted and dotted[1] in heads and name.rpartition(".")[2] not in files:
            assert name in SETTINGS or SETTINGS.get(name.rpartition(".")[0]), name


def test_every_page_is_in_the_contents():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([A-Za-z./-]+)$", index, re.MULTILINE))
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert listed == pages | {f"generated/{name}" for name in MADE}


@pytest.mark.soak
def test_the_site_is_built_without_a_warning(tmp_path):
    copy = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", copy, ignore=shutil.ignore_patterns("_build", "generated"))
    for name in ("README.md", "data", "config", "src", "figures", "tests", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    site = tmp_path / "docs/_build/html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(copy), str(site)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert not _missing(site)


def _missing(site: Path):
    """Return the links between pages of the site that lead nowhere."""
    lost = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            place = re.split("[#?]", link)[0]
            if not re.match(r"[a-z]+:", link) and not (page.parent / place).exists():
                lost.append((page.name, link))
    return lost


def test_lines_of_the_diffs_that_are_there_are_in_the_files():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diffs = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    assert len(diffs) == 5
    for diff in diffs:
        for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
            file, *lines = part.splitlines()
            there = (ROOT / file).read_text(encoding="utf-8").splitlines()
            kept = [line[1:] for line in lines if line.startswith(" ")]
            assert kept
            assert [line for line in kept if line not in there] == [], file


EXERCISES = [path for path in NOTEBOOKS if path.stem != "00-open-data"]


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
def test_a_notebook_ends_with_two_exercises_whose_settings_are_possible(path, tmp_path):
    last = nbformat.read(path, as_version=4).cells[-1].source
    assert last.startswith("## Exercises")
    found = re.findall(r"^- Set `([^`]+)`", last, re.MULTILINE)
    assert len(found) == 2
    sweep = re.search(r"`(config/sweeps/\S+)`", last)
    for text in found:
        change = yaml.safe_load(text)
        if sweep:
            whole = yaml.safe_load((ROOT / sweep[1]).read_text(encoding="utf-8"))
            changed = whole | {"base": "config/quick.yaml"} | change
            file = tmp_path / "mine.yaml"
            file.write_text(yaml.safe_dump(changed), encoding="utf-8")
            assert all(run.study for run in planned_runs(Sweep.open(file)))
            continue
        name, value = dict(change).popitem()
        while isinstance(value, dict):
            key, value = dict(value).popitem()
            name += f".{key}"
        kind = "quick" if name != "label" else "yukon"
        assert Study.open(f"config/{kind}.yaml").changed({name: value})
