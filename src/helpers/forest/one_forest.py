"""Grid search from one forest: every rule that only stops a tree is read from trees that nothing stopped.

`n_estimators`, `max_depth` and `min_samples_split` change no split: a node's split depends on its samples and on the
features drawn for it alone. A full tree cut where a rule would have stopped it therefore has the distribution of a
tree that was grown under the rule, and the first trees of a forest are the smaller forest of the same seed. So one
full forest a fold gives the scores of all combinations of the three; only hyperparameters that change splits, such as
`max_features`, `min_samples_leaf` and `criterion`, need a forest each.
"""

import time
from copy import copy
from math import ceil

import numpy as np
import sklearn
from numba import njit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._classes import CRITERIA_CLF
from sklearn.tree._splitter import BestSplitter
from sklearn.tree._tree import DepthFirstTreeBuilder, Tree
from sklearn.utils.parallel import Parallel, delayed

from helpers.accuracy.report import confusion_matrix, f1, kappa, log_loss, macro
from helpers.core.errors import CompendiumError
from helpers.forest.file import forest_of_trees
from helpers.forest.two_stage import TwoStageForest

STOPPING = ("n_estimators", "max_depth", "min_samples_split")
"""Hyperparameters that are read from full trees."""


_UNLIMITED = np.iinfo(np.int32).max


_LIGHT_VERSION = "1.9."  # of scikit-learn, whose trees `_LightTree` is known to grow


class SearchError(CompendiumError):
    """Samples or a grid that cannot be searched."""


