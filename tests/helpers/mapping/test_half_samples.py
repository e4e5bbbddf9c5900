"""Halves of the blocks, and calibrations refitted for draws of the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.forest.calibration import calibrate, fit_calibration
from helpers.mapping import half_samples


def calibrated(rng, n=400, k=4):
    """Return calibrated log-probabilities, classes and weights."""
    probabilities = rng.dirichlet(np.full(k, 0.6), n)
    types = np.array([rng.choice(k, p=one) for one in probabilities])
    weight = rng.uniform(0.2, 2, n)
    calibration = fit_calibration(probabilities, types, weight)
    return np.log(calibrate(probabilities, calibration)), types, weight


def test_weights_of_all_samples_change_no_calibration():
    scores, types, weight = calibrated(np.random.default_rng(1))
    ((slope, *intercept),) = half_samples.refit_shares(
        scores, types, weight[np.newaxis] / weight.sum()
    )
    assert slope == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(intercept - np.mean(intercept), 0, atol=0.02)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_refitted_probabilities_have_the_weighted_shares_of_the_classes(seed):
    rng = np.random.default_rng(seed)
    scores, types, weight = calibrated(rng, n=120)
    share = weight * rng.multinomial(120, np.full(120, 1 / 120), 5)
    share[0, types == 3] = 0  # a class without a sample
    share /= share.sum(axis=1, keepdims=True)
    values = half_samples.refit_shares(scores, types, share)
    slope, intercept = values[:, 0], values[:, 1:]
    probabilities = np.exp(slope[:, None, None] * scores + intercept[:, None])
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    mean = np.einsum("dn,dnk->dk", share, probabilities)
    np.testing.assert_allclose(mean, np.einsum("dn,nk->dk", share, np.eye(4)[types]), atol=1e-5)


def test_halves_come_in_pairs():
    halves = half_samples.half_samples(7, 6, np.random.default_rng(0))
    np.testing.assert_array_equal(halves.sum(axis=0), 3)
    assert set(halves.sum(axis=1).tolist()) == {3, 4}
