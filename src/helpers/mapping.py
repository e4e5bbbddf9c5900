"""The map: classes, calibrated probabilities, expected ice and storage of every cell, and totals by region.

Classes are those of the study's target, by default the ice types. The class of a cell is what the balanced forest
predicts, as in the reference's method. Ice is expected from the calibrated probabilities, because a balanced forest's
own give rare classes too much; with `storage_from: regression`, by a forest of the ice fraction itself.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import cpu_count

from helpers import forest, ice
from helpers.accuracy import write_json
from helpers.covariates.registry import covariate_files
from helpers.errors import CompendiumError
from helpers.grid import area_mask, reference_grid, write_raster

CHUNK = 100_000
"""Cells predicted at a time: about the fastest size, and small in memory."""

PROBABILITY_SCALE = 1e-4


class MapError(CompendiumError):
    """A map that cannot be made from these covariates and forests."""


def map_files(study):
    """Return the rasters of the map by name.

    The rasters of classes are named after what the target tells: ``ice_type_<layer>``, also of the target two_stage,
    ``permafrost_<layer>`` or ``ice_level_<layer>``.

    Parameters
    ----------
    study : helpers.study.Study

    Returns
    -------
    dict of str to pathlib.Path
    """
    folder = study.results_dir / "maps"
    kinds = (ice.TARGETS[study.target].file_name, "class_probability", "ice_content")
    names = [f"{kind}_{ice.layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: folder / f"{name}.tif" for name in [*names, "ice_storage"]}


def read_predictors(study, predictors, step=1):
    """Return the predictors of all cells that have every one of them.

    Parameters
    ----------
    study : helpers.study.Study
    predictors : sequence of str
        Names of covariates, in the order of the forest.
    step : int
        Of both rows and columns: every cell by default.

    Returns
    -------
    values : numpy.ndarray of float32, shape (cells, predictors)
        In raster order, which predicts faster than any other.
    cells : numpy.ndarray of int, shape (cells,)
        Their flat indices on the reference grid.

    Raises
    ------
    MapError
        A covariate is missing, or lies on another grid.
    """
    import rasterio

    files, geobox = covariate_files(study), reference_grid(study)
    inside, chosen = area_mask(study, geobox), np.zeros(geobox.shape, bool)
    chosen[::step, ::step] = inside[::step, ::step]
    columns = []
    for name in predictors:
        if name not in files or not files[name].is_file():
            raise MapError(f"The covariate {name} of the forest is missing.", "run 01-prepare-data for this study")
        with rasterio.open(files[name]) as source:
            if source.shape != tuple(geobox.shape) or not source.transform.almost_equals(geobox.transform):
                raise MapError(
                    f"{files[name].name} is not on the reference grid.", "run 01-prepare-data for this study"
                )
            columns.append(source.read(1)[chosen])
    values = np.stack(columns, axis=1)
    complete = np.isfinite(values).all(axis=1)
    return values[complete], np.flatnonzero(chosen)[complete]


def predict(model, calibration, values, threads=None, target="ice_type"):
    """Return a forest's class and its calibrated probabilities for many cells.

    The forest itself stays single-threaded and chunks run side by side, so the result is the same to the last bit on
    any number of threads.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.two_stage.TwoStageForest
    calibration : dict
        From `helpers.forest.fit_calibration`.
    values : numpy.ndarray of float32, shape (cells, predictors)
    threads : int, optional
        As many as cores by default.
    target : str
        One of `helpers.ice.TARGETS`.

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
        raw = forest.class_probabilities(model, values[part], classes)
        types[part] = forest.mapped_class(raw, target)
        probabilities[part] = forest.calibrate(raw, calibration)

    _in_chunks(model, chunk, len(values), threads)
    return types, probabilities


