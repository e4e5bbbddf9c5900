"""Charts for print, drawn from the tables of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.accuracy.by_area import plot_areas
from helpers.accuracy.effects import plot_effects
from helpers.accuracy.reliability import plot_reliability
from helpers.accuracy.report import plot_confusion_matrix
from helpers.core.classes import Target, layer_name, layer_title
from helpers.core.files import read_json
from helpers.core.plot import COLUMN_MM, WIDTH_MM, mark_label, panels
from helpers.core.study import Study
from helpers.folds.curves import CURVES
from helpers.forest.grid_search import plot_search
from helpers.mapping.files import interval_files
from helpers.prepare.columns import column_title


def distances(study: Study) -> Figure:
    """Draw the share of cells, or of samples, that have their nearest neighbour within a distance.

    Folds whose curve lies near that of the map's cells are as hard as the map.
    """
    table = pd.read_csv(_tables(study) / "distances.csv")
    layers = table["layer"].unique()
    figure, axes = panels(1, len(layers), 66, sharex=True, sharey=True)
    for panel, layer in zip(axes[0], layers, strict=True):
        for kind, curve in table[table["layer"] == layer].groupby("kind", sort=False):
            label, colour, line, width = CURVES[str(kind)]
            look = {"color": colour, "linewidth": width, "linestyle": line}
            panel.plot(curve["km"], curve["share"], label=label, **look)
        panel.set(title=layer_title(layer), xlabel="distance (km)", xscale="log", ylim=(0, 1))
        panel.grid(color="0.9", linewidth=0.4)
        panel.set_axisbelow(True)
    first = axes[0, 0]
    first.set_xlim(left=0.5)
    first.set_ylabel("share within the distance")
    first.xaxis.set_major_formatter("{x:g}")
    rows = 1 + len(first.lines) // 6  # six do not fit side by side
    look = {"ncols": -(-len(first.lines) // rows), "frameon": False, "handlelength": 2.2}
    figure.legend(*first.get_legend_handles_labels(), loc="upper center", **look)
    top = 1 - (8 + 4 * rows) / 66
    figure.subplots_adjust(14 / WIDTH_MM, 13 / 66, 1 - 3 / WIDTH_MM, top, 0.08)
    mark_label(figure, study.label)
    return figure


def effects(study: Study) -> Figure:
    """Draw accumulated local effects on the probability of permafrost, by predictor and layer."""
    return plot_effects(study, pd.read_csv(_tables(study) / "local_effects.csv"))


def search(study: Study) -> Figure:
    """Draw how the score of the search depends on the hyperparameters, by layer."""
    tables = {
        layer_title(name): pd.read_csv(_tables(study) / f"search_{name}.csv")
        for name in map(layer_name, study.layers)
    }
    figure = plot_search(tables, study.forest.score)
    mark_label(figure, study.label)
    return figure


def confusion_matrices(study: Study) -> Figure:
    """Draw the confusion matrices of all layers in the domain, with accuracies of each class.

    Below each class is its producer's accuracy (recall), beside it its user's accuracy (precision).
    """
    reports = read_json(_tables(study) / "accuracy.json")
    domain = study.domains[-1]
    ncols = min(len(reports), 2)
    nrows = -(-len(reports) // ncols)
    height = 92 * nrows + 2
    figure, axes = panels(nrows, ncols, height)
    for panel, (layer, by_domain) in zip(axes.flat, reports.items(), strict=False):
        report = by_domain[domain]
        plot_confusion_matrix(panel, report, _class_names(study.target_classes))
        _add_accuracies(panel, report)
        panel.set_title(f"{layer_title(layer)}, {domain.replace('_', ' ')}", pad=24)
    for panel in axes.flat[len(reports) :]:
        panel.set_visible(False)
    for panel in axes[:, 1:].flat:
        panel.set_ylabel("")
    # Margins in mm for the longest names: a layout engine would draw all labels twice, slowly.
    left, bottom, right, top = 33 / WIDTH_MM, 28 / height, 1 - 14 / WIDTH_MM, 1 - 14 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.85, hspace=0.62)
    mark_label(figure, study.label)
    return figure


def _add_accuracies(axes: Axes, report: dict[str, Any]) -> None:
    number = len(report["classes"])
    percent = [
        ["" if value is None else f"{100 * value:.0f} %" for value in report[score]]
        for score in ("precision", "recall")
    ]
    users, producers = percent
    for place, text in enumerate(users):
        axes.text(number + 0.1, place + 0.5, text, va="center", size=7)
    for place, text in enumerate(producers):
        axes.text(place + 0.5, -0.12, text, ha="center", size=7)
    look = {"transform": axes.transAxes, "size": 7, "color": "0.3"}
    axes.text(1.21, 0.5, "user's accuracy", rotation=90, va="center", ha="left", **look)
    axes.text(0.5, 1.07, "producer's accuracy", ha="center", va="bottom", **look)


def class_areas(study: Study) -> Figure:
    """Draw the area of each class, mapped and estimated from samples, by layer in the domain."""
    areas = pd.read_csv(_tables(study) / "class_areas.csv")
    if "map" in areas:
        areas = areas[areas["map"] == areas["map"].unique()[-1]]
    areas = areas[areas["domain"] == study.domains[-1]]
    layers = list(areas["layer"].unique())
    height = 26 + 6 * areas["class"].nunique()
    figure, axes = panels(1, len(layers), height, sharey=True)
    for panel, layer in zip(axes[0], layers, strict=True):
        plot_areas(panel, areas[areas["layer"] == layer])
        panel.set_title(layer_title(layer))
    look = {"loc": "upper center", "ncols": 2, "frameon": False}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), **look)
    figure.subplots_adjust(28 / WIDTH_MM, 13 / height, 1 - 3 / WIDTH_MM, 1 - 11 / height, 0.14)
    mark_label(figure, study.label)
    return figure


def reliability(study: Study) -> Figure:
    """Draw reliability diagrams of each class, all layers together."""
    names = ("reliability", "calibration_error")
    return plot_reliability(study, *(pd.read_csv(_tables(study) / f"{n}.csv") for n in names))


def importance(study: Study) -> Figure:
    """Draw permutation importance by layer: means and intervals over blocks of samples.

    Correlated predictors are permuted together: alone, the others would stand in for each.
    """
    groups = pd.read_csv(_tables(study) / "importance_groups.csv")
    single = pd.read_csv(_tables(study) / "importance.csv")
    members = {name for group in groups["predictor"] for name in group.split(" + ")}
    table = pd.concat([groups, single[~single["predictor"].isin(members)]])
    order = table.groupby("predictor")["mean"].mean().sort_values().index
    labels = ["\n".join(column_title(study, one) for one in name.split(" + ")) for name in order]
    lines = np.array([label.count("\n") + 1 for label in labels])
    ends = np.cumsum(lines + 0.6)
    places = ends - (lines + 0.6) / 2
    layers = table["layer"].unique()
    height = 3.1 * ends[-1] + 20
    figure, axes = panels(1, len(layers), height, sharex=True, sharey=True)
    for panel, layer in zip(axes[0], layers, strict=True):
        part = table[table["layer"] == layer].set_index("predictor").loc[order]
        panel.barh(places, part["mean"], height=0.9, color="#5b8db8")
        panel.hlines(places, part["lower"], part["upper"], color="0.15", linewidth=0.6)
        panel.axvline(0, color="0.3", linewidth=0.5)
        panel.set(title=layer_title(layer), xlabel="fall of kappa", ylim=(0, ends[-1]))
    axes[0, 0].set_yticks(places, labels)
    axes[0, 0].locator_params(axis="x", nbins=4)
    figure.subplots_adjust(34 / WIDTH_MM, 13 / height, 1 - 3 / WIDTH_MM, 1 - 6 / height, 0.08)
    mark_label(figure, study.label)
    return figure


def totals(study: Study) -> Figure:
    """Draw the ice of each region, with its interval where it has one."""
    table = pd.read_csv(interval_files(study)["table"])
    share = 100 * read_json(interval_files(study)["record"])["probability"]
    table = table[table["region"] != "all"].sort_values("km3")
    places = np.arange(len(table))
    height = 20 + 5.5 * len(table)
    figure, axes = panels(1, 1, height, width_mm=COLUMN_MM)
    panel = axes[0, 0]
    ends = table["lower"], table["upper"]
    panel.hlines(places, *ends, color="#0072b2", linewidth=1, label=f"{share:g} % interval")
    panel.plot(table["km3"], places, "o", color="#0072b2", markersize=3.5)
    panel.set_yticks(places, table["region"])
    panel.set(xlabel="km³ of ice", ylim=(-0.6, len(table) - 0.4), xlim=(0, None))
    panel.grid(axis="x", color="0.92", linewidth=0.4)
    panel.legend(loc="lower right", frameon=False)
    figure.subplots_adjust(26 / COLUMN_MM, 13 / height, 1 - 4 / COLUMN_MM, 1 - 3 / height)
    mark_label(figure, study.label)
    return figure


def _tables(study: Study) -> Path:
    return study.results_dir / "tables"


def _class_names(target: Target) -> list[str]:
    return [kind.name.removesuffix(" frozen soil") for kind in target.classes]
