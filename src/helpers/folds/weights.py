"""Weights of samples by how densely they lie."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.spatial.distance import cdist, pdist

from helpers.samples.together import check_coordinates


def sampling_weights(points: npt.ArrayLike, cells: npt.ArrayLike, cell_area: float) -> np.ndarray:
    """Return inverse sampling intensities: clustered samples stand for less of the map than others.

    The intensity is a Gaussian kernel estimate, corrected for the part of the kernel that lies
    outside of the cells; its bandwidth is such that the inverse intensities of all samples add up
    to the area (Cronie and van Lieshout 2018).

    The samples' points have the shape (n, 2), and lie within the area of the cells that are to be
    predicted, shape (m, 2). The area of a cell is in squared units of the points. Weights, shape
    (n,), have the mean 1.

    References
    ----------
    de Bruin, S., Brus, D., Heuvelink, G., van Ebbenhorst Tengbergen, T., Wadoux, A. (2022). Dealing
    with clustered samples for assessing map accuracy by cross-validation. Ecological Informatics
    69, 101665. https://doi.org/10.1016/j.ecoinf.2022.101665
    """
    points = check_coordinates(points, "samples")
    cells = check_coordinates(cells, "cells")
    if len(points) == 1:
        return np.ones(1)
    width = _bandwidth(points, cells, cell_area)
    weight = _kernel_inside(points, cells, cell_area, width) / _intensity(points, width)
    return weight / weight.mean()


def _intensity(points: np.ndarray, width: float) -> np.ndarray:
    """Return the uncorrected kernel estimate at each sample."""
    squared = cdist(points, points, "sqeuclidean")
    return np.exp(-squared / (2 * width**2)).sum(axis=1) / (2 * np.pi * width**2)


def _bandwidth(points: np.ndarray, cells: np.ndarray, cell_area: float) -> float:
    """Return the bandwidth at which the inverse intensities add up to the area, or the widest."""
    area = len(cells) * cell_area

    def excess(log_width: float) -> float:
        return np.log((1 / _intensity(points, np.exp(log_width))).sum() / area)

    steps = pdist(points)
    shortest = steps[steps > 0].min(initial=np.sqrt(area))
    low, high = np.log([shortest, np.ptp(cells, axis=0).max() + np.sqrt(cell_area)])
    crosses = excess(low) < 0 < excess(high)
    return float(np.exp(brentq(excess, low, high, xtol=1e-4) if crosses else high))


def _kernel_inside(
    points: np.ndarray, cells: np.ndarray, cell_area: float, width: float
) -> np.ndarray:
    """Return the share of each sample's kernel that lies inside of the cells."""
    # Half a bandwidth is fine enough for the kernel's integral: cells are counted in such squares.
    step = max(width / 2, np.sqrt(cell_area))
    origin = cells.min(axis=0)
    square = ((cells - origin) / step).astype(np.int64)
    rows = square[:, 1].max() + 1
    count = np.bincount(square[:, 0] * rows + square[:, 1])
    filled = np.flatnonzero(count)
    middles = origin + (np.stack(np.divmod(filled, rows), axis=1) + 0.5) * step
    shapes = np.exp(-cdist(points, middles, "sqeuclidean") / (2 * width**2)) @ count[filled]
    return shapes * cell_area / (2 * np.pi * width**2)


def effective_number(weight: npt.ArrayLike) -> float:
    """Return Kish's effective number of weighted samples, (sum w)^2 / sum w^2.

    Kish, L. (1965). Survey Sampling. Wiley.

    Examples
    --------
    >>> effective_number([1, 1, 1, 1]), effective_number([3, 1, 0, 0])
    (4.0, 1.6)
    """
    weight = np.asarray(weight, float)
    return float(weight.sum() ** 2 / np.square(weight).sum())
