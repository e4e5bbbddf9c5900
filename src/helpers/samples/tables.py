"""Field tables of boreholes and test pits: read as they come, and checked; all problems are told at once.

The tables are *sites* (one row a hole) and *intervals* (one row a piece of core), as CSV, Excel (xlsx) or GeoPackage;
`data/samples/README.md` describes their columns. Depths are metres below the surface. A row's number is the one that a
spreadsheet shows: the header is row 1, and a problem of a whole column stands there.

What is unmistakable is converted and told, such as a column in percent; what is not is an error.
"""

import contextlib
import csv
import difflib
import io
import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from helpers.core.errors import CompendiumError
from helpers.core.grid import named_crs, study_area
from helpers.core.ice import ICE_DENSITY, ICE_TYPES
from helpers.core.study import StudyError


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
    need : {"value", "column", "optional"}
        Whether each row must have a value, the column must be there, or neither.
    kind : {"text", "number", "depth", "share", "word", "date", "ice type"}
        What its cells hold. Depths are m and not negative, shares 0-1.
    aliases : tuple of str
        Other headers that mean this column.
    """

    name: str
    need: str
    kind: str
    aliases: tuple = ()


COLUMNS = {
    "sites": (
        Column("site_id", "value", "text", ("孔号", "钻孔编号", "编号", "点号")),
        Column("longitude", "value", "number", ("经度", "lon", "long", "easting", "东坐标")),
        Column("latitude", "value", "number", ("纬度", "lat", "northing", "北坐标")),
        Column("date", "optional", "date", ("日期", "钻探日期", "调查日期")),
        Column("method", "optional", "word", ("方法", "勘探方法")),
        Column("elevation_m", "optional", "number", ("高程", "海拔", "elevation")),
        Column("depth_reached_m", "value", "depth", ("终孔深度", "孔深", "深度")),
        Column("permafrost", "value", "word", ("多年冻土", "有无多年冻土")),
        Column("permafrost_table_m", "column", "depth", ("多年冻土上限", "上限", "上限埋深")),
        Column("permafrost_base_m", "column", "depth", ("多年冻土下限", "下限", "下限埋深")),
        Column("source", "optional", "text", ("来源", "资料来源")),
    ),
    "intervals": (
        Column("site_id", "value", "text", ("孔号", "钻孔编号", "编号", "点号")),
        Column("top_m", "value", "depth", ("顶深", "顶深度", "顶板深度")),
        Column("bottom_m", "value", "depth", ("底深", "底深度", "底板深度")),
        Column("frozen", "value", "word", ("冻结", "是否冻结", "冻结状态")),
        Column("ice_content", "optional", "share", ("体积含冰量", "含冰量")),
        Column("water_content", "optional", "number", ("含水率", "含水量", "质量含水率", "总含水率")),
        Column("dry_density", "optional", "number", ("干密度",)),
        Column("ice_type", "optional", "ice type", ("冻土类型", "含冰类型", "含冰类别")),
        Column("texture", "optional", "text", ("土质", "岩性", "土类")),
    ),
}
"""Columns of both tables. Of the intervals' `ONE_OF` at least one must be there."""


ONE_OF = ("ice_content", "water_content", "ice_type")


WORDS = {
    "permafrost": {"yes": ("是", "有"), "no": ("否", "无"), "unknown": ("未知", "不详", "不明")},
    "frozen": {"yes": ("是", "冻结", "冻"), "no": ("否", "未冻结", "未冻", "融化", "融")},
    "method": {"borehole": ("钻孔",), "pit": ("探坑", "试坑", "坑探")},
}
"""Columns in which only these words may stand, in English or Chinese."""


TEXTURES = {
    "rock": "rock|stone|granite|basalt|岩",
    "peat": r"\bpeat\b|泥炭(?!质)",
    "clay": "clay|黏土|粘土",
    "silt": "silt|loam|粉土|粉质|壤土",
    "gravel": "gravel|砾|碎石|卵石",
    "sand": "sand|砂",
}
"""Soil textures that are told apart, by patterns of the words that name them; the first that a cell holds counts."""


