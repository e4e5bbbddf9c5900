"""Open data: which files a study needs from which servers, and what of them is there.

A list, asked of the servers once, names every file; what it names and lies in the folder of raw
rasters has arrived. From there on a study of open data is read like one of files.
"""

import math
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from helpers.core.errors import CompendiumError, listed
from helpers.core.files import read_json, short_hash, write_json
from helpers.core.grid import crs_wkt, fine_grid, reference_grid, reprojected, study_area
from helpers.core.settings import OpenData
from helpers.core.study import Study
from helpers.prepare.products import (
    COMPOSITE,
    LANDSAT_BANDS,
    LST_ASSETS,
    SCENE,
    SOIL_DEPTHS,
    SOIL_LAYERS,
    fetched_parts,
)

MONTHLY = ("source.air_temperature", "source.precipitation")
"""Settings of series, of which a service cuts out a window."""

SECONDS = 8
"""A server that has not answered by then is not there."""

_ASSETS = {
    "source.dem": ("data",),
    "source.landsat": ("qa_pixel", *LANDSAT_BANDS),
    "source.lst": LST_ASSETS,
    "source.soil": SOIL_LAYERS,
}
_NAMES = {"source.landsat": SCENE, "source.lst": COMPOSITE}  # of files that can be read
_PLATFORMS = {"MOD": "terra", "MYD": "aqua"}  # of items that do not say theirs
_PAGE = 250  # items
_BEYOND = 0.02  # degrees; cells at the study area's edge need what lies beside it
_BEYOND_OF = {
    # Cells of series may be large, and footprints of MODIS are four corners of a curved tile.
    **dict.fromkeys(MONTHLY, 0.5),
    "source.lst": 3,
}
_KM_PER_DEGREE = 111.32


class OpenDataError(CompendiumError):
    """Open data that are not there, or cannot be fetched."""


@dataclass(frozen=True)
class Part:
    """One file of open data.

    Parameters
    ----------
    setting
        The setting that names its collection or address, such as ``source.dem``.
    item, asset
        Of a STAC API; of an address its host and the variable.
    addresses
        Where it comes from, without the token of an API: several only of series that are averaged.
    file
        Its path in the folder of raw rasters.
    date, platform, cloud
        Of the item: the day as YYYY-MM-DD, the satellite, and the clouds in percent.
    footprint
        Of the item, in degrees, as well-known text; empty for an address.
    megabytes
        About how large the window is that the grid needs, not compressed; None if unknown.
    bytes, sha256
        Of the file, once it is there; 0 and empty if the raster has no cell in the grid.
    """

    setting: str
    item: str
    asset: str
    addresses: tuple[str, ...]
    file: str
    date: str = ""
    platform: str = ""
    cloud: float | None = None
    footprint: str = ""
    megabytes: float | None = None
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Plan:
    """The list of open data: files, and items that are left out, each with setting and reason."""

    parts: tuple[Part, ...]
    left_out: tuple[dict[str, str], ...]


def target_grid(study: Study, setting: str) -> GeoBox:
    """Return the grid that the rasters of a setting are brought to: it says what is fetched."""
    if setting == "source.dem":
        return fine_grid(study, margin=study.grid.margin)
    on_fine_cells = setting == "source.landsat" or setting.startswith("predictors.")
    return fine_grid(study) if on_fine_cells else reference_grid(study)


def make_plan(study: Study) -> Plan:
    """Return the list of a study's open data; the servers are asked only where there is none yet.

    OpenDataError if a server does not answer, or has nothing for the area and the dates.
    """
    path = _plan_path(study)
    if path.is_file():
        return _read(path)
    parts: list[Part] = []
    left_out: list[dict[str, str]] = []
    for setting, one in study.open_data.items():
        if one.collection:
            found, others = _from_collection(study, setting, one)
            left_out += others
        else:
            found = list(_from_address(study, setting, one))
        parts += found
    plan = Plan(tuple(parts), tuple(left_out))
    _write(study, plan, path)
    return plan


def _plan_path(study: Study) -> Path:
    # Not the list itself, which is written once all is there.
    return study.open_data_list.with_suffix(".plan.json")


def _read(path: Path) -> Plan:
    record = read_json(path)
    parts = (Part(**{**one, "addresses": tuple(one["addresses"])}) for one in record["parts"])
    return Plan(tuple(parts), tuple(record["left_out"]))


def write_list(study: Study, plan: Plan) -> None:
    """Write the list of open data that are all there."""
    _write(study, plan, study.open_data_list)


