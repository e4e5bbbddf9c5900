"""Tables of the area of applicability, prediction sets and levels of trust."""

import itertools
import json

import numpy as np
import pandas as pd

import testbed.against_truth
from helpers.core import classes
from helpers.core.files import write_json, write_table
from helpers.core.scores import DOMAINS
from helpers.mapping import conformal
from helpers.mapping.extent import PROBABILITY_SCALE
from helpers.mapping.files import map_files
from helpers.mapping.trust import LEVELS, read_window, sets_and_levels, trust_files
from helpers.prepare.registry import covariate_files

DENSITIES = (0, 1, 3, 10, 30)
"""Least local point density of each row of the table."""


QUANTILES = 5
"""Rows of the table by dissimilarity."""


CEILING = {"n_estimators": 25, "min_samples_leaf": 5, "max_samples": 0.3, "oob_score": True}
"""The forest that is shown the true classes of `CEILING_CELLS` cells, for the error that no forest avoids."""


JUDGED = ("error", "error_probable", "error_permafrost", "expected", "avoidable")
"""Columns of the table of errors, means over cells."""


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(study, found, sampled):
    """Return and write how much of the map may be believed how far, and in the virtual study whether that is true.

    Parameters
    ----------
    study : helpers.core.study.Study
    found : list of LayerTrust
    sampled : tuple of numpy.ndarray
        From `map_trust`.

    Returns
    -------
    errors : pandas.DataFrame
        One row a layer, domain and group of cells: by area of applicability, fifth of the dissimilarity index, local
        point density or level of trust; with `cells`, their `share` of the domain, and with the truth ``error`` of the
        mapped class, ``error_probable`` of the most probable one, its ``error_permafrost`` (yes or no), ``expected``
        (what calibrated probabilities expect ``error_probable`` to be), and in the domain ``avoidable``: by how much
        it exceeds the error of a forest that was shown true cells. The rest no predictor tells, and no sample mends.
    sets : pandas.DataFrame
        One row a layer, domain and true class: the calibration `samples`, the `limit` of its probability, the coverage
        and mean size of the prediction sets of the samples, by other folds, and in the virtual study of true cells.
    """
    truth, errors, sets = testbed.against_truth.read_truth(study), [], []
    everywhere = read_window(covariate_files(study)[study.domain.covariate])[0][0] > study.domain.above
    for one in found:
        cells = _cells(study, one, everywhere, truth)
        if truth is not None and len(sampled[1]):
            _add_ceiling(study, cells, sampled)
        for domain, inside in zip(DOMAINS, (np.ones(len(cells), bool), cells["in_domain"].to_numpy()), strict=True):
            if inside.any():
                errors.append(_error_rows(one, cells[inside]).assign(layer=one.layer, domain=domain))
            sets += _set_rows(study, one, domain, cells[inside])
    errors, sets = (pd.concat(errors, ignore_index=True), pd.DataFrame(sets))
    errors = errors[["layer", "domain", *errors.columns.drop(["layer", "domain"])]]
    folder = study.results_dir / "tables"
    write_table(folder / "applicability.csv", errors)
    write_table(folder / "prediction_sets.csv", sets)
    write_json(folder / "applicability.json", _record(study, found, errors, sets))
    return errors, sets


def _cells(study, one, everywhere, truth):
    """Return a table of all mapped cells of a layer."""
    files, maps, target = trust_files(study), map_files(study), classes.TARGETS[study.target]
    dissimilarity = read_window(files[f"dissimilarity_index_{one.layer}"])[0].ravel()
    mapped = np.flatnonzero(np.isfinite(dissimilarity))
    chances = read_window(maps[f"class_probability_{one.layer}"])[0].reshape(len(target.codes), -1)[:, mapped]
    in_domain, density = everywhere.ravel()[mapped], read_window(files[f"point_density_{one.layer}"])[0].ravel()[mapped]
    members, levels = sets_and_levels(study, one, chances.T, density, in_domain)
    cells = pd.DataFrame({
        "cell": mapped,
        "in_domain": in_domain,
        "dissimilarity": dissimilarity[mapped],
        "density": density,
        "level": levels,
        "classes": members.sum(axis=1),
        "mapped": read_window(maps[f"{target.file_name}_{one.layer}"])[0].ravel()[mapped],
        "probable": chances.argmax(axis=0).astype(np.uint8),
        "expected": 1 - chances.max(axis=0) * PROBABILITY_SCALE,
    })  # fmt: skip
    if truth is not None:
        cells["true"] = np.array(target.of_type, np.uint8)[truth[f"ice_type_{one.layer}"].ravel()[mapped]]
        cells["error"], cells["error_probable"] = cells["mapped"] != cells["true"], cells["probable"] != cells["true"]
        cells["error_permafrost"] = (cells["probable"] > 0) != (cells["true"] > 0)
        cells["covered"] = conformal.covered(members, cells["true"])
    return cells


