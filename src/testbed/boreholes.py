"""The hidden truth of the virtual study, and the boreholes and pits that sample it.

The law lives on the fine grid (500 m); holes differ from their cell, and a cell of the map holds several of its cells.
Its constants are `study.Truth`. Permafrost of the Xing'an type is kept by the ecosystem, not only by cold air:

1. *Air*: monthly ERA5 temperature brought to the ground's height; winter inversions chill valley floors.
2. *Ground*: temperature at the top of permafrost by the TTOP model (Smith and Riseborough 2002, Permafrost
   Periglac. Process. 13:1), with n-factors of vegetation and snow, conductivity ratios of peat, insolation of
   slopes, and two random fields that no covariate shows.
3. *Permafrost* where that temperature is below 0 degC, or was so in a colder past (relict).
   Its table follows Stefan's equation, lies deeper after fire and as relict; its base follows the temperature.
4. *Ice* by log-odds: wetness, peat, fine texture, enrichment at the table, decline with depth, two unseen fields;
   bedrock holds little.
"""

import itertools
import os
from dataclasses import dataclass, fields, replace

import numpy as np

from helpers.core import ice
from helpers.core.grid import area_mask, bilinear, block_mean, fine_grid, reference_grid, warp, write_raster
from helpers.prepare import climate
from helpers.prepare.products import MONTHLY_PRECIPITATION, MONTHLY_TEMPERATURE, raw_files
from helpers.prepare.registry import fine_files, read_covariates

LEAST_FROST_NUMBER = 0.36
"""Colder air than this is a condition of the law: elsewhere nothing is computed, and there is no permafrost."""


CEILING_TREES = 40


SLICES = 6
"""Depths at which the ice content of a layer's permafrost part is taken and averaged."""


CORE_LENGTHS = (0.3, 1.0)
"""Shortest and longest core that is measured as one, m."""


