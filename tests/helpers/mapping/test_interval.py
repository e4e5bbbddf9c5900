"""The interval of a total: by hand, and the quick run's files."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.mapping import interval
from helpers.mapping.variogram import Variogram


def test_intervals_of_two_regions_and_their_sum():
    rng = np.random.default_rng(2)
    sites, field = rng.normal(0, 3, (20_000, 2)), rng.normal(0, 4, (20_000, 2))
    draws = interval.Draws(sites, sites / 2, field, 0 * sites, Variogram(1, 0, 1), None)
    totals = pd.Series({"north": 100.0, "south": 2.0, "all": 102.0})
    table = interval.intervals(totals, draws, 0.9)
    np.testing.assert_allclose(table["se"], [5, 5, 50**0.5], rtol=0.02)
    np.testing.assert_allclose(table["sites_se"], [3, 3, 18**0.5], rtol=0.02)
    assert table.loc["north", "lower"] == pytest.approx(100 - 1.645 * 5, rel=0.01)
    assert table.loc["south", "lower"] == 0
    assert table.loc["all", "upper"] == pytest.approx(102 + 1.645 * 50**0.5, rel=0.01)


def test_moved_ice_widens_the_interval_of_its_region_and_not_that_of_the_sum():
    rng = np.random.default_rng(2)
    nothing, moved = np.zeros((20_000, 2)), rng.random((20_000, 1)) * np.array([10.0, -10.0])
    draws = interval.Draws(nothing, nothing, nothing, moved, Variogram(1, 0, 1), None)
    table = interval.intervals(pd.Series({"north": 5.0, "south": 95.0, "all": 100.0}), draws, 0.9)
    np.testing.assert_allclose(table["lower"], [5, 85.5, 100], rtol=0.01)
    np.testing.assert_allclose(table["upper"], [14.5, 95, 100], rtol=0.01)
    np.testing.assert_allclose(table["moved_se"], [10 / 12**0.5] * 2 + [0], rtol=0.02)


@pytest.mark.parametrize("number", [500, 2000])
def test_ends_become_surer_with_the_root_of_the_draws(number):
    """The standard error of the 5 % quantile of a normal distribution is 2.11 / sqrt(n)."""
    rng = np.random.default_rng(3)
    errors = [
        interval.errors_of_ends(rng.standard_normal(number), 0.9, rng).mean() for _ in range(20)
    ]
    assert np.mean(errors) == pytest.approx(2.113 / np.sqrt(number), rel=0.1)


def test_the_quick_run_has_intervals_around_its_totals(quick):
    tables = quick / "results/quick/main/tables"
    record = json.loads((tables / "storage_interval.json").read_text())
    storage = json.loads((tables / "storage.json").read_text())["regions"]
    assert set(record["regions"]) == set(storage)
    for name, row in record["regions"].items():
        assert row["km3"] == pytest.approx(storage[name]["ice_km3"], abs=1e-5)
        assert row["lower"] <= row["km3"] <= row["upper"]
    whole = record["regions"]["all"]
    assert whole["sites_se"] ** 2 + whole["field_se"] ** 2 == pytest.approx(
        whole["se"] ** 2, rel=0.3
    )
    assert 0.02 < whole["se"] / whole["km3"] < 0.3
