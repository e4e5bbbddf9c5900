"""The draws of the sites, from trees that stay, beside the full computation.

Run after ``make map`` of the study. For each of the peer's draws, blocks of sites are drawn with
replacement, and the whole hurdle models grown from them again, with fewer trees. Both standard
deviations of the total are printed, without `uncertainty.refit_inflation`, which is what the peer's
is larger by; and the seconds of as many draws.

``python benchmarks/storage_interval.py [config/quick.yaml] [draws of the full computation]``
"""

import json
import sys
import time

import numpy as np
from joblib import Parallel, delayed

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds.blocks import study_blocks
from helpers.forest.hurdle import agree_with_shares, fit_hurdle
from helpers.mapping.cells import sample_cells
from helpers.mapping.interval import sample_storage
from helpers.samples.prevalence import shift_at
from helpers.samples.rows import layer_rows
from helpers.samples.store import read_samples

TREES = 60


def redrawn_total(study, table, cells, count):
    """Return km3 of ice by hurdles that were grown from each block as often as it was drawn."""
    total = 0.0
    for layer in study.depths:
        name = layer_name(layer)
        rows = layer_rows(table, name, study.forest.map_fit, study.target_classes)
        rows = rows.loc[np.repeat(rows.index, count[rows["block"]])]
        hurdle = agree_with_shares(study, fit_hurdle(study, rows, TREES), name)
        shift = shift_at(study, hurdle.strata, cells.values, cells.points)
        ice = hurdle.predict(cells.values, cells.in_domain, shift).ice
        total += cells.ground.holds(ice, layer).sum() * (layer[1] - layer[0]) * cells.side**2 / 1e9
    return total


def main(path="config/quick.yaml", repeats="40"):
    """Print both standard deviations, and the times."""
    study = Study.open(path)
    repeats = int(repeats)
    settings = study.uncertainty
    start = time.perf_counter()
    draws = sample_storage(study)
    seconds = time.perf_counter() - start
    table = read_samples(study)
    table["block"] = study_blocks(study, table, settings.block_km)
    number = table["block"].max() + 1
    cells = sample_cells(study, settings.cells)
    start = time.perf_counter()
    counts = np.random.default_rng(1).multinomial(number, np.full(number, 1 / number), repeats)
    totals = Parallel(-1, prefer="threads")(
        delayed(redrawn_total)(study, table, cells, count) for count in counts
    )
    peer = (time.perf_counter() - start) / repeats * settings.draws
    ours = draws.sites.sum(axis=1).std(ddof=1) / settings.refit_inflation
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
        "sd_ratio": round(theirs / ours, 3),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
