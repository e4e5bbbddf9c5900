"""Rasters as users have them, on a grid: a file or a folder of tiles, in any CRS, masked, scaled.

Numbers become values before they are resampled, block by block, so that a file may be larger than
memory and cells without data never enter a mean. A virtual raster (VRT) of tiles that touch has no
seams; of tiles that are handed in one by one, a cell on the edge of two has the value of the first.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import reproject, transform, transform_bounds
from rasterio.windows import Window

from helpers.core.errors import listed
from helpers.core.grid import cell_centres, crs_wkt
from helpers.core.rasters import THREADS, RasterError

ENDINGS = (".tif", ".tiff", ".vrt", ".nc")
"""Of the rasters in a folder of tiles."""

Decode = Callable[[np.ndarray], np.ndarray]
Block = tuple[slice, slice, Window]

_HDF4 = b"\x0e\x03\x13\x01"  # the first bytes of such a file
_MOST_CELLS = 4_000_000  # of a file that are in memory at once
_SPARE_CELLS = 4  # of a file around a block, for resampling
_SAME_PLACE = 1e-3  # cells; other software writes coordinates with rounding errors
_FINER = 1.001  # source cells in a cell of the grid; also for rounding errors
_LATTICE = 200  # cells along a side, at most, to estimate shares and ranges


@dataclass(frozen=True)
class Reading:
    """How the numbers of a file become values on a grid.

    Parameters
    ----------
    band, variable
        Which ones; the variable is that of a NetCDF file with several.
    scaled
        Whether scale and offset of the file's tags are applied.
    valid_range
        Other values are no data.
    finer, coarser
        Resampling, by name, of files whose cells are finer than the grid's, and of all others.
    """

    band: int = 1
    variable: str = ""
    scaled: bool = True
    valid_range: tuple[float, float] | None = None
    finer: str = "average"
    coarser: str = "bilinear"


def raster_files(path: Path) -> list[Path]:
    """Return a raster itself, or the rasters of a folder by name; RasterError if there is none."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
        if files:
            return files
        endings = ", ".join(f"*{ending}" for ending in ENDINGS)
        raise RasterError(f"The folder {path.name}/ has no raster.", f"put tiles there: {endings}")
    if not path.is_file():
        raise RasterError(
            f"There is no raster {path.name} in {path.parent.name}/.",
            "correct its path in the study file, or put it there",
        )
    return [path]


@contextlib.contextmanager
def open_source(path: Path, reading: Reading) -> Iterator[DatasetReader]:
    """Give an open raster that has the band; RasterError names the file, also while it is read."""
    try:
        with _quiet_open(str(path)) as source:
            names = [name.rpartition(":")[2] for name in source.subdatasets]
            if not names and source.count:
                names = [source.tags(1).get("NETCDF_VARNAME", "")]
            chosen = _variable(path, names, reading.variable)
            address = dict(zip(names, source.subdatasets, strict=False)).get(chosen, str(path))
        with _quiet_open(address) as source:
            if reading.band > source.count:
                raise RasterError(
                    f"{path.name} has no band {reading.band}: it has {source.count}.",
                    "correct `band` in the study file",
                )
            yield source
    except RasterioError as error:
        raise _unreadable(path, error) from None


def _quiet_open(address: str) -> DatasetReader:
    with warnings.catch_warnings():  # a NetCDF file with several variables has no place itself
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(address)


def _variable(path: Path, names: Sequence[str], wanted: str) -> str:
    if wanted and wanted not in names:
        remedy = f"choose from {listed(names)}" if any(names) else "leave `variable` out"
        raise RasterError(f"{path.name} has no variable {wanted}.", remedy)
    if not wanted and len(names) > 1:
        message = f"{path.name} has several variables: {listed(names)}."
        raise RasterError(message, "name one as `variable` in the study file")
    return wanted or "".join(names)


def _unreadable(path: Path, error: RasterioError) -> RasterError:
    with open(path, "rb") as stream:
        if stream.read(len(_HDF4)) == _HDF4:
            return RasterError(
                f"{path.name} is an HDF4 file, which cannot be read here.",
                "download the product as GeoTIFF, or convert the file with `gdal_translate` from "
                "conda-forge (packages gdal and libgdal-hdf4)",
            )
    reason = error.__cause__ or error
    remedy = "make or download the file again"
    return RasterError(f"The raster {path.name} cannot be read: {reason}", remedy)


def source_crs(source: DatasetReader) -> rasterio.CRS:
    """Return the CRS of an open raster; WGS 84 for NetCDF files with no more than degrees."""
    if source.crs is not None:
        return source.crs
    units = {value for name, value in source.tags().items() if name.endswith("#units")}
    if {"degrees_north", "degrees_east"} <= units:
        return rasterio.CRS.from_epsg(4326)
    raise RasterError(
        f"The raster {_name(source)} has no coordinate reference system.",
        "assign one, for example with gdal_edit.py -a_srs EPSG:4326",
    )


