"""Points: their projected coordinates, and the value of a raster in the cell that holds them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from rasterio.transform import rowcol
from rasterio.windows import Window

from helpers.core.drivers import open_local


def projected(
    longitude: npt.ArrayLike, latitude: npt.ArrayLike, crs: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return easting and northing (m) of WGS 84 degrees in a projected CRS; inf if impossible.

    Examples
    --------
    >>> [round(float(one)) for one in projected(123.0, 0.0, "EPSG:32651")]  # middle of its UTM zone
    [500000, 0]
    """
    return _projection(str(crs)).transform(np.asarray(longitude), np.asarray(latitude))


@cache
def _projection(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def values_at(path: str | Path, easting: npt.ArrayLike, northing: npt.ArrayLike) -> np.ndarray:
    """Return the values of a raster's first band in the cells that hold some points.

    Coordinates are in the raster's CRS. NaN outside the raster and where it has no data.
    """
    possible = np.isfinite(easting) & np.isfinite(northing)
    with open_local(path) as source:
        # Impossible degrees have no projected coordinates: they are put outside.
        easting = np.where(possible, easting, source.bounds.left - 1)
        northing = np.where(possible, northing, source.bounds.top + 1)
        # pyrefly: ignore[bad-argument-type]  # rasterio's hints know no arrays
        rows, columns = (np.asarray(i) for i in rowcol(source.transform, easting, northing))
        inside = (rows >= 0) & (rows < source.height) & (columns >= 0) & (columns < source.width)
        values = np.full(len(rows), np.nan)
        if inside.any():
            rows, columns = rows[inside], columns[inside]
            top, left = rows.min(), columns.min()
            height, width = rows.max() - top + 1, columns.max() - left + 1
            block = source.read(1, window=Window(left, top, width, height))
            numbers = block[rows - top, columns - left].astype(float)
            empty = np.isnan(numbers)
            if source.nodata is not None:
                empty |= numbers == source.nodata
            values[inside] = np.where(empty, np.nan, numbers * source.scales[0] + source.offsets[0])
    return values