def forest_scores(model, values, types):
    """Return kappa, macro F1 and the negative log loss of a classifier, as a scorer of scikit-learn does.

    Kappa counts as 0 where nothing but one class occurs and is predicted: such samples tell nothing.

    Parameters
    ----------
    model : classifier
    values : array_like, shape (n, predictors)
    types : array_like, shape (n,)
        Classes in truth.

    Returns
    -------
    dict of str to float
        ``kappa``, ``macro_f1`` and ``neg_log_loss``: the larger, the better.
    """
    classes = np.union1d(model.classes_, types)
    probabilities = np.zeros((len(types), len(classes)))
    probabilities[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(values)
    matrix = confusion_matrix(types, model.predict(values), classes.tolist())
    return {
        "kappa": float(np.nan_to_num(kappa(matrix))),
        "macro_f1": macro(f1(matrix), matrix),
        "neg_log_loss": -log_loss(types, probabilities, classes.tolist()),
    }


def choose(results, score, one_standard_error=False, among=None):
    """Return the index of the winner.

    Parameters
    ----------
    results : dict
        ``cv_results_`` of a search.
    score : str
        Name of the score that decides; of equals the first of the grid wins.
    one_standard_error : bool
        Take the simplest of those within one standard error of the best (Breiman et al. 1984): the one whose full
        number of trees have the fewest leaves on average; of equals the one with fewer trees, then the better one.
        The standard error is that of the best combination's mean over folds; folds share training samples, so that it
        is a rule of thumb.
    among : array_like of bool, shape (combinations,), optional
        Which combinations may win; all by default.

    Returns
    -------
    int
    """
    means = np.nan_to_num(results[f"mean_test_{score}"], nan=-np.inf)
    allowed = np.ones(len(means), bool) if among is None else np.asarray(among)
    best = int(np.where(allowed, means, -np.inf).argmax())
    if not one_standard_error:
        return best
    allowed = allowed & (means >= means[best] - standard_error(results, score)[best])
    trees = [params.get("n_estimators", 0) for params in results["params"]]
    order = np.lexsort((-means, trees, results["mean_leaves"], ~allowed))
    return int(order[0])


def standard_error(results, score):
    """Return the standard error of each combination's mean score over folds, 0 for one fold; shape (combinations,)."""
    folds = [results[name] for name in results if name.startswith("split") and name.endswith(f"_test_{score}")]
    return np.std(folds, axis=0, ddof=1) / np.sqrt(len(folds)) if len(folds) > 1 else np.zeros(len(folds[0]))


class OneForestSearchCV(GridSearchCV):
    """`sklearn.model_selection.GridSearchCV` for random forests, with a forest a fold instead of one a combination.

    Parameters
    ----------
    estimator : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
        Without ``max_leaf_nodes`` and ``ccp_alpha``, which judge a tree as a whole.
    param_grid : dict or list of dict
        Any hyperparameters; those of `STOPPING` cost next to nothing.
    scoring : callable, str, list or dict
        As of GridSearchCV; by default `forest_scores`.
    n_jobs : int, optional
        Processes at once. Results do not depend on it.
    refit : str, bool or callable
        As of GridSearchCV: the score that decides, or a function of ``cv_results_``.
    cv : int, splitter or iterable, optional
    one_standard_error : bool
        See `choose`.

    Attributes
    ----------
    cv_results_ : dict
        As of GridSearchCV, and ``mean_leaves``: leaves of a tree. Times are a combination's share of its forests'.
    best_estimator_, best_params_, best_index_, best_score_
        As of GridSearchCV; the estimator is grown anew, under the winner's own rules.
    out_of_fold_ : numpy.ndarray, shape (combinations, n, classes)
        Each combination's probabilities for each sample, by the forests that did not see it: the mean where several
        did not, NaN where none. Columns are the sorted classes of all samples.

    Notes
    -----
    Sample weights and class weights go into the forests as they are; scores are not weighted. Probabilities of a
    combination that stops no tree are those of a refit with the same seed; of others they differ as those of two
    seeds do, for a tree that is cut had drawn features for nodes beyond the cut.

    References
    ----------
    Breiman, L., Friedman, J., Olshen, R., Stone, C. (1984). Classification and regression trees. Section 3.4.3.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> grid = {"n_estimators": [10, 50], "max_depth": [1, None], "max_features": [1, 2]}
    >>> search = OneForestSearchCV(RandomForestClassifier(random_state=0), grid).fit(*load_iris(return_X_y=True))
    >>> search.best_params_["max_depth"] is None, search.out_of_fold_.shape
    (True, (8, 150, 3))
    """

    def __init__(
        self, estimator, param_grid, *, scoring=forest_scores, n_jobs=None, refit="kappa", cv=None,
        one_standard_error=False,
    ):  # fmt: skip
        super().__init__(estimator, param_grid, scoring=scoring, n_jobs=n_jobs, refit=refit, cv=cv, error_score="raise")
        self.one_standard_error = one_standard_error

    def fit(self, X, y, *, groups=None, sample_weight=None):
        """Search the grid.

        Parameters
        ----------
        X : array_like, shape (n, predictors)
        y : array_like, shape (n,)
            Classes.
        groups : array_like, shape (n,), optional
            For splitters that want them.
        sample_weight : array_like, shape (n,), optional
            Of the forests.

        Returns
        -------
        OneForestSearchCV

        Raises
        ------
        SearchError
            Values are not finite, there is one class alone, folds cannot be made, or the grid has what cannot be.
        """
        values, y = _checked_samples(X, y)
        weight = None if sample_weight is None else np.asarray(sample_weight, float)
        candidates = self._candidates(values.shape[1])
        try:
            splits = list(check_cv(self.cv, y, classifier=True).split(X, y, groups))
        except ValueError as error:
            raise SearchError(
                f"{len(y)} samples cannot be dealt into folds: {error}", "give more samples, or ask for fewer folds"
            ) from error
        self.n_splits_, classes = len(splits), np.unique(y)
        self.scorer_ = check_scoring(self.estimator, self.scoring)

        groups = _by_forest(candidates)
        jobs = [
            delayed(_search_fold)(
                clone(self.estimator).set_params(**params), [candidates[index] for index in members], values, y, weight,
                *split, self.scorer_, classes,
            )
            for params, members in groups
            for split in splits
        ]  # fmt: skip
        answers = iter(Parallel(n_jobs=self.n_jobs)(jobs))
        out = np.empty((len(candidates), len(splits)), dtype=object)
        leaves, seen = np.zeros(len(candidates)), np.zeros(len(y), int)
        self.out_of_fold_ = np.zeros((len(candidates), len(y), len(classes)))
        for _, members in groups:
            for fold, (_, test) in enumerate(splits):
                out[members, fold], probabilities, found = next(answers)
                self.out_of_fold_[np.ix_(members, test)] += probabilities
                leaves[members] += found
        for _, test in splits:
            seen[test] += 1
        with np.errstate(invalid="ignore"):
            self.out_of_fold_ /= seen[:, np.newaxis]

        self.cv_results_ = self._format_results(candidates, len(splits), out.ravel().tolist())
        self.cv_results_["mean_leaves"] = leaves / len(splits)
        self.multimetric_ = isinstance(out[0, 0]["test_scores"], dict)
        self._choose()
        if self.refit:
            start = time.perf_counter()
            weights = {} if weight is None else {"sample_weight": weight}
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y, **weights)
            self.refit_time_ = time.perf_counter() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self

    def _candidates(self, predictors):
        """Return all combinations, of which every one must be a forest that can be grown."""
        if not isinstance(self.estimator, RandomForestClassifier | TwoStageForest):
            raise SearchError(
                f"{type(self.estimator).__name__} is no random forest.", "search it by scikit-learn's GridSearchCV"
            )
        try:
            candidates = list(ParameterGrid(self.param_grid))
            for candidate in candidates:
                params = clone(self.estimator).set_params(**candidate).get_params()
                RandomForestClassifier(**params)._validate_params()
                if params.get("max_leaf_nodes") is not None or params.get("ccp_alpha"):
                    raise ValueError("max_leaf_nodes and ccp_alpha cannot be searched from one forest")
                asked = params.get("max_features")
                if isinstance(asked, int) and asked > predictors:
                    raise ValueError(f"max_features is {asked}, and there are {predictors} predictors")
        except (TypeError, ValueError) as error:
            raise SearchError(f"The grid cannot be searched: {error}", "correct the grid") from error
        return candidates

    def _choose(self):
        scores = [name.removeprefix("mean_test_") for name in self.cv_results_ if name.startswith("mean_test_")]
        if callable(self.refit):
            self.best_index_ = int(self.refit(self.cv_results_))
        elif self.refit or not self.multimetric_:
            score = self.refit if self.multimetric_ else "score"
            if score not in scores:
                raise SearchError(
                    f"There is no score {score} that could decide.", f"set refit to one of {', '.join(scores)}"
                )
            self.best_index_ = choose(self.cv_results_, score, self.one_standard_error)
            self.best_score_ = self.cv_results_[f"mean_test_{score}"][self.best_index_]
        else:
            return
        self.best_params_ = self.cv_results_["params"][self.best_index_]


