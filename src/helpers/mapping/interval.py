"""The interval of a total: how far the ice of the map may be from the ice in the ground.

A total errs for three reasons, and each is sampled:

1. *Sites.* Other boreholes would have said something else of where permafrost is, and of what it
   holds (`helpers.mapping.redraw`). Where shares of permafrost are known
   (`helpers.samples.prevalence`), they are drawn from their ranges.
2. *Contents.* Of these, what permafrost holds, apart from where it is.
3. *Residual field.* Covariates explain only a part of the ice. What is left is correlated over some
   distance, and its mean over the map is not zero. The variogram of out-of-fold residuals parts
   the correlated part from the nugget (measurement, variation within a cell), which averages out
   over a map and is left out. Folds are those of kNNDM, as far from each other as the map is from
   its samples: along roads near ones see hardly any of it.

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
from threadpoolctl import threadpool_limits

from helpers.core.files import read_json, write_json, write_table
from helpers.core.grid import reference_grid, study_regions
from helpers.core.plot import WIDTH_MM, mark_label, panels
from helpers.core.study import Study
from helpers.mapping.cells import Cells, sample_cells
from helpers.mapping.files import interval_files
from helpers.mapping.redraw import LayerModels, Redraw, layer_models, redraw
from helpers.mapping.variogram import (
    Variogram,
    block_covariance,
    covariogram,
    field_covariance,
    fit_variogram,
)
from helpers.samples.store import read_samples

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


def sample_storage(study: Study) -> Draws:
    """Draw how far the ice of provinces and leagues may be from the map's totals."""
    rng = np.random.default_rng(study.uncertainty.seed)
    drawn = redraw(study, read_samples(study), rng)
    return draw_storage(study, drawn, layer_models(study, drawn.table), rng)


def draw_storage(
    study: Study, drawn: Redraw, layers: Sequence[LayerModels], rng: np.random.Generator
) -> Draws:
    """Draw how far the ice of regions may be from its totals; `rng` is for the residual field."""
    settings = study.uncertainty
    cells = sample_cells(study, settings.cells)
    shape = (settings.draws, len(cells.names))
    sites = np.zeros(shape)
    contents = np.zeros(shape)
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        for layer in layers:
            ((chance, content),) = layer.redrawn(study, drawn, cells)
            sites += layer.volume(chance * content, cells)
            contents += layer.volume(chance.mean(axis=0) * content, cells)
        covariance, variogram = field_of_totals(study, layers, cells)
        zeros = np.zeros(shape[1])
        field = rng.multivariate_normal(zeros, covariance, settings.draws, method="eigh")
    return Draws(
        sites=settings.refit_inflation * (sites - sites.mean(axis=0)),
        contents=contents - contents.mean(axis=0),
        field=field,
        variogram=variogram,
        cells=cells,
        boreholes=_boreholes(study, drawn.table),
    )


def _boreholes(study: Study, table: pd.DataFrame) -> np.ndarray:
    """Return how many sites with a sample in the domain each region has."""
    sites = table[table["in_domain"]].drop_duplicates("site_id")
    places = sites["easting"].to_numpy(), sites["northing"].to_numpy()
    _, shapes = study_regions(study, reference_grid(study))
    return np.array([shapely.contains_xy(shape, *places).sum() for shape, _ in shapes])


def residual_field(study: Study, layers: Sequence[LayerModels]) -> tuple[Variogram, np.ndarray]:
    """Return the variogram of the residuals, in m, and their correlation between layers."""
    farthest = 1000 * study.uncertainty.farthest_km
    points, residuals, spread = [], [], []
    for layer in layers:
        inside = layer.rows["in_domain"].to_numpy(bool)
        points.append(layer.rows.loc[inside, ["easting", "northing"]].to_numpy())
        residual = layer.rows["ice_fraction"].to_numpy() - layer.at_samples.ice
        residuals.append(residual[inside])
        spread.append(layer.at_samples.ice_sd[inside])
    variogram = fit_variogram(*covariogram(points, residuals, spread, farthest), farthest)
    return variogram, _between(layers, residuals)


def field_of_totals(
    study: Study, layers: Sequence[LayerModels], cells: Cells
) -> tuple[np.ndarray, Variogram]:
    """Return the covariance of the regions' totals by the residual field, and its variogram."""
    variogram, between = residual_field(study, layers)
    loads = _loads(study, layers, cells)
    lags = block_covariance(variogram, loads.shape[2:], cells.side)
    covariance = field_covariance(loads, between, lags)
    return (covariance + covariance.T) / 2, variogram


def _loads(study: Study, layers: Sequence[LayerModels], cells: Cells) -> np.ndarray:
    """Return the km3 that a unit of the field adds, shape (regions, layers, rows, columns)."""
    lattice = (cells.row.max() + 1, cells.column.max() + 1)
    loads = np.zeros((len(cells.names), len(layers), *lattice))
    for index, layer in enumerate(layers):
        load = cells.ground.holds(layer.expected(study, cells).ice_sd, layer.depths)
        load *= layer.thickness * cells.side**2 / 1e9
        loads[cells.region, index, cells.row, cells.column] = load
    return loads


def _between(layers: Sequence[LayerModels], residuals: Sequence[np.ndarray]) -> np.ndarray:
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
    """Return the standard error of both ends of an interval, from draws of its own draws.

    Examples
    --------
    >>> rng = np.random.default_rng(0)  # a hundred times as many draws: about a tenth of the error
    >>> [errors_of_ends(rng.normal(size=n), 0.9, rng).round(2).tolist() for n in (100, 10_000)]
    [[0.13, 0.12], [0.02, 0.02]]
    """
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
