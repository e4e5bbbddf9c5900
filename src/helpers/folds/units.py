"""Units that no fold parts: samples of one cell or area, and sites that lie close together."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from helpers.core.errors import CompendiumError
from helpers.samples.rows import ForestError

SLACK = 0.05  # share of the Wasserstein distance that a class in every fold may cost


class FoldError(CompendiumError):
    """Samples that cannot be dealt into the folds that were asked for."""


def units(points, group, distance):
    """Return which samples belong together: those of a group, and those that a chain of short steps joins.

    Parameters
    ----------
    points : array_like, shape (n, 2)
    group : array_like, shape (n,)
    distance : float
        Longest step between two samples of a unit.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Number of each sample's unit.

    Examples
    --------
    >>> units([[0, 0], [0, 1], [0, 5], [0, 9]], ["a", "b", "b", "c"], 2).tolist()
    [0, 0, 0, 1]
    """
    points = check_coordinates(points, "samples")
    near = cKDTree(points).query_pairs(distance, output_type="ndarray")
    return components(len(points), np.unique(group, return_inverse=True)[1], pairs=near)


def components(count, *labels, pairs=()):
    """Return the number of each sample's connected component, where equal labels and pairs connect."""
    links = [np.reshape(pairs, (-1, 2)).astype(int)]
    for label in labels:
        order = np.argsort(label, kind="stable")
        links.append(np.stack([order[:-1], order[1:]], axis=1)[np.diff(label[order]) == 0])
    first, second = np.concatenate(links).T
    return connected_components(coo_matrix((np.ones(len(first)), (first, second)), (count, count)), directed=False)[1]


def sample_units(study, rows):
    """Return the number of each sample's unit by the study's settings: see `units`."""
    return units(coordinates(rows), column_values(rows, "group").astype(str), 1000 * study.folds.together_km)


def coordinates(rows):
    """Return easting and northing of samples, m, shape (n, 2)."""
    return np.stack([column_values(rows, "easting"), column_values(rows, "northing")], axis=1)


def column_values(rows, name):
    """Return a column of the samples; raise FoldError if there is none of this name."""
    if name not in rows:
        raise FoldError(
            f"The samples have no column {name}.", "name it in samples.more_columns, or correct folds.column"
        )
    return rows[name].to_numpy()


def check_coordinates(points, what):
    """Return coordinates, shape (n, 2); raise FoldError where some are not finite."""
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise FoldError(
            f"Coordinates of {what} have the shape {points.shape}.", "give easting and northing of one or more"
        )
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise FoldError(f"{bad} {what} have no finite coordinates.", "drop them, as 02-extract-samples does")
    return points


def check_enough(number, folds, what):
    """Raise FoldError where there are fewer units than folds."""
    if number < folds:
        raise FoldError(
            f"{number} {what} cannot be dealt into {folds} folds.",
            "set fewer folds.number, or smaller folds.block_km or folds.together_km; or give more sites",
        )


def site_folds(sites, types, folds, seed):
    """Deal sites at random into folds, so that every fold has about the same share of every class.

    Parameters
    ----------
    sites : array_like, shape (n,)
        Site of each sample; samples of one site are never parted. A site counts as its highest class.
    types : array_like of int, shape (n,)
        Class of each sample.
    folds : int
    seed : int

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Fold of each sample, 0 to folds - 1: scikit-learn's ``PredefinedSplit`` takes it.

    Raises
    ------
    ForestError
        There are fewer sites than folds.
    """
    names, number = np.unique(np.asarray(sites), return_inverse=True)
    if len(names) < folds:
        raise ForestError(
            f"{len(names)} sites cannot be dealt into {folds} folds.",
            "give more sites, or set fewer `folds.number`",
        )
    highest = np.full(len(names), -1)
    np.maximum.at(highest, number, np.asarray(types))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    # One round of dealing for all classes: the next goes on where the last one stopped: folds of one size.
    dealt = shuffled[np.argsort(highest[shuffled], kind="stable")]
    fold = np.empty(len(names), int)
    fold[dealt] = np.arange(len(names)) % folds
    return fold[number]
