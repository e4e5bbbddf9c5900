"""The interval of a total: variances known by hand, calibrations refitted, the variogram, the quick run's files."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.forest.calibration import calibrate, fit_calibration
from helpers.mapping import half_samples, interval
from helpers.mapping.variogram import Variogram, block_covariance, covariogram, field_covariance, fit_variogram


def calibrated(rng, n=400, k=4):
    """Return calibrated log-probabilities, classes and weights."""
    probabilities = rng.dirichlet(np.full(k, 0.6), n)
    types = np.array([rng.choice(k, p=one) for one in probabilities])
    weight = rng.uniform(0.2, 2, n)
    calibration = fit_calibration(probabilities, types, weight)
    return np.log(calibrate(probabilities, calibration)), types, weight


def test_weights_of_all_samples_change_no_calibration():
    scores, types, weight = calibrated(np.random.default_rng(1))
    slope, intercept = half_samples.refit_shares(scores, types, weight[np.newaxis] / weight.sum())
    assert slope[0] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(intercept[0] - intercept[0].mean(), 0, atol=0.02)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_refitted_probabilities_have_the_weighted_shares_of_the_classes(seed):
    rng = np.random.default_rng(seed)
    scores, types, weight = calibrated(rng, n=120)
    share = weight * rng.multinomial(120, np.full(120, 1 / 120), 5)
    share[0, types == 3] = 0  # a class without a sample
    share /= share.sum(axis=1, keepdims=True)
    slope, intercept = half_samples.refit_shares(scores, types, share)
    probabilities = np.exp(slope[:, None, None] * scores + intercept[:, None])
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    mean = np.einsum("dn,dnk->dk", share, probabilities)
    np.testing.assert_allclose(mean, np.einsum("dn,nk->dk", share, np.eye(4)[types]), atol=1e-5)


def test_halves_come_in_pairs():
    halves = half_samples.half_samples(7, 6, np.random.default_rng(0))
    np.testing.assert_array_equal(halves.sum(axis=0), 3)
    assert set(halves.sum(axis=1).tolist()) == {3, 4}


# The residual field ---------------------------------------------------------------------------------------------------

LATTICE = (8, 9)


def totals_covariance(variogram, between, side=1.0):
    """Return the covariance of two groups' totals: the upper and the lower rows of a lattice, two layers."""
    loads = np.zeros((2, 2, *LATTICE))
    loads[0, :, :3], loads[1, :, 3:] = 1.0, 2.0
    lags = block_covariance(variogram, LATTICE, side)
    return field_covariance(loads, between, lags)


def test_independent_errors_have_the_sum_of_the_variances():
    """A reach far below the side: the mean of a square keeps 2 pi reach^2 / side^2 of the variance."""
    lags = block_covariance(Variogram(0, 1, 0.02), (3, 3), 1.0, parts=150)
    assert lags[2, 2] == pytest.approx(2 * np.pi * 0.02**2, rel=0.1)
    assert lags[0, 0] < 1e-12
    loads = np.zeros((1, 1, 3, 3))
    loads[0, 0, 0, 1], loads[0, 0, 2, 2] = 2.0, 3.0
    found = field_covariance(loads, np.eye(1), lags)
    np.testing.assert_allclose(found, (4 + 9) * lags[2, 2], rtol=1e-6)


def test_fully_correlated_errors_add_up():
    found = totals_covariance(Variogram(0.5, 0.5, 1e9), np.ones((2, 2)))
    sums = np.array([2 * 3 * 9 * 1.0, 2 * 5 * 9 * 2.0])  # layers, rows, columns, load
    np.testing.assert_allclose(found, 0.5 * np.outer(sums, sums), rtol=1e-6)


def test_independent_layers_add_their_variances():
    one, both = (totals_covariance(Variogram(0, 1, 2.0), between) for between in (np.eye(2), np.ones((2, 2))))
    np.testing.assert_allclose(both, 2 * one, rtol=1e-9)


def test_a_nugget_averages_out():
    np.testing.assert_allclose(totals_covariance(Variogram(1, 0, 2.0), np.eye(2)), 0, atol=1e-12)


