"""The map: classes, calibrated probabilities, expected ice and storage of every cell, and totals by region.

Classes are those of the study's target, by default the ice types. The class of a cell is what the balanced forest
predicts, as in the reference's method. Ice is expected from the calibrated probabilities, because a balanced forest's
own give rare classes too much; with `storage_from: regression`, by a forest of the ice fraction itself.

A map is made in two passes. The first predicts chunks side by side, and keeps each in a file of its own, so that an
interrupted run continues with the missing ones; they hold whole numbers, whose sums are the same in any order. From
these sums follows the extent of permafrost, and the second pass writes the rasters. Memory depends on the size of a
chunk, not on that of the map.
"""

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from joblib import cpu_count

from helpers.core import qgis
from helpers.core.classes import NO_TYPE, TARGETS, layer_name
from helpers.core.code import package_digest
from helpers.core.files import file_hash, short_hash
from helpers.core.grid import reference_grid
from helpers.core.parallel import in_parallel
from helpers.core.rasters import BLOCK, open_raster
from helpers.core.scores import mapped_class
from helpers.core.study import Study
from helpers.forest.calibration import calibrate
from helpers.forest.cards import load_model, model_path, read_card
from helpers.forest.class_means import REGRESSED
from helpers.forest.models import class_probabilities
from helpers.mapping.extent import PROBABILITY_SCALE, UNITS, permafrost_extent
from helpers.mapping.files import MapError, map_files
from helpers.prepare.registry import covariate_files, used_predictors
from helpers.samples.extract import open_predictor, read_predictors
from helpers.samples.store import samples_path

CHUNK = 100_000
"""Rows predicted at a time from an array: about the fastest number, and small in memory; chunks of a map are alike."""


_MISSING = 65535  # in chunks and rasters of probabilities


def predict(model, calibration, values, threads=None, target="ice_type"):
    """Return a forest's class and its calibrated probabilities for many cells.

    The forest itself stays single-threaded and chunks run side by side, so the result is the same to the last bit on
    any number of threads.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    calibration : dict
        From `helpers.forest.calibration.fit_calibration`.
    values : numpy.ndarray of float32, shape (cells, predictors)
    threads : int, optional
        As many as cores by default.
    target : str
        One of `helpers.core.classes.TARGETS`.

    Returns
    -------
    types : numpy.ndarray of uint8, shape (cells,)
        Codes of classes.
    probabilities : numpy.ndarray of float32, shape (cells, classes)
        Calibrated.
    """
    types, classes = np.empty(len(values), np.uint8), TARGETS[target].codes
    probabilities = np.empty((len(values), len(classes)), np.float32)

    def chunk(start):
        part = slice(start, start + CHUNK)
        types[part], probabilities[part] = _classify(model, calibration, values[part], target)

    _by_rows(model, chunk, len(values), threads)
    return types, probabilities


def _classify(model, calibration, values, target):
    raw = class_probabilities(model, values, TARGETS[target].codes)
    return mapped_class(raw, target), calibrate(raw, calibration)


def predict_ice(model, values, threads=None):
    """Return the ice fraction that a regression forest expects in many cells, side by side like `predict`.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestRegressor
        From `helpers.forest.regression.fit`.
    values : numpy.ndarray of float32, shape (cells, predictors)
    threads : int, optional
        As many as cores by default.

    Returns
    -------
    numpy.ndarray of float32, shape (cells,)
        m3 of ice per m3 of the layer.
    """
    expected = np.empty(len(values), np.float32)

    def chunk(start):
        part = slice(start, start + CHUNK)
        expected[part] = model.predict(values[part])

    _by_rows(model, chunk, len(values), threads)
    return expected


def _by_rows(model, chunk, cells, threads):
    model.n_jobs = 1
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        list(pool.map(chunk, range(0, cells, CHUNK)))


# The rasters of a layer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the chunks of a layer are predicted from; small enough to be sent to another machine."""

    study: Study
    layer: str
    models: tuple  # path, target and SHA-256 of the classifier and, for storage from it, of the regression
    folder: Path  # of finished chunks


