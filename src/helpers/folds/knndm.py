"""kNNDM: folds that predict over such distances as the map is predicted over."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import cut_tree, ward
from scipy.stats import ks_2samp

from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.folds.units import check_enough, deal_units, unit_centres
from helpers.samples.together import FoldError, check_coordinates

CANDIDATES = 100
"""Numbers of clusters that kNNDM tries, and ways of dealing blocks."""

_LARGEST_FOLD = 0.5  # largest share of the samples in one fold
_CLUSTERED = 0.05  # p-value of the test below which the samples count as clustered
_SLACK = 0.05  # share of the Wasserstein distance that a class in every fold may cost


@dataclass(frozen=True, eq=False)
class SamplePoints:
    """What kNNDM needs of samples; those that are not evaluated only train."""

    points: np.ndarray  # shape (n, 2)
    unit: np.ndarray  # as from `sample_units`, without gaps; samples of one are never parted
    types: np.ndarray  # classes
    evaluated: np.ndarray  # bool, such as whether they lie in the potential-permafrost domain


@dataclass(frozen=True, eq=False)
class Matched:
    """Folds of kNNDM.

    `distances` are those of samples (``Gj``), between folds (``Gj*``) and from cells to samples
    (``Gij``, sorted), each to the nearest neighbour.
    """

    fold: np.ndarray  # shape (n,)
    clusters: int | None  # that were dealt; None where samples are not clustered
    wasserstein: float  # distance between Gj* and Gij, in units of the points
    p_value: float  # of the test whether samples lie nearer to each other than cells to samples
    distances: dict[str, np.ndarray] = field(repr=False)


def knndm(samples: SamplePoints, cells: npt.ArrayLike, folds: int, seed: int) -> Matched:
    """Deal samples into folds so that each is predicted over such distances as the map is (kNNDM).

    Where a one-sided Kolmogorov-Smirnov test does not show the samples to be clustered, the folds
    are random. Otherwise units are clustered by Ward's method into up to 100 numbers of clusters;
    clusters that hold a fold's share of the samples become folds, and the others are dealt in the
    order of their first principal coordinate. Of all partitions without a fold of over half of the
    samples, the one with the least Wasserstein-1 distance between Gj* and Gij wins.

    We add two rules. A partition that leaves a class to one fold alone, whose forest would never
    see it, loses against any that does not; and among those within 5 % of the least distance, the
    one in which the fewest folds lack a class wins.

    The test takes distances for independent, which those of neighbours are not: it calls about one
    in five random samples clustered. Their folds match the map as well as random ones.

    `cells` are all that are to be predicted, shape (m, 2), and `seed` is for random folds.

    Raises
    ------
    FoldError
        There are fewer units than folds, no cell, no evaluated sample, or coordinates that are not
        finite; or one unit holds over half of the samples.

    References
    ----------
    Linnenbrink, J., Mila, C., Ludwig, M., Meyer, H. (2024). kNNDM CV: k-fold nearest-neighbour
    distance matching cross-validation for map accuracy estimation. Geosci. Model Dev. 17,
    5897-5912. https://doi.org/10.5194/gmd-17-5897-2024

    Examples
    --------
    >>> points = np.array([[x, 0.0] for x in (0, 1, 2, 50, 51, 52)])
    >>> samples = SamplePoints(points, np.arange(6), np.zeros(6, int), np.ones(6, bool))
    >>> cells = np.linspace([0, 0], [52, 0], 53)  # most are far from all samples
    >>> knndm(samples, cells, folds=2, seed=0).fold.tolist()
    [0, 0, 0, 1, 1, 1]
    >>> knndm(samples, points + 0.5, folds=2, seed=0).fold.tolist()  # cells are near: at random
    [0, 1, 1, 0, 1, 0]
    """
    points = check_coordinates(samples.points, "samples")
    cells = check_coordinates(cells, "cells")
    evaluated = samples.evaluated
    if not evaluated.any():
        raise FoldError(
            "None of the samples is to be evaluated.",
            "set folds.judged: whole, or another folds.kind",
        )
    check_enough(samples.unit.max() + 1, folds, "units of samples that belong together")

    between = neighbour_distances(points, samples.unit)[evaluated]
    target = Distribution(prediction_distances(points, cells))
    test = ks_2samp(between, target.values, alternative="greater", method="asymp")
    if test.pvalue >= _CLUSTERED:
        fold = deal_units(samples.unit, samples.types, folds, seed)
        clusters = None
    else:
        fold, clusters = _best_partition(samples, target, folds)
    apart = neighbour_distances(points, fold)[evaluated]
    distances = {"Gj": between, "Gj*": apart, "Gij": target.values}
    return Matched(fold, clusters, target.wasserstein(apart), float(test.pvalue), distances)


def _best_partition(
    samples: SamplePoints, target: Distribution, folds: int
) -> tuple[np.ndarray, int]:
    """Return the fold of each sample, and the number of clusters, of the partition that wins."""
    count = len(samples.points)
    largest_unit = np.bincount(samples.unit).max()
    if largest_unit > _LARGEST_FOLD * count:
        raise FoldError(
            f"One unit holds {largest_unit} of {count} samples, "
            "so that a fold would hold over half of them.",
            "set folds.min_separation_km smaller, or folds.kind: random",
        )
    partitions = list(_partitions(samples, folds))
    sizes = [np.bincount(fold).max() for fold, _ in partitions]
    # Two folds can hardly be of one size: then the most even ones pass.
    limit = max(_LARGEST_FOLD * count, min(sizes))
    ways = []
    for size, (fold, clusters) in zip(sizes, partitions, strict=True):
        if size <= limit:
            apart = neighbour_distances(samples.points, fold)[samples.evaluated]
            lacking = lacking_classes(fold, samples.types, samples.unit, folds)
            ways.append((*lacking, target.wasserstein(apart), clusters, fold))
    fewest = min(way[0] for way in ways)
    ways = [way for way in ways if way[0] == fewest]
    limit = min(way[2] for way in ways) * (1 + _SLACK)
    *_, clusters, fold = min((way for way in ways if way[2] <= limit), key=lambda way: way[1:4])
    return fold, clusters


def _partitions(samples: SamplePoints, folds: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the fold of each sample for every number of clusters, and that number."""
    size = np.bincount(samples.unit)
    centres = unit_centres(samples.points, samples.unit)
    along = _first_coordinate(centres)
    numbers = np.geomspace(folds, max(folds, len(size) - 2), CANDIDATES)
    numbers = np.unique(numbers.round().astype(int))
    # cut_tree gives just these numbers, also where units are equally far apart; fcluster does not.
    for clusters, cluster in zip(numbers, cut_tree(ward(centres), numbers).T, strict=True):
        yield _deal_clusters(cluster, size, along, folds)[samples.unit], int(clusters)


