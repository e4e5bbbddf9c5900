"""A layer's grid search: what it tries, what it finds, and how that looks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from matplotlib.figure import Figure
from sklearn.model_selection import ParameterGrid

from helpers.core.classes import DEFAULT_TARGET, Target
from helpers.core.plot import colour_map, panels
from helpers.core.scores import confusion_matrix, f1, kappa, log_loss, macro
from helpers.core.study import Study
from helpers.folds.kinds import sample_folds
from helpers.forest.models import CHECKED_INPUT, check_classes, classifier
from helpers.forest.one_forest import predict_grid
from helpers.samples.rows import ForestError, layer_rows, training_arrays

SEARCH_SCORES = ("kappa", "macro_f1", "log_loss")
"""Scores of the grid search; `forest.score` of the study says which one decides."""

SEARCHED = ("max_depth", "min_samples_split", "max_features", "min_samples_leaf", "criterion")
"""Hyperparameters that the grid search chooses; a final forest has `forest.n_estimators` trees."""


@dataclass(frozen=True, eq=False)
class Search:
    """The result of a layer's grid search.

    Its table has one row a combination, in the order of the grid: with the leaves of a tree, mean
    and standard error over folds of each score, and the rank among those with as many trees.
    """

    layer: str
    params: dict[str, Any]  # the winner's `SEARCHED` hyperparameters
    table: pd.DataFrame | None
    fold: np.ndarray  # of each training sample
    reference: np.ndarray  # class of each training sample
    out_of_fold: np.ndarray  # the winner's probabilities, from forests grown without the fold
    target: Target = DEFAULT_TARGET

    @property
    def scores(self) -> dict[str, float]:
        """The winner's scores on the pooled out-of-fold predictions."""
        return score_probabilities(self.reference, self.out_of_fold, self.target)


def score_probabilities(
    reference: np.ndarray, probabilities: np.ndarray, target: Target = DEFAULT_TARGET
) -> dict[str, float]:
    """Return kappa and macro F1 of the mapped class, and the log loss.

    Kappa counts as 0 where nothing but one class occurs and is predicted: such samples say nothing.
    The reference has the shape (n,), probabilities (n, k).

    Examples
    --------
    >>> half_sure = 0.1 + 0.4 * np.eye(6)  # one sample a class; all are right, by 0.5
    >>> scores = score_probabilities(np.arange(6), half_sure)
    >>> {name: round(float(score), 2) for name, score in scores.items()}  # loss: log of 2
    {'kappa': 1.0, 'macro_f1': 1.0, 'log_loss': 0.69}
    """
    classes = target.codes
    matrix = confusion_matrix(reference, probabilities.argmax(axis=1), classes)
    return {
        "kappa": float(np.nan_to_num(kappa(matrix))),
        "macro_f1": macro(f1(matrix), matrix),
        "log_loss": log_loss(reference, probabilities, classes),
    }


def search(study: Study, table: pd.DataFrame, layer: str, n_jobs: int = -1) -> Search:
    """Choose a layer's hyperparameters by a grid search on the training samples.

    All combinations of the study's grid are scored, with `forest.n_estimators` trees and with the
    first of them (`forest.search_sizes`). Of those with all trees `forest.score` decides: more
    trees are never worse but by chance. `helpers.forest.one_forest` makes it fast. The result does
    not depend on the number of processes, `n_jobs`.

    Raises
    ------
    ForestError
        Too few sites or classes, values that are not finite, a predictor that is constant, or a
        grid that asks for more predictors than there are.
    """
    rows = layer_rows(table, layer, "train", study.target_classes)
    values, types = training_arrays(study, rows, layer)
    fold = sample_folds(study, rows)
    check_classes(study, rows, layer)
    grid = search_grid(study)
    asked = [number for number in grid["max_features"] if isinstance(number, int)]
    if max(asked, default=0) > values.shape[1]:
        raise ForestError(
            f"The grid asks for {max(asked)} predictors at a split, "
            f"and there are {values.shape[1]}.",
            "set fewer in `forest.max_features`, or a share",
        )
    with sklearn.config_context(**CHECKED_INPUT):
        read, leaves = predict_grid(classifier(study), grid, values, types, fold, n_jobs)

    params = list(ParameterGrid(grid))
    scored = pd.DataFrame(params, columns=list(grid), dtype=object)
    scored["max_depth"] = scored["max_depth"].fillna("unlimited")
    scored["leaves"] = leaves
    scored = scored.join(score_folds(types, read, fold, study.target_classes))
    trees = scored["n_estimators"].astype(int)
    worse = _smaller_is_better(scored, study.forest.score)
    scored["rank"] = worse.groupby(trees).rank(method="first").astype(int)
    full = scored[trees == study.forest.n_estimators]
    best = choose(full, study.forest.score, study.forest.one_standard_error)
    scored["chosen"] = scored.index == best
    winner = {name: value for name, value in params[best].items() if name != "n_estimators"}
    out_of_fold = np.zeros((len(types), len(study.target_classes.codes)))
    out_of_fold[:, np.unique(types)] = read[best]
    return Search(layer, winner, scored, fold, types, out_of_fold, study.target_classes)


