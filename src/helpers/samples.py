"""Boreholes and test pits: from two field tables to labelled samples with covariates, and their split.

The tables are *sites* (one row a hole) and *intervals* (one row a piece of core); `data/samples/README.md`
describes their columns. Depths are metres below the surface. A row's number is the one that a spreadsheet
shows: the header is row 1.
"""

import csv
import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.digest import write_text
from helpers.errors import CompendiumError
from helpers.grid import THREADS, named_crs, study_area
from helpers.ice import ice_type, layer_mean, layer_name, permafrost_part
from helpers.study import StudyError

WORDS = {
    "permafrost": ("yes", "no", "unknown"),
    "frozen": ("yes", "no"),
    "method": ("borehole", "pit"),
}
"""Columns in which only these words may stand."""

COLUMNS = {
    "sites": {
        "required": ("site_id", "longitude", "latitude", "depth_reached_m", "permafrost"),
        "may_be_empty": ("permafrost_table_m", "permafrost_base_m"),
        "optional": ("date", "method", "elevation_m", "source"),
    },
    "intervals": {
        "required": ("site_id", "top_m", "bottom_m", "frozen"),
        "may_be_empty": ("ice_content",),
        "optional": ("texture",),
    },
}
"""Columns of both tables: with a value in every row, empty where nothing is known, or wholly absent."""

# fmt: off
KINDS = {
    "missing column": ("error", "the column is missing", "add the column"),
    "overlong row": ("error", "the row has more values than the header has columns",
        "write decimals with a point, and text that holds a comma in quotes"),
    "missing value": ("error", "there is no value", "fill it in"),
    "not a number": ("error", "this is not a number",
        "write a plain number with a decimal point, without unit"),
    "unknown word": ("error", "this word is not known", "write one of the words"),
    "duplicated site": ("error", "an earlier row has the same site_id",
        "give every hole a site_id of its own, or delete the repeated row"),
    "outside the study area": ("error", "the site lies outside the study area",
        "give longitude and latitude in WGS 84 degrees, or leave the site out"),
    "negative depth": ("error", "the depth is negative",
        "write metres below the surface as positive numbers"),
    "inverted permafrost": ("error", "the base does not lie below the table",
        "correct one of the two depths"),
    "depth without permafrost": ("error", "a depth of permafrost is given where there is none",
        "write permafrost yes, or leave the depth empty"),
    "interval without site": ("error", "there is no such site",
        "add the site to the table of sites, or correct the site_id"),
    "inverted interval": ("error", "the bottom does not lie below the top", "correct one of the two depths"),
    "overlapping intervals": ("error", "the interval overlaps another one of its site",
        "correct the depths, or delete one of the two"),
    "impossible ice content": ("error", "the ice content lies outside 0-1",
        "write m3 of ice per m3 of ground, not percent"),
    "ice in unfrozen ground": ("error", "ice is given where the ground is not frozen",
        "write frozen yes, or 0"),
    "example row": ("drop", "this is an example of the template", "delete the row"),
    "no permafrost table": ("warn", "without this depth the site gives no label", "give the depth"),
    "interval below the hole": ("warn", "the interval ends below the hole", "correct one of the two depths"),
    "unreadable date": ("warn", "this is not a date", "write year-month-day, such as 2023-08-14"),
}
# fmt: on
"""Kinds of problems: severity, what is wrong, what to do. ``error`` refuses the tables, ``drop`` leaves out
the row, ``warn`` only tells."""

SAMPLE_COLUMNS = (
    "site_id", "layer", "longitude", "latitude", "easting", "northing", "ice_type", "ice_content",
    "permafrost_share", "ice_fraction", "sampled_share", "reason", "in_domain", "split",
)  # fmt: skip
"""Columns of the sample table before its predictors."""

SAME_PLACE = 10.0
"""Two sites nearer to each other than this, in metres, are taken for one hole that was entered twice."""

NOT_REACHED = "the hole does not reach through the layer"
TOO_LITTLE = "too little of the layer's permafrost was sampled"
UNKNOWN_STATE = "not known whether there is permafrost in the layer"
UNKNOWN_TABLE = "depth of the permafrost table unknown"
DUPLICATE = "another site in the same place"

