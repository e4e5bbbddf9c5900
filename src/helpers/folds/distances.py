"""Nearest-neighbour distances of samples and of the cells of the map."""

import numpy as np
from scipy.spatial import cKDTree

from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.prepare.registry import read_covariates

# Distances ------------------------------------------------------------------------------------------------------------


def neighbour_distances(points, label=None):
    """Return the distance of each point to the nearest one with another label.

    With folds as labels these are the distances that a cross-validation predicts over (Gj* of kNNDM); without labels,
    those of leaving one out (Gj).

    Parameters
    ----------
    points : array_like, shape (n, 2)
    label : array_like, shape (n,), optional
        A label of its own for each point by default.

    Returns
    -------
    numpy.ndarray, shape (n,)
        In units of the points; infinite where there is no other label.

    Examples
    --------
    >>> neighbour_distances([[0, 0], [3, 4], [3, 5]]).tolist()
    [5.0, 1.0, 1.0]
    >>> neighbour_distances([[0, 0], [3, 4], [3, 5]], [0, 1, 1]).tolist()
    [5.0, 5.0, 5.830951894845301]
    """
    points = np.asarray(points, float)
    label = np.arange(len(points)) if label is None else np.unique(label, return_inverse=True)[1]
    count = np.bincount(label, minlength=1)
    distances = np.full(len(points), np.inf)
    if len(count) < 2:
        return distances
    alone = count[label] == 1
    if alone.any():
        distances[alone] = cKDTree(points).query(points[alone], k=2)[0][:, 1]
    for number in np.flatnonzero(count > 1):
        inside = label == number
        distances[inside] = cKDTree(points[~inside]).query(points[inside])[0]
    return distances


def prediction_distances(points, cells):
    """Return the distance of each cell of the map to the nearest sample (Gij of kNNDM).

    Parameters
    ----------
    points : array_like, shape (n, 2)
    cells : array_like, shape (m, 2)

    Returns
    -------
    numpy.ndarray, shape (m,)
    """
    return cKDTree(np.asarray(points, float)).query(np.asarray(cells, float), workers=-1)[0]


class Distribution:
    """Many values, sorted once, from which the Wasserstein-1 distance of few values is quick and exact.

    Parameters
    ----------
    values : array_like, shape (m,)

    Examples
    --------
    >>> Distribution([0, 2]).wasserstein([1])
    1.0
    """

    def __init__(self, values):
        self.values = np.sort(np.asarray(values, float))
        self._below = np.concatenate([[0], np.cumsum(self.values)]) / len(self.values)

    def wasserstein(self, others):
        """Return the integral of the absolute difference between the two distribution functions.

        It is taken over the quantiles: each of n other values stands for one n-th of them, in which it lies above our
        values up to its own rank among them, and below the rest.
        """
        others = np.sort(np.asarray(others, float))
        edges = np.linspace(0, 1, len(others) + 1)
        turn = np.clip(np.searchsorted(self.values, others) / len(self.values), edges[:-1], edges[1:])
        knots = np.linspace(0, 1, len(self._below))
        start, middle, end = (np.interp(share, knots, self._below) for share in (edges[:-1], turn, edges[1:]))
        return float((others * (2 * turn - edges[:-1] - edges[1:]) + start + end - 2 * middle).sum())


def map_cells(study):
    """Return the places of all cells of the map.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    places : numpy.ndarray, shape (m, 2)
        Easting and northing of the centres, m.
    in_domain : numpy.ndarray of bool, shape (m,)
        Whether they lie in the potential-permafrost domain.
    """
    geobox = reference_grid(study)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    row, column = np.nonzero(area_mask(study, geobox) & np.isfinite(rule))
    easting, northing = cell_centres(geobox)
    return np.stack([easting[column], northing[row]], axis=1), rule[row, column] > study.domain.above
