"""What all tests of bad inputs ask: a sentence with file, place and remedy, and nothing touched."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.core.errors import CompendiumError


def state(folder: Path) -> str:
    """Return one hash of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"/")
    return digest.hexdigest()


def assert_refused(
    call: Callable[[], object], folder: Path, error: type[CompendiumError], *parts: str
) -> None:
    """Check the class of an error, parts of its text, its remedy, and that files are as before."""
    before = state(folder)
    with pytest.raises(error) as caught:
        call()
    assert caught.value.remedy.strip()
    text = str(caught.value)
    assert [part for part in parts if part not in text] == [], text
    assert len(text) < 2000
    assert state(folder) == before
