"""Digests of code: what decides whether a stage has to run again.

Snakemake compares file times and does not see edits in a package. So every stage has one more
input, a small file with the digest of its notebook and of all modules that the notebook imports,
directly or through other modules.
"""

import hashlib
import json
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType
from typing import Any

from helpers.core.files import short_hash

SOURCES = Path(__file__).resolve().parents[2]
"""The folder of the project's packages."""

PACKAGES = ("helpers", "testbed", "launcher")


def _module_path(name: str) -> Path | None:
    """Return the source file of `helpers` or `helpers.a.b`; None if there is no such module."""
    path = SOURCES.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _compiled(source: str) -> CodeType:
    """Return code without docstrings and assertions; three times as fast as a syntax tree."""
    return compile(source, "", "exec", dont_inherit=True, optimize=2)


def _form(value: Any) -> str:
    """Return what code does, as text: without comments, names of files and numbers of lines."""
    if isinstance(value, CodeType):
        names = (
            "name code exceptiontable flags argcount posonlyargcount kwonlyargcount names varnames "
            "freevars cellvars"
        )
        parts = tuple(getattr(value, f"co_{name}") for name in names.split())
        return repr((parts, [_form(constant) for constant in value.co_consts]))
    # A set has another order in every process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def imported_modules(code: CodeType) -> set[str]:
    """Return the project's modules that code imports, functions included: ``helpers.core.grid``."""
    names = set()
    finder = ModuleFinder()
    todo = [code]
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for kind, imported in finder.scan_opcodes(code):
            if kind == "absolute_import":
                members, module = imported
                names |= {module, *(f"{module}.{member}" for member in members or ())}
    # A module runs the packages that hold it, too.
    parts = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
    names = {".".join(one[:depth]) for one in parts for depth in range(1, len(one) + 1)}
    return {name for name in names if _module_path(name)}


@cache
def _module(path: Path) -> CodeType:
    return _compiled(path.read_text(encoding="utf-8"))


@cache
def _digest(path: Path) -> str:
    return short_hash(_form(_module(path)), 64)


@cache
def _imports(path: Path) -> frozenset[str]:
    # Apart from the digest: it takes twice as long, and a process that only names its code, as each
    # kernel does, has no use for it.
    return frozenset(imported_modules(_module(path)))


@cache
def stage_digest(notebook: Path) -> str:
    """Return the digest of a notebook's cells and of every module that it imports, at any remove.

    An edit of a comment, a docstring or an assertion in a module changes nothing; an edit of a
    constant reruns the stages that import it, and no other.
    """
    cells = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ]
    lines = "\n".join(text for kind, text in cells if kind == "code").splitlines()
    # IPython's own commands are no Python.
    code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    modules = {}
    todo = imported_modules(_compiled(code))
    while todo:
        name = todo.pop()
        path = _module_path(name)
        if name not in modules and path:
            modules[name] = _digest(path)
            todo |= _imports(path)
    return hashlib.sha256(json.dumps([cells, sorted(modules.items())]).encode()).hexdigest()


@cache
def package_digest() -> str:
    """Return the first 12 digits of the digest of all packages, which every result has."""
    files = [p for name in PACKAGES for p in sorted((SOURCES / name).rglob("*.py"))]
    parts = [(str(p.relative_to(SOURCES)), _digest(p)) for p in files]
    return short_hash(parts, 12)
