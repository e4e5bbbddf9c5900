"""The hidden truth on the map: its rasters, and whether they are plausible."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.core.classes import ICE_TYPES, NO_TYPE, layer_name
from helpers.core.grid import area_mask, block_mean, fine_grid, reference_grid
from helpers.core.rasters import write_raster
from helpers.core.warp import warp
from helpers.prepare.registry import fine_files
from testbed.ground import CORE_LENGTHS, Ground, layer_truth, lonlat, on_grid
from testbed.settings import VirtualStudy

Rasters = dict[str, np.ndarray]
"""The truth on the reference grid, by the names of `truth_files`."""

PUBLISHED_BOREHOLES = {
    "latitude": (50.5, 53.0),
    "elevation": (400.0, 1000.0),
    "temperature": (-2.83, -0.49),
}
"""Six boreholes of the Greater Khingan Range (ESSD 14:3947): ranges of latitude (degrees north),
elevation (m) and mean annual ground temperature (degC)."""


def truth_files(study: VirtualStudy) -> dict[str, Path]:
    """Return the rasters of the truth on the reference grid, by name."""
    kinds = ("ice_type", "ice_fraction", "borehole_type")
    names = [f"{kind}_{layer_name(layer)}" for layer in study.layers for kind in kinds]
    folder = study.results_dir / "truth"
    return {name: folder / f"{name}.tif" for name in [*names, "permafrost_share"]}


def true_rasters(study: VirtualStudy, ground: Ground, rng: np.random.Generator) -> Rasters:
    """Return the truth of each layer on the reference grid.

    ``ice_type_<layer>`` is the type that most of a cell has, ``ice_fraction_<layer>`` its areal
    mean. ``borehole_type_<layer>`` is what one borehole at a random place of each cell would find,
    with the errors that the study's boreholes have: a probability sample that nobody could pay for.
    No estimate from boreholes can show more. `rng` is for these boreholes.

    Types are uint8, 255 outside of the area; the others float32, NaN there.
    """
    fine = fine_grid(study)
    divisor = study.grid.divisor
    inside = area_mask(study, reference_grid(study))

    def mean(values: np.ndarray) -> np.ndarray:
        share = block_mean(on_grid(ground.cells, values, fine), divisor)
        return np.where(inside, share, np.float32(np.nan))

    def types_inside(types: np.ndarray) -> np.ndarray:
        return np.where(inside, types, NO_TYPE).astype(np.uint8)

    truth = {"permafrost_share": mean(np.isfinite(ground.table))}
    for layer in study.layers:
        name = layer_name(layer)
        types, fraction = layer_truth(study, ground, layer)
        shares = [mean(types == code) for code in range(1, 6)]
        shares.insert(0, 1 - sum(shares))
        truth[f"ice_type_{name}"] = types_inside(np.argmax(np.round(shares, 4), axis=0))
        truth[f"ice_fraction_{name}"] = mean(fraction)
    sampled = _borehole_types(study, ground, rng)
    return truth | {name: types_inside(types) for name, types in sampled.items()}


def _borehole_types(study: VirtualStudy, ground: Ground, rng: np.random.Generator) -> Rasters:
    """Return the type that one borehole in each reference cell finds, by name of its raster."""
    plan = study.campaign.boreholes
    shape = reference_grid(study).shape
    divisor = study.grid.divisor
    within = rng.integers(divisor, size=(2, *shape))
    row, column = (np.indices(shape) * divisor + within).reshape(2, -1)
    cells = row * fine_grid(study).shape[1] + column
    place = np.minimum(np.searchsorted(ground.cells, cells), ground.cells.size - 1)
    possible = np.flatnonzero(ground.cells[place] == cells)
    boreholes = ground.at(place[possible])

    def errors(sd: float) -> np.ndarray:
        return rng.normal(0, sd, possible.size)

    table = np.maximum(0.4, boreholes.table + errors(plan.table_error))
    base = np.maximum(table + 0.2, boreholes.base + errors(2 * plan.table_error))
    boreholes = replace(boreholes, table=table.astype(np.float32), base=base.astype(np.float32))
    scatter = errors(plan.borehole_scatter).astype(np.float32)
    sampled = {}
    for top, bottom in study.layers:
        cores = max(1, (bottom - top) / np.mean(CORE_LENGTHS))
        ice_error = errors(plan.ice_error / np.sqrt(cores)).astype(np.float32)
        of_boreholes, _ = layer_truth(study, boreholes, (top, bottom), scatter, ice_error)
        types = np.zeros(cells.size, np.uint8)
        types[possible] = of_boreholes
        sampled[f"borehole_type_{layer_name((top, bottom))}"] = types.reshape(shape)
    return sampled


def write_truth(study: VirtualStudy, ground: Ground, rng: np.random.Generator) -> Rasters:
    """Write the rasters of `true_rasters`, and return them."""
    truth = true_rasters(study, ground, rng)
    legend = {kind.code: (kind.name, kind.colour) for kind in ICE_TYPES}
    reference = reference_grid(study)
    for name, values in truth.items():
        described = {"names": name, "units": "1", "long_names": "true " + name.replace("_", " ")}
        if values.dtype == np.uint8:
            described |= {"nodata": NO_TYPE, "legend": legend}
        write_raster(truth_files(study)[name], values, reference, study=study, **described)
    return truth


def check_plausibility(study: VirtualStudy, ground: Ground, truth: Rasters) -> pd.DataFrame:
    """Compare the truth with published numbers and with what the test bed must offer.

    There is one row a requirement: value, lowest and highest that are plausible, and whether it
    `holds`.
    """
    cell = study.grid.resolution**2 / 1e6
    layers = [layer_name(layer) for layer in study.layers]
    depths = [bottom - top for top, bottom in study.layers]
    fractions = [np.nansum(truth[f"ice_fraction_{name}"]) for name in layers]
    volume = sum(part * depth for part, depth in zip(fractions, depths, strict=True)) * cell / 1e3
    types = np.concatenate([truth[f"ice_type_{name}"].ravel() for name in layers])
    frozen = np.bincount(types[(types > 0) & (types < NO_TYPE)], minlength=6)[1:]
    temperature = _temperature_at_published_boreholes(study, ground)
    rows = [
        ("permafrost area, 1e4 km2", np.nansum(truth["permafrost_share"]) * cell / 1e4, 25, 35),
        ("ice of all layers, km3", volume, 200, 700),
        ("rarest ice type, share of permafrost cells", frozen.min() / frozen.sum(), 0.01, 1),
        (
            "ground temperature like the published boreholes, median, degC",
            temperature,
            *PUBLISHED_BOREHOLES["temperature"],
        ),
    ]
    columns = ["requirement", "value", "lowest", "highest"]
    table = pd.DataFrame(rows, columns=columns).set_index("requirement")
    table["holds"] = table["value"].between(table["lowest"], table["highest"])
    return table


def _temperature_at_published_boreholes(study: VirtualStudy, ground: Ground) -> float:
    """Return the median over permafrost of the published boreholes' latitudes and elevations."""
    fine = fine_grid(study)
    row, column = np.divmod(ground.cells, fine.shape[1])
    _, latitude = lonlat(column + 0.5, row + 0.5, fine)
    elevation = warp(fine_files(study)["elevation"], fine).ravel()[ground.cells]
    alike = np.isfinite(ground.table) & (ground.temperature < 0)
    for values, name in ((latitude, "latitude"), (elevation, "elevation")):
        lowest, highest = PUBLISHED_BOREHOLES[name]
        alike &= (values >= lowest) & (values <= highest)
    return float(np.median(ground.temperature[alike]))
