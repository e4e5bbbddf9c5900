"""Field tables as CSV, Excel or GeoPackage, read as text."""

import csv
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pandas as pd

from helpers.core.errors import listed
from helpers.samples.columns import COLUMNS, KINDS, SampleError
from helpers.samples.workbooks import open_workbook

if TYPE_CHECKING:
    import geopandas

Problem = dict[str, Any]
"""A row of the problems table; its severity follows from its kind and the study."""

_EMPTY = ("", "na", "n/a", "nan", "null", "none", "-", "--", "/", "—", "无数据")

_SHEETS = {"sites": ("钻孔", "孔位", "点位"), "intervals": ("岩芯", "岩心", "分层")}

_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " "}

_RAISED = str.maketrans("³⁻", "3-")

_HEAD_ROWS = 10  # of a sheet, among which the header is: a title may stand above it

_SAME_PLACE = 0.02  # degrees; datums of China differ by less, also the shifted ones

_NEAR_CHINESE = 0.66  # likeness of headers: two characters of three, where a letter says less

_SUFFIX = re.compile(r"[\s_](cm|pct|percent|%)$", re.IGNORECASE)

_AFTER_SLASH = re.compile(r"\s*/\s*(|%|cm|m|℃|°C|g/g|m3/m3|k?g[/·. ]?c?m-?3)$", re.IGNORECASE)

_IN_BRACKETS = re.compile(r"\s*[\[(](.*?)[\])]")


@dataclass
class RawTable:
    """A field table, indexed by the row in the file.

    `text` has all columns of `COLUMNS`, then the others of the file, as they were typed; `frame`
    has numbers and words in their place, as far as checks have converted them.
    """

    kind: str  # "sites" or "intervals"
    file: str  # its name in messages
    crs: str  # of its coordinates, before they were brought to that of the study's tables
    text: pd.DataFrame
    frame: pd.DataFrame
    header: list[str]  # columns of the file
    typed: dict[str, str]  # headers as the file has them, by the column
    units: dict[str, str]  # in brackets after the name of a column
    overlong: dict[int, list[str]]  # values beyond the last column, by row

    @property
    def missing(self) -> list[str]:
        """Columns that the table must have and has not."""
        needed = [column.name for column in COLUMNS[self.kind] if column.need != "optional"]
        return [name for name in needed if name not in self.header]

    @property
    def spare(self) -> list[str]:
        """Columns of the file that no table has."""
        names = {column.name for column in COLUMNS[self.kind]}
        return sorted(set(self.header) - names - {""})

    def problem(
        self, column: str, kind: str, value: str = "", row: int = 1, remedy: str | None = None
    ) -> Problem:
        """Return a problem of one row, or of a whole column: it stands at the header, row 1."""
        what = {"file": self.file, "row": row, "column": column, "value": value, "kind": kind}
        what["header"] = ", ".join(map(self.header_of, column.split(", ")))
        remedy = self.in_own_words(remedy or KINDS[kind].remedy)
        return what | {"problem": KINDS[kind].problem, "remedy": remedy}

    def header_of(self, name: str) -> str:
        """Return the file's header of a column; of one that it lacks a name in its language."""
        if name in self.typed:
            return self.typed[name]
        chinese = any(not typed.isascii() for typed in self.typed.values())
        return next(iter(_chinese_names(self.kind, name)), name) if chinese else name

    def in_own_words(self, text: str) -> str:
        """Return a text that names columns, each with the file's own header after its name."""
        names = "|".join(column.name for column in COLUMNS[self.kind] if "_" in column.name)
        names += "|frozen|permafrost"  # words, of which these two stand in remedies as columns

        def named(found: re.Match[str]) -> str:
            return named_column(found[0], self.header_of(found[0]))

        return re.sub(rf"(?<![\w'])({names})(?!\w)(?! \(')", named, text)

    def unused_like(self, name: str, cutoff: float) -> str:
        """Return the unused header that is most like a column's name, also a Chinese one; or ""."""
        near = nearest([name], self.spare, cutoff)
        near = near or nearest(_chinese_names(self.kind, name), self.spare, _NEAR_CHINESE)
        return self.typed.get(near, near)

    def column_like(self, header: str, cutoff: float) -> str:
        """Return the optional column that the file lacks and an unused header may mean; or ""."""
        columns = [one for one in COLUMNS[self.kind] if one.need == "optional"]
        lacking = {one.name: one.name for one in columns if one.name not in self.header}
        if near := nearest([header], sorted(lacking), cutoff):
            return near
        chinese = {also: name for name in lacking for also in _chinese_names(self.kind, name)}
        near = nearest([header], list(chinese), _NEAR_CHINESE)
        return named_column(chinese[near], near) if near else ""

    def problems_where(
        self, where: npt.ArrayLike, column: str, kind: str, remedy: str | None = None
    ) -> list[Problem]:
        """Return a problem for each row where a condition holds."""
        typed = self.text.loc[where, column]
        return [self.problem(column, kind, value, row, remedy) for row, value in typed.items()]


