"""Folds of every kind: random, by kNNDM, by square blocks, by a column, or of single cells.

Coordinates are easting and northing in metres. What is never parted is a *unit*: samples of one
group (a cell, a training area), and sites nearer to each other than `folds.min_separation_km`.
Folds of single cells do part it; they only show how much that flatters.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from helpers.core.study import Study
from helpers.folds.blocks import blocks
from helpers.folds.distances import MapCells, map_cells
from helpers.folds.knndm import CANDIDATES, SamplePoints, knndm, lacking_classes
from helpers.folds.units import check_enough, deal_units
from helpers.samples.together import (
    FoldError,
    column_values,
    components,
    coordinates,
    sample_units,
)


def sample_folds(
    study: Study, rows: pd.DataFrame, kind: str | None = None, cells: MapCells | None = None
) -> np.ndarray:
    """Return the fold of each sample, from 0 on, by the study's section `folds`.

    Parameters
    ----------
    rows
        Samples of a depth layer, as from `helpers.samples.rows.layer_rows`.
    kind
        random, knndm, blocks, column or cells; `folds.kind` by default.
    cells
        From `map_cells`, which only kNNDM reads.

    Raises
    ------
    FoldError or ForestError
        A column is missing, coordinates are not finite, or there are fewer groups than folds.
    """
    kind = kind or study.folds.kind
    settings = study.folds
    unit = sample_units(study, rows)
    types = rows["class"].to_numpy()
    if kind == "cells":
        return deal_units(np.arange(len(rows)), types, settings.number, settings.seed)
    if kind == "random":
        return deal_units(unit, types, settings.number, settings.seed)
    if kind == "knndm":
        places, in_domain = map_cells(study) if cells is None else cells
        evaluated = np.ones(len(rows), bool)
        if settings.judged == "potential_permafrost":
            places = places[in_domain]
            evaluated = column_values(rows, "in_domain").astype(bool)
        samples = SamplePoints(coordinates(rows), unit, types, evaluated)
        return knndm(samples, places, settings.number, settings.seed).fold
    if kind == "blocks":
        group = blocks(coordinates(rows), unit, 1000 * settings.block_km)
    else:
        group = column_values(rows, settings.column or "group").astype(str)
    return group_folds(group, types, settings.number, np.random.default_rng(settings.seed), unit)


def far_folds(study: Study, rows: pd.DataFrame) -> np.ndarray:
    """Return folds as far from each other as the map's cells are from the samples: those of kNNDM.

    Where these are not possible, they are the study's own.
    """
    try:
        return sample_folds(study, rows, "knndm")
    except FoldError:
        return sample_folds(study, rows)


def group_folds(
    group: npt.ArrayLike, types: np.ndarray, folds: int, rng: np.random.Generator, unit: np.ndarray
) -> np.ndarray:
    """Deal whole groups, such as blocks or regions, into folds: the most even of many random ways.

    That is the one with the fewest classes left to one fold alone, then the fewest folds that lack
    a class, then the smallest largest fold. Groups that share a unit are joined. Group, class
    (`types`) and unit of each sample, and the result, have the shape (n,).

    Examples
    --------
    >>> types, rng = np.array([0, 1, 0, 1]), np.random.default_rng(0)
    >>> fold = group_folds(["a", "a", "b", "c"], types, 2, rng, unit=np.arange(4))
    >>> fold.tolist()  # two samples a fold, and both classes in both
    [1, 1, 0, 0]
    """
    group = components(len(types), group, unit)
    number = int(group.max(initial=-1)) + 1
    check_enough(number, folds, "groups of samples")
    ways = []
    for way in range(CANDIDATES):
        of_group = np.empty(number, int)
        of_group[rng.permutation(number)] = np.arange(number) % folds
        fold = of_group[group]
        lacking = lacking_classes(fold, types, unit, folds)
        ways.append((*lacking, np.bincount(fold).max(), way, fold))
    return min(ways, key=lambda way: way[:4])[-1]