def map_layer(study, layer, threads=None, block=BLOCK):
    """Predict one depth layer and write its three rasters, each with a QGIS style beside it.

    These are the class; the calibrated probability of each class; and the expected ice content within the extent of
    permafrost (`within_extent`) with its standard deviation, in two bands, m3 of ice per m3 of the layer. The standard
    deviation is that of a hole in the cell, by the law of total variance from the probabilities, and mean and standard
    deviation of each class's samples: sum of p_k (s_k^2 + m_k^2) less the square of the expected content, as it is
    before ice is moved. It tells the doubt about the class also where ice is regressed.

    Chunks that an interrupted run has finished are not predicted again, as long as forests, covariates, settings and
    code are the same; `remove_chunks` deletes them.

    Parameters
    ----------
    study : helpers.core.study.Study
        With ``compute.scheduler``, its dask cluster predicts the chunks; it must see the same files.
    layer : tuple of float
        Top and bottom, m.
    threads : int, optional
        As many as cores by default. No result depends on it.
    block : tuple of int
        Rows and columns of a chunk. No result depends on it.

    Returns
    -------
    dict
        `cells` of each class by its code, the number of `chunks`, and how many of them were `kept` from an earlier run.

    Raises
    ------
    MapError
        The covariates do not fit the forest, or the forest not the study.
    """
    name, geobox, target = layer_name(layer), reference_grid(study), TARGETS[study.target]
    plan, card = _plan(study, name, geobox, block)
    plan.folder.mkdir(parents=True, exist_ok=True)
    parts = [
        (slice(row, min(row + block[0], geobox.shape[0])), slice(column, min(column + block[1], geobox.shape[1])))
        for row in range(0, geobox.shape[0], block[0])
        for column in range(0, geobox.shape[1], block[1])
    ]
    kept, sums, cells = 0, 0, 0
    for before, more, classes in in_parallel(study, partial(_finish_chunk, plan), parts, threads):
        kept, sums, cells = kept + before, sums + more, cells + classes
    means, sds = (np.array(card[key]) for key in ("class_means", "class_sds"))
    regressed = len(plan.models) > 1
    weights = [*np.zeros(len(means)), 1.0] if regressed else means
    limit, share = permafrost_extent(
        sums[0], sum(weight * part for weight, part in zip(weights, sums[1:], strict=True))
    )

    files, highest = map_files(study), 0.0
    paths = [files[f"{kind}_{name}"] for kind in (target.file_name, "class_probability", "ice_content")]
    titles = ["expected ice content of the layer", "standard deviation of the ice content of the layer"]
    common = {"study": study, "geobox": geobox}
    with contextlib.ExitStack() as stack:
        types, shares, content = (
            stack.enter_context(raster)
            for raster in (
                open_raster(paths[0], count=1, dtype="uint8", names=paths[0].stem, units="1", long_names=target.name,
                            nodata=NO_TYPE, legend=target.legend, overviews="mode", **common),
                open_raster(paths[1], count=len(means), dtype="uint16", names=[kind.name for kind in target.classes],
                            units="1", long_names="calibrated probability", nodata=_MISSING, scale=PROBABILITY_SCALE,
                            overviews="average", **common),
                open_raster(paths[2], count=2, dtype="float32", names=["ice_content", "ice_content_sd"],
                            units="m3 m-3", long_names=titles, overviews="average", **common),
            )
        )  # fmt: skip
        for part in parts:
            numbers = np.load(_chunk_file(plan, part))
            if numbers.size:
                types.write(numbers[0].astype(np.uint8), 1, window=part)
                shares.write(numbers[1 : 1 + len(means)], window=part)
                values = _ice_content(numbers[1:], weights, means, sds, limit, share)
                content.write(values, window=part)
                highest = max(highest, float(np.nanmax(values[0])))
    qgis.write_class_style(paths[0], target.legend)
    qgis.write_ramp_style(paths[1], 1.0, "")
    qgis.write_ramp_style(paths[2], highest or 1.0, "m³ m⁻³")
    counts = {code: int(cells[code]) for code in np.flatnonzero(cells).tolist()}
    return {"cells": counts, "chunks": len(parts), "kept": kept}


def _plan(study, layer, geobox, block):
    """Return the plan of a layer and the classifier's card; what does not fit together is refused."""
    paths = [(model_path(study, layer), study.target)]
    if study.storage_from == "regression":
        paths.append((model_path(study, layer, "regression"), REGRESSED))
    cards = [read_card(path) for path, _ in paths]
    for (path, _), card in zip(paths, cards, strict=True):
        _check_card(study, path, card)
    files, units = covariate_files(study), _units(cards[0])
    for name in cards[0]["predictors"]:
        open_predictor(files, name, geobox, units[name]).close()
    # The content of covariates is told by their files' time and size: to read them all would take minutes at 30 m.
    states = [[name, (state := files[name].stat()).st_mtime_ns, state.st_size] for name in cards[0]["predictors"]]
    hashes = [card["sha256"] for card in cards]
    key = short_hash([hashes, cards[0]["calibration"], states, list(geobox.shape), block, package_digest()])
    models = tuple((path, target, sha) for (path, target), sha in zip(paths, hashes, strict=True))
    for old in _chunks_dir(study).glob(f"{layer}_*"):
        if old.name != f"{layer}_{key}":
            shutil.rmtree(old)
    for path, target, sha in models:
        _load(path, target, sha)
    return _Plan(study, layer, models, _chunks_dir(study) / f"{layer}_{key}"), cards[0]


