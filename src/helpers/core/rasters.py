"""GeoTIFFs: warping them onto a grid, and writing them with legend, tags and overviews."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from helpers import __version__
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError, listed
from helpers.core.files import write_aside, write_text
from helpers.core.grid import crs_wkt
from helpers.core.study import Study

Result = TypeVar("Result")
Bands = int | Sequence[int] | None
Decode = Callable[[np.ndarray], np.ndarray]

THREADS = 2
"""Threads of a warp and of the compression of a file."""

BLOCK = (256, 512)
"""Rows and columns of the windows in which `open_raster` best gets a cloud-optimised raster."""

# Deflate level 1 is the fastest that every reader knows. Blocks fit into those of the map, so that
# none of a covariate is read twice.
_PLAIN = {
    "tiled": True,
    "blockxsize": 256,
    "blockysize": 256,
    "compress": "deflate",
    "zlevel": 1,
    "num_threads": THREADS,
    "bigtiff": "if_safer",
    "interleave": "band",
}

# What GDAL copies a cloud-optimised file from: not compressed, for it is soon deleted.
_DRAFT = {"tiled": True, "interleave": "pixel", "bigtiff": "if_safer", "sparse_ok": True}
_DRAFT |= {"blockysize": BLOCK[0], "blockxsize": BLOCK[1]}

_COG: dict[str, Any] = {
    "driver": "COG",
    "blocksize": 512,
    "compress": "deflate",
    "level": 1,
    "predictor": "yes",
}
_COG |= {"num_threads": THREADS, "bigtiff": "if_safer"}

_SPARE_CELLS = 4  # of a file around the grid, for resampling


class RasterError(CompendiumError):
    """A raster file that cannot be read or written, or that does not fit the grid."""


def warp(
    path: str | Path | Sequence[str | Path],
    geobox: GeoBox,
    resampling: str = "nearest",
    bands: Bands = None,
    decode: Decode | None = None,
) -> np.ndarray:
    """Read a raster file onto a grid in one step.

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
            grids = [(part.numbers.shape[1:], part.transform, part.crs) for part in parts]
            others = [p.name for p, grid in zip(paths, grids, strict=True) if grid != grids[0]]
            if others:
                raise RasterError(
                    f"{listed(others)} has another grid than {paths[0].name}.",
                    "read the files one by one",
                )
            values = _warp_parts(parts, geobox, resampling, decode)
    return values[0] if len(values) == 1 and (bands is None or np.ndim(bands) == 0) else values


def _read(path: Path, what: Callable[[DatasetReader], Result]) -> Result:
    """Return what a function makes of an open raster, with errors that name the file."""
    try:
        with rasterio.open(path) as source:
            return what(source)
    except RasterioError as error:
        raise RasterError(
            f"The raster {path.name} cannot be read: {error}", "make or download the file again"
        ) from None


def _band_numbers(source: DatasetReader, bands: Bands) -> list[int]:
    return list(range(1, source.count + 1)) if bands is None else np.atleast_1d(bands).tolist()


def _warp_file(source: DatasetReader, geobox: GeoBox, resampling: str, bands: Bands) -> np.ndarray:
    """Return bands of an open raster on a grid; GDAL streams them, so the file may be large.

    By a virtual raster, as `rasterio.warp.reproject` passes over read errors when it has several
    threads.
    """
    _overlap(source, geobox)
    floats = source.dtypes[0].startswith("float")
    nodata = np.nan if source.nodata is None and floats else source.nodata
    with WarpedVRT(
        source,
        crs=crs_wkt(geobox),
        transform=geobox.transform,
        height=geobox.shape[0],
        width=geobox.shape[1],
        resampling=Resampling[resampling],
        src_nodata=nodata,
        nodata=np.nan if floats else nodata,
        num_threads=THREADS,
    ) as warped:
        return warped.read(_band_numbers(source, bands))


@dataclass(frozen=True)
class _Part:
    """The part of a raster that a grid needs; numbers of shape (band, y, x)."""

    numbers: np.ndarray
    transform: Affine
    crs: rasterio.CRS
    nodata: float | None


