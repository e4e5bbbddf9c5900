"""The interval of a total: how far the ice of the map may be from the ice in the ground.

A total errs for three reasons, and each is sampled:

1. *Sites.* Other boreholes would have said something else of where permafrost is, and of what it
   holds. Sites are resampled by square blocks, because neighbours are not independent. The logistic
   regression is fitted anew, and so is what the leaves of both forests hold; the trees stay. Where
   shares of permafrost are known (`helpers.samples.prevalence`), they are drawn from their ranges.
2. *Contents.* Of these, what permafrost holds, apart from where it is.
3. *Residual field.* Covariates explain only a part of the ice. What is left is correlated over some
   distance, and its mean over the map is not zero. The variogram of out-of-fold residuals parts
   the correlated part from the nugget (measurement, variation within a cell), which averages out
   over a map and is left out.

The layers are drawn jointly: with the same blocks, and with one residual field whose correlation
between layers is that of the residuals. Draws are taken on a systematic sample of cells, around the
total of the whole map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier
from threadpoolctl import threadpool_limits

from helpers.core.classes import layer_name
from helpers.core.files import read_json, write_json, write_table
from helpers.core.grid import reference_grid, study_regions
from helpers.core.plot import WIDTH_MM, mark_label, panels
from helpers.core.study import Study
from helpers.folds.blocks import study_blocks
from helpers.folds.kinds import sample_folds
from helpers.forest.cards import load_hurdle
from helpers.forest.hurdle import PULL, Hurdle, Prediction, joined, learning_rows, predict_held_out
from helpers.forest.paths import model_path
from helpers.mapping.cells import Cells, sample_cells
from helpers.mapping.files import MapError, interval_files
from helpers.mapping.variogram import (
    Variogram,
    block_covariance,
    covariogram,
    field_covariance,
    fit_variogram,
)
from helpers.samples import store
from helpers.samples.prevalence import shift_at, shift_to, shifted, strata_at
from helpers.samples.rows import forest_predictors, layer_rows

LEAST_SITES = 10
"""Sites of a region in the domain, with fewer of which its total is given no interval.

