"""Excel workbooks, looked at before they are read: size, hidden sheets, formulas without a value.

The reader takes memory for all cells up to the last one, gives a formula that was never computed
as a blank, and does not say which sheets are hidden.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from helpers.core.errors import listed
from helpers.samples.columns import SampleError

_MOST_BYTES = 200_000_000  # of a workbook when unpacked; a million full cells have some 50 MB

_MOST_CELLS = 5_000_000  # from A1 to the last cell of a sheet; each takes some 100 bytes

_PLACE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")


@dataclass(frozen=True)
class Workbook:
    """An xlsx file: its sheets, and where they are in the file; none of an old xls file."""

    path: Path
    hidden: frozenset[str]
    members: dict[str, str]  # by the sheet's name

    def refuse_hidden(self, names: Sequence[str]) -> None:
        """Raise SampleError if one of the sheets is hidden."""
        if hidden := [name for name in names if name in self.hidden]:
            visible = [name for name in self.members if name not in self.hidden]
            raise SampleError(
                f"{self.path.name} has a hidden sheet '{hidden[0]}' beside the visible "
                f"{listed([repr(name) for name in visible])}.",
                "show the sheet if it is the one to read, else delete it or rename it",
            )

    def refuse_unreadable(self, name: str) -> None:
        """Raise SampleError if a sheet is too large, or has formulas without a stored value."""
        if name not in self.members:
            return
        rows, columns, last, blank = 0, 0, "", []
        for place, column, row, formula in _filled_cells(self.path, self.members[name]):
            if row > rows or column > columns:
                last = place
            rows, columns = max(row, rows), max(column, columns)
            if formula:
                blank.append(place)
        where = f"{self.path.name}, sheet {name}"
        if rows * columns > _MOST_CELLS:
            raise SampleError(
                f"{where}: the cell {last} makes it {rows} rows by {columns} columns.",
                "delete the cells far from the table (Ctrl+End shows the last), and save it",
            )
        if blank:
            raise SampleError(
                f"{where}, cell{'s' if len(blank) > 1 else ''} {listed(blank)}: formulas without "
                "a stored value.",
                "open it in a spreadsheet program and save it, or paste the values",
            )


def open_workbook(path: Path) -> Workbook:
    """Return what an Excel file says of its sheets.

    SampleError if it is larger, when unpacked, than any field table; other errors if damaged.
    """
    if not zipfile.is_zipfile(path):
        return Workbook(path, frozenset(), {})
    with zipfile.ZipFile(path) as book:
        size = sum(member.file_size for member in book.infolist())
        if size > _MOST_BYTES:
            raise SampleError(
                f"{path.name} unpacks to {size / 1e6:.0f} MB, far more than a field table.",
                "copy the table into a new workbook, or save it as CSV (UTF-8)",
            )
        if damaged := book.testzip():  # also where a member is larger than it says
            raise ValueError(f"its part {damaged} is damaged")
        sheets = list(ElementTree.fromstring(book.read("xl/workbook.xml")).iterfind(".//{*}sheet"))
        links = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    targets = {link.get("Id"): posixpath.join("/xl", link.get("Target", "")) for link in links}
    hidden = {sheet.get("name", "") for sheet in sheets if "idden" in sheet.get("state", "")}
    members = {}
    for sheet in sheets:
        key = next((value for name, value in sheet.items() if name.endswith("}id")), "")
        members[sheet.get("name", "")] = posixpath.normpath(targets[key]).lstrip("/")
    return Workbook(path, frozenset(hidden), members)


def _filled_cells(path: Path, member: str) -> Iterator[tuple[str, int, int, bool]]:
    """Yield place, column and row of each cell that holds something.

    And whether that is a formula without a value.
    """
    with zipfile.ZipFile(path) as book, book.open(member) as stream:
        row = column = 0
        for event, element in ElementTree.iterparse(stream, ("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if tag == "row" and event == "start":
                row, column = int(element.get("r", row + 1)), 0
            elif tag == "row":
                element.clear()
            elif tag == "c" and event == "end":
                place = element.get("r", "")
                if found := _PLACE.fullmatch(place):
                    column, row = _number(found[1]), int(found[2])
                else:
                    column += 1
                    place = f"{column}. of row {row}"
                if len(element):
                    yield place, column, row, _is_uncomputed(element)


def _number(letters: str) -> int:
    """Return the number of a column, from 1, by its letters."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number


def _is_uncomputed(cell: ElementTree.Element) -> bool:
    """Return whether a cell has a formula, but no value or an error for one.

    A text that a formula leaves empty is a value.
    """
    if cell.find("{*}f") is None or cell.get("t") == "str":
        return False
    return cell.get("t") == "e" or not cell.findtext("{*}v")
