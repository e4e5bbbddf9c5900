"""What forests predict for samples and cells that they were not grown from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import cpu_count
from sklearn.base import ClassifierMixin

from helpers.core.classes import layer_name
from helpers.core.files import write_aside
from helpers.core.grid import area_mask, cell_areas, reference_grid
from helpers.core.scores import AccuracyError, mapped_class
from helpers.core.study import Study
from helpers.folds import distances
from helpers.folds.curves import fold_kinds
from helpers.forest.models import class_probabilities, fit
from helpers.forest.out_of_fold import out_of_fold
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import by_domain, domain_of_cells
from helpers.samples.extract import read_predictors
from helpers.samples.rows import forest_predictors, layer_rows

EVALUATION_CELLS = 25_000
"""About so many cells, in regular steps, stand for the map.

The standard error of a share is below 0.004 in the whole area, and 0.006 in the default domain.
"""

_BY_LAYER = ("folds", "out_of_fold", "test", "mapped")  # fields that a file of predictions holds


@dataclass(frozen=True, eq=False)
class Predictions:
    """What forests predicted for samples and cells that they were not grown from.

    Samples, classes and probabilities, shape (n, k), are by layer, and folds by layer and their
    kind. Test samples and cells are predicted by the forest of the training samples.
    """

    rows: dict[str, pd.DataFrame]  # training samples
    tested: dict[str, pd.DataFrame]  # test samples
    folds: dict[tuple[str, str], np.ndarray]  # of the training samples
    out_of_fold: dict[tuple[str, str], np.ndarray]  # their probabilities
    test: dict[str, np.ndarray]  # probabilities of the test samples
    map_cells: distances.MapCells
    cells: np.ndarray  # flat indices of cells in regular steps that stand for the map
    in_domain: np.ndarray  # whether these cells lie in the domain
    mapped: dict[str, np.ndarray]  # class of these cells


def predict_samples(
    study: Study,
    table: pd.DataFrame,
    params: dict[str, dict[str, Any]],
    forests: dict[str, ClassifierMixin] | None = None,
    n_jobs: int = -1,
) -> Predictions:
    """Predict samples and cells by forests that were not grown from them.

    Hyperparameters are by layer, and so are the forests of the training samples, which by default
    are grown here.
    """
    codes = study.target_classes.codes
    rows, tested = _split_rows(study, table)
    map_cells = distances.map_cells(study)
    folds = {
        (layer, kind): fold
        for layer, part in rows.items()
        for kind, fold in fold_kinds(study, part, map_cells).items()
    }
    jobs = [(rows[layer], fold, params[layer]) for (layer, _), fold in folds.items()]
    held_out = dict(zip(folds, out_of_fold(study, jobs, n_jobs), strict=True))
    if forests is None:
        forests = {layer: fit(study, table, layer, params[layer], "train") for layer in rows}
    test = {
        layer: class_probabilities(forests[layer], forest_predictors(study, part), codes)
        for layer, part in tested.items()
    }
    values, cells, in_domain = evaluation_cells(study)

    def mapped(layer: str) -> np.ndarray:
        return mapped_class(
            class_probabilities(forests[layer], values, codes), study.target_classes
        )

    with ThreadPoolExecutor(cpu_count()) as pool:
        classes = dict(zip(rows, pool.map(mapped, rows), strict=True))
    return Predictions(rows, tested, folds, held_out, test, map_cells, cells, in_domain, classes)


def _split_rows(study: Study, table: pd.DataFrame) -> Iterator[dict[str, pd.DataFrame]]:
    """Yield the training and then the test samples of each layer."""
    layers = [layer_name(layer) for layer in study.layers]
    for part in ("train", "test"):
        yield {layer: layer_rows(table, layer, part, study.target_classes) for layer in layers}


def predictions_file(study: Study) -> Path:
    """Return the file of a run's predictions."""
    return study.results_dir / "tables" / "predictions.npz"


def write_predictions(study: Study, predictions: Predictions) -> None:
    """Write predictions as arrays, so that later notebooks need no forest to evaluate them."""
    arrays = {"cells": predictions.cells, "in_domain": predictions.in_domain}
    for name in _BY_LAYER:
        for key, values in getattr(predictions, name).items():
            arrays["/".join((name, *np.atleast_1d(key)))] = values
    with write_aside(predictions_file(study)) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)


def read_predictions(study: Study, table: pd.DataFrame) -> Predictions:
    """Read the predictions of a run's samples; raise AccuracyError if there are none."""
    path = predictions_file(study)
    if not path.is_file():
        raise AccuracyError(f"This run has no {path.name}.", "run 04-evaluate-accuracy")
    rows, tested = _split_rows(study, table)
    fields = {name: {} for name in _BY_LAYER}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, *keys = key.split("/")
            if keys:
                fields[name][tuple(keys) if len(keys) > 1 else keys[0]] = arrays[key]
            else:
                fields[name] = arrays[key]
    if any(len(fold) != len(rows[layer]) for (layer, _), fold in fields["folds"].items()):
        raise AccuracyError(f"{path.name} is of other samples.", "run 04-evaluate-accuracy")
    return Predictions(rows, tested, map_cells=distances.map_cells(study), **fields)


def mapped_areas(
    study: Study, predictions: Predictions, layer: str
) -> dict[str, tuple[np.ndarray, float]]:
    """Return how much of the map has each class by the forest of the training samples.

    For each of the study's `domains` it is the number of cells in regular steps that have
    each class, and the area of the whole domain, km2.
    """
    size = len(study.target_classes.codes)
    geobox = reference_grid(study)
    centres, in_domain = predictions.map_cells
    column, row = ~geobox.transform * tuple(centres.T)
    areas = cell_areas(geobox)[row.astype(int), column.astype(int)]
    whole = {name: areas[inside].sum() for name, inside in by_domain(study, in_domain)}
    mapped = predictions.mapped[layer]
    return {
        name: (np.bincount(mapped[inside], minlength=size), float(whole[name]))
        for name, inside in by_domain(study, predictions.in_domain)
    }


def evaluation_cells(study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return about `EVALUATION_CELLS` cells in regular steps over the map.

    These are their predictors, shape (cells, predictors), their flat indices on the reference grid,
    and whether they lie in the domain.
    """
    number = area_mask(study, reference_grid(study)).sum()
    step = max(1, round(np.sqrt(number / EVALUATION_CELLS)))
    values, cells = read_predictors(study, forest_columns(study), step=step)
    return values, cells, domain_of_cells(study).ravel()[cells]
