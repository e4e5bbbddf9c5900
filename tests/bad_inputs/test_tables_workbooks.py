"""Excel files that would be read wrongly without a word, or that would fill the memory."""

import zipfile

import pandas as pd
import pytest
from refusals import assert_refused

from helpers.samples.columns import SampleError
from helpers.samples.readers import read_table

SITES = pd.DataFrame(
    {
        "site_id": ["A", "B"],
        "longitude": [122.5, 122.0],
        "latitude": [52.5, 50.5],
        "depth_reached_m": [12.0, 2.4],
        "permafrost": ["yes", "no"],
        "permafrost_table_m": [1.5, None],
    }
)
CALL = {"file": "book.xlsx", "kind": "sites", "epsg": 4326}


def write(path, sheets, hidden=(), change=lambda sheet: None):
    """Write sheets of `SITES` by their names, some of them hidden."""
    with pd.ExcelWriter(path, engine="xlsxwriter") as book:
        for name in sheets:
            SITES.to_excel(book, sheet_name=name, index=False)
            change(book.sheets[name])
            if name in hidden:
                book.sheets[name].hide()


def replace(path, member, old, new):
    """Change the text of one part of a workbook."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    assert old in parts[member]
    parts[member] = parts[member].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, data in parts.items():
            book.writestr(name, data)


def formula(value):
    """Return a function that puts a formula with a stored value into cell F2."""
    return lambda sheet: sheet.write_formula("F2", "=1+0.5", None, value)


@pytest.mark.parametrize("stored", [b"<v></v>", b"<v/>", b""])
def test_a_formula_without_a_value_is_named(tmp_path, stored):
    write(tmp_path / "book.xlsx", ["sites"], change=formula(1.5))
    replace(tmp_path / "book.xlsx", "xl/worksheets/sheet1.xml", b"</f><v>1.5</v>", b"</f>" + stored)
    parts = "book.xlsx, sheet sites, cell F2: formulas without", "save it"
    assert_refused(
        lambda: read_table(tmp_path / "book.xlsx", **CALL), tmp_path, SampleError, *parts
    )


def test_a_formula_that_gives_an_error_is_named(tmp_path):
    write(tmp_path / "book.xlsx", ["sites"], change=formula("#DIV/0!"))
    call = lambda: read_table(tmp_path / "book.xlsx", **CALL)  # noqa: E731
    assert_refused(call, tmp_path, SampleError, "cell F2")


@pytest.mark.parametrize("stored", ["1.5", ""])
def test_the_stored_text_of_a_formula_is_read(tmp_path, stored):
    write(tmp_path / "book.xlsx", ["sites"], change=formula("x"))
    new = f"<v>{stored}</v>".encode()
    replace(tmp_path / "book.xlsx", "xl/worksheets/sheet1.xml", b"<v>x</v>", new)
    table = read_table(tmp_path / "book.xlsx", **CALL)
    assert table.text.loc[2, "permafrost_table_m"] == stored


def test_a_hidden_sheet_of_the_right_name_is_not_used(tmp_path):
    write(tmp_path / "book.xlsx", ["sites 2024", "sites"], hidden=["sites"])
    parts = "hidden sheet 'sites'", "'sites 2024'", "show the sheet"
    assert_refused(
        lambda: read_table(tmp_path / "book.xlsx", **CALL), tmp_path, SampleError, *parts
    )


def test_a_hidden_sheet_beside_a_visible_one_of_the_right_name_does_no_harm(tmp_path):
    write(tmp_path / "book.xlsx", ["sites", "old"], hidden=["old"])
    assert len(read_table(tmp_path / "book.xlsx", **CALL).text) == 2


def test_a_cell_far_away_is_refused(tmp_path):
    far = lambda sheet: sheet.write("XFD1048576", 1)  # noqa: E731
    write(tmp_path / "book.xlsx", ["sites"], change=far)
    parts = "book.xlsx, sheet sites: the cell XFD1048576", "delete the cells"
    assert_refused(
        lambda: read_table(tmp_path / "book.xlsx", **CALL), tmp_path, SampleError, *parts
    )


def test_a_claimed_extent_without_cells_does_no_harm(tmp_path):
    write(tmp_path / "book.xlsx", ["sites"])
    member = "xl/worksheets/sheet1.xml"
    replace(tmp_path / "book.xlsx", member, b'ref="A1:F3"', b'ref="A1:XFD1048576"')
    assert len(read_table(tmp_path / "book.xlsx", **CALL).text) == 2


def test_a_zip_bomb_is_refused(tmp_path):
    write(tmp_path / "book.xlsx", ["sites"])
    with zipfile.ZipFile(tmp_path / "book.xlsx", "a", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/media/a.xml", bytes(201_000_000))
    parts = "book.xlsx unpacks to 201 MB", "save it as CSV"
    assert_refused(
        lambda: read_table(tmp_path / "book.xlsx", **CALL), tmp_path, SampleError, *parts
    )


@pytest.mark.parametrize("member", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_a_damaged_workbook_is_no_table(tmp_path, member):
    write(tmp_path / "book.xlsx", ["sites"])
    replace(tmp_path / "book.xlsx", member, b"</sheet", b"</shee")
    parts = "book.xlsx is not readable as a table", "save it as"
    assert_refused(
        lambda: read_table(tmp_path / "book.xlsx", **CALL), tmp_path, SampleError, *parts
    )