def _checked_samples(X, y):
    """Return predictors as the trees see them, and classes."""
    try:
        values, y = np.ascontiguousarray(X, dtype=np.float32), np.asarray(y)
    except (TypeError, ValueError) as error:
        raise SearchError(f"The predictors are no numbers: {error}", "give a table of numbers") from error
    if values.ndim != 2 or y.shape != values.shape[:1] or not values.size:
        raise SearchError(
            f"Predictors of shape {values.shape} and classes of shape {y.shape} do not fit.",
            "give one row and one class a sample",
        )
    bad = ~np.isfinite(values)
    if bad.any():
        column = int(bad.any(axis=0).argmax())
        name = getattr(X, "columns", range(values.shape[1]))[column]
        raise SearchError(
            f"{bad.any(axis=1).sum()} samples lack a finite value of a predictor, such as row "
            f"{int(bad[:, column].argmax())} of {name}.",
            "drop these samples, or leave the predictor out",
        )
    if len(np.unique(y)) < 2:
        raise SearchError(f"All {len(y)} samples are of one class.", "give samples of other classes")
    return values, y


def _by_forest(candidates):
    """Return, for each forest that must be grown, its hyperparameters and the indices of the candidates in it."""
    found = []
    for index, candidate in enumerate(candidates):
        params = {name: value for name, value in candidate.items() if name not in STOPPING}
        members = next((members for known, members in found if known == params), None)
        if members is None:
            found.append((params, members := []))
        members.append(index)
    return found


