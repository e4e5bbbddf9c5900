"""The examples of docstrings: each gives what it says, and no warning."""

import ast
import doctest
import importlib
import warnings

import pytest
from conftest import ROOT

MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_say(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed, tried = doctest.testmod(module, raise_on_error=False)
    assert tried
    assert failed == 0


def test_an_example_shows_a_result_and_comes_last():
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if ">>> " in text:
                    _, heading, examples = text.partition("Examples\n--------\n")
                    assert heading, f"{path.name}: {node.name}"
                    assert "\n----" not in examples, f"{path.name}: {node.name}"
                    assert any(one.want for one in doctest.DocTestParser().get_examples(text))
