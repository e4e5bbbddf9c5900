"""Climate covariates: land surface temperature and its indices, precipitation, air temperature.

Land surface temperature (LST) is a skin temperature seen through clear sky only, above snow and
canopy. Its means are biased against all-weather ones, mostly warm in summer days and cold in winter
nights; thawing and freezing index from it are *surface* indices in that sense.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core.grid import area_mask, reference_grid, study_area
from helpers.core.rasters import THREADS
from helpers.core.study import Study
from helpers.core.user_rasters import (
    MOST_CELLS,
    Reading,
    blocks,
    open_source,
    outside_error,
    resampling_of,
)
from helpers.core.warp import all_or_none, read_part, resample, warp
from helpers.prepare import products
from helpers.prepare.registry import CovariateError, on_grid

DAYS = np.array([31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
"""Days of the months in a mean year of 365.25 days."""

FREEZING_POINT = 273.15  # K

PUBLISHED_PERMAFROST_AREA = (25.21, 35.14)
"""Permafrost of Northeast China by surface frost number, 10^4 km2 (Sustainability 15:14610)."""

ERA5_MEANS = "data/base/era5-monthly-means.nc"

_CHUNK = 50_000  # cells that fit into the processor's cache
_AUTHALIC_RADIUS = 6371.0072  # km, of WGS 84


def decode_lst(numbers: np.ndarray, qc: np.ndarray, max_error: int = 2) -> np.ndarray:
    """Return land surface temperature in degC, float32, NaN where its quality is too low.

    Parameters
    ----------
    numbers, qc
        Digital numbers of MOD11, uint16, and quality control, uint8, whose bits 0-1 are 00 for good
        quality, 01 for others whose error is in bits 6-7 (at most 1, 2, 3 K, or more), 10 and 11
        for not produced.
    max_error
        Largest accepted error of quality 01 in K.

    Examples
    --------
    >>> numbers = np.array([13658, 13658, 0], np.uint16)
    >>> quality = np.array([0b00000000, 0b11000001, 0b00000010], np.uint8)  # good, 4 K off, none
    >>> print(decode_lst(numbers, quality).round(1))
    [ 0. nan nan]
    """
    mandatory = qc & 0b11
    error = (qc >> 6) & 0b11
    accepted = (mandatory == 0) | ((mandatory == 1) & (error < max_error))
    celsius = products.MODIS_LST.decode(numbers) - np.float32(FREEZING_POINT)
    return np.where(accepted, celsius, np.float32(np.nan))


def harmonics_matrix(harmonics: int) -> np.ndarray:
    """Return mean and harmonics at the middle of each month, shape (12, 1 + 2 harmonics).

    Examples
    --------
    >>> harmonics_matrix(1)[[0, 6]].round(2).tolist()  # mid-January, and half a year later
    [[1.0, 0.97, 0.26], [1.0, -0.97, -0.26]]
    """
    phase = 2 * np.pi * (np.arange(12) + 0.5) / 12
    waves = [wave(k * phase) for k in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.column_stack([np.ones(12), *waves])


def fill_harmonic(monthly: np.ndarray, harmonics: int = 2, minimum_months: int = 8) -> np.ndarray:
    """Fill missing months by the mean and harmonics that fit the valid ones best, by least squares.

    Valid months are left as they are. A gap of several months in a row is extrapolated, and the
    error of its filling is a few times that of a month. A cell, (12, cell), with fewer valid months
    than the minimum becomes NaN in all.

    Examples
    --------
    >>> monthly = harmonics_matrix(1) @ [5, -10, 0]  # a wave of 10 K about 5 degC
    >>> gap = np.where(np.arange(12) == 6, np.nan, monthly)[:, np.newaxis]  # July is missing
    >>> round(float(monthly[6]), 2), round(float(fill_harmonic(gap)[6, 0]), 2)
    (14.66, 14.66)
    """
    valid = np.isfinite(monthly)
    filled = np.array(monthly, np.float32)
    filled[:, valid.sum(axis=0) < max(minimum_months, 1 + 2 * harmonics)] = np.nan
    # Cells that lack the same months share one matrix, from the valid months to the missing ones.
    patterns = (valid * (1 << np.arange(12, dtype=np.int16))[:, None]).sum(axis=0, dtype=np.int16)
    todo = np.flatnonzero((patterns != 0b111111111111) & np.isfinite(filled).any(axis=0))
    todo = todo[np.argsort(patterns[todo], kind="stable")]
    ends = np.flatnonzero(np.diff(patterns[todo])) + 1
    for cells in np.split(todo, ends) if todo.size else ():
        have = valid[:, cells[0]]
        transfer = _gap_matrix(tuple(have.tolist()), harmonics)
        others = monthly[np.ix_(have, cells)]
        filled[np.ix_(~have, cells)] = np.einsum("mh,hc->mc", transfer, others)
    return filled


@cache
def _gap_matrix(have: tuple[bool, ...], harmonics: int) -> np.ndarray:
    """Return the matrix from the valid months to the missing ones."""
    design = harmonics_matrix(harmonics)
    have = np.array(have)
    return (design[~have] @ np.linalg.pinv(design[have])).astype(np.float32)


def annual_mean(monthly: np.ndarray) -> np.ndarray:
    """Return the mean of 12 monthly values along the first axis, weighted by the months' days.

    Examples
    --------
    >>> print(annual_mean(np.array([0.0] + [10.0] * 11)).round(2))  # January has 31 days of 365.25
    9.15
    """
    # einsum adds up in one order on any processor; a matrix product does not.
    return np.einsum("m,m...->...", (DAYS / DAYS.sum()).astype(monthly.dtype), monthly)


def thawing_index(monthly: np.ndarray) -> np.ndarray:
    """Return the degree-days above 0 degC of a year, from monthly means in degC of shape (12, ...).

    A month's mean hides days on the other side of 0 degC, so that in months near it both indices
    come out too low (by up to some 50 degC d a year).

    Examples
    --------
    >>> print(thawing_index(np.array([-20.0] * 6 + [10.0] * 6)))  # 184 days, July to December
    1840.0
    """
    return np.einsum("m,m...->...", DAYS.astype(monthly.dtype), np.maximum(monthly, 0))


def freezing_index(monthly: np.ndarray) -> np.ndarray:
    """Return the degree-days below 0 degC of a year, as a positive number; see `thawing_index`.

    Examples
    --------
    >>> monthly = np.array([-20.0] * 6 + [10.0] * 6)
    >>> round(float(freezing_index(monthly))), round(float(thawing_index(monthly)))
    (3625, 1840)
    """
    return thawing_index(-monthly)


def frost_number(thawing: np.ndarray, freezing: np.ndarray) -> np.ndarray:
    """Return the frost number of Nelson and Outcalt (1987).

    It is that of the air or of the surface, as the thawing and freezing index in degC d are; in
    [0, 1], and at least 0.5 exactly where the annual mean of their temperature is at most 0 degC.
    NaN where both indices are 0, and where one is masked or NaN.

    References
    ----------
    Nelson, F. E., Outcalt, S. I. (1987). A computational method for prediction and regionalization
    of permafrost. Arctic and Alpine Research 19, 279-288.

    Examples
    --------
    >>> frost_number(np.array([1600.0, 900.0]), np.array([1600.0, 3600.0])).round(2).tolist()
    [0.5, 0.67]
    """
    thawing, freezing = (
        part.astype(float).filled(np.nan) if isinstance(part, np.ma.MaskedArray) else part
        for part in (thawing, freezing)
    )
    root_freezing = np.sqrt(freezing)
    total = np.sqrt(thawing) + root_freezing
    return np.divide(root_freezing, total, out=np.full_like(total, np.nan), where=total > 0)


def frost_area(study: Study) -> float:
    """Return the area, 10^4 km2, whose air frost number is at least 0.5, by the means of ERA5."""
    import xarray

    with xarray.open_dataset(study.path(ERA5_MEANS)) as means:
        temperature = means["air_temperature"].transpose("month", "latitude", "longitude").load()
    longitude, latitude = np.meshgrid(temperature["longitude"], temperature["latitude"])
    monthly = temperature.to_numpy().astype(np.float64)
    cold = frost_number(thawing_index(monthly), freezing_index(monthly)) >= 0.5
    cold &= shapely.contains_xy(study_area(study), longitude, latitude)
    step = float(abs(longitude[0, 1] - longitude[0, 0]))
    heights = np.sin(np.radians(latitude + step / 2)) - np.sin(np.radians(latitude - step / 2))
    areas = _AUTHALIC_RADIUS**2 * np.radians(step) * heights
    return float(areas[cold].sum() / 1e4)


def make_surface(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make what land surface temperature gives, float32 on a part of the reference grid.

    NaN outside of the study area; so are the covariates of the air's temperature.
    """
    inside = area_mask(study, geobox)
    lst, valid_share = _land_surface_temperature(study, geobox, inside)
    layers = {
        "lst_mean": annual_mean(lst),
        "thawing_index": thawing_index(lst),
        "freezing_index": freezing_index(lst),
        "lst_valid_share": valid_share,
    }
    return {name: on_grid(values, inside) for name, values in layers.items()}


