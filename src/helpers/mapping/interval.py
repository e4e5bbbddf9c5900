"""The interval of a total: how far the ice of the map may be from the ice in the ground.

A total errs for three reasons, and each is drawn:

1. *Sites.* Other boreholes would have told other shares of the classes. Sites are resampled by square blocks, because
   neighbours are not independent, and probabilities are calibrated anew. What the calibration learns from are
   predictions of forests that were grown on the other half of the blocks.
2. *Class contents.* The mean ice of a class is taken over the same resampled sites.
3. *Residual field.* Covariates explain a part of the ice alone. What is left is correlated over some distance, and its
   mean over the map is not zero. The variogram of out-of-fold residuals tells the correlated part from the nugget
   (measurement, variation within a cell), which averages out over a map and is left out.

Of single regions a fourth is added: ice that was moved into the extent of permafrost
(`helpers.mapping.extent.confine_to_permafrost`)
may lie where it had been expected. How much of it does is not known; every share is as likely. The sum stays.

The layers are drawn jointly: with the same blocks, and with one residual field whose correlation between layers is that
of the residuals. Draws are taken on a systematic sample of cells, around the total of the whole map. With
`storage_from: regression` that is the regression's, and the spread still that of the ice which classes let expect.
"""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import rasterio
from threadpoolctl import threadpool_limits

from helpers.core.classes import TARGETS, layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import write_json, write_table
from helpers.core.grid import cell_centres, reference_grid
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.folds import weights
from helpers.folds.blocks import blocks as blocks_of_blocks
from helpers.folds.units import sample_units
from helpers.forest import cards, models
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.forest.trees import grow_and_predict
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.half_samples import class_shares, half_samples, refit_shares
from helpers.mapping.variogram import Variogram, block_covariance, covariogram, field_covariance, fit_variogram
from helpers.prepare.registry import covariate_files
from helpers.samples import store
from helpers.samples.rows import layer_rows, predictor_values


class UncertaintyError(CompendiumError):
    """Samples or settings from which no interval follows."""


# Totals ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Layer:
    """What draws of a layer are made from: its samples, and the systematic sample of cells."""

    rows: object  # samples, with `block` and `weight`
    column: np.ndarray  # (n,) class of each sample, counted among those that occur
    at_samples: np.ndarray  # (n, k) calibrated log-probabilities out of fold
    at_cells: np.ndarray  # (cells, k)
    free: int  # column of no permafrost
    depth: float

    def class_means(self, count):
        """Return the mean ice fraction of each class by how often each sample counts, shape (draws, k)."""
        kinds, fraction = np.eye(self.at_samples.shape[1])[self.column], self.rows["ice_fraction"].to_numpy()
        number = np.einsum("dn,nk->dk", count, kinds)
        means = np.einsum("dn,nk->dk", count * fraction, kinds) / np.where(number > 0, number, 1)
        means[:, self.free] = 0
        return means

    def redrawn(self, counts):
        """Return slope and intercepts by draws of blocks, shape (draws, 1 + k), and class means, shape (draws, k)."""
        count = counts[:, self.rows["block"]].astype(float)
        share, inside = np.zeros_like(count), self.rows["in_domain"].to_numpy()
        for part in (inside, ~inside):  # either stands for its share of the area in every draw
            drawn = np.maximum(count[:, part].sum(axis=1, keepdims=True), 1)
            share[:, part] = count[:, part] / drawn * self.rows["weight"].to_numpy()[part].sum()
        slope, intercept = refit_shares(self.at_samples, self.column, share / share.sum(axis=1, keepdims=True))
        return np.concatenate([slope[:, np.newaxis], intercept], axis=1), self.class_means(count)

    def totals(self, fitted, means, cells, moved=True):
        """Return km3 of ice in each region by draws, shape (draws, regions), moved into the extent of permafrost."""
        sums, before, probability = [], None, None
        for values, contents in zip(fitted, means, strict=True):
            if before is None or (values != before).any():
                before, probability = values, class_shares(self.at_cells, values[np.newaxis])[0]
            content = np.einsum("nk,k->n", probability, contents)
            if moved:
                content = confine_to_permafrost(content, 1 - probability[:, self.free])
            sums.append(np.bincount(cells.region, content, len(cells.names)))
        return np.stack(sums) * (self.depth * cells.side**2 / 1e9)

    def expected(self, logs):
        """Return mean and standard deviation of the ice fraction at a place, by its class probabilities."""
        kinds = np.eye(logs.shape[1])[self.column]
        fraction, number = self.rows["ice_fraction"].to_numpy(), kinds.sum(axis=0)
        mean, square = (np.einsum("n,nk->k", fraction**power, kinds) / number for power in (1, 2))
        probability = np.exp(logs)
        expected = np.einsum("nk,k->n", probability, mean)
        variance = np.einsum("nk,k->n", probability, square) - expected**2
        return expected, np.sqrt(np.maximum(variance, 0))


