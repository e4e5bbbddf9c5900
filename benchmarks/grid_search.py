"""Time of the grid search from one forest, beside scikit-learn's `GridSearchCV`.

Both have the same grid and folds. ``python benchmarks/grid_search.py [config/virtual.yaml]
[trees]`` reads the training samples of the study's first layer: run ``python -m launcher map
--until 02-extract-samples`` before. With 1000 trees, the default, the grid is the study's, and the
peer takes minutes; fewer trees scale all sizes of a forest. Both run in two processes that they
start themselves, and both winners are scored, when the time is taken, on the 30 % of sites that no
search used. Ours runs before and after the peer, and the slower run counts, in case other programs
slow one of them down. The last line is JSON: seconds of ours and of the peer, their ratio (above 1:
ours is faster), and the peak memory of our largest process.
"""

import json
import resource
import sys
import time

import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, PredefinedSplit

from helpers.core.classes import TARGETS, layer_name
from helpers.core.study import Study
from helpers.folds import units
from helpers.forest import grid_search
from helpers.forest.models import class_probabilities
from helpers.forest.one_forest import predict_grid
from helpers.prepare.registry import predictor_names
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.store import read_samples


def peak_mb():
    """Return the peak resident memory of the largest of this process and its ended children."""
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def timed(search):
    """Return the seconds of a search, with the start of its processes, and its result."""
    start = time.perf_counter()
    result = search()
    seconds = time.perf_counter() - start
    get_reusable_executor().shutdown(wait=True)
    return seconds, result


def forest_scores(model, values, types):
    """Return scores of a forest as a scorer of scikit-learn does: more is better."""
    probabilities = class_probabilities(model, values, TARGETS["ice_type"].codes)
    scores = grid_search.score_probabilities(types, probabilities)
    return scores | {"log_loss": -scores["log_loss"]}


def main(path="config/virtual.yaml", trees=1000):
    """Search by both, print their winners, then the summary as JSON."""
    study = Study.open(path)
    table, layer, names = read_samples(study), layer_name(study.layers[0]), predictor_names(study)
    train, test = (layer_rows(table, layer, which) for which in ("train", "test"))
    (values, types), (others, reference) = (
        (predictor_values(rows, names), rows["class"].to_numpy()) for rows in (train, test)
    )
    grid = grid_search.search_grid(study)
    grid["n_estimators"] = [
        max(1, size * int(trees) // study.forest.n_estimators) for size in grid["n_estimators"]
    ]
    fold = units.deal_units(train["group"], types, study.folds.number, study.folds.seed)
    print(
        f"{len(ParameterGrid(grid))} combinations, {fold.max() + 1} folds, "
        f"{len(types)} samples of {layer}: {grid}"
    )

    model = RandomForestClassifier(class_weight="balanced", random_state=study.forest.seed)
    cv = PredefinedSplit(fold)
    peer = GridSearchCV(model, grid, cv=cv, scoring=forest_scores, refit=False, n_jobs=2)

    def search():
        probabilities, _ = predict_grid(model, grid, values, types, fold, n_jobs=2)
        return grid_search.score_folds(types, probabilities, fold)["kappa"].to_numpy()

    first, ours = timed(search)
    peak = peak_mb()
    peer_seconds, _ = timed(lambda: peer.fit(values, types))
    again, _ = timed(search)
    seconds = max(first, again)
    theirs = peer.cv_results_["mean_test_kappa"]
    print(
        f"one forest a fold: {first:.1f} s, again {again:.1f} s; GridSearchCV: {peer_seconds:.1f} s"
    )
    for name, kappas in (("one forest a fold", ours), ("GridSearchCV", theirs)):
        params = ParameterGrid(grid)[int(kappas.argmax())]
        winner = clone(model).set_params(**params).fit(values, types)
        tested = forest_scores(winner, others, reference)
        rounded = {score: round(value, 3) for score, value in tested.items()}
        print(f"{name}: kappa {kappas.max():.3f} in folds, {params}")
        print(f"  on {len(reference)} samples that it did not use: {rounded}")
    print(
        f"kappa of all combinations: correlation {np.corrcoef(ours, theirs)[0, 1]:.3f}, "
        f"mean difference {np.mean(ours - theirs):+.4f}, "
        f"largest {np.abs(ours - theirs).max():.3f}"
    )
    record = {
        "name": "grid_search",
        "seconds": round(seconds, 2),
        "peer": "sklearn.model_selection.GridSearchCV(n_jobs=2)",
        "peer_seconds": round(peer_seconds, 2),
        "ratio": round(peer_seconds / seconds, 2),
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
