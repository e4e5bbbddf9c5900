"""A map on a dask cluster of worker processes, one of which dies, is that of one process."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from distributed import Client, LocalCluster
from project import assert_same_rasters, environment


@pytest.fixture
def cluster(copy):
    """A scheduler, and two workers of one thread that use the packages of the copy."""
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(LocalCluster(n_workers=0, dashboard_address=None))
        command = [sys.executable, "-m", "dask", "worker", local.scheduler_address]
        command += ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        workers = [
            subprocess.Popen(command, cwd=copy, env=environment(copy), stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        for worker in workers:
            stack.callback(worker.wait)
            stack.callback(worker.kill)
        while len(local.scheduler_info["workers"]) < 2:
            time.sleep(0.1)
        yield local.scheduler_address, workers


def test_a_worker_that_dies_loses_nothing(copy, cluster, quick):
    address, workers = cluster
    path = copy / "results/quick/main/study.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["compute"]["scheduler"] = address
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    stage = [sys.executable, "-m", "launcher", "stage"]
    (processed,) = (copy / "data/processed").glob("quick-*")
    shutil.rmtree(processed)
    subprocess.run(
        [*stage, "01-prepare-data", str(path)], cwd=copy, env=environment(copy), check=True
    )
    assert_same_rasters(copy, quick, f"data/processed/{processed.name}")
    maps = copy / "results/quick/main/maps"
    shutil.rmtree(maps)
    process = subprocess.Popen(
        [*stage, "05-map-ground-ice", str(path)],
        cwd=copy,
        env=environment(copy),
    )
    with Client(address) as client:
        (first,) = (
            worker for worker, pid in client.run(os.getpid).items() if pid == workers[0].pid
        )
        while not client.processing()[first]:
            assert process.poll() is None
            time.sleep(0.05)
    workers[0].kill()  # with a window in hand
    assert process.wait() == 0
    assert workers[1].poll() is None
    assert_same_rasters(copy, quick, "results/quick/main/maps")
