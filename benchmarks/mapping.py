"""Time of the whole map beside bare predictions of the same forests.

The map's time includes reading, predicting, quantiles, the limit of permafrost and writing. Run
after ``make map``, whose covariates, samples and forests it reads; maps go to a temporary folder.
Ours and the peer take turns, layer by layer. The peer is `predict_proba` of the balanced forest and
of the hurdle's on rows that are already in memory, in chunks of 100 000 by two threads, a forest
with one job. On a machine that does other things too, seconds of the processor are more reliable
than those of the clock. The last line is JSON: the peak is that of the process that makes the map.

``python benchmarks/mapping.py [config/virtual.yaml]``
"""

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.core import classes
from helpers.core.study import Study
from helpers.forest import cards
from helpers.forest.paths import model_path
from helpers.mapping.predict import map_layer
from helpers.samples.extract import read_predictors

THREADS = 2
ROWS = 100_000


def make_map(path, folder, turn, results):
    """Make the map in a folder of our own, a layer at each turn; send seconds, cells and memory."""
    import sklearn.ensemble  # noqa: F401 - the peer has imported it, too

    Study.results_dir = property(lambda self: Path(folder))
    study = Study.open(path)
    for layer in study.layers:
        turn.get()
        since, worked = time.perf_counter(), time.process_time()
        cells = map_layer(study, layer, THREADS)["cells"]["expected"]
        spent = time.perf_counter() - since, time.process_time() - worked
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        results.put((*spent, sum(cells.values()), peak))


def predict(models, values):
    """Return the seconds of the clock and of the processor that bare predictions take."""
    parts = [values[start : start + ROWS] for start in range(0, len(values), ROWS)]
    since, worked = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        for model in models:
            list(pool.map(model.predict_proba, parts))
    return time.perf_counter() - since, time.process_time() - worked


def main(path="config/virtual.yaml"):
    """Print a line a layer, and the sums as JSON."""
    study = Study.open(path)
    context = multiprocessing.get_context("spawn")
    sums = [0.0] * 4
    with tempfile.TemporaryDirectory() as folder:
        for part in ("models", "samples"):
            shutil.copytree(study.results_dir / part, Path(folder) / part)
        turn, results = context.Queue(), context.Queue()
        ours = context.Process(target=make_map, args=(path, folder, turn, results), daemon=True)
        ours.start()
        for layer in study.layers:
            name = classes.layer_name(layer)
            model, card = cards.load_model(model_path(study, name))
            hurdle, _ = cards.load_hurdle(model_path(study, name, kind="ice"))
            values, _ = read_predictors(study, card["predictors"])
            models = [model, *hurdle.forests]
            peer = predict(models, values)
            turn.put(True)
            *own, cells, peak = results.get()
            assert cells == len(values)
            sums = [before + new for before, new in zip(sums, (*own, *peer), strict=True)]
            print(
                f"{name}: {cells} cells, {sum(map(len, models))} trees, "
                f"ours {own[0]:.1f} s ({own[1]:.1f} s of processor), "
                f"bare {peer[0]:.1f} s ({peer[1]:.1f} s)",
                flush=True,
            )
        ours.join()
    seconds, worked, peer_seconds, peer_worked = sums
    print(
        f"ours over bare: {seconds / peer_seconds:.3f} by the clock, "
        f"{worked / peer_worked:.3f} by processor seconds"
    )
    record = {
        "name": "mapping",
        "seconds": round(seconds, 2),
        "peer": "predict_proba on rows in memory, two threads",
        "peer_seconds": round(peer_seconds, 2),
        "ratio": round(peer_seconds / seconds, 3),
        "cpu_seconds": round(worked, 2),
        "peer_cpu_seconds": round(peer_worked, 2),
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
