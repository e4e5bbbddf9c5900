"""Estimates of accuracy: by hand, beside a known truth, beside baselines; the optimism of a search."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from helpers.accuracy import baselines, by_area, estimates, predictions, reliability, residuals
from helpers.accuracy.report import evaluate
from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.scores import (
    HEADLINE_SCORES,
    by_mapped_share,
    confusion_matrix,
    log_loss,
    mapped_class,
    overall_accuracy,
)
from helpers.core.study import Study
from helpers.folds import distances, kinds, units
from helpers.folds.curves import distance_curves, fold_kinds, fold_summary, plot_distances
from helpers.forest import grid_search, models, out_of_fold
from helpers.prepare.registry import predictors, write_covariates
from helpers.samples.rows import layer_rows, predictor_values
from testbed import against_truth

PARAMS = {"max_depth": None, "min_samples_split": 2}
LAYER = "2-3m"
NAMES = ["elevation", "twi"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study of one layer on a coarse grid: elevation tells the ice type, up to noise, which the truth is free of."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
        patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
        study = Study(
            name="tiny", grid={"resolution": 20_000, "fine_resolution": 10_000}, layers=[(2, 3)],
            predictors=NAMES, folds={"number": 3, "estimators": 20, "together_km": 0, "block_km": 300},
            covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
            forest={"n_estimators": 20, "max_depth": [3, None], "min_samples_split": [2, 30]},
        )  # fmt: skip
        rng, geobox = np.random.default_rng(0), reference_grid(study)
        inside = area_mask(study, geobox)
        fields = {name: rng.normal(size=geobox.shape) for name in NAMES}
        fields["air_frost_number"] = 0.44 + 0.1 * fields["elevation"]
        write_covariates(study, {name: np.where(inside, v, np.nan).astype(np.float32) for name, v in fields.items()})
        types = np.where(inside, np.digitize(fields["elevation"], [0, 0.7]) * 2, 255).astype(np.uint8)
        chosen = rng.choice(np.flatnonzero(inside), 240, replace=False)
        easting, northing = cell_centres(geobox)
        row, column = np.unravel_index(chosen, geobox.shape)
        known = types.ravel()[chosen]
        wrong = rng.random(240) < 0.2
        table = pd.DataFrame(
            {
                "site_id": [f"S{n}" for n in range(240)], "group": [f"S{n}" for n in range(240)], "layer": LAYER,
                "easting": easting[column], "northing": northing[row], "in_domain": known > 0,
                "ice_type": np.where(wrong, rng.permutation(known), known), "ice_fraction": 0.1,
                "split": np.where(np.arange(240) % 4 == 0, "test", "train"),
                **{name: values.ravel()[chosen].astype(np.float32) for name, values in fields.items()},
            }
        )  # fmt: skip
        # A hole is as often wrong as a sample.
        holes = np.where(rng.random(types.shape) < 0.2, rng.choice(types[inside], types.shape), types)
        yield study, table, {f"ice_type_{LAYER}": types, f"hole_type_{LAYER}": np.where(inside, holes, 255)}


@pytest.fixture(scope="module")
def found(world):
    study, table, truth = world
    return estimates.estimate_accuracy(study, table, {LAYER: PARAMS}, truth, n_jobs=1)


def test_the_registry_has_the_predictors_of_this_test(world):
    assert set(NAMES) <= set(predictors(world[0]))


def test_out_of_fold_predictions_are_scikit_learns(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    fold = kinds.sample_folds(study, rows)
    (ours,) = out_of_fold.out_of_fold(study, [(rows, fold, PARAMS)], n_jobs=1)
    model = RandomForestClassifier(20, class_weight="balanced", random_state=study.forest.seed, **PARAMS)
    values = predictor_values(rows, NAMES)
    plain = cross_val_predict(model, values, rows["class"], cv=PredefinedSplit(fold), method="predict_proba")
    assert ours[:, [0, 2, 4]] == pytest.approx(plain)
    (two,) = out_of_fold.out_of_fold(study, [(rows, fold, PARAMS)], n_jobs=2)
    assert np.array_equal(ours, two)


def test_importance_out_of_fold_is_how_much_the_log_loss_grows(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    job = (rows, kinds.sample_folds(study, rows), PARAMS)
    (one,), (two,) = (out_of_fold.out_of_fold_importance(study, [job], 20, n_jobs) for n_jobs in (1, 2))
    assert one == two
    assert abs(one["twi"]) < 0.15 < 0.8 < one["elevation"]
    # Shuffling is worth as much as knowing nothing of the predictor: another draw of it.
    (chances,) = out_of_fold.out_of_fold(study, [job], n_jobs=1)
    rng, lost = np.random.default_rng(1), []
    for _ in range(20):
        blind = rows.assign(elevation=rng.permutation(rows["elevation"]))
        parts = [out_of_fold.predict_held_out(study, rows, job[1] == k, PARAMS, blind[job[1] == k]) for k in range(3)]
        worse = np.empty_like(chances)
        for k, part in enumerate(parts):
            worse[job[1] == k] = part
        lost.append(log_loss(rows["class"], worse, range(6)) - log_loss(rows["class"], chances, range(6)))
    assert one["elevation"] == pytest.approx(np.mean(lost), rel=0.1)


def test_every_estimate_stands_beside_the_truth(world, found):
    assert set(found["estimate"]) == set(estimates.ESTIMATES) - {"column", "column_adjusted"}
    keys = found.set_index(["domain", "estimate", "reference"])
    assert keys.index.is_unique
    assert np.isfinite(found[["overall_accuracy", "macro_f1"]]).all(axis=None)
    assert keys.loc[("whole", "random", "samples"), "n"] == 180
    assert keys.loc[("whole", "test", "samples"), "n"] == 60
    assert keys.loc[("potential_permafrost", "random", "samples"), "n"] < 180
    # Every fifth sample is wrong and the truth is not, so that cells are predicted better than samples say.
    scores = keys["overall_accuracy"]
    for estimate in ("random", "knndm", "blocks", "test"):
        assert scores["whole", estimate, "cells"] > scores["whole", estimate, "samples"] + 0.05
    assert scores["whole", "true_train", "cells"] == pytest.approx(scores["whole", "random", "cells"], abs=0.08)
    assert scores["whole", "true_train", "samples"] == pytest.approx(scores["whole", "random", "samples"], abs=0.08)
    assert scores["whole", "true_train", "samples"] < scores["whole", "true_train", "cells"] - 0.05
    folds = keys.loc[pd.IndexSlice["whole", ["random", "blocks"], "samples"], "wasserstein_km"]
    assert (folds > 0).all()


def test_by_mapped_share_is_unbiased_however_often_a_mapped_class_was_sampled():
    rng = np.random.default_rng(3)
    right, share = np.array([0.9, 0.5, 0.3]), np.array([0.7, 0.2, 0.1])
    mapped = rng.choice(3, 6000, p=[0.1, 0.3, 0.6])
    reference = np.where(rng.random(6000) < right[mapped], mapped, (mapped + 1) % 3)
    matrix = confusion_matrix(reference, mapped, range(3))
    adjusted = by_mapped_share(np.stack([matrix, 2 * matrix]), share)
    assert adjusted.sum(axis=(1, 2)) == pytest.approx([1, 1])
    assert overall_accuracy(adjusted) == pytest.approx([right @ share] * 2, abs=0.02)
    assert overall_accuracy(matrix) < right @ share - 0.2
    # What was never sampled is left out; without any sample nothing follows.
    assert by_mapped_share([[0, 0], [1, 3]], [0.5, 0.5]).tolist() == [[0, 0], [0.25, 0.75]]
    assert np.isnan(by_mapped_share(np.zeros((2, 2)), [1, 1])).all()


def test_the_test_samples_are_judged_by_the_forest_of_the_training_samples(world, found):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "test")
    mapped = models.fit(study, table, LAYER, PARAMS, "train").predict(predictor_values(rows, NAMES))
    one = found[(found["estimate"] == "test") & (found["reference"] == "samples") & (found["domain"] == "whole")]
    assert one["overall_accuracy"].item() == pytest.approx((mapped == rows["class"]).mean())


def test_estimates_are_written_by_stable_keys(world, found):
    study = world[0]
    estimates.write_estimates(study, found)
    record = json.loads((study.results_dir / "tables" / "validation.json").read_text())
    row = record[LAYER]["whole"]["knndm"]["samples"]
    ends = {f"{score}_{end}" for score in HEADLINE_SCORES for end in ("lower", "upper")}
    assert set(row) == {"n", *HEADLINE_SCORES, "wasserstein_km", *ends}
    assert record[LAYER]["whole"]["test"]["samples"]["wasserstein_km"] is None
    back = pd.read_csv(study.results_dir / "tables" / "validation.csv")
    pd.testing.assert_frame_equal(back, found.reset_index(drop=True))


def test_without_truth_only_samples_are_told(world):
    study, table, _ = world
    found = estimates.estimate_accuracy(study, table, {LAYER: PARAMS}, n_jobs=1)
    assert set(found["reference"]) == {"samples"}
    assert not found["estimate"].str.startswith("true").any()


def test_impossible_kinds_are_left_out_but_the_studys_own_is_told(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    few = study.model_copy(update={"folds": study.folds.model_copy(update={"block_km": 9000})})
    assert set(fold_kinds(few, rows)) == {"random", "knndm"}
    own = few.model_copy(update={"folds": few.folds.model_copy(update={"kind": "blocks"})})
    with pytest.raises(units.FoldError, match="groups of samples"):
        fold_kinds(own, rows)


def test_figures_are_drawn_and_folds_summed_up(world, found):
    study, table, _ = world
    rows, cells = layer_rows(table, LAYER, "train"), distances.map_cells(study)
    folds = fold_kinds(study, rows, cells)
    curves = distance_curves(study, rows, folds, cells)
    assert list(curves) == ["prediction", "samples", *folds]
    assert len(curves["prediction"]) == cells[1].sum()
    summary = fold_summary(study, rows, folds, curves)
    assert (summary["largest"] <= 90).all()
    for figure in (plot_distances(study, {LAYER: curves}), estimates.plot_estimates(study, found)):
        assert figure.get_size_inches()[0] == pytest.approx(180 / 25.4)


# Baselines ------------------------------------------------------------------------------------------------------------


def test_baselines_are_judged_in_the_same_folds(world):
    study, table, _ = world
    found = baselines.compare_models(study, table, {LAYER: PARAMS}, n_jobs=1).set_index(["domain", "model"])
    whole = found.loc["whole"]
    assert list(whole.index) == list(baselines.MODELS)
    assert whole.loc["most_frequent", "kappa"] == 0
    # One threshold tells the first two of three classes apart; places tell nothing here.
    assert whole.loc["forest", "kappa"] > whole.loc["frost_number", "kappa"] > 0.2 > whole.loc["neighbours", "kappa"]
    others = whole.drop(index="forest")
    assert (others["kappa_low"] <= others["kappa_difference"]).all()
    assert (others["kappa_difference"] <= others["kappa_high"]).all()
    assert others.loc["neighbours", "kappa_low"] > 0
    difference = whole.loc["forest", "kappa"] - others["kappa"]
    assert others["kappa_difference"].to_numpy() == pytest.approx(difference.to_numpy())


def test_the_optimism_of_a_search(world):
    study, table, _ = world
    found = baselines.selection_optimism(study, table, LAYER)
    assert list(found.index) == list(grid_search.SEARCH_SCORES)
    assert found["optimism"].to_numpy() == pytest.approx((found["winner"] - found["nested"]).to_numpy())
    assert abs(found.loc["kappa", "optimism"]) < 0.15


def test_forward_selection_takes_what_tells_the_class_and_stops(world):
    study, table, _ = world
    found = baselines.forward_selection(study, table, LAYER, PARAMS, n_jobs=1)
    assert found.loc[0, "predictor"] == "elevation"
    assert found["kappa"].is_monotonic_increasing


# Predictions that are judged in other ways ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(world):
    study, table, _ = world
    return predictions.predict_samples(study, table, {LAYER: PARAMS}, n_jobs=1)


def test_intervals_hold_their_estimate_and_need_no_truth(found):
    known = found[(found["reference"] == "samples") & ~found["estimate"].str.startswith("true")]
    for score in HEADLINE_SCORES:
        assert (known[f"{score}_lower"] < known[score]).all()
        assert (known[score] < known[f"{score}_upper"]).all()
    assert found.loc[found["estimate"].str.startswith("true"), "kappa_lower"].isna().all()


def test_reports_of_folds_have_the_scores_of_the_estimates_and_areas(world, found, predicted):
    study = world[0]
    folded = estimates.evaluate_folds(study, predicted)
    keys = found.set_index(["domain", "estimate", "reference"])
    for kind, layers in folded.items():
        for domain, told in layers[LAYER].items():
            row = keys.loc[(domain, kind, "samples")]
            assert [told[score] for score in HEADLINE_SCORES] == pytest.approx(row[list(HEADLINE_SCORES)])
            assert told["intervals"]["kappa"] == pytest.approx([row["kappa_lower"], row["kappa_upper"]])
            assert told["area_adjusted"]["indicative"]
            assert told["permafrost"]["overall_accuracy"] >= told["overall_accuracy"]


def test_areas_and_promises_stand_beside_the_truth(world, found, predicted):
    study, _, truth = world
    areas = predictions.mapped_areas(study, predicted, LAYER)
    reports = {LAYER: evaluate(study, predicted.tested[LAYER], predicted.test[LAYER], mapped=areas)}
    table = by_area.class_areas(study, predicted, reports, truth)
    whole = table[table["domain"] == "whole"].set_index("class")
    true = np.bincount(truth[f"ice_type_{LAYER}"].ravel(), minlength=256)[:6] * 400.0
    assert whole["true_km2"].to_numpy() == pytest.approx(true)
    assert whole["mapped_km2"].sum() == pytest.approx(true.sum())
    promised = against_truth.compare_with_truth(found)
    assert set(promised["score"]) == set(HEADLINE_SCORES)
    assert promised["difference"].to_numpy() == pytest.approx((promised["promised"] - promised["true"]).to_numpy())
    assert estimates.plot_estimates(study, found, areas=table).axes


def test_residuals_say_what_the_reports_say(world, predicted):
    study = world[0]
    wrong = residuals.residuals(study, predicted)
    test = wrong[wrong["estimate"] == "test"]
    reference, mapped = predicted.tested[LAYER]["class"], mapped_class(predicted.test[LAYER])
    assert test["error"].mean() == pytest.approx((reference != mapped).mean())
    assert (wrong["distance_km"] > 0).all()
    by_distance = residuals.error_by_distance(wrong)
    assert by_distance[by_distance["domain"] == "whole"]["n"].sum() == len(wrong)
    assert {"error", "residual", "surprise"} == set(residuals.autocorrelation(study, wrong)["of"])
    card = {"classes": [0, 1], "matrix": [[1, 0], [0, 1]], "intercept": [0, 0], "floor": 1e-3}
    curves, errors = reliability.evaluate_reliability(study, predicted.tested, predicted.test, {LAYER: card})
    assert set(errors["layer"]) == {LAYER, "all"}
    assert len(reliability.plot_reliability(study, curves, errors).axes) == 6
    assert residuals.plot_residuals(study, wrong, by_distance).axes