_EXAMPLE = "example-"
_EMPTY = ("", "na", "n/a", "nan", "null", "-", "--")
_NUMBERS = {
    "longitude", "latitude", "elevation_m", "depth_reached_m", "permafrost_table_m", "permafrost_base_m",
    "top_m", "bottom_m", "ice_content",
}  # fmt: skip
_PROBLEM_COLUMNS = ["file", "row", "column", "value", "kind", "problem", "remedy", "severity"]
_SLACK = 1e-6  # m; depths nearer than this are equal
_MAD_TO_SD = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


class SampleError(CompendiumError):
    """Sample tables that cannot be used; `problems` has a row for each problem that was found in them."""

    problems = None


# --- Reading and checking ----------------------------------------------------------------------------------


def table_paths(study):
    """Return the paths of the sites table and of the intervals table.

    Parameters
    ----------
    study : helpers.study.Study
        Where `samples.sites` or `samples.intervals` is empty, the table that a virtual study draws for a run.

    Returns
    -------
    tuple of pathlib.Path

    Raises
    ------
    SampleError
        The study is not virtual and names no table.
    """
    drawn = study.results_dir / "samples"
    given = {"sites": study.samples.sites, "intervals": study.samples.intervals}
    if lacking := [f"samples.{name}" for name, path in given.items() if not path and not study.simulated]:
        raise SampleError(
            f"The study file names no table of boreholes: {' and '.join(lacking)} are empty.",
            "name your two tables there; data/samples/ has a template of each",
        )
    return tuple(study.path(path) if path else drawn / f"{name}.csv" for name, path in given.items())


def read_tables(study, severity=None):
    """Read and check both tables.

    Parameters
    ----------
    study : helpers.study.Study
    severity : dict of str to str, optional
        Kinds of problems to treat otherwise than in `KINDS`: ``error``, ``drop`` or ``warn``.

    Returns
    -------
    sites : pandas.DataFrame
        One row a hole, with all columns of `COLUMNS`; numbers as float, NaN where empty.
    intervals : pandas.DataFrame
        One row a piece of core.
    problems : pandas.DataFrame
        What was dropped and what looks odd: file, row, column, value, kind, problem, remedy, severity.

    Raises
    ------
    SampleError
        A table is missing or not readable, or rows have problems of severity ``error``; one error names them
        all, and has them as a table in `problems`.
    """
    paths = table_paths(study)
    same = paths[0].name == paths[1].name
    shown = [f"{path.parent.name}/{path.name}" if same else path.name for path in paths]
    sites, intervals = (_read_table(*args) for args in zip(paths, shown, COLUMNS, strict=True))
    found = [problem for check in CHECKS for problem in check(study, sites, intervals)]
    problems = pd.DataFrame(found, columns=_PROBLEM_COLUMNS)
    problems["severity"] = problems["kind"].map({k: v[0] for k, v in KINDS.items()} | (severity or {}))
    problems = problems.sort_values(["file", "row"], ascending=[False, True], kind="stable", ignore_index=True)
    _refuse(problems[problems["severity"] == "error"])
    kept = []
    for table in (sites, intervals):
        dropped = problems.loc[(problems["severity"] == "drop") & (problems["file"] == table.file), "row"]
        kept.append(table.frame.drop(index=dropped))
    kept[1] = kept[1][kept[1]["site_id"].isin(kept[0]["site_id"])]
    if kept[0].empty:
        raise SampleError(
            f"{sites.file} has no usable site.", "fill in one row a borehole or pit, as the template shows"
        )
    return *(frame.reset_index(drop=True) for frame in kept), problems


@dataclass
class _Table:
    """A table as it was typed (`text`) and as it was understood (`frame`), indexed by the row in the file."""

    kind: str
    file: str
    text: pd.DataFrame
    frame: pd.DataFrame
    header: list
    missing: list
    overlong: dict


