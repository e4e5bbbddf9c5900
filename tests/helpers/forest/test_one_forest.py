"""The grid search from one forest: what it reads is what scikit-learn would have grown."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics import cohen_kappa_score, log_loss
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit, RepeatedStratifiedKFold

from helpers.forest import grid_search, one_forest
from helpers.forest import trees as trees_module
from helpers.forest.one_forest import OneForestSearchCV, SearchError, choose, forest_scores
from helpers.forest.trees import grow, read_forest
from helpers.forest.two_stage import TwoStageForest

EQUIVALENCE_SEEDS = range(100, 130)  # written down before the first run
MARGIN = 0.01


def make_samples(samples=150, seed=0, classes=3, flip=0.2):
    values, types = make_classification(
        samples, n_features=6, n_informative=4, n_redundant=0, n_classes=classes, flip_y=flip, random_state=seed
    )
    return values.astype(np.float32), types


@pytest.fixture(scope="module")
def samples():
    return make_samples()


def forest(trees=20, **params):
    return RandomForestClassifier(**{"n_estimators": trees, "class_weight": "balanced", "random_state": 3} | params)


# Known answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "sample_weight"])
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="default"),
        pytest.param({"class_weight": None}, id="no class weights"),
        pytest.param({"class_weight": "balanced_subsample"}, id="balanced_subsample"),
        pytest.param({"class_weight": {0: 1, 1: 5, 2: 0.5}}, id="class weights"),
        pytest.param({"bootstrap": False}, id="no bootstrap"),
        pytest.param({"max_samples": 0.5, "criterion": "entropy"}, id="half of the samples"),
        pytest.param({"min_samples_leaf": 0.03, "max_features": None}, id="leaf as a share"),
        pytest.param({"min_samples_leaf": 4, "max_features": "log2"}, id="leaf"),
        pytest.param({"min_weight_fraction_leaf": 0.02, "max_features": 3}, id="weight of a leaf"),
        pytest.param({"min_impurity_decrease": 0.01, "max_features": 0.4}, id="impurity"),
    ],
)
def test_unlimited_trees_are_those_of_scikit_learn_at_every_size(samples, params, weighted):
    values, types = samples
    weight = np.random.default_rng(1).integers(0, 3, len(types)) / 2 if weighted else None
    grid = {"n_estimators": [3, 12], "max_depth": [None, 2]}
    found = OneForestSearchCV(forest(**params), grid, cv=KFold(2), refit=False)
    found.fit(values, types, sample_weight=weight)
    assert found.out_of_fold_.sum(axis=2) == pytest.approx(1)
    for trees, told in zip((3, 12), found.out_of_fold_[:2], strict=True):
        for train, test in KFold(2).split(values):
            known = None if weight is None else weight[train]
            plain = forest(**params | {"n_estimators": trees}).fit(values[train], types[train], known)
            assert np.array_equal(told[test], plain.predict_proba(values[test]))


def cut(tree, depth, split):
    """Return a tree's probabilities and leaves under a rule, by scikit-learn's own paths."""

    def told(values):
        paths, found = tree.decision_path(values).toarray().astype(bool), []
        for path in paths:
            nodes = np.flatnonzero(path)  # a parent comes before its children
            small = tree.n_node_samples[nodes] < split
            stops = np.flatnonzero(small | (np.arange(len(nodes)) >= depth))
            found.append(tree.value[nodes[stops[0] if len(stops) else -1], 0])
        return np.array(found)

    return told


@settings(deadline=None, max_examples=15)
@given(
    depth=st.integers(1, 9),
    split=st.integers(2, 60) | st.floats(0.01, 0.4),
    leaf=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_rule_stops_every_sample_where_its_path_says(samples, depth, split, leaf, seed):
    values, types = samples
    model = forest(5, min_samples_leaf=leaf, random_state=seed).fit(values[:100], types[:100])
    (told,), leaves = read_forest(model, values[100:], [(depth, split), (None, 2)], [5])
    number = split if isinstance(split, int) else max(2, int(np.ceil(split * 100)))
    expected = np.mean([cut(tree.tree_, depth, number)(values[100:]) for tree in model.estimators_], axis=0)
    assert told[0] == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(told[1], model.predict_proba(values[100:]))
    assert leaves[1] == np.mean([tree.get_n_leaves() for tree in model.estimators_])
    assert 1 <= leaves[0] <= min(leaves[1], 2**depth)


def test_a_stump_has_two_leaves_and_a_root_one(samples):
    values, types = samples
    model = forest(4).fit(values, types)
    read, leaves = read_forest(model, values, [(1, 2), (None, 10**6)], [4])
    assert leaves.tolist() == [2, 1]
    assert read[0, 1] == pytest.approx(np.tile(read[0, 1, 0], (len(types), 1)))


def test_equals_grid_search_where_no_tree_is_stopped(samples):
    values, types = samples
    grid = {"n_estimators": [5, 20], "max_features": [1, "sqrt"], "criterion": ["gini", "entropy"]}
    scoring = {"kappa": forest_scores_of("kappa"), "accuracy": "accuracy", "auc": "roc_auc_ovr"}
    ours = OneForestSearchCV(forest(), grid, scoring=scoring, refit="accuracy", cv=4).fit(values, types)
    peer = GridSearchCV(forest(), grid, scoring=scoring, refit="accuracy", cv=4).fit(values, types)
    assert set(ours.cv_results_) == {*peer.cv_results_, "mean_leaves"}
    for key, value in peer.cv_results_.items():
        if "time" not in key and key != "params":
            np.testing.assert_array_equal(ours.cv_results_[key], value)
    assert (ours.best_index_, ours.best_params_) == (peer.best_index_, peer.best_params_)
    assert ours.best_score_ == peer.best_score_ == ours.cv_results_["mean_test_accuracy"].max()
    assert type(ours.best_estimator_) is RandomForestClassifier
    assert np.array_equal(ours.predict_proba(values), peer.predict_proba(values))
    assert ours.score(values, types) == peer.score(values, types)


def forest_scores_of(name):
    return lambda model, values, types: forest_scores(model, values, types)[name]


def test_scores_are_those_of_scikit_learn(samples):
    values, types = samples
    model = forest().fit(values[:100], types[:100])
    found = forest_scores(model, values[100:], types[100:])
    assert found["kappa"] == pytest.approx(cohen_kappa_score(types[100:], model.predict(values[100:])))
    probabilities = np.maximum(model.predict_proba(values[100:]), 1e-3)
    expected = -np.log(probabilities[np.arange(50), types[100:]]).mean()
    assert found["neg_log_loss"] == pytest.approx(-expected)


def test_a_two_stage_forest_is_read_as_it_predicts(samples):
    values, types = samples
    grid = {"n_estimators": [4, 12], "max_depth": [None, 2], "min_samples_split": [2, 0.2], "max_features": [2]}
    model = TwoStageForest(class_weight="balanced", random_state=2)
    found = OneForestSearchCV(model, grid, cv=KFold(3)).fit(values, types)
    assert found.out_of_fold_.sum(axis=2) == pytest.approx(1)
    free = {"max_depth": None, "min_samples_split": 2}
    for index, candidate in enumerate(found.cv_results_["params"]):
        if candidate == candidate | free:
            for fold, (train, test) in enumerate(KFold(3).split(values)):
                plain = clone(model).set_params(**candidate).fit(values[train], types[train])
                assert np.array_equal(found.out_of_fold_[index, test], plain.predict_proba(values[test]))
                told = forest_scores(plain, values[test], types[test])["kappa"]
                assert found.cv_results_[f"split{fold}_test_kappa"][index] == told
    assert isinstance(found.best_estimator_, TwoStageForest)


# Equivalence ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def differences():
    """Differences of scores, one forest less direct refit, by seed and rule: of stopped trees, on other samples."""
    grid, found = [{"max_depth": [4]}, {"min_samples_split": [15]}], []
    for seed in EQUIVALENCE_SEEDS:
        values, types = make_samples(1200, seed)
        test = np.arange(1200) >= 200
        ours = OneForestSearchCV(forest(60, random_state=seed), grid, cv=PredefinedSplit(test - 1), refit=False)
        ours.fit(values, types)
        for probabilities, params in zip(ours.out_of_fold_, ours.cv_results_["params"], strict=True):
            # Light trees save half of the time, and are scikit-learn's to the last bit: see above.
            direct = grow(forest(60, random_state=seed, **params), values[~test], types[~test])
            both = [probabilities[test], read_forest(direct, values[test], [(None, 2)], [60])[0][0, 0]]
            losses = [log_loss(types[test], known) for known in both]
            kappas = [cohen_kappa_score(types[test], known.argmax(axis=1)) for known in both]
            found.append({"rule": str(params), "log_loss": -np.diff(losses)[0], "kappa": -np.diff(kappas)[0]})
    return pd.DataFrame(found)


@pytest.mark.parametrize("score", ["log_loss", "kappa"])
def test_cut_trees_score_as_trees_grown_under_the_rule(differences, score):
    for _, rule in differences.groupby("rule"):
        assert len(rule) == 30
        mean, error = rule[score].mean(), rule[score].std(ddof=1) / np.sqrt(30)
        # Two one-sided tests at 5 % are this interval of 90 %.
        low, high = stats.t.interval(0.90, 29, mean, error)
        assert -MARGIN < low <= high < MARGIN


# The object -------------------------------------------------------------------------------------------------


def test_same_seed_same_result_on_one_and_two_processes(samples):
    grid = {"n_estimators": [5, 15], "max_depth": [2, None], "max_features": [1, 3]}
    one, two = (OneForestSearchCV(forest(), grid, cv=3, n_jobs=n_jobs).fit(*samples) for n_jobs in (1, 2))
    assert one.best_params_ == two.best_params_
    assert np.array_equal(one.out_of_fold_, two.out_of_fold_)
    for key in one.cv_results_:
        if "time" not in key:
            np.testing.assert_array_equal(one.cv_results_[key], two.cv_results_[key])


def test_an_older_scikit_learn_grows_the_same_by_its_own_trees(samples, monkeypatch):
    grid = {"n_estimators": [5, 15], "min_samples_split": [2, 9]}
    light = OneForestSearchCV(forest(), grid, cv=3).fit(*samples)
    monkeypatch.setattr(trees_module, "_LIGHT_VERSION", "another")
    plain = OneForestSearchCV(forest(), grid, cv=3).fit(*samples)
    assert np.array_equal(light.out_of_fold_, plain.out_of_fold_)


def test_clones_and_tables_with_names_as_any_search(samples):
    values, types = samples
    model = OneForestSearchCV(forest(5), {"max_depth": [2, 3]}, cv=3, one_standard_error=True)
    again = clone(model)
    assert again.get_params()["one_standard_error"] is True
    assert again.set_params(estimator__criterion="entropy").estimator.criterion == "entropy"
    table, names = pd.DataFrame(values, columns=list("abcdef")), np.array(["no", "some", "much"])
    again.fit(table, names[types])
    assert set(again.predict(table)) <= set(names)
    assert again.classes_.tolist() == ["much", "no", "some"]
    assert again.feature_names_in_.tolist() == list("abcdef")


def test_out_of_fold_probabilities_of_samples_held_out_twice_and_never(samples):
    values, types = samples
    found = OneForestSearchCV(forest(5), {"max_depth": [3]}, cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=2))
    assert found.fit(values, types).out_of_fold_.sum(axis=2) == pytest.approx(1)
    once = np.where(np.arange(len(types)) < 50, 0, -1)
    kept = OneForestSearchCV(forest(5), {"max_depth": [3]}, cv=PredefinedSplit(once)).fit(values, types)
    assert np.isnan(kept.out_of_fold_[:, 50:]).all()
    assert kept.out_of_fold_[:, :50].sum(axis=2) == pytest.approx(1)


def test_a_class_that_a_fold_lacks_has_probability_0(samples):
    values, types = samples
    rare = np.where(np.arange(len(types)) == 7, 9, types)
    found = OneForestSearchCV(forest(5), {"max_depth": [3, None]}, cv=KFold(3)).fit(values, rare)
    assert found.out_of_fold_[:, 7, -1] == pytest.approx(0)


RESULTS = {
    "params": [{"n_estimators": n, "max_depth": d} for d in (2, 4, 8) for n in (10, 20)],
    "mean_leaves": np.array([4, 4, 9, 9, 20, 20]),
    **{f"split{k}_test_kappa": np.array([0.3, 0.2, 0.5, 0.5, 0.6, 0.6]) + 0.1 * (k - 1) for k in range(3)},
    "mean_test_kappa": np.array([0.3, 0.2, 0.55, 0.55, 0.6, 0.6]),
}  # the standard error is 0.1 / sqrt(3) = 0.058


def test_the_winner_and_the_simplest_within_one_standard_error():
    assert one_forest.standard_error(RESULTS, "kappa") == pytest.approx(0.1 / np.sqrt(3))
    assert choose(RESULTS, "kappa") == 4
    assert choose(RESULTS, "kappa", among=[True, True, False, True, False, True]) == 5
    assert choose(RESULTS, "kappa", one_standard_error=True) == 2
    assert choose(RESULTS, "kappa", True, [False, True, False, True, False, True]) == 3


GRID = {"max_depth": [2, None]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"grid": {"min_samples_split": [1]}}, "min_samples_split.*Got 1", id="split"),
        pytest.param({"grid": {"max_depth": [0]}}, "max_depth.*Got 0", id="depth"),
        pytest.param({"grid": {"max_features": [7]}}, "max_features is 7, and there are 6 predictors", id="features"),
        pytest.param({"grid": {"criterion": ["best"]}}, "criterion.*Got 'best'", id="word"),
        pytest.param({"grid": {"max_deep": [3]}}, "Invalid parameter 'max_deep'", id="name"),
        pytest.param({"grid": {"max_depth": []}}, "max_depth", id="no value"),
        pytest.param({"grid": {"max_leaf_nodes": [4]}}, "max_leaf_nodes", id="leaf nodes"),
        pytest.param({"grid": {"ccp_alpha": [0.1]}}, "ccp_alpha", id="pruned"),
        pytest.param({"cv": 200}, "cannot be dealt into folds.*n_splits=200", id="folds"),
        pytest.param({"estimator": ExtraTreesClassifier()}, "ExtraTreesClassifier is no random forest", id="estimator"),
        pytest.param({"values": lambda x: np.where(x > 1.5, np.nan, x)}, "lack a finite value", id="nan"),
        pytest.param({"values": lambda x: x[:-1]}, "do not fit", id="rows"),
        pytest.param({"values": lambda x: x.astype(str) + "m"}, "are no numbers", id="text"),
        pytest.param({"types": lambda y: y * 0}, "All 150 samples are of one class", id="one class"),
        pytest.param({"refit": "beauty"}, "no score beauty.*kappa, macro_f1", id="score"),
    ],
)
def test_what_cannot_be_searched_is_refused(samples, change, expected):
    values, types = samples
    values, types = change.get("values", np.asarray)(values), change.get("types", np.asarray)(types)
    model = OneForestSearchCV(
        change.get("estimator", forest(3)), change.get("grid", GRID), cv=change.get("cv", 3),
        refit=change.get("refit", "kappa"),
    )  # fmt: skip
    with pytest.raises(SearchError, match=f"(?s){expected}") as caught:
        model.fit(values, types)
    assert "Remedy: " in str(caught.value)


def test_a_picture_has_the_chosen_and_its_standard_error(samples):
    import matplotlib.pyplot as plt

    table = pd.DataFrame(
        [
            {"n_estimators": n, "max_depth": d, "min_samples_split": s, "max_features": f, "min_samples_leaf": 1,
             "criterion": "gini", "kappa": 0.4 + n / 1000, "kappa_se": 0.05, "chosen": (n, d, s, f) == (20, 4, 2, 0.3)}
            for n in (10, 20) for d in (4, "unlimited") for s in (2, 9) for f in ("sqrt", 0.3)
        ]
    )  # fmt: skip
    figure = grid_search.plot_search({"2-3m": table, "3-5m": table}, "kappa")
    upper, lower = figure.axes[0], figure.axes[2]
    assert len(upper.lines) == 4 + 1
    assert len(lower.lines) == 8 + 1
    assert (upper.lines[-1].get_xdata()[0], upper.lines[-1].get_ydata()[0]) == (0, pytest.approx(0.42))
    assert lower.lines[-1].get_xdata()[0] == 20
    plt.close(figure)
