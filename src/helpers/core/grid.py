"""Grids: the study area, the reference grid and its finer companion, and values on them.

Every raw raster is warped once, part by part, onto a grid that divides the reference grid evenly;
from there values only get averaged in blocks. Arrays are ``(y, x)`` or ``(band, y, x)``, the first
row in the north.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from helpers.core.drivers import open_local
from helpers.core.errors import CompendiumError, listed
from helpers.core.features import FeatureError, feature_layers, read_features
from helpers.core.study import Study

if TYPE_CHECKING:
    import geopandas

# Rasterio says so of its masks in memory, and of NetCDF files with several variables. It cannot be
# silenced in one place, since filters are those of all threads. `source_crs` refuses rasters of the
# user that have no place.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# Cells; keeps bounds that are whole multiples already from growing by rounding errors.
_SNAP = 1e-9

_EQUAL_AREA = 1e-5  # largest error of areas that counts as none

_LATTICE_CELLS = 32  # spacing of the lattice on which projection factors are computed exactly

_EARTH_RADIUS = 6_371_000.0  # m

_MOST_CELLS = 2e9  # of a grid; no machine that maps has the memory for more

MOST_CELLS = 4_000_000
"""Cells of a grid up to which tables and figures look at every one: see `grid_step`."""

Part = tuple[slice, slice]
"""Rows and columns of a grid."""

_BESIDE_USE = 6.0  # degrees that a study area's middle may lie outside of what a CRS is made for


class StudyAreaError(CompendiumError):
    """A polygon file of the study area that cannot be used."""


def named_crs(crs: Any) -> pyproj.CRS:
    """Return a pyproj CRS; one without a name, such as a PROJ string, is named by its projection.

    GeoTIFF readers show that name instead of "unknown".

    Examples
    --------
    >>> named_crs("+proj=aea +lat_1=25 +lat_2=47 +lon_0=105 +datum=WGS84").name
    'WGS 84 / Albers Equal Area 105'
    >>> named_crs("EPSG:32651").name
    'WGS 84 / UTM zone 51N'
    """
    crs = pyproj.CRS.from_user_input(crs)
    datum, projection = crs.datum, crs.coordinate_operation
    if crs.name != "unknown" or not crs.is_projected or datum is None or projection is None:
        return crs
    description = crs.to_json_dict()
    place = datum.name.split(" based on ")[0].replace("World Geodetic System 1984", "WGS 84")
    meridian = list(projection.params)[1].value
    description["name"] = f"{place} / {projection.method_name} {meridian:g}"
    return pyproj.CRS.from_json_dict(description)


def crs_wkt(geobox: GeoBox) -> str:
    """Return a grid's coordinate reference system as well-known text."""
    assert geobox.crs is not None
    return geobox.crs.to_wkt()


def study_area(study: Study, crs: Any = "EPSG:4326", layer: str | None = None) -> BaseGeometry:
    """Return the study area's outline in a CRS, one polygon or multipolygon.

    The layer of the polygon file is by default the one that the study file names.
    """
    wkt = pyproj.CRS.from_user_input(crs).to_wkt()
    if not study.area.polygons:
        return _rectangle(study, wkt)
    path = study.path(study.area.polygons)
    modified = path.stat().st_mtime_ns if path.is_file() else None
    return _outline(path, layer or study.area.layer, wkt, study.grid.resolution, modified)


def _rectangle(study: Study, wkt: str) -> BaseGeometry:
    """Return the study area's box, or else its grid, in a CRS."""
    import geopandas

    if study.area.box:
        bounds, crs = study.area.box, "EPSG:4326"
    else:
        grid = reference_grid(study)
        bounds, crs = grid.boundingbox.bbox, crs_wkt(grid)
    box = geopandas.GeoSeries([shapely.box(*bounds)], crs=crs)
    return reprojected(box, wkt, study.grid.resolution).iloc[0]


