"""Accumulated local effects: of functions whose effects are known."""

import numpy as np
import pytest

from helpers import explain, space


def test_effects_of_an_additive_function_are_its_parts_in_spite_of_correlation():
    rng = np.random.default_rng(0)
    first = rng.random(2000)
    values = np.stack([first, first + 0.1 * rng.random(2000)], axis=1)

    def predict(part):
        chance = 0.3 * part[:, 0] ** 2 + 0.5 * part[:, 1]
        return np.stack([1 - chance, chance], axis=1)

    draws = space.block_draws(np.arange(2000) % 50, 100, rng)
    edges, effects = explain.local_effects(predict, values, 0, draws)
    assert effects.shape == (101, len(edges), 2)
    expected = 0.3 * edges**2
    assert np.ptp(effects[0, :, 1] - expected) < 1e-9
    assert effects[0, :, 0] == pytest.approx(-effects[0, :, 1])
    _, second = explain.local_effects(predict, values, 1, draws)
    assert second[0, -1, 1] - second[0, 0, 1] == pytest.approx(0.5 * np.ptp(values[:, 1]))


def test_a_predictor_that_does_nothing_or_has_one_value_has_no_effect():
    rng = np.random.default_rng(1)
    values = np.stack([rng.random(60), np.ones(60), rng.integers(0, 2, 60)], axis=1)
    draws = space.block_draws(np.arange(60) % 6, 20, rng)

    def predict(part):
        return np.stack([part[:, 2], 1 - part[:, 2]], axis=1)

    assert explain.local_effects(predict, values, 0, draws)[1] == pytest.approx(0)
    assert explain.local_effects(predict, values, 1, draws)[1] == pytest.approx(0)
    edges, effects = explain.local_effects(predict, values, 2, draws)
    assert edges.tolist() == [0, 1]
    assert np.diff(effects[0, :, 0]) == pytest.approx([1])
