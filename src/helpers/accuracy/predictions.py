"""What forests predict for samples and cells that they were not grown from."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import cpu_count
from sklearn.base import ClassifierMixin

from helpers.core.classes import layer_name
from helpers.core.files import write_aside
from helpers.core.grid import cell_areas, grid_step, reference_grid
from helpers.core.scores import AccuracyError
from helpers.core.study import DOMAINS, Study
from helpers.folds import distances
from helpers.folds.curves import fold_kinds
from helpers.forest.hurdle import (
    UNITS,
    Hurdle,
    fit_hurdle,
    mapped_types,
    permafrost_cut,
    predict_held_out,
    predict_rows,
    steps,
)
from helpers.forest.models import class_probabilities, fit
from helpers.forest.out_of_fold import out_of_fold
from helpers.prepare.domain import by_domain
from helpers.samples.extract import cell_points, evaluation_cells
from helpers.samples.prevalence import known_share, shift_at
from helpers.samples.rows import forest_predictors, layer_rows

MAPS = {"reference": "map of the reference's method", "expected": "map of the expected area"}
"""Both maps of classes: their keys in tables, and names."""

_BY_LAYER = ("folds", "out_of_fold", "test", "mapped", "cuts", "known")  # fields that a file holds


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the models of one map predicted for samples and cells that they were not grown from.

    Samples, classes and probabilities, shape (n, k), are by layer, and folds by layer and their
    kind. Test samples and cells are predicted by the model of the training samples.
    """

    rows: dict[str, pd.DataFrame]  # training samples
    tested: dict[str, pd.DataFrame]  # test samples
    folds: dict[tuple[str, str], np.ndarray]  # of the training samples
    out_of_fold: dict[tuple[str, str], np.ndarray]  # their probabilities
    test: dict[str, np.ndarray]  # probabilities of the test samples
    map_cells: distances.MapCells
    areas: dict[str, float]  # km2 of the study's `domains`
    cells: np.ndarray  # flat indices of cells in regular steps that stand for the map
    in_domain: np.ndarray  # whether these cells lie in the domain
    mapped: dict[str, np.ndarray]  # class of these cells
    cuts: dict[str, int]  # from which step of P the expected area is mapped; 0 in the reference's
    known: dict[str, np.ndarray]  # low, given and high share of permafrost in the domain, if any is

    def classes_of(self, study: Study, layer: str, probabilities: np.ndarray) -> np.ndarray:
        """Return the class that the map has by probabilities, shape (n, k)."""
        return _classes(study, probabilities, self.cuts[layer])


def _classes(study: Study, probabilities: np.ndarray, cut: int) -> np.ndarray:
    if not cut:
        return probabilities.argmax(axis=1)
    permafrost = study.target_classes.permafrost
    chance = probabilities[:, permafrost].sum(axis=1)
    return mapped_types(probabilities, steps(chance) >= cut, permafrost)


def predict_samples(
    study: Study,
    table: pd.DataFrame,
    params: dict[str, dict[str, Any]],
    forests: dict[str, ClassifierMixin] | None = None,
    hurdles: dict[str, Hurdle] | None = None,
    n_jobs: int = -1,
) -> dict[str, Predictions]:
    """Predict samples and cells by models that were not grown from them, for each of `MAPS`.

    Hyperparameters of forests are by layer, and so are the models of the training samples, which by
    default are grown here.
    """
    codes = study.target_classes.codes
    rows, tested = _split_rows(study, table)
    map_cells = distances.map_cells(study)
    folds = {
        (layer, kind): fold
        for layer, part in rows.items()
        for kind, fold in fold_kinds(study, part, map_cells).items()
    }
    forests = forests or {layer: fit(study, table, layer, params[layer], "train") for layer in rows}
    hurdles = hurdles or {layer: fit_hurdle(study, part) for layer, part in rows.items()}
    jobs = [(rows[layer], fold, params[layer]) for (layer, _), fold in folds.items()]
    held_out = out_of_fold(study, jobs, n_jobs)
    jobs = [(rows[layer], fold, hurdles[layer].strata) for (layer, _), fold in folds.items()]
    expected = predict_held_out(study, jobs, n_jobs)
    values, cells, in_domain = evaluation_cells(study)

    places = cell_points(study, cells)

    def of_reference(layer: str) -> tuple[np.ndarray, np.ndarray]:
        parts = forest_predictors(study, tested[layer]), values
        return tuple(class_probabilities(forests[layer], part, codes) for part in parts)

    def of_hurdle(layer: str) -> tuple[np.ndarray, np.ndarray]:
        hurdle = hurdles[layer]
        shift = shift_at(study, hurdle.strata, values, places)
        of_cells = hurdle.predict(values, in_domain, shift).classes
        return predict_rows(study, hurdle, tested[layer]).classes, of_cells

    known = _known_shares(study, hurdles, values[in_domain], places[in_domain])
    found = {}
    areas = _areas(study, map_cells)
    parts = held_out, [one.classes for one in expected]
    for name, predict, of_folds in zip(MAPS, (of_reference, of_hurdle), parts, strict=True):
        with ThreadPoolExecutor(cpu_count()) as pool:
            tests, chances = zip(*pool.map(predict, rows), strict=True)
        test, chances = (dict(zip(rows, part, strict=True)) for part in (tests, chances))
        cuts = {layer: _cut(study, part, name) for layer, part in chances.items()}
        mapped = {layer: _classes(study, part, cuts[layer]) for layer, part in chances.items()}
        by_fold = dict(zip(folds, of_folds, strict=True))
        found[name] = Predictions(
            rows=rows,
            tested=tested,
            folds=folds,
            out_of_fold=by_fold,
            test=test,
            map_cells=map_cells,
            areas=areas,
            cells=cells,
            in_domain=in_domain,
            mapped=mapped,
            cuts=cuts,
            known=known,
        )
    return found


