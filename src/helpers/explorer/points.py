"""Points of a page: sample sites, what each found, its cores by depth; and where to drill next.

A *list of points* is what a page switches on and off at once. Each point has at least a name and
its place on the grid; what else it has, the page's script reads by the list's id.
"""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
import pandas as pd

from helpers.core.classes import layer_name
from helpers.core.files import read_json
from helpers.core.grid import named_crs
from helpers.core.points import projected
from helpers.core.study import Study, relative_path
from helpers.explorer.bands import ExplorerError, finished
from helpers.mapping.files import advised_from, drilling_files
from helpers.samples.labels import core_ice
from helpers.samples.store import read_labels, read_samples, samples_path
from helpers.samples.tables import read_tables, table_paths

Point = dict[str, Any]
"""A point as the page reads it: ``name``, ``place``, and what its list has beside."""

_HOLE = {
    "method": "method",
    "date": "date",
    "depth_reached_m": "reached",
    "permafrost_table_m": "table",
    "permafrost_base_m": "base",
}
"""Columns of the table of sites that a page shows, and what it calls them."""


def point_lists(study: Study, *, sites: bool) -> list[dict[str, str]]:
    """Return the lists of a run that have points, each with its id and the points as text.

    `sites` as of `helpers.explorer.page.study_bands`.
    """
    lists = {"sites": site_points(study) if sites else [], "holes": advised_holes(study)}
    return [{"id": name, "packed": pack(points)} for name, points in lists.items() if points]


def pack(points: list[Point]) -> str:
    """Return points as JSON, compressed by deflate, as base64.

    Examples
    --------
    >>> text = pack([{"name": "孔 1", "place": [1.5, 2]}])
    >>> zlib.decompress(base64.b64decode(text)).decode()
    '[{"name":"孔 1","place":[1.5,2]}]'
    """
    text = json.dumps(points, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack(text: str) -> list[Point]:
    """Return the points of a text that `pack` made.

    Examples
    --------
    >>> unpack(pack([{"name": "hole 1", "place": (1.5, 2)}]))  # JSON has no tuples
    [{'name': 'hole 1', 'place': [1.5, 2]}]
    """
    return json.loads(zlib.decompress(base64.b64decode(text)))


def site_points(study: Study) -> list[Point]:
    """Return the boreholes, pits and points with a class of a finished run.

    Cells of polygons and drawn absences are no sites. A site without a place on the grid is left
    out.

    Returns
    -------
    list of dict
        ``name``; ``place``, easting and northing; ``use``: ``map`` where the map was made from it,
        else its status in ``fates.csv``; ``layers``, for each layer of the study what was found:
        ``code`` of the class, ``ice`` of the whole layer (m3 m-3) and ``share`` of it that is
        permafrost, or the ``reason`` why there is no class. Boreholes and pits have also the
        columns of `_HOLE`, and ``cores``: top, bottom (m) and ice content, which is None where the
        core is unfrozen. What is not known is left out.

    Raises
    ------
    ExplorerError, SampleError
        A table of the run is missing, or a field table is not readable.
    """
    pairs = pd.concat([read_labels(study), _known_points(study)], ignore_index=True)
    pairs = pairs.set_index(["site_id", "layer"]).to_dict("index")
    fates = pd.read_csv(
        finished(samples_path(study).with_name("fates.csv")),
        dtype={"site_id": str},
        keep_default_na=False,
    )
    fates = fates[fates["site_id"].isin({name for name, _ in pairs})]
    crs = named_crs(study.grid.crs)
    easting, northing = projected(fates["longitude"], fates["latitude"], crs)
    digits = max(1, 3 - math.floor(math.log10(study.grid.resolution)))
    holes = _holes(study)
    layers = [layer_name(layer) for layer in study.layers]
    return [
        {
            "name": name,
            "place": [round(float(x), digits), round(float(y), digits)],
            "use": _use(study, fate),
            "layers": [_found(study, pairs.get((name, layer))) for layer in layers],
            **holes.get(name, {}),
        }
        for name, fate, x, y in zip(fates["site_id"], fates["fate"], easting, northing, strict=True)
        if np.isfinite([x, y]).all()
    ]


def advised_holes(study: Study) -> list[Point]:
    """Return where to drill next, where the run has such advice.

    Each has its number as ``name``, its ``place``, the ``goal``, and what is ``left`` after it.
    ExplorerError for advice on another map, as after a run of other samples.
    """
    files = drilling_files(study)
    if not files["record"].is_file():
        return []
    record = read_json(files["record"])
    if record.get("of") != advised_from(study):
        raise ExplorerError(
            f"The advice on drilling in {relative_path(files['record'].parent)} is of another map.",
            "run `python -m launcher drill` again, or delete that folder",
        )
    goal = record["question"]["goal"]
    table = pd.read_csv(finished(files["table"]))
    return [
        {
            "name": str(row.hole),
            "place": [row.easting, row.northing],
            "goal": goal,
            "left": row.left,
        }
        for row in table.itertuples()
    ]


def _known_points(study: Study) -> pd.DataFrame:
    """Return the samples that are points with a class; nobody measured their ice."""
    samples = read_samples(study)
    points = samples[samples["reason"] == "known point"]
    return points[["site_id", "layer", "ice_type"]].assign(reason="")


def _use(study: Study, fate: str) -> str:
    """Return whether the map was made from a site, or its status in ``fates.csv``."""
    in_map = fate == "training" or (fate == "test" and study.forest.map_fit == "all")
    return "map" if in_map else fate


def _found(study: Study, row: dict[Any, Any] | None) -> Point:
    """Return what a site found in a layer, from its row of the labels if there is one."""
    if row is None:
        return {}
    if pd.isna(row["ice_type"]):
        return {"reason": row["reason"]}
    code = study.target_classes.of_type[int(row["ice_type"])]
    measured = {"ice": row["ice_fraction"], "share": row["permafrost_share"]}
    return {"code": code} | {
        name: round(value, 3) for name, value in measured.items() if pd.notna(value)
    }


def _holes(study: Study) -> dict[str, Point]:
    """Return what the field tables have of each borehole and pit by its name.

    It is nothing where the tables are no longer there: a page needs no more than the run has.
    """
    if not study.has_boreholes or not all(path.is_file() for path in table_paths(study)):
        return {}
    sites, intervals, _ = read_tables(study)
    table = sites.set_index("site_id").reindex(columns=list(_HOLE)).rename(columns=_HOLE)
    holes = {name: _without_blanks(row) for name, row in table.to_dict("index").items()}
    _add_cores(holes, core_ice(study, intervals))
    return holes


def _without_blanks(row: dict[str, Any]) -> Point:
    return {name: value for name, value in row.items() if pd.notna(value) and value != ""}


def _add_cores(holes: dict[str, Point], cores: pd.DataFrame) -> None:
    """Add to holes their ``cores`` from the top: those with a known ice content.

    Unfrozen ones that touch are one.
    """
    columns = ["site_id", "top_m", "bottom_m", "ice_content", "frozen"]
    known = cores.loc[cores["ice_content"].notna(), columns].sort_values("top_m")
    for name, top, bottom, ice, frozen in known.itertuples(index=False):
        pieces = holes[name].setdefault("cores", [])
        content = None if frozen == "no" and ice == 0 else round(ice, 3)
        top, bottom = round(top, 2), round(bottom, 2)
        if content is None and pieces and pieces[-1][1:] == [top, None]:
            pieces[-1][1] = bottom
        else:
            pieces.append([top, bottom, content])
