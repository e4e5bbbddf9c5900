"""The random forest of a depth layer: grid search, fit, calibrated probabilities, and safe files.

Probabilities are arrays with one column for each class of the study's target (`helpers.core.classes.TARGETS`), by
default the ice types, also for classes that no training sample has.
"""

import numpy as np

from helpers.core.classes import TARGETS
from helpers.forest.trees import grow, grow_and_predict
from helpers.forest.two_stage import TwoStageForest
from helpers.samples.rows import CLASSES, ForestError, forest_predictors, layer_rows, training_arrays

CHECKED_INPUT = {"assume_finite": True, "skip_parameter_validation": True}  # checked here, once; saves a sixth


PREDICTION_BATCH = 100_000  # rows of one prediction: about the fastest size


_ROWS = 32_000  # rows that go down a tree together: the cache keeps them from one tree to the next


def fit(study, table, layer, params, which="all"):
    """Grow a layer's forest.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples.
    layer : str
    params : dict
        Those of `SEARCHED` that are not scikit-learn's defaults.
    which : {"all", "train"}
        The samples to grow it from.

    Returns
    -------
    sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
        The latter for the target two_stage; it has the methods of the former.
    """
    return grow(
        classifier(study, **params), *training_arrays(study, layer_rows(table, layer, which, study.target), layer)
    )


def probabilities_of(study, rows, others, params):
    """Grow a forest for one prediction, in half the time of `fit`, and return its probabilities of other samples.

    Parameters
    ----------
    study : helpers.core.study.Study
    rows, others : pandas.DataFrame
        Samples of one layer from `layer_rows`: those to grow the forest from, and those to predict.
    params : dict
        Hyperparameters.

    Returns
    -------
    numpy.ndarray, shape (n, k)
        One column for each class of the target.
    """
    import sklearn

    values = forest_predictors(study, others)
    probabilities = np.zeros((len(others), len(TARGETS[study.target].codes)))
    with sklearn.config_context(**CHECKED_INPUT):
        known = training_arrays(study, rows, rows["layer"].iloc[0])
        classes, found = grow_and_predict(classifier(study, **params), *known, values)
    probabilities[:, classes] = found
    return probabilities


def class_probabilities(model, values, classes=CLASSES):
    """Return a forest's own probabilities with one column for each class; `mapped_class` says what it predicts.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    values : numpy.ndarray, shape (n, predictors)
    classes : sequence of int
        Those of the target.

    Returns
    -------
    numpy.ndarray, shape (n, k)
    """
    if not len(values):
        return np.zeros((0, len(classes)))
    probabilities = np.zeros((len(values), len(classes)))
    probabilities[:, model.classes_] = _predict_proba(model, values)
    return probabilities


def _predict_proba(model, values):
    """Return what a forest's `predict_proba` does in one thread, a tenth faster, equal to the last bit."""
    if hasattr(model, "stages_"):
        return model.combined(*(_predict_proba(stage, values) for stage in model.stages_))
    values = np.ascontiguousarray(values, np.float32)
    total, trees = np.zeros((len(values), model.n_classes_)), [grown.tree_ for grown in model.estimators_]
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        for tree in trees:
            total[rows] += tree.predict(values[rows])
    total /= len(trees)
    return total


def check_classes(study, rows, layer):
    """Refuse a class with one site, which cannot be learnt and tested, unless the study keeps what is rare."""
    sites = rows.groupby("class")["group"].nunique()
    alone = [TARGETS[study.target].classes[code].name for code in sites.index[sites == 1]]
    if alone and study.samples.rare_classes != "keep":
        raise ForestError(
            f"Of {layer} only one training site has the class {', '.join(alone)}: no fold can both learn and test it.",
            "give more sites, set samples.rare_classes to merge, or to keep if such a class may be missed",
        )


def classifier(study, **params):
    """Return the study's forest, not yet grown.

    Parameters
    ----------
    study : helpers.core.study.Study
    **params
        Hyperparameters that are others than the study's or scikit-learn's.

    Returns
    -------
    sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
        The latter for the target two_stage.
    """
    from sklearn.ensemble import RandomForestClassifier

    kind = TwoStageForest if TARGETS[study.target].two_stage else RandomForestClassifier
    fixed = {"n_estimators": study.forest.n_estimators, "random_state": study.forest.seed}
    return kind(**{**fixed, "class_weight": "balanced", "n_jobs": 1, **params})
