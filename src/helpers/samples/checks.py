"""What must hold of the field tables."""

import difflib

import numpy as np
import pandas as pd
import pyproj

from helpers.core.grid import named_crs, study_area
from helpers.core.ice import ICE_DENSITY
from helpers.core.points import projected, values_at
from helpers.prepare.registry import covariate_files, fine_files
from helpers.samples.columns import COLUMNS, EXAMPLE, ONE_OF, SLACK, WORDS, make_problem, problems_where
from helpers.samples.datum import bd09_to_wgs84, gcj02_to_wgs84
from helpers.samples.units import convert_units, to_numbers

MOST_WATER = 20.0
"""Gravimetric water content, fraction of the dry mass: fresh peat stays below."""


MOST_WATER_IN_MINERAL_SOIL = 3.0
"""Gravimetric water content, fraction of the dry mass: more is in peat only."""


DEEPEST_PIT = 10.0  # m


DRY_DENSITY = (40.0, 2700.0)
"""kg m-3: from loose peat to rock."""


# --- Checks ------------------------------------------------------------------------------------------------


def _check_columns(_study, *tables):
    for table in tables:
        known = {c.name for c in COLUMNS[table.kind]}
        spare = sorted(set(table.header) - known - {""})
        for name in table.missing:
            near = difflib.get_close_matches(name, spare, n=1, cutoff=0.6)
            yield make_problem(table, 1, name, "", "missing column", f"rename the column {near[0]}" if near else None)
        for row, values in table.overlong.items():
            yield make_problem(table, row, table.header[-1], ",".join(values), "overlong row")
        optional = [c.name for c in COLUMNS[table.kind] if c.need == "optional" and c.name not in table.header]
        for name in spare:
            if near := difflib.get_close_matches(name, optional, n=1, cutoff=0.75):
                yield make_problem(
                    table, 1, name, "", "unused column", f"rename it {near[0]}, if that is what it holds"
                )
    intervals = tables[1]
    if not set(ONE_OF) & set(intervals.header):
        spare = sorted(set(intervals.header) - {c.name for c in COLUMNS["intervals"]} - {""})
        near = [n for name in ONE_OF for n in difflib.get_close_matches(name, spare, n=1, cutoff=0.6)]
        remedy = f"rename the column {near[0]}" if near else f"add one of {', '.join(ONE_OF)}"
        yield make_problem(intervals, 1, "ice_content", "", "missing column", remedy)


def _check_schema(_study, *tables):
    """Validate each table against the schema that follows from its columns."""
    from pandera.errors import SchemaErrors

    for table in tables:
        present = [column for column in COLUMNS[table.kind] if column.name in table.header]
        frame = table.frame[[column.name for column in present]]
        # A cell that holds something unreadable is told by what it holds.
        filled = table.text[frame.columns] != ""
        try:
            _schema(present).validate(frame.where((frame != "") | filled, None), lazy=True)
        except SchemaErrors as errors:
            cases = errors.failure_cases.dropna(subset=["index"]).sort_values("index", kind="stable")
            for case in cases.itertuples():
                kind = "missing value" if case.check == "not_nullable" else case.check
                if kind == "missing value" and filled.loc[case.index, case.column]:
                    continue
                remedy = f"write {' or '.join(WORDS[case.column])}" if kind == "unknown word" else None
                typed = table.text.loc[case.index, case.column]
                yield make_problem(table, case.index, case.column, typed, kind, remedy)


def _schema(columns):
    """Return the pandera schema of the columns that a table has; the name of a check is a kind of problem."""
    import pandera.pandas as pa

    share = pa.Check.in_range(0, 1, error="impossible ice content")
    checks = {column.name: [] for column in columns}
    for column in columns:
        if column.kind == "depth":
            checks[column.name] = [pa.Check.ge(0, error="negative depth")]
        elif column.kind == "share":
            checks[column.name] = [share]
        elif column.kind == "word":
            checks[column.name] = [pa.Check.isin(list(WORDS[column.name]), error="unknown word")]
    if "water_content" in checks:
        checks["water_content"] = [pa.Check.in_range(0, MOST_WATER, error="impossible water content")]
    if "dry_density" in checks:
        checks["dry_density"] = [pa.Check.in_range(*DRY_DENSITY, error="impossible dry density")]
    return pa.DataFrameSchema(
        {c.name: pa.Column(None, checks[c.name], nullable=c.need != "value", required=True) for c in columns}
    )


