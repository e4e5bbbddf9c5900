"""Figures: one style, maps in the raster's own coordinate reference system, and files written whole.

Coast, borders and provinces come from the committed base layers, never from a download.
"""

import math
import os
from functools import cache
from pathlib import Path

import cartopy.crs as ccrs
import numpy as np
import pyproj

from helpers.core.errors import CompendiumError
from helpers.core.grid import block_mean, study_area

WIDTH_MM, COLUMN_MM = 180, 88
"""Widths of a figure across the page and of one across a column."""


BASE_LAYERS = "data/base/natural-earth.gpkg"


_MM = 1 / 25.4


_PANEL_PIXELS = 600


_PIXELS_A_MM = 6  # of rasters in a figure; finer ones are averaged


_LEGIBLE_MM = 45  # narrower maps get no longitude and latitude labels


_LINES = {"coastline": ("0.25", 0.4), "borders": ("0.25", 0.5), "provinces": ("0.55", 0.3)}


class FigureError(CompendiumError):
    """A figure that cannot be drawn."""


def style():
    """Set matplotlib's defaults to those of all figures: 8 pt sans-serif titles, 7 pt text, thin lines."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["Arial", "Helvetica", "DejaVu Sans"],
            "font.size": 7,
            "axes.titlesize": 8,
            "axes.labelsize": 7,
            "figure.titlesize": 8,
            "xtick.labelsize": 6.5,
            "ytick.labelsize": 6.5,
            "legend.fontsize": 6.5,
            "axes.linewidth": 0.5,
            "xtick.major.width": 0.5,
            "ytick.major.width": 0.5,
            "xtick.major.size": 2,
            "ytick.major.size": 2,
            "axes.titlelocation": "left",
            "axes.titlepad": 3,
            "figure.dpi": 110,
            "savefig.dpi": 300,
            "image.interpolation": "none",
            "pdf.fonttype": 42,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.figsize": (WIDTH_MM * _MM, 100 * _MM),
        }
    )


def map_panels(study, panels, ncols=3, width_mm=WIDTH_MM, suptitle=None):
    """Draw maps side by side.

    Parameters
    ----------
    study : helpers.core.study.Study
    panels : sequence of dict
        Each with `title`, `values` (2-D), `geobox`, `unit` and `cmap` (a name of cmcrameri or matplotlib);
        optional `vmin` and `vmax` (by default the 2nd and 98th percentile), `norm`, and `categories`: a dict
        of value to label, or to (label, colour), which brings a legend in place of a colour bar.
    ncols : int
        Panels in a row.
    width_mm : float
        Width of the figure.
    suptitle : str, optional
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    layout = _Layout(panels, ncols, width_mm, head=6 if suptitle else 1)
    figure = plt.figure(figsize=(width_mm * _MM, layout.height * _MM))
    scaled = []
    for number, panel in enumerate(panels):
        axes = figure.add_axes(layout.map_box(number), projection=_projection(panel["geobox"]))
        mappable = _draw_values(axes, panel, layout.map_width)
        _draw_lines(axes, study, panel["geobox"])
        _draw_graticule(axes, panel["geobox"], left=number % layout.ncols == 0, labels=layout.labels)
        if panel["geobox"] not in scaled:  # one scale bar serves all panels of a grid
            scaled.append(panel["geobox"])
            _draw_scale_bar(axes, panel["geobox"])
        axes.set_title(panel["title"])
        if panel.get("categories"):
            _draw_legend(axes, panel, layout.key_gap / layout.map_height)
        else:
            _draw_colour_bar(figure, mappable, panel, layout.key_box(number))
    if suptitle:
        figure.text(layout.left / width_mm, 1 - 1 / layout.height, suptitle, va="top", weight="bold", size=8)
    if study.simulated:
        mark_simulated(figure)
    return figure


def mark_simulated(figure):
    """Write SIMULATED into the lower right corner of a figure that was made from the virtual landscape."""
    figure.text(0.998, 0.003, "SIMULATED", ha="right", va="bottom", color="#b2182b", weight="bold", size=7)