def _name(source: DatasetReader) -> str:
    """Return the file name of an open raster, which may be a variable of a file."""
    return Path(source.name.removeprefix("netcdf:")).name


def read_mosaic(
    files: Sequence[Path], geobox: GeoBox, reading: Reading, decode: Decode | None = None
) -> np.ndarray:
    """Read rasters onto a grid; where several have a value, the first one's is taken.

    What lies on the grid's own cells is taken as it is. RasterError if a file cannot be read or has
    no CRS, or if none overlaps the grid.

    Parameters
    ----------
    decode
        Turns values, (y, x), into one or more bands, (band, y, x), before they are resampled. A
        cell lacks all bands or none.

    Returns
    -------
    numpy.ndarray of float32, shape (band, y, x)
        NaN where there is no value.
    """
    decode = decode or (lambda values: values[np.newaxis])
    count = len(decode(np.zeros((1, 1), np.float32)))
    mosaic = np.full((count, *geobox.shape), np.nan, np.float32)
    overlaps = False
    for path in files:
        with open_source(path, reading) as source:
            how = resampling_of(source, geobox, reading)
            blocks = _shared_cells if how == "none" else _blocks
            for rows, columns, window in blocks(source, geobox):
                overlaps = True
                part = mosaic[:, rows, columns]
                missing = np.isnan(part[0])
                if missing.any():
                    values = decode(_values(source, reading, window))
                    if how != "none":
                        place = source.window_transform(window), source_crs(source)
                        values = _warp(values, place, geobox[rows, columns], how)
                    np.copyto(part, values, where=missing)
    if not overlaps:
        raise _outside(files, geobox, reading)
    return mosaic


def _values(source: DatasetReader, reading: Reading, window: Window, **thinned: Any) -> np.ndarray:
    """Return values in a window as float32, NaN where there is none."""
    numbers = source.read(reading.band, window=window, **thinned)
    known = source.read_masks(reading.band, window=window, **thinned) != 0
    scale, offset = source.scales[reading.band - 1], source.offsets[reading.band - 1]
    if reading.scaled and (scale, offset) != (1, 0):
        numbers = numbers * scale + offset
    if reading.valid_range:
        low, high = reading.valid_range
        known &= (numbers >= low) & (numbers <= high)
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    values[~known | ~np.isfinite(values)] = np.nan
    return values


def _warp(
    values: np.ndarray, place: tuple[Affine, rasterio.CRS], geobox: GeoBox, resampling: str
) -> np.ndarray:
    """Return values (band, y, x) with a transform and CRS on a grid."""
    warped = np.full((len(values), *geobox.shape), np.nan, np.float32)
    reproject(
        values,
        warped,
        src_transform=place[0],
        src_crs=place[1],
        src_nodata=np.nan,
        dst_transform=geobox.transform,
        dst_crs=crs_wkt(geobox),
        dst_nodata=np.nan,
        resampling=Resampling[resampling],
        num_threads=THREADS,
    )
    return warped


def _first_cell(source: DatasetReader, geobox: GeoBox) -> tuple[int, int] | None:
    """Return row and column in an open raster of the grid's first cell, if both share their cells.

    The one may be larger than the other, or beside it.
    """
    if source_crs(source) != rasterio.CRS.from_wkt(crs_wkt(geobox)):
        return None
    rows, columns = geobox.shape
    to_source = ~source.transform * geobox.transform
    corners = np.array([to_source * corner for corner in ((0, 0), (columns, 0), (0, rows))])
    first = np.rint(corners[0])
    expected = first + np.array([(0, 0), (columns, 0), (0, rows)])
    if np.abs(corners - expected).max() > _SAME_PLACE:
        return None
    return int(first[1]), int(first[0])


def resampling_of(source: DatasetReader, geobox: GeoBox, reading: Reading) -> str:
    """Return how an open raster gets onto a grid; ``none`` if it has the grid's own cells."""
    if _first_cell(source, geobox):
        return "none"
    rows, columns = geobox.shape
    middle = np.array([columns / 2, rows / 2])
    points = [geobox.transform * tuple(middle + step) for step in ((0, 0), (1, 0), (0, 1))]
    axes = (list(axis) for axis in zip(*points, strict=True))
    places = transform(crs_wkt(geobox), source_crs(source), *axes)
    cells = np.array([~source.transform * point for point in zip(*places, strict=True)])
    return reading.finer if abs(np.linalg.det(cells[1:] - cells[0])) > _FINER else reading.coarser


