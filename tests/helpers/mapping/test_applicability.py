"""Area of applicability: five points by hand, brute force, and what must not change it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from helpers.mapping import applicability
from helpers.mapping.files import MapError


def five_points():
    """Samples at 0, 1, 2, 3 and 9, in folds of their own."""
    return applicability.fit([[0.0], [1.0], [2.0], [3.0], [9.0]], ["depth"], [0.7], range(5))


def test_five_points_by_hand():
    """The mean of the ten distances is 4; nearest are 1, 1, 1, 1 and 6, so the whisker is at 1."""
    area = five_points()
    np.testing.assert_allclose(area.training, [0.25, 0.25, 0.25, 0.25, 1.5])
    assert area.threshold == pytest.approx(0.25)
    dissimilarity, density = area.measure(
        np.array([[0.0], [2.5], [4.5], [9.5], [-4.0]], np.float32)
    )
    np.testing.assert_allclose(dissimilarity, [0, 0.125, 0.375, 0.125, 1.0], atol=1e-12)
    # A sample just at the threshold is not within it: around 2.5 lie 2 and 3, around 9.5 only 9.
    np.testing.assert_array_equal(density[1:], [2, 0, 1, 0])


def test_only_other_folds_count_for_the_threshold():
    """With 0 and 1, 2 and 3 in a fold each, those of other folds are 2, 1, 1, 2 and 6 away."""
    area = applicability.fit([[0.0], [1.0], [2.0], [3.0], [9.0]], ["depth"], [1.0], [0, 0, 1, 1, 2])
    np.testing.assert_allclose(area.training, [0.5, 0.25, 0.25, 0.5, 1.5])
    assert area.threshold == pytest.approx(0.5 + 1.5 * 0.25)


def test_the_threshold_is_no_more_than_the_largest():
    area = applicability.fit([[0.0], [1.0], [3.0], [6.0]], ["depth"], [1.0], range(4))
    assert area.threshold == pytest.approx(area.training.max())


def test_two_predictors_are_weighted_after_scaling():
    """Weights 3 and 4 of scaled predictors: one standard deviation in both is 5, over the mean."""
    values = np.array([[0, 0], [10, 1], [20, 2.0]])
    area = applicability.fit(values, ["a", "b"], [3, 4], range(3))
    dissimilarity, _ = area.measure(np.array([[30.0, 3.0]]))
    assert dissimilarity[0] == pytest.approx(5 / ((5 + 5 + 10) / 3))


case = st.tuples(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(1, 6))


def drawn(seed, samples, size):
    rng = np.random.default_rng(seed)
    values = rng.normal(
        rng.normal(0, 100, size), rng.uniform(0.1, 50, size), (samples, size)
    ).astype(np.float32)
    cells = (values[rng.integers(0, samples, 80)] + rng.normal(0, 10, (80, size))).astype(
        np.float32
    )
    return (
        values,
        cells,
        rng.uniform(0.1, 1, size),
        rng.integers(0, 3, samples),
        [f"p{k}" for k in range(size)],
    )


@given(case)
@settings(max_examples=40)
def test_it_is_brute_force_and_samples_have_none(given_case):
    values, cells, weights, fold, names = drawn(*given_case)
    fold[:2] = 0, 1
    area = applicability.fit(values, names, weights, fold)
    apart = cdist((cells - area.centre) * area.factor, area.points)
    dissimilarity, density = area.measure(cells)
    np.testing.assert_allclose(dissimilarity, apart.min(axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(density, (apart < area.threshold).sum(axis=1))
    # Some sample is nearer than the threshold just where the index is.
    np.testing.assert_array_equal(density > 0, dissimilarity < area.threshold)
    np.testing.assert_allclose(area.measure(values)[0], 0, atol=1e-9)
    every = cdist(area.points, area.points)
    assert every.sum() / (len(values) * (len(values) - 1)) == pytest.approx(1)


@given(case)
@settings(max_examples=25)
def test_units_order_and_size_of_weights_change_nothing(given_case):
    values, cells, weights, fold, names = drawn(*given_case)
    fold[:2] = 0, 1
    expected = applicability.fit(values, names, weights, fold)
    turn = np.random.default_rng(1).permutation(values.shape[1])
    other = applicability.fit(
        values[:, turn].astype(float) * 1000 + 7, [names[k] for k in turn], weights[turn] * 3, fold
    )
    np.testing.assert_allclose(other.training, expected.training, rtol=1e-6)
    assert other.threshold == pytest.approx(expected.threshold, rel=1e-6)
    area = other.measure(cells[:, turn].astype(float) * 1000 + 7)[0]
    np.testing.assert_allclose(area, expected.measure(cells)[0], rtol=1e-6, atol=1e-9)


def test_a_predictor_without_weight_is_left_out():
    rng = np.random.default_rng(2)
    values, fold = rng.normal(size=(30, 3)), np.arange(30) % 3
    area = applicability.fit(values, ["a", "b", "c"], [0.5, 0, 0.25], fold)
    assert area.predictors == ("a", "c")
    alone = applicability.fit(values[:, [0, 2]], ["a", "c"], [0.5, 0.25], fold)
    np.testing.assert_array_equal(
        area.measure(values[:, [0, 2]])[0], alone.measure(values[:, [0, 2]])[0]
    )
    with pytest.raises(MapError, match="2 predictors"):
        area.measure(values)


def test_it_is_the_same_on_any_number_of_threads_and_in_any_pieces():
    rng = np.random.default_rng(3)
    values, cells = rng.normal(size=(200, 8)), rng.normal(size=(5000, 8)).astype(np.float32)
    area = applicability.fit(values, list("abcdefgh"), np.ones(8), np.arange(200) % 5)
    whole = area.measure(cells)
    with ThreadPoolExecutor(3) as pool:
        parts = list(
            pool.map(lambda start: area.measure(cells[start : start + 333]), range(0, 5000, 333))
        )
    for one, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(pieces))


def test_weights_share_the_aspect_and_are_never_negative():
    importance = {"slope": 0.5, "northness": 0.25, "eastness": -1.0, "sand": -0.1}
    weights = applicability.importance_weights(
        importance, ["eastness", "sand", "northness", "slope"]
    )
    np.testing.assert_allclose(weights, [0.125, 0, 0.125, 0.5])
    np.testing.assert_array_equal(
        applicability.importance_weights({"a": -1.0, "b": 0.0}, ["a", "b"]), [1, 1]
    )
    with pytest.raises(KeyError, match="twi"):
        applicability.importance_weights(importance, ["slope", "twi"])


@pytest.mark.parametrize(
    ("values", "weights", "fold", "text"),
    [
        pytest.param([[0.0], [np.nan]], [1], [0, 1], "not finite", id="nan"),
        pytest.param([[0.0], [1.0]], [1], [0, 0], "one fold", id="fold"),
        pytest.param([[1.0], [1.0]], [1], [0, 1], "do not differ", id="alike"),
        pytest.param([[1.0], [2.0]], [-1], [0, 1], "not finite", id="negative"),
    ],
)
def test_bad_samples_are_refused(values, weights, fold, text):
    with pytest.raises(MapError, match=text):
        applicability.fit(values, ["a"], weights, fold)


def test_two_categories_are_as_far_apart_as_two_numbers_are_on_average():
    """Squared and on average over pairs of samples: 2 for a standardised number, and for codes."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 400)
    values = np.column_stack([rng.normal(size=400), *(codes == code for code in range(3))])
    names = ["depth", "soil=1", "soil=2", "soil=3"]
    area = applicability.fit(values, names, np.ones(4), np.arange(400))
    squares = (area.points[:, np.newaxis] - area.points) ** 2
    assert squares[..., 1:].sum(axis=-1).mean() == pytest.approx(squares[..., 0].mean(), rel=1e-9)


