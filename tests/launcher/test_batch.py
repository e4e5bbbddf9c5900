"""Whole batches: one process does what notebooks do, failures stay alone, samples are copied."""

import json
import math
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
from launcher.batch import _pool
from launcher.stages import STAGES


def write_sweep(project, **settings):
    path = project / "config" / "sweeps" / "try.yaml"
    path.write_text(yaml.safe_dump({"base": "config/quick.yaml", **settings}), encoding="utf-8")
    return json.dumps(settings)


def test_one_process_gives_what_the_notebooks_give(copy, raster_equal):
    """Killed when its first run has ended, the batch goes on.

    That run is the finished quick study's, by notebooks.
    """
    seed = Study.open("config/quick.yaml").forest.seed
    write_sweep(
        copy,
        engine="process",
        design="list",
        runs=[{"forest.seed": seed}, {"folds.number": 5000}, {"samples.test_share": 1.5}],
    )
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try", "--cores", "1"]
    piped = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=copy, env=environment(copy), **piped) as first:
        assert any(line.startswith("[1/2") for line in first.stdout)
        os.kill(first.pid, signal.SIGKILL)
    (index,) = copy.glob("results/quick/run-*/run.json")
    finished = index.stat().st_mtime_ns
    status, out, err = front_door(copy, "batch", "try")
    assert status == 1, err
    assert index.stat().st_mtime_ns == finished
    runs = json.loads((copy / "results/batches/try/batch.json").read_text())["runs"]
    assert [one["status"] for one in runs] == ["done", "failed", "impossible"]
    assert any(
        line.startswith("failed: ") and "cannot be dealt into 5000 folds" in line for line in out
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
    assert len(rasters) == 3 * (3 + 3) + 2
    for name in rasters:
        raster_equal(theirs / "maps" / name, ours / "maps" / name)
    assert json.loads((ours / "run.json").read_text())["engine"] == "process"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_batch_in_processes_can_be_stopped(copy, number):
    write_sweep(copy, engine="process", axes={"campaign.truth.seed": [1, 2, 3, 4]})
    command = [sys.executable, "-u", "-m", "launcher", "batch", "try"]
    state = copy / ".run" / "quick"
    piped = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=copy, env=environment(copy), **piped) as batch:
        while not list(state.glob("run-*/events.jsonl")):
            assert batch.poll() is None
            time.sleep(0.1)
        batch.send_signal(number)
        _, err = batch.communicate(timeout=60)
    assert batch.returncode == 1
    assert f"Stopped by {number.name}" in err


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
    status, _, err = front_door(copy, "batch", "try", "--dry-run", "--profile", "slrm")
    assert status == 1
    assert "slurm, workstation" in err[1]


@pytest.mark.parametrize(
    ("settings", "copied"),
    [
        pytest.param({"forest.seed": 1}, ["testbed/2-boreholes", "02-extract-samples"], id="both"),
        pytest.param({"samples.seed": 1}, ["testbed/2-boreholes"], id="boreholes"),
        pytest.param({"campaign.boreholes.seed": 1}, [], id="none"),
    ],
)
def test_equal_samples_are_copied_and_others_are_not(copy, settings, copied):
    study = Study.open("config/quick.yaml").changed({**settings, "run": "try"})
    path = copy / "results/quick/try/study.yaml"
    study.write(path)
    (path.parent / "notebooks/testbed").mkdir(parents=True)
    code = f"""
from pathlib import Path
from launcher import notebooks, stages
from helpers.core.study import Study

study = Study.open({str(path)!r})
for name, stage in stages.STAGES.items():
    if stage.copied:
        part = Path({str(path.parent)!r}) / "part"
        fingerprint = stages.stage_fingerprint(study, name)
        print(name, notebooks._copy_from_twin(study, name, fingerprint, part))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env=environment(copy),
        capture_output=True,
        text=True,
        check=True,
    )
    main = copy / "results/quick/main"
    twins = dict(line.split() for line in done.stdout.splitlines())
    assert twins == {
        name: str(main) if name in copied else "None"
        for name in ("testbed/2-boreholes", "02-extract-samples")
    }
    for name, file in (("testbed/2-boreholes", "sites.csv"), ("02-extract-samples", "samples.csv")):
        file = path.parent / "samples" / file
        assert file.is_file() is (name in copied)
        if name in copied:
            assert file.read_bytes() == (main / "samples" / file.name).read_bytes()


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


def test_a_dask_scheduler_can_do_the_runs(tmp_path, monkeypatch):
    """The executor of a scheduler on loopback takes what the pool of processes takes."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        study = Study(name="a", compute={"scheduler": cluster.scheduler_address})
        with _pool(study, tmp_path, 1) as pool:
            assert pool.submit(math.sqrt, 9).result() == 3
