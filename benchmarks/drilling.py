"""Does it help to drill where the advice says? Thirty more holes, put in four ways, over worlds.

Run after ``make map STUDY=config/quick.yaml``: it reads that study's covariates and writes nothing.
A campaign of the study's own design is drawn in a hidden world, and thirty of its sites in the
domain are put aside: these are thirty more holes as people put them. The others are put at random
in the domain, where the advice lowers the error of the total most, and where it lowers the
dissimilarity most. All find what boreholes there find.

Printed are, by way, mean and standard error over worlds: `promised`, what was expected to be left;
`closer`, how much farther than before the total is from the truth, as a share of it; `se`, the
standard error of the total by sites, `width`, that of its interval, and `index`, the mean
dissimilarity index, as shares of those before the holes; `rmse_m`, of a cell's thickness of ice,
and `log_loss` of P, less those before; and `rms_off`, the root of the mean square of the total's
error.

``python benchmarks/drilling.py [config/quick.yaml] [worlds] [sites] [design]``
"""

import sys

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.grid import area_mask, fine_grid
from helpers.core.scores import log_loss
from helpers.folds.kinds import sample_folds
from helpers.forest.hurdle import fit_hurdle
from helpers.forest.out_of_fold import out_of_fold_importance
from helpers.mapping.applicability import fit, importance_weights
from helpers.mapping.cells import sample_cells
from helpers.mapping.drilling import Question, candidates, for_dissimilarity, for_total
from helpers.mapping.interval import draw_storage
from helpers.mapping.redraw import layer_models, redraw
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import cells_in_and_out, domain_of_cells, in_domain
from helpers.samples.extract import extract_covariates, read_predictors
from helpers.samples.labels import label_layers
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.selection import drop_unusable, group_cells
from testbed.boreholes import drill, site_cells
from testbed.ground import make_ground, repeat_cells
from testbed.settings import VirtualStudy
from testbed.truth import true_rasters

HOLES = 30
PARAMS = {"n_estimators": 60, "max_depth": None, "min_samples_split": 10, "max_features": "sqrt"}


class World:
    """A hidden world, and what is learned from samples of it."""

    def __init__(self, study, seed):
        self.study, self.seed = study, seed
        truth_rng, self.place_rng, self.drill_rng = np.random.default_rng(seed).spawn(3)
        self.ground = make_ground(study, truth_rng)
        truth = true_rasters(study, self.ground, truth_rng)
        values, cells = read_predictors(study, forest_columns(study))
        inside = domain_of_cells(study).ravel()[cells]
        self.values, self.cells = values[inside], cells[inside]
        self.true = {name: raster.ravel()[self.cells] for name, raster in truth.items()}

    def campaign(self):
        """Return the cells of the sites, and of thirty more of the same campaign in the domain."""
        study = self.study
        plan = study.campaign.boreholes
        more = {"campaign.boreholes.sites": plan.sites + round(HOLES / plan.domain_share)}
        cells = site_cells(study.changed(more), self.ground, self.place_rng)
        divisor = round(study.grid.resolution / study.grid.fine_resolution)
        self.domain = repeat_cells(cells_in_and_out(study)[0], divisor)
        self.domain &= area_mask(study, fine_grid(study))
        last = self.place_rng.permutation(np.flatnonzero(self.domain.ravel()[cells]))[:HOLES]
        return np.delete(cells, last), cells[last]

    def fine_cells(self, points):
        """Return a cell of the fine grid at random in each cell of the grid with these centres."""
        fine = fine_grid(self.study)
        size = self.study.grid.resolution
        points = points + self.place_rng.uniform(-size / 2, size / 2, points.shape)
        column, row = ~fine.transform * points.T
        return np.floor(row).astype(int) * fine.shape[1] + np.floor(column).astype(int)

    def samples(self, cells, start):
        """Return the samples of boreholes in cells; numbers of sites begin at `start`."""
        study = self.study
        sites, intervals = drill(study, self.ground, cells, (self.place_rng, self.drill_rng))
        for table in (sites, intervals):
            table["site_id"] = [f"{start}{name}" for name in table["site_id"]]
        labels, _ = label_layers(study, sites, intervals)
        table, _ = drop_unusable(study, extract_covariates(study, labels))
        return table

    def learn(self, parts):
        """Return samples, redrawn sites, and the layers' models."""
        study = self.study
        table, _ = group_cells(study, pd.concat(parts, ignore_index=True))
        table = table.assign(in_domain=in_domain(study, table), split="train")
        table["sample"] = np.arange(len(table))
        rng = np.random.default_rng(study.uncertainty.seed)
        drawn = redraw(study, table, rng)
        names = [layer_name(layer) for layer in study.layers]
        rows = [layer_rows(drawn.table, name, target=study.target_classes) for name in names]
        layers = layer_models(study, drawn.table, [fit_hurdle(study, one) for one in rows])
        return drawn, layers, rng

    def scores(self, learnt):
        """Return what a map of these models is worth."""
        study, true = self.study, self.true
        drawn, layers, rng = learnt
        names = [layer_name(layer) for layer in study.layers]
        everywhere = np.ones(len(self.values), bool)
        found = [layer.hurdle.predict(self.values, everywhere) for layer in layers]
        ours = ice.thickness([one.ice for one in found], study.layers)
        truth = ice.thickness([true[f"ice_fraction_{name}"] for name in names], study.layers)
        losses = [
            log_loss(
                true[f"borehole_type_{name}"] > 0,
                np.stack([1 - one.permafrost, one.permafrost], axis=1),
                [0, 1],
            )
            for name, one in zip(names, found, strict=True)
        ]
        draws = draw_storage(study, drawn, layers, rng)
        low, high = np.quantile(draws.whole, [0.05, 0.95])
        return {
            "km3_off": ours.sum() / truth.sum() - 1,
            "se": draws.sites.sum(axis=1).std(ddof=1),
            "width": high - low,
            "rmse_m": np.sqrt(np.mean((ours - truth) ** 2)),
            "log_loss": np.mean(losses),
        }


