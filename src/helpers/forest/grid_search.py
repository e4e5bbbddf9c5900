"""A layer's grid search: what it tries, what it finds, and how that looks."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.scores import confusion_matrix, f1, kappa, log_loss, macro, mapped_class
from helpers.folds.kinds import sample_folds
from helpers.forest.models import CHECKED_INPUT, check_classes, classifier
from helpers.forest.one_forest import OneForestSearchCV, choose, standard_error
from helpers.samples.rows import ForestError, layer_rows, training_arrays

SEARCH_SCORES = ("kappa", "macro_f1", "log_loss")
"""Scores of the grid search; `forest.score` of the study says which one decides."""


SEARCHED = ("max_depth", "min_samples_split", "max_features", "min_samples_leaf", "criterion")
"""Hyperparameters that the grid search chooses; a final forest has `forest.n_estimators` trees."""


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


def score_probabilities(reference, probabilities, target="ice_type"):
    """Return kappa and macro F1 of the mapped class, and the log loss.

    Kappa counts as 0 where nothing but one class occurs and is predicted: such samples tell nothing.

    Parameters
    ----------
    reference : array_like of int, shape (n,)
    probabilities : numpy.ndarray, shape (n, k)
    target : str
        One of `helpers.core.classes.TARGETS`.

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
    import sklearn
    from sklearn.model_selection import PredefinedSplit

    rows, target = layer_rows(table, layer, "train", study.target), TARGETS[study.target]
    values, types = training_arrays(study, rows, layer)
    fold = sample_folds(study, rows)
    check_classes(study, rows, layer)
    grid = search_grid(study)
    if too_many := [m for m in grid["max_features"] if isinstance(m, int) and m > values.shape[1]]:
        raise ForestError(
            f"The grid asks for {too_many[0]} predictors at a split, and there are {values.shape[1]}.",
            "set fewer in `forest.max_features`, or a share",
        )
    searched = OneForestSearchCV(classifier(study), grid, cv=PredefinedSplit(fold), n_jobs=n_jobs, refit=False)
    with sklearn.config_context(**CHECKED_INPUT):
        searched.fit(values, types)
    found = searched.cv_results_

    scored = pd.DataFrame(found["params"], columns=list(grid), dtype=object)
    trees = scored["n_estimators"].astype(int)
    scored["max_depth"] = scored["max_depth"].fillna("unlimited")
    scored["leaves"] = found["mean_leaves"]
    names = dict(zip(SEARCH_SCORES, ("kappa", "macro_f1", "neg_log_loss"), strict=True))
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


# Showing ----------------------------------------------------------------------------------------------------


def plot_search(tables, score):
    """Draw what a search found: how much the score depends on depth, split and features, and on the number of trees.

    Above, all trees: a line for each smallest split (colour) and number of features (style). Below, the same forests
    read at fewer trees. The grey band is one standard error on both sides of the chosen one, a dot: combinations
    in it cannot be told from it. Other hyperparameters are those of the chosen one.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        Title of a column of panels to the table of a `helpers.forest.grid_search.Search`.
    score : str
        Such as ``"kappa"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt
    from cmcrameri import cm
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(
        2, len(tables), figsize=(7.09, 4.1), sharey="row", squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": [3, 2]},
    )  # fmt: skip
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # the lowest line is left to SIMULATED
    for (upper, lower), (title, table) in zip(axes.T, tables.items(), strict=True):
        table = table.astype({"max_depth": str, "max_features": str})
        best = table[table["chosen"]].iloc[0]
        table = table[(table[["min_samples_leaf", "criterion"]] == best[["min_samples_leaf", "criterion"]]).all(axis=1)]
        depths, splits, features = (
            list(dict.fromkeys(table[name])) for name in ("max_depth", "min_samples_split", "max_features")
        )
        colours = dict(zip(splits, cm.batlow(np.linspace(0, 0.8, len(splits))), strict=True))
        styles = dict(zip(features, ("-", "--", ":", "-.") * len(features), strict=False))
        for panel in (upper, lower):
            panel.axhspan(*(best[score] + np.array([-1, 1]) * best[f"{score}_se"]), color="0.92", zorder=0)
        for (split, feature), part in table.groupby(["min_samples_split", "max_features"], sort=False):
            look = {"color": colours[split], "linestyle": styles[feature], "linewidth": 0.9}
            full = part[part["n_estimators"] == best["n_estimators"]]
            upper.plot([depths.index(depth) for depth in full["max_depth"]], full[score], **look)
            for depth, line in part.groupby("max_depth", sort=False):
                chosen = (depth, split, feature) == tuple(best[["max_depth", "min_samples_split", "max_features"]])
                lower.plot(line["n_estimators"], line[score], **look, alpha=1 if chosen else 0.3)
        upper.plot(depths.index(best["max_depth"]), best[score], "o", color="black", markersize=4)
        lower.plot(best["n_estimators"], best[score], "o", color="black", markersize=4)
        upper.set_xticks(range(len(depths)), depths)
        lower.set_xticks(sorted(set(table["n_estimators"])))
        upper.set(title=title, xlabel="maximum depth")
        lower.set(xlabel="number of trees")
    for panel in axes[:, 0]:
        panel.set_ylabel(score.replace("_", " "))
    lines = [Line2D([], [], color=colour, label=f"smallest split {split}") for split, colour in colours.items()]
    lines += [Line2D([], [], color="0.3", linestyle=styles[one], label=f"max. features {one}") for one in features]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    return figure
