"""Grids: the study area, the reference grid and its finer companion, and rasters onto and from them.

Every raw raster is warped once, onto a grid that divides the reference grid evenly; from there values only
get averaged in blocks. Arrays are ``(y, x)`` or ``(band, y, x)``, the first row in the north.
"""

import contextlib
import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers import __version__
from helpers.core.code import package_digest, write_text
from helpers.core.errors import CompendiumError

THREADS = 2
"""Threads of a warp and of the compression of a file."""


SIMULATED = "yes: made from the virtual landscape, a test bed for methods; it says nothing about the real ground"


BLOCK = (256, 512)
"""Rows and columns of the windows in which `open_raster` best gets a cloud-optimised raster."""


# What GDAL copies a cloud-optimised file from: not compressed, for it is soon deleted.
_DRAFT = {"tiled": True, "blockysize": BLOCK[0], "blockxsize": BLOCK[1], "interleave": "pixel", "bigtiff": "if_safer",
          "sparse_ok": True}  # fmt: skip


_COG = {
    "blocksize": 512,
    "compress": "deflate",
    "level": 1,
    "predictor": "yes",
    "num_threads": THREADS,
    "bigtiff": "if_safer",
}


_SNAP = 1e-9  # cells; keeps bounds that are whole multiples already from growing by rounding errors


_LATTICE_CELLS = 32  # spacing of the lattice on which projection factors are computed exactly


class RasterError(CompendiumError):
    """A raster file that cannot be read or written, or that does not fit the grid."""


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
    from rasterio.features import geometry_mask

    outline = study_area(study, geobox.crs.to_wkt())
    return geometry_mask([outline], out_shape=geobox.shape, transform=geobox.transform, invert=True)


def cell_centres(geobox):
    """Return the coordinates of a grid's columns (easting or longitude) and rows (northing or latitude)."""
    affine = geobox.transform
    return affine.c + affine.a * (np.arange(geobox.shape[1]) + 0.5), affine.f + affine.e * (
        np.arange(geobox.shape[0]) + 0.5
    )


def window(inner, outer):
    """Return the slices that cut a grid out of a larger one that is aligned with it and as fine.

    Parameters
    ----------
    inner, outer : odc.geo.geobox.GeoBox

    Returns
    -------
    tuple of slice
        Rows and columns of `outer`.
    """
    column = round((inner.transform.c - outer.transform.c) / outer.transform.a)
    row = round((inner.transform.f - outer.transform.f) / outer.transform.e)
    return slice(row, row + inner.shape[0]), slice(column, column + inner.shape[1])


def warp(path, geobox, resampling="nearest", bands=None, decode=None):
    """Read a raster file onto a grid in one step.

    Parameters
    ----------
    path : path-like or sequence of path-like
        Any raster that GDAL reads, in any CRS. Several files of one grid, such as the bands of a scene, are
        stacked, which is three times faster than one after the other.
    geobox : odc.geo.geobox.GeoBox
    resampling : str
        A name of `rasterio.enums.Resampling`: ``nearest`` for digital numbers, flags and classes,
        ``bilinear``, ``cubic`` or ``average`` for continuous values. Cells without data never enter a mean.
    bands : int or sequence of int, optional
        Bands by number from 1; all by default.
    decode : callable, optional
        Turns the numbers of the file or files, ``(band, y, x)``, into floats with NaN for missing ones, in as
        many bands as it likes, before they are resampled. Scaled products that get interpolated need it:
        their invalid numbers are more than the one that the file declares as nodata.

    Returns
    -------
    numpy.ndarray, shape (y, x) or (band, y, x)
        ``(y, x)`` for one band of one file, unless `bands` is a sequence. In the file's own type, or that of
        `decode`. Outside the file, and where it has no data, its nodata value; NaN for floats, 0 for whole
        numbers of a file that declares none.

    Raises
    ------
    RasterError
        A file is missing, damaged, has no CRS, or lies wholly outside the grid; or several files have several
        grids.
    """
    import rasterio

    paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(p) for p in path]
    if missing := [p for p in paths if not p.is_file()]:
        raise RasterError(
            f"The raster {missing[0].name} is missing from {missing[0].parent.name}/.",
            "run the notebook that writes it, or put the file there",
        )
    with rasterio.Env(GDAL_NUM_THREADS=THREADS):
        if decode is None and len(paths) == 1:
            values = _read(paths[0], lambda source: _warp_file(source, geobox, resampling, bands))
        else:
            parts = [_read(p, lambda source: _read_overlap(source, geobox, bands)) for p in paths]
            values = _warp_parts(parts, geobox, resampling, decode, paths)
    return values[0] if len(values) == 1 and (bands is None or np.ndim(bands) == 0) else values


