"""How far the map may be believed: by cell and layer, and where the truth is known, whether that is true.

One pass over the map, window by window, gives the dissimilarity index and local point density of each layer, the set of
classes that are possible at the stated probability, and one map of four plain levels.
"""

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from joblib import cpu_count

from helpers.accuracy import estimates
from helpers.accuracy.report import DOMAINS, write_json, write_table
from helpers.core import ice, qgis
from helpers.core.grid import open_raster, reference_grid
from helpers.folds import kinds
from helpers.forest import models
from helpers.mapping import conformal
from helpers.mapping.applicability import Applicability, fit, importance_weights
from helpers.mapping.predict import PROBABILITY_SCALE, map_files
from helpers.prepare.registry import covariate_files
from helpers.samples.labels import area_weights

LEVELS = {
    1: ("unlike the samples", "#b2182b", "Too few samples are like this cell: the forest extrapolates."),
    2: ("permafrost in doubt", "#fdae61", "Samples are like it, but neither permafrost nor none is sure."),
    3: ("permafrost sure, class in doubt", "#9ecae1", "It surely has permafrost, and may be of more than one class."),
    4: ("sure", "#08519c", "It surely has no permafrost, or surely has permafrost of one class."),
}
"""Levels of trust by code: name, colour and meaning.

Sure is a calibrated probability of at least `trust.coverage`; a class may be where it is in the prediction set.
"""


NO_LEVEL = 0


DENSITIES = (0, 1, 3, 10, 30)
"""Least local point density of each row of the table."""


QUANTILES = 5
"""Rows of the table by dissimilarity."""


CEILING = {"n_estimators": 25, "min_samples_leaf": 5, "max_samples": 0.3, "oob_score": True}
"""The forest that is shown the true classes of `CEILING_CELLS` cells, for the error that no forest avoids."""


CEILING_CELLS = 30_000


JUDGED = ("error", "error_probable", "error_permafrost", "expected", "avoidable")
"""Columns of the table of errors, means over cells."""


_WINDOW = 512  # rows and columns: whole blocks of all files


_CLASSES = "prediction_set"


@dataclass(frozen=True, eq=False)
class LayerTrust:
    """What a layer's samples say about where its forest may be believed.

    Parameters
    ----------
    layer : str
    applicability : helpers.mapping.applicability.Applicability
    weights : dict of str to float
        Weight of each predictor.
    limits : numpy.ndarray, shape (k,)
        From `helpers.mapping.conformal.set_limits`; NaN for a class of too few samples.
    rows : pandas.DataFrame
        The samples that the map's forest was grown from.
    members : numpy.ndarray of bool, shape (n, k)
        Their prediction sets, by other folds alone.
    judged : numpy.ndarray of bool, shape (n,)
        Whether other folds have enough samples of their class.
    """

    layer: str
    applicability: Applicability
    weights: dict
    limits: np.ndarray
    rows: object
    members: np.ndarray
    judged: np.ndarray


def trust_files(study):
    """Return the rasters of `map_trust` by name.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to pathlib.Path
    """
    folder, layers = study.results_dir / "maps", [ice.layer_name(layer) for layer in study.layers]
    names = [f"{kind}_{layer}" for layer in layers for kind in ("dissimilarity_index", "point_density", _CLASSES)]
    return {name: folder / f"{name}.tif" for name in [*names, "trust"]}


def learn(study, table, n_jobs=-1):
    """Return what the samples say about where the map may be believed, layer by layer.

    Weights are permutation importances (`helpers.accuracy.estimates.out_of_fold_importance`). Prediction sets are
    calibrated on
    all samples of the map's forest, each predicted by forests, and calibrated by samples, of other folds
    (`folds.kind`), which never part what belongs together. So the sets are those of a forest from a few samples less.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples of all layers.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    list of LayerTrust
    """
    layers = [ice.layer_name(layer) for layer in study.layers]
    cards = [models.read_card(models.model_path(study, layer)) for layer in layers]
    rows = [models.layer_rows(table, card["layer"], card["fit"], study.target) for card in cards]
    folds = [kinds.sample_folds(study, part) for part in rows]
    jobs = [(part, fold, models.card_params(card)) for part, fold, card in zip(rows, folds, cards, strict=True)]
    unseen = estimates.out_of_fold(study, jobs, n_jobs)
    importance, found = estimates.out_of_fold_importance(study, jobs, n_jobs=n_jobs), []
    for (part, fold, _), card, raw, weights in zip(jobs, cards, unseen, importance, strict=True):
        types = part["class"].to_numpy()
        chances = _calibrated(raw, types, fold, area_weights(study, part))
        weights = importance_weights(weights, card["predictors"])
        values = models.predictor_values(part, card["predictors"])
        found.append(
            LayerTrust(
                card["layer"],
                fit(values, card["predictors"], weights, fold),
                dict(zip(card["predictors"], weights.tolist(), strict=True)),
                conformal.set_limits(chances, types, study.trust.coverage),
                part,
                *conformal.held_out_sets(chances, types, fold, study.trust.coverage),
            )
        )
    return found