def _write(study: Study, plan: Plan, path: Path) -> None:
    record = {
        "label": study.label,
        "api": study.source.api,
        "licences": {setting: one.licence for setting, one in study.open_data.items()},
        **asdict(plan),
    }
    write_json(path, record)


def arrived(study: Study, plan: Plan) -> Plan:
    """Return a plan with the size of each file that is there; files are whole or not there."""

    def there(part: Part) -> Part:
        path = study.raw_dir / part.file
        size = path.stat().st_size if path.is_file() else None
        return replace(part, bytes=size)

    return replace(plan, parts=tuple(map(there, plan.parts)))


# What there is ------------------------------------------------------------------------------------


def _outline(study: Study, setting: str) -> BaseGeometry:
    """Return where rasters of a setting are needed, in degrees."""
    import geopandas

    if setting == "source.dem":
        grid = target_grid(study, setting)
        box = geopandas.GeoSeries([shapely.box(*grid.boundingbox.bbox)], crs=crs_wkt(grid))
        return reprojected(box, "EPSG:4326", study.grid.resolution).iloc[0]
    return study_area(study).buffer(_BEYOND_OF.get(setting, _BEYOND))


def _from_collection(
    study: Study, setting: str, one: OpenData
) -> tuple[list[Part], list[dict[str, str]]]:
    """Return the files of a collection's items, and the items that are left out."""
    outline = _outline(study, setting)
    shapely.prepare(outline)
    assets = tuple(one.assets) or _ASSETS.get(setting, ())
    if not assets:
        raise OpenDataError(
            f"`{setting}` names the collection {one.collection}, and none of its assets.",
            "name one as `assets`, such as [data]",
        )
    cell = target_grid(study, setting).resolution.x
    parts, left_out, seen = [], [], set()
    for item in _search(study.source.api, one, outline.bounds):
        shape = shapely.geometry.shape(item["geometry"])
        # A composite of the last days of a year is found in the next one, too.
        if item["id"] in seen or not (_in_season(item, one) and outline.intersects(shape)):
            continue
        seen.add(item["id"])
        if reason := _unfit(item, one, assets, setting):
            left_out.append({"setting": setting, "item": item["id"], "reason": reason})
            continue
        covered = shape.intersection(shapely.box(*outline.bounds))
        for asset in assets:
            address = item["assets"][asset]["href"].partition("?")[0]
            folder = f"{setting.partition('.')[2]}/{one.collection}/{item['id']}"
            parts.append(
                Part(
                    setting,
                    item["id"],
                    asset,
                    (address,),
                    f"{folder}/{PurePosixPath(urlsplit(address).path).name}",
                    _day(item),
                    _platform(item),
                    item["properties"].get("eo:cloud_cover"),
                    shapely.to_wkt(shape, rounding_precision=3),
                    _megabytes(item, asset, covered, cell),
                )
            )
    if not parts:
        why = f"; all {len(seen)} are left out: {left_out[0]['reason']}" if left_out else ""
        raise OpenDataError(
            f"The collection {one.collection} of `{setting}` has no item for the study area and "
            f"its dates at {_host(study.source.api)}{why}.",
            "correct the collection's name, years, months, platforms or cloud in the study file",
        )
    return parts, left_out