# fmt: off
KINDS = {
    "missing column": ("error", "the column is missing", "add the column"),
    "overlong row": ("error", "the row has more values than the header has columns",
        "write decimals with a point, and text that holds a comma in quotes"),
    "missing value": ("error", "there is no value", "fill it in"),
    "not a number": ("error", "this is not a number", "write a plain number with a decimal point, without unit"),
    "unknown word": ("error", "this word is not known", "write one of the words"),
    "unknown ice type": ("error", "this is no ice type", "write 1-5, or a type's English or Chinese name"),
    "decimal comma": ("warn", "the decimal sign is a comma", "taken as a decimal point; write a point"),
    "degrees, minutes, seconds": ("warn", "this is not in decimal degrees", "converted; write decimal degrees"),
    "content in percent": ("warn", "the column is in percent", "divided by 100; write fractions"),
    "depths in centimetres": ("warn", "the depths are in centimetres", "divided by 100; write metres"),
    "dry density in another unit": ("warn", "the dry density is in g cm-3", "multiplied by 1000; write kg m-3"),
    "unclear unit of depths": ("error", "the depths may be in metres or in centimetres",
        "write the unit into the header, such as depth_reached_m (m) or (cm)"),
    "pit deeper than 10 m": ("error", "no pit is that deep", "write metres, or method borehole"),
    "table below the hole": ("error", "the permafrost table lies below the bottom of the hole",
        "correct one of the two depths, or write permafrost unknown"),
    "much water for a mineral soil": ("error", "so much water is in peat only",
        "write fractions, not percent, or the texture peat"),
    "unused column": ("warn", "the column is not used", "rename it, if it was meant so"),
    "duplicated site": ("error", "an earlier row has the same site_id",
        "give every hole a site_id of its own, or delete the repeated row"),
    "swapped coordinates": ("error", "longitude and latitude are swapped", "exchange the two"),
    "outside the study area": ("error", "the site lies outside the study area",
        "give longitude and latitude in WGS 84 degrees, or set samples.epsg, or leave the site out"),
    "elevation far from the elevation model": ("warn", "the elevation is far from the elevation model's",
        "check the coordinates and the elevation"),
    "another datum": ("warn", "the elevations fit better where the coordinates are taken for GCJ-02 or BD-09",
        "ask where the coordinates come from, and set samples.datum"),
    "negative depth": ("error", "the depth is negative", "write metres below the surface as positive numbers"),
    "inverted permafrost": ("error", "the base does not lie below the table", "correct one of the two depths"),
    "depth without permafrost": ("error", "a depth of permafrost is given where there is none",
        "write permafrost yes, or leave the depth empty"),
    "interval without site": ("error", "there is no such site",
        "add the site to the table of sites, or correct the site_id"),
    "inverted interval": ("error", "the bottom does not lie below the top", "correct one of the two depths"),
    "overlapping intervals": ("error", "the interval overlaps another one of its site",
        "correct the depths, or delete one of the two"),
    "impossible ice content": ("error", "the ice content lies outside 0-1",
        "write m3 of ice per m3 of ground, not percent"),
    "impossible water content": ("error", "the water content lies outside 0-20",
        "write the mass of water over the dry mass, as a fraction"),
    "impossible dry density": ("error", "the dry density lies outside 40-2700 kg m-3", "write kg m-3"),
    "too much water for the dry density": ("error", "with the dry density the ice would fill more than the ground",
        "correct one of the two"),
    "ice in unfrozen ground": ("error", "ice is given where the ground is not frozen", "write frozen yes, or 0"),
    "example row": ("drop", "this is an example of the template", "delete the row"),
    "no permafrost table": ("warn", "without this depth the site gives no label", "give the depth"),
    "interval below the hole": ("warn", "the interval ends below the hole", "correct one of the two depths"),
    "unreadable date": ("warn", "this is not a date", "write year-month-day, such as 2023-08-14"),
}
# fmt: on
"""Kinds of problems: severity, what is wrong, what to do. ``error`` refuses the tables, ``drop`` leaves out the row,
``warn`` only tells. `samples.severity` of the study file changes it by kind, but no error to a mere warning."""


MOST_WATER = 20.0
"""Gravimetric water content, fraction of the dry mass: fresh peat stays below."""


MOST_WATER_IN_MINERAL_SOIL = 3.0
"""Gravimetric water content, fraction of the dry mass: more is in peat only."""