def _read_table(path, file, kind):
    remedy = "save the table as CSV with UTF-8 encoding; data/samples/ has templates"
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            records = list(csv.reader(stream))
    except FileNotFoundError:
        remedy = f"correct samples.{kind} in the study file, or run the notebook that writes the table"
        raise SampleError(f"The table of {kind}, {file}, does not exist.", remedy) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SampleError(f"{file} is not a CSV file in UTF-8: {error}", remedy) from None
    if not records:
        raise SampleError(f"{file} is empty.", remedy)
    header = [name.strip().lower() for name in records[0]]
    lines = {
        row: [v.strip() for v in line] for row, line in enumerate(records[1:], start=2) if any(map(str.strip, line))
    }
    overlong = {row: line[len(header) :] for row, line in lines.items() if any(line[len(header) :])}
    lines = {row: dict(zip(header, line, strict=False)) for row, line in lines.items()}
    wanted = [name for names in COLUMNS[kind].values() for name in names]
    text = pd.DataFrame.from_dict(lines, orient="index", dtype=object)
    text = (
        text.reindex(columns=list(dict.fromkeys([*wanted, *filter(None, header)])))
        .astype(object)
        .fillna("")
        .astype(str)
    )
    missing = [name for names in ("required", "may_be_empty") for name in COLUMNS[kind][names] if name not in header]
    return _Table(kind, file, text, _typed(text), header, missing, overlong)


def _typed(text):
    frame = text.copy()
    for name in frame.columns:
        if name != "site_id":
            frame[name] = frame[name].mask(frame[name].str.lower().isin(_EMPTY), "")
        if name in _NUMBERS:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
            frame[name] = frame[name].where(np.isfinite(frame[name]))
        elif name in WORDS:
            frame[name] = frame[name].str.lower()
    return frame


def _refuse(errors):
    if errors.empty:
        return
    parts, remedies = [], {}
    for (file, column, problem, remedy), rows in errors.groupby(["file", "column", "problem", "remedy"], sort=False):
        given = ", ".join([f"'{value}'" for value in dict.fromkeys(rows["value"]) if value][:3])
        where = f"row{'s' if len(rows) > 1 else ''} {_listed(rows['row'])}"
        parts.append(f"{file}, column {column}, {where}: {problem}" + (f" ({given})" if given else ""))
        remedies.setdefault(remedy, []).append(column)
    message = f"{len(errors)} problem{'s' if len(errors) > 1 else ''} in the sample tables: {'; '.join(parts)}"
    each = [f"{', '.join(dict.fromkeys(names))}: {remedy}" for remedy, names in remedies.items()]
    error = SampleError(message, "; ".join(each))
    error.problems = errors.reset_index(drop=True)
    raise error


def _listed(items, most=10):
    text = ", ".join(map(str, list(items)[:most]))
    return text + (f" and {len(items) - most} more" if len(items) > most else "")


def _problem(table, row, column, value, kind, remedy=None):
    _, problem, usual = KINDS[kind]
    values = (table.file, int(row), column, str(value), kind, problem, remedy or usual, "")
    return dict(zip(_PROBLEM_COLUMNS, values, strict=True))


def _found(table, where, column, kind, remedy=None):
    """Return a problem for each row of a table where a condition holds."""
    rows = table.frame.index[np.asarray(where, bool)]
    return [_problem(table, row, column, table.text.loc[row, column], kind, remedy) for row in rows]


def _check_columns(_study, *tables):
    for table in tables:
        known = {name for names in COLUMNS[table.kind].values() for name in names}
        for name in table.missing:
            near = difflib.get_close_matches(name, sorted(set(table.text.columns) - known), n=1, cutoff=0.6)
            yield _problem(table, 1, name, "", "missing column", f"rename the column {near[0]}" if near else None)
        for row, values in table.overlong.items():
            yield _problem(table, row, table.header[-1], ",".join(values), "overlong row")


def _check_values(_study, *tables):
    for table in tables:
        empty = table.text.apply(lambda column: column.str.lower().isin(_EMPTY))
        for name in table.frame.columns:
            if name in COLUMNS[table.kind]["required"] and name not in table.missing:
                yield from _found(table, empty[name], name, "missing value")
            if name in _NUMBERS:
                yield from _found(table, ~empty[name] & table.frame[name].isna(), name, "not a number")
            if name in WORDS:
                wrong = ~table.frame[name].isin(("", *WORDS[name]))
                yield from _found(table, wrong, name, "unknown word", f"write {' or '.join(WORDS[name])}")


