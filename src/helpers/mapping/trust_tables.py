"""Tables of the area of applicability, prediction sets and levels of trust."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.core.files import write_json, write_table
from helpers.core.grid import grid_step, reference_grid
from helpers.core.rasters import read_band
from helpers.core.study import Study
from helpers.forest.hurdle import PROBABILITY_SCALE
from helpers.mapping import conformal
from helpers.mapping.files import map_files, trust_files
from helpers.mapping.trust import LEVELS, MEANINGS, LayerTrust, level_of, undecided

DENSITIES = (0, 1, 3, 10, 30)
"""Least local point density of each row of the table."""

QUANTILES = 10
"""Rows of the table by dissimilarity."""


def write_trust_tables(
    study: Study, trust: Sequence[LayerTrust]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return and write how much of the domain's map may be believed how far.

    Returns
    -------
    cells
        One row a layer and group of cells: by area of applicability, tenth of the dissimilarity
        index, local point density or level of trust; with `cells`, their `share` of the domain, and
        ``expected``, the error of the mapped class that is expected. Of a large grid these are
        cells in regular steps (`helpers.core.grid.grid_step`).
    sets
        One row a layer and class: the calibration samples, the `limit` of the class's probability,
        and coverage and mean size of the prediction sets of the samples, by other folds.
    sizes
        One row a layer and number of classes in a set: `cells` and `share` of the domain, and
        whether such a set is `undecided`.
    """
    cells, sets, sizes = [], [], []
    undecided_from = undecided(len(study.target_classes.codes))
    for one in trust:
        own, _ = layer_cells(study, one.layer)
        key = {"layer": one.layer, "domain": study.domains[-1]}
        cells.append(group_means(own, one.applicability.threshold, ["expected"]).assign(**key))
        sets += [key | row for row in _set_rows(study, one)]
        count = own["classes"].value_counts().sort_index().rename_axis("classes")
        size = count.rename("cells").reset_index().assign(**key, share=count.to_numpy() / len(own))
        sizes.append(size.assign(undecided=size["classes"] >= undecided_from))
    cells, sizes = (pd.concat(parts, ignore_index=True) for parts in (cells, sizes))
    first = ["layer", "domain"]
    cells, sizes = (part[[*first, *part.columns.drop(first)]] for part in (cells, sizes))
    sets = pd.DataFrame(sets)
    folder = study.results_dir / "tables"
    write_table(folder / "applicability.csv", cells)
    write_table(folder / "prediction_sets.csv", sets)
    write_table(folder / "prediction_set_sizes.csv", sizes)
    write_json(folder / "applicability.json", _record(study, trust, cells))
    return cells, sets, sizes


