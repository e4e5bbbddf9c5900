"""The draws of the sites, from forests that stay, beside the full computation.

Run after ``make map`` of the study. For each of the peer's draws, blocks of sites are drawn with
replacement, the forests of the folds and of the map grown from them again, the calibration fitted
in full, and class means taken anew; no block is parted by folds. Both standard deviations of the
total are printed, and the seconds of as many draws.

``python benchmarks/storage_interval.py [config/quick.yaml] [draws of the full computation]``
"""

import json
import sys
import time

import numpy as np

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds.blocks import study_blocks
from helpers.folds.weights import area_weights
from helpers.forest import cards, models
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.forest.class_means import class_means
from helpers.forest.paths import model_path
from helpers.mapping.cells import sample_cells
from helpers.mapping.interval import sample_storage
from helpers.prepare.registry import used_predictors
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.store import read_samples


def redrawn_total(study, table, cells, count, rng):
    """Return km3 of ice by forests that were grown from each block as often as it was drawn."""
    codes = study.target_classes.codes
    fold_of = rng.permutation(len(count)) % study.folds.number
    total = 0.0
    for layer in study.layers:
        name = layer_name(layer)
        params = cards.card_params(cards.read_card(model_path(study, name)))
        rows = layer_rows(table, name, target=study.target_classes)
        rows = rows.loc[np.repeat(rows.index, count[rows["block"]])].reset_index(drop=True)
        at_samples = predictor_values(rows, used_predictors(study))
        fold = fold_of[rows["block"]]
        out_of_fold = np.zeros((len(rows), len(codes)))
        for number in range(study.folds.number):
            held = fold == number
            model = models.fit(study, rows[~held], name, params)
            out_of_fold[held] = models.class_probabilities(model, at_samples[held], codes)
        calibration = fit_calibration(out_of_fold, rows["class"], area_weights(study, rows))
        model = models.fit(study, rows, name, params)
        shares = calibrate(models.class_probabilities(model, cells.values, codes), calibration)
        means = np.asarray(class_means(rows, codes))
        ice = np.einsum("nk,k->", shares, means)
        total += ice * (layer[1] - layer[0]) * cells.side**2 / 1e9
    return total


def main(path="config/quick.yaml", repeats="40"):
    """Print both standard deviations, and the times."""
    study = Study.open(path)
    repeats = int(repeats)
    start = time.perf_counter()
    draws = sample_storage(study)
    seconds = time.perf_counter() - start
    table = read_samples(study)
    rng = np.random.default_rng(1)
    settings = study.uncertainty
    table["block"] = study_blocks(study, table, settings.block_km)
    number = table["block"].max() + 1
    cells = sample_cells(study, used_predictors(study), settings.cells)
    start = time.perf_counter()
    counts = rng.multinomial(number, np.full(number, 1 / number), repeats)
    totals = [redrawn_total(study, table, cells, count, rng) for count in counts]
    peer = (time.perf_counter() - start) / repeats * settings.draws
    ours = draws.sites.sum(axis=1).std(ddof=1)  # with `uncertainty.refit_inflation`, from here
    theirs = np.std(totals, ddof=1)
    print(
        f"sd of the total by resampled sites: {ours:.1f} km3, "
        f"all forests grown again {theirs:.1f} km3 ({repeats} draws)"
    )
    record = {
        "name": "storage_interval",
        "seconds": round(seconds, 2),
        "peer": "all forests grown again, as many draws",
        "peer_seconds": round(peer, 1),
        "ratio": round(peer / seconds, 1),
        "sd_ratio": round(ours / theirs, 3),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
