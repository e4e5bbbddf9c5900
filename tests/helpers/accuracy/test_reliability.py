"""Reliability of probabilities, and residuals in space: by hand and by random draws."""

import numpy as np
import pandas as pd
import pytest

from helpers.accuracy import reliability, residuals
from helpers.core.scores import AccuracyError, wilson
from helpers.core.study import Study


def test_reliability_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.15, 0.85], [0.1, 0.9]])
    table = reliability.reliability([0, 1, 1, 1], probabilities, [0, 1])
    first = table[table["class"] == 0].set_index("bin")
    assert first.loc[9, ["n", "predicted", "observed"]].tolist() == pytest.approx([2, 0.95, 0.5])
    assert first.loc[1, ["n", "predicted", "observed"]].tolist() == pytest.approx([2, 0.125, 0])
    errors = reliability.calibration_error(
        [0, 1, 1, 1], probabilities, [0, 1], np.random.default_rng(0)
    )
    assert errors["ece"].tolist() == pytest.approx([(2 * 0.45 + 2 * 0.125) / 4] * 2)
    assert errors["observed"].tolist() == [0.25, 0.75]


def test_a_calibrated_model_has_no_more_error_than_a_perfect_one_and_an_overconfident_one_has():
    rng = np.random.default_rng(1)
    honest = rng.dirichlet([1, 1, 1], 2000)
    reference = (rng.random((2000, 1)) > honest.cumsum(axis=1)[:, :2]).sum(axis=1)
    result = reliability.calibration_error(reference, honest, range(3), np.random.default_rng(0))
    assert (result["ece"] < 1.3 * result["ece_perfect_95"]).all()
    bold = honest**4 / (honest**4).sum(axis=1, keepdims=True)
    result = reliability.calibration_error(reference, bold, range(3), np.random.default_rng(0))
    assert (result["ece"] > 3 * result["ece_perfect_95"]).all()


def test_no_samples_and_unknown_labels():
    empty = reliability.calibration_error([], np.zeros((0, 2)), [0, 1], np.random.default_rng(0))
    assert empty["ece"].isna().all()
    assert reliability.reliability([], np.zeros((0, 2)), [0, 1]).empty
    with pytest.raises(AccuracyError, match="none of the classes"):
        reliability.reliability([7], np.ones((1, 2)) / 2, [0, 1])


def test_wilsons_interval_is_that_of_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for successes, number in ((0, 5), (3, 7), (40, 40)):
        theirs = proportion_confint(successes, number, 0.1, "wilson")
        assert wilson(successes, number) == pytest.approx(theirs)


def test_morans_i_of_a_pattern_and_of_noise():
    rng = np.random.default_rng(2)
    easting, northing = np.meshgrid(np.arange(20.0), np.arange(20.0))
    points = np.stack([easting.ravel(), northing.ravel()], axis=1)
    trend = residuals.morans_i(easting.ravel(), points, rng)
    assert trend["morans_i"] > 0.9
    assert trend["p_value"] == pytest.approx(1 / 1000)
    p_values = [
        residuals.morans_i(rng.normal(size=400), points, rng, permutations=99)["p_value"]
        for _ in range(60)
    ]
    assert 0.35 < np.mean(p_values) < 0.65
    assert trend["expected"] == pytest.approx(-1 / 399)


def test_morans_i_is_that_of_its_matrix():
    rng = np.random.default_rng(3)
    points, values = rng.random((30, 2)), rng.normal(size=30)
    distances = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    weight = distances <= np.sort(distances, axis=1)[:, [3]]
    z = values - values.mean()
    expected = 30 / weight.sum() * (weight * np.outer(z, z)).sum() / (z**2).sum()
    assert residuals.morans_i(values, points, rng, neighbours=4)["morans_i"] == pytest.approx(
        expected
    )


def test_morans_i_of_too_few_or_equal_values():
    rng = np.random.default_rng(0)
    assert np.isnan(residuals.morans_i([1, 1, 1, 1], np.eye(4)[:, :2], rng)["morans_i"])
    assert np.isnan(residuals.morans_i([1, 0], [[0, 0], [1, 1]], rng)["p_value"])
    # Samples of one cell count once, at one place: their equal values are no evidence.
    twice = residuals.morans_i(
        [1, 1, 0, 0, 1, 1], np.repeat(np.eye(3)[:, :2], 2, axis=0), rng, list("aabbcc")
    )
    assert twice["n"] == 3


def test_errors_by_distance_by_hand():
    table = pd.DataFrame(
        {
            "estimate": "test",
            "in_domain": [True, True, False],
            "distance_km": [0.5, 0.7, 30.0],
            "error": [1, 0, 1],
        }
    )
    result = residuals.error_by_distance(Study(name="a"), table).set_index(["domain", "from_km"])
    assert result.loc[("whole", 0), ["n", "error"]].tolist() == [2, 0.5]
    assert result.loc[("whole", 20), ["n", "error"]].tolist() == [1, 1]
    assert ("potential_permafrost", 20) not in result.index