def reprojected(
    shapes: "geopandas.GeoSeries", crs: Any, resolution: float
) -> "geopandas.GeoSeries":
    """Return shapes in another CRS, with vertices on their long edges: there, edges are curves.

    A parallel of 15 degrees, drawn straight in Albers' projection, would be 20 km off in its
    middle. Here an edge is off by about a tenth of a cell, whose side is `resolution`, m; near the
    poles, where parallels bend more, by some tenths.
    """
    if shapes.crs == pyproj.CRS.from_user_input(crs):
        return shapes
    # pyrefly: ignore[missing-attribute]  # all callers' shapes have a CRS
    unit = shapes.crs.axis_info[0].unit_conversion_factor  # radians or metres
    # The sagitta of a chord c of a circle of radius r is c^2 / 8 r.
    longest = math.sqrt(8 * _EARTH_RADIUS * 0.1 * resolution)
    # pyrefly: ignore[missing-attribute]
    longest /= _EARTH_RADIUS if shapes.crs.is_geographic else 1
    return shapes.segmentize(longest / unit).to_crs(crs)


@cache
def _outline(
    path: Path, layer: str, wkt: str, resolution: float, _modified: int | None
) -> BaseGeometry:
    try:
        polygons = read_features(path, layer)
    except FeatureError as error:
        raise StudyAreaError(
            f"The study area, {error.message}",
            f"correct area.polygons and area.layer in the study file: {error.remedy}",
        ) from None
    if polygons.empty or polygons.crs is None:
        lack = "no polygon" if polygons.empty else "no coordinate reference system"
        raise StudyAreaError(
            f"The study area {path.name} has {lack}.", "write the layer again with both"
        )
    problems = {
        "no polygons": ~polygons.geom_type.isin(["Polygon", "MultiPolygon"]),
        "outlines that cross themselves": ~polygons.is_valid,
    }
    for what, rows in problems.items():
        if rows.any():
            numbers = listed(np.flatnonzero(rows) + 1)
            raise StudyAreaError(
                f"The study area {path.name}, features {numbers}: {what}.",
                "leave them out, or mend them (in QGIS: Fix geometries)",
            )
    return reprojected(polygons.geometry, wkt, resolution).union_all()


def study_regions(study: Study, geobox: GeoBox) -> tuple[list[str], list[tuple[BaseGeometry, int]]]:
    """Return the names of the regions, and their shapes on the grid with numbers from 1.

    StudyAreaError if the layer of regions has no names.
    """
    path = study.path(study.area.polygons)
    layers = feature_layers(path) if study.area.polygons else []
    if study.area.regions_layer not in layers:
        return [study.title or study.name], [(study_area(study, crs_wkt(geobox)), 1)]
    regions = read_features(path, study.area.regions_layer)
    if "name" not in regions:
        message = f"The regions of {path.name} have no column name."
        raise StudyAreaError(message, "add it, or set area.regions_layer")
    shapes = reprojected(regions.geometry, crs_wkt(geobox), study.grid.resolution)
    return regions["name"].tolist(), list(zip(shapes, range(1, len(shapes) + 1), strict=True))


def reference_grid(study: Study) -> GeoBox:
    """Return the grid of `grid.like`, or the area's bounds snapped outwards to whole cells."""
    return fine_grid(study, study.grid.resolution)


def _coarse_grid(study: Study) -> GeoBox:
    crs = named_crs(study.grid.crs)
    if not study.grid.like:
        _refuse_elsewhere(study)
        bounds = study_area(study, crs).bounds
        west, south, east, north = bounds
        cells = (east - west) * (north - south) / study.grid.resolution**2
        if not cells <= _MOST_CELLS:
            raise StudyAreaError(
                f"A grid of {study.grid.resolution:g} m would have {cells:,.0f} cells.",
                "set a larger grid.resolution, or a smaller area, in the study file",
            )
        return GeoBox.from_bbox(bounds, crs.to_wkt(), resolution=study.grid.resolution, tol=_SNAP)
    with open_local(study.path(study.grid.like)) as source:
        return GeoBox(source.shape, source.transform, crs.to_wkt())


