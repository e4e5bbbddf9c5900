"""Where a study's area and its samples lie."""

from typing import Any, cast

import cartopy.crs as ccrs
import geopandas
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colors import LightSource
from matplotlib.figure import Figure

from helpers.accuracy.predictions import read_predictions
from helpers.core.classes import layer_name, layer_title
from helpers.core.grid import reference_grid
from helpers.core.grid import study_area as outline_of
from helpers.core.plot import BASE_LAYERS, COLUMN_MM, WIDTH_MM, map_panels
from helpers.core.study import Study
from helpers.prepare.predictor_maps import background_panel
from helpers.samples.store import read_samples

# Of Okabe and Ito; markers differ too, so that grey prints do.
_FOLDS = tuple(
    zip(
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"),
        ("o", "^", "s", "D", "v", "P", "X", "*"),
        strict=True,
    )
)
_MARKS = {"train": ("training", "#d55e00", "o"), "test": ("test", "#0072b2", "^")}


def study_area(study: Study) -> Figure:
    """Draw the samples of a run over a hillshade, and where the study area is.

    Without an elevation model they are drawn over the first predictor.
    """
    panel = background_panel(study)
    what = "Boreholes and test pits" if study.has_boreholes else "Samples"
    if panel["title"] == "Elevation":
        panel |= {"values": _hillshade(panel), "cmap": "gray", "vmin": -0.4, "vmax": 1.0}
        panel |= {"key": False}
    figure = map_panels(study, [panel | {"title": what}], ncols=1, width_mm=COLUMN_MM)
    axes = cast(GeoAxes, figure.axes[0])
    sites = read_samples(study).drop_duplicates("site_id")
    look: dict[str, Any] = {"s": 5, "linewidths": 0.2, "edgecolors": "white", "zorder": 5}
    for split, (name, colour, marker) in _MARKS.items():
        part = sites[sites["split"] == split]
        units = "" if study.has_boreholes else f"{part['group'].nunique()} units, "
        look |= {"color": colour, "marker": marker, "label": f"{name} ({units}{len(part)})"}
        axes.scatter(part["easting"], part["northing"], **look)
    axes.legend(loc="upper left", framealpha=0.9, markerscale=1.5, borderaxespad=0.3)
    _draw_locator(study, figure, axes)
    return figure


def fold_maps(study: Study) -> Figure:
    """Draw which fold each training sample of a layer is in, by the study's own kind of folds."""
    table = read_samples(study)
    one = read_predictions(study, table)["reference"]
    layers = [layer_name(layer) for layer in study.layers]
    geobox = reference_grid(study)
    blank = np.full(geobox.shape, np.nan, np.float32)
    maps = [
        {"title": layer_title(layer), "values": blank, "geobox": geobox, "key": False}
        for layer in layers
    ]
    figure = map_panels(study, maps, width_mm=COLUMN_MM if len(maps) == 1 else WIDTH_MM)
    for axes, layer in zip(figure.axes, layers, strict=True):
        rows, fold = one.rows[layer], one.folds[layer, study.folds.kind]
        for number in range(fold.max() + 1):
            part = rows[fold == number]
            colour, marker = _FOLDS[number % len(_FOLDS)]
            look = {"color": colour, "marker": marker, "label": f"fold {number + 1}"}
            axes.scatter(part["easting"], part["northing"], s=5, linewidths=0, zorder=5, **look)
    handles = figure.axes[0].get_legend_handles_labels()
    look = {"ncols": 10, "frameon": False, "markerscale": 1.5, "handletextpad": 0.1}
    figure.legend(*handles, loc="lower center", borderaxespad=0.1, columnspacing=1, **look)
    return figure


def _hillshade(panel: dict[str, Any]) -> np.ndarray:
    """Return brightness from 0 to 1, NaN where there is no elevation."""
    heights = np.asarray(panel["values"], float)
    cell = abs(panel["geobox"].affine.a)
    if panel["geobox"].crs.geographic:
        cell *= 111_320
    filled = np.where(np.isnan(heights), np.nanmean(heights), heights)
    light = LightSource(315, 45).hillshade(filled, vert_exag=cell / 100, dx=cell, dy=cell)
    return np.where(np.isnan(heights), np.nan, light)


def _draw_locator(study: Study, figure: Figure, axes: GeoAxes) -> None:
    """Draw coast and borders around the study area into the upper right corner."""
    area = outline_of(study, "EPSG:4326")
    land = geopandas.read_file(study.path(BASE_LAYERS), layer="land").to_crs(4326)
    if not land.intersects(area).any():
        return  # the base layers are of another part of the world
    place = axes.get_position()
    size = 0.24 * place.width, 0.24 * place.height
    inset = cast(
        GeoAxes,
        figure.add_axes(
            (place.x1 - size[0], place.y1 - size[1], *size), projection=ccrs.PlateCarree(), zorder=6
        ),
    )
    west, south, east, north = land.total_bounds
    inset.set_extent((west, east, south, north))
    inset.add_geometries(land.geometry, ccrs.PlateCarree(), fc="0.9", ec="none")
    for layer in ("coastline", "borders"):
        lines = geopandas.read_file(study.path(BASE_LAYERS), layer=layer).to_crs(4326)
        look = {"fc": "none", "ec": "0.4", "linewidth": 0.3}
        inset.add_geometries(lines.geometry, ccrs.PlateCarree(), **look)
    look = {"fc": "#d55e00", "ec": "none", "alpha": 0.7}
    inset.add_geometries([area.simplify(0.1)], ccrs.PlateCarree(), **look)
    inset.spines["geo"].set_linewidth(0.5)
