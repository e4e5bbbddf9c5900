"""What a page shows of a study: its layers, their legends, and the bands behind them."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import shapely
from matplotlib.colors import to_hex
from rasterio.features import rasterize

from helpers.core.classes import layer_name, layer_title
from helpers.core.files import read_json
from helpers.core.grid import cell_areas, crs_wkt, named_crs, reference_grid, study_regions
from helpers.core.plot import colour_map
from helpers.core.rasters import read_band
from helpers.core.study import Study
from helpers.explorer.bands import FINE_STEP, STEP, Band, finished, read_bands
from helpers.mapping.applicability import hide_samples
from helpers.mapping.cells import study_ground
from helpers.mapping.files import interval_files, layer_files, map_files, trust_files
from helpers.mapping.trust import LEVELS, MEANINGS

_COLOURS = 33  # of a ramp; between them the page interpolates
_QUANTILES = ("p10", "p50", "p90")


def bands(study: Study, truth: dict[str, Path], *, sites: bool) -> Iterator[tuple[str, Band]]:
    """Give all bands of a page by name, one after the other; `sites` as of `study_bands`.

    Names of those by depth end with the layer's: ``type_2-3m``, ``chance_0_2-3m`` of class 0,
    ``ice_2-3m``, ``p10_2-3m``. ``held_<layer>`` is what a whole cell holds, where land cover or
    bedrock make it less than the ice content.
    """
    files = map_files(study) | trust_files(study)
    kind = study.target_classes.file_name
    ground = study_ground(study) if study.has_storage else None
    yield "region", _region_band(study)
    yield from _area_band(study)
    yield from read_bands(files["trust"], ("trust",), 1)
    for layer in study.layers:
        name = layer_name(layer)
        yield from read_bands(files[f"{kind}_{name}"], (f"type_{name}",), 1)
        yield from read_bands(files[f"{kind}_reference_{name}"], (f"reference_{name}",), 1)
        chance = f"permafrost_probability_{name}"
        yield from read_bands(files[chance], (f"permafrost_{name}",), STEP)
        chances = tuple(f"chance_{code}_{name}" for code in study.target_classes.codes)
        yield from read_bands(files[f"class_probability_{name}"], chances, STEP)
        dissimilarity = f"dissimilarity_index_{name}"
        for index, band in read_bands(files[dissimilarity], (f"dissimilarity_{name}",), STEP):
            yield index, band if sites else Band(hide_samples(band.values), STEP)
        if ground is not None and not isinstance(layer, str):
            quantiles = tuple(f"{quantile}_{name}" for quantile in _QUANTILES)
            yield from read_bands(files[f"ice_content_range_{name}"], quantiles, STEP)
            for ice, band in read_bands(files[f"ice_content_{name}"], (f"ice_{name}",), FINE_STEP):
                yield ice, band
                held = ground.holds(band.values, layer)
                if not np.array_equal(held, band.values, equal_nan=True):
                    yield f"held_{name}", Band(held, FINE_STEP)
        if path := truth.get(f"ice_type_{name}"):
            for kind_name, band in read_bands(path, (f"true_type_{name}",), 1):
                yield kind_name, Band(_of_target(study, band.values), 1)
        if path := truth.get(f"ice_fraction_{name}"):
            yield from read_bands(path, (f"true_ice_{name}",), STEP)


def _of_target(study: Study, types: np.ndarray) -> np.ndarray:
    """Return the classes of the study's target from ice types, NaN where they are."""
    classes = np.array([*study.target_classes.of_type, np.nan])
    return classes[np.nan_to_num(types, nan=-1).astype(int)]


def _region_band(study: Study) -> Band:
    """Return the number of the region of each cell, from 1, as totals have it."""
    geobox = reference_grid(study)
    _, shapes = study_regions(study, geobox)
    region = rasterize(shapes, geobox.shape, transform=geobox.transform, dtype="int32")
    return Band(np.where(region > 0, region, np.nan), 1)


def _area_band(study: Study) -> Iterator[tuple[str, Band]]:
    """Give the areas of cells above the smallest one, km2, where they differ."""
    areas = cell_areas(reference_grid(study))
    if span := np.ptp(areas):
        yield "area", Band(areas - areas.min(), float(span) / 65_000)


def describe(study: Study, names: list[str]) -> dict[str, Any]:
    """Return all that a page says of a study beside its bands, of which it has the names."""
    geobox = reference_grid(study)
    crs = named_crs(crs_wkt(geobox))
    rows, columns = geobox.shape
    transform = geobox.transform
    return {
        "title": study.title or study.name,
        "study": study.name,
        "run": study.run,
        "label": study.label,
        "projection": _proj4(crs),
        "grid": {
            "rows": rows,
            "columns": columns,
            "left": transform.c,
            "top": transform.f,
            "width": transform.a,
            "height": -transform.e,
            "least_area": float(cell_areas(geobox).min()),
        },
        "depths": [
            {
                "name": layer_name(layer),
                "title": layer_title(layer_name(layer)),
                "top": None if isinstance(layer, str) else layer[0],
                "thickness": None if isinstance(layer, str) else layer[1] - layer[0],
            }
            for layer in study.layers
        ],
        "classes": [
            {
                "code": kind.code,
                "name": {"en": kind.name, "zh": kind.chinese_name},
                "colour": kind.colour,
                "permafrost": kind.permafrost,
            }
            for kind in study.target_classes.classes
        ],
        "trust": [
            {"code": code, "name": name, "meaning": MEANINGS[code], "colour": colour}
            for code, (name, colour) in LEVELS.items()
        ],
        "regions": _regions(study),
        "layers": _layers(study, names),
        "thresholds": _thresholds(study),
        "total": _total(study),
    }


