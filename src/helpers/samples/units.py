"""From text to numbers in the usual units."""

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pandas as pd

from helpers.core.ice import ICE_DENSITY
from helpers.core.study import Study
from helpers.samples.columns import COLUMNS, EXAMPLE, KINDS, TEXTURES, WORDS, ice_type_code
from helpers.samples.readers import Problem, RawTable

_MOST = 0.8  # of a column's values must be in another unit before all are converted

_DEEP = 20.0  # m; cores of permafrost surveys seldom come from deeper

_MOST_WATER = 3.0  # fraction of the dry mass; mineral soil holds more only as excess ice

_COMMA = re.compile(r"[+-]?\d+,\d+")

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")

_DEGREES = re.compile(
    r"([NSEW东西南北]?)\s*(\d{1,3})(?:\s*[°º度]\s*|\s+)"
    r"(?:(\d{1,2}(?:\.\d+)?)(?:\s*['′’分]\s*|\s+|$))?"
    r"(?:(\d{1,2}(?:\.\d+)?)\s*(?:\"|″|”|''|′′|秒)?\s*)?([NSEW东西南北]?)",
    re.IGNORECASE,
)


def to_numbers(_study: Study, *tables: RawTable) -> Iterator[Problem]:
    """Turn text into numbers, words and dates; convert what can only be meant one way."""
    for table in tables:
        for column in COLUMNS[table.kind]:
            name, text = column.name, table.text[column.name]
            match column.kind:
                case "number" | "depth":
                    yield from _to_floats(table, name)
                case "word":
                    words = {also: word for word, more in WORDS[name].items() for also in more}
                    table.frame[name] = text.str.lower().replace(words)
                case "ice type":
                    table.frame[name] = text.map(ice_type_code).astype(float)
                    unknown = (text != "") & table.frame[name].isna()
                    yield from table.problems_where(unknown, name, "unknown ice type")
                case "date":
                    table.frame[name] = text.map(_iso_date)
                    unreadable = (text != "") & (table.frame[name] == "")
                    yield from table.problems_where(unreadable, name, "unreadable date")
    intervals = tables[1]
    typed = intervals.text["texture"].str.lower()
    for texture, words in reversed(TEXTURES.items()):
        named = typed.str.contains(words)
        intervals.frame["texture"] = intervals.frame["texture"].mask(named, texture)


def _to_floats(table: RawTable, name: str) -> Iterator[Problem]:
    text = table.text[name]
    values = pd.to_numeric(text, errors="coerce").astype(float)
    values = values.where(np.isfinite(values))
    for row in text.index[(text != "") & values.isna()]:
        typed, kind = text[row], "not a number"
        if _COMMA.fullmatch(typed) and not (name == "elevation_m" and _THOUSANDS.fullmatch(typed)):
            values[row], kind = float(typed.replace(",", ".")), "decimal comma"
        elif name in ("longitude", "latitude") and (degrees := _decimal_degrees(typed)) is not None:
            values[row], kind = degrees, "degrees, minutes, seconds"
        read = f"read as {values[row]:.10g}; " if kind != "not a number" else ""
        yield table.problem(name, kind, typed, row, read + KINDS[kind].remedy)
    table.frame[name] = values


def _decimal_degrees(text: str) -> float | None:
    parts = _DEGREES.fullmatch(text)
    if not parts:
        return None
    before, degrees, minutes, seconds, after = parts.groups()
    minutes, seconds = float(minutes or 0), float(seconds or 0)
    if minutes >= 60 or seconds >= 60:
        return None
    sign = -1 if (before + after).upper() in ("S", "W", "南", "西") else 1
    return sign * (float(degrees) + minutes / 60 + seconds / 3600)


def _iso_date(text: str) -> str:
    """Return a date as year-month-day; empty for anything else or a day that has not come."""
    plain = re.sub(r"[年月./]", "-", text.replace("日", ""))
    forms = ("%Y%m%d",) if re.fullmatch(r"\d{8}", plain) else ("%Y-%m-%d", "%Y-%m", "%Y")
    for form in forms:
        with contextlib.suppress(ValueError):
            date = datetime.strptime(plain, form)
            past = datetime(1900, 1, 1) <= date <= datetime.now()
            return date.strftime("%Y-%m-%d") if past else ""
    return ""


