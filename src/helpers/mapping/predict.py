"""The map: class, calibrated probabilities and expected ice content of every cell of a layer.

Classes are those of the study's target, by default the ice types. The class of a cell is what the
balanced forest predicts, as in the reference's method. Ice is expected from the calibrated
probabilities, because a balanced forest's own give rare classes too much; with
`storage_from: regression`, by a forest of the ice fraction itself.

A map is made in two passes. The first predicts chunks side by side, and keeps each in a file of its
own, so that an interrupted run continues with the missing ones; they hold whole numbers, whose sums
are the same in any order. From these sums follows the extent of permafrost, and the second pass
writes the rasters. Memory depends on the size of a chunk, not on that of the map.
"""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from sklearn.ensemble import RandomForestClassifier

from helpers.core import qgis
from helpers.core.classes import DEFAULT_TARGET, NO_TYPE, Layer, Target, layer_name
from helpers.core.code import package_digest
from helpers.core.files import file_hash, short_hash, write_aside
from helpers.core.grid import reference_grid
from helpers.core.parallel import in_parallel
from helpers.core.rasters import BLOCK, open_raster
from helpers.core.scores import mapped_class
from helpers.core.study import Study
from helpers.forest.calibration import calibrate
from helpers.forest.cards import load_model, read_card
from helpers.forest.class_means import REGRESSED
from helpers.forest.models import class_probabilities
from helpers.forest.paths import model_path
from helpers.forest.two_stage import TwoStageForest
from helpers.mapping.extent import MISSING, PROBABILITY_SCALE, UNITS, permafrost_extent
from helpers.mapping.files import MapError, Part, grid_windows, map_files
from helpers.prepare.columns import forest_columns
from helpers.prepare.registry import covariate_files
from helpers.samples.extract import open_predictor, read_predictors
from helpers.samples.store import samples_path


