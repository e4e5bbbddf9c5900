"""The hidden ground of the virtual study: temperature, permafrost and ice on the fine grid.

A borehole differs from its fine cell (500 m), and a cell of the map holds several fine cells. The
constants of the law are `testbed.settings.Truth`. Permafrost of the Xing'an type is kept by the
ecosystem, not only by cold air:

1. *Air*: monthly ERA5 temperature brought to the ground's height; winter inversions chill valley
   floors.
2. *Ground*: temperature at the top of permafrost by the TTOP model (Smith and Riseborough 2002,
   Permafrost Periglac. Process. 13:1), with n-factors of vegetation and snow, conductivity ratios
   of peat, insolation of slopes, and two random fields that no covariate shows.
3. *Permafrost* where that temperature is below 0 degC, or was so in a colder past (relict). Its
   table follows Stefan's equation, lies deeper after fire and as relict; its base follows the
   temperature.
4. *Ice* by log-odds: wetness, peat, fine texture, enrichment at the table, decline with depth, two
   hidden fields; bedrock holds little.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy import ndimage

from helpers.core import ice
from helpers.core.grid import area_mask, bilinear, crs_wkt, fine_grid, reference_grid
from helpers.core.warp import warp
from helpers.prepare import climate
from helpers.prepare.products import MONTHLY_PRECIPITATION, MONTHLY_TEMPERATURE, raw_files
from helpers.prepare.registry import fine_files, read_covariates
from testbed.settings import Truth, VirtualStudy

LEAST_FROST_NUMBER = 0.36
"""Colder air than this is a condition of the law: elsewhere there is no permafrost."""

SLICES = 6
"""Depths at which the ice content of a layer's permafrost part is taken and averaged."""

CORE_LENGTHS = (0.3, 1.0)
"""Shortest and longest core that is measured as one, m."""


