"""Accuracy: the known answers of the field first, then properties, then degenerate input."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import accuracy
from helpers.accuracy import AccuracyError

# Olofsson et al. (2014): rows are mapped, columns reference classes.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
SHARES = np.array([0.02, 0.015, 0.32, 0.645])
AREA = SHARES[:, np.newaxis] * OLOFSSON / OLOFSSON.sum(axis=1, keepdims=True)

matrices = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 40), min_size=k, max_size=k), min_size=k, max_size=k)
).map(np.array)  # fmt: skip


def labels_of(matrix):
    predicted, reference = np.indices(matrix.shape)
    return np.repeat(reference.ravel(), matrix.ravel()), np.repeat(predicted.ravel(), matrix.ravel())


def test_known_answers_of_olofsson_and_pontius():
    assert accuracy.kappa(OLOFSSON) == pytest.approx(0.869964, abs=5e-7)
    assert accuracy.kappa_standard_error(OLOFSSON) == pytest.approx(0.017028, abs=5e-7)
    assert accuracy.overall_accuracy(AREA) == pytest.approx(0.9465, abs=5e-5)
    assert accuracy.precision(AREA)[0] == pytest.approx(0.88)
    assert accuracy.recall(AREA)[0] == pytest.approx(0.7487, abs=5e-5)
    assert accuracy.quantity_disagreement(AREA) == pytest.approx(0.004493, abs=5e-7)
    assert accuracy.allocation_disagreement(AREA) == pytest.approx(0.048995, abs=5e-7)


def test_kappa_and_its_error_equal_those_of_statsmodels():
    from statsmodels.stats.inter_rater import cohens_kappa

    rng = np.random.default_rng(1)
    for _ in range(200):
        size = rng.integers(2, 7)
        matrix = rng.integers(0, 30, (size, size)) + np.eye(size, dtype=int) * rng.integers(0, 50)
        theirs = cohens_kappa(matrix)
        assert accuracy.kappa(matrix) == pytest.approx(theirs.kappa, abs=1e-12)
        assert accuracy.kappa_standard_error(matrix) == pytest.approx(theirs.std_kappa, abs=1e-9)


def test_scores_equal_those_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(2)
    for _ in range(50):
        reference = rng.integers(0, 6, 40)
        predicted = np.where(rng.random(40) < 0.5, reference, rng.integers(0, 4, 40))
        found = accuracy.report(reference, predicted, range(6))
        assert np.transpose(found["confusion_matrix"]).tolist() == (
            metrics.confusion_matrix(reference, predicted, labels=range(6)).tolist()
        )
        theirs = metrics.precision_recall_fscore_support(reference, predicted, average="macro", zero_division=0)
        ours = [found["macro_precision"], found["macro_recall"], found["macro_f1"]]
        assert ours == pytest.approx(theirs[:3])
        assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(reference, predicted))
    probabilities = rng.dirichlet(np.ones(6), 40)
    probabilities = (probabilities + 0.01) / 1.06
    theirs = metrics.log_loss(reference, probabilities, labels=range(6))
    assert accuracy.log_loss(reference, probabilities, range(6)) == pytest.approx(theirs)


def test_a_perfect_map_has_kappa_1_and_a_random_one_about_0():
    reference = np.random.default_rng(3).integers(0, 6, 5000)
    perfect = accuracy.report(reference, reference, range(6))
    assert (perfect["kappa"], perfect["overall_accuracy"], perfect["macro_f1"]) == (1, 1, 1)
    assert perfect["kappa_se"] == pytest.approx(0, abs=1e-6)
    random = accuracy.report(reference, np.random.default_rng(4).permutation(reference), range(6))
    assert abs(random["kappa"]) < 3 * random["kappa_se"] < 0.05


def test_mapped_and_reference_are_not_mixed_up():
    # One of two wet samples is mapped as dry: dry is mapped too often, wet is missed.
    found = accuracy.report(["wet", "wet", "dry", "dry"], ["wet", "dry", "dry", "dry"], ["dry", "wet"])
    assert found["confusion_matrix"] == [[2, 1], [0, 1]]
    assert found["precision"] == pytest.approx([2 / 3, 1])
    assert found["recall"] == [1, 0.5]
    assert found["support"] == [2, 2]


@given(matrices)
def test_properties_of_any_confusion_matrix(matrix):
    reference, predicted = labels_of(matrix)
    found = accuracy.report(reference, predicted, range(len(matrix)))
    assert found["confusion_matrix"] == matrix.tolist()
    json.dumps(found, allow_nan=False)
    if not matrix.sum():
        assert found["overall_accuracy"] is found["kappa"] is found["macro_f1"] is None
        return
    disagreement = found["quantity_disagreement"] + found["allocation_disagreement"]
    assert disagreement == pytest.approx(1 - found["overall_accuracy"])
    assert found["kappa"] is None or -1 <= found["kappa"] <= found["overall_accuracy"] + 1e-12
    turned = accuracy.report(predicted, reference, range(len(matrix)))
    assert turned["precision"] == found["recall"]
    assert turned["kappa"] == pytest.approx(found["kappa"])
    order = np.arange(len(matrix))[::-1]
    assert accuracy.kappa(matrix[np.ix_(order, order)]) == pytest.approx(accuracy.kappa(matrix), nan_ok=True)


def test_a_class_that_is_never_mapped_or_never_occurs():
    found = accuracy.report([0, 0, 1, 1], [0, 0, 0, 2], range(4))
    assert found["precision"] == [pytest.approx(2 / 3), None, 0, None]
    assert found["recall"] == [1, 0, None, None]
    assert found["f1"] == [pytest.approx(0.8), 0, 0, None]
    assert found["macro_recall"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx(0.8 / 3)


def test_one_class_only():
    found = accuracy.report([3, 3], [3, 3], [3])
    assert (found["overall_accuracy"], found["kappa"], found["kappa_se"]) == (1, None, None)


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
        accuracy.report(reference, predicted, [0, 1])


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, -1], [0, 1]], [[1, math.nan], [0, 1]], [1, 2]])
def test_what_is_no_confusion_matrix_is_refused(matrix):
    with pytest.raises(AccuracyError, match="no confusion matrix"):
        accuracy.kappa(matrix)


def test_log_loss_of_an_impossible_class_is_finite_and_its_shape_is_checked():
    assert accuracy.log_loss([1], [[1.0, 0.0]], [0, 1]) == pytest.approx(-math.log(accuracy.PROBABILITY_FLOOR))
    with pytest.raises(AccuracyError, match="1 samples"):
        accuracy.log_loss([1], [[1.0]], [0, 1])


def test_json_and_csv_are_whole_and_json_has_no_nan(tmp_path):
    path = tmp_path / "tables" / "a.json"
    accuracy.write_json(path, {"a": np.float32(0.5), "b": [np.nan, np.int64(3)], "c": np.eye(2)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [None, 3], "c": [[1, 0], [0, 1]]}
    table = pd.DataFrame({"layer": ["2-3m"], "kappa": [0.5]})
    accuracy.write_table(tmp_path / "tables" / "a.csv", table)
    assert pd.read_csv(tmp_path / "tables" / "a.csv").equals(table)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.csv", "a.json"]


def test_tables_of_reports():
    found = accuracy.report([0, 0, 1, 1], [0, 0, 0, 1], range(3))
    losses = {"log_loss": 0.5, "log_loss_calibrated": None}
    table = accuracy.summary({"2-3m": {"whole": found | losses}})
    assert table.loc[0, ["layer", "domain", "n", "overall_accuracy"]].tolist() == ["2-3m", "whole", 4, 0.75]
    assert accuracy.by_class(found)["support"].tolist() == [2, 2, 0]


def test_heatmap_shows_counts_row_shares_and_names():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    names = ["dry", "wet", "ice"]
    accuracy.draw_confusion(axes, accuracy.report([0, 0, 0, 1], [0, 0, 1, 1], range(3)), names)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["2\n100 %", "0", "0", "1\n50 %", "1\n50 %", "0", "0", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dry (2)", "wet (2)", "ice (0)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    plt.close(figure)


def test_a_weight_counts_as_so_many_samples():
    rng = np.random.default_rng(0)
    reference, mapped, weight = rng.integers(0, 3, (3, 50))
    repeated = accuracy.confusion_matrix(np.repeat(reference, weight), np.repeat(mapped, weight), range(3))
    weighted = accuracy.confusion_matrix(reference, mapped, range(3), weight)
    assert np.array_equal(weighted, repeated)
    assert accuracy.kappa(weighted / 7) == pytest.approx(accuracy.kappa(repeated))
