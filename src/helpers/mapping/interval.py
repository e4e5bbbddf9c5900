"""The interval of a total: how far the ice of the map may be from the ice in the ground.

A total errs for three reasons, and each is sampled:

1. *Sites.* Other boreholes would have given other shares of the classes. Sites are resampled by
   square blocks, because neighbours are not independent, and probabilities are calibrated anew.
   What the calibration learns from are predictions of forests that were grown on the other half of
   the blocks.
2. *Class contents.* The mean ice of a class is taken over the same resampled sites.
3. *Residual field.* Covariates explain only a part of the ice. What is left is correlated over some
   distance, and its mean over the map is not zero. The variogram of out-of-fold residuals parts
   the correlated part from the nugget (measurement, variation within a cell), which averages out
   over a map and is left out.

Of single regions a fourth is added: ice that was moved into the extent of permafrost
(`helpers.mapping.extent.confine_to_permafrost`) may lie where it had been expected. How much of it
does is unknown; every share is as likely. The sum stays.

The layers are drawn jointly: with the same blocks, and with one residual field whose correlation
between layers is that of the residuals. Draws are taken on a systematic sample of cells, around the
total of the whole map. With `storage_from: regression` that is the regression's, and the spread
still that of the ice expected from classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from helpers.core.classes import layer_name
from helpers.core.files import read_json, write_json, write_table
from helpers.core.plot import WIDTH_MM, mark_label, panels
from helpers.core.study import Study
from helpers.folds import weights
from helpers.folds.blocks import study_blocks
from helpers.forest import cards, models
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.forest.paths import model_path
from helpers.forest.trees import grow
from helpers.mapping.cells import Cells, sample_cells
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.files import MapError, interval_files
from helpers.mapping.half_samples import class_shares, half_samples, refit_shares
from helpers.mapping.variogram import (
    Variogram,
    block_covariance,
    covariogram,
    field_covariance,
    fit_variogram,
)
from helpers.samples import store
from helpers.samples.rows import layer_rows, predictor_values

_REPEATS = 200  # of the draws, for the standard errors of an interval's ends


@dataclass(frozen=True)
class Draws:
    """Draws of how far the ice of regions may be from the map's totals, km3.

    Parameters
    ----------
    sites, classes, field, moved : shape (draws, regions)
        By resampled sites, class means included; by resampled class means alone; by the residual
        field; by ice that was moved into the extent of permafrost, which adds up to 0 over the
        regions.
    variogram
        Of the residuals; distances in m.
    """

    sites: np.ndarray
    classes: np.ndarray
    field: np.ndarray
    moved: np.ndarray
    variogram: Variogram
    cells: Cells

    @property
    def whole(self) -> np.ndarray:
        """Deviations of the sum of all regions for all reasons, shape (draws,)."""
        return (self.sites + self.field + self.moved).sum(axis=1)


@dataclass
class _Layer:
    """What draws of a layer are made from: its samples, and the systematic sample of cells.

    Parameters
    ----------
    rows
        Samples, with `block` and `weight`.
    column : shape (n,)
        Class of each sample, counted among those that occur.
    at_samples, at_cells : shapes (n, k) and (cells, k)
        Calibrated log-probabilities, out of fold at samples.
    free
        Column of no permafrost.
    depth
        Of the layer, m.
    """

    rows: pd.DataFrame
    column: np.ndarray
    at_samples: np.ndarray
    at_cells: np.ndarray
    free: int
    depth: float

    def redrawn(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what follows from how often each block is drawn, shape (draws, blocks).

        These are slope and intercepts of the calibration, shape (draws, 1 + k), and the mean ice
        fraction of each class, (draws, k).
        """
        count = counts[:, self.rows["block"]].astype(float)
        share = np.zeros_like(count)
        weight = self.rows["weight"].to_numpy()
        inside = self.rows["in_domain"].to_numpy()
        for part in (inside, ~inside):  # either stands for its share of the area in every draw
            drawn = np.maximum(count[:, part].sum(axis=1, keepdims=True), 1)
            share[:, part] = count[:, part] / drawn * weight[part].sum()
        share = share / share.sum(axis=1, keepdims=True)
        kinds = np.eye(self.at_samples.shape[1])[self.column]
        fraction = self.rows["ice_fraction"].to_numpy()
        number = np.maximum(np.einsum("dn,nk->dk", count, kinds), 1)
        means = np.einsum("dn,nk->dk", count * fraction, kinds) / number
        means[:, self.free] = 0
        return refit_shares(self.at_samples, self.column, share), means

    def totals(
        self, fitted: np.ndarray, means: np.ndarray, cells: Cells, moved: bool = True
    ) -> np.ndarray:
        """Return km3 of ice in each region, within the extent if `moved`: (draws, regions)."""
        sums = []
        before = np.nan
        for values, contents in zip(fitted, means, strict=True):
            if np.any(values != before):
                before = values
                probability = class_shares(self.at_cells, values[np.newaxis])[0]
            content = np.einsum("nk,k->n", probability, contents)
            if moved:
                content = confine_to_permafrost(content, 1 - probability[:, self.free])
            sums.append(np.bincount(cells.region, content * cells.ground, len(cells.names)))
        return np.stack(sums) * (self.depth * cells.side**2 / 1e9)

    def expected(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the ice fraction by log-probabilities (n, k)."""
        kinds = np.eye(logs.shape[1])[self.column]
        fraction = self.rows["ice_fraction"].to_numpy()
        number = kinds.sum(axis=0)
        mean, square = (np.einsum("n,nk->k", fraction**power, kinds) / number for power in (1, 2))
        probability = np.exp(logs)
        expected = np.einsum("nk,k->n", probability, mean)
        variance = np.einsum("nk,k->n", probability, square) - expected**2
        return expected, np.sqrt(np.maximum(variance, 0))


def sample_storage(study: Study) -> Draws:
    """Draw how far the ice of provinces and leagues may be from the map's totals."""
    settings = study.uncertainty
    table = store.read_samples(study)
    table["weight"] = weights.area_weights(study, table)
    table["block"] = study_blocks(study, table, settings.block_km)
    blocks = int(table["block"].max()) + 1
    if blocks < 4:
        raise MapError(
            f"The sites lie in {blocks} blocks of {settings.block_km:g} km: "
            "too few to be resampled.",
            "set a smaller uncertainty.block_km",
        )
    rng = np.random.default_rng(settings.seed)
    halves = half_samples(blocks, settings.bags, rng)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), settings.draws)

    card = cards.read_card(model_path(study, layer_name(study.layers[0])))
    cells = sample_cells(study, card["predictors"], settings.cells)
    layers = [_layer(study, table, layer, cells.values, halves) for layer in study.layers]

    shape = (settings.draws, len(cells.names))
    sites = np.zeros(shape)
    classes = np.zeros(shape)
    moved = np.zeros(shape[1])
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        for layer in layers:
            fitted, means = layer.redrawn(counts)
            usual, mean = layer.redrawn(np.ones((1, blocks), int))
            within, plain = (
                layer.totals(usual, mean, cells, inside)[0] for inside in (True, False)
            )
            moved += plain - within
            sites += layer.totals(fitted, means, cells)
            classes += layer.totals(np.broadcast_to(usual[0], fitted.shape), means, cells)
        covariance, variogram = _field(layers, cells, 1000 * settings.farthest_km)
        zeros = np.zeros(shape[1])
        field = rng.multivariate_normal(zeros, covariance, settings.draws, method="eigh")
    return Draws(
        sites=settings.refit_inflation * (sites - sites.mean(axis=0)),
        classes=classes - classes.mean(axis=0),
        field=field,
        moved=rng.random((settings.draws, 1)) * moved,
        variogram=variogram,
        cells=cells,
    )


