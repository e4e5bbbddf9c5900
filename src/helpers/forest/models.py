"""The random forest of a depth layer: grid search, fit, calibrated probabilities, and safe files.

Probabilities are arrays with one column for each class of the study's target (`helpers.core.ice.TARGETS`), by default
the ice types, also for classes that no training sample has.
"""

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from helpers.accuracy.report import (
    PROBABILITY_FLOOR,
    confusion_matrix,
    drawn_matrices,
    f1,
    interval,
    kappa,
    log_loss,
    macro,
    write_json,
)
from helpers.core.code import file_hash, package_digest
from helpers.core.errors import CompendiumError
from helpers.core.ice import TARGETS

CLASSES = TARGETS["ice_type"].codes
"""Codes of the ice types, which are the classes of the default target."""


SCORES = ("kappa", "macro_f1", "log_loss")
"""Scores of the grid search; `forest.score` of the study says which one decides."""


REGRESSED = "ice_fraction"
"""What a forest of `helpers.forest.regression` predicts: its target on the model card."""


SEARCHED = ("max_depth", "min_samples_split", "max_features", "min_samples_leaf", "criterion")
"""Hyperparameters that the grid search chooses; a final forest has `forest.n_estimators` trees."""


_SHRINKAGE = 3.0  # pull of the calibration towards one slope for all classes, in samples: chosen on simulated data


_CHECKED = {"assume_finite": True, "skip_parameter_validation": True}  # checked here, once; saves a sixth


_BATCH = 100_000  # rows of one prediction: about the fastest size


_ROWS = 32_000  # rows that go down a tree together: the cache keeps them from one tree to the next


class ForestError(CompendiumError):
    """Samples or settings from which no forest can be grown."""


class ModelError(CompendiumError):
    """A model file that is missing, damaged, or not what its card says."""


# Samples ----------------------------------------------------------------------------------------------------


def layer_rows(table, layer, which="all", target="ice_type"):
    """Return the samples of a depth layer with their class: the one place where ice types become a target's classes.

    Parameters
    ----------
    table : pandas.DataFrame
        Samples, as from `helpers.samples.labels.read_samples`.
    layer : str
        Name of the layer, such as ``"2-3m"``.
    which : {"all", "train", "test"}
        The part of the split.
    target : str
        One of `helpers.core.ice.TARGETS`.

    Returns
    -------
    pandas.DataFrame
        With one more column, ``class``.

    Raises
    ------
    ForestError
        There are none, or they have other ice types than 0-5.
    """
    chosen = table["layer"] == layer
    if which != "all":
        chosen &= table["split"] == which
    if not chosen.any():
        known = ", ".join(sorted(table["layer"].unique())) or "none"
        raise ForestError(
            f"There are no samples of the layer {layer} ({which}); the table has the layers {known}.",
            "run 02-extract-samples for these layers, or correct `layers` in the study file",
        )
    rows, of_type = table[chosen].reset_index(drop=True), np.array(TARGETS[target].of_type)
    types = rows["ice_type"].to_numpy(int)
    if unknown := sorted(set(types.tolist()) - set(CLASSES)):
        raise ForestError(f"The samples of {layer} have the ice types {unknown}.", f"use {CLASSES[0]}-{CLASSES[-1]}")
    return rows.assign(**{"class": of_type[types]})


def predictor_values(rows, predictors):
    """Return the predictors of samples as 32-bit floats, as scikit-learn's trees see them.

    Parameters
    ----------
    rows : pandas.DataFrame
    predictors : sequence of str
        Columns, in order.

    Returns
    -------
    numpy.ndarray of float32, shape (n, len(predictors))

    Raises
    ------
    ForestError
        A column is missing or has values that are not finite.
    """
    missing = [name for name in predictors if name not in rows]
    if missing:
        raise ForestError(
            f"The samples have no column {', '.join(missing[:5])}.",
            "run 02-extract-samples with these predictors",
        )
    values = np.ascontiguousarray(rows[list(predictors)].to_numpy(np.float32))
    bad = ~np.isfinite(values)
    if bad.any():
        name = predictors[int(bad.any(axis=0).argmax())]
        sites = ", ".join(rows.loc[bad.any(axis=1), "site_id"].astype(str)[:5])
        raise ForestError(
            f"{bad.any(axis=1).sum()} samples lack a finite value of a predictor, such as {name} at {sites}.",
            "drop these samples, as 02-extract-samples does, or leave the predictor out",
        )
    return values


