"""Virtual land surface temperature; climate and soil in the formats of real products."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.special import ndtri

from helpers.core.rasters import write_raster
from helpers.prepare.climate import ERA5_MEANS
from helpers.prepare.products import (
    MODIS_LST,
    MONTHLY_PRECIPITATION,
    MONTHLY_TEMPERATURE,
    SOIL_CARBON,
    SOIL_FRACTION,
    SOIL_LAYERS,
    raw_files,
)
from testbed.landscape import (
    OVERPASSES,
    THREADS,
    Surface,
    era5_layer,
    falling,
    grid_of,
    landscape_grid,
    make_surface,
    on_cells,
    patches,
    stream,
    sunlight,
)
from testbed.settings import VirtualStudy

_QC_CLOUD = 0b10
_QC_NOT_PRODUCED = 0b11
_QC_OF_ERROR = (0b00000000, 0b01000101, 0b10000101, 0b11000101)  # up to 1, 2, 3 K; more

ZERO_CELSIUS = 273.15

_MONTHS = range(1, 13)


def write_lst(study: VirtualStudy, surface: Surface) -> list[Path]:
    """Make and write monthly land surface temperature by day and by night, with its quality.

    From the real monthly air temperature: the lapse rate of the month to the fine relief; cold air
    in valleys, strongest in winter nights; by day the excess of dry bare ground, less under plants
    and over water, and the sun on the slope; by night the deficit of clear nights; snow cools.
    Cloudiness correlated in space and from month to month decides where a value is missing and how
    large its error is.
    """
    climate, mesh = era5_layer(study, surface.geobox)
    lasting_rng, *rngs = stream(study, "lst").spawn(1 + len(_MONTHS))
    lasting = _cloudiness(study, surface, lasting_rng)
    keep = study.source.temperature.persistence
    shape = (len(_MONTHS), *surface.inside.shape)
    stacks = {name: np.full(shape, 0, np.uint16) for name in ("lst_day", "lst_night")}
    stacks |= {name: np.full(shape, _QC_NOT_PRODUCED, np.uint8) for name in ("qc_day", "qc_night")}

    def fill_month(month: int) -> None:
        air = on_cells(mesh, climate["air_temperature"][month].to_numpy(), surface.inside)
        for time, rng in zip(("day", "night"), rngs[month].spawn(2), strict=True):
            lst = surface_temperature(study, surface, air, month, time)
            cloud_rng, noise_rng = rng.spawn(2)
            own = _cloudiness(study, surface, cloud_rng)
            clouds = math.sqrt(keep) * lasting + math.sqrt(1 - keep) * own
            numbers, flags = _observed(study, lst, clouds, month, noise_rng)
            stacks[f"lst_{time}"][month][surface.inside] = numbers
            stacks[f"qc_{time}"][month][surface.inside] = flags

    def write(name: str) -> Path:
        return _write_months(study, surface.geobox, name, stacks[name])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill_month, range(len(_MONTHS))))
        return list(pool.map(write, stacks))


def _write_months(study: VirtualStudy, geobox: GeoBox, name: str, stack: np.ndarray) -> Path:
    overpass = name.split("_")[1]
    described = {"units": "1", "long_names": f"Virtual quality flags, {overpass}, bits as in MOD11"}
    if name.startswith("lst"):
        title = f"Virtual land surface temperature, {overpass}, monthly mean"
        described = {"units": "K", "long_names": title}
        described |= {"nodata": MODIS_LST.fill, "scale": MODIS_LST.scale}
    names = [f"{name}_{month:02d}" for month in _MONTHS]
    path = raw_files(study)[name]
    return write_raster(path, stack, geobox, study=study, names=names, **described)


def surface_for_lst(study: VirtualStudy, surface: Surface) -> Surface:
    """Return the ground on the grid of the surface temperature: the same, if its grid is."""
    same = surface.geobox == landscape_grid(study, study.source.lst_arcsec)
    return surface if same else make_surface(study, study.source.lst_arcsec)


def surface_temperature(
    study: VirtualStudy, surface: Surface, air: np.ndarray, month: int, time: str
) -> np.ndarray:
    """Return the true monthly land surface temperature, before clouds and errors, degC.

    Parameters
    ----------
    air
        Monthly mean air temperature of ERA5 on the cells inside, float32, degC.
    month
        From 0.
    time
        ``day`` or ``night``.
    """
    law = study.source.temperature
    day = time == "day"
    air = air - np.float32(law.lapse_rate[month] / 1000) * surface.lifted
    pool = np.float32(law.cold_pool[month] * (law.cold_pool_day if day else 1))
    belt = np.float32(law.warm_belt) * surface.prominence
    relief = pool * np.where(surface.prominence < 0, surface.prominence, belt)
    snow = np.float32(law.snow_cooling) * falling(air, law.snow_temperature)
    if not day:
        warming = _weighted(surface.cover, law.night_warming)
        deficit = np.float32(law.night_deficit[month]) * (1 - warming)
        return air + relief - deficit - snow
    cooling = _weighted(surface.cover, law.day_cooling)
    excess = np.float32(law.day_excess[month]) * (1 - cooling)
    sun = sunlight(surface, 30.4 * month + 15, OVERPASSES["lst"]).clip(0, 2.5) - 1
    return air + relief + excess + np.float32(law.sun[month]) * sun - snow


def _weighted(cover: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    return sum(np.float32(weight) * cover[name] for name, weight in weights.items())


def _cloudiness(study: VirtualStudy, surface: Surface, rng: np.random.Generator) -> np.ndarray:
    field = patches(surface.geobox, rng, study.source.temperature.cloud_km, 0.6)
    return field[surface.inside]


def _observed(
    study: VirtualStudy,
    lst: np.ndarray,
    clouds: np.ndarray,
    month: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return digital numbers of surface temperature and of its quality as the sensor gives them."""
    law = study.source.temperature
    # Cloudiness at which the error is above 1, 2 and 3 K, and at which the value is missing.
    shares = law.cloudy[month] + np.cumsum([0, *law.poorer])
    limits = ndtri(1 - shares)[::-1].astype(np.float32)
    level = np.searchsorted(limits, clouds).astype(np.uint8)
    noise = np.asarray([*law.noise, np.nan], np.float32)[level]
    error = noise * rng.standard_normal(lst.shape, np.float32)
    numbers = MODIS_LST.encode(lst + np.float32(ZERO_CELSIUS) + error)
    return numbers, np.asarray([*_QC_OF_ERROR, _QC_CLOUD], np.uint8)[level]