def named_column(column: str, header: str) -> str:
    """Return a column's name, with the file's own header where that is another word.

    Examples
    --------
    >>> named_column("longitude", "Longitude"), named_column("longitude", "Lon")
    ('longitude', "longitude ('Lon')")
    """
    return column if header.strip().lower() == column.lower() else f"{column} ('{header}')"


def _chinese_names(kind: str, name: str) -> list[str]:
    """Return the Chinese headers that mean a column."""
    columns = (column for column in COLUMNS[kind] if column.name == name)
    return [also for column in columns for also in column.aliases if not also.isascii()]


def nearest(names: Iterable[str], others: list[str], cutoff: float) -> str:
    """Return the other name that is most like the first of the names that is like any; or none.

    Examples
    --------
    >>> nearest(["Longitud", "x"], ["latitude", "longitude"], cutoff=0.6)
    'longitude'
    """
    near = (difflib.get_close_matches(name, others, n=1, cutoff=cutoff) for name in names)
    return next((match for matches in near for match in matches), "")


def read_table(path: Path, file: str, kind: str, epsg: int) -> RawTable:
    """Read one field table as text, whatever its format; `file` is its name in messages.

    Points of a GeoPackage become coordinates in the system that the study gives for its tables; its
    columns of coordinates are not used then.

    Raises
    ------
    SampleError
        The file is missing, empty or no table, or two of its columns mean the same.
    """
    if not path.is_file():
        raise SampleError(
            f"The table of {kind}, {file}, does not exist.",
            f"name your table as samples.{kind} in the study file (data/samples/ has a template), "
            "or run the notebook that writes it",
        )
    remedy = "save it as CSV (UTF-8), Excel (xlsx) or GeoPackage; data/samples/ has templates"
    try:
        records, crs = _records(path, kind, epsg)
    except SampleError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise, it is no table
        reason = " ".join(str(error).split())
        raise SampleError(f"{file} is not readable as a table: {reason}", remedy) from None
    if not any(map(any, records)):
        raise SampleError(f"{file} is empty.", remedy)
    first = _header_row(records, kind)[0] + 1
    typed = records[first - 1]
    plain = [_plain_header(name) for name in typed]
    # Beside a column of names, such as site_id, its aliases are other columns: a point's number.
    given = {one.name for one in COLUMNS[kind] if one.kind == "text" and one.name in plain}
    names = {alias: name for alias, name in _aliases(kind).items() if name not in given}
    header = [names.get(name, name) for name in plain]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        message = f"{file} has two columns for {', '.join(twice)}."
        raise SampleError(message, "delete or rename one of them")
    lines = {row: line for row, line in enumerate(records, 1) if row > first and any(line)}
    width = len(header)
    overlong = {row: line[width:] for row, line in lines.items() if any(line[width:])}
    units = dict(zip(header, map(_unit, typed), strict=True))
    as_typed = dict(zip(header, typed, strict=True))
    text = _as_text(lines, header, kind)
    return RawTable(kind, file, crs, text, text.astype(object), header, as_typed, units, overlong)


