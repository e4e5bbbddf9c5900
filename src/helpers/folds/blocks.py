"""Spatial blocks, and the bootstrap that draws them."""

import numpy as np

from helpers.folds.units import check_coordinates, coordinates, sample_units

DRAWS = 1000
"""Bootstrap samples behind an interval."""


# Folds ----------------------------------------------------------------------------------------------------------------


def sample_blocks(block, draws, rng):
    """Return how often a bootstrap draws each block: whole blocks are drawn, because neighbours are not independent.

    Parameters
    ----------
    block : array_like, shape (n,)
        Block of each sample, as from `blocks`.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    number : numpy.ndarray of int, shape (n,)
        Number of each sample's block, without gaps.
    counts : numpy.ndarray of int, shape (1 + draws, blocks)
        The first row has each block once: the samples as they are.
    """
    number = np.unique(block, return_inverse=True)[1]
    blocks = number.max() + 1
    return number, np.vstack([np.ones(blocks, int), rng.multinomial(blocks, np.full(blocks, 1 / blocks), draws)])


def bootstrap(study, rows):
    """Return bootstrap draws of samples by the study's section `accuracy`: whole square blocks, see `block_draws`.

    Samples that belong together (`sample_units`) are in one block.
    """
    settings = study.accuracy
    block = blocks(coordinates(rows), sample_units(study, rows), 1000 * settings.block_km)
    return sample_blocks(block, settings.draws, np.random.default_rng(settings.seed))


def blocks(points, unit, size):
    """Return the square block that holds the middle of each sample's unit, as a number.

    Parameters
    ----------
    points : array_like, shape (n, 2)
    unit : array_like of int, shape (n,)
    size : float
        Side of a block, in units of the points.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
    """
    points, unit = check_coordinates(points, "samples"), np.unique(unit, return_inverse=True)[1]
    centres = np.stack([np.bincount(unit, column) for column in points.T], axis=1) / np.bincount(unit)[:, np.newaxis]
    return np.unique(np.floor(centres / size), axis=0, return_inverse=True)[1].ravel()[unit]