def site_folds(sites, types, folds, seed):
    """Deal sites at random into folds, so that every fold has about the same share of every class.

    Parameters
    ----------
    sites : array_like, shape (n,)
        Site of each sample; samples of one site are never parted. A site counts as its highest class.
    types : array_like of int, shape (n,)
        Class of each sample.
    folds : int
    seed : int

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Fold of each sample, 0 to folds - 1: scikit-learn's ``PredefinedSplit`` takes it.

    Raises
    ------
    ForestError
        There are fewer sites than folds.
    """
    names, number = np.unique(np.asarray(sites), return_inverse=True)
    if len(names) < folds:
        raise ForestError(
            f"{len(names)} sites cannot be dealt into {folds} folds.",
            "give more sites, or set fewer `folds.number`",
        )
    highest = np.full(len(names), -1)
    np.maximum.at(highest, number, np.asarray(types))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    # One round of dealing for all classes: the next goes on where the last one stopped: folds of one size.
    dealt = shuffled[np.argsort(highest[shuffled], kind="stable")]
    fold = np.empty(len(names), int)
    fold[dealt] = np.arange(len(names)) % folds
    return fold[number]


# Growing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Search:
    """What a grid search found for a layer.

    Parameters
    ----------
    layer, target : str
    params : dict
        The winner's `SEARCHED` hyperparameters.
    table : pandas.DataFrame
        One row a combination, in the order of the grid: the hyperparameters, the leaves of a tree, mean and standard
        error over folds of each score, the rank among combinations with as many trees, and whether it was chosen.
    fold, reference : numpy.ndarray of int, shape (n,)
        Fold and class of each training sample.
    out_of_fold : numpy.ndarray, shape (n, k)
        The winner's probabilities for each training sample, from the forest that was grown without its fold.
    """

    layer: str
    params: dict
    table: object
    fold: np.ndarray
    reference: np.ndarray
    out_of_fold: np.ndarray
    target: str = "ice_type"

    @property
    def scores(self):
        """The winner's scores on the pooled out-of-fold predictions."""
        return score_probabilities(self.reference, self.out_of_fold, self.target)


def mapped_class(probabilities, target="ice_type"):
    """Return the class that a forest maps: the most probable one.

    In two stages permafrost is decided first, then its type: against each type alone, no permafrost would win too
    often.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, k)
        The forest's own.
    target : str
        One of `helpers.core.ice.TARGETS`.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
    """
    if not TARGETS[target].two_stage:
        return probabilities.argmax(axis=1)
    return np.where(probabilities[:, 0] >= 0.5, 0, 1 + probabilities[:, 1:].argmax(axis=1))


def score_probabilities(reference, probabilities, target="ice_type"):
    """Return kappa and macro F1 of the mapped class, and the log loss.

    Kappa counts as 0 where nothing but one class occurs and is predicted: such samples tell nothing.

    Parameters
    ----------
    reference : array_like of int, shape (n,)
    probabilities : numpy.ndarray, shape (n, k)
    target : str
        One of `helpers.core.ice.TARGETS`.

    Returns
    -------
    dict
    """
    classes = TARGETS[target].codes
    matrix = confusion_matrix(reference, mapped_class(probabilities, target), classes)
    return {
        "kappa": float(np.nan_to_num(kappa(matrix))),
        "macro_f1": macro(f1(matrix), matrix),
        "log_loss": log_loss(reference, probabilities, classes),
    }


