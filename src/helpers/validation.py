"""What estimates of accuracy are worth: several kinds of folds side by side, and beside the truth where it is known.

A score from samples may be off for three reasons, which the tables keep apart: samples lie elsewhere than the map's
cells (folds and weights try to mend it), a hole is not its cell (the reference `cells` shows by how much), and the
hyperparameters were chosen for the very score (`selection_optimism`).
"""

import numpy as np

from helpers import accuracy, forest, space
from helpers.accuracy import DOMAINS
from helpers.grid import reference_grid
from helpers.ice import TARGETS, layer_name
from helpers.samples import predictor_names

ESTIMATES = {
    "random": "random folds",
    "random_weighted": "random folds, weighted",
    "knndm": "kNNDM folds",
    "blocks": "spatial blocks",
    "column": "folds by column",
    "test": "test samples",
    "true_train": "truth, forest of the training samples",
    "true_map": "truth, forest of the map",
}
"""Estimates of a map's accuracy, by their keys in ``validation.json``."""

TRUE_CELLS = 25_000
"""Cells, in regular steps, that stand for the map in its true accuracy: the standard error is below 0.004."""

SCORES = ("overall_accuracy", "kappa", "macro_f1")

COLOURS = {"random": "#d55e00", "knndm": "#0072b2", "blocks": "#009e73", "column": "#cc79a7"}


def fold_kinds(study, rows, cells=None):
    """Deal samples into folds of every kind that the study allows.

    Parameters
    ----------
    study : helpers.study.Study
        Folds by a column are among them where it names one.
    rows : pandas.DataFrame
        Samples of a layer, as from `helpers.forest.layer_rows`.
    cells : tuple of numpy.ndarray, optional
        From `helpers.space.map_cells`.

    Returns
    -------
    dict of str to numpy.ndarray of int, shape (n,)
    """
    kinds = ["random", "knndm", "blocks", *(["column"] if study.folds.column else [])]
    return {kind: space.sample_folds(study, rows, kind, cells) for kind in kinds}


def out_of_fold(study, jobs, n_jobs=-1):
    """Predict samples by forests that were grown without their fold, many sets of folds at once.

    Parameters
    ----------
    study : helpers.study.Study
        Forests have its `folds.estimators` trees.
    jobs : sequence of (rows, fold, params)
        Samples of one layer with their class, their folds, and the hyperparameters.
    n_jobs : int
        Processes at once, -1 for one a core. The result does not depend on it.

    Returns
    -------
    list of numpy.ndarray, shape (n, k)
        Probabilities for each of the jobs.
    """
    from joblib import Parallel, delayed

    parts = [(job, number) for job, (_, fold, _) in enumerate(jobs) for number in np.unique(fold)]
    found = Parallel(n_jobs)(
        delayed(_held_out)(study, jobs[job][0], jobs[job][1] == number, jobs[job][2]) for job, number in parts
    )
    classes = TARGETS[study.target].codes
    results = [np.empty((len(rows), len(classes))) for rows, _, _ in jobs]
    for (job, number), part in zip(parts, found, strict=True):
        results[job][jobs[job][1] == number] = part
    return results


def _held_out(study, rows, held, params):
    import sklearn

    layer, trees = rows["layer"].iloc[0], {"n_estimators": study.folds.estimators}
    known, others = rows[~held].assign(split="train"), forest.predictor_values(rows[held], predictor_names(study))
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        model = forest.fit(study, known, layer, {**params, **trees}, "train")
        return forest.class_probabilities(model, others, TARGETS[study.target].codes)


def estimate_accuracy(study, table, params, truth=None, models=None, n_jobs=-1):
    """Estimate the accuracy of each layer's map in every way, at hyperparameters that are chosen already.

    Folds are dealt among the training samples, and their predictions are pooled before they are scored. The
    hyperparameters were chosen on the same samples, so that estimates from folds are a little too high:
    `selection_optimism` says by how much. The test samples are free of that.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        Samples of all layers.
    params : dict of str to dict
        Hyperparameters of each layer, such as `helpers.forest.Search.params`.
    truth : dict of str to numpy.ndarray, optional
        True ice type of each cell of the reference grid by ``ice_type_<layer>``, as
        `helpers.sources.boreholes.true_rasters` returns it. Of `TRUE_CELLS` cells the true accuracy is told.
    models : dict of str to dict, optional
        For each layer the forests ``train`` and ``map``; grown here by default.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain, estimate (a key of `ESTIMATES`) and reference: `samples`, and with the truth also
        `cells`, the true class of the sample's cell. With n, the `SCORES`, and for folds `wasserstein_km`: by how
        much they miss the distances over which the cells of the domain are predicted.
    """
    import pandas as pd

    cells, layers = space.map_cells(study), [layer_name(layer) for layer in study.layers]
    rows = {layer: forest.layer_rows(table, layer, "train", study.target) for layer in layers}
    folds = {(layer, kind): fold for layer in layers for kind, fold in fold_kinds(study, rows[layer], cells).items()}
    jobs = [(rows[layer], fold, params[layer]) for (layer, _), fold in folds.items()]
    predicted = dict(zip(folds, out_of_fold(study, jobs, n_jobs), strict=True))
    sampled = None if truth is None else _sampled_cells(study)
    found = []
    for layer in layers:
        true = None if truth is None else truth[f"ice_type_{layer}"]
        for (_, kind), fold in ((key, fold) for key, fold in folds.items() if key[0] == layer):
            found += _from_folds(study, rows[layer], kind, fold, predicted[layer, kind], cells, true)
        grown = models[layer] if models else _grown(study, table, layer, params[layer])
        found += _from_samples(study, forest.layer_rows(table, layer, "test", study.target), grown["train"], true)
        if truth is not None:
            found += _from_truth(study, layer, grown, true, *sampled)
    columns = ["layer", "domain", "estimate", "reference", "n", *SCORES, "wasserstein_km"]
    return pd.DataFrame(found).reindex(columns=columns)


