"""Fetching open data: windows of rasters, by range requests; again after errors; never twice.

What is fetched is the window that the grid needs, from the overview whose cells are fine enough,
as it is stored. GDAL reads it through HTTP; this module adds what servers of open data ask for:
tokens that end, requests that are refused when they come too fast, connections that break.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from helpers.core.errors import listed
from helpers.core.files import file_hash, write_aside
from helpers.core.parallel import show_progress
from helpers.core.study import Study
from helpers.core.user_rasters import MOST_CELLS, overview_for, window_of
from helpers.prepare.open_data import (
    MONTHLY,
    SECONDS,
    OpenDataError,
    Part,
    Plan,
    arrived,
    check_server,
    target_grid,
    told,
    without_query,
    write_list,
)

WAITS = (1, 2, 4, 8)
"""Seconds before each further try."""

_AT_ONCE = 8  # files; most of the time is waiting
_MOST_FAILURES = 20  # in a row: the server is gone
_BEFORE_END = timedelta(minutes=2)  # a token is renewed so long before it ends
_STEP = 512  # rows of blocks of most files

_GDAL: dict[str, Any] = {
    # A file that was refused once must not count as missing.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_CONNECTTIMEOUT": SECONDS,
    "GDAL_HTTP_TIMEOUT": 120,
    "GDAL_HTTP_MAX_RETRY": 0,  # tries again, with a new token, are ours
}


class _Refused(OpenDataError):
    """A file that the server does not give, however often it is asked."""


class Tokens:
    """Tokens of collections, renewed before they end; they leave this object in addresses alone."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._tokens: dict[str, tuple[str, datetime]] = {}
        self._lock = threading.Lock()

    def signed(self, address: str, collection: str) -> str:
        """Return an address with the token of its collection; as it is, if none is needed."""
        if not (self._service and collection):
            return address
        with self._lock:  # or all threads would ask at once
            token, end = self._tokens.get(collection, ("", datetime.min.replace(tzinfo=UTC)))
            if datetime.now(UTC) + _BEFORE_END > end:
                token, end = self._ask(collection)
                self._tokens[collection] = token, end
        return f"{address}?{token}"

    def forget(self, collection: str, address: str) -> None:
        """Drop the token in an address that a server did not take, if no newer one is there."""
        with self._lock:
            if self._tokens.get(collection, ("", None))[0] == address.partition("?")[2]:
                self._tokens.pop(collection, None)

    def _ask(self, collection: str) -> tuple[str, datetime]:
        import requests

        answer = requests.get(f"{self._service}/{collection}", timeout=SECONDS)
        answer.raise_for_status()
        record = answer.json()
        end = datetime.fromisoformat(record["msft:expiry"])
        return record["token"], end if end.tzinfo else end.replace(tzinfo=UTC)


def fetch(study: Study, plan: Plan, waits: Sequence[float] = WAITS) -> Plan:
    """Fetch all files of a plan that are not there yet; return it with sizes and checksums.

    Interrupt it as you like: a file is whole or not there. OpenDataError names files that could not
    be fetched, after all others have been.
    """
    plan = arrived(study, plan)
    todo = [part for part in plan.parts if part.bytes is None]
    done = {part.file: part for part in plan.parts if part.bytes is not None}
    tokens, failures, size = Tokens(study.source.sign), {}, 0.0
    gone = _not_there(study, todo, tokens, waits)
    in_row: dict[str, int] = {}

    def work(part: Part) -> Part:
        for needed in (_root(part), study.open_data[part.setting].collection):
            if needed in gone:
                raise OpenDataError(gone[needed], "run again")
        return _fetch_part(study, part, tokens, waits)

    with _pool() as pool:
        jobs = {pool.submit(work, part): part for part in todo}
        steps = show_progress(as_completed(jobs), len(jobs), "0.0 MB")
        for job in steps:
            part, root = jobs[job], _root(jobs[job])
            try:
                done[part.file] = job.result()
                in_row[root] = 0
                size += done[part.file].bytes / 1e6
                steps.set_description_str(f"{size:,.1f} MB", refresh=False)
            except OpenDataError as error:
                failures[part] = error.message
                in_row[root] = in_row.get(root, 0) + 1
                if in_row[root] >= _MOST_FAILURES:
                    gone.setdefault(root, f"{_MOST_FAILURES} files in a row failed before it.")
    if failures:
        raise _failed(failures, len(plan.parts))
    plan = replace(plan, parts=tuple(_hashed(study, done[part.file]) for part in plan.parts))
    write_list(study, plan)
    return plan


