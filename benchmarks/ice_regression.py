"""Is ice nearer to the truth from classes or regressed? Replicates of the virtual study.

Ground and boreholes are redrawn. Run after ``make map STUDY=config/quick.yaml``: it reads that
study's covariates and writes nothing. The classifiers have the settings of `estimate_bias` instead
of a grid search each. Printed are, for the ice from classes, regressed, and regressed without
weights of area: RMSE of a cell (m3 m-3, mean over layers), bias of the total as a share of the true
one, its absolute value, and by how much RMSE and that are larger than from classes; each as mean
and standard error over replicates.

``python benchmarks/ice_regression.py [config/quick.yaml] [replicates]``
"""

import sys

import numpy as np
import pandas as pd
from estimate_bias import PARAMS, draw

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds.kinds import sample_folds
from helpers.folds.weights import area_weights
from helpers.forest import models, regression
from helpers.forest.calibration import fit_calibration
from helpers.forest.class_means import class_means
from helpers.forest.out_of_fold import out_of_fold
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.predict import predict
from helpers.prepare.registry import used_predictors
from helpers.samples.extract import read_predictors
from helpers.samples.rows import layer_rows


def expected(study, table, layer, values):
    """Return the ice of each cell within the extent of permafrost, by way, for one layer.

    Forests are grown from the training samples.
    """
    rows = layer_rows(table, layer, "train", study.target_classes)
    rows["area_weight"] = area_weights(study, rows)
    (held_out,) = out_of_fold(study, [(rows, sample_folds(study, rows), PARAMS)])
    calibration = fit_calibration(held_out, rows["class"], rows["area_weight"])
    classifier = models.fit(study, table, layer, PARAMS, "train")
    _, chances = predict(classifier, calibration, values, target=study.target_classes)
    means = np.asarray(class_means(rows, study.target_classes.codes), np.float32)
    ways = {"classes": np.einsum("nk,k->n", chances, means)}
    for name, weight in {"regression": "area_weight", "regression, unweighted": None}.items():
        ways[name] = regression.fit(study, rows, weight).predict(values)
    permafrost = 1 - chances[:, 0]
    return {name: confine_to_permafrost(content, permafrost) for name, content in ways.items()}


def replicate(study, seed, values, cells):
    """Return a row a way: RMSE of a cell, and bias of the total with its absolute value."""
    table, truth = draw(study, np.random.default_rng(seed).spawn(3))
    totals = {}
    errors = {}
    true_total = 0.0
    for top, bottom in study.layers:
        layer = layer_name((top, bottom))
        true = truth[f"ice_fraction_{layer}"].ravel()[cells]
        true_total += float(np.nansum(true, dtype=float)) * (bottom - top)
        for name, content in expected(study, table, layer, values).items():
            rmse = float(np.sqrt(np.nanmean((content - true) ** 2)))
            errors.setdefault(name, []).append(rmse)
            thickness = float(content.sum(dtype=float)) * (bottom - top)
            totals[name] = totals.get(name, 0.0) + thickness
    rows = []
    for name, total in totals.items():
        bias = total / true_total - 1
        row = {"replicate": seed, "way": name, "rmse": float(np.mean(errors[name]))}
        rows.append(row | {"bias": bias, "off": abs(bias)})
    return rows


def main(path="config/quick.yaml", number="10"):
    """Print the table."""
    study = Study.open(path)
    values, cells = read_predictors(study, used_predictors(study))
    rows = []
    for seed in range(int(number)):
        rows += replicate(study, seed, values, cells)
        print(f"replicate {seed}", flush=True)
    table = pd.DataFrame(rows)
    for name in ("rmse", "off"):
        of_classes = table.groupby("replicate")[name].transform("first")
        table[f"{name}_more"] = table[name] - of_classes
    scores = ["rmse", "rmse_more", "bias", "off", "off_more"]
    print(table.groupby("way", sort=False)[scores].agg(["mean", "sem"]).round(4).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