def predict_ice(model, values, threads=None):
    """Return the ice fraction that a regression forest expects in many cells, side by side like `predict`.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestRegressor
        From `helpers.regression.fit`.
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

    _in_chunks(model, chunk, len(values), threads)
    return expected


def _in_chunks(model, chunk, cells, threads):
    model.n_jobs = 1
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        list(pool.map(chunk, range(0, cells, CHUNK)))


def within_extent(ice_content, probability):
    """Return ice content with all ice in the extent of permafrost.

    The extent is the most probable cells, as many as the probabilities of all cells add up to. What is expected in the
    other cells is moved into it in proportion, so that the total stays. With few boreholes a forest cannot place the
    limit of permafrost sharply, and its expectation trails off into ground that has none: moved, less ice lies there,
    and in the virtual study the error of a cell becomes smaller, too.

    Parameters
    ----------
    ice_content : numpy.ndarray of float, shape (cells,)
        Expected, m3 m-3.
    probability : numpy.ndarray of float, shape (cells,)
        Of permafrost in the layer, calibrated.

    Returns
    -------
    numpy.ndarray of float, shape (cells,)
        0 outside of the extent; unchanged where the probabilities do not add up to one cell.
    """
    total = probability.sum(dtype=np.float64)
    if total < 1:
        return ice_content
    limit = np.quantile(probability, 1 - total / probability.size)
    inside = probability >= limit
    kept = ice_content[inside].sum(dtype=np.float64)
    share = ice_content.sum(dtype=np.float64) / kept if kept else 1.0
    return np.where(inside, ice_content * share, 0).astype(ice_content.dtype)


def map_layer(study, layer):
    """Predict one depth layer and write its three rasters.

    Parameters
    ----------
    study : helpers.study.Study
    layer : tuple of float
        Top and bottom, m.

    Returns
    -------
    dict of str to numpy.ndarray
        `class`, its code, uint8 (y, x), 255 where there is no prediction; `ice_content`, float32 (y, x), the expected
        volume of ice per volume of the layer, within the extent of permafrost, m3 m-3, NaN without a prediction.

    Raises
    ------
    MapError
        The covariates do not fit the forest.
    """
    name, geobox, target = ice.layer_name(layer), reference_grid(study), ice.TARGETS[study.target]
    model, card = forest.load_model(forest.model_path(study, name), study.target)
    values, cells = read_predictors(study, card["predictors"])
    types, probabilities = predict(model, card["calibration"], values, target=study.target)
    if study.storage_from == "regression":
        twin, known = forest.load_model(forest.model_path(study, name, "regression"), forest.REGRESSED)
        if known["predictors"] != card["predictors"]:
            raise MapError(f"The two forests of {name} have other predictors.", "run 03-grid-search again")
        expected = predict_ice(twin, values)
    else:
        # einsum adds up in one order on any number of cores; a matrix product does not.
        expected = np.einsum("nk,k->n", probabilities, np.asarray(card["class_means"], np.float32))
    content = within_extent(expected, 1 - probabilities[:, 0])
    # Rounded shares would not add up to one: the most probable class takes what is over.
    shares = np.rint(probabilities / np.float32(PROBABILITY_SCALE)).astype(np.int32)
    rows = np.arange(len(shares))
    shares[rows, shares.argmax(axis=1)] += round(1 / PROBABILITY_SCALE) - shares.sum(axis=1)
    maps = {
        "class": _raster(geobox, cells, types, np.uint8, ice.NO_TYPE),
        "ice_content": _raster(geobox, cells, content, np.float32, np.nan),
    }
    bands = np.stack([_raster(geobox, cells, column, np.uint16, 65535) for column in shares.T])
    _write(study, f"{target.file_name}_{name}", maps["class"], target.name, ice.NO_TYPE, classes=True)
    _write(study, f"class_probability_{name}", bands, "calibrated probability", 65535, PROBABILITY_SCALE)
    _write(study, f"ice_content_{name}", maps["ice_content"], "expected ice content of the layer", unit="m3 m-3")
    return maps


def _raster(geobox, cells, values, dtype, nodata):
    raster = np.full(geobox.shape, nodata, dtype)
    raster.ravel()[cells] = values
    return raster


def _write(study, name, data, title, nodata=None, scale=1.0, unit="1", classes=False):
    target = ice.TARGETS[study.target]
    bands = [name] if data.ndim == 2 else [kind.name for kind in target.classes]
    write_raster(
        map_files(study)[name],
        data,
        reference_grid(study),
        study=study,
        names=bands,
        units=unit,
        long_names=title,
        nodata=nodata,
        scale=scale,
        legend=target.legend if classes else None,
    )


def map_storage(study, contents):
    """Write ground-ice storage, the thickness of ice over all layers, and return it.

    Parameters
    ----------
    study : helpers.study.Study
    contents : sequence of numpy.ndarray, shape (y, x)
        Expected ice content of each layer, m3 m-3.

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)
        Metres of ice.
    """
    thickness = ice.thickness(np.stack(contents), study.layers).astype(np.float32)
    top, bottom = study.layers[0][0], study.layers[-1][1]
    title = f"ground ice between {top:g} and {bottom:g} m below the surface, thickness of ice"
    _write(study, "ice_storage", thickness, title, unit="m")
    return thickness


def region_numbers(study):
    """Return the number of each cell's region, counted from 1, and the regions' names; 0 lies in no region."""
    import geopandas
    from rasterio.features import rasterize

    geobox = reference_grid(study)
    regions = geopandas.read_file(study.path(study.area.polygons), layer=study.area.regions_layer)
    shapes = zip(regions.to_crs(geobox.crs.to_wkt()).geometry, range(1, len(regions) + 1), strict=True)
    numbers = rasterize(shapes, out_shape=geobox.shape, transform=geobox.transform, dtype="uint8")
    return numbers, regions["name"].tolist()


def storage_totals(study, contents):
    """Return the volume of ground ice by layer and region.

    Parameters
    ----------
    study : helpers.study.Study
    contents : sequence of numpy.ndarray, shape (y, x)
        Expected ice content of each layer, m3 m-3; NaN is no ice.

    Returns
    -------
    pandas.DataFrame
        One row a region and one for the whole area (`all`): `ice_km3_<layer>` of each layer, `ice_km3`, `water_km3` of
        all, `mapped_km2`, `extent_km2` with permafrost in any layer, and `mean_thickness_m` of ice over the latter.
    """
    import pandas

    numbers, names = region_numbers(study)
    cell = study.grid.resolution**2 / 1e6
    regions = np.where(np.isfinite(contents[0]), numbers, 0).ravel()
    count = np.bincount(regions, minlength=len(names) + 1)
    table = pandas.DataFrame({"mapped_km2": count[1:] * cell}, index=pandas.Index(names, name="region"))
    frozen = np.any([np.nan_to_num(content) > 0 for content in contents], axis=0).ravel()
    table["extent_km2"] = np.bincount(regions, frozen, minlength=len(names) + 1)[1:] * cell
    for (top, bottom), content in zip(study.layers, contents, strict=True):
        depth = np.nan_to_num(content).ravel() * (bottom - top)
        total = np.bincount(regions, depth, minlength=len(names) + 1)[1:]
        table[f"ice_km3_{ice.layer_name((top, bottom))}"] = total * cell / 1000
    table.loc["all"] = table.sum()
    table["ice_km3"] = table.filter(like="ice_km3_").sum(axis=1)
    table["water_km3"] = table["ice_km3"] * ice.ICE_DENSITY / ice.WATER_DENSITY
    table["mean_thickness_m"] = table["ice_km3"] * 1000 / table["extent_km2"].where(table["extent_km2"] > 0)
    return table


def write_totals(study, table, truth=None):
    """Write the table of `storage_totals` as JSON, with the comparison of `against_truth` where there is one."""
    folder = study.results_dir / "tables"
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
            "mean_thickness_m": "m of ice",
        },
        "against_truth": truth,
        "regions": json.loads(table.round(6).to_json(orient="index")),
    }
    write_json(folder / "storage.json", record)
    return record


def against_truth(study, contents):
    """Compare storage with the hidden truth of the virtual study.

    Parameters
    ----------
    study : helpers.study.Study
    contents : sequence of numpy.ndarray, shape (y, x)
        Expected ice content of each layer, m3 m-3.

    Returns
    -------
    dict
        `mapped_km3` and `true_km3` of ice over the mapped cells, `bias` as a share of the true total, and
        `in_permafrost_free_cells`: the share of the mapped ice that lies in cells which have no permafrost at all.
    """
    import rasterio

    from helpers.sources.boreholes import truth_files

    files = truth_files(study)
    truth = []
    for layer in study.layers:
        with rasterio.open(files[f"ice_fraction_{ice.layer_name(layer)}"]) as source:
            truth.append(source.read(1))
    with rasterio.open(files["permafrost_share"]) as source:
        free = source.read(1) == 0
    return compare_storage(study, contents, truth, free)


def compare_storage(study, contents, truth, free):
    """Return what `against_truth` does, from arrays; `free` marks the cells without any permafrost."""
    mapped = np.isfinite(contents[0])
    cell = study.grid.resolution**2 / 1e9
    ours, true = (ice.thickness(np.stack(part), study.layers) for part in (contents, truth))
    total, known = (float(part[mapped].sum() * cell) for part in (ours, true))
    leaked = float(ours[mapped & free].sum() * cell)
    return {
        "mapped_km3": total,
        "true_km3": known,
        "bias": total / known - 1,
        "in_permafrost_free_cells": leaked / total,
    }