def _not_there(
    study: Study, parts: Sequence[Part], tokens: Tokens, waits: Sequence[float]
) -> dict[str, str]:
    """Return the servers of files, and the collections, that do not answer or give no token."""
    gone = {}
    for root in {_root(part) for part in parts}:
        try:
            check_server(root, answers=False)
        except OpenDataError as error:
            gone[root] = error.message
    for collection in {study.open_data[part.setting].collection for part in parts}:
        try:
            _again(lambda collection=collection: tokens.signed("", collection), waits)
        except OpenDataError as error:
            gone[collection] = f"There is no token for {collection}: {error.message}"
    return gone


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads that end with the block, without what has not begun."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _hashed(study: Study, part: Part) -> Part:
    return replace(part, sha256=file_hash(study.raw_dir / part.file)) if part.bytes else part


def _failed(failures: dict[Part, str], number: int) -> OpenDataError:
    items = listed(dict.fromkeys(part.item for part in failures), 3)
    first, reason = next(iter(failures.items()))
    return OpenDataError(
        f"{len(failures)} of {number} files of open data could not be fetched, of the items "
        f"{items}; the first one, {Path(first.file).name} of `{first.setting}`: {reason}",
        "run again: what has arrived stays. If an item stays broken, name it in `leave_out`",
    )


def _root(part: Part) -> str:
    return "/".join(part.addresses[0].split("/")[:3])


def _fetch_part(study: Study, part: Part, tokens: Tokens, waits: Sequence[float]) -> Part:
    """Fetch a file, with further tries after waits; OpenDataError says why it cannot be."""
    path = study.raw_dir / part.file
    collection = study.open_data[part.setting].collection
    address = ""

    def once() -> None:
        nonlocal address
        if part.setting in MONTHLY:
            _fetch_months(study, part, path)
        else:
            address = tokens.signed(part.addresses[0], collection)
            _fetch_window(study, part, address, path)

    def failed(reason: str) -> None:
        if re.search(r"\b(401|403)\b", reason):
            tokens.forget(collection, address)

    _again(once, waits, failed)
    return replace(part, bytes=path.stat().st_size if path.is_file() else 0)


def _again(
    work: Callable[[], object],
    waits: Sequence[float],
    failed: Callable[[str], None] = lambda reason: None,
) -> None:
    """Do something, and again after waits where a server refuses or breaks off.

    `failed` is told the reason each time. OpenDataError with the last one.
    """
    import requests

    reason = ""
    for wait in (0, *waits):
        time.sleep(wait)
        try:
            work()
            return
        except _Refused:
            raise
        except (RasterioError, requests.RequestException, OSError) as error:
            reason = told(error)
            failed(reason)
            if re.search(r"\b(404|410)\b", reason):
                break
        except Exception as error:  # an answer of another kind; other files go on
            raise OpenDataError(f"{type(error).__name__}: {told(error)}.", "run again") from None
    raise OpenDataError(f"{reason}.", "run again")


@contextmanager
def _open(address: str, geobox: GeoBox) -> Iterator[DatasetReader]:
    """Give an open raster at a web address, by the overview that a grid needs."""
    # Overviews of a virtual raster lie beside it.
    beside = "TRUE" if ".vrt" in address else "EMPTY_DIR"
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=beside, **_GDAL):
        with rasterio.open(f"/vsicurl/{address}") as source:
            if source.crs is None or source.transform.is_identity:
                raise OSError("it does not say where it lies; it may be cut off")
            level = overview_for(source, geobox)
            if level is None:
                yield source
                return
        with rasterio.open(f"/vsicurl/{address}", overview_level=level) as source:
            yield source