def _calibrated(raw, types, fold, weight):
    """Return probabilities of samples calibrated by those of the other folds."""
    chances = np.empty_like(raw)
    for number in np.unique(fold):
        held = fold == number
        chances[held] = models.calibrate(raw[held], models.fit_calibration(raw[~held], types[~held], weight[~held]))
    return chances


# The map --------------------------------------------------------------------------------------------------------------


def level_of(density, none, members, in_domain, trust):
    """Return the level of trust of cells in one layer.

    Parameters
    ----------
    density : array_like of int, shape (cells,)
        Local point density; 0 is outside of the area of applicability.
    none : array_like, shape (cells,)
        Calibrated probability of no permafrost.
    members : numpy.ndarray of bool, shape (cells, k)
        Prediction sets of classes, the first of which is no permafrost.
    in_domain : array_like of bool, shape (cells,)
        Whether permafrost is possible by the climate. Where it is not, no sample is needed to know that there is none.
    trust : helpers.core.study.Trust

    Returns
    -------
    numpy.ndarray of uint8, shape (cells,)

    Examples
    --------
    >>> from helpers.core.study import Trust
    >>> sets = np.array([[True, True, False], [True, True, False], [False, True, True], [True, False, True]])
    >>> none = np.array([0.95, 0.5, 0.1, 0.1])
    >>> level_of(np.ones(4), none, sets, np.ones(4, bool), Trust()).tolist()
    [4, 2, 3, 4]
    >>> level_of(np.zeros(4), none, sets, np.zeros(4, bool), Trust()).tolist()
    [4, 1, 1, 1]
    """
    sure = trust.coverage - PROBABILITY_SCALE / 2  # probabilities of a raster are rounded
    free, frozen = np.asarray(none) >= sure, 1 - np.asarray(none) >= sure
    levels = np.where(free, 4, np.where(frozen, np.where(members[:, 1:].sum(axis=1) > 1, 3, 4), 2))
    known = (np.asarray(density) >= trust.similar_samples) | (free & ~np.asarray(in_domain, bool))
    return np.where(known, levels, 1).astype(np.uint8)


def map_trust(study, found, threads=None):
    """Write the rasters of `trust_files`, in one pass over the map.

    Windows are computed side by side and written in their order: memory does not grow with the map, and the result
    does not depend on the number of threads.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its covariates and the rasters of class probabilities must be there.
    found : list of LayerTrust
    threads : int, optional
        As many as cores by default.

    Returns
    -------
    values : numpy.ndarray of float32, shape (cells, predictors)
        Predictors of about `CEILING_CELLS` cells of the potential-permafrost domain, in regular steps.
    cells : numpy.ndarray of int, shape (cells,)
        Their flat indices on the reference grid.
    """
    geobox, threads = reference_grid(study), threads or cpu_count()
    windows = [
        (slice(row, min(row + _WINDOW, geobox.shape[0])), slice(column, min(column + _WINDOW, geobox.shape[1])))
        for row in range(0, geobox.shape[0], _WINDOW) for column in range(0, geobox.shape[1], _WINDOW)
    ]  # fmt: skip
    rule = covariate_files(study)[study.domain.covariate]
    domain = sum(np.count_nonzero(_read(rule, window)[0] > study.domain.above) for window in windows)
    step = max(1, round(np.sqrt(domain / CEILING_CELLS)))
    sampled = []
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        targets = {name: stack.enter_context(_new_raster(study, geobox, name)) for name in trust_files(study)}
        for first in range(0, len(windows), 2 * threads):
            part = windows[first : first + 2 * threads]
            done = pool.map(lambda window: _window(study, found, geobox, window, step), part)
            for window, (rasters, *some) in zip(part, done, strict=True):
                sampled.append(some)
                for name, data in rasters.items():
                    targets[name].write(data, window=_rasterio_window(window))
    _write_styles(study, found)
    values, cells = zip(*sampled, strict=True)
    return np.concatenate(values), np.concatenate(cells)