def test_totals_of_simulated_fields_have_the_covariance():
    """Fields simulated on a fine grid by the covariance between its points, summed over squares."""
    side, parts, variogram = 3.0, 6, Variogram(0.3, 0.7, 4.0)
    fine = (np.indices((4 * parts, 5 * parts)).reshape(2, -1).T + 0.5) * side / parts
    distance = np.hypot(*(fine[:, np.newaxis] - fine).transpose(2, 0, 1))
    covariance = 0.7 * np.exp(-distance / 4) + 1e-9 * np.eye(len(fine))
    fields = np.linalg.cholesky(covariance) @ np.random.default_rng(5).standard_normal((len(fine), 4000))
    square = (fine // side).astype(int) @ [5, 1]
    means = np.stack([fields[square == number].mean(axis=0) for number in range(20)])
    load = np.random.default_rng(6).uniform(0, 1, 20)
    lags = block_covariance(variogram, (4, 5), side, parts)
    found = field_covariance(load.reshape(1, 1, 4, 5), np.eye(1), lags)
    assert found[0, 0] == pytest.approx((load @ means).var(), rel=0.1)


def test_a_known_variogram_is_found_again():
    rng = np.random.default_rng(8)
    points = rng.uniform(0, 300, (900, 2))
    distance = np.hypot(*(points[:, np.newaxis] - points).transpose(2, 0, 1))
    root = np.linalg.cholesky(0.6 * np.exp(-distance / 12) + 0.4 * np.eye(900))
    sd = rng.uniform(0.5, 2, 900)
    layers = [sd * (root @ rng.standard_normal(900)) for _ in range(8)]
    found = fit_variogram(*covariogram([points] * 8, layers, [sd] * 8, 100.0), 100.0)
    assert found.partial_sill == pytest.approx(0.6, abs=0.12)
    assert found.reach == pytest.approx(12, rel=0.25)
    alone = [sd * rng.standard_normal(900) for _ in range(8)]
    found = fit_variogram(*covariogram([points] * 8, alone, [sd] * 8, 100.0), 100.0)
    assert found.partial_sill * found.reach**2 < 0.6 * 12**2 / 20


# Intervals ------------------------------------------------------------------------------------------------------------


def test_intervals_of_two_regions_and_their_sum():
    import pandas as pd

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
    import pandas as pd

    rng = np.random.default_rng(2)
    nothing, moved = np.zeros((20_000, 2)), rng.random((20_000, 1)) * np.array([10.0, -10.0])
    draws = interval.Draws(nothing, nothing, nothing, moved, Variogram(1, 0, 1), None)
    table = interval.intervals(pd.Series({"north": 5.0, "south": 95.0, "all": 100.0}), draws, 0.9)
    np.testing.assert_allclose(table["lower"], [5, 85.5, 100], rtol=0.01)
    np.testing.assert_allclose(table["upper"], [14.5, 95, 100], rtol=0.01)
    np.testing.assert_allclose(table["moved_se"], [10 / 12**0.5] * 2 + [0], rtol=0.02)


def test_ends_become_surer_with_the_root_of_the_draws():
    """The standard error of the 5 % quantile of a normal distribution is 2.11 / sqrt(n)."""
    rng = np.random.default_rng(3)
    found = interval.convergence(rng.standard_normal(10_000), 0.9, rng).set_index("draws")
    assert found.loc[10_000, "lower_se"] == pytest.approx(2.113 / 100, rel=0.25)
    assert found["upper_se"].is_monotonic_decreasing


def test_the_quick_run_has_intervals_around_its_totals(quick):
    tables = quick / "results/quick/main/tables"
    record = json.loads((tables / "storage_interval.json").read_text())
    storage = json.loads((tables / "storage.json").read_text())["regions"]
    assert set(record["regions"]) == set(storage)
    for name, row in record["regions"].items():
        assert row["km3"] == pytest.approx(storage[name]["ice_km3"], abs=1e-5)
        assert row["lower"] <= row["km3"] <= row["upper"]
        assert row["holds"] == (row["lower"] <= row["true_km3"] <= row["upper"])
    whole = record["regions"]["all"]
    assert whole["sites_se"] ** 2 + whole["field_se"] ** 2 == pytest.approx(whole["se"] ** 2, rel=0.3)
    assert 0.02 < whole["se"] / whole["km3"] < 0.3