def save(figure, path):
    """Write a figure as PDF and as PNG of 300 dpi; old files are replaced only by whole new ones.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
        Without a suffix.

    Returns
    -------
    list of pathlib.Path
        The PDF and the PNG.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        target = path.with_name(f"{path.name}.{kind}")
        part = path.with_name(f".{path.name}.{kind}.part")
        try:
            figure.savefig(part, format=kind, dpi=300, metadata=metadata)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        written.append(target)
    return written


class _Layout:
    """Boxes of maps and of their keys, in millimetres from the top left, so that nothing overlaps."""

    title, key_height, gap, foot = 5.0, 2.0, 3.0, 4.0

    def __init__(self, panels, ncols, width, head):
        self.ncols = min(ncols, len(panels))
        self.width, self.head = width, head
        self.map_width = (width - 8 - self.gap * self.ncols) / self.ncols
        self.labels = self.map_width >= _LEGIBLE_MM
        self.left = 8.0 if self.labels else 2.0
        self.map_width = (width - self.left - 2 - self.gap * (self.ncols - 1)) / self.ncols
        boxes = [panel["geobox"].boundingbox for panel in panels]
        self.map_height = self.map_width * max(
            box.span_y / box.span_x * _stretch(panel["geobox"]) for box, panel in zip(boxes, panels, strict=True)
        )
        self.key_gap = 4.5 if self.labels else 1.5
        legend_rows = max(math.ceil(len(panel.get("categories") or ()) / 2) for panel in panels)
        self.row = self.title + self.map_height + self.key_gap + max(8.0, 3.4 * legend_rows + 1)
        self.height = head + math.ceil(len(panels) / self.ncols) * self.row + self.foot

    def _box(self, left, top, width, height):
        return left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height

    def _corner(self, number):
        row, column = divmod(number, self.ncols)
        return self.left + column * (self.map_width + self.gap), self.head + row * self.row + self.title

    def map_box(self, number):
        left, top = self._corner(number)
        return self._box(left, top, self.map_width, self.map_height)

    def key_box(self, number):
        left, top = self._corner(number)
        top += self.map_height + self.key_gap
        return self._box(left + 0.1 * self.map_width, top, 0.8 * self.map_width, self.key_height)


def _stretch(geobox):
    """Return height by width of a cell as drawn: maps in degrees are stretched by their middle latitude."""
    if not geobox.crs.geographic:
        return 1.0
    box = geobox.boundingbox
    return 1 / math.cos(math.radians((box.bottom + box.top) / 2))


def _extent(geobox):
    box = geobox.boundingbox
    return box.left, box.right, box.bottom, box.top


def _projection(geobox):
    return _make_projection(geobox.crs.to_wkt(), _extent(geobox))


@cache
def _make_projection(wkt, extent):
    """Return a cartopy projection; a PROJ string has no area of use, so it gets the raster's bounds."""
    crs = pyproj.CRS.from_wkt(wkt)
    if crs.is_geographic:
        return ccrs.PlateCarree()
    projection = ccrs.Projection(crs)
    spare = 0.1 * max(extent[1] - extent[0], extent[3] - extent[2])
    projection.bounds = [extent[0] - spare, extent[1] + spare, extent[2] - spare, extent[3] + spare]
    projection.threshold = spare / 100
    return projection


def _draw_values(axes, panel, width_mm):
    values, geobox = np.asarray(panel["values"]), panel["geobox"]
    values, extent = _thinned(values, _extent(geobox), panel, width_mm)
    colours = {"cmap": colour_map(panel.get("cmap", "batlow"))}
    if panel.get("categories"):
        values, colours = _as_categories(values, panel)
    elif panel.get("norm") is not None:
        colours["norm"] = panel["norm"]
    else:
        low, high = np.nanpercentile(values, [2, 98]) if np.isfinite(values).any() else (0, 1)
        colours |= {"vmin": panel.get("vmin", low), "vmax": panel.get("vmax", high)}
    axes.set_aspect(_stretch(geobox), adjustable="box")
    axes.set_anchor("NW")
    mappable = axes.imshow(values, extent=extent, origin="upper", aspect=_stretch(geobox), zorder=1, **colours)
    axes.set(xlim=_extent(geobox)[:2], ylim=_extent(geobox)[2:])
    axes.spines["geo"].set_linewidth(0.5)
    return mappable