def _fetch_window(study: Study, part: Part, address: str, path: Path) -> None:
    """Write the window of a raster that the grid needs; nothing if it has none."""
    geobox = target_grid(study, part.setting)
    with _open(address, geobox) as source:
        window = window_of(source, geobox)
        if window is None:
            return
        options: dict[str, Any] = {
            "driver": "GTiff",
            "count": source.count,
            "height": window.height,
            "width": window.width,
            "dtype": source.dtypes[0],
            "crs": source.crs,
            "transform": source.window_transform(window),
            "nodata": source.nodata,
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "compress": "deflate",
            "predictor": 3 if source.dtypes[0].startswith("float") else 2,
        }
        # In steps, so that memory does not grow with the raster.
        rows = max(_STEP, MOST_CELLS // max(1, window.width) // _STEP * _STEP)
        masked = any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)
        inside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
        with write_aside(path) as whole, inside, _whole(whole, options) as target:
            target.scales, target.offsets = source.scales, source.offsets
            target.units = [unit or "" for unit in source.units]
            target.update_tags(
                item=part.item,
                asset=part.asset,
                address=without_query(part.addresses[0]),
                date=part.date,
                licence=study.open_data[part.setting].licence,
            )
            for top in range(0, window.height, rows):
                height = min(rows, window.height - top)
                there = Window(window.col_off, window.row_off + top, window.width, height)
                here = Window(0, top, window.width, height)
                target.write(source.read(window=there), window=here)
                if masked:
                    target.write_mask(source.dataset_mask(window=there), window=here)


@contextmanager
def _whole(path: Path, options: dict[str, Any]) -> Iterator[DatasetWriter]:
    """Give a new raster that is read once when it is written: a full disk may cut off its end."""
    with rasterio.open(path, "w", **options) as target:
        yield target
    with rasterio.open(path) as written:
        for _, window in written.block_windows(1):
            written.read(1, window=window)


def _fetch_months(study: Study, part: Part, path: Path) -> None:
    """Write means of the months of all years, from what a service cuts out as NetCDF.

    Several variables, such as the mean daily maximum and minimum, are averaged.
    """
    import requests
    import xarray

    first, last = study.open_data[part.setting].years or (0, 0)
    years, means = last - first + 1, []
    for variable, address in zip(part.asset.split(), part.addresses, strict=True):
        with write_aside(path.with_name(f"{variable}.nc")) as whole:
            with requests.get(address, stream=True, timeout=(SECONDS, 300)) as answer:
                if 400 <= answer.status_code < 500 and answer.status_code != 429:
                    raise _Refused(f"{answer.status_code} {answer.reason}.", "correct the address")
                answer.raise_for_status()
                with open(whole, "wb") as stream:
                    for chunk in answer.iter_content(2**20):
                        stream.write(chunk)
            with xarray.open_dataset(whole, engine="netcdf4") as data:
                if variable not in data:
                    raise _Refused(f"the answer has no variable {variable}.", "correct `assets`")
                if data.sizes["time"] != 12 * years:
                    has = f"the answer has {data.sizes['time']} months, not those of {years} years"
                    raise _Refused(f"{has}.", "name years as `years` that it has whole")
                names = {"latitude": "lat", "longitude": "lon"}
                data = data.rename({old: new for old, new in names.items() if old in data.dims})
                means.append(data[variable].groupby("time.month").mean("time").load())
        path.with_name(f"{variable}.nc").unlink()
    mean = sum(means) / len(means)
    north_up = mean.sortby("lat", ascending=False).sortby("lon").transpose("month", "lat", "lon")
    lon, lat = north_up["lon"].to_numpy(), north_up["lat"].to_numpy()
    steps = (lon[-1] - lon[0]) / (len(lon) - 1), (lat[0] - lat[-1]) / (len(lat) - 1)
    place = rasterio.transform.from_origin(lon[0] - steps[0] / 2, lat[0] + steps[1] / 2, *steps)
    options = {"driver": "GTiff", "count": 12, "height": len(lat), "width": len(lon)}
    options |= {"dtype": "float32", "crs": "EPSG:4326", "transform": place, "nodata": np.nan}
    options["compress"] = "deflate"
    with write_aside(path) as whole, _whole(whole, options) as out:
        out.write(north_up.to_numpy().astype(np.float32))
        out.update_tags(address=without_query(part.addresses[0]), variables=part.asset)