def _check_sites(_study, sites, _intervals):
    ids, dates = sites.frame["site_id"], sites.frame["date"]
    yield from _found(sites, ids.str.lower().str.startswith(_EXAMPLE), "site_id", "example row")
    yield from _found(sites, ids.duplicated() & (ids != ""), "site_id", "duplicated site")
    unreadable = pd.to_datetime(dates, format="ISO8601", errors="coerce").isna()
    yield from _found(sites, unreadable & (dates != ""), "date", "unreadable date")


def _check_coordinates(study, sites, _intervals):
    import shapely

    place = sites.frame[["longitude", "latitude"]].dropna()
    outside = place[~shapely.contains_xy(study_area(study), place["longitude"], place["latitude"])]
    # The outline is simplified: a site within a cell of it is not refused, though it may find no covariates.
    crs = named_crs(study.grid.crs)
    projected = np.clip(_projected(outside["longitude"], outside["latitude"], crs), -1e9, 1e9)
    far = shapely.distance(study_area(study, crs), shapely.points(*projected)) > study.grid.resolution
    for row in outside.index[far]:
        value = ", ".join(sites.text.loc[row, ["longitude", "latitude"]])
        yield _problem(sites, row, "longitude, latitude", value, "outside the study area")


def _check_permafrost(_study, sites, _intervals):
    frame = sites.frame
    table, base = frame["permafrost_table_m"], frame["permafrost_base_m"]
    for name in ("depth_reached_m", "permafrost_table_m", "permafrost_base_m"):
        yield from _found(sites, frame[name] < 0, name, "negative depth")
    yield from _found(sites, base <= table, "permafrost_base_m", "inverted permafrost")
    for name in ("permafrost_table_m", "permafrost_base_m"):
        without = frame[name].notna() & frame["permafrost"].isin(("no", "unknown"))
        yield from _found(sites, without, name, "depth without permafrost")
    silent = table.isna() & (frame["permafrost"] == "yes")
    yield from _found(sites, silent, "permafrost_table_m", "no permafrost table")


def _check_intervals(_study, sites, intervals):
    frame, holes = intervals.frame, sites.frame.drop_duplicates("site_id").set_index("site_id")
    content, depth = frame["ice_content"], frame["site_id"].map(holes["depth_reached_m"])
    if "site_id" not in sites.missing:
        stray = ~frame["site_id"].isin(holes.index) & (frame["site_id"] != "")
        yield from _found(intervals, stray, "site_id", "interval without site")
    for name in ("top_m", "bottom_m"):
        yield from _found(intervals, frame[name] < 0, name, "negative depth")
    yield from _found(intervals, frame["bottom_m"] <= frame["top_m"], "bottom_m", "inverted interval")
    yield from _found(intervals, _overlapping(frame), "top_m", "overlapping intervals")
    yield from _found(intervals, (content < 0) | (content > 1), "ice_content", "impossible ice content")
    thawed = (content > 0) & (frame["frozen"] == "no")
    yield from _found(intervals, thawed, "ice_content", "ice in unfrozen ground")
    yield from _found(intervals, frame["bottom_m"] > depth + _SLACK, "bottom_m", "interval below the hole")


def _overlapping(frame):
    """Return which intervals begin above the deepest bottom of those that lie higher at the same site."""
    valid = frame[(frame["bottom_m"] > frame["top_m"]) & (frame["site_id"] != "")]
    valid = valid.sort_values(["site_id", "top_m", "bottom_m"], kind="stable")
    deepest = valid.groupby("site_id")["bottom_m"].cummax().groupby(valid["site_id"]).shift()
    return (valid["top_m"] < deepest - _SLACK).reindex(frame.index, fill_value=False)


CHECKS = [
    _check_columns,
    _check_values,
    _check_sites,
    _check_coordinates,
    _check_permafrost,
    _check_intervals,
]
"""Checks of both tables: each takes the study, sites and intervals, and yields rows of the problems table."""