def predict(
    model: RandomForestClassifier | TwoStageForest,
    calibration: dict[str, Any],
    values: np.ndarray,
    target: Target = DEFAULT_TARGET,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a forest's class of cells, shape (n,), and calibrated probabilities, shape (n, k).

    The calibration is from `helpers.forest.calibration`. One thread does it, in one order.
    """
    raw = class_probabilities(model, values, target.codes)
    return mapped_class(raw, target), calibrate(raw, calibration)


# The rasters of a layer ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the chunks of a layer are predicted from; small enough to be sent to another machine.

    `models` has path, target and SHA-256 of the classifier and, for storage from it, of the
    regression forest; `folder` is that of finished chunks.
    """

    study: Study
    layer: str
    models: tuple[tuple[Path, str, str], ...]
    folder: Path


def map_layer(
    study: Study,
    layer: Layer,
    threads: int | None = None,
    block: tuple[int, int] = BLOCK,
) -> dict[str, Any]:
    """Predict one layer and write its rasters, each with a QGIS style beside it.

    These are the class; the calibrated probability of each class; and, where the study has ice
    contents and depths, the expected ice content within the extent of permafrost
    (`confine_to_permafrost`) with its standard deviation, in two bands, m3 of ice per m3 of the
    layer. The standard deviation is that of a borehole in the cell, by the law of total variance
    from the probabilities, and mean and standard deviation of each class's samples: sum of p_k
    (s_k^2 + m_k^2) less the square of the expected content, as it is before ice is moved. It shows
    the doubt about the class also where ice is regressed.

    Finished chunks are kept as long as forests, covariates, settings and code are the same;
    `remove_chunks` deletes them. With ``compute.scheduler`` a dask cluster predicts them; it must
    see the same files. No result depends on the number of threads, by default as many as cores, nor
    on the `block`, rows and columns of a chunk.

    Returns
    -------
    summary
        `cells` of each class by its code, the number of `chunks`, and how many of them were `kept`
        from an earlier run.

    Raises
    ------
    MapError, helpers.prepare.registry.CovariateError
        The forest does not fit the study, or the covariates not the forest.
    """
    geobox = reference_grid(study)
    plan, card = _plan(study, layer_name(layer), geobox, block)
    parts = grid_windows(geobox, block)
    kept = 0
    sums = 0
    cells = 0
    for before, more, classes in in_parallel(study, partial(_finish_chunk, plan), parts, threads):
        kept += before
        sums = sums + more
        cells = cells + classes
    counts = {code: int(cells[code]) for code in np.flatnonzero(cells).tolist()}
    summary = {"cells": counts, "chunks": len(parts), "kept": kept}
    if not study.has_storage:
        _write_layer(plan, parts)
        return summary
    means = np.array(card["class_means"])
    sds = np.array(card["class_sds"])
    regressed = len(plan.models) > 1
    weights = [*np.zeros(len(means)), 1.0] if regressed else means
    total = sum(weight * part for weight, part in zip(weights, sums[1:], strict=True))
    extent = permafrost_extent(sums[0], total)
    free = study.target_classes.free

    def ice_content(columns: np.ndarray) -> np.ndarray:
        return _ice_content(columns, free, weights, (means, sds), extent)

    _write_layer(plan, parts, ice_content)
    return summary


def _write_layer(
    plan: _Plan, parts: list[Part], ice_content: Callable[[np.ndarray], np.ndarray] | None = None
) -> None:
    """Write rasters and styles of a layer from its finished chunks."""
    target = plan.study.target_classes
    kinds = (target.file_name, "class_probability", *(["ice_content"] if ice_content else []))
    paths = [map_files(plan.study)[f"{kind}_{plan.layer}"] for kind in kinds]
    names = target.names
    ice_names = ["ice_content", "ice_content_sd"]
    quantities = ("expected ice content", "standard deviation of the ice content")
    classes = {"names": paths[0].stem, "long_names": target.name, "legend": target.legend}
    chances = {"names": names, "long_names": "calibrated probability", "scale": PROBABILITY_SCALE}
    ices = {"names": ice_names, "long_names": [f"{name} of the layer" for name in quantities]}
    rasters = (
        (1, "uint8", {"units": "1", "nodata": NO_TYPE, "overviews": "mode", **classes}),
        (
            len(names),
            "uint16",
            {"units": "1", "nodata": MISSING, "overviews": "average", **chances},
        ),
        (2, "float32", {"units": "m3 m-3", "overviews": "average", **ices}),
    )
    geobox = reference_grid(plan.study)
    highest = 0.0
    with contextlib.ExitStack() as stack:
        targets = [
            stack.enter_context(open_raster(path, geobox, count, dtype, study=plan.study, **more))
            for path, (count, dtype, more) in zip(paths, rasters, strict=False)
        ]
        for part in parts:
            numbers = np.load(_chunk_file(plan, part))
            if numbers.size:
                bands = [numbers[:1].astype(np.uint8), numbers[1 : 1 + len(names)]]
                if ice_content:
                    bands.append(ice_content(numbers[1:]))
                    highest = max(highest, float(np.nanmax(bands[2][0])))
                for raster, data in zip(targets, bands, strict=True):
                    raster.write(data, window=part)
    qgis.write_class_style(paths[0], target.legend)
    qgis.write_ramp_style(paths[1], 1.0, "")
    if ice_content:
        qgis.write_ramp_style(paths[2], highest or 1.0, "m³ m⁻³")


def _ice_content(
    columns: np.ndarray,
    free: Sequence[int],
    weights: Sequence[float],
    spread: tuple[np.ndarray, np.ndarray],
    extent: tuple[int, float],
) -> np.ndarray:
    """Return ice content and its standard deviation, float32, shape (2, y, x).

    It is expected by `weights` of the columns, and moved into the extent of permafrost: by the
    `extent` it grows where the probability of permafrost is at least the limit, in steps of the
    scale. `free` are the columns of no permafrost, `spread` the means and standard deviations of
    the classes.
    """
    means, sds = spread
    limit, share = extent
    valid = columns[0] != MISSING
    steps = columns[:, valid]
    # One class after the other: sums by matrix products depend on cores and on the array's shape.
    expected, mean, square = (
        PROBABILITY_SCALE * sum(one * column for one, column in zip(factors, steps, strict=False))
        for factors in (weights, means, means**2 + sds**2)
    )
    inside = UNITS - steps[free].sum(axis=0, dtype=int) >= limit
    values = np.full((2, *valid.shape), np.nan, np.float32)
    values[0, valid] = np.where(inside, np.minimum(expected * share, 1), 0)
    values[1, valid] = np.sqrt(np.maximum(square - mean**2, 0))
    return values


def _plan(
    study: Study, layer: str, geobox: GeoBox, block: tuple[int, int]
) -> tuple[_Plan, dict[str, Any]]:
    """Return the plan of a layer and the classifier's card; refuse what does not fit together."""
    paths = [(model_path(study, layer), study.target)]
    if study.storage_from == "regression":
        paths.append((model_path(study, layer, "regression"), REGRESSED))
    models = []
    for path, target in paths:
        card = read_card(path)
        _check_card(study, path, card)
        models.append((path, target, card["sha256"]))
        _load(*models[-1])
    card = _load(*models[0])[1]
    files = covariate_files(study)
    states = []
    for name, unit in _units(card).items():
        open_predictor(files, name, geobox, unit).close()
        # Time and size stand for the content: to read it would take minutes at 30 m.
        state = files[name].stat()
        states.append([name, state.st_mtime_ns, state.st_size])
    hashes = [sha256 for *_, sha256 in models]
    parts = [hashes, card["calibration"], states, list(geobox.shape), block, package_digest()]
    folder = _chunks_dir(study) / f"{layer}_{short_hash(parts)}"
    for old in _chunks_dir(study).glob(f"{layer}_*"):
        if old != folder:
            shutil.rmtree(old)
    return _Plan(study, layer, tuple(models), folder), card


def _check_card(study: Study, path: Path, card: dict[str, Any]) -> None:
    """Refuse a forest of another study, run, samples or predictors."""
    samples = samples_path(study)
    used = forest_columns(study)
    problem = None
    if (card["study"], card["run"]) != (study.name, study.run):
        own = f"and not of {study.name}, run {study.run}"
        problem = f"is a forest of the study {card['study']}, run {card['run']}, {own}"
    elif samples.is_file() and file_hash(samples) != card["samples_sha256"]:
        problem = "was grown from other samples than those of this run"
    elif other := sorted(set(used) ^ set(card["predictors"])):
        problem = f"has other predictors than the study: {', '.join(other[:5])}"
    elif card["predictors"] != used:
        problem = "has the study's predictors in another order"
    elif study.target == card["target"] and not {"covariates", "class_sds"} <= card.keys():
        problem = "has a model card of an older version"
    if problem:
        raise MapError(f"{path.name} {problem}.", "run 03-grid-search for this study")


def _units(card: dict[str, Any]) -> dict[str, str]:
    return {name: covariate["unit"] for name, covariate in card["covariates"].items()}


@lru_cache(maxsize=2)
def _load(path: Path, target: str, _sha256: str) -> tuple[Any, dict[str, Any]]:
    """Return a forest for threads that predict side by side, and its card."""
    model, card = load_model(path, target)
    model.n_jobs = 1
    return model, card


def _chunks_dir(study: Study) -> Path:
    return study.results_dir / "maps" / ".chunks"


def remove_chunks(study: Study) -> None:
    """Delete the finished chunks of a study's map, which only an interrupted run needs."""
    shutil.rmtree(_chunks_dir(study), ignore_errors=True)


def _chunk_file(plan: _Plan, part: Part) -> Path:
    return plan.folder / f"{part[0].start:06d}-{part[1].start:06d}.npy"


def _finish_chunk(plan: _Plan, part: Part) -> tuple[bool, np.ndarray, np.ndarray]:
    """Predict a window, unless that is done.

    Returned are whether it was done; the number of cells at each step of the probability of
    permafrost, and the sum there of each band but the class; and the number of cells of each class.
    All are whole numbers below 2^53, so that they add up exactly, in any order.
    """
    path = _chunk_file(plan, part)
    free = plan.study.target_classes.free
    kept = path.is_file()
    if kept:
        numbers = np.load(path)
    else:
        numbers = _predict_chunk(plan, part)
        with write_aside(path) as draft, open(draft, "wb") as stream:
            np.save(stream, numbers)
    types, *columns = numbers[:, numbers[0] != NO_TYPE]
    chance = UNITS - np.sum([columns[code] for code in free], axis=0, dtype=int)
    sums = [np.bincount(chance, column, UNITS + 1) for column in (np.ones(len(chance)), *columns)]
    return kept, np.stack(sums), np.bincount(types, minlength=NO_TYPE)


def _predict_chunk(plan: _Plan, part: Part) -> np.ndarray:
    """Return the numbers of a window as uint16, shape (bands, y, x).

    Bands are the class, the probabilities, and ice where it is regressed, both in steps of the
    scale. There are no rows and columns where nothing can be predicted.
    """
    study = plan.study
    (model, card), *twin = (_load(*model) for model in plan.models)
    values, cells = read_predictors(study, card["predictors"], part, _units(card))
    if not len(cells):
        bands = 1 + len(study.target_classes.codes) + len(twin)
        return np.empty((bands, 0, 0), np.uint16)
    types, probabilities = predict(model, card["calibration"], values, study.target_classes)
    shares = np.rint(probabilities / PROBABILITY_SCALE).astype(np.int32)
    # Rounded shares would not add up to one: the most probable class takes what is over.
    rows = np.arange(len(shares))
    shares[rows, shares.argmax(axis=1)] += UNITS - shares.sum(axis=1)
    ices = (np.rint(forest.predict(values) / PROBABILITY_SCALE) for forest, _ in twin)
    bands = [types, *shares.T, *ices]
    shape = tuple(one.stop - one.start for one in part)
    numbers = np.full((len(bands), shape[0] * shape[1]), MISSING, np.uint16)
    numbers[0] = NO_TYPE
    for row, band in zip(numbers, bands, strict=True):
        row[cells] = band
    return numbers.reshape(-1, *shape)