def _new_raster(study, geobox, name):
    kind = name.rpartition("_")[0]
    more = {"units": "1", "nodata": None, "overviews": "mode", "long_names": None}
    if kind == "dissimilarity_index":
        more |= {"names": name, "dtype": np.float32, "overviews": "average"}
        more["long_names"] = "distance to the nearest sample by that between samples, predictors weighted"
    elif kind == "point_density":
        more |= {"names": name, "dtype": np.uint16, "nodata": 65535, "overviews": "average"}
        more["long_names"] = "samples within the threshold of the area of applicability"
    elif kind == _CLASSES:
        more |= {"names": ["number of classes", "classes"], "dtype": np.uint8, "nodata": 0}
        more["long_names"] = [
            f"classes in the {100 * study.trust.coverage:g} % prediction set",
            "the classes, sum of 2 to the power of each one's code",
        ]
    else:
        more |= {"names": name, "dtype": np.uint8, "nodata": NO_LEVEL, "long_names": "how far the map may be believed"}
        more["legend"] = {code: level[:2] for code, level in LEVELS.items()}
        more["tags"] = {f"meaning_{code}": level[2] for code, level in LEVELS.items()}
    return open_raster(
        trust_files(study)[name], geobox, 2 if kind == _CLASSES else 1, more.pop("dtype"), study=study, **more
    )


def _write_styles(study, found):
    """Write the QGIS styles: twice the threshold ends the dissimilarity, twice the samples' median the density."""
    from cmcrameri import cm
    from matplotlib.colors import to_hex

    files = trust_files(study)
    for one in found:
        measured = one.applicability
        qgis.write_ramp_style(files[f"dissimilarity_index_{one.layer}"], 2 * measured.threshold, "", "lajolla_r")
        density = measured.measure(models.predictor_values(one.rows, measured.predictors))[1]
        top = max(2 * np.median(density), 1)
        qgis.write_ramp_style(files[f"point_density_{one.layer}"], top, "samples", "bamako_r")
        sizes = range(1, one.members.shape[1] + 1)
        colours = [to_hex(colour) for colour in cm.batlow_r(np.linspace(0, 1, len(sizes)))]
        names = [f"{size} class{'es' if size > 1 else ''}" for size in sizes]
        legend = dict(zip(sizes, zip(names, colours, strict=True), strict=True))
        qgis.write_class_style(files[f"{_CLASSES}_{one.layer}"], legend)
    qgis.write_class_style(files["trust"], {code: level[:2] for code, level in LEVELS.items()})


def _rasterio_window(window):
    from rasterio.windows import Window

    return Window.from_slices(*window)


def _read(path, window=None):
    """Return the bands of a raster in a window, and its nodata value."""
    import rasterio

    with rasterio.open(path) as source:
        return source.read(window=window and _rasterio_window(window)), source.nodata


def _window(study, found, geobox, window, step):
    """Return the rasters of a window, and predictors and cells of those of its cells that stand for the domain."""
    maps, files, names = map_files(study), covariate_files(study), list(found[0].weights)
    chances, nodata = zip(*(_read(maps[f"class_probability_{one.layer}"], window) for one in found), strict=True)
    mapped = np.all([part[0] != none for part, none in zip(chances, nodata, strict=True)], axis=0)
    shape, rasters, lowest = mapped.shape, {}, np.full(mapped.sum(), 255, np.uint8)
    values = np.stack([_read(files[name], window)[0][0][mapped] for name in names], axis=1)
    in_domain = _read(files[study.domain.covariate], window)[0][0][mapped] > study.domain.above

    def raster(data, dtype, none):
        whole = np.full((*data.shape[1:], *shape), none, dtype)
        whole[..., mapped] = data.T
        return whole.reshape(-1, *shape)

    for one, part in zip(found, chances, strict=True):
        used = one.applicability.predictors
        dissimilarity, density = one.applicability.measure(values[:, [names.index(name) for name in used]])
        members, levels = _sets_and_levels(study, one, part[:, mapped].T, density, in_domain)
        lowest = np.minimum(lowest, levels)
        sets = np.stack([members.sum(axis=1), members @ (1 << np.arange(members.shape[1]))], axis=1)
        rasters[f"dissimilarity_index_{one.layer}"] = raster(dissimilarity, np.float32, np.nan)
        rasters[f"point_density_{one.layer}"] = raster(np.minimum(density, 65534), np.uint16, 65535)
        rasters[f"{_CLASSES}_{one.layer}"] = raster(sets, np.uint8, 0)
    rasters["trust"] = raster(lowest, np.uint8, NO_LEVEL)
    row, column = (axis[mapped] + part.start for axis, part in zip(np.indices(shape), window, strict=True))
    some = in_domain & (row % step == 0) & (column % step == 0)
    return rasters, values[some], (row * geobox.shape[1] + column)[some]


