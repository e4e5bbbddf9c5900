"""The study's own figures, drawn from files that a run wrote."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.accuracy.estimates import ESTIMATES
from helpers.accuracy.reliability import plot_class
from helpers.accuracy.report import plot_confusion_matrix
from helpers.core.classes import Target, layer_name, layer_title
from helpers.core.files import read_json
from helpers.core.grid import reference_grid
from helpers.core.plot import WIDTH_MM, colour_map, map_panels, mark_label, panels, style
from helpers.core.rasters import read_band
from helpers.core.scores import HEADLINE_SCORES
from helpers.core.study import Study
from helpers.forest.hurdle import PROBABILITY_SCALE
from helpers.mapping import trust
from helpers.mapping.files import MISSING, map_files, trust_files
from helpers.prepare.columns import column_title
from helpers.prepare.predictor_maps import background_panel
from helpers.samples.store import read_samples


def sample_map(study: Study) -> Figure:
    """Draw where the samples of a run lie, over the elevation if the study has it."""
    panel = background_panel(study)
    what = "Boreholes and test pits" if study.has_boreholes else "Samples"
    panel |= {"cmap": "grayC", "title": f"{what} over {panel['title'].lower()}"}
    figure = map_panels(study, [panel], ncols=1, width_mm=WIDTH_MM / 2)
    sites = read_samples(study).drop_duplicates("site_id")
    look = {"s": 5, "linewidths": 0.2, "edgecolors": "white", "zorder": 5}
    marks = {"train": ("training", "#d55e00", "o"), "test": ("test", "#0072b2", "^")}
    for split, (name, colour, marker) in marks.items():
        part = sites[sites["split"] == split]
        units = "" if study.has_boreholes else f"{part['group'].nunique()} units, "
        look |= {"color": colour, "marker": marker, "label": f"{name} ({units}{len(part)})"}
        figure.axes[0].scatter(part["easting"], part["northing"], **look)
    figure.axes[0].legend(loc="upper left", fontsize=6, framealpha=0.9, markerscale=1.5)
    return figure


def ice_maps(study: Study) -> Figure:
    """Draw the classes of all layers, with the expected area of permafrost, and the storage."""
    maps = _class_panels(study, "", "area as expected")
    if not study.has_storage:
        return _maps(study, maps)
    storage = read_band(map_files(study)["ice_storage"])
    depth = layer_title(layer_name((study.depths[0][0], study.depths[-1][1])))
    top = float(np.nanpercentile(storage, 99.5))
    look = {"cmap": "devon_r", "vmin": 0.0, "vmax": top}
    maps.append(_panel(f"Ground ice, {depth}", storage, "m of ice", **look))
    return _maps(study, maps)


def reference_maps(study: Study) -> Figure:
    """Draw the classes of all layers by the reference's method, and a layer's P of permafrost."""
    maps = _class_panels(study, "_reference", "method of the reference")
    layer = layer_name(study.layers[0])
    chance = read_band(map_files(study)[f"permafrost_probability_{layer}"])
    chance = np.where(chance == MISSING, np.nan, chance * PROBABILITY_SCALE)
    title = f"Probability of permafrost, {layer_title(layer)}"
    maps.append(_panel(title, chance, cmap="vik_r", vmin=0.0, vmax=1.0))
    return _maps(study, maps)


def _class_panels(study: Study, end: str, which: str) -> list[dict[str, Any]]:
    files, target = map_files(study), study.target_classes
    maps = []
    for layer in map(layer_name, study.layers):
        values = read_band(files[f"{target.file_name}{end}_{layer}"])
        title = f"{target.name.capitalize()}, {layer_title(layer)} ({which})"
        maps.append(_panel(title, values, categories=target.legend))
    return maps


def trust_maps(study: Study) -> Figure:
    """Draw the rasters of trust of the first layer, and the levels of trust of all layers."""
    files = trust_files(study)
    layer, depth = layer_name(study.layers[0]), layer_title(layer_name(study.layers[0]))
    record = read_json(study.results_dir / "tables" / "applicability.json")
    limit = record["layers"][layer]["threshold"]
    unlike = read_band(files[f"dissimilarity_index_{layer}"])
    error = read_band(files[f"expected_error_{layer}"])
    sizes = read_band(files[f"prediction_set_{layer}"])
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
    if not study.domain.covariate:
        del levels[5]  # nothing lies outside
    maps = [
        _panel(f"Dissimilarity index, {depth}", unlike, unit, cmap="vik", vmin=0.0, vmax=2 * limit),
        _panel(f"Expected error, {depth}", error, cmap="lajolla_r", vmin=0.0, vmax=0.8),
        _panel(f"Classes in the {percent:g} % set, {depth}", sizes, categories=sets),
        _panel("Trust, the lowest of all layers", read_band(files["trust"]), categories=levels),
    ]
    return _maps(study, maps)


def _panel(title: str, values: np.ndarray, unit: str = "", **look: Any) -> dict[str, Any]:
    return {"title": title, "values": values, "unit": unit, **look}


def _maps(study: Study, maps: list[dict[str, Any]]) -> Figure:
    geobox = reference_grid(study)
    return map_panels(study, [one | {"geobox": geobox} for one in maps], ncols=2)


def confusion_matrices(study: Study) -> Figure:
    """Draw the confusion matrices of all layers, for the whole area and for the domain."""
    reports = read_json(study.results_dir / "tables" / "accuracy.json")
    height = 87 * len(reports) + 2
    figure, axes = panels(len(reports), len(study.domains), height)
    for row, (layer, by_domain) in zip(axes, reports.items(), strict=True):
        for panel, domain in zip(row, study.domains, strict=True):
            plot_confusion_matrix(panel, by_domain[domain], _class_names(study.target_classes))
            panel.set_title(f"{layer_title(layer)}, {domain.replace('_', ' ')}")
    # Margins in mm for the longest names: a layout engine would draw all labels twice, slowly.
    left, bottom, right, top = 33 / WIDTH_MM, 26 / height, 1 - 2 / WIDTH_MM, 1 - 5 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.57, hspace=0.53)
    mark_label(figure, study.label)
    return figure


def accuracy_summary(study: Study) -> Figure:
    """Draw one page that sums up the accuracy, from the tables of notebook 04.

    Above, the headline scores with their intervals, by layer and domain, on the test samples and
    out of spatial folds (of the study's own kind where kNNDM is not possible). Below, for all
    layers together in the domain: confusion matrix of the test samples and reliability of
    permafrost.
    """
    import matplotlib.pyplot as plt

    style()
    target, domain = study.target_classes, study.domains[-1]
    tables = study.results_dir / "tables"
    test, folds = (read_json(tables / f"{name}.json") for name in ("accuracy", "accuracy_folds"))
    kind = "knndm" if "knndm" in folds else study.folds.kind
    sources = {"test samples": test, ESTIMATES[kind]: folds[kind]}
    rows = []
    for layer, name, (source, reports) in product(test, study.domains, sources.items()):
        head = layer_title(layer), name.replace("_", " "), source
        rows.append([*head, *_cells(reports[layer][name])])
    height = 28 + 5 * len(rows) + 92
    figure = plt.figure(figsize=(WIDTH_MM / 25.4, height / 25.4))
    _draw_table(figure.add_axes((0.02, 97 / height, 0.96, (5 * len(rows) + 8) / height)), rows)
    title = f"Accuracy: {target.name} by layer"
    figure.text(0.02, 1 - 5 / height, title, weight="bold", size=9)
    percent, block = round(100 * study.accuracy.interval), study.accuracy.block_km
    note = f"In brackets the {percent} % interval of a bootstrap of {block:g} km blocks."
    note += "\nTest samples and folds lie where samples were taken, not as the map does."
    figure.text(0.02, 1 - 13 / height, note)
    matrix = np.sum([reports[domain]["confusion_matrix"] for reports in test.values()], axis=0)
    size = 56 / WIDTH_MM, 56 / height
    left, right = (figure.add_axes((x / WIDTH_MM, 25 / height, *size)) for x in (33, 118))
    plot_confusion_matrix(left, {"confusion_matrix": matrix}, _class_names(target))
    left.set_title(f"Test samples of all layers, {domain.replace('_', ' ')}")
    names = ("reliability", "calibration_error")
    curves, errors = (pd.read_csv(tables / f"{name}.csv") for name in names)
    plot_class(right, curves, errors, target.classes[0])
    right.set(xlabel="predicted probability", ylabel="observed share")
    right.set_title(f"Reliability of {target.classes[0].name}")
    right.legend(frameon=False, loc="lower right")
    mark_label(figure, study.label)
    return figure


def _cells(report: dict[str, Any]) -> Iterator[str]:
    """Yield the number of samples and the scores of a report, with intervals where it has them."""
    yield str(report["n"])
    for score in (*HEADLINE_SCORES, "quadratic_kappa"):
        ends = report["intervals"].get(score, [None])
        text = "-" if report[score] is None else f"{report[score]:.2f}"
        yield text if None in ends else f"{text} ({ends[0]:.2f} to {ends[1]:.2f})"


def _draw_table(axes: Axes, rows: list[list[str]]) -> None:
    axes.axis("off")
    heads = ["layer", "domain", "judged on", "n"]
    heads += ["overall accuracy", "kappa", "macro F1", "quadratic kappa"]
    widths = [0.08, 0.17, 0.12, 0.04, 0.155, 0.145, 0.145, 0.145]
    look = {"cellLoc": "left", "edges": "horizontal", "bbox": (0, 0, 1, 1)}
    table = axes.table(rows, colLabels=heads, colWidths=widths, **look)
    table.auto_set_font_size(False)
    table.set_fontsize(6.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_linewidth(0.3)
        cell.get_text().set_fontweight("bold" if row == 0 else "normal")


def importance(study: Study) -> Figure:
    """Draw permutation importance by layer: means and intervals over blocks of samples."""
    table = pd.read_csv(study.results_dir / "tables" / "importance.csv")
    order = table.groupby("predictor")["mean"].mean().sort_values().index
    layers = table["layer"].unique()
    titles = [column_title(study, name) for name in order]
    figure, axes = panels(1, len(layers), 4.064 * len(order) + 17.78, sharex=True, sharey=True)
    for panel, layer in zip(axes[0], layers, strict=True):
        part = table[table["layer"] == layer].set_index("predictor").loc[order]
        panel.barh(titles, part["mean"], color="#5b8db8")
        panel.hlines(titles, part["lower"], part["upper"], color="0.15", linewidth=0.6)
        panel.axvline(0, color="0.3", linewidth=0.5)
        panel.set(title=layer_title(layer), xlabel="fall of kappa")
    axes[0, 0].locator_params(axis="x", nbins=4)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    mark_label(figure, study.label)
    return figure


def _class_names(target: Target) -> list[str]:
    return [kind.name.removesuffix(" frozen soil") for kind in target.classes]
