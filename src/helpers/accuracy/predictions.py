"""What forests predict for samples and cells that they have not seen: all that estimates of accuracy need."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from joblib import cpu_count

from helpers.core.classes import TARGETS, layer_name
from helpers.core.grid import area_mask, reference_grid
from helpers.core.scores import DOMAINS, mapped_class
from helpers.folds import distances
from helpers.folds.curves import fold_kinds
from helpers.forest.models import class_probabilities, fit
from helpers.forest.out_of_fold import out_of_fold
from helpers.prepare.registry import read_covariates, used_predictors
from helpers.samples.extract import read_predictors
from helpers.samples.rows import layer_rows, predictor_values

EVALUATION_CELLS = 25_000
"""About so many cells, in regular steps, stand for the map: the standard error of a share is below 0.004 in the whole
area, and 0.006 in the default study's domain.
"""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What forests predicted for samples and cells that they had not seen: all that estimates of accuracy need.

    Parameters
    ----------
    rows, tested : dict of str to pandas.DataFrame
        Training and test samples of each layer.
    folds, unseen : dict of (layer, kind of folds) to numpy.ndarray
        Fold of each training sample, and its probabilities, shape (n, k), by a forest that was grown without the fold.
    test : dict of str to numpy.ndarray, shape (n, k)
        Probabilities of the test samples of each layer by the forest of the training samples.
    map_cells : tuple of numpy.ndarray
        From `helpers.folds.distances.map_cells`.
    cells, in_domain : numpy.ndarray, shape (cells,)
        Flat indices of cells in regular steps that stand for the map, and whether they lie in the domain.
    mapped : dict of (layer, forest) to numpy.ndarray of int, shape (cells,)
        Their class by the forest ``train``, and where the study knows the truth also by ``map``.
    """

    rows: dict
    tested: dict
    folds: dict
    unseen: dict
    test: dict
    map_cells: tuple
    cells: np.ndarray
    in_domain: np.ndarray
    mapped: dict


def predict_samples(study, table, params, models=None, n_jobs=-1):
    """Predict samples and cells by forests that had not seen them.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples of all layers.
    params : dict of str to dict
        Hyperparameters of each layer, such as `helpers.forest.grid_search.Search.params`.
    models : dict of str to dict, optional
        For each layer the forests ``train`` and ``map``; grown here by default.
    n_jobs : int
        Threads at once. The result does not depend on it.

    Returns
    -------
    Predictions
    """
    layers, classes = [layer_name(layer) for layer in study.layers], TARGETS[study.target].codes
    rows = {layer: layer_rows(table, layer, "train", study.target) for layer in layers}
    tested = {layer: layer_rows(table, layer, "test", study.target) for layer in layers}
    map_cells = distances.map_cells(study)
    kinds = {layer: fold_kinds(study, rows[layer], map_cells) for layer in layers}
    folds = {(layer, kind): fold for layer in layers for kind, fold in kinds[layer].items()}
    jobs = [(rows[layer], fold, params[layer]) for (layer, _), fold in folds.items()]
    unseen = dict(zip(folds, out_of_fold(study, jobs, n_jobs), strict=True))
    values, cells, in_domain = sampled_cells(study)
    grown, test = {}, {}
    for layer in layers:
        known = models[layer] if models else _grown(study, table, layer, params[layer])
        others = predictor_values(tested[layer], used_predictors(study))
        test[layer] = class_probabilities(known["train"], others, classes)
        grown |= {(layer, name): known[name] for name in ("train", *(["map"] if study.draws_boreholes else []))}

    def mapped(model):
        return mapped_class(class_probabilities(model, values, classes), study.target)

    with ThreadPoolExecutor(cpu_count()) as pool:
        of_cells = dict(zip(grown, pool.map(mapped, grown.values()), strict=True))
    return Predictions(rows, tested, folds, unseen, test, map_cells, cells, in_domain, of_cells)


def mapped_areas(study, predictions, layer):
    """Return how much of the map has each class by the forest of the training samples, as `Predictions` tell it.

    Returns
    -------
    dict of str to (numpy.ndarray, float)
        For each of `helpers.core.scores.DOMAINS` the number of cells in regular steps that have each
        class, and the area
        of the whole domain in km2. `TRUE_CELLS` says what their standard error is.
    """
    size, cell = len(TARGETS[study.target].codes), study.grid.resolution**2 / 1e6
    mapped, domains = predictions.mapped[layer, "train"], by_domain(predictions.in_domain)
    areas = dict(by_domain(predictions.map_cells[1]))
    return {name: (np.bincount(mapped[inside], minlength=size), float(areas[name].sum() * cell))
            for name, inside in domains}  # fmt: skip


def _grown(study, table, layer, params):
    return {name: fit(study, table, layer, params, which) for name, which in
            (("train", "train"), ("map", study.forest.map_fit))}  # fmt: skip


def sampled_cells(study):
    """Return cells in regular steps over the map, about `TRUE_CELLS` of them.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    values : numpy.ndarray of float32, shape (cells, predictors)
    cells : numpy.ndarray of int, shape (cells,)
        Their flat indices on the reference grid.
    in_domain : numpy.ndarray of bool, shape (cells,)
    """
    step = max(1, round(np.sqrt(area_mask(study, reference_grid(study)).sum() / EVALUATION_CELLS)))
    values, cells = read_predictors(study, used_predictors(study), step=step)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy().ravel()[cells]
    return values, cells, rule > study.domain.above


def by_domain(in_domain):
    """Return pairs of a domain and which of the places lie in it."""
    in_domain = np.asarray(in_domain, bool)
    return zip(DOMAINS, (np.ones(len(in_domain), bool), in_domain), strict=True)