def _search_fold(estimator, candidates, values, y, weight, train, test, scorer, classes):
    """Grow one forest, and score all candidates that can be read from it.

    Returns
    -------
    out : list of dict
        For each candidate what GridSearchCV makes its results of.
    probabilities : numpy.ndarray, shape (candidates, held-out samples, classes)
    leaves : numpy.ndarray, shape (candidates,)
    """
    start = time.perf_counter()
    given = estimator.get_params()
    wanted = [tuple(candidate.get(name, given[name]) for name in STOPPING) for candidate in candidates]
    sizes = sorted({trees for trees, _, _ in wanted})
    rules = list(dict.fromkeys((depth, split) for _, depth, split in wanted))
    depths, splits = zip(*rules, strict=True)
    estimator.set_params(
        n_estimators=sizes[-1],
        max_depth=None if None in depths else max(depths),
        # A share of the samples may be any number of them.
        min_samples_split=min(splits) if all(isinstance(split, int) for split in splits) else 2,
        n_jobs=1,
    )
    model = grow(estimator, values[train], y[train], None if weight is None else weight[train])
    grown = time.perf_counter()
    read, leaves = _read(model, values[test], rules, sizes)
    where = [(sizes.index(trees), rules.index((depth, split))) for trees, depth, split in wanted]
    probabilities, scores = np.zeros((len(candidates), len(test), len(classes))), []
    columns = np.searchsorted(classes, model.classes_)
    for index, place in enumerate(where):
        probabilities[index][:, columns] = read[place]
        scores.append(scorer(_answering(model, read[place]), values[test], y[test]))
    times = {
        "fit_time": (grown - start) / len(candidates),
        "score_time": (time.perf_counter() - grown) / len(candidates),
    }
    return [{"test_scores": score, **times} for score in scores], probabilities, leaves[[rule for _, rule in where]]


def _answering(model, known):
    """Return a forest that answers with known probabilities; its own `predict` makes classes of them, also of ties."""

    def predict_proba(_):
        return known

    stand_in = copy(model)
    stand_in.predict_proba = predict_proba
    return stand_in


def _read(model, values, rules, sizes):
    """Return the probabilities of each size and rule, shape (sizes, rules, n, classes), and leaves a tree by rule."""
    if isinstance(model, TwoStageForest):
        (first, leaves), (second, more) = (_read(stage, values, rules, sizes) for stage in model.stages_)
        return model.combined(first, second), leaves + more
    depths = np.array([_UNLIMITED if depth is None else depth for depth, _ in rules], np.int64)
    splits = np.array([_number(split, model._n_samples, 2) for _, split in rules], np.int64)
    total, leaves = np.zeros((len(rules), len(values), model.n_classes_)), np.ones(len(rules))
    leaves *= len(model.estimators_)
    found = np.empty((len(sizes), *total.shape))
    for number, grown in enumerate(model.estimators_, start=1):
        tree = grown.tree_
        # Contiguous also where a tree is one node, so that there is one compiled form.
        nodes = (tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.n_node_samples)
        _follow(*map(np.ascontiguousarray, nodes), tree.value[:, 0], values, depths, splits, total, leaves)
        if number in sizes:
            found[sizes.index(number)] = total / number
    return found, leaves / len(model.estimators_)


@njit(cache=True)
def _follow(left, right, feature, threshold, size, value, samples, depths, splits, total, leaves):
    """Add a tree's class distribution at the node where each rule stops each sample, and the leaves under each rule.

    A rule makes a leaf of a node at its depth, or with fewer samples (`n_node_samples`, which counts those drawn, each
    once, whatever its weight) than its smallest split, as scikit-learn's tree builder does.
    """
    level = np.zeros(len(left), np.int64)
    for node in range(len(left)):
        if left[node] >= 0:
            level[left[node]] = level[right[node]] = level[node] + 1
            for rule in range(len(depths)):
                # Nodes above a split have less depth and more samples: it stands where its own node splits.
                leaves[rule] += level[node] < depths[rule] and size[node] >= splits[rule]
    path = np.zeros(level.max() + 1, np.int64)
    for row in range(len(samples)):
        steps = node = 0
        while left[node] >= 0:
            node = left[node] if samples[row, feature[node]] <= threshold[node] else right[node]
            steps += 1
            path[steps] = node
        for rule in range(len(depths)):
            stop = 0
            while stop < steps and stop < depths[rule] and size[path[stop]] >= splits[rule]:
                stop += 1
            for column in range(value.shape[1]):
                total[rule, row, column] += value[path[stop], column]


# Growing ----------------------------------------------------------------------------------------------------


def grow(estimator, values, y, weight=None):
    """Fit a forest: the very trees of its own `fit`, in a third of the time where this scikit-learn is a known one.

    Parameters
    ----------
    estimator : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
        It stays as it is.
    values : numpy.ndarray of float32, shape (n, predictors)
    y : numpy.ndarray of int, shape (n,)
        Classes.
    weight : numpy.ndarray, shape (n,), optional

    Returns
    -------
    RandomForestClassifier or TwoStageForest
    """
    if isinstance(estimator, TwoStageForest):
        model = clone(estimator)
        return model.fit(values, y, weight, _grow_one)
    return _grow_one(estimator, values, y, weight)


