"""The law of the virtual ground: temperature, permafrost and ice on the fine grid."""

from dataclasses import dataclass, fields

import numpy as np
from pyproj import Transformer
from scipy import ndimage

from helpers.core import ice
from helpers.core.grid import area_mask, bilinear, fine_grid, reference_grid
from helpers.core.rasters import warp
from helpers.prepare import climate
from helpers.prepare.products import MONTHLY_PRECIPITATION, MONTHLY_TEMPERATURE, raw_files
from helpers.prepare.registry import fine_files, read_covariates

LEAST_FROST_NUMBER = 0.36
"""Colder air than this is a condition of the law: elsewhere nothing is computed, and there is no permafrost."""


SLICES = 6
"""Depths at which the ice content of a layer's permafrost part is taken and averaged."""


CORE_LENGTHS = (0.3, 1.0)
"""Shortest and longest core that is measured as one, m."""


@dataclass
class Ground:
    """Fields of the law; arrays of shape (cells,) over the fine cells that may have permafrost.

    Parameters
    ----------
    cells : numpy.ndarray of int
        Flat index on the fine grid.
    temperature : numpy.ndarray
        At the top of permafrost, degC.
    table, base : numpy.ndarray
        Depth of permafrost, m; NaN without permafrost.
    soil_depth : numpy.ndarray
        Depth to bedrock, m.
    odds : numpy.ndarray
        Log-odds of ice content over the cap, at 2 m depth and without the transition zone.
    valley, peat, fines : numpy.ndarray
        Shares in 0..1: of a valley floor, of a peat cover, of clay and silt.
    """

    cells: np.ndarray
    temperature: np.ndarray
    table: np.ndarray
    base: np.ndarray
    soil_depth: np.ndarray
    odds: np.ndarray
    valley: np.ndarray
    peat: np.ndarray
    fines: np.ndarray

    def at(self, index):
        """Return the same fields for some of the cells."""
        return Ground(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _sigmoid(values):
    return 1 / (1 + np.exp(-values, dtype=np.float32))


def _between(pair, share):
    """Return values between the two of a pair, by a share in 0..1."""
    return np.float32(pair[0]) + np.float32(pair[1] - pair[0]) * share


def _random_field(geobox, reach, rng):
    """Return a Gaussian field of unit variance whose correlation falls to 1/e within about `reach` metres."""
    cells = reach / abs(geobox.transform.a)
    step = max(1, int(cells / 2.5))
    shape = tuple(-(-n // step) + 1 for n in geobox.shape)
    # The product of two smoothings of this width has the correlation exp(-(d / reach)^2).
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), cells / step / 2, mode="wrap")
    rows, columns = (np.arange(n, dtype=np.float32) / step for n in geobox.shape)
    return bilinear(coarse / coarse.std(), rows, columns)


# The law --------------------------------------------------------------------------------------------------------------


def make_ground(study, rng):
    """Draw the hidden ground of the virtual study.

    Parameters
    ----------
    study : helpers.core.study.Study
    rng : numpy.random.Generator
        Draws the fields that no covariate shows; everything else follows from rasters.

    Returns
    -------
    Ground
    """
    law, fine = study.truth, fine_grid(study)
    seen = _observed_fields(study, fine)
    heat, unheat = rng.spawn(2)
    unseen = [
        _random_field(fine, reach, r).ravel()[seen["cells"]]
        for reach, r in zip((40e3, study.grid.fine_resolution), heat.spawn(2), strict=True)
    ]
    shift = sum(np.float32(sd) * field for sd, field in zip(law.unseen_temperature, unseen, strict=True))
    burnt = _random_field(fine, 5e3, unheat).ravel()[seen["cells"]]
    burnt = (burnt > np.quantile(burnt, 1 - law.burnt_share)).astype(np.float32)

    temperature, thawing = _ttop(law, seen, shift)
    past, _ = _ttop(law, seen, shift - np.float32(law.past_cooling))
    cold = temperature < 0
    relict = ~cold & (past < 0) & (temperature < law.relict_limit)
    peat = seen["peat"]
    active = _between(law.stefan, peat) * np.sqrt(thawing) + law.burnt_table * burnt
    table = active + np.where(cold, 1.2 * np.exp(temperature / 0.5), 2.0 + 3.5 * temperature / law.relict_limit)
    thickness = np.where(cold, 3 - law.thickness_per_kelvin * temperature, 8 * (1 - temperature / law.relict_limit) + 1)
    frozen = cold | relict

    ice_fields = [
        _random_field(fine, reach, r).ravel()[seen["cells"]] for reach, r in zip((25e3, 2e3), rng.spawn(2), strict=True)
    ]
    odds = law.ice_intercept + law.ice_wetness * seen["wetness"] + law.ice_peat * peat + law.ice_fines * seen["fines"]
    odds = (
        odds + sum(np.float32(sd) * field for sd, field in zip(law.unseen_ice, ice_fields, strict=True)) - 0.5 * burnt
    )
    soil = _between(law.soil_depth, seen["valley"]) * np.exp(0.35 * ice_fields[1])

    nowhere = np.float32(np.nan)
    ground = Ground(
        seen["cells"],
        temperature,
        np.where(frozen, table, nowhere),
        np.where(frozen, table + thickness, nowhere),
        soil,
        odds,
        seen["valley"],
        peat,
        seen["fines"],
    )
    return Ground(
        **{
            f.name: np.asarray(getattr(ground, f.name), None if f.name == "cells" else np.float32)
            for f in fields(ground)
        }
    )


def _observed_fields(study, fine):
    """Return what rasters show of the fine cells that are cold enough, as a dict of arrays of shape (cells,)."""
    shape, divisor = fine.shape, round(study.grid.resolution / study.grid.fine_resolution)
    coarse = read_covariates(study, ["air_frost_number", "ndvi", "organic_carbon", "clay", "silt"])
    cold = coarse["air_frost_number"].to_numpy() > LEAST_FROST_NUMBER
    cold &= np.isfinite(sum(coarse[name].values for name in coarse.data_vars))
    inside = area_mask(study, fine) & np.repeat(np.repeat(cold, divisor, 0), divisor, 1)
    cells = np.flatnonzero(inside)
    parents = (cells // shape[1]) // divisor * (shape[1] // divisor) + (cells % shape[1]) // divisor

    names = ("elevation", "slope", "northness", "tpi", "twi")
    terrain = {name: warp(fine_files(study)[name], fine).ravel()[cells] for name in names}
    cells, parents = cells[ok := np.isfinite(sum(terrain.values()))], parents[ok]
    terrain = {name: values[ok] for name, values in terrain.items()}
    covariate = {name: coarse[name].to_numpy().ravel()[parents] for name in coarse.data_vars}

    steep = np.clip(terrain["slope"] / 10, 0, 2)
    valley = _sigmoid(-terrain["tpi"] / 12 - 2.5 * steep + 1.0)
    wetness = _sigmoid((terrain["twi"] - 9.5) / 1.6) * (0.4 + 0.6 * valley)
    forest = np.clip((covariate["ndvi"] - 0.35) / 0.4, 0, 1)
    peat = np.clip(_sigmoid((covariate["organic_carbon"] - 3) / 1.5) * 0.5 + 0.6 * wetness * forest, 0, 1)
    return {
        "cells": cells,
        "valley": valley,
        "wetness": wetness,
        "forest": forest,
        "peat": peat,
        "fines": np.clip((covariate["clay"] + 0.5 * covariate["silt"] - 20) / 40, 0, 1),
        "sunny": -terrain["northness"] * np.minimum(steep, 1.5),
        "parents": parents,
        "monthly": _monthly_air(study, terrain["elevation"], parents),
        "snow": _winter_precipitation(study, parents),
    }


def _monthly_air(study, elevation, parents):
    """Return monthly air temperature at the ground's height, degC, shape (12, cells): ERA5's, less the lapse rate."""
    reference = reference_grid(study)
    raw = raw_files(study)
    coarse = MONTHLY_TEMPERATURE.decode(warp(raw["air_temperature"], reference, "bilinear"))
    base = warp(study.path("data/base/topography.tif"), reference, "average").astype(np.float32)
    seen_by_era5 = _smoothed(base, 28e3 / study.grid.resolution)
    height = (elevation - seen_by_era5.ravel()[parents]) / np.float32(1000)
    return coarse.reshape(12, -1)[:, parents] - np.float32(study.truth.lapse_rate) * height


def _smoothed(values, cells):
    return ndimage.gaussian_filter(values, cells / 2, mode="nearest")


def _winter_precipitation(study, parents):
    monthly = MONTHLY_PRECIPITATION.decode(warp(raw_files(study)["precipitation"], reference_grid(study), "bilinear"))
    return monthly[[10, 11, 0, 1, 2]].sum(axis=0).ravel()[parents]


def _ttop(law, seen, shift):
    """Return temperature at the top of permafrost (degC) and the ground's thawing index (degC d)."""
    thawing, freezing = (np.zeros(seen["cells"].size, np.float32) for _ in range(2))
    for month, days in enumerate(climate.DAYS):
        winter = np.float32(max(0.0, np.cos(2 * np.pi * (month - 0.3) / 12)))
        air = seen["monthly"][month] + shift - np.float32(law.inversion) * winter * seen["valley"]
        thawing += np.float32(days) * np.maximum(air, 0)
        freezing += np.float32(days) * np.maximum(-air, 0)
    thawing *= _between(law.thawing_n_factor, seen["forest"] * (0.5 + 0.5 * seen["peat"]))
    thawing *= 1 + np.float32(law.insolation) * seen["sunny"]
    snow = seen["snow"] / (seen["snow"] + np.float32(law.snow_half))
    freezing *= _between(law.freezing_n_factor, snow)
    ratio = _between(law.conductivity_ratio, seen["peat"])
    balance = ratio * thawing - freezing
    return np.where(balance < 0, balance, thawing - freezing / ratio) / np.float32(365), thawing


def ice_content_at(ground, depth, law, scatter=0.0):
    """Return the volumetric ice content of frozen ground at a depth.

    Parameters
    ----------
    ground : Ground
        Of any number of cells.
    depth : float or numpy.ndarray, shape (cells,)
        m below the surface.
    law : testbed.settings.Truth
    scatter : float or numpy.ndarray
        Added to the log-odds: what a hole has beyond its cell.

    Returns
    -------
    numpy.ndarray, shape (cells,)
        m3 m-3.
    """
    above = np.maximum(depth - ground.table, 0)
    odds = ground.odds + scatter - np.float32(law.ice_decline) * (depth - 2)
    odds = odds + np.float32(law.ice_transition) * np.exp(-above / np.float32(law.transition_depth))
    return np.where(depth > ground.soil_depth, np.float32(law.rock_ice), np.float32(law.ice_cap) * _sigmoid(odds))


def layer_truth(ground, layer, law, thresholds, scatter=0.0, error=0.0):
    """Return the truth of one depth layer on the fine cells, or what holes in them find.

    Parameters
    ----------
    ground : Ground
    layer : tuple of float
        Top and bottom, m.
    law : testbed.settings.Truth
    thresholds : sequence of float
        Limits between ice types.
    scatter, error : float or numpy.ndarray
        What a hole has beyond its cell: in log-odds of ice content, and as an error of the content, m3 m-3.

    Returns
    -------
    ice_type : numpy.ndarray of uint8, shape (cells,)
        0 without permafrost in the layer.
    ice_fraction : numpy.ndarray of float32, shape (cells,)
        Ice content of the permafrost part times its share of the layer, m3 m-3.
    """
    table = np.nan_to_num(ground.table, nan=1e6)
    top, bottom, share = ice.permafrost_part(*layer, table, np.nan_to_num(ground.base, nan=1e6))
    content = np.zeros_like(ground.odds)
    for part in (np.arange(SLICES) + 0.5) / SLICES:
        depth = np.where(share > 0, top + part * (bottom - top), layer[0]).astype(np.float32)
        content += ice_content_at(ground, depth, law, scatter) / SLICES
    content = np.where(share > 0, np.clip(content + error, 0, 1), 0).astype(np.float32)
    types = np.where(share > 0, ice.ice_type(content, thresholds), 0).astype(np.uint8)
    return types, (content * share).astype(np.float32)


def on_grid(cells, values, geobox):
    """Return values of some cells as an image, 0 elsewhere."""
    grid = np.zeros(geobox.shape, np.float32)
    grid.ravel()[cells] = values
    return grid


def lonlat(easting, northing, geobox):
    """Return longitude and latitude, degrees, of places on a grid."""
    return Transformer.from_crs(geobox.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(easting, northing)
