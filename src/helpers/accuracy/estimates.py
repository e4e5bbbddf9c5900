"""What estimates of accuracy are worth: several kinds of folds side by side, and beside the truth where it is known.

A score from samples may be off for three reasons, which the tables keep apart: samples lie elsewhere than the map's
cells (folds and weights try to mend it), a hole is not its cell (the reference `cells` shows by how much), and the
hyperparameters were chosen for the very score (`selection_optimism`).
"""

import numpy as np
import pandas as pd

import testbed.against_truth
from helpers.accuracy.by_area import plot_areas
from helpers.accuracy.predictions import by_domain, mapped_areas, predict_samples
from helpers.accuracy.report import evaluate
from helpers.core.classes import TARGETS
from helpers.core.files import write_tables
from helpers.core.grid import cell_centres, reference_grid
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import (
    HEADLINE_SCORES,
    bootstrap_matrices,
    by_mapped_share,
    confusion_matrix,
    f1,
    interval,
    kappa,
    macro,
    mapped_class,
    overall_accuracy,
)
from helpers.folds.blocks import bootstrap
from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.folds.weights import sampling_weights

ESTIMATES = {
    "random": "random folds",
    "random_weighted": "random folds, weighted",
    "random_adjusted": "random folds, by mapped area",
    "knndm": "kNNDM folds",
    "knndm_adjusted": "kNNDM folds, by mapped area",
    "blocks": "spatial blocks",
    "blocks_adjusted": "spatial blocks, by mapped area",
    "column": "folds by column",
    "column_adjusted": "folds by column, by mapped area",
    "test": "test samples",
    "test_adjusted": "test samples, by mapped area",
    "true_train": "truth, forest of the training samples",
    "true_map": "truth, forest of the map",
}
"""Estimates of a map's accuracy, by their keys in ``validation.json``.

Those by mapped area count each mapped class as much as the map has of it, not as often as samples hit it
(post-stratification: Olofsson et al., 2014).
"""


REFERENCES = {
    "samples": ("o", "#0072b2", "against the samples' own class"),
    "cells": ("s", "#d55e00", "against the true class of their cells"),
}
"""What predictions are compared with: marker, colour and label."""


def evaluate_folds(study, predictions):
    """Judge the pooled out-of-fold predictions of every kind of folds by `helpers.accuracy.report.evaluate`.

    Returns
    -------
    dict of str to dict
        Kind of folds to layer to domain to report.
    """
    found = {}
    for (layer, kind), probabilities in predictions.unseen.items():
        areas = mapped_areas(study, predictions, layer)
        found.setdefault(kind, {})[layer] = evaluate(study, predictions.rows[layer], probabilities, mapped=areas)
    return found


