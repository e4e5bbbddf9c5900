"""The variogram of residuals, and the variance of sums over regions that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.spatial.distance import pdist

_BINS = 12


@dataclass(frozen=True)
class Variogram:
    """An exponential variogram: nugget + partial_sill (1 - exp(-h / reach)).

    Nugget and partial sill are shares of the residuals' variance. At `reach`, in units of the
    points, the correlated part has fallen to 1/e.
    """

    nugget: float
    partial_sill: float
    reach: float


def covariogram(
    points: Sequence[np.ndarray],
    residuals: Sequence[np.ndarray],
    sd: Sequence[np.ndarray],
    farthest: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the covariance of residuals by distance, over that of standardised ones at one place.

    Pairs are weighted by the product of their standard deviations, because a total's variance comes
    from places where these are large; standardised residuals themselves have long tails, where
    permafrost was hardly expected, and is there.

    Parameters
    ----------
    points : shape (n, 2) each
        Places of the samples of each layer. Only pairs within a layer are looked at.
    residuals, sd : shape (n,) each
        Residuals, and the standard deviations that were expected of them.
    farthest
        Longest distance.

    Returns
    -------
    distance, covariance, weight : shape (bins,)
        Bins become wider with distance; empty ones are left out.

    Examples
    --------
    >>> points = [np.array([[0, 0], [1, 0], [10, 0]])]  # two near samples and a far one
    >>> found = covariogram(points, [np.array([1, 1, -1])], [np.ones(3)], farthest=20)
    >>> distance, covariance, weight = (part.tolist() for part in found)
    >>> distance, covariance, weight  # the pairs at 9 and 10 are in one bin
    ([1.0, 9.5], [1.0, -1.0], [1.0, 2.0])
    """
    pairs = [np.triu_indices(len(part), 1) for part in points]
    products, weights = (
        np.concatenate([part[i] * part[j] for part, (i, j) in zip(values, pairs, strict=True)])
        for values in (residuals, sd)
    )
    distance = np.concatenate([pdist(part) for part in points])
    near = distance < farthest
    number = (np.sqrt(distance[near] / farthest) * _BINS).astype(int)
    weight = np.bincount(number, weights[near], _BINS)
    some = weight > 0
    where, covariance = (
        np.bincount(number, part[near], _BINS)[some] for part in (weights * distance, products)
    )
    return where / weight[some], covariance / weight[some], weight[some]


def fit_variogram(
    distance: np.ndarray, covariance: np.ndarray, weight: np.ndarray, farthest: float
) -> Variogram:
    """Fit an exponential variogram of sill 1 to a covariogram by weighted least squares.

    The correlation must have fallen to 0.05 at the distance `farthest`: what reaches farther is a
    trend, and the resampled sites account for it.

    Examples
    --------
    >>> distance = np.linspace(1, 100, 50)
    >>> covariance = 0.6 * np.exp(-distance / 20)  # 0.4 is nugget
    >>> found = fit_variogram(distance, covariance, np.ones(50), farthest=100)
    >>> round(found.nugget, 1), round(found.reach, -1)
    (0.4, 20.0)
    """
    fits = []
    for reach in np.geomspace(farthest / 60, farthest / 3, 40):
        shape = np.exp(-distance / reach)
        sill = float((weight * shape * covariance).sum() / (weight * shape**2).sum())
        sill = min(max(sill, 0.0), 1.0)
        fits.append(((weight * (covariance - sill * shape) ** 2).sum(), sill, float(reach)))
    _, sill, reach = min(fits)
    return Variogram(1 - sill, sill, reach)


def block_covariance(
    variogram: Variogram, shape: tuple[int, int], side: float, parts: int = 5
) -> np.ndarray:
    """Return the correlated part's covariance between the means of two squares, by their lag.

    The squares form a lattice of `shape` = (rows, columns); `side` is in units of the variogram.
    Covariances are averaged over `parts` points of a square along each side. Lag 0 lies in the
    middle of the result of shape (2 rows - 1, 2 columns - 1). For squares much larger than the
    reach the covariance falls to 0, and for small ones it is that between points.

    Examples
    --------
    >>> near = Variogram(nugget=0.0, partial_sill=1.0, reach=10.0)
    >>> [round(block_covariance(near, (1, 1), side).item(), 2) for side in (1, 10, 100)]
    [0.95, 0.62, 0.07]
    """
    # The difference of two even spreads over a square is a triangle.
    steps = np.arange(1 - parts, parts)
    triangle = (parts - np.abs(steps)) / parts**2
    down, right = (
        ((np.arange(1 - size, size)[:, np.newaxis] + steps / parts) * side).reshape(-1)
        for size in shape
    )
    lag = np.hypot(down[:, np.newaxis], right)
    covariance = variogram.partial_sill * np.exp(-lag / variogram.reach)
    rows, columns = shape
    covariance = covariance.reshape(2 * rows - 1, len(steps), 2 * columns - 1, len(steps))
    return np.einsum("iajb,a,b->ij", covariance, triangle, triangle)


def field_covariance(loads: np.ndarray, between: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the covariance of sums over a lattice: of each group of squares, of load times field.

    Sums of a Gaussian field are Gaussian, so that their covariance, shape (groups, groups), says
    all of them, without the noise of drawn fields.

    Parameters
    ----------
    loads : shape (groups, layers, rows, columns)
        What a unit of the field adds to a group's total in each square and layer.
    between : shape (layers, layers)
        Correlation of the layers' fields in one place.
    covariance : shape (2 rows - 1, 2 columns - 1)
        From `block_covariance`.

    Examples
    --------
    >>> loads = np.array([[[[1, 0]]], [[[0, 2]]]])  # a group in each of two squares, one layer
    >>> near = np.array([[0.5, 1, 0.5]])  # covariance of neighbours is half of the variance
    >>> field_covariance(loads, np.ones((1, 1)), near).round(2).tolist()
    [[1.0, 1.0], [1.0, 4.0]]
    """
    spread = np.stack(
        [[fftconvolve(covariance, load, mode="valid") for load in group] for group in loads]
    )
    return np.einsum("glij,lm,hmij->gh", loads, between, spread)