def _aliases(kind: str) -> dict[str, str]:
    """Return the name of each column of a kind of table by all headers that mean it."""
    return {
        alias: column.name
        for column in COLUMNS[kind]
        for alias in (column.name, column.name.removesuffix("_m"), *column.aliases)
    }


def _header_row(records: Sequence[Sequence[str]], kind: str) -> tuple[int, int]:
    """Return which row names the most columns of a kind of table, from 0, and how many.

    The first that has a value, if none names any.
    """
    known = _aliases(kind)
    filled = [row for row, line in enumerate(records) if any(line)][:_HEAD_ROWS]
    named = {row: len(known.keys() & set(map(_plain_header, records[row]))) for row in filled}
    best = max(filled, key=lambda row: (named[row], -row), default=0)
    return best, named.get(best, 0)


def read_places(path: Path, epsg: int) -> pd.DataFrame:
    """Return a table of places with `longitude`, `latitude` and all other columns, as text.

    The index has the row in the file. SampleError as from `read_table`, or if it has no
    coordinates.
    """
    table = read_table(path, path.name, "sites", epsg)
    if missing := {"longitude", "latitude"} & set(table.missing):
        raise SampleError(
            f"{path.name} has no column {' and '.join(sorted(missing))}, but "
            f"{', '.join(filter(None, table.header))}.",
            "rename the columns of the coordinates",
        )
    return table.text[list(filter(None, table.header))]


def _as_text(lines: dict[int, list[str]], header: list[str], kind: str) -> pd.DataFrame:
    """Return rows as a table of text with all columns of its kind."""
    rows = {row: dict(zip(header, line, strict=False)) for row, line in lines.items()}
    columns = dict.fromkeys([*(column.name for column in COLUMNS[kind]), *filter(None, header)])
    text = pd.DataFrame.from_dict(rows, orient="index", dtype=object).reindex(columns=list(columns))
    text = text.astype(object).where(text.notna(), "").astype(str)
    for name in text.columns.drop("site_id"):
        text[name] = text[name].mask(text[name].str.lower().isin(_EMPTY), "")
    return text


def _records(path: Path, kind: str, epsg: int) -> tuple[list[list[str]], str]:
    """Return the cells of a table, line by line, and the CRS of its coordinates."""
    match path.suffix.lower():
        case ".gpkg":
            return _geopackage_records(path, kind, epsg)
        case ".xlsx" | ".xls":
            return _excel_records(path, kind), f"EPSG:{epsg}"
        case _:
            return csv_records(path), f"EPSG:{epsg}"


