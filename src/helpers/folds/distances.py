"""Nearest-neighbour distances of samples and of the cells of the map."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from helpers.core.grid import area_mask, cell_centres, grid_step, reference_grid, thinned_grid
from helpers.core.study import Study
from helpers.prepare.domain import cells_in_and_out

MapCells = tuple[np.ndarray, np.ndarray]
"""Places of the map's cells, and which are in the potential-permafrost domain: see `map_cells`."""


def neighbour_distances(points: npt.ArrayLike, label: npt.ArrayLike) -> np.ndarray:
    """Return the distance of each point to the nearest one with another label.

    With folds as labels these are the distances that a cross-validation predicts over (Gj* of
    kNNDM); with units, those of leaving one out (Gj). They are infinite where all labels are equal.
    Points have the shape (n, 2), labels (n,).

    Examples
    --------
    >>> neighbour_distances([[0, 0], [3, 4], [3, 5]], [0, 1, 1]).tolist()
    [5.0, 5.0, 5.830951894845301]
    """
    points = np.asarray(points, float)
    label = np.unique(label, return_inverse=True)[1]
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


def prediction_distances(points: npt.ArrayLike, cells: npt.ArrayLike) -> np.ndarray:
    """Return the distance of each of the map's cells to the nearest point (Gij of kNNDM).

    Examples
    --------
    >>> prediction_distances([[0, 0], [10, 0]], [[3, 4], [10, 1]]).tolist()
    [5.0, 1.0]
    """
    return cKDTree(np.asarray(points, float)).query(np.asarray(cells, float), workers=-1)[0]


class Distribution:
    """Many values, sorted once, whose Wasserstein-1 distance from few values is quick and exact.

    Examples
    --------
    >>> Distribution([0, 2]).wasserstein([1])
    1.0
    """

    def __init__(self, values: npt.ArrayLike) -> None:
        self.values = np.sort(np.asarray(values, float))
        self._below = np.concatenate([[0], np.cumsum(self.values)]) / len(self.values)

    def wasserstein(self, others: npt.ArrayLike) -> float:
        """Return the integral of the absolute difference between the two distribution functions.

        It is taken over the quantiles: each of n other values stands for one n-th of them, in which
        it lies above our values up to its own rank among them, and below the rest.
        """
        others = np.sort(np.asarray(others, float))
        edges = np.linspace(0, 1, len(others) + 1)
        low, high = edges[:-1], edges[1:]
        turn = np.clip(np.searchsorted(self.values, others) / len(self.values), low, high)
        knots = np.linspace(0, 1, len(self._below))
        start, middle, end = (np.interp(share, knots, self._below) for share in (low, turn, high))
        return float((others * (2 * turn - low - high) + start + end - 2 * middle).sum())


def map_cells(study: Study) -> MapCells:
    """Return easting and northing of the map's cells, m, shape (m, 2), and which are in the domain.

    The domain, shape (m,), is that of potential permafrost. Of a large grid these are cells in
    regular steps (`helpers.core.grid.grid_step`).
    """
    geobox = reference_grid(study)
    step = grid_step(study)
    inside, outside = cells_in_and_out(study, step)
    row, column = np.nonzero(area_mask(study, thinned_grid(geobox, step)) & (inside | outside))
    easting, northing = (centres[::step] for centres in cell_centres(geobox))
    return np.stack([easting[column], northing[row]], axis=1), inside[row, column]
