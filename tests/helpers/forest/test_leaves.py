"""Means of leaves and the most probable class: those of scikit-learn, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from helpers.forest import leaves
from helpers.forest.leaves import leaf_means, most_probable
from helpers.forest.models import class_probabilities


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    trees=st.integers(1, 130),
    codes=st.sampled_from([[2], [0, 1], [0, 1, 3], [1, 2, 3, 4, 5]]),
    tied=st.booleans(),
    smallest=st.sampled_from([1, 4]),
)
def test_answers_are_those_of_scikit_learn_to_the_last_bit(seed, trees, codes, tied, smallest):
    rng = np.random.default_rng(seed)
    values, types = rng.normal(size=(60, 4)), rng.choice(codes, 60)
    cells = rng.normal(size=(700, 4))
    if tied:  # whole and half numbers: cells lie on thresholds, and classes have equal shares
        values, cells = np.round(values), np.round(2 * cells) / 2
    values, cells = values.astype(np.float32), cells.astype(np.float32)
    model = RandomForestClassifier(trees, min_samples_leaf=smallest, random_state=seed % 7)
    model.fit(values, types)
    assert np.array_equal(leaf_means(model, cells), model.predict_proba(cells))
    assert np.array_equal(most_probable(model, cells), model.predict(cells))


def test_rows_go_down_in_blocks_and_those_that_are_decided_no_further(monkeypatch):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(90, 4)).astype(np.float32)
    types = np.where(values[:, 0] > 0, 3, rng.choice([0, 1], 90))
    cells = rng.normal(size=(1000, 4)).astype(np.float32)
    model = RandomForestClassifier(301, random_state=1, n_jobs=1).fit(values, types)
    monkeypatch.setattr(leaves, "_ROWS", 300)
    asked = []
    walk = leaves._add_leaves

    def count(nodes, roots, shares, values, total):
        asked.append(len(roots) * len(values))
        walk(nodes, roots, shares, values, total)

    monkeypatch.setattr(leaves, "_add_leaves", count)
    found = class_probabilities(model, cells)
    assert np.array_equal(found[:, [0, 1, 3]], model.predict_proba(cells))
    assert not found[:, [2, 4, 5]].any()
    assert sum(asked) == 301 * 1000
    asked.clear()
    assert np.array_equal(most_probable(model, cells), model.predict(cells))
    assert sum(asked) < 0.85 * 301 * 1000


def test_no_cell_and_trees_that_other_software_has_ordered():
    rng = np.random.default_rng(3)
    values, types = rng.normal(size=(90, 4)).astype(np.float32), rng.choice([0, 1, 3], 90)
    model = RandomForestClassifier(5, random_state=1).fit(values, types)
    assert leaf_means(model, values[:0]).shape == (0, 3)
    assert most_probable(model, values[:0]).shape == (0,)
    other = RandomForestClassifier(5, max_leaf_nodes=20, random_state=1).fit(values, types)
    with pytest.raises(ValueError, match="not in the order of depth"):
        leaf_means(other, values)
