"""Replicates in process, and some also by papermill: seconds, and whether results are equal.

    python benchmarks/replicates.py [replicates] [by papermill]

Each replicate redraws hidden fields, truth and boreholes of the quick study. Works on a copy of the
project in a temporary folder.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import yaml
from batch import copied, timed

SETTINGS = ["campaign.truth.seed", "campaign.boreholes.seed"]
TEXTS = ("samples/samples.csv", "tables/accuracy.json", "tables/storage.json")


def results(project, runs):
    """Return the tables, as text, and the maps of runs."""
    found = {}
    for run in runs:
        folder = project / "results/quick" / run
        found |= {(run, name): (folder / name).read_text(encoding="utf-8") for name in TEXTS}
        for path in sorted((folder / "maps").glob("*.tif")):
            with rasterio.open(path) as source:
                found[run, path.name] = source.read()
    return found


def main(replicates=200, by_papermill=20):
    """Print the times, and how many of the compared files are equal."""
    with tempfile.TemporaryDirectory() as folder:
        project = copied(Path(folder) / "project")
        base = {
            "base": "config/quick.yaml",
            "replicates": {"settings": SETTINGS, "seeds": list(range(int(replicates)))},
        }
        path = project / "config/sweeps/benchmark.yaml"
        timed(project, "map", "config/quick.yaml", "--until", "01-prepare-data")
        path.write_text(yaml.safe_dump({**base, "engine": "process"}), encoding="utf-8")
        seconds = timed(project, "batch", "benchmark")
        index = json.loads(
            (project / "results/batches/benchmark/batch.json").read_text(encoding="utf-8")
        )
        runs = [one["run"] for one in index["runs"]]
        ours = results(project, runs[: int(by_papermill)])
        base["replicates"]["seeds"] = base["replicates"]["seeds"][: int(by_papermill)]
        path.write_text(yaml.safe_dump({**base, "engine": "notebooks"}), encoding="utf-8")
        peer_seconds = timed(project, "batch", "benchmark")
        theirs = results(project, runs[: int(by_papermill)])
    equal = [
        np.array_equal(ours[key], theirs[key], equal_nan=key[1].endswith(".tif")) for key in ours
    ]
    print(f"{sum(equal)} of {len(equal)} files of {by_papermill} replicates are equal by papermill")
    for key in [key for key, same in zip(ours, equal, strict=True) if not same][:5]:
        print("differs:", *key)
    each, peer = seconds / int(replicates), peer_seconds / int(by_papermill)
    result = {"name": "replicates", "runs": int(replicates), "seconds": round(seconds, 1)}
    result |= {
        "peer": "papermill, the same number",
        "peer_seconds": round(peer * int(replicates), 1),
    }
    result |= {"ratio": round(peer / each, 2), "equal_files": f"{sum(equal)}/{len(equal)}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