DEEPEST_PIT = 10.0  # m


DRY_DENSITY = (40.0, 2700.0)
"""kg m-3: from loose peat to rock."""


_EXAMPLE = "example-"


_EMPTY = ("", "na", "n/a", "nan", "null", "none", "-", "--", "/", "—", "无数据")


_PROBLEM_COLUMNS = ["file", "row", "column", "value", "kind", "problem", "remedy", "severity"]


_SLACK = 1e-6  # m; depths nearer than this are equal


_MOST = 0.8  # of a column's values must tell of a unit before all are converted


_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " "}


_IN_BRACKETS = re.compile(r"\s*[\[(](.*?)[\])]")


_COMMA = re.compile(r"[+-]?\d+,\d+")


_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


_DEGREES = re.compile(
    r"([NSEW东西南北]?)\s*(\d{1,3})(?:\s*[°º度]\s*|\s+)(?:(\d{1,2}(?:\.\d+)?)(?:\s*['′’分]\s*|\s+|$))?"
    r"(?:(\d{1,2}(?:\.\d+)?)\s*(?:\"|″|”|''|′′|秒)?\s*)?([NSEW东西南北]?)",
    re.IGNORECASE,
)


class SampleError(CompendiumError):
    """Sample tables that cannot be used; `problems` has a row for each problem that was found in them."""

    problems = None


def table_paths(study):
    """Return the paths of the sites table and of the intervals table.

    Parameters
    ----------
    study : helpers.core.study.Study
        Where `samples.sites` or `samples.intervals` is empty, the table that a virtual study draws for a run.

    Returns
    -------
    tuple of pathlib.Path

    Raises
    ------
    SampleError
        One table is named and the other is not, or the study is not virtual and names none.
    """
    drawn = study.results_dir / "samples"
    given = {"sites": study.samples.sites, "intervals": study.samples.intervals}
    lacking = [f"samples.{name}" for name, path in given.items() if not path]
    if lacking and not study.draws_boreholes:
        raise SampleError(
            f"The study file names no table of boreholes: {' and '.join(lacking)} {_are(lacking)} empty.",
            "name your two tables there; data/samples/ has a template of each",
        )
    return tuple(study.path(path) if path else drawn / f"{name}.csv" for name, path in given.items())


def _are(names):
    return "are" if len(names) > 1 else "is"


def read_tables(study):
    """Read and check both tables.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    sites : pandas.DataFrame
        One row a hole, with all columns of `COLUMNS`; numbers as float, NaN where empty; `longitude` and `latitude`
        in WGS 84 degrees, whatever the file has.
    intervals : pandas.DataFrame
        One row a piece of core; `texture` in the words of `TEXTURES` where it holds one of them.
    problems : pandas.DataFrame
        What was converted, what was dropped, and what looks odd: file, row, column, value, kind, problem, remedy,
        severity.

    Raises
    ------
    SampleError
        A table is missing or not readable, or rows have problems of severity ``error``; one error names them all, and
        has them as a table in `problems`.
    """
    tables, problems = _checked(study)
    _refuse(problems[problems["severity"] == "error"])
    kept = []
    for table in tables:
        dropped = problems.loc[(problems["severity"] == "drop") & (problems["file"] == table.file), "row"]
        kept.append(table.frame.drop(index=dropped))
    kept[1] = kept[1][kept[1]["site_id"].isin(kept[0]["site_id"])]
    if kept[0].empty:
        raise SampleError(
            f"{tables[0].file} has no usable site.", "fill in one row a borehole or pit, as the template shows"
        )
    return *(frame.reset_index(drop=True) for frame in kept), problems


def find_problems(study):
    """Return all problems of both tables, of any severity, as `read_tables` does, and refuse nothing."""
    return _checked(study)[1]


