"""The root of all errors that this project raises on purpose."""

import errno
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
    """Return items as text, and how many more there are than `most`.

    Examples
    --------
    >>> listed([3, 7, 8, 9], most=2)
    '3, 7 and 2 more'
    """
    text = ", ".join(map(str, list(items)[:most]))
    return text + (f" and {len(items) - most} more" if len(items) > most else "")


_SPACE = "free some space on this disk, then start again: what is done is kept"
_RIGHTS = "give yourself the right to write there, or use another folder"
MEMORY_REMEDY = (
    "close other programs, then start again: what is done is kept; `check` says what a run takes, "
    "and larger cells or one core take less"
)
"""What to do where memory ran out."""

_REMEDIES = {
    errno.ENOMEM: MEMORY_REMEDY,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENAMETOOLONG: "use shorter names, or a folder nearer to the root of the disk",
    errno.EMFILE: "let a process open more files: ulimit -n 4096",
}
"""What to do about what the system says of a file or a disk."""


def system_remedy(error: BaseException) -> str:
    """Return what to do about an error that the system gives a reason for; "" if that is unknown.

    Also of an error that another one caused.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REMEDIES:
            return _REMEDIES[cause.errno]
        if isinstance(cause, MemoryError):
            return MEMORY_REMEDY
        cause = cause.__cause__ or cause.__context__
    return ""