Blocks without sites are never resampled, so that the models alone would say what is there.
"""

_REPEATS = 200  # of the draws, for the standard errors of an interval's ends

_NEWTON = 6  # steps from the fit of all samples; a test holds log-odds to scikit-learn's


@dataclass(frozen=True)
class Draws:
    """Draws of how far the ice of regions may be from the map's totals, km3.

    Parameters
    ----------
    sites, contents, field : shape (draws, regions)
        By resampled sites; by what permafrost holds alone; by the residual field.
    variogram
        Of the residuals; distances in m.
    boreholes : shape (regions,)
        Sites with a sample in the domain.
    """

    sites: np.ndarray
    contents: np.ndarray
    field: np.ndarray
    variogram: Variogram
    cells: Cells
    boreholes: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        """Deviations of the sum of all regions for all reasons, shape (draws,)."""
        return (self.sites + self.field).sum(axis=1)


@dataclass
class _Layer:
    """What draws of a layer are made from.

    Parameters
    ----------
    rows
        All samples of the layer, with `block`.
    learnt
        Those that the hurdle model has learned from.
    at_samples, at_cells
        What is expected of the samples, out of fold, and of the cells.
    depths
        Top and bottom of the layer, m.
    """

    rows: pd.DataFrame
    learnt: pd.DataFrame
    hurdle: Hurdle
    at_samples: Prediction
    at_cells: Prediction
    depths: tuple[float, float]

    @property
    def thickness(self) -> float:
        return self.depths[1] - self.depths[0]

    def redrawn(
        self, study: Study, counts: np.ndarray, shares: np.ndarray, cells: Cells
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return P and contents of the cells by how often each block is drawn, (draws, cells).

        Where shares of permafrost are known, each draw has them from another place in their ranges
        (`shares`, 0 to 1): one source errs one way everywhere.
        """
        values = forest_predictors(study, self.learnt)
        count = counts[:, self.learnt["block"]].astype(float)
        frozen = study.target_classes.permafrost[self.learnt["class"]]
        fraction = self.learnt["ice_fraction"].to_numpy(float)
        forest, contents = self.hurdle.forests[:2]
        votes = _redrawn_leaves(forest, values, frozen.astype(float), count, cells.values)
        iced = values[frozen], fraction[frozen], count[:, frozen]
        content = _redrawn_leaves(contents, *iced, cells.values)
        chance = joined(votes, self._logistic(values, frozen, count, cells.values))
        stratum = strata_at(study, self.hurdle.strata, cells.values, cells.points)
        for number, row in enumerate(self.hurdle.strata):
            inside = (stratum == number) & cells.in_domain
            if not inside.any():  # a stratum between the cells of the sample
                continue
            drawn = np.interp(shares, [0, 0.5, 1], [row["low"], row["share"], row["high"]])
            for one, share in zip(chance, drawn, strict=True):
                one[inside] = shifted(one[inside], shift_to(one[inside], share))
        return chance, content

    def _logistic(
        self, values: np.ndarray, frozen: np.ndarray, count: np.ndarray, cells: np.ndarray
    ) -> np.ndarray:
        """Return the log-odds of the cells by the logistic regression of each draw, (draws, cells).

        By Newton's method, from the fitted one, all draws at once.
        """
        mean, sd = values.mean(axis=0, dtype=float), values.std(axis=0, dtype=float)
        sd[sd == 0] = 1
        at, to = (
            np.column_stack([np.ones(len(part)), (part - mean) / sd]) for part in (values, cells)
        )
        first = self.hurdle.intercept + np.dot(self.hurdle.slope, mean)
        fitted = np.tile(np.append(first, self.hurdle.slope * sd), (len(count), 1))
        pull = np.append(0, np.full(len(mean), 1 / PULL))
        for _ in range(_NEWTON):
            chance = expit(fitted @ at.T)
            slope = (count * (chance - frozen)) @ at + pull * fitted
            weight = count * np.maximum(chance * (1 - chance), 1e-6)
            curve = np.einsum("dn,np,nq->dpq", weight, at, at, optimize=True) + np.diag(pull)
            fitted = fitted - np.linalg.solve(curve, slope[:, :, np.newaxis])[:, :, 0]
        return fitted @ to.T

    def volume(self, content: np.ndarray, cells: Cells) -> np.ndarray:
        """Return km3 of ice by region, (draws, regions), from ice fractions (draws, cells)."""
        inside = np.where(cells.in_domain, cells.ground.holds(content, self.depths), 0)
        sums = [np.bincount(cells.region, one, len(cells.names)) for one in inside]
        return np.stack(sums) * (self.thickness * cells.side**2 / 1e9)


def _redrawn_leaves(
    forest: RandomForestClassifier,
    values: np.ndarray,
    target: np.ndarray,
    count: np.ndarray,
    cells: np.ndarray,
) -> np.ndarray:
    """Return a forest's mean of a target by how often samples are drawn: (draws, cells).

    Of a leaf without a drawn sample, it is that of all samples.
    """
    total = np.zeros((len(count), len(cells)))
    for grown in forest.estimators_:
        leaf = grown.tree_.apply(values)
        there, place = np.unique(leaf, return_inverse=True)
        own = np.eye(len(there))[place]
        number = count @ own
        usual = own.T @ target / own.sum(axis=0)
        mean = np.where(number > 0, (count * target) @ own / np.maximum(number, 1), usual)
        total += mean[:, np.searchsorted(there, grown.tree_.apply(cells))]
    return total / len(forest.estimators_)


def sample_storage(study: Study) -> Draws:
    """Draw how far the ice of provinces and leagues may be from the map's totals."""
    settings = study.uncertainty
    table = store.read_samples(study)
    table["block"] = study_blocks(study, table, settings.block_km)
    blocks = int(table["block"].max()) + 1
    if blocks < 4:
        raise MapError(
            f"The sites lie in {blocks} blocks of {settings.block_km:g} km: "
            "too few to be resampled.",
            "set a smaller uncertainty.block_km",
        )
    rng = np.random.default_rng(settings.seed)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), settings.draws)
    # How far a source may err is its own word: the inflation of what is refitted is not for it.
    shares = 0.5 + (rng.random(settings.draws) - 0.5) / settings.refit_inflation
    cells = sample_cells(study, settings.cells)
    layers = _layers(study, table, cells)
    shape = (settings.draws, len(cells.names))
    sites = np.zeros(shape)
    contents = np.zeros(shape)
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        for layer in layers:
            chance, content = layer.redrawn(study, counts, shares, cells)
            sites += layer.volume(chance * content, cells)
            contents += layer.volume(chance.mean(axis=0) * content, cells)
        covariance, variogram = _field(layers, cells, 1000 * settings.farthest_km)
        zeros = np.zeros(shape[1])
        field = rng.multivariate_normal(zeros, covariance, settings.draws, method="eigh")
    return Draws(
        sites=settings.refit_inflation * (sites - sites.mean(axis=0)),
        contents=contents - contents.mean(axis=0),
        field=field,
        variogram=variogram,
        cells=cells,
        boreholes=_boreholes(study, table),
    )


