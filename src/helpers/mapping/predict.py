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
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from joblib import cpu_count

from helpers.accuracy.report import write_json
from helpers.core import ice, qgis
from helpers.core.code import file_hash, package_digest, short_hash
from helpers.core.errors import CompendiumError
from helpers.core.grid import BLOCK, open_raster, reference_grid
from helpers.core.study import Study
from helpers.forest.models import (
    REGRESSED,
    calibrate,
    class_probabilities,
    load_model,
    mapped_class,
    model_path,
    read_card,
)
from helpers.prepare.registry import covariate_files

CHUNK = 100_000
"""Rows predicted at a time from an array: about the fastest number, and small in memory; chunks of a map are alike."""


PROBABILITY_SCALE = 1e-4


_UNITS = round(1 / PROBABILITY_SCALE)


_MISSING = 65535  # in chunks and rasters of probabilities


_WINDOW = 1024  # cells along a side of the windows that totals are summed up by


_ELEVATIONS = (-500.0, 9000.0)  # m, of any ground


class MapError(CompendiumError):
    """A map that cannot be made from these covariates and forests."""


def map_files(study):
    """Return the rasters of the map by name.

    The rasters of classes are named after what the target tells: ``ice_type_<layer>``, also of the target two_stage,
    ``permafrost_<layer>`` or ``ice_level_<layer>``.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to pathlib.Path
    """
    folder = study.results_dir / "maps"
    kinds = (ice.TARGETS[study.target].file_name, "class_probability", "ice_content")
    names = [f"{kind}_{ice.layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: folder / f"{name}.tif" for name in [*names, "ice_storage"]}


def read_predictors(study, predictors, part=None, units=None, step=1):
    """Return the predictors of all cells, or those of a window, that have every one of them.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictors : sequence of str
        Names of covariates, in the order of the forest.
    part : tuple of slice, optional
        Rows and columns of the reference grid; all by default.
    units : dict of str to str, optional
        The unit that each covariate must have.
    step : int
        Of both rows and columns: every cell by default.

    Returns
    -------
    values : numpy.ndarray of float32, shape (cells, predictors)
        In raster order, which predicts faster than any other.
    cells : numpy.ndarray of int, shape (cells,)
        Their flat indices on the reference grid, or in the window.

    Raises
    ------
    MapError
        A covariate is missing, lies on another grid, or has another unit.
    """
    geobox = reference_grid(study)
    part = part or (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
    cells, values, files = None, None, covariate_files(study)
    for number, name in enumerate(predictors):
        with _open_covariate(files, name, geobox, (units or {}).get(name)) as source:
            band = source.read(1, window=part).ravel()
        if cells is None:
            # Covariates have no values outside of the study area.
            cells = np.flatnonzero(np.isfinite(band))
            if step > 1:
                row, column = np.divmod(cells, part[1].stop - part[1].start)
                cells = cells[(row % step == 0) & (column % step == 0)]
            values = np.empty((len(predictors), len(cells)), np.float32)
            if not values.size:
                break
        band.take(cells, out=values[number])
    complete = np.isfinite(values).all(axis=0)
    if not complete.all():
        values, cells = values[:, complete], cells[complete]
    return np.ascontiguousarray(values.T), cells


def _open_covariate(files, name, geobox, unit=None):
    """Return the opened file of a covariate that is what the forest learnt from."""
    import rasterio

    path, again = files.get(name), "run 01-prepare-data for this study"
    if path is None or not path.is_file():
        raise MapError(f"The covariate {name} of the forest is missing.", again)
    try:
        source = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise MapError(f"{path.name} cannot be read: {error}", again) from None
    if source.shape != tuple(geobox.shape) or not source.transform.almost_equals(geobox.transform):
        raise MapError(f"{path.name} is not on the reference grid.", again)
    if source.crs != rasterio.CRS.from_wkt(geobox.crs.to_wkt()):
        raise MapError(f"{path.name} is in another coordinate reference system than the reference grid.", again)
    if unit is not None and source.units[0] != unit:
        raise MapError(
            f"{path.name} is in {source.units[0] or 'no unit'}, and the forest learnt {name} in {unit}.",
            "convert the raster, or run 01-prepare-data and 03-grid-search again",
        )
    return source


def predict(model, calibration, values, threads=None, target="ice_type"):
    """Return a forest's class and its calibrated probabilities for many cells.

    The forest itself stays single-threaded and chunks run side by side, so the result is the same to the last bit on
    any number of threads.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    calibration : dict
        From `helpers.forest.models.fit_calibration`.
    values : numpy.ndarray of float32, shape (cells, predictors)
    threads : int, optional
        As many as cores by default.
    target : str
        One of `helpers.core.ice.TARGETS`.

    Returns
    -------
    types : numpy.ndarray of uint8, shape (cells,)
        Codes of classes.
    probabilities : numpy.ndarray of float32, shape (cells, classes)
        Calibrated.
    """
    types, classes = np.empty(len(values), np.uint8), ice.TARGETS[target].codes
    probabilities = np.empty((len(values), len(classes)), np.float32)

    def chunk(start):
        part = slice(start, start + CHUNK)
        types[part], probabilities[part] = _classify(model, calibration, values[part], target)

    _by_rows(model, chunk, len(values), threads)
    return types, probabilities


def _classify(model, calibration, values, target):
    raw = class_probabilities(model, values, ice.TARGETS[target].codes)
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


def within_extent(ice_content, probability):
    """Return ice content with all ice in the extent of permafrost.

    The extent is the most probable cells, as many as the probabilities of all cells add up to. What is expected in the
    other cells is moved into it in proportion, so that the total stays. With few boreholes a forest cannot place the
    limit of permafrost sharply, and its expectation trails off into ground that has none: moved, less ice lies there.
    In the virtual study the mean absolute error of a cell hardly changes, and the root mean square error is larger.

    Parameters
    ----------
    ice_content : numpy.ndarray of float, shape (cells,)
        Expected, m3 m-3.
    probability : numpy.ndarray of float, shape (cells,)
        Of permafrost in the layer, calibrated; rounded to `PROBABILITY_SCALE`.

    Returns
    -------
    numpy.ndarray of float, shape (cells,)
        0 outside of the extent, never more than 1; unchanged where the probabilities do not add up to one cell.
    """
    chance = np.rint(probability / PROBABILITY_SCALE).astype(int)
    counts = np.bincount(chance, minlength=_UNITS + 1)
    limit, share = _extent(counts, np.bincount(chance, ice_content, _UNITS + 1))
    return np.where(chance >= limit, np.minimum(ice_content * share, 1), 0).astype(ice_content.dtype)


def _extent(counts, content):
    """Return the least probability within the extent, in steps of the scale, and by how much ice grows in it.

    From the number of cells and their ice at each step of probability, which is as exact as from all cells: stored
    probabilities have no more steps.
    """
    cells, total = counts.sum(), (counts * np.arange(_UNITS + 1)).sum() / _UNITS
    if total < 1:
        return 0, 1.0
    # The quantile of the cells, as numpy.quantile has it: linear between two cells.
    place = (cells - 1) * (1 - total / cells)
    low, high = np.searchsorted(np.cumsum(counts), [int(place), int(place) + 1], side="right")
    limit = int(np.ceil(low + (high - low) * (place % 1)))
    kept = content[limit:].sum()
    return limit, content.sum() / kept if kept else 1.0


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
    name, geobox, target = ice.layer_name(layer), reference_grid(study), ice.TARGETS[study.target]
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
    limit, share = _extent(sums[0], sum(weight * part for weight, part in zip(weights, sums[1:], strict=True)))

    files, highest = map_files(study), 0.0
    paths = [files[f"{kind}_{name}"] for kind in (target.file_name, "class_probability", "ice_content")]
    titles = ["expected ice content of the layer", "standard deviation of the ice content of the layer"]
    common = {"study": study, "geobox": geobox}
    with contextlib.ExitStack() as stack:
        types, shares, content = (
            stack.enter_context(raster)
            for raster in (
                open_raster(paths[0], count=1, dtype="uint8", names=paths[0].stem, units="1", long_names=target.name,
                            nodata=ice.NO_TYPE, legend=target.legend, overviews="mode", **common),
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
        _open_covariate(files, name, geobox, units[name]).close()
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
    from helpers.samples.labels import samples_path, used_predictors

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
    columns = len(ice.TARGETS[plan.study.target].codes) + len(plan.models) - 1
    if not numbers.size:
        return kept, np.zeros((1 + columns, _UNITS + 1)), np.zeros(ice.NO_TYPE, int)
    valid = numbers[0] != ice.NO_TYPE
    return kept, _sums(numbers[1:, valid]), np.bincount(numbers[0][valid], minlength=ice.NO_TYPE)


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
    shares[rows, shares.argmax(axis=1)] += _UNITS - shares.sum(axis=1)
    bands = [types, *shares.T, *(np.rint(model.predict(values) / PROBABILITY_SCALE) for model, _ in twin)]
    shape = tuple(one.stop - one.start for one in part)
    numbers = np.full((len(bands), shape[0] * shape[1]), _MISSING, np.uint16)
    numbers[0] = ice.NO_TYPE
    for row, band in zip(numbers, bands, strict=True):
        row[cells] = band
    return numbers.reshape(-1, *shape)


def _sums(columns):
    """Return for each step of the probability of permafrost the number of cells, and the sum of each column.

    They are whole numbers below 2^53, so that they add up exactly, in any order.
    """
    chance = _UNITS - columns[0].astype(int)
    return np.stack(
        [np.bincount(chance, column, _UNITS + 1) for column in [np.ones(len(chance)), *columns]],
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
    values[0, valid] = np.where(_UNITS - steps[0].astype(int) >= limit, np.minimum(expected * share, 1), 0)
    values[1, valid] = np.sqrt(np.maximum(square - mean**2, 0))
    return values


def in_parallel(study, work, jobs, threads=None):
    """Yield what a function makes of each job, side by side and in their order.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its ``compute.scheduler`` decides: threads of this process, or a dask cluster. A run that is itself a task of
        the cluster uses threads, because it would wait for workers that wait for it.
    work : callable
        That and the jobs must be picklable for a cluster.
    jobs : list
    threads : int, optional
        As many as cores by default.

    Yields
    ------
    object
    """
    if study.compute.scheduler and not _is_dask_task():
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            futures = client.map(work, jobs, pure=False)
            while futures:
                yield futures.pop(0).result()
        return
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        yield from pool.map(work, jobs)


def _is_dask_task():
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


# Storage ----------------------------------------------------------------------------------------------------


STORAGE_BANDS = {
    "ice_thickness": ("m", "thickness of ice"),
    "ice_mass": ("kg m-2", "mass of ice"),
    "water_equivalent": ("mm", "water that the ice melts to"),
}
"""Bands of the raster ``ice_storage``: unit and long name."""


def _windows(geobox):
    """Return the rows and columns of windows of a grid, always the same ones."""
    starts = [range(0, size, _WINDOW) for size in geobox.shape]
    ends = geobox.shape
    return [
        tuple(slice(start, min(start + _WINDOW, end)) for start, end in zip(corner, ends, strict=True))
        for corner in ((row, column) for row in starts[0] for column in starts[1])
    ]


@contextlib.contextmanager
def _open_all(paths):
    """Give opened rasters, as functions that read the first band of a window."""
    import rasterio

    if missing := [path for path in paths if not path.is_file()]:
        raise MapError(f"There is no {missing[0].name} of this run.", "run 05-map-ground-ice, or what is before it")
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(rasterio.open(path)) for path in paths]
        yield [lambda part, source=source: source.read(1, window=part) for source in sources]


def _layer_files(study, kind):
    files = map_files(study)
    return [files[f"{kind}_{ice.layer_name(layer)}"] for layer in study.layers]


def map_storage(study):
    """Write ground-ice storage over all layers from their ice contents: thickness, mass and water equivalent.

    Parameters
    ----------
    study : helpers.core.study.Study
        With the rasters of all layers (`map_layer`).

    Returns
    -------
    pathlib.Path
        A raster of the bands `STORAGE_BANDS`.
    """
    geobox, path, highest = reference_grid(study), map_files(study)["ice_storage"], 0.0
    depth = f"ground ice between {study.layers[0][0]:g} and {study.layers[-1][1]:g} m below the surface"
    units, titles = zip(*STORAGE_BANDS.values(), strict=True)
    described = {"names": list(STORAGE_BANDS), "units": units, "long_names": [f"{depth}, {one}" for one in titles]}
    with (
        _open_all(_layer_files(study, "ice_content")) as contents,
        open_raster(path, geobox, len(units), "float32", study=study, overviews="average", **described) as target,
    ):
        for part in _windows(geobox):
            thickness = ice.thickness([read(part) for read in contents], study.layers)
            if np.isfinite(thickness).any():
                highest = max(highest, float(np.nanmax(thickness)))
                water = 1000 * ice.water_equivalent(thickness)
                target.write(np.stack([thickness, ice.mass(thickness), water]).astype(np.float32), window=part)
    qgis.write_ramp_style(path, highest or 1.0, "m")
    return path


def storage_totals(study):
    """Return the volume of ground ice by layer, and by region, elevation band and class.

    The rasters of the map are summed up by windows, always the same ones, so that no sum depends on how they were made.

    Parameters
    ----------
    study : helpers.core.study.Study
        With the rasters of all layers (`map_layer`).

    Returns
    -------
    dict of str to pandas.DataFrame
        `regions` and `elevation_bands`: one row each and one for the whole area (`all`), with `ice_km3_<layer>` of each
        layer, `ice_km3`, `water_km3` of all, `mapped_km2`, `extent_km2` with permafrost in any layer, and means over
        the latter: `mean_thickness_m_<layer>` and `mean_thickness_m` of ice, its mass `mean_mass_kg_m2`, and
        `mean_water_equivalent_mm`. `types`: one row a class, with `area_km2_<layer>`, where it is mapped, and
        `ice_km3_<layer>` there.
    """
    import pandas
    from rasterio.features import rasterize

    geobox, target, cell = reference_grid(study), ice.TARGETS[study.target], study.grid.resolution**2 / 1e6
    regions, shapes = _regions(study, geobox)
    width, layers = study.maps.elevation_band, [ice.layer_name(layer) for layer in study.layers]
    first, last = (int(np.floor(height / width)) for height in _ELEVATIONS)
    bands = [f"{n * width:g}-{(n + 1) * width:g}m" for n in range(first, last + 1)]
    by_region, by_band = (np.zeros((len(names) + 1, 2 + len(layers))) for names in (regions, bands))
    by_type = np.zeros((len(layers), len(target.classes), 2))
    with (
        _open_all(_layer_files(study, "ice_content")) as contents,
        _open_all(_layer_files(study, target.file_name)) as types,
        _open_all([covariate_files(study)["elevation"]]) as (elevation,),
    ):
        for part in _windows(geobox):
            ices = [read(part) for read in contents]
            if not np.isfinite(ices[0]).any():
                continue
            inner = geobox[part]
            region = rasterize(shapes, out_shape=inner.shape, transform=inner.transform, dtype="int32")
            mapped = np.isfinite(ices[0]) & (region > 0)
            depths = [one[mapped].astype(float) * (b - t) for one, (t, b) in zip(ices, study.layers, strict=True)]
            frozen = np.any([depth > 0 for depth in depths], axis=0)
            columns = [np.ones(len(frozen)), frozen, *depths]
            # Cells without an elevation count in the last row, which is left out.
            height = np.nan_to_num(elevation(part)[mapped], nan=np.inf) / width
            band = np.clip(np.floor(height), first, last + 1).astype(int) - first
            for sums, group in ((by_region, region[mapped] - 1), (by_band, band)):
                sums += _by_group(group, columns, len(sums))
            for sums, read, depth in zip(by_type, types, depths, strict=True):
                sums += _by_group(read(part)[mapped], [np.ones(len(depth)), depth], len(sums))
    found = {
        name: _storage_table(study, pandas.Index(rows, name=title), sums[:-1] * cell)
        for name, title, rows, sums in (
            ("regions", "region", regions, by_region),
            ("elevation_bands", "elevation", bands, by_band),
        )
    }
    found["elevation_bands"] = found["elevation_bands"].query("mapped_km2 > 0")
    table = pandas.DataFrame(index=pandas.Index([kind.name for kind in target.classes], name="class"))
    for layer, sums in zip(layers, by_type, strict=True):
        table[f"area_km2_{layer}"], table[f"ice_km3_{layer}"] = sums.T * [[cell], [cell / 1000]]
    return found | {"types": table}


def _regions(study, geobox):
    """Return the names of the regions, and their shapes on the grid with numbers from 1."""
    import geopandas

    regions = geopandas.read_file(study.path(study.area.polygons), layer=study.area.regions_layer)
    shapes = list(zip(regions.to_crs(geobox.crs.to_wkt()).geometry, range(1, len(regions) + 1), strict=True))
    return regions["name"].tolist(), shapes


def _by_group(group, columns, size):
    """Return the sum of each column in each group, shape (size, columns)."""
    return np.stack([np.bincount(group, column, size) for column in columns], axis=1)


def _storage_table(study, index, sums):
    """Return a table of storage from sums over cells times their area (km2): one, permafrost, and metres of ice."""
    import pandas

    table = pandas.DataFrame({"mapped_km2": sums[:, 0], "extent_km2": sums[:, 1]}, index=index)
    names = [ice.layer_name(layer) for layer in study.layers]
    for name, column in zip(names, sums.T[2:], strict=True):
        table[f"ice_km3_{name}"] = column / 1000
    table.loc["all"] = table.sum()
    table["ice_km3"] = table.filter(like="ice_km3_").sum(axis=1)
    table["water_km3"] = table["ice_km3"] * ice.ICE_DENSITY / ice.WATER_DENSITY
    extent = table["extent_km2"].where(table["extent_km2"] > 0)
    for name in names:
        table[f"mean_thickness_m_{name}"] = table[f"ice_km3_{name}"] * 1000 / extent
    table["mean_thickness_m"] = table["ice_km3"] * 1000 / extent
    table["mean_mass_kg_m2"] = ice.mass(table["mean_thickness_m"].to_numpy())
    table["mean_water_equivalent_mm"] = 1000 * ice.water_equivalent(table["mean_thickness_m"].to_numpy())
    return table


def write_totals(study, totals, truth=None):
    """Write the tables of `storage_totals` as JSON, with the comparison of `against_truth` where there is one."""
    first, last = study.layers[0][0], study.layers[-1][1]
    record = {
        "depth_m": [first, last],
        "datum": "below the surface",
        "simulated": study.simulated,
        "storage_from": study.storage_from,
        "units": {
            "ice_km3": "km3 of ice",
            "water_km3": "km3 of water",
            "mapped_km2": "km2",
            "extent_km2": "km2",
            "area_km2": "km2",
            "mean_thickness_m": "m of ice",
            "mean_mass_kg_m2": "kg of ice per m2",
            "mean_water_equivalent_mm": "mm of water",
        },
        "against_truth": truth,
        **{name: json.loads(table.round(6).to_json(orient="index")) for name, table in totals.items()},
    }
    write_json(study.results_dir / "tables" / "storage.json", record)
    return record


def against_truth(study):
    """Compare storage with the hidden truth of the virtual study.

    Parameters
    ----------
    study : helpers.core.study.Study
        With the rasters of all layers (`map_layer`).

    Returns
    -------
    dict
        `mapped_km3` and `true_km3` of ice over the mapped cells, `bias` as a share of the true total,
        `in_permafrost_free_cells`: the share of the mapped ice that lies in cells which have no permafrost at all, and
        the error of a cell's thickness: `rmse_m` and `mean_absolute_error_m` over all mapped cells, and the same over
        those that have permafrost (`_frozen`), m of ice.
    """
    from testbed.boreholes import truth_files

    files, sums = truth_files(study), 0.0
    known = [files[f"ice_fraction_{ice.layer_name(layer)}"] for layer in study.layers]
    with (
        _open_all(_layer_files(study, "ice_content")) as contents,
        _open_all(known) as truth,
        _open_all([files["permafrost_share"]]) as (share,),
    ):
        for part in _windows(reference_grid(study)):
            ours, true = ([read(part) for read in sources] for sources in (contents, truth))
            sums = sums + _truth_sums(study, ours, true, share(part) == 0)
    return _compared(sums)


def compare_storage(study, contents, truth, free):
    """Return what `against_truth` does, from arrays; `free` marks the cells without any permafrost."""
    return _compared(_truth_sums(study, contents, truth, free))


def _truth_sums(study, contents, truth, free):
    """Return km3 of ice mapped, true, and mapped where there is no permafrost; cells, and sums of their errors."""
    mapped = np.isfinite(contents[0])
    ours, true = (ice.thickness(np.stack(part), study.layers)[mapped] for part in (contents, truth))
    volumes = [part.sum(dtype=float) for part in (ours, true, ours[free[mapped]])]
    errors = [np.ones(len(ours)), np.square(ours - true), np.abs(ours - true)]
    sums = [part.sum(dtype=float) for part in errors] + [part[~free[mapped]].sum(dtype=float) for part in errors]
    return np.array([*np.multiply(volumes, study.grid.resolution**2 / 1e9), *sums])


def _compared(sums):
    mapped, true, leaked, *errors = (float(value) for value in sums)
    told = {
        "mapped_km3": mapped,
        "true_km3": true,
        "bias": mapped / true - 1,
        "in_permafrost_free_cells": leaked / mapped,
    }
    for name, (cells, squares, sizes) in {"": errors[:3], "_frozen": errors[3:]}.items():
        told[f"rmse_m{name}"] = (squares / cells) ** 0.5 if cells else None
        told[f"mean_absolute_error_m{name}"] = sizes / cells if cells else None
    return told
