"""Values of a map as a page holds them: in whole steps, compressed block by block.

A *band* is one raster of numbers. Each number is a whole number of steps, plus one; 0 stands for a
cell without a value. Rows are cut into blocks, so that a page opens only those that it needs.
"""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.core.errors import CompendiumError
from helpers.core.rasters import reading

BLOCK_ROWS = 512
"""Rows of a block, as many as the blocks of a map's files have."""

STEP = 0.005
"""Of probabilities, quantiles and distances: a value on the page is off by half of it at most."""

FINE_STEP = 1e-4
"""Of ice contents that are summed up: of many cells the errors must average out."""

_MOST = 65_535


class ExplorerError(CompendiumError):
    """A page of a map that cannot be written."""


@dataclass(frozen=True)
class Band:
    """One raster for the page.

    Parameters
    ----------
    values
        Of shape (y, x); cells without one are NaN.
    step
        What values are whole multiples of on the page.
    """

    values: np.ndarray
    step: float = STEP


def quantise(values: npt.ArrayLike, step: float) -> np.ndarray:
    """Return values as whole steps plus 1, and 0 where a value is NaN.

    Numbers have 8 bits where they fit, and else 16. A value comes back with an error of half a step
    at most. ExplorerError if a value is negative, or needs more than 16 bits.

    Examples
    --------
    >>> quantise([0, 0.012, float("nan")], 0.005).tolist()
    [1, 3, 0]
    """
    values = np.asarray(values, float)
    found = np.isfinite(values)
    steps = np.rint(np.where(found, values, 0) / step) + 1
    if steps.size and (steps.min() < 1 or steps.max() > _MOST):
        raise ExplorerError(
            f"Values from {np.nanmin(values):g} to {np.nanmax(values):g} do not fit the page.",
            f"check the map: it takes 0 to {step * (_MOST - 1):g}",
        )
    small = not steps.size or steps.max() < 256
    return np.where(found, steps, 0).astype(np.uint8 if small else np.uint16)


def pack(band: Band) -> tuple[dict[str, Any], str]:
    """Return what the page has to know of a band, and its blocks as text.

    Blocks are little-endian numbers, compressed by deflate, as base64; commas are between them.

    Examples
    --------
    >>> described, _ = pack(Band(np.array([[0.0, 0.5], [np.nan, 1.0]]), step=0.5))
    >>> described  # 0, 1 and 2 steps fit into a byte
    {'step': 0.5, 'bytes': 1}
    """
    numbers = quantise(band.values, band.step)
    numbers = numbers.astype(numbers.dtype.newbyteorder("<"))
    starts = range(0, len(numbers), BLOCK_ROWS)
    blocks = [zlib.compress(numbers[row : row + BLOCK_ROWS].tobytes(), 6) for row in starts]
    text = ",".join(base64.b64encode(block).decode("ascii") for block in blocks)
    return {"step": band.step, "bytes": numbers.itemsize}, text


def unpack(described: dict[str, Any], text: str, width: int) -> np.ndarray:
    """Return the values of a packed band, (y, x), as the page reads them.

    Examples
    --------
    >>> described, text = pack(Band(np.array([[0.0, 0.26], [np.nan, 1.0]]), step=0.1))
    >>> unpack(described, text, width=2).round(1).tolist()  # whole steps come back
    [[0.0, 0.3], [nan, 1.0]]
    """
    dtype = f"<u{described['bytes']}"
    blocks = [zlib.decompress(base64.b64decode(block)) for block in text.split(",")]
    numbers = np.frombuffer(b"".join(blocks), dtype).reshape(-1, width)
    return np.where(numbers > 0, (numbers - 1.0) * described["step"], np.nan)


def finished(path: Path) -> Path:
    """Return the path of a file of a run; ExplorerError if it is missing."""
    if not path.is_file():
        raise ExplorerError(f"There is no {path.name} of this run.", "finish it with `make map`")
    return path


def read_bands(path: Path, names: tuple[str, ...], step: float) -> Iterator[tuple[str, Band]]:
    """Give the first bands of a raster by the names that the page has for them.

    ExplorerError if the file is missing.
    """
    with reading(finished(path)) as source:
        for index, name in enumerate(names, start=1):
            read = source.read(index, masked=True)
            values = read.astype(np.float32).filled(np.nan) * np.float32(source.scales[index - 1])
            yield name, Band(values, step)