@dataclass(frozen=True)
class Draws:
    """Draws of how far the ice of regions may be from the map's totals, km3.

    Parameters
    ----------
    sites, classes, field, moved : numpy.ndarray, shape (draws, regions)
        By resampled sites, class means included; by resampled class means alone; by the residual field; by ice that was
        moved into the extent of permafrost, which adds up to 0 over the regions.
    variogram : Variogram
        Of the residuals; distances in m.
    cells : Cells
    """

    sites: np.ndarray
    classes: np.ndarray
    field: np.ndarray
    moved: np.ndarray
    variogram: Variogram
    cells: "Cells"

    @property
    def regions(self):
        """Deviations for all reasons, shape (draws, regions)."""
        return self.sites + self.field + self.moved

    @property
    def whole(self):
        """Deviations of the sum of all regions, shape (draws,)."""
        return self.regions.sum(axis=1)


@dataclass(frozen=True)
class Cells:
    """A systematic sample of the map's cells: every so many-th in both directions, with all predictors.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (n, predictors)
    row, column : numpy.ndarray of int, shape (n,)
        Place in the sample's own lattice.
    region : numpy.ndarray of int, shape (n,)
        Number of the province or league, in the order of `names`.
    names : list of str
    side : float
        Distance between neighbours, m: each stands for a square of this side.
    """

    values: np.ndarray
    row: np.ndarray
    column: np.ndarray
    region: np.ndarray
    names: list
    side: float


def sample_cells(study, predictors, wanted):
    """Return a systematic sample of about so many cells; only their rows of the covariates are read.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictors : sequence of str
    wanted : int

    Returns
    -------
    Cells
    """
    import geopandas
    import shapely

    geobox, files = reference_grid(study), covariate_files(study)
    regions = geopandas.read_file(study.path(study.area.polygons), layer=study.area.regions_layer)
    shapes = regions.to_crs(geobox.crs.to_wkt()).geometry
    step = max(1, round(np.sqrt(shapes.area.sum() / study.grid.resolution**2 / wanted)))
    rows, columns = (np.arange(step // 2, size, step) for size in geobox.shape)
    easting, northing = cell_centres(geobox)
    easting, northing = np.meshgrid(easting[columns], northing[rows])
    region = np.full(easting.shape, -1)
    for number, shape in enumerate(shapes):
        region[shapely.contains_xy(shape, easting, northing)] = number
    values = np.empty((len(predictors), *region.shape), np.float32)
    for layer, name in zip(values, predictors, strict=True):
        with rasterio.open(files[name]) as source:
            for line, row in zip(layer, rows, strict=True):
                line[:] = source.read(1, window=((row, row + 1), (0, geobox.shape[1])))[0, columns]
    row, column = np.nonzero((region >= 0) & np.isfinite(values).all(axis=0))
    if not row.size:
        raise UncertaintyError("No cell of the sample has all predictors.", "set more `uncertainty.cells`")
    values = np.ascontiguousarray(values[:, row, column].T)
    names = regions["name"].tolist()
    return Cells(values, row, column, region[row, column], names, step * study.grid.resolution)


def sample_storage(study):
    """Draw how far the ice of provinces and leagues may be from the map's totals.

    Parameters
    ----------
    study : helpers.core.study.Study
        With samples and forests; its section `uncertainty`.

    Returns
    -------
    Draws
    """
    settings, table = study.uncertainty, store.read_samples(study)
    places = table[["easting", "northing"]].to_numpy()
    table["weight"] = weights.area_weights(study, table)
    table["block"] = blocks_of_blocks(places, sample_units(study, table), 1000 * settings.block_km)
    blocks, rng = int(table["block"].max()) + 1, np.random.default_rng(settings.seed)
    if blocks < 4:
        raise UncertaintyError(
            f"The sites lie in {blocks} blocks of {settings.block_km:g} km: too few to be resampled.",
            "set a smaller uncertainty.block_km",
        )
    halves = half_samples(blocks, settings.bags, rng)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), settings.draws)

    card = cards.read_card(cards.model_path(study, layer_name(study.layers[0])))
    cells = sample_cells(study, card["predictors"], settings.cells)
    layers = [_layer(study, table, layer, cells.values, halves) for layer in study.layers]

    shape = (settings.draws, len(cells.names))
    sites, classes, moved = np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        for layer in layers:
            fitted, means = layer.redrawn(counts)
            usual, mean = layer.redrawn(np.ones((1, blocks), int))
            within, plain = (layer.totals(usual, mean, cells, inside)[0] for inside in (True, False))
            moved += plain - within
            sites += layer.totals(fitted, means, cells)
            classes += layer.totals(np.broadcast_to(usual[0], fitted.shape), means, cells)
        covariance, variogram = _field(layers, cells, 1000 * settings.farthest_km)
        field = rng.multivariate_normal(np.zeros(shape[1]), covariance, settings.draws, method="eigh")
    sites = settings.regrown * (sites - sites.mean(axis=0))
    moved = rng.random((settings.draws, 1)) * moved
    return Draws(sites, classes - classes.mean(axis=0), field, moved, variogram, cells)


