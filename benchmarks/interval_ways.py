"""Do intervals of the total and of regions hold? Ways to draw them, over hidden worlds.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
Ways differ in the side of the blocks of sites (`uncertainty.block_km`), in the folds of the
residuals behind the field, random or kNNDM, and in what multiplies the deviations by sites
(`uncertainty.refit_inflation`). Printed are, by way, how many of the 90 % intervals hold the true
total, and those of regions of at least 5 km3 and ten sites; the root of the mean square of errors
over standard deviations, which is 1 where these are right; and the mean standard deviation, km3.

``python benchmarks/interval_ways.py [config/quick.yaml] [worlds] [design]``
"""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import shapely
from drilling import World
from scipy.stats import norm

from helpers.core.classes import layer_name
from helpers.core.grid import cell_centres, reference_grid, study_regions
from helpers.folds.kinds import far_folds, sample_folds
from helpers.forest.hurdle import predict_held_out
from helpers.mapping.cells import sample_cells
from helpers.mapping.interval import LEAST_SITES, field_of_totals
from helpers.mapping.redraw import redraw
from testbed.boreholes import site_cells
from testbed.settings import VirtualStudy

BLOCKS = (50, 100)
FOLDS = {"random": sample_folds, "kNNDM": far_folds}
INFLATIONS = (1.0, 1.2, 1.35)
LEAST_KM3 = 5


def totals(world, layers):
    """Return the km3 of each region by the map and in truth, shape (2, regions)."""
    study = world.study
    names, shapes = study_regions(study, reference_grid(study))
    easting, northing = cell_centres(reference_grid(study))
    row, column = np.divmod(world.cells, len(easting))
    found = np.zeros((2, len(names)))
    everywhere = np.ones(len(world.cells), bool)
    for layer in layers:
        true = world.true[f"ice_fraction_{layer_name(layer.depths)}"]
        both = np.stack([layer.hurdle.predict(world.values, everywhere).ice, np.nan_to_num(true)])
        both *= layer.thickness * study.grid.resolution**2 / 1e9
        for shape, number in shapes:
            inside = shapely.contains_xy(shape, easting[column], northing[row])
            found[:, number - 1] += both[:, inside].sum(axis=1)
    return found


def of_sites(world, drawn, layers, cells, block_km):
    """Return the deviations by resampled sites, (draws, regions)."""
    study = world.study.changed({"uncertainty.block_km": block_km})
    table = drawn.table.drop(columns="block")
    again = redraw(study, table, np.random.default_rng(study.uncertainty.seed))
    total = 0
    for layer in layers:
        blocks = again.table.set_index("sample").loc[layer.learnt["sample"], "block"].to_numpy()
        moved = replace(layer, learnt=layer.learnt.assign(block=blocks))
        ((chance, content),) = moved.redrawn(study, again, cells)
        total = total + layer.volume(chance * content, cells)
    return total - total.mean(axis=0)


def one_world(study, seed):
    """Return a row a way, and one a way and region."""
    world = World(study, seed)
    cells = site_cells(study, world.ground, world.place_rng)
    samples = world.samples(cells, "A")
    drawn, layers, _ = world.learn([samples])
    found, true = totals(world, layers)
    lattice = sample_cells(study, study.uncertainty.cells)
    sites = {km: of_sites(world, drawn, layers, lattice, km) for km in BLOCKS}
    fields = {}
    for name, folds in FOLDS.items():
        jobs = [(layer.rows, folds(study, layer.rows), []) for layer in layers]
        held = predict_held_out(study, jobs)
        seen = [replace(layer, at_samples=one) for layer, one in zip(layers, held, strict=True)]
        fields[name], _ = field_of_totals(study, seen, lattice)
    holes = drawn.table[drawn.table["in_domain"]].drop_duplicates("site_id")
    _, shapes = study_regions(study, reference_grid(study))
    enough = [
        shapely.contains_xy(shape, holes["easting"], holes["northing"]).sum() >= LEAST_SITES
        for shape, _ in shapes
    ]
    told = (true >= LEAST_KM3) & np.array(enough)
    rows = []
    for km, folds, inflation in itertools.product(BLOCKS, FOLDS, INFLATIONS):
        draws, field = inflation * sites[km], fields[folds]
        way = {"block_km": km, "folds": folds, "inflation": inflation, "seed": seed}
        sd = np.sqrt(draws.sum(axis=1).var(ddof=1) + field.sum())
        rows.append(way | {"of": "total", "sd": sd, "off": (found.sum() - true.sum()) / sd})
        spread = np.sqrt(draws.var(axis=0, ddof=1) + field.diagonal())
        rows += [
            way | {"of": f"region {number}", "sd": spread[number], "off": off}
            for number, off in enumerate((found - true) / np.maximum(spread, 1e-9))
            if told[number]
        ]
    return rows


def main(path="config/quick.yaml", worlds="40", design="roadside"):
    """Print the table."""
    study = VirtualStudy.open(path).changed({"campaign.boreholes.design": design})
    rows = []
    for seed in range(int(worlds)):
        rows += one_world(study, seed)
        print(f"world {seed}", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    table["holds"] = table["off"].abs() < norm.ppf(0.95)
    table["square"] = table["off"] ** 2
    common = table.groupby("of")["seed"].nunique() >= int(worlds) / 2
    table = table[table["of"].isin(common.index[common])]
    by_way = table.groupby(["block_km", "folds", "inflation", "of"], sort=False)
    shown = by_way.agg(holds=("holds", "mean"), rms=("square", "mean"), sd=("sd", "mean"))
    shown["rms"] **= 0.5
    print(shown.unstack("of").round(2).to_string())  # noqa: PD010


if __name__ == "__main__":
    main(*sys.argv[1:])
