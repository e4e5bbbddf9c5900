"""Rasters as users have them: opening them, their values, and the windows that a grid needs."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from helpers.core.drivers import open_local
from helpers.core.errors import listed
from helpers.core.grid import crs_wkt
from helpers.core.rasters import RasterError

ENDINGS = (".tif", ".tiff", ".vrt", ".nc")
"""Of the rasters in a folder of tiles."""

MOST_CELLS = 4_000_000
"""Cells of a file that are in memory at once."""

SAME_PLACE = 1e-3
"""Cells; other software writes coordinates with rounding errors."""

Block = tuple[slice, slice, Window]
"""Rows and columns of a grid, and the window of a raster that they need."""

_HDF4 = b"\x0e\x03\x13\x01"  # the first bytes of such a file
_SPARE_CELLS = 4  # of a file around a block, for resampling
_FINER = 1.001  # source cells in a cell of the grid; also for rounding errors
_SIZES = (1e-9, 1e9)  # of cells, in degrees or metres: others are damage
_METRES_PER_DEGREE = 111_320.0


class OutsideError(RasterError):
    """Rasters of which none overlaps a grid; no error where that is a part of a larger one."""


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


def tiles(path: Path) -> list[Path]:
    """Return the rasters of a folder by name; the path itself where it is none, or has none."""
    files = sorted(p for p in path.glob("*") if p.suffix.lower() in ENDINGS)
    return files or [path]


def raster_files(path: Path) -> list[Path]:
    """Return a raster itself, or the rasters of a folder by name; RasterError if it has none."""
    files = tiles(path)
    if files[0].is_dir():
        endings = ", ".join(f"*{ending}" for ending in ENDINGS)
        raise RasterError(f"The folder {path.name}/ has no raster.", f"put tiles there: {endings}")
    return files


@contextlib.contextmanager
def open_source(
    path: Path, reading: Reading, geobox: GeoBox | None = None
) -> Iterator[DatasetReader]:
    """Give an open raster that has the band; RasterError names the file, also while it is read.

    For a grid, the overview is opened that `overview_for` names.
    """
    try:
        with open_local(path) as source:
            names = [name.rpartition(":")[2] for name in source.subdatasets]
            if not names and source.count:
                names = [source.tags(1).get("NETCDF_VARNAME", "")]
            chosen = _variable(path, names, reading.variable)
            address = dict(zip(names, source.subdatasets, strict=False)).get(chosen, "")
        with open_local(path, address) as source:
            if reading.band > source.count:
                raise RasterError(
                    f"{path.name} has no band {reading.band}: it has {source.count}.",
                    "correct `band` in the study file",
                )
            _check_place(path, source)
            level = None if geobox is None else overview_for(source, geobox)
            if level is None:
                yield source
        if level is not None:
            with open_local(path, address, overview_level=level) as source:
                yield source
    except RasterioError as error:
        raise _unreadable(path, error) from None


def _check_place(path: Path, source: DatasetReader) -> None:
    """Raise RasterError if cells have no size that ground can have, or lie beyond the poles."""
    remedy = "write the file anew with its right geotransform"
    size = math.sqrt(abs(source.transform.determinant))
    if not _SIZES[0] < size < _SIZES[1] or not np.isfinite(np.array(source.transform)).all():
        raise RasterError(f"The cells of {path.name} have a size of {size:g}.", remedy)
    ends = source.bounds.bottom, source.bounds.top
    if source.crs and source.crs.is_geographic and not all(abs(end) <= 91 for end in ends):
        raise RasterError(f"{path.name} lies beyond a pole: its latitudes are {ends}.", remedy)


def overview_for(source: DatasetReader, geobox: GeoBox) -> int | None:
    """Return the coarsest overview of an open raster whose cells are no larger than a grid's.

    None where that are the raster's own cells. Cells count by their nominal size, so that all parts
    of a grid get the same overview.
    """
    affine, crs = source.transform, source_crs(source)
    metres = 1.0 if crs.is_geographic else crs.linear_units_factor[1]
    if crs.is_geographic:
        latitude = (source.bounds.bottom + source.bounds.top) / 2
        metres = _METRES_PER_DEGREE * math.sqrt(math.cos(math.radians(latitude)))
    factor = geobox.resolution.x / (math.sqrt(abs(affine.determinant)) * metres) * _FINER
    levels = [level for level, size in enumerate(source.overviews(1)) if size <= factor]
    return levels[-1] if levels else None


def _variable(path: Path, names: Sequence[str], wanted: str) -> str:
    if wanted and wanted not in names:
        remedy = f"choose from {listed(names)}" if any(names) else "leave `variable` out"
        raise RasterError(f"{path.name} has no variable {wanted}.", remedy)
    if not wanted and len(names) > 1:
        message = f"{path.name} has several variables: {listed(names)}."
        raise RasterError(message, "name one as `variable` in the study file")
    return wanted or "".join(names)


def _unreadable(path: Path, error: RasterioError) -> RasterError:
    if not path.is_file():
        return RasterError(
            f"There is no raster {path.name} in {path.parent.name}/.",
            "correct its path in the study file, put it there, or run the notebook that writes it",
        )
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
    """Return the CRS of an open raster; WGS 84 for NetCDF files with no more than degrees.

    RasterError if there is none, or it says nothing of where on Earth the raster lies.
    """
    if source.crs is not None and (source.crs.is_geographic or source.crs.is_projected):
        return source.crs
    units = {value for name, value in source.tags().items() if name.endswith("#units")}
    if source.crs is None and {"degrees_north", "degrees_east"} <= units:
        return rasterio.CRS.from_epsg(4326)
    kind = "no coordinate reference system" if source.crs is None else "a local coordinate system"
    raise RasterError(
        f"The raster {_name(source)} has {kind}.",
        f"assign the one that it was made in: rio edit-info --crs EPSG:32651 {_name(source)}",
    )


def _name(source: DatasetReader) -> str:
    """Return the file name of an open raster, which may be a variable of a file."""
    return Path(source.name.removeprefix("netcdf:")).name


def values_in(
    source: DatasetReader, reading: Reading, window: Window, **thinned: Any
) -> np.ndarray:
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


def first_cell(source: DatasetReader, geobox: GeoBox) -> tuple[int, int] | None:
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
    if np.abs(corners - expected).max() > SAME_PLACE:
        return None
    return int(first[1]), int(first[0])


def resampling_of(source: DatasetReader, geobox: GeoBox, reading: Reading) -> str:
    """Return how an open raster gets onto a grid; ``none`` if it has the grid's own cells."""
    if first_cell(source, geobox):
        return "none"
    across, down = _cell_in(source, geobox)
    return reading.finer if abs(np.linalg.det([across, down])) > _FINER else reading.coarser