def _known_shares(
    study: Study, hurdles: dict[str, Hurdle], values: np.ndarray, places: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `known_share` of the layers that have a table of shares, from cells of the domain."""
    found = {}
    for layer, hurdle in hurdles.items():
        if hurdle.strata:
            shift = shift_at(study, hurdle.strata, values, places)
            chances = hurdle.predict(values, np.ones(len(values), bool), shift).classes
            frozen = chances[:, study.target_classes.permafrost].sum(axis=1)
            found[layer] = known_share(study, hurdle.strata, frozen, values, places)
    return found


@dataclass(frozen=True)
class KnownGround:
    """What is known of the ground of a domain, and of samples that are evaluated with it.

    Shares, low, given and high, shape (3,), are of ground with permafrost in the layer, and in any
    layer. ``elsewhere`` says which samples, shape (n,), have permafrost in another layer alone:
    people who seek ice drill there, too.
    """

    permafrost: np.ndarray
    anywhere: np.ndarray
    elsewhere: np.ndarray

    def of(self, chosen: np.ndarray) -> "KnownGround":
        """Return the same of chosen samples, a mask of shape (n,)."""
        return replace(self, elsewhere=self.elsewhere[chosen])

    def groups(self, permafrost: np.ndarray) -> np.ndarray:
        """Return groups of columns for `helpers.core.scores.raked`, shape (3, 2k).

        They are permafrost, permafrost elsewhere and none. Columns are the k classes, and once more
        those of samples with permafrost elsewhere.

        Examples
        --------
        >>> known = KnownGround(np.zeros(3), np.zeros(3), np.array([False]))
        >>> known.groups(np.array([False, True])).astype(int).tolist()  # two classes, and once more
        [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]
        """
        first = np.repeat([True, False], len(permafrost))
        frozen = np.tile(permafrost, 2)
        return np.stack([frozen, ~frozen & ~first, ~frozen & first])

    def shares(self, place: npt.ArrayLike) -> np.ndarray:
        """Return the shares of the groups at places, 0 to 1, in their ranges: shape (..., 3).

        Examples
        --------
        >>> layer, any_layer = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.5, 0.7])
        >>> known = KnownGround(layer, any_layer, elsewhere=np.array([False]))
        >>> known.shares([0, 0.5, 1]).round(2).tolist()  # in the layer, elsewhere alone, nowhere
        [[0.2, 0.2, 0.6], [0.3, 0.2, 0.5], [0.5, 0.2, 0.3]]
        """
        frozen, anywhere = (
            np.interp(place, [0, 0.5, 1], known) for known in (self.permafrost, self.anywhere)
        )
        return np.stack([frozen, anywhere - frozen, 1 - anywhere], axis=-1)


def known_ground(
    study: Study, predictions: Predictions, layer: str, rows: pd.DataFrame
) -> dict[str, KnownGround | None]:
    """Return what is known of both domains, for samples of a layer; None if nothing is.

    Outside of the potential-permafrost domain there is no permafrost. In any layer there is as much
    as in that which has most of it.
    """
    known = predictions.known
    if layer not in known:
        return dict.fromkeys(DOMAINS)
    most = max(known.values(), key=lambda shares: shares[1])
    frozen = set()
    for part in (*predictions.rows.values(), *predictions.tested.values()):
        permafrost = study.target_classes.permafrost[part["class"]]
        frozen |= set(part.loc[permafrost, "site_id"])
    elsewhere = ~study.target_classes.permafrost[rows["class"]] & rows["site_id"].isin(frozen)
    elsewhere = elsewhere.to_numpy() & (known[layer][1] < most[1])
    inside = predictions.in_domain.mean()
    return {
        domain: KnownGround(share * known[layer], share * most, elsewhere)
        for domain, share in zip(DOMAINS, (inside, 1.0), strict=True)
    }


def _cut(study: Study, probabilities: np.ndarray, name: str) -> int:
    """Return the cut of a map by the probabilities of cells that stand for it."""
    if name == "reference":
        return 0
    chance = probabilities[:, study.target_classes.permafrost].sum(axis=1)
    return permafrost_cut(np.bincount(steps(chance), minlength=UNITS + 1))


def _split_rows(study: Study, table: pd.DataFrame) -> Iterator[dict[str, pd.DataFrame]]:
    """Yield the training and then the test samples of each layer."""
    layers = [layer_name(layer) for layer in study.layers]
    for part in ("train", "test"):
        yield {layer: layer_rows(table, layer, part, study.target_classes) for layer in layers}


def predictions_file(study: Study) -> Path:
    """Return the file of a run's predictions."""
    return study.results_dir / "tables" / "predictions.npz"


