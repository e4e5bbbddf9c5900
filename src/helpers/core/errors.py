"""The root of all errors that this project raises on purpose."""

from collections.abc import Collection
from typing import Any


class CompendiumError(Exception):
    """An error that a user can mend.

    Its message names the file, the column or layer, and the rows or cells; its remedy says in one
    sentence what to do about it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\nRemedy: {self.remedy}"


def listed(items: Collection[Any], most: int = 10) -> str:
    """Return items as text, and how many more there are than `most`."""
    text = ", ".join(map(str, list(items)[:most]))
    return text + (f" and {len(items) - most} more" if len(items) > most else "")
