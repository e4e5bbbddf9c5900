"""Prediction sets: limits by hand, and coverage of exchangeable data within its binomial bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from helpers.mapping import conformal


def test_nine_samples_let_the_last_one_in_and_eight_give_no_limit():
    """The rank is ceil(10 * 0.9) = 9 of 9; with 8 samples it is 9, too, and there is no ninth."""
    probabilities = np.linspace(0.9, 0.1, 9)
    both = np.stack([1 - probabilities, probabilities], axis=1)
    np.testing.assert_allclose(conformal.set_limits(both, np.ones(9, int), 0.9), [np.nan, 0.1])
    np.testing.assert_array_equal(
        conformal.set_limits(both[:8], np.ones(8, int), 0.9), [np.nan, np.nan]
    )


def test_nineteen_samples_leave_the_worst_one_out():
    """The rank is ceil(20 * 0.9) = 18."""
    probabilities = np.linspace(0.95, 0.05, 19)
    both = np.stack([1 - probabilities, probabilities], axis=1)
    assert conformal.set_limits(both, np.ones(19, int), 0.9)[1] == pytest.approx(0.10)


def test_the_most_probable_class_is_always_in_and_one_without_limit_wherever_it_is_possible():
    probabilities = [[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]]
    members = conformal.prediction_sets(probabilities, [0.6, 0.3, np.nan])
    np.testing.assert_array_equal(members, [[1, 1, 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(conformal.covered(members, [1, 0, 2]), [True, False, True])


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_exchangeable_data_are_covered_class_by_class(coverage):
    """The number covered of n new samples of a class is beta-binomial: the limit is a rank."""
    rng = np.random.default_rng(5)
    types = rng.choice(4, 12_000, p=[0.6, 0.25, 0.1, 0.05])
    signal = rng.normal(size=(len(types), 4)) + 1.2 * np.eye(4)[types]
    probabilities = np.exp(signal) / np.exp(signal).sum(axis=1, keepdims=True)
    calibration, new = slice(0, 2000), slice(2000, None)
    limits = conformal.set_limits(probabilities[calibration], types[calibration], coverage)
    held = probabilities[new] >= limits
    for code in range(4):
        own, count = types[new] == code, int((types[calibration] == code).sum())
        rank = int(np.ceil((count + 1) * coverage - 1e-9))
        low, high = betabinom.ppf([0.001, 0.999], own.sum(), rank, count + 1 - rank)
        assert low <= conformal.covered(held, types[new])[own].sum() <= high


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.95))
@settings(max_examples=30)
def test_more_coverage_never_makes_a_set_smaller(seed, coverage):
    rng = np.random.default_rng(seed)
    probabilities, types = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    small, large = (
        conformal.set_limits(probabilities, types, share)
        for share in (coverage, min(coverage + 0.04, 1))
    )
    assert (np.nan_to_num(large) <= np.nan_to_num(small)).all()
    members = conformal.prediction_sets(probabilities, small)
    assert members.any(axis=1).all()
    # Of the calibration samples themselves at least the stated share is covered.
    held = conformal.covered(members, types)
    assert all(held[types == code].mean() >= coverage - 1e-9 for code in range(3))


def test_held_out_sets_do_not_see_their_own_fold():
    """A fold's limit comes from the other folds; where their samples are too few, there is none."""
    probabilities = np.tile([0.4, 0.6], (20, 1))
    probabilities[10:] = [0.7, 0.3]
    types, fold = np.ones(20, int), np.repeat([0, 1], 10)
    members, judged = conformal.held_out_sets(probabilities, types, fold, 0.9)
    assert judged.all()
    assert members[:10, 1].all()
    assert not members[10:, 1].any()
    _, judged = conformal.held_out_sets(probabilities[5:], types[5:], fold[5:], 0.9)
    np.testing.assert_array_equal(judged, np.repeat([True, False], [5, 10]))