def _shared_cells(source: DatasetReader, geobox: GeoBox) -> Iterator[Block]:
    """Give the part of the grid that lies in an open raster of the same cells, as `_blocks`."""
    first = _first_cell(source, geobox)
    assert first is not None
    top, left = (max(0, -start) for start in first)
    bottom, right = (
        min(*sizes)
        for sizes in zip(geobox.shape, np.subtract(source.shape, first).tolist(), strict=True)
    )
    if top < bottom and left < right:
        window = Window(left + first[1], top + first[0], right - left, bottom - top)
        yield slice(top, bottom), slice(left, right), window


def _blocks(
    source: DatasetReader, geobox: GeoBox, rows: slice | None = None, columns: slice | None = None
) -> Iterator[Block]:
    """Give blocks of the grid that an open raster overlaps, and the windows that they need of it.

    Blocks are halved until the windows fit into memory.
    """
    rows = rows or slice(0, geobox.shape[0])
    columns = columns or slice(0, geobox.shape[1])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    window = _window(source, geobox[rows, columns])
    if window is None:
        return
    if max(window.width * window.height, 8 * height * width) <= _MOST_CELLS or height * width == 1:
        yield rows, columns, window
        return
    if height >= width:
        middle = rows.start + height // 2
        halves = [(slice(*ends), columns) for ends in ((rows.start, middle), (middle, rows.stop))]
    else:
        middle = columns.start + width // 2
        ends = ((columns.start, middle), (middle, columns.stop))
        halves = [(rows, slice(*pair)) for pair in ends]
    for half in halves:
        yield from _blocks(source, geobox, *half)


def _window(source: DatasetReader, geobox: GeoBox) -> Window | None:
    """Return the window of an open raster that a grid needs, with cells to spare."""
    west, south, east, north = transform_bounds(
        crs_wkt(geobox), source_crs(source), *geobox.boundingbox.bbox
    )
    corners = [(x, y) for x in (west, east) for y in (south, north)]
    places = np.array([~source.transform * corner for corner in corners])
    low, high = places.min(axis=0), places.max(axis=0)
    size = np.array([source.width, source.height])
    if (high <= 0).any() or (low >= size).any():
        return None
    # Kernels of resampling reach two cells of the coarser one of file and grid.
    rows, columns = geobox.shape
    spare = np.ceil(_SPARE_CELLS + 2 * (high - low) / [columns, rows])
    low = np.maximum(np.floor(low) - spare, 0)
    high = np.minimum(np.ceil(high) + spare, size)
    return Window(*low.astype(int).tolist(), *(high - low).astype(int).tolist())


def _outside(files: Sequence[Path], geobox: GeoBox, reading: Reading) -> RasterError:
    with open_source(files[0], reading) as source:
        left, bottom, right, top = source.bounds
        bounds = transform_bounds(crs_wkt(geobox), source_crs(source), *geobox.boundingbox.bbox)
    west, south, east, north = bounds
    more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
    return RasterError(
        f"The raster {files[0].name}{more} lies outside the grid: it covers {left:g} to {right:g}, "
        f"{bottom:g} to {top:g}, the grid {west:g} to {east:g}, {south:g} to {north:g}.",
        "give a file that covers the study area, and check its coordinate reference system",
    )


def describe_mosaic(files: Sequence[Path], geobox: GeoBox, reading: Reading) -> dict[str, Any]:
    """Return what rasters are, and how they get onto a grid, from a few of their cells.

    Returns
    -------
    description
        ``files`` (their number), ``crs``, ``cell_size`` in its units, ``nodata``, ``unit`` and
        ``resampling``: sets of what the files have, as text. ``share_of_grid`` within their bounds,
        and ``minimum`` and ``maximum`` there, None where they have no value.
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
            places = transform(crs_wkt(geobox), crs, eastings.ravel(), northings.ravel())
            # pyrefly: ignore[unsupported-operation]  # affine's hints know no arrays
            columns, rows = ~affine * tuple(np.asarray(axis) for axis in places)
            covered |= (
                (columns >= 0) & (columns < source.width) & (rows >= 0) & (rows < source.height)
            )
            if window := _window(source, geobox):
                shape = (min(window.height, _LATTICE), min(window.width, _LATTICE))
                values = _values(source, reading, window, out_shape=shape)
                numbers.append(values[np.isfinite(values)])
    values = np.concatenate(numbers)
    return {
        "files": len(files),
        **{name: ", ".join(facts) for name, facts in found.items()},
        "share_of_grid": float(covered.mean()),
        "minimum": float(values.min()) if values.size else None,
        "maximum": float(values.max()) if values.size else None,
    }
