"""A batch of 24 runs against 24 times one run, and what a batch that was killed half-way redoes.

    python benchmarks/batch.py [config/quick.yaml]

Works on a copy of the project in a temporary folder. The single run is `make map` of the study with all cores, from
nothing to the figures. The batch has three axes, ends with the figures, too, and starts without covariates. Then the
same batch is started from nothing again, killed by SIGKILL with half of its runs done, and continued.
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
COPIED = ("src", "config", "notebooks", "data/base", "Snakefile", "pyproject.toml")
AXES = {"samples.seed": [1, 2, 3], "forest.seed": [1, 2, 3, 4], "left_out": {"nothing": [], "no soil": ["soil"]}}
DONE = "results/quick/run-*/notebooks/06-publication-figures.json"


def copied(folder):
    """Copy the parts of the project that a run needs."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "zz.yaml"))
        else:
            shutil.copy2(source, target)
    return folder


def start(project, *arguments, **options):
    """Start the front door of a copy."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "helpers", *arguments], cwd=project, env=environment, **options
    )


def timed(project, *arguments):
    """Run the front door to its end; return seconds."""
    started = time.monotonic()
    with start(project, *arguments) as process:
        status = process.wait()
    assert status == 0, arguments
    return time.monotonic() - started


def forget(project):
    """Remove all that runs have made."""
    for name in ("data/raw", "data/processed", "results", ".run", "figures"):
        shutil.rmtree(project / name, ignore_errors=True)


def main(study="config/quick.yaml"):
    """Print the times, the ratio, and what was redone after the kill."""
    with tempfile.TemporaryDirectory() as folder:
        project = copied(Path(folder) / "project")
        sweep = {"base": study, "axes": AXES, "until": "06-publication-figures"}
        (project / "config/sweeps/benchmark.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
        single = timed(project, "map", study)
        forget(project)
        batch = timed(project, "batch", "benchmark")
        table = pd.read_csv(project / "results/batches/benchmark/runs.csv")
        assert (table["status"] == "done").all()
        runs = len(table)
        compared = json.loads((project / "results/batches/benchmark/07-compare-runs.ipynb").read_text(encoding="utf-8"))

        forget(project)
        with start(project, "batch", "benchmark", stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="")
                if line.startswith(f"[{runs // 2}/"):
                    os.kill(process.pid, signal.SIGKILL)
        before = {path: path.stat().st_mtime_ns for path in project.glob("results/quick/run-*/notebooks/*.json")}
        finished = list(project.glob(DONE))
        rest = timed(project, "batch", "benchmark")
        again = sum(path.stat().st_mtime_ns != when for path, when in before.items())
        same = table.equals(pd.read_csv(project / "results/batches/benchmark/runs.csv"))
    print(f"killed with {len(finished)} of {runs} runs done; {again} of {len(before)} finished notebooks were redone")
    print(f"the rest took {rest:.0f} s; the table is {'the same' if same else 'another'}")
    result = {"name": "batch", "runs": runs, "seconds": round(batch, 1), "peer": f"{runs} times a single run"}
    result |= {"single_seconds": round(single, 1), "peer_seconds": round(runs * single, 1)}
    result |= {"ratio": round(runs * single / batch, 2), "share": round(batch / (runs * single), 3)}
    result |= {"redone_notebooks": again, "same_table": same}
    result |= {"comparison_seconds": round(compared["metadata"]["papermill"]["duration"], 1)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