def _checked(study):
    """Return both tables, converted, and their problems."""
    for kind in study.samples.severity:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            message = f"samples.severity names '{kind}', which is no kind of problem."
            raise StudyError(message, f"choose from {', '.join(near or KINDS)}")
        if KINDS[kind][0] == "error" and study.samples.severity[kind] == "warn":
            message = f"samples.severity lets '{kind}' pass, but such rows would give wrong samples."
            raise StudyError(message, "use drop, which leaves the rows out, or error")
    paths = table_paths(study)
    same = paths[0].name == paths[1].name
    shown = [f"{path.parent.name}/{path.name}" if same else path.name for path in paths]
    if paths[0] == paths[1]:
        shown = [f"{paths[0].name} ({kind})" for kind in COLUMNS]
    tables = [_read_table(*args) for args in zip(paths, shown, COLUMNS, strict=True)]
    found = [problem for check in CHECKS for problem in check(study, *tables)]
    problems = pd.DataFrame(found, columns=_PROBLEM_COLUMNS)
    problems["severity"] = problems["kind"].map({k: v[0] for k, v in KINDS.items()} | study.samples.severity)
    # The header cannot be dropped: what is wrong with a whole column is wrong with the table.
    problems.loc[(problems["row"] == 1) & (problems["severity"] == "drop"), "severity"] = "error"
    problems = problems.drop_duplicates(["file", "row", "column", "kind"])
    order = {table.file: number for number, table in enumerate(tables)}
    problems = problems.sort_values(
        ["file", "row"], key=lambda c: c.map(order) if c.name == "file" else c, kind="stable", ignore_index=True
    )
    return tables, problems


# --- Files -------------------------------------------------------------------------------------------------


@dataclass
class _Table:
    """A table as it was typed (`text`) and as it was understood (`frame`), indexed by the row in the file."""

    kind: str
    file: str
    text: pd.DataFrame
    frame: pd.DataFrame
    header: list
    units: dict
    overlong: dict

    @property
    def missing(self):
        return [c.name for c in COLUMNS[self.kind] if c.need != "optional" and c.name not in self.header]


def _read_table(path, file, kind):
    remedy = "save the table as CSV (UTF-8), Excel (xlsx) or GeoPackage; data/samples/ has templates"
    if not path.is_file():
        remedy = f"correct samples.{kind} in the study file, or run the notebook that writes the table"
        raise SampleError(f"The table of {kind}, {file}, does not exist.", remedy)
    try:
        records = _READERS.get(path.suffix.lower(), _csv_records)(path, kind)
    # Whatever a damaged file makes a reader stumble over, it is no table.
    except Exception as error:
        raise SampleError(f"{file} is not readable as a table: {' '.join(str(error).split())}", remedy) from None
    if not records:
        raise SampleError(f"{file} is empty.", remedy)
    first = next((number for number, line in enumerate(records) if any(line)), None)
    if first is None:
        raise SampleError(f"{file} is empty.", remedy)
    known = {alias: c.name for c in COLUMNS[kind] for alias in (c.name, c.name.removesuffix("_m"), *c.aliases)}
    header = [known.get(name, name) for name in map(_plain_header, records[first])]
    units = {name: _unit(typed) for name, typed in zip(header, records[first], strict=True)}
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise SampleError(f"{file} has two columns for {', '.join(twice)}.", "delete or rename one of them")
    lines = {row: line for row, line in enumerate(records[first + 1 :], start=first + 2) if any(line)}
    overlong = {row: line[len(header) :] for row, line in lines.items() if any(line[len(header) :])}
    lines = {row: dict(zip(header, line, strict=False)) for row, line in lines.items()}
    columns = list(dict.fromkeys([*(c.name for c in COLUMNS[kind]), *filter(None, header)]))
    text = pd.DataFrame.from_dict(lines, orient="index", dtype=object).reindex(columns=columns)
    text = text.astype(object).where(text.notna(), "").astype(str)
    for name in columns:
        if name != "site_id":
            text[name] = text[name].mask(text[name].str.lower().isin(_EMPTY), "")
    return _Table(kind, file, text, text.copy().astype(object), header, units, overlong)


def _plain(value):
    """Return a cell's text without spaces around it and with half-width signs."""
    return str(value).translate(_HALF_WIDTH).strip()


def _plain_header(name):
    """Return a header in small letters, with underscores for spaces, and without a unit in brackets."""
    return re.sub(r"[\s-]+", "_", _IN_BRACKETS.sub("", _plain(name)).strip().lower())


def _unit(header):
    """Return the unit that stands in brackets after a column's name, and an empty text where there is none."""
    found = _IN_BRACKETS.search(_plain(header))
    return re.sub(r"[\s·^]", "", found[1].lower()).replace("³", "3") if found else ""


