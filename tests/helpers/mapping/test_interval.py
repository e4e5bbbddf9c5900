"""The interval of a total: by hand, and the quick run's files."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from helpers.forest.hurdle import PULL, fit_hurdle, learning_rows
from helpers.mapping import interval, redraw
from helpers.mapping.cells import cells_at, sample_cells
from helpers.mapping.variogram import Variogram
from helpers.samples.prevalence import strata_at
from helpers.samples.rows import forest_predictors, layer_rows


def test_intervals_of_two_regions_and_their_sum():
    rng = np.random.default_rng(2)
    sites, field = rng.normal(0, 3, (20_000, 2)), rng.normal(0, 4, (20_000, 2))
    enough = np.array([interval.LEAST_SITES, 50])
    draws = interval.Draws(sites, sites / 2, field, Variogram(1, 0, 1), None, enough)
    totals = pd.Series({"north": 100.0, "south": 2.0, "all": 102.0})
    table = interval.intervals(totals, draws, 0.9)
    np.testing.assert_allclose(table["se"], [5, 5, 50**0.5], rtol=0.02)
    np.testing.assert_allclose(table["sites_se"], [3, 3, 18**0.5], rtol=0.02)
    assert table.loc["north", "lower"] == pytest.approx(100 - 1.645 * 5, rel=0.01)
    assert table.loc["south", "lower"] == 0
    assert table.loc["all", "upper"] == pytest.approx(102 + 1.645 * 50**0.5, rel=0.01)
    assert table["boreholes"].tolist() == [10, 50, 60]
    fewer = interval.intervals(totals, replace(draws, boreholes=enough - 1), 0.9)
    assert fewer.loc["north", ["lower", "upper", "se", "field_se"]].isna().all()
    assert fewer["km3"].tolist() == totals.tolist()
    assert fewer["note"].str.contains("fewer than 10 sites").tolist() == [True, False, False]
    pd.testing.assert_frame_equal(fewer.iloc[1:, :7], table.iloc[1:, :7])


@pytest.mark.parametrize("number", [500, 2000])
def test_ends_become_surer_with_the_root_of_the_draws(number):
    """The standard error of the 5 % quantile of a normal distribution is 2.11 / sqrt(n)."""
    rng = np.random.default_rng(3)
    errors = [
        interval.errors_of_ends(rng.standard_normal(number), 0.9, rng).mean() for _ in range(20)
    ]
    assert np.mean(errors) == pytest.approx(2.113 / np.sqrt(number), rel=0.1)


@pytest.fixture(scope="module")
def layer(world):
    """The layer of a small world, with twelve blocks; sites of more elevation have more ice."""
    study, table, _ = world
    table = table.assign(ice_fraction=1 / (1 + np.exp(-table["elevation"])))
    rows = layer_rows(table, "2-3m").assign(block=np.arange(240) % 12)
    hurdle = fit_hurdle(study, rows, trees=10)
    return redraw.LayerModels(rows, learning_rows(study, rows), hurdle, None, (2.0, 3.0))


@pytest.fixture(scope="module")
def learnt(world, layer):
    """Predictors of the samples that the layer has learned from, and which have permafrost."""
    study = world[0]
    frozen = study.target_classes.permafrost[layer.learnt["class"]]
    return forest_predictors(study, layer.learnt), frozen


@pytest.fixture(scope="module")
def cells(world):
    return sample_cells(world[0], 500)


def test_leaves_of_samples_that_are_drawn_once_have_their_mean(layer, learnt, cells):
    values, frozen = learnt
    target = layer.learnt["ice_fraction"].to_numpy(float)[frozen]
    forest, own = layer.hurdle.forests[1], values[frozen]
    found = redraw._redrawn_leaves(forest, own, target, np.ones((2, len(own))), cells.values)
    wanted = np.zeros(len(cells.values))
    for tree in (grown.tree_ for grown in forest.estimators_):
        leaf = tree.apply(own)
        wanted += [target[leaf == here].mean() for here in tree.apply(cells.values)]
    wanted /= len(forest.estimators_)
    np.testing.assert_allclose(found, [wanted, wanted], atol=1e-12)


def test_a_leaf_has_the_mean_of_what_is_drawn_and_else_of_all(layer, learnt):
    values, frozen = learnt
    rng = np.random.default_rng(4)
    target, count = frozen.astype(float), rng.integers(0, 3, (1, len(frozen))).astype(float)
    one = SimpleNamespace(estimators_=layer.hurdle.forests[0].estimators_[:1])
    found = redraw._redrawn_leaves(one, values, target, count, values)[0]
    leaf = one.estimators_[0].tree_.apply(values)
    for number in np.unique(leaf):
        inside = leaf == number
        weight = count[0, inside] if count[0, inside].any() else None
        np.testing.assert_allclose(found[inside], np.average(target[inside], weights=weight))


@pytest.mark.parametrize("most", [1, 3])
def test_the_logistic_regression_is_that_of_the_drawn_samples(layer, learnt, most):
    values, frozen = learnt
    count = np.random.default_rng(5).integers(1, most + 1, (2, len(frozen))).astype(float)
    standard = (values - values.mean(axis=0, dtype=float)) / values.std(axis=0, dtype=float)
    for one, weight in zip(layer._logistic(values, frozen, count, values), count, strict=True):
        fitted = LogisticRegression(C=PULL, max_iter=1000, tol=1e-8)
        fitted.fit(standard, frozen, sample_weight=weight)
        np.testing.assert_allclose(one, fitted.decision_function(standard), atol=1e-4)
        if most == 1:  # the hurdle's own is where scikit-learn stops by default
            own = values @ layer.hurdle.slope + layer.hurdle.intercept
            np.testing.assert_allclose(one, own, atol=1e-3)


def test_every_draw_has_the_known_share_of_its_stratum(world, layer, cells):
    """Below an elevation the share is known, in between it has a range; no cell lies in the top."""
    study = world[0]
    share = {"region": "", "layer": "2-3m", "source": "survey", "shift": 0.0}
    strata = [
        share | {"from_m": None, "to_m": 0.5, "low": 0.3, "share": 0.3, "high": 0.3},
        share | {"from_m": 0.5, "to_m": 50.0, "low": 0.6, "share": 0.8, "high": 0.9},
        share | {"from_m": 50.0, "to_m": None, "low": 0.6, "share": 0.8, "high": 0.9},
    ]
    surveyed = replace(layer, hurdle=replace(layer.hurdle, strata=strata))
    counts = np.random.default_rng(6).multinomial(12, np.full(12, 1 / 12), 3)
    drawn = redraw.Redraw(layer.rows, counts, np.array([0, 0.5, 0.75]))
    other = cells_at(study, *np.array([[3, 3, 8], [2, 9, 4]]))
    (chance, content), (elsewhere, _) = surveyed.redrawn(study, drawn, cells, other)
    assert chance.shape == content.shape == (3, len(cells.values))
    stratum = np.where(cells.in_domain, strata_at(study, strata, cells.values, cells.points), -1)
    assert set(stratum) == {-1, 0, 1}
    for number, shares in enumerate(([0.3, 0.3, 0.3], [0.6, 0.8, 0.85])):
        means = chance[:, stratum == number].mean(axis=1)
        np.testing.assert_allclose(means, shares, atol=1e-6)
    # A cell has the same P, whichever others stand beside it.
    whole = surveyed.redrawn(study, drawn, cells, cells)
    np.testing.assert_array_equal(whole[1][0], chance)
    assert elsewhere.shape == (3, len(other.values))


def test_the_quick_run_has_intervals_around_its_totals(quick):
    tables = quick / "results/quick/main/tables"
    record = json.loads((tables / "storage_interval.json").read_text())
    storage = json.loads((tables / "storage.json").read_text())["regions"]
    assert set(record["regions"]) == set(storage)
    for name, row in record["regions"].items():
        assert row["km3"] == pytest.approx(storage[name]["ice_km3"], abs=1e-5)
        few = row["boreholes"] < 10 and name != "all"
        assert (row["lower"] is None) == few == bool(row["note"])
        if row["lower"] is not None:
            assert row["lower"] <= row["km3"] <= row["upper"]
    numbers = [row["boreholes"] for row in record["regions"].values()]
    assert sum(numbers) == 2 * numbers[-1] > 300
    whole = record["regions"]["all"]
    assert whole["sites_se"] ** 2 + whole["field_se"] ** 2 == pytest.approx(
        whole["se"] ** 2, rel=0.3
    )
    assert 0.02 < whole["se"] / whole["km3"] < 0.3