def search(study, table, layer, n_jobs=-1):
    """Choose a layer's hyperparameters by a grid search on the training samples (`helpers.forest.one_forest`).

    All combinations of the study's grid are scored, with `forest.n_estimators` trees and with the first of them
    (`forest.search_sizes`). Of those with all trees `forest.score` decides: more trees are never worse but by chance.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples of all layers; only the layer's training samples are looked at.
    layer : str
    n_jobs : int
        Processes at once, -1 for one a core. The result does not depend on it.

    Returns
    -------
    Search

    Raises
    ------
    ForestError
        Too few sites or classes, values that are not finite, a predictor that is constant, or a grid that asks for
        more predictors than there are.
    """
    import pandas as pd
    import sklearn
    from sklearn.model_selection import PredefinedSplit

    from helpers.folds.kinds import sample_folds
    from helpers.forest.one_forest import OneForestSearchCV, choose, standard_error

    rows, target = layer_rows(table, layer, "train", study.target), TARGETS[study.target]
    values, types = _training(study, rows, layer)
    fold = sample_folds(study, rows)
    _check_classes(study, rows, layer)
    grid = search_grid(study)
    if too_many := [m for m in grid["max_features"] if isinstance(m, int) and m > values.shape[1]]:
        raise ForestError(
            f"The grid asks for {too_many[0]} predictors at a split, and there are {values.shape[1]}.",
            "set fewer in `forest.max_features`, or a share",
        )
    searched = OneForestSearchCV(classifier(study), grid, cv=PredefinedSplit(fold), n_jobs=n_jobs, refit=False)
    with sklearn.config_context(**_CHECKED):
        searched.fit(values, types)
    found = searched.cv_results_

    scored = pd.DataFrame(found["params"], columns=list(grid), dtype=object)
    trees = scored["n_estimators"].astype(int)
    scored["max_depth"] = scored["max_depth"].fillna("unlimited")
    scored["leaves"] = found["mean_leaves"]
    names = dict(zip(SCORES, ("kappa", "macro_f1", "neg_log_loss"), strict=True))
    for name, key in names.items():
        scored[name] = np.abs(found[f"mean_test_{key}"]) if name == "log_loss" else found[f"mean_test_{key}"]
        scored[f"{name}_se"] = standard_error(found, key)
    decides = names[study.forest.score]
    scored["rank"] = pd.Series(-found[f"mean_test_{decides}"]).groupby(trees).rank(method="first").astype(int)
    best = choose(found, decides, study.forest.one_standard_error, among=trees == study.forest.n_estimators)
    scored["chosen"] = scored.index == best
    params = {name: value for name, value in found["params"][best].items() if name != "n_estimators"}
    out_of_fold = np.zeros((len(rows), len(target.codes)))
    out_of_fold[:, np.unique(types)] = searched.out_of_fold_[best]
    return Search(layer, params, scored, fold, types, out_of_fold, study.target)


def search_grid(study):
    """Return the grid of a study's search, hyperparameter to values; the last number of trees is the final one."""
    trees = study.forest.n_estimators
    return {
        "n_estimators": [*sorted(size for size in set(study.forest.search_sizes) if size < trees), trees],
        **{name: getattr(study.forest, name) for name in SEARCHED},
    }


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
    from helpers.forest.one_forest import grow

    return grow(classifier(study, **params), *_training(study, layer_rows(table, layer, which, study.target), layer))


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

    from helpers.forest.one_forest import grow_and_predict

    values = _values(study, others)
    probabilities = np.zeros((len(others), len(TARGETS[study.target].codes)))
    with sklearn.config_context(**_CHECKED):
        known = _training(study, rows, rows["layer"].iloc[0])
        classes, found = grow_and_predict(classifier(study, **params), *known, values)
    probabilities[:, classes] = found
    return probabilities


