"""Figures: one style, maps in the raster's own coordinate reference system, and whole files.

Coast, borders and provinces come from the committed base layers, never from a download.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import cartopy.crs as ccrs
import matplotlib as mpl
import numpy as np
import pyproj
import shapely
from cartopy.mpl.geoaxes import GeoAxes
from cmcrameri import cm
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib_scalebar.scalebar import ScaleBar
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from helpers.core.errors import CompendiumError
from helpers.core.files import write_aside
from helpers.core.fonts import latin_font
from helpers.core.grid import crs_wkt, study_area
from helpers.core.study import Study

Panel = Mapping[str, Any]

WIDTH_MM = 180
"""Width of a figure across the page."""

COLUMN_MM = 88
"""Width of a figure in one column of a page."""

BASE_LAYERS = "data/base/natural-earth.gpkg"
_LINES = {"coastline": ("0.25", 0.4), "borders": ("0.25", 0.5), "provinces": ("0.55", 0.3)}
_MM = 1 / 25.4
_TITLE, _GAP, _FOOT, _RIGHT = 5.0, 3.0, 4.0, 4.0  # mm above, between, below and beside maps
_PIXELS_A_MM = 12  # of rasters in a figure; finer ones are averaged
_LEGIBLE_MM = 45  # narrower maps get no longitude and latitude labels
_MOST_LINES = 6
_KM_PER_DEGREE = 111.32
_SMALL = 200_000  # m
NO_DATA = "#969696"
"""Colour of cells of a study area that have no value."""

_STYLE: dict[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
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


class FigureError(CompendiumError):
    """A figure that cannot be drawn."""


def style() -> None:
    """Set matplotlib's defaults to those of all figures: 8 pt titles, 7 pt text, thin lines.

    Notebooks show figures in their own size, as they are saved.
    """
    mpl.rcParams.update(_STYLE | {"font.sans-serif": [latin_font(), "DejaVu Sans"]})
    if "inline" in str(mpl.get_backend(auto_select=False)):
        from matplotlib_inline.config import InlineBackend

        # It would cut margins, and for that draw each figure twice.
        whole: dict[str, Any] = {"bbox_inches": None}
        InlineBackend.instance().print_figure_kwargs = whole


def panels(
    rows: int, columns: int, height_mm: float, *, width_mm: float = WIDTH_MM, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure in the common style, and its axes of shape (rows, columns).

    Sizes are in mm; `options` go to `matplotlib.pyplot.subplots`.
    """
    import matplotlib.pyplot as plt

    style()
    size = (width_mm / 25.4, height_mm / 25.4)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def mark_label(figure: Figure, label: str) -> None:
    """Write a study's label, such as SIMULATED, into the lower right corner; nothing if empty."""
    look = {"ha": "right", "va": "bottom", "color": "#b2182b", "size": 7}
    if label:
        figure.text(0.998, 0.003, label, **look)


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as PDF and as PNG of 300 dpi; return both paths.

    `path` is without a suffix. Old files are replaced only by whole new ones.
    """
    written = []
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        target = Path(f"{path}.{kind}")
        with write_aside(target) as part:
            figure.savefig(part, format=kind, dpi=300, metadata=metadata)
        written.append(target)
    return written


def map_panels(
    study: Study,
    maps: Sequence[Panel],
    ncols: int = 3,
    width_mm: float = WIDTH_MM,
    suptitle: str | None = None,
) -> Figure:
    """Draw maps side by side.

    Parameters
    ----------
    maps
        Each with `title`, `values` (2-D), `geobox`, `unit` and `cmap` (a name of cmcrameri or
        matplotlib); optional `vmin` and `vmax` (by default the 2nd and 98th percentile), `thin`
        (``nearest`` for values that have no mean, such as directions), and `categories`: a dict of
        value to label and colour, which brings a legend in place of a colour bar. `key` is False
        for a map that needs neither. Keys that are all the same are drawn once, below all maps.
        `marks` are of cells without a value: by label a mask and a colour; a key at the foot has
        those that occur.
    ncols
        Panels in a row.
    """
    import matplotlib.pyplot as plt

    style()
    ncols = min(ncols, len(maps))
    nrows = math.ceil(len(maps) / ncols)
    labels = (width_mm - 8) / ncols - _GAP >= _LEGIBLE_MM
    # All lengths are in mm.
    # Labels of a small area have decimals, and need more room.
    small = maps[0]["geobox"].boundingbox.span_y < _SMALL
    left = (11.0 if small else 8.0) if labels else 2.0
    head = 11.0 if suptitle else 6.0
    key_gap = 4.5 if labels else 1.5
    once = len(maps) > 1 and _same_keys(maps)
    legend_rows = max(math.ceil(len(panel.get("categories") or ()) / 2) for panel in maps)
    room = max(8.0, 3.4 * legend_rows + 1)
    if once or not any(panel.get("key", True) for panel in maps):
        room = 0.0
    below = key_gap + room
    foot = _FOOT + (10.0 if once else 0.0)
    map_width = (width_mm - left - _RIGHT - _GAP * (ncols - 1)) / ncols
    boxes = [panel["geobox"] for panel in maps]
    heights = [map_width * _stretch(box) / box.boundingbox.aspect for box in boxes]
    map_height = max(heights)
    row = _TITLE + map_height + below
    height = head - _TITLE + nrows * row + foot

    figure = plt.figure(figsize=(width_mm * _MM, height * _MM))
    places = figure.add_gridspec(
        nrows,
        ncols,
        left=left / width_mm,
        right=1 - _RIGHT / width_mm,
        top=1 - head / height,
        bottom=(below + foot) / height,
        wspace=_GAP / map_width,
        hspace=(_TITLE + below) / map_height,
    )
    for number, (panel, geobox) in enumerate(zip(maps, boxes, strict=True)):
        place = places[divmod(number, ncols)]
        axes = cast(GeoAxes, figure.add_subplot(place, projection=_projection(geobox)))
        image = _draw_values(axes, panel, map_width)
        _draw_lines(axes, study, geobox, map_width)
        if labels:  # on smaller maps meridians say little, and take most of the time
            _draw_graticule(axes, number % ncols == 0, 3 if small else _MOST_LINES)
        if geobox not in boxes[:number]:  # one scale bar serves all panels of a grid
            _draw_scale_bar(axes, geobox)
        axes.set_title(panel["title"])
        gap = key_gap / heights[number]
        if once or not panel.get("key", True):
            continue
        if panel.get("categories"):
            _draw_legend(axes, panel, gap)
        else:
            bar = 2 / heights[number]
            _draw_colour_bar(image, panel, axes.inset_axes((0.1, -gap - bar, 0.8, bar)), map_width)
    if once:
        (image, *_) = figure.axes[0].get_images()
        _draw_key_of_all(figure, image, maps[0], height)
    _draw_marks_key(figure, maps, left / width_mm)
    if suptitle:
        place = (left / width_mm, 1 - 1 / height)
        figure.text(*place, suptitle, va="top", weight="bold", size=8)
    mark_label(figure, study.label)
    return figure


def _stretch(geobox: GeoBox) -> float:
    """Return height by width of a cell as drawn: degrees are stretched by the middle latitude."""
    assert geobox.crs is not None
    box = geobox.boundingbox
    middle = (box.bottom + box.top) / 2
    return 1 / math.cos(math.radians(middle)) if geobox.crs and geobox.crs.geographic else 1.0


@cache
def _projection(geobox: GeoBox) -> ccrs.Projection:
    """Return the projection of map axes, so that a notebook can add features in any CRS to them."""
    crs = pyproj.CRS.from_wkt(crs_wkt(geobox))
    if crs.is_geographic:
        return ccrs.PlateCarree()
    projection = ccrs.Projection(crs)
    # A PROJ string has no area of use, so it gets the raster's.
    west, east, south, north = _extent(geobox)
    spare = 0.1 * max(east - west, north - south)
    projection.bounds = [west - spare, east + spare, south - spare, north + spare]
    projection.threshold = spare / 100
    return projection


def _draw_values(axes: Axes, panel: Panel, width_mm: float) -> AxesImage:
    geobox = panel["geobox"]
    values, drawn, step = _thinned(panel, width_mm)
    if categories := panel.get("categories"):
        codes = np.full(values.shape, np.nan, np.float32)
        for code, value in enumerate(categories):
            codes[values == value] = code
        colours = ListedColormap([colour for _, colour in categories.values()])
        values, low, high = codes, -0.5, len(categories) - 0.5
    else:
        colours = colour_map(panel.get("cmap", "batlow"))
        low, high = np.nanpercentile(values, [2, 98]) if np.isfinite(values).any() else (0, 1)
        low, high = panel.get("vmin", low), panel.get("vmax", high)
    stretch, extent = _stretch(geobox), _extent(drawn)
    image = axes.imshow(values, colours, aspect=stretch, extent=extent, vmin=low, vmax=high)
    marks = list(panel.get("marks", {}).values())
    codes = np.full(values.shape, np.nan, np.float32)
    for code, (mask, _) in enumerate(marks):
        codes[np.isnan(values) & mask[::step, ::step]] = code
    if np.isfinite(codes).any():
        colours = ListedColormap([colour for _, colour in marks])
        look = {"vmin": -0.5, "vmax": len(marks) - 0.5}
        axes.imshow(codes, colours, aspect=stretch, extent=extent, **look)
    axes.set_anchor("NW")
    west, east, south, north = _extent(geobox)
    axes.set(xlim=(west, east), ylim=(south, north), xticks=[], yticks=[])
    axes.spines["geo"].set_linewidth(0.5)
    return image


def _thinned(panel: Panel, width_mm: float) -> tuple[np.ndarray, GeoBox, int]:
    """Return about as many values as a panel has pixels, by means of blocks, with grid and step."""
    import xarray

    values = np.asarray(panel["values"])
    # Dozens of small maps are a figure to look over, and a file to send by mail.
    pixels = _PIXELS_A_MM if width_mm > _LEGIBLE_MM else _PIXELS_A_MM / 2
    step = max(1, round(max(values.shape) / width_mm / pixels))
    thin = panel["geobox"].zoom_out(step)
    if panel.get("categories") or panel.get("thin") == "nearest":
        return values[::step, ::step], thin, step
    blocks = xarray.DataArray(values.astype(np.float32), dims=("y", "x"))
    return blocks.coarsen(y=step, x=step, boundary="pad").mean().to_numpy(), thin, step


def _extent(geobox: GeoBox) -> tuple[float, float, float, float]:
    west, south, east, north = geobox.boundingbox.bbox
    return west, east, south, north


def colour_map(name: str | Colormap) -> Colormap:
    """Return a colour map by its name in cmcrameri or else in matplotlib.

    Examples
    --------
    >>> colour_map("gray")([0.0, 1.0]).tolist()  # of matplotlib; batlow is one of cmcrameri
    [[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    if isinstance(name, Colormap):
        return name
    return getattr(cm, name, None) or mpl.colormaps[name]


def _same_keys(maps: Sequence[Panel]) -> bool:
    names = ("categories", "cmap", "vmin", "vmax", "unit")
    first, *others = ([panel.get(name) for name in names] for panel in maps)
    stated = "categories" in maps[0] or "vmin" in maps[0]
    return stated and all(one == first for one in others)


def _draw_key_of_all(figure: Figure, image: AxesImage, panel: Panel, height_mm: float) -> None:
    """Draw one legend or colour bar below all maps."""
    if panel.get("categories"):
        handles = _handles(panel)
        look: dict[str, Any] = {"ncols": 4, "frameon": False, "handlelength": 1.2}
        look |= {"loc": "lower center", "bbox_to_anchor": (0.5, _FOOT / height_mm)}
        figure.legend(handles=handles, borderaxespad=0, columnspacing=1.5, **look)
    else:
        bar = figure.add_axes((0.3, (_FOOT + 7) / height_mm, 0.4, 2 / height_mm))
        _draw_colour_bar(image, panel, bar, WIDTH_MM)


def _draw_marks_key(figure: Figure, maps: Sequence[Panel], left: float) -> None:
    """Draw a legend of the marks that occur into the lower left corner."""
    marks = {
        label: colour
        for panel in maps
        for label, (mask, colour) in panel.get("marks", {}).items()
        if mask.any()
    }
    if marks:
        look: dict[str, Any] = {"frameon": False, "handlelength": 1.2, "borderpad": 0}
        look |= {"loc": "lower left", "bbox_to_anchor": (left, 0), "borderaxespad": 0.2}
        figure.legend(handles=_patches(marks), ncols=len(marks), columnspacing=1.5, **look)


def _handles(panel: Panel) -> list[Patch]:
    return _patches(dict(panel["categories"].values()))


def _patches(colours: Mapping[str, str]) -> list[Patch]:
    look = {"edgecolor": "0.3", "linewidth": 0.3}
    return [Patch(facecolor=colour, label=label, **look) for label, colour in colours.items()]


def _draw_legend(axes: Axes, panel: Panel, gap: float) -> None:
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -gap)}
    place |= {"borderpad": 0, "borderaxespad": 0}
    look: dict[str, Any] = {"ncols": 2, "frameon": False, "handlelength": 1.2, "handleheight": 0.9}
    axes.legend(handles=_handles(panel), columnspacing=1, labelspacing=0.35, **place, **look)