# --- Labels ------------------------------------------------------------------------------------------------


def label_layers(study, sites, intervals):
    """Give each site an ice type in each depth layer where the hole allows one.

    Parameters
    ----------
    study : helpers.study.Study
    sites, intervals : pandas.DataFrame
        As `read_tables` returns them.

    Returns
    -------
    labels : pandas.DataFrame
        One row a site and layer: site_id, layer, longitude, latitude, ice_type (0-5), ice_content (m3 m-3
        of the permafrost part, NaN for class 0), permafrost_share (of the layer's thickness), ice_fraction
        (their product), sampled_share (of the permafrost part; for class 0, how much of the layer the hole
        passed), reason (of class 0: ``talik``, ``above table`` or ``below base``; empty otherwise).
    lost : pandas.DataFrame
        The other pairs of site and layer: site_id, layer, reason.

    Notes
    -----
    Class 0 is an observation, never a lack of one: the permafrost table lies below the layer, its base
    above it, or a hole without permafrost passed through it. A hole of which it is unknown whether it met
    permafrost gives class 0 only where its cores show unfrozen ground throughout, for frozen ground may be
    seasonal. Unfrozen cores within permafrost count as ice content 0.
    """
    pieces = _pieces_by_site(intervals)
    labels, lost = [], []
    for site in sites.itertuples():
        for layer in study.layers:
            outcome = _label(site, layer, pieces.get(site.site_id, _NO_PIECES), study.ice)
            key = {"site_id": site.site_id, "layer": layer_name(layer)}
            if isinstance(outcome, str):
                lost.append(key | {"reason": outcome})
            else:
                labels.append(key | {"longitude": site.longitude, "latitude": site.latitude} | outcome)
    columns = [c for c in SAMPLE_COLUMNS if c not in ("easting", "northing", "in_domain", "split")]
    return pd.DataFrame(labels, columns=columns), _lost_table(lost)


_NO_PIECES = np.empty((0, 4))


def _pieces_by_site(intervals):
    """Return top, bottom, ice content and whether unfrozen (1 or 0) of each site's pieces of core."""
    unfrozen = intervals["frozen"] == "no"
    content = intervals["ice_content"].mask(unfrozen & intervals["ice_content"].isna(), 0.0)
    table = np.column_stack([intervals["top_m"], intervals["bottom_m"], content, unfrozen])
    return {site: table[rows] for site, rows in intervals.groupby("site_id").indices.items()}


def _label(site, layer, pieces, ice):
    """Return a label's columns, or why there is none."""
    top, bottom = layer
    passed = float(np.clip((site.depth_reached_m - top) / (bottom - top), 0, 1))
    through = site.depth_reached_m >= bottom - _SLACK
    if site.permafrost == "no":
        return _class_zero("talik", passed) if through else NOT_REACHED
    if site.permafrost == "unknown":
        unfrozen, share = layer_mean(pieces[:, [0, 1, 3]], top, bottom)
        if through and unfrozen == 1 and share >= ice.minimum_sampled_share - _SLACK:
            return _class_zero("talik", passed)
        return UNKNOWN_STATE if through else NOT_REACHED
    if np.isnan(site.permafrost_table_m):
        return UNKNOWN_TABLE
    upper, lower, share = permafrost_part(top, bottom, site.permafrost_table_m, site.permafrost_base_m)
    if share == 0:
        return _class_zero("above table" if site.permafrost_table_m >= bottom else "below base", passed)
    if site.depth_reached_m <= upper:
        return NOT_REACHED
    content, sampled = layer_mean(pieces[:, :3], upper, lower)
    if sampled == 0 or sampled < ice.minimum_sampled_share - _SLACK:
        return TOO_LITTLE if through or site.depth_reached_m >= lower - _SLACK else NOT_REACHED
    return {"ice_type": ice_type(content, ice.thresholds), "ice_content": content, "permafrost_share": share,
            "ice_fraction": content * share, "sampled_share": sampled, "reason": ""}  # fmt: skip


def _class_zero(reason, passed):
    return {"ice_type": 0, "ice_content": np.nan, "permafrost_share": 0.0, "ice_fraction": 0.0,
            "sampled_share": passed, "reason": reason}  # fmt: skip


