"""GeoTIFFs: warping them onto a grid, and writing them with legend, tags and overviews."""

import contextlib
import math
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from helpers import __version__
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import write_text

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


class RasterError(CompendiumError):
    """A raster file that cannot be read or written, or that does not fit the grid."""


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