def _layer(study, table, layer, values, halves):
    """Grow forests of half the blocks each, and calibrate what they say of the other half."""
    import sklearn

    name, classes = layer_name(layer), TARGETS[study.target].codes
    rows = layer_rows(table, name, study.forest.map_fit, study.target)
    card = cards.read_card(cards.model_path(study, name))
    known, types, block = predictor_values(rows, card["predictors"]), rows["class"].to_numpy(), rows["block"]
    both, trees = np.concatenate([known, values]), study.uncertainty.trees
    unseen, mapped, number = np.zeros((len(rows), len(classes))), np.zeros((len(values), len(classes))), 0
    for number, half in enumerate(halves):
        grown = half[block]
        params = cards.card_params(card) | {"n_estimators": trees, "random_state": study.uncertainty.seed + number}
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            model = models.classifier(study, **params)
            present, chances = grow_and_predict(model, known[grown], types[grown], both)
        given = np.zeros((len(both), len(classes)))
        given[:, present] = chances
        unseen[~grown] += given[: len(rows)][~grown]
        mapped += given[len(rows) :]
    unseen, mapped = unseen * 2 / len(halves), mapped / len(halves)
    calibration = fit_calibration(unseen, types, rows["weight"])
    present = calibration["classes"]
    logs = [np.log(calibrate(part, calibration)[:, present]) for part in (unseen, mapped)]
    return _Layer(rows, np.searchsorted(present, types), *logs, present.index(0), layer[1] - layer[0])


def _field(layers, cells, farthest):
    """Return the covariance of the regions' totals by the residual field, and the residuals' variogram."""
    points, residuals, spread = [], [], []
    for layer in layers:
        expected, sd = layer.expected(layer.at_samples)
        judged = layer.rows["in_domain"].to_numpy()
        points.append(layer.rows.loc[judged, ["easting", "northing"]].to_numpy())
        residuals.append((layer.rows["ice_fraction"].to_numpy() - expected)[judged])
        spread.append(sd[judged])
    variogram = fit_variogram(*covariogram(points, residuals, spread, farthest), farthest)
    lattice = (cells.row.max() + 1, cells.column.max() + 1)
    loads = np.zeros((len(cells.names), len(layers), *lattice))
    for index, layer in enumerate(layers):
        sd = layer.expected(layer.at_cells)[1]
        loads[cells.region, index, cells.row, cells.column] = sd * (layer.depth * cells.side**2 / 1e9)
    lags = block_covariance(variogram, lattice, cells.side)
    covariance = field_covariance(loads, _between(layers, residuals), lags)
    return (covariance + covariance.T) / 2, variogram


def _between(layers, residuals):
    """Return the correlation of residuals between layers, from sites that have both."""
    sites = [layer.rows.loc[layer.rows["in_domain"], "site_id"] for layer in layers]
    between = np.eye(len(layers))
    for i, j in zip(*np.triu_indices(len(layers), 1), strict=True):
        _, first, second = np.intersect1d(sites[i], sites[j], return_indices=True)
        a, b = residuals[i][first], residuals[j][second]
        weight = np.sqrt((a**2).sum() * (b**2).sum())
        between[i, j] = between[j, i] = (a * b).sum() / weight if weight > 0 else 0.0
    return between


# Intervals ------------------------------------------------------------------------------------------------------------


def interval_files(study):
    """Return the files of the interval by name: `table` as CSV, `record` as JSON."""
    folder = study.results_dir / "tables"
    return {"table": folder / "storage_interval.csv", "record": folder / "storage_interval.json"}


