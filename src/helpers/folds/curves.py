"""Folds of every kind side by side, and their distances as curves."""

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.folds.kinds import missing_classes, sample_folds
from helpers.folds.units import FoldError, sample_units

# Colours of Okabe and Ito, which the colour-blind tell apart; lines differ too, so that grey prints serve.
CURVES = {
    "prediction": ("map's cells to samples", "0.0", "-", 1.8),
    "samples": ("samples to samples", "0.55", "-", 0.9),
    "random": ("random folds", "#d55e00", ":", 1.4),
    "knndm": ("kNNDM folds", "#0072b2", "--", 1.2),
    "blocks": ("spatial blocks", "#009e73", "-.", 1.1),
    "column": ("folds by column", "#cc79a7", "-", 1.1),
}
"""Curves of nearest-neighbour distances: label, colour, line and its width."""


def fold_kinds(study, rows, cells=None):
    """Deal samples into folds of every kind that the study allows.

    Parameters
    ----------
    study : helpers.core.study.Study
        Folds by a column are among them where it names one.
    rows : pandas.DataFrame
        Samples of a layer, as from `helpers.samples.rows.layer_rows`.
    cells : tuple of numpy.ndarray, optional
        From `helpers.folds.distances.map_cells`.

    Returns
    -------
    dict of str to numpy.ndarray of int, shape (n,)
        The study's own kind, which must be possible, and of the others those that are.
    """
    found = {}
    for kind in ("random", "knndm", "blocks", "column"):
        if kind == "column" and not study.folds.column:
            continue
        try:
            found[kind] = sample_folds(study, rows, kind, cells)
        except FoldError:
            if kind == study.folds.kind:
                raise
    return found


def fold_summary(study, rows, folds, curves):
    """Return how folds of each kind look, ready to be shown.

    Parameters
    ----------
    study : helpers.core.study.Study
    rows : pandas.DataFrame
        Samples of a layer, as from `helpers.samples.rows.layer_rows`.
    folds : dict of str to numpy.ndarray
        From `fold_kinds`.
    curves : dict of str to numpy.ndarray
        From `distance_curves`.

    Returns
    -------
    pandas.DataFrame
        Index kind: samples in the smallest and the largest fold, `wasserstein_km` between the distances that folds and
        the map are predicted over, and the classes that a fold lacks.
    """
    target, names = Distribution(curves["prediction"]), [kind.name for kind in TARGETS[study.target].classes]
    table = {}
    for kind, fold in folds.items():
        size, lacking = np.bincount(fold), missing_classes(fold, rows["class"])
        text = "; ".join(f"fold {k}: {', '.join(names[code] for code in codes)}" for k, codes in lacking.items())
        distance = target.wasserstein(curves[kind])
        table[kind] = {"smallest": size.min(), "largest": size.max(), "wasserstein_km": distance, "lacking": text}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("kind")


def distance_curves(study, rows, folds, cells):
    """Return nearest-neighbour distances of the judged domain: on the map, among samples, and between folds.

    Parameters
    ----------
    study : helpers.core.study.Study
        `folds.judged` says whether the whole map or the potential-permafrost domain.
    rows : pandas.DataFrame
        Samples of a layer, as from `helpers.samples.rows.layer_rows`.
    folds : dict of str to numpy.ndarray
        From `fold_kinds`.
    cells : tuple of numpy.ndarray
        From `helpers.folds.distances.map_cells`.

    Returns
    -------
    dict of str to numpy.ndarray
        Sorted distances, km: ``prediction``, from cells to samples; ``samples``, leaving one unit out; and by kind of
        folds.
    """
    places = rows[["easting", "northing"]].to_numpy(float)
    judged = rows["in_domain"].to_numpy(bool) | (study.folds.judged == "whole")
    labels = {"samples": sample_units(study, rows), **folds}
    found = {name: neighbour_distances(places, label)[judged] for name, label in labels.items()}
    target = cells[0] if study.folds.judged == "whole" else cells[0][cells[1]]
    found = {"prediction": prediction_distances(places, target)} | found
    return {name: np.sort(distances) / 1000 for name, distances in found.items()}


def plot_distances(study, curves):
    """Draw the share of cells, or of samples, that have their nearest neighbour within a distance.

    Parameters
    ----------
    study : helpers.core.study.Study
    curves : dict of str to dict
        Of each layer, from `distance_curves`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    size = (WIDTH_MM / 25.4, 66 / 25.4)
    figure, axes = plt.subplots(1, len(curves), figsize=size, sharex=True, sharey=True, squeeze=False)
    for panel, (layer, found) in zip(axes[0], curves.items(), strict=True):
        for name, distances in found.items():
            label, colour, line, width = CURVES[name]
            share = np.arange(1, len(distances) + 1) / len(distances)
            kept = np.unique(np.linspace(0, len(share) - 1, 1000).astype(int))  # a million cells draw slowly
            panel.step(distances[kept], share[kept], line, color=colour, linewidth=width, where="post", label=label)
        panel.set(title=f"{layer.removesuffix('m')} m", xscale="log", ylim=(0, 1), xlabel="distance (km)")
        panel.grid(color="0.9", linewidth=0.4)
        panel.set_axisbelow(True)
    axes[0, 0].set_xlim(left=0.5)
    axes[0, 0].set_ylabel("share within the distance")
    axes[0, 0].xaxis.set_major_formatter("{x:g}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False, handlelength=2.2)
    figure.tight_layout(rect=(0, 0.03, 1, 0.93))
    if study.simulated:
        mark_simulated(figure)
    return figure
