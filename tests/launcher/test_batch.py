"""Whole batches: one process does what notebooks do, failures stay alone, samples are copied."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from project import environment, front_door

from helpers.core.study import Study
from launcher.stages import STAGES


def write_sweep(project, **settings):
    path = project / "config" / "sweeps" / "try.yaml"
    path.write_text(yaml.safe_dump({"base": "config/quick.yaml", **settings}), encoding="utf-8")
    return json.dumps(settings)


def python(project, code):
    """Run code with the packages of a project's copy; return lines of output."""
    command = [sys.executable, "-c", code]
    options = {"capture_output": True, "text": True, "check": True}
    done = subprocess.run(command, cwd=project, env=environment(project), **options)
    return done.stdout.splitlines()


def test_one_process_gives_what_the_notebooks_give(copy, raster_equal):
    """Killed when its first run has ended, the batch goes on.

    That run is the finished quick study's, by notebooks.
    """
    seed = Study.open("config/quick.yaml").forest.seed
    write_sweep(
        copy,
        engine="process",
        design="list",
        runs=[
            {"forest.seed": seed},
            {"folds.number": 100, "samples.train_share": 0.3},
            {"samples.test_share": 1.5},
        ],
    )
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try", "--cores", "1"]
    piped = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=copy, env=environment(copy), **piped) as first:
        assert any(line.startswith("[1/2") for line in first.stdout)
        events = copy / ".run/batches/try/events.jsonl"
        while len({json.loads(line)["run"] for line in events.read_text().splitlines()}) < 2:
            time.sleep(0.1)
        os.kill(first.pid, signal.SIGKILL)
    (index,) = copy.glob("results/quick/run-*/run.json")
    finished = index.stat().st_mtime_ns
    status, out, err = front_door(copy, "batch", "try")
    assert status == 1, err
    assert index.stat().st_mtime_ns == finished
    runs = json.loads((copy / "results/batches/try/batch.json").read_text())["runs"]
    assert [one["status"] for one in runs] == ["done", "failed", "impossible"]
    assert any(
        line.startswith("failed: ") and "cannot be dealt into 100 folds" in line for line in out
    )
    assert any(line.startswith("impossible: ") and "1.5" in line for line in out)
    table = pd.read_csv(copy / "results/batches/try/runs.csv")
    assert table["status"].tolist() == ["done", "failed", "impossible"]
    ours, theirs = copy / runs[0]["folder"], copy / "results/quick/main"
    for name in (
        "samples/samples.csv",
        *(f"tables/{one}" for one in ("accuracy.json", "storage.json", "applicability.csv")),
    ):
        assert (ours / name).read_text() == (theirs / name).read_text(), name
    # All but what cells of reports write.
    rasters = sorted(path.name for path in (ours / "maps").glob("*.tif"))
    assert len(rasters) == 3 * (6 + 4) + 2
    for name in rasters:
        raster_equal(theirs / "maps" / name, ours / "maps" / name)
    assert json.loads((ours / "run.json").read_text())["engine"] == "process"


def test_a_batch_in_processes_can_be_stopped(copy):
    write_sweep(copy, engine="process", axes={"campaign.truth.seed": [1, 2, 3, 4]})
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try"]
    events = copy / ".run/batches/try/events.jsonl"
    piped = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=copy, env=environment(copy), **piped) as batch:
        while not (events.is_file() and events.read_text()):
            assert batch.poll() is None
            time.sleep(0.1)
        batch.terminate()
        _, err = batch.communicate(timeout=60)
    assert batch.returncode == 1
    assert "Stopped by SIGTERM" in err


def test_a_mistyped_axis_runs_nothing(copy):
    write_sweep(copy, axes={"forest.sead": [1]})
    status, _, err = front_door(copy, "batch", "try")
    assert status == 1
    assert "did you mean `forest.seed`?" in err[0]
    assert not (copy / "results/batches").exists()


def test_a_dry_run_for_a_cluster(copy):
    write_sweep(copy, axes={"forest.seed": [1, 2]})
    status, out, err = front_door(copy, "batch", "try", "--dry-run", "--profile", "slurm")
    assert status == 0, err
    assert [line.split()[:2] for line in out] == [
        [stage.name, "2"] for stage in STAGES.values() if stage.in_process
    ]
    write_sweep(copy, axes={"forest.seed": [1, 2]}, engine="process")
    status, out, err = front_door(copy, "batch", "try", "--dry-run", "--profile", "slurm")
    assert status == 0, err
    assert [line.split() for line in out] == [["runs", "in", "one", "process", "2", "jobs"]]
    status, _, err = front_door(copy, "batch", "try", "--dry-run", "--profile", "slrm")
    assert status == 1
    assert "slurm, workstation" in err[1]


