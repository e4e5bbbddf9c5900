"""Probabilities of samples by forests that were grown without their fold."""

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.scores import PROBABILITY_FLOOR
from helpers.forest.models import probabilities_of
from helpers.prepare.registry import used_predictors


def out_of_fold(study, jobs, n_jobs=-1):
    """Predict samples by forests that were grown without their fold, many sets of folds at once.

    Parameters
    ----------
    study : helpers.core.study.Study
        Forests have its `folds.estimators` trees.
    jobs : sequence of (rows, fold, params)
        Samples of one layer with their class, their folds, and the hyperparameters.
    n_jobs : int
        Threads at once, -1 for one a core. The result does not depend on it.

    Returns
    -------
    list of numpy.ndarray, shape (n, k)
        Probabilities for each of the jobs.
    """
    from joblib import Parallel, delayed

    parts = [(job, number) for job, (_, fold, _) in enumerate(jobs) for number in np.unique(fold)]
    # Threads: forests of some hundred samples are grown sooner than processes are started.
    found = Parallel(n_jobs, prefer="threads")(
        delayed(predict_held_out)(study, jobs[job][0], jobs[job][1] == number, jobs[job][2]) for job, number in parts
    )
    classes = TARGETS[study.target].codes
    results = [np.empty((len(rows), len(classes))) for rows, _, _ in jobs]
    for (job, number), part in zip(parts, found, strict=True):
        results[job][jobs[job][1] == number] = part
    return results


def predict_held_out(study, rows, held, params, others=None):
    """Return probabilities of held-out samples, or of others, by a forest grown from the rest."""
    trees = {"n_estimators": study.folds.estimators}
    return probabilities_of(study, rows[~held], rows[held] if others is None else others, {**params, **trees})


def out_of_fold_importance(study, jobs, repeats=5, n_jobs=-1):
    """Return permutation importance from samples that forests had not seen: how much the log loss grows.

    All samples tell, and by their probabilities: with a few hundred of them that is much steadier than how much kappa
    falls on the test samples, where most importances may be 0, since correlated predictors stand in for each other.

    Parameters
    ----------
    study : helpers.core.study.Study
    jobs : sequence of (rows, fold, params)
        As for `out_of_fold`.
    repeats : int
        Shuffles of each predictor within a fold.
    n_jobs : int
        Threads at once. The result does not depend on it.

    Returns
    -------
    list of dict of str to float
        Importance of each predictor for each of the jobs; negative where shuffling helped by chance.
    """
    from joblib import Parallel, delayed

    names = used_predictors(study)
    parts = [(job, number) for job, (_, fold, _) in enumerate(jobs) for number in np.unique(fold)]
    found = Parallel(n_jobs, prefer="threads")(
        delayed(_grown_loss)(study, *jobs[job], number, names, repeats) for job, number in parts
    )
    sums = [np.zeros(len(names)) for _ in jobs]
    for (job, _), part in zip(parts, found, strict=True):
        sums[job] += part
    counts = [len(rows) for rows, _, _ in jobs]
    return [dict(zip(names, (part / count).tolist(), strict=True)) for part, count in zip(sums, counts, strict=True)]


def _grown_loss(study, rows, fold, params, number, names, repeats):
    """Return by how much the summed loss of a fold's samples grows when each predictor is shuffled among them."""
    held = rows[fold == number]
    rng, values = np.random.default_rng([study.folds.seed, int(number)]), held[names].to_numpy()
    copies = np.tile(values, (1 + repeats * len(names), 1, 1))
    for place, copy in enumerate(copies[1:]):
        copy[:, place % len(names)] = rng.permutation(copy[:, place % len(names)])
    others = pd.DataFrame(copies.reshape(-1, len(names)), columns=names)
    chances = predict_held_out(study, rows, fold == number, params, others).reshape(len(copies), len(held), -1)
    given = chances[:, np.arange(len(held)), held["class"].to_numpy()]
    loss = -np.log(np.maximum(given, PROBABILITY_FLOOR)).sum(axis=1)
    return (loss[1:] - loss[0]).reshape(repeats, -1).mean(axis=0)