def _refuse_elsewhere(study: Study) -> None:
    """Raise StudyAreaError if the grid's projection is made for another part of the world."""
    use = pyproj.CRS.from_user_input(study.grid.crs).area_of_use
    if use is None:
        return
    left, bottom, right, top = study_area(study).bounds
    longitude, latitude = (left + right) / 2, (bottom + top) / 2
    width = (use.east - use.west) % 360 or 360
    beside = (longitude - use.west + _BESIDE_USE) % 360 <= width + 2 * _BESIDE_USE
    if not (beside and use.south - _BESIDE_USE <= latitude <= use.north + _BESIDE_USE):
        area = study.area.polygons or "area.box"
        raise StudyAreaError(
            f"grid.crs, {study.grid.crs}, is for {use.west:g} to {use.east:g} E and {use.south:g} "
            f"to {use.north:g} N; the middle of {area} is at {longitude:.1f} E, {latitude:.1f} N.",
            "name the projection of that place as grid.crs in the study file, such as its UTM zone",
        )


def fine_grid(
    study: Study,
    resolution: float | None = None,
    margin: float = 0.0,
    part: GeoBox | None = None,
) -> GeoBox:
    """Return a grid whose cells (m), by default the study's fine ones, divide the reference cells.

    It is enlarged on all sides by the margin in metres, rounded up to whole reference cells. With
    a `part`, a grid of some of the reference cells, it is that of these.
    """
    resolution = resolution or study.grid.fine_resolution
    coarse = study.grid.resolution
    divisor = coarse / resolution
    if divisor < 1 or abs(divisor - round(divisor)) > _SNAP:
        raise ValueError(f"a cell of {resolution:g} m does not divide one of {coarse:g} m evenly")
    grid = part or _coarse_grid(study)
    return grid.pad(math.ceil(margin / coarse - _SNAP)).zoom_out(1 / round(divisor))


def geographic_grid(bounds: Sequence[float], arcsec: float) -> GeoBox:
    """Return a longitude-latitude grid on WGS 84 of cells of so many seconds of arc.

    The bounds (west, south, east, north in degrees) are snapped outwards to whole cells.
    """
    west, south, east, north = (3600 * degrees for degrees in bounds)
    box = (west, south, east, north)
    grid = GeoBox.from_bbox(box, "EPSG:4326", resolution=arcsec, tol=_SNAP)
    step, left, top = (v / 3600 for v in (arcsec, grid.transform.c, grid.transform.f))
    return GeoBox(grid.shape, Affine(step, 0, left, 0, -step, top), grid.crs)


def grid_step(study: Study) -> int:
    """Return in which steps of rows and columns tables and figures look at the grid.

    It is 1, every cell, up to `MOST_CELLS`. Samples, forests, classes and the ice of a map never
    depend on it. kNNDM folds do, which are dealt by the distances of these cells, and with them the
    error profile and the width of the total's interval.
    """
    return math.ceil(math.sqrt(math.prod(reference_grid(study).shape) / MOST_CELLS))


def thinned_grid(geobox: GeoBox, step: int) -> GeoBox:
    """Return the grid of large cells about the centres of every so many-th row and column.

    What looks at centres, such as `area_mask`, gives on it every so many-th cell of the whole.

    Examples
    --------
    >>> grid = GeoBox((10, 10), Affine(100, 0, 0, 0, -100, 1000), "EPSG:32651")
    >>> [axis.tolist() for axis in cell_centres(thinned_grid(grid, 4))]
    [[50.0, 450.0, 850.0], [950.0, 550.0, 150.0]]
    """
    rows, columns = (math.ceil(size / step) for size in geobox.shape)
    affine = geobox.transform
    across, down = np.array([affine.a, affine.d]), np.array([affine.b, affine.e])
    corner = np.array([affine.c, affine.f]) + (1 - step) / 2 * (across + down)
    numbers = np.stack([step * across, step * down, corner], axis=1)
    return GeoBox((rows, columns), Affine(*numbers.ravel().tolist()), geobox.crs)