def _layer(
    study: Study,
    table: pd.DataFrame,
    layer: tuple[float, float],
    values: np.ndarray,
    halves: np.ndarray,
) -> _Layer:
    """Grow forests of half the blocks each, and calibrate their predictions of the other half."""
    import sklearn

    name, settings = layer_name(layer), study.uncertainty
    classes = study.target_classes.codes
    rows = layer_rows(table, name, study.forest.map_fit, study.target_classes)
    card = cards.read_card(model_path(study, name))
    predictors = predictor_values(rows, card["predictors"])
    types = rows["class"].to_numpy()
    both = np.concatenate([predictors, values])
    out_of_fold = np.zeros((len(rows), len(classes)))
    mapped = np.zeros((len(values), len(classes)))
    for number, half in enumerate(halves):
        grown = half[rows["block"]]
        params = cards.card_params(card)
        params |= {"n_estimators": settings.trees, "random_state": settings.seed + number}
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            model = grow(models.classifier(study, **params), predictors[grown], types[grown])
        chosen = models.class_probabilities(model, both, classes)
        out_of_fold[~grown] += chosen[: len(rows)][~grown]
        mapped += chosen[len(rows) :]
    # Each block is in one of every two halves.
    out_of_fold = out_of_fold * 2 / len(halves)
    mapped = mapped / len(halves)
    calibration = fit_calibration(out_of_fold, types, rows["weight"])
    present = calibration["classes"]
    at_samples, at_cells = (
        np.log(calibrate(part, calibration)[:, present]) for part in (out_of_fold, mapped)
    )
    column = np.searchsorted(present, types)
    return _Layer(rows, column, at_samples, at_cells, present.index(0), layer[1] - layer[0])


