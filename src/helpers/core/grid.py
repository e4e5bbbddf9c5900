"""Grids: the study area, the reference grid and its finer companion, and rasters onto and from them.

Every raw raster is warped once, onto a grid that divides the reference grid evenly; from there values only
get averaged in blocks. Arrays are ``(y, x)`` or ``(band, y, x)``, the first row in the north.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from helpers.core.errors import CompendiumError

_SNAP = 1e-9  # cells; keeps bounds that are whole multiples already from growing by rounding errors


_LATTICE_CELLS = 32  # spacing of the lattice on which projection factors are computed exactly


class StudyAreaError(CompendiumError):
    """A polygon file of the study area that cannot be used."""


def named_crs(crs):
    """Return a pyproj CRS; one without a name, such as a PROJ string, is named by datum and projection.

    GeoTIFF readers show that name instead of "unknown".
    """
    crs = pyproj.CRS.from_user_input(crs)
    if crs.name != "unknown" or not crs.is_projected:
        return crs
    description = crs.to_json_dict()
    datum = crs.datum.name.split(" based on ")[0].replace("World Geodetic System 1984", "WGS 84")
    meridian = crs.coordinate_operation.params[1].value
    description["name"] = f"{datum} / {crs.coordinate_operation.method_name} {meridian:g}"
    return pyproj.CRS.from_json_dict(description)


def study_area(study, crs="EPSG:4326", layer=None):
    """Return the study area's outline.

    Parameters
    ----------
    study : helpers.core.study.Study
    crs : CRS-like
        Where the outline is wanted.
    layer : str, optional
        Another layer of the polygon file; by default the one that the study file names.

    Returns
    -------
    shapely.Geometry
        One polygon or multipolygon.

    Raises
    ------
    StudyAreaError
        The file or the layer is missing, holds no polygon or has no CRS.
    """
    path = study.path(study.area.polygons)
    wkt = pyproj.CRS.from_user_input(crs).to_wkt()
    return _outline(path, layer or study.area.layer, wkt, path.stat().st_mtime_ns if path.is_file() else None)


@cache
def _outline(path, layer, wkt, _modified):
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        polygons = geopandas.read_file(path, layer=layer)
    except (DataSourceError, DataLayerError) as error:
        raise StudyAreaError(
            f"The polygon layer {layer} of {path.name} cannot be read: {error}",
            "correct `area` in the study file, or make data/base/ again",
        ) from None
    if polygons.empty or polygons.crs is None:
        lack = "no polygon" if polygons.empty else "no coordinate reference system"
        raise StudyAreaError(f"The layer {layer} of {path.name} has {lack}.", "write the layer again with both")
    return polygons.to_crs(wkt).union_all()


def _snapped(bounds, step, margin=0.0):
    """Return (west, south, east, north) snapped outwards to whole steps, enlarged by a margin likewise."""
    extra = math.ceil(margin / step - _SNAP) * step
    low = [math.floor(v / step + _SNAP) * step - extra for v in bounds[:2]]
    high = [math.ceil(v / step - _SNAP) * step + extra for v in bounds[2:]]
    return (*low, *high)


def _geobox(bounds, step, crs):
    west, south, east, north = bounds
    shape = (round((north - south) / step), round((east - west) / step))
    return GeoBox(shape, Affine(step, 0, west, 0, -step, north), crs)


def reference_grid(study):
    """Return the reference grid: the study area's bounds in the study's CRS, snapped outwards to whole cells.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    odc.geo.geobox.GeoBox
    """
    return fine_grid(study, study.grid.resolution)


def fine_grid(study, resolution=None, margin=0.0):
    """Return a grid that divides the reference grid evenly.

    Parameters
    ----------
    study : helpers.core.study.Study
    resolution : float, optional
        Cell size in metres; by default the study's fine resolution.
    margin : float
        The grid is enlarged on all sides by this length in metres, rounded up to whole reference cells.

    Returns
    -------
    odc.geo.geobox.GeoBox

    Raises
    ------
    ValueError
        The resolution does not divide the reference grid's.
    """
    resolution = resolution or study.grid.fine_resolution
    divisor = study.grid.resolution / resolution
    if divisor < 1 or abs(divisor - round(divisor)) > _SNAP:
        raise ValueError(f"a cell of {resolution:g} m does not divide one of {study.grid.resolution:g} m evenly")
    crs = named_crs(study.grid.crs)
    bounds = _snapped(study_area(study, crs).bounds, study.grid.resolution, margin)
    return _geobox(bounds, resolution, crs.to_wkt())


def geographic_grid(bounds, arcsec):
    """Return a longitude-latitude grid on WGS 84.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east, north in degrees; snapped outwards to whole cells.
    arcsec : float
        Cell size in seconds of arc.

    Returns
    -------
    odc.geo.geobox.GeoBox
    """
    whole = _snapped([v * 3600 for v in bounds], arcsec)
    return _geobox([v / 3600 for v in whole], arcsec / 3600, "EPSG:4326")


def area_mask(study, geobox):
    """Return which cells of a grid have their centre inside the study area.

    Parameters
    ----------
    study : helpers.core.study.Study
    geobox : odc.geo.geobox.GeoBox
        A grid in any CRS.

    Returns
    -------
    numpy.ndarray of bool, shape (y, x)
    """
    outline = study_area(study, geobox.crs.to_wkt())
    return geometry_mask([outline], out_shape=geobox.shape, transform=geobox.transform, invert=True)


def cell_centres(geobox):
    """Return the coordinates of a grid's columns (easting or longitude) and rows (northing or latitude)."""
    affine = geobox.transform
    return affine.c + affine.a * (np.arange(geobox.shape[1]) + 0.5), affine.f + affine.e * (
        np.arange(geobox.shape[0]) + 0.5
    )


