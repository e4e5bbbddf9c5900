"""The random forest of a depth layer: how it is set up and grown, and its probabilities.

Probabilities are arrays with one column for each class of the study's target
(`helpers.core.classes.TARGETS`), by default the ice types, also for classes without a training
sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from helpers.core.study import Study
from helpers.forest.leaves import Grown, leaf_means
from helpers.forest.trees import grow
from helpers.samples.rows import CLASSES, ForestError, layer_rows, training_arrays

# Input is checked here, once; that saves a sixth of the time.
CHECKED_INPUT = {"assume_finite": True, "skip_parameter_validation": True}

PREDICTION_BATCH = 100_000  # rows of one prediction: about the fastest size


def classifier(study: Study, **params: Any) -> RandomForestClassifier:
    """Return the study's forest, not yet grown.

    `params` are hyperparameters other than the study's or scikit-learn's.
    """
    fixed = {"n_estimators": study.forest.n_estimators, "random_state": study.forest.seed}
    return RandomForestClassifier(**{**fixed, "class_weight": "balanced", "n_jobs": 1, **params})


def fit(
    study: Study, table: pd.DataFrame, layer: str, params: dict[str, Any], which: str = "all"
) -> RandomForestClassifier:
    """Grow a layer's forest from its samples in a table: all or the train ones.

    `params` are hyperparameters (`helpers.forest.grid_search.SEARCHED`) other than scikit-learn's.
    """
    rows = layer_rows(table, layer, which, study.target_classes)
    return grow(classifier(study, **params), *training_arrays(study, rows, layer))


def class_probabilities(
    model: Grown, values: np.ndarray, classes: Sequence[int] = CLASSES
) -> np.ndarray:
    """Return a forest's own probabilities, shape (n, k), with one column for each class.

    Its prediction is the most probable class.

    Examples
    --------
    >>> values, types = [[0], [0], [0], [0], [1]], [0, 0, 0, 2, 2]
    >>> tree = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(values, types)
    >>> class_probabilities(tree, [[0], [1]], classes=[0, 1, 2]).tolist()  # no sample is of class 1
    [[0.75, 0.0, 0.25], [0.0, 0.0, 1.0]]
    """
    probabilities = np.zeros((len(values), len(classes)))
    if len(values):
        probabilities[:, model.classes_] = leaf_means(model, values)
    return probabilities


def check_classes(study: Study, rows: pd.DataFrame, layer: str) -> None:
    """Raise ForestError for a class with one site, unless the study keeps rare classes."""
    sites = rows.groupby("class")["group"].nunique()
    alone = [study.target_classes.classes[code].name for code in sites.index[sites == 1]]
    how = study.samples.rare_classes
    if alone and how != "keep":
        merge = "" if how == "merge" else "to merge, or "
        raise ForestError(
            f"Of {layer} only one training site has the class {', '.join(alone)}: "
            "no fold can both learn and test it.",
            f"give more sites, or set samples.rare_classes {merge}to keep if it may be missed",
        )