def _grow_one(estimator, values, y, weight):
    light = sklearn.__version__.startswith(_LIGHT_VERSION) and type(estimator) is RandomForestClassifier
    if not light or estimator.monotonic_cst is not None or estimator.oob_score:
        return clone(estimator).fit(values, y, weight)
    params = estimator.get_params()
    model = _LightForest(**params).fit(values, y, weight)
    trees = [grown.tree_ for grown in model.estimators_]
    plain = forest_of_trees(RandomForestClassifier, params, model.n_features_in_, model.classes_, trees)
    plain._n_samples, plain._n_samples_bootstrap = model._n_samples, model._n_samples_bootstrap
    return plain


def grow_and_predict(estimator, values, y, others):
    """Grow a forest that is not kept, and return its classes and its probabilities of other samples.

    Parameters
    ----------
    estimator : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    values, others : numpy.ndarray of float32, shape (n, predictors)
    y : numpy.ndarray, shape (n,)

    Returns
    -------
    classes : numpy.ndarray, shape (k,)
    probabilities : numpy.ndarray, shape (n, k)
        Those of scikit-learn.
    """
    model = grow(estimator, values, y)
    return model.classes_, _read(model, others, [(None, 2)], [estimator.n_estimators])[0][0, 0]


class _LightForest(RandomForestClassifier):
    """The same forest in less than half of the time, for the search alone.

    On some hundreds of samples scikit-learn spends most of a tree's time on copying and checking its parameters.
    Draws, criterion, splitter and builder are scikit-learn's own.
    """

    def _make_estimator(self, append=True, random_state=None):
        if not hasattr(self, "_first"):
            self._first = _LightTree(**{name: getattr(self, name) for name in self.estimator_params})
            self._first._generator = np.random.RandomState()
        tree = copy(self._first)
        tree.random_state = random_state.randint(np.iinfo(np.int32).max)
        return tree


class _LightTree(DecisionTreeClassifier):
    """A tree that trusts its forest: classes are numbers, values finite.

    Its `random_state` is one generator for all copies, seeded anew whenever it is asked for, which costs a tenth of a
    new one and draws the same.
    """

    @property
    def random_state(self):
        self._generator.seed(self._seed)
        return self._generator

    @random_state.setter
    def random_state(self, seed):
        self._seed = seed

    def _fit(self, X, y, sample_weight=None, check_input=False, missing_values_in_feature_mask=None):
        n, predictors = X.shape
        leaf, split = _number(self.min_samples_leaf, n, 1), _number(self.min_samples_split, n, 2)
        weight = None if sample_weight is None else np.asarray(sample_weight, float)
        least = self.min_weight_fraction_leaf * (n if weight is None else weight.sum())
        classes = np.array([int(y.max()) + 1], np.intp)
        features = {None: predictors, "sqrt": int(np.sqrt(predictors)), "log2": int(np.log2(predictors))}
        features = features.get(self.max_features) or _number(self.max_features, predictors, 1, int)
        criterion = CRITERIA_CLF[self.criterion](1, classes)
        splitter = BestSplitter(criterion, features, leaf, least, self.random_state, None)
        depth = _UNLIMITED if self.max_depth is None else self.max_depth
        self.tree_ = Tree(predictors, classes, 1)
        builder = DepthFirstTreeBuilder(splitter, split, leaf, least, depth, self.min_impurity_decrease)
        builder.build(self.tree_, X, y, weight, None)
        return self


def _number(value, whole, least, rounded=ceil):
    """Return a number of samples or predictors that may be given as a share of all of them."""
    return value if isinstance(value, int | np.integer) else max(least, rounded(value * whole))


# Showing ----------------------------------------------------------------------------------------------------


def draw_scores(tables, score):
    """Draw what a search found: how much the score depends on depth, split and features, and on the number of trees.

    Above, all trees: a line for each smallest split (colour) and number of features (style). Below, the same forests
    read at fewer trees. The grey band is one standard error on both sides of the chosen one, a dot: combinations
    in it cannot be told from it. Other hyperparameters are those of the chosen one.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        Title of a column of panels to the table of a `helpers.forest.models.Search`.
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
