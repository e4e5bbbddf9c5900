"""The hidden truth on the map: rasters, plausibility, and the best accuracy that predictors allow."""

from dataclasses import replace

import numpy as np
import pandas

from helpers.core.classes import ICE_TYPES, NO_TYPE, layer_name
from helpers.core.grid import area_mask, block_mean, fine_grid, reference_grid
from helpers.core.rasters import warp, write_raster
from helpers.prepare.registry import fine_files, predictor_names, read_covariates
from testbed.ground import CORE_LENGTHS, layer_truth, lonlat, on_grid

CEILING_TREES = 40


# Truth on the map -----------------------------------------------------------------------------------------------------


def truth_files(study):
    """Return the rasters of the truth on the reference grid, by name."""
    folder, kinds = study.results_dir / "truth", ("ice_type", "ice_fraction", "hole_type")
    names = [f"{kind}_{layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: folder / f"{name}.tif" for name in [*names, "permafrost_share"]}


def true_rasters(study, ground, rng):
    """Return the truth of each layer on the reference grid: dominant type, areal mean of the ice fraction, and holes.

    ``hole_type_<layer>`` is what one hole at a random place of each cell would find, with the errors that the study's
    boreholes have: a probability sample that nobody could pay for. It is what an accuracy told by holes can promise.

    Parameters
    ----------
    study : helpers.core.study.Study
    ground : Ground
    rng : numpy.random.Generator
        For the holes.

    Returns
    -------
    dict of str to numpy.ndarray
        By the names of `truth_files`: types are uint8, 255 outside of the area; the others float32, NaN there.
    """
    fine, reference = fine_grid(study), reference_grid(study)
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    inside = area_mask(study, reference)

    def mean(values):
        share = block_mean(on_grid(ground.cells, values, fine), divisor)
        return np.where(inside, share, np.float32(np.nan))

    truth = {"permafrost_share": mean(np.isfinite(ground.table))}
    for layer in study.layers:
        name = layer_name(layer)
        types, fraction = layer_truth(ground, layer, study.truth, study.ice.thresholds)
        shares = [mean(types == code) for code in range(1, 6)]
        shares.insert(0, 1 - sum(shares))
        dominant = np.argmax(np.round(shares, 4), axis=0)
        truth[f"ice_type_{name}"] = np.where(inside, dominant, NO_TYPE).astype(np.uint8)
        truth[f"ice_fraction_{name}"] = mean(fraction)
    holes = _hole_types(study, ground, rng)
    return truth | {name: np.where(inside, types, NO_TYPE).astype(np.uint8) for name, types in holes.items()}


def _hole_types(study, ground, rng):
    """Return the type that a hole at a random place of each reference cell finds, by name of its raster."""
    plan, shape, fine = study.boreholes, reference_grid(study).shape, fine_grid(study)
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    row, column = (np.indices(shape) * divisor + rng.integers(divisor, size=(2, *shape))).reshape(2, -1)
    cells = row * fine.shape[1] + column
    place = np.minimum(np.searchsorted(ground.cells, cells), ground.cells.size - 1)
    known = np.flatnonzero(ground.cells[place] == cells)
    hole, found = ground.at(place[known]), {}
    table = np.maximum(0.4, hole.table + rng.normal(0, plan.table_error, known.size))
    base = np.maximum(table + 0.2, hole.base + rng.normal(0, 2 * plan.table_error, known.size))
    hole = replace(hole, table=table.astype(np.float32), base=base.astype(np.float32))
    scatter = rng.normal(0, plan.hole_scatter, known.size).astype(np.float32)
    for top, bottom in study.layers:
        error = rng.normal(0, plan.ice_error / np.sqrt(max(1, (bottom - top) / np.mean(CORE_LENGTHS))), known.size)
        types, _ = layer_truth(
            hole, (top, bottom), study.truth, study.ice.thresholds, scatter, error.astype(np.float32)
        )
        drilled = np.zeros(cells.size, np.uint8)
        drilled[known] = types
        found[f"hole_type_{layer_name((top, bottom))}"] = drilled.reshape(shape)
    return found


def write_truth(study, ground, rng):
    """Write the rasters of `true_rasters`, and return them."""
    truth, files = true_rasters(study, ground, rng), truth_files(study)
    legend = {kind.code: (kind.name, kind.colour) for kind in ICE_TYPES}
    for name, values in truth.items():
        classes = values.dtype == np.uint8
        more = {"nodata": NO_TYPE, "legend": legend} if classes else {}
        title = "true " + name.replace("_", " ")
        reference = reference_grid(study)
        write_raster(files[name], values, reference, study=study, names=name, units="1", long_names=title, **more)
    return truth


PUBLISHED_HOLES = {
    "latitude": (50.5, 53.0),
    "elevation": (400.0, 1000.0),
    "temperature": (-2.83, -0.49),
}
"""Six boreholes of the Greater Khingan Range (ESSD 14:3947): ranges of latitude (degrees north), elevation (m) and mean
annual ground temperature (degC)."""


def plausibility(study, ground, truth, cells=50_000):
    """Compare the truth with published numbers and with what the test bed must offer.

    Parameters
    ----------
    study : helpers.core.study.Study
    ground : Ground
    truth : dict of str to numpy.ndarray
        From `write_truth`.
    cells : int
        True cells that the forest of the last line, the ceiling of any classifier, is trained on.

    Returns
    -------
    pandas.DataFrame
        One row a requirement: value, lowest and highest that are plausible, and whether it `holds`.
    """
    cell = study.grid.resolution**2 / 1e6
    layers = [layer_name(layer) for layer in study.layers]
    depths = [bottom - top for top, bottom in study.layers]
    volume = sum(np.nansum(truth[f"ice_fraction_{n}"]) * d for n, d in zip(layers, depths, strict=True)) * cell / 1e3
    types = np.concatenate([truth[f"ice_type_{name}"].ravel() for name in layers])
    frozen = np.bincount(types[(types > 0) & (types < NO_TYPE)], minlength=6)[1:]
    temperature = _temperature_at_published_holes(study, ground)
    rows = [
        ("permafrost area, 1e4 km2", np.nansum(truth["permafrost_share"]) * cell / 1e4, 25, 35),
        ("ice of all layers, km3", volume, 200, 700),
        ("rarest ice type, share of permafrost cells", frozen.min() / frozen.sum(), 0.01, 1),
        ("ground temperature like the published holes, median, degC", temperature, *PUBLISHED_HOLES["temperature"]),
    ]
    ceiling = accuracy_ceiling(study, truth, cells, np.random.default_rng(study.truth.seed))
    mean = float(np.mean(list(ceiling.values())))
    rows.append(("ceiling of overall accuracy in the domain, mean of the layers", mean, 0.60, 0.80))
    table = pandas.DataFrame(rows, columns=["requirement", "value", "lowest", "highest"]).set_index("requirement")
    table["holds"] = table["value"].between(table["lowest"], table["highest"])
    return table


def _temperature_at_published_holes(study, ground):
    fine = fine_grid(study)
    row, column = np.divmod(ground.cells, fine.shape[1])
    _, latitude = lonlat(*(fine.transform * (column + 0.5, row + 0.5)), fine)
    elevation = warp(fine_files(study)["elevation"], fine).ravel()[ground.cells]
    alike = np.isfinite(ground.table) & (ground.temperature < 0)
    for values, name in ((latitude, "latitude"), (elevation, "elevation")):
        lowest, highest = PUBLISHED_HOLES[name]
        alike &= (values >= lowest) & (values <= highest)
    return float(np.median(ground.temperature[alike]))


def accuracy_ceiling(study, truth, cells, rng):
    """Return the overall accuracy of a forest that was shown the truth of many cells, on others of the domain.

    No classifier that sees the covariates alone can do much better, however many boreholes it has.

    Parameters
    ----------
    study : helpers.core.study.Study
    truth : dict of str to numpy.ndarray
    cells : int
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to float
        By layer.
    """
    from sklearn.ensemble import RandomForestClassifier

    names = predictor_names(study)
    data = read_covariates(study, sorted({*names, study.domain.covariate}))
    stack = np.stack([data[name].to_numpy().ravel() for name in names], axis=1)
    usable = np.isfinite(stack).all(axis=1) & (data[study.domain.covariate].to_numpy().ravel() > study.domain.above)
    chosen = rng.permutation(np.flatnonzero(usable))
    train, test = chosen[: min(cells, len(chosen) * 2 // 3)], chosen[-min(20_000, len(chosen) // 3) :]
    seed = int(rng.integers(2**31))
    found = {}
    for layer in map(layer_name, study.layers):
        types = truth[f"ice_type_{layer}"].ravel()
        forest = RandomForestClassifier(CEILING_TREES, min_samples_leaf=3, n_jobs=2, random_state=seed)
        found[layer] = float((forest.fit(stack[train], types[train]).predict(stack[test]) == types[test]).mean())
    return found
