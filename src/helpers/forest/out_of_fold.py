"""Probabilities of samples by forests that were grown without their fold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from joblib import Parallel, delayed

from helpers.core.classes import layer_name
from helpers.core.scores import PROBABILITY_FLOOR
from helpers.core.study import Study
from helpers.folds.kinds import sample_folds
from helpers.forest.models import CHECKED_INPUT, class_probabilities, classifier
from helpers.forest.trees import grow
from helpers.prepare.registry import used_predictors
from helpers.samples.rows import forest_predictors, layer_rows

Job = tuple[pd.DataFrame, np.ndarray, dict[str, Any]]
"""Samples of one layer with their class, their folds, and the forest's hyperparameters."""


def out_of_fold(study: Study, jobs: Sequence[Job], n_jobs: int = -1) -> list[np.ndarray]:
    """Predict samples by forests that were grown without their fold, many sets of folds at once.

    Forests have `folds.estimators` trees. There are probabilities for each job, shape (n, k). They
    do not depend on the number of threads, `n_jobs`.
    """
    parts = _parts(jobs)
    # Threads: forests of some hundred samples are grown sooner than processes are started.
    answers = Parallel(n_jobs, prefer="threads")(
        delayed(predict_held_out)(study, rows, held, params) for _, _, rows, held, params in parts
    )
    classes = study.target_classes.codes
    results = [np.empty((len(rows), len(classes))) for rows, _, _ in jobs]
    for (index, _, _, held, _), probabilities in zip(parts, answers, strict=True):
        results[index][held] = probabilities
    return results


def training_jobs(
    study: Study, table: pd.DataFrame, params: dict[str, dict[str, Any]]
) -> list[Job]:
    """Return the job of each layer: its training samples in kNNDM folds, and its `params`."""
    jobs = []
    for layer in map(layer_name, study.layers):
        rows = layer_rows(table, layer, "train", study.target_classes)
        jobs.append((rows, sample_folds(study, rows, "knndm"), params[layer]))
    return jobs


def _parts(jobs: Sequence[Job]) -> list[tuple[int, int, pd.DataFrame, np.ndarray, dict[str, Any]]]:
    """Return each fold of each job: both numbers, samples, which are held out, hyperparameters."""
    return [
        (index, int(number), rows, fold == number, params)
        for index, (rows, fold, params) in enumerate(jobs)
        for number in np.unique(fold)
    ]


def predict_held_out(
    study: Study,
    rows: pd.DataFrame,
    held: np.ndarray,
    params: dict[str, Any],
    others: pd.DataFrame | None = None,
) -> np.ndarray:
    """Return probabilities of held-out samples, or of others, by a forest grown from the rest.

    Where the rest has one class only, that is what it predicts.
    """
    values = forest_predictors(study, rows[held] if others is None else others)
    # Of all samples together, predictors and classes were checked before.
    training = forest_predictors(study, rows[~held]), rows.loc[~held, "class"].to_numpy()
    classes = np.unique(training[1])
    if len(classes) == 1:
        return np.tile(np.eye(len(study.target_classes.codes))[classes[0]], (len(values), 1))
    model = classifier(study, **params | {"n_estimators": study.folds.estimators})
    with sklearn.config_context(**CHECKED_INPUT):
        model = grow(model, *training)
    return class_probabilities(model, values, study.target_classes.codes)


def out_of_fold_importance(
    study: Study, jobs: Sequence[Job], repeats: int = 5, n_jobs: int = -1
) -> list[dict[str, float]]:
    """Return permutation importance out of fold: how much the log loss grows.

    All samples count, and by their probabilities: with a few hundred of them that is much steadier
    than how much kappa falls on the test samples, where most importances may be 0, since correlated
    predictors stand in for each other. Each predictor is shuffled `repeats` times within a fold.

    There is the importance of each predictor for each of the jobs, negative where shuffling helped
    by chance. It does not depend on the number of threads, `n_jobs`.
    """
    names = used_predictors(study)
    parts = _parts(jobs)
    answers = Parallel(n_jobs, prefer="threads")(
        delayed(_grown_loss)(study, rows, held, params, repeats, [study.folds.seed, number])
        for _, number, rows, held, params in parts
    )
    sums = [np.zeros(len(names)) for _ in jobs]
    for (index, *_), growth in zip(parts, answers, strict=True):
        sums[index] += growth
    return [
        dict(zip(names, (growth / len(rows)).tolist(), strict=True))
        for growth, (rows, _, _) in zip(sums, jobs, strict=True)
    ]


def _grown_loss(
    study: Study,
    rows: pd.DataFrame,
    held: np.ndarray,
    params: dict[str, Any],
    repeats: int,
    seed: Sequence[int],
) -> np.ndarray:
    """Return how much the summed loss of held-out samples grows when each predictor is shuffled."""
    names = used_predictors(study)
    types = rows.loc[held, "class"].to_numpy()
    values = rows.loc[held, names].to_numpy()
    rng = np.random.default_rng(seed)
    # The values as they are, then `repeats` times with each predictor shuffled.
    copies = np.tile(values, (1 + repeats * len(names), 1, 1))
    for place, copy in enumerate(copies[1:]):
        copy[:, place % len(names)] = rng.permutation(copy[:, place % len(names)])
    others = pd.DataFrame(copies.reshape(-1, len(names)), columns=names)
    probabilities = predict_held_out(study, rows, held, params, others)
    probabilities = probabilities.reshape(len(copies), len(types), -1)
    of_class = probabilities[:, np.arange(len(types)), types]
    loss = -np.log(np.maximum(of_class, PROBABILITY_FLOOR)).sum(axis=1)
    return (loss[1:] - loss[0]).reshape(repeats, -1).mean(axis=0)
