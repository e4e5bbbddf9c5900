"""Batches: which runs a sweep has, what is refused, and that one process does what the notebooks do."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers.core.grid import reference_grid
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.mapping.files import map_files
from launcher import compare
from launcher.batch import _pool, run_batch
from launcher.stages import IN_PROCESS
from launcher.sweep import Range, Sweep, SweepError, planned_runs

ROOT = Path(__file__).parents[2]


def sweep_file(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"base: config/quick.yaml\n{text}", encoding="utf-8")
    return path


def plan(tmp_path, text):
    return planned_runs(Sweep.open(sweep_file(tmp_path, text)))


# What a sweep says --------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination(tmp_path):
    runs = plan(tmp_path, "axes: {forest.seed: [1, 2, 3], samples.test_share: [0.2, 0.4]}")
    told = [(one["study"].forest.seed, one["study"].samples.test_share) for one in runs]
    assert told == [(seed, share) for seed in (1, 2, 3) for share in (0.2, 0.4)]
    assert len({one["study"].run for one in runs}) == 6


def test_a_list_has_its_own_runs(tmp_path):
    runs = plan(tmp_path, "design: list\nruns:\n  - {forest.seed: 1}\n  - {samples.seed: 2, domain.above: 0.4}")
    assert [one["values"] for one in runs] == [{"forest.seed": "1"}, {"samples.seed": "2", "domain.above": "0.4"}]


def test_random_designs_repeat_and_stay_in_their_ranges(tmp_path):
    text = "design: random\nsize: 20\nseed: {}\naxes: {{domain.above: {{low: 0.4, high: 0.5}}, forest.seed: [1, 2]}}"
    first, again, other = (plan(tmp_path, text.format(seed)) for seed in (1, 1, 2))
    above = [[one["study"].domain.above for one in runs] for runs in (first, again, other)]
    assert above[0] == above[1] != above[2]
    assert all(0.4 <= value <= 0.5 for value in above[0])
    assert len(first) == 20


@pytest.mark.parametrize(("low", "high", "log"), [(1, 5, False), (1.0, 5.0, False), (0.01, 100.0, True)])
def test_ranges_are_uniform(low, high, log):
    rng, drawn = np.random.default_rng(1), []
    drawn = [Range(low=low, high=high, log=log).draw(rng) for _ in range(4000)]
    assert all(isinstance(value, type(low)) and low <= value <= high for value in drawn)
    middle = np.median(np.log(drawn) if log else drawn)
    assert middle == pytest.approx(0 if log else 3, abs=0.25)


def test_labels_stand_for_values(tmp_path):
    runs = plan(tmp_path, "axes:\n  left_out: {nothing: [], no relief: [terrain]}")
    assert [(one["values"]["left_out"], one["study"].left_out) for one in runs] == [
        ("nothing", []),
        ("no relief", ["terrain"]),
    ]


def test_replicates_get_numbers_of_their_own(tmp_path):
    text = "replicates: {settings: [truth.seed, boreholes.seed], seeds: [7, 8]}"
    runs, again = plan(tmp_path, text), plan(tmp_path, text)
    numbers = [(one["study"].truth.seed, one["study"].boreholes.seed) for one in runs]
    assert len({number for pair in numbers for number in pair}) == 4
    assert [one["study"].run for one in runs] == [one["study"].run for one in again]
    assert [one["values"] for one in runs] == [{"replicate": "7"}, {"replicate": "8"}]


def test_equal_runs_are_one_run(tmp_path):
    seed = Study.open("config/quick.yaml").forest.seed
    runs = plan(tmp_path, f"design: list\nruns:\n  - {{forest.seed: {seed}}}\n  - {{samples.same_cell: together}}")
    assert len(runs) == 1


def test_the_key_is_of_what_results_depend_on():
    study = Study.open("config/quick.yaml")
    for names in ({"title": "Another"}, {"run": "another"}, {"compute": {"scheduler": "tcp://there:1"}}):
        assert study.changed(names).key == study.key
    for settings in ({"forest.seed": 1}, {"left_out": ["soil"]}, {"grid.margin": 0}):
        assert study.changed(settings).key != study.key


def test_the_key_knows_the_content_of_given_files(tmp_path):
    table = tmp_path / "sites.csv"
    table.write_text("a")
    one = Study(name="a", samples={"sites": str(table)}).key
    table.write_text("b")
    assert Study(name="a", samples={"sites": str(table)}).key != one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("axes: {forest.sede: [1]}", ["`forest.sede`", "did you mean `forest.seed`"], id="axis"),
        pytest.param("axes: {seeed: [1]}", ["`seeed`", "did you mean `"], id="axis without its section"),
        pytest.param("axes: {forest.seed.x: [1]}", ["`forest.seed.x`"], id="below a number"),
        pytest.param("design: list\nruns: [{smples.seed: 1}]", ["did you mean `samples.seed`"], id="in a list"),
        pytest.param("replicates: {settings: [truth.sed], seeds: [1]}", ["`truth.seed`"], id="in replicates"),
        pytest.param("axes: {run: [a, b]}", ["`run` cannot vary"], id="name"),
        pytest.param("axis: {forest.seed: [1]}", ["`axis`"], id="key"),
        pytest.param("design: grid", ["nothing to vary"], id="empty"),
        pytest.param("design: list", ["needs `runs`"], id="empty list"),
        pytest.param("axes: {domain.above: {low: 0.4, high: 0.5}}", ["is a range", "design: random"], id="range"),
        pytest.param("axes: [", ["not readable"], id="no yaml"),
        pytest.param("axes: {samples: [{seed: 3}]}", ["`samples` is a section", "`samples."], id="section"),
        pytest.param("axes: {covariates.terrain: [{}]}", ["`covariates.terrain` is a section"], id="inner section"),
        pytest.param("axes: {forest.seed: []}", ["`forest.seed` has no values"], id="axis without values"),
        pytest.param(
            "axes: {truth.seed: [1]}\nreplicates: {settings: [truth.seed], seeds: [1]}",
            ["`truth.seed` is an axis and"],
            id="axis and replicates",
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\nruns: [{forest.seed: 2}]", ["does not read `runs`"], id="runs of no list"
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\ndesign: list\nruns: [{forest.seed: 2}]",
            ["does not read `axes`"],
            id="axes of a list",
        ),
        pytest.param(
            "design: random\naxes: {domain.above: {low: 0.5, high: 0.4}}", ["to a larger `high`"], id="falling range"
        ),
        pytest.param("axes: {forest.seed: [1]}\nuntil: 05-mapp", ["`until`", "05-map-ground-ice"], id="stage"),
    ],
)
def test_a_bad_sweep_is_refused_before_anything_runs(tmp_path, text, expected):
    with pytest.raises(Exception, match="Remedy: ") as caught:
        plan(tmp_path, text)
    for part in expected:
        assert part in str(caught.value)


def test_an_unknown_sweep_names_the_nearest():
    with pytest.raises(SweepError, match="such as seeds"):
        Sweep.open("seedz")


def test_keys_of_a_dictionary_can_vary(tmp_path):
    (one,) = plan(tmp_path, "axes: {ice.unfrozen_water.peat: [0.3]}")
    assert one["study"].ice.unfrozen_water["peat"] == 0.3


def test_levels_may_be_labelled_low_and_high(tmp_path):
    runs = plan(tmp_path, "axes: {ice.thresholds: {low: [0.1, 0.2, 0.3, 0.5], high: [0.15, 0.25, 0.35, 0.55]}}")
    assert [one["values"] for one in runs] == [{"ice.thresholds": "low"}, {"ice.thresholds": "high"}]


def test_a_profile_is_refused_where_it_would_not_count(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("base: config/quick.yaml\nengine: process\naxes: {forest.seed: [1]}")
    with pytest.raises(SweepError, match="no profile"):
        run_batch(path, profile="slurm")


def test_impossible_settings_are_told_and_the_others_run(tmp_path):
    runs = plan(tmp_path, "axes: {samples.test_share: [0.3, 1.5]}")
    assert [one["error"] == "" for one in runs] == [True, False]
    assert "`samples.test_share`" in runs[1]["error"]
    assert "1.5" in runs[1]["error"]


@pytest.mark.parametrize("path", sorted((ROOT / "config/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_ours_is_sound(path):
    assert not [one["error"] for one in planned_runs(Sweep.open(path)) if one["error"]]


# Comparison ---------------------------------------------------------------------------------------------------


def outcomes(**columns):
    table = pd.DataFrame(columns)
    for name in (*compare.COMPARED_SCORES, compare.STORAGE):
        table[name] = table.get(name, 0.0)
    return table.assign(status="done", run=[f"run-{n}" for n in range(len(table))])


def test_shares_of_additive_effects_by_hand():
    # kappa = 0.1 a + 0.02 b over a full grid: variances 0.0025 and 0.0001, no rest.
    grid = [(a, b) for a in (0, 1) for b in (0, 1)]
    table = outcomes(
        a=[str(a) for a, _ in grid], b=[str(b) for _, b in grid], kappa=[0.1 * a + 0.02 * b for a, b in grid]
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


def test_a_learning_curve_needs_different_sizes():
    table = outcomes(a=["0", "1"], training_samples=[100.0, 101.0])
    assert compare.learning_curve(table, simulated=False) is None
    assert compare.ablation(table, ["a"], simulated=False) is None


def test_ablation_is_the_change_from_the_run_with_all_predictors(monkeypatch):
    table = outcomes(
        left_out=["nothing", "soil"] * 2,
        seed=["1", "1", "2", "2"],
        kappa=[0.5, 0.4, 0.7, 0.4],
        ice_km3=[1.0, 2.0, 3.0, 5.0],
    )
    figure = compare.ablation(table, ["left_out", "seed"], simulated=True)
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


# Whole batches ------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(quick, tmp_path):
    """Return a copy of the finished quick project, file times kept, free to be edited."""
    shutil.copytree(quick, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def helpers(project, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def write_sweep(project, **settings):
    path = project / "config" / "sweeps" / "try.yaml"
    path.write_text(yaml.safe_dump({"base": "config/quick.yaml", **settings}), encoding="utf-8")
    return json.dumps(settings)


def test_one_process_gives_what_the_notebooks_give(copy, raster_equal):
    """Killed when its first run has ended, the batch goes on; that run is the finished quick study's, by notebooks."""
    seed = Study.open("config/quick.yaml").forest.seed
    write_sweep(
        copy,
        engine="process",
        design="list",
        runs=[{"forest.seed": seed}, {"folds.number": 5000}, {"samples.test_share": 1.5}],
    )
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try", "--cores", "1"]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    with subprocess.Popen(command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert any(line.startswith("[1/2") for line in first.stdout)
        os.kill(first.pid, signal.SIGKILL)
    (index,) = copy.glob("results/quick/run-*/run.json")
    finished = index.stat().st_mtime_ns
    status, out, err = helpers(copy, "batch", "try")
    assert status == 1, err
    assert index.stat().st_mtime_ns == finished
    told = json.loads((copy / "results/batches/try/batch.json").read_text())["runs"]
    assert [one["status"] for one in told] == ["done", "failed", "impossible"]
    assert any(line.startswith("failed: ") and "cannot be dealt into 5000 folds" in line for line in out)
    assert any(line.startswith("impossible: ") and "1.5" in line for line in out)
    table = pd.read_csv(copy / "results/batches/try/runs.csv")
    assert table["status"].tolist() == ["done", "failed", "impossible"]
    ours, theirs = copy / told[0]["folder"], copy / "results/quick/main"
    for name in (
        "samples/samples.csv",
        *(f"tables/{one}" for one in ("accuracy.json", "storage.json", "applicability.csv")),
    ):
        assert (ours / name).read_text() == (theirs / name).read_text(), name
    # All but what cells of reports write.
    rasters = sorted(path.name for path in (ours / "maps").glob("*.tif"))
    assert len(rasters) == 3 * (3 + 3) + 2
    for name in rasters:
        raster_equal(theirs / "maps" / name, ours / "maps" / name)
    assert json.loads((ours / "run.json").read_text())["engine"] == "process"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_batch_in_processes_can_be_stopped(copy, number):
    write_sweep(copy, engine="process", axes={"truth.seed": [1, 2, 3, 4]})
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try"]
    environment, state = {**os.environ, "PYTHONPATH": str(copy / "src")}, copy / ".run" / "quick"
    with subprocess.Popen(command, cwd=copy, env=environment, stderr=subprocess.PIPE, text=True) as batch:
        while not list(state.glob("run-*/events.jsonl")):
            assert batch.poll() is None
            time.sleep(0.1)
        batch.send_signal(number)
        _, err = batch.communicate(timeout=60)
    assert batch.returncode == 1
    assert f"Stopped by {number.name}" in err


def test_a_mistyped_axis_runs_nothing(copy):
    write_sweep(copy, axes={"forest.sead": [1]})
    status, _, err = helpers(copy, "batch", "try")
    assert status == 1
    assert "did you mean `forest.seed`?" in err[0]
    assert not (copy / "results/batches").exists()


def test_a_dry_run_for_a_cluster(copy):
    write_sweep(copy, axes={"forest.seed": [1, 2]})
    status, out, err = helpers(copy, "batch", "try", "--dry-run", "--profile", "slurm")
    assert status == 0, err
    assert [line.split()[:2] for line in out] == [[stage, "2"] for stage in IN_PROCESS]
    status, _, err = helpers(copy, "batch", "try", "--dry-run", "--profile", "slrm")
    assert status == 1
    assert "slurm, workstation" in err[1]


def test_equal_samples_are_copied_and_others_are_not(copy):
    for settings, same in (({"forest.seed": 1}, True), ({"samples.seed": 1}, False)):
        study = Study.open("config/quick.yaml").changed(settings | {"run": f"try-{same}"})
        path = copy / "results/quick" / study.run / "study.yaml"
        study.write(path)
        code = f"from launcher import run; from helpers.core.study import Study; s = Study.open({str(path)!r}); "
        code += "print(run._copy_samples(s, run._made_of(s, '02-extract-samples'), run.stage_dir(s, '02') / 'part'))"
        (path.parent / "notebooks").mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy / "src")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (done.stdout.strip() == str(copy / "results/quick/main")) is same
        copied = path.parent / "samples" / "samples.csv"
        assert copied.is_file() is same
        if same:
            assert copied.read_bytes() == (copy / "results/quick/main/samples/samples.csv").read_bytes()


@pytest.mark.soak
def test_a_small_budget_of_memory_runs_one_notebook_at_a_time(copy):
    """By the local executor of Snakemake, with a profile like that of a workstation."""
    (copy / "small").mkdir()
    (copy / "small/config.yaml").write_text("cores: 2\nresources: {mem_mb: 1000}\n")
    write_sweep(copy, axes={"samples.seed": [1, 2]})
    status, _, err = helpers(copy, "batch", "try", "--profile", "small", "--cores", "1")
    assert status == 0, err
    events = [json.loads(line) for line in (copy / ".run/batches/try/events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "cell"]
    assert kinds == ["start", "end"] * 8


def test_any_runs_can_be_compared(copy):
    status, _, err = helpers(copy, "compare", "results/quick/main", "results/quick/nothing")
    assert status == 1
    assert "results/quick/nothing is not the folder of a finished run" in err[0]


def test_a_dask_scheduler_can_do_the_runs(tmp_path, monkeypatch):
    """The executor of a scheduler on loopback takes what the pool of processes takes."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        study = Study(name="a", compute={"scheduler": cluster.scheduler_address})
        with _pool(study, tmp_path, 1) as pool:
            assert pool.submit(math.sqrt, 9).result() == 3