def _lost_table(rows):
    return pd.DataFrame(rows, columns=["site_id", "layer", "reason"])


# --- Covariates --------------------------------------------------------------------------------------------


def predictor_names(study):
    """Return the covariates that the forests use, in their order.

    Parameters
    ----------
    study : helpers.study.Study

    Returns
    -------
    list of str

    Raises
    ------
    StudyError
        The study file names a covariate that the registry does not have.
    """
    from helpers.covariates.registry import predictors

    if study.predictors == "all":
        return list(predictors(study))
    for name in study.predictors:
        _check_covariate(study, name, "predictors")
    return list(dict.fromkeys(study.predictors))


def _check_covariate(study, name, setting):
    from helpers.covariates.registry import covariates

    known = list(covariates(study))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise StudyError(
            f"`{setting}`: there is no covariate `{name}`{f'; did you mean `{near[0]}`?' if near else ''}",
            f"choose from {', '.join(known)}",
        )


def extract_covariates(study, table):
    """Add to each row the values of all covariates in the cell that holds its site.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        With `longitude` and `latitude`, WGS 84 degrees.

    Returns
    -------
    pandas.DataFrame
        The table with easting and northing (m, in the study's CRS) and one column a covariate; NaN where
        there is no value.

    Raises
    ------
    SampleError
        Covariates have not been made.
    """
    from helpers.covariates.registry import covariate_files

    files = covariate_files(study)
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise SampleError(f"Covariates are missing: {_listed(missing)}.", "run notebooks/01-prepare-data.ipynb")
    easting, northing = _projected(table["longitude"], table["latitude"], named_crs(study.grid.crs))
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(lambda path: values_at(path, easting, northing), files.values())
        added = {"easting": easting, "northing": northing, **dict(zip(files, values, strict=True))}
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1)


def _projected(longitude, latitude, crs):
    import pyproj

    project = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return project.transform(np.asarray(longitude), np.asarray(latitude))


def values_at(path, easting, northing):
    """Return a raster's values in the cells that hold some points.

    Parameters
    ----------
    path : path-like
        Its first band is read.
    easting, northing : numpy.ndarray, shape (n,)
        Coordinates in the raster's CRS.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        NaN outside the raster and where it has no data.
    """
    import rasterio
    from rasterio.transform import rowcol
    from rasterio.windows import Window

    with rasterio.open(path) as source:
        rows, columns = (np.asarray(index) for index in rowcol(source.transform, easting, northing))
        inside = (rows >= 0) & (rows < source.height) & (columns >= 0) & (columns < source.width)
        values = np.full(len(rows), np.nan)
        if inside.any():
            rows, columns = rows[inside], columns[inside]
            (top, left), (bottom, right) = (rows.min(), columns.min()), (rows.max(), columns.max())
            block = source.read(1, window=Window(left, top, right - left + 1, bottom - top + 1))
            found = block[rows - top, columns - left].astype(float)
            empty = np.isnan(found) if source.nodata is None else np.isnan(found) | (found == source.nodata)
            values[inside] = np.where(empty, np.nan, found * source.scales[0] + source.offsets[0])
    return values


def drop_unusable(study, table):
    """Drop sites without a value of each predictor, sites entered twice, and sites with outlying values.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        As `extract_covariates` returns it.

    Returns
    -------
    kept : pandas.DataFrame
    lost : pandas.DataFrame
        site_id, layer and reason, which names the covariate.

    Notes
    -----
    A value is outlying where |x - median| / (1.4826 MAD) over all sites exceeds `samples.outlier_limit`; a
    covariate whose median absolute deviation (MAD) is zero is not judged. Of sites within `SAME_PLACE` of one
    another the one with the most labels stays.
    """
    predictors = predictor_names(study)
    _check_covariate(study, study.domain.covariate, "domain.covariate")
    sites = table.drop_duplicates("site_id").set_index("site_id")
    reasons = pd.Series("", index=sites.index)
    for name in dict.fromkeys([*predictors, study.domain.covariate]):
        reasons[(reasons == "") & sites[name].isna()] = f"no data: {name}"
    labels = table["site_id"].value_counts().reindex(sites.index)
    left = reasons == ""
    reasons[left] = np.where(_repeated(sites[left], labels[left]), DUPLICATE, "")
    valid = sites[reasons == ""]
    for name in predictors:
        far = valid.index[_robust_z(valid[name]) > study.samples.outlier_limit]
        reasons[far] = reasons[far].mask(reasons[far] == "", f"outlier: {name}")
    reason = table["site_id"].map(reasons)
    lost = table[["site_id", "layer"]].assign(reason=reason)[reason != ""]
    return table[reason == ""].reset_index(drop=True), lost.reset_index(drop=True)