def class_means(rows, classes=CLASSES):
    """Return the mean ice fraction of each class, m3 of ice per m3 of the layer.

    With the calibrated probabilities it gives the expected ice of a cell, sum of p_k m_k.

    Parameters
    ----------
    rows : pandas.DataFrame
        The samples that a forest was grown from, with their ``class``.
    classes : sequence of int
        Those of the target.

    Returns
    -------
    list of float
        One a class; 0 for no permafrost, and for a class without samples, whose probability is 0 everywhere.
    """
    means = rows.groupby("class")["ice_fraction"].mean().reindex(classes).fillna(0.0)
    means.loc[0] = 0.0
    return [float(mean) for mean in means]


def class_sds(rows, classes=CLASSES):
    """Return the standard deviation of the ice fraction within each class, m3 of ice per m3 of the layer.

    It is that of holes: it holds what varies within a cell, and what was measured wrongly.

    Parameters
    ----------
    rows : pandas.DataFrame
        The samples that a forest was grown from, with their ``class``.
    classes : sequence of int
        Those of the target.

    Returns
    -------
    list of float
        One a class; 0 for no permafrost, and for a class with fewer than two samples, which is improbable everywhere.
    """
    sds = rows.groupby("class")["ice_fraction"].std().reindex(classes).fillna(0.0)
    sds.loc[0] = 0.0
    return [float(sd) for sd in sds]


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