def _sets_and_levels(study, one, chances, density, in_domain):
    """Return prediction sets and levels of trust of cells from their probabilities as the raster has them."""
    members = conformal.prediction_sets(chances, np.rint(one.limits / PROBABILITY_SCALE))
    return members, level_of(density, chances[:, 0] * PROBABILITY_SCALE, members, in_domain, study.trust)


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(study, found, sampled):
    """Return and write how much of the map may be believed how far, and in the virtual study whether that is true.

    Parameters
    ----------
    study : helpers.core.study.Study
    found : list of LayerTrust
    sampled : tuple of numpy.ndarray
        From `map_trust`.

    Returns
    -------
    errors : pandas.DataFrame
        One row a layer, domain and group of cells: by area of applicability, fifth of the dissimilarity index, local
        point density or level of trust; with `cells`, their `share` of the domain, and with the truth ``error`` of the
        mapped class, ``error_probable`` of the most probable one, its ``error_permafrost`` (yes or no), ``expected``
        (what calibrated probabilities expect ``error_probable`` to be), and in the domain ``avoidable``: by how much
        it exceeds the error of a forest that was shown true cells. The rest no predictor tells, and no sample mends.
    sets : pandas.DataFrame
        One row a layer, domain and true class: the calibration `samples`, the `limit` of its probability, the coverage
        and mean size of the prediction sets of the samples, by other folds, and in the virtual study of true cells.
    """
    import pandas as pd

    truth, errors, sets = estimates.read_truth(study), [], []
    everywhere = _read(covariate_files(study)[study.domain.covariate])[0][0] > study.domain.above
    for one in found:
        cells = _cells(study, one, everywhere, truth)
        if truth is not None and len(sampled[1]):
            _add_ceiling(study, cells, sampled)
        for domain, inside in zip(DOMAINS, (np.ones(len(cells), bool), cells["in_domain"].to_numpy()), strict=True):
            if inside.any():
                errors.append(_error_rows(one, cells[inside]).assign(layer=one.layer, domain=domain))
            sets += _set_rows(study, one, domain, cells[inside])
    errors, sets = (pd.concat(errors, ignore_index=True), pd.DataFrame(sets))
    errors = errors[["layer", "domain", *errors.columns.drop(["layer", "domain"])]]
    folder = study.results_dir / "tables"
    write_table(folder / "applicability.csv", errors)
    write_table(folder / "prediction_sets.csv", sets)
    write_json(folder / "applicability.json", _record(study, found, errors, sets))
    return errors, sets


def _cells(study, one, everywhere, truth):
    """Return a table of all mapped cells of a layer."""
    import pandas as pd

    files, maps, target = trust_files(study), map_files(study), ice.TARGETS[study.target]
    dissimilarity = _read(files[f"dissimilarity_index_{one.layer}"])[0].ravel()
    mapped = np.flatnonzero(np.isfinite(dissimilarity))
    chances = _read(maps[f"class_probability_{one.layer}"])[0].reshape(len(target.codes), -1)[:, mapped]
    in_domain, density = everywhere.ravel()[mapped], _read(files[f"point_density_{one.layer}"])[0].ravel()[mapped]
    members, levels = _sets_and_levels(study, one, chances.T, density, in_domain)
    cells = pd.DataFrame({
        "cell": mapped,
        "in_domain": in_domain,
        "dissimilarity": dissimilarity[mapped],
        "density": density,
        "level": levels,
        "classes": members.sum(axis=1),
        "mapped": _read(maps[f"{target.file_name}_{one.layer}"])[0].ravel()[mapped],
        "probable": chances.argmax(axis=0).astype(np.uint8),
        "expected": 1 - chances.max(axis=0) * PROBABILITY_SCALE,
    })  # fmt: skip
    if truth is not None:
        cells["true"] = np.array(target.of_type, np.uint8)[truth[f"ice_type_{one.layer}"].ravel()[mapped]]
        cells["error"], cells["error_probable"] = cells["mapped"] != cells["true"], cells["probable"] != cells["true"]
        cells["error_permafrost"] = (cells["probable"] > 0) != (cells["true"] > 0)
        cells["covered"] = conformal.covered(members, cells["true"])
    return cells


