"""Where a forest may be believed: dissimilarity index, area of applicability, point density.

A forest predicts anything, also ground that is like none of its samples. The dissimilarity index
is the distance of a cell to the nearest sample, in predictors weighted by their importance; the
local point density is the number of samples that are like it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.spatial.distance import cdist

from helpers.mapping.files import MapError
from helpers.prepare.columns import places_of, predictor_of, predictors_of

# Of squared 32-bit distances: within it the exact ones decide.
_RELATIVE_SLACK = 1e-4
_ABSOLUTE_SLACK = 1e-6

_FLOOR = 0.1
"""Share of cells that a published dissimilarity index gives the same lowest value.

It is 0 in the cells of the samples and nowhere else.
"""


@dataclass(frozen=True, eq=False)
class Applicability:
    """A space of predictors with a weight, in which the mean distance between two samples is 1.

    Parameters
    ----------
    centre, factor : shape (p,)
        ``(value - centre) * factor`` is the place along a predictor's axis.
    points : shape (n, p)
        Places of the samples.
    training : shape (n,)
        Dissimilarity index of each sample to those of other folds.
    threshold
        Largest dissimilarity index inside of the area of applicability.
    """

    predictors: tuple[str, ...]
    centre: np.ndarray
    factor: np.ndarray
    points: np.ndarray
    training: np.ndarray
    threshold: float

    def measure(self, values: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the dissimilarity index and the local point density of cells, in one pass.

        Distances are computed in 32 bits, and those that decide again in 64, so that results have
        full precision and do not depend on the machine. Other Python threads can run meanwhile.
        Values are of shape (cells, p).

        Returns
        -------
        dissimilarity : shape (cells,)
            Distance to the nearest sample; NaN where a predictor is.
        density : shape (cells,)
            Number of samples nearer than the threshold; 0 where a predictor is NaN.

        Examples
        --------
        >>> space = fit([[0], [1], [2], [3]], ["slope"], weights=[1], fold=[0, 1, 0, 1])
        >>> dissimilarity, density = space.measure([[1.5], [5.0]])  # amid the samples, and beyond
        >>> dissimilarity.round(2).tolist(), density.tolist()  # the threshold is 0.6
        ([0.3, 1.2], [2, 0])
        """
        values = np.asarray(values)
        if values.shape[1:] != self.centre.shape:
            message = f"Values of shape {values.shape} are not the {len(self.centre)} predictors."
            raise MapError(message, f"give {', '.join(self.predictors)}")
        space = self.centre, self.factor, self.points, self.threshold**2
        dissimilarity, density = _measure(values, *space)
        # The compiled loop takes numbers for finite, and makes infinity of what is not.
        missing = np.isnan(values).any(axis=1)
        dissimilarity[missing], density[missing] = np.nan, 0
        return dissimilarity, density


def hide_samples(index: np.ndarray) -> np.ndarray:
    """Return dissimilarity indices, (..., y, x), whose lowest values do not mark the samples."""
    floor = np.nanquantile(index, _FLOOR, axis=(-2, -1), keepdims=True)
    return np.where(np.isnan(index), np.nan, np.maximum(index, floor)).astype(index.dtype)


