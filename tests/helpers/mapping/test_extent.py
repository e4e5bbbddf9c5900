"""Ice confined to permafrost: by hand, and totals and areas that stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.mapping import extent


def test_ice_lies_within_the_extent_of_permafrost():
    content, probability = (
        np.array([0.3, 0.2, 0.1, 0.1], np.float32),
        np.array([0.9, 0.8, 0.2, 0.1]),
    )
    np.testing.assert_allclose(
        extent.confine_to_permafrost(content, probability), [0.42, 0.28, 0, 0], rtol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.floats(0.01, 5))
@settings(deadline=None, max_examples=60)
def test_the_extent_keeps_the_total_and_has_the_area_of_the_probabilities(seed, cells, shape):
    rng = np.random.default_rng(seed)
    probability = rng.beta(shape, 1, cells)
    content = (probability * rng.uniform(0.1, 0.5, cells)).astype(np.float32)
    moved = extent.confine_to_permafrost(content, probability)
    assert moved.sum() == pytest.approx(content.sum(), rel=1e-5)
    assert (moved >= 0).all()
    if probability.sum() >= 1:
        # Cells of one step of the scale are in or out together.
        ties = np.unique(np.rint(probability / extent.PROBABILITY_SCALE), return_counts=True)[
            1
        ].max()
        assert abs((moved > 0).sum() - probability.sum()) <= 0.5 + ties


def test_certain_permafrost_stays_where_it_is():
    content, probability = np.array([0.3, 0.0, 0.1], np.float32), np.array([1.0, 0.0, 1.0])
    np.testing.assert_array_equal(extent.confine_to_permafrost(content, probability), content)
