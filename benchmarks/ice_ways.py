"""Ways from samples to ice, over hidden worlds: ground and boreholes of the virtual study redrawn.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
All cells of the potential-permafrost domain count, and all samples in it. Printed are, by way, mean
and standard error over worlds: ``rmse_m`` of a cell's thickness, m of ice; ``free``, the share of
the ice that is put into cells without permafrost; ``bias`` of the total, as a share of it; and
``log_loss`` of P, the probability that a borehole finds permafrost, mean over layers.

``python benchmarks/ice_ways.py [config/quick.yaml] [worlds] [design]``
"""

import sys

import numpy as np
import pandas as pd
from estimate_bias import draw
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.scores import log_loss
from helpers.core.study import Study
from helpers.forest.hurdle import TREES, fit_hurdle, learning_rows, permafrost_cut, steps
from helpers.forest.leaves import leaf_means
from helpers.forest.models import class_probabilities
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import domain_of_cells
from helpers.samples.extract import read_predictors
from helpers.samples.rows import forest_predictors, layer_rows


def ways(study, rows, values):
    """Return P (or None) and the ice fraction of each cell of the domain, by way, of one layer."""
    hurdle = fit_hurdle(study, rows)
    rows = learning_rows(study, rows)
    at_samples, fraction = forest_predictors(study, rows), rows["ice_fraction"]
    target = study.target_classes
    common = {"n_estimators": TREES, "random_state": study.forest.seed, "n_jobs": 2}
    classes = RandomForestClassifier(min_samples_leaf=3, **common).fit(at_samples, rows["class"])
    shares = class_probabilities(classes, values, target.codes)
    means = fraction.groupby(rows["class"]).mean().reindex(target.codes, fill_value=0)
    of_ice = RandomForestRegressor(max_features=0.33, min_samples_leaf=10, **common)
    whole = hurdle.predict(values, np.ones(len(values), bool))
    forest = leaf_means(hurdle.forests[0], values)[:, 1]
    logistic = expit(values @ hurdle.slope + hurdle.intercept)
    chances = {
        "P of the forest": forest,
        "P of the logistic regression": logistic,
        "P as the plain mean": (forest + logistic) / 2,
    }
    return {
        "hurdle": (whole.permafrost, whole.ice),
        "classes times class means": (shares[:, target.permafrost].sum(axis=1), shares @ means),
        "ice regressed": (None, of_ice.fit(at_samples, fraction).predict(values)),
        **{name: (chance, chance * whole.content) for name, chance in chances.items()},
        "hurdle, in the probable cells": (whole.permafrost, _confined(whole)),
    }


def _confined(prediction):
    """Return all ice in the most probable cells, as many as have permafrost by expectation."""
    step = steps(prediction.permafrost)
    kept = np.where(step >= permafrost_cut(np.bincount(step, minlength=10_001)), prediction.ice, 0)
    return np.minimum(kept * prediction.ice.sum() / kept.sum(), 1)


def world(study, seed, values, cells):
    """Return a row a way with its scores in one world."""
    table, truth = draw(study, np.random.default_rng(seed).spawn(3))
    true = {name: raster.ravel()[cells] for name, raster in truth.items()}
    layers = [layer_name(layer) for layer in study.layers]
    found = {
        layer: ways(study, layer_rows(table, layer, target=study.target_classes), values)
        for layer in layers
    }
    thickness = ice.thickness([true[f"ice_fraction_{layer}"] for layer in layers], study.layers)
    free = true["permafrost_share"] == 0
    rows = []
    for way in found[layers[0]]:
        ours = ice.thickness([found[layer][way][1] for layer in layers], study.layers)
        row = {"seed": seed, "way": way, "rmse_m": np.sqrt(np.mean((ours - thickness) ** 2))}
        row |= {"free": ours[free].sum() / ours.sum(), "bias": ours.sum() / thickness.sum() - 1}
        chances = {layer: found[layer][way][0] for layer in layers}
        losses = [
            log_loss(true[f"borehole_type_{layer}"] > 0, np.stack([1 - p, p], axis=1), [0, 1])
            for layer, p in chances.items()
            if p is not None
        ]
        rows.append(row | {"log_loss": np.mean(losses) if losses else np.nan})
    return rows


def main(path="config/quick.yaml", worlds="10", design="random"):
    """Print the table."""
    study = Study.open(path).changed({"campaign.boreholes.design": design})
    values, cells = read_predictors(study, forest_columns(study))
    inside = domain_of_cells(study).ravel()[cells]
    rows = []
    for seed in range(int(worlds)):
        rows += world(study, seed, values[inside], cells[inside])
        print(f"world {seed}", flush=True)
    by_way = pd.DataFrame(rows).drop(columns="seed").groupby("way", sort=False)
    print(by_way.agg(["mean", "sem"]).round(4).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