@dataclass(frozen=True)
class Ground:
    """Fields of the law; arrays of shape (cells,) over the fine cells that may have permafrost.

    Parameters
    ----------
    cells
        Flat index on the fine grid.
    temperature
        At the top of permafrost, degC.
    table, base
        Depth of permafrost, m; NaN without permafrost.
    soil_depth
        Depth to bedrock, m.
    odds
        Log-odds of ice content over the cap, at 2 m depth and without the transition zone.
    valley, peat, fines
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

    def at(self, index: npt.ArrayLike) -> "Ground":
        """Return the same fields for some of the cells."""
        return Ground(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values, dtype=np.float32))


def _between(pair: tuple[float, float], share: np.ndarray) -> np.ndarray:
    """Return values between the two of a pair, by a share in 0..1."""
    return np.float32(pair[0]) + np.float32(pair[1] - pair[0]) * share


def _random_field(geobox: GeoBox, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Return a Gaussian field of unit variance; correlation falls to 1/e in about `reach` m."""
    cells = reach / abs(geobox.transform.a)
    step = max(1, int(cells / 2.5))
    shape = tuple(-(-n // step) + 1 for n in geobox.shape)
    # The product of two smoothings of this width has the correlation exp(-(d / reach)^2).
    noise = rng.standard_normal(shape, np.float32)
    coarse = ndimage.gaussian_filter(noise, cells / step / 2, mode="wrap")
    coarse /= coarse.std()
    if step == 1:  # the lattice is the grid
        return coarse[: geobox.shape[0], : geobox.shape[1]].astype(float)
    rows, columns = (np.arange(n, dtype=np.float32) / step for n in geobox.shape)
    return bilinear(coarse, rows, columns)


def _added(deviations: Sequence[float], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of fields of unit variance, each times its standard deviation."""
    return sum(np.float32(sd) * field for sd, field in zip(deviations, parts, strict=True))


def make_ground(study: VirtualStudy, rng: np.random.Generator) -> Ground:
    """Return the ground of the virtual study.

    `rng` makes the fields that no covariate shows; everything else follows from rasters.
    """
    law = study.campaign.truth
    fine = fine_grid(study)
    site = _observed_fields(study, fine)

    def hidden(reach: float, rng: np.random.Generator) -> np.ndarray:
        return _random_field(fine, reach, rng).ravel()[site.cells]

    heat_rng, fire_rng = rng.spawn(2)
    broad_rng, local_rng = heat_rng.spawn(2)
    warmer = [hidden(40e3, broad_rng), hidden(study.grid.fine_resolution, local_rng)]
    shift = _added(law.hidden_temperature, warmer)
    burnt = hidden(5e3, fire_rng)
    burnt = (burnt > np.quantile(burnt, 1 - law.burnt_share)).astype(np.float32)

    temperature, thawing = _ttop(law, site, shift)
    past, _ = _ttop(law, site, shift - np.float32(law.past_cooling))
    cold = temperature < 0
    relict = ~cold & (past < 0) & (temperature < law.relict_limit)
    active = _between(law.stefan, site.peat) * np.sqrt(thawing) + law.burnt_table * burnt
    deeper = 2.0 + 3.5 * temperature / law.relict_limit
    table = active + np.where(cold, 1.2 * np.exp(temperature / 0.5), deeper)
    relict_thickness = 8 * (1 - temperature / law.relict_limit) + 1
    thickness = np.where(cold, 3 - law.thickness_per_kelvin * temperature, relict_thickness)

    richer = [hidden(reach, r) for reach, r in zip((25e3, 2e3), rng.spawn(2), strict=True)]
    odds = law.ice_intercept + law.ice_wetness * site.wetness + law.ice_peat * site.peat
    odds = odds + law.ice_fines * site.fines
    odds = odds + _added(law.hidden_ice, richer) - 0.5 * burnt
    frozen = cold | relict
    floats = {
        "temperature": temperature,
        "table": np.where(frozen, table, np.nan),
        "base": np.where(frozen, table + thickness, np.nan),
        "soil_depth": _between(law.soil_depth, site.valley) * np.exp(0.35 * richer[1]),
        "odds": odds,
        "valley": site.valley,
        "peat": site.peat,
        "fines": site.fines,
    }
    return Ground(site.cells, **{name: np.asarray(v, np.float32) for name, v in floats.items()})


@dataclass(frozen=True)
class _Site:
    """What rasters show of the fine cells that are cold enough; arrays of shape (cells,).

    `monthly` is the air temperature at the ground's height, degC, shape (12, cells), `snow` the
    winter's precipitation, mm; `sunny` is positive on slopes to the south; the others are shares in
    0..1.
    """

    cells: np.ndarray
    valley: np.ndarray
    wetness: np.ndarray
    forest: np.ndarray
    peat: np.ndarray
    fines: np.ndarray
    sunny: np.ndarray
    monthly: np.ndarray
    snow: np.ndarray


def _observed_fields(study: VirtualStudy, fine: GeoBox) -> _Site:
    divisor = study.grid.divisor
    names = ["air_frost_number", "ndvi", "organic_carbon", "clay", "silt"]
    covariates = read_covariates(study, names)
    coarse = {name: covariates[name].to_numpy() for name in names}
    cold = coarse["air_frost_number"] > LEAST_FROST_NUMBER
    cold &= np.isfinite(sum(coarse.values()))
    inside = area_mask(study, fine) & repeat_cells(cold, divisor)
    cells = np.flatnonzero(inside)

    names = ("elevation", "slope", "northness", "tpi", "twi")
    terrain = {name: warp(fine_files(study)[name], fine).ravel()[cells] for name in names}
    complete = np.isfinite(sum(terrain.values()))
    cells = cells[complete]
    terrain = {name: values[complete] for name, values in terrain.items()}
    row, column = np.divmod(cells, fine.shape[1])
    parents = row // divisor * (fine.shape[1] // divisor) + column // divisor
    covariate = {name: values.ravel()[parents] for name, values in coarse.items()}

    steep = np.clip(terrain["slope"] / 10, 0, 2)
    valley = _sigmoid(-terrain["tpi"] / 12 - 2.5 * steep + 1.0)
    wetness = _sigmoid((terrain["twi"] - 9.5) / 1.6) * (0.4 + 0.6 * valley)
    forest = np.clip((covariate["ndvi"] - 0.35) / 0.4, 0, 1)
    raw = warp(raw_files(study)["precipitation"], reference_grid(study), "bilinear")
    winter = MONTHLY_PRECIPITATION.decode(raw[[10, 11, 0, 1, 2]]).sum(axis=0)
    organic = _sigmoid((covariate["organic_carbon"] - 3) / 1.5) * 0.5
    return _Site(
        cells,
        valley,
        wetness,
        forest,
        peat=np.clip(organic + 0.6 * wetness * forest, 0, 1),
        fines=np.clip((covariate["clay"] + 0.5 * covariate["silt"] - 20) / 40, 0, 1),
        sunny=-terrain["northness"] * np.minimum(steep, 1.5),
        snow=winter.ravel()[parents],
        monthly=_monthly_air(study, terrain["elevation"], parents),
    )


def repeat_cells(values: np.ndarray, divisor: int) -> np.ndarray:
    """Return values of the reference grid on the fine grid, which divides its cells."""
    return np.repeat(np.repeat(values, divisor, 0), divisor, 1)


def _monthly_air(study: VirtualStudy, elevation: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return monthly air temperature, degC, shape (12, cells): ERA5's at the ground's height."""
    reference = reference_grid(study)
    raw = warp(raw_files(study)["air_temperature"], reference, "bilinear")
    coarse = MONTHLY_TEMPERATURE.decode(raw)
    base = warp(study.path("data/base/topography.tif"), reference, "average").astype(np.float32)
    era5_height = ndimage.gaussian_filter(base, 28e3 / study.grid.resolution / 2, mode="nearest")
    height = (elevation - era5_height.ravel()[parents]) / np.float32(1000)
    air = coarse.reshape(12, -1)[:, parents]  # the largest array of all: no copy
    return np.subtract(air, np.float32(study.campaign.truth.lapse_rate) * height, out=air)


def _ttop(law: Truth, site: _Site, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return temperature at the top of permafrost, degC, and the thawing index, degC d."""
    thawing, freezing = (np.zeros(site.cells.size, np.float32) for _ in range(2))
    for month, days in enumerate(climate.DAYS):
        winter = np.float32(max(0.0, np.cos(2 * np.pi * (month - 0.3) / 12)))
        air = site.monthly[month] + shift - np.float32(law.inversion) * winter * site.valley
        thawing += np.float32(days) * np.maximum(air, 0)
        freezing += np.float32(days) * np.maximum(-air, 0)
    thawing *= _between(law.thawing_n_factor, site.forest * (0.5 + 0.5 * site.peat))
    thawing *= 1 + np.float32(law.insolation) * site.sunny
    snow = site.snow / (site.snow + np.float32(law.snow_half))
    freezing *= _between(law.freezing_n_factor, snow)
    ratio = _between(law.conductivity_ratio, site.peat)
    balance = ratio * thawing - freezing
    balance = np.where(balance < 0, balance, thawing - freezing / ratio)
    return balance / np.float32(365), thawing


def ice_content_at(
    ground: Ground, depth: npt.ArrayLike, law: Truth, scatter: npt.ArrayLike = 0.0
) -> np.ndarray:
    """Return the volumetric ice content of frozen ground at a depth, m3 m-3, shape (cells,).

    Parameters
    ----------
    depth
        m below the surface, one or shape (cells,).
    scatter
        Added to the log-odds: what a borehole has beyond its cell.
    """
    above = np.maximum(depth - ground.table, 0)
    odds = ground.odds + scatter - np.float32(law.ice_decline) * (depth - 2)
    odds = odds + np.float32(law.ice_transition) * np.exp(-above / np.float32(law.transition_depth))
    content = np.float32(law.ice_cap) * _sigmoid(odds)
    return np.where(depth > ground.soil_depth, np.float32(law.rock_ice), content)


def layer_truth(
    study: VirtualStudy,
    ground: Ground,
    layer: tuple[float, float],
    scatter: npt.ArrayLike = 0.0,
    error: npt.ArrayLike = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth of a depth layer (m) on the fine cells, or what boreholes there would find.

    These differ by the `scatter` of the log-odds and the `error` of a measured ice content.

    Returns
    -------
    ice_type : shape (cells,)
        uint8; 0 without permafrost in the layer.
    ice_fraction : shape (cells,)
        float32; ice content of the permafrost part times its share of the layer, m3 m-3.
    """
    table = np.nan_to_num(ground.table, nan=1e6)
    top, bottom, share = ice.permafrost_part(*layer, table, np.nan_to_num(ground.base, nan=1e6))
    content = np.zeros_like(ground.odds)
    for part in (np.arange(SLICES) + 0.5) / SLICES:
        depth = np.where(share > 0, top + part * (bottom - top), layer[0]).astype(np.float32)
        content += ice_content_at(ground, depth, study.campaign.truth, scatter) / SLICES
    content = np.where(share > 0, np.clip(content + error, 0, 1), 0).astype(np.float32)
    types = np.where(share > 0, ice.ice_type(content, study.ice.thresholds), 0).astype(np.uint8)
    return types, (content * share).astype(np.float32)


def on_grid(cells: np.ndarray, values: np.ndarray, geobox: GeoBox) -> np.ndarray:
    """Return values of some cells as an image, 0 elsewhere."""
    grid = np.zeros(geobox.shape, np.float32)
    grid.ravel()[cells] = values
    return grid


def lonlat(column: np.ndarray, row: np.ndarray, geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude, degrees, of places in units of a grid's cells."""
    transformer = Transformer.from_crs(crs_wkt(geobox), "EPSG:4326", always_xy=True)
    return transformer.transform(*(geobox.transform * (column, row)))