def _read_overlap(source: DatasetReader, geobox: GeoBox, bands: Bands) -> _Part:
    part = _overlap(source, geobox)
    numbers = source.read(_band_numbers(source, bands), window=part)
    return _Part(numbers, source.window_transform(part), source.crs, source.nodata)


def _warp_parts(
    parts: Sequence[_Part], geobox: GeoBox, resampling: str, decode: Decode | None
) -> np.ndarray:
    """Return the stacked bands of rasters of one grid on another, decoded before resampling."""
    stack, nodata = np.concatenate([part.numbers for part in parts]), parts[0].nodata
    if decode is not None:
        stack, nodata = decode(stack), np.nan
        stack = stack if stack.ndim == 3 else stack[np.newaxis]
    outside = np.nan if stack.dtype.kind == "f" else nodata or 0
    values = np.full((len(stack), *geobox.shape), outside, stack.dtype)
    reproject(
        stack,
        values,
        src_transform=parts[0].transform,
        src_crs=parts[0].crs,
        src_nodata=nodata,
        dst_transform=geobox.transform,
        dst_crs=crs_wkt(geobox),
        dst_nodata=outside,
        resampling=Resampling[resampling],
        num_threads=THREADS,
    )
    return values


def _overlap(source: DatasetReader, geobox: GeoBox) -> Window:
    """Return the window of an open raster that a grid needs, with some cells to spare."""
    name = Path(source.name).name
    if source.crs is None:
        raise RasterError(
            f"The raster {name} has no coordinate reference system.",
            "assign one, for example with gdal_edit.py -a_srs EPSG:4326",
        )
    bounds = transform_bounds(crs_wkt(geobox), source.crs, *geobox.boundingbox.bbox)
    west, south, east, north = bounds
    left, bottom, right, top = source.bounds
    if west >= right or east <= left or south >= top or north <= bottom:
        raise RasterError(
            f"The raster {name} lies outside the grid: it covers {left:g} to {right:g}, "
            f"{bottom:g} to {top:g}, the grid {west:g} to {east:g}, {south:g} to {north:g}.",
            "give a file that covers the study area, and check its coordinate reference system",
        )
    affine, spare = source.transform, _SPARE_CELLS
    column = max(0, math.floor((west - left) / affine.a) - spare)
    row = max(0, math.floor((north - top) / affine.e) - spare)
    width = min(source.width, math.ceil((east - left) / affine.a) + spare) - column
    height = min(source.height, math.ceil((south - top) / affine.e) + spare) - row
    return Window(column, row, width, height)


def read_band(path: Path, band: int = 1) -> np.ndarray:
    """Return a whole band of a raster, as it is stored."""
    with rasterio.open(path) as source:
        return source.read(band)


@dataclass(frozen=True)
class RasterProfile:
    """What a raster file says of its numbers.

    Parameters
    ----------
    study
        Its name and its label go into the tags.
    names, units, long_names
        For each band its short name (the band's description), unit and long name; one string stands
        for all bands. Long names are the short ones by default.
    nodata
        For floats always NaN; none for whole numbers by default. Cells that are not written have
        it.
    scale, offset
        Of all bands: the value is number * scale + offset.
    tags
        More tags of the file.
    legend
        Name and hexadecimal colour of each class of a raster of classes: written as its colour
        table, as tags ``class_<code>`` of the band, and as category names in the ``.aux.xml`` that
        GDAL and QGIS read.
    overviews
        Make the file cloud-optimised, with overviews by this rule: ``mode`` for classes,
        ``average`` for the rest.
    """

    study: Study
    names: str | Sequence[str]
    units: str | Sequence[str]
    long_names: str | Sequence[str] | None = None
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    tags: Mapping[str, Any] = field(default_factory=dict)
    legend: Mapping[int, tuple[str, str]] | None = None
    overviews: Literal["mode", "average"] | None = None