def _csv_records(path, _kind):
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("gb18030")
    if "\0" in text:
        raise ValueError("it holds bytes that no text has")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return [
        [_plain(v) for v in line]
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    ]


def _excel_records(path, kind):
    with pd.ExcelFile(path, engine="calamine") as book:
        names = {_plain_header(name): name for name in book.sheet_names}
        named = [names[name] for name in (kind, *_SHEETS[kind]) if name in names]
        name = named[0] if named else book.sheet_names[0]
        sheet = pd.read_excel(book, sheet_name=name, header=None, dtype=object, na_filter=False)
    return [[_cell(value) for value in row] for row in sheet.itertuples(index=False)]


_SHEETS = {"sites": ("钻孔", "孔位", "点位"), "intervals": ("岩芯", "岩心", "分层")}


def _cell(value):
    """Return a spreadsheet's value as it would be typed."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if hasattr(value, "isoformat"):
        return value.isoformat().split("T")[0]
    return _plain(value)


def _geopackage_records(path, kind):
    import geopandas
    import pyogrio

    layers = {_plain_header(name): name for name, _ in pyogrio.list_layers(path)}
    named = [layers[name] for name in (kind, *_SHEETS[kind]) if name in layers]
    frame = geopandas.read_file(path, layer=named[0] if named else next(iter(layers.values())))
    table = pd.DataFrame(frame)
    if isinstance(frame, geopandas.GeoDataFrame):
        table = table.drop(columns=frame.geometry.name)
        given = {alias for c in COLUMNS[kind] if c.name == "longitude" for alias in (c.name, *c.aliases)}
        if not given & set(map(_plain_header, table.columns)):
            points = frame.geometry.to_crs(4326) if frame.crs else frame.geometry
            table["longitude"], table["latitude"] = points.x, points.y
    table = table.astype(object).where(table.notna(), "")
    return [list(map(_plain, table.columns)), *([_cell(v) for v in row] for row in table.itertuples(index=False))]


_READERS = {".xlsx": _excel_records, ".xls": _excel_records, ".gpkg": _geopackage_records}


# --- Problems ----------------------------------------------------------------------------------------------


def _refuse(errors):
    if errors.empty:
        return
    parts, remedies = [], {}
    for (file, column, problem, remedy), rows in errors.groupby(["file", "column", "problem", "remedy"], sort=False):
        given = ", ".join([f"'{value}'" for value in dict.fromkeys(rows["value"]) if value][:3])
        where = f"row{'s' if len(rows) > 1 else ''} {listed(rows['row'])}"
        parts.append(f"{file}, column {column}, {where}: {problem}" + (f" ({given})" if given else ""))
        remedies.setdefault(remedy, []).append(column)
    message = f"{len(errors)} problem{'s' if len(errors) > 1 else ''} in the sample tables: {'; '.join(parts)}"
    each = [f"{', '.join(dict.fromkeys(names))}: {remedy}" for remedy, names in remedies.items()]
    error = SampleError(message, "; ".join(each))
    error.problems = errors.reset_index(drop=True)
    raise error


def listed(items, most=10):
    """Return items as text, and how many more there are than `most`."""
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


# --- Understanding: text becomes numbers, and units the usual ones -------------------------------------------


def _understand(_study, *tables):
    """Turn text into numbers, words and dates; convert what can only be meant one way."""
    for table in tables:
        for column in COLUMNS[table.kind]:
            text = table.text[column.name]
            if column.kind in ("number", "depth", "share"):
                yield from _understand_numbers(table, column.name, text)
            elif column.kind == "word":
                words = {also: word for word, more in WORDS[column.name].items() for also in more}
                table.frame[column.name] = text.str.lower().replace(words)
            elif column.kind == "ice type":
                table.frame[column.name] = text.map(ice_type_code).astype(float)
                unknown = (text != "") & table.frame[column.name].isna()
                yield from _found(table, unknown, column.name, "unknown ice type")
            elif column.kind == "date":
                dates = {typed: _iso_date(typed) for typed in text.unique()}
                table.frame[column.name] = text.map(dates)
                unreadable = (text != "") & (table.frame[column.name] == "")
                yield from _found(table, unreadable, column.name, "unreadable date")
    intervals = tables[1].frame
    typed = tables[1].text["texture"].str.lower()
    for texture, words in reversed(TEXTURES.items()):
        intervals["texture"] = intervals["texture"].mask(typed.str.contains(words), texture)


def _understand_numbers(table, name, text):
    values = pd.to_numeric(text, errors="coerce").astype(float)
    values = values.where(np.isfinite(values))
    for row in text.index[(text != "") & values.isna()]:
        typed, kind = text[row], None
        if _COMMA.fullmatch(typed) and not (name == "elevation_m" and _THOUSANDS.fullmatch(typed)):
            values[row], kind = float(typed.replace(",", ".")), "decimal comma"
        elif name in ("longitude", "latitude") and (degrees := _decimal_degrees(typed)) is not None:
            values[row], kind = degrees, "degrees, minutes, seconds"
        told = f"read as {values[row]:.10g}; {KINDS[kind][2].split('; ')[1]}" if kind else None
        yield _problem(table, row, name, typed, kind or "not a number", told)
    table.frame[name] = values


def _decimal_degrees(text):
    found = _DEGREES.fullmatch(text)
    if not found:
        return None
    before, degrees, minutes, seconds, after = found.groups()
    minutes, seconds = float(minutes or 0), float(seconds or 0)
    if minutes >= 60 or seconds >= 60:
        return None
    sign = -1 if (before + after).upper() in ("S", "W", "南", "西") else 1
    return sign * (float(degrees) + minutes / 60 + seconds / 3600)


def ice_type_code(text):
    """Return an ice type's number (0-5) from its number, its English or its Chinese name; NaN for anything else."""
    names = {name: kind.code for kind in ICE_TYPES for name in (str(kind.code), kind.name, kind.chinese_name)}
    names |= {kind.name.removesuffix(" frozen soil"): kind.code for kind in ICE_TYPES}
    return names.get(text.lower().removesuffix(".0"), np.nan)