def _proj4(crs: pyproj.CRS) -> str:
    """Return a projection as the page's library takes it."""
    with warnings.catch_warnings():
        # Names and axes are lost in that form, and the page needs neither.
        warnings.simplefilter("ignore", UserWarning)
        return crs.to_proj4()


def _regions(study: Study) -> list[dict[str, Any]]:
    """Return names and outlines of the regions, rings of coordinates on the grid."""
    geobox = reference_grid(study)
    names, shapes = study_regions(study, geobox)
    chinese = _chinese_names(study)
    detail = min(abs(geobox.transform.a), abs(geobox.transform.e)) / 2
    regions = []
    for name, (shape, _) in zip(names, shapes, strict=True):
        parts = shapely.get_parts(shapely.simplify(shape, detail))
        parts = sorted(parts, key=shapely.area, reverse=True)  # the name stands in the first one
        lines = [ring for part in parts for ring in (part.exterior, *part.interiors)]
        rings = [shapely.get_coordinates(line).round().astype(int).tolist() for line in lines]
        regions.append({"name": {"en": name, "zh": chinese.get(name, name)}, "rings": rings})
    return regions


def _chinese_names(study: Study) -> dict[str, str]:
    """Return the Chinese names of regions by their names, where their layer has them."""
    if not study.area.polygons:
        return {}
    path = study.path(study.area.polygons)
    if study.area.regions_layer not in geopandas.list_layers(path)["name"].tolist():
        return {}
    table = geopandas.read_file(path, layer=study.area.regions_layer, ignore_geometry=True)
    return dict(zip(table["name"], table["name_zh"], strict=True)) if "name_zh" in table else {}


def _layers(study: Study, names: list[str]) -> list[dict[str, Any]]:
    """Return the layers of the page in their order: only those of which there are bands.

    `bands` is what a band's name begins with. A legend is a list of classes by name, or the colours
    of a ramp with the values of its ends.
    """
    ice = {"ramp": _ramp("devon_r"), "high": _largest_content(study), "unit": "m³ m⁻³"}
    chance = {"ramp": _ramp("devon_r"), "high": 1.0, "unit": ""}
    limits = _thresholds(study).values()
    distance = {"ramp": _ramp("lajolla_r"), "high": 2 * max(limits, default=0.5), "unit": ""}
    layers: list[dict[str, Any]] = [
        {"id": "type", "classes": "classes"},
        {"id": "reference", "classes": "classes"},
        {"id": "ice", **ice},
        *({"id": quantile, **ice} for quantile in _QUANTILES),
        {"id": "permafrost", **chance},
        {"id": "trust", "classes": "trust", "whole": True},
        {"id": "dissimilarity", **distance},
        {"id": "true_type", "classes": "classes"},
        {"id": "true_ice", **ice},
    ]
    found = [one for one in layers if any(name.startswith(one["id"]) for name in names)]
    if study.has_storage:
        # The page adds it up from the depth layers.
        high = float(np.nanmax(read_band(map_files(study)["ice_storage"])))
        storage = {"id": "storage", "ramp": _ramp("devon_r"), "high": high or 1.0, "unit": "m"}
        place = next(i for i, one in enumerate(found) if one["id"] == "permafrost")
        found.insert(place, {**storage, "whole": True})
    return found


def _ramp(name: str) -> list[str]:
    return [to_hex(colour_map(name)(share)) for share in np.linspace(0, 1, _COLOURS)]


def _largest_content(study: Study) -> float:
    """Return the largest expected ice content of all layers, by which colours go."""
    if not study.has_storage:
        return 1.0
    files = layer_files(study, "ice_content")
    return max(float(np.nanmax(read_band(path))) for path in files) or 1.0


def _thresholds(study: Study) -> dict[str, float]:
    """Return by layer above which dissimilarity index no sample is like a cell."""
    layers = read_json(finished(study.results_dir / "tables" / "applicability.json"))["layers"]
    return {name: layer["threshold"] for name, layer in layers.items()}


def _total(study: Study) -> dict[str, Any] | None:
    """Return the ice of the whole area with its interval, km3; None where contents are unknown."""
    if not study.has_storage:
        return None
    record = read_json(finished(interval_files(study)["record"]))
    whole = record["regions"]["all"]
    ends = {name: whole[name] for name in ("km3", "lower", "upper")}
    return {"probability": record["probability"], **ends}
