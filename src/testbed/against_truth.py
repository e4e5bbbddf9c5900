"""What a run promised beside what is true: accuracy, areas, totals, intervals and trust.

Only a virtual study can be compared. Everything that a study of real ground has is read from the
run's own files; the hidden truth is read here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rasterio.features import rasterize

from helpers.accuracy import estimates
from helpers.accuracy.predictions import Predictions, mapped_areas
from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.files import read_json, write_json, write_table
from helpers.core.grid import reference_grid, study_regions
from helpers.core.rasters import read_band
from helpers.core.scores import HEADLINE_SCORES
from helpers.core.study import DOMAINS
from helpers.forest.hurdle import UNITS, fit_hurdle, mapped_types, permafrost_cut, steps
from helpers.mapping import conformal, trust, trust_tables
from helpers.mapping.files import interval_files, layer_files, map_files
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import by_domain, domain_of_cells
from helpers.samples.extract import read_predictors
from testbed.settings import VirtualStudy
from testbed.truth import Rasters, truth_files

LABELS = estimates.ESTIMATES | {
    "true_train": "truth, forest of the training samples",
    "true_map": "truth, forest of the map",
}
"""Estimates and true scores of a map's accuracy, by their keys in the tables."""

REFERENCES = estimates.REFERENCES | {
    "cells": ("s", "#d55e00", "against the true class of their cells")
}
"""What predictions are compared with: marker, colour and label."""

CEILING = {"n_estimators": 25, "min_samples_leaf": 5, "max_samples": 0.3, "oob_score": True}
"""The forest that is shown the true classes of about `CEILING_CELLS` cells of the domain."""

CEILING_CELLS = 50_000

WITHHELD = 0.2
"""Share of the domain whose samples are withheld, the coldest."""

ERRORS = ("error", "error_permafrost", "expected", "avoidable")
"""Columns of the table of errors, means over cells."""


