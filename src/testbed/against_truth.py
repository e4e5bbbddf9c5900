"""What a run promised beside what is true."""

import numpy as np
import pandas as pd
import rasterio
from rasterio.features import rasterize

import helpers.accuracy.estimates
from helpers.accuracy.predictions import by_domain
from helpers.core import ice
from helpers.core.classes import TARGETS, layer_name
from helpers.core.grid import reference_grid
from helpers.core.scores import HEADLINE_SCORES
from helpers.mapping.files import grid_windows, layer_files, map_files, open_bands
from testbed.truth import truth_files


def true_scores(study, layer, predictions, true):
    """Return the scores of the map itself, by domain, against each of the rasters of what is true."""
    known = {name: class_of_type(study)[raster.ravel()[predictions.cells]] for name, raster in true.items()}
    return [
        {"layer": layer, "domain": domain, "estimate": f"true_{which}", "reference": reference}
        | helpers.accuracy.estimates.headline_row(study, classes[inside], mapped[inside])
        for (of, which), mapped in predictions.mapped.items() if of == layer
        for domain, inside in by_domain(predictions.in_domain)
        for reference, classes in known.items()
    ]  # fmt: skip


def class_at(study, true, rows):
    """Return the true class of the cells that hold samples."""
    geobox = reference_grid(study)
    column, row = ~geobox.transform * (rows["easting"].to_numpy(), rows["northing"].to_numpy())
    return class_of_type(study)[true[np.floor(row).astype(int), np.floor(column).astype(int)]]


def class_of_type(study):
    """Return the class of each ice type, and of no type: no class."""
    return np.append(TARGETS[study.target].of_type, np.full(256 - len(TARGETS[study.target].of_type), -1))


def read_truth(study):
    """Return the true ice type of each cell for `estimate_accuracy`; None where a study knows no truth."""
    if not study.draws_boreholes:
        return None
    truth = {}
    for name in (f"{kind}_{layer_name(layer)}" for layer in study.layers for kind in ("ice_type", "hole_type")):
        with rasterio.open(truth_files(study)[name]) as source:
            truth[name] = source.read(1)
    return truth


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
    keys = ["layer", "domain"]
    true = {name: part.set_index(keys) for name, part in found[found["estimate"] == "true_train"].groupby("reference")}
    promised = found[(found["reference"] == "samples") & ~found["estimate"].str.startswith("true")]
    parts = []
    for score in HEADLINE_SCORES:
        part = promised[[*keys, "estimate"]].assign(score=score, promised=promised[score])
        part = part.assign(lower=promised[f"{score}_lower"], upper=promised[f"{score}_upper"])
        where = pd.MultiIndex.from_frame(part[keys])
        part["true"] = true["samples"][score].reindex(where).to_numpy()
        part["difference"] = part["promised"] - part["true"]
        held = part["true"].between(part["lower"], part["upper"])
        part["held"] = held.astype(object).where(part["lower"].notna() & part["upper"].notna(), None)
        parts.append(part.assign(true_of_cells=true["cells"][score].reindex(where).to_numpy()))
    return pd.concat(parts, ignore_index=True)


def true_totals(study):
    """Return the true ice of the mapped cells by region and of `all` regions, km3; virtual study only.

    Returns
    -------
    pandas.Series
    """
    import geopandas

    geobox, files = reference_grid(study), truth_files(study)
    regions = geopandas.read_file(study.path(study.area.polygons), layer=study.area.regions_layer)
    shapes = zip(regions.to_crs(geobox.crs.to_wkt()).geometry, range(1, len(regions) + 1), strict=True)
    number = rasterize(shapes, out_shape=geobox.shape, transform=geobox.transform, dtype="int32")
    sums = np.zeros(len(regions) + 1)
    for layer in study.layers:
        name = f"ice_{{}}_{layer_name(layer)}"
        with (
            rasterio.open(map_files(study)[name.format("content")]) as ours,
            rasterio.open(files[name.format("fraction")]) as true,
        ):
            depth = np.where(np.isfinite(ours.read(1)), true.read(1), 0) * (layer[1] - layer[0])
        sums += np.bincount(number.ravel(), depth.ravel(), len(sums))
    volume = pd.Series(sums[1:] * study.grid.resolution**2 / 1e9, index=regions["name"])
    volume["all"] = volume.sum()
    return volume


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
    files, sums = truth_files(study), 0.0
    known = [files[f"ice_fraction_{layer_name(layer)}"] for layer in study.layers]
    with (
        open_bands(layer_files(study, "ice_content")) as contents,
        open_bands(known) as truth,
        open_bands([files["permafrost_share"]]) as (share,),
    ):
        for part in grid_windows(reference_grid(study)):
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