def _check_sites(_study, sites, _intervals):
    ids = sites.frame["site_id"]
    yield from problems_where(sites, ids.str.lower().str.startswith(EXAMPLE), "site_id", "example row")
    yield from problems_where(sites, ids.duplicated() & (ids != ""), "site_id", "duplicated site")


def _check_coordinates(study, sites, _intervals):
    """Bring coordinates to WGS 84, and tell those that lie outside of the study area."""
    typed = sites.frame[["longitude", "latitude"]].dropna()
    swapped = pd.Series(False, index=typed.index)
    both = ("longitude", "latitude"), ("latitude", "longitude")
    placed = [_wgs84(study, *(typed[name].to_numpy() for name in names)) for names in both]
    outside, other = (_far_outside(study, *place) for place in placed)
    swapped[:] = outside & ~other
    sites.frame.loc[typed.index, "longitude"], sites.frame.loc[typed.index, "latitude"] = placed[0]
    for row in typed.index[outside]:
        value = ", ".join(sites.text.loc[row, ["longitude", "latitude"]])
        kind = "swapped coordinates" if swapped[row] else "outside the study area"
        yield make_problem(sites, row, "longitude, latitude", value, kind)


def _wgs84(study, first, second, datum=None):
    """Return WGS 84 longitude and latitude of coordinates in the study's `samples.epsg` and `samples.datum`."""
    if study.samples.epsg != 4326:
        step = pyproj.Transformer.from_crs(f"EPSG:{study.samples.epsg}", "EPSG:4326", always_xy=True)
        first, second = step.transform(first, second)
    convert = {"gcj02": gcj02_to_wgs84, "bd09": bd09_to_wgs84}.get(datum or study.samples.datum)
    if convert is None:
        return first, second
    # The shifts are defined for degrees only; whatever else stands there is told as outside of the area.
    degrees = (np.abs(first) <= 180) & (np.abs(second) <= 90)
    converted = convert(np.where(degrees, first, 120.0), np.where(degrees, second, 45.0))
    return tuple(np.where(degrees, new, old) for new, old in zip(converted, (first, second), strict=True))


def _far_outside(study, longitude, latitude):
    """Return which points lie more than a cell outside of the study area, whose outline is simplified."""
    import shapely

    outside = ~shapely.contains_xy(study_area(study), longitude, latitude)
    if outside.any():
        crs = named_crs(study.grid.crs)
        point = np.clip(projected(longitude[outside], latitude[outside], crs), -1e9, 1e9)
        outside[outside] = shapely.distance(study_area(study, crs), shapely.points(*point)) > study.grid.resolution
    return outside


def _check_elevation(study, sites, _intervals):
    """Compare elevations with the elevation model; a shifted datum shows in a misfit that a conversion lessens."""
    frame = sites.frame.dropna(subset=["longitude", "latitude", "elevation_m"])
    files = covariate_files(study)
    # A finer model tells a shift of half a kilometre better.
    files |= {name: path for name, path in fine_files(study).items() if name == "elevation" and path.is_file()}
    if frame.empty or not files["elevation"].is_file():
        return
    crs, given = named_crs(study.grid.crs), frame["elevation_m"].to_numpy()

    def model(longitude, latitude, name="elevation"):
        return values_at(files[name], *projected(longitude, latitude, crs))

    place = [frame[name].to_numpy() for name in ("longitude", "latitude")]
    misfit = given - model(*place)
    relief = model(*place, "relief_amplitude") if files["relief_amplitude"].is_file() else 0.0
    far = np.abs(misfit) > study.samples.elevation_tolerance + np.nan_to_num(relief)
    yield from problems_where(sites, sites.frame.index.isin(frame.index[far]), "elevation_m", _FAR)
    known = np.isfinite(misfit)
    if study.samples.datum == "wgs84" and known.sum() >= 20:
        usual = np.median(np.abs(misfit[known]))
        for datum in ("gcj02", "bd09"):
            shifted = np.nanmedian(np.abs(given - model(*_wgs84(study, *place, datum)))[known])
            if shifted < 0.7 * usual:
                told = f"median misfit {usual:.0f} m, as {datum} {shifted:.0f} m"
                yield make_problem(sites, 1, "longitude, latitude", told, "another datum")


