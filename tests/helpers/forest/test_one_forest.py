"""The grid search from one forest: what it reads is what scikit-learn would have grown."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, PredefinedSplit

from helpers.core.classes import TARGETS
from helpers.core.study import Study, StudyError
from helpers.forest import grid_search
from helpers.forest import trees as trees_module
from helpers.forest.grid_search import choose, score_probabilities
from helpers.forest.models import class_probabilities
from helpers.forest.one_forest import predict_grid
from helpers.forest.trees import grow, read_forest

EQUIVALENCE_SEEDS = range(100, 130)  # written down before the first run
MARGIN = 0.01


def make_samples(samples=150, seed=0, classes=3, flip=0.2):
    values, types = make_classification(
        samples,
        n_features=6,
        n_informative=4,
        n_redundant=0,
        n_classes=classes,
        flip_y=flip,
        random_state=seed,
    )
    return values.astype(np.float32), types


@pytest.fixture(scope="module")
def samples():
    return make_samples()


def halves(types, folds=2):
    """Return folds of consecutive samples."""
    return np.arange(len(types)) * folds // len(types)


def forest(trees=20, **params):
    return RandomForestClassifier(
        **{"n_estimators": trees, "class_weight": "balanced", "random_state": 3} | params
    )


# Known answers


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
def test_unlimited_trees_are_those_of_scikit_learn_at_every_size(samples, params):
    values, types = samples
    fold = halves(types)
    found, _ = predict_grid(
        forest(**params), {"n_estimators": [3, 12], "max_depth": [None, 2]}, values, types, fold
    )
    assert found.sum(axis=2) == pytest.approx(1)
    for trees, probabilities in zip((3, 12), found[:2], strict=True):
        for held in (fold == 0, fold == 1):
            plain = forest(**params | {"n_estimators": trees}).fit(values[~held], types[~held])
            assert np.array_equal(probabilities[held], plain.predict_proba(values[held]))


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
    split=st.integers(2, 60),
    leaf=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_rule_stops_every_sample_where_its_path_says(samples, depth, split, leaf, seed):
    values, types = samples
    model = forest(5, min_samples_leaf=leaf, random_state=seed).fit(values[:100], types[:100])
    (told,), leaves = read_forest(model, values[100:], [(depth, split), (None, 2)], [5])
    expected = np.mean(
        [cut(tree.tree_, depth, split)(values[100:]) for tree in model.estimators_], axis=0
    )
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


def scores(model, values, types):
    """Return the scores of a forest, of which more is better, as a scorer of scikit-learn."""
    found = score_probabilities(types, class_probabilities(model, values))
    return found | {"log_loss": -found["log_loss"]}


def test_equals_grid_search_where_no_tree_is_stopped():
    values, types = make_samples(classes=6, samples=240)
    fold = np.random.default_rng(0).permutation(240) % 4
    model = forest()
    grid = {"n_estimators": [5, 20], "max_features": [1, "sqrt"], "criterion": ["gini", "entropy"]}
    peer = GridSearchCV(model, grid, scoring=scores, refit="kappa", cv=PredefinedSplit(fold))
    expected = peer.fit(values, types).cv_results_
    found, _ = predict_grid(model, grid, values, types, fold)
    assert list(ParameterGrid(grid)) == expected["params"]
    table = grid_search.score_folds(types, found, fold)
    for name in grid_search.SEARCH_SCORES:
        assert np.array_equal(table[name], np.abs(expected[f"mean_test_{name}"]))
        assert table[f"{name}_se"].to_numpy() == pytest.approx(
            expected[f"std_test_{name}"] / np.sqrt(3), abs=1e-12
        )
    for number in range(4):
        held = fold == number
        for index, probabilities in enumerate(found[:, held]):
            kappa = score_probabilities(types[held], probabilities)["kappa"]
            assert kappa == expected[f"split{number}_test_kappa"][index]
    assert choose(table, "kappa") == peer.best_index_


def test_probabilities_serve_other_scores_of_scikit_learn(samples):
    values, types = samples
    fold = halves(types, 3)[np.random.default_rng(1).permutation(len(types))]
    grid = {"n_estimators": [5, 20], "max_features": [1, "sqrt"]}
    scoring = {"accuracy": "accuracy", "auc": "roc_auc_ovr"}
    peer = GridSearchCV(forest(), grid, scoring=scoring, refit=False, cv=PredefinedSplit(fold)).fit(
        values, types
    )
    found, _ = predict_grid(forest(), grid, values, types, fold)
    for number in range(3):
        held = fold == number
        for index, read in enumerate(found[:, held]):
            accuracy = accuracy_score(types[held], read.argmax(axis=1))
            assert accuracy == peer.cv_results_[f"split{number}_test_accuracy"][index]
            auc = roc_auc_score(types[held], read, multi_class="ovr")
            assert auc == peer.cv_results_[f"split{number}_test_auc"][index]


def test_scores_are_those_of_scikit_learn(samples):
    values, types = samples
    model = forest().fit(values[:100], types[:100])
    read = model.predict_proba(values[100:])
    found = score_probabilities(types[100:], np.pad(read, ((0, 0), (0, 3))))
    assert found["kappa"] == pytest.approx(
        cohen_kappa_score(types[100:], model.predict(values[100:]))
    )
    expected = -np.log(np.maximum(read, 1e-3)[np.arange(50), types[100:]]).mean()
    assert found["log_loss"] == pytest.approx(expected)


def test_one_predictor_is_not_all_of_them(samples):
    values, types = samples
    grid = {"max_features": [1, 1.0]}
    one, all_of_them = predict_grid(forest(), grid, values, types, halves(types))[0]
    alone, _ = predict_grid(forest(), {"max_features": [1.0]}, values, types, halves(types))
    assert np.array_equal(all_of_them, alone[0])
    assert not np.array_equal(one, all_of_them)


# Equivalence


@pytest.fixture(scope="module")
def differences():
    """Differences of scores on other samples, one forest less direct refit, by seed and rule."""
    grid, found = {"max_depth": [4, None], "min_samples_split": [2, 15]}, []
    depth = {"max_depth": 4, "min_samples_split": 2}
    split = {"max_depth": None, "min_samples_split": 15}
    for seed in EQUIVALENCE_SEEDS:
        values, types = make_samples(1200, seed)
        test = np.arange(1200) >= 200
        ours, _ = predict_grid(forest(60, random_state=seed), grid, values, types, test - 1)
        for params in (depth, split):
            probabilities = ours[list(ParameterGrid(grid)).index(params)]
            # Light trees save half of the time, and are scikit-learn's to the last bit: see above.
            direct = grow(forest(60, random_state=seed, **params), values[~test], types[~test])
            both = [
                probabilities[test],
                read_forest(direct, values[test], [(None, 2)], [60])[0][0, 0],
            ]
            losses = [log_loss(types[test], known) for known in both]
            kappas = [cohen_kappa_score(types[test], known.argmax(axis=1)) for known in both]
            found.append(
                {"rule": str(params), "log_loss": -np.diff(losses)[0], "kappa": -np.diff(kappas)[0]}
            )
    return pd.DataFrame(found)


@pytest.mark.parametrize("score", ["log_loss", "kappa"])
def test_cut_trees_score_as_trees_grown_under_the_rule(differences, score):
    for _, rule in differences.groupby("rule"):
        assert len(rule) == 30
        mean, error = rule[score].mean(), rule[score].std(ddof=1) / np.sqrt(30)
        # Two one-sided tests at 5 % are this interval of 90 %.
        low, high = stats.t.interval(0.90, 29, mean, error)
        assert -MARGIN < low <= high < MARGIN


# The search


def test_same_seed_same_result_on_one_and_two_processes(samples):
    grid = {"n_estimators": [5, 15], "max_depth": [2, None], "max_features": [1, 3]}
    one, two = (
        predict_grid(forest(), grid, *samples, halves(samples[1], 3), n_jobs) for n_jobs in (1, 2)
    )
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_an_older_scikit_learn_grows_the_same_by_its_own_trees(samples, monkeypatch):
    grid = {"n_estimators": [5, 15], "min_samples_split": [2, 9], "max_features": ["log2", 0.5]}
    light, _ = predict_grid(forest(), grid, *samples, halves(samples[1], 3))
    monkeypatch.setattr(trees_module, "_LIGHT_VERSION", "another")
    plain, _ = predict_grid(forest(), grid, *samples, halves(samples[1], 3))
    assert np.array_equal(light, plain)


@pytest.mark.parametrize("features", ["sqrt", "log2", 0.5, 1])
def test_light_trees_of_one_predictor_are_those_of_scikit_learn(samples, features):
    values, types = samples[0][:, :1], samples[1]
    model = forest(max_features=features)
    assert np.array_equal(
        grow(model, values, types).predict_proba(values),
        clone(model).fit(values, types).predict_proba(values),
    )


def test_samples_of_a_negative_fold_are_never_held_out(samples):
    values, types = samples
    once = np.where(np.arange(len(types)) < 50, 0, -1)
    found, _ = predict_grid(forest(5), {"max_depth": [3]}, values, types, once)
    assert np.isnan(found[:, 50:]).all()
    assert found[:, :50].sum(axis=2) == pytest.approx(1)


def test_a_class_that_a_fold_lacks_has_probability_0(samples):
    values, types = samples
    rare = np.where(np.arange(len(types)) == 7, 9, types)
    found, _ = predict_grid(forest(5), {"max_depth": [3, None]}, values, rare, halves(types, 3))
    assert found[:, 7, -1] == pytest.approx(0)


SCORED = pd.DataFrame(
    {
        "n_estimators": [10, 20] * 3,
        "leaves": [4, 4, 9, 9, 20, 20],
        "kappa": [0.3, 0.2, 0.55, 0.55, 0.6, 0.6],
        "kappa_se": 0.1 / np.sqrt(3),
        "log_loss": [0.7, 0.8, 0.45, 0.45, 0.4, 0.4],
        "log_loss_se": 0.1 / np.sqrt(3),
    }
)  # the standard error is 0.058


@pytest.mark.parametrize("score", ["kappa", "log_loss"])
def test_the_winner_and_the_simplest_within_one_standard_error(score):
    assert choose(SCORED, score) == 4
    assert choose(SCORED[SCORED["n_estimators"] == 20], score) == 5
    assert choose(SCORED, score, one_standard_error=True) == 2
    assert choose(SCORED[SCORED["n_estimators"] == 20], score, True) == 3


def test_the_standard_error_is_that_of_a_mean_over_folds():
    types, fold = np.repeat([0, 1], 6), np.arange(12) % 3
    read = np.random.default_rng(0).dirichlet(np.ones(2), (2, 12))
    table = grid_search.score_folds(types, read, fold, TARGETS["permafrost"])
    losses = [
        score_probabilities(types[fold == k], read[1, fold == k], TARGETS["permafrost"])["log_loss"]
        for k in range(3)
    ]
    assert table.loc[1, "log_loss"] == pytest.approx(np.mean(losses))
    assert table.loc[1, "log_loss_se"] == pytest.approx(stats.sem(losses))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        pytest.param("min_samples_split", [1], "min_samples_split.*given: 1", id="split"),
        pytest.param("max_depth", [0], "max_depth.*given: 0", id="depth"),
        pytest.param("criterion", ["best"], "criterion.*given: 'best'", id="word"),
        pytest.param("max_depth", [], "max_depth.*at least 1 item", id="no value"),
    ],
)
def test_a_grid_that_cannot_be_grown_is_refused(name, values, expected):
    with pytest.raises(StudyError, match=expected):
        Study(name="a").changed({f"forest.{name}": values})


def test_a_picture_has_the_chosen_and_its_standard_error(samples):
    import matplotlib.pyplot as plt

    table = pd.DataFrame(
        [
            {
                "n_estimators": n,
                "max_depth": d,
                "min_samples_split": s,
                "max_features": f,
                "min_samples_leaf": 1,
                "criterion": "gini",
                "kappa": 0.4 + n / 1000,
                "kappa_se": 0.05,
                "chosen": (n, d, s, f) == (20, 4, 2, 0.3),
            }
            for n in (10, 20)
            for d in (4, "unlimited")
            for s in (2, 9)
            for f in ("sqrt", 0.3)
        ]
    )
    figure = grid_search.plot_search({"2-3m": table, "3-5m": table}, "kappa")
    upper, lower = figure.axes[0], figure.axes[2]
    assert len(upper.lines) == 4 + 1
    assert len(lower.lines) == 8 + 1
    assert (upper.lines[-1].get_xdata()[0], upper.lines[-1].get_ydata()[0]) == (
        0,
        pytest.approx(0.42),
    )
    assert lower.lines[-1].get_xdata()[0] == 20
    plt.close(figure)
