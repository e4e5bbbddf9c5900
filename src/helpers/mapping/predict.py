"""The map: classes, probabilities and expected ice content of every cell of a layer.

Classes are those of the study's target, by default the ice types. There are two maps of them. That
of the reference's method is what its balanced forest predicts; it gives rare classes too much
area. The other one follows from the hurdle model (`helpers.forest.hurdle`), like the ice: its area
of permafrost is the expected one.

A map is made in two passes. The first predicts chunks side by side, and keeps each in a file of its
own, so that an interrupted run continues with the missing ones; they hold whole numbers, whose sums
are the same in any order. From these sums follows the limit of permafrost, and the second pass
writes the rasters. Memory depends on the size of a chunk, not on that of the map.
"""

import contextlib
import shutil
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from helpers.core import qgis
from helpers.core.classes import NO_TYPE, Layer, layer_name
from helpers.core.code import package_digest
from helpers.core.files import file_hash, short_hash, write_aside
from helpers.core.grid import Part, grid_windows, reference_grid
from helpers.core.parallel import in_parallel
from helpers.core.rasters import BLOCK, open_raster
from helpers.core.study import Study
from helpers.forest.cards import load_hurdle, load_model, read_card
from helpers.forest.hurdle import (
    PROBABILITY_SCALE,
    UNITS,
    Hurdle,
    Prediction,
    mapped_types,
    permafrost_cut,
    steps,
)
from helpers.forest.leaves import Grown, most_probable
from helpers.forest.paths import model_path
from helpers.mapping.engine import engine, on_engine
from helpers.mapping.files import MISSING, MapError, map_files
from helpers.prepare.columns import forest_columns
from helpers.prepare.domain import domain_covariates, in_domain_at
from helpers.prepare.registry import covariate_files
from helpers.samples.extract import cell_points, open_predictor, read_predictors
from helpers.samples.prevalence import shift_at
from helpers.samples.store import samples_path

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
"""Quantiles of a borehole's ice content that are mapped, by their names."""


@dataclass(frozen=True)
class _Plan:
    """What the chunks of a layer are predicted from; small enough to be sent to another machine.

    `models` has path and SHA-256 of the card of the balanced forest and of the hurdle model;
    `folder` is that of finished chunks.
    """

    study: Study
    layer: str
    models: tuple[tuple[Path, str], tuple[Path, str]]
    folder: Path


def map_layer(
    study: Study,
    layer: Layer,
    threads: int | None = None,
    block: tuple[int, int] = BLOCK,
) -> dict[str, Any]:
    """Predict one layer and write its rasters, each with a QGIS style beside it.

    These are the class by the reference's method; the class whose area of permafrost is the
    expected one (`helpers.forest.hurdle.permafrost_cut`); the probabilities of permafrost and of
    each class; and, where the study has ice contents and depths, the ice content, m3 of ice per m3
    of the layer: expected, and where there is permafrost; and of a borehole in the cell the
    quantiles of `QUANTILES` and the probability of more than `maps.exceeded`.

    Finished chunks are kept as long as models, covariates, settings and code are the same;
    `remove_chunks` deletes them. With ``compute.scheduler`` a dask cluster predicts them; it must
    see the same files. No result depends on the number of threads, by default as many as cores, nor
    on the `block`, rows and columns of a chunk.

    Returns
    -------
    summary
        `cells` of each class by its code, in both maps: `reference` and `expected`; the probability
        from which permafrost is mapped, `cut`; the number of `chunks`, and how many of them were
        `kept` from an earlier run; and the `engine` that predicted the rest
        (`helpers.mapping.engine`).

    Raises
    ------
    MapError, helpers.prepare.registry.CovariateError
        The models do not fit the study, or the covariates not the models.
    """
    geobox = reference_grid(study)
    plan = _plan(study, layer_name(layer), geobox, block)
    parts = grid_windows(geobox, block)
    engines: list[str] = []
    counts = np.zeros(UNITS + 1, int)
    reference = np.zeros(NO_TYPE, int)
    finished = in_parallel(study, partial(_finish_chunk, plan), parts, threads)
    for by, chances, classes in finished:
        engines.append(by)
        counts += chances
        reference += classes
    cut = permafrost_cut(counts)
    kept = engines.count("")
    # Machines of a cluster may differ. Of chunks of an earlier run nobody knows.
    by = ", ".join(sorted({*engines} - {""})) or engine(study.compute.engine)
    expected = _write_layer(plan, parts, cut, by)
    both = {"reference": reference, "expected": expected}
    cells = {
        which: {code: int(number[code]) for code in np.flatnonzero(number).tolist()}
        for which, number in both.items()
    }
    summary = {"cells": cells, "cut": cut * PROBABILITY_SCALE, "chunks": len(parts), "kept": kept}
    return summary | {"engine": by}


