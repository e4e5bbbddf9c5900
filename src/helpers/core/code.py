"""Digests of settings, code and files: what decides whether a stage has to run again.

Snakemake compares file times and does not see edits in a package, so every stage has one more input: a small file
with the digest of its notebook and of the modules that the notebook imports, directly or through other modules.
"""

import hashlib
import json
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType

from helpers.core.files import short_hash

SOURCES = Path(__file__).resolve().parents[2]
"""The folder of the project's packages."""


PACKAGES = ("helpers", "testbed", "launcher")


def _module_path(name):
    """Return the source file of `helpers` or `helpers.a.b`, or None where `name` is not one of its modules."""
    path = SOURCES.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _compiled(source):
    """Return a module's code without docstrings and assertions, in a third of the time that its syntax tree takes."""
    return compile(source, "", "exec", dont_inherit=True, optimize=2)


def _form(value):
    """Return what code does, as text: without comments, names of files and numbers of lines."""
    if isinstance(value, CodeType):
        parts = (value.co_name, value.co_code, value.co_exceptiontable, value.co_flags, value.co_argcount,
                 value.co_posonlyargcount, value.co_kwonlyargcount, value.co_names, value.co_varnames,
                 value.co_freevars, value.co_cellvars)  # fmt: skip
        return repr((parts, [_form(constant) for constant in value.co_consts]))
    # A set has another order in every process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def imported_modules(source):
    """Return the names of the package's modules that a piece of Python source imports, wherever it does.

    Parameters
    ----------
    source : str
        Python source; imports inside functions count too.

    Returns
    -------
    set of str
        Full names such as ``helpers.core.grid``.
    """
    return _imports(_compiled(source))


def _imports(code):
    names, todo, finder = set(), [code], ModuleFinder()
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for kind, found in finder.scan_opcodes(code):
            if kind == "absolute_import":
                names |= {found[1], *(f"{found[1]}.{name}" for name in found[0] or ())}
    names |= {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
    return {name for name in names if name.split(".")[0] in PACKAGES and _module_path(name)}


@cache
def _parsed(path):
    """Return the digestible form of a module and the modules that it imports."""
    code = _compiled(Path(path).read_text(encoding="utf-8"))
    return short_hash(_form(code), 64), frozenset(_imports(code))


def notebook_source(path):
    """Return the code and the text of a notebook, without outputs and execution counts."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def stage_digest(notebook):
    """Return the digest of a stage's code: its notebook, and every module that it imports, at any remove.

    Editing a comment, a docstring or an assertion changes nothing; editing a constant reruns the stages that import it
    and no other.

    Parameters
    ----------
    notebook : path-like
        The notebook of the stage.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return _stage_digest(Path(notebook), Path(notebook).stat().st_mtime_ns)


@cache
def _stage_digest(notebook, changed):
    cells = notebook_source(notebook)
    code = "\n".join(text for kind, text in cells if kind == "code")
    # IPython's own commands are no Python.
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    todo, modules = imported_modules(code), {}
    while todo:
        name = todo.pop()
        if name not in modules:
            modules[name], imports = _parsed(_module_path(name))
            todo |= imports
    return hashlib.sha256(json.dumps([cells, sorted(modules.items())]).encode()).hexdigest()


@cache
def package_digest():
    """Return the first 12 digits of the digest of all packages, which every result carries."""
    files = [p for name in PACKAGES for p in sorted((SOURCES / name).rglob("*.py"))]
    parts = [(str(p.relative_to(SOURCES)), _parsed(p)[0]) for p in files]
    return short_hash(parts, 12)
