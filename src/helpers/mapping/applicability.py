"""Where a forest may be believed: dissimilarity to its samples, area of applicability, local point density.

A forest predicts anything, also ground that is like none of its samples. The dissimilarity index tells how far a cell
lies from the nearest sample, in predictors that are weighted by their importance; the local point density, how many
samples are like it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial.distance import cdist

from helpers.core.errors import CompendiumError

_SLACK = (1e-4, 1e-6)  # of squared 32-bit distances, relative and absolute: within it the exact ones decide


class ApplicabilityError(CompendiumError):
    """Samples or weights from which no area of applicability follows."""


@dataclass(frozen=True, eq=False)
class Applicability:
    """What dissimilarity is measured by, in a space where the mean distance between two samples is 1.

    Parameters
    ----------
    predictors : tuple of str
        Those with a weight above 0.
    centre, factor : numpy.ndarray, shape (p,)
        ``(value - centre) * factor`` is the place along a predictor's axis.
    points : numpy.ndarray, shape (n, p)
        Places of the samples.
    training : numpy.ndarray, shape (n,)
        Dissimilarity index of each sample to those of other folds.
    threshold : float
        Largest dissimilarity index inside of the area of applicability.
    """

    predictors: tuple
    centre: np.ndarray
    factor: np.ndarray
    points: np.ndarray
    training: np.ndarray
    threshold: float

    def measure(self, values):
        """Return the dissimilarity index and the local point density of cells, both in one pass.

        Memory does not grow with the number of cells but for the results. Distances are found in 32 bits; those that
        decide are computed again in 64, so that results have full precision and do not depend on the machine. Other
        Python threads can run meanwhile.

        Parameters
        ----------
        values : numpy.ndarray, shape (cells, p)
            The `predictors`.

        Returns
        -------
        dissimilarity : numpy.ndarray, shape (cells,)
            Distance to the nearest sample; NaN where a predictor is.
        density : numpy.ndarray of int, shape (cells,)
            Samples nearer than the threshold; 0 where a predictor is NaN.
        """
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != len(self.predictors):
            raise ApplicabilityError(
                f"Values of shape {values.shape} are not the {len(self.predictors)} predictors with a weight.",
                f"give a column for each of {', '.join(self.predictors)}",
            )
        dissimilarity, density = np.full(len(values), np.nan), np.zeros(len(values), np.int64)
        columns = np.ascontiguousarray(self.points.T, np.float32)
        _measure(
            values, self.centre, self.factor, self.points, columns, self.threshold**2, *_SLACK, dissimilarity, density
        )
        return dissimilarity, density


def fit(values, predictors, weights, fold):
    """Return how dissimilarity to samples is measured, and the threshold of the area of applicability.

    Predictors are scaled to mean 0 and standard deviation 1 and multiplied by their weights. Distances are given as
    shares of the mean distance between samples. The threshold is the upper whisker of the samples' own
    dissimilarity, each to the samples of other folds: third quartile and 1.5 times the interquartile range, but no
    more than the largest.

    Parameters
    ----------
    values : array_like, shape (n, p)
        Predictors of the samples that the forest was grown from.
    predictors : sequence of str
    weights : array_like, shape (p,)
        None negative, such as from `importance_weights`.
    fold : array_like, shape (n,)
        Two or more folds.

    Returns
    -------
    Applicability

    Raises
    ------
    ApplicabilityError
        Values or weights are not finite, all samples are alike in what has a weight, or there is one fold only.

    References
    ----------
    Meyer, H., Pebesma, E. (2021). Predicting into unknown space? Estimating the area of applicability of spatial
    prediction models. Methods in Ecology and Evolution 12, 1620-1633. https://doi.org/10.1111/2041-210X.13650
    The threshold is that of the package CAST 1.1.0.
    """
    values, weights, fold = np.asarray(values, float), np.asarray(weights, float), np.asarray(fold)
    if not (np.isfinite(values).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ApplicabilityError("Predictors or weights of the samples are not finite.", "drop such samples")
    if len(np.unique(fold)) < 2:
        raise ApplicabilityError("All samples are in one fold.", "set `folds` so that there are two or more")
    spread = values.std(axis=0, ddof=1)
    used = (weights > 0) & (spread > 0)
    if not used.any():
        raise ApplicabilityError(
            "The samples do not differ in any predictor with a weight.", "give more sites, or other predictors"
        )
    centre, factor = values[:, used].mean(axis=0), weights[used] / spread[used]
    points = (values[:, used] - centre) * factor
    apart = cdist(points, points)
    mean = apart.sum() / (len(points) * (len(points) - 1))
    # Weights count by their proportions only, so they can carry the unit.
    nearest = np.where(fold[:, np.newaxis] == fold, np.inf, apart).min(axis=1) / mean
    low, high = np.quantile(nearest, [0.25, 0.75])
    threshold = min(high + 1.5 * (high - low), nearest.max())
    names = tuple(name for name, kept in zip(predictors, used, strict=True) if kept)
    return Applicability(names, centre, factor / mean, points / mean, nearest, float(threshold))


def importance_weights(importance, predictors):
    """Return the weights of predictors from their permutation importance.

    What helps no prediction has none. Northness and eastness are one thing, the aspect, and share their mean. Where
    nothing has importance, as with very few samples, all weigh the same.

    Parameters
    ----------
    importance : dict of str to float
        Of each predictor.
    predictors : sequence of str

    Returns
    -------
    numpy.ndarray, shape (p,)

    Raises
    ------
    ApplicabilityError
        A predictor has no importance.

    Examples
    --------
    >>> importance_weights({"slope": 0.5, "northness": 0.25, "eastness": -1.0, "sand": -0.1},
    ...     ["slope", "northness", "eastness", "sand"]).tolist()
    [0.5, 0.125, 0.125, 0.0]
    """
    if unknown := [name for name in predictors if name not in importance]:
        raise ApplicabilityError(
            f"There is no importance of the predictor {', '.join(unknown[:5])}.",
            "give the importance of every predictor",
        )
    weights = np.maximum([importance[name] for name in predictors], 0.0)
    aspect = [k for k, name in enumerate(predictors) if name in ("northness", "eastness")]
    if aspect:
        weights[aspect] = weights[aspect].mean()
    return weights if weights.any() else np.ones(len(weights))


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
def _measure(values, centre, factor, points, columns, limit, relative, absolute, dissimilarity, density):
    """Fill in the distance of each cell to the nearest point, and how many points are within the limit (squared)."""
    number, size = points.shape
    squares, place = np.empty(number, np.float32), np.empty(size)
    low, high = np.float32(limit * (1 - relative) - absolute), np.float32(limit * (1 + relative) + absolute)
    for cell in range(len(values)):
        total = 0.0
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
        near, best = least * np.float32(1 + relative) + np.float32(absolute), np.inf
        for j in range(number):
            doubtful = (squares[j] >= low) & (squares[j] <= high)
            if doubtful or squares[j] <= near:
                total = 0.0
                for k in range(size):
                    total += (place[k] - points[j, k]) ** 2
                best = min(best, total)
                count += doubtful & (total < limit)
        dissimilarity[cell], density[cell] = np.sqrt(best), count
