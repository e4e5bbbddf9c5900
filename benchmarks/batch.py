"""A batch of 24 runs, killed half-way, against 24 times one run.

    python benchmarks/batch.py

Works on copies of the project in a temporary folder, on the quick study. The single run is `make
map` with all cores, from nothing to the figures. The batch has three axes, begins without
covariates and ends with the figures, too. It is killed by SIGKILL with half of its runs done, and
continued; its time is that of both parts. Its table is compared with that of the same batch in
another copy, uninterrupted and in process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
STUDY = "config/quick.yaml"
COPIED = (
    "src",
    "config",
    "notebooks",
    "data/base",
    "data/README.md",
    "Snakefile",
    "pyproject.toml",
)
AXES = {
    "samples.seed": [1, 2, 3],
    "forest.seed": [1, 2, 3, 4],
    "left_out": {"nothing": [], "soil": ["soil"]},
}


def copied(folder):
    """Copy the parts of the project that a run needs."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)
    return folder


def start(project, *arguments, **options):
    """Start the front door of a copy."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "launcher", *arguments],
        cwd=project,
        env=environment,
        **options,
    )


def timed(project, *arguments):
    """Run the front door to its end; return seconds."""
    started = time.monotonic()
    with start(project, *arguments) as process:
        status = process.wait()
    assert status == 0, arguments
    return time.monotonic() - started


def killed_half_way(project, runs):
    """Start the batch and kill it with half of its runs done; return seconds."""
    started = time.monotonic()
    with start(project, "batch", "benchmark", stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="")
            if line.startswith(f"[{runs // 2}/"):
                os.kill(process.pid, signal.SIGKILL)
    return time.monotonic() - started


def write_sweep(project, **more):
    """Write the sweep file of the benchmark."""
    sweep = {"base": STUDY, "axes": AXES, **more}
    (project / "config/sweeps/benchmark.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")


def table(project):
    """Return the batch's table."""
    return pd.read_csv(project / "results/batches/benchmark/runs.csv")


def main():
    """Print the times, their ratio, and what was redone after the kill."""
    runs = len(AXES["samples.seed"]) * len(AXES["forest.seed"]) * len(AXES["left_out"])
    with tempfile.TemporaryDirectory() as folder:
        peer, project = copied(Path(folder) / "peer"), copied(Path(folder) / "project")
        single = timed(peer, "map", STUDY)
        write_sweep(peer, engine="process")
        timed(peer, "batch", "benchmark")

        write_sweep(project, until="06-publication-figures")
        seconds = killed_half_way(project, runs)
        records = list(project.glob("results/quick/run-*/notebooks/**/*.json"))
        before = {path: path.stat().st_mtime_ns for path in records}
        finished = sum(path.name.startswith("06") for path in records)
        seconds += timed(project, "batch", "benchmark")
        again = sum(path.stat().st_mtime_ns != when for path, when in before.items())
        same = table(project).equals(table(peer))
        executed = project / "results/batches/benchmark/07-compare-runs.ipynb"
        compared = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"][
            "duration"
        ]
    redone = f"{again} of {len(before)} finished notebooks were redone"
    print(f"killed with {finished} of {runs} runs done; {redone}")
    print(f"the table is {'the same as' if same else 'another than'} without interruption")
    result = {"name": "batch", "seconds": round(seconds, 1), "peer": f"{runs} times `make map`"}
    result |= {"peer_seconds": round(runs * single, 1), "ratio": round(runs * single / seconds, 2)}
    result |= {
        "share": round(seconds / (runs * single), 3),
        "redone_notebooks": again,
        "same_table": same,
    }
    print(json.dumps(result | {"comparison_seconds": round(compared, 1)}))


if __name__ == "__main__":
    main()