def importance(model, values, types, predictors, seed, repeats=10, groups=None, draws=None, probability=0.9):
    """Return permutation importance: how much kappa falls when a predictor's values are shuffled.

    All shuffled copies are predicted together, which is many times faster than one by one.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    values : numpy.ndarray, shape (n, predictors)
        Predictors of samples that the forest was not grown from.
    types : array_like of int, shape (n,)
        Their classes.
    predictors : sequence of str
    seed : int
    repeats : int
        Shuffles of each predictor.
    groups : list of list of str, optional
        Predictors that are shuffled together, such as from `helpers.samples.quality.correlated_groups`:
        predictors that tell
        the same stand in for one another, so that each alone seems to matter little. By default each is one.
    draws : tuple of numpy.ndarray, optional
        Bootstrap draws of the samples, from `helpers.folds.kinds.bootstrap`.
    probability : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        Columns predictor (a group's joined by " + "), mean and sd (of the fall of kappa, over repeats), and with draws
        the ends ``lower`` and ``upper`` of its interval over blocks of samples, all repeats taken together; the most
        important first.
    """
    import pandas as pd

    classes = np.union1d(model.classes_, types)  # kappa does not depend on others
    parts = [[column] for column in range(len(predictors))]
    if groups is not None:
        parts = [[list(predictors).index(name) for name in group] for group in groups]
    names = [" + ".join(predictors[column] for column in part) for part in parts]

    def predicted(block):
        return model.predict(block).reshape(-1, len(types))

    def score(part):
        return kappa(confusion_matrix(types, part, classes))

    together = max(1, _BATCH // (repeats * len(values)))
    mapped = [np.zeros((0, len(types)), int)]
    for first in range(0, len(parts), together):
        block = [_shuffled(values, part, seed, repeats) for part in parts[first : first + together]]
        mapped.append(predicted(np.concatenate(block)))
    mapped, (whole,) = np.concatenate(mapped).reshape(len(parts), repeats, len(types)), predicted(values)
    falls = score(whole) - np.array([[score(part) for part in each] for each in mapped]).reshape(len(parts), repeats)
    found = pd.DataFrame({"predictor": names, "mean": falls.mean(axis=1), "sd": falls.std(axis=1, ddof=1)})
    if draws is not None:
        size = int(classes.max()) + 1
        unshuffled = kappa(drawn_matrices(types, whole, size, draws)[1:])
        ends = []
        for each in mapped:
            again = np.tile(draws[0], repeats), draws[1]
            shuffled = drawn_matrices(np.tile(types, repeats), each.ravel(), size, again)[1:]
            ends.append(interval(np.subtract(unshuffled, kappa(shuffled)), probability, draws[0]))
        found[["lower", "upper"]] = np.reshape(ends, (len(parts), 2))
    return found.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _shuffled(values, columns, seed, repeats):
    """Return copies of the values below each other, some columns shuffled in each, all by one order."""
    copies, rng = np.repeat(values[np.newaxis], repeats, axis=0), np.random.default_rng([seed, *columns])
    orders = rng.permuted(np.tile(np.arange(len(values)), (repeats, 1)), axis=1)
    for column in columns:
        copies[:, :, column] = values[:, column][orders]
    return copies.reshape(-1, values.shape[1])


def _predictors(study):
    from helpers.samples.labels import used_predictors

    return used_predictors(study)


def _values(study, rows):
    return predictor_values(rows, _predictors(study))


def _training(study, rows, layer):
    """Return predictors and classes of samples that a forest can be grown from."""
    types = rows["class"].to_numpy()
    if len(np.unique(types)) < 2:
        name = TARGETS[study.target].classes[types[0]].name
        raise ForestError(
            f"All {len(types)} samples of {layer} are of the class {name}: nothing is to be told apart.",
            "give sites of other classes, leave the layer out of `layers`, or set another `target`",
        )
    values = _values(study, rows)
    constant = [name for name, same in zip(_predictors(study), (values == values[0]).all(axis=0), strict=True) if same]
    if constant:
        raise ForestError(
            f"Predictors have one value at all {len(types)} samples of {layer}: {', '.join(constant[:5])}.",
            "correct the rasters of these covariates, or leave them out of `predictors`",
        )
    return values, types


def _check_classes(study, rows, layer):
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

    from helpers.forest.two_stage import TwoStageForest

    kind = TwoStageForest if TARGETS[study.target].two_stage else RandomForestClassifier
    fixed = {"n_estimators": study.forest.n_estimators, "random_state": study.forest.seed}
    return kind(**{**fixed, "class_weight": "balanced", "n_jobs": 1, **params})


# Calibration ------------------------------------------------------------------------------------------------


def fit_calibration(probabilities, types, sample_weight=None):
    """Fit a multinomial logistic regression on log-probabilities that were predicted out of fold.

    A balanced forest gives rare classes too much; calibrated, the mean probability of each class equals its
    (weighted) share of the samples. The slopes are pulled towards one slope for all classes, because rare
    classes have too few samples for slopes of their own; the intercepts, which carry the shares, are free.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, k)
        Of forests that did not see the samples.
    types : array_like of int, shape (n,)
        True classes.
    sample_weight : array_like, shape (n,), optional
        Weight of each sample, for example the area that it stands for. One each by default.

    Returns
    -------
    dict
        For `calibrate`; ready for JSON.

    Raises
    ------
    ForestError
        The shapes do not fit, or a weight is negative or not finite.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax
    from threadpoolctl import threadpool_limits

    probabilities, types = np.asarray(probabilities, float), np.asarray(types)
    weight = np.ones(len(types)) if sample_weight is None else np.asarray(sample_weight, float)
    fits = probabilities.ndim == 2 and probabilities.shape[0] == len(types) and weight.shape == types.shape
    fits = fits and np.isin(types, range(probabilities.shape[1])).all()
    if not (fits and np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
        raise ForestError(
            f"No calibration follows from probabilities of shape {probabilities.shape}, "
            f"{len(types)} types and weights of shape {weight.shape}.",
            "give one row, one type and one weight of 0 or more a sample, and one column a class",
        )
    kept = weight > 0
    present = np.unique(types[kept])
    size, target = len(present), (types[kept][:, np.newaxis] == present).astype(float)
    logs = np.log(np.maximum(probabilities[kept][:, present], PROBABILITY_FLOOR))
    share = (weight[kept] / weight.sum())[:, np.newaxis]

    # Scores are linear in the parameters: the common slope, an intercept for each class, and a matrix that departs
    # from the common slope. Departure is penalised, the intercepts are not.
    design = np.zeros((len(logs), size, 1 + size + size**2))
    design[:, :, 0] = logs
    for k in range(size):
        design[:, k, 1 + k] = 1
        design[:, k, 1 + size * (k + 1) : 1 + size * (k + 2)] = logs
    start = np.concatenate([[1.0], np.log(share.T @ target).ravel(), np.zeros(size**2)])
    centre = np.eye(len(start))[0]
    pull = np.full(len(start), _SHRINKAGE / len(logs))
    pull[1 : 1 + size] = 0

    def loss(values):
        scores = log_softmax(design @ values, axis=1)
        wrong = share * (np.exp(scores) - target)
        value = pull @ (values - centre) ** 2 / 2 - (share * target * scores).sum()
        return value, np.tensordot(wrong, design) + pull * (values - centre)

    def curvature(values):
        given = np.exp(log_softmax(design @ values, axis=1))
        mean = np.einsum("nk,nkp->np", given, design)
        flat = design.reshape(-1, len(values))
        return (flat.T * (share * given).ravel()) @ flat - (mean.T * share.ravel()) @ mean + np.diag(pull)

    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
    slope, intercept, departure = np.split(found.x, [1, 1 + size])
    intercept = intercept - intercept.mean()  # a common part changes nothing, and nothing determines it
    return {
        "classes": present.tolist(),
        "matrix": (slope * np.eye(size) + departure.reshape(size, size)).round(9).tolist(),
        "intercept": intercept.round(9).tolist(),
        "floor": PROBABILITY_FLOOR,
    }


def calibrate(probabilities, calibration):
    """Return calibrated probabilities.

    Parameters
    ----------
    probabilities : numpy.ndarray of float, shape (n, k)
        A forest's own, one column a class. NaN rows stay NaN.
    calibration : dict
        From `fit_calibration`.

    Returns
    -------
    numpy.ndarray, shape (n, k)
        Of the same type; rows sum to 1. A class that had no sample keeps probability 0.
    """
    probabilities = np.asarray(probabilities)
    kind = probabilities.dtype if probabilities.dtype.kind == "f" else np.dtype(float)
    columns = calibration["classes"]
    scores = np.maximum(probabilities[:, columns], kind.type(calibration["floor"]), dtype=kind)
    np.log(scores, out=scores)
    # einsum adds up in one order on any number of cores; a matrix product does not.
    scores = np.einsum("nj,kj->nk", scores, np.asarray(calibration["matrix"], kind))
    scores += np.asarray(calibration["intercept"], kind)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    calibrated = np.zeros(probabilities.shape, kind)
    calibrated[:, columns] = scores
    return calibrated


# Files ------------------------------------------------------------------------------------------------------


def model_path(study, layer, which="map"):
    """Return the file of a layer's forest; its card lies beside it, with the ending ``.json``.

    Parameters
    ----------
    study : helpers.core.study.Study
    layer : str
    which : {"map", "train", "regression"}
        The one that the map is made with, or the one that never saw the test samples; with
        ``forest.map_fit: train`` they are the same. Or the one that `helpers.forest.regression` grows.

    Returns
    -------
    pathlib.Path
    """
    if which == "regression":
        return study.results_dir / "models" / f"regression_{layer}.npz"
    apart = which == "train" and study.forest.map_fit == "all"
    return study.results_dir / "models" / f"forest_{layer}{'_train' if apart else ''}.npz"


def save_forests(study, table, found, weight=None, n_jobs=-1):
    """Grow, calibrate and save a layer's forests: the one that the test is made with, and the map's.

    Each is calibrated on predictions for the samples that it was grown from, made by forests that did not see
    them: out of fold for the training samples, by the forest of the training samples for the others.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples.
    found : Search
    weight : str, optional
        Column of the samples with their weights in the calibration, such as the area that each stands for.
    n_jobs : int
        Processes at once. The forests do not depend on it.

    Returns
    -------
    dict
        Path of each model file to its card.
    """
    import pandas as pd
    import sklearn
    from sklearn.utils.parallel import Parallel, delayed

    layer, kinds = found.layer, list(dict.fromkeys(["train", study.forest.map_fit]))
    rows = {kind: layer_rows(table, layer, kind, study.target) for kind in [*kinds, "test"]}
    tested, model = _values(study, rows["test"]), classifier(study, **found.params)
    classes = TARGETS[study.target].codes
    others = {kind: tested if kind == "train" else tested[:0] for kind in kinds}
    with sklearn.config_context(**_CHECKED):
        grown = Parallel(n_jobs=n_jobs)(
            delayed(_grown_bytes)(model, *_training(study, rows[kind], layer), others[kind], classes) for kind in kinds
        )
    unseen = {"train": found.out_of_fold, "all": np.concatenate([found.out_of_fold, grown[0][1]])}
    truth = {"train": rows["train"], "all": pd.concat([rows["train"], rows["test"]])}
    cards = {}
    for kind, (data, _) in zip(kinds, grown, strict=True):
        known = truth[kind]
        calibration = fit_calibration(unseen[kind], known["class"], known[weight] if weight else None)
        path = model_path(study, layer, "map" if kind == study.forest.map_fit else "train")
        cards[path] = _write_model(path, data, _card(study, found, kind, rows[kind], calibration))
    return cards


def save_model(path, model, card):
    """Write a forest (`helpers.forest.file`) and its model card as JSON beside it; whole new files replace old ones.

    Parameters
    ----------
    path : path-like
        With the ending ``.npz``.
    model : sklearn.ensemble.RandomForestClassifier, sklearn.ensemble.RandomForestRegressor or \
helpers.forest.two_stage.TwoStageForest
    card : dict
        Must hold ``target`` (`REGRESSED` of a regressor) and ``predictors``; the file's SHA-256 is added.

    Returns
    -------
    dict
        The card as written.
    """
    return _write_model(Path(path), _model_bytes(model), card)


def load_model(path, target=None):
    """Read a forest that `save_model` wrote.

    No code of the file is run: the file must have the SHA-256 of its card, may hold nothing but a forest or the two
    of a two-stage one, and every tree is checked, because a damaged one would take the process down in its first
    prediction.

    Parameters
    ----------
    path : path-like
    target : str, optional
        The study's, or `REGRESSED`; a forest of another target is refused.

    Returns
    -------
    model : sklearn.ensemble.RandomForestClassifier, sklearn.ensemble.RandomForestRegressor or \
helpers.forest.two_stage.TwoStageForest
    card : dict

    Raises
    ------
    ModelError
        A file is missing, changed, of another scikit-learn or target, or no sound forest.
    """
    path = Path(path)
    card = read_card(path)
    if target not in (None, card["target"]):
        raise ModelError(
            f"{path.name} is of the target {card['target']}, and the study's is {target}.",
            "run 03-grid-search again, or give the study a `run` of its own",
        )
    if not path.is_file():
        raise ModelError(f"There is no model {path.name}.", "run 03-grid-search")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ModelError(
            f"{path.name} is not the file that its card describes: the SHA-256 differs.",
            "run 03-grid-search again, and do not use a model from a source that you do not trust",
        )
    written, ours = card.get("versions", {}).get("scikit-learn", ""), version("scikit-learn")
    if written.split(".")[:2] != ours.split(".")[:2]:
        raise ModelError(
            f"{path.name} was written by scikit-learn {written or 'of no known version'}; this is {ours}.",
            "run 03-grid-search again, or install that version",
        )
    try:
        model = _read_model(data, card["target"], len(card["predictors"]))
    # Whatever a forged file makes the reader stumble over, it is no model.
    except Exception as error:
        raise ModelError(
            f"{path.name} holds no sound forest: {' '.join(str(error).split())[:200]}",
            "run 03-grid-search again",
        ) from error
    return model, card


def read_card(path):
    """Return the model card of a model file, without reading the model.

    Parameters
    ----------
    path : path-like
        The ``.npz`` file.

    Returns
    -------
    dict
        ``layer``, ``fit`` (all or train), ``target``, ``predictors`` in order, ``covariates`` (unit, least and largest
        value of each at the samples), ``classes`` (columns of probabilities), ``params``, ``seed``, ``grid`` of the
        search and the score it was ``decided_by``, ``scores`` (pooled over folds), ``class_counts``, ``class_means``
        and ``class_sds`` (m3 m-3) by class, ``calibration``, ``samples_sha256``, ``versions``, ``sha256`` of the model,
        and more.

    Raises
    ------
    ModelError
        The card is missing or no card.
    """
    path = Path(path).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(card["sha256"], str) and isinstance(card["predictors"], list)
        sound = sound and card["target"] in (*TARGETS, REGRESSED)
    except FileNotFoundError:
        raise ModelError(f"There is no model card {path.name}.", "run 03-grid-search") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ModelError(f"{path.name} is no model card.", "run 03-grid-search again")
    return card


def card_params(card):
    """Return the hyperparameters of a model card, as `fit` takes them."""
    return {name: value for name, value in card["params"].items() if name != "class_weight"}


def model_card(study, layer, kind, rows, target, params):
    """Return what is worth knowing about any forest, beside the forest itself, as `save_model` takes it.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its samples must be there.
    layer : str
    kind : {"all", "train"}
        The samples that it was grown from.
    rows : pandas.DataFrame
        Those samples.
    target : str
        One of `helpers.core.ice.TARGETS`, or `REGRESSED`.
    params : dict
        Hyperparameters.

    Returns
    -------
    dict
        Ready for JSON.
    """
    return {
        "layer": layer,
        "fit": kind,
        "study": study.name,
        "run": study.run,
        "simulated": study.simulated,
        "target": target,
        "predictors": list(_predictors(study)),
        "covariates": _ranges(study, rows),
        "params": params,
        "seed": study.forest.seed,
        "n_samples": len(rows),
        "samples_sha256": file_hash(study.results_dir / "samples" / "samples.csv"),
        "code_digest": package_digest(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("scikit-learn", "numpy")},
    }


def _card(study, found, kind, rows, calibration):
    params = {"n_estimators": study.forest.n_estimators, **found.params, "class_weight": "balanced"}
    target = TARGETS[study.target]
    return model_card(study, found.layer, kind, rows, study.target, params) | {
        "classes": list(target.codes),
        "class_names": [kind.name for kind in target.classes],
        "grid": search_grid(study),
        "decided_by": study.forest.score,
        "one_standard_error": study.forest.one_standard_error,
        "scores": found.scores,
        "class_counts": [int((rows["class"] == code).sum()) for code in target.codes],
        "class_means": class_means(rows, target.codes),
        "class_sds": class_sds(rows, target.codes),
        "calibration": calibration,
    }


def _ranges(study, rows):
    """Return unit, least and largest value of each predictor at the samples."""
    from helpers.prepare.registry import covariates

    known = covariates(study)
    return {
        name: {
            "unit": known[name].unit if name in known else None,
            "minimum": float(rows[name].min()),
            "maximum": float(rows[name].max()),
        }
        for name in _predictors(study)
    }


def _write_model(path, data, card):
    """Write the model, then its card: a kill between them leaves a misfit, which is refused."""
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
    write_json(path.with_suffix(".json"), card)
    return card


def _model_bytes(model):
    from helpers.forest.file import write_forests

    return write_forests(getattr(model, "stages_", [model]))


def _grown_bytes(classifier, values, types, others, classes):
    """Grow a forest; return its file, and its probabilities of other samples."""
    from helpers.forest.one_forest import grow

    model = grow(classifier, values, types)
    return _model_bytes(model), class_probabilities(model, others, classes)


def _read_model(data, target, predictors):
    """Return the model of a file: one sound forest, or two; otherwise raise ValueError."""
    from helpers.forest.file import read_forests
    from helpers.forest.two_stage import TwoStageForest

    if target == REGRESSED:
        return read_forests(data, predictors, [None])[0]
    target = TARGETS[target]
    if not target.two_stage:
        return read_forests(data, predictors, [target.codes])[0]
    model = TwoStageForest()
    model.stages_ = read_forests(data, predictors, [(0, 1), target.codes[1:]])
    if model.stages_[0].classes_[-1] != 1:
        raise ValueError("the first forest knows no permafrost")
    return model
