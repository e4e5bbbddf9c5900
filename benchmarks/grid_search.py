"""Time of the grid search from one forest, beside scikit-learn's `GridSearchCV` over the same grid and folds.

``python benchmarks/grid_search.py [config/virtual.yaml] [trees]`` reads the training samples of the study's first
layer: run ``python -m launcher map --until 02-extract-samples`` before. With 1000 trees, the default, the grid is the
study's, and the peer takes minutes; fewer trees scale all sizes of a forest. Both run in two processes that they start
themselves, and both winners are scored on the 30 % of sites that no search saw. Ours runs before and after the peer,
and the slower run counts, lest another program's load at one time decide. The last line is JSON: seconds of ours and
of the peer, their ratio (above 1: ours is faster), and the peak memory of our largest process.
"""

import json
import resource
import sys
import time

import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, PredefinedSplit

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds import units
from helpers.forest import grid_search
from helpers.forest.one_forest import OneForestSearchCV, forest_scores
from helpers.prepare.registry import predictor_names
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.store import read_samples


def peak_mb():
    """Return the peak resident memory of the largest of this process and its ended children."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def timed(searched, values, types):
    """Return the seconds of a search, with the start of its processes."""
    start = time.perf_counter()
    searched.fit(values, types)
    seconds = time.perf_counter() - start
    get_reusable_executor().shutdown(wait=True)
    return seconds


def main(path="config/virtual.yaml", trees=1000):
    """Search by both, print what they found, then the summary as JSON."""
    study = Study.open(path)
    table, layer, names = read_samples(study), layer_name(study.layers[0]), predictor_names(study)
    train, test = (layer_rows(table, layer, which) for which in ("train", "test"))
    (values, types), (others, truth) = (
        (predictor_values(rows, names), rows["class"].to_numpy()) for rows in (train, test)
    )
    grid = grid_search.search_grid(study)
    grid["n_estimators"] = [max(1, size * int(trees) // study.forest.n_estimators) for size in grid["n_estimators"]]
    fold = units.site_folds(train["group"], types, study.folds.number, study.folds.seed)
    print(f"{len(ParameterGrid(grid))} combinations, {fold.max() + 1} folds, {len(types)} samples of {layer}: {grid}")

    model = RandomForestClassifier(class_weight="balanced", random_state=study.forest.seed)
    options = {"cv": PredefinedSplit(fold), "scoring": forest_scores, "refit": "kappa", "n_jobs": 2}
    seconds, found, peak = [], [], None
    for kind in (OneForestSearchCV, GridSearchCV):
        searched = kind(model, grid, **options)
        seconds.append(timed(searched, values, types))
        peak = peak or peak_mb()
        found.append(searched)
        held_out = {name: round(value, 3) for name, value in forest_scores(searched, others, truth).items()}
        print(
            f"{kind.__name__}: {seconds[-1]:.1f} s, kappa {searched.best_score_:.3f} in folds, {searched.best_params_}"
        )
        print(f"  on {len(truth)} samples that it did not see: {held_out}")
    again = timed(OneForestSearchCV(model, grid, **options), values, types)
    print(f"OneForestSearchCV again: {again:.1f} s")
    seconds[0] = max(seconds[0], again)
    ours, theirs = (searched.cv_results_["mean_test_kappa"] for searched in found)
    print(f"kappa of all combinations: correlation {np.corrcoef(ours, theirs)[0, 1]:.3f}, "
          f"mean difference {np.mean(ours - theirs):+.4f}, largest {np.abs(ours - theirs).max():.3f}")  # fmt: skip
    record = {
        "name": "grid_search",
        "seconds": round(seconds[0], 2),
        "peer": "sklearn.model_selection.GridSearchCV(n_jobs=2)",
        "peer_seconds": round(seconds[1], 2),
        "ratio": round(seconds[1] / seconds[0], 2),
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
