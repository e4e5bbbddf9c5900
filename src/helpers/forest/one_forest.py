"""Grid search from one forest: rules that only stop a tree are read from trees not stopped.

`n_estimators`, `max_depth` and `min_samples_split` change no split: a node's split depends on its
samples and on the features drawn for it alone. A full tree cut where a rule would have stopped it
therefore has the distribution of a tree that was grown under the rule, and the first trees of a
forest are the smaller forest of the same seed. So one full forest a fold gives the probabilities of
all combinations of the three; only hyperparameters that change splits, such as `max_features`,
`min_samples_leaf` and `criterion`, need a forest each.

Probabilities of a combination that stops no tree are those of a forest that was grown for it, with
the same seed; of others they differ as those of two seeds do, for a tree that is cut had drawn
features for nodes beyond the cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.utils.parallel import Parallel, delayed

from helpers.forest.trees import grow, read_forest

STOPPING = ("n_estimators", "max_depth", "min_samples_split")
"""Hyperparameters that are read from full trees."""


def predict_grid(
    estimator: RandomForestClassifier,
    grid: Mapping[str, Sequence[Any]],
    values: np.ndarray,
    types: np.ndarray,
    fold: np.ndarray,
    n_jobs: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every sample by every combination of a grid, from forests grown without its fold.

    Parameters
    ----------
    grid
        Values of `STOPPING`, which cost next to nothing, and of hyperparameters that only change
        splits, which need a forest for each of their combinations.
    values, types
        As for `helpers.forest.trees.grow`.
    fold : shape (n,)
        Samples of a negative fold are in all forests.
    n_jobs
        Processes at once. Results do not depend on it.

    Returns
    -------
    probabilities : shape (combinations, n, classes)
        Combinations are those of scikit-learn's ``ParameterGrid``, columns the sorted classes of
        all samples; NaN for samples of a negative fold.
    leaves : shape (combinations,)
        Of a tree, on average.
    """
    combinations = list(ParameterGrid(grid))
    members = {}
    for index, params in enumerate(combinations):
        # As text, because 1 predictor at a split is not a share of 1.0.
        splitting = repr({name: params[name] for name in params if name not in STOPPING})
        members.setdefault(splitting, []).append(index)
    held_out = [fold == number for number in np.unique(fold[fold >= 0])]
    jobs = [(indices, held) for indices in members.values() for held in held_out]
    answers = Parallel(n_jobs=n_jobs)(
        delayed(_predict_fold)(estimator, [combinations[i] for i in indices], values, types, held)
        for indices, held in jobs
    )
    classes = np.unique(types)
    probabilities = np.full((len(combinations), len(types), len(classes)), np.nan)
    leaves = np.zeros(len(combinations))
    for (indices, held), (of_forest, read, of_tree) in zip(jobs, answers, strict=True):
        # A class that all other folds lack has probability 0.
        padded = np.zeros((len(indices), held.sum(), len(classes)))
        padded[..., np.searchsorted(classes, of_forest)] = read
        probabilities[np.ix_(indices, held)] = padded
        leaves[indices] += of_tree
    return probabilities, leaves / len(held_out)


def _predict_fold(
    estimator: RandomForestClassifier,
    combinations: Sequence[Mapping[str, Any]],
    values: np.ndarray,
    types: np.ndarray,
    held: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grow one forest without the held-out samples, and read all combinations from it.

    Return its classes, probabilities, shape (combinations, held-out samples, classes), and leaves.
    """
    params = estimator.get_params()
    wanted = [params | one for one in combinations]
    rules = list(dict.fromkeys((one["max_depth"], one["min_samples_split"]) for one in wanted))
    sizes = sorted({one["n_estimators"] for one in wanted})
    depths, splits = zip(*rules, strict=True)
    widest = {
        "n_estimators": sizes[-1],
        "max_depth": None if None in depths else max(depths),
        "min_samples_split": min(splits),
        "n_jobs": 1,
    }
    model = clone(estimator).set_params(**wanted[0] | widest)
    model = grow(model, values[~held], types[~held])
    read, leaves = read_forest(model, values[held], rules, sizes)
    rule = [rules.index((one["max_depth"], one["min_samples_split"])) for one in wanted]
    size = [sizes.index(one["n_estimators"]) for one in wanted]
    return model.classes_, read[size, rule], leaves[rule]