def _raster_kinds(study: Study) -> dict[str, tuple[int, str, dict[str, Any]]]:
    """Return number of bands, type and profile of each kind of raster, as a chunk has them."""
    target = study.target_classes
    kind = target.file_name
    titles = {f"{kind}_reference": f"{target.name}, method of the reference", kind: target.name}
    classes = {"units": "1", "nodata": NO_TYPE, "overviews": "mode", "legend": target.legend}
    shares = {"units": "1", "nodata": MISSING, "overviews": "average", "scale": PROBABILITY_SCALE}
    kinds: dict[str, tuple[int, str, dict[str, Any]]] = {
        name: (1, "uint8", {"names": name, "long_names": title, **classes})
        for name, title in titles.items()
    }
    chance = {"names": "permafrost_probability", "long_names": "probability of permafrost"}
    kinds["permafrost_probability"] = (1, "uint16", chance | shares)
    chances = {"names": target.names, "long_names": "probability of the class"}
    kinds["class_probability"] = (len(target.codes), "uint16", chances | shares)
    if not study.has_storage:
        return kinds
    contents = ("expected ice content of the layer", "the same where there is permafrost")
    content = {"names": ["ice_content", "ice_content_of_permafrost"], "long_names": contents}
    kinds["ice_content"] = (2, "float32", content | {"units": "m3 m-3", "overviews": "average"})
    over = study.maps.exceeded
    names = [*QUANTILES, f"above_{over:g}"]
    of = "ice content of a borehole"
    long_names = [f"{of}: it has less with a probability of {q:g}" for q in QUANTILES.values()]
    long_names.append(f"probability that the {of} exceeds {over:g} m3 m-3")
    units = [*["m3 m-3"] * len(QUANTILES), "1"]
    ranges = {"names": names, "long_names": long_names}
    kinds["ice_content_range"] = (len(names), "uint16", ranges | shares | {"units": units})
    return kinds


def _write_layer(plan: _Plan, parts: list[Part], cut: int, by: str) -> np.ndarray:
    """Write rasters and styles of a layer from its finished chunks; return cells of each class."""
    study = plan.study
    target = study.target_classes
    kinds = _raster_kinds(study)
    files = map_files(study)
    paths = {kind: files[f"{kind}_{plan.layer}"] for kind in kinds}
    geobox = reference_grid(study)
    highest = 0.0
    counts = np.zeros(NO_TYPE + 1, int)
    with contextlib.ExitStack() as stack:
        targets = [
            stack.enter_context(
                open_raster(
                    paths[kind], geobox, count, dtype, study=study, tags={"engine": by}, **more
                )
            )
            for kind, (count, dtype, more) in kinds.items()
        ]
        for part in parts:
            numbers = np.load(_chunk_file(plan, part))
            if not numbers.size:
                continue
            classes = numbers[2 : 2 + len(target.codes)]
            missing = numbers[1] == MISSING
            flat = classes.reshape(len(classes), -1).T.astype(int)
            types = mapped_types(flat, numbers[1].ravel() >= cut, target.permafrost)
            types = np.where(missing, NO_TYPE, types.reshape(missing.shape)).astype(np.uint8)
            counts += np.bincount(types.ravel(), minlength=NO_TYPE + 1)
            bands = [numbers[:1].astype(np.uint8), types[np.newaxis], numbers[1:2], classes]
            if study.has_storage:
                content = numbers[2 + len(classes)] * np.float32(PROBABILITY_SCALE)
                ice = numbers[1] * np.float32(PROBABILITY_SCALE) * content
                ices = np.where(missing, np.float32(np.nan), np.stack([ice, content]))
                bands += [ices, numbers[3 + len(classes) :]]
                highest = max(highest, float(np.nanmax(ices[0])))
            for raster, data in zip(targets, bands, strict=True):
                raster.write(data, window=part)
    for path in list(paths.values())[:2]:
        qgis.write_class_style(path, target.legend)
    qgis.write_ramp_style(paths["permafrost_probability"], 1.0, "")
    qgis.write_ramp_style(paths["class_probability"], 1.0, "")
    if study.has_storage:
        qgis.write_ramp_style(paths["ice_content"], highest or 1.0, "m³ m⁻³")
        qgis.write_ramp_style(paths["ice_content_range"], highest or 1.0, "m³ m⁻³")
    return counts[:NO_TYPE]


def _plan(study: Study, layer: str, geobox: GeoBox, block: tuple[int, int]) -> _Plan:
    """Return the plan of a layer; refuse what does not fit together."""
    paths = model_path(study, layer), model_path(study, layer, kind="ice")
    cards = [read_card(path) for path in paths]
    for path, card in zip(paths, cards, strict=True):
        _check_card(study, path, card)
    # Known shares of permafrost are on the card alone, which has the SHA-256 of its model, too.
    first, second = ((path, file_hash(path.with_suffix(".json"))) for path in paths)
    _load_both(first, second, study.target, study.compute.engine)
    files = covariate_files(study)
    states = []
    units = _units(cards[0])
    for name in [*units, *domain_covariates(study)]:
        open_predictor(files, name, geobox, units.get(name)).close()
        # Time and size stand for the content: to read it would take minutes at 30 m.
        state = files[name].stat()
        states.append([name, state.st_mtime_ns, state.st_size])
    settings = [study.domain.model_dump(), study.maps.model_dump()]
    hashes = first[1], second[1]
    parts = [hashes, settings, states, list(geobox.shape), block, package_digest()]
    folder = _chunks_dir(study) / f"{layer}_{short_hash(parts)}"
    for old in _chunks_dir(study).glob(f"{layer}_*"):
        if old != folder:
            shutil.rmtree(old)
    return _Plan(study, layer, (first, second), folder)


