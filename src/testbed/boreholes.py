"""The field campaign of the virtual study: boreholes and pits that sample the hidden ground."""

import itertools

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from helpers.core.files import write_table
from helpers.core.grid import area_mask, fine_grid
from helpers.core.warp import warp
from helpers.prepare.domain import cells_in_and_out
from helpers.prepare.registry import fine_files
from helpers.samples.columns import COLUMNS, SampleError
from helpers.samples.tables import table_paths
from testbed.ground import CORE_LENGTHS, Ground, ice_content_at, lonlat, on_grid, repeat_cells
from testbed.settings import VirtualStudy

Tables = tuple[pd.DataFrame, pd.DataFrame]
"""Sites, one a row, and core intervals, one a row."""


def sample_boreholes(study: VirtualStudy, ground: Ground, rng: np.random.Generator) -> Tables:
    """Sample the truth the way people do: clustered, along valleys and roads, with pits and errors.

    The tables have the columns of those in `data/samples/`; some sites are entered twice.
    """
    place_rng, drill_rng = rng.spawn(2)
    cells = site_cells(study, ground, place_rng)
    sites, intervals = drill(study, ground, cells, (place_rng, drill_rng))
    return _with_double_entries(study, sites, intervals, drill_rng)


def drill(
    study: VirtualStudy,
    ground: Ground,
    cells: np.ndarray,
    rngs: tuple[np.random.Generator, np.random.Generator],
) -> Tables:
    """Return what boreholes and pits in some cells of the fine grid find.

    Cells are flat indices, shape (n,). The first generator is for places within the cells, the
    other for what is found there.
    """
    place_rng, drill_rng = rngs
    fine = fine_grid(study)
    row, column = np.divmod(cells, fine.shape[1])
    column = column + place_rng.random(cells.size)
    row = row + place_rng.random(cells.size)
    longitude, latitude = lonlat(column, row, fine)
    elevation = warp(fine_files(study)["elevation"], fine).ravel()[cells]
    place = np.minimum(np.searchsorted(ground.cells, cells), ground.cells.size - 1)
    possible = ground.cells[place] == cells
    sites = []
    intervals = []
    for number, site_rng in enumerate(drill_rng.spawn(cells.size)):
        here = ground.at([place[number]]) if possible[number] else None
        site, cores = _drill(f"S{number + 1:04d}", here, study, site_rng)
        site["longitude"] = round(longitude[number], 5)
        site["latitude"] = round(latitude[number], 5)
        site["elevation_m"] = round(float(elevation[number]) + site_rng.normal(0, 5), 0)
        sites.append(site)
        intervals += cores
    sites = pd.DataFrame(sites, columns=[column.name for column in COLUMNS["sites"]])
    return sites, pd.DataFrame(intervals)


def add_typing_mistakes(
    study: VirtualStudy, sites: pd.DataFrame, intervals: pd.DataFrame, rng: np.random.Generator
) -> Tables:
    """Return both tables as people type them: here and there a decimal comma or an impossible day.

    `boreholes.mistakes` is the share of rows with one.
    """
    share = study.campaign.boreholes.mistakes
    sites = sites.astype(object)
    intervals = intervals.astype(object)
    for table, column in ((sites, "longitude"), (intervals, "bottom_m")):
        rows = rng.random(len(table)) < share
        table.loc[rows, column] = [str(v).replace(".", ",") for v in table.loc[rows, column]]
    rows = rng.random(len(sites)) < share
    sites.loc[rows, "date"] = [f"{date[:4]}-02-30" for date in sites.loc[rows, "date"]]
    return sites, intervals


def write_tables(study: VirtualStudy, sites: pd.DataFrame, intervals: pd.DataFrame) -> None:
    """Write the two tables where samples are read from; SampleError if these are the user's own."""
    if not study.draws_boreholes:
        raise SampleError("This study names its own tables.", "leave `samples.sites` empty")
    for table, path in zip((sites, intervals), table_paths(study), strict=True):
        write_table(path, table)