def search_grid(study: Study) -> dict[str, list[Any]]:
    """Return the values of each hyperparameter in a study's search; most trees come last."""
    trees = study.forest.n_estimators
    return {
        "n_estimators": [*sorted(n for n in set(study.forest.search_sizes) if n < trees), trees],
        **{name: getattr(study.forest, name) for name in SEARCHED},
    }


def score_folds(
    types: np.ndarray, read: np.ndarray, fold: np.ndarray, target: Target = DEFAULT_TARGET
) -> pd.DataFrame:
    """Return mean and standard error over folds of each combination's scores.

    `read` has probabilities from `predict_grid`.
    """
    probabilities = np.zeros((*read.shape[:2], len(target.codes)))
    probabilities[..., np.unique(types)] = read
    held_out = [fold == number for number in np.unique(fold)]
    by_fold = [
        [score_probabilities(types[held], one[held], target) for held in held_out]
        for one in probabilities
    ]
    columns = {}
    for name in SEARCH_SCORES:
        values = np.array([[scores[name] for scores in of_folds] for of_folds in by_fold])
        columns[name] = values.mean(axis=1)
        columns[f"{name}_se"] = values.std(axis=1, ddof=1) / np.sqrt(len(held_out))
    return pd.DataFrame(columns)


def _smaller_is_better(scored: pd.DataFrame, score: str) -> pd.Series:
    return scored[score] if score == "log_loss" else -scored[score]


def choose(scored: pd.DataFrame, score: str, one_standard_error: bool = False) -> int:
    """Return the row of the winner; of equals the first wins.

    With `one_standard_error` it is the simplest of those within one standard error of the best
    (Breiman et al. 1984): the one whose trees have the fewest leaves on average; of equals the
    better one. The standard error is that of the best combination's mean over folds; folds share
    training samples, so that it is a rule of thumb.

    References
    ----------
    Breiman, L., Friedman, J., Olshen, R., Stone, C. (1984). Classification and regression trees.
    Section 3.4.3.

    Examples
    --------
    >>> scored = {"kappa": [0.50, 0.49, 0.40], "kappa_se": [0.02] * 3, "leaves": [90, 12, 4]}
    >>> choose(pd.DataFrame(scored), "kappa"), choose(pd.DataFrame(scored), "kappa", True)
    (0, 1)
    """
    worse = _smaller_is_better(scored, score)
    best = worse.idxmin()
    if not one_standard_error:
        return best
    near = worse <= worse[best] + scored.loc[best, f"{score}_se"]
    return scored.assign(worse=worse)[near].sort_values(["leaves", "worse"], kind="stable").index[0]


def plot_search(tables: dict[str, pd.DataFrame], score: str) -> Figure:
    """Draw how much a score depends on depth, split, features, and on the number of trees.

    Above, all trees: a line for each smallest split (colour) and number of features (style). Below,
    the same forests read at fewer trees. The grey band is one standard error on both sides of the
    chosen one, a dot: combinations in it are as good. Other hyperparameters are those of the
    chosen one. `tables` has the table of a `Search` under the title of its panels.
    """
    from matplotlib.lines import Line2D

    grid = {"sharey": "row", "layout": "constrained", "gridspec_kw": {"height_ratios": [3, 2]}}
    figure, axes = panels(2, len(tables), 104, **grid)
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # the lowest line is for the label
    for (upper, lower), (title, table) in zip(axes.T, tables.items(), strict=True):
        table = table.astype({"max_depth": str, "max_features": str})
        best = table[table["chosen"]].iloc[0]
        fixed = ["min_samples_leaf", "criterion"]
        table = table[(table[fixed] == best[fixed]).all(axis=1)]
        lines = ["min_samples_split", "max_features"]
        depths, splits, features = (table[name].unique() for name in ["max_depth", *lines])
        depths = depths.tolist()
        colours = dict(
            zip(splits, colour_map("batlow")(np.linspace(0, 0.8, len(splits))), strict=True)
        )
        styles = dict(zip(features, ("-", "--", ":", "-.") * len(features), strict=False))
        band = best[score] + np.array([-1, 1]) * best[f"{score}_se"]
        for panel in (upper, lower):
            panel.axhspan(*band, color="0.92", zorder=0)
        for (split, feature), part in table.groupby(lines, sort=False):
            look = {"color": colours[split], "linestyle": styles[feature], "linewidth": 0.9}
            full = part[part["n_estimators"] == best["n_estimators"]]
            upper.plot([depths.index(depth) for depth in full["max_depth"]], full[score], **look)
            for _, line in part.groupby("max_depth", sort=False):
                alpha = 1 if line["chosen"].any() else 0.3
                lower.plot(line["n_estimators"], line[score], **look, alpha=alpha)
        upper.plot(depths.index(best["max_depth"]), best[score], "o", color="black", markersize=4)
        lower.plot(best["n_estimators"], best[score], "o", color="black", markersize=4)
        upper.set_xticks(range(len(depths)), depths)
        lower.set_xticks(sorted(set(table["n_estimators"])))
        upper.set(title=title, xlabel="maximum depth")
        lower.set(xlabel="number of trees")
    for panel in axes[:, 0]:
        panel.set_ylabel(score.replace("_", " "))
    looks = {f"smallest split {split}": {"color": one} for split, one in colours.items()}
    for feature in features:
        looks[f"max. features {feature}"] = {"color": "0.3", "linestyle": styles[feature]}
    handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=-(-len(handles) // 2), frameon=False
    )
    return figure