def write_predictions(study: Study, predictions: Mapping[str, Predictions]) -> None:
    """Write predictions as arrays, so that later notebooks need no model to evaluate them."""
    first = next(iter(predictions.values()))
    arrays: dict[str, Any] = {"cells": first.cells, "in_domain": first.in_domain}
    for which, one in predictions.items():
        for name in _BY_LAYER:
            for key, values in getattr(one, name).items():
                arrays["/".join((which, name, *np.atleast_1d(key)))] = values
    with write_aside(predictions_file(study)) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)


def read_predictions(study: Study, table: pd.DataFrame) -> dict[str, Predictions]:
    """Read the predictions of a run's samples; raise AccuracyError if there are none."""
    path = predictions_file(study)
    if not path.is_file():
        raise AccuracyError(f"This run has no {path.name}.", "run 04-evaluate-accuracy")
    rows, tested = _split_rows(study, table)
    fields = {which: {name: {} for name in _BY_LAYER} for which in MAPS}
    with np.load(path) as arrays:
        same = {name: arrays[name] for name in ("cells", "in_domain")}
        for key in (key for key in arrays.files if key not in same):
            which, name, *keys = key.split("/")
            fields[which][name][tuple(keys) if len(keys) > 1 else keys[0]] = arrays[key]
    folds = fields["reference"]["folds"].items()
    if any(len(fold) != len(rows[layer]) for (layer, _), fold in folds):
        raise AccuracyError(f"{path.name} is of other samples.", "run 04-evaluate-accuracy")
    map_cells = distances.map_cells(study)
    same |= {"rows": rows, "tested": tested, "map_cells": map_cells}
    same |= {"areas": _areas(study, map_cells)}
    return {which: Predictions(**same, **of_map) for which, of_map in fields.items()}


def mapped_areas(
    study: Study, predictions: Predictions, layer: str
) -> dict[str, tuple[np.ndarray, float]]:
    """Return how much of the map has each class by the model of the training samples.

    For each of the study's `domains` it is the number of cells in regular steps that have
    each class, and the area of the whole domain, km2.
    """
    size = len(study.target_classes.codes)
    mapped = predictions.mapped[layer]
    return {
        name: (np.bincount(mapped[inside], minlength=size), predictions.areas[name])
        for name, inside in by_domain(study, predictions.in_domain)
    }


def _areas(study: Study, map_cells: distances.MapCells) -> dict[str, float]:
    geobox = reference_grid(study)
    step = grid_step(study)
    centres, in_domain = map_cells
    column, row = ~geobox.transform * tuple(centres.T)
    every = slice(None, None, step)
    stepped = cell_areas(geobox, (every, every))
    areas = step**2 * stepped[row.astype(int) // step, column.astype(int) // step]
    return {name: float(areas[inside].sum()) for name, inside in by_domain(study, in_domain)}