def estimate_accuracy(study, table, params, truth=None, models=None, n_jobs=-1, predictions=None):
    """Estimate the accuracy of each layer's map in every way, at hyperparameters that are chosen already.

    Folds are dealt among the training samples, and their predictions are pooled before they are scored. The
    hyperparameters were chosen on the same samples, so that estimates from folds are a little too high:
    `selection_optimism` says by how much. The test samples are free of that.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples of all layers.
    params : dict of str to dict
        Hyperparameters of each layer, such as `helpers.forest.grid_search.Search.params`.
    truth : dict of str to numpy.ndarray, optional
        True ice type of each cell of the reference grid by ``ice_type_<layer>``, and what a hole there would find by
        ``hole_type_<layer>``, as `testbed.truth.true_rasters` returns them. Of `TRUE_CELLS` cells the
        true accuracy is told.
    models : dict of str to dict, optional
        For each layer the forests ``train`` and ``map``; grown here by default.
    n_jobs : int
        Threads at once. The result does not depend on it.
    predictions : Predictions, optional
        From `predict_samples`, with the other arguments, which is the default.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain, estimate (a key of `ESTIMATES`) and reference: `samples`, and with the truth also
        `cells`, the true class of the sample's cell; of the truth itself, `samples` are one hole in each cell. With n,
        the `SCORES`, for folds `wasserstein_km`, by how much they miss the distances over which the cells of the domain
        are predicted, and for estimates from samples the ends of each score's interval, such as ``kappa_lower`` and
        ``kappa_upper``, by a bootstrap of blocks (the
        study's section `accuracy`). Intervals tell what other samples of the same kind would have said; that samples
        lie elsewhere than cells, or are not like them, is in none.
    """
    done = predictions or predict_samples(study, table, params, models, n_jobs)
    cells, found = done.map_cells, []
    easting, northing = cell_centres(reference_grid(study))
    row, column = np.divmod(done.cells, len(easting))
    middles = np.stack([easting[column], northing[row]], axis=1)
    for layer, rows in done.rows.items():
        true = None if truth is None else truth[f"ice_type_{layer}"]
        places = rows[["easting", "northing"]].to_numpy(float)
        targets = {domain: cells[0][inside] for domain, inside in by_domain(cells[1])}
        apart = prediction_distances(places, middles)
        away = {domain: Distribution(apart[inside]) for domain, inside in by_domain(done.in_domain)
                if inside.any()}  # fmt: skip
        draws, shares = (
            _draws(study, rows),
            {name: cells for name, (cells, _) in mapped_areas(study, done, layer).items()},
        )
        for (_, kind), fold in ((key, fold) for key, fold in done.folds.items() if key[0] == layer):
            found += _from_folds(study, rows, kind, fold, done.unseen[layer, kind], targets, away, true, draws, shares)
        found += _from_samples(study, done.tested[layer], done.test[layer], true, shares)
        if truth is not None:
            found += testbed.against_truth.true_scores(
                study, layer, done, {"cells": true, "samples": truth[f"hole_type_{layer}"]}
            )
    ends = [f"{score}_{end}" for score in HEADLINE_SCORES for end in ("lower", "upper")]
    columns = ["layer", "domain", "estimate", "reference", "n", *HEADLINE_SCORES, "wasserstein_km", *ends]
    return pd.DataFrame(found).reindex(columns=columns)


def _draws(study, rows):
    """Return bootstrap draws of the samples of each domain: the same for all that is estimated from them."""
    return {domain: bootstrap(study, rows[inside]) for domain, inside in by_domain(rows["in_domain"])
            if inside.any()}  # fmt: skip


def _from_folds(study, rows, kind, fold, probabilities, targets, away, true, draws, shares):
    """Return the scores of pooled out-of-fold predictions by domain, also adjusted, and of random folds weighted."""
    places, mapped = rows[["easting", "northing"]].to_numpy(float), mapped_class(probabilities, study.target)
    apart, found = neighbour_distances(places, fold), []
    for domain, inside in by_domain(rows["in_domain"]):
        if domain not in away or not inside.any():
            continue
        more = {"wasserstein_km": away[domain].wasserstein(apart[inside]) / 1000}
        judged = (study, rows[inside], mapped[inside], domain)
        found += _judged(*judged, kind, true, draws[domain], more)
        found += _judged(*judged, f"{kind}_adjusted", true, draws[domain], more, shares=shares[domain])
        if kind == "random":
            weight = sampling_weights(places[inside], targets[domain], study.grid.resolution**2)
            found += _judged(*judged, "random_weighted", true, draws[domain], more, weight)
    return found


def _from_samples(study, rows, probabilities, true, shares):
    mapped, draws, found = mapped_class(probabilities, study.target), _draws(study, rows), []
    for domain, inside in by_domain(rows["in_domain"]):
        if inside.any():
            judged = (study, rows[inside], mapped[inside], domain)
            found += _judged(*judged, "test", true, draws[domain])
            found += _judged(*judged, "test_adjusted", true, draws[domain], shares=shares[domain])
    return found


def _judged(study, rows, mapped, domain, estimate, true, draws, more=None, weight=None, shares=None):
    """Return a row of scores against the samples' own classes, and with the truth one against their cells'."""
    known = {"samples": rows["class"].to_numpy()}
    if true is not None:
        known["cells"] = testbed.against_truth.class_at(study, true, rows)
    return [
        {"layer": rows["layer"].iloc[0], "domain": domain, "estimate": estimate, "reference": reference}
        | headline_row(study, classes, mapped, weight, draws, shares) | (more or {})
        for reference, classes in known.items()
    ]  # fmt: skip