def read_truth(study: VirtualStudy) -> Rasters:
    """Return the true ice type of each cell, and what a borehole in it would find, by name."""
    kinds = ("ice_type", "borehole_type")
    names = [f"{kind}_{layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: read_band(truth_files(study)[name]) for name in names}


def class_of_type(study: VirtualStudy) -> np.ndarray:
    """Return the class of each ice type by its code, shape (256,); of no type -1."""
    of_type = study.target_classes.of_type
    return np.append(of_type, np.full(256 - len(of_type), -1))


# Accuracy -----------------------------------------------------------------------------------------


def class_map(study: VirtualStudy, layer: str, which: str) -> Path:
    """Return the raster of one of the two maps of classes."""
    end = "_reference" if which == "reference" else ""
    return map_files(study)[f"{study.target_classes.file_name}{end}_{layer}"]


def accuracy_against_truth(
    study: VirtualStudy, predictions: Predictions, truth: Rasters, which: str
) -> pd.DataFrame:
    """Return estimates against the true class of the samples' cells, and the map's own accuracy.

    Predictions are those of the map `which` (of `helpers.accuracy.predictions.MAPS`). The table is
    as from `helpers.accuracy.estimates.estimate_accuracy`, with reference ``cells``.
    The rows ``true_train`` and ``true_map`` are the accuracy of the forest of the training samples
    and of the map, over `helpers.samples.extract.EVALUATION_CELLS` cells: against the class
    that most of a cell has (``cells``), and against what a borehole in it would find (``samples``).
    """
    geobox = reference_grid(study)
    classes = class_of_type(study)

    def class_at(rows: pd.DataFrame) -> np.ndarray:
        place = rows["easting"].to_numpy(), rows["northing"].to_numpy()
        column, row = (np.floor(part).astype(int) for part in ~geobox.transform * place)
        return classes[truth[f"ice_type_{rows['layer'].iloc[0]}"][row, column]]

    rows = []
    for layer in predictions.rows:
        true = {
            reference: classes[truth[f"{kind}_{layer}"].ravel()[predictions.cells]]
            for reference, kind in (("cells", "ice_type"), ("samples", "borehole_type"))
        }
        whole = read_band(class_map(study, layer, which))
        forests = {"train": predictions.mapped[layer], "map": whole.ravel()[predictions.cells]}
        rows += [
            {"layer": layer, "domain": domain, "estimate": f"true_{which}", "reference": reference}
            | estimates.headline_row(study, values[inside], mapped[inside])
            for which, mapped in forests.items()
            for domain, inside in by_domain(study, predictions.in_domain)
            for reference, values in true.items()
        ]
    of_samples = estimates.estimate_accuracy(study, predictions, class_at, "cells")
    return pd.concat([of_samples, estimates.estimates_table(rows)], ignore_index=True)


def promised_and_true(promised: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """Return what each estimate from samples promised beside the true score of the same forest.

    Parameters
    ----------
    promised
        From `helpers.accuracy.estimates.estimate_accuracy`, with the column ``map``.
    true
        From `accuracy_against_truth`, with the same.

    Returns
    -------
    pandas.DataFrame
        One row a map, layer, domain, estimate and score: ``promised``, the ends ``lower`` and
        ``upper`` of its interval, ``true`` of the model of the training samples as a borehole in
        each cell would find it, ``difference`` (promised less true), ``held``, whether the interval
        holds the true score, and ``true_of_cells``, the score against the class that most of each
        cell has.
    """
    keys = ["map", "layer", "domain"]
    by_reference = true[true["estimate"] == "true_train"].groupby("reference")
    scores = {name: part.set_index(keys) for name, part in by_reference}
    where = pd.MultiIndex.from_frame(promised[keys])
    parts = []
    for score in HEADLINE_SCORES:
        part = promised[[*keys, "estimate"]].assign(score=score, promised=promised[score])
        part["lower"] = promised[f"{score}_lower"]
        part["upper"] = promised[f"{score}_upper"]
        part["true"] = scores["samples"][score].reindex(where).to_numpy()
        part["difference"] = part["promised"] - part["true"]
        held = part["true"].between(part["lower"], part["upper"]).astype(object)
        part["held"] = held.where(part["lower"].notna() & part["upper"].notna(), None)
        part["true_of_cells"] = scores["cells"][score].reindex(where).to_numpy()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def true_class_areas(
    study: VirtualStudy,
    predictions: Mapping[str, Predictions],
    truth: Rasters,
    areas: pd.DataFrame,
) -> pd.DataFrame:
    """Return the table of `helpers.accuracy.by_area.class_areas` with the true area, ``true_km2``.

    Predictions are by map, and areas have the column ``map``. ``mapped_bias`` and ``adjusted_bias``
    are differences from it, km2.
    """
    size = len(study.target_classes.codes)
    parts = []
    for (which, layer, domain), part in areas.groupby(["map", "layer", "domain"], sort=False):
        one = predictions[which]
        true = class_of_type(study)[truth[f"ice_type_{layer}"].ravel()[one.cells]]
        inside = dict(by_domain(study, one.in_domain))[domain]
        whole = mapped_areas(study, one, layer)[domain][1]
        share = np.bincount(true[inside], minlength=size) / max(inside.sum(), 1)
        part = part.assign(true_km2=whole * share)
        part["mapped_bias"] = part["mapped_km2"] - part["true_km2"]
        part["adjusted_bias"] = part["adjusted_km2"] - part["true_km2"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def promised(study: VirtualStudy) -> Figure:
    """Plot every estimate of the reference's map, and mapped areas, beside the truth."""
    tables = study.results_dir / "tables"
    names = ("validation", "true_accuracy", "true_class_areas")
    estimated, true, areas = (
        part[part["map"] == "reference"]
        for part in (pd.read_csv(tables / f"{name}.csv") for name in names)
    )
    both = pd.concat([estimated, true], ignore_index=True)
    domain = DOMAINS[1]
    figure = estimates.plot_estimates(study, both, areas, REFERENCES, LABELS)
    layers = list(estimated["layer"].unique())
    axes = np.reshape(figure.axes, (-1, len(layers)))
    for layer, panel in zip(layers, axes[-1], strict=True):
        part = areas[(areas["layer"] == layer) & (areas["domain"] == domain)]
        places = np.arange(len(part))[::-1]
        panel.plot(part["true_km2"] / 1000, places, "|", color="0.0", markersize=5, label="true")
    axes[-1, 0].legend(loc="center right", frameon=False, handletextpad=0.3)
    return figure


# Storage ------------------------------------------------------------------------------------------


def compare_storage(
    study: VirtualStudy,
    contents: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    free: np.ndarray,
) -> dict[str, Any]:
    """Compare the storage by the mapped and by the true ice of each layer, over the mapped cells.

    `free` marks permafrost-free cells.

    Returns
    -------
    dict
        `mapped_km3` and `true_km3` of ice, `bias` as a share of the true total,
        `in_permafrost_free_cells`, the share of the mapped ice that lies in cells without any
        permafrost, and errors of a cell's thickness, m of ice: `rmse_m` and `mean_absolute_error_m`
        over all cells, and over those that have permafrost (`_frozen`).
    """
    inside = np.isfinite(contents[0])
    mapped = ice.thickness(np.stack(contents), study.layers)[inside]
    true = ice.thickness(np.stack(truth), study.layers)[inside]
    frozen = ~free[inside]
    cell = study.grid.resolution**2 / 1e9
    mapped_km3, true_km3, free_km3 = (
        float(part.sum(dtype=float) * cell) for part in (mapped, true, mapped[~frozen])
    )
    compared: dict[str, Any] = {
        "mapped_km3": mapped_km3,
        "true_km3": true_km3,
        "bias": mapped_km3 / true_km3 - 1,
        "in_permafrost_free_cells": free_km3 / mapped_km3,
    }
    compared["layers"] = {
        layer_name(layer): {
            key: float(part[inside].sum(dtype=float) * (layer[1] - layer[0]) * cell)
            for key, part in {"mapped_km3": own, "true_km3": right}.items()
        }
        for layer, own, right in zip(study.depths, contents, truth, strict=True)
    }
    error = mapped - true
    for name, part in {"": error, "_frozen": error[frozen]}.items():
        compared[f"rmse_m{name}"] = None
        compared[f"mean_absolute_error_m{name}"] = None
        if len(part):
            compared[f"rmse_m{name}"] = float(np.square(part).mean(dtype=float) ** 0.5)
            compared[f"mean_absolute_error_m{name}"] = float(np.abs(part).mean(dtype=float))
    return compared


def true_totals(study: VirtualStudy) -> pd.Series:
    """Return the true ice of the mapped cells by region, and of ``all`` regions, km3."""
    geobox = reference_grid(study)
    names, shapes = study_regions(study, geobox)
    region = rasterize(shapes, geobox.shape, transform=geobox.transform, dtype="int32")
    sums = np.zeros(len(names) + 1)
    for layer in study.layers:
        name = layer_name(layer)
        content = read_band(map_files(study)[f"ice_content_{name}"])
        fraction = read_band(truth_files(study)[f"ice_fraction_{name}"])
        depth = np.where(np.isfinite(content), fraction, 0) * (layer[1] - layer[0])
        sums += np.bincount(region.ravel(), depth.ravel(), len(sums))
    index = pd.Index(names, name="name")
    volume = pd.Series(sums[1:] * study.grid.resolution**2 / 1e9, index=index)
    volume["all"] = volume.sum()
    return volume


def write_storage(study: VirtualStudy) -> tuple[dict[str, Any], pd.DataFrame]:
    """Write the comparison of storage, and the intervals beside the true totals.

    Returns
    -------
    comparison
        From `compare_storage`.
    table
        The run's intervals by region with `true_km3`, and whether the interval `holds` it; None
        for a region without one.
    """
    files = truth_files(study)
    contents = [read_band(path) for path in layer_files(study, "ice_content")]
    true = [read_band(files[f"ice_fraction_{layer_name(layer)}"]) for layer in study.layers]
    free = read_band(files["permafrost_share"]) == 0
    comparison = compare_storage(study, contents, true, free)
    table = pd.read_csv(interval_files(study)["table"]).set_index("region")
    table["true_km3"] = true_totals(study).reindex(table.index).round(6)
    holds = table["true_km3"].between(table["lower"], table["upper"]).astype(object)
    table["holds"] = holds.where(table["lower"].notna(), None)
    folder = study.results_dir / "tables"
    write_table(folder / "true_totals.csv", table.reset_index())
    record = comparison | {"label": study.label, "regions": table["true_km3"].to_dict()}
    write_json(folder / "true_storage.json", record)
    return comparison, table


# The ceiling --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceiling:
    """What a forest says that was shown the true classes of cells in regular steps.

    Parameters
    ----------
    predictors : shape (n, predictors)
    cells : shape (n,)
        Flat indices of these cells of the domain.
    classes
        By layer, (n,): each cell's class by trees that were grown without it.
    """

    predictors: np.ndarray
    cells: np.ndarray
    classes: dict[str, np.ndarray]


def ceiling(study: VirtualStudy, truth: Rasters) -> Ceiling:
    """Return the ceiling of accuracy: no forest of these predictors errs less."""
    from sklearn.ensemble import RandomForestClassifier

    in_domain = domain_of_cells(study)
    step = max(1, round(np.sqrt(np.count_nonzero(in_domain) / CEILING_CELLS)))
    values, places = read_predictors(study, forest_columns(study), step=step)
    chosen = in_domain.ravel()[places]
    values, places = values[chosen], places[chosen]
    classes = {}
    for layer in map(layer_name, study.layers):
        best = RandomForestClassifier(random_state=study.forest.seed, n_jobs=-1, **CEILING)
        best.fit(values, class_of_type(study)[truth[f"ice_type_{layer}"].ravel()[places]])
        # Sums over trees are rounded, as threads add them up in any order.
        votes = best.oob_decision_function_.round(9)
        classes[layer] = best.classes_[votes.argmax(axis=1)]
    return Ceiling(values, places, classes)


def ceiling_rows(study: VirtualStudy, truth: Rasters, best: Ceiling) -> pd.DataFrame:
    """Return the accuracy of the ceiling in the domain, as rows of `accuracy_against_truth`."""
    kinds = {"cells": "ice_type", "samples": "borehole_type"}
    rows = [
        {"layer": layer, "domain": study.domains[-1], "estimate": "ceiling", "reference": reference}
        | estimates.headline_row(
            study, class_of_type(study)[truth[f"{kind}_{layer}"].ravel()[best.cells]], classes
        )
        for layer, classes in best.classes.items()
        for reference, kind in kinds.items()
    ]
    return estimates.estimates_table(rows)


# Trust --------------------------------------------------------------------------------------------


def trust_against_truth(
    study: VirtualStudy, truth: Rasters, best: Ceiling
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return and write true errors by area of applicability and level of trust, and sets' coverage.

    Returns
    -------
    errors
        One row a layer and group of cells of the domain: ``error`` of the mapped class, its
        ``error_permafrost`` (yes or no), ``expected``, what the map expects ``error`` to be, and
        ``avoidable``: by how much it exceeds the error of a forest that was shown true cells. The
        rest no predictor shows, and no sample mends.
    sets
        One row a layer and true class: its `cells`, and the coverage and mean size of their
        prediction sets.
    """
    folder = study.results_dir / "tables"
    record = read_json(folder / "applicability.json")["layers"]
    errors = []
    sets = []
    for layer in map(layer_name, study.layers):
        cells, members = trust_tables.layer_cells(study, layer)
        types = truth[f"ice_type_{layer}"].ravel()[cells["cell"]]
        cells["true"] = class_of_type(study)[types]
        cells["error"] = cells["mapped"] != cells["true"]
        cells["error_permafrost"] = (cells["mapped"] > 0) != (cells["true"] > 0)
        cells["covered"] = conformal.covered(members, cells["true"])
        at = cells.set_index("cell").index.get_indexer(best.cells)
        known = cells.loc[at, ["true", "error"]]
        own = known["error"].astype(float)
        cells["avoidable"] = own - (best.classes[layer] != known["true"])
        key = {"layer": layer, "domain": study.domains[-1]}
        means = trust_tables.group_means(cells, record[layer]["threshold"], ERRORS)
        errors.append(means.assign(**key))
        rows = _set_rows(study, cells, record[layer]["sets_undefined_for"])
        sets += [key | row for row in rows]
    errors = pd.concat(errors, ignore_index=True)
    errors = errors[["layer", "domain", *errors.columns.drop(["layer", "domain"])]]
    sets = pd.DataFrame(sets)
    write_table(folder / "true_applicability.csv", errors)
    write_table(folder / "true_prediction_sets.csv", sets)
    return errors, sets


# A withheld environment ---------------------------------------------------------------------------


def withheld_environment(
    study: VirtualStudy, table: pd.DataFrame, truth: Rasters, best: Ceiling
) -> pd.DataFrame:
    """Return and write whether dissimilarity tells that an environment was never sampled.

    The samples of the coldest fifth of the domain are left out: there most of the ground has
    permafrost, so that models know nothing of what the warmer rest does not have. Elsewhere what is
    unlike the samples is mostly ground where nothing is in doubt, and a map errs less there.

    Returns
    -------
    pandas.DataFrame
        One row a layer: the error of the mapped class ``inside`` and ``outside`` of the area of
        applicability, ``outside_share`` of the domain, and ``correlation`` of expected and true
        error over tenths of the dissimilarity index.
    """
    cold = best.predictors[:, forest_columns(study).index(study.domain.covariate)]
    limit = np.quantile(cold, 1 - WITHHELD)
    table = table[table["in_domain"] & (table[study.domain.covariate] <= limit)]
    everywhere = np.ones(len(best.cells), bool)
    permafrost = study.target_classes.permafrost
    rows = []
    for one in trust.fit_trust(study, table):
        hurdle = fit_hurdle(study, one.rows)
        predicted = hurdle.predict(best.predictors, everywhere)
        chance = steps(predicted.permafrost)
        cut = permafrost_cut(np.bincount(chance, minlength=UNITS + 1))
        mapped = mapped_types(predicted.classes, chance >= cut, permafrost)
        true = class_of_type(study)[truth[f"ice_type_{one.layer}"].ravel()[best.cells]]
        names = list(one.weights)
        used = [names.index(name) for name in one.applicability.predictors]
        away, _ = one.applicability.measure(best.predictors[:, used])
        expected = 1 - predicted.classes[np.arange(len(mapped)), mapped]
        cells = pd.DataFrame({"error": mapped != true, "away": away}).astype(float)
        cells["expected"] = np.minimum(expected + np.interp(away, *one.profile), 1)
        outside = away > one.applicability.threshold
        tenths = pd.qcut(cells["away"], 10, labels=False, duplicates="drop")
        by_tenth = cells.groupby(tenths)[["error", "expected"]].mean()
        row = {"layer": one.layer, "outside_share": outside.mean()}
        row |= {"inside": cells["error"][~outside].mean()}
        row |= {"outside": cells["error"][outside].mean()}
        rows.append(row | {"correlation": by_tenth["error"].corr(by_tenth["expected"])})
    withheld = pd.DataFrame(rows)
    write_table(study.results_dir / "tables" / "true_withheld.csv", withheld)
    return withheld


def _set_rows(study: VirtualStudy, cells: pd.DataFrame, undefined: Sequence[str]) -> list[dict]:
    rows = []
    for kind in study.target_classes.classes:
        own = cells[cells["true"] == kind.code]
        row = {
            "class": kind.name,
            "cells": len(own),
            "coverage_cells": np.nan if kind.name in undefined else own["covered"].mean(),
            "mean_size_cells": own["classes"].mean(),
        }
        rows.append(row)
    return rows
