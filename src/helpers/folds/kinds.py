"""Samples in space: nearest-neighbour distances, folds that respect them, and weights of clustered samples.

Coordinates are easting and northing in metres. What may never be parted is a *unit*: samples of one group (a cell, a
training area), and sites nearer to each other than `folds.together_km`.
"""

from dataclasses import dataclass, field

import numpy as np

from helpers.core.errors import CompendiumError
from helpers.forest.models import site_folds

LARGEST_FOLD = 0.5
"""Largest share of the samples in one fold of kNNDM."""


CLUSTERED = 0.05
"""Below this p-value of the Kolmogorov-Smirnov test the samples count as clustered."""


DRAWS = 1000
"""Bootstrap samples behind an interval."""


_CANDIDATES = 100  # numbers of clusters that kNNDM tries, and ways of dealing blocks


_SLACK = 0.05  # share of the Wasserstein distance that a class in every fold may cost


class FoldError(CompendiumError):
    """Samples that cannot be dealt into the folds that were asked for."""


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
    from scipy.spatial import cKDTree

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
    from scipy.spatial import cKDTree

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


# Folds ----------------------------------------------------------------------------------------------------------------


def block_draws(block, draws, rng):
    """Return how often a bootstrap draws each block: whole blocks are drawn, because neighbours are not independent.

    Parameters
    ----------
    block : array_like, shape (n,)
        Block of each sample, as from `blocks`.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    number : numpy.ndarray of int, shape (n,)
        Number of each sample's block, without gaps.
    counts : numpy.ndarray of int, shape (1 + draws, blocks)
        The first row has each block once: the samples as they are.
    """
    number = np.unique(block, return_inverse=True)[1]
    blocks = number.max() + 1
    return number, np.vstack([np.ones(blocks, int), rng.multinomial(blocks, np.full(blocks, 1 / blocks), draws)])


def bootstrap(study, rows):
    """Return bootstrap draws of samples by the study's section `accuracy`: whole square blocks, see `block_draws`.

    Samples that belong together (`sample_units`) are in one block.
    """
    settings = study.accuracy
    block = blocks(_places(rows), sample_units(study, rows), 1000 * settings.block_km)
    return block_draws(block, settings.draws, np.random.default_rng(settings.seed))


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
    from scipy.cluster.hierarchy import cut_tree, ward
    from scipy.stats import ks_2samp

    points, cells = _checked(points, "samples"), _checked(cells, "cells")
    unit = np.unique(np.arange(len(points)) if unit is None else unit, return_inverse=True)[1]
    types = np.zeros(len(points), int) if types is None else np.asarray(types)
    judged = np.ones(len(points), bool) if judged is None else np.asarray(judged, bool)
    size = np.bincount(unit)
    if not judged.any():
        raise FoldError("None of the samples is to be judged.", "set folds.judged: whole, or another folds.kind")
    _enough(len(size), folds, "units of samples that belong together")

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
    numbers = np.unique(np.geomspace(folds, max(folds, len(size) - 2), _CANDIDATES).round().astype(int))
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
            found.append((*_lacking(fold, types, unit, folds), distance, clusters, fold))
    unseen = min(one[0] for one in found)
    limit = min(one[2] for one in found if one[0] == unseen) * (1 + _SLACK)
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


def _lacking(fold, types, unit, folds):
    """Return how many classes are in one fold alone though they could be in two, and how often a fold lacks a class.

    A class of fewer units than folds cannot be in each, so it is not counted among the latter.
    """
    classes, kind = np.unique(types, return_inverse=True)
    held = np.zeros((len(classes), folds), bool)
    held[kind, fold] = True
    units = np.bincount(np.unique(np.stack([kind, unit]), axis=1)[0], minlength=len(classes))
    unseen = ((held.sum(axis=1) == 1) & (units > 1) & (len(classes) > 1)).sum()
    return int(unseen), int((~held[units >= folds]).sum())


def group_folds(group, types, folds, rng, unit=None):
    """Deal whole groups, such as blocks or regions, into folds: of many random ways the most even one.

    Parameters
    ----------
    group : array_like, shape (n,)
    types : array_like of int, shape (n,)
        Classes.
    folds : int
    rng : numpy.random.Generator
    unit : array_like, shape (n,), optional
        Groups that share a unit are joined. Each sample is one by default.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        The fewest classes left to one fold alone, then the fewest folds that lack a class, then the smallest
        largest fold.

    Raises
    ------
    FoldError
        There are fewer groups than folds.
    """
    group, types = np.unique(group, return_inverse=True)[1], np.asarray(types)
    unit = np.arange(len(group)) if unit is None else np.unique(unit, return_inverse=True)[1]
    group = _components(len(group), group, unit)
    number = int(group.max(initial=-1)) + 1
    _enough(number, folds, "groups of samples")
    ways = []
    for _ in range(_CANDIDATES):
        of_group = np.empty(number, int)
        of_group[rng.permutation(number)] = np.arange(number) % folds
        fold = of_group[group]
        ways.append((*_lacking(fold, types, unit, folds), np.bincount(fold).max(), len(ways), fold))
    return min(ways, key=lambda way: way[:4])[-1]