def _iso_date(text):
    """Return a date as year-month-day, and an empty text for anything else or a day that has not come."""
    plain = re.sub(r"[年月./]", "-", text.replace("日", ""))
    for form in ("%Y%m%d",) if re.fullmatch(r"\d{8}", plain) else ("%Y-%m-%d", "%Y-%m", "%Y"):
        with contextlib.suppress(ValueError):
            date = datetime.strptime(plain, form)
            return date.strftime("%Y-%m-%d") if datetime(1900, 1, 1) <= date <= datetime.now() else ""
    return ""


def _convert_units(_study, sites, intervals):
    """Bring percent to fractions, centimetres to metres, g cm-3 to kg m-3: by the header, or where a column tells."""
    yield from _convert_centimetres(sites, intervals)
    frame = intervals.frame
    low = frame["dry_density"].between(0, 10, inclusive="neither")
    frame["dry_density"] = frame["dry_density"].mask(low, frame["dry_density"] * 1000)
    if low.any() and low.sum() >= _MOST * frame["dry_density"].notna().sum():
        told = f"median {frame.loc[low, 'dry_density'].median() / 1000:g}"
        yield _problem(intervals, 1, "dry_density", told, "dry density in another unit")
    else:
        yield from _found(intervals, low, "dry_density", "dry density in another unit")
    # Peat may hold several times its own mass; a density that leaves room for the water shows a fraction.
    mineral = frame["texture"] != "peat"
    room = (frame["dry_density"] * frame["water_content"] <= 1.1 * ICE_DENSITY).to_numpy()
    for name, most, where in (("ice_content", 1.0, None), ("water_content", 3.0, mineral & ~room)):
        values = frame[name]
        some = values[values.notna() & (values != 0) & (True if where is None else where)]
        unit = intervals.units.get(name)
        guessed = not unit and len(some) > 1 and (some > most).mean() >= _MOST and some.max() <= 2000
        if unit == "%" or (guessed and len(some) >= (values > 0).sum() / 2):
            frame[name] = values / 100
            yield _problem(intervals, 1, name, f"median {values.median():g}", "content in percent")


