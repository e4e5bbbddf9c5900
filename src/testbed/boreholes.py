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

import numpy as np
import pandas
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from helpers.core.grid import area_mask, fine_grid
from helpers.core.rasters import warp
from helpers.prepare.registry import fine_files, read_covariates
from helpers.samples.columns import SampleError
from helpers.samples.tables import table_paths
from testbed.ground import CORE_LENGTHS, ice_content_at, lonlat, on_grid

# Boreholes and pits ---------------------------------------------------------------------------------------------------


def sample_boreholes(study, ground, rng):
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
    where, how = rng.spawn(2)
    cells = _site_cells(study, ground, where)
    fine = fine_grid(study)
    row, column = np.divmod(cells, fine.shape[1])
    easting, northing = fine.transform * (column + where.random(cells.size), row + where.random(cells.size))
    sites, intervals = [], []
    place = np.searchsorted(ground.cells, cells)
    known = (place < ground.cells.size) & (ground.cells[np.minimum(place, ground.cells.size - 1)] == cells)
    longitude, latitude = lonlat(easting, northing, fine)
    elevation = warp(fine_files(study)["elevation"], fine).ravel()[cells]
    for number, here in enumerate(how.spawn(cells.size)):
        hole = ground.at([place[number]]) if known[number] else None
        site, cores = _drill(f"S{number + 1:04d}", hole, study, here)
        site |= {"longitude": round(longitude[number], 5), "latitude": round(latitude[number], 5)}
        site["elevation_m"] = round(float(elevation[number]) + here.normal(0, 5), 0)
        sites.append(site)
        intervals += cores
    sites, intervals = pandas.DataFrame(sites), pandas.DataFrame(intervals)
    return _add_double_entries(sites, intervals, study.boreholes.duplicates, how)


def add_typing_mistakes(study, sites, intervals, rng):
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
    if not study.draws_boreholes:
        raise SampleError("This study names tables of its own.", "leave samples.sites and samples.intervals empty")
    for table, path in zip((sites, intervals), table_paths(study), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        table.to_csv(part, index=False)
        os.replace(part, path)


def _add_double_entries(sites, intervals, share, rng):
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


def _site_cells(study, ground, rng):
    """Return flat fine-grid indices of the sites by the sampling design, in and outside of the domain."""
    plan, fine = study.boreholes, fine_grid(study)
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    domain = np.repeat(np.repeat(rule > study.domain.above, divisor, 0), divisor, 1)
    usable = area_mask(study, fine) & np.repeat(np.repeat(np.isfinite(rule), divisor, 0), divisor, 1)
    valley = on_grid(ground.cells, ground.valley, fine)
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