@dataclass
class Ground:
    """Fields of the law; arrays of shape (cells,) over the fine cells that may have permafrost.

    Parameters
    ----------
    cells : numpy.ndarray of int
        Flat index on the fine grid.
    temperature : numpy.ndarray
        At the top of permafrost, degC.
    table, base : numpy.ndarray
        Depth of permafrost, m; NaN without permafrost.
    soil_depth : numpy.ndarray
        Depth to bedrock, m.
    odds : numpy.ndarray
        Log-odds of ice content over the cap, at 2 m depth and without the transition zone.
    valley, peat, fines : numpy.ndarray
        Shares in 0..1: of a valley floor, of a peat cover, of clay and silt.
    """

    cells: np.ndarray
    temperature: np.ndarray
    table: np.ndarray
    base: np.ndarray
    soil_depth: np.ndarray
    odds: np.ndarray
    valley: np.ndarray
    peat: np.ndarray
    fines: np.ndarray

    def at(self, index):
        """Return the same fields for some of the cells."""
        return Ground(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _sigmoid(values):
    return 1 / (1 + np.exp(-values, dtype=np.float32))


def _between(pair, share):
    """Return values between the two of a pair, by a share in 0..1."""
    return np.float32(pair[0]) + np.float32(pair[1] - pair[0]) * share


def _random_field(geobox, reach, rng):
    """Return a Gaussian field of unit variance whose correlation falls to 1/e within about `reach` metres."""
    from scipy import ndimage

    cells = reach / abs(geobox.transform.a)
    step = max(1, int(cells / 2.5))
    shape = tuple(-(-n // step) + 1 for n in geobox.shape)
    # The product of two smoothings of this width has the correlation exp(-(d / reach)^2).
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), cells / step / 2, mode="wrap")
    rows, columns = (np.arange(n, dtype=np.float32) / step for n in geobox.shape)
    return bilinear(coarse / coarse.std(), rows, columns)


# The law --------------------------------------------------------------------------------------------------------------


def draw_ground(study, rng):
    """Draw the hidden ground of the virtual study.

    Parameters
    ----------
    study : helpers.core.study.Study
    rng : numpy.random.Generator
        Draws the fields that no covariate shows; everything else follows from rasters.

    Returns
    -------
    Ground
    """
    law, fine = study.truth, fine_grid(study)
    seen = _seen(study, fine)
    heat, unheat = rng.spawn(2)
    unseen = [
        _random_field(fine, reach, r).ravel()[seen["cells"]]
        for reach, r in zip((40e3, study.grid.fine_resolution), heat.spawn(2), strict=True)
    ]
    shift = sum(np.float32(sd) * field for sd, field in zip(law.unseen_temperature, unseen, strict=True))
    burnt = _random_field(fine, 5e3, unheat).ravel()[seen["cells"]]
    burnt = (burnt > np.quantile(burnt, 1 - law.burnt_share)).astype(np.float32)

    temperature, thawing = _ttop(law, seen, shift)
    past, _ = _ttop(law, seen, shift - np.float32(law.past_cooling))
    cold = temperature < 0
    relict = ~cold & (past < 0) & (temperature < law.relict_limit)
    peat = seen["peat"]
    active = _between(law.stefan, peat) * np.sqrt(thawing) + law.burnt_table * burnt
    table = active + np.where(cold, 1.2 * np.exp(temperature / 0.5), 2.0 + 3.5 * temperature / law.relict_limit)
    thickness = np.where(cold, 3 - law.thickness_per_kelvin * temperature, 8 * (1 - temperature / law.relict_limit) + 1)
    frozen = cold | relict

    ice_fields = [
        _random_field(fine, reach, r).ravel()[seen["cells"]] for reach, r in zip((25e3, 2e3), rng.spawn(2), strict=True)
    ]
    odds = law.ice_intercept + law.ice_wetness * seen["wetness"] + law.ice_peat * peat + law.ice_fines * seen["fines"]
    odds = (
        odds + sum(np.float32(sd) * field for sd, field in zip(law.unseen_ice, ice_fields, strict=True)) - 0.5 * burnt
    )
    soil = _between(law.soil_depth, seen["valley"]) * np.exp(0.35 * ice_fields[1])

    nowhere = np.float32(np.nan)
    ground = Ground(
        seen["cells"],
        temperature,
        np.where(frozen, table, nowhere),
        np.where(frozen, table + thickness, nowhere),
        soil,
        odds,
        seen["valley"],
        peat,
        seen["fines"],
    )
    return Ground(
        **{
            f.name: np.asarray(getattr(ground, f.name), None if f.name == "cells" else np.float32)
            for f in fields(ground)
        }
    )


def _seen(study, fine):
    """Return what rasters show of the fine cells that are cold enough, as a dict of arrays of shape (cells,)."""
    shape, divisor = fine.shape, round(study.grid.resolution / study.grid.fine_resolution)
    coarse = read_covariates(study, ["air_frost_number", "ndvi", "organic_carbon", "clay", "silt"])
    cold = coarse["air_frost_number"].to_numpy() > LEAST_FROST_NUMBER
    cold &= np.isfinite(sum(coarse[name].values for name in coarse.data_vars))
    inside = area_mask(study, fine) & np.repeat(np.repeat(cold, divisor, 0), divisor, 1)
    cells = np.flatnonzero(inside)
    parents = (cells // shape[1]) // divisor * (shape[1] // divisor) + (cells % shape[1]) // divisor

    names = ("elevation", "slope", "northness", "tpi", "twi")
    terrain = {name: warp(fine_files(study)[name], fine).ravel()[cells] for name in names}
    cells, parents = cells[ok := np.isfinite(sum(terrain.values()))], parents[ok]
    terrain = {name: values[ok] for name, values in terrain.items()}
    covariate = {name: coarse[name].to_numpy().ravel()[parents] for name in coarse.data_vars}

    steep = np.clip(terrain["slope"] / 10, 0, 2)
    valley = _sigmoid(-terrain["tpi"] / 12 - 2.5 * steep + 1.0)
    wetness = _sigmoid((terrain["twi"] - 9.5) / 1.6) * (0.4 + 0.6 * valley)
    forest = np.clip((covariate["ndvi"] - 0.35) / 0.4, 0, 1)
    peat = np.clip(_sigmoid((covariate["organic_carbon"] - 3) / 1.5) * 0.5 + 0.6 * wetness * forest, 0, 1)
    return {
        "cells": cells,
        "valley": valley,
        "wetness": wetness,
        "forest": forest,
        "peat": peat,
        "fines": np.clip((covariate["clay"] + 0.5 * covariate["silt"] - 20) / 40, 0, 1),
        "sunny": -terrain["northness"] * np.minimum(steep, 1.5),
        "parents": parents,
        "monthly": _monthly_air(study, terrain["elevation"], parents),
        "snow": _winter_precipitation(study, parents),
    }


def _monthly_air(study, elevation, parents):
    """Return monthly air temperature at the ground's height, degC, shape (12, cells): ERA5's, less the lapse rate."""
    reference = reference_grid(study)
    raw = raw_files(study)
    coarse = MONTHLY_TEMPERATURE.decode(warp(raw["air_temperature"], reference, "bilinear"))
    base = warp(study.path("data/base/topography.tif"), reference, "average").astype(np.float32)
    seen_by_era5 = _smoothed(base, 28e3 / study.grid.resolution)
    height = (elevation - seen_by_era5.ravel()[parents]) / np.float32(1000)
    return coarse.reshape(12, -1)[:, parents] - np.float32(study.truth.lapse_rate) * height


def _smoothed(values, cells):
    from scipy import ndimage

    return ndimage.gaussian_filter(values, cells / 2, mode="nearest")


def _winter_precipitation(study, parents):
    monthly = MONTHLY_PRECIPITATION.decode(warp(raw_files(study)["precipitation"], reference_grid(study), "bilinear"))
    return monthly[[10, 11, 0, 1, 2]].sum(axis=0).ravel()[parents]


def _ttop(law, seen, shift):
    """Return temperature at the top of permafrost (degC) and the ground's thawing index (degC d)."""
    thawing, freezing = (np.zeros(seen["cells"].size, np.float32) for _ in range(2))
    for month, days in enumerate(climate.DAYS):
        winter = np.float32(max(0.0, np.cos(2 * np.pi * (month - 0.3) / 12)))
        air = seen["monthly"][month] + shift - np.float32(law.inversion) * winter * seen["valley"]
        thawing += np.float32(days) * np.maximum(air, 0)
        freezing += np.float32(days) * np.maximum(-air, 0)
    thawing *= _between(law.thawing_n_factor, seen["forest"] * (0.5 + 0.5 * seen["peat"]))
    thawing *= 1 + np.float32(law.insolation) * seen["sunny"]
    snow = seen["snow"] / (seen["snow"] + np.float32(law.snow_half))
    freezing *= _between(law.freezing_n_factor, snow)
    ratio = _between(law.conductivity_ratio, seen["peat"])
    balance = ratio * thawing - freezing
    return np.where(balance < 0, balance, thawing - freezing / ratio) / np.float32(365), thawing


def ice_content_at(ground, depth, law, scatter=0.0):
    """Return the volumetric ice content of frozen ground at a depth.

    Parameters
    ----------
    ground : Ground
        Of any number of cells.
    depth : float or numpy.ndarray, shape (cells,)
        m below the surface.
    law : helpers.core.study.Truth
    scatter : float or numpy.ndarray
        Added to the log-odds: what a hole has beyond its cell.

    Returns
    -------
    numpy.ndarray, shape (cells,)
        m3 m-3.
    """
    above = np.maximum(depth - ground.table, 0)
    odds = ground.odds + scatter - np.float32(law.ice_decline) * (depth - 2)
    odds = odds + np.float32(law.ice_transition) * np.exp(-above / np.float32(law.transition_depth))
    return np.where(depth > ground.soil_depth, np.float32(law.rock_ice), np.float32(law.ice_cap) * _sigmoid(odds))


def layer_truth(ground, layer, law, thresholds, scatter=0.0, error=0.0):
    """Return the truth of one depth layer on the fine cells, or what holes in them find.

    Parameters
    ----------
    ground : Ground
    layer : tuple of float
        Top and bottom, m.
    law : helpers.core.study.Truth
    thresholds : sequence of float
        Limits between ice types.
    scatter, error : float or numpy.ndarray
        What a hole has beyond its cell: in log-odds of ice content, and as an error of the content, m3 m-3.

    Returns
    -------
    ice_type : numpy.ndarray of uint8, shape (cells,)
        0 without permafrost in the layer.
    ice_fraction : numpy.ndarray of float32, shape (cells,)
        Ice content of the permafrost part times its share of the layer, m3 m-3.
    """
    table = np.nan_to_num(ground.table, nan=1e6)
    top, bottom, share = ice.permafrost_part(*layer, table, np.nan_to_num(ground.base, nan=1e6))
    content = np.zeros_like(ground.odds)
    for part in (np.arange(SLICES) + 0.5) / SLICES:
        depth = np.where(share > 0, top + part * (bottom - top), layer[0]).astype(np.float32)
        content += ice_content_at(ground, depth, law, scatter) / SLICES
    content = np.where(share > 0, np.clip(content + error, 0, 1), 0).astype(np.float32)
    types = np.where(share > 0, ice.ice_type(content, thresholds), 0).astype(np.uint8)
    return types, (content * share).astype(np.float32)


# Truth on the map -----------------------------------------------------------------------------------------------------


def truth_files(study):
    """Return the rasters of the truth on the reference grid, by name."""
    folder, kinds = study.results_dir / "truth", ("ice_type", "ice_fraction", "hole_type")
    names = [f"{kind}_{ice.layer_name(layer)}" for layer in study.layers for kind in kinds]
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
        share = block_mean(_on_grid(ground.cells, values, fine), divisor)
        return np.where(inside, share, np.float32(np.nan))

    truth = {"permafrost_share": mean(np.isfinite(ground.table))}
    for layer in study.layers:
        name = ice.layer_name(layer)
        types, fraction = layer_truth(ground, layer, study.truth, study.ice.thresholds)
        shares = [mean(types == code) for code in range(1, 6)]
        shares.insert(0, 1 - sum(shares))
        dominant = np.argmax(np.round(shares, 4), axis=0)
        truth[f"ice_type_{name}"] = np.where(inside, dominant, ice.NO_TYPE).astype(np.uint8)
        truth[f"ice_fraction_{name}"] = mean(fraction)
    holes = _hole_types(study, ground, rng)
    return truth | {name: np.where(inside, types, ice.NO_TYPE).astype(np.uint8) for name, types in holes.items()}


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
        found[f"hole_type_{ice.layer_name((top, bottom))}"] = drilled.reshape(shape)
    return found


def write_truth(study, ground, rng):
    """Write the rasters of `true_rasters`, and return them."""
    truth, files = true_rasters(study, ground, rng), truth_files(study)
    legend = {kind.code: (kind.name, kind.colour) for kind in ice.ICE_TYPES}
    for name, values in truth.items():
        classes = values.dtype == np.uint8
        more = {"nodata": ice.NO_TYPE, "legend": legend} if classes else {}
        title = "true " + name.replace("_", " ")
        reference = reference_grid(study)
        write_raster(files[name], values, reference, study=study, names=name, units="1", long_names=title, **more)
    return truth


def _on_grid(cells, values, geobox):
    grid = np.zeros(geobox.shape, np.float32)
    grid.ravel()[cells] = values
    return grid


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
    import pandas

    cell = study.grid.resolution**2 / 1e6
    layers = [ice.layer_name(layer) for layer in study.layers]
    depths = [bottom - top for top, bottom in study.layers]
    volume = sum(np.nansum(truth[f"ice_fraction_{n}"]) * d for n, d in zip(layers, depths, strict=True)) * cell / 1e3
    types = np.concatenate([truth[f"ice_type_{name}"].ravel() for name in layers])
    frozen = np.bincount(types[(types > 0) & (types < ice.NO_TYPE)], minlength=6)[1:]
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
    _, latitude = _lonlat(*(fine.transform * (column + 0.5, row + 0.5)), fine)
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

    from helpers.samples.labels import predictor_names

    names = predictor_names(study)
    data = read_covariates(study, sorted({*names, study.domain.covariate}))
    stack = np.stack([data[name].to_numpy().ravel() for name in names], axis=1)
    usable = np.isfinite(stack).all(axis=1) & (data[study.domain.covariate].to_numpy().ravel() > study.domain.above)
    chosen = rng.permutation(np.flatnonzero(usable))
    train, test = chosen[: min(cells, len(chosen) * 2 // 3)], chosen[-min(20_000, len(chosen) // 3) :]
    seed = int(rng.integers(2**31))
    found = {}
    for layer in map(ice.layer_name, study.layers):
        types = truth[f"ice_type_{layer}"].ravel()
        forest = RandomForestClassifier(CEILING_TREES, min_samples_leaf=3, n_jobs=2, random_state=seed)
        found[layer] = float((forest.fit(stack[train], types[train]).predict(stack[test]) == types[test]).mean())
    return found


# Boreholes and pits ---------------------------------------------------------------------------------------------------


def draw_boreholes(study, ground, rng):
    """Sample the truth the way people do: clustered, along valleys and roads, with pits, errors and double entries.

    Parameters
    ----------
    study : helpers.core.study.Study
    ground : Ground
    rng : numpy.random.Generator

    Returns
    -------
    sites : pandas.DataFrame
        One row a site, with the columns of `data/samples/sites.csv`.
    intervals : pandas.DataFrame
        One row a core interval, with the columns of `data/samples/intervals.csv`.
    """
    import pandas

    where, how = rng.spawn(2)
    cells = _site_cells(study, ground, where)
    fine = fine_grid(study)
    row, column = np.divmod(cells, fine.shape[1])
    easting, northing = fine.transform * (column + where.random(cells.size), row + where.random(cells.size))
    sites, intervals = [], []
    place = np.searchsorted(ground.cells, cells)
    known = (place < ground.cells.size) & (ground.cells[np.minimum(place, ground.cells.size - 1)] == cells)
    longitude, latitude = _lonlat(easting, northing, fine)
    elevation = warp(fine_files(study)["elevation"], fine).ravel()[cells]
    for number, here in enumerate(how.spawn(cells.size)):
        hole = ground.at([place[number]]) if known[number] else None
        site, cores = _drill(f"S{number + 1:04d}", hole, study, here)
        site |= {"longitude": round(longitude[number], 5), "latitude": round(latitude[number], 5)}
        site["elevation_m"] = round(float(elevation[number]) + here.normal(0, 5), 0)
        sites.append(site)
        intervals += cores
    sites, intervals = pandas.DataFrame(sites), pandas.DataFrame(intervals)
    return _entered_twice(sites, intervals, study.boreholes.duplicates, how)


def mistype(study, sites, intervals, rng):
    """Return both tables as people type them: now and then a decimal comma, or a day that no calendar has.

    Parameters
    ----------
    study : helpers.core.study.Study
        `boreholes.mistakes` is the share of rows with one.
    sites, intervals : pandas.DataFrame
        As `draw_boreholes` returns them.
    rng : numpy.random.Generator

    Returns
    -------
    sites, intervals : pandas.DataFrame
    """
    typed = [sites.astype(object), intervals.astype(object)]
    for table, column in zip(typed, ("longitude", "bottom_m"), strict=True):
        rows = rng.random(len(table)) < study.boreholes.mistakes
        table.loc[rows, column] = [str(value).replace(".", ",") for value in table.loc[rows, column]]
    rows = rng.random(len(sites)) < study.boreholes.mistakes
    typed[0].loc[rows, "date"] = [f"{date[:4]}-02-30" for date in typed[0].loc[rows, "date"]]
    return tuple(typed)


def write_tables(study, sites, intervals):
    """Write the two tables where the study's samples are read from; tables of one's own are never written to."""
    from helpers.samples.tables import SampleError, table_paths

    if not study.draws_boreholes:
        raise SampleError("This study names tables of its own.", "leave samples.sites and samples.intervals empty")
    for table, path in zip((sites, intervals), table_paths(study), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        table.to_csv(part, index=False)
        os.replace(part, path)


def _entered_twice(sites, intervals, share, rng):
    import pandas

    again = sites.sample(frac=share, random_state=rng)
    names = dict(zip(again["site_id"], again["site_id"] + "b", strict=True))
    copies = intervals[intervals["site_id"].isin(names)]
    both = [pandas.concat([sites, again.assign(site_id=again["site_id"].map(names))])]
    both.append(pandas.concat([intervals, copies.assign(site_id=copies["site_id"].map(names))]))
    columns = [
        "site_id",
        "longitude",
        "latitude",
        "date",
        "method",
        "elevation_m",
        "depth_reached_m",
        "permafrost",
    ]
    both[0] = both[0][[*columns, "permafrost_table_m", "permafrost_base_m", "source"]]
    return tuple(table.reset_index(drop=True) for table in both)


def _lonlat(easting, northing, geobox):
    from pyproj import Transformer

    return Transformer.from_crs(geobox.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(easting, northing)


def _site_cells(study, ground, rng):
    """Return flat fine-grid indices of the sites by the sampling design, in and outside of the domain."""
    plan, fine = study.boreholes, fine_grid(study)
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    domain = np.repeat(np.repeat(rule > study.domain.above, divisor, 0), divisor, 1)
    usable = area_mask(study, fine) & np.repeat(np.repeat(np.isfinite(rule), divisor, 0), divisor, 1)
    valley = _on_grid(ground.cells, ground.valley, fine)
    inside = round(plan.sites * plan.domain_share)
    chosen = []
    for mask, number in ((usable & domain, inside), (usable & ~domain, plan.sites - inside)):
        pool = np.flatnonzero(mask)
        if plan.design == "random" or not pool.size:
            chosen.append(rng.choice(pool, number, replace=False) if pool.size else pool)
        else:
            chosen.append(_people_drill(plan, mask, pool, valley, number, fine, rng))
    return np.concatenate(chosen)


def _people_drill(plan, mask, pool, valley, number, fine, rng):
    """Return cells in clusters (or all along roads); the clusters that are not at roads prefer lower ground."""
    towns = rng.choice(pool, plan.towns, replace=False)
    roads = _roads(towns, fine.shape[1])
    roadside = 1.0 if plan.design == "roadside" else plan.road_share
    cell = abs(fine.transform.a)
    clusters = max(5, round(plan.clusters * number / plan.sites))
    centres = np.where(
        (rng.random(clusters) < roadside)[:, None],
        roads[rng.integers(len(roads), size=clusters)],
        np.stack(np.divmod(_lowest_of(rng.choice(pool, (plan.lowest_of, clusters)), valley), fine.shape[1]), axis=1),
    )
    reach = (0.25 if plan.design == "roadside" else 1.0) * plan.cluster_radius / cell
    chosen = set()
    while len(chosen) < number:
        centre = centres[rng.integers(clusters, size=number)]
        spots = np.rint(centre + rng.normal(0, max(reach, 0.7), centre.shape)).astype(int)
        spots = np.clip(spots, 0, np.array(fine.shape) - 1)
        flat = spots[:, 0] * fine.shape[1] + spots[:, 1]
        for index in flat[mask.ravel()[flat]]:
            if len(chosen) < number:
                chosen.add(int(index))
    return np.array(sorted(chosen))


def _lowest_of(candidates, valley):
    """Return, of each column of candidate cells, the one nearest to a valley floor."""
    return np.take_along_axis(candidates, valley.ravel()[candidates].argmax(axis=0)[None], axis=0)[0]


def _roads(towns, width):
    """Return (row, column) points along the shortest network of straight roads that joins all towns."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    points = np.stack(np.divmod(towns, width), axis=1).astype(float)
    start, end = minimum_spanning_tree(cdist(points, points)).nonzero()
    along = np.linspace(0, 1, 200)[:, None, None]
    return (points[start] * (1 - along) + points[end] * along).reshape(-1, 2)


def _drill(name, hole, study, rng):
    """Return one site and its core intervals; `hole` is the ground there, None where it is too warm for permafrost."""
    plan, law = study.boreholes, study.truth
    pit = rng.random() < plan.pit_share
    depth = rng.uniform(1.5, 4.2) if pit else rng.choice([6, 8, 10, 12, 15, 20], p=[0.1, 0.15, 0.3, 0.2, 0.15, 0.1])
    if not pit and rng.random() < 0.12:
        depth = rng.uniform(3, 9.5)  # refusal on boulders or a broken bit, often inside a layer
    depth = round(float(depth), 1)
    table, base = (np.nan, np.nan) if hole is None else (float(hole.table[0]), float(hole.base[0]))
    # Comparisons with NaN are false: no permafrost is never found.
    table = np.round(np.maximum(0.4, table + rng.normal(0, plan.table_error)), 1)
    base = np.round(np.maximum(table + 0.2, base + rng.normal(0, 2 * plan.table_error)), 1)
    found = table < depth
    site = {
        "site_id": name,
        "date": f"{rng.integers(2009, 2025)}-{rng.integers(3, 11):02d}-{rng.integers(1, 29):02d}",
        "method": "pit" if pit else "borehole",
        "depth_reached_m": depth,
        "permafrost": "yes" if found else ("no" if depth >= 10 else "unknown"),
        "permafrost_table_m": table if found else None,
        "permafrost_base_m": base if found and base < depth else None,
        "source": "SIMULATED",
    }
    return site, _cores(name, hole, depth, table, base, study, law, rng)


def _cores(name, hole, depth, table, base, study, law, rng):
    scatter = rng.normal(0, study.boreholes.hole_scatter)
    edges = np.round(np.cumsum(rng.uniform(*CORE_LENGTHS, 70)), 1)
    breaks = {0.0, depth, *edges[edges < depth].tolist(), *(b for b in (table, base) if b < depth)}
    breaks = sorted(breaks)
    rows = []
    for top, bottom in itertools.pairwise(breaks):
        middle = (top + bottom) / 2
        frozen = bool(table <= middle <= base)
        content = None
        if frozen:
            true = float(ice_content_at(hole, np.float32(middle), law, np.float32(scatter))[0])
            content = round(float(np.clip(true + rng.normal(0, study.boreholes.ice_error), 0, 0.95)), 3)
        rows.append(
            {
                "site_id": name,
                "top_m": top,
                "bottom_m": bottom,
                "frozen": "yes" if frozen else "no",
                "ice_content": content,
                "texture": _texture(hole, middle, rng),
            }
        )
    return rows


def _texture(hole, depth, rng):
    if hole is None:
        return str(rng.choice(["silt", "sand", "clay"]))
    if depth > hole.soil_depth[0]:
        return "rock"
    if depth < 0.6 * hole.peat[0]:
        return "peat"
    return str(rng.choice(["clay", "silt"] if rng.random() < hole.fines[0] else ["sand", "gravel"]))
