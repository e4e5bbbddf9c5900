"""Maps for print, drawn from the rasters of a run."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from helpers.core.classes import layer_name, layer_title
from helpers.core.files import read_json
from helpers.core.grid import area_mask, grid_step, reference_grid, thinned_grid
from helpers.core.plot import COLUMN_MM, NO_DATA, WIDTH_MM, colour_map, map_panels
from helpers.core.rasters import read_band
from helpers.core.study import Study
from helpers.forest.hurdle import PROBABILITY_SCALE
from helpers.mapping import trust
from helpers.mapping.drilling import Advice
from helpers.mapping.files import MISSING, interval_files, map_files, trust_files
from helpers.prepare.predictor_maps import covariate_panels
from helpers.prepare.registry import read_covariates, used_predictors
from helpers.samples.store import read_samples

_CONTENT = {"cmap": "devon_r", "vmin": 0.0, "vmax": 60.0}


def predictors(study: Study) -> Figure:
    """Draw the predictors of the forests."""
    panels = covariate_panels(
        study, read_covariates(study, used_predictors(study), grid_step(study))
    )
    return _maps(study, panels, ncols=5 if len(panels) > 9 else 3)


def type_maps(study: Study) -> Figure:
    """Draw the classes of all layers: with the expected area above, by the reference below."""
    files, target = map_files(study), study.target_classes
    layers = [layer_name(layer) for layer in study.layers]
    kinds = {"": "area as expected", "_reference": "method of the reference"}
    maps = [
        (f"{layer_title(layer)} ({which})", _read(study, files[f"{target.file_name}{end}_{layer}"]))
        for end, which in kinds.items()
        for layer in layers
    ]
    maps = [_panel(title, values, categories=target.legend) for title, values in maps]
    return _maps(study, maps, ncols=max(2, min(len(layers), 3)))


def permafrost_probability(study: Study) -> Figure:
    """Draw how probable permafrost is in each layer."""
    maps = []
    for layer in map(layer_name, study.layers):
        chance = _scaled(study, f"permafrost_probability_{layer}")
        look = {"cmap": "vik_r", "vmin": 0.0, "vmax": 1.0}
        maps.append(_panel(layer_title(layer), chance, "Probability of permafrost", **look))
    return _maps(study, maps)


def next_holes(study: Study, advice: Advice) -> Figure:
    """Draw where to drill next over the probability of permafrost, and the samples that there are.

    It is that of the deepest layer. The first ten holes have their numbers.
    """
    layer = layer_name(study.layers[-1])
    chance = _scaled(study, f"permafrost_probability_{layer}")
    look: dict[str, Any] = {"cmap": "oslo_r", "vmin": 0.0, "vmax": 1.0}
    title = f"Where to drill next, {layer_title(layer)}"
    figure = _maps(study, [_panel(title, chance, "Probability of permafrost", **look)], ncols=1)
    axes = figure.axes[0]
    sites = read_samples(study).drop_duplicates("site_id")
    look = {"s": 3, "color": "0.45", "linewidths": 0, "zorder": 5}
    axes.scatter(sites["easting"], sites["northing"], label="samples", **look)
    holes = advice.holes
    look = {"s": 16, "color": "#d55e00", "marker": "^", "edgecolors": "white", "linewidths": 0.4}
    axes.scatter(holes["easting"], holes["northing"], label="new holes", zorder=6, **look)
    halo = [withStroke(linewidth=1.5, foreground="white")]
    for hole in holes.head(10).itertuples():
        place = {"xytext": (3, 1), "textcoords": "offset points", "size": 7, "zorder": 7}
        where = hole.easting, hole.northing
        axes.annotate(str(hole.hole), where, path_effects=halo, **place)
    below = {"loc": "lower center", "bbox_to_anchor": (0.55, 0), "borderaxespad": 0.1, "ncols": 2}
    figure.legend(*axes.get_legend_handles_labels(), handletextpad=0.1, frameon=False, **below)
    return figure


def ice_content(study: Study) -> Figure:
    """Draw the mean ice content of each layer, with its 10th and 90th percentile."""
    maps = []
    for layer in map(layer_name, study.layers):
        title = layer_title(layer)
        mean = 100 * _read(study, map_files(study)[f"ice_content_{layer}"])
        bands = {"10th percentile": 1, "90th percentile": 3}
        parts = {
            name: 100 * _scaled(study, f"ice_content_range_{layer}", band)
            for name, band in bands.items()
        }
        order = {"10th percentile": 0, "mean": 1, "90th percentile": 2}
        for name, values in sorted((parts | {"mean": mean}).items(), key=lambda one: order[one[0]]):
            maps.append(_panel(f"{title} ({name})", values, "% of volume", **_CONTENT))
    return _maps(study, maps, ncols=3)


def storage(study: Study) -> Figure:
    """Draw the thickness of ice in all layers; the key has the total and its interval."""
    values = _read(study, map_files(study)["ice_storage"])
    depth = layer_title(layer_name((study.depths[0][0], study.depths[-1][1])))
    record = read_json(interval_files(study)["record"])
    whole, share = record["regions"]["all"], 100 * record["probability"]
    unit = f"m of ice; in total {whole['km3']:.0f} km³"
    if whole["lower"] is not None:
        unit += f" ({share:g} % interval {whole['lower']:.0f} to {whole['upper']:.0f})"
    look = {"cmap": "devon_r", "vmin": 0.0, "vmax": float(np.nanpercentile(values, 99.5))}
    panel = _panel(f"Ground ice, {depth}", values, unit, **look)
    return _maps(study, [panel])


def trust_maps(study: Study) -> Figure:
    """Draw the rasters of trust of the first layer, and the levels of trust of all layers."""
    files = trust_files(study)
    layer, depth = layer_name(study.layers[0]), layer_title(layer_name(study.layers[0]))
    record = read_json(study.results_dir / "tables" / "applicability.json")
    limit = record["layers"][layer]["threshold"]
    unlike = _read(study, files[f"dissimilarity_index_{layer}"])
    error = _read(study, files[f"expected_error_{layer}"])
    sizes = _read(study, files[f"prediction_set_{layer}"])
    unit = f"largest within the area of applicability: {limit:.2f}"
    number = len(study.target_classes.codes)
    colours = colour_map("lajolla_r")(np.linspace(0.05, 0.8, number))
    sets = {n: (f"{n} class{'es' if n > 1 else ''}", colour) for n, colour in enumerate(colours, 1)}
    least = trust.undecided(number)
    sizes = np.where(sizes > least, least, sizes)
    sets = {n: sets[n] for n in range(1, least)} | {
        least: (f"undecided ({least} or more)", colours[-1])
    }
    percent = 100 * study.trust.coverage
    levels = {code: level[:2] for code, level in reversed(trust.LEVELS.items())}
    level = _read(study, files["trust"])
    outside, colour = trust.LEVELS[trust.OUTSIDE]
    beyond = {"marks": {outside: (level == trust.OUTSIDE, colour)}}
    if not study.domain.covariate:
        del levels[trust.OUTSIDE]  # nothing lies outside
    wrong = "share of wrong cells"
    of_index = {"cmap": "vik", "vmin": 0.0, "vmax": 2 * limit}
    of_error = {"cmap": "lajolla_r", "vmin": 0.0, "vmax": 0.8}
    maps = [
        _panel(f"Dissimilarity index, {depth}", unlike, unit, **of_index, **beyond),
        _panel(f"Expected error, {depth}", error, wrong, **of_error, **beyond),
        _panel(f"Classes in the {percent:g} % set, {depth}", sizes, categories=sets),
        _panel("Trust, the lowest of all layers", level, categories=levels),
    ]
    return _maps(study, maps, ncols=2)


def _read(study: Study, path: Path) -> np.ndarray:
    return read_band(path, step=grid_step(study))


def _scaled(study: Study, name: str, band: int = 1) -> np.ndarray:
    values = read_band(map_files(study)[name], band, grid_step(study))
    return np.where(values == MISSING, np.nan, values * PROBABILITY_SCALE)


def _panel(title: str, values: np.ndarray, unit: str = "", **look: Any) -> dict[str, Any]:
    return {"title": title, "values": values, "unit": unit, **look}


def _maps(study: Study, maps: list[dict[str, Any]], **look: int) -> Figure:
    """Draw panels; cells of the study area that have no value are grey."""
    geobox, step = reference_grid(study), grid_step(study)
    inside = area_mask(study, thinned_grid(geobox, step))
    geobox = geobox.zoom_out(step)
    for panel in maps:
        values, kinds = panel["values"], panel.get("categories")
        known = np.isin(values, list(kinds)) if kinds else np.isfinite(values)
        marks = {"no data": (inside & ~known, NO_DATA)} | panel.get("marks", {})
        panel |= {"geobox": geobox, "marks": marks}
    width = COLUMN_MM if len(maps) == 1 else WIDTH_MM
    return map_panels(study, maps, width_mm=width, **look)