# Climate and soil: real layers, encoded -----------------------------------------------------------


def write_climate_and_soil(study: VirtualStudy) -> list[Path]:
    """Write what is real in the encodings of products: monthly means of ERA5, topsoil of HWSD.

    Values are missing where they are in HWSD.
    """
    soil = xr.load_dataset(study.path("data/base/hwsd-topsoil.nc")).rename(organic_carbon="soc")
    climate = xr.load_dataset(study.path(ERA5_MEANS))
    encodings = {"air_temperature": MONTHLY_TEMPERATURE, "precipitation": MONTHLY_PRECIPITATION}
    encodings |= dict.fromkeys(SOIL_LAYERS, SOIL_FRACTION) | {"soc": SOIL_CARBON}
    paths = []
    for name, encoding in encodings.items():
        values = soil[name] if name in SOIL_LAYERS else climate[name]
        months = [f"{name}_{month:02d}" for month in _MONTHS]
        path = write_raster(
            raw_files(study)[name],
            encoding.encode(values.to_numpy()),
            grid_of(values),
            study=study,
            names=months if values.ndim == 3 else name,
            units=encoding.unit,
            long_names=values.attrs.get("long_name", name),
            nodata=encoding.fill,
            scale=encoding.scale,
            offset=encoding.offset,
        )
        paths.append(path)
    return paths