def _add_ceiling(study, cells, sampled):
    """Add how much worse the most probable class is than a forest that was shown the truth, at the sampled cells."""
    from sklearn.ensemble import RandomForestClassifier

    values, places = sampled
    at = cells.set_index("cell").index.get_indexer(places)
    known = cells["true"].to_numpy()[at]
    best = RandomForestClassifier(random_state=study.forest.seed, n_jobs=-1, **CEILING).fit(values, known)
    # Sums over trees are rounded, as threads add them up in any order.
    wrong = best.classes_[best.oob_decision_function_.round(9).argmax(axis=1)] != known
    cells["avoidable"] = np.nan
    cells.loc[at, "avoidable"] = cells["error_probable"].to_numpy()[at].astype(float) - wrong


def _error_rows(one, cells):
    ends = [f"{a}-{b - 1}" if b - a > 1 else f"{a}" for a, b in itertools.pairwise(DENSITIES)]
    fifths = pd.qcut(cells["dissimilarity"], QUANTILES, duplicates="drop")
    groups = {
        "all": _grouped(np.zeros(len(cells), int), ["all"]),
        "area of applicability": _grouped(cells["dissimilarity"] > one.applicability.threshold, ["inside", "outside"]),
        "dissimilarity": _grouped(
            fifths.cat.codes,
            [f"{n}: {max(part.left, 0):.3f}-{part.right:.3f}" for n, part in enumerate(fifths.cat.categories, start=1)],
        ),
        "point density": _grouped(
            np.searchsorted(DENSITIES, cells["density"], "right") - 1, [*ends, f"{DENSITIES[-1]} and more"]
        ),
        "trust": _grouped(cells["level"] - 1, [level[0] for level in LEVELS.values()]),
    }
    judged = cells[[name for name in JUDGED if name in cells]].astype(np.float64)
    parts = []
    for by, group in groups.items():
        grouped = judged.groupby(group, observed=True)
        count = grouped.size()
        part = grouped.mean().assign(by=by, cells=count, share=count / len(cells))
        parts.append(part.rename_axis("group").reset_index())
    return pd.concat(parts, ignore_index=True)[["by", "group", "cells", "share", *judged]]


def _grouped(codes, names):
    return pd.Categorical.from_codes(np.asarray(codes, int), names)


def _set_rows(study, one, domain, cells):
    inside = np.ones(len(one.rows), bool) if domain == "whole" else one.rows["in_domain"].to_numpy(bool)
    types, held = one.rows["class"].to_numpy(), conformal.covered(one.members, one.rows["class"])
    size, found = one.members.sum(axis=1), []
    for kind in classes.TARGETS[study.target].classes:
        own = inside & (types == kind.code)
        row = {"layer": one.layer, "domain": domain, "class": kind.name, "limit": one.limits[kind.code]}
        row["calibration_samples"] = int((types == kind.code).sum())
        row |= {"samples": int((own & one.judged).sum()), "coverage_samples": _mean(held[own & one.judged])}
        row["mean_size_samples"] = _mean(size[own & one.judged])
        if "true" in cells:
            part = cells[cells["true"] == kind.code]
            row |= {"cells": len(part), "coverage_cells": _mean(part["covered"])}
            if np.isnan(row["limit"]):
                row["coverage_cells"] = np.nan
            row["mean_size_cells"] = _mean(part["classes"])
        found.append(row)
    return found


def _mean(values):
    return float(np.mean(values)) if len(values) else np.nan


def _record(study, found, errors, sets):
    """Return what ``applicability.json`` holds."""
    layers = {}
    for one in found:
        mine = sets[(sets["layer"] == one.layer) & (sets["domain"] == "whole")]
        shares = errors[(errors["layer"] == one.layer) & (errors["by"] == "area of applicability")]
        layers[one.layer] = {
            "samples": len(one.rows),
            "threshold": one.applicability.threshold,
            "weights": one.weights,
            "sets_undefined_for": mine.loc[mine["limit"].isna(), "class"].tolist(),
            "groups": json.loads(shares.drop(columns=["layer", "by"]).to_json(orient="records")),
        }
    return {
        "simulated": study.simulated,
        "coverage": study.trust.coverage,
        "similar_samples": study.trust.similar_samples,
        "levels": {name: meaning for name, _, meaning in LEVELS.values()},
        "layers": layers,
    }