def _grown(study, table, layer, params):
    return {name: forest.fit(study, table, layer, params, which) for name, which in
            (("train", "train"), ("map", study.forest.map_fit))}  # fmt: skip


def _from_folds(study, rows, kind, fold, probabilities, cells, true):
    """Return the scores of pooled out-of-fold predictions by domain, of random folds also the weighted ones."""
    places, mapped = rows[["easting", "northing"]].to_numpy(float), forest.mapped_class(probabilities, study.target)
    apart, found = space.neighbour_distances(places, fold), []
    for domain, inside in _domains(rows["in_domain"]):
        if not inside.any():
            continue
        target = cells[0] if domain == "whole" else cells[0][cells[1]]
        distances = space.Distribution(space.prediction_distances(places, target))
        more = {"wasserstein_km": distances.wasserstein(apart[inside]) / 1000}
        found += _judged(study, rows[inside], mapped[inside], domain, kind, true, more)
        if kind == "random":
            weight = space.sampling_weights(places[inside], target, study.grid.resolution**2)
            found += _judged(study, rows[inside], mapped[inside], domain, "random_weighted", true, more, weight)
    return found


def _from_samples(study, rows, model, true):
    values, classes = forest.predictor_values(rows, predictor_names(study)), TARGETS[study.target].codes
    mapped = forest.mapped_class(forest.class_probabilities(model, values, classes), study.target)
    return [one for domain, inside in _domains(rows["in_domain"])
            for one in _judged(study, rows[inside], mapped[inside], domain, "test", true)]  # fmt: skip


def _judged(study, rows, mapped, domain, estimate, true, more=None, weight=None):
    """Return a row of scores against the samples' own classes, and with the truth one against their cells'."""
    known = {"samples": rows["class"].to_numpy()}
    if true is not None:
        known["cells"] = _class_at(study, true, rows)
    return [
        {"layer": rows["layer"].iloc[0], "domain": domain, "estimate": estimate, "reference": reference}
        | _scores(study, classes, mapped, weight) | (more or {})
        for reference, classes in known.items() if len(rows)
    ]  # fmt: skip


def _from_truth(study, layer, models, true, values, cells, in_domain):
    known, found = _classes(study)[true.ravel()[cells]], []
    for name, model in models.items():
        probabilities = forest.class_probabilities(model, values, TARGETS[study.target].codes)
        mapped = forest.mapped_class(probabilities, study.target)
        for domain, inside in _domains(in_domain):
            names = {"layer": layer, "domain": domain, "estimate": f"true_{name}", "reference": "cells"}
            found.append(names | _scores(study, known[inside], mapped[inside]))
    return found


def _sampled_cells(study):
    """Return predictors, flat indices and domain of cells in regular steps over the map."""
    from helpers.covariates.registry import read_covariates
    from helpers.mapping import read_predictors

    values, cells = read_predictors(study, predictor_names(study))
    row, column = np.divmod(cells, reference_grid(study).shape[1])
    step = max(1, round(np.sqrt(len(cells) / TRUE_CELLS)))
    kept = (row % step == 0) & (column % step == 0)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy().ravel()[cells[kept]]
    return values[kept], cells[kept], rule > study.domain.above


def _class_at(study, true, rows):
    geobox = reference_grid(study)
    column, row = ~geobox.transform * (rows["easting"].to_numpy(), rows["northing"].to_numpy())
    return _classes(study)[true[np.floor(row).astype(int), np.floor(column).astype(int)]]


def _classes(study):
    """Return the class of each ice type, and of no type: no class."""
    return np.append(TARGETS[study.target].of_type, np.full(256 - len(TARGETS[study.target].of_type), -1))


def _domains(in_domain):
    in_domain = np.asarray(in_domain, bool)
    return zip(DOMAINS, (np.ones(len(in_domain), bool), in_domain), strict=True)


def _scores(study, reference, mapped, weight=None):
    matrix = accuracy.confusion_matrix(reference, mapped, TARGETS[study.target].codes, weight)
    scores = (accuracy.overall_accuracy(matrix), accuracy.kappa(matrix), accuracy.macro(accuracy.f1(matrix), matrix))
    return {"n": len(reference), **dict(zip(SCORES, scores, strict=True))}


def write_estimates(study, found):
    """Write the table of `estimate_accuracy` as ``validation.csv``, and as JSON by layer, domain, estimate and reference.

    Parameters
    ----------
    study : helpers.study.Study
    found : pandas.DataFrame

    Returns
    -------
    dict
        As written to ``validation.json``.
    """
    record = {}
    for row in found.to_dict("records"):
        keys = [row.pop(name) for name in ("layer", "domain", "estimate", "reference")]
        place = record
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = row
    folder = study.results_dir / "tables"
    accuracy.write_table(folder / "validation.csv", found)
    accuracy.write_json(folder / "validation.json", record)
    return record
