"""Accuracy: the known answers of the field first, then properties, then degenerate input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.accuracy import by_area, report
from helpers.core import scores
from helpers.core.scores import AccuracyError
from helpers.folds import blocks

# Olofsson et al. (2014): rows are mapped, columns reference classes.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
SHARES = np.array([0.02, 0.015, 0.32, 0.645])
AREA = SHARES[:, np.newaxis] * OLOFSSON / OLOFSSON.sum(axis=1, keepdims=True)

matrices = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 40), min_size=k, max_size=k), min_size=k, max_size=k)
).map(np.array)  # fmt: skip


def labels_of(matrix):
    predicted, reference = np.indices(matrix.shape)
    return np.repeat(reference.ravel(), matrix.ravel()), np.repeat(
        predicted.ravel(), matrix.ravel()
    )


def test_known_answers_of_olofsson_and_pontius():
    assert scores.kappa(OLOFSSON) == pytest.approx(0.869964, abs=5e-7)
    assert scores.kappa_standard_error(OLOFSSON) == pytest.approx(0.017028, abs=5e-7)
    assert scores.overall_accuracy(AREA) == pytest.approx(0.9465, abs=5e-5)
    assert scores.precision(AREA)[0] == pytest.approx(0.88)
    assert scores.recall(AREA)[0] == pytest.approx(0.7487, abs=5e-5)
    assert scores.quantity_disagreement(AREA) == pytest.approx(0.004493, abs=5e-7)
    assert scores.allocation_disagreement(AREA) == pytest.approx(0.048995, abs=5e-7)


def test_kappa_and_its_error_equal_those_of_statsmodels():
    from statsmodels.stats.inter_rater import cohens_kappa

    rng = np.random.default_rng(1)
    for _ in range(200):
        size = rng.integers(2, 7)
        matrix = rng.integers(0, 30, (size, size)) + np.eye(size, dtype=int) * rng.integers(0, 50)
        theirs = cohens_kappa(matrix)
        assert scores.kappa(matrix) == pytest.approx(theirs.kappa, abs=1e-12)
        assert scores.kappa_standard_error(matrix) == pytest.approx(theirs.std_kappa, abs=1e-9)


def test_area_adjusted_accuracy_is_that_of_olofsson():
    result = by_area.area_adjusted(OLOFSSON, SHARES, 1e7, 0.95)
    assert result["indicative"]
    assert result["left_out_share"] == 0
    assert result["overall_accuracy"] == pytest.approx(0.9465, abs=5e-5)
    assert 1.96 * result["overall_accuracy_se"] == pytest.approx(0.0185, abs=5e-5)
    assert (result["precision"][0], 1.96 * result["precision_se"][0]) == pytest.approx(
        (0.88, 0.074), abs=5e-4
    )
    assert (result["recall"][0], 1.96 * result["recall_se"][0]) == pytest.approx(
        (0.7487, 0.2133), abs=5e-5
    )
    assert (result["area_km2"][0], 1.96 * result["area_km2_se"][0]) == pytest.approx(
        (235_086, 68_418), abs=1
    )
    assert result["quantity_disagreement"] == pytest.approx(0.004493, abs=5e-7)
    assert result["allocation_disagreement"] == pytest.approx(0.048995, abs=5e-7)


def test_area_adjusted_estimates_are_unbiased_where_plain_ones_are_not():
    # A map of 60 000 cells; 40 samples of each mapped class, so rare ones are over-represented.
    rng = np.random.default_rng(5)
    mapped = rng.choice(3, 60_000, p=[0.8, 0.15, 0.05])
    true = np.where(
        rng.random(mapped.size) < [0.95, 0.7, 0.5][0], mapped, rng.integers(0, 3, mapped.size)
    )
    true = np.where((mapped == 2) & (rng.random(mapped.size) < 0.4), 0, true)
    whole_map = scores.confusion_matrix(true, mapped, range(3))
    strata = [true[mapped == code] for code in range(3)]
    result, plain = [], []
    for _ in range(1000):
        matrix = np.array([np.bincount(rng.choice(part, 40), minlength=3) for part in strata])
        one = by_area.area_adjusted(matrix, np.bincount(mapped), 1.0, probability_sample=True)
        result.append(
            [
                one["overall_accuracy"],
                one["overall_accuracy_se"],
                *one["area_share"],
                *one["area_share_se"],
            ]
        )
        plain.append(scores.overall_accuracy(matrix))
    result, truth = (
        np.array(result),
        [scores.overall_accuracy(whole_map), *whole_map.sum(axis=0) / whole_map.sum()],
    )
    estimates, errors = result[:, [0, 2, 3, 4]], result[:, [1, 5, 6, 7]]
    assert not one["indicative"]
    assert (
        np.abs(estimates.mean(axis=0) - truth) < 4 * estimates.std(axis=0) / np.sqrt(1000)
    ).all()
    assert abs(np.mean(plain) - truth[0]) > 0.05
    # The mean estimated variance is the variance of the estimates.
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx(estimates.std(axis=0), rel=0.08)


def test_area_adjusted_without_samples_of_a_mapped_class_refers_to_the_rest():
    result = by_area.area_adjusted([[8, 2, 0], [0, 1, 0], [0, 0, 0]], [50, 25, 25], 100)
    assert result["left_out_share"] == pytest.approx(0.25)
    assert result["overall_accuracy"] == pytest.approx((2 * 0.8 + 1) / 3)
    assert result["overall_accuracy_se"] == pytest.approx(np.sqrt((4 * 0.16 / 9 + 0.25) / 9))
    assert sum(result["area_km2"]) == pytest.approx(75)
    assert math.isnan(result["precision"][2])
    empty = by_area.area_adjusted(np.zeros((2, 2), int), [0, 0], 0)
    assert math.isnan(empty["overall_accuracy"])
    assert math.isnan(empty["area_km2_se"][0])


def test_quadratic_kappa_balanced_accuracy_and_means_are_scikit_learns():
    from sklearn import metrics

    rng = np.random.default_rng(3)
    for _ in range(50):
        reference = rng.integers(0, 6, 40)
        predicted = np.where(rng.random(40) < 0.5, reference, rng.integers(0, 4, 40))
        result = scores.matrix_scores(scores.confusion_matrix(reference, predicted, range(6)))
        theirs = metrics.cohen_kappa_score(reference, predicted, weights="quadratic")
        assert result["quadratic_kappa"] == pytest.approx(theirs)
        seen = np.isin(predicted, reference)  # scikit-learn warns of others
        part = scores.confusion_matrix(reference[seen], predicted[seen], range(6))
        theirs = metrics.balanced_accuracy_score(reference[seen], predicted[seen])
        if np.isin(predicted[seen], reference[seen]).all():
            assert scores.balanced_accuracy(part) == pytest.approx(theirs)
        theirs = metrics.precision_recall_fscore_support(
            reference, predicted, average="weighted", zero_division=0
        )
        assert [result[f"weighted_{name}"] for name in scores.BY_CLASS] == pytest.approx(theirs[:3])


def test_brier_score_and_log_loss_are_scikit_learns():
    from sklearn import metrics

    rng = np.random.default_rng(6)
    probabilities, reference = rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)
    theirs = metrics.log_loss(
        reference, np.maximum(probabilities, scores.PROBABILITY_FLOOR), labels=range(4)
    )
    assert scores.log_loss(reference, probabilities, range(4)) == pytest.approx(theirs, abs=1e-3)
    theirs = metrics.brier_score_loss(
        reference, probabilities, labels=range(4), scale_by_half=False
    )
    assert scores.brier_score(reference, probabilities, range(4)) == pytest.approx(theirs)
    assert math.isnan(scores.brier_score([], np.zeros((0, 4)), range(4)))
    with pytest.raises(AccuracyError, match=r"none of the classes.*9"):
        scores.brier_score([0, 9], probabilities[:2], range(4))


def test_scores_of_a_stack_are_those_of_each():
    stack = np.random.default_rng(0).integers(0, 4, (200, 3, 3)) * np.random.default_rng(
        1
    ).integers(0, 2, (200, 3, 1))
    stack[:2] = [np.diag([5, 0, 0]), np.zeros((3, 3))]
    whole, each = scores.matrix_scores(stack), [scores.matrix_scores(matrix) for matrix in stack]
    for name, values in whole.items():
        np.testing.assert_allclose(values, [one[name] for one in each], err_msg=name)


def test_a_bootstrap_of_blocks_draws_the_samples_of_blocks():
    rng = np.random.default_rng(7)
    reference, predicted = rng.integers(0, 3, (2, 60))
    block = rng.integers(0, 7, 60)
    draws = blocks.sample_blocks(block, 20, rng)
    drawn = scores.bootstrap_matrices(reference, predicted, 3, draws)
    for one, counts in zip(drawn, draws[1], strict=True):
        times = counts[draws[0]]
        assert one == pytest.approx(scores.confusion_matrix(reference, predicted, range(3), times))
    assert drawn[0] == pytest.approx(scores.confusion_matrix(reference, predicted, range(3)))


def test_intervals_hold_the_truth_as_often_as_they_say():
    # Ten samples of a block are right or wrong together: independent ones would be too sure.
    rng, held, large = np.random.default_rng(8), 0, 0
    for _ in range(300):
        right = np.repeat(rng.random(60) < 0.7, 10)
        reference = rng.integers(0, 2, 600)
        draws = blocks.sample_blocks(np.repeat(np.arange(60), 10), 200, rng)
        result = report.accuracy_report(
            reference, np.where(right, reference, 1 - reference), [0, 1], draws, 0.9
        )["intervals"]
        held += result["overall_accuracy"][0] <= 0.7 <= result["overall_accuracy"][1]
        large += result["kappa_large_sample"][0] <= 0.4 <= result["kappa_large_sample"][1]
    assert (result["blocks"], result["draws"], result["probability"]) == (60, 200, 0.9)
    assert 0.85 <= held / 300 <= 0.95
    assert large / 300 < 0.6


def test_one_block_or_no_sample_has_no_interval_but_kappas():
    one = report.accuracy_report(
        [0, 1, 1], [0, 1, 0], [0, 1], blocks.sample_blocks([4, 4, 4], 9, np.random.default_rng(0))
    )
    assert set(one["intervals"]) == {"probability", "kappa_large_sample"}
    assert report.accuracy_report([], [], [0, 1])["intervals"]["kappa_large_sample"] == [None, None]


def test_scores_equal_those_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(2)
    for _ in range(50):
        reference = rng.integers(0, 6, 40)
        predicted = np.where(rng.random(40) < 0.5, reference, rng.integers(0, 4, 40))
        result = report.accuracy_report(reference, predicted, range(6))
        assert np.transpose(result["confusion_matrix"]).tolist() == (
            metrics.confusion_matrix(reference, predicted, labels=range(6)).tolist()
        )
        theirs = metrics.precision_recall_fscore_support(
            reference, predicted, average="macro", zero_division=0
        )
        ours = [result["macro_precision"], result["macro_recall"], result["macro_f1"]]
        assert ours == pytest.approx(theirs[:3])
        assert result["kappa"] == pytest.approx(metrics.cohen_kappa_score(reference, predicted))
    probabilities = rng.dirichlet(np.ones(6), 40)
    probabilities = (probabilities + 0.01) / 1.06
    theirs = metrics.log_loss(reference, probabilities, labels=range(6))
    assert scores.log_loss(reference, probabilities, range(6)) == pytest.approx(theirs)


def test_a_perfect_map_has_kappa_1_and_a_random_one_about_0():
    reference = np.random.default_rng(3).integers(0, 6, 5000)
    perfect = report.accuracy_report(reference, reference, range(6))
    assert (perfect["kappa"], perfect["overall_accuracy"], perfect["macro_f1"]) == (1, 1, 1)
    assert perfect["kappa_se"] == pytest.approx(0, abs=1e-6)
    random = report.accuracy_report(
        reference, np.random.default_rng(4).permutation(reference), range(6)
    )
    assert abs(random["kappa"]) < 3 * random["kappa_se"] < 0.05


def test_mapped_and_reference_are_not_mixed_up():
    # One of two wet samples is mapped as dry: dry is mapped too often, wet is missed.
    result = report.accuracy_report(
        ["wet", "wet", "dry", "dry"], ["wet", "dry", "dry", "dry"], ["dry", "wet"]
    )
    assert result["confusion_matrix"] == [[2, 1], [0, 1]]
    assert result["precision"] == pytest.approx([2 / 3, 1])
    assert result["recall"] == [1, 0.5]
    assert result["support"] == [2, 2]


@given(matrices)
def test_properties_of_any_confusion_matrix(matrix):
    reference, predicted = labels_of(matrix)
    result = report.accuracy_report(reference, predicted, range(len(matrix)))
    assert result["confusion_matrix"] == matrix.tolist()
    json.dumps(result, allow_nan=False)
    if not matrix.sum():
        assert result["overall_accuracy"] is result["kappa"] is result["macro_f1"] is None
        return
    disagreement = result["quantity_disagreement"] + result["allocation_disagreement"]
    assert disagreement == pytest.approx(1 - result["overall_accuracy"])
    assert result["kappa"] is None or -1 <= result["kappa"] <= result["overall_accuracy"] + 1e-12
    turned = report.accuracy_report(predicted, reference, range(len(matrix)))
    assert turned["precision"] == result["recall"]
    assert turned["kappa"] == pytest.approx(result["kappa"])
    order = np.arange(len(matrix))[::-1]
    assert scores.kappa(matrix[np.ix_(order, order)]) == pytest.approx(
        scores.kappa(matrix), nan_ok=True
    )


def test_a_class_that_is_never_mapped_or_never_occurs():
    result = report.accuracy_report([0, 0, 1, 1], [0, 0, 0, 2], range(4))
    assert result["precision"] == [pytest.approx(2 / 3), None, 0, None]
    assert result["recall"] == [1, 0, None, None]
    assert result["f1"] == [pytest.approx(0.8), 0, 0, None]
    assert result["macro_recall"] == pytest.approx(1 / 3)
    assert result["macro_f1"] == pytest.approx(0.8 / 3)


def test_one_class_only():
    result = report.accuracy_report([3, 3], [3, 3], [3])
    assert (result["overall_accuracy"], result["kappa"], result["kappa_se"]) == (1, None, None)


@pytest.mark.parametrize(
    ("reference", "predicted", "expected"),
    [
        pytest.param([0, 1], [0, 7], "none of the classes.*7", id="unknown"),
        pytest.param([0, math.nan], [0, 1], "nan", id="no label"),
        pytest.param([0, 1], [0], "2 reference labels and 1", id="lengths"),
    ],
)
def test_bad_labels_are_refused(reference, predicted, expected):
    with pytest.raises(AccuracyError, match=expected):
        report.accuracy_report(reference, predicted, [0, 1])


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, -1], [0, 1]], [[1, math.nan], [0, 1]], [1, 2]])
def test_what_is_no_confusion_matrix_is_refused(matrix):
    with pytest.raises(AccuracyError, match="no confusion matrix"):
        scores.kappa(matrix)


def test_log_loss_of_an_impossible_class_is_finite_and_its_shape_is_checked():
    assert scores.log_loss([1], [[1.0, 0.0]], [0, 1]) == pytest.approx(
        -math.log(scores.PROBABILITY_FLOOR)
    )
    with pytest.raises(AccuracyError, match="1 samples"):
        scores.log_loss([1], [[1.0]], [0, 1])


def test_tables_of_reports():
    result = report.accuracy_report([0, 0, 1, 1], [0, 0, 0, 1], range(3))
    losses = {"log_loss": 0.5, "log_loss_calibrated": None}
    table = report.summary_table({"2-3m": {"whole": result | losses}})
    assert table.loc[0, ["layer", "domain", "n", "overall_accuracy"]].tolist() == [
        "2-3m",
        "whole",
        4,
        0.75,
    ]
    classes = report.class_table(result)
    assert classes["support"].tolist() == [2, 2, 0]
    assert classes[["mapped_as_0", "mapped_as_1", "mapped_as_2"]].to_numpy().tolist() == [
        [2, 0, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


def test_heatmap_shows_counts_row_shares_and_names():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    names = ["dry", "wet", "ice"]
    report.plot_confusion_matrix(
        axes, report.accuracy_report([0, 0, 0, 1], [0, 0, 1, 1], range(3)), names
    )
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["2\n100 %", "0", "0", "1\n50 %", "1\n50 %", "0", "0", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "dry (2)",
        "wet (2)",
        "ice (0)",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    plt.close(figure)


def test_a_weight_counts_as_so_many_samples():
    rng = np.random.default_rng(0)
    reference, mapped, weight = rng.integers(0, 3, (3, 50))
    repeated = scores.confusion_matrix(
        np.repeat(reference, weight), np.repeat(mapped, weight), range(3)
    )
    weighted = scores.confusion_matrix(reference, mapped, range(3), weight)
    assert np.array_equal(weighted, repeated)
    assert scores.kappa(weighted / 7) == pytest.approx(scores.kappa(repeated))


def test_the_interval_is_wider_than_percentiles_by_students_t():
    from scipy.stats import norm, t

    values, block = np.linspace(0, 1, 100_001), np.repeat(np.arange(9), 4)
    tail = norm.cdf(-np.sqrt(9 / 8) * t.ppf(0.95, 8))
    np.testing.assert_allclose(scores.interval(values, 0.9, block), [tail, 1 - tail], atol=1e-4)
    np.testing.assert_allclose(
        scores.interval(values, 0.9, np.arange(10_000)), [0.05, 0.95], atol=1e-4
    )
    # One block of half of the samples and others of one are as good as hardly four.
    unequal = np.concatenate([np.zeros(20, int), np.arange(1, 21)])
    lower, _ = scores.interval(values, 0.9, unequal)
    assert lower < scores.interval(values, 0.9, np.arange(4))[0] + 1e-9
    assert np.isnan(scores.interval([np.nan] * 9, 0.9, block)).all()


def test_intervals_from_few_blocks_hold_the_truth_as_often_as_they_say():
    """Plain percentiles of means of eight hold the true mean in 82 % of the cases, not 90 %."""
    rng, held, plain = np.random.default_rng(4), 0, 0
    for _ in range(600):
        sample = rng.normal(size=8)
        _, counts = blocks.sample_blocks(np.arange(8), 500, rng)
        means = counts[1:] @ sample / 8
        lower, upper = scores.interval(means, 0.9, np.arange(8))
        held += lower <= 0 <= upper
        low, high = np.percentile(means, [5, 95])
        plain += low <= 0 <= high
    assert 0.87 < held / 600 < 0.94
    assert plain / 600 < 0.86
