"""What estimates of accuracy are worth: several kinds of folds side by side, and beside the truth where it is known.

A score from samples may be off for three reasons, which the tables keep apart: samples lie elsewhere than the map's
cells (folds and weights try to mend it), a hole is not its cell (the reference `cells` shows by how much), and the
hyperparameters were chosen for the very score (`selection_optimism`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from joblib import cpu_count

from helpers.accuracy.report import (
    DOMAINS,
    PROBABILITY_FLOOR,
    SCORES,
    by_mapped_share,
    confusion_matrix,
    drawn_matrices,
    evaluate,
    f1,
    interval,
    kappa,
    macro,
    overall_accuracy,
    write_tables,
)
from helpers.core.grid import cell_centres, reference_grid
from helpers.core.ice import TARGETS, layer_name
from helpers.folds.kinds import (
    Distribution,
    FoldError,
    bootstrap,
    missing_classes,
    neighbour_distances,
    prediction_distances,
    sample_folds,
    sample_units,
    sampling_weights,
)
from helpers.folds.kinds import map_cells as map_cells_of_kinds
from helpers.forest.models import class_probabilities, fit, layer_rows, mapped_class, predictor_values, probabilities_of
from helpers.samples.labels import used_predictors

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


TRUE_CELLS = 25_000
"""About so many cells, in regular steps, stand for the map: the standard error of a share is below 0.004 in the whole
area, and 0.006 in the default study's domain.
"""


REFERENCES = {
    "samples": ("o", "#0072b2", "against the samples' own class"),
    "cells": ("s", "#d55e00", "against the true class of their cells"),
}
"""What predictions are compared with: marker, colour and label."""


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
        Samples of a layer, as from `helpers.forest.models.layer_rows`.
    cells : tuple of numpy.ndarray, optional
        From `helpers.folds.kinds.map_cells`.

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
        Samples of a layer, as from `helpers.forest.models.layer_rows`.
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
    import pandas as pd

    target, names = Distribution(curves["prediction"]), [kind.name for kind in TARGETS[study.target].classes]
    table = {}
    for kind, fold in folds.items():
        size, lacking = np.bincount(fold), missing_classes(fold, rows["class"])
        text = "; ".join(f"fold {k}: {', '.join(names[code] for code in codes)}" for k, codes in lacking.items())
        distance = target.wasserstein(curves[kind])
        table[kind] = {"smallest": size.min(), "largest": size.max(), "wasserstein_km": distance, "lacking": text}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("kind")


def out_of_fold(study, jobs, n_jobs=-1):
    """Predict samples by forests that were grown without their fold, many sets of folds at once.

    Parameters
    ----------
    study : helpers.core.study.Study
        Forests have its `folds.estimators` trees.
    jobs : sequence of (rows, fold, params)
        Samples of one layer with their class, their folds, and the hyperparameters.
    n_jobs : int
        Threads at once, -1 for one a core. The result does not depend on it.

    Returns
    -------
    list of numpy.ndarray, shape (n, k)
        Probabilities for each of the jobs.
    """
    from joblib import Parallel, delayed

    parts = [(job, number) for job, (_, fold, _) in enumerate(jobs) for number in np.unique(fold)]
    # Threads: forests of some hundred samples are grown sooner than processes are started.
    found = Parallel(n_jobs, prefer="threads")(
        delayed(_held_out)(study, jobs[job][0], jobs[job][1] == number, jobs[job][2]) for job, number in parts
    )
    classes = TARGETS[study.target].codes
    results = [np.empty((len(rows), len(classes))) for rows, _, _ in jobs]
    for (job, number), part in zip(parts, found, strict=True):
        results[job][jobs[job][1] == number] = part
    return results


def _held_out(study, rows, held, params, others=None):
    trees = {"n_estimators": study.folds.estimators}
    return probabilities_of(study, rows[~held], rows[held] if others is None else others, {**params, **trees})


def out_of_fold_importance(study, jobs, repeats=5, n_jobs=-1):
    """Return permutation importance from samples that forests had not seen: how much the log loss grows.

    All samples tell, and by their probabilities: with a few hundred of them that is much steadier than how much kappa
    falls on the test samples, where most importances may be 0, since correlated predictors stand in for each other.

    Parameters
    ----------
    study : helpers.core.study.Study
    jobs : sequence of (rows, fold, params)
        As for `out_of_fold`.
    repeats : int
        Shuffles of each predictor within a fold.
    n_jobs : int
        Threads at once. The result does not depend on it.

    Returns
    -------
    list of dict of str to float
        Importance of each predictor for each of the jobs; negative where shuffling helped by chance.
    """
    from joblib import Parallel, delayed

    names = used_predictors(study)
    parts = [(job, number) for job, (_, fold, _) in enumerate(jobs) for number in np.unique(fold)]
    found = Parallel(n_jobs, prefer="threads")(
        delayed(_grown_loss)(study, *jobs[job], number, names, repeats) for job, number in parts
    )
    sums = [np.zeros(len(names)) for _ in jobs]
    for (job, _), part in zip(parts, found, strict=True):
        sums[job] += part
    counts = [len(rows) for rows, _, _ in jobs]
    return [dict(zip(names, (part / count).tolist(), strict=True)) for part, count in zip(sums, counts, strict=True)]


def _grown_loss(study, rows, fold, params, number, names, repeats):
    """Return by how much the summed loss of a fold's samples grows when each predictor is shuffled among them."""
    import pandas as pd

    held = rows[fold == number]
    rng, values = np.random.default_rng([study.folds.seed, int(number)]), held[names].to_numpy()
    copies = np.tile(values, (1 + repeats * len(names), 1, 1))
    for place, copy in enumerate(copies[1:]):
        copy[:, place % len(names)] = rng.permutation(copy[:, place % len(names)])
    others = pd.DataFrame(copies.reshape(-1, len(names)), columns=names)
    chances = _held_out(study, rows, fold == number, params, others).reshape(len(copies), len(held), -1)
    given = chances[:, np.arange(len(held)), held["class"].to_numpy()]
    loss = -np.log(np.maximum(given, PROBABILITY_FLOOR)).sum(axis=1)
    return (loss[1:] - loss[0]).reshape(repeats, -1).mean(axis=0)


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
        From `helpers.folds.kinds.map_cells`.
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
        Hyperparameters of each layer, such as `helpers.forest.models.Search.params`.
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
    map_cells = map_cells_of_kinds(study)
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
        For each of `helpers.accuracy.report.DOMAINS` the number of cells in regular steps that have each
        class, and the area
        of the whole domain in km2. `TRUE_CELLS` says what their standard error is.
    """
    size, cell = len(TARGETS[study.target].codes), study.grid.resolution**2 / 1e6
    mapped, domains = predictions.mapped[layer, "train"], _domains(predictions.in_domain)
    areas = dict(_domains(predictions.map_cells[1]))
    return {name: (np.bincount(mapped[inside], minlength=size), float(areas[name].sum() * cell))
            for name, inside in domains}  # fmt: skip


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
        Hyperparameters of each layer, such as `helpers.forest.models.Search.params`.
    truth : dict of str to numpy.ndarray, optional
        True ice type of each cell of the reference grid by ``ice_type_<layer>``, and what a hole there would find by
        ``hole_type_<layer>``, as `testbed.boreholes.true_rasters` returns them. Of `TRUE_CELLS` cells the
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
    import pandas as pd

    done = predictions or predict_samples(study, table, params, models, n_jobs)
    cells, found = done.map_cells, []
    easting, northing = cell_centres(reference_grid(study))
    row, column = np.divmod(done.cells, len(easting))
    middles = np.stack([easting[column], northing[row]], axis=1)
    for layer, rows in done.rows.items():
        true = None if truth is None else truth[f"ice_type_{layer}"]
        places = rows[["easting", "northing"]].to_numpy(float)
        targets = {domain: cells[0][inside] for domain, inside in _domains(cells[1])}
        apart = prediction_distances(places, middles)
        away = {domain: Distribution(apart[inside]) for domain, inside in _domains(done.in_domain)
                if inside.any()}  # fmt: skip
        draws, shares = (
            _draws(study, rows),
            {name: cells for name, (cells, _) in mapped_areas(study, done, layer).items()},
        )
        for (_, kind), fold in ((key, fold) for key, fold in done.folds.items() if key[0] == layer):
            found += _from_folds(study, rows, kind, fold, done.unseen[layer, kind], targets, away, true, draws, shares)
        found += _from_samples(study, done.tested[layer], done.test[layer], true, shares)
        if truth is not None:
            found += _from_truth(study, layer, done, {"cells": true, "samples": truth[f"hole_type_{layer}"]})
    ends = [f"{score}_{end}" for score in SCORES for end in ("lower", "upper")]
    columns = ["layer", "domain", "estimate", "reference", "n", *SCORES, "wasserstein_km", *ends]
    return pd.DataFrame(found).reindex(columns=columns)


def _draws(study, rows):
    """Return bootstrap draws of the samples of each domain: the same for all that is estimated from them."""
    return {domain: bootstrap(study, rows[inside]) for domain, inside in _domains(rows["in_domain"])
            if inside.any()}  # fmt: skip


def _grown(study, table, layer, params):
    return {name: fit(study, table, layer, params, which) for name, which in
            (("train", "train"), ("map", study.forest.map_fit))}  # fmt: skip


def _from_folds(study, rows, kind, fold, probabilities, targets, away, true, draws, shares):
    """Return the scores of pooled out-of-fold predictions by domain, also adjusted, and of random folds weighted."""
    places, mapped = rows[["easting", "northing"]].to_numpy(float), mapped_class(probabilities, study.target)
    apart, found = neighbour_distances(places, fold), []
    for domain, inside in _domains(rows["in_domain"]):
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
    for domain, inside in _domains(rows["in_domain"]):
        if inside.any():
            judged = (study, rows[inside], mapped[inside], domain)
            found += _judged(*judged, "test", true, draws[domain])
            found += _judged(*judged, "test_adjusted", true, draws[domain], shares=shares[domain])
    return found


def _judged(study, rows, mapped, domain, estimate, true, draws, more=None, weight=None, shares=None):
    """Return a row of scores against the samples' own classes, and with the truth one against their cells'."""
    known = {"samples": rows["class"].to_numpy()}
    if true is not None:
        known["cells"] = _class_at(study, true, rows)
    return [
        {"layer": rows["layer"].iloc[0], "domain": domain, "estimate": estimate, "reference": reference}
        | _scores(study, classes, mapped, weight, draws, shares) | (more or {})
        for reference, classes in known.items()
    ]  # fmt: skip


def _from_truth(study, layer, predictions, true):
    """Return the scores of the map itself, by domain, against each of the rasters of what is true."""
    known = {name: _classes(study)[raster.ravel()[predictions.cells]] for name, raster in true.items()}
    return [
        {"layer": layer, "domain": domain, "estimate": f"true_{which}", "reference": reference}
        | _scores(study, classes[inside], mapped[inside])
        for (of, which), mapped in predictions.mapped.items() if of == layer
        for domain, inside in _domains(predictions.in_domain)
        for reference, classes in known.items()
    ]  # fmt: skip


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
    from helpers.core.grid import area_mask
    from helpers.mapping.predict import read_predictors
    from helpers.prepare.registry import read_covariates

    step = max(1, round(np.sqrt(area_mask(study, reference_grid(study)).sum() / TRUE_CELLS)))
    values, cells = read_predictors(study, used_predictors(study), step=step)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy().ravel()[cells]
    return values, cells, rule > study.domain.above


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


def _scores(study, reference, mapped, weight=None, draws=None, shares=None):
    """Return n, the `SCORES`, and the ends of their intervals where there are draws of two blocks or more.

    With `shares`, how much of the map has each class, scores are those of the post-stratified matrix.
    """
    codes = TARGETS[study.target].codes

    def headline(matrix):
        matrix = matrix if shares is None else by_mapped_share(matrix, shares)
        found = overall_accuracy(matrix), kappa(matrix), macro(f1(matrix), matrix)
        return np.stack(found, axis=-1)

    values = headline(confusion_matrix(reference, mapped, codes, weight))
    row = {"n": len(reference), **dict(zip(SCORES, values.tolist(), strict=True))}
    if draws is not None and draws[1].shape[1] > 1:
        drawn = drawn_matrices(reference, mapped, len(codes), draws, weight)[1:]
        ends = interval(headline(drawn), study.accuracy.interval, draws[0])
        for score, (lower, upper) in zip(SCORES, ends.T.tolist(), strict=True):
            row |= {f"{score}_lower": lower, f"{score}_upper": upper}
    return row


def read_truth(study):
    """Return the true ice type of each cell for `estimate_accuracy`; None where a study knows no truth."""
    import rasterio

    from testbed.boreholes import truth_files

    if not study.draws_boreholes:
        return None
    truth = {}
    for name in (f"{kind}_{layer_name(layer)}" for layer in study.layers for kind in ("ice_type", "hole_type")):
        with rasterio.open(truth_files(study)[name]) as source:
            truth[name] = source.read(1)
    return truth


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


def distance_curves(study, rows, folds, cells):
    """Return nearest-neighbour distances of the judged domain: on the map, among samples, and between folds.

    Parameters
    ----------
    study : helpers.core.study.Study
        `folds.judged` says whether the whole map or the potential-permafrost domain.
    rows : pandas.DataFrame
        Samples of a layer, as from `helpers.forest.models.layer_rows`.
    folds : dict of str to numpy.ndarray
        From `fold_kinds`.
    cells : tuple of numpy.ndarray
        From `helpers.folds.kinds.map_cells`.

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


