"""What merging rare classes, an order of classes, or fewer of them buy, over hidden worlds.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
All ways predict the cells of the domain from the same samples; the truth is what a borehole in each
cell would find. Printed are, as mean and standard error over worlds and layers: overall accuracy
and kappa of the six ice types, then of none, low and high ice, to which all ways are brought, and
how many of the five ice types a way maps at all. The last row is the ceiling: a forest that was
shown the true cells, each predicted by trees grown without it.

``python benchmarks/rare_classes.py [config/quick.yaml] [worlds] [design]``
"""

import sys

import numpy as np
import pandas as pd
from estimate_bias import PARAMS, draw
from sklearn.ensemble import RandomForestClassifier

from helpers.core.classes import TARGETS, layer_name
from helpers.core.scores import confusion_matrix, kappa
from helpers.core.study import Study
from helpers.forest.hurdle import (
    UNITS,
    fit_hurdle,
    mapped_types,
    permafrost_cut,
    steps,
)
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import domain_of_cells
from helpers.samples.extract import read_predictors
from helpers.samples.rows import forest_predictors, layer_rows
from testbed.against_truth import CEILING

LEVEL = np.array(TARGETS["ice_level"].of_type)
RARE = 15  # samples; a rarer type is merged with the next one towards the middle


def merged(types):
    """Return types of samples, rare ones taken as their neighbour towards type 3."""
    types = types.copy()
    for one, other in ((1, 2), (5, 4), (2, 3), (4, 3)):
        if 0 < (types == one).sum() < RARE:
            types[types == one] = other
    return types


def by_hurdle(study, rows, values):
    """Return types of cells by the map of the expected area."""
    predicted = fit_hurdle(study, rows).predict(values, np.ones(len(values), bool))
    chance = steps(predicted.permafrost)
    cut = permafrost_cut(np.bincount(chance, minlength=UNITS + 1))
    return mapped_types(predicted.classes, chance >= cut, study.target_classes.permafrost)


def ways(study, rows, values):
    """Give the name and the mapped classes of each way; levels have codes from 10 on."""
    samples, types = forest_predictors(study, rows), rows["class"].to_numpy()

    def forest(classes):
        params = PARAMS | {"class_weight": "balanced", "random_state": 1, "n_jobs": -1}
        return RandomForestClassifier(200, **params).fit(samples, classes).predict(values)

    yield "balanced forest of six types", forest(types)
    yield "the same, rare types merged", forest(merged(types))
    yield "balanced forest of three levels", 10 + forest(LEVEL[types])
    yield "hurdle, types by the order of contents", by_hurdle(study, rows, values)
    unordered = study.model_copy(update={"classes": study.classes, "layers": ["any"]})
    yield "hurdle, types without order", by_hurdle(unordered, rows, values)


def scores(reference, mapped, codes):
    """Return overall accuracy and kappa."""
    matrix = confusion_matrix(reference, mapped, codes)
    return np.diag(matrix).sum() / matrix.sum(), kappa(matrix)


def main(path="config/quick.yaml", worlds="10", design="clustered"):
    """Print the table."""
    study = Study.open(path).changed({"campaign.boreholes.design": design})
    values, cells = read_predictors(study, forest_columns(study))
    inside = domain_of_cells(study).ravel()[cells]
    values, cells = values[inside], cells[inside]
    table = []
    for seed in range(int(worlds)):
        samples, truth = draw(study, np.random.default_rng(seed).spawn(3))
        for layer in map(layer_name, study.layers):
            rows = layer_rows(samples, layer)
            true = truth[f"borehole_type_{layer}"].ravel()[cells]
            found = list(ways(study, rows[rows["in_domain"]], values))
            best = RandomForestClassifier(random_state=1, n_jobs=-1, **CEILING).fit(values, true)
            found.append(("ceiling", best.classes_[best.oob_decision_function_.argmax(axis=1)]))
            for name, mapped in found:
                levels = mapped - 10 if mapped.max() >= 10 else LEVEL[mapped]
                row = {"world": seed, "way": name, "types mapped": np.nan}
                if mapped.max() < 10:
                    pair = scores(true, mapped, range(6))
                    row |= dict(zip(("OA, types", "kappa, types"), pair, strict=True))
                    row["types mapped"] = len(set(mapped.tolist()) - {0})
                pair = scores(LEVEL[true], levels, range(3))
                table.append(row | dict(zip(("OA, levels", "kappa, levels"), pair, strict=True)))
        print(f"world {seed}", flush=True)
    table = pd.DataFrame(table).groupby(["way", "world"], sort=False).mean()
    print(table.groupby("way", sort=False).agg(["mean", "sem"]).round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