def csv_records(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, line by line, in any usual encoding and separator.

    An error of any class if it is none.
    """
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
    # A blank line or a title may stand above the header.
    head = next((line for line in text.splitlines() if set(",;\t") & set(line)), "")
    separator = max(",;\t", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    return [[_plain(value) for value in line] for line in lines]


def _excel_records(path: Path, kind: str) -> list[list[str]]:
    workbook = open_workbook(path)
    with pd.ExcelFile(path, engine="calamine") as book:
        visible = [name for name in book.sheet_names if name not in workbook.hidden]
        name = _sheet_of(kind, visible)
        names = [name] if name else visible
        if not name:
            workbook.refuse_hidden([_sheet_of(kind, book.sheet_names)])
        for one in names:
            workbook.refuse_unreadable(one)
        look = {"header": None, "dtype": object, "na_filter": False}
        sheets = [pd.read_excel(book, sheet_name=one, **look) for one in names]
    tables = [
        [[_cell(value) for value in row] for row in sheet.itertuples(index=False)]
        for sheet in sheets
    ]
    return max(tables, key=lambda records: _header_row(records, kind)[1])


def _geopackage_records(path: Path, kind: str, epsg: int) -> tuple[list[list[str]], str]:
    import geopandas

    names = geopandas.list_layers(path)["name"].tolist()
    layer = _sheet_of(kind, names) or names[0]
    frame = geopandas.read_file(path, layer=layer)
    table, crs = pd.DataFrame(frame), f"EPSG:{epsg}"
    if isinstance(frame, geopandas.GeoDataFrame):
        table = table.drop(columns=frame.geometry.name)
        place = _coordinate_columns(table)
        if frame.crs is not None:
            points, crs = frame.geometry.to_crs(epsg), frame.crs.to_wkt()
            _refuse_other_places(path.name, frame, place)
            table = table.drop(columns=place.columns)
            table["longitude"], table["latitude"] = points.x, points.y
        elif place.shape[1] < 2:
            raise SampleError(
                f"{path.name}, layer {layer}: it has no coordinate system.",
                "define its projection in your GIS, and save it again",
            )
    table = table.astype(object).where(table.notna(), "")
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return [[_plain(name) for name in table.columns], *rows], crs


def _coordinate_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table whose headers mean longitude and latitude, in this order."""
    headers = {_plain_header(name): name for name in table.columns}
    wanted = [one for one in COLUMNS["sites"] if one.name in ("longitude", "latitude")]
    named = ([headers.get(name) for name in (one.name, *one.aliases)] for one in wanted)
    return table[[name for names in named for name in names if name is not None]]


def _refuse_other_places(file: str, frame: "geopandas.GeoDataFrame", place: pd.DataFrame) -> None:
    """Raise SampleError where columns in degrees are not where the points of a layer are.

    Columns in any other system, such as metres, are not compared.
    """
    if place.shape[1] != 2:
        return
    typed = place.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    points = frame.geometry.to_crs(4326)
    degrees = (abs(typed[:, 0]) <= 180) & (abs(typed[:, 1]) <= 90)
    away = abs(typed - list(zip(points.x, points.y, strict=True))).max(axis=1)
    if (far := degrees & (away > _SAME_PLACE)).any():
        rows = listed((far.nonzero()[0] + 2).tolist())
        raise SampleError(
            f"{file}, rows {rows}: the points of the layer lie elsewhere than its columns "
            f"{' and '.join(place.columns)} say.",
            "correct the layer's coordinate system, or delete the columns that are wrong",
        )


def _sheet_of(kind: str, names: Sequence[str]) -> str:
    """Return the name of the sheet or layer that says that it holds a kind of table; or nothing."""
    by_header = {_plain_header(name): name for name in names}
    return next((by_header[name] for name in (kind, *_SHEETS[kind]) if name in by_header), "")


def _cell(value: Any) -> str:
    """Return a spreadsheet's value as it would be typed."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if hasattr(value, "isoformat"):
        return value.isoformat().split("T")[0]
    return _plain(value)


def _plain(value: Any) -> str:
    """Return a cell's text without spaces around it and with half-width signs."""
    return str(value).translate(_HALF_WIDTH).strip()


def _plain_header(name: str) -> str:
    """Return a header in small letters, with underscores for spaces and without its unit."""
    bare = _IN_BRACKETS.sub("", _plain(name).translate(_RAISED)).strip()
    bare = _SUFFIX.sub("", _AFTER_SLASH.sub("", bare))
    return re.sub(r"[\s-]+", "_", bare.lower())


def _unit(header: str) -> str:
    """Return the unit after a column's name: ``depth (cm)``, ``depth/cm``, ``depth_cm``; or ``""``.

    Percent is ``%``, however it is written.
    """
    text = _plain(header).translate(_RAISED)
    rules = (_IN_BRACKETS, _AFTER_SLASH, _SUFFIX)
    unit = next((found[1] for rule in rules if (found := rule.search(text))), "").lower()
    return re.sub(r"[\s·^]", "", re.sub("^(pct|percent)$", "%", unit))