def headline_row(study, reference, mapped, weight=None, draws=None, shares=None):
    """Return n, the `SCORES`, and the ends of their intervals where there are draws of two blocks or more.

    With `shares`, how much of the map has each class, scores are those of the post-stratified matrix.
    """
    codes = TARGETS[study.target].codes

    def headline(matrix):
        matrix = matrix if shares is None else by_mapped_share(matrix, shares)
        found = overall_accuracy(matrix), kappa(matrix), macro(f1(matrix), matrix)
        return np.stack(found, axis=-1)

    values = headline(confusion_matrix(reference, mapped, codes, weight))
    row = {"n": len(reference), **dict(zip(HEADLINE_SCORES, values.tolist(), strict=True))}
    if draws is not None and draws[1].shape[1] > 1:
        drawn = bootstrap_matrices(reference, mapped, len(codes), draws, weight)[1:]
        ends = interval(headline(drawn), study.accuracy.interval, draws[0])
        for score, (lower, upper) in zip(HEADLINE_SCORES, ends.T.tolist(), strict=True):
            row |= {f"{score}_lower": lower, f"{score}_upper": upper}
    return row


def write_estimates(study, found):
    """Write the table of `estimate_accuracy` as CSV, and as JSON by layer, domain, estimate and reference.

    Parameters
    ----------
    study : helpers.core.study.Study
    found : pandas.DataFrame

    Returns
    -------
    dict
        As written to ``validation.json``, beside ``validation.csv``.
    """
    return write_tables(
        study.results_dir / "tables" / "validation", found, ["layer", "domain", "estimate", "reference"]
    )


def plot_estimates(study, found, domain="potential_permafrost", areas=None):
    """Draw the headline scores of each layer by every estimate, beside the truth where it is known.

    Parameters
    ----------
    study : helpers.core.study.Study
    found : pandas.DataFrame
        From `estimate_accuracy`.
    domain : str
        One of `helpers.core.scores.DOMAINS`.
    areas : pandas.DataFrame, optional
        From `class_areas`: drawn below the scores.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    found = found[found["domain"] == domain]
    names = [name for name in reversed(ESTIMATES) if (found["estimate"] == name).any()]
    layers, heights = found["layer"].unique(), [9 + 3.6 * len(names)] * len(HEADLINE_SCORES)
    heights += [16 + 4.2 * areas["class"].nunique()] if areas is not None else []
    size = (WIDTH_MM / 25.4, (sum(heights) + 16) / 25.4)
    figure, axes = plt.subplots(
        len(heights), len(layers), figsize=size, sharex="row", sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for score, row in zip(HEADLINE_SCORES, axes, strict=False):
        for layer, panel in zip(layers, row, strict=True):
            part = found[found["layer"] == layer].set_index("estimate")
            for reference, (marker, colour, label) in REFERENCES.items():
                shown = part[part["reference"] == reference]
                places = [names.index(name) for name in shown.index]
                if reference == "samples":
                    panel.hlines(places, shown[f"{score}_lower"], shown[f"{score}_upper"], color=colour, linewidth=0.7)
                panel.plot(shown[score], places, marker, markersize=4, color=colour, fillstyle="none", label=label)
                for true in shown.loc[shown.index == "true_train", score]:
                    panel.axvline(true, color=colour, linewidth=0.6, linestyle=":", zorder=0)
            panel.set(xlabel=score.replace("_", " ").replace("f1", "F1"), ylim=(-0.6, len(names) - 0.4))
            panel.set_yticks(range(len(names)), [ESTIMATES[name] for name in names])
            panel.grid(axis="y", color="0.92", linewidth=0.4)
    for layer, panel in zip(layers, axes[0], strict=True):
        panel.set_title(f"{layer.removesuffix('m')} m, {domain.replace('_', ' ')}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, frameon=False)
    if areas is not None:
        for layer, panel in zip(layers, axes[-1], strict=True):
            plot_areas(panel, areas[(areas["layer"] == layer) & (areas["domain"] == domain)])
        axes[-1, 0].legend(loc="center right", frameon=False, handletextpad=0.3)
    figure.tight_layout(rect=(0, 0.02, 1, 1 - 6 / 25.4 / size[1]))
    if study.simulated:
        mark_simulated(figure)
    return figure