_FAR = "elevation far from the elevation model"


def _check_permafrost(_study, sites, _intervals):
    frame = sites.frame
    table, base = frame["permafrost_table_m"], frame["permafrost_base_m"]
    yield from problems_where(sites, base <= table, "permafrost_base_m", "inverted permafrost")
    for name in ("permafrost_table_m", "permafrost_base_m"):
        without = frame[name].notna() & frame["permafrost"].isin(("no", "unknown"))
        yield from problems_where(sites, without, name, "depth without permafrost")
    pit = (frame["method"] == "pit") & (frame["depth_reached_m"] > DEEPEST_PIT)
    yield from problems_where(sites, pit, "depth_reached_m", "pit deeper than 10 m")
    yield from problems_where(
        sites, table > frame["depth_reached_m"] + SLACK, "permafrost_table_m", "table below the hole"
    )
    silent = table.isna() & (sites.text["permafrost_table_m"] == "") & (frame["permafrost"] == "yes")
    if "permafrost_table_m" in sites.header:
        yield from problems_where(sites, silent, "permafrost_table_m", "no permafrost table")


def _check_intervals(_study, sites, intervals):
    frame, holes = intervals.frame, sites.frame.drop_duplicates("site_id").set_index("site_id")
    depth = frame["site_id"].map(holes["depth_reached_m"])
    if "site_id" not in sites.missing:
        stray = ~frame["site_id"].isin(holes.index) & (frame["site_id"] != "")
        yield from problems_where(intervals, stray, "site_id", "interval without site")
    yield from problems_where(intervals, frame["bottom_m"] <= frame["top_m"], "bottom_m", "inverted interval")
    yield from problems_where(intervals, _overlapping(frame), "top_m", "overlapping intervals")
    none = (frame["ice_type"] == 0) & (frame["frozen"] == "yes") & frame["ice_content"].isna()
    yield from problems_where(intervals, none, "ice_type", "unknown ice type")
    for name in ("ice_content", "ice_type"):
        yield from problems_where(
            intervals, (frame[name] > 0) & (frame["frozen"] == "no"), name, "ice in unfrozen ground"
        )
    # Ice that would fill more than the ground, even without any unfrozen water: density and water do not go together.
    full = frame["ice_content"].isna() & (frame["dry_density"] * frame["water_content"] > 1.1 * ICE_DENSITY)
    yield from problems_where(intervals, full, "water_content", "too much water for the dry density")
    wet = (frame["water_content"] > MOST_WATER_IN_MINERAL_SOIL) & (frame["water_content"] <= MOST_WATER)
    wet &= (frame["texture"] != "peat") & ~full
    yield from problems_where(intervals, wet, "water_content", "much water for a mineral soil")
    yield from problems_where(intervals, frame["bottom_m"] > depth + SLACK, "bottom_m", "interval below the hole")


def _overlapping(frame):
    """Return which intervals begin above the deepest bottom of those that lie higher at the same site."""
    valid = frame[(frame["bottom_m"] > frame["top_m"]) & (frame["site_id"] != "")]
    valid = valid.sort_values(["site_id", "top_m", "bottom_m"], kind="stable")
    deepest = valid.groupby("site_id")["bottom_m"].cummax().groupby(valid["site_id"]).shift()
    return (valid["top_m"] < deepest - SLACK).reindex(frame.index, fill_value=False)


CHECKS = [
    to_numbers,
    convert_units,
    _check_columns,
    _check_schema,
    _check_sites,
    _check_coordinates,
    _check_elevation,
    _check_permafrost,
    _check_intervals,
]
"""Checks of both tables, in this order: each takes the study, sites and intervals, and yields rows of the problems
table. The first two, and the check of coordinates, also bring the tables' values to the usual units."""