def fit(
    values: npt.ArrayLike, predictors: Sequence[str], weights: npt.ArrayLike, fold: npt.ArrayLike
) -> Applicability:
    """Return the space in which dissimilarity to the samples is measured, and the threshold.

    Predictors are scaled to mean 0 and standard deviation 1 and multiplied by their weights.
    Distances are shares of the mean distance between samples. The threshold is the upper whisker
    of the samples' own dissimilarity, each to the samples of other folds: third quartile and 1.5
    times the interquartile range, but no more than the largest.

    Parameters
    ----------
    values : shape (n, p)
        Predictors of the samples that the forest was grown from.
    weights : shape (p,)
        None negative, such as from `importance_weights`.
    fold : shape (n,)
        Two or more folds.

    References
    ----------
    Meyer, H., Pebesma, E. (2021). Predicting into unknown space? Estimating the area of
    applicability of spatial prediction models. Methods in Ecology and Evolution 12, 1620-1633.
    https://doi.org/10.1111/2041-210X.13650. The threshold is that of the package CAST 1.1.0.

    Examples
    --------
    >>> space = fit([[0], [1], [2], [3]], ["slope"], weights=[1], fold=[0, 1, 0, 1])
    >>> space.training.round(2).tolist()  # 1 to the next sample; the mean of all is 10 / 6
    [0.6, 0.6, 0.6, 0.6]
    >>> round(space.threshold, 2)
    0.6
    """
    values = np.asarray(values, float)
    weights = np.asarray(weights, float)
    fold = np.asarray(fold)
    if not (np.isfinite(values).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise MapError("Predictors or weights of the samples are not finite.", "drop such samples")
    if len(np.unique(fold)) < 2:
        raise MapError("All samples are in one fold.", "set `folds` so that there are two or more")
    spread = _spread(values, predictors)
    used = (weights > 0) & (spread > 0)
    if not used.any():
        raise MapError(
            "The samples do not differ in any predictor with a weight.",
            "give more sites, or other predictors",
        )
    centre = values[:, used].mean(axis=0)
    factor = weights[used] / spread[used]
    points = (values[:, used] - centre) * factor
    apart = cdist(points, points)
    mean = apart.sum() / (len(points) * (len(points) - 1))
    # Weights count by their proportions only, so they can carry the unit.
    nearest = np.where(fold[:, np.newaxis] == fold, np.inf, apart).min(axis=1) / mean
    low, high = np.quantile(nearest, [0.25, 0.75])
    threshold = min(high + 1.5 * (high - low), nearest.max())
    names = tuple(name for name, kept in zip(predictors, used, strict=True) if kept)
    factor = factor / mean
    # A category that no sample has is unlike all of them: twice as far as what counts as like.
    constant = values[:, used].std(axis=0) == 0
    factor[constant] = 2 * max(threshold, 1e-9)
    return Applicability(names, centre, factor, points / mean, nearest, float(threshold))


def _spread(values: np.ndarray, predictors: Sequence[str]) -> np.ndarray:
    """Return standard deviations; the columns of a category share one, that of all together.

    So two categories are as far apart as two values of a number are on average.
    """
    variance = values.var(axis=0, ddof=1)
    for name in predictors_of(name for name in predictors if "=" in name):
        columns = places_of(predictors, [name])
        variance[columns] = variance[columns].sum()
    return np.sqrt(variance)


def importance_weights(importance: Mapping[str, float], predictors: Sequence[str]) -> np.ndarray:
    """Return the weights of predictors, shape (p,), from their permutation importance.

    What helps no prediction has weight 0. The columns of a category have its weight. Northness and
    eastness, and sine and cosine of degrees, are one thing and share their mean. Where nothing has
    importance, as with very few samples, all weigh the same.

    Examples
    --------
    >>> importance_weights({"slope": 0.5, "northness": 0.25, "eastness": -1.0, "sand": -0.1},
    ...     ["slope", "northness", "eastness", "sand"]).tolist()
    [0.5, 0.125, 0.125, 0.0]
    """
    weights = np.maximum([importance[predictor_of(name)] for name in predictors], 0.0)
    pairs = {"eastness": "northness"}
    pairs |= {name: f"{name[:-4]}_cos" for name in predictors if name.endswith("_sin")}
    for pair in pairs.items():
        both = [k for k, name in enumerate(predictors) if name in pair]
        if both:
            weights[both] = weights[both].mean()
    return weights if weights.any() else np.ones(len(weights))


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
def _measure(
    values: np.ndarray,
    centre: np.ndarray,
    factor: np.ndarray,
    points: np.ndarray,
    limit: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each cell's distance to the nearest point, and the number within root `limit`."""
    number, size = points.shape
    dissimilarity = np.empty(len(values))
    density = np.empty(len(values), np.int64)
    columns = np.ascontiguousarray(points.T).astype(np.float32)
    squares = np.empty(number, np.float32)
    place = np.empty(size)
    low = np.float32(limit * (1 - _RELATIVE_SLACK) - _ABSOLUTE_SLACK)
    high = np.float32(limit * (1 + _RELATIVE_SLACK) + _ABSOLUTE_SLACK)
    for cell in range(len(values)):
        for k in range(size):
            place[k] = (values[cell, k] - centre[k]) * factor[k]
        squares[:] = 0
        # The inner loop runs over the points, which the processor does many at a time.
        for k in range(size):
            along = np.float32(place[k])
            for j in range(number):
                step = along - columns[k, j]
                squares[j] += step * step
        least, count = squares[0], 0
        for j in range(number):
            least = min(least, squares[j])
            count += squares[j] < low
        near = least * np.float32(1 + _RELATIVE_SLACK) + np.float32(_ABSOLUTE_SLACK)
        best = np.inf
        for j in range(number):
            doubtful = (squares[j] >= low) & (squares[j] <= high)
            if doubtful or squares[j] <= near:
                total = 0.0
                for k in range(size):
                    total += (place[k] - points[j, k]) ** 2
                best = min(best, total)
                count += doubtful & (total < limit)
        dissimilarity[cell] = np.sqrt(best)
        density[cell] = count
    return dissimilarity, density
