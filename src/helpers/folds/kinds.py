"""Samples in space: nearest-neighbour distances, folds that respect them, and weights of clustered samples.

Coordinates are easting and northing in metres. What may never be parted is a *unit*: samples of one group (a cell, a
training area), and sites nearer to each other than `folds.together_km`.
"""

import numpy as np

from helpers.folds.blocks import blocks
from helpers.folds.distances import map_cells
from helpers.folds.knndm import CANDIDATES, knndm, lacking_classes
from helpers.folds.units import check_enough, column_values, components, coordinates, sample_units, site_folds


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
    group = components(len(group), group, unit)
    number = int(group.max(initial=-1)) + 1
    check_enough(number, folds, "groups of samples")
    ways = []
    for _ in range(CANDIDATES):
        of_group = np.empty(number, int)
        of_group[rng.permutation(number)] = np.arange(number) % folds
        fold = of_group[group]
        ways.append((*lacking_classes(fold, types, unit, folds), np.bincount(fold).max(), len(ways), fold))
    return min(ways, key=lambda way: way[:4])[-1]


def sample_folds(study, rows, kind=None, cells=None):
    """Deal samples into folds by the study's settings.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its section `folds`.
    rows : pandas.DataFrame
        Samples of a depth layer, as from `helpers.samples.rows.layer_rows`: group, class, easting, northing,
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
    FoldError or helpers.samples.rows.ForestError
        A column is missing, coordinates are not finite, or there are fewer groups than folds.
    """
    kind = kind or study.folds.kind
    if kind == "knndm":
        return matched_folds(study, rows, cells).fold
    unit, types, folds = sample_units(study, rows), rows["class"].to_numpy(), study.folds.number
    if kind == "random":
        return site_folds(unit, types, folds, study.folds.seed)
    if kind == "blocks":
        group = blocks(coordinates(rows), unit, 1000 * study.folds.block_km)
    else:
        group = column_values(rows, study.folds.column or "group").astype(str)
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
        places, judged = places[in_domain], column_values(rows, "in_domain")
    unit, settings = sample_units(study, rows), study.folds
    return knndm(coordinates(rows), places, settings.number, settings.seed, unit, rows["class"].to_numpy(), judged)


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
