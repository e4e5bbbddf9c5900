"""Virtual land surface temperature; climate and soil in the formats of real products."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import ndtri

from helpers.core.rasters import write_raster
from helpers.prepare.products import (
    MODIS_LST,
    MONTHLY_PRECIPITATION,
    MONTHLY_TEMPERATURE,
    MONTHS,
    SOIL_CARBON,
    SOIL_FRACTION,
    SOIL_LAYERS,
    raw_files,
)
from testbed.landscape import (
    OVERPASSES,
    THREADS,
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

_QC_CLOUD, _QC_NOT_PRODUCED = 0b10, 0b11


ZERO_CELSIUS = 273.15


# --- land surface temperature -------------------------------------------------------------------------------


def write_lst(study, surface):
    """Make and write monthly land surface temperature by day and by night, with its quality.

    From the real monthly air temperature: the lapse rate of the month to the fine relief; cold air in
    valleys, strongest in winter nights; by day the excess of dry bare ground, less under plants and over
    water, and the sun on the slope; by night the deficit of clear nights; snow cools. Cloudiness correlated
    in space and from month to month decides where a value is missing and how large its error is.

    Parameters
    ----------
    study : helpers.core.study.Study
    surface : Surface
        On the grid of the surface temperature.

    Returns
    -------
    list of pathlib.Path
    """
    climate, mesh = era5_layer(study, surface.geobox)
    rngs = stream(study, "lst").spawn(1 + len(MONTHS))
    lasting = _cloudiness(study, surface, rngs[0])
    shape = (len(MONTHS), *surface.inside.shape)
    stacks = {name: np.full(shape, 0, np.uint16) for name in ("lst_day", "lst_night")}
    stacks |= {name: np.full(shape, _QC_NOT_PRODUCED, np.uint8) for name in ("qc_day", "qc_night")}

    def fill_month(month):
        air = on_cells(mesh, climate["air_temperature"][month].to_numpy(), surface.inside)
        for time, rng in zip(("day", "night"), rngs[1 + month].spawn(2), strict=True):
            lst = surface_temperature(study, surface, air, month, time)
            numbers, flags = _observed(study, surface, lst, lasting, month, rng)
            stacks[f"lst_{time}"][month][surface.inside] = numbers
            stacks[f"qc_{time}"][month][surface.inside] = flags

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill_month, range(len(MONTHS))))
        return list(pool.map(lambda name: _write_months(study, surface.geobox, name, stacks[name]), stacks))


def _write_months(study, geobox, name, stack):
    overpass = name.split("_")[1]
    common = {"study": study, "names": [f"{name}_{month:02d}" for month in MONTHS]}
    if name.startswith("qc"):
        return write_raster(
            raw_files(study)[name],
            stack,
            geobox,
            units="1",
            long_names=f"Virtual quality flags, {overpass}, bits as in MOD11",
            **common,
        )
    return write_raster(
        raw_files(study)[name],
        stack,
        geobox,
        units="K",
        nodata=MODIS_LST.fill,
        scale=MODIS_LST.scale,
        long_names=f"Virtual land surface temperature, {overpass}, monthly mean",
        **common,
    )


def surface_for_lst(study, surface):
    """Return the ground on the grid of the surface temperature: the given one, if its grid is the same."""
    same = surface.geobox == landscape_grid(study, study.landscape.lst_arcsec)
    return surface if same else make_surface(study, study.landscape.lst_arcsec)


def surface_temperature(study, surface, air, month, time):
    """Return the true monthly land surface temperature, before clouds and errors.

    Parameters
    ----------
    study : helpers.core.study.Study
    surface : Surface
    air : numpy.ndarray of float32
        Monthly mean air temperature of ERA5 on the cells inside, in degC.
    month : int
        From 0.
    time : {'day', 'night'}

    Returns
    -------
    numpy.ndarray of float32
        In degC.
    """
    law = study.landscape.temperature
    day = time == "day"
    air = air - np.float32(law.lapse_rate[month] / 1000) * surface.lifted
    pool = np.float32(law.cold_pool[month] * (law.cold_pool_day if day else 1))
    relief = pool * np.where(surface.prominence < 0, surface.prominence, np.float32(law.warm_belt) * surface.prominence)
    snow = np.float32(law.snow_cooling) * falling(air, law.snow_temperature)
    if not day:
        deficit = np.float32(law.night_deficit[month]) * (1 - _weighted(surface.cover, law.night_warming))
        return air + relief - deficit - snow
    excess = np.float32(law.day_excess[month]) * (1 - _weighted(surface.cover, law.day_cooling))
    sun = sunlight(surface, 30.4 * month + 15, OVERPASSES["lst"]).clip(0, 2.5) - 1
    return air + relief + excess + np.float32(law.sun[month]) * sun - snow


def _weighted(cover, weights):
    return sum(np.float32(weight) * cover[name] for name, weight in weights.items())


def _cloudiness(study, surface, rng):
    return patches(surface.geobox, rng, study.landscape.temperature.cloud_km, 0.6)[surface.inside]


def _observed(study, surface, lst, lasting, month, rng):
    """Return digital numbers of surface temperature and of its quality as the sensor gives them."""
    law = study.landscape.temperature
    keep = law.persistence
    cloud_rng, noise_rng = rng.spawn(2)
    cloudy = math.sqrt(keep) * lasting + math.sqrt(1 - keep) * _cloudiness(study, surface, cloud_rng)
    missing = law.cloudy[month]
    limits = ndtri(1 - (missing + np.cumsum([0, *law.poorer])))[::-1].astype(
        np.float32
    )  # errors above 1, 2 and 3 K; missing
    level = np.searchsorted(limits, cloudy).astype(np.uint8)
    noise = np.asarray([*law.noise, np.nan], np.float32)[level]
    numbers = MODIS_LST.encode(
        lst + np.float32(ZERO_CELSIUS) + noise * noise_rng.standard_normal(lst.shape, np.float32)
    )
    flags = np.asarray([0b00000000, 0b01000101, 0b10000101, 0b11000101, _QC_CLOUD], np.uint8)
    return numbers, flags[level]


# --- climate and soil: real layers, encoded -----------------------------------------------------------------


def write_climate(study):
    """Write the real monthly means of ERA5 in the encodings of monthly climate grids; return the paths."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/era5-monthly-means.nc")) as data:
        climate = data.load()
    encodings = {"air_temperature": MONTHLY_TEMPERATURE, "precipitation": MONTHLY_PRECIPITATION}
    return [
        _write_encoded(
            study,
            name,
            climate[name].to_numpy(),
            grid_of(climate),
            encoding,
            [f"{name}_{month:02d}" for month in MONTHS],
            climate[name].attrs.get("long_name", name),
        )
        for name, encoding in encodings.items()
    ]


def write_soil(study):
    """Write the real topsoil of HWSD in SoilGrids' encodings, missing where HWSD is; return the paths."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/hwsd-topsoil.nc")) as data:
        soil = data.load()
    written = []
    for name in SOIL_LAYERS:
        values = soil["organic_carbon" if name == "soc" else name]
        encoding = SOIL_CARBON if name == "soc" else SOIL_FRACTION
        written.append(
            _write_encoded(
                study,
                name,
                values.to_numpy(),
                grid_of(soil),
                encoding,
                name,
                values.attrs.get("long_name", name),
            )
        )
    return written


def _write_encoded(study, name, values, geobox, encoding, names, long_name):
    return write_raster(
        raw_files(study)[name],
        encoding.encode(values),
        geobox,
        study=study,
        names=names,
        units=encoding.unit,
        long_names=long_name,
        nodata=encoding.fill,
        scale=encoding.scale,
        offset=encoding.offset,
    )
