"""What must hold of the field tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import shapely
from pyproj.enums import TransformDirection

from helpers.core.grid import named_crs, study_area
from helpers.core.ice import ICE_DENSITY
from helpers.core.points import projected, values_at
from helpers.core.study import Study
from helpers.prepare.registry import covariate_files, fine_files
from helpers.samples.columns import COLUMNS, EXAMPLE, ONE_OF, WORDS
from helpers.samples.datum import bd09_to_wgs84, gcj02_to_wgs84
from helpers.samples.derive import derive
from helpers.samples.readers import Problem, RawTable
from helpers.samples.units import convert_units, to_numbers

_LIMITS = {
    "ice_content": (0.0, 1.0, "impossible ice content"),
    "water_content": (0.0, 100.0, "impossible water content"),  # ice with some soil has 30
    "dry_density": (40.0, 2700.0, "impossible dry density"),  # from loose peat to rock
}

_DEEPEST_PIT = 10.0  # m

_DEEPEST = 2000.0  # m; permafrost ends higher up everywhere

_SLACK = 1e-6  # m; depths nearer than this are equal

_LIKE_WGS84 = ("World Geodetic System 1984", "China 2000", "North American Datum 1983", "ETRS")
"""Parts of the names of datums that differ from WGS 84 by a metre or two at most."""

_TO_WGS84 = {"gcj02": gcj02_to_wgs84, "bd09": bd09_to_wgs84}


def _check_columns(_study: Study, sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    for table in (sites, intervals):
        for name in table.missing:
            near = table.unused_like(name, 0.6)
            remedy = f"rename the column {near} to {name}" if near else None
            yield table.problem(name, "missing column", remedy=remedy)
        for row, values in table.overlong.items():
            yield table.problem(table.header[-1], "overlong row", ",".join(values), row)
        for name in table.spare:
            if near := table.column_like(name, 0.75):
                remedy = f"rename it {near}, if that is what it holds"
                yield table.problem(name, "unused column", remedy=remedy)
    if not set(ONE_OF) & set(intervals.header):
        like = {name: intervals.unused_like(name, 0.6) for name in ONE_OF}
        named = [f"rename the column {near} to {name}" for name, near in like.items() if near]
        remedy = next(iter(named), f"add one of {', '.join(ONE_OF)}")
        yield intervals.problem("ice_content", "missing column", remedy=remedy)


def _check_values(_study: Study, sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    for table in (sites, intervals):
        for column in COLUMNS[table.kind]:
            name, values = column.name, table.frame[column.name]
            if name not in table.header:
                continue
            empty = table.text[name] == ""
            if column.need == "value":
                yield from table.problems_where(empty, name, "missing value")
            if column.kind == "depth":
                yield from table.problems_where(values < 0, name, "negative depth")
                yield from table.problems_where(values > _DEEPEST, name, "impossible depth")
            elif column.kind == "word":
                wrong = ~empty & ~values.isin(list(WORDS[name]))
                remedy = f"write {' or '.join(WORDS[name])}"
                yield from table.problems_where(wrong, name, "unknown word", remedy)
            elif name in _LIMITS:
                low, high, kind = _LIMITS[name]
                yield from table.problems_where((values < low) | (values > high), name, kind)


def _check_sites(_study: Study, sites: RawTable, _intervals: RawTable) -> Iterator[Problem]:
    ids = sites.frame["site_id"]
    example = ids.str.lower().str.startswith(EXAMPLE)
    yield from sites.problems_where(example, "site_id", "example row")
    yield from sites.problems_where(ids.duplicated() & (ids != ""), "site_id", "duplicated site")


def _check_coordinates(study: Study, sites: RawTable, _intervals: RawTable) -> Iterator[Problem]:
    """Bring coordinates to WGS 84, and list those that lie outside of the study area."""
    names = ["longitude", "latitude"]
    typed = sites.frame[names].dropna().astype(float)
    first, second = typed["longitude"].to_numpy(), typed["latitude"].to_numpy()
    place = to_wgs84(study, first, second)
    if shift := datum_shift(sites.crs, *place):
        yield sites.problem("longitude, latitude", "datum shift", shift)
    outside = _far_outside(study, *place)
    swapped = outside & ~_far_outside(study, *to_wgs84(study, second, first))
    sites.frame.loc[typed.index, names] = np.column_stack(place)
    for row, is_swapped in zip(typed.index[outside], swapped[outside], strict=True):
        kind = "swapped coordinates" if is_swapped else "outside the study area"
        yield sites.problem("longitude, latitude", kind, ", ".join(sites.text.loc[row, names]), row)


def to_wgs84(study: Study, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of coordinates in `samples.epsg` and `samples.datum`."""
    if study.samples.epsg != 4326:
        crs = f"EPSG:{study.samples.epsg}"
        step = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        first, second = step.transform(first, second)
    if study.samples.datum in _TO_WGS84:
        first, second = _TO_WGS84[study.samples.datum](first, second)
    return first, second