def block_mean(values, divisor, minimum_share=0.5):
    """Average blocks of a fine grid into cells of the reference grid.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., y, x)
        Both sides whole multiples of `divisor`; NaN where there is no value. Bool counts as 0 and 1.
    divisor : int
        Fine cells along a side of a block.
    minimum_share : float
        A block with a smaller share of valid cells gives NaN.

    Returns
    -------
    numpy.ndarray of float32, shape (..., y / divisor, x / divisor)
    """
    shape = (*values.shape[:-2], values.shape[-2] // divisor, values.shape[-1] // divisor)
    total, valid = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row in range(divisor):
        for column in range(divisor):
            part = np.asarray(values[..., row::divisor, column::divisor], np.float32)
            missing = np.isnan(part)
            total += np.where(missing, np.float32(0), part)
            valid += ~missing
    enough = (valid > 0) & (valid >= np.float32(minimum_share * divisor**2))
    return np.divide(total, valid, out=np.full(shape, np.nan, np.float32), where=enough)


def direction(north, east, least=1e-6):
    """Return a vector's direction in degrees clockwise from north; NaN where shorter than `least`."""
    degrees = np.degrees(np.arctan2(east, north)) % np.float32(360)
    degrees = np.where(degrees >= 360, np.float32(0), degrees)  # -1e-9 % 360 rounds to 360
    return np.where(np.hypot(north, east) >= least, degrees, np.float32(np.nan)).astype(np.float32)


@dataclass(frozen=True)
class LocalFactors:
    """How a projected grid lies on the ellipsoid at each of its cells; float32 arrays of shape (y, x).

    Parameters
    ----------
    convergence : numpy.ndarray
        Meridian convergence in degrees: the angle from true north, clockwise, to the grid's north. Positive
        east of the central meridian in the northern hemisphere.
    parallel_rotation : numpy.ndarray
        Angle from the grid's east, counter-clockwise, to true east, in degrees. Equal to the convergence
        where meridians and parallels cross at right angles, as they do in conic and cylindrical projections.
    meridional_scale, parallel_scale : numpy.ndarray
        Metres on the grid for a metre on the ground, towards true north and towards true east.
    """

    convergence: np.ndarray
    parallel_rotation: np.ndarray
    meridional_scale: np.ndarray
    parallel_scale: np.ndarray


def local_factors(geobox):
    """Return meridian convergence and scales of a projected grid.

    They are computed exactly on a lattice of every 32nd cell and interpolated linearly in between, which is
    good to 1e-4 degrees and 1e-6 at 500 m.

    Parameters
    ----------
    geobox : odc.geo.geobox.GeoBox

    Returns
    -------
    LocalFactors

    Raises
    ------
    ValueError
        The grid is geographic.
    """
    crs = pyproj.CRS.from_wkt(geobox.crs.to_wkt())
    if not crs.is_projected:
        raise ValueError("projection factors belong to a projected grid; this one is geographic")
    rows, columns = (_lattice(n) for n in geobox.shape)
    eastings, northings = cell_centres(geobox)
    easting, northing = np.meshgrid(
        np.interp(columns, np.arange(eastings.size), eastings),
        np.interp(rows, np.arange(northings.size), northings),
    )
    project = pyproj.Proj(crs)
    factors = project.get_factors(*project(easting, northing, inverse=True))
    # Places of the cells, counted in knots of the lattice.
    places = [
        np.interp(np.arange(size), knots, np.arange(knots.size)).astype(np.float32)
        for size, knots in zip(geobox.shape, (rows, columns), strict=True)
    ]
    return LocalFactors(
        *(
            bilinear(np.asarray(lattice, np.float32), *places)
            for lattice in (
                factors.meridian_convergence,
                np.degrees(np.arctan2(factors.dy_dlam, factors.dx_dlam)),
                factors.meridional_scale,
                factors.parallel_scale,
            )
        )
    )


def bilinear(values, rows, columns):
    """Return values between the cells of an array, at all crossings of fractional rows and columns.

    Parameters
    ----------
    values : numpy.ndarray, shape (y, x)
    rows, columns : numpy.ndarray of float, shapes (m,) and (n,)
        From 0 to the index of the last row and column.

    Returns
    -------
    numpy.ndarray, shape (m, n)

    Examples
    --------
    >>> bilinear(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.5, 1.0]), np.array([0.25])).tolist()
    [[1.25], [2.25]]
    """
    first_row, first_column = rows.astype(int), columns.astype(int)
    down, right = (rows - first_row)[:, None], (columns - first_column)[None, :]
    padded = np.pad(values, (0, 1), mode="edge")
    upper, lower = padded[first_row], padded[first_row + 1]
    upper = upper[:, first_column] * (1 - right) + upper[:, first_column + 1] * right
    lower = lower[:, first_column] * (1 - right) + lower[:, first_column + 1] * right
    return upper * (1 - down) + lower * down


def _lattice(size):
    return np.linspace(0, size - 1, max(2, math.ceil(size / _LATTICE_CELLS) + 1))
