"""The extent of permafrost, to which ice can be confined."""

import numpy as np

PROBABILITY_SCALE = 1e-4
"""A step of the probabilities in rasters."""

UNITS = round(1 / PROBABILITY_SCALE)

MISSING = 65535
"""No probability, in rasters and chunks of them."""


def confine_to_permafrost(ice_content: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return ice content with all ice in the extent of permafrost.

    The extent is the most probable cells, as many as the probabilities of all cells add up to. The
    ice expected in the other cells is moved into it in proportion, so that the total stays. With
    few boreholes a forest cannot place the limit of permafrost sharply, and its expectation trails
    off into ground that has none: moved, less ice lies there. By benchmarks/storage_bias.py the
    mean absolute error of a cell hardly changes, and the root mean square error is larger.

    Parameters
    ----------
    ice_content : shape (cells,)
        Expected, m3 m-3.
    probability : shape (cells,)
        Of permafrost in the layer, calibrated; rounded to `PROBABILITY_SCALE`.

    Returns
    -------
    ice_content : shape (cells,)
        0 outside of the extent, never more than 1; unchanged where the probabilities do not add up
        to one cell.
    """
    chance = np.rint(probability / PROBABILITY_SCALE).astype(int)
    counts = np.bincount(chance, minlength=UNITS + 1)
    limit, share = permafrost_extent(counts, np.bincount(chance, ice_content, UNITS + 1))
    confined = np.where(chance >= limit, np.minimum(ice_content * share, 1), 0)
    return confined.astype(ice_content.dtype)


def permafrost_extent(counts: np.ndarray, content: np.ndarray) -> tuple[int, float]:
    """Return the least probability within the extent, in steps of the scale, and the ice's growth.

    `counts` and `content` are the number of cells and their ice at each step of probability. That
    is as exact as single cells: stored probabilities have no more steps.
    """
    cells = counts.sum()
    total = (counts * np.arange(UNITS + 1)).sum() / UNITS
    if total < 1:
        return 0, 1.0
    # The quantile of the cells, as numpy.quantile has it: linear between two cells.
    place = (cells - 1) * (1 - total / cells)
    low, high = np.searchsorted(np.cumsum(counts), [int(place), int(place) + 1], side="right")
    limit = int(np.ceil(low + (high - low) * (place % 1)))
    kept = content[limit:].sum()
    return limit, content.sum() / kept if kept else 1.0
