"""Points: their projected coordinates, and the value of a raster in the cell that holds them."""

from functools import cache

import numpy as np
import pyproj
import rasterio
from rasterio.transform import rowcol
from rasterio.windows import Window


def projected(longitude, latitude, crs):
    """Return easting and northing (m) of WGS 84 degrees in a projected CRS; inf for impossible ones."""
    return _projection(str(crs)).transform(np.asarray(longitude), np.asarray(latitude))


@cache
def _projection(crs):
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def values_at(path, easting, northing):
    """Return a raster's values in the cells that hold some points.

    Parameters
    ----------
    path : path-like
        Its first band is read.
    easting, northing : numpy.ndarray, shape (n,)
        Coordinates in the raster's CRS.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        NaN outside the raster and where it has no data.
    """
    # Impossible degrees have no projected coordinates.
    known = np.isfinite(easting) & np.isfinite(northing)
    easting, northing = np.where(known, easting, 1e9), np.where(known, northing, 1e9)
    with rasterio.open(path) as source:
        rows, columns = (np.asarray(index) for index in rowcol(source.transform, easting, northing))
        inside = (rows >= 0) & (rows < source.height) & (columns >= 0) & (columns < source.width)
        values = np.full(len(rows), np.nan)
        if inside.any():
            rows, columns = rows[inside], columns[inside]
            (top, left), (bottom, right) = (rows.min(), columns.min()), (rows.max(), columns.max())
            block = source.read(1, window=Window(left, top, right - left + 1, bottom - top + 1))
            found = block[rows - top, columns - left].astype(float)
            empty = np.isnan(found) if source.nodata is None else np.isnan(found) | (found == source.nodata)
            values[inside] = np.where(empty, np.nan, found * source.scales[0] + source.offsets[0])
    return values
