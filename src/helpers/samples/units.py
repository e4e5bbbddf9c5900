"""From text to numbers in the usual units."""

import contextlib
import re
from datetime import datetime

import numpy as np
import pandas as pd

from helpers.core.ice import ICE_DENSITY
from helpers.samples.columns import (
    COLUMNS,
    EXAMPLE,
    KINDS,
    TEXTURES,
    WORDS,
    ice_type_code,
    make_problem,
    problems_where,
)

_MOST = 0.8  # of a column's values must tell of a unit before all are converted


_COMMA = re.compile(r"[+-]?\d+,\d+")


_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


_DEGREES = re.compile(
    r"([NSEW东西南北]?)\s*(\d{1,3})(?:\s*[°º度]\s*|\s+)(?:(\d{1,2}(?:\.\d+)?)(?:\s*['′’分]\s*|\s+|$))?"
    r"(?:(\d{1,2}(?:\.\d+)?)\s*(?:\"|″|”|''|′′|秒)?\s*)?([NSEW东西南北]?)",
    re.IGNORECASE,
)


# --- Understanding: text becomes numbers, and units the usual ones -------------------------------------------


def to_numbers(_study, *tables):
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
                yield from problems_where(table, unknown, column.name, "unknown ice type")
            elif column.kind == "date":
                dates = {typed: _iso_date(typed) for typed in text.unique()}
                table.frame[column.name] = text.map(dates)
                unreadable = (text != "") & (table.frame[column.name] == "")
                yield from problems_where(table, unreadable, column.name, "unreadable date")
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
        yield make_problem(table, row, name, typed, kind or "not a number", told)
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


def _iso_date(text):
    """Return a date as year-month-day, and an empty text for anything else or a day that has not come."""
    plain = re.sub(r"[年月./]", "-", text.replace("日", ""))
    for form in ("%Y%m%d",) if re.fullmatch(r"\d{8}", plain) else ("%Y-%m-%d", "%Y-%m", "%Y"):
        with contextlib.suppress(ValueError):
            date = datetime.strptime(plain, form)
            return date.strftime("%Y-%m-%d") if datetime(1900, 1, 1) <= date <= datetime.now() else ""
    return ""


def convert_units(_study, sites, intervals):
    """Bring percent to fractions, centimetres to metres, g cm-3 to kg m-3: by the header, or where a column tells."""
    yield from _convert_centimetres(sites, intervals)
    frame = intervals.frame
    low = frame["dry_density"].between(0, 10, inclusive="neither")
    frame["dry_density"] = frame["dry_density"].mask(low, frame["dry_density"] * 1000)
    if low.any() and low.sum() >= _MOST * frame["dry_density"].notna().sum():
        told = f"median {frame.loc[low, 'dry_density'].median() / 1000:g}"
        yield make_problem(intervals, 1, "dry_density", told, "dry density in another unit")
    else:
        yield from problems_where(intervals, low, "dry_density", "dry density in another unit")
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
            yield make_problem(intervals, 1, name, f"median {values.median():g}", "content in percent")


def _convert_centimetres(sites, intervals):
    """Bring depths to metres: by the unit in the header, or where tables, holes and cores leave no doubt."""
    # Rows of the template tell nothing of the others.
    own = sites.frame[~sites.frame["site_id"].str.lower().str.startswith(EXAMPLE)]
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
            yield make_problem(sites, 1, "depth_reached_m", f"median {depth.median():g}", "unclear unit of depths")
    ratio = ratio * 100 if shrunk else ratio
    for name in ("top_m", "bottom_m"):
        unit = intervals.units.get(name)
        if unit == "cm" or (not unit and ratio > 30):
            yield _in_metres(intervals, name)


def _in_metres(table, name):
    values = table.frame[name]
    table.frame[name] = values / 100
    return make_problem(table, 1, name, f"median {values.median():g}", "depths in centimetres")
