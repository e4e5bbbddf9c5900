"""Code digests: what counts as code, and which modules a notebook depends on."""

import nbformat
import pytest

from helpers.core import code


def test_imports_count_wherever_they_are():
    source = (
        "import helpers.core.grid\ndef f():\n    from helpers.core import study\nimport numpy\n"
    )
    source += "from helpers.prepare import products"
    modules = code.imported_modules(compile(source, "", "exec"))
    assert modules == {
        "helpers",
        "helpers.core",
        "helpers.core.grid",
        "helpers.core.study",
        "helpers.prepare",
        "helpers.prepare.products",
    }


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "helpers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from helpers import b\nONE = 1\n")
    (folder / "b.py").write_text('"""Second."""\nTWO = 2\n')
    (folder / "c.py").write_text("THREE = 3\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("from helpers import a")])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    monkeypatch.setattr(code, "SOURCES", tmp_path)

    def forget():
        for one in (code._module, code._digest, code._imports, code.stage_digest):
            one.cache_clear()

    def stage(edits=()):
        for name, text in edits:
            (folder / name).write_text(text)
        forget()
        return code.stage_digest(tmp_path / "n.ipynb")

    yield stage
    forget()


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        pytest.param(("a.py", "from helpers import b\nONE = 7\n"), True, id="imported"),
        pytest.param(("b.py", "TWO = 7\n"), True, id="imported by an import"),
        pytest.param(("c.py", "THREE = 7\n"), False, id="not imported"),
        pytest.param(("b.py", '"""Two."""\nTWO = 2  # two\n'), False, id="comment and docstring"),
        pytest.param(("b.py", '"""Second."""\n\n\nTWO = 2\n'), False, id="lines"),
        pytest.param(("__init__.py", "FOUR = 4\n"), True, id="package"),
    ],
)
def test_the_digest_follows_the_imports(package, edit, changes):
    assert (package() != package([edit])) is changes