def units(points, group, distance):
    """Return which samples belong together: those of a group, and those that a chain of short steps joins.

    Parameters
    ----------
    points : array_like, shape (n, 2)
    group : array_like, shape (n,)
    distance : float
        Longest step between two samples of a unit.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Number of each sample's unit.

    Examples
    --------
    >>> units([[0, 0], [0, 1], [0, 5], [0, 9]], ["a", "b", "b", "c"], 2).tolist()
    [0, 0, 0, 1]
    """
    from scipy.spatial import cKDTree

    points = _checked(points, "samples")
    near = cKDTree(points).query_pairs(distance, output_type="ndarray")
    return _components(len(points), np.unique(group, return_inverse=True)[1], pairs=near)


def _components(count, *labels, pairs=()):
    """Return the number of each sample's connected component, where equal labels and pairs connect."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = [np.reshape(pairs, (-1, 2)).astype(int)]
    for label in labels:
        order = np.argsort(label, kind="stable")
        links.append(np.stack([order[:-1], order[1:]], axis=1)[np.diff(label[order]) == 0])
    first, second = np.concatenate(links).T
    return connected_components(coo_matrix((np.ones(len(first)), (first, second)), (count, count)), directed=False)[1]


def blocks(points, unit, size):
    """Return the square block that holds the middle of each sample's unit, as a number.

    Parameters
    ----------
    points : array_like, shape (n, 2)
    unit : array_like of int, shape (n,)
    size : float
        Side of a block, in units of the points.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
    """
    points, unit = _checked(points, "samples"), np.unique(unit, return_inverse=True)[1]
    centres = np.stack([np.bincount(unit, column) for column in points.T], axis=1) / np.bincount(unit)[:, np.newaxis]
    return np.unique(np.floor(centres / size), axis=0, return_inverse=True)[1].ravel()[unit]


def sample_folds(study, rows, kind=None, cells=None):
    """Deal samples into folds by the study's settings.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its section `folds`.
    rows : pandas.DataFrame
        Samples of a depth layer, as from `helpers.forest.models.layer_rows`: group, class, easting, northing,
        in_domain, and
        the column `folds.column` where folds follow it.
    kind : {"random", "knndm", "blocks", "column"}, optional
        `folds.kind` by default.
    cells : tuple of numpy.ndarray, optional
        From `map_cells`, which only kNNDM reads.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Fold of each sample, from 0 on. ``sklearn.model_selection.PredefinedSplit`` makes it scikit-learn's ``cv=``.

    Raises
    ------
    FoldError or helpers.forest.models.ForestError
        A column is missing, coordinates are not finite, or there are fewer groups than folds.
    """
    kind = kind or study.folds.kind
    if kind == "knndm":
        return matched_folds(study, rows, cells).fold
    unit, types, folds = sample_units(study, rows), rows["class"].to_numpy(), study.folds.number
    if kind == "random":
        return site_folds(unit, types, folds, study.folds.seed)
    if kind == "blocks":
        group = blocks(_places(rows), unit, 1000 * study.folds.block_km)
    else:
        group = _column(rows, study.folds.column or "group").astype(str)
    return group_folds(group, types, folds, np.random.default_rng(study.folds.seed), unit)


def matched_folds(study, rows, cells=None):
    """Deal samples into folds by `knndm` with the study's settings; arguments as for `sample_folds`.

    Returns
    -------
    Matched
    """
    places, in_domain = map_cells(study) if cells is None else cells
    judged = None
    if study.folds.judged == "potential_permafrost":
        places, judged = places[in_domain], _column(rows, "in_domain")
    unit, settings = sample_units(study, rows), study.folds
    return knndm(_places(rows), places, settings.number, settings.seed, unit, rows["class"].to_numpy(), judged)


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
    from helpers.core.grid import area_mask, cell_centres, reference_grid
    from helpers.prepare.registry import read_covariates

    geobox = reference_grid(study)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    row, column = np.nonzero(area_mask(study, geobox) & np.isfinite(rule))
    easting, northing = cell_centres(geobox)
    return np.stack([easting[column], northing[row]], axis=1), rule[row, column] > study.domain.above


def missing_classes(fold, types):
    """Return the classes that a fold lacks, for each fold that lacks one; scores of that fold alone say less.

    Parameters
    ----------
    fold, types : array_like of int, shape (n,)

    Returns
    -------
    dict of int to list of int
    """
    fold, types = np.asarray(fold), np.asarray(types)
    lacking = {int(k): sorted({*types.tolist()} - {*types[fold == k].tolist()}) for k in np.unique(fold)}
    return {k: classes for k, classes in lacking.items() if classes}


def sample_units(study, rows):
    """Return the number of each sample's unit by the study's settings: see `units`."""
    return units(_places(rows), _column(rows, "group").astype(str), 1000 * study.folds.together_km)


def _places(rows):
    return np.stack([_column(rows, "easting"), _column(rows, "northing")], axis=1)


def _column(rows, name):
    if name not in rows:
        raise FoldError(
            f"The samples have no column {name}.", "name it in samples.more_columns, or correct folds.column"
        )
    return rows[name].to_numpy()


def _checked(points, what):
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise FoldError(
            f"Coordinates of {what} have the shape {points.shape}.", "give easting and northing of one or more"
        )
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise FoldError(f"{bad} {what} have no finite coordinates.", "drop them, as 02-extract-samples does")
    return points


def _enough(number, folds, what):
    if number < folds:
        raise FoldError(
            f"{number} {what} cannot be dealt into {folds} folds.",
            "set fewer folds.number, or smaller folds.block_km or folds.together_km; or give more sites",
        )


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
    from scipy.optimize import brentq
    from scipy.spatial.distance import cdist, pdist

    points, cells = _checked(points, "samples"), _checked(cells, "cells")
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
