"""Values in whole steps: known numbers, errors of half a step, blocks that come back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.explorer.bands import BLOCK_ROWS, Band, ExplorerError, pack, quantise, unpack


def test_numbers_are_steps_plus_one_and_nothing_is_zero():
    numbers = quantise([[0, 0.005, 1.0, np.nan]], 0.005)
    assert numbers.dtype == np.uint8
    assert numbers.tolist() == [[1, 2, 201, 0]]


def test_what_does_not_fit_into_8_bits_has_16():
    assert quantise([1.27], 0.005).tolist() == [255]
    wide = quantise([1.275], 0.005)
    assert (wide.dtype, wide.tolist()) == (np.uint16, [256])


@pytest.mark.parametrize("value", [-0.1, 400.0], ids=["negative", "too large"])
def test_values_that_do_not_fit_are_refused(value):
    with pytest.raises(ExplorerError, match="do not fit"):
        quantise([value, 0.5], 0.005)


@given(
    values=arrays(np.float32, (5, 3), elements=st.floats(0, 5, width=32) | st.just(np.nan)),
    step=st.sampled_from([0.005, 1e-4]),
)
def test_values_come_back_within_half_a_step(values, step):
    described, text = pack(Band(values, step))
    np.testing.assert_allclose(unpack(described, text, 3), values, rtol=0, atol=step / 2 + 1e-9)


def test_each_block_opens_alone():
    values = np.arange(2 * BLOCK_ROWS + 3).reshape(-1, 1) % 7.0
    described, text = pack(Band(values, 1))
    blocks = text.split(",")
    assert len(blocks) == 3
    assert unpack(described, blocks[2], 1).ravel().tolist() == values[-3:].ravel().tolist()
