"""Variances of sums over regions: by hand, by drawn fields, and a variogram estimated again."""

import numpy as np
import pytest

from helpers.mapping.variogram import (
    Variogram,
    block_covariance,
    covariogram,
    field_covariance,
    fit_variogram,
)

LATTICE = (8, 9)


def totals_covariance(variogram, between, side=1.0):
    """Return the covariance of two totals: of upper and lower rows of a lattice, two layers."""
    loads = np.zeros((2, 2, *LATTICE))
    loads[0, :, :3], loads[1, :, 3:] = 1.0, 2.0
    lags = block_covariance(variogram, LATTICE, side)
    return field_covariance(loads, between, lags)


def test_independent_errors_have_the_sum_of_the_variances():
    """A reach far below the side: a square's mean keeps 2 pi reach^2 / side^2 of the variance."""
    lags = block_covariance(Variogram(0, 1, 0.02), (3, 3), 1.0, parts=150)
    assert lags[2, 2] == pytest.approx(2 * np.pi * 0.02**2, rel=0.1)
    assert lags[0, 0] < 1e-12
    loads = np.zeros((1, 1, 3, 3))
    loads[0, 0, 0, 1], loads[0, 0, 2, 2] = 2.0, 3.0
    result = field_covariance(loads, np.eye(1), lags)
    np.testing.assert_allclose(result, (4 + 9) * lags[2, 2], rtol=1e-6)


def test_fully_correlated_errors_add_up():
    result = totals_covariance(Variogram(0.5, 0.5, 1e9), np.ones((2, 2)))
    sums = np.array([2 * 3 * 9 * 1.0, 2 * 5 * 9 * 2.0])  # layers, rows, columns, load
    np.testing.assert_allclose(result, 0.5 * np.outer(sums, sums), rtol=1e-6)


def test_independent_layers_add_their_variances():
    one, both = (
        totals_covariance(Variogram(0, 1, 2.0), between) for between in (np.eye(2), np.ones((2, 2)))
    )
    np.testing.assert_allclose(both, 2 * one, rtol=1e-9)


def test_a_nugget_averages_out():
    np.testing.assert_allclose(totals_covariance(Variogram(1, 0, 2.0), np.eye(2)), 0, atol=1e-12)


def test_totals_of_drawn_fields_have_the_covariance():
    """Fields drawn on a fine grid by the covariance between its points, summed over squares."""
    side, parts, variogram = 3.0, 6, Variogram(0.3, 0.7, 4.0)
    fine = (np.indices((4 * parts, 5 * parts)).reshape(2, -1).T + 0.5) * side / parts
    distance = np.hypot(*(fine[:, np.newaxis] - fine).transpose(2, 0, 1))
    covariance = 0.7 * np.exp(-distance / 4) + 1e-9 * np.eye(len(fine))
    fields = np.linalg.cholesky(covariance) @ np.random.default_rng(5).standard_normal(
        (len(fine), 4000)
    )
    square = (fine // side).astype(int) @ [5, 1]
    means = np.stack([fields[square == number].mean(axis=0) for number in range(20)])
    load = np.random.default_rng(6).uniform(0, 1, 20)
    lags = block_covariance(variogram, (4, 5), side, parts)
    result = field_covariance(load.reshape(1, 1, 4, 5), np.eye(1), lags)
    assert result[0, 0] == pytest.approx((load @ means).var(), rel=0.1)


def test_a_variogram_is_estimated_from_its_own_fields():
    rng = np.random.default_rng(8)
    points = rng.uniform(0, 300, (900, 2))
    distance = np.hypot(*(points[:, np.newaxis] - points).transpose(2, 0, 1))
    root = np.linalg.cholesky(0.6 * np.exp(-distance / 12) + 0.4 * np.eye(900))
    sd = rng.uniform(0.5, 2, 900)
    layers = [sd * (root @ rng.standard_normal(900)) for _ in range(8)]
    result = fit_variogram(*covariogram([points] * 8, layers, [sd] * 8, 100.0), 100.0)
    assert result.partial_sill == pytest.approx(0.6, abs=0.12)
    assert result.reach == pytest.approx(12, rel=0.25)
    alone = [sd * rng.standard_normal(900) for _ in range(8)]
    result = fit_variogram(*covariogram([points] * 8, alone, [sd] * 8, 100.0), 100.0)
    assert result.partial_sill * result.reach**2 < 0.6 * 12**2 / 20
