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
            "map": "expected",
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


def test_totals_by_design():
    totals = pd.DataFrame({"km3": [90.0, 110, 120, 100], "true_km3": 100.0, "of": "all"})
    totals = totals.assign(lower=totals["km3"] - 15, upper=totals["km3"] + 15, rmse_m=0.5)
    layers = pd.DataFrame({"km3": [9.0, 12.0], "true_km3": 10.0, "of": "2-3m"})
    totals = pd.concat([totals.assign(in_permafrost_free_cells=0.02), layers], ignore_index=True)
    covered = coverage.total_coverage(totals.assign(design="random")).set_index("of")
    whole = covered.loc["all"]
    assert whole["bias"] == pytest.approx(0.05)
    assert whole["width"] == pytest.approx(0.3)
    assert (whole["holds"], whole["replicates"]) == (0.75, 4)
    assert (whole["in_permafrost_free_cells"], whole["rmse_m"]) == (0.02, 0.5)
    # A layer has no interval.
    assert covered.loc["2-3m", "bias"] == pytest.approx(0.05)
    assert np.isnan(covered.loc["2-3m", "holds"])


def write_run(folder, seed, rng):
    study = Study.open("config/quick.yaml").changed({"campaign.truth.seed": seed})
    study.write(folder / "study.yaml")
    tables = folder / "tables"
    tables.mkdir()
    rows = []
    for score in ("overall_accuracy", "kappa", "macro_f1"):
        promised, true, of_cells = 0.6 + rng.normal(0, 0.01, 3) + [0, 0, 0.05]
        row = {"layer": "2-3m", "domain": "potential_permafrost", "estimate": "random"}
        row |= {"score": score, "promised": promised, "true": true, "true_of_cells": of_cells}
        rows.append(row | {"map": "expected", "lower": promised - 0.1, "upper": promised + 0.1})
    rows += [row | {"domain": "whole", "promised": 0.9} for row in rows]
    pd.DataFrame(rows).to_csv(tables / "promised_and_true.csv", index=False)
    total = {"km3": [10.0, 2.0], "lower": [8.0, 1.0], "upper": [12.0, 3.0], "true_km3": [9.0, 4.0]}
    total = pd.DataFrame(total, index=["all", "Jilin"])
    total.to_csv(tables / "true_totals.csv", index_label="region")
    groups = {"group": ["inside", "outside", "a", "b", "1", "2", "3"], "share": 0.5, "error": 0.3}
    groups |= {"by": ["area of applicability"] * 2 + ["trust"] * 2 + ["dissimilarity"] * 3}
    groups = pd.DataFrame(groups).assign(error_permafrost=0.1, avoidable=[0.01, np.nan] + [0] * 5)
    groups["error"] = [0.3, 0.1, 0.2, 0.4, 0.1, 0.2, 0.3]
    groups["expected"] = groups["error"] + 0.05
    groups = groups.assign(layer="2-3m", domain="potential_permafrost")
    groups.to_csv(tables / "true_applicability.csv", index=False)
    # In the second world the map errs less outside.
    withheld = {"layer": ["2-3m"], "inside": 0.2, "outside": 0.1 if seed == 1 else 0.4}
    withheld |= {"outside_share": 0.1, "correlation": 0.8}
    pd.DataFrame(withheld).to_csv(tables / "true_withheld.csv", index=False)
    layers = {"2-3m": {"mapped_km3": 3.0, "true_km3": 2.0}}
    record = {"in_permafrost_free_cells": 0.03, "rmse_m": 0.5, "layers": layers}
    (tables / "true_storage.json").write_text(json.dumps(record))


def test_runs_are_read_plotted_and_written(tmp_path, rng):
    folders = {}
    for seed in range(coverage.LEAST_WORLDS):
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        folders[f"quick/run-{seed}"] = folder
        write_run(folder, seed, rng)
    assert coverage.worlds_of(folders)
    estimates, totals = coverage.read_estimates(folders), coverage.read_totals(folders)
    assert len(totals) == 3 * coverage.LEAST_WORLDS
    true = estimates[estimates["score"] == "kappa"].groupby("truth")["true"].mean()
    assert true["cells"] - true["holes"] == pytest.approx(0.05, abs=0.02)
    assert set(estimates["estimate"]) == {"random"}
    assert estimates["estimated"].max() < 0.7  # of the domain alone
    biases = coverage.bias(estimates)
    covered = coverage.total_coverage(totals)
    for figure in (coverage.plot_bias(biases), coverage.plot_totals(totals)):
        assert "SIMULATED" in str([text.get_text() for text in figure.texts])
    groups, withheld = coverage.read_trust(folders)
    levels, unsampled = coverage.trust_levels(groups), coverage.withheld_errors(withheld)
    tables = {"bias": biases, "total": covered, "trust": levels, "withheld": unsampled}
    coverage.write_coverage(tmp_path / "batch.json", **tables)
    record = json.loads((tmp_path / "coverage.json").read_text())
    of = {row["of"]: row for row in record["total"]}
    assert (of["all"]["holds"], of["Jilin"]["holds"], of["2-3m"]["holds"]) == (1.0, 0.0, None)
    assert of["2-3m"]["bias"] == pytest.approx(0.5)
    trust = {row["group"]: row for row in record["trust"]}
    assert trust["a"]["error"] == pytest.approx(0.2)
    assert trust["b"]["share"] == pytest.approx(0.5)
    (row,) = record["withheld"]
    assert row["higher"] == pytest.approx(1 - 1 / coverage.LEAST_WORLDS)
    assert (row["correlation"], row["correlation_of_map"]) == (pytest.approx(0.8), 1.0)
    folders.popitem()
    assert not coverage.worlds_of(folders)
    assert coverage.read_estimates(folders).empty
    assert coverage.read_totals(folders).empty
    assert all(table.empty for table in coverage.read_trust(folders))


def test_a_survey_makes_another_design_of_the_same_worlds(tmp_path, rng):
    quick = Study.open("config/quick.yaml").changed({"campaign.boreholes.design": "ice_seeking"})
    folders = {}
    for seed in range(coverage.LEAST_WORLDS):
        for error in (None, 0.1):
            name = f"{seed}-{error}"
            settings = {"campaign.truth.seed": seed, "campaign.survey_error": error}
            quick.changed(settings).write(tmp_path / name / "study.yaml")
            folders[name] = tmp_path / name
    worlds = coverage.worlds_of(folders)
    assert len(worlds) == len(folders)
    designs = [world["design"] for world in worlds.values()]
    assert designs[:2] == ["ice_seeking", "ice_seeking, surveyed"]
    # Both are drawn, side by side.
    table = estimated(rng, 0.05, 0.8, worlds=5)
    both = pd.concat([table.assign(design=design) for design in designs[:2]])
    (off, _) = coverage.plot_bias(coverage.bias(both)).axes
    assert off.get_legend_handles_labels()[1] == designs[:2]
    assert not coverage.worlds_of(folders | {"twice": tmp_path / "0-0.1"})