def _add_ceiling(study, cells, sampled):
    """Add how much worse the most probable class is than a forest that was shown the truth, at the sampled cells."""
    from sklearn.ensemble import RandomForestClassifier

    values, places = sampled
    at = cells.set_index("cell").index.get_indexer(places)
    known = cells["true"].to_numpy()[at]
    best = RandomForestClassifier(random_state=study.forest.seed, n_jobs=-1, **CEILING).fit(values, known)
    # Sums over trees are rounded, as threads add them up in any order.
    wrong = best.classes_[best.oob_decision_function_.round(9).argmax(axis=1)] != known
    cells["avoidable"] = np.nan
    cells.loc[at, "avoidable"] = cells["error_probable"].to_numpy()[at].astype(float) - wrong


def _error_rows(one, cells):
    import pandas as pd

    ends = [f"{a}-{b - 1}" if b - a > 1 else f"{a}" for a, b in itertools.pairwise(DENSITIES)]
    fifths = pd.qcut(cells["dissimilarity"], QUANTILES, duplicates="drop")
    groups = {
        "all": _grouped(np.zeros(len(cells), int), ["all"]),
        "area of applicability": _grouped(cells["dissimilarity"] > one.applicability.threshold, ["inside", "outside"]),
        "dissimilarity": _grouped(
            fifths.cat.codes,
            [f"{n}: {max(part.left, 0):.3f}-{part.right:.3f}" for n, part in enumerate(fifths.cat.categories, start=1)],
        ),
        "point density": _grouped(
            np.searchsorted(DENSITIES, cells["density"], "right") - 1, [*ends, f"{DENSITIES[-1]} and more"]
        ),
        "trust": _grouped(cells["level"] - 1, [level[0] for level in LEVELS.values()]),
    }
    judged = cells[[name for name in JUDGED if name in cells]].astype(np.float64)
    parts = []
    for by, group in groups.items():
        grouped = judged.groupby(group, observed=True)
        count = grouped.size()
        part = grouped.mean().assign(by=by, cells=count, share=count / len(cells))
        parts.append(part.rename_axis("group").reset_index())
    return pd.concat(parts, ignore_index=True)[["by", "group", "cells", "share", *judged]]


def _grouped(codes, names):
    import pandas as pd

    return pd.Categorical.from_codes(np.asarray(codes, int), names)


def _set_rows(study, one, domain, cells):
    inside = np.ones(len(one.rows), bool) if domain == "whole" else one.rows["in_domain"].to_numpy(bool)
    types, held = one.rows["class"].to_numpy(), conformal.covered(one.members, one.rows["class"])
    size, found = one.members.sum(axis=1), []
    for kind in ice.TARGETS[study.target].classes:
        own = inside & (types == kind.code)
        row = {"layer": one.layer, "domain": domain, "class": kind.name, "limit": one.limits[kind.code]}
        row["calibration_samples"] = int((types == kind.code).sum())
        row |= {"samples": int((own & one.judged).sum()), "coverage_samples": _mean(held[own & one.judged])}
        row["mean_size_samples"] = _mean(size[own & one.judged])
        if "true" in cells:
            part = cells[cells["true"] == kind.code]
            row |= {"cells": len(part), "coverage_cells": _mean(part["covered"])}
            if np.isnan(row["limit"]):
                row["coverage_cells"] = np.nan
            row["mean_size_cells"] = _mean(part["classes"])
        found.append(row)
    return found


def _mean(values):
    return float(np.mean(values)) if len(values) else np.nan


def _record(study, found, errors, sets):
    """Return what ``applicability.json`` holds."""
    layers = {}
    for one in found:
        mine = sets[(sets["layer"] == one.layer) & (sets["domain"] == "whole")]
        shares = errors[(errors["layer"] == one.layer) & (errors["by"] == "area of applicability")]
        layers[one.layer] = {
            "samples": len(one.rows),
            "threshold": one.applicability.threshold,
            "weights": one.weights,
            "sets_undefined_for": mine.loc[mine["limit"].isna(), "class"].tolist(),
            "groups": json.loads(shares.drop(columns=["layer", "by"]).to_json(orient="records")),
        }
    return {
        "simulated": study.simulated,
        "coverage": study.trust.coverage,
        "similar_samples": study.trust.similar_samples,
        "levels": {name: meaning for name, _, meaning in LEVELS.values()},
        "layers": layers,
    }