def _check_card(study, path, card):
    """Refuse a forest of another study, run, samples or predictors."""
    again = "run 03-grid-search for this study"
    if (card["study"], card["run"]) != (study.name, study.run):
        raise MapError(
            f"{path.name} is a forest of the study {card['study']}, run {card['run']}, and not of "
            f"{study.name}, run {study.run}.",
            again,
        )
    samples = samples_path(study)
    if samples.is_file() and file_hash(samples) != card["samples_sha256"]:
        raise MapError(f"{path.name} was grown from other samples than those of this run.", again)
    used = used_predictors(study)
    if card["predictors"] != used:
        if sorted(card["predictors"]) == sorted(used):
            raise MapError(f"{path.name} has the study's predictors in another order.", again)
        other = ", ".join(sorted(set(used) ^ set(card["predictors"]))[:5])
        raise MapError(f"{path.name} has other predictors than the study: {other}.", again)
    if missing := [key for key in ("covariates", "class_sds") if key not in card and study.target == card["target"]]:
        raise MapError(f"The model card of {path.name} is of an older version: it lacks {missing[0]}.", again)


def _units(card):
    return {name: told["unit"] for name, told in card["covariates"].items()}


@lru_cache(maxsize=2)
def _load(path, target, _sha256):
    """Return a forest for threads that predict side by side, and its card."""
    model, card = load_model(path, target)
    model.n_jobs = 1
    return model, card


def _chunks_dir(study):
    return study.results_dir / "maps" / ".chunks"


def remove_chunks(study):
    """Delete the finished chunks of a study's map, which only an interrupted run needs."""
    shutil.rmtree(_chunks_dir(study), ignore_errors=True)


def _chunk_file(plan, part):
    return plan.folder / f"{part[0].start:06d}-{part[1].start:06d}.npy"


def _finish_chunk(plan, part):
    """Predict a window, unless that is done.

    Returned are whether it was, the sums by probability of permafrost (`_sums`), and the cells of each class.
    """
    path = _chunk_file(plan, part)
    if kept := path.is_file():
        numbers = np.load(path)
    else:
        numbers, draft = _predict_chunk(plan, part), path.with_name(f".{path.name}.part")
        with open(draft, "wb") as stream:
            np.save(stream, numbers)
        os.replace(draft, path)
    columns = len(TARGETS[plan.study.target].codes) + len(plan.models) - 1
    if not numbers.size:
        return kept, np.zeros((1 + columns, UNITS + 1)), np.zeros(NO_TYPE, int)
    valid = numbers[0] != NO_TYPE
    return kept, _sums(numbers[1:, valid]), np.bincount(numbers[0][valid], minlength=NO_TYPE)


def _predict_chunk(plan, part):
    """Return the numbers of a window as uint16, shape (bands, y, x); an empty array where nothing can be predicted.

    Bands are the class, the probabilities, and ice where it is regressed, both in steps of the scale.
    """
    study = plan.study
    (model, card), *twin = (_load(*model) for model in plan.models)
    values, cells = read_predictors(study, card["predictors"], part, _units(card))
    if not len(cells):
        return np.empty(0, np.uint16)
    types, probabilities = _classify(model, card["calibration"], values, study.target)
    shares = np.rint(probabilities / PROBABILITY_SCALE).astype(np.int32)
    # Rounded shares would not add up to one: the most probable class takes what is over.
    rows = np.arange(len(shares))
    shares[rows, shares.argmax(axis=1)] += UNITS - shares.sum(axis=1)
    bands = [types, *shares.T, *(np.rint(model.predict(values) / PROBABILITY_SCALE) for model, _ in twin)]
    shape = tuple(one.stop - one.start for one in part)
    numbers = np.full((len(bands), shape[0] * shape[1]), _MISSING, np.uint16)
    numbers[0] = NO_TYPE
    for row, band in zip(numbers, bands, strict=True):
        row[cells] = band
    return numbers.reshape(-1, *shape)


def _sums(columns):
    """Return for each step of the probability of permafrost the number of cells, and the sum of each column.

    They are whole numbers below 2^53, so that they add up exactly, in any order.
    """
    chance = UNITS - columns[0].astype(int)
    return np.stack(
        [np.bincount(chance, column, UNITS + 1) for column in [np.ones(len(chance)), *columns]],
    )


def _ice_content(columns, weights, means, sds, limit, share):
    """Return ice content within the extent and its standard deviation, float32 of shape (2, y, x); NaN is missing."""
    valid = columns[0] != _MISSING
    steps = columns[:, valid]
    # One class after the other: sums by matrix products depend on cores, and on the shape of the array.
    expected, mean, square = (
        PROBABILITY_SCALE * sum(one * column for one, column in zip(factors, steps, strict=False))
        for factors in (weights, means, means**2 + sds**2)
    )
    values = np.full((2, *valid.shape), np.nan, np.float32)
    values[0, valid] = np.where(UNITS - steps[0].astype(int) >= limit, np.minimum(expected * share, 1), 0)
    values[1, valid] = np.sqrt(np.maximum(square - mean**2, 0))
    return values
