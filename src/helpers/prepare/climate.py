"""Climate covariates: land surface temperature and its indices, precipitation, air temperature.

Land surface temperature (LST) is a skin temperature seen through clear sky only, above snow and canopy. Its
means are biased against all-weather ones, mostly warm in summer days and cold in winter nights; thawing and
freezing index from it are *surface* indices in that sense.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from helpers.core.errors import CompendiumError
from helpers.core.grid import area_mask, reference_grid, study_area
from helpers.core.rasters import THREADS, warp
from helpers.prepare.products import MODIS_LST, MONTHLY_PRECIPITATION, MONTHLY_TEMPERATURE, raw_files

DAYS = np.array([31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
"""Days of the months in a mean year of 365.25 days."""


FREEZING_POINT = 273.15  # K


PUBLISHED_PERMAFROST_AREA = (25.21, 35.14)
"""Permafrost of Northeast China, least and most, 10^4 km2, surface frost number (Sustainability 15:14610)."""


ERA5_MEANS = "data/base/era5-monthly-means.nc"


_CHUNK = 50_000  # cells


_AUTHALIC_RADIUS = 6371.0072  # km, of WGS 84


class ClimateError(CompendiumError):
    """Monthly climate rasters that cannot be used."""


def decode_lst(numbers, qc, max_error=2):
    """Return land surface temperature where its quality is good enough.

    Parameters
    ----------
    numbers : numpy.ndarray of uint16
        Digital numbers of MOD11, any shape.
    qc : numpy.ndarray of uint8
        Quality control of the same shape: bits 0-1 are 00 for good quality, 01 for others whose error is in
        bits 6-7 (at most 1, 2, 3 K, or more), 10 and 11 for not produced.
    max_error : int
        Largest accepted error of quality 01 in K.

    Returns
    -------
    numpy.ndarray of float32
        Degrees Celsius, NaN where rejected.
    """
    mandatory, error = qc & 0b11, (qc >> 6) & 0b11
    accepted = (mandatory == 0) | ((mandatory == 1) & (error < max_error))
    return np.where(accepted, MODIS_LST.decode(numbers) - np.float32(FREEZING_POINT), np.float32(np.nan))


def harmonics_matrix(harmonics, months=12):
    """Return mean and harmonics at the middle of each month, shape (month, 1 + 2 harmonics)."""
    phase = 2 * np.pi * (np.arange(months) + 0.5) / months
    waves = [wave(k * phase) for k in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.column_stack([np.ones(months), *waves])


def fill_harmonic(monthly, harmonics=2, minimum_months=8):
    """Fill missing months by the mean and harmonics that fit the valid ones best, by least squares.

    Valid months are left as they are. A gap of several months in a row is extrapolated, and the error of its
    filling is a few times that of a month.

    Parameters
    ----------
    monthly : numpy.ndarray of float32, shape (12, cell)
        NaN where missing.
    harmonics : int
    minimum_months : int
        A cell with fewer valid months becomes NaN in all.

    Returns
    -------
    numpy.ndarray of float32, shape (12, cell)
    """
    valid = np.isfinite(monthly)
    filled = np.array(monthly, np.float32)
    filled[:, valid.sum(axis=0) < max(minimum_months, 1 + 2 * harmonics)] = np.nan
    # cells with the same missing months share one small matrix, from their valid months to their missing ones
    patterns = (valid * (1 << np.arange(12, dtype=np.int16))[:, None]).sum(axis=0, dtype=np.int16)
    todo = np.flatnonzero((patterns != 0b111111111111) & np.isfinite(filled).any(axis=0))
    todo = todo[np.argsort(patterns[todo], kind="stable")]
    for cells in np.split(todo, np.flatnonzero(np.diff(patterns[todo])) + 1) if todo.size else ():
        have = valid[:, cells[0]]
        transfer = _gap_matrix(tuple(have.tolist()), harmonics)
        filled[np.ix_(~have, cells)] = np.einsum("mh,hc->mc", transfer, monthly[np.ix_(have, cells)])
    return filled


@cache
def _gap_matrix(have, harmonics):
    """Return the matrix from the valid months to the missing ones."""
    design, have = harmonics_matrix(harmonics), np.array(have)
    return (design[~have] @ np.linalg.pinv(design[have])).astype(np.float32)


def annual_mean(monthly):
    """Return the mean of 12 monthly values along the first axis, weighted by the months' days."""
    # einsum adds up in one order on any processor; a matrix product does not.
    return np.einsum("m,m...->...", (DAYS / DAYS.sum()).astype(monthly.dtype), monthly)


def thawing_index(monthly):
    """Return the degree-days above 0 degC of a year.

    Parameters
    ----------
    monthly : numpy.ndarray, shape (12, ...)
        Monthly mean temperature in degC.

    Returns
    -------
    numpy.ndarray, shape (...)
        degC d, not negative. A month's mean hides days on the other side of 0 degC, so that in months
        near it both indices come out too low (by up to some 50 degC d a year).
    """
    return np.einsum("m,m...->...", DAYS.astype(monthly.dtype), np.maximum(monthly, 0))