def _boreholes(study: Study, table: pd.DataFrame) -> np.ndarray:
    """Return how many sites with a sample in the domain each region has."""
    sites = table[table["in_domain"]].drop_duplicates("site_id")
    places = sites["easting"].to_numpy(), sites["northing"].to_numpy()
    _, shapes = study_regions(study, reference_grid(study))
    return np.array([shapely.contains_xy(shape, *places).sum() for shape, _ in shapes])


def _layers(study: Study, table: pd.DataFrame, cells: Cells) -> list[_Layer]:
    """Return all layers, with the map's hurdle models and their predictions."""
    rows = [
        layer_rows(table, layer_name(layer), study.forest.map_fit, study.target_classes)
        for layer in study.depths
    ]
    paths = [model_path(study, layer_name(layer), kind="ice") for layer in study.depths]
    hurdles = [load_hurdle(path, study.target)[0] for path in paths]
    jobs = [
        (part, sample_folds(study, part), hurdle.strata)
        for part, hurdle in zip(rows, hurdles, strict=True)
    ]
    layers = []
    of_layers = zip(rows, hurdles, predict_held_out(study, jobs), study.depths, strict=True)
    for part, hurdle, held_out, depths in of_layers:
        shift = shift_at(study, hurdle.strata, cells.values, cells.points)
        at_cells = hurdle.predict(cells.values, cells.in_domain, shift)
        learnt = learning_rows(study, part)
        layers.append(_Layer(part, learnt, hurdle, held_out, at_cells, depths))
    return layers


def _field(layers: Sequence[_Layer], cells: Cells, farthest: float) -> tuple[np.ndarray, Variogram]:
    """Return the covariance of the regions' totals by the residual field, and its variogram."""
    points, residuals, spread = [], [], []
    for layer in layers:
        inside = layer.rows["in_domain"].to_numpy(bool)
        points.append(layer.rows.loc[inside, ["easting", "northing"]].to_numpy())
        residual = layer.rows["ice_fraction"].to_numpy() - layer.at_samples.ice
        residuals.append(residual[inside])
        spread.append(layer.at_samples.ice_sd[inside])
    variogram = fit_variogram(*covariogram(points, residuals, spread, farthest), farthest)
    lattice = (cells.row.max() + 1, cells.column.max() + 1)
    loads = np.zeros((len(cells.names), len(layers), *lattice))
    for index, layer in enumerate(layers):
        load = cells.ground.holds(layer.at_cells.ice_sd, layer.depths)
        load *= layer.thickness * cells.side**2 / 1e9
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
        by resampled sites, of which `contents_se` by what permafrost holds, and `field_se` by the
        residual field. `draws` is their number, `boreholes` that of sites in the domain. A region
        with fewer than `LEAST_SITES` has NaN instead, and a `note` that says so.
    """
    parts = {}
    for name in ("sites", "contents", "field"):
        part = getattr(draws, name)
        parts[name] = np.column_stack([part, part.sum(axis=1)])
    whole = parts["sites"] + parts["field"]
    low, high = np.quantile(whole, _ends(probability), axis=0)
    table = pd.DataFrame({"km3": totals})
    table["lower"] = np.maximum(totals + low, 0)
    table["upper"] = totals + high
    table["se"] = whole.std(axis=0, ddof=1)
    for name, part in parts.items():
        table[f"{name}_se"] = part.std(axis=0, ddof=1)
    few = np.append(draws.boreholes < LEAST_SITES, False)  # the whole has an interval in any case
    table[few] = table[["km3"]][few].reindex(columns=table.columns)
    table["draws"] = len(whole)
    table["boreholes"] = np.append(draws.boreholes, draws.boreholes.sum())
    table["note"] = np.where(few, f"no interval: fewer than {LEAST_SITES} sites in the domain", "")
    return table.rename_axis("region")


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