def _read(path, what):
    """Return what a function makes of an open raster, with errors that name the file."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as source:
            return what(source)
    except RasterioError as error:
        raise RasterError(
            f"The raster {path.name} cannot be read: {error}", "make or download the file again"
        ) from None


def _band_numbers(source, bands):
    return list(range(1, source.count + 1)) if bands is None else np.atleast_1d(bands).tolist()


def _warp_file(source, geobox, resampling, bands):
    """Return bands of an open raster on a grid; GDAL streams them: the file may be larger than memory.

    By a virtual raster, as `rasterio.warp.reproject` passes over read errors when it has several threads.
    """
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    _overlap(source, geobox)
    nodata = np.nan if source.nodata is None and source.dtypes[0].startswith("float") else source.nodata
    with WarpedVRT(
        source,
        crs=geobox.crs.to_wkt(),
        transform=geobox.transform,
        height=geobox.shape[0],
        width=geobox.shape[1],
        resampling=Resampling[resampling],
        src_nodata=nodata,
        nodata=np.nan if source.dtypes[0].startswith("float") else nodata,
        num_threads=THREADS,
    ) as warped:
        return warped.read(_band_numbers(source, bands))


def _read_overlap(source, geobox, bands):
    """Return the part of an open raster that a grid needs: its numbers, transform, CRS and nodata value."""
    part = _overlap(source, geobox)
    numbers = source.read(_band_numbers(source, bands), window=part)
    whole = source.transform
    corner = whole.c + whole.a * part.col_off, whole.f + whole.e * part.row_off
    return numbers, Affine(whole.a, 0, corner[0], 0, whole.e, corner[1]), source.crs, source.nodata


def _warp_parts(parts, geobox, resampling, decode, paths):
    """Return the stacked bands of rasters of one grid on another, decoded before they are resampled."""
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    numbers, transforms, crss, nodatas = zip(*parts, strict=True)
    places = [(array.shape[1:], *place) for array, *place in zip(numbers, transforms, crss, strict=True)]
    for path, place in zip(paths, places, strict=True):
        if place != places[0]:
            raise RasterError(f"{path.name} has another grid than {paths[0].name}.", "read the files one by one")
    stack, nodata = np.concatenate(numbers), nodatas[0]
    if decode is not None:
        stack, nodata = decode(stack), np.nan
        stack = stack if stack.ndim == 3 else stack[np.newaxis]
    outside = np.nan if stack.dtype.kind == "f" else nodata or 0
    values = np.full((len(stack), *geobox.shape), outside, stack.dtype)
    reproject(
        stack,
        values,
        src_transform=transforms[0],
        src_crs=crss[0],
        src_nodata=nodata,
        dst_transform=geobox.transform,
        dst_crs=geobox.crs.to_wkt(),
        dst_nodata=outside,
        resampling=Resampling[resampling],
        num_threads=THREADS,
    )
    return values


def _overlap(source, geobox):
    """Return the window of an open raster that a grid needs, with some cells to spare."""
    from rasterio.warp import transform_bounds
    from rasterio.windows import Window

    path = Path(source.name)
    if source.crs is None:
        raise RasterError(
            f"The raster {path.name} has no coordinate reference system.",
            "assign one, for example with gdal_edit.py -a_srs EPSG:4326",
        )
    west, south, east, north = transform_bounds(geobox.crs.to_wkt(), source.crs, *geobox.boundingbox)
    left, bottom, right, top = source.bounds
    if west >= right or east <= left or south >= top or north <= bottom:
        raise RasterError(
            f"The raster {path.name} lies outside the grid: it covers {left:g} to {right:g}, {bottom:g} to "
            f"{top:g}, the grid {west:g} to {east:g}, {south:g} to {north:g}.",
            "give a file that covers the study area, and check its coordinate reference system",
        )
    spare = 4
    first_column, last_column = ((x - left) / source.transform.a for x in (west, east))
    first_row, last_row = ((y - top) / source.transform.e for y in (north, south))
    column, row = max(0, math.floor(first_column) - spare), max(0, math.floor(first_row) - spare)
    width = min(source.width, math.ceil(last_column) + spare) - column
    height = min(source.height, math.ceil(last_row) + spare) - row
    return Window(column, row, width, height)


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


def write_raster(path, data, geobox, **described):
    """Write a GeoTIFF that says what it holds; a file that stood there is replaced only by a whole one.

    Parameters
    ----------
    path : path-like
    data : numpy.ndarray, shape (y, x) or (band, y, x)
        The numbers as they are stored; the value is number * scale + offset.
    geobox : odc.geo.geobox.GeoBox
    **described
        What `open_raster` takes.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RasterError
        The array has another shape than the grid, or the file could not be written or has lost its CRS.
    """
    path, data = Path(path), np.asarray(data)
    bands = data[np.newaxis] if data.ndim == 2 else data
    if bands.ndim != 3 or bands.shape[1:] != tuple(geobox.shape):
        raise RasterError(
            f"{path.name}: data of shape {data.shape} do not fit a grid of {tuple(geobox.shape)} cells.",
            "hand over (y, x) or (band, y, x) on that grid",
        )
    with open_raster(path, geobox, len(bands), bands.dtype, **described) as target:
        target.write(bands)
    return path


@contextlib.contextmanager
def open_raster(
    path,
    geobox,
    count,
    dtype,
    *,
    study,
    names,
    units,
    long_names=None,
    nodata=None,
    scale=1.0,
    offset=0.0,
    tags=None,
    legend=None,
    overviews=None,
):
    """Give a new GeoTIFF to be written window by window; at the end of the block it takes its place, whole.

    Parameters
    ----------
    path : path-like
        Missing folders are made.
    geobox : odc.geo.geobox.GeoBox
    count : int
        Bands.
    dtype : numpy.dtype or str
    study : helpers.core.study.Study
        Its name, and SIMULATED where it is, go into the tags.
    names, units, long_names : str or sequence of str
        For each band its short name (the band's description), unit and long name; one string stands for all
        bands.
    nodata : float, optional
        For floats always NaN; none for whole numbers by default. Cells that are not written have it.
    scale, offset : float
        Of all bands.
    tags : dict, optional
        More tags of the file.
    legend : dict of int to (str, str), optional
        Name and hexadecimal colour of each class of a raster of classes: written as its colour table, as
        tags ``class_<code>`` of the band, and as category names in the ``.aux.xml`` that GDAL and QGIS read.
    overviews : {"mode", "average"}, optional
        Make the file cloud-optimised, with overviews by this rule: ``mode`` for classes, ``average`` for the rest.

    Yields
    ------
    rasterio.io.DatasetWriter
        With blocks of `BLOCK`, so that windows aligned with them are written the fastest.

    Raises
    ------
    RasterError
        The file could not be written or has lost its CRS.
    """
    import rasterio
    import rasterio.shutil

    path, dtype, crs = Path(path), np.dtype(dtype), rasterio.CRS.from_wkt(geobox.crs.to_wkt())
    part, whole = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.cog.part")
    profile = {
        "count": count,
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "dtype": dtype.name,
        "crs": crs,
        "transform": geobox.transform,
        "nodata": np.nan if dtype.kind == "f" else nodata,
        **(_DRAFT if overviews else _creation_options(dtype)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with rasterio.open(part, "w", driver="GTiff", **profile) as target:
            _describe(target, names, units, long_names, scale, offset)
            target.update_tags(**_file_tags(study), **(tags or {}))
            if legend:
                _colour(target, legend)
            yield target
        if overviews:
            # GDAL lays out a cloud-optimised file from a finished one, so that no map has to fit into memory.
            rasterio.shutil.copy(part, whole, driver="COG", overview_resampling=overviews, **_COG)
            os.replace(whole, part)
        with rasterio.open(part) as written:
            if written.crs != crs or written.transform != geobox.transform:
                raise RasterError(
                    f"{path.name} came back with another CRS or transform than it was written with.",
                    "choose a CRS that GeoTIFF can hold, such as one with an EPSG code",
                )
        os.replace(part, path)
        if legend:
            _write_category_names(path, legend)
    except rasterio.errors.RasterioError as error:
        raise RasterError(
            f"{path.name} cannot be written: {error}", "check the disk's space and permissions"
        ) from error
    finally:
        part.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def _creation_options(dtype):
    """Return options of the GeoTIFF driver: deflate level 1 is the fastest that every reader knows.

    Blocks fit into those of the map, so that none of a covariate is read twice.
    """
    return {
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 3 if dtype.kind == "f" else 2,
        "num_threads": THREADS,
        "bigtiff": "if_safer",
        "interleave": "band",
    }


def _colour(target, legend):
    rgb = {code: tuple(bytes.fromhex(colour.lstrip("#"))) for code, (_, colour) in legend.items()}
    target.write_colormap(1, rgb)
    target.update_tags(1, **{f"class_{code}": name for code, (name, _) in legend.items()})


def _write_category_names(path, legend):
    """Write the names of classes where GDAL and QGIS look for them: a GeoTIFF itself has no place for them."""
    from xml.etree import ElementTree

    root = ElementTree.Element("PAMDataset")
    names = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for code in range(max(legend) + 1):
        ElementTree.SubElement(names, "Category").text = legend.get(code, ("", ""))[0]
    write_text(path.with_name(f"{path.name}.aux.xml"), ElementTree.tostring(root, encoding="unicode"))


def _describe(target, names, units, long_names, scale, offset):
    count = target.count
    names, units, long_names = (_each(v, count) for v in (names, units, long_names))
    target.descriptions, target.units = names, units
    target.scales, target.offsets = [scale] * count, [offset] * count
    for band, (name, long_name) in enumerate(zip(names, long_names, strict=True), start=1):
        target.update_tags(band, long_name=long_name or name)


def _each(value, count):
    values = [value] * count if value is None or isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} names or units for {count} bands")
    return values


def _file_tags(study):
    tags = {"study": study.name, "version": __version__, "code_digest": package_digest()}
    return tags | ({"SIMULATED": SIMULATED} if study.simulated else {})