def _check_card(study: Study, path: Path, card: dict[str, Any]) -> None:
    """Refuse a model of another study, run, samples or predictors."""
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
    elif "covariates" not in card:
        problem = "has a model card of an older version"
    if problem:
        raise MapError(f"{path.name} {problem}.", "run 03-grid-search for this study")


def _units(card: dict[str, Any]) -> dict[str, str]:
    return {name: covariate["unit"] for name, covariate in card["covariates"].items()}


@lru_cache(maxsize=2)
def _load_both(
    first: tuple[Path, str], second: tuple[Path, str], target: str, wanted: str
) -> tuple[Grown, Hurdle, dict[str, Any]]:
    """Return the models of a layer, for threads that predict side by side, and a card."""
    forest, card = load_model(first[0], target)
    return *on_engine(wanted, forest, load_hurdle(second[0], target)[0]), card


def _chunks_dir(study: Study) -> Path:
    return study.results_dir / "maps" / ".chunks"


def remove_chunks(study: Study) -> None:
    """Delete the finished chunks of a study's map, which only an interrupted run needs."""
    shutil.rmtree(_chunks_dir(study), ignore_errors=True)


def _chunk_file(plan: _Plan, part: Part) -> Path:
    return plan.folder / f"{part[0].start:06d}-{part[1].start:06d}.npy"


def _finish_chunk(plan: _Plan, part: Part) -> tuple[str, np.ndarray, np.ndarray]:
    """Predict a window, unless that is done.

    Returned are the engine that predicted it, or nothing if it was done; the number of cells at
    each step of the probability of permafrost; and the number of cells of each class of the
    reference's map.
    """
    path, kept = _chunk_file(plan, part), False
    # One that is damaged is predicted again.
    with contextlib.suppress(OSError, ValueError, EOFError):
        numbers, kept = np.load(path), True
    if not kept:
        numbers = _predict_chunk(plan, part)
        with write_aside(path) as draft, open(draft, "wb") as stream:
            np.save(stream, numbers)
    types, chance = numbers[:2, numbers[0] != NO_TYPE]
    by = "" if kept else engine(plan.study.compute.engine)
    return by, np.bincount(chance, minlength=UNITS + 1), np.bincount(types, minlength=NO_TYPE)


def _predict_chunk(plan: _Plan, part: Part) -> np.ndarray:
    """Return the numbers of a window as uint16, shape (bands, y, x).

    Bands are the class of the reference's map and, in steps of the scale, the probabilities of
    permafrost and of each class; with ice contents also the content where there is permafrost, the
    quantiles and the probability of more. There are no rows and columns where nothing can be
    predicted.
    """
    study = plan.study
    forest, hurdle, card = _load_both(*plan.models, study.target, study.compute.engine)
    target = study.target_classes
    values, cells = read_predictors(study, card["predictors"], part, _units(card))
    inside, known = in_domain_at(study, part, cells)
    # Where the domain is unknown so is the ice: it would count as none.
    values, cells, inside = values[known], cells[known], inside[known]
    size = 2 + len(target.codes) + (2 + len(QUANTILES)) * study.has_storage
    if not len(cells):
        return np.empty((size, 0, 0), np.uint16)
    shape = tuple(one.stop - one.start for one in part)
    row, column = np.divmod(cells, shape[1])
    places = (row + part[0].start) * reference_grid(study).shape[1] + column + part[1].start
    shift = shift_at(study, hurdle.strata, values, cell_points(study, places))
    prediction = hurdle.predict(values, inside, shift)
    bands = [most_probable(forest, values)]
    bands += _shares(prediction, target.permafrost)
    if study.has_storage:
        quantiles = [hurdle.quantile(prediction, level) for level in QUANTILES.values()]
        more = hurdle.exceeding(prediction, study.maps.exceeded)
        bands += map(steps, [prediction.content, *quantiles, more])
    numbers = np.full((size, shape[0] * shape[1]), MISSING, np.uint16)
    numbers[0] = NO_TYPE
    for row, band in zip(numbers, bands, strict=True):
        row[cells] = band
    return numbers.reshape(size, *shape)


def _shares(prediction: Prediction, permafrost: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities of permafrost and of each class in whole steps.

    Those of the permafrost classes add up to that of permafrost, and all to one.
    """
    frozen = steps(prediction.permafrost)
    shares = np.empty(prediction.classes.shape, int)
    for group, whole in ((permafrost, frozen), (~permafrost, UNITS - frozen)):
        # Sums of classes are rounded, and not each class: so none is less than 0.
        sums = steps(np.cumsum(prediction.classes[:, group], axis=1))
        sums = np.minimum(sums, whole[:, np.newaxis])
        sums[:, -1] = whole
        shares[:, group] = np.diff(sums, axis=1, prepend=0)
    return [frozen, *shares.T]
