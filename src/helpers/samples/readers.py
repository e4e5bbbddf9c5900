"""Field tables as CSV, Excel or GeoPackage, read as text."""

import csv
import io
import re
from dataclasses import dataclass

import pandas as pd

from helpers.core.errors import listed
from helpers.samples.columns import COLUMNS, EMPTY, IN_BRACKETS, SampleError, plain_header, plain_text

# --- Files -------------------------------------------------------------------------------------------------


@dataclass
class RawTable:
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
        """Columns that the table should have and has not."""
        return [c.name for c in COLUMNS[self.kind] if c.need != "optional" and c.name not in self.header]


def read_table(path, file, kind):
    """Read one field table as text, whatever its format; raise SampleError if it cannot be read."""
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
    header = [known.get(name, name) for name in map(plain_header, records[first])]
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
            text[name] = text[name].mask(text[name].str.lower().isin(EMPTY), "")
    return RawTable(kind, file, text, text.copy().astype(object), header, units, overlong)


def _unit(header):
    """Return the unit that stands in brackets after a column's name, and an empty text where there is none."""
    found = IN_BRACKETS.search(plain_text(header))
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
        [plain_text(v) for v in line]
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    ]


def _excel_records(path, kind):
    with pd.ExcelFile(path, engine="calamine") as book:
        names = {plain_header(name): name for name in book.sheet_names}
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
    return plain_text(value)


def _geopackage_records(path, kind):
    import geopandas
    import pyogrio

    layers = {plain_header(name): name for name, _ in pyogrio.list_layers(path)}
    named = [layers[name] for name in (kind, *_SHEETS[kind]) if name in layers]
    frame = geopandas.read_file(path, layer=named[0] if named else next(iter(layers.values())))
    table = pd.DataFrame(frame)
    if isinstance(frame, geopandas.GeoDataFrame):
        table = table.drop(columns=frame.geometry.name)
        given = {alias for c in COLUMNS[kind] if c.name == "longitude" for alias in (c.name, *c.aliases)}
        if not given & set(map(plain_header, table.columns)):
            points = frame.geometry.to_crs(4326) if frame.crs else frame.geometry
            table["longitude"], table["latitude"] = points.x, points.y
    table = table.astype(object).where(table.notna(), "")
    return [list(map(plain_text, table.columns)), *([_cell(v) for v in row] for row in table.itertuples(index=False))]


_READERS = {".xlsx": _excel_records, ".xls": _excel_records, ".gpkg": _geopackage_records}


# --- Problems ----------------------------------------------------------------------------------------------


def refuse_table(errors):
    """Raise SampleError with all errors of the tables, if there are any."""
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
