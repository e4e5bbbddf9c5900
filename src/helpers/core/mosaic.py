"""Rasters as users have them, on a grid: a file or a folder of tiles, in any CRS, masked, scaled.

Numbers become values before they are resampled, block by block, so that a file may be larger than
memory and cells without data never enter a mean. Tiles of one lattice of cells have no seams; where
others meet, such as those of two projections, a cell has the value of the first.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from odc.geo.geobox import GeoBox
from rasterio.io import DatasetReader
from rasterio.warp import transform
from rasterio.windows import Window

from helpers.core.grid import cell_centres, crs_wkt
from helpers.core.tiles import joined, open_joined
from helpers.core.user_rasters import (
    MOST_CELLS,
    Reading,
    blocks,
    open_source,
    outside_error,
    resampling_of,
    shared_cells,
    source_crs,
    values_in,
    window_of,
)
from helpers.core.warp import Decode, resample, stream

_LATTICE = 200  # cells along a side, at most, to estimate shares and ranges


def read_mosaic(
    files: Sequence[Path],
    geobox: GeoBox,
    reading: Reading,
    decode: Decode | None = None,
    whole: GeoBox | None = None,
) -> np.ndarray:
    """Read rasters onto a grid; where several have a value, the first one's is taken.

    What lies on the grid's own cells is taken as it is. RasterError if a file cannot be read or has
    no CRS, or if none overlaps the grid.

    Parameters
    ----------
    decode
        Turns values, (y, x), into one or more bands, (band, y, x), before they are resampled. A
        cell lacks all bands or none.
    whole
        The grid of which this is a part: its cells say how files are resampled.

    Returns
    -------
    numpy.ndarray of float32, shape (band, y, x)
        NaN where there is no value.
    """
    decode = decode or (lambda values: values[np.newaxis])
    count = len(decode(np.zeros((1, 1), np.float32)))
    mosaic = np.full((count, *geobox.shape), np.nan, np.float32)
    overlaps = False
    for group in joined(files, reading):
        with open_joined(group, reading) as (source, one):
            how = resampling_of(source, geobox, one)
            if how != "none" and whole is not None:
                how = resampling_of(source, whole, one)
            if how == "none":
                parts = shared_cells(source, geobox)
            else:
                parts = blocks(source, geobox, MOST_CELLS, MOST_CELLS / 8)
            for rows, columns, window in parts:
                overlaps = True
                part = mosaic[:, rows, columns]
                missing = np.isnan(part[0])
                if missing.any():
                    values = decode(values_in(source, one, window))
                    if how != "none":
                        place = source.window_transform(window), source_crs(source)
                        values = resample(values, place, geobox[rows, columns], how)
                    np.copyto(part, values, where=missing)
    if not overlaps:
        raise outside_error(files, geobox, reading)
    return mosaic


def warp_tiles(files: Sequence[Path], geobox: GeoBox, resampling: str) -> np.ndarray:
    """Read the first band of tiles onto a grid as float32, (y, x), NaN where there is none.

    As `read_mosaic`, but GDAL streams the numbers: for files without values that only a valid range
    would find. On the grid's own cells they are resampled, too; and overviews are read where their
    cells are fine enough.
    """
    mosaic = np.full(geobox.shape, np.nan, np.float32)
    overlaps = False
    for group in joined(files, Reading(), geobox):
        with open_joined(group, Reading(), geobox) as (source, _):
            missing = np.isnan(mosaic)
            if missing.any() and window_of(source, geobox):
                overlaps = True
                floats = {"dtype": "float32", "nodata": np.nan}
                values = stream(source, geobox, resampling, [1], **floats)[0]
                scale, offset = source.scales[0], source.offsets[0]
                if (scale, offset) != (1, 0):
                    values = values * np.float32(scale) + np.float32(offset)
                np.copyto(mosaic, values, where=missing)
    if not overlaps:
        raise outside_error(files, geobox, Reading())
    return mosaic


def describe_mosaic(files: Sequence[Path], geobox: GeoBox, reading: Reading) -> dict[str, Any]:
    """Return what rasters are, and how they get onto a grid, from a few of their cells.

    Returns
    -------
    description
        ``files`` (their number), ``crs``, ``cell_size`` in its units, ``nodata``, ``unit`` and
        ``resampling``: sets of what the files have, as text. ``share_of_grid`` within their bounds,
        and ``minimum`` and ``maximum`` there, None where they have no value. ``codes``: how many
        different values, if all are whole numbers, or else 0.
    """
    step = max(1, math.ceil(max(geobox.shape) / _LATTICE))
    eastings, northings = np.meshgrid(*(axis[step // 2 :: step] for axis in cell_centres(geobox)))
    covered, numbers = np.zeros(eastings.size, bool), [np.empty(0, np.float32)]
    found: dict[str, dict[str, None]] = {}
    for path in files:
        with open_source(path, reading) as source:
            band, crs, affine = reading.band - 1, source_crs(source), source.transform
            size = (math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e))
            facts = {
                "crs": pyproj.CRS.from_user_input(crs).name,
                "cell_size": " x ".join(f"{length:g}" for length in dict.fromkeys(size)),
                "nodata": "none" if source.nodata is None else f"{source.nodata:g}",
                "unit": source.units[band] or "",
                "resampling": resampling_of(source, geobox, reading),
            }
            for name, fact in facts.items():
                found.setdefault(name, {})[fact] = None
            covered |= _cells_at(source, geobox, eastings.ravel(), northings.ravel())[2]
            if window := window_of(source, geobox):
                shape = (min(window.height, _LATTICE), min(window.width, _LATTICE))
                values = values_in(source, reading, window, out_shape=shape)
                numbers.append(values[np.isfinite(values)])
    values = np.concatenate(numbers)
    return {
        "files": len(files),
        **{name: ", ".join(facts) for name, facts in found.items()},
        "share_of_grid": float(covered.mean()),
        "minimum": float(values.min()) if values.size else None,
        "maximum": float(values.max()) if values.size else None,
        "codes": len(np.unique(values)) if (values == np.rint(values)).all() else 0,
    }


def mosaic_at(
    files: Sequence[Path], geobox: GeoBox, places: tuple[np.ndarray, np.ndarray], reading: Reading
) -> np.ndarray:
    """Return the values of rasters in those of their own cells that hold some places.

    `places` are eastings and northings in the grid's CRS. Float32, NaN where there is no value;
    where several rasters have one, the first one's is taken. Only these cells are read.
    """
    values = np.full(len(places[0]), np.nan, np.float32)
    for path in files:
        with open_source(path, reading) as source:
            columns, rows, within = _cells_at(source, geobox, *places)
            for place in np.flatnonzero(within & np.isnan(values)):
                window = Window(int(columns[place]), int(rows[place]), 1, 1)
                values[place] = values_in(source, reading, window)[0, 0]
    return values


def _cells_at(
    source: DatasetReader, geobox: GeoBox, eastings: np.ndarray, northings: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return column and row, with fractions, of places in an open raster, and which are in it."""
    places = transform(crs_wkt(geobox), source_crs(source), eastings, northings)
    # pyrefly: ignore[unsupported-operation]  # affine's hints know no arrays
    columns, rows = ~source.transform * tuple(np.asarray(axis) for axis in places)
    within = (columns >= 0) & (columns < source.width) & (rows >= 0) & (rows < source.height)
    return columns, rows, within
