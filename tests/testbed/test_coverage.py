"""Promised against true: what bias and coverage say of promises that are known to be honest, or not."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from helpers.core.study import Study
from testbed import coverage


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (9, 10), (180, 200), (200, 200)])
def test_wilson_is_scipy_s(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.90, "wilson")
    assert coverage.wilson(successes, n, 1.6448536) == pytest.approx((expected.low, expected.high))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def promised(rng, shift, reach, worlds=400):
    """Return promises of two estimates: an honest one, and one that is too high and too sure."""
    true = rng.uniform(0.5, 0.7, worlds)
    tables = []
    for estimate, off, width in (("random", 0.0, 1.645), ("test", shift, reach)):
        value = true + off + rng.normal(0, 0.03, worlds)
        ends = {"lower": value - width * 0.03, "upper": value + width * 0.03}
        names = {"estimate": estimate, "score": "overall_accuracy", "truth": "holes", "design": "random", "layer": "a"}
        tables.append(pd.DataFrame({"promised": value, "true": true, **ends, **names}))
    table = pd.concat(tables, ignore_index=True)
    seed = np.tile(np.arange(worlds), 2)
    return table.assign(seed=seed, run=[f"r{number}" for number in seed])


def test_bias_and_coverage_of_known_promises(rng):
    table = coverage.bias(promised(rng, 0.05, 0.8)).set_index("estimate")
    assert abs(table.loc["random", "bias"]) < 3 * table.loc["random", "bias_se"] < 0.01
    assert table.loc["test", "bias"] == pytest.approx(0.05, abs=0.006)
    assert table.loc["random", "rmse"] == pytest.approx(0.03, rel=0.15)
    assert table.loc["random", "holds_lower"] < 0.90 < table.loc["random", "holds_upper"]
    assert table.loc["test", "holds_upper"] < 0.5
    assert (table["replicates"] == 400).all()


def test_the_best_estimate_is_judged_on_other_worlds_than_those_that_chose_it(rng):
    table = promised(rng, 0.05, 0.8)
    best = coverage.best_estimate(table)
    assert best["chosen"].tolist() == ["random", "random"]
    assert best["replicates"].tolist() == [200, 200]
    # An estimate that is right in one half of the worlds alone is chosen for the other half alone.
    odd = table["seed"].rank(method="dense").astype(int) % 2 == 1
    split = table.assign(promised=np.where((table["estimate"] == "test") & odd, table["true"], table["promised"]))
    assert coverage.best_estimate(split).set_index("half")["chosen"].to_dict() == {0: "test", 1: "random"}


def test_totals_by_design():
    totals = pd.DataFrame({"design": ["random"] * 4, "km3": [90.0, 110, 120, 100], "true_km3": 100.0})
    totals = totals.assign(lower=totals["km3"] - 15, upper=totals["km3"] + 15, in_permafrost_free_cells=0.02)
    found = coverage.total_coverage(totals).loc["random"]
    assert found["bias"] == pytest.approx(0.05)
    assert (found["holds"], found["replicates"], found["in_permafrost_free_cells"]) == (0.75, 4, 0.02)
    assert found["width"] == pytest.approx(0.3)


def written_run(folder, seed, rng):
    study = Study.open("config/quick.yaml").changed({"truth.seed": seed})
    study.write(folder / "study.yaml")
    (folder / "tables").mkdir()
    rows = []
    for estimate, reference in (("random", "samples"), ("true_train", "samples"), ("true_train", "cells")):
        row = {"layer": "2-3m", "domain": "potential_permafrost", "estimate": estimate, "reference": reference}
        for score in ("overall_accuracy", "kappa", "macro_f1"):
            value = 0.6 + rng.normal(0, 0.01) + 0.05 * (reference == "cells")
            row |= {score: value, f"{score}_lower": value - 0.1, f"{score}_upper": value + 0.1}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "tables/validation.csv", index=False)
    interval = pd.DataFrame({"km3": [10.0], "lower": 8.0, "upper": 12.0, "true_km3": 9.0}, index=["all"])
    interval.to_csv(folder / "tables/storage_interval.csv", index_label="region")
    sides = pd.DataFrame({"group": ["inside", "outside"], "share": [0.9, 0.1], "error": [0.3, 0.4]})
    sides = sides.assign(error_probable=0.2, expected=0.2, avoidable=[0.01, np.nan], by="area of applicability")
    sides = sides.assign(layer="2-3m", domain="potential_permafrost")
    # In the second world nothing lies outside.
    sides[: 1 if seed == 1 else 2].to_csv(folder / "tables/applicability.csv", index=False)
    told = {"against_truth": {"in_permafrost_free_cells": 0.03}}
    (folder / "tables/storage.json").write_text(json.dumps(told))


def test_runs_are_read_drawn_and_written(tmp_path, rng):
    folders = {}
    for seed in range(coverage.LEAST_WORLDS):
        folders[f"quick/run-{seed}"] = tmp_path / f"run-{seed}"
        folders[f"quick/run-{seed}"].mkdir()
        written_run(tmp_path / f"run-{seed}", seed, rng)
    promises, totals = coverage.read_promises(folders)
    assert len(totals) == coverage.LEAST_WORLDS
    by_truth = promises[promises["score"] == "kappa"].groupby("truth")
    assert (by_truth["true"].mean()["cells"] - by_truth["true"].mean()["holes"]) == pytest.approx(0.05, abs=0.02)
    assert set(promises["estimate"]) == {"random"}
    biases, covered = coverage.bias(promises), coverage.total_coverage(totals)
    for figure in (coverage.plot_bias(biases), coverage.plot_totals(totals)):
        assert "SIMULATED" in str([text.get_text() for text in figure.texts])
    unlike = coverage.by_applicability(coverage.read_applicability(folders))
    coverage.write_coverage(tmp_path / "batch.json", biases, coverage.best_estimate(promises), covered, unlike)
    told = json.loads((tmp_path / "coverage.json").read_text())
    assert told["total"][0]["holds"] == 1.0
    error, probable = (told["applicability"][number] for number in (0, 1))
    assert (error["measure"], error["replicates"], error["outside_share"]) == ("error", coverage.LEAST_WORLDS - 1, 0.1)
    assert (error["difference"], error["higher"]) == (pytest.approx(0.1), 1.0)
    assert (probable["difference"], probable["higher"]) == (0.0, 0.0)
    assert {one["measure"] for one in told["applicability"]} == {"error", "error_probable", "expected"}
    folders.popitem()
    assert all(table.empty for table in (*coverage.read_promises(folders), coverage.read_applicability(folders)))
