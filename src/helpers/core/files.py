"""Files that are whole or not there: written aside and renamed; JSON, CSV, hashes."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np


def write_table(path, table):
    """Write a table as CSV; an old file is replaced only by a whole new one.

    Parameters
    ----------
    path : path-like
    table : pandas.DataFrame
        Its index is left out.
    """
    write_text(path, table.to_csv(index=False))


def write_json(path, value):
    """Write a value as JSON; an old file is replaced only by a whole new one. NaN becomes null.

    Parameters
    ----------
    path : path-like
    value : dict or list
        May hold numpy numbers and arrays.
    """
    write_text(path, json.dumps(to_json_value(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_tables(path, table, keys):
    """Write a table as CSV, and as JSON nested by the values of some of its columns.

    Parameters
    ----------
    path : path-like
        Without a suffix.
    table : pandas.DataFrame
    keys : sequence of str
        Columns, the outermost first; together they must be different in every row.

    Returns
    -------
    dict
        As written to the JSON file: the other columns by the keys' values.
    """
    record = {}
    for row in table.to_dict("records"):
        *outer, last = [str(row.pop(name)) for name in keys]
        place = record
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = row
    write_table(f"{path}.csv", table)
    write_json(f"{path}.json", record)
    return record


def to_json_value(value):
    """Return a value of plain Python types, with None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json_value(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short_hash(value, length=10):
    """Return the first `length` hexadecimal digits of the SHA-256 of any JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def write_text(path, text):
    """Write a text file under a temporary name and rename it, so that a whole file is there or the old one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def file_hash(path):
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