def write_raster(path: str | Path, data: npt.ArrayLike, geobox: GeoBox, **described: Any) -> Path:
    """Write stored numbers, (y, x) or (band, y, x), as a GeoTIFF, whole or not at all.

    `described` are the fields of `RasterProfile`. RasterError if the array has another shape than
    the grid, and as from `open_raster`.
    """
    path, data = Path(path), np.asarray(data)
    bands = data[np.newaxis] if data.ndim == 2 else data
    if bands.ndim != 3 or bands.shape[1:] != tuple(geobox.shape):
        raise RasterError(
            f"{path.name}: data of shape {data.shape} do not fit a grid of {tuple(geobox.shape)} "
            "cells.",
            "hand over (y, x) or (band, y, x) on that grid",
        )
    with open_raster(path, geobox, len(bands), bands.dtype, **described) as target:
        target.write(bands)
    return path


@contextlib.contextmanager
def open_raster(
    path: str | Path, geobox: GeoBox, count: int, dtype: npt.DTypeLike, **described: Any
) -> Iterator[DatasetWriter]:
    """Give a new GeoTIFF to be written window by window; after the block it takes its place, whole.

    Windows aligned with blocks of `BLOCK` are written the fastest. `described` are the fields of
    `RasterProfile`. RasterError if the file could not be written or has lost its CRS.
    """
    path, dtype, profile = Path(path), np.dtype(dtype), RasterProfile(**described)
    crs = rasterio.CRS.from_wkt(crs_wkt(geobox))
    floats = dtype.kind == "f"
    options: dict[str, Any] = {
        "count": count,
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "dtype": dtype.name,
        "crs": crs,
        "transform": geobox.transform,
        "nodata": np.nan if floats else profile.nodata,
        **(_DRAFT if profile.overviews else {**_PLAIN, "predictor": 3 if floats else 2}),
    }
    try:
        with write_aside(path) as part:
            with rasterio.open(part, "w", driver="GTiff", **options) as target:
                _write_tags(target, profile)
                yield target
            if profile.overviews:
                # GDAL lays out a cloud-optimised file from a finished one, so that no map has to
                # fit into memory.
                with write_aside(part) as whole:
                    rasterio.shutil.copy(part, whole, overview_resampling=profile.overviews, **_COG)
            with rasterio.open(part) as written:
                if written.crs != crs or written.transform != geobox.transform:
                    raise RasterError(
                        f"{path.name} came back with another CRS or transform than it was written "
                        "with.",
                        "choose a CRS that GeoTIFF can hold, such as one with an EPSG code",
                    )
    except RasterioError as error:
        raise RasterError(
            f"{path.name} cannot be written: {error}", "check the disk's space and permissions"
        ) from error
    if profile.legend:
        _write_category_names(path, profile.legend)


def _write_tags(target: DatasetWriter, profile: RasterProfile) -> None:
    count, study = target.count, profile.study
    target.descriptions = names = _each(profile.names, count)
    target.units = _each(profile.units, count)
    target.scales = [profile.scale] * count
    target.offsets = [profile.offset] * count
    long_names = _each(profile.long_names or profile.names, count)
    for band, (name, long_name) in enumerate(zip(names, long_names, strict=True), start=1):
        target.update_tags(band, long_name=long_name or name)
    tags = {"study": study.name, "version": __version__, "code_digest": package_digest()}
    if study.label:
        tags["LABEL"] = study.label
    target.update_tags(**tags, **profile.tags)
    if profile.legend:
        colours = {code: colour.lstrip("#") for code, (_, colour) in profile.legend.items()}
        target.write_colormap(1, {code: tuple(bytes.fromhex(c)) for code, c in colours.items()})
        classes = {f"class_{code}": name for code, (name, _) in profile.legend.items()}
        target.update_tags(1, **classes)


def _each(value: str | Sequence[str], count: int) -> list[str]:
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} names or units for {count} bands")
    return values


def _write_category_names(path: Path, legend: Mapping[int, tuple[str, str]]) -> None:
    """Write the names of classes where GDAL and QGIS look for them: a GeoTIFF has no place."""
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(legend) + 1):
        ElementTree.SubElement(names, "Category").text = legend.get(code, ("", ""))[0]
    text = ElementTree.tostring(root, encoding="unicode")
    write_text(path.with_name(f"{path.name}.aux.xml"), text)
