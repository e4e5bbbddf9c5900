"""The draws of the sites, from forests that stay, against the full computation: all regrown from resampled blocks.

    python benchmarks/storage_interval.py [study file] [draws of the full computation]

Run after ``make map`` of the study. For each of the peer's draws, blocks of sites are drawn with replacement, the
forests of the folds and of the map regrown from them, the calibration fitted in full, and class means taken anew; no
block is parted by folds. Both standard deviations of the total are printed, and the seconds of as many draws.
"""

import json
import sys
import time

import numpy as np

from helpers.core.classes import TARGETS, layer_name
from helpers.core.study import Study
from helpers.folds import units, weights
from helpers.folds.blocks import blocks as blocks_of_blocks
from helpers.forest import cards, class_means, models
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.mapping import interval
from helpers.prepare import registry
from helpers.samples import store
from helpers.samples.rows import layer_rows, predictor_values


def drawn_total(study, table, names, cells, count, rng):
    """Return km3 of ice by forests that were grown from each block as often as it was drawn."""
    classes, total = TARGETS[study.target].codes, 0.0
    fold_of = rng.permutation(len(count)) % study.folds.number
    for layer in study.layers:
        name = layer_name(layer)
        params = cards.card_params(cards.read_card(cards.model_path(study, name)))
        rows = layer_rows(table, name, target=study.target)
        rows = rows.loc[np.repeat(rows.index, count[rows["block"]])].reset_index(drop=True)
        known, fold = predictor_values(rows, names), fold_of[rows["block"]]
        unseen = np.zeros((len(rows), len(classes)))
        for number in range(study.folds.number):
            model = models.fit(study, rows[fold != number], name, params)
            unseen[fold == number] = models.class_probabilities(model, known[fold == number], classes)
        calibration = fit_calibration(unseen, rows["class"], weights.area_weights(study, rows))
        model = models.fit(study, rows, name, params)
        shares = calibrate(models.class_probabilities(model, cells.values, classes), calibration)
        means = np.asarray(class_means.class_means(rows, classes))
        total += np.einsum("nk,k->", shares, means) * (layer[1] - layer[0]) * cells.side**2 / 1e9
    return total


def main(path="config/quick.yaml", repeats=40):
    """Print both standard deviations, and the times."""
    study, repeats = Study.open(path), int(repeats)
    start = time.perf_counter()
    draws = interval.sample_storage(study)
    seconds = time.perf_counter() - start
    table, rng = store.read_samples(study), np.random.default_rng(1)
    places = table[["easting", "northing"]].to_numpy()
    table["block"] = blocks_of_blocks(places, units.sample_units(study, table), 1000 * study.uncertainty.block_km)
    names, blocks = registry.used_predictors(study), table["block"].max() + 1
    cells = interval.sample_cells(study, names, study.uncertainty.cells)
    start = time.perf_counter()
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), repeats)
    totals = [drawn_total(study, table, names, cells, count, rng) for count in counts]
    peer = (time.perf_counter() - start) / repeats * study.uncertainty.draws
    ours, theirs = draws.sites.sum(axis=1).std(ddof=1), np.std(totals, ddof=1)
    # Ours includes the factor that this benchmark told.
    print(f"sd of the total by resampled sites: {ours:.1f} km3, fully regrown {theirs:.1f} km3 ({repeats} draws)")
    result = {"name": "storage_interval", "seconds": round(seconds, 2), "peer": "all forests regrown, as many draws"}
    result |= {"peer_seconds": round(peer, 1), "ratio": round(peer / seconds, 1), "sd_ratio": round(ours / theirs, 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
