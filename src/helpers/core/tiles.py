"""Tiles of one lattice of cells, joined to one raster: resampling then sees no seams."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from helpers.core.errors import listed
from helpers.core.rasters import RasterError
from helpers.core.user_rasters import SAME_PLACE, Reading, open_source, overview_for


@dataclass(frozen=True)
class Tile:
    """What must be known of a raster to join it to others."""

    path: Path
    address: str  # of a variable of a file, too
    crs: rasterio.CRS | None
    transform: Affine
    shape: tuple[int, int]
    nodata: float | None
    packing: tuple[float, float, str]  # scale, offset, unit
    joinable: bool
    overview: int | None = None  # that is read


def joined(
    files: Sequence[Path], reading: Reading, geobox: GeoBox | None = None
) -> list[list[Tile]]:
    """Return rasters in groups of one CRS and one lattice of cells, each in the files' order.

    For a grid, of the overviews that `helpers.core.user_rasters.overview_for` names.
    """
    groups: list[list[Tile]] = []
    for path in files:
        tile = _tile(path, reading, geobox)
        for group in groups:
            if len(files) > 1 and _fit(group[0], tile):
                group.append(tile)
                break
        else:
            groups.append([tile])
    return groups


def _tile(path: Path, reading: Reading, geobox: GeoBox | None) -> Tile:
    overview = None
    if geobox is not None:
        with open_source(path, reading) as source:
            overview = overview_for(source, geobox)
    with open_source(path, reading, geobox) as source:
        band = reading.band - 1
        flags = set(source.mask_flag_enums[band])
        straight = source.transform.b == source.transform.d == 0
        plain = flags <= {MaskFlags.all_valid, MaskFlags.nodata}
        return Tile(
            path,
            source.name,
            source.crs,
            source.transform,
            source.shape,
            source.nodatavals[band],
            (source.scales[band], source.offsets[band], source.units[band] or ""),
            joinable=straight and plain and source.crs is not None,
            overview=overview,
        )


def _fit(first: Tile, other: Tile) -> bool:
    """Return whether the cells of two rasters are of one lattice, and their numbers of one kind."""
    if not (first.joinable and other.joinable and first.crs == other.crs):
        return False
    if first.packing != other.packing:
        return False
    height, width = other.shape
    corners = np.array([_place(first, other, corner) for corner in ((0, 0), (width, height))])
    size = corners[1] - corners[0]
    whole = np.abs(corners - np.rint(corners)).max() <= SAME_PLACE
    return bool(whole and (np.rint(size) == [width, height]).all())


def _place(first: Tile, other: Tile, corner: tuple[int, int]) -> tuple[float, float]:
    """Return column and row in the lattice of the first tile of a corner of another one."""
    return ~first.transform * (other.transform * corner)


@contextlib.contextmanager
def open_joined(
    group: Sequence[Tile], reading: Reading, geobox: GeoBox | None = None
) -> Iterator[tuple[DatasetReader, Reading]]:
    """Give an open raster of tiles of one lattice, and how to read it; errors as `open_source`."""
    if len(group) == 1:
        with open_source(group[0].path, reading, geobox) as source:
            yield source, reading
        return
    try:
        with rasterio.open(_virtual_raster(group, reading.band)) as source:
            yield source, replace(reading, band=1, variable="")
    except RasterioError as error:
        names = listed([tile.path.name for tile in group], 2)
        raise RasterError(
            f"One of the tiles {names} cannot be read: {error.__cause__ or error}",
            "make or download it again",
        ) from None


def _virtual_raster(group: Sequence[Tile], band: int) -> str:
    """Return a GDAL virtual raster, as text, in which the first tile with a value counts."""
    first = group[0]
    places = np.rint([_place(first, tile, (0, 0)) for tile in group]).astype(int)
    sizes = np.array([tile.shape[::-1] for tile in group])
    left, top = places.min(axis=0).tolist()
    width, height = ((places + sizes).max(axis=0) - (left, top)).tolist()
    root = ElementTree.Element("VRTDataset", rasterXSize=f"{width}", rasterYSize=f"{height}")
    assert first.crs is not None
    _add(root, "SRS", first.crs.to_wkt())
    corner = (first.transform * Affine.translation(left, top)).to_gdal()
    _add(root, "GeoTransform", ", ".join(map(repr, corner)))
    # Numbers as floats, so that places without a tile are no data even where tiles declare none.
    target = ElementTree.SubElement(root, "VRTRasterBand", dataType="Float64", band="1")
    scale, offset, unit = first.packing
    for name, value in (("NoDataValue", "nan"), ("Scale", scale), ("Offset", offset)):
        _add(target, name, value)
    _add(target, "UnitType", unit)
    corners = (places - (left, top)).tolist()
    for tile, (column, row) in zip(group[::-1], corners[::-1], strict=True):  # GDAL's last counts
        source = ElementTree.SubElement(target, "ComplexSource")
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = tile.address
        if tile.overview is not None:
            options = ElementTree.SubElement(source, "OpenOptions")
            level = ElementTree.SubElement(options, "OOI", key="OVERVIEW_LEVEL")
            level.text = f"{tile.overview}"
        _add(source, "SourceBand", band)
        size = {"xSize": f"{tile.shape[1]}", "ySize": f"{tile.shape[0]}"}
        ElementTree.SubElement(source, "SrcRect", xOff="0", yOff="0", **size)
        ElementTree.SubElement(source, "DstRect", xOff=f"{column}", yOff=f"{row}", **size)
        if tile.nodata is not None:
            _add(source, "NODATA", tile.nodata)
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = f"{value}"
