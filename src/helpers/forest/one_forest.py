"""Grid search from one forest: every rule that only stops a tree is read from trees that nothing stopped.

`n_estimators`, `max_depth` and `min_samples_split` change no split: a node's split depends on its samples and on the
features drawn for it alone. A full tree cut where a rule would have stopped it therefore has the distribution of a
tree that was grown under the rule, and the first trees of a forest are the smaller forest of the same seed. So one
full forest a fold gives the scores of all combinations of the three; only hyperparameters that change splits, such as
`max_features`, `min_samples_leaf` and `criterion`, need a forest each.
"""

import time
from copy import copy

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils.parallel import Parallel, delayed

from helpers.core.errors import CompendiumError
from helpers.core.scores import confusion_matrix, f1, kappa, log_loss, macro
from helpers.forest.trees import grow, read_forest
from helpers.forest.two_stage import TwoStageForest

STOPPING = ("n_estimators", "max_depth", "min_samples_split")
"""Hyperparameters that are read from full trees."""


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
    read, leaves = read_forest(model, values[test], rules, sizes)
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
