"""So few samples of a class that a fold holds them all."""

import numpy as np
import pytest
from refusals import assert_refused

from helpers.accuracy.predictions import predict_samples
from helpers.folds.curves import fold_kinds
from helpers.forest.hurdle import predict_held_out
from helpers.forest.models import check_classes
from helpers.forest.out_of_fold import out_of_fold
from helpers.samples.rows import ForestError, layer_rows

PARAMS = {"max_depth": 3, "min_samples_split": 2, "max_features": "sqrt"}


def with_permafrost_at(world, chosen):
    """Return the training samples, of which some alone have permafrost: the richest type."""
    study, table = world[:2]
    rows = layer_rows(table, "2-3m", "train", study.target_classes).reset_index(drop=True)
    rows["class"] = np.where(chosen(rows), 5, 0)
    rows["ice_fraction"] = np.where(rows["class"] > 0, 0.6, 0.0)
    return study, rows


def first_in_domain(rows):
    return rows.index == np.flatnonzero(rows["in_domain"])[0]


def test_a_fold_with_the_only_sample_of_a_class_is_predicted_by_the_rest(world):
    study, rows = with_permafrost_at(world, first_in_domain)
    fold = np.arange(len(rows)) % 3
    only = rows["class"].to_numpy() == 5
    (chances,) = out_of_fold(study, [(rows, fold, PARAMS)], 1)
    assert chances.sum(axis=1) == pytest.approx(1)
    assert chances[only, 5] == 0
    (found,) = predict_held_out(study, [(rows, fold, [])], 1)
    assert found.permafrost[only] == 0
    assert found.classes.sum(axis=1) == pytest.approx(1)
    assert found.content[fold == fold[only]] == pytest.approx(0)


def test_a_fold_with_all_samples_of_no_permafrost_is_predicted_by_the_rest(world):
    study, rows = with_permafrost_at(world, lambda rows: ~first_in_domain(rows))
    fold = np.arange(len(rows)) % 3
    only = rows["class"].to_numpy() == 0
    (found,) = predict_held_out(study, [(rows, fold, [])], 1)
    assert found.permafrost[only] == 1
    assert found.classes[only, 5] == pytest.approx(1)
    assert found.content[only] == pytest.approx(0.6)


def test_folds_that_only_inform_are_left_out_and_told(world, capsys):
    """All permafrost lies in one block."""
    study, rows = with_permafrost_at(world, first_in_domain)
    folds = fold_kinds(study, rows)
    assert "blocks" not in folds
    assert {"random", "knndm"} <= folds.keys()
    told = capsys.readouterr().out
    assert "2-3 m: spatial blocks are left out, for fold" in told
    assert "holds all 1 samples with permafrost" in told


@pytest.mark.parametrize("rule", ["stop", "merge"])
def test_a_remedy_names_no_setting_that_is_set_already(world, tmp_path, rule):
    study, rows = with_permafrost_at(world, first_in_domain)
    study = study.changed({"samples.rare_classes": rule})
    assert_refused(
        lambda: check_classes(study, rows, "2-3m"), tmp_path, ForestError, "2-3m", "one training"
    )
    with pytest.raises(ForestError) as caught:
        check_classes(study, rows, "2-3m")
    assert ("to merge" in caught.value.remedy) == (rule == "stop")


def test_accuracy_of_so_few_samples_has_an_estimate(world):
    study, table = world[:2]
    table = table.copy()
    one = table.index[table["in_domain"] & (table["split"] == "train")][0]
    table["ice_type"] = np.where(table.index == one, 5, 0)
    table["ice_fraction"] = np.where(table["ice_type"] > 0, 0.6, 0.0)
    found = predict_samples(study, table, {"2-3m": PARAMS}, n_jobs=1)
    for predictions in found.values():
        for chances in predictions.out_of_fold.values():
            assert np.isfinite(chances).all()
