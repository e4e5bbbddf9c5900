"""Comparison of runs: effects of settings, and agreement of maps, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from helpers.core.grid import reference_grid
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.mapping.files import map_files
from launcher import compare


def outcomes(**columns):
    table = pd.DataFrame(columns)
    for name in (*compare.COMPARED_SCORES, compare.STORAGE):
        table[name] = table.get(name, 0.0)
    return table.assign(status="done", run=[f"run-{n}" for n in range(len(table))])


def test_shares_of_additive_effects_by_hand():
    # kappa = 0.1 a + 0.02 b over a full grid: variances 0.0025 and 0.0001, no rest.
    grid = [(a, b) for a in (0, 1) for b in (0, 1)]
    table = outcomes(
        a=[str(a) for a, _ in grid],
        b=[str(b) for _, b in grid],
        kappa=[0.1 * a + 0.02 * b for a, b in grid],
    )
    found = compare.effects(table, ["a", "b"])
    found = found[found["outcome"] == "kappa"].set_index("setting")
    assert found.loc["a", "share"] == pytest.approx(25 / 26)
    assert found.loc["b", "share"] == pytest.approx(1 / 26)
    assert found.loc["a", "range"] == pytest.approx(0.1)
    assert found.loc["a", "within"] == pytest.approx(math.sqrt(4 * 0.01**2 / 2))


def test_failed_runs_do_not_count():
    table = outcomes(a=["0", "1", "1"], kappa=[0.1, 0.2, 9.9])
    table.loc[2, "status"] = "failed"
    found = compare.effects(table, ["a"]).set_index("outcome")
    assert found.loc["kappa", "range"] == pytest.approx(0.1)


@pytest.mark.parametrize(("sizes", "columns"), [([100.0, 101.0], 1), ([100.0, 200.0], 2)])
def test_a_learning_curve_needs_different_sizes(sizes, columns):
    table = outcomes(a=["0", "1"], training_samples=sizes)
    figure = compare.plot_effects(table, ["a"], "SIMULATED")
    assert len(figure.axes) == 2 * columns
    assert figure.axes[-1].get_xlabel() == ["a", "training_samples"][columns - 1]
    assert compare.plot_effects(table, [], "") is None
    assert compare.plot_ablation(table, ["a"], "") is None


def test_ablation_is_the_change_from_the_run_with_all_predictors(monkeypatch):
    table = outcomes(
        left_out=["nothing", "soil"] * 2,
        seed=["1", "1", "2", "2"],
        kappa=[0.5, 0.4, 0.7, 0.4],
        ice_km3=[1.0, 2.0, 3.0, 5.0],
    )
    figure = compare.plot_ablation(table, ["left_out", "seed"], "SIMULATED")
    widths = [panel.patches[0].get_width() for panel in figure.axes]
    assert widths == pytest.approx([0.0, -0.2, 1.5])


@pytest.fixture
def maps(study, tmp_path, monkeypatch):
    """Three runs whose maps are known: types of one layer, and storage."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / self.run))
    study = study.changed({"layers": [[2, 3]]})
    shape, runs = tuple(reference_grid(study).shape), []
    for number in range(3):
        one = study.changed({"run": f"r{number}"})
        types = np.full(shape, 4, np.uint8)
        types[0, 0] = number  # all differ
        types[0, 1] = min(number, 1)  # two agree
        types[0, 2] = 255 if number == 0 else 1  # one has no prediction
        storage = np.zeros(shape, np.float32)
        storage[0, :2] = [number, 1 + 2 * number]
        storage[0, 2] = np.nan if number == 0 else 1
        for name, values in (("ice_type_2-3m", types), ("ice_storage", storage)):
            write_raster(
                map_files(one)[name], values, reference_grid(one), study=one, names=name, units="1",
                nodata=255 if values.dtype == np.uint8 else None,
            )  # fmt: skip
        runs.append(one)
    return runs


def test_agreement_of_three_maps_by_hand(maps):
    found = compare.agreement(maps)
    shares = found["agreement_2-3m"]
    assert shares[0, :2] == pytest.approx([1 / 3, 2 / 3])
    assert np.isnan(shares[0, 2])
    assert (shares[1:] == 1).all()
    assert found["ice_mean"][0, :2] == pytest.approx([1, 3])
    assert found["ice_sd"][0, :2] == pytest.approx([1, 2])
    assert np.isnan(found["ice_sd"][0, 2])


def test_only_maps_of_one_grid_are_laid_over_each_other(maps, tmp_path):
    other = maps[0].changed({"run": "other", "grid.resolution": 40_000})
    folders = {}
    for one in (*maps, other):
        one.write(one.results_dir / "study.yaml")
        folders[one.run] = one.results_dir
    assert [one.run for one in compare.compared_studies(folders)] == ["r0", "r1", "r2"]