def draw_distances(study, curves):
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

    from helpers.core.plot import WIDTH_MM, mark_simulated, style

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


def compare_with_truth(found):
    """Return what each estimate from samples promised beside the true score of the same forest.

    Parameters
    ----------
    found : pandas.DataFrame
        From `estimate_accuracy` with the truth.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain, estimate and score: ``promised``, the ends ``lower`` and ``upper`` of its interval,
        ``true`` of the forest of the training samples as one hole in each cell would find it, ``difference`` (promised
        less true), ``held``, whether the interval holds the true score, and ``true_of_cells``, the score against the
        class that most of each cell has.
    """
    import pandas as pd

    keys = ["layer", "domain"]
    true = {name: part.set_index(keys) for name, part in found[found["estimate"] == "true_train"].groupby("reference")}
    promised = found[(found["reference"] == "samples") & ~found["estimate"].str.startswith("true")]
    parts = []
    for score in SCORES:
        part = promised[[*keys, "estimate"]].assign(score=score, promised=promised[score])
        part = part.assign(lower=promised[f"{score}_lower"], upper=promised[f"{score}_upper"])
        where = pd.MultiIndex.from_frame(part[keys])
        part["true"] = true["samples"][score].reindex(where).to_numpy()
        part["difference"] = part["promised"] - part["true"]
        held = part["true"].between(part["lower"], part["upper"])
        part["held"] = held.astype(object).where(part["lower"].notna() & part["upper"].notna(), None)
        parts.append(part.assign(true_of_cells=true["cells"][score].reindex(where).to_numpy()))
    return pd.concat(parts, ignore_index=True)


