"""Which estimate of accuracy is true? Replicates of the virtual study, with ground and boreholes.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
The forests have the settings below instead of a grid search each. Printed are, by domain and
estimate, the mean difference from the true score of the same forest (the one of the training
samples) with its standard error over replicates; then the log loss of the map's cells by
probabilities that were calibrated on each kind of folds.

``python benchmarks/estimate_bias.py [config/quick.yaml] [replicates]``
"""

import sys

import numpy as np
import pandas as pd

from helpers.accuracy.estimates import estimate_accuracy
from helpers.accuracy.predictions import evaluation_cells, predict_samples
from helpers.core import classes
from helpers.core.scores import HEADLINE_SCORES, log_loss
from helpers.core.study import Study
from helpers.folds.curves import fold_kinds
from helpers.folds.weights import area_weights
from helpers.forest import models
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.forest.out_of_fold import out_of_fold
from helpers.prepare.domain import in_domain
from helpers.samples.extract import extract_covariates
from helpers.samples.labels import label_layers
from helpers.samples.rows import layer_rows
from helpers.samples.selection import drop_unusable, group_cells
from helpers.samples.split import split_sites
from testbed.against_truth import accuracy_against_truth
from testbed.boreholes import sample_boreholes
from testbed.ground import make_ground
from testbed.truth import true_rasters

PARAMS = {"max_depth": None, "min_samples_split": 10}


def draw(study, rngs):
    """Return samples and true rasters of a replicate; generators of truth, boreholes and split."""
    truth_rng, borehole_rng, split_rng = rngs
    ground = make_ground(study, truth_rng)
    labels, _ = label_layers(study, *sample_boreholes(study, ground, borehole_rng))
    table, _ = drop_unusable(study, extract_covariates(study, labels))
    table, _ = group_cells(study, table)
    table["in_domain"] = in_domain(study, table)
    table["split"] = split_sites(study, table, split_rng)
    return table, true_rasters(study, ground, truth_rng)


def differences(study, table, truth):
    """Return each estimate less the true score of the forest of the training samples."""
    params = dict.fromkeys(map(classes.layer_name, study.layers), PARAMS)
    predictions = predict_samples(study, table, params)
    against_truth = accuracy_against_truth(study, predictions, truth)
    estimates = pd.concat([estimate_accuracy(study, predictions), against_truth])
    estimates = estimates[estimates["estimate"] != "true_map"]  # it is of another world
    keys = ["layer", "domain", "reference"]
    scores = list(HEADLINE_SCORES)
    true = estimates[estimates["estimate"] == "true_train"][[*keys, *scores]]
    both = estimates.merge(true, on=keys, suffixes=("", "_true"))
    off = {score: both[score] - both[f"{score}_true"] for score in scores}
    return both[["domain", "estimate", "reference"]].assign(**off)


def calibration_losses(study, table, truth, cells):
    """Return the log loss in the domain of forests that were calibrated on each kind of folds."""
    values, chosen, inside = cells
    codes = study.target_classes.codes
    losses = {}  # by kind, one value a layer
    for layer in map(classes.layer_name, study.layers):
        rows = layer_rows(table, layer, "train", study.target_classes)
        kinds = fold_kinds(study, rows)
        held_out = out_of_fold(study, [(rows, fold, PARAMS) for fold in kinds.values()])
        forest = models.fit(study, table, layer, PARAMS, "train")
        raw = models.class_probabilities(forest, values[inside], codes)
        true = truth[f"ice_type_{layer}"].ravel()[chosen[inside]]
        for kind, part in zip(kinds, held_out, strict=True):
            calibration = fit_calibration(part, rows["class"], area_weights(study, rows))
            loss = log_loss(true, calibrate(raw, calibration), codes)
            losses.setdefault(kind, []).append(loss)
    return {kind: np.mean(values) for kind, values in losses.items()}


def main(path="config/quick.yaml", number="10"):
    """Print both tables."""
    study = Study.open(path)
    cells = evaluation_cells(study)
    off = []
    losses = []
    for seed in range(int(number)):
        table, truth = draw(study, np.random.default_rng(seed).spawn(3))
        off.append(differences(study, table, truth).assign(replicate=seed))
        losses.append(calibration_losses(study, table, truth, cells))
        print(f"replicate {seed}", flush=True)
    keys = ["domain", "estimate", "reference"]
    by_replicate = pd.concat(off).groupby([*keys, "replicate"], sort=False).mean()
    summary = by_replicate.groupby(level=keys, sort=False).agg(["mean", "sem"])
    print(summary.round(3).to_string())
    losses = pd.DataFrame(losses)
    print("log loss in the domain after calibration, less that of random folds:")
    print(losses.sub(losses["random"], axis=0).agg(["mean", "sem"]).round(4).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
