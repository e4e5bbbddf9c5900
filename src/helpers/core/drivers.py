"""Rasters of the user, opened as what they are and never from the web."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_FORMATS = ["GTiff", "netCDF", "HDF5", "HFA", "AAIGrid", "ENVI", "EHdr", "SRTMHGT", "JP2OpenJPEG"]
"""GDAL's drivers that read numbers from the file itself, and refer to no other."""

_ELSEWHERE = re.compile(r"/vsi(?!zip|gzip|tar)|://|^\s*<", re.IGNORECASE)
_HEAD = 2**16  # bytes that GDAL looks at to find out what a file is
_OFFLINE = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none"}  # also for what lies beside a raster


@contextmanager
def open_local(path: str | Path, address: str = "", **options: Any) -> "Iterator[DatasetReader]":
    """Give an open raster that lies on this machine, or by `address` a variable of it.

    A virtual raster must be named so, ``.vrt``; its parts must lie on this machine, too.
    RasterioError if the file is not there, or something else than its name says.
    """
    import rasterio  # takes a fifth of a second, and few studies need it
    from rasterio.errors import RasterioIOError
    from rasterio.io import DatasetReader

    path = Path(path)
    if not path.is_file():
        what = "is a folder, and no raster" if path.is_dir() else "is not there"
        raise RasterioIOError(f"{path.name} {what}")
    virtual = path.suffix.lower() == ".vrt"
    if virtual and (part := _remote_part(path)):
        raise RasterioIOError(f"it refers to {part}, which is not a raster on this machine")
    with rasterio.Env(**_OFFLINE):
        driver = ["VRT"] if virtual else _FORMATS
        try:
            source = DatasetReader(address or str(path), driver=driver, **options)
        except UnicodeDecodeError:
            raise RasterioIOError("a text of its header is not UTF-8") from None
        with source:
            yield source


def _remote_part(path: Path, seen: frozenset[Path] = frozenset()) -> str:
    """Return what a virtual raster refers to on the web, or in turn through another; "" if none."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return ""  # GDAL says what is wrong
    for one in root.iter():
        texts = [text.strip() for text in (one.text or "", *one.attrib.values())]
        for text in texts:
            if one.tag not in ("SRS", "Metadata", "MDI") and _ELSEWHERE.search(text):
                return " ".join(text.split())[:100]
        for part in (folder / text for text in texts for folder in (path.parent, Path.cwd())):
            if part.resolve() in seen or not _is_virtual(part):
                continue
            if found := _remote_part(part.resolve(), seen | {path.resolve()}):
                return found
    return ""


def _is_virtual(path: Path) -> bool:
    """Return whether there is a virtual raster, whatever its name."""
    with suppress(OSError, ValueError):  # a text that is no path
        if path.is_file():
            with open(path, "rb") as stream:
                return b"<VRTDataset" in stream.read(_HEAD)
    return False
