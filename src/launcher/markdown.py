"""Pages of Markdown whose numbers a run fills in: tables, and blocks between two marked lines."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launcher.stages import RunError


def table(rows: Iterable[Mapping[Any, str]]) -> str:
    """Return a table in Markdown, with the keys of rows as its heads.

    Examples
    --------
    >>> print(table([{"class": "Unfrozen", "cells": "139"}]))
    | class | cells |
    |---|---|
    | Unfrozen | 139 |
    """
    rows = list(rows)
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], *(one.values() for one in rows))]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def with_blocks(page: Path, blocks: Mapping[str, str]) -> str:
    """Return the text of a page with other blocks, which stand between two lines with their name.

    RunError if the page has no such lines.
    """
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        opening, closing = f"<!-- {name}:begin", f"<!-- {name}:end -->"
        begin, end = text.find(opening), text.find(closing)
        if begin < 0 or end < begin:
            message = f"{page.name} has no place for the results of {name}."
            raise RunError(message, f"put the lines `{opening} -->` and `{closing}` into it")
        head = text[: text.index("\n", begin) + 1]
        text = f"{head}{block}\n{text[end:]}"
    return text
