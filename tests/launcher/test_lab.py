"""JupyterLab as `make lab` opens it: the landing page, and notebooks that git sees unchanged."""

import re
from pathlib import Path

import nbformat
import pytest
from traitlets.config.loader import PyFileConfigLoader

from launcher.stages import STAGES

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if path.parent.name != ".ipynb_checkpoints"
)


@pytest.fixture(scope="module")
def config():
    folder = ROOT / "config" / "jupyter"
    return PyFileConfigLoader("jupyter_server_config.py", str(folder)).load_config()


def executed(path):
    """Return what JupyterLab saves of a notebook that was run."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec.display_name = "Another name"
    notebook.metadata.language_info.version = "3.11"
    notebook.metadata.widgets = {"state": {}}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text="42")]
            cell.metadata.execution = {"shell.execute_reply": "now"}
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_was_run_is_saved_as_git_has_it(config, path):
    notebook = executed(path)
    hook = config.FileContentsManager.pre_save_hook
    name = path.relative_to(ROOT).as_posix()
    hook(model={"type": "notebook", "content": notebook}, path=name, contents_manager=None)
    assert nbformat.writes(notebook).rstrip() == path.read_text(encoding="utf-8").rstrip()


def test_executed_notebooks_elsewhere_keep_their_outputs(config):
    notebook = executed(NOTEBOOKS[0])
    hook = config.FileContentsManager.pre_save_hook
    hook(model={"type": "notebook", "content": notebook}, path="results/a/b.ipynb")
    assert notebook == executed(NOTEBOOKS[0])


def test_the_landing_page_lists_all_notebooks_and_its_links_resolve(config):
    assert config.ServerApp.root_dir == str(ROOT)
    page = ROOT / config.LabApp.default_url.removeprefix("/lab/tree/")
    links = re.findall(r"\]\((.+?)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []
    linked = {link.removesuffix(".ipynb") for link in links if link.endswith(".ipynb")}
    assert set(STAGES) <= linked
    assert linked == {
        path.relative_to(page.parent).with_suffix("").as_posix() for path in NOTEBOOKS
    }
