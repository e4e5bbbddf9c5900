"""Weights: by the area that samples stand for, and by how densely they lie (de Bruin et al. 2022)."""

import numpy as np
from scipy.optimize import brentq
from scipy.spatial.distance import cdist, pdist

from helpers.folds.units import check_coordinates
from helpers.prepare.registry import read_covariates

# Weights --------------------------------------------------------------------------------------------------------------


def sampling_weights(points, cells, cell_area):
    """Return inverse sampling intensities: sites in clusters stand for less of the map than lonely ones.

    The intensity is a Gaussian kernel estimate, corrected for the part of the kernel that lies outside of the cells;
    its bandwidth is such that the inverse intensities of all samples add up to the area (Cronie and van Lieshout
    2018).

    Parameters
    ----------
    points : array_like, shape (n, 2)
        Places of the samples, all within the area of the cells.
    cells : array_like, shape (m, 2)
        Cells that are to be predicted.
    cell_area : float
        In squared units of the points.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Mean 1.

    References
    ----------
    de Bruin, S., Brus, D., Heuvelink, G., van Ebbenhorst Tengbergen, T., Wadoux, A. (2022). Dealing with clustered
    samples for assessing map accuracy by cross-validation. Ecological Informatics 69, 101665.
    https://doi.org/10.1016/j.ecoinf.2022.101665
    """
    points, cells = check_coordinates(points, "samples"), check_coordinates(cells, "cells")
    if len(points) == 1:
        return np.ones(1)
    squared, area = cdist(points, points, "sqeuclidean"), len(cells) * cell_area

    def intensity(width):
        return np.exp(-squared / (2 * width**2)).sum(axis=1) / (2 * np.pi * width**2)

    def excess(log_width):
        return np.log((1 / intensity(np.exp(log_width))).sum() / area)

    steps = pdist(points)
    low, high = np.log([steps[steps > 0].min(initial=np.sqrt(area)), np.ptp(cells, axis=0).max() + np.sqrt(cell_area)])
    width = float(np.exp(brentq(excess, low, high, xtol=1e-4) if excess(low) < 0 < excess(high) else high))
    # Half a bandwidth is fine enough for the kernel's integral; cells are counted in squares of that size.
    step = max(width / 2, np.sqrt(cell_area))
    origin = cells.min(axis=0)
    square = ((cells - origin) / step).astype(np.int64)
    rows = square[:, 1].max() + 1
    count = np.bincount(square[:, 0] * rows + square[:, 1])
    known = np.flatnonzero(count)
    middles = origin + (np.stack(np.divmod(known, rows), axis=1) + 0.5) * step
    shapes = np.exp(-cdist(points, middles, "sqeuclidean") / (2 * width**2)) @ count[known]
    inside = shapes * cell_area / (2 * np.pi * width**2)
    weight = inside / intensity(width)
    return weight / weight.mean()


def area_weights(study, table):
    """Return the share of the area that each sample stands for, over its share of the samples.

    Two strata are told apart, in and outside of the potential-permafrost domain: people drill where they expect
    permafrost, so samples alone would make the map too icy.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With columns `layer` and `in_domain`.

    Returns
    -------
    pandas.Series
        Mean 1 in each layer, unless a stratum has no sample.
    """
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    domain = float((rule[np.isfinite(rule)] > study.domain.above).mean())
    sampled = table.groupby("layer")["in_domain"].transform("mean")
    return np.where(table["in_domain"], domain / sampled, (1 - domain) / (1 - sampled))