def freezing_index(monthly):
    """Return the degree-days below 0 degC of a year, as a positive number; see `thawing_index`."""
    return thawing_index(-monthly)


def frost_number(thawing, freezing):
    """Return the frost number of Nelson and Outcalt (1987).

    Parameters
    ----------
    thawing, freezing : array_like
        Thawing and freezing index of one temperature series, degC d, not negative.

    Returns
    -------
    numpy.ndarray
        In [0, 1]; at least 0.5 exactly where the series' annual mean is at most 0 degC. NaN where both
        indices are 0. From air temperature it is the air frost number, from surface temperature the surface
        frost number.

    References
    ----------
    Nelson, F. E., Outcalt, S. I. (1987). A computational method for prediction and regionalization of
    permafrost. Arctic and Alpine Research 19, 279-288.
    """
    root_thawing, root_freezing = np.sqrt(thawing), np.sqrt(freezing)
    total = root_thawing + root_freezing
    return np.divide(root_freezing, total, out=np.full_like(total, np.nan), where=total > 0)


def frost_area(study):
    """Return the area whose air frost number is at least 0.5, from the committed monthly means of ERA5.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    float
        10^4 km2, over the 0.25 degree cells that have their centre in the study area.
    """
    import shapely
    import xarray

    with xarray.open_dataset(study.path(ERA5_MEANS)) as means:
        temperature = means["air_temperature"].transpose("month", "latitude", "longitude").load()
    longitude, latitude = np.meshgrid(temperature["longitude"], temperature["latitude"])
    monthly = temperature.to_numpy().astype(np.float64)
    cold = frost_number(thawing_index(monthly), freezing_index(monthly)) >= 0.5
    cold &= shapely.contains_xy(study_area(study), longitude, latitude)
    step = float(abs(longitude[0, 1] - longitude[0, 0]))
    return float(cell_areas(latitude, step)[cold].sum() / 1e4)


def cell_areas(latitude, step):
    """Return the areas in km2 of longitude-latitude cells, by the latitude of their centres in degrees."""
    low, high = (np.sin(np.radians(latitude + sign * step / 2)) for sign in (-1, 1))
    return _AUTHALIC_RADIUS**2 * np.radians(step) * (high - low)


def make(study):
    """Make all climate covariates.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays on the reference grid by the names of the registry, NaN outside of the study area.

    Raises
    ------
    ClimateError
        A file does not have a band for each month.
    """
    inside = area_mask(study, reference_grid(study))
    lst, valid_share = _land_surface_temperature(study, inside)
    layers = {
        "lst_mean": annual_mean(lst),
        "thawing_index": thawing_index(lst),
        "freezing_index": freezing_index(lst),
        "lst_valid_share": valid_share,
    }
    del lst
    air = _monthly(study, "air_temperature", "bilinear", MONTHLY_TEMPERATURE.decode)[:, inside]
    layers["mean_annual_air_temperature"] = annual_mean(air)
    layers["air_frost_number"] = frost_number(thawing_index(air), freezing_index(air))
    layers = {name: _on_grid(values, inside) for name, values in layers.items()}
    layers["precipitation"] = warp(
        raw_files(study)["precipitation"], reference_grid(study), "bilinear", decode=_annual_precipitation
    )
    return layers


def _annual_precipitation(numbers):
    return MONTHLY_PRECIPITATION.decode(numbers).sum(axis=0)


def _monthly(study, name, resampling="nearest", decode=None):
    path = raw_files(study)[name]
    values = warp(path, reference_grid(study), resampling, decode=decode)
    if values.shape[0] != 12 or values.ndim != 3:
        raise ClimateError(
            f"{path.name} has {1 if values.ndim == 2 else len(values)} bands.", "give one band for each month"
        )
    return values


def _land_surface_temperature(study, inside):
    """Return monthly means (12, cell) in degC, gaps filled, and the share of valid values before that."""
    raw = {name: _monthly(study, name)[:, inside] for name in ("lst_day", "qc_day", "lst_night", "qc_night")}
    mean = np.empty(raw["lst_day"].shape, np.float32)
    share = np.empty(mean.shape[1], np.float32)

    def work(chunk):
        numbers = {name: values[:, chunk] for name, values in raw.items()}
        mean[:, chunk], share[chunk] = _day_and_night(numbers, study.covariates.climate)

    # in chunks that stay in the processor's cache
    chunks = [slice(start, start + _CHUNK) for start in range(0, mean.shape[1], _CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, chunks))
    return mean, share


def _day_and_night(numbers, settings):
    both = [decode_lst(numbers[f"lst_{t}"], numbers[f"qc_{t}"], settings.lst_max_error) for t in ("day", "night")]
    share = np.mean([np.isfinite(monthly).mean(axis=0, dtype=np.float32) for monthly in both], axis=0)
    day, night = (fill_harmonic(monthly, settings.harmonics, settings.minimum_months) for monthly in both)
    return (day + night) / 2, share


def _on_grid(values, inside):
    grid = np.full(inside.shape, np.nan, np.float32)
    grid[inside] = values
    return grid