def spaces_of(study, table):
    """Return the predictors and the space of dissimilarity of each layer."""
    jobs = []
    for layer in study.layers:
        rows = layer_rows(table, layer_name(layer), target=study.target_classes)
        rows = rows[rows["in_domain"]].reset_index(drop=True)
        jobs.append((rows, sample_folds(study, rows), PARAMS))
    names = forest_columns(study)
    spaces = []
    for importance, (rows, fold, _) in zip(out_of_fold_importance(study, jobs), jobs, strict=True):
        values = predictor_values(rows, names)
        spaces.append((names, fit(values, names, importance_weights(importance, names), fold)))
    return spaces


def mean_index(study, spaces, points=None):
    """Return the mean dissimilarity index of the domain, with more samples at some cells."""
    cells = sample_cells(study, study.uncertainty.cells)
    values = cells.values[cells.in_domain]  # noqa: PD011
    index = []
    for names, space in spaces:
        used = [names.index(name) for name in space.predictors]
        one = space.measure(values[:, used])[0]
        if points is not None:
            ours, theirs = (
                (part[:, used] - space.centre) * space.factor for part in (values, points)
            )
            one = np.minimum(one, cdist(ours, theirs).min(axis=1))
        index.append(one)
    return np.mean(index)


def one_world(study, seed):
    """Return a row a way."""
    world = World(study, seed)
    cells, people = world.campaign()
    base = world.samples(cells, "A")
    learnt = world.learn([base])
    before = world.scores(learnt)
    places = candidates(study, Question())
    spaces = spaces_of(study, learnt[0].table)
    chosen = {
        "least error of the total": for_total(study, *learnt[:2], places, HOLES),
        "least dissimilarity": for_dissimilarity(study, spaces, places, HOLES),
    }
    pool = np.flatnonzero(world.domain)
    more = {"as people drill": people, "at random": world.place_rng.choice(pool, HOLES, False)}
    more |= {way: world.fine_cells(places.points[order]) for way, (order, *_) in chosen.items()}
    index = mean_index(study, spaces)
    rows = [{"way": "before"} | before | {"index": index, "promised": 1.0}]
    for way, where in more.items():
        samples = world.samples(where, "B")
        values = predictor_values(samples.drop_duplicates("site_id"), forest_columns(study))
        row = {"way": way} | world.scores(world.learn([base, samples]))
        row["index"] = mean_index(study, spaces, values)
        row["promised"] = chosen[way][1][-1] if way in chosen else np.nan
        rows.append(row)
    return [row | {"seed": seed} for row in rows]


def summary(table):
    """Return means and standard errors by way, against what was before."""
    before = table[table["way"] == "before"].set_index("seed")
    table = table.set_index("seed")
    shown = table[["way", "promised"]].copy()
    shown["closer"] = table["km3_off"].abs() - before["km3_off"].abs()
    for name in ("se", "width", "index"):
        shown[name] = table[name] / before[name]
    for name in ("rmse_m", "log_loss"):
        shown[name] = table[name] - before[name]
    by_way = shown.groupby("way", sort=False).agg(["mean", "sem"])
    by_way["rms_off", ""] = (table["km3_off"] ** 2).groupby(table["way"]).mean() ** 0.5
    return by_way


def main(path="config/quick.yaml", worlds="40", sites="720", design="clustered"):
    """Print the table."""
    plan = {"campaign.boreholes.design": design, "campaign.boreholes.sites": int(sites)}
    study = VirtualStudy.open(path).changed(plan)
    rows = []
    for seed in range(int(worlds)):
        rows += one_world(study, seed)
        print(f"world {seed}", file=sys.stderr, flush=True)
    print(summary(pd.DataFrame(rows)).round(4).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
