"""Files of points, lines or polygons as users have them: opened as what their ending says."""

from pathlib import Path
from typing import TYPE_CHECKING

from helpers.core.errors import CompendiumError, listed

if TYPE_CHECKING:
    import geopandas

_HEAD = 2**16  # bytes that GDAL looks at to find out what a file is

_KINDS = {
    ".gpkg": ("GeoPackage", b"SQLite format 3\0"),
    ".shp": ("shapefile", b"\x00\x00\x27\x0a"),
    ".geojson": ("GeoJSON", b"{"),
    ".json": ("GeoJSON", b"{"),
    ".fgb": ("FlatGeobuf", b"fgb"),
}
"""What files begin with, by their endings."""

_REFERS = b"gdal_streamed_alg"  # in a JSON file: GDAL would do what it says, with any other file


class FeatureError(CompendiumError):
    """A file of features that cannot be read."""


def read_features(path: Path, layer: str = "") -> "geopandas.GeoDataFrame":
    """Return a layer of a file of features, by default the first one.

    A file must be what its ending says: GDAL would follow a file that only refers to others, on
    this machine or on the web. FeatureError names the file, and its layers where one is missing.
    """
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    _refuse_others(path)
    try:
        layers = geopandas.list_layers(path)["name"].tolist()
        if layer and layer not in layers:
            message = f"{path.name} has no layer {layer}; it has {listed(layers) or 'none'}."
            raise FeatureError(message, "name one of these layers, or leave the layer out")
        if not layers:
            raise FeatureError(f"{path.name} has no layer.", "write the file again with one")
        features = geopandas.read_file(path, layer=layer or 0)
    except (DataSourceError, DataLayerError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        message = f"{path.name} cannot be read: {reason}"
        raise FeatureError(message, "make or download the file again") from None
    if not isinstance(features, geopandas.GeoDataFrame):
        raise FeatureError(f"{path.name} has no geometry.", "write the layer again with it")
    return features


def feature_layers(path: Path) -> list[str]:
    """Return the names of a file's layers; FeatureError as from `read_features`."""
    import geopandas

    _refuse_others(path)
    return geopandas.list_layers(path)["name"].tolist()


def _refuse_others(path: Path) -> None:
    """Raise FeatureError if a file is not there, or not what its ending says."""
    if path.is_dir():
        raise FeatureError(f"{path.name} is a folder.", "name a file in it, such as a GeoPackage")
    if not path.is_file():
        raise FeatureError(f"There is no file {path.name}.", "put it there, or correct its path")
    kind, start = _KINDS.get(path.suffix.lower(), ("", b""))
    if not kind:
        endings = ", ".join(_KINDS)
        message = f"{path.name} is no file of features that can be read here."
        raise FeatureError(message, f"save it as a GeoPackage; files end in {endings}")
    with open(path, "rb") as stream:
        head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise FeatureError(f"{path.name} is empty.", "make or download the file again")
    if not head.startswith(start.lstrip()) or _REFERS in head:
        message = f"{path.name} is no {kind}, whatever its name says."
        raise FeatureError(message, "make or download the file again, or name it as what it is")