def intervals(totals, draws, probability):
    """Return the interval of each total.

    Parameters
    ----------
    totals : pandas.Series
        km3 by region, in the order of the draws' columns, and then ``all``.
    draws : Draws
    probability : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        One row a region and one for all: `km3`, `lower` and `upper` end (not below 0, and `km3` always between them),
        `se`, the standard deviation of the draws, and its parts: `sites_se` by resampled sites, of which `classes_se`
        by class means, `field_se` by the residual field, and `moved_se` by ice moved into the extent. `draws` is their
        number.
    """
    named = {"sites": draws.sites, "classes": draws.classes, "field": draws.field, "moved": draws.moved}
    named = {name: np.column_stack([part, part.sum(axis=1)]) for name, part in named.items()}
    either = named["sites"] + named["field"] + named["moved"]
    low, high = np.quantile(either, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    table = pd.DataFrame({"km3": totals})
    # Ice is moved one way in a region, so that all draws of a small one may lie on one side of the map's total.
    table["lower"], table["upper"] = np.maximum(totals + np.minimum(low, 0), 0), totals + np.maximum(high, 0)
    table["se"] = either.std(axis=0, ddof=1)
    for name, part in named.items():
        table[f"{name}_se"] = part.std(axis=0, ddof=1)
    return table.assign(draws=len(either)).rename_axis("region")


def convergence(deviations, probability, rng, repeats=200):
    """Return the standard error of an interval's ends by the number of draws.

    Parameters
    ----------
    deviations : numpy.ndarray, shape (draws,)
    probability : float
    rng : numpy.random.Generator
        Draws again from the draws.
    repeats : int

    Returns
    -------
    pandas.DataFrame
        Columns draws, lower_se and upper_se, in units of the draws.
    """
    sizes = np.unique(np.geomspace(min(25, len(deviations)), len(deviations), 6).round().astype(int))
    rows = []
    for size in sizes:
        again = rng.choice(deviations, (repeats, size))
        ends = np.quantile(again, [(1 - probability) / 2, (1 + probability) / 2], axis=1)
        rows.append((int(size), *ends.std(axis=1, ddof=1)))
    return pd.DataFrame(rows, columns=["draws", "lower_se", "upper_se"])


def write_intervals(study, table, draws, truth=None):
    """Write the intervals as CSV, and as JSON with the variogram and the convergence of the ends of the whole.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        From `intervals`.
    draws : Draws
    truth : pandas.Series, optional
        From `true_totals`: adds `true_km3` and whether the interval `holds` it.

    Returns
    -------
    pandas.DataFrame
        The table as written.
    """
    settings, files = study.uncertainty, interval_files(study)
    if truth is not None:
        table = table.assign(true_km3=truth.reindex(table.index))
        table["holds"] = (table["true_km3"] >= table["lower"]) & (table["true_km3"] <= table["upper"])
    ends = convergence(draws.whole, settings.interval, np.random.default_rng(settings.seed))
    table = table.round(6)
    write_table(files["table"], table.reset_index())
    record = {
        "simulated": study.simulated,
        "unit": "km3 of ice",
        "probability": settings.interval,
        "spread_from": "classes",  # also where the map's ice is regressed
        "draws": settings.draws,
        "cells": len(draws.cells.values),
        "block_km": settings.block_km,
        "variogram": {
            "model": "exponential",
            "nugget": draws.variogram.nugget,
            "partial_sill": draws.variogram.partial_sill,
            "reach_km": draws.variogram.reach / 1000,
        },
        "regions": table.to_dict(orient="index"),
        "convergence": ends.round(6).to_dict(orient="records"),
    }
    write_json(files["record"], record)
    return table


def plot_interval(study, draws):
    """Draw the density of the total with its interval, and how sure its ends are by the number of draws.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its intervals must be written.
    draws : Draws

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    record = json.loads(interval_files(study)["record"].read_text(encoding="utf-8"))
    whole, share = record["regions"]["all"], f"{100 * record['probability']:g} %"
    style()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH_MM / 25.4, 2.4), width_ratios=[3, 2], layout="constrained"
    )
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    totals = whole["km3"] + draws.whole
    left.hist(totals, bins=30, color="#9ecae1", edgecolor="white", linewidth=0.3)
    left.axvspan(whole["lower"], whole["upper"], color="0.9", zorder=0, label=f"{share} interval")
    left.axvline(whole["km3"], color="black", linewidth=1.2, label="map")
    if "true_km3" in whole:
        left.axvline(whole["true_km3"], color="#d55e00", linewidth=1.2, linestyle="--", label="truth")
    left.set(title=f"{len(totals)} draws of the total", xlabel="km³ of ice", ylabel="draws")
    left.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, ncols=3, frameon=False)
    ends = record["convergence"]
    for name, colour, marker in (("lower", "#0072b2", "o"), ("upper", "#d55e00", "s")):
        errors = [one[f"{name}_se"] for one in ends]
        right.loglog(
            [one["draws"] for one in ends], errors, marker, color=colour, markersize=3, label=f"{name} end", ls="-"
        )
    right.set(title="Standard error of the ends", xlabel="number of draws", ylabel="km³ of ice")
    ticks = [one["draws"] for one in ends]
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.set_xticks([], minor=True)
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("{x:g}")
    right.legend(frameon=False)
    if study.simulated:
        mark_simulated(figure)
    return figure
