"""Figures of open data: where the items of each collection lie, and when they were taken."""

from datetime import date

import numpy as np
import shapely
from matplotlib.figure import Figure
from rasterio.features import rasterize

from helpers.core.grid import crs_wkt, reference_grid, reprojected
from helpers.core.plot import map_panels, mark_label, panels
from helpers.core.study import Study
from helpers.prepare.open_data import Part, Plan

_CELLS = 400  # along a side of the maps, at most
_OUTLINES = 200  # are drawn, at most
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def _items(plan: Plan, setting: str) -> list[Part]:
    """Return one part of each item of a setting that has a footprint."""
    items = {p.item: p for p in plan.parts if p.setting == setting and p.footprint}
    return list(items.values())


def plot_footprints(study: Study, plan: Plan) -> Figure:
    """Draw how many items of each collection cover a place, and their outlines."""
    import geopandas

    grid = reference_grid(study)
    grid = grid.zoom_out(max(1, max(grid.shape) / _CELLS))
    maps, outlines = [], []
    for setting, one in study.open_data.items():
        items = _items(plan, setting)
        if not items:
            continue
        shapes = geopandas.GeoSeries(shapely.from_wkt([p.footprint for p in items]), crs=4326)
        shapes = reprojected(shapes, crs_wkt(grid), study.grid.resolution)
        counts = np.zeros(grid.shape, np.float32)
        for shape in shapes:
            counts += rasterize([shape], grid.shape, transform=grid.transform)
        maps.append(
            {
                "title": f"{one.collection}: {len(items)} item{'s' if len(items) > 1 else ''}",
                "values": np.where(counts > 0, counts, np.float32(np.nan)),
                "geobox": grid,
                "unit": "items",
                "cmap": "lapaz_r",
                "thin": "nearest",
                "vmin": 0,
                "vmax": max(4, counts.max()),  # whole numbers on the colour bar
            }
        )
        outlines.append(shapes.drop_duplicates()[:_OUTLINES])
    figure = map_panels(study, maps, ncols=2)
    for axes, shapes in zip(figure.axes, outlines, strict=False):
        look = {"ec": "#b2182b", "linewidth": 0.4, "zorder": 2.5}
        axes.add_geometries(shapes, axes.projection, fc="none", **look)
    return figure


def plot_dates(study: Study, plan: Plan) -> Figure:
    """Draw when the items of each collection with several days were taken, and their clouds.

    Collections that do not tell clouds get a row a platform.
    """
    settings = [s for s in study.open_data if len({p.date for p in _items(plan, s)}) > 1]
    figure, axes = panels(
        max(1, len(settings)), 1, 40 * max(1, len(settings)), layout="constrained"
    )
    for panel, setting in zip(axes[:, 0], settings, strict=False):
        items = _items(plan, setting)
        platforms = sorted({p.platform for p in items})
        clouds = any(p.cloud is not None for p in items)
        for number, platform in enumerate(platforms):
            own = [p for p in items if p.platform == platform]
            days = [date.fromisoformat(p.date) for p in own]
            heights = [p.cloud if clouds else number for p in own]
            look = {"s": 6, "alpha": 0.6, "linewidths": 0, "color": _COLOURS[number % 4]}
            panel.scatter(days, heights, label=platform or "unknown", **look)
        panel.set_title(f"{study.open_data[setting].collection}: {len(items)} items")
        if clouds:
            panel.set(ylabel="clouds (%)", ylim=(-4, 104))
            panel.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.16), ncols=4)
        else:
            panel.set(ylim=(-0.6, len(platforms) - 0.4), yticks=range(len(platforms)))
            panel.set_yticklabels([platform or "unknown" for platform in platforms])
    mark_label(figure, study.label)
    return figure