def _search(api: str, one: OpenData, bounds: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield the items of a collection in bounds and years, as plain dictionaries."""
    check_server(api)  # before imports that take seconds
    import requests
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # Servers of open data refuse requests that come too fast, and say when to come again.
    busy = Retry(
        total=6,
        connect=2,
        backoff_factor=0.5,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,  # a search is a POST
    )
    years = range(one.years[0], one.years[1] + 1) if one.years else [None]
    try:
        client = Client.open(api, stac_io=StacApiIO(max_retries=busy, timeout=(SECONDS, 60)))
        for year in years:
            when = f"{year}-{min(one.months or [1]):02d}/{year}-{max(one.months or [12]):02d}"
            yield from client.search(
                collections=[one.collection],
                bbox=list(bounds),
                datetime=when if year else None,
                limit=_PAGE,
            ).items_as_dicts()
    except (requests.RequestException, APIError, OSError) as error:
        raise OpenDataError(
            f"{_host(api)} did not say what {one.collection} has: {told(error)}.",
            "check the network and `source.api`, and run again: what has arrived stays",
        ) from None


def check_server(address: str, answers: bool = True) -> None:
    """Raise OpenDataError if a server does not answer within `SECONDS`, whatever the answer.

    Without `answers`, it is enough that it takes a connection.
    """
    import requests

    causes: list[str] = []
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]

    def ask() -> None:
        try:
            if answers:
                options: dict[str, Any] = {"stream": True, "allow_redirects": False}
                requests.get(address, timeout=SECONDS / 2, **options).close()
            else:
                socket.create_connection((parts.hostname, port), SECONDS / 2).close()
        except (requests.RequestException, OSError) as error:
            causes.append(type(error).__name__)

    # In a thread, since looking up a name without a network may take as long as it likes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if causes or thread.is_alive():
        raise OpenDataError(
            f"The server {_host(address)} cannot be reached ({''.join(causes) or 'no answer'}).",
            "check the network and the address in the study file, and run again: what has arrived "
            "stays",
        )


def _in_season(item: dict[str, Any], one: OpenData) -> bool:
    """Return whether an item begins in one of the years and months."""
    day = _day(item)
    if not (one.years or one.months):
        return True
    first, last = one.years or (0, 9999)
    within = bool(day) and first <= int(day[:4]) <= last
    return within and (not one.months or int(day[5:7]) in one.months)


def _unfit(item: dict[str, Any], one: OpenData, assets: Sequence[str], setting: str) -> str:
    """Return why an item is left out; empty if it is not."""
    cloud = item["properties"].get("eo:cloud_cover")
    missing = [asset for asset in assets if asset not in item["assets"]]
    names = [item["assets"][a]["href"].partition("?")[0] for a in assets if a not in missing]
    named = _NAMES.get(setting)
    reasons = {
        "the study file leaves it out": item["id"] in one.leave_out,
        f"platform {_platform(item) or 'unknown'}": bool(one.platforms)
        and _platform(item) not in one.platforms,
        f"more than {one.cloud:g} % of clouds": cloud is not None and cloud > one.cloud,
        f"it lacks {listed(missing)}": bool(missing),
        "it is of another product": named is not None
        and any(not named.fullmatch(PurePosixPath(name).name) for name in names),
        "its assets have no web address": any(not name.startswith("http") for name in names),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _day(item: dict[str, Any]) -> str:
    """Return the day of an item, or its first one, as YYYY-MM-DD."""
    properties = item["properties"]
    return (properties.get("datetime") or properties.get("start_datetime") or "")[:10]


def _platform(item: dict[str, Any]) -> str:
    return (item["properties"].get("platform") or _PLATFORMS.get(item["id"][:3], "")).lower()


def _megabytes(
    item: dict[str, Any], asset: str, covered: BaseGeometry, cell: float
) -> float | None:
    """Return about how large an asset's window is, at the overview that cells of the grid need."""
    band = (item["assets"][asset].get("raster:bands") or [{}])[0]
    size = band.get("spatial_resolution") or item["properties"].get("gsd")
    if not size:
        return None
    size *= 2 ** max(0, math.floor(math.log2(cell / size * 1.001)))
    latitude = math.radians(covered.centroid.y)
    area = covered.area * (_KM_PER_DEGREE * 1000) ** 2 * math.cos(latitude)
    return area / size**2 * np.dtype(band.get("data_type", "float32")).itemsize / 1e6


def _from_address(study: Study, setting: str, one: OpenData) -> Iterator[Part]:
    """Yield the files at an address, whose names in braces are filled in."""
    bounds = tuple(round(edge, 4) for edge in _outline(study, setting).bounds)
    variables = tuple(one.assets) or _ASSETS.get(setting, ("",))
    filled = dict(zip(("west", "south", "east", "north"), bounds, strict=True))
    if one.years:
        filled |= dict(zip(("first", "last"), one.years, strict=True))
    folder = setting.partition(".")[2]
    host = _host(one.address)

    def address(**more: str) -> str:
        try:
            return one.address.format(**filled, **more)
        except (KeyError, IndexError, ValueError) as error:
            raise OpenDataError(
                f"The address of `{setting}` has a name in braces that is not known: {error}.",
                "use variable, depth, west, south, east, north, and with `years` first, last",
            ) from None

    if setting in MONTHLY:
        if not one.years or not one.assets:
            raise OpenDataError(
                f"`{setting}` needs `years`, and as `assets` the variables of the service.",
                "write years: [2023, 2024], and assets: [tmax, tmin] or [ppt]",
            )
        addresses = tuple(address(variable=variable) for variable in variables)
        file = f"{folder}/{short_hash(addresses, 6)}/{folder}_monthly.tif"
        yield Part(setting, host, " ".join(variables), addresses, file)
        return
    depths = SOIL_DEPTHS if setting == "source.soil" else [""]
    filled_in = {address(variable=v, depth=d): f"{v} {d}" for v in variables for d in depths}
    for one_address, asset in filled_in.items():
        stem = PurePosixPath(urlsplit(one_address).path).stem
        # Other years, say, may have the same name.
        file = f"{folder}/{short_hash(one_address, 6)}/{stem}.tif"
        yield Part(setting, host, asset.strip() or stem, (one_address,), file)


def _host(address: str) -> str:
    return urlsplit(address).netloc


def told(error: BaseException) -> str:
    """Return what an error says, without queries of addresses: tokens are there.

    Examples
    --------
    >>> told(OSError("no answer from https://a.org/dem.tif?token=secret"))
    'no answer from https://a.org/dem.tif'
    >>> told(TimeoutError())  # it says nothing
    'TimeoutError'
    """
    cause = error.__cause__ or error
    status = getattr(error, "status_code", None)
    return without_query(str(cause)) or f"{type(cause).__name__} {status or ''}".strip()


def without_query(text: str) -> str:
    """Return a message without what stands after a question mark in addresses: tokens are there.

    Examples
    --------
    >>> without_query("403 for https://a.org/dem.tif?token=secret today")
    '403 for https://a.org/dem.tif today'
    """
    return re.sub(r"\?\S*", "", text)


# Tables -------------------------------------------------------------------------------------------


def table_of_plan(study: Study, plan: Plan) -> pd.DataFrame:
    """Return what is to be fetched, a row a setting and one for all.

    Columns: collection or address, licence, items, files, first and last day, mean cloud of the
    items in percent, MB not compressed, which compression about halves, and hours at the study's
    bandwidth. NaN where a server does not say it beforehand.
    """
    rows = {}
    for setting, one in study.open_data.items():
        parts = [part for part in plan.parts if part.setting == setting]
        days = sorted(part.date for part in parts if part.date)
        clouds = {part.item: part.cloud for part in parts if part.cloud is not None}
        sizes = [part.megabytes for part in parts]
        known = math.fsum(size for size in sizes if size is not None)
        rows[setting] = {
            "from": one.collection or _host(one.address),
            "licence": one.licence,
            "items": len({part.item for part in parts}),
            "files": len(parts),
            "first": days[0] if days else "",
            "last": days[-1] if days else "",
            "cloud": np.mean(list(clouds.values())) if clouds else np.nan,
            "MB": np.nan if None in sizes else known,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")
    table["hours"] = table["MB"] * 8 / study.compute.bandwidth / 3600
    sums = table[["items", "files", "MB", "hours"]].sum()
    table.loc["all"] = {"from": "", "licence": "", "first": "", "last": "", **sums}
    return table


def table_of_left_out(plan: Plan) -> pd.DataFrame:
    """Return how many items of each setting are left out for each reason."""
    table = pd.DataFrame(plan.left_out, columns=["setting", "item", "reason"])
    return table.groupby(["setting", "reason"], as_index=False).agg(
        items=("item", "size"), such_as=("item", "first")
    )


def table_of_files(study: Study, plan: Plan) -> pd.DataFrame:
    """Return what has come, a row a setting: files, those beside the grid, and MB on disk."""
    rows = {}
    for setting in study.open_data:
        parts = [part for part in plan.parts if part.setting == setting]
        rows[setting] = {
            "files": sum(bool(part.bytes) for part in parts),
            "beside the grid": sum(part.bytes == 0 for part in parts),
            "MB": sum(part.bytes or 0 for part in parts) / 1e6,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")


def provenance(study: Study, setting: str) -> dict[str, str]:
    """Return the tags of a raster that is made from a setting's open data; none of other rasters.

    Items by their ids, or where they are more than ten by their number and the hash of the sorted
    ids; first and last day; collection or address, and licence.
    """
    if setting not in study.open_data:
        return {}
    one = study.open_data[setting]
    parts = fetched_parts(study, setting)
    items = sorted({f"{part['item']}" for part in parts})
    days = sorted(part["date"] for part in parts if part["date"])
    if one.years and not days:
        days = [f"{year}" for year in one.years]
    many = f"{len(items)} items, SHA-256 of their sorted ids {short_hash(items, 64)}"
    return {
        "open_data": str(one),
        "items": many if len(items) > 10 else ", ".join(items),
        "dates": f"{days[0]} to {days[-1]}" if days else "",
        "licence": one.licence,
    }
