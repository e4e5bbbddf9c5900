"""The variogram of residuals, and the variance of sums over regions that follows from it."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.spatial.distance import pdist

_BINS = 12


# Residual field -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variogram:
    """An exponential variogram: nugget + partial_sill (1 - exp(-h / reach)).

    Parameters
    ----------
    nugget, partial_sill : float
        Shares of the residuals' variance.
    reach : float
        Distance at which the correlated part has fallen to 1/e, in units of the points.
    """

    nugget: float
    partial_sill: float
    reach: float


def covariogram(points, residuals, sd, farthest):
    """Return the covariance of residuals by distance, over that of standardised residuals at one place.

    Pairs are weighted by the product of their standard deviations, for a total's variance is made where these are
    large; standardised residuals themselves have long tails, where permafrost was hardly expected and found.

    Parameters
    ----------
    points : sequence of numpy.ndarray, shape (n, 2)
        Places of the samples of each layer. Only pairs within a layer are looked at.
    residuals, sd : sequence of numpy.ndarray, shape (n,)
        Residuals, and the standard deviations that were expected of them.
    farthest : float
        Longest distance.

    Returns
    -------
    distance, covariance, weight : numpy.ndarray
        Of bins that become wider with distance; empty bins are left out.
    """
    distance = [pdist(part) for part in points]
    pairs = [np.triu_indices(len(part), 1) for part in points]
    products, weights = (
        np.concatenate([part[i] * part[j] for part, (i, j) in zip(values, pairs, strict=True)])
        for values in (residuals, sd)
    )
    distance = np.concatenate(distance)
    near = distance < farthest
    number = (np.sqrt(distance[near] / farthest) * _BINS).astype(int)
    weight = np.bincount(number, weights[near], _BINS)
    some = weight > 0
    where, covariance = (np.bincount(number, part[near], _BINS)[some] for part in (weights * distance, products))
    return where / weight[some], covariance / weight[some], weight[some]


def fit_variogram(distance, covariance, weight, farthest):
    """Fit an exponential variogram of sill 1 to a covariogram by weighted least squares.

    Parameters
    ----------
    distance, covariance, weight : numpy.ndarray
        From `covariogram`.
    farthest : float
        The correlation must have fallen to 0.05 at this distance: what reaches farther is a trend, which the resampled
        sites tell.

    Returns
    -------
    Variogram
    """
    found = []
    for reach in np.geomspace(farthest / 60, farthest / 3, 40):
        shape = np.exp(-distance / reach)
        sill = min(max(float((weight * shape * covariance).sum() / (weight * shape**2).sum()), 0.0), 1.0)
        found.append(((weight * (covariance - sill * shape) ** 2).sum(), sill, float(reach)))
    _, sill, reach = min(found)
    return Variogram(1 - sill, sill, reach)


def block_covariance(variogram, shape, side, parts=5):
    """Return the correlated part's covariance between the means of two squares of a lattice, by their lag.

    Parameters
    ----------
    variogram : Variogram
    shape : tuple of int
        Rows and columns of the lattice.
    side : float
        Of a square, in units of the variogram.
    parts : int
        Points of a square along each side, over which covariances are averaged.

    Returns
    -------
    numpy.ndarray, shape (2 rows - 1, 2 columns - 1)
        Lag 0 lies in the middle. For squares much larger than the reach it falls to 0, and for small ones it is the
        covariance between points.
    """
    # The difference of two even spreads over a square is a triangle.
    offset = np.arange(1 - parts, parts) / parts
    triangle = (parts - np.abs(np.arange(1 - parts, parts))) / parts**2
    down, right = (np.arange(1 - size, size)[:, np.newaxis] + offset for size in shape)
    down, right = (down * side).reshape(-1), (right * side).reshape(-1)
    covariance = variogram.partial_sill * np.exp(-np.hypot(down[:, np.newaxis], right) / variogram.reach)
    covariance = covariance.reshape(2 * shape[0] - 1, len(offset), 2 * shape[1] - 1, len(offset))
    return np.einsum("iajb,a,b->ij", covariance, triangle, triangle)


def field_covariance(loads, between, covariance):
    """Return the covariance of sums over a lattice: of each group of squares, the sum of load times field.

    Sums of a Gaussian field are Gaussian: this tells of them what simulated fields could, without their noise.

    Parameters
    ----------
    loads : numpy.ndarray, shape (groups, layers, rows, columns)
        What a unit of the field adds to a group's total in each square and layer.
    between : numpy.ndarray, shape (layers, layers)
        Correlation of the layers' fields in one place.
    covariance : numpy.ndarray, shape (2 rows - 1, 2 columns - 1)
        From `block_covariance`.

    Returns
    -------
    numpy.ndarray, shape (groups, groups)
    """
    spread = np.stack([[fftconvolve(covariance, load, mode="valid") for load in group] for group in loads])
    return np.einsum("glij,lm,hmij->gh", loads, between, spread)
