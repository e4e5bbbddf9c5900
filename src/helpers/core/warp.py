"""Rasters onto a grid in one step: streamed by GDAL, or decoded and then resampled."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from helpers.core.errors import listed
from helpers.core.grid import crs_wkt
from helpers.core.rasters import THREADS, RasterError
from helpers.core.user_rasters import (
    OutsideError,
    Reading,
    kernel,
    open_source,
    outside_error,
    source_crs,
    window_of,
)

Bands = int | Sequence[int] | None
Decode = Callable[[np.ndarray], np.ndarray]


def warp(
    path: str | Path | Sequence[str | Path],
    geobox: GeoBox,
    resampling: str = "nearest",
    bands: Bands = None,
    decode: Decode | None = None,
) -> np.ndarray:
    """Read a raster file onto a grid in one step, from its overview if cells there are fine enough.

    Parameters
    ----------
    path
        Any raster that GDAL reads, in any CRS. Several files of one grid, such as the bands of a
        scene, are stacked, which is three times faster than one after the other.
    resampling
        A name of `rasterio.enums.Resampling`: ``nearest`` for digital numbers, flags and classes,
        ``bilinear``, ``cubic`` or ``average`` for continuous values. Cells without data never enter
        a mean.
    bands
        By number from 1; all by default.
    decode
        Turns the numbers of the file or files, ``(band, y, x)``, into floats with NaN for missing
        ones, in as many bands as it likes, before they are resampled. Scaled products that get
        interpolated need it: their invalid numbers are more than the one that the file declares as
        nodata.

    Returns
    -------
    numpy.ndarray, shape (y, x) or (band, y, x)
        ``(y, x)`` for one band of one file, unless `bands` is a sequence. In the file's own type,
        or that of `decode`. Outside the file, and where it has no data, its nodata value; NaN for
        floats, 0 for whole numbers of a file that declares none.
    """
    paths = [Path(p) for p in ([path] if isinstance(path, str | os.PathLike) else path)]
    with rasterio.Env(GDAL_NUM_THREADS=THREADS):
        if decode is None and len(paths) == 1:
            with open_source(paths[0], Reading(), geobox) as source:
                if window_of(source, geobox) is None:
                    raise outside_error(paths, geobox, Reading())
                values = stream(source, geobox, resampling, _band_numbers(source, bands))
        else:
            parts = [read_part(paths[0], geobox, bands)]
            with all_or_none():
                parts += [read_part(p, geobox, bands) for p in paths[1:]]
            grids = [(part.numbers.shape[1:], part.transform, part.crs) for part in parts]
            others = [p.name for p, grid in zip(paths, grids, strict=True) if grid != grids[0]]
            if others:
                raise RasterError(
                    f"{listed(others)} has another grid than {paths[0].name}.",
                    "read the files one by one",
                )
            values = _warp_parts(parts, geobox, resampling, decode)
    return values[0] if len(values) == 1 and (bands is None or np.ndim(bands) == 0) else values


def _band_numbers(source: DatasetReader, bands: Bands) -> list[int]:
    return list(range(1, source.count + 1)) if bands is None else np.atleast_1d(bands).tolist()


def stream(
    source: DatasetReader, geobox: GeoBox, resampling: str, bands: Sequence[int], **options: Any
) -> np.ndarray:
    """Return bands of an open raster on a grid; GDAL streams them, so the file may be large.

    Numbers as they are stored; `options` are those of rasterio's `WarpedVRT`, such as another dtype
    and nodata.
    """
    # By a virtual raster, as `rasterio.warp.reproject` passes over read errors when it has several
    # threads.
    floats = source.dtypes[0].startswith("float")
    nodata = np.nan if source.nodata is None and floats else source.nodata
    settings: dict[str, Any] = {"src_nodata": nodata, "nodata": np.nan if floats else nodata}
    settings |= kernel(source, geobox)
    with WarpedVRT(
        source,
        src_crs=source_crs(source),
        crs=crs_wkt(geobox),
        transform=geobox.transform,
        height=geobox.shape[0],
        width=geobox.shape[1],
        resampling=Resampling[resampling],
        num_threads=THREADS,
        **settings | options,
    ) as warped:
        return warped.read(list(bands))


@dataclass(frozen=True)
class Part:
    """A part of a raster; numbers of shape (band, y, x)."""

    numbers: np.ndarray
    transform: Affine
    crs: rasterio.CRS
    nodata: float | None


def read_part(path: Path, geobox: GeoBox, bands: Bands = None) -> Part:
    """Return the part of a raster that a grid needs, as `warp` reads it; the same errors."""
    with open_source(path, Reading(), geobox) as source:
        window = window_of(source, geobox)
        if window is None:
            raise outside_error([path], geobox, Reading())
        numbers = source.read(_band_numbers(source, bands), window=window)
        place = source.window_transform(window)
        return Part(numbers, place, source_crs(source), source.nodata)


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Make it an error on every grid that one file of several lies outside of it."""
    try:
        yield
    except OutsideError as error:
        raise RasterError(error.message, error.remedy) from None


def _warp_parts(
    parts: Sequence[Part], geobox: GeoBox, resampling: str, decode: Decode | None
) -> np.ndarray:
    """Return the stacked bands of rasters of one grid on another, decoded before resampling."""
    stack, nodata = np.concatenate([part.numbers for part in parts]), parts[0].nodata
    if decode is not None:
        stack, nodata = decode(stack), np.nan
        stack = stack if stack.ndim == 3 else stack[np.newaxis]
    place = parts[0].transform, parts[0].crs
    return resample(stack, place, geobox, resampling, nodata)


def resample(
    values: np.ndarray,
    place: tuple[Affine, rasterio.CRS],
    geobox: GeoBox,
    resampling: str,
    nodata: float | None = np.nan,
) -> np.ndarray:
    """Return values (band, y, x) with a transform and CRS on a grid; nodata where there is none."""
    outside = np.nan if values.dtype.kind == "f" else nodata or 0
    warped = np.full((len(values), *geobox.shape), outside, values.dtype)
    reproject(
        values,
        warped,
        src_transform=place[0],
        src_crs=place[1],
        src_nodata=nodata,
        dst_transform=geobox.transform,
        dst_crs=crs_wkt(geobox),
        dst_nodata=outside,
        resampling=Resampling[resampling],
        num_threads=THREADS,
    )
    return warped
