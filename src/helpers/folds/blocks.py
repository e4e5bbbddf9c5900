"""Spatial blocks, and the bootstrap that draws them."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from helpers.core.study import Study
from helpers.folds.units import unit_centres
from helpers.samples.together import check_coordinates, coordinates, sample_units

DRAWS = 1000
"""Bootstrap samples behind an interval."""


def sample_blocks(
    block: npt.ArrayLike, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return how often a bootstrap draws each block: neighbours are not independent, blocks are.

    Returns
    -------
    number : shape (n,)
        Number of each sample's block, without gaps.
    counts : shape (1 + draws, blocks)
        The first row has each block once: the samples as they are.

    Examples
    --------
    >>> number, counts = sample_blocks(["a", "b", "b"], 2, np.random.default_rng(1))
    >>> number.tolist(), counts[0].tolist(), counts[1:].sum(axis=1).tolist()
    ([0, 1, 1], [1, 1], [2, 2])
    """
    number = np.unique(block, return_inverse=True)[1]
    blocks = number.max() + 1
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), draws)
    return number, np.vstack([np.ones(blocks, int), counts])


def bootstrap(study: Study, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return `sample_blocks` of samples, by the study's section `accuracy`.

    Samples that belong together (`sample_units`) are in one block.
    """
    settings = study.accuracy
    block = study_blocks(study, rows, settings.block_km)
    return sample_blocks(block, settings.draws, np.random.default_rng(settings.seed))


def study_blocks(study: Study, rows: pd.DataFrame, km: float) -> np.ndarray:
    """Return the number of each sample's block, by `blocks` so many km wide, shape (n,)."""
    return blocks(coordinates(rows), sample_units(study, rows), 1000 * km)


def blocks(points: npt.ArrayLike, unit: npt.ArrayLike, size: float) -> np.ndarray:
    """Return the number of the square block, `size` wide, that holds the middle of each unit.

    Points have the shape (n, 2), units and result (n,).

    Examples
    --------
    >>> places = [[1, 1], [8, 2], [14, 3], [95, 95]]
    >>> blocks(places, ["a", "b", "b", "c"], size=10).tolist()  # the middle of b is at 11
    [0, 1, 1, 2]
    """
    points = check_coordinates(points, "samples")
    unit = np.unique(unit, return_inverse=True)[1]
    corner = np.floor(unit_centres(points, unit) / size)
    return np.unique(corner, axis=0, return_inverse=True)[1].ravel()[unit]
