"""Bias of the storage total over replicates of the virtual study: ground and boreholes redrawn.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
The forests have the settings of `estimate_bias` instead of a grid search each. Ice within the
extent stands beside the plain expectation. Beside the ice that the map puts into permafrost-free
cells stands what a forest puts there that was shown the true ice of half of all cells: these
covariates hardly allow less.

``python benchmarks/storage_bias.py [config/quick.yaml] [replicates]``
"""

import sys

import numpy as np
from estimate_bias import PARAMS, draw

from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds.kinds import sample_folds
from helpers.folds.weights import area_weights
from helpers.forest import models
from helpers.forest.calibration import fit_calibration
from helpers.forest.class_means import class_means
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.predict import predict
from helpers.prepare.registry import predictor_names
from helpers.samples.extract import read_predictors
from helpers.samples.rows import layer_rows, predictor_values
from testbed.against_truth import compare_storage


def mapped_ice(study, table, layer, values):
    """Return the ice content of cells within the extent of permafrost, and as it is expected."""
    codes = study.target_classes.codes
    rows = layer_rows(table, layer, target=study.target_classes)
    at_samples = predictor_values(rows, predictor_names(study))
    folds = sample_folds(study, rows)
    out_of_fold = np.zeros((len(rows), len(codes)))
    for fold in range(study.folds.number):
        held = folds == fold
        forest = models.fit(study, rows[~held], layer, PARAMS)
        out_of_fold[held] = models.class_probabilities(forest, at_samples[held], codes)
    calibration = fit_calibration(out_of_fold, rows["class"].to_numpy(), rows["weight"])
    forest = models.fit(study, table, layer, PARAMS)
    _, shares = predict(forest, calibration, values, target=study.target_classes)
    expected = shares @ np.asarray(class_means(rows, codes), np.float32)
    return confine_to_permafrost(expected, 1 - shares[:, 0]), expected


def replicate(study, seed, values, cells):
    """Return the comparison of mapped with true storage of one replicate."""
    rngs = np.random.default_rng(seed).spawn(3)
    table, truth = draw(study, rngs)
    table["weight"] = area_weights(study, table)
    true = [truth[f"ice_fraction_{layer_name(layer)}"] for layer in study.layers]
    free = truth["permafrost_share"] == 0
    confined = np.full((len(true), *free.shape), np.nan, np.float32)
    plain = confined.copy()
    for number, layer in enumerate(map(layer_name, study.layers)):
        both = mapped_ice(study, table, layer, values)
        confined[number].ravel()[cells], plain[number].ravel()[cells] = both
    compared = compare_storage(study, confined, true, free)
    of_plain = compare_storage(study, plain, true, free)
    compared |= {f"{name}_plain": value for name, value in of_plain.items()}
    thickness = ice.thickness(np.stack(true), study.layers).ravel()[cells]
    least = shown_half(values, thickness, free.ravel()[cells], rngs[2])
    return compared | {"least_in_free_cells": least}


def shown_half(values, thickness, free, rng):
    """Return the share of ice in permafrost-free cells by a forest of half of the true cells."""
    from sklearn.ensemble import RandomForestRegressor

    shown = rng.random(len(values)) < 0.5
    model = RandomForestRegressor(
        60, min_samples_leaf=5, max_features=0.5, n_jobs=2, random_state=0
    )
    expected = model.fit(values[shown], thickness[shown]).predict(values[~shown])
    return float(expected[free[~shown]].sum() / expected.sum())


def main(path="config/quick.yaml", replicates="10"):
    """Print one line a replicate, then the means."""
    study = Study.open(path)
    values, cells = read_predictors(study, predictor_names(study))
    compared = []
    for seed in range(int(replicates)):
        compared.append(replicate(study, seed, values, cells))
        rounded = {name: round(value, 3) for name, value in compared[-1].items()}
        print(seed, rounded, flush=True)

    def mean(name):
        return np.mean([one[name] for one in compared])

    bias = np.array([one["bias"] for one in compared])
    error = bias.std(ddof=1) / np.sqrt(len(bias))
    print(f"mean bias {bias.mean():+.3f} +/- {error:.3f}, sd {bias.std(ddof=1):.3f}")
    for name in ("in_permafrost_free_cells", "rmse_m"):
        plain = mean(f"{name}_plain")
        print(f"{name}: {mean(name):.3f} in the extent, {plain:.3f} where it was expected")
    print(
        f"ice in permafrost-free cells {mean('in_permafrost_free_cells'):.3f} of the total; "
        f"by a forest shown half of the truth {mean('least_in_free_cells'):.3f}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
