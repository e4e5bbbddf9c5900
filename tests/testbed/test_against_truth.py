"""What a run promised beside what is true: a small world, storage by hand, and the quick run."""

import numpy as np
import pandas as pd
import pytest

from helpers.accuracy.by_area import class_areas
from helpers.accuracy.estimates import estimate_accuracy
from helpers.accuracy.predictions import MAPS, mapped_areas, predict_samples
from helpers.accuracy.report import evaluate
from helpers.core.classes import layer_name
from helpers.core.grid import reference_grid
from helpers.core.rasters import write_raster
from helpers.core.scores import HEADLINE_SCORES
from helpers.core.study import Study
from helpers.forest import models
from helpers.samples.extract import read_predictors
from testbed import against_truth

STUDY = Study.open("config/quick.yaml")
LAYER = "2-3m"
NAMES = ["elevation", "twi"]
PARAMS = {"max_depth": None, "min_samples_split": 2}

# Accuracy -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(world):
    study, table, _ = world
    return predict_samples(study, table, {LAYER: PARAMS}, n_jobs=1)


@pytest.fixture(scope="module")
def promised(world, predicted):
    """Estimates of both maps."""
    parts = {which: estimate_accuracy(world[0], predicted[which]) for which in MAPS}
    return pd.concat(parts, names=["map"]).reset_index("map")


@pytest.fixture(scope="module")
def true(world, predicted):
    """True scores, where both maps are that of the forest of all samples."""
    study, table, truth = world
    forest = models.fit(study, table, LAYER, PARAMS, study.forest.map_fit)
    values, cells = read_predictors(study, NAMES)
    mapped = np.full(reference_grid(study).shape, 255, np.uint8)
    mapped.ravel()[cells] = models.class_probabilities(forest, values).argmax(axis=1)
    described = {"study": study, "names": "type", "units": "", "nodata": 255}
    parts = {}
    for which in MAPS:
        path = against_truth.class_map(study, LAYER, which)
        write_raster(path, mapped, reference_grid(study), **described)
        parts[which] = against_truth.accuracy_against_truth(study, predicted[which], truth, which)
    return pd.concat(parts, names=["map"]).reset_index("map")


def test_every_estimate_stands_beside_the_truth(promised, true):
    keys = ["map", "domain", "estimate", "reference"]
    scores = pd.concat([promised, true]).set_index(keys)["overall_accuracy"].sort_index()
    assert scores.index.is_unique
    assert np.isfinite(true[["overall_accuracy", "macro_f1"]]).all(axis=None)
    # Every fifth sample is wrong and cells are not: they are predicted better than samples say.
    for which in MAPS:
        whole = scores[which, "whole"]
        for estimate in ("random", "knndm", "blocks", "test"):
            assert whole[estimate, "cells"] > whole[estimate, "samples"] + 0.05
        for reference in ("cells", "samples"):
            by_folds = whole["random", reference]
            assert whole["true_train", reference] == pytest.approx(by_folds, abs=0.08)
        for forest in ("true_train", "true_map"):
            assert whole[forest, "samples"] < whole[forest, "cells"] - 0.05
    of_truth = true["estimate"].str.startswith("true_")
    assert set(true["estimate"][~of_truth]) == set(promised["estimate"])
    assert true.loc[of_truth, "kappa_lower"].isna().all()
    # Both maps are one here, and the models of their training samples are not.
    pairs = [scores[which, "whole"] for which in MAPS]
    assert pairs[0]["true_map", "cells"] == pairs[1]["true_map", "cells"]
    assert pairs[0]["true_train", "cells"] != pairs[1]["true_train", "cells"]


def test_promises_stand_beside_true_scores_of_their_map(promised, true):
    table = against_truth.promised_and_true(promised, true)
    assert set(table["score"]) == set(HEADLINE_SCORES)
    assert set(table["estimate"]) == set(promised["estimate"])
    difference = (table["promised"] - table["true"]).to_numpy()
    assert table["difference"].to_numpy() == pytest.approx(difference)
    held = (table["lower"] <= table["true"]) & (table["true"] <= table["upper"])
    np.testing.assert_array_equal(table["held"].astype(bool), held)
    of_forest = true[(true["estimate"] == "true_train") & (true["domain"] == "whole")]
    of_forest = of_forest.set_index(["map", "reference"])["kappa"].sort_index()
    kappa = table[(table["domain"] == "whole") & (table["score"] == "kappa")]
    for which, one in kappa.groupby("map"):
        assert set(one["true"]) == {of_forest[which, "samples"]}
        assert set(one["true_of_cells"]) == {of_forest[which, "cells"]}


