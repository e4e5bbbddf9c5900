"""Bias of the storage total over replicates of the virtual study: hidden fields, truth and holes redrawn.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing. The forests have
the settings below instead of a grid search each. Ice within the extent stands beside the plain expectation. Beside
the ice that the map puts into permafrost-free cells stands what a forest puts there that was shown the true ice of half
of all cells: these covariates hardly allow less.
"""

import sys

import numpy as np

from helpers.core import ice
from helpers.core.classes import TARGETS, layer_name
from helpers.core.study import Study
from helpers.folds import kinds
from helpers.folds.weights import area_weights
from helpers.forest import class_means, models
from helpers.forest.calibration import fit_calibration
from helpers.mapping import extent, predict
from helpers.prepare.domain import in_domain
from helpers.prepare.registry import predictor_names, read_covariates
from helpers.samples import extract
from helpers.samples.extract import extract_covariates
from helpers.samples.labels import label_layers
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.selection import drop_unusable, group_cells
from helpers.samples.split import split_sites
from testbed import against_truth, boreholes
from testbed.ground import make_ground
from testbed.truth import true_rasters

PARAMS = {"max_depth": None, "min_samples_split": 10}


def replicate(study, seed, values, cells):
    """Return the comparison of mapped with true storage of one replicate."""
    truth_rng, hole_rng, split_rng = np.random.default_rng(seed).spawn(3)
    ground = make_ground(study, truth_rng)
    truth = true_rasters(study, ground, truth_rng)
    sites, intervals = boreholes.sample_boreholes(study, ground, hole_rng)
    labels, _ = label_layers(study, sites, intervals)
    table, _ = drop_unusable(study, extract_covariates(study, labels))
    table, _ = group_cells(study, table)
    table["in_domain"] = in_domain(study, table)
    table["split"] = split_sites(study, table, split_rng)
    table["weight"] = area_weights(study, table)
    contents, plain, classes = [], [], TARGETS[study.target].codes
    for name in map(layer_name, study.layers):
        rows = layer_rows(table, name, target=study.target)
        known, types = predictor_values(rows, predictor_names(study)), rows["class"].to_numpy()
        folds = kinds.sample_folds(study, rows)
        unseen = np.zeros((len(rows), len(classes)))
        for fold in range(study.folds.number):
            held = folds == fold
            part = rows[~held].assign(split="train")
            grown = models.fit(study, part, name, PARAMS)
            unseen[held] = models.class_probabilities(grown, known[held], classes)
        calibration = fit_calibration(unseen, types, rows["weight"])
        model = models.fit(study, table, name, PARAMS)
        _, shares = predict.predict(model, calibration, values, target=study.target)
        expected = shares @ np.asarray(class_means.class_means(rows, classes), np.float32)
        for layers, kept in ((contents, extent.confine_to_permafrost(expected, 1 - shares[:, 0])), (plain, expected)):
            layers.append(np.full(truth["permafrost_share"].shape, np.nan, np.float32))
            layers[-1].ravel()[cells] = kept
    true = [truth[f"ice_fraction_{layer_name(layer)}"] for layer in study.layers]
    free = truth["permafrost_share"] == 0
    found = against_truth.compare_storage(study, contents, true, free)
    found |= {f"{name}_plain": value for name, value in against_truth.compare_storage(study, plain, true, free).items()}
    thickness = ice.thickness(np.stack(true), study.layers).ravel()[cells]
    return found | {"least_in_free_cells": shown_half(values, thickness, free.ravel()[cells], split_rng)}


def shown_half(values, thickness, free, rng):
    """Return the share of ice in permafrost-free cells that a forest expects which was shown half of the true cells."""
    from sklearn.ensemble import RandomForestRegressor

    shown = rng.random(len(values)) < 0.5
    model = RandomForestRegressor(60, min_samples_leaf=5, max_features=0.5, n_jobs=2, random_state=0)
    expected = model.fit(values[shown], thickness[shown]).predict(values[~shown])
    return float(expected[free[~shown]].sum() / expected.sum())


def main(path="config/quick.yaml", replicates=10):
    """Print one line a replicate, then the means."""
    study = Study.open(path)
    assert read_covariates(study, ["elevation"])
    values, cells = extract.read_predictors(study, predictor_names(study))
    found = []
    for seed in range(int(replicates)):
        found.append(replicate(study, seed, values, cells))
        print(seed, {name: round(value, 3) for name, value in found[-1].items()}, flush=True)
    bias = np.array([one["bias"] for one in found])
    leaked = np.mean([one["in_permafrost_free_cells"] for one in found])
    error = bias.std(ddof=1) / np.sqrt(len(bias))
    print(f"mean bias {bias.mean():+.3f} +/- {error:.3f}, sd {bias.std(ddof=1):.3f}")
    least = np.mean([one["least_in_free_cells"] for one in found])
    for name in ("in_permafrost_free_cells", "rmse_m"):
        ways = [np.mean([one[key] for one in found]) for key in (name, f"{name}_plain")]
        print(f"{name}: {ways[0]:.3f} in the extent, {ways[1]:.3f} where it was expected")
    print(f"ice in permafrost-free cells {leaked:.3f} of the total; by a forest shown half of the truth {least:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