def grid_windows(geobox: GeoBox, block: tuple[int, int] = (1024, 1024)) -> list[Part]:
    """Return the windows of a grid, row by row; `block` is their rows and columns of cells.

    Examples
    --------
    >>> grid = GeoBox((10, 30), Affine(100, 0, 0, 0, -100, 1000), "EPSG:32651")
    >>> [len(grid_windows(grid, (side, side))) for side in (30, 10, 9)]
    [1, 3, 8]
    """
    height, width = geobox.shape
    return [
        (slice(row, min(row + block[0], height)), slice(column, min(column + block[1], width)))
        for row in range(0, height, block[0])
        for column in range(0, width, block[1])
    ]


def area_mask(study: Study, geobox: GeoBox) -> np.ndarray:
    """Return which cells of a grid in any CRS have their centre inside the study area."""
    outline = study_area(study, crs_wkt(geobox))
    return geometry_mask(
        [outline], out_shape=geobox.shape.yx, transform=geobox.transform, invert=True
    )


def cell_centres(geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of columns (easting or longitude) and rows (northing or latitude)."""
    affine = geobox.transform
    rows, columns = geobox.shape
    eastings = affine.c + affine.a * (np.arange(columns) + 0.5)
    return eastings, affine.f + affine.e * (np.arange(rows) + 0.5)


def block_mean(values: np.ndarray, divisor: int, minimum_share: float = 0.5) -> np.ndarray:
    """Average blocks of a fine grid into cells of the reference grid.

    Parameters
    ----------
    values : shape (..., y, x)
        Both sides whole multiples of `divisor`; NaN where there is no value. Bool counts as 0 and
        1.
    divisor
        Fine cells along a side of a block.
    minimum_share
        A block with a smaller share of valid cells gives NaN.

    Returns
    -------
    numpy.ndarray of float32, shape (..., y / divisor, x / divisor)

    Examples
    --------
    >>> fine = np.array([[1, 3, np.nan, np.nan], [5, 7, np.nan, 8]])
    >>> block_mean(fine, 2).tolist()  # three of four cells are missing
    [[4.0, nan]]
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


def direction(north: np.ndarray, east: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Return a vector's direction in degrees clockwise from north; NaN if shorter than `least`.

    Examples
    --------
    >>> direction(np.array([1, 0, -1, 0]), np.array([0, 1, 0, 0])).tolist()  # N, E, S, nowhere
    [0.0, 90.0, 180.0, nan]
    """
    degrees = np.degrees(np.arctan2(east, north)) % np.float32(360)
    degrees = np.where(degrees >= 360, np.float32(0), degrees)  # -1e-9 % 360 rounds to 360
    long_enough = np.hypot(north, east) >= least
    return np.where(long_enough, degrees, np.float32(np.nan)).astype(np.float32)


def cell_areas(geobox: GeoBox, part: Part | None = None) -> np.ndarray:
    """Return the area of each cell of a projected grid on the ellipsoid, km2, shape (y, x).

    With a `part`, rows and columns, of its cells alone.

    On an equal-area projection all cells are alike; elsewhere, as in UTM, the grid's own areas are
    off by up to some tenths of a percent.
    """
    flat = abs(geobox.transform.a * geobox.transform.e) / 1e6

    def scales(exact: Any) -> list[np.ndarray]:
        scale = np.asarray(exact.areal_scale)
        return [np.ones_like(scale) if np.abs(scale - 1).max() < _EQUAL_AREA else scale]

    (scale,) = _on_cells(geobox, scales, part)
    return np.broadcast_to(flat, scale.shape) if (scale == 1).all() else flat / scale


@dataclass(frozen=True)
class LocalFactors:
    """How a projected grid lies on the ellipsoid at each cell; float32 arrays of shape (y, x).

    Parameters
    ----------
    convergence
        Meridian convergence in degrees: the angle from true north, clockwise, to the grid's north.
        Positive east of the central meridian in the northern hemisphere.
    parallel_rotation
        Angle from the grid's east, counter-clockwise, to true east, in degrees. Equal to the
        convergence where meridians and parallels cross at right angles, as they do in conic and
        cylindrical projections.
    meridional_scale, parallel_scale
        Metres on the grid for a metre on the ground, towards true north and towards true east.
    """

    convergence: np.ndarray
    parallel_rotation: np.ndarray
    meridional_scale: np.ndarray
    parallel_scale: np.ndarray


def local_factors(geobox: GeoBox) -> LocalFactors:
    """Return meridian convergence and scales of a projected grid; ValueError for a geographic one.

    They are computed exactly on a lattice of every 32nd cell and interpolated linearly in between,
    which is good to 1e-4 degrees and 1e-6 at 500 m.
    """

    def factors(exact: Any) -> list[np.ndarray]:
        across = np.degrees(np.arctan2(exact.dy_dlam, exact.dx_dlam))
        return [exact.meridian_convergence, across, exact.meridional_scale, exact.parallel_scale]

    return LocalFactors(*_on_cells(geobox, factors))


def _on_cells(
    geobox: GeoBox, factors: Callable[[Any], list[np.ndarray]], part: Part | None = None
) -> Iterator[np.ndarray]:
    """Yield projection factors at all cells, from exact ones on a lattice of every 32nd cell."""
    exact, places = _lattice(geobox)
    places = [place[one] for place, one in zip(places, part or [slice(None)] * 2, strict=True)]
    for values in factors(exact):
        yield bilinear(np.asarray(values, np.float32), *places)


@lru_cache(maxsize=2)  # areas are asked for window by window
def _lattice(geobox: GeoBox) -> tuple[Any, list[np.ndarray]]:
    """Return exact factors on the lattice; places of rows and columns, counted in its knots."""
    crs = pyproj.CRS.from_wkt(crs_wkt(geobox))
    if not crs.is_projected:
        raise ValueError("projection factors belong to a projected grid; this one is geographic")
    lattice = [
        np.linspace(0, size - 1, max(2, math.ceil(size / _LATTICE_CELLS) + 1))
        for size in geobox.shape
    ]
    rows, columns = lattice
    eastings, northings = cell_centres(geobox)
    easting, northing = np.meshgrid(
        np.interp(columns, np.arange(eastings.size), eastings),
        np.interp(rows, np.arange(northings.size), northings),
    )
    project = pyproj.Proj(crs)
    exact = project.get_factors(*project(easting, northing, inverse=True))
    places = [
        np.interp(np.arange(size), knots, np.arange(knots.size)).astype(np.float32)
        for size, knots in zip(geobox.shape, lattice, strict=True)
    ]
    return exact, places


def bilinear(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return values between the cells of an array, at all crossings of rows and columns.

    Parameters
    ----------
    values : shape (y, x)
    rows, columns : shapes (m,) and (n,)
        Fractional, from 0 to the index of the last row and column.

    Returns
    -------
    numpy.ndarray, shape (m, n)

    Examples
    --------
    >>> square = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> bilinear(square, np.array([0.5, 1.0]), np.array([0.25])).tolist()
    [[1.25], [2.25]]
    """
    first_row, first_column = rows.astype(int), columns.astype(int)
    down, right = (rows - first_row)[:, None], (columns - first_column)[None, :]
    padded = np.pad(values, (0, 1), mode="edge")
    upper, lower = padded[first_row], padded[first_row + 1]
    upper = upper[:, first_column] * (1 - right) + upper[:, first_column + 1] * right
    lower = lower[:, first_column] * (1 - right) + lower[:, first_column + 1] * right
    return upper * (1 - down) + lower * down
