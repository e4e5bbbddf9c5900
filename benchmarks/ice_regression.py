"""Is ice nearer to the truth from classes or regressed? Replicates of the virtual study: world and holes redrawn.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing. The classifiers
have the settings of `estimate_bias` instead of a grid search each. Printed are, for the ice from classes, regressed,
and regressed without weights of area: RMSE of a cell (m3 m-3, mean over layers), bias of the total as a share of the
true one, its absolute value, and by how much RMSE and that are larger than from classes; each as mean and standard
error over replicates.

``python benchmarks/ice_regression.py [config/quick.yaml] [replicates]``
"""

import sys

import numpy as np
import pandas as pd
from estimate_bias import PARAMS, draw

from helpers.core import classes
from helpers.core.study import Study
from helpers.folds import weights
from helpers.folds.kinds import sample_folds
from helpers.forest import class_means, models, out_of_fold, regression
from helpers.forest.calibration import fit_calibration
from helpers.mapping import extent, predict
from helpers.prepare import registry
from helpers.samples import extract
from helpers.samples.rows import layer_rows


def expected(study, table, layer, values):
    """Return the ice of each cell within the extent of permafrost, by way, from the training samples of a layer."""
    rows = layer_rows(table, layer, "train", study.target)
    rows["area_weight"] = weights.area_weights(study, rows)
    (unseen,) = out_of_fold.out_of_fold(study, [(rows, sample_folds(study, rows), PARAMS)])
    calibration = fit_calibration(unseen, rows["class"], rows["area_weight"])
    classifier = models.fit(study, table, layer, PARAMS, "train")
    _, chances = predict.predict(classifier, calibration, values, target=study.target)
    means = np.asarray(class_means.class_means(rows, classes.TARGETS[study.target].codes), np.float32)
    ways = {"classes": np.einsum("nk,k->n", chances, means)}
    for name, weight in {"regression": "area_weight", "regression, unweighted": None}.items():
        ways[name] = predict.predict_ice(regression.fit(study, rows, weight), values)
    return {name: extent.confine_to_permafrost(content, 1 - chances[:, 0]) for name, content in ways.items()}


def main(path="config/quick.yaml", number="10"):
    """Print the table."""
    study = Study.open(path)
    values, cells = extract.read_predictors(study, registry.used_predictors(study))
    found = []
    for seed in range(int(number)):
        table, truth = draw(study, seed)
        total, errors, known = {}, {}, 0.0
        for top, bottom in study.layers:
            layer = classes.layer_name((top, bottom))
            true = truth[f"ice_fraction_{layer}"].ravel()[cells]
            known += float(np.nansum(true, dtype=float)) * (bottom - top)
            for name, content in expected(study, table, layer, values).items():
                errors.setdefault(name, []).append(float(np.sqrt(np.nanmean((content - true) ** 2))))
                total[name] = total.get(name, 0.0) + float(content.sum(dtype=float)) * (bottom - top)
        for name in total:
            bias = total[name] / known - 1
            rmse = float(np.mean(errors[name]))
            found.append({"replicate": seed, "way": name, "rmse": rmse, "bias": bias, "off": abs(bias)})
        print(f"replicate {seed}", flush=True)
    table = pd.DataFrame(found)
    for name in ("rmse", "off"):
        table[f"{name}_more"] = table[name] - table.groupby("replicate")[name].transform("first")
    scores = ["rmse", "rmse_more", "bias", "off", "off_more"]
    print(table.groupby("way", sort=False)[scores].agg(["mean", "sem"]).round(4).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