def datum_shift(crs: Any, longitude: np.ndarray, latitude: np.ndarray) -> str:
    """Return how the datum of a CRS is brought to WGS 84 at some places; "" if it is much the same.

    The places are in WGS 84.

    Examples
    --------
    >>> longitude, latitude = np.array([121.5]), np.array([50.8])
    >>> datum_shift("EPSG:4490", longitude, latitude)  # China 2000 is much like WGS 84
    ''
    >>> datum_shift("EPSG:4214", longitude, latitude)
    'Beijing 1954: no shift is known here, and none was made; it may be 100 m'
    """
    crs = pyproj.CRS.from_user_input(crs)
    datum = crs.geodetic_crs.datum.name if crs.geodetic_crs else ""
    known = np.isfinite(longitude) & np.isfinite(latitude)
    if not known.any() or any(name in datum for name in _LIKE_WGS84):
        return ""
    step = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    place = np.median(longitude[known]), np.median(latitude[known])
    step.transform(*place, direction=TransformDirection.INVERSE)
    try:
        used = step.get_last_used_operation()
    except pyproj.exceptions.ProjError:  # where there is but one operation
        used = step
    if "Ballpark" in used.description:
        return f"{datum}: no shift is known here, and none was made; it may be 100 m"
    return f"{datum}: {used.description}, within {used.accuracy:g} m"