def test_true_areas_are_those_of_the_cells(world, predicted):
    study, _, truth = world
    tables = {}
    for which, one in predicted.items():
        areas = mapped_areas(study, one, LAYER)
        rows, probabilities = one.tested[LAYER], one.test[LAYER]
        classes = one.classes_of(study, LAYER, probabilities)
        reports = {LAYER: evaluate(study, rows, probabilities, classes, areas)}
        tables[which] = class_areas(study, one, reports)
    table = pd.concat(tables, names=["map"]).reset_index("map")
    table = against_truth.true_class_areas(study, predicted, truth, table)
    cells = np.bincount(truth[f"ice_type_{LAYER}"].ravel(), minlength=256)[:6]
    for which in MAPS:
        whole = table[(table["map"] == which) & (table["domain"] == "whole")].set_index("class")
        assert whole["true_km2"].to_numpy() == pytest.approx(cells * 400.0)
        assert whole["mapped_km2"].sum() == pytest.approx(cells.sum() * 400.0)
        for name in ("mapped", "adjusted"):
            bias = whole[f"{name}_km2"] - whole["true_km2"]
            assert whole[f"{name}_bias"].to_numpy() == pytest.approx(bias.to_numpy(), nan_ok=True)


# Storage and trust --------------------------------------------------------------------------------


def test_storage_of_three_cells_by_hand():
    """Cells of 6 km: contents 0.5, 0, 0.1 over layers of 1, 2, 5 m give 4, 0, 0.8 m of ice."""
    content = np.array([[0.5, 0.0, 0.1]], np.float32)
    truth = np.array([[0.4, 0.0, 0.0]], np.float32)
    result = against_truth.compare_storage(
        STUDY, [content] * 3, [truth] * 3, np.array([[False, False, True]])
    )
    assert result["mapped_km3"] == pytest.approx(4.8 * 36 / 1000)
    assert result["true_km3"] == pytest.approx(3.2 * 36 / 1000)
    assert result["bias"] == pytest.approx(0.5)
    assert result["in_permafrost_free_cells"] == pytest.approx(0.8 / 4.8)


def test_intervals_have_the_true_totals(quick):
    table = pd.read_csv(quick / "results/quick/main/tables/true_totals.csv")
    assert len(table) == 9
    held = (table["lower"] <= table["true_km3"]) & (table["true_km3"] <= table["upper"])
    given = table["lower"].notna()
    assert 4 < given.sum() < 9
    assert table.loc[~given, "holds"].isna().all()
    np.testing.assert_array_equal(table.loc[given, "holds"], held[given])


def test_true_errors_add_up_and_sure_cells_are_right(quick):
    folder = quick / "results/quick/main/tables"
    errors = pd.read_csv(folder / "true_applicability.csv")
    for _, domain in errors.groupby(["layer", "domain"]):
        whole = domain[domain["by"] == "all"].iloc[0]
        for by, part in domain.groupby("by"):
            assert part["cells"].sum() == whole["cells"], by
            for name in ("error", "error_permafrost", "expected"):
                mean = (part[name] * part["cells"]).sum() / whole["cells"]
                assert mean == pytest.approx(whole[name], abs=1e-6)
    # Where the map is said to be sure that there is none, it is wrong less often than one in ten.
    sure = errors[(errors["by"] == "trust") & (errors["group"] == "no permafrost for sure")]
    assert len(sure) == len(STUDY.layers)
    assert (sure["error_permafrost"] < 1 - STUDY.trust.coverage).all()


def test_an_environment_that_was_never_sampled_is_found_and_expected(quick):
    withheld = pd.read_csv(quick / "results/quick/main/tables/true_withheld.csv")
    assert list(withheld["layer"]) == [layer_name(layer) for layer in STUDY.layers]
    assert withheld["outside"].mean() > withheld["inside"].mean()
    assert withheld["correlation"].mean() > 0.7
    assert withheld["outside_share"].between(0, 0.5).all()


def test_no_forest_of_samples_exceeds_the_ceiling(quick):
    true = pd.read_csv(quick / "results/quick/main/tables/true_accuracy.csv")
    true = true[(true["domain"] == STUDY.domains[-1]) & (true["reference"] == "cells")]
    best = true[true["map"] == "ceiling"].set_index("layer")["overall_accuracy"]
    maps = true[true["estimate"] == "true_map"].set_index("layer")["overall_accuracy"]
    assert len(best) == len(STUDY.layers)
    assert (maps < best.reindex(maps.index) + 0.01).all()


def test_sets_cover_the_true_cells(quick):
    folder = quick / "results/quick/main/tables"
    true = pd.read_csv(folder / "true_prediction_sets.csv")
    none = true[true["class"] == "no permafrost"]
    assert (none["coverage_cells"] > 0.85).all()
    keys = ["layer", "domain", "class"]
    sets = pd.read_csv(folder / "prediction_sets.csv").merge(true, on=keys, validate="1:1")
    assert sets.loc[sets["calibration_samples"] < 9, "coverage_cells"].isna().all()