def make_air(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make what the air's temperature gives, as `make_surface`."""
    inside = area_mask(study, geobox)
    air = _monthly(study, geobox, "air_temperature", products.MONTHLY_TEMPERATURE)[:, inside]
    frost = frost_number(thawing_index(air), freezing_index(air))
    layers = {"mean_annual_air_temperature": annual_mean(air), "air_frost_number": frost}
    return {name: on_grid(values, inside) for name, values in layers.items()}


def make_precipitation(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make annual precipitation, float32 on a part of the reference grid."""
    path = products.raw_files(study)["precipitation"]
    decode = _decoder(path, products.MONTHLY_PRECIPITATION)
    total = warp(path, geobox, "bilinear", decode=lambda numbers: decode(numbers).sum(axis=0))
    return {"precipitation": total}


def _monthly(
    study: Study, geobox: GeoBox, name: str, encoding: products.Encoding | None = None
) -> np.ndarray:
    """Return 12 bands on a grid: digital numbers, or decoded and interpolated."""
    path = products.raw_files(study)[name]
    decode = _decoder(path, encoding)
    how = {"resampling": "bilinear", "decode": decode} if encoding else {}
    return warp(path, geobox, **how)


def _decoder(path: Path, encoding: products.Encoding | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns numbers of a file of 12 bands into values.

    Floats, and whole numbers with scale and offset in the file's tags, mean what these say. Other
    whole numbers could be tenths, as products have them, and are refused: nothing is guessed.
    """
    with open_source(path, Reading()) as source:
        if source.count != 12:
            message = f"{path.name} has {source.count} bands."
            raise CovariateError(message, "give one band for each month")
        floats, nodata = source.dtypes[0].startswith("float"), source.nodata
        tags = source.scales[0], source.offsets[0]
    if encoding is None:
        return np.asarray
    if tags == (encoding.scale, encoding.offset):
        return encoding.decode
    if tags == (1, 0) and not floats:
        raise CovariateError(
            f"{path.name} holds whole numbers without a scale: {encoding.unit}, or tenths of it?",
            "if they are tenths, write the scale, 0.1, into the file's tags; "
            f"if they are {encoding.unit}, save it as floats",
        )

    def decode(numbers: np.ndarray) -> np.ndarray:
        values = numbers.astype(np.float32) * np.float32(tags[0]) + np.float32(tags[1])
        values[~np.isfinite(values) | (numbers == nodata)] = np.nan
        low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
        least, most = (encoding.scale * limit for limit in (encoding.valid_min, encoding.valid_max))
        if low < least - 1 or high > most:  # interpolated rain may fall a bit below 0
            raise CovariateError(
                f"{path.name} has values from {low:g} to {high:g}: they cannot be {encoding.unit}.",
                f"give {encoding.unit}, and set the file's nodata value",
            )
        return values

    return decode


def _land_surface_temperature(
    study: Study, geobox: GeoBox, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return monthly means (12, cell), degC, gaps filled, and the share of valid values before.

    Day and night are filled apart: a month that only one of them has is no mean of both.
    """
    settings = study.covariates.climate
    composites = products.lst_composites(study)
    if composites:
        months = _months_of_composites(study, geobox, composites)[:, :, inside]
    else:
        names = ("lst_day", "qc_day", "lst_night", "qc_night")
        raw = [_monthly(study, geobox, name)[:, inside] for name in names]
    mean = np.empty((12, np.count_nonzero(inside)), np.float32)
    share = np.empty(mean.shape[1], np.float32)

    def work(start: int) -> None:
        chunk = slice(start, start + _CHUNK)
        filled, valid = [], []
        for time in range(2):
            if composites:
                lst = months[time, :, chunk]
            else:
                numbers, quality = (part[:, chunk] for part in raw[2 * time : 2 * time + 2])
                lst = decode_lst(numbers, quality, settings.lst_max_error)
            valid.append(np.isfinite(lst).mean(axis=0, dtype=np.float32))
            filled.append(fill_harmonic(lst, settings.harmonics, settings.minimum_months))
        mean[:, chunk] = (filled[0] + filled[1]) / 2
        share[chunk] = np.mean(valid, axis=0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(0, mean.shape[1], _CHUNK)))
    return mean, share


def _months_of_composites(
    study: Study, geobox: GeoBox, composites: Sequence[products.Composite]
) -> np.ndarray:
    """Return means of the months of all years from 8-day composites, on a grid.

    Each composite is decoded and screened by its quality bits on its own cells, and counts in each
    month by its days there. Shape (2, 12, y, x): by day and by night, degC.
    """
    months = np.full((24, *geobox.shape), np.nan, np.float32)
    overlaps = False
    for _, tile in itertools.groupby(composites, key=lambda one: one.tile):
        with_grid = list(tile)
        with open_source(with_grid[0].files[0], Reading(), geobox) as source:
            whole = reference_grid(study)
            how = resampling_of(source, whole, Reading(finer="nearest")).replace("none", "nearest")
            parts = list(blocks(source, geobox, MOST_CELLS / 4, math.inf))
        for rows, columns, _ in parts:
            overlaps = True
            means, place = _mean_months(study, with_grid, geobox[rows, columns])
            part = months[:, rows, columns]
            warped = resample(means, place, geobox[rows, columns], how)
            np.copyto(part, warped, where=np.isnan(part))
    if not overlaps:
        raise outside_error([one.files[0] for one in composites], geobox, Reading())
    return months.reshape(2, 12, *geobox.shape)


def _mean_months(
    study: Study, composites: Sequence[products.Composite], geobox: GeoBox
) -> tuple[np.ndarray, tuple[Affine, rasterio.CRS]]:
    """Return means of months on a tile's own cells, (24, y, x), and their transform and CRS."""
    total = count = place = None
    for one in composites:
        with all_or_none():  # the tile overlaps the grid
            parts = [read_part(path, geobox) for path in one.files]
        places = [(part.transform, part.crs, part.numbers.shape) for part in parts]
        place = place or places[0]
        if other := [p.name for p, own in zip(one.files, places, strict=True) if own != place]:
            raise CovariateError(
                f"{other[0]} has another grid than {composites[0].files[0].name}.",
                "give whole tiles, or the same part of all dates",
            )
        if total is None:
            total = np.zeros((2, 12, *parts[0].numbers.shape[1:]), np.float32)
            count = np.zeros(total.shape, np.float32)
        for time, pair in enumerate((parts[:2], parts[2:])):
            numbers, quality = (part.numbers[0] for part in pair)
            lst = decode_lst(numbers, quality, study.covariates.climate.lst_max_error)
            known = np.isfinite(lst)
            for month, days in one.days.items():
                total[time, month - 1] += np.where(known, days * lst, np.float32(0))
                count[time, month - 1] += np.where(known, np.float32(days), np.float32(0))
    means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return means.reshape(24, *means.shape[2:]), place[:2]