def _far_outside(study: Study, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return which points lie more than a cell outside of the study area's simplified outline."""
    outside = ~shapely.contains_xy(study_area(study), longitude, latitude)
    if outside.any():
        crs = named_crs(study.grid.crs)
        place = np.clip(projected(longitude[outside], latitude[outside], crs), -1e9, 1e9)
        distance = shapely.distance(study_area(study, crs), shapely.points(*place))
        outside[outside] = distance > study.grid.resolution
    return outside


def _check_elevation(study: Study, sites: RawTable, _intervals: RawTable) -> Iterator[Problem]:
    """Compare elevations with the elevation model.

    A shifted datum shows in a misfit that its conversion lessens, best on the fine grid.
    """
    frame = sites.frame.dropna(subset=["longitude", "latitude", "elevation_m"])
    files = covariate_files(study)
    models = [files.get("elevation"), fine_files(study).get("elevation")]
    models = [path for path in models if path is not None and path.is_file()]
    if frame.empty or not models:
        return
    model = models[-1]  # the fine one
    crs = named_crs(study.grid.crs)
    place = [frame[name].to_numpy(float) for name in ("longitude", "latitude")]
    elevation = frame["elevation_m"].to_numpy(float)
    misfit = np.abs(elevation - values_at(model, *projected(*place, crs)))
    tolerance = study.samples.elevation_tolerance
    if "relief_amplitude" in files and files["relief_amplitude"].is_file():
        relief = values_at(files["relief_amplitude"], *projected(*place, crs))
        tolerance = tolerance + np.nan_to_num(relief)
    far = sites.frame.index.isin(frame.index[misfit > tolerance])
    kind = "elevation far from the elevation model"
    yield from sites.problems_where(far, "elevation_m", kind)
    inside = np.isfinite(misfit)
    if study.samples.datum != "wgs84" or inside.sum() < 20:
        return
    usual = np.median(misfit[inside])
    for datum, convert in _TO_WGS84.items():
        other = np.abs(elevation - values_at(model, *projected(*convert(*place), crs)))
        shifted = np.nanmedian(other[inside])
        if shifted < 0.7 * usual:
            value = f"median misfit {usual:.0f} m, as {datum} {shifted:.0f} m"
            yield sites.problem("longitude, latitude", "another datum", value)


def _check_permafrost(_study: Study, sites: RawTable, _intervals: RawTable) -> Iterator[Problem]:
    frame = sites.frame
    table, base = frame["permafrost_table_m"], frame["permafrost_base_m"]
    yield from sites.problems_where(base <= table, "permafrost_base_m", "inverted permafrost")
    for name in ("permafrost_table_m", "permafrost_base_m"):
        without = frame[name].notna() & frame["permafrost"].isin(("no", "unknown"))
        yield from sites.problems_where(without, name, "depth without permafrost")
    deep_pit = (frame["method"] == "pit") & (frame["depth_reached_m"] > _DEEPEST_PIT)
    yield from sites.problems_where(deep_pit, "depth_reached_m", "pit deeper than 10 m")
    below = table > frame["depth_reached_m"] + _SLACK
    yield from sites.problems_where(below, "permafrost_table_m", "table below the hole")
    if "permafrost_table_m" in sites.header:
        empty = sites.text["permafrost_table_m"] == ""
        without = empty & table.isna() & (frame["permafrost"] == "yes")
        yield from sites.problems_where(without, "permafrost_table_m", "no permafrost table")


def _check_intervals(study: Study, sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    frame, by_id = intervals.frame, sites.frame.drop_duplicates("site_id").set_index("site_id")
    if "site_id" not in sites.missing:
        stray = ~frame["site_id"].isin(by_id.index) & (frame["site_id"] != "")
        yield from intervals.problems_where(stray, "site_id", "interval without site")
    inverted = frame["bottom_m"] <= frame["top_m"]
    yield from intervals.problems_where(inverted, "bottom_m", "inverted interval")
    name = "depth_m" if frame["depth_m"].notna().any() else "top_m"
    yield from intervals.problems_where(_overlapping(frame), name, "overlapping intervals")
    frozen = frame["frozen"] == "yes"
    known = (
        frame["dry_density"].notna() | frame["ice_content"].notna() | (frame["texture"] == "peat")
    )
    dry = frozen & frame["water_content"].notna() & ~known
    if 2 * dry.sum() > frozen.sum():
        number = f"{dry.sum()} of {frozen.sum()} frozen samples"
        yield intervals.problem("dry_density", "no dry density", number)
    from_water = frozen & frame["water_content"].notna() & frame["ice_content"].isna()
    without = from_water & frame["temperature_c"].isna()
    if without.any():
        taken = ", ".join(f"{one:g}" for one in study.ice.layer_temperatures)
        number = f"{without.sum()} of {from_water.sum()} samples, at {taken} degC"
        yield intervals.problem("temperature_c", "no temperature", number)
    warm = frozen & (frame["temperature_c"] > 0)
    yield from intervals.problems_where(warm, "temperature_c", "frozen above 0 degC")
    no_ice = (frame["ice_type"] == 0) & (frame["frozen"] == "yes") & frame["ice_content"].isna()
    yield from intervals.problems_where(no_ice, "ice_type", "unknown ice type")
    for name in ("ice_content", "ice_type"):
        icy = (frame[name] > 0) & (frame["frozen"] == "no")
        yield from intervals.problems_where(icy, name, "ice in unfrozen ground")
    # Ice that would fill more than the ground even without any unfrozen water.
    fills = frame["dry_density"] * frame["water_content"]
    full = frame["ice_content"].isna() & (fills > 1.1 * ICE_DENSITY)
    yield from intervals.problems_where(full, "water_content", "too much water for the dry density")
    below = frame["bottom_m"] > frame["site_id"].map(by_id["depth_reached_m"]) + _SLACK
    yield from intervals.problems_where(below, "bottom_m", "interval below the hole")


def _overlapping(frame: pd.DataFrame) -> pd.Series:
    """Return which intervals begin above the deepest bottom of those higher up at their site."""
    valid = frame[(frame["bottom_m"] > frame["top_m"]) & (frame["site_id"] != "")]
    valid = valid.sort_values(["site_id", "top_m", "bottom_m"], kind="stable")
    deepest = valid.groupby("site_id")["bottom_m"].cummax().groupby(valid["site_id"]).shift()
    return (valid["top_m"] < deepest - _SLACK).reindex(frame.index, fill_value=False)


CHECKS = [
    to_numbers,
    convert_units,
    derive,
    _check_columns,
    _check_values,
    _check_sites,
    _check_coordinates,
    _check_elevation,
    _check_permafrost,
    _check_intervals,
]
"""Checks of both tables, in this order: each takes the study, sites and intervals, and yields rows
of the problems table. The first three and the check of coordinates also change the values."""