def class_areas(study, predictions, reports, truth=None):
    """Return the area of each class: among samples, mapped, estimated from samples by area, and in truth.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictions : Predictions
    reports : dict
        Layer to domain to the report of the test samples, from `helpers.accuracy.report.evaluate`.
    truth : dict of str to numpy.ndarray, optional
        As for `estimate_accuracy`.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain and class: ``class``, ``class_name``, ``sample_share``, ``mapped_km2`` by the forest of
        the training samples, ``adjusted_km2`` with its ends ``adjusted_lower`` and ``adjusted_upper``, and with the
        truth ``true_km2``, and ``mapped_bias`` and ``adjusted_bias``: differences from it, km2. Areas are counted
        among cells in regular steps (`TRUE_CELLS`).
    """
    import pandas as pd

    found, kinds = [], TARGETS[study.target].classes
    for layer in predictions.rows:
        areas, known = mapped_areas(study, predictions, layer), None
        if truth is not None:
            known = _classes(study)[truth[f"ice_type_{layer}"].ravel()[predictions.cells]]
        for domain, inside in _domains(predictions.in_domain):
            report, (cells, area) = reports[layer][domain], areas[domain]
            share = np.divide(report["support"], report["n"]) if report["n"] else np.full(len(kinds), np.nan)
            adjusted = {key: np.array(report["area_adjusted"][key], float) for key in
                        ("area_km2", "area_km2_lower", "area_km2_upper")}  # fmt: skip
            table = pd.DataFrame({"layer": layer, "domain": domain, "class": [kind.code for kind in kinds]})
            table = table.assign(
                class_name=[kind.name for kind in kinds],
                sample_share=share,
                mapped_km2=area * cells / max(cells.sum(), 1),
                **{name.replace("area_km2", "adjusted") + ("_km2" if name == "area_km2" else ""): values
                   for name, values in adjusted.items()},
            )  # fmt: skip
            if known is not None:
                true = area * np.bincount(known[inside], minlength=len(kinds)) / max(inside.sum(), 1)
                table = table.assign(true_km2=true, mapped_bias=table["mapped_km2"] - true)
                table["adjusted_bias"] = table["adjusted_km2"] - true
            found.append(table)
    return pd.concat(found, ignore_index=True)