def _convert_centimetres(sites, intervals):
    """Bring depths to metres: by the unit in the header, or where tables, holes and cores leave no doubt."""
    # Rows of the template tell nothing of the others.
    own = sites.frame[~sites.frame["site_id"].str.lower().str.startswith(_EXAMPLE)]
    depth, table = own["depth_reached_m"], own["permafrost_table_m"]
    cores = intervals.frame.groupby("site_id")["bottom_m"].max()
    cores = cores[cores.index.isin(own["site_id"])]
    hole = depth.set_axis(own["site_id"]).groupby(level=0).first().reindex(cores.index)
    ratio = (cores / hole).replace([np.inf, 0], np.nan).median()
    names = ("depth_reached_m", "permafrost_table_m", "permafrost_base_m")
    given = any(sites.units.get(name) for name in names)
    # Permafrost tables are hardly ever so deep, nor cores a hundredth of their holes: then metres are centimetres.
    deep, long = table.median() > 20, depth.median() > 100
    in_centimetres = long and (ratio <= 0.0101 or deep)
    shrunk = False
    for name in names:
        if sites.units.get(name) == "cm" or (not given and in_centimetres):
            shrunk = shrunk or name == "depth_reached_m"
            yield _in_metres(sites, name)
    if not given and not in_centimetres:
        if (table > depth).sum() > _MOST * table.notna().sum() and (table / 100 <= depth).all():
            yield _in_metres(sites, "permafrost_table_m")
        elif deep or (long and table.notna().sum() == 0 and not ratio <= 1.5):
            yield _problem(sites, 1, "depth_reached_m", f"median {depth.median():g}", "unclear unit of depths")
    ratio = ratio * 100 if shrunk else ratio
    for name in ("top_m", "bottom_m"):
        unit = intervals.units.get(name)
        if unit == "cm" or (not unit and ratio > 30):
            yield _in_metres(intervals, name)


def _in_metres(table, name):
    values = table.frame[name]
    table.frame[name] = values / 100
    return _problem(table, 1, name, f"median {values.median():g}", "depths in centimetres")


# --- Checks ------------------------------------------------------------------------------------------------


def _check_columns(_study, *tables):
    for table in tables:
        known = {c.name for c in COLUMNS[table.kind]}
        spare = sorted(set(table.header) - known - {""})
        for name in table.missing:
            near = difflib.get_close_matches(name, spare, n=1, cutoff=0.6)
            yield _problem(table, 1, name, "", "missing column", f"rename the column {near[0]}" if near else None)
        for row, values in table.overlong.items():
            yield _problem(table, row, table.header[-1], ",".join(values), "overlong row")
        optional = [c.name for c in COLUMNS[table.kind] if c.need == "optional" and c.name not in table.header]
        for name in spare:
            if near := difflib.get_close_matches(name, optional, n=1, cutoff=0.75):
                yield _problem(table, 1, name, "", "unused column", f"rename it {near[0]}, if that is what it holds")
    intervals = tables[1]
    if not set(ONE_OF) & set(intervals.header):
        spare = sorted(set(intervals.header) - {c.name for c in COLUMNS["intervals"]} - {""})
        near = [n for name in ONE_OF for n in difflib.get_close_matches(name, spare, n=1, cutoff=0.6)]
        remedy = f"rename the column {near[0]}" if near else f"add one of {', '.join(ONE_OF)}"
        yield _problem(intervals, 1, "ice_content", "", "missing column", remedy)


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
                yield _problem(table, case.index, case.column, typed, kind, remedy)


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
    yield from _found(sites, ids.str.lower().str.startswith(_EXAMPLE), "site_id", "example row")
    yield from _found(sites, ids.duplicated() & (ids != ""), "site_id", "duplicated site")


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
        yield _problem(sites, row, "longitude, latitude", value, kind)


def _wgs84(study, first, second, datum=None):
    """Return WGS 84 longitude and latitude of coordinates in the study's `samples.epsg` and `samples.datum`."""
    import pyproj

    from helpers.samples.datum import bd09_to_wgs84, gcj02_to_wgs84

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

    from helpers.samples.labels import projected

    outside = ~shapely.contains_xy(study_area(study), longitude, latitude)
    if outside.any():
        crs = named_crs(study.grid.crs)
        point = np.clip(projected(longitude[outside], latitude[outside], crs), -1e9, 1e9)
        outside[outside] = shapely.distance(study_area(study, crs), shapely.points(*point)) > study.grid.resolution
    return outside


