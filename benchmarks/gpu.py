"""Probabilities of a map by scikit-learn on all cores and by nvForest, in one run.

It needs no study: a balanced forest as large as the default study's is grown from synthetic
samples, and predicts as many cells as its map has. Fails if a probability differs by more than
1e-6, or the most probable class of a cell at all. Without a GPU nvForest works on the cores. The
last line is JSON: seconds of each, the best of three, and their ratio.

``python benchmarks/gpu.py [trees] [cells]``; nvForest is the extra ``gpu`` of pyproject.toml.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import cpu_count
from sklearn.ensemble import RandomForestClassifier

from helpers.core.rasters import BLOCK
from helpers.forest.leaves import leaf_means
from helpers.mapping.engine import converted, engine

SAMPLES, PREDICTORS = 700, 22
TURNS = 3


def best(predict):
    """Return the least seconds of some turns, and the last turn's probabilities."""
    seconds = []
    for _ in range(TURNS):
        since = time.perf_counter()
        probabilities = predict()
        seconds.append(time.perf_counter() - since)
        if seconds[-1] > 60:
            break
    return min(seconds), probabilities


def main(trees="1000", cells="1440000"):
    """Print what both take."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(SAMPLES, PREDICTORS)).astype(np.float32)
    score = values[:, 0] + values[:, 1] + rng.normal(size=SAMPLES)
    classes = np.digitize(score, np.quantile(score, [0.4, 0.5, 0.65, 0.8, 0.95]))
    forest = RandomForestClassifier(
        int(trees), class_weight="balanced", random_state=1, n_jobs=cpu_count()
    ).fit(values, classes)
    ground = rng.normal(size=(int(cells), PREDICTORS)).astype(np.float32)
    chunk = BLOCK[0] * BLOCK[1]  # as `map_layer` has them
    parts = [ground[start : start + chunk] for start in range(0, len(ground), chunk)]
    name = engine("nvforest")
    fast = converted(forest, name)
    fast.predict_proba(parts[0])  # the device is made ready
    with ThreadPoolExecutor(cpu_count()) as pool:
        slow_s, slow = best(
            lambda: np.concatenate(list(pool.map(lambda part: leaf_means(forest, part), parts)))
        )
    fast_s, found = best(lambda: np.concatenate([fast.predict_proba(part) for part in parts]))
    most = float(np.abs(slow - found).max())
    other = int((slow.argmax(axis=1) != found.argmax(axis=1)).sum())
    record = {
        "trees": int(trees),
        "cells": int(cells),
        "cores": cpu_count(),
        "scikit_learn": engine("scikit-learn"),
        "scikit_learn_s": round(slow_s, 3),
        "nvforest": name,
        "nvforest_s": round(fast_s, 3),
        "times_as_fast": round(slow_s / fast_s, 2),
        "largest_difference": most,
        "cells_of_another_class": other,
    }
    print(json.dumps(record))
    if most > 1e-6 or other:
        sys.exit("The probabilities differ.")


if __name__ == "__main__":
    main(*sys.argv[1:])
