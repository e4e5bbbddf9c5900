"""kNNDM: folds that predict over such distances as the map is predicted over (Linnenbrink et al. 2024)."""

from dataclasses import dataclass, field

import numpy as np
from scipy.cluster.hierarchy import cut_tree, ward

from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.folds.units import SLACK, FoldError, check_coordinates, check_enough, site_folds

LARGEST_FOLD = 0.5
"""Largest share of the samples in one fold of kNNDM."""


CLUSTERED = 0.05
"""Below this p-value of the Kolmogorov-Smirnov test the samples count as clustered."""


CANDIDATES = 100  # numbers of clusters that kNNDM tries, and ways of dealing blocks


@dataclass(frozen=True, eq=False)
class Matched:
    """Folds of kNNDM.

    Parameters
    ----------
    fold : numpy.ndarray of int, shape (n,)
    clusters : int or None
        Number of clusters that were dealt; None where the samples are not clustered and the folds random.
    wasserstein : float
        Distance between Gj* and Gij, in units of the points.
    p_value : float
        Of the test whether samples lie nearer to each other than cells to samples.
    """

    fold: np.ndarray
    clusters: int | None
    wasserstein: float
    p_value: float
    distances: dict = field(repr=False)
    """The samples' own (``Gj``), the folds' (``Gj*``) and the cells' (``Gij``, sorted) nearest-neighbour distances."""


def knndm(points, cells, folds, seed, unit=None, types=None, judged=None):
    """Deal samples into folds so that each is predicted over such distances as the map is (kNNDM).

    Where a one-sided Kolmogorov-Smirnov test does not show the samples to be clustered, the folds are random. Otherwise
    units are clustered by Ward's method into up to 100 numbers of clusters; clusters that hold a fold's share of the
    samples become folds, and the others are dealt in the order of their first principal coordinate. Of all partitions
    without a fold of over half of the samples, the one with the least Wasserstein-1 distance between Gj* and Gij wins.

    We add two rules. A partition that leaves a class to one fold alone, whose forest would never see it, loses against
    any that does not; and among those within 5 % of the least distance, the one in which the fewest folds lack a class
    wins.

    The test takes distances for independent, which those of neighbours are not: it finds about one in five samples
    clustered that were drawn at random. Their folds match the map as well as random ones.

    Parameters
    ----------
    points : array_like, shape (n, 2)
        Places of the samples.
    cells : array_like, shape (m, 2)
        Cells that are to be predicted, all of them.
    folds : int
    seed : int
        Of random folds.
    unit : array_like, shape (n,), optional
        Samples of one unit are never parted. Each is one by default.
    types : array_like of int, shape (n,), optional
        Classes.
    judged : array_like of bool, shape (n,), optional
        The samples whose predictions are to be judged, such as those in the potential-permafrost domain; the others
        only train. All by default.

    Returns
    -------
    Matched

    Raises
    ------
    FoldError
        There are fewer units than folds, no cell, no judged sample, or coordinates that are not finite; or one unit
        holds over half of the samples.

    References
    ----------
    Linnenbrink, J., Mila, C., Ludwig, M., Meyer, H. (2024). kNNDM CV: k-fold nearest-neighbour distance matching
    cross-validation for map accuracy estimation. Geosci. Model Dev. 17, 5897-5912.
    https://doi.org/10.5194/gmd-17-5897-2024
    """
    from scipy.stats import ks_2samp

    points, cells = check_coordinates(points, "samples"), check_coordinates(cells, "cells")
    unit = np.unique(np.arange(len(points)) if unit is None else unit, return_inverse=True)[1]
    types = np.zeros(len(points), int) if types is None else np.asarray(types)
    judged = np.ones(len(points), bool) if judged is None else np.asarray(judged, bool)
    size = np.bincount(unit)
    if not judged.any():
        raise FoldError("None of the samples is to be judged.", "set folds.judged: whole, or another folds.kind")
    check_enough(len(size), folds, "units of samples that belong together")

    between, target = neighbour_distances(points, unit), Distribution(prediction_distances(points, cells))
    p_value = float(ks_2samp(between[judged], target.values, alternative="greater", method="asymp").pvalue)

    def result(fold, clusters):
        apart = neighbour_distances(points, fold)[judged]
        distances = {"Gj": between[judged], "Gj*": apart, "Gij": target.values}
        return Matched(fold, clusters, target.wasserstein(apart), p_value, distances)

    if p_value >= CLUSTERED:
        return result(site_folds(unit, types, folds, seed), None)
    if size.max() > LARGEST_FOLD * len(points):
        raise FoldError(
            f"One unit holds {size.max()} of {len(points)} samples, so that a fold would hold over half of them.",
            "set folds.together_km smaller, or folds.kind: random",
        )
    centres = np.stack([np.bincount(unit, column) / size for column in points.T], axis=1)
    tree, along, dealt = ward(centres), _first_coordinate(centres), []
    numbers = np.unique(np.geomspace(folds, max(folds, len(size) - 2), CANDIDATES).round().astype(int))
    # cut_tree gives just these numbers, also where units are equally far apart, and fcluster does not.
    for clusters, cluster in zip(numbers, cut_tree(tree, numbers).T, strict=True):
        fold = _dealt(cluster, size, along, folds)[unit]
        dealt.append((np.bincount(fold).max(), int(clusters), fold))
    # Two folds can hardly be of one size: then the most even ones pass.
    limit = max(LARGEST_FOLD * len(points), min(one[0] for one in dealt))
    found = []
    for largest, clusters, fold in dealt:
        if largest <= limit:
            distance = target.wasserstein(neighbour_distances(points, fold)[judged])
            found.append((*lacking_classes(fold, types, unit, folds), distance, clusters, fold))
    unseen = min(one[0] for one in found)
    limit = min(one[2] for one in found if one[0] == unseen) * (1 + SLACK)
    *_, clusters, fold = min((one for one in found if one[0] == unseen and one[2] <= limit), key=lambda one: one[1:4])
    return result(fold, clusters)


def _first_coordinate(centres):
    """Return the centres' coordinate along the direction of their largest variance."""
    centred = centres - centres.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    # Which of the two ways it points depends on the processor.
    return centred @ direction * np.sign(direction[np.abs(direction).argmax()])


def _dealt(cluster, size, along, folds):
    """Return the fold of each unit: large clusters are folds, the others are dealt in their order along a line."""
    weight = np.bincount(cluster, size)
    order = np.argsort(np.bincount(cluster, along * size) / weight, kind="stable")
    large = weight[order] >= size.sum() / folds
    fold = np.empty(len(weight), int)
    fold[order[large]] = np.arange(large.sum())
    rest = order[~large]
    if rest.size:
        fold[rest] = large.sum() + np.arange(rest.size) % (folds - large.sum())
    return fold[cluster]


def lacking_classes(fold, types, unit, folds):
    """Return how many classes are in one fold alone though they could be in two, and how often a fold lacks a class.

    A class of fewer units than folds cannot be in each, so it is not counted among the latter.
    """
    classes, kind = np.unique(types, return_inverse=True)
    held = np.zeros((len(classes), folds), bool)
    held[kind, fold] = True
    units = np.bincount(np.unique(np.stack([kind, unit]), axis=1)[0], minlength=len(classes))
    unseen = ((held.sum(axis=1) == 1) & (units > 1) & (len(classes) > 1)).sum()
    return int(unseen), int((~held[units >= folds]).sum())