def _thinned(values, extent, panel, width_mm):
    """Return about as many values as a panel has pixels, by means of blocks; classes and directions have none."""
    step = max(1, round(max(values.shape) / width_mm / _PIXELS_A_MM))
    if step == 1:
        return values, extent
    if panel.get("categories") or panel.get("thin") == "nearest":
        return values[step // 2 :: step, step // 2 :: step], extent
    extra = [-n % step for n in values.shape]
    left, right, bottom, top = extent
    right += extra[1] * (right - left) / values.shape[1]
    bottom -= extra[0] * (top - bottom) / values.shape[0]
    padded = np.pad(values.astype(np.float32), [(0, n) for n in extra], constant_values=np.nan)
    return block_mean(padded, step, minimum_share=0.25), (left, right, bottom, top)


def colour_map(name):
    """Return a colour map by its name in cmcrameri or else in matplotlib."""
    import matplotlib as mpl
    from cmcrameri import cm

    found = getattr(cm, name, None) if isinstance(name, str) else name
    return found if found is not None else mpl.colormaps[name]


def _category_colours(panel):
    """Return value -> (label, colour); colours that were not given are spread over the colour map."""
    categories = panel["categories"]
    spread = colour_map(panel.get("cmap", "batlow"))(np.linspace(0.05, 0.95, len(categories)))
    return {
        value: entry if isinstance(entry, tuple) else (entry, tuple(colour))
        for (value, entry), colour in zip(categories.items(), spread, strict=True)
    }


def _as_categories(values, panel):
    from matplotlib.colors import ListedColormap

    shades = _category_colours(panel)
    codes = np.full(values.shape, np.nan, np.float32)
    for code, value in enumerate(shades):
        codes[values == value] = code
    colours = ListedColormap([colour for _, colour in shades.values()])
    return codes, {"cmap": colours, "vmin": -0.5, "vmax": len(shades) - 0.5}


def _draw_legend(axes, panel, gap):
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, edgecolor="0.3", linewidth=0.3, label=label)
        for label, colour in _category_colours(panel).values()
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, -gap),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        handleheight=0.9,
        columnspacing=1,
        labelspacing=0.35,
    )


def _draw_colour_bar(figure, mappable, panel, box):
    from matplotlib.ticker import MaxNLocator

    values = np.asarray(panel["values"])
    low, high = mappable.norm.vmin, mappable.norm.vmax
    ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    with np.errstate(invalid="ignore"):
        extend = ends[bool((values < low).any()), bool((values > high).any())]
    bar = figure.colorbar(mappable, cax=figure.add_axes(box), orientation="horizontal", extend=extend, extendfrac=0.04)
    bar.outline.set_linewidth(0.4)
    if panel.get("norm") is None:
        bar.locator = MaxNLocator(4)
        bar.update_ticks()
    bar.ax.tick_params(pad=1)
    bar.set_label(panel["unit"] if panel["unit"] != "1" else "dimensionless", labelpad=1)


def _draw_lines(axes, study, geobox):
    from matplotlib.collections import LineCollection

    wkt, extent = geobox.crs.to_wkt(), _extent(geobox)
    path = study.path(BASE_LAYERS)
    if not path.is_file():
        raise FigureError(
            f"The base layers {path.name} are missing.",
            "restore data/base/, for example from version control",
        )
    for layer, (colour, width) in _LINES.items():
        lines = _base_lines(path, layer, wkt, extent)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=2), autolim=False)
    outline = _segments([study_area(study, wkt)], (geobox.boundingbox.span_x) / _PANEL_PIXELS / 2)
    axes.add_collection(LineCollection(outline, colors="black", linewidths=0.6, zorder=3), autolim=False)