def convert_units(_study: Study, sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    """Bring percent to fractions, centimetres to metres and g cm-3 to kg m-3.

    The unit in brackets in the header decides; without one, values that leave no doubt.
    """
    yield from _convert_depths(sites, intervals)
    yield from _convert_densities(intervals)
    frame = intervals.frame
    # Peat may hold several times its own mass of water. Elsewhere, a density that leaves room for
    # the water shows that it is a fraction.
    room = frame["dry_density"] * frame["water_content"] <= 1.1 * ICE_DENSITY
    mineral = (frame["texture"] != "peat") & ~room
    water = frame["water_content"][mineral]
    yield from _convert_percent(intervals, "ice_content", 1.0, frame["ice_content"])
    converted = list(_convert_percent(intervals, "water_content", _MOST_WATER, water))
    yield from converted
    unit, wet = intervals.units.get("water_content"), water > _MOST_WATER
    # Excess ice is real. But where few values are so high, they may be percent, or all may be.
    doubtful = wet.any() if not unit else wet.sum() >= _MOST * (water > 0).sum() > 0
    if doubtful and not converted:
        value = f"{wet.sum()} of {(water > 0).sum()} values above {_MOST_WATER:g}"
        yield intervals.problem("water_content", "unclear unit of water contents", value)


def _convert_depths(sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    own = sites.frame[~sites.frame["site_id"].str.lower().str.startswith(EXAMPLE)]
    depth, table = own["depth_reached_m"].median(), own["permafrost_table_m"].median()
    ends = ["top_m", "bottom_m", "depth_m"]
    deepest = intervals.frame[ends].max(axis=1)
    cored = deepest.groupby(intervals.frame["site_id"]).max()
    reached = own.groupby("site_id")["depth_reached_m"].first()
    ratio = (cored / reached).replace([np.inf, 0], np.nan).median()
    names = ("depth_reached_m", "permafrost_table_m", "permafrost_base_m")
    named = any(sites.units.get(name) for name in names)
    # Permafrost tables are hardly ever deeper than 20 m, boreholes than 100 m, nor do cores end
    # within a hundredth of them: then metres are centimetres.
    guessed = not named and depth > 100 and (ratio <= 0.0101 or table > 20)
    for name in names:
        if guessed or sites.units.get(name) == "cm":
            yield _divide(sites, name, "depths in centimetres")
            ratio *= 100 if name == "depth_reached_m" else 1
    doubtful = table > 20 or (depth > 100 and np.isnan(table) and not ratio <= 1.5)
    if doubtful and not named and not guessed:
        median = f"median {depth:g}"
        yield sites.problem("depth_reached_m", "unclear unit of depths", median)
    used = [name for name in ends if name in intervals.header]
    # Without the depth of any hole, pits in centimetres look like deep boreholes.
    unnamed = used and not any(intervals.units.get(name) for name in used)
    if unnamed and own["depth_reached_m"].isna().all() and cored.median() > _DEEP:
        median = f"median {cored.median():g}"
        yield intervals.problem(used[-1], "unclear unit of depths", median)
    for name in used:
        unit = intervals.units.get(name)
        if unit == "cm" or (not unit and ratio > 30):
            yield _divide(intervals, name, "depths in centimetres")


def _convert_densities(intervals: RawTable) -> Iterator[Problem]:
    name, kind = "dry_density", "dry density in another unit"
    density = intervals.frame[name]
    low = density.between(0, 10, inclusive="neither")
    intervals.frame[name] = density.mask(low, density * 1000)
    if low.any() and low.sum() >= _MOST * density.notna().sum():
        yield intervals.problem(name, kind, f"median {density[low].median():g}")
    else:
        yield from intervals.problems_where(low, name, kind)


def _convert_percent(
    intervals: RawTable, name: str, most: float, decisive: pd.Series
) -> Iterator[Problem]:
    """Divide a column by 100 if its header says so or most decisive values exceed a limit."""
    unit, positive = intervals.units.get(name), (intervals.frame[name] > 0).sum()
    decisive = decisive[decisive.notna() & (decisive != 0)]
    guessed = not unit and len(decisive) > 1 and len(decisive) >= positive / 2
    guessed = guessed and (decisive > most).mean() >= _MOST
    if unit == "%" or guessed:
        yield _divide(intervals, name, "content in percent")


def _divide(table: RawTable, name: str, kind: str) -> Problem:
    values = table.frame[name]
    table.frame[name] = values / 100
    return table.problem(name, kind, f"median {values.median():g}")
