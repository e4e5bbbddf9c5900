"""Estimates over many worlds: bias and coverage of estimates that are honest, and that are not."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.core.study import Study
from testbed import coverage


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def estimated(rng, shift, reach, worlds=400):
    """Return two estimates of each world: an honest one, and one that is too high and too sure."""
    true = rng.uniform(0.5, 0.7, worlds)
    tables = []
    for estimate, off, width in (("random", 0.0, 1.645), ("test", shift, reach)):
        value = true + off + rng.normal(0, 0.03, worlds)
        ends = {"lower": value - width * 0.03, "upper": value + width * 0.03}
        names = {
            "estimate": estimate,
            "score": "overall_accuracy",
            "truth": "holes",
            "design": "random",
            "layer": "a",
        }
        tables.append(pd.DataFrame({"estimated": value, "true": true, **ends, **names}))
    table = pd.concat(tables, ignore_index=True)
    seed = np.tile(np.arange(worlds), 2)
    return table.assign(seed=seed, run=[f"r{number}" for number in seed])


def test_bias_and_coverage_of_an_honest_and_a_wrong_estimate(rng):
    table = coverage.bias(estimated(rng, 0.05, 0.8)).set_index("estimate")
    assert abs(table.loc["random", "bias"]) < 3 * table.loc["random", "bias_se"] < 0.01
    assert table.loc["test", "bias"] == pytest.approx(0.05, abs=0.006)
    assert table.loc["random", "rmse"] == pytest.approx(0.03, rel=0.15)
    assert table.loc["random", "holds_lower"] < 0.90 < table.loc["random", "holds_upper"]
    assert table.loc["test", "holds_upper"] < 0.5
    assert (table["replicates"] == 400).all()


def test_the_best_estimate_is_evaluated_on_other_worlds_than_those_that_chose_it(rng):
    table = estimated(rng, 0.05, 0.8)
    best = coverage.best_estimate(table)
    assert best["chosen"].tolist() == ["random", "random"]
    assert best["replicates"].tolist() == [200, 200]
    # An estimate that is right in one half of the worlds alone is chosen for the other half alone.
    odd = table["seed"].rank(method="dense").astype(int) % 2 == 1
    right = (table["estimate"] == "test") & odd
    split = table.assign(estimated=table["estimated"].where(~right, table["true"]))
    assert coverage.best_estimate(split).set_index("half")["chosen"].to_dict() == {
        0: "test",
        1: "random",
    }


def test_totals_by_design():
    totals = pd.DataFrame(
        {"design": ["random"] * 4, "km3": [90.0, 110, 120, 100], "true_km3": 100.0}
    )
    totals = totals.assign(
        lower=totals["km3"] - 15, upper=totals["km3"] + 15, in_permafrost_free_cells=0.02
    )
    covered = coverage.total_coverage(totals).loc["random"]
    assert covered["bias"] == pytest.approx(0.05)
    assert covered["width"] == pytest.approx(0.3)
    assert (covered["holds"], covered["replicates"]) == (0.75, 4)
    assert covered["in_permafrost_free_cells"] == 0.02


def write_run(folder, seed, rng):
    study = Study.open("config/quick.yaml").changed({"campaign.truth.seed": seed})
    study.write(folder / "study.yaml")
    tables = folder / "tables"
    tables.mkdir()
    scores = ("overall_accuracy", "kappa", "macro_f1")

    def accuracy(estimate, reference):
        row = {"layer": "2-3m", "domain": "potential_permafrost"}
        row |= {"estimate": estimate, "reference": reference}
        for score in scores:
            value = 0.6 + rng.normal(0, 0.01) + 0.05 * (reference == "cells")
            row |= {score: value, f"{score}_lower": value - 0.1, f"{score}_upper": value + 0.1}
        return row

    estimated = [accuracy("random", "samples")]
    true = [accuracy("true_train", reference) for reference in ("samples", "cells")]
    pd.DataFrame(estimated).to_csv(tables / "validation.csv", index=False)
    pd.DataFrame(true).to_csv(tables / "true_accuracy.csv", index=False)
    total = {"km3": [10.0], "lower": 8.0, "upper": 12.0, "true_km3": 9.0}
    total = pd.DataFrame(total, index=["all"])
    total.to_csv(tables / "true_totals.csv", index_label="region")
    sides = pd.DataFrame({"group": ["inside", "outside"], "share": [0.9, 0.1], "error": [0.3, 0.4]})
    sides = sides.assign(error_probable=0.2, expected=0.2, avoidable=[0.01, np.nan])
    sides = sides.assign(by="area of applicability", layer="2-3m", domain="potential_permafrost")
    # In the second world nothing lies outside.
    sides[: 1 if seed == 1 else 2].to_csv(tables / "true_applicability.csv", index=False)
    (tables / "true_storage.json").write_text(json.dumps({"in_permafrost_free_cells": 0.03}))


def test_runs_are_read_plotted_and_written(tmp_path, rng):
    folders = {}
    for seed in range(coverage.LEAST_WORLDS):
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        folders[f"quick/run-{seed}"] = folder
        write_run(folder, seed, rng)
    assert coverage.has_worlds(folders)
    estimates, totals = coverage.read_estimates(folders)
    assert len(totals) == coverage.LEAST_WORLDS
    true = estimates[estimates["score"] == "kappa"].groupby("truth")["true"].mean()
    assert true["cells"] - true["holes"] == pytest.approx(0.05, abs=0.02)
    assert set(estimates["estimate"]) == {"random"}
    biases = coverage.bias(estimates)
    covered = coverage.total_coverage(totals)
    for figure in (coverage.plot_bias(biases), coverage.plot_totals(totals)):
        assert "SIMULATED" in str([text.get_text() for text in figure.texts])
    unlike = coverage.by_applicability(coverage.read_applicability(folders))
    best = coverage.best_estimate(estimates)
    coverage.write_coverage(tmp_path / "batch.json", biases, best, covered, unlike)
    record = json.loads((tmp_path / "coverage.json").read_text())
    assert record["total"][0]["holds"] == 1.0
    error, probable = record["applicability"][:2]
    assert (error["measure"], error["replicates"]) == ("error", coverage.LEAST_WORLDS - 1)
    assert error["outside_share"] == 0.1
    assert (error["difference"], error["higher"]) == (pytest.approx(0.1), 1.0)
    assert (probable["difference"], probable["higher"]) == (0.0, 0.0)
    measures = {one["measure"] for one in record["applicability"]}
    assert measures == {"error", "error_probable", "expected"}
    folders.popitem()
    assert not coverage.has_worlds(folders)
    assert all(table.empty for table in coverage.read_estimates(folders))
    assert coverage.read_applicability(folders).empty