def _first_coordinate(centres: np.ndarray) -> np.ndarray:
    """Return the centres' coordinate along the direction of their largest variance."""
    centred = centres - centres.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    # Which of the two ways it points depends on the processor.
    return centred @ direction * np.sign(direction[np.abs(direction).argmax()])


def _deal_clusters(
    cluster: np.ndarray, size: np.ndarray, along: np.ndarray, folds: int
) -> np.ndarray:
    """Return the fold of each unit: large clusters are folds, the others are dealt along a line."""
    weight = np.bincount(cluster, size)
    order = np.argsort(np.bincount(cluster, along * size) / weight, kind="stable")
    large = weight[order] >= size.sum() / folds
    fold = np.empty(len(weight), int)
    fold[order[large]] = np.arange(large.sum())
    rest = order[~large]
    if rest.size:
        fold[rest] = large.sum() + np.arange(rest.size) % (folds - large.sum())
    return fold[cluster]


def lacking_classes(
    fold: np.ndarray, types: np.ndarray, unit: np.ndarray, folds: int
) -> tuple[int, int]:
    """Return how many classes are in one fold alone, and how often a fold lacks a class.

    The former could be in two folds; the latter have as many units as there are folds, or more.

    Examples
    --------
    >>> fold, types = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    >>> lacking_classes(fold, types, np.arange(4), folds=2)  # class 1 is one sample
    (0, 0)
    >>> lacking_classes(fold, np.array([0, 0, 1, 1]), np.arange(4), folds=2)
    (2, 2)
    """
    classes, kind = np.unique(types, return_inverse=True)
    held = np.zeros((len(classes), folds), bool)
    held[kind, fold] = True
    pairs = np.unique(np.stack([kind, unit]), axis=1)
    units = np.bincount(pairs[0], minlength=len(classes))
    alone = ((held.sum(axis=1) == 1) & (units > 1) & (len(classes) > 1)).sum()
    return int(alone), int((~held[units >= folds]).sum())