def _robust_z(values):
    distance = (values - values.median()).abs()
    spread = _MAD_TO_SD * distance.median()
    return distance / spread if spread > 0 else distance * 0.0


def _repeated(sites, labels):
    """Return which sites have another one in the same place that has more labels or comes first."""
    from scipy.spatial import cKDTree

    near = cKDTree(sites[["easting", "northing"]]).query_ball_point(sites[["easting", "northing"]], SAME_PLACE)
    kept = np.zeros(len(sites), bool)
    for site in np.argsort(-labels.to_numpy(), kind="stable"):
        kept[site] = not kept[near[site]].any()
    return ~kept


def in_domain(study, table):
    """Return which rows lie in the potential-permafrost domain, by the study's rule on one covariate.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        With the covariate `domain.covariate`; rows without a value are outside.

    Returns
    -------
    pandas.Series of bool
    """
    _check_covariate(study, study.domain.covariate, "domain.covariate")
    return (table[study.domain.covariate] > study.domain.above).rename("in_domain")


def counts_by_reason(*lost):
    """Count losses.

    Parameters
    ----------
    *lost : pandas.DataFrame
        Tables with site_id, layer and reason.

    Returns
    -------
    dict of str to dict
        For each reason the number of `sites` and of `labels`, which are pairs of site and layer; the most
        frequent first.
    """
    groups = pd.concat(lost, ignore_index=True).groupby("reason")["site_id"]
    counts = groups.agg(sites="nunique", labels="size").sort_values("labels", ascending=False, kind="stable")
    return {reason: {"sites": int(sites), "labels": int(labels)} for reason, sites, labels in counts.itertuples()}


# --- Split and files ---------------------------------------------------------------------------------------


def split_sites(study, table, rng, group="site_id"):
    """Part sites into training and test samples, once for all layers.

    Parameters
    ----------
    study : helpers.study.Study
        Its `samples.test_share` is the share of test samples of each ice type in each layer.
    table : pandas.DataFrame
        With `layer`, `ice_type` and the group's column.
    rng : numpy.random.Generator
        The same generator gives the same split, whatever the order of rows.
    group : str
        Column whose equal values stay together: a site, or a cluster of sites.

    Returns
    -------
    pandas.Series of str
        ``train`` or ``test`` for each row.

    Notes
    -----
    Iterative stratification (Sechidis et al. 2011): the groups of the rarest label first, each to the side
    that lacks that label most. Groups are then moved or exchanged until each label's number of test samples
    is within max(2, its largest number in one group) of its share, where that can be had.

    References
    ----------
    Sechidis, K., Tsoumakas, G., Vlahavas, I. (2011). On the stratification of multi-label data. ECML PKDD.
    https://doi.org/10.1007/978-3-642-23808-6_10
    """
    counts = pd.crosstab(table[group], [table["layer"], table["ice_type"]])
    matrix = counts.to_numpy(float)
    test = _repaired(matrix, _stratified(matrix, study.samples.test_share, rng), study.samples.test_share)
    side = pd.Series(np.where(test, "test", "train"), index=counts.index)
    return table[group].map(side).rename("split")


