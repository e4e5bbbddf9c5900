"""Which estimate of accuracy is true? Replicates of the virtual study, with ground and boreholes.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and maps and writes
nothing. The balanced forests have the settings below instead of a grid search each. Printed is, by
map, domain and estimate, the mean difference from the true score of the same model (the one of the
training samples) with its standard error over replicates.

``python benchmarks/estimate_bias.py [config/quick.yaml] [replicates]``
"""

import sys

import numpy as np
import pandas as pd

from helpers.accuracy.estimates import estimate_accuracy
from helpers.accuracy.predictions import predict_samples
from helpers.core import classes
from helpers.core.scores import HEADLINE_SCORES
from helpers.core.study import Study
from helpers.prepare.domain import in_domain
from helpers.samples.extract import extract_covariates
from helpers.samples.labels import label_layers
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
    """Return each estimate less the true score of the model of the training samples."""
    params = dict.fromkeys(map(classes.layer_name, study.layers), PARAMS)
    scores = list(HEADLINE_SCORES)
    keys = ["map", "layer", "domain", "reference"]
    parts = []
    for which, predictions in predict_samples(study, table, params).items():
        against_truth = accuracy_against_truth(study, predictions, truth, which)
        parts += [
            one.assign(map=which) for one in (estimate_accuracy(study, predictions), against_truth)
        ]
    estimates = pd.concat(parts)
    estimates = estimates[estimates["estimate"] != "true_map"]  # it is of another world
    true = estimates[estimates["estimate"] == "true_train"][[*keys, *scores]]
    both = estimates.merge(true, on=keys, suffixes=("", "_true"))
    off = {score: both[score] - both[f"{score}_true"] for score in scores}
    return both[["map", "domain", "estimate", "reference"]].assign(**off)


def main(path="config/quick.yaml", number="10"):
    """Print the table."""
    study = Study.open(path)
    off = []
    for seed in range(int(number)):
        table, truth = draw(study, np.random.default_rng(seed).spawn(3))
        off.append(differences(study, table, truth).assign(replicate=seed))
        print(f"replicate {seed}", flush=True)
    keys = ["map", "domain", "estimate", "reference"]
    by_replicate = pd.concat(off).groupby([*keys, "replicate"], sort=False).mean()
    summary = by_replicate.groupby(level=keys, sort=False).agg(["mean", "sem"])
    print(summary.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
