"""Files that are whole or not there: written aside and renamed; JSON, CSV, hashes."""

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from helpers.core.errors import CompendiumError

if TYPE_CHECKING:  # a stage's process starts half a second earlier without it
    import pandas as pd


_NUMBERS = {
    "bool": (r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"^[-+]?[0-9]+$", "-+0123456789"),
    "float": (
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}
"""What is a truth value or a number in YAML 1.2, and the characters that it begins with."""


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Give a path beside a file to write to; at the end of the block it takes the file's place.

    So there is a whole new file, or after an error the old one. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # On a cluster two machines may do the same job, if one of them had lost touch.
    part = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.part")
    try:
        yield part
        _write_through(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_through(path: Path) -> None:
    """Have the system write a file to the disk: a power failure must not leave an empty one."""
    if path.is_file():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_aside(path) as part:
        part.write_text(text, encoding="utf-8")


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV, without its index."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON. It may hold numpy numbers and arrays; NaN becomes null."""
    plain = to_json_value(value)
    write_text(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds; DamagedFile, which names it, if that cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{Path(path).name} in {Path(path).parent.name}/ is damaged: {error}."
        raise DamagedFile(
            message, "delete it, and run again: the stage that wrote it does"
        ) from None


def read_yaml(path: str | Path) -> Any:
    """Return what a YAML file holds, by the rules of YAML 1.2.

    So ``no`` and ``off`` are words, and 010 is ten. yaml.YAMLError if it is not readable, or if a
    key stands twice: the first would be lost without a word.
    """
    return yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)


def to_yaml(value: Any) -> str:
    """Return plain values as the text of a YAML file that `read_yaml` reads as they were.

    Examples
    --------
    >>> print(to_yaml({"title": "on", "cells": 500}), end="")  # a bare on is true in YAML 1.1
    title: 'on'
    cells: 500
    """
    return yaml.dump(value, Dumper=_YamlText, sort_keys=False, allow_unicode=True)


class DamagedFile(CompendiumError, ValueError):
    """A file of results that cannot be read."""


class _Yaml(yaml.SafeLoader):
    """A loader that makes nothing but plain values, with YAML 1.2's words and numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in lines and name != "<<":
                message = f"`{name}` stands twice, in lines {lines[name]} and {line}"
                raise yaml.constructor.ConstructorError(problem=message)
            lines[name] = line
        return super().construct_mapping(node, deep)


class _YamlText(yaml.SafeDumper):
    """A writer that puts quotes about what is a number or a truth value in YAML 1.1 or 1.2."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in _NUMBERS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_rule, _first) in _NUMBERS.items():
    for _one in (_Yaml, _YamlText):
        _one.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_rule), list(_first))
_Yaml.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def write_tables(path: str | Path, table: "pd.DataFrame", keys: Sequence[str]) -> dict[str, Any]:
    """Write a table as CSV, and as JSON nested by the values of some of its columns; return that.

    The path has no suffix. The keys, the outermost first, must together differ in every row.
    """
    record: dict[str, Any] = {}
    for row in table.to_dict("records"):
        *outer, last = [str(row.pop(name)) for name in keys]
        place = record
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = row
    write_table(f"{path}.csv", table)
    write_json(f"{path}.json", record)
    return record


def to_json_value(value: Any) -> Any:
    """Return a value of plain Python types, with None for what is not finite.

    Examples
    --------
    >>> to_json_value({1: np.array([0.5, np.nan]), "n": np.int64(3)})
    {'1': [0.5, None], 'n': 3}
    """
    if isinstance(value, dict):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json_value(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short_hash(value: Any, length: int = 10) -> str:
    """Return the first hexadecimal digits of the SHA-256 of any JSON-serialisable value.

    Examples
    --------
    >>> short_hash(1), short_hash(1, length=4)
    ('6b86b273ff', '6b86')
    >>> short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1})  # keys have no order
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