def _stratified(matrix, share, rng):
    """Return which groups are for testing, by iterative stratification of counts (group, label)."""
    groups = len(matrix)
    shares = np.array([1 - share, share])
    wanted, size = np.outer(shares, matrix.sum(axis=0)), shares * groups
    side = np.full(groups, -1)
    order = rng.permutation(groups)
    while (side < 0).any():
        remaining = (matrix[side < 0] > 0).sum(axis=0)
        label = np.where(remaining > 0, remaining, groups + 1).argmin()
        for index in order[(side[order] < 0) & (matrix[order, label] > 0)]:
            best = int(np.lexsort((rng.random(2), size, wanted[:, label]))[-1])
            side[index] = best
            wanted[best] -= matrix[index]
            size[best] -= 1
    return side == 1


def _repaired(matrix, test, share):
    """Move or exchange groups while a label misses its tolerance and that brings them nearer their share."""
    test = test.copy()
    target, tolerance = share * matrix.sum(axis=0), np.maximum(2, matrix.max(axis=0))
    nothing = np.zeros((1, matrix.shape[1]))
    while True:
        off = matrix[test].sum(axis=0) - target
        if (np.abs(off) <= tolerance).all():
            return test
        # The last row stands for no group, so that an exchange with it is a move.
        inner, outer = np.append(np.flatnonzero(test), -1), np.append(np.flatnonzero(~test), -1)
        leaving = off - np.vstack([matrix[test], nothing])
        coming = np.vstack([matrix[~test], nothing])
        cost = (leaving**2).sum(axis=1)[:, None] + 2 * leaving @ coming.T + (coming**2).sum(axis=1)
        out, into = np.unravel_index(cost.argmin(), cost.shape)
        if cost[out, into] >= (off**2).sum() - 1e-9:
            return test
        for index, value in ((inner[out], False), (outer[into], True)):
            if index >= 0:
                test[index] = value


def write_samples(study, table, counts=None):
    """Write the sample table, and the counts by reason of loss.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        With the columns of `SAMPLE_COLUMNS` and all predictors; others are left out.
    counts : dict, optional
        As `counts_by_reason` returns them.

    Returns
    -------
    pathlib.Path
        Of the sample table.
    """
    path = samples_path(study)
    columns = [*SAMPLE_COLUMNS, *predictor_names(study)]
    if lacking := [name for name in columns if name not in table]:
        raise SampleError(f"The sample table lacks {_listed(lacking)}.", "extract covariates and split sites first")
    write_text(path, table[columns].to_csv(index=False, lineterminator="\n"))
    if counts is not None:
        write_text(path.with_name("counts.json"), json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    return path


def read_samples(study):
    """Read the sample table of a run.

    Parameters
    ----------
    study : helpers.study.Study

    Returns
    -------
    pandas.DataFrame
        As it was handed to `write_samples`: text, whole numbers, bool and float, to the last digit.

    Raises
    ------
    SampleError
        There is none yet.
    """
    path = samples_path(study)
    if not path.is_file():
        raise SampleError(f"This run has no {path.name}.", "run notebooks/02-extract-samples.ipynb for this study")
    text = dict.fromkeys(("site_id", "layer", "reason", "split"), str)
    table = pd.read_csv(
        path,
        dtype=text | {"ice_type": int, "in_domain": bool},
        keep_default_na=False,
        na_values={name: [] for name in text} | {"ice_content": [""]},
        float_precision="round_trip",
    )
    floats = [name for name in table if name not in text and name not in ("ice_type", "in_domain")]
    return table.astype(dict.fromkeys(floats, float))


def samples_path(study):
    """Return the file of the run's sample table."""
    return study.results_dir / "samples" / "samples.csv"


def area_weights(study, table):
    """Return the share of the area that each sample stands for, over its share of the samples.

    Two strata are told apart, in and outside of the potential-permafrost domain: people drill where they expect
    permafrost, so samples alone would make the map too icy.

    Parameters
    ----------
    study : helpers.study.Study
    table : pandas.DataFrame
        With columns `layer` and `in_domain`.

    Returns
    -------
    pandas.Series
        Mean 1 in each layer, unless a stratum has no sample.
    """
    from helpers.covariates.registry import read_covariates

    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    domain = float((rule[np.isfinite(rule)] > study.domain.above).mean())
    sampled = table.groupby("layer")["in_domain"].transform("mean")
    return np.where(table["in_domain"], domain / sampled, (1 - domain) / (1 - sampled))
