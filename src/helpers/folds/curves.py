"""Folds of every kind side by side, and their distances as curves."""

import numpy as np
import pandas as pd

from helpers.core.classes import layer_title
from helpers.core.study import Study
from helpers.folds.distances import (
    Distribution,
    MapCells,
    neighbour_distances,
    prediction_distances,
)
from helpers.folds.kinds import sample_folds
from helpers.samples.together import FoldError, coordinates, sample_units

# Colours of Okabe and Ito, made for colour-blind readers; lines differ too, so that grey prints do.
CURVES = {
    "prediction": ("map's cells to samples", "0.0", "-", 1.8),
    "samples": ("samples to samples", "0.55", "-", 0.9),
    "random": ("random folds", "#d55e00", ":", 1.4),
    "knndm": ("kNNDM folds", "#0072b2", "--", 1.2),
    "blocks": ("spatial blocks", "#009e73", "-.", 1.1),
    "column": ("folds by column", "#cc79a7", "-", 1.1),
    "cells": ("single cells", "#e69f00", ":", 1.1),
}
"""Curves of nearest-neighbour distances: label, colour, line and its width."""


def fold_kinds(
    study: Study, rows: pd.DataFrame, cells: MapCells | None = None
) -> dict[str, np.ndarray]:
    """Deal samples into folds of every kind that the study allows; arguments as of `sample_folds`.

    The study's own kind must be possible; of the others there are those that are, folds by a column
    only where the study names one, and folds of single cells only where polygons have many. A kind
    that only informs, and of which a fold holds all samples with permafrost or all without, is left
    out, and that is printed: nothing could be learnt without this fold.
    """
    folds = {}
    possible = {"column": study.folds.column, "cells": study.samples.areas}
    for kind in ("random", "knndm", "blocks", "column", "cells"):
        if not possible.get(kind, True):
            continue
        try:
            folds[kind] = sample_folds(study, rows, kind, cells)
        except FoldError:
            if kind == study.folds.kind:
                raise
            continue
        informs = kind not in (study.folds.kind, "knndm")
        if informs and (why := _whole_kind(study, rows, folds[kind])):
            layer = layer_title(rows["layer"].iloc[0])
            print(f"{layer}: {CURVES[kind][0]} are left out, for {why}.")
            del folds[kind]
    return folds


def _whole_kind(study: Study, rows: pd.DataFrame, fold: np.ndarray) -> str:
    """Say which fold has all samples with permafrost, or all without; "" if none has."""
    frozen = study.target_classes.permafrost[rows["class"]]
    for which, of_kind in (("with", frozen), ("without", ~frozen)):
        holders = np.unique(fold[of_kind])
        if len(holders) == 1:
            return f"fold {holders[0]} holds all {of_kind.sum()} samples {which} permafrost"
    return ""


def fold_summary(
    study: Study, rows: pd.DataFrame, folds: dict[str, np.ndarray], curves: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Return how folds of each kind (`fold_kinds`) and their curves (`distance_curves`) look.

    Sizes are those of folds, ``wasserstein_km`` is between the distances that folds and the map are
    predicted over, and ``lacking`` names the classes that a fold lacks: its own scores say less.
    """
    target = Distribution(curves["prediction"])
    names = [kind.name for kind in study.target_classes.classes]
    table = {}
    for kind, fold in folds.items():
        size = np.bincount(fold)
        counts = pd.crosstab(fold, rows["class"].to_numpy())
        lacking = [
            f"fold {number}: {', '.join(names[code] for code in counts.columns[row == 0])}"
            for number, row in counts.iterrows()
            if (row == 0).any()
        ]
        table[kind] = {
            "smallest": size.min(),
            "largest": size.max(),
            "wasserstein_km": target.wasserstein(curves[kind]),
            "lacking": "; ".join(lacking),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("kind")


def distance_curves(
    study: Study, rows: pd.DataFrame, folds: dict[str, np.ndarray], cells: MapCells
) -> dict[str, np.ndarray]:
    """Return nearest-neighbour distances, km, sorted, in the domain that `folds.judged` names.

    They are those from the map's cells to samples (``prediction``), among ``samples``, leaving one
    unit out, and between folds, by their kind.
    """
    places = coordinates(rows).astype(float)
    whole = study.folds.judged == "whole"
    evaluated = rows["in_domain"].to_numpy(bool) | whole
    centres, in_domain = cells
    distances = {
        "prediction": prediction_distances(places, centres if whole else centres[in_domain])
    }
    for name, label in {"samples": sample_units(study, rows), **folds}.items():
        distances[name] = neighbour_distances(places, label)[evaluated]
    return {name: np.sort(values) / 1000 for name, values in distances.items()}


def curve_table(curves: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return the distances, km, within which shares of cells or samples have a neighbour.

    `curves` has those of each layer, from `distance_curves`. Rows are by layer, kind of distances
    and share, in steps of half a percent.
    """
    shares = np.linspace(0, 1, 201)
    parts = {
        key: pd.DataFrame({"share": shares, "km": np.quantile(distances, shares)})
        for layer, of_layer in curves.items()
        for key, distances in {(layer, kind): km for kind, km in of_layer.items()}.items()
    }
    return pd.concat(parts, names=["layer", "kind"]).droplevel(2).reset_index()
