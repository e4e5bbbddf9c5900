"""Estimates of the map's accuracy: from several kinds of folds and from the test, side by side.

A score from samples may be off for three reasons, which the tables keep apart: samples lie
elsewhere than the map's cells (folds try to mend it), a borehole is not its cell, and
the hyperparameters were chosen for the very score
(`helpers.accuracy.baselines.selection_optimism`).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.accuracy.by_area import plot_areas
from helpers.accuracy.predictions import (
    KnownGround,
    Predictions,
    known_ground,
    mapped_areas,
)
from helpers.accuracy.report import evaluate
from helpers.core.classes import layer_title
from helpers.core.grid import cell_centres, reference_grid
from helpers.core.plot import WIDTH_MM, mark_label, panels
from helpers.core.scores import (
    HEADLINE_SCORES,
    bootstrap_matrices,
    by_mapped_share,
    effective_number,
    interval,
    matrix_scores,
    raked,
)
from helpers.core.study import Study
from helpers.folds.blocks import bootstrap
from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.prepare.domain import by_domain
from helpers.samples.together import coordinates

ESTIMATES = {
    "random": "random folds",
    "random_adjusted": "random folds, by mapped area",
    "knndm": "kNNDM folds",
    "knndm_adjusted": "kNNDM folds, by mapped area",
    "blocks": "spatial blocks",
    "blocks_adjusted": "spatial blocks, by mapped area",
    "column": "folds by column",
    "column_adjusted": "folds by column, by mapped area",
    "cells": "random folds of single cells",
    "test": "test samples",
    "test_adjusted": "test samples, by mapped area",
}
"""Estimates of a map's accuracy, by their keys in ``validation.json``.