def _draw_colour_bar(image: AxesImage, panel: Panel, axes: Axes, width_mm: float) -> None:
    values = np.asarray(panel["values"])
    with np.errstate(invalid="ignore"):
        below, above = (values < image.norm.vmin).any(), (values > image.norm.vmax).any()
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    # Long numbers have room for few ticks.
    most = 10_000 if width_mm > _LEGIBLE_MM else 1000
    ticks = MaxNLocator(4 if np.abs(image.get_clim()).max() < most else 2)
    look = {"orientation": "horizontal", "extendfrac": 0.04, "ticks": ticks}
    look["extend"] = extend.get((bool(below), bool(above)), "neither")
    bar = axes.figure.colorbar(image, cax=axes, **look)
    # Its 256 fields would be as many paths of a PDF, or else take a canvas of the whole figure.
    assert bar.solids is not None
    bar.solids.remove()
    low, high = image.get_clim()
    fields = np.linspace(low, high, 256)[np.newaxis]
    place: dict[str, Any] = {"extent": (low, high, 0, 1), "aspect": "auto"}
    bar.ax.imshow(fields, image.cmap, vmin=low, vmax=high, **place)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(pad=1)
    bar.set_label(panel["unit"] if panel["unit"] != "1" else "dimensionless", labelpad=1)