def draw_estimates(study, found, domain="potential_permafrost", areas=None):
    """Draw the headline scores of each layer by every estimate, beside the truth where it is known.

    Parameters
    ----------
    study : helpers.core.study.Study
    found : pandas.DataFrame
        From `estimate_accuracy`.
    domain : str
        One of `helpers.accuracy.report.DOMAINS`.
    areas : pandas.DataFrame, optional
        From `class_areas`: drawn below the scores.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    from helpers.core.plot import WIDTH_MM, mark_simulated, style

    style()
    found = found[found["domain"] == domain]
    names = [name for name in reversed(ESTIMATES) if (found["estimate"] == name).any()]
    layers, heights = found["layer"].unique(), [9 + 3.6 * len(names)] * len(SCORES)
    heights += [16 + 4.2 * areas["class"].nunique()] if areas is not None else []
    size = (WIDTH_MM / 25.4, (sum(heights) + 16) / 25.4)
    figure, axes = plt.subplots(
        len(heights), len(layers), figsize=size, sharex="row", sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for score, row in zip(SCORES, axes, strict=False):
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
            _draw_areas(panel, areas[(areas["layer"] == layer) & (areas["domain"] == domain)])
        axes[-1, 0].legend(loc="center right", frameon=False, handletextpad=0.3)
    figure.tight_layout(rect=(0, 0.02, 1, 1 - 6 / 25.4 / size[1]))
    if study.simulated:
        mark_simulated(figure)
    return figure


def _draw_areas(axes, areas):
    """Draw mapped, estimated and true areas of the classes of one layer and domain."""
    places, thousand = np.arange(len(areas))[::-1], 1e-3
    axes.hlines(places, areas["adjusted_lower"] * thousand, areas["adjusted_upper"] * thousand, color="#0072b2",
                linewidth=0.7)  # fmt: skip
    marks = {"adjusted_km2": ("o", "#0072b2", "from the test samples"), "mapped_km2": ("^", "#009e73", "mapped")}
    marks |= {"true_km2": ("|", "0.0", "true")} if "true_km2" in areas else {}
    for name, (marker, colour, label) in marks.items():
        axes.plot(areas[name] * thousand, places, marker, markersize=5, color=colour, fillstyle="none", label=label)
    names = areas["class_name"].str.replace(" frozen soil", "")
    axes.set(xlabel="area (1000 km²)", ylim=(-0.6, len(areas) - 0.4), xlim=(0, None))
    axes.set_yticks(places, names)
    axes.grid(axis="y", color="0.92", linewidth=0.4)
