"""How far the map may be believed: by cell and layer, and where the truth is known, whether that is true.

One pass over the map, window by window, gives the dissimilarity index and local point density of each layer, the set of
classes that are possible at the stated probability, and one map of four plain levels.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import rasterio
from joblib import cpu_count
from rasterio.windows import Window

from helpers.core import classes, qgis
from helpers.core.grid import reference_grid
from helpers.core.rasters import open_raster
from helpers.folds import kinds
from helpers.folds.weights import area_weights
from helpers.forest import calibration, out_of_fold
from helpers.forest.cards import card_params, model_path, read_card
from helpers.mapping import conformal
from helpers.mapping.applicability import Applicability, fit, importance_weights
from helpers.mapping.extent import PROBABILITY_SCALE
from helpers.mapping.files import map_files
from helpers.prepare.registry import covariate_files
from helpers.samples.rows import layer_rows, predictor_values

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


CEILING_CELLS = 30_000


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
    folder, layers = study.results_dir / "maps", [classes.layer_name(layer) for layer in study.layers]
    names = [f"{kind}_{layer}" for layer in layers for kind in ("dissimilarity_index", "point_density", _CLASSES)]
    return {name: folder / f"{name}.tif" for name in [*names, "trust"]}


def fit_trust(study, table, n_jobs=-1):
    """Return what the samples say about where the map may be believed, layer by layer.

    Weights are permutation importances (`helpers.forest.out_of_fold.out_of_fold_importance`). Prediction sets are
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
    layers = [classes.layer_name(layer) for layer in study.layers]
    cards = [read_card(model_path(study, layer)) for layer in layers]
    rows = [layer_rows(table, card["layer"], card["fit"], study.target) for card in cards]
    folds = [kinds.sample_folds(study, part) for part in rows]
    jobs = [(part, fold, card_params(card)) for part, fold, card in zip(rows, folds, cards, strict=True)]
    unseen = out_of_fold.out_of_fold(study, jobs, n_jobs)
    importance, found = out_of_fold.out_of_fold_importance(study, jobs, n_jobs=n_jobs), []
    for (part, fold, _), card, raw, weights in zip(jobs, cards, unseen, importance, strict=True):
        types = part["class"].to_numpy()
        chances = _calibrated(raw, types, fold, area_weights(study, part))
        weights = importance_weights(weights, card["predictors"])
        values = predictor_values(part, card["predictors"])
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
        chances[held] = calibration.calibrate(
            raw[held], calibration.fit_calibration(raw[~held], types[~held], weight[~held])
        )
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
    trust : helpers.core.settings.Trust

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
    domain = sum(np.count_nonzero(read_window(rule, window)[0] > study.domain.above) for window in windows)
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
        density = measured.measure(predictor_values(one.rows, measured.predictors))[1]
        top = max(2 * np.median(density), 1)
        qgis.write_ramp_style(files[f"point_density_{one.layer}"], top, "samples", "bamako_r")
        sizes = range(1, one.members.shape[1] + 1)
        colours = [to_hex(colour) for colour in cm.batlow_r(np.linspace(0, 1, len(sizes)))]
        names = [f"{size} class{'es' if size > 1 else ''}" for size in sizes]
        legend = dict(zip(sizes, zip(names, colours, strict=True), strict=True))
        qgis.write_class_style(files[f"{_CLASSES}_{one.layer}"], legend)
    qgis.write_class_style(files["trust"], {code: level[:2] for code, level in LEVELS.items()})


def _rasterio_window(window):
    return Window.from_slices(*window)


def read_window(path, window=None):
    """Return the bands of a raster in a window, and its nodata value."""
    with rasterio.open(path) as source:
        return source.read(window=window and _rasterio_window(window)), source.nodata


def _window(study, found, geobox, window, step):
    """Return the rasters of a window, and predictors and cells of those of its cells that stand for the domain."""
    maps, files, names = map_files(study), covariate_files(study), list(found[0].weights)
    chances, nodata = zip(*(read_window(maps[f"class_probability_{one.layer}"], window) for one in found), strict=True)
    mapped = np.all([part[0] != none for part, none in zip(chances, nodata, strict=True)], axis=0)
    shape, rasters, lowest = mapped.shape, {}, np.full(mapped.sum(), 255, np.uint8)
    values = np.stack([read_window(files[name], window)[0][0][mapped] for name in names], axis=1)
    in_domain = read_window(files[study.domain.covariate], window)[0][0][mapped] > study.domain.above

    def raster(data, dtype, none):
        whole = np.full((*data.shape[1:], *shape), none, dtype)
        whole[..., mapped] = data.T
        return whole.reshape(-1, *shape)

    for one, part in zip(found, chances, strict=True):
        used = one.applicability.predictors
        dissimilarity, density = one.applicability.measure(values[:, [names.index(name) for name in used]])
        members, levels = sets_and_levels(study, one, part[:, mapped].T, density, in_domain)
        lowest = np.minimum(lowest, levels)
        sets = np.stack([members.sum(axis=1), members @ (1 << np.arange(members.shape[1]))], axis=1)
        rasters[f"dissimilarity_index_{one.layer}"] = raster(dissimilarity, np.float32, np.nan)
        rasters[f"point_density_{one.layer}"] = raster(np.minimum(density, 65534), np.uint16, 65535)
        rasters[f"{_CLASSES}_{one.layer}"] = raster(sets, np.uint8, 0)
    rasters["trust"] = raster(lowest, np.uint8, NO_LEVEL)
    row, column = (axis[mapped] + part.start for axis, part in zip(np.indices(shape), window, strict=True))
    some = in_domain & (row % step == 0) & (column % step == 0)
    return rasters, values[some], (row * geobox.shape[1] + column)[some]


def sets_and_levels(study, one, chances, density, in_domain):
    """Return prediction sets and levels of trust of cells from their probabilities as the raster has them."""
    members = conformal.prediction_sets(chances, np.rint(one.limits / PROBABILITY_SCALE))
    return members, level_of(density, chances[:, 0] * PROBABILITY_SCALE, members, in_domain, study.trust)
