"""GeoTIFFs: written with legend, tags and overviews, whole or not at all."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter

from helpers import __version__
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import write_aside, write_text
from helpers.core.grid import crs_wkt
from helpers.core.study import Study

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


class RasterError(CompendiumError):
    """A raster file that cannot be read or written, or that does not fit the grid."""


class _Source:
    """A raster that is open for reading, which names itself where it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._named():
            self._source = rasterio.open(path)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except RasterioError as error:
            raise RasterError(
                f"{self._path.name} in {self._path.parent.name}/ cannot be read: "
                f"{error.__cause__ or error}",
                "delete it, and run again: the stage that wrote it makes it again",
            ) from None

    def read(self, *bands: Any, **options: Any) -> np.ndarray:
        """Read as `rasterio.DatasetReader.read` does."""
        with self._named():
            return self._source.read(*bands, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[DatasetReader]:
    """Give a raster that this project wrote, to be read; RasterError names one that is damaged.

    GDAL may find that out late, when a window is read, and then does not name the file.
    """
    source = _Source(path)
    try:
        yield cast(DatasetReader, source)
    finally:
        source.close()


def read_band(path: Path, band: int = 1, step: int = 1) -> np.ndarray:
    """Return a band of a raster, as it is stored; RasterError names one that is damaged.

    With a `step` it is every so many-th cell of every so many-th row, and memory is that of these.
    """
    with reading(path) as source:
        if step == 1:
            return source.read(band)
        stripes = range(0, source.height, step * max(1, BLOCK[0] // step))
        ends = [*stripes[1:], source.height]
        return np.concatenate(
            [
                source.read(band, window=((top, end), (0, source.width)))[::step, ::step].copy()
                for top, end in zip(stripes, ends, strict=True)
            ]
        )


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
