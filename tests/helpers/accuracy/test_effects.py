"""Accumulated local effects of simple functions; Shapley values by their definition."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from conftest import SOURCE
from sklearn.ensemble import RandomForestClassifier

from helpers.accuracy.effects import local_effects
from helpers.accuracy.importance import shapley_importance, shapley_layer, shapley_values
from helpers.core.study import Study
from helpers.folds import blocks


def test_effects_of_an_additive_function_are_its_parts_in_spite_of_correlation():
    rng = np.random.default_rng(0)
    first = rng.random(2000)
    values = np.stack([first, first + 0.1 * rng.random(2000)], axis=1)

    def predict(part):
        chance = 0.3 * part[:, 0] ** 2 + 0.5 * part[:, 1]
        return np.stack([1 - chance, chance], axis=1)

    draws = blocks.sample_blocks(np.arange(2000) % 50, 100, rng)
    edges, effects = local_effects(predict, values, 0, draws)
    assert effects.shape == (101, len(edges), 2)
    expected = 0.3 * edges**2
    assert np.ptp(effects[0, :, 1] - expected) < 1e-9
    assert effects[0, :, 0] == pytest.approx(-effects[0, :, 1])
    _, second = local_effects(predict, values, 1, draws)
    assert second[0, -1, 1] - second[0, 0, 1] == pytest.approx(0.5 * np.ptp(values[:, 1]))


def test_a_predictor_that_does_nothing_or_has_one_value_has_no_effect():
    rng = np.random.default_rng(1)
    values = np.stack([rng.random(60), np.ones(60), rng.integers(0, 2, 60)], axis=1)
    draws = blocks.sample_blocks(np.arange(60) % 6, 20, rng)

    def predict(part):
        return np.stack([part[:, 2], 1 - part[:, 2]], axis=1)

    assert local_effects(predict, values, 0, draws)[1] == pytest.approx(0)
    assert local_effects(predict, values, 1, draws)[1] == pytest.approx(0)
    edges, effects = local_effects(predict, values, 2, draws)
    assert edges.tolist() == [0, 1]
    assert np.diff(effects[0, :, 0]) == pytest.approx([1])


# --- Shapley values

PREDICTORS = ["first", "second", "third"]


def grown(forest, seed=0):
    """Return a forest and the samples that it was grown from; the second predictor does nothing."""
    rng = np.random.default_rng(seed)
    values = rng.random((80, 3)).astype(np.float32)
    types = (values[:, 0] > 0.4).astype(int) + (values[:, 2] > 0.6) * (values[:, 0] > 0.4)
    rows = pd.DataFrame(values, columns=PREDICTORS)
    places = {
        "site_id": [f"S{n:02d}" for n in range(80)],
        "easting": 1e4 * np.arange(80.0),
        "northing": 0.0,
    }
    return forest.fit(values, types), rows.assign(**places, group=places["site_id"])


def expected(tree, used, site):
    """Return a tree's class shares where only the predictors in `used` are used of a site."""

    def at(node):
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            return tree.value[node][0] / tree.value[node][0].sum()
        if tree.feature[node] in used:
            return at(left if site[tree.feature[node]] <= tree.threshold[node] else right)
        weight = tree.weighted_n_node_samples
        return (weight[left] * at(left) + weight[right] * at(right)) / weight[node]

    return at(0)


def test_shapley_values_are_those_of_the_definition():
    model, rows = grown(
        RandomForestClassifier(5, max_depth=4, class_weight="balanced", random_state=0)
    )
    values = rows[PREDICTORS].to_numpy()
    base, parts = shapley_values(model, values[:4])
    for site, part in zip(values[:4], parts, strict=True):
        wanted = np.zeros((3, 3))
        for number, size in itertools.product(range(3), range(3)):
            for others in itertools.combinations([n for n in range(3) if n != number], size):
                share = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
                for tree in model.estimators_:
                    gain = expected(tree.tree_, {*others, number}, site) - expected(
                        tree.tree_, set(others), site
                    )
                    wanted[number] += share * gain / len(model.estimators_)
        np.testing.assert_allclose(part, wanted, atol=1e-9)
    np.testing.assert_allclose(base + parts.sum(axis=1), model.predict_proba(values[:4]), atol=1e-9)


def test_shapley_values_of_a_layer_add_up_on_any_number_of_threads():
    model, rows = grown(RandomForestClassifier(10, random_state=1))
    card = {"layer": "2-3m", "predictors": PREDICTORS}
    table = shapley_layer(model, card, rows, np.random.default_rng(3), 30, n_jobs=1)
    again = shapley_layer(
        model, card, rows.sample(frac=1, random_state=0), np.random.default_rng(3), 30, n_jobs=2
    )
    pd.testing.assert_frame_equal(table, again)
    assert table["site_id"].nunique() == 30
    values = rows.set_index("site_id")[PREDICTORS]
    by_site = table.pivot_table("value", "site_id", "predictor")
    np.testing.assert_allclose(by_site, values.loc[by_site.index, by_site.columns], atol=1e-6)
    table["sum"] = table["part"] + table["base"] / len(PREDICTORS)
    added = table.pivot_table("sum", "site_id", "class", aggfunc="sum")
    values = values.loc[added.index].to_numpy()
    np.testing.assert_allclose(added, model.predict_proba(values), atol=1e-9)
    sizes = shapley_importance(Study(name="t", source=SOURCE), table, rows)
    sizes = sizes.set_index(["predictor", "class"])
    assert sizes.loc[("first", 0), "mean_size"] > 5 * sizes.loc[("second", 0), "mean_size"]
    assert (sizes["lower"] <= sizes["mean_size"]).all()
    assert (sizes["mean_size"] <= sizes["upper"]).all()