def kernel(source: DatasetReader, geobox: GeoBox) -> dict[str, float]:
    """Return how large a grid's cells are in those of an open raster, for GDAL's kernels.

    GDAL would take it from the file's extent in each block, so that a file cut to the study area
    would give other values than the whole one.
    """
    across, down = _cell_in(source, geobox)
    return {"XSCALE": 1 / math.hypot(*across), "YSCALE": 1 / math.hypot(*down)}


def _cell_in(source: DatasetReader, geobox: GeoBox) -> np.ndarray:
    """Return a step to the right and one down, in the grid's middle, in cells of a raster."""
    rows, columns = geobox.shape
    middle = np.array([columns / 2, rows / 2])
    points = [geobox.transform * tuple(middle + step) for step in ((0, 0), (1, 0), (0, 1))]
    axes = (list(axis) for axis in zip(*points, strict=True))
    places = transform(crs_wkt(geobox), source_crs(source), *axes)
    cells = np.array([~source.transform * point for point in zip(*places, strict=True)])
    return cells[1:] - cells[0]


def shared_cells(source: DatasetReader, geobox: GeoBox) -> Iterator[Block]:
    """Give the part of the grid that lies in an open raster of the same cells, as `blocks`."""
    first = first_cell(source, geobox)
    assert first is not None
    top, left = (max(0, -start) for start in first)
    bottom, right = (
        min(*sizes)
        for sizes in zip(geobox.shape, np.subtract(source.shape, first).tolist(), strict=True)
    )
    if top < bottom and left < right:
        window = Window(left + first[1], top + first[0], right - left, bottom - top)
        yield slice(top, bottom), slice(left, right), window


def blocks(
    source: DatasetReader,
    geobox: GeoBox,
    most_pixels: float,
    most_cells: float,
    part: tuple[slice, slice] | None = None,
) -> Iterator[Block]:
    """Give blocks of a grid that an open raster overlaps, and the windows that they need of it.

    The grid, or a part of it, is halved until a block has no more than so many cells of the grid,
    and needs no more than so many pixels of the raster.
    """
    rows, columns = part or (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    window = window_of(source, geobox[rows, columns])
    if window is None:
        return
    small = window.width * window.height <= most_pixels and height * width <= most_cells
    if small or height * width == 1:
        yield rows, columns, window
        return
    halves = [(half, columns) for half in halves_of(rows)]
    if width > height:
        halves = [(rows, half) for half in halves_of(columns)]
    for half in halves:
        yield from blocks(source, geobox, most_pixels, most_cells, half)


def halves_of(whole: slice) -> tuple[slice, slice]:
    """Return both halves of rows or columns.

    Examples
    --------
    >>> halves_of(slice(0, 5))
    (slice(0, 2, None), slice(2, 5, None))
    """
    middle = (whole.start + whole.stop) // 2
    return slice(whole.start, middle), slice(middle, whole.stop)


def window_of(source: DatasetReader, geobox: GeoBox) -> Window | None:
    """Return the window of an open raster that a grid needs, with cells to spare."""
    west, south, east, north = transform_bounds(
        crs_wkt(geobox), source_crs(source), *geobox.boundingbox.bbox
    )
    corners = [(x, y) for x in (west, east) for y in (south, north)]
    places = np.array([~source.transform * corner for corner in corners])
    low, high = places.min(axis=0), places.max(axis=0)
    size = np.array([source.width, source.height])
    if (high < SAME_PLACE).any() or (low > size - SAME_PLACE).any():
        return None
    # Kernels of resampling reach two cells of the coarser one of file and grid.
    rows, columns = geobox.shape
    spare = np.ceil(_SPARE_CELLS + 2 * (high - low) / [columns, rows])
    low = np.maximum(np.floor(low) - spare, 0)
    high = np.minimum(np.ceil(high) + spare, size)
    return Window(*low.astype(int).tolist(), *(high - low).astype(int).tolist())


def outside_error(files: Sequence[Path], geobox: GeoBox, reading: Reading) -> OutsideError:
    """Return the error of rasters of which none overlaps a grid."""
    with open_source(files[0], reading) as source:
        left, bottom, right, top = source.bounds
        bounds = transform_bounds(crs_wkt(geobox), source_crs(source), *geobox.boundingbox.bbox)
    west, south, east, north = bounds
    more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
    return OutsideError(
        f"The raster {files[0].name}{more} lies outside the grid: it covers {left:g} to {right:g}, "
        f"{bottom:g} to {top:g}, the grid {west:g} to {east:g}, {south:g} to {north:g}.",
        "give a file that covers the study area, and check its coordinate reference system",
    )