SAMPLES = ["testbed/2-boreholes", "02-boreholes", "02-extract-samples"]


@pytest.mark.parametrize(
    ("settings", "copied"),
    [
        pytest.param({"forest.seed": 1}, SAMPLES, id="all"),
        pytest.param({"samples.seed": 1}, SAMPLES[:2], id="boreholes"),
        pytest.param({"campaign.boreholes.seed": 1}, [], id="none"),
    ],
)
def test_equal_samples_are_copied_and_others_are_not(copy, settings, copied):
    write_sweep(copy, design="list", runs=[{"accuracy.draws": 50}, settings])
    code = """
import subprocess
from launcher import batch, run

one = batch._Batch("try", None, None)
command = [*run._command(one.job(one.studies)), "--dry-run"]
print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
"""
    done = python(copy, code)
    words = [line.split() for line in done if "launcher stage" in line]
    stages = [line[line.index("stage") + 1] for line in words if "--twin" in line]
    assert stages == copied
    assert len(words) == 2 * sum(stage.in_process for stage in STAGES.values())


def test_a_copy_is_that_of_a_finished_run(copy):
    main = Study.open("config/quick.yaml")
    study = main.changed({"run": "try", "forest.seed": 1})
    path = copy / "results/quick/try/study.yaml"
    study.write(path)
    twin = copy / "results/quick/main/study.yaml"
    for name in SAMPLES:
        status, _, err = front_door(copy, "stage", name, path, "--twin", twin)
        assert status == 0, err
    for file in ("sites.csv", "samples.csv"):
        ours, theirs = path.parent / "samples" / file, twin.parent / "samples" / file
        assert ours.read_bytes() == theirs.read_bytes()
    (record,) = path.parent.rglob("02-extract-samples.json")
    assert json.loads(record.read_text())["copied_from"] == "results/quick/main"
    next(twin.parent.rglob("02-extract-samples.json")).unlink()
    status, _, err = front_door(copy, "stage", "02-extract-samples", path, "--twin", twin)
    assert status == 0, err
    assert "copied_from" not in json.loads(record.read_text())


@pytest.mark.soak
def test_a_small_budget_of_memory_runs_one_notebook_at_a_time(copy):
    """By the local executor of Snakemake, with a profile like that of a workstation."""
    (copy / "small").mkdir()
    (copy / "small/config.yaml").write_text("cores: 2\nresources: {mem_mb: 1000}\n")
    write_sweep(copy, axes={"samples.seed": [1, 2]})
    status, _, err = front_door(copy, "batch", "try", "--profile", "small", "--cores", "1")
    assert status == 0, err
    events = [
        json.loads(line)
        for line in (copy / ".run/batches/try/events.jsonl").read_text().splitlines()
    ]
    kinds = [event["event"] for event in events if event["event"] != "cell"]
    assert kinds == ["start", "end"] * sum(2 * stage.in_process for stage in STAGES.values())


def test_any_runs_can_be_compared(copy):
    status, _, err = front_door(copy, "compare", "results/quick/main", "results/quick/nothing")
    assert status == 1
    assert "results/quick/nothing is not the folder of a finished run" in err[0]


def test_jobs_are_chosen_when_one_has_ended_and_no_more_often(tmp_path):
    (tmp_path / "Snakefile").write_text(
        'rule all:\n    input: expand("{n}.txt", n=range(5))\n'
        'rule one:\n    output: "{n}.txt"\n    shell: "sleep 1.2; echo done > {output}"\n'
    )
    command = [sys.executable, "-m", "launcher", "snakemake", "all", "--cores", "1"]
    command += ["--verbose", "--scheduler", "greedy", "--directory", str(tmp_path)]
    command += ["--snakefile", str(tmp_path / "Snakefile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.txt"))) == 5
    # One choice for each job, and one that finds nothing left.
    assert 5 <= done.stderr.count("Ready jobs") <= 7, done.stderr