def _with_double_entries(
    study: VirtualStudy, sites: pd.DataFrame, intervals: pd.DataFrame, rng: np.random.Generator
) -> Tables:
    again = sites.sample(frac=study.campaign.boreholes.duplicates, random_state=rng)
    names = dict(zip(again["site_id"], again["site_id"] + "b", strict=True))
    copies = intervals[intervals["site_id"].isin(names)]

    def joined(table: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([table, more.replace({"site_id": names})], ignore_index=True)

    return joined(sites, again), joined(intervals, copies)


# Where people drill -------------------------------------------------------------------------------


def site_cells(study: VirtualStudy, ground: Ground, rng: np.random.Generator) -> np.ndarray:
    """Return flat fine-grid indices of the sites by the sampling design."""
    plan = study.campaign.boreholes
    fine = fine_grid(study)
    divisor = study.grid.divisor
    area = area_mask(study, fine)
    valley = on_grid(ground.cells, ground.valley, fine)
    sought = _odds_of_ice(study, ground, fine).ravel()
    inside = round(plan.sites * plan.domain_share)
    numbers = (inside, plan.sites - inside)
    chosen = []
    for cells, number in zip(cells_in_and_out(study), numbers, strict=True):
        mask = area & repeat_cells(cells, divisor)
        pool = np.flatnonzero(mask)
        if not pool.size:
            continue
        if plan.design == "random":
            chosen.append(rng.choice(pool, number, replace=False))
        elif plan.design == "ice_seeking":
            odds = sought[pool] / sought[pool].sum()
            chosen.append(rng.choice(pool, number, replace=False, p=odds))
        else:
            chosen.append(_clustered_cells(study, mask, valley, number, rng))
    return np.concatenate(chosen)


def _odds_of_ice(study: VirtualStudy, ground: Ground, fine: GeoBox) -> np.ndarray:
    """Return how much likelier each fine cell is drilled where people seek ice, shape (y, x)."""
    frost, ice = study.campaign.boreholes.ice_odds
    frozen = ground.table < max(bottom for _, bottom in study.layers)
    rich = frozen & (ground.odds > np.median(ground.odds[frozen]))
    return 1 + on_grid(ground.cells, frozen * (frost * np.where(rich, ice, 1)) - 1.0 * frozen, fine)


def _clustered_cells(
    study: VirtualStudy,
    mask: np.ndarray,
    valley: np.ndarray,
    number: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return cells in clusters along roads and, unless the design is roadside, on lower ground."""
    plan = study.campaign.boreholes
    width = mask.shape[1]
    pool = np.flatnonzero(mask)
    roads = _roads(rng.choice(pool, plan.towns, replace=False), width)
    roadside = plan.design == "roadside"
    clusters = max(5, round(plan.clusters * number / plan.sites))
    at_road = rng.random(clusters) < (1.0 if roadside else plan.road_share)
    road_places = roads[rng.integers(len(roads), size=clusters)]
    candidates = rng.choice(pool, (plan.lowest_of, clusters))
    lowest = valley.ravel()[candidates].argmax(axis=0)  # the nearest to a valley floor
    low_places = np.stack(np.divmod(candidates[lowest, np.arange(clusters)], width), axis=1)
    centres = np.where(at_road[:, None], road_places, low_places)
    reach = (0.25 if roadside else 1.0) * plan.cluster_radius / study.grid.fine_resolution
    chosen: set[int] = set()
    while len(chosen) < number:
        centre = centres[rng.integers(clusters, size=number)]
        spots = np.rint(centre + rng.normal(0, max(reach, 0.7), centre.shape)).astype(int)
        spots = np.clip(spots, 0, np.array(mask.shape) - 1)
        flat = spots[:, 0] * width + spots[:, 1]
        for index in flat[mask.ravel()[flat]]:
            if len(chosen) < number:
                chosen.add(int(index))
    return np.array(sorted(chosen))


def _roads(towns: np.ndarray, width: int) -> np.ndarray:
    """Return (row, column) of points on the shortest network of straight roads that joins towns."""
    points = np.stack(np.divmod(towns, width), axis=1).astype(float)
    start, end = minimum_spanning_tree(cdist(points, points)).nonzero()
    along = np.linspace(0, 1, 200)[:, None, None]
    return (points[start] * (1 - along) + points[end] * along).reshape(-1, 2)


# What a borehole finds ----------------------------------------------------------------------------


def _drill(
    site_id: str, ground: Ground | None, study: VirtualStudy, rng: np.random.Generator
) -> tuple[dict, list[dict]]:
    """Return one site and its core intervals, as rows of the two tables."""
    plan = study.campaign.boreholes
    pit = rng.random() < plan.pit_share
    if pit:
        depth = rng.uniform(1.5, 4.2)
    else:
        depth = rng.choice([6, 8, 10, 12, 15, 20], p=[0.1, 0.15, 0.3, 0.2, 0.15, 0.1])
        if rng.random() < 0.12:
            depth = rng.uniform(3, 9.5)  # refusal on boulders or a broken bit, often inside a layer
    depth = round(float(depth), 1)
    table = np.nan if ground is None else float(ground.table[0])
    base = np.nan if ground is None else float(ground.base[0])
    # Comparisons with NaN are false: no permafrost is never found.
    table = np.round(np.maximum(0.4, table + rng.normal(0, plan.table_error)), 1)
    base = np.round(np.maximum(table + 0.2, base + rng.normal(0, 2 * plan.table_error)), 1)
    reached = table < depth
    site = {
        "site_id": site_id,
        "date": f"{rng.integers(2009, 2025)}-{rng.integers(3, 11):02d}-{rng.integers(1, 29):02d}",
        "method": "pit" if pit else "borehole",
        "depth_reached_m": depth,
        "permafrost": "yes" if reached else ("no" if depth >= 10 else "unknown"),
        "permafrost_table_m": table if reached else None,
        "permafrost_base_m": base if reached and base < depth else None,
        "source": "SIMULATED",
    }
    return site, _cores(site_id, ground, (depth, table, base), study, rng)


def _cores(
    site_id: str,
    ground: Ground | None,
    depths: tuple[float, float, float],
    study: VirtualStudy,
    rng: np.random.Generator,
) -> list[dict]:
    """Return core intervals, by depth reached, table and base of permafrost; NaN without any.

    The ground has one cell; it is None where it is too warm for permafrost.
    """
    reached, table, base = depths
    plan = study.campaign.boreholes
    scatter = np.float32(rng.normal(0, plan.borehole_scatter))
    edges = np.round(np.cumsum(rng.uniform(*CORE_LENGTHS, 70)), 1)
    inner = [*edges.tolist(), table, base]
    breaks = {0.0, reached, *(edge for edge in inner if edge < reached)}
    rows = []
    for top, bottom in itertools.pairwise(sorted(breaks)):
        middle = (top + bottom) / 2
        content = None
        if frozen := bool(table <= middle <= base):
            depth = np.float32(middle)
            true = float(ice_content_at(ground, depth, study.campaign.truth, scatter)[0])
            content = round(float(np.clip(true + rng.normal(0, plan.ice_error), 0, 0.95)), 3)
        rows.append(
            {
                "site_id": site_id,
                "top_m": top,
                "bottom_m": bottom,
                "frozen": "yes" if frozen else "no",
                "ice_content": content,
                "texture": _texture(ground, middle, rng),
            }
        )
    return rows


def _texture(ground: Ground | None, depth: float, rng: np.random.Generator) -> str:
    if ground is None:
        return str(rng.choice(["silt", "sand", "clay"]))
    if depth > ground.soil_depth[0]:
        return "rock"
    if depth < 0.6 * ground.peat[0]:
        return "peat"
    fine = rng.random() < ground.fines[0]
    return str(rng.choice(["clay", "silt"] if fine else ["sand", "gravel"]))