def _check_elevation(study, sites, _intervals):
    """Compare elevations with the elevation model; a shifted datum shows in a misfit that a conversion lessens."""
    from helpers.prepare.registry import covariate_files, fine_files
    from helpers.samples.labels import projected, values_at

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
    yield from _found(sites, sites.frame.index.isin(frame.index[far]), "elevation_m", _FAR)
    known = np.isfinite(misfit)
    if study.samples.datum == "wgs84" and known.sum() >= 20:
        usual = np.median(np.abs(misfit[known]))
        for datum in ("gcj02", "bd09"):
            shifted = np.nanmedian(np.abs(given - model(*_wgs84(study, *place, datum)))[known])
            if shifted < 0.7 * usual:
                told = f"median misfit {usual:.0f} m, as {datum} {shifted:.0f} m"
                yield _problem(sites, 1, "longitude, latitude", told, "another datum")


_FAR = "elevation far from the elevation model"


def _check_permafrost(_study, sites, _intervals):
    frame = sites.frame
    table, base = frame["permafrost_table_m"], frame["permafrost_base_m"]
    yield from _found(sites, base <= table, "permafrost_base_m", "inverted permafrost")
    for name in ("permafrost_table_m", "permafrost_base_m"):
        without = frame[name].notna() & frame["permafrost"].isin(("no", "unknown"))
        yield from _found(sites, without, name, "depth without permafrost")
    pit = (frame["method"] == "pit") & (frame["depth_reached_m"] > DEEPEST_PIT)
    yield from _found(sites, pit, "depth_reached_m", "pit deeper than 10 m")
    yield from _found(sites, table > frame["depth_reached_m"] + _SLACK, "permafrost_table_m", "table below the hole")
    silent = table.isna() & (sites.text["permafrost_table_m"] == "") & (frame["permafrost"] == "yes")
    if "permafrost_table_m" in sites.header:
        yield from _found(sites, silent, "permafrost_table_m", "no permafrost table")


def _check_intervals(_study, sites, intervals):
    frame, holes = intervals.frame, sites.frame.drop_duplicates("site_id").set_index("site_id")
    depth = frame["site_id"].map(holes["depth_reached_m"])
    if "site_id" not in sites.missing:
        stray = ~frame["site_id"].isin(holes.index) & (frame["site_id"] != "")
        yield from _found(intervals, stray, "site_id", "interval without site")
    yield from _found(intervals, frame["bottom_m"] <= frame["top_m"], "bottom_m", "inverted interval")
    yield from _found(intervals, _overlapping(frame), "top_m", "overlapping intervals")
    none = (frame["ice_type"] == 0) & (frame["frozen"] == "yes") & frame["ice_content"].isna()
    yield from _found(intervals, none, "ice_type", "unknown ice type")
    for name in ("ice_content", "ice_type"):
        yield from _found(intervals, (frame[name] > 0) & (frame["frozen"] == "no"), name, "ice in unfrozen ground")
    # Ice that would fill more than the ground, even without any unfrozen water: density and water do not go together.
    full = frame["ice_content"].isna() & (frame["dry_density"] * frame["water_content"] > 1.1 * ICE_DENSITY)
    yield from _found(intervals, full, "water_content", "too much water for the dry density")
    wet = (frame["water_content"] > MOST_WATER_IN_MINERAL_SOIL) & (frame["water_content"] <= MOST_WATER)
    wet &= (frame["texture"] != "peat") & ~full
    yield from _found(intervals, wet, "water_content", "much water for a mineral soil")
    yield from _found(intervals, frame["bottom_m"] > depth + _SLACK, "bottom_m", "interval below the hole")


def _overlapping(frame):
    """Return which intervals begin above the deepest bottom of those that lie higher at the same site."""
    valid = frame[(frame["bottom_m"] > frame["top_m"]) & (frame["site_id"] != "")]
    valid = valid.sort_values(["site_id", "top_m", "bottom_m"], kind="stable")
    deepest = valid.groupby("site_id")["bottom_m"].cummax().groupby(valid["site_id"]).shift()
    return (valid["top_m"] < deepest - _SLACK).reindex(frame.index, fill_value=False)


CHECKS = [
    _understand,
    _convert_units,
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
