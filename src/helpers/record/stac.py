"""The STAC collection of a record: an item a depth layer, and one of the maps of all layers."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import rasterio

from helpers.core.classes import layer_name, layer_title
from helpers.core.grid import crs_wkt, reference_grid
from helpers.core.rasters import reading
from helpers.record.form import LICENCE, Description

EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/v2.0.0/schema.json"
    for name in ("projection", "raster", "classification")
]
"""The extensions that items use."""

_WHOLE = "all-layers"


def write_stac(about: Description, folder: Path) -> None:
    """Write collection and items to ``stac/`` of a record's folder, for the rasters in ``maps/``.

    All links are relative.
    """
    first, last = about.period or (None, None)
    start = datetime(first, 1, 1, tzinfo=UTC) if first else about.finished
    end = datetime(last, 12, 31, 23, 59, 59, tzinfo=UTC) if last else about.finished
    collection = pystac.Collection(
        id=about.study.name,
        title=about.text("title"),
        description=about.text("abstract"),
        license="CC-BY-4.0",
        keywords=about.keywords["en"],
        providers=[
            pystac.Provider(name=about.study.record.publisher, roles=[pystac.ProviderRole.HOST])
        ],
        extent=pystac.Extent(
            pystac.SpatialExtent([list(about.bounds)]), pystac.TemporalExtent([[start, end]])
        ),
    )
    collection.add_link(pystac.Link("license", LICENCE, title="CC BY 4.0"))
    layers = [layer_name(layer) for layer in about.study.layers]
    for name in [*layers, _WHOLE]:
        collection.add_item(_item(about, name, (start, end)))
    for path in sorted((folder / "maps").glob("*.tif")):
        name = next((one for one in layers if path.stem.endswith(f"_{one}")), _WHOLE)
        item = collection.get_item(name)
        if item is not None:
            item.add_asset(path.stem.removesuffix(f"_{name}"), _asset(path))
    collection.normalize_hrefs(str(folder / "stac"))
    collection.make_all_asset_hrefs_relative()
    collection.save(pystac.CatalogType.SELF_CONTAINED)


def _item(about: Description, name: str, period: tuple[datetime, datetime]) -> pystac.Item:
    geobox = reference_grid(about.study)
    west, south, east, north = about.bounds
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    bounds = geobox.boundingbox
    properties: dict[str, Any] = {
        "title": "all depth layers" if name == _WHOLE else f"depth layer {layer_title(name)}",
        "created": about.finished.isoformat().replace("+00:00", "Z"),
        "proj:code": None,
        "proj:wkt2": crs_wkt(geobox),
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.transform)[:6],
        "proj:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
    }
    if about.study.label:
        properties["label"] = about.study.label
    return pystac.Item(
        id=name,
        geometry={"type": "Polygon", "coordinates": [[list(corner) for corner in ring]]},
        bbox=list(about.bounds),
        datetime=None,
        start_datetime=period[0],
        end_datetime=period[1],
        properties=properties,
        stac_extensions=EXTENSIONS,
    )


def _asset(path: Path) -> pystac.Asset:
    with reading(path) as source:
        bands = [_band(source, band) for band in source.indexes]
        title = source.tags(1)["long_name"]
    return pystac.Asset(
        href=str(path),
        title=title,
        media_type=pystac.MediaType.COG,
        roles=["data"],
        extra_fields={"bands": bands},
    )


def _band(source: rasterio.DatasetReader, band: int) -> dict[str, Any]:
    tags = source.tags(band)
    nodata = source.nodata
    described: dict[str, Any] = {
        "name": source.descriptions[band - 1],
        "description": tags["long_name"],
        "data_type": source.dtypes[band - 1],
        "unit": source.units[band - 1],
        "raster:sampling": "area",
        "raster:scale": source.scales[band - 1],
        "raster:offset": source.offsets[band - 1],
        "raster:spatial_resolution": source.res[0],
    }
    if nodata is not None:
        described["nodata"] = "nan" if nodata != nodata else nodata
    classes = {int(k[6:]): name for k, name in tags.items() if k.startswith("class_")}
    if classes:
        colours = source.colormap(band)
        described["classification:classes"] = [
            {
                "value": code,
                "name": re.sub("[^0-9A-Za-z]+", "-", name).strip("-"),
                "title": name,
                "color_hint": "{:02x}{:02x}{:02x}".format(*colours[code][:3]),
            }
            for code, name in sorted(classes.items())
        ]
    return described