def layer_cells(study: Study, layer: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what the rasters say of a layer's mapped cells in the domain.

    Of a large grid they say it of cells in regular steps (`helpers.core.grid.grid_step`).

    Returns
    -------
    cells
        One row a cell: its flat index `cell`, `dissimilarity`, `density`, `level` of trust, number
        of `classes` in its set, `mapped` class, and its `expected` error.
    members : shape (cells, k)
        Their prediction sets.
    """
    files = trust_files(study)
    maps = map_files(study)
    target = study.target_classes
    geobox = reference_grid(study)
    step = grid_step(study)
    dissimilarity = read_band(files[f"dissimilarity_index_{layer}"], step=step)
    rows, columns = np.nonzero(np.isfinite(dissimilarity))
    mapped = np.ravel_multi_index((rows, columns), dissimilarity.shape)

    def values(path: Path, band: int = 1) -> np.ndarray:
        return read_band(path, band, step).ravel()[mapped]

    chance = values(maps[f"permafrost_probability_{layer}"]) * PROBABILITY_SCALE
    density = values(files[f"point_density_{layer}"])
    bits = values(files[f"prediction_set_{layer}"], 2)
    members = ((bits[:, np.newaxis] >> np.arange(len(target.codes))) & 1).astype(bool)
    cells = {
        "cell": step * (rows * geobox.shape[1] + columns),
        "dissimilarity": dissimilarity[rows, columns],
        "density": density,
        "level": level_of(density, chance, np.ones(len(mapped), bool), study.trust),
        "classes": members.sum(axis=1, dtype=np.uint8),
        "mapped": values(maps[f"{target.file_name}_{layer}"]),
        "expected": values(files[f"expected_error_{layer}"]),
    }
    return pd.DataFrame(cells), members


def group_means(cells: pd.DataFrame, threshold: float, columns: Sequence[str]) -> pd.DataFrame:
    """Return the means of some columns over groups of cells.

    Parameters
    ----------
    cells
        From `layer_cells`.
    threshold
        Of the dissimilarity index: the end of the area of applicability.

    Returns
    -------
    groups
        One row a group, named by the columns `by` and `group`: number and share of its cells, and
        the means.
    """
    tenths = pd.qcut(cells["dissimilarity"], QUANTILES, duplicates="drop")
    ranges = [f"{max(part.left, 0):.3f}-{part.right:.3f}" for part in tenths.cat.categories]
    ends = [f"{a}-{b - 1}" if b - a > 1 else f"{a}" for a, b in itertools.pairwise(DENSITIES)]
    ends.append(f"{DENSITIES[-1]} and more")
    levels = [name for name, _ in LEVELS.values()][:4]  # the fifth is none
    outside = (cells["dissimilarity"] > threshold).to_numpy(np.int8)
    # Names as categories: a text for each of a million cells takes a hundred times the memory.
    groups = {
        "all": pd.Categorical.from_codes(np.zeros_like(outside), ["all"]),
        "area of applicability": pd.Categorical.from_codes(outside, ["inside", "outside"]),
        "dissimilarity": tenths.cat.rename_categories(
            [f"{number:2}: {part}" for number, part in enumerate(ranges, start=1)]
        ),
        "point density": pd.cut(cells["density"], [*DENSITIES, np.inf], right=False, labels=ends),
        "trust": pd.cut(cells["level"], range(len(levels) + 1), labels=levels),
    }
    values = cells[list(columns)].astype(np.float64)
    parts = []
    for by, group in groups.items():
        grouped = values.groupby(group, observed=True)
        count = grouped.size()
        part = grouped.mean().assign(by=by, cells=count, share=count / len(cells))
        parts.append(part.rename_axis("group").reset_index())
    return pd.concat(parts, ignore_index=True)[["by", "group", "cells", "share", *values]]


def _set_rows(study: Study, one: LayerTrust) -> list[dict]:
    types = one.rows["class"].to_numpy()
    covered = pd.Series(conformal.covered(one.members, types))
    size = pd.Series(one.members.sum(axis=1))
    rows = []
    for kind in study.target_classes.classes:
        own = types == kind.code
        shown = own & one.has_limit
        row = {
            "class": kind.name,
            "limit": one.limits[kind.code],
            "calibration_samples": int(own.sum()),
            "samples": int(shown.sum()),
            "coverage_samples": covered[shown].mean(),
            "mean_size_samples": size[shown].mean(),
        }
        rows.append(row)
    return rows


def _record(study: Study, trust: Sequence[LayerTrust], cells: pd.DataFrame) -> dict:
    """Return what ``applicability.json`` holds."""
    kinds = study.target_classes.classes
    by_area = cells[cells["by"] == "area of applicability"].drop(columns="by")
    layers = {}
    for one in trust:
        groups = by_area[by_area["layer"] == one.layer].drop(columns="layer")
        layers[one.layer] = {
            "samples": len(one.rows),
            "threshold": one.applicability.threshold,
            "weights": one.weights,
            "sets_undefined_for": [kind.name for kind in kinds if np.isnan(one.limits[kind.code])],
            "groups": groups.to_dict("records"),
        }
    return {
        "label": study.label,
        "coverage": study.trust.coverage,
        "similar_samples": study.trust.similar_samples,
        "every": grid_step(study),
        "levels": {LEVELS[code][0]: meaning for code, meaning in MEANINGS.items()},
        "layers": layers,
    }