def test_a_category_that_no_sample_has_is_outside():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 60)
    values = np.column_stack([rng.normal(size=60), codes == 0, codes == 1, np.zeros(60)])
    names = ["depth", "soil=1", "soil=2", "soil=9"]
    area = applicability.fit(values, names, np.ones(4), np.arange(60))
    cells = values[:2].copy()
    cells[1, 1:] = [0, 0, 1]
    dissimilarity, density = area.measure(cells)
    assert dissimilarity[0] == pytest.approx(0)
    assert dissimilarity[1] > area.threshold
    assert density[1] == 0


def test_the_columns_of_a_category_have_its_weight():
    names = ["slope", "soil=1", "soil=2", "aspect_sin", "aspect_cos"]
    importance = {"slope": 1.0, "soil": 0.5, "aspect_sin": 0.4, "aspect_cos": 0.0}
    weights = applicability.importance_weights(importance, names)
    assert weights.tolist() == pytest.approx([1, 0.5, 0.5, 0.2, 0.2])


def test_a_cell_without_a_predictor_has_no_dissimilarity():
    dissimilarity, density = five_points().measure(np.array([[np.nan], [1.0]], np.float32))
    assert np.isnan(dissimilarity[0])
    assert dissimilarity[1] == 0
    assert density.tolist()[0] == 0