@cache
def _base_lines(path, layer, wkt, extent):
    import geopandas

    lines = geopandas.read_file(path, layer=layer).to_crs(wkt)
    west, east, south, north = extent
    lines = lines.geometry.clip_by_rect(west, south, east, north)
    return _segments(lines[~lines.is_empty], (east - west) / _PANEL_PIXELS / 2)


def _segments(geometries, tolerance):
    """Return lines and the rings of polygons as coordinate arrays, without detail that cannot be seen."""
    import shapely

    parts = shapely.get_parts(np.asarray(geometries, object))
    areal = shapely.get_dimensions(parts) == 2
    parts = shapely.get_parts(np.concatenate([parts[~areal], shapely.boundary(parts[areal])]))
    parts = parts[shapely.get_dimensions(parts) == 1]
    return [shapely.get_coordinates(line) for line in shapely.simplify(parts, tolerance)]


def _draw_graticule(axes, geobox, left, labels):
    """Draw meridians and parallels, labelled on the lower edge, and on the left one in the first column."""
    from matplotlib.collections import LineCollection

    meridians, parallels, bottom_marks, left_marks = _graticule(geobox.crs.to_wkt(), _extent(geobox))
    axes.add_collection(
        LineCollection(meridians + parallels, colors="0.6", linewidths=0.25, linestyles=(0, (4, 4)), zorder=1.5),
        autolim=False,
    )
    if not labels:
        return
    west, _, south, _ = _extent(geobox)
    text = {"textcoords": "offset points", "size": 6}
    for degrees, easting in bottom_marks:
        axes.annotate(_degrees(degrees, "EW"), (easting, south), (0, -2), ha="center", va="top", **text)
    for degrees, northing in left_marks if left else ():
        axes.annotate(_degrees(degrees, "NS"), (west, northing), (-2, 0), ha="right", va="center", **text)


def _degrees(value, signs):
    return f"{abs(value):g}°{signs[int(value < 0)]}"


@cache
def _graticule(wkt, extent):
    """Return meridians and parallels as coordinate arrays, and where they cross the lower and left edge."""
    west, east, south, north = extent
    forward = pyproj.Transformer.from_crs("EPSG:4326", wkt, always_xy=True)
    edges = forward.transform_bounds(*extent[::2], *extent[1::2], direction="INVERSE")
    step = next(
        (s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10) if max(edges[2] - edges[0], edges[3] - edges[1]) / s <= 6),
        20,
    )
    longitudes = np.arange(math.ceil(edges[0] / step), edges[2] / step) * step
    latitudes = np.arange(math.ceil(edges[1] / step), edges[3] / step) * step
    along_lon, along_lat = np.linspace(edges[0], edges[2], 60), np.linspace(edges[1], edges[3], 60)
    meridians = [np.column_stack(forward.transform(np.full(60, lon), along_lat)) for lon in longitudes]
    parallels = [np.column_stack(forward.transform(along_lon, np.full(60, lat))) for lat in latitudes]
    inset = 0.06 * (east - west)
    bottom = [(lon, np.interp(south, line[:, 1], line[:, 0])) for lon, line in zip(longitudes, meridians, strict=True)]
    left = [(lat, np.interp(west, line[:, 0], line[:, 1])) for lat, line in zip(latitudes, parallels, strict=True)]
    return (
        meridians,
        parallels,
        [m for m in bottom if west + inset < m[1] < east - inset],
        [m for m in left if south + inset < m[1] < north - inset],
    )


def _draw_scale_bar(axes, geobox):
    from matplotlib_scalebar.scalebar import ScaleBar

    metres = 1.0 if not geobox.crs.geographic else 111_320.0 / _stretch(geobox)
    axes.add_artist(
        ScaleBar(
            metres,
            "m",
            location="lower right",
            length_fraction=0.22,
            width_fraction=0.008,
            box_alpha=0.7,
            border_pad=0.3,
            pad=0.2,
            sep=1,
            font_properties={"size": 6},
            rotation="horizontal-only",
        )
    )
