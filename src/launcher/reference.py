"""The reference of settings: what each is, by the settings' own definitions and comments."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from helpers.core.files import to_yaml

_BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
}


class Setting(NamedTuple):
    """A setting as a reader looks it up."""

    name: str
    type: str
    default: str
    meaning: str


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the comment of each setting of a section: on its lines, or right above them."""
    lines = textwrap.dedent(inspect.getsource(model)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for base in model.__bases__:
        if issubclass(base, BaseModel) and base.__module__.startswith(("helpers", "testbed")):
            found |= meanings(base)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            found[name] = _comment(lines, node) or found.get(name, "")
    return found


def sections(model: type[BaseModel], name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each section of a study once, with the dotted name of its first place."""
    seen: set[type[BaseModel]] = set()
    waiting = [(name, model)]
    while waiting:
        name, section = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        yield name, section
        below = []
        for key, field in section.model_fields.items():
            kinds = list(_kinds(field.annotation))
            many = "[]" if "list" in str(field.annotation) else ""
            below += [(f"{name}.{key}{many}".lstrip("."), kind) for kind in kinds]
        waiting = below + waiting


def settings(model: type[BaseModel]) -> list[Setting]:
    """Return the settings of one section, without those of the sections in it."""
    schema = model.model_json_schema(mode="validation")
    known, rows = meanings(model), []
    for name, field in model.model_fields.items():
        default = ""
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            default = "" if isinstance(value, BaseModel) else _plain(model, name, value)
        kind = _kind(schema["properties"][name])
        about = [(inspect.getdoc(one) or "").partition("\n")[0] for one in _kinds(field.annotation)]
        rows.append(Setting(name, kind, default, known[name] or " ".join(about)))
    return rows


def commented(section: BaseModel) -> str:
    """Return a study, or a section of it, as YAML with the meaning above each setting."""
    known, parts = meanings(type(section)), []
    for name, value in section.model_dump(mode="json").items():
        own = getattr(section, name)
        if isinstance(own, BaseModel):
            text = f"{name}:\n{textwrap.indent(commented(own), '  ')}"
        else:
            text = to_yaml({name: value})
        comment = textwrap.fill(known[name], 96)
        parts.append(textwrap.indent(f"{comment}\n", "# ") + text if comment else text)
    return "".join(parts)


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """Return the comment above a definition, and the one behind it."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    above = first
    while re.match(r"\s*# ", lines[above - 1]):
        above -= 1
    comments = [line.strip("# ") for line in lines[above:first]]
    if behind := re.search(r"# (.*)$", lines[last][node.end_col_offset :]):
        comments.append(behind[1])
    return " ".join(comments)


def _kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _plain(model: type[BaseModel], name: str, value: Any) -> str:
    field = {name: value}
    whole = model.model_construct(**field).model_dump(mode="json", include={name})
    return json.dumps(whole[name], ensure_ascii=False)


def _kind(schema: dict[str, Any]) -> str:
    """Return the type and bounds of a setting in words, from its JSON schema."""
    if "$ref" in schema:
        return f"section {schema['$ref'].rpartition('/')[2]}"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    words |= {"null": "none", "object": "names and values"}
    kind = schema.get("type", "anything")
    bounds = [text.format(f"{schema[key]:g}") for key, text in _BOUNDS.items() if key in schema]
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        inner = " and ".join(dict.fromkeys(map(_kind, items)))
        least, most = schema.get("minItems"), schema.get("maxItems")
        count = f"{least} of " if least is not None and least == most else "list of "
        return f"{count}{inner}"
    return ", ".join([words.get(kind, kind), *bounds])
