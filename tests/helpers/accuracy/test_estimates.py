"""Estimates of accuracy: by hand, beside each other, beside baselines; the optimism of a search."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from helpers.accuracy import baselines, by_area, estimates, predictions, reliability, residuals
from helpers.accuracy.report import evaluate
from helpers.core.files import write_tables
from helpers.core.scores import (
    HEADLINE_SCORES,
    AccuracyError,
    by_mapped_share,
    confusion_matrix,
    log_loss,
    overall_accuracy,
    raked,
)
from helpers.core.study import Study
from helpers.folds import distances, kinds
from helpers.folds.blocks import sample_blocks
from helpers.folds.curves import curve_table, distance_curves, fold_kinds, fold_summary
from helpers.forest import grid_search, models, out_of_fold
from helpers.forest.hurdle import fit_hurdle
from helpers.prepare.registry import covariates
from helpers.samples.extract import evaluation_cells
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.together import FoldError

PARAMS = {"max_depth": None, "min_samples_split": 2}
LAYER = "2-3m"
NAMES = ["elevation", "twi"]


@pytest.fixture(scope="module")
def both(world):
    study, table, _ = world
    return predictions.predict_samples(study, table, {LAYER: PARAMS}, n_jobs=1)


@pytest.fixture(scope="module")
def predicted(both):
    return both["reference"]


@pytest.fixture(scope="module")
def result(world, predicted):
    return estimates.estimate_accuracy(world[0], predicted)


def test_the_registry_has_the_predictors_of_this_test(world):
    items = covariates(world[0])
    assert {items[name].role for name in NAMES} == {"predictor"}


def test_out_of_fold_predictions_are_scikit_learns(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    fold = kinds.sample_folds(study, rows)
    (ours,) = out_of_fold.out_of_fold(study, [(rows, fold, PARAMS)], n_jobs=1)
    model = RandomForestClassifier(
        20, class_weight="balanced", random_state=study.forest.seed, **PARAMS
    )
    values = predictor_values(rows, NAMES)
    plain = cross_val_predict(
        model, values, rows["class"], cv=PredefinedSplit(fold), method="predict_proba"
    )
    assert ours[:, [0, 2, 4]] == pytest.approx(plain)
    (two,) = out_of_fold.out_of_fold(study, [(rows, fold, PARAMS)], n_jobs=2)
    assert np.array_equal(ours, two)


def test_importance_out_of_fold_is_how_much_the_log_loss_grows(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    job = (rows, kinds.sample_folds(study, rows), PARAMS)
    (one,), (two,) = (
        out_of_fold.out_of_fold_importance(study, [job], 20, n_jobs) for n_jobs in (1, 2)
    )
    assert one == two
    assert abs(one["twi"]) < 0.15 < 0.8 < one["elevation"]
    # Shuffling is worth as much as knowing nothing of the predictor: another draw of it.
    (chances,) = out_of_fold.out_of_fold(study, [job], n_jobs=1)
    rng, lost = np.random.default_rng(1), []
    for _ in range(20):
        blind = rows.assign(elevation=rng.permutation(rows["elevation"]))
        parts = [
            out_of_fold.predict_held_out(study, rows, job[1] == k, PARAMS, blind[job[1] == k])
            for k in range(3)
        ]
        worse = np.empty_like(chances)
        for k, part in enumerate(parts):
            worse[job[1] == k] = part
        lost.append(
            log_loss(rows["class"], worse, range(6)) - log_loss(rows["class"], chances, range(6))
        )
    assert one["elevation"] == pytest.approx(np.mean(lost), rel=0.1)


def test_known_shares_of_ground_undo_that_people_drill_for_ice():
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(20)).reshape(4, 5)  # shares of area, mapped by reference class
    groups = np.array([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    counts = 100 * true * ([4, 2, 1] @ groups) * rng.uniform(1, 9, (4, 1))
    areas = by_mapped_share(counts, true.sum(axis=1))
    known = groups @ true.sum(axis=0)
    assert abs(groups @ areas.sum(axis=0) - known).max() > 0.05
    np.testing.assert_allclose(raked(areas, groups, known), true, atol=1e-4)
    both = raked(np.stack([areas, areas]), groups, [known, [0.5, 0.2, 0.3]])
    np.testing.assert_allclose(both[0], true, atol=1e-4)
    np.testing.assert_allclose(groups @ both[1].sum(axis=0), [0.5, 0.2, 0.3], atol=1e-4)


def test_a_group_without_samples_leaves_its_share_to_the_others():
    areas = np.array([[0.7, 0], [0.3, 0]])
    assert raked(areas, np.eye(2), [0.6, 0.4]).tolist() == areas.tolist()


def known_ground(*shares, elsewhere=()):
    shares = np.array(shares)
    return predictions.KnownGround(shares, shares, np.isin(np.arange(60), elsewhere))


def test_a_known_share_shifts_scores_by_area_and_widens_their_interval(world):
    study, _, _ = world
    mapped = np.repeat([0, 2, 4], 20)
    reference = np.repeat([0, 2, 4, 2], [10, 20, 20, 10])
    draws = sample_blocks(np.arange(60), 400, np.random.default_rng(0))
    shares = np.array([3.0, 0, 1, 0, 1, 0])
    rows = [
        estimates.headline_row(study, reference, mapped, draws, shares, known)
        for known in (None, known_ground(0.499, 0.5, 0.501), known_ground(0.4, 0.5, 0.6))
    ]
    # Half of the samples of each mapped class are right. Of the mapped class 0, 0.6 of the area,
    # 0.3 would be permafrost, 0.7 with the others; if 0.5 are known to be, it is 0.1.
    assert rows[0]["overall_accuracy"] == pytest.approx(0.5)
    assert rows[1]["overall_accuracy"] == pytest.approx(0.7, abs=1e-3)
    widths = [row["overall_accuracy_upper"] - row["overall_accuracy_lower"] for row in rows]
    assert widths[2] > 1.1 * widths[1]


def test_samples_with_permafrost_in_another_layer_count_as_much_as_such_ground(world):
    study, _, _ = world
    mapped = np.repeat([0, 2], [40, 20])
    reference = np.repeat([0, 2, 0], [40, 10, 10])  # what was wrongly mapped as 2 is frozen below
    shares = np.array([2.0, 0, 1, 0, 0, 0])
    known = known_ground(1 / 6, 1 / 6, 1 / 6, elsewhere=range(50, 60))
    known = replace(known, anywhere=np.full(3, 1 / 6 + 0.001))
    row = estimates.headline_row(study, reference, mapped, None, shares, known)
    assert row["overall_accuracy"] > 0.8  # the third mapped as 2 can only be permafrost


def test_permafrost_elsewhere_is_looked_for_where_another_layer_has_more(predicted, world):
    study, table, _ = world
    rows = predicted.rows[LAYER]
    assert predictions.known_ground(study, predicted, LAYER, rows) == dict.fromkeys(study.domains)
    shares = np.array([0.3, 0.4, 0.5])
    other = table[table["split"] == "train"].assign(ice_type=3)
    other["class"] = 3
    surveyed = replace(
        predicted,
        known={LAYER: shares, "3-5m": shares + 0.1},
        rows=predicted.rows | {"3-5m": other},
    )
    ground = predictions.known_ground(study, surveyed, LAYER, rows)[study.domains[-1]]
    assert ground.elsewhere.tolist() == (rows["class"] == 0).tolist()
    np.testing.assert_allclose(ground.shares([0, 0.5]), [[0.3, 0.1, 0.6], [0.4, 0.1, 0.5]])
    deepest = predictions.known_ground(study, surveyed, "3-5m", other)[study.domains[-1]]
    assert not deepest.elsewhere.any()


def test_every_estimate_has_its_scores(result):
    others = {"column", "column_adjusted", "cells"}  # for samples that have a column, or polygons
    assert set(result["estimate"]) == set(estimates.ESTIMATES) - others
    assert set(result["reference"]) == {"samples"}
    keys = result.set_index(["domain", "estimate"])
    assert keys.index.is_unique
    assert np.isfinite(result[["overall_accuracy", "macro_f1"]]).all(axis=None)
    assert keys.loc[("whole", "random"), "n"] == 180
    assert keys.loc[("whole", "test"), "n"] == 60
    assert keys.loc[("potential_permafrost", "random"), "n"] < 180
    folds = keys.loc[pd.IndexSlice["whole", ["random", "blocks"]], "wasserstein_km"]
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


def test_the_test_samples_are_evaluated_by_the_forest_of_the_training_samples(world, result):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "test")
    mapped = models.fit(study, table, LAYER, PARAMS, "train").predict(predictor_values(rows, NAMES))
    one = result.set_index(["domain", "estimate"]).loc[("whole", "test")]
    assert one["overall_accuracy"] == pytest.approx((mapped == rows["class"]).mean())


def test_estimates_are_written_by_stable_keys(world, result):
    study = world[0]
    keys = ["layer", "domain", "estimate", "reference"]
    write_tables(study.results_dir / "tables" / "validation", result, keys)
    record = json.loads((study.results_dir / "tables" / "validation.json").read_text())
    row = record[LAYER]["whole"]["knndm"]["samples"]
    ends = {f"{score}_{end}" for score in HEADLINE_SCORES for end in ("lower", "upper")}
    assert set(row) == {"n", "n_effective", *HEADLINE_SCORES, "wasserstein_km", *ends}
    assert row["n_effective"] == row["n"]
    by_area = record[LAYER]["whole"]["knndm_adjusted"]["samples"]
    assert 0 < by_area["n_effective"] < by_area["n"] == row["n"]
    assert record[LAYER]["whole"]["test"]["samples"]["wasserstein_km"] is None
    back = pd.read_csv(study.results_dir / "tables" / "validation.csv")
    pd.testing.assert_frame_equal(back, result)


def test_impossible_kinds_are_left_out_but_the_studys_own_is_refused(world):
    study, table, _ = world
    rows = layer_rows(table, LAYER, "train")
    few = study.model_copy(update={"folds": study.folds.model_copy(update={"block_km": 9000})})
    assert set(fold_kinds(few, rows)) == {"random", "knndm"}
    own = few.model_copy(update={"folds": few.folds.model_copy(update={"kind": "blocks"})})
    with pytest.raises(FoldError, match="groups of samples"):
        fold_kinds(own, rows)


def test_figures_are_drawn_and_folds_summed_up(world, result):
    study, table, _ = world
    rows, cells = layer_rows(table, LAYER, "train"), distances.map_cells(study)
    folds = fold_kinds(study, rows, cells)
    curves = distance_curves(study, rows, folds, cells)
    assert list(curves) == ["prediction", "samples", *folds]
    assert len(curves["prediction"]) == cells[1].sum()
    summary = fold_summary(study, rows, folds, curves)
    assert (summary["largest"] <= 90).all()
    table = curve_table({LAYER: curves})
    for kind, km in curves.items():
        of_kind = table[(table["layer"] == LAYER) & (table["kind"] == kind)]["km"].to_numpy()
        assert len(of_kind) == 201
        assert of_kind[[0, 100, 200]].tolist() == [km[0], np.median(km), km[-1]]
    figure = estimates.plot_estimates(study, result)
    assert figure.get_size_inches()[0] == pytest.approx(180 / 25.4)


# Baselines ----------------------------------------------------------------------------------------


def test_baselines_are_evaluated_in_the_same_folds(world):
    study, table, _ = world
    result = baselines.compare_models(study, table, {LAYER: PARAMS}, n_jobs=1).set_index(
        ["domain", "model"]
    )
    whole = result.loc["whole"]
    assert list(whole.index) == list(baselines.MODELS)
    assert whole.loc["most_frequent", "kappa"] == 0
    # One threshold separates the first two of three classes; places say nothing here.
    assert (
        whole.loc["forest", "kappa"]
        > whole.loc["frost_number", "kappa"]
        > 0.2
        > whole.loc["neighbours", "kappa"]
    )
    others = whole.drop(index="forest")
    assert (others["kappa_low"] <= others["kappa_difference"]).all()
    assert (others["kappa_difference"] <= others["kappa_high"]).all()
    assert others.loc["neighbours", "kappa_low"] > 0
    difference = whole.loc["forest", "kappa"] - others["kappa"]
    assert others["kappa_difference"].to_numpy() == pytest.approx(difference.to_numpy())


def test_the_optimism_of_a_search(world):
    study, table, _ = world
    result = baselines.selection_optimism(study, table, LAYER)
    assert list(result.index) == list(grid_search.SEARCH_SCORES)
    assert result["optimism"].to_numpy() == pytest.approx(
        (result["winner"] - result["nested"]).to_numpy()
    )
    assert abs(result.loc["kappa", "optimism"]) < 0.15


# Predictions that are evaluated in other ways -----------------------------------------------------


def test_intervals_hold_their_estimate(result):
    for score in HEADLINE_SCORES:
        assert (result[f"{score}_lower"] < result[score]).all()
        assert (result[score] < result[f"{score}_upper"]).all()


def test_reports_of_folds_have_the_scores_of_the_estimates_and_areas(world, result, predicted):
    study = world[0]
    folded = estimates.evaluate_folds(study, predicted)
    keys = result.set_index(["domain", "estimate"])
    for kind, layers in folded.items():
        for domain, report in layers[LAYER].items():
            row = keys.loc[(domain, kind)]
            scores = [report[score] for score in HEADLINE_SCORES]
            assert scores == pytest.approx(row[list(HEADLINE_SCORES)])
            assert report["intervals"]["kappa"] == pytest.approx(
                [row["kappa_lower"], row["kappa_upper"]]
            )
            assert report["area_adjusted"]["indicative"]
            assert report["permafrost"]["overall_accuracy"] >= report["overall_accuracy"]


@pytest.mark.parametrize("which", predictions.MAPS)
def test_areas_of_classes_are_those_of_the_map(world, both, result, which):
    study, _, rasters = world
    predicted = both[which]
    areas = predictions.mapped_areas(study, predicted, LAYER)
    rows, probabilities = predicted.tested[LAYER], predicted.test[LAYER]
    classes = predicted.classes_of(study, LAYER, probabilities)
    reports = {LAYER: evaluate(study, rows, probabilities, classes, areas)}
    table = by_area.class_areas(study, predicted, reports)
    whole = table[table["domain"] == "whole"].set_index("class")
    cells = (rasters[f"ice_type_{LAYER}"] < 255).sum()
    assert whole["mapped_km2"].sum() == pytest.approx(cells * 400.0)
    assert whole["sample_share"].sum() == pytest.approx(1)
    assert (whole["adjusted_lower"] <= whole["adjusted_km2"]).all()
    assert (whole["adjusted_km2"] <= whole["adjusted_upper"]).all()
    assert estimates.plot_estimates(study, result, areas=table).axes


def test_as_much_permafrost_is_mapped_as_is_expected(world, both):
    study, table, _ = world
    hurdle = fit_hurdle(study, layer_rows(table, LAYER, "train"))
    values, _, in_domain = evaluation_cells(study)
    chance = hurdle.predict(values, in_domain).permafrost
    expected = both["expected"]
    frozen = expected.mapped[LAYER] > 0
    assert frozen.mean() == pytest.approx(chance.mean(), abs=1 / len(chance) + 1e-4)
    assert chance[frozen].min() >= chance[~frozen].max() - 1e-4
    # Samples have the same limit.
    chance = expected.test[LAYER][:, 1:].sum(axis=1)
    limit = expected.cuts[LAYER] * 1e-4
    classes = expected.classes_of(study, LAYER, expected.test[LAYER])
    np.testing.assert_array_equal(classes > 0, chance >= limit - 5e-5)
    assert both["reference"].cuts == {LAYER: 0}


def test_outside_of_the_domain_nothing_is_expected_to_have_permafrost(both):
    expected = both["expected"]
    assert (expected.mapped[LAYER][~expected.in_domain] == 0).all()
    for rows, chances in (
        (expected.tested[LAYER], expected.test[LAYER]),
        (expected.rows[LAYER], expected.out_of_fold[LAYER, "random"]),
    ):
        assert (chances[~rows["in_domain"].to_numpy(bool), 0] == 1).all()
        np.testing.assert_allclose(chances.sum(axis=1), 1)


def test_predictions_are_written_and_read(world, both):
    study, table, _ = world
    with pytest.raises(AccuracyError, match="no predictions"):
        predictions.read_predictions(study, table)
    predictions.write_predictions(study, both)
    back = predictions.read_predictions(study, table)
    assert list(back) == list(predictions.MAPS)
    for which, one in both.items():
        for name in ("folds", "out_of_fold", "test", "mapped", "cuts"):
            ours, theirs = getattr(one, name), getattr(back[which], name)
            assert list(ours) == list(theirs)
            for key, values in ours.items():
                np.testing.assert_array_equal(values, theirs[key])
        np.testing.assert_array_equal(one.cells, back[which].cells)
        np.testing.assert_array_equal(one.in_domain, back[which].in_domain)
        pd.testing.assert_frame_equal(one.tested[LAYER], back[which].tested[LAYER])
    with pytest.raises(AccuracyError, match="other samples"):
        predictions.read_predictions(study, table.iloc[1:].reset_index(drop=True).iloc[:-8])


def test_residuals_say_what_the_reports_say(world, both, predicted):
    study = world[0]
    wrong = residuals.residuals(study, predicted)
    test = wrong[wrong["estimate"] == "test"]
    reference, mapped = predicted.tested[LAYER]["class"], predicted.test[LAYER].argmax(axis=1)
    assert test["error"].mean() == pytest.approx((reference != mapped).mean())
    assert (wrong["distance_km"] > 0).all()
    by_distance = residuals.error_by_distance(study, wrong)
    assert by_distance[by_distance["domain"] == "whole"]["n"].sum() == len(wrong)
    assert {"error", "residual", "surprise"} == set(residuals.autocorrelation(study, wrong)["of"])
    chances = {which: one.test for which, one in both.items()}
    curves, errors = reliability.evaluate_reliability(study, predicted.tested, chances)
    assert set(errors["probabilities"]) == set(reliability.KINDS) == set(predictions.MAPS)
    assert set(errors["layer"]) == {LAYER, "all"}
    assert len(reliability.plot_reliability(study, curves, errors).axes) == 6
    assert residuals.plot_residuals(study, wrong, by_distance).axes


def test_classes_without_an_order_have_no_distance(world, predicted, monkeypatch):
    study = world[0]
    target = replace(study.target_classes, ordered=False)
    monkeypatch.setattr(Study, "target_classes", property(lambda self: target))
    rows, probabilities = predicted.tested[LAYER], predicted.test[LAYER]
    report = evaluate(study, rows, probabilities, probabilities.argmax(axis=1))["whole"]
    assert report["kappa"] is not None
    assert report["quadratic_kappa"] is None
    assert "quadratic_kappa" not in report["intervals"]
    wrong = residuals.residuals(study, predicted)
    assert "residual" not in wrong
    assert {"error", "surprise"} == set(residuals.autocorrelation(study, wrong)["of"])
    assert residuals.plot_residuals(study, wrong, residuals.error_by_distance(study, wrong)).axes