def _draw_lines(axes: GeoAxes, study: Study, geobox: GeoBox, width_mm: float) -> None:
    """Draw coast, borders, provinces and the outline of the study area."""
    detail = geobox.boundingbox.span_x / width_mm / _PIXELS_A_MM  # shorter is not to be seen
    path = study.path(BASE_LAYERS)
    if not path.is_file():
        raise FigureError(
            f"The base layers {path.name} are missing.",
            "restore data/base/, for example from version control",
        )
    for layer, (colour, width) in _LINES.items():
        look = {"edgecolor": colour, "linewidth": width, "zorder": 2}
        lines = _base_lines(path, layer, geobox, detail)
        axes.add_geometries(lines, axes.projection, fc="none", **look)
    outline = study_area(study, crs_wkt(geobox)).simplify(detail)
    look = {"edgecolor": "black", "linewidth": 0.6, "zorder": 3}
    axes.add_geometries([outline], axes.projection, fc="none", **look)


@cache
def _base_lines(path: Path, layer: str, geobox: GeoBox, detail: float) -> list[BaseGeometry]:
    import geopandas

    lines = geopandas.read_file(path, layer=layer).to_crs(crs_wkt(geobox))
    lines = lines.geometry.clip_by_rect(*geobox.boundingbox.bbox).explode().simplify(detail)
    # As one geometry they are one path, which a PDF has in a fraction of the time.
    return [lines[shapely.length(lines.values) > 2 * detail].union_all("coverage")]


def _draw_graticule(axes: GeoAxes, left: bool, most: int) -> None:
    """Draw meridians and parallels, labelled below the map, and beside it in the first column."""
    look = {"color": "0.6", "linewidth": 0.25, "linestyle": (0, (4, 4)), "zorder": 1.5}
    sides = {"bottom": "x", **({"left": "y"} if left else {})}
    lines = axes.gridlines(draw_labels=sides, rotate_labels=False, **look)
    lines.xlocator = lines.ylocator = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])
    lines.n_steps = 12  # cartopy bends each step as far as it has to
    lines.xlabel_style = lines.ylabel_style = {"size": 7}
    lines.xpadding = lines.ypadding = 2


def _draw_scale_bar(axes: Axes, geobox: GeoBox) -> None:
    degrees = geobox.crs and geobox.crs.geographic
    metres = 1000 * _KM_PER_DEGREE / _stretch(geobox) if degrees else 1.0
    size = {"length_fraction": 0.22, "width_fraction": 0.008, "font_properties": {"size": 7}}
    box = {"location": "lower right", "box_alpha": 0.7, "border_pad": 0.3, "pad": 0.2, "sep": 1}
    axes.add_artist(ScaleBar(metres, "m", rotation="horizontal-only", **size, **box))