Where the share of permafrost is known (`helpers.samples.prevalence`), these agree with it, too.
Folds of single cells part the cells of one polygon: neighbours are then in training and test, and
scores flatter; they show by how much. Those by mapped area count each mapped class as much as the
map has of it, not as often as samples hit it (post-stratification: Olofsson et al., 2014).
"""

References = Mapping[str, tuple[str, str, str]]
"""What predictions are compared with: marker, colour and label."""

REFERENCES: References = {"samples": ("o", "#0072b2", "against the samples' own class")}
"""The reference of a study of real ground."""

Labels = Callable[[pd.DataFrame], np.ndarray]
"""Returns the reference class of samples, shape (n,)."""


def evaluate_folds(study: Study, predictions: Predictions) -> dict[str, dict]:
    """Evaluate the pooled out-of-fold predictions of every kind of folds.

    It is by kind of folds and layer what `helpers.accuracy.report.evaluate` returns.
    """
    reports: dict[str, dict] = {}
    for (layer, kind), probabilities in predictions.out_of_fold.items():
        areas = mapped_areas(study, predictions, layer)
        rows, mapped = predictions.rows[layer], predictions.classes_of(study, layer, probabilities)
        report = evaluate(study, rows, probabilities, mapped, areas)
        reports.setdefault(kind, {})[layer] = report
    return reports


def estimate_accuracy(
    study: Study, predictions: Predictions, labels: Labels | None = None, reference: str = "samples"
) -> pd.DataFrame:
    """Estimate the accuracy of each layer's map in every way, at hyperparameters chosen already.

    Folds are dealt among the training samples, and their predictions are pooled before they are
    scored. The hyperparameters were chosen on the same samples, so that estimates from folds are a
    little too high: `helpers.accuracy.baselines.selection_optimism` says by how much. The test
    samples are free of that.

    There is one row a layer, domain, estimate (a key of `ESTIMATES`) and reference. Of folds,
    ``wasserstein_km`` is by how much they miss the distances over which the cells of the domain are
    predicted. Intervals, by a bootstrap of blocks (the study's section `accuracy`), say what other
    samples of the same kind would have given; that samples lie elsewhere than cells, or are not
    like them, is in none.

    Labels are what predictions are compared with, by default the samples' own class, and the
    reference is what the table calls them.
    """
    table = []
    for layer, rows in predictions.rows.items():
        areas = mapped_areas(study, predictions, layer)
        missed = _missed_distances(study, predictions, layer)
        sources = {kind: (rows, predictions.out_of_fold[layer, kind]) for kind, _ in missed}
        sources["test"] = predictions.tested[layer], predictions.test[layer]
        for name, (part, probabilities) in sources.items():
            classes = part["class"].to_numpy() if labels is None else labels(part)
            mapped = predictions.classes_of(study, layer, probabilities)
            known = known_ground(study, predictions, layer, part)
            for domain, inside in by_domain(study, part["in_domain"]):
                distance = missed.get((name, domain), np.nan)
                if not inside.any() or (name != "test" and np.isnan(distance)):
                    continue
                key = {"layer": layer, "domain": domain, "reference": reference}
                key["wasserstein_km"] = distance
                pair = classes[inside], mapped[inside]
                draws = bootstrap(study, part[inside])
                ground = known[domain] and known[domain].of(inside)
                by_area = {"shares": areas[domain][0], "known": ground}
                ways = {name: {}, f"{name}_adjusted": by_area}
                for estimate in (way for way in ways if way in ESTIMATES):
                    scores = headline_row(study, *pair, draws=draws, **ways[estimate])
                    table.append(key | {"estimate": estimate} | scores)
    return estimates_table(table)


def _missed_distances(
    study: Study, predictions: Predictions, layer: str
) -> dict[tuple[str, str], float]:
    """Return `wasserstein_km` by kind of folds and domain that has samples and cells."""
    easting, northing = cell_centres(reference_grid(study))
    row, column = np.divmod(predictions.cells, len(easting))
    rows = predictions.rows[layer]
    places = coordinates(rows)
    away = prediction_distances(places, np.stack([easting[column], northing[row]], axis=1))
    inside = dict(by_domain(study, rows["in_domain"]))
    missed = {}
    for kind in (kind for of, kind in predictions.folds if of == layer):
        apart = neighbour_distances(places, predictions.folds[layer, kind])
        for domain, of_cells in by_domain(study, predictions.in_domain):
            if of_cells.any() and inside[domain].any():
                distance = Distribution(away[of_cells]).wasserstein(apart[inside[domain]])
                missed[kind, domain] = distance / 1000
    return missed


def estimates_table(rows: list[dict]) -> pd.DataFrame:
    """Return rows of `headline_row` as a table with the columns of `estimate_accuracy`."""
    ends = [f"{score}_{end}" for score in HEADLINE_SCORES for end in ("lower", "upper")]
    keys = ["layer", "domain", "estimate", "reference", "n", "n_effective"]
    return pd.DataFrame(rows).reindex(columns=[*keys, *HEADLINE_SCORES, "wasserstein_km", *ends])


def headline_row(
    study: Study,
    reference: np.ndarray,
    mapped: np.ndarray,
    draws: tuple[np.ndarray, np.ndarray] | None = None,
    shares: np.ndarray | None = None,
    known: KnownGround | None = None,
) -> dict[str, float]:
    """Return n, the `HEADLINE_SCORES`, and the ends of their intervals if draws have two blocks.

    With `shares`, how much of the map has each class, scores are those of the post-stratified
    matrix, and the effective number is Kish's. With `known` shares of ground they are of the matrix
    that agrees with these, and draws have them from their ranges.
    """
    permafrost = study.target_classes.permafrost
    size = len(permafrost)
    columns = reference
    if known is not None:  # once more the classes, of samples with permafrost in another layer
        columns = reference + size * known.elsewhere

    def weighed(matrix: np.ndarray, place: npt.ArrayLike) -> np.ndarray:
        if shares is None:
            return matrix
        areas = by_mapped_share(matrix, shares)
        if known is None:
            return areas
        return raked(areas, known.groups(permafrost), known.shares(place))

    def headline(areas: np.ndarray) -> np.ndarray:
        folded = areas.reshape(*areas.shape[:-1], -1, size).sum(axis=-2)
        scores = matrix_scores(folded)
        return np.stack([scores[name] for name in HEADLINE_SCORES], axis=-1)

    width = 2 * size if known is not None else size
    block = np.zeros(len(reference), int) if draws is None else draws[0]
    counts = np.ones((1, block.max() + 1), int) if draws is None else draws[1]
    matrix, *drawn = bootstrap_matrices(columns, mapped, (size, width), (block, counts))
    areas = weighed(matrix, 0.5)
    values = headline(areas)
    row = {"n": len(reference), **dict(zip(HEADLINE_SCORES, values.tolist(), strict=True))}
    row["n_effective"] = effective_number(matrix, areas)
    if counts.shape[1] > 1:
        places = np.random.default_rng(study.accuracy.seed).random(len(drawn))
        values = headline(weighed(np.array(drawn), places))
        ends = interval(values, study.accuracy.interval, block)
        for score, (lower, upper) in zip(HEADLINE_SCORES, ends.T.tolist(), strict=True):
            row |= {f"{score}_lower": lower, f"{score}_upper": upper}
    return row


def plot_estimates(
    study: Study,
    estimates: pd.DataFrame,
    areas: pd.DataFrame | None = None,
    references: References = REFERENCES,
    labels: Mapping[str, str] = ESTIMATES,
) -> Figure:
    """Plot the headline scores of each layer by every estimate, with their intervals.

    Below them are plotted the areas from `helpers.accuracy.by_area.class_areas`. All are of the
    potential-permafrost domain. Labels are names of the estimates.
    """
    domain = study.domains[-1]
    shown = estimates[estimates["domain"] == domain]
    names = [name for name in reversed(labels) if (shown["estimate"] == name).any()]
    layers = shown["layer"].unique()
    heights = [9 + 3.6 * len(names)] * len(HEADLINE_SCORES)
    if areas is not None:
        heights.append(16 + 4.2 * areas["class"].nunique())
    height = sum(heights) + 16
    grid = {"sharex": "row", "sharey": "row", "gridspec_kw": {"height_ratios": heights}}
    figure, axes = panels(len(heights), len(layers), height, **grid)
    for score, row in zip(HEADLINE_SCORES, axes, strict=False):
        for layer, panel in zip(layers, row, strict=True):
            _plot_score(panel, shown[shown["layer"] == layer], score, names, references)
            panel.set_yticks(range(len(names)), [labels[name] for name in names])
    for layer, panel in zip(layers, axes[0], strict=True):
        panel.set_title(f"{layer_title(layer)}, {domain.replace('_', ' ')}")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncols=2, frameon=False)
    if areas is not None:
        for layer, panel in zip(layers, axes[-1], strict=True):
            plot_areas(panel, areas[(areas["layer"] == layer) & (areas["domain"] == domain)])
        axes[-1, 0].legend(loc="center right", frameon=False, handletextpad=0.3)
    # Margins in mm for the longest name: a layout engine would draw all labels twice, slowly.
    left = (4 + 1.27 * max(len(labels[name]) for name in names)) / WIDTH_MM
    figure.subplots_adjust(left, 14 / height, 1 - 3 / WIDTH_MM, 1 - 13 / height, 0.08, 0.42)
    mark_label(figure, study.label)
    return figure


def _plot_score(
    axes: Axes, estimates: pd.DataFrame, score: str, names: list[str], references: References
) -> None:
    """Plot one score of one layer: a row for each estimate, a marker for each reference."""
    for reference, (marker, colour, label) in references.items():
        shown = estimates[estimates["reference"] == reference]
        places = [names.index(name) for name in shown["estimate"]]
        if reference == "samples":
            lower, upper = shown[f"{score}_lower"], shown[f"{score}_upper"]
            axes.hlines(places, lower, upper, color=colour, linewidth=0.7)
        look = {"markersize": 4, "color": colour, "fillstyle": "none", "label": label}
        axes.plot(shown[score], places, marker, **look)
    axes.set_xlabel(score.replace("_", " ").replace("f1", "F1"))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", color="0.92", linewidth=0.4)