def _field(layers: Sequence[_Layer], cells: Cells, farthest: float) -> tuple[np.ndarray, Variogram]:
    """Return the covariance of the regions' totals by the residual field, and its variogram."""
    points, residuals, spread = [], [], []
    for layer in layers:
        expected, sd = layer.expected(layer.at_samples)
        inside = layer.rows["in_domain"].to_numpy()
        points.append(layer.rows.loc[inside, ["easting", "northing"]].to_numpy())
        residuals.append((layer.rows["ice_fraction"].to_numpy() - expected)[inside])
        spread.append(sd[inside])
    variogram = fit_variogram(*covariogram(points, residuals, spread, farthest), farthest)
    lattice = (cells.row.max() + 1, cells.column.max() + 1)
    loads = np.zeros((len(cells.names), len(layers), *lattice))
    for index, layer in enumerate(layers):
        sd = layer.expected(layer.at_cells)[1]
        load = sd * cells.ground * (layer.depth * cells.side**2 / 1e9)
        loads[cells.region, index, cells.row, cells.column] = load
    lags = block_covariance(variogram, lattice, cells.side)
    covariance = field_covariance(loads, _between(layers, residuals), lags)
    return (covariance + covariance.T) / 2, variogram


def _between(layers: Sequence[_Layer], residuals: Sequence[np.ndarray]) -> np.ndarray:
    """Return the correlation of residuals between layers, from sites that have both."""
    sites = [layer.rows.loc[layer.rows["in_domain"], "site_id"] for layer in layers]
    between = np.eye(len(layers))
    for i, j in zip(*np.triu_indices(len(layers), 1), strict=True):
        _, first, second = np.intersect1d(sites[i], sites[j], return_indices=True)
        a, b = residuals[i][first], residuals[j][second]
        weight = np.sqrt((a**2).sum() * (b**2).sum())
        between[i, j] = between[j, i] = (a * b).sum() / weight if weight > 0 else 0.0
    return between


# Intervals ----------------------------------------------------------------------------------------


def intervals(totals: pd.Series, draws: Draws, probability: float) -> pd.DataFrame:
    """Return the interval of each total, km3 by region in the order of the draws, and then ``all``.

    Returns
    -------
    table
        One row a region and one for all: `km3`, `lower` and `upper` end (not below 0, and `km3`
        always between them), `se`, the standard deviation of the draws, and its parts: `sites_se`
        by resampled sites, of which `classes_se` by class means, `field_se` by the residual field,
        and `moved_se` by ice moved into the extent. `draws` is their number.
    """
    parts = {}
    for name in ("sites", "classes", "field", "moved"):
        part = getattr(draws, name)
        parts[name] = np.column_stack([part, part.sum(axis=1)])
    whole = parts["sites"] + parts["field"] + parts["moved"]
    low, high = np.quantile(whole, _ends(probability), axis=0)
    table = pd.DataFrame({"km3": totals})
    # Ice is moved one way in a region, so that all draws of a small one may lie on one side of the
    # map's total.
    table["lower"] = np.maximum(totals + np.minimum(low, 0), 0)
    table["upper"] = totals + np.maximum(high, 0)
    table["se"] = whole.std(axis=0, ddof=1)
    for name, part in parts.items():
        table[f"{name}_se"] = part.std(axis=0, ddof=1)
    return table.assign(draws=len(whole)).rename_axis("region")


def _ends(probability: float) -> list[float]:
    return [(1 - probability) / 2, (1 + probability) / 2]


def errors_of_ends(
    deviations: np.ndarray, probability: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the standard error of both ends of an interval, from draws of its own draws."""
    again = rng.choice(deviations, (_REPEATS, len(deviations)))
    return np.quantile(again, _ends(probability), axis=1).std(axis=1, ddof=1)


def write_intervals(study: Study, table: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Write the table of `intervals`, rounded, and return it.

    The JSON file has the variogram, too, and `errors_of_ends` of the whole.
    """
    settings = study.uncertainty
    files = interval_files(study)
    rng = np.random.default_rng(settings.seed)
    errors = errors_of_ends(draws.whole, settings.interval, rng)
    table = table.round(6)
    write_table(files["table"], table.reset_index())
    record = {
        "label": study.label,
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
        "standard_error_of_ends": errors.round(6),
    }
    write_json(files["record"], record)
    return table


def plot_interval(study: Study, draws: Draws) -> Figure:
    """Plot the draws of the total, and its written interval."""
    record = read_json(interval_files(study)["record"])
    whole = record["regions"]["all"]
    figure, axes = panels(1, 1, 2.4 * 25.4, width_mm=WIDTH_MM / 2, layout="constrained")
    panel = axes[0, 0]
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    totals = whole["km3"] + draws.whole
    share = f"{100 * record['probability']:g} % interval"
    panel.hist(totals, bins=30, color="#9ecae1", edgecolor="white", linewidth=0.3)
    panel.axvspan(whole["lower"], whole["upper"], color="0.9", zorder=0, label=share)
    panel.axvline(whole["km3"], color="black", linewidth=1.2, label="map")
    panel.set(title=f"{len(totals)} draws", xlabel="km³ of ice", ylabel="draws")
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
    panel.legend(**place, ncols=3, frameon=False)
    mark_label(figure, study.label)
    return figure
