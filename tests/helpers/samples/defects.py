"""Clean borehole tables as people type them, and a generator that plants defects in them.

Written without a look at the checks that it tries. `DEFECTS` names what it can plant; each function
changes `Tables` in place and returns the cells that are wrong now. A row gets one defect at most,
and no defect hides another one. A finding that was not planted counts as false, unless it is in
`Tables.accepted`: it is true of the table as it stands because of the planted change, and it names
something else than the planted finding does.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyproj
import shapely

from helpers.core.classes import ICE_TYPES
from helpers.core.grid import named_crs, study_area
from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.prepare.registry import covariate_files
from testbed import boreholes, ground

SITES, INTERVALS = "sites.csv", "intervals.csv"
WHOLE = 1  # the row of findings that concern a whole column
MOST_ROWS = 0.1  # of a table get the same kind of defect; one row at least
PITS = 0.7  # of the sites
WELL_INSIDE = 25e3  # m between the outline of the study area and the nearest hole
SITE_COLUMNS = (
    "site_id", "longitude", "latitude", "date", "method", "elevation_m", "depth_reached_m",
    "permafrost", "permafrost_table_m", "permafrost_base_m", "source", "remarks",
)  # fmt: skip
INTERVAL_COLUMNS = (
    "site_id", "top_m", "bottom_m", "frozen", "ice_content", "water_content", "dry_density",
    "temperature_c", "ice_type", "texture", "remarks",
)  # fmt: skip
DEPTHS = {
    SITES: ("depth_reached_m", "permafrost_table_m", "permafrost_base_m"),
    INTERVALS: ("top_m", "bottom_m"),
}
NUMBERS = {
    SITES: ("longitude", "latitude", "elevation_m", *DEPTHS[SITES]),
    INTERVALS: (*DEPTHS[INTERVALS], "ice_content", "water_content", "dry_density"),
}
REQUIRED = {
    SITES: ("site_id", "longitude", "latitude", "depth_reached_m", "permafrost"),
    INTERVALS: ("site_id", "top_m", "bottom_m", "frozen"),
}
READ_WITH_INTERVALS = (
    "site_id",
    "depth_reached_m",
)  # of a site: without them its intervals cannot be judged
EMPTY = ("", "NA", "-")
GRAINS = {"peat": 1.5}  # density relative to water; others 2.65


class Plant(NamedTuple):
    """A wrong cell, and others, as (row, column), that are as good a place to name the defect."""

    file: str
    row: int
    column: str
    also: frozenset = frozenset()


@dataclass
class Tables:
    """Both tables as text, indexed by the row of the spreadsheet, and what was done to them."""

    sites: pd.DataFrame
    intervals: pd.DataFrame
    damaged: set = field(default_factory=set)  # (file, row)
    accepted: set = field(default_factory=set)  # (file, row, kind)

    def __getitem__(self, file):
        return self.sites if file == SITES else self.intervals

    def copy(self):
        return Tables(
            self.sites.copy(), self.intervals.copy(), set(self.damaged), set(self.accepted)
        )

    def has(self, file, column):
        return column in self[file].columns

    def text(self, file, row, column):
        return self[file].loc[row, column] if self.has(file, column) and row != WHOLE else ""

    def filled(self, file, row, column):
        return self.text(file, row, column) not in EMPTY

    def intervals_of(self, site_row):
        if not (self.has(SITES, "site_id") and self.has(INTERVALS, "site_id")):
            return []
        return self.intervals.index[
            self.intervals["site_id"] == self.sites.loc[site_row, "site_id"]
        ].tolist()

    def free(self, file, row, column=None):
        """Return whether a row may be damaged, in a column."""
        if (file, row) in self.damaged:
            return False
        spread = file == SITES and column in READ_WITH_INTERVALS
        return not spread or not any((INTERVALS, r) in self.damaged for r in self.intervals_of(row))

    def damage(self, file, row, column=None):
        self.damaged.add((file, row))
        if file == SITES and column in READ_WITH_INTERVALS:
            self.damaged |= {(INTERVALS, r) for r in self.intervals_of(row)}

    def append(self, file, row):
        """Append a copy of a row and return its number."""
        frame = self[file]
        new = int(frame.index.max()) + 1
        frame.loc[new] = frame.loc[row]
        return new

    def write(self, folder):
        for file in (SITES, INTERVALS):
            self[file].to_csv(folder / file, index=False, encoding="utf-8", lineterminator="\n")


# --- Clean tables


@cache
def _outline(crs=None):
    study = Study(name="t")
    return (
        study_area(study)
        if crs is None
        else study_area(study, crs).simplify(1000).buffer(-WELL_INSIDE)
    )


@cache
def _to_degrees(crs):
    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def clean_tables(study, rng, sites=120):
    """Return tables without any defect, with the lawful oddities of real ones.

    Parameters
    ----------
    study : testbed.settings.VirtualStudy
        Of the default area; ground heights follow its `elevation` covariate where that exists.
    rng : numpy.random.Generator
    sites : int

    Returns
    -------
    Tables
    """
    holes, pieces = [], []
    study = study.changed({"campaign.boreholes.pit_share": PITS})
    for number, (longitude, latitude, elevation) in enumerate(
        zip(*_places(study, sites, rng), strict=True)
    ):
        prefix = rng.choice(["ZK", "TK-", "探坑", "0", "DXAL "])
        site, cores = boreholes._drill(f"{prefix}{number + 1:03}", _ground(rng), study, rng)
        known = np.isfinite(elevation) and rng.random() < 0.8
        site |= {
            "longitude": f"{longitude:.5f}",
            "latitude": f"{latitude:.5f}",
            "elevation_m": f"{elevation + rng.uniform(-5, 5):.{rng.integers(0, 2)}f}"
            if known
            else None,
            "source": rng.choice(["Report 12, p. 3", "勘察报告，2016", "field book", ""]),
            "remarks": rng.choice(["", "", "about 3 m of peat nearby", ">10 m in 1975", "52°30'N"]),
        }
        site["date"] = rng.choice([site["date"], ""], p=[0.9, 0.1])
        holes.append(site)
        pieces += _described(cores, rng)
    tables = Tables(_typed(holes, SITE_COLUMNS), _typed(pieces, INTERVAL_COLUMNS))
    for frame, column in ((tables.sites, "permafrost"), (tables.intervals, "frozen")):
        shouted = rng.random(len(frame)) < 0.05
        frame[column] = frame[column].mask(shouted, frame[column].str.capitalize())
    gone = rng.random(len(tables.intervals)) < 0.03  # gaps in the cores
    tables.intervals = tables.intervals[~gone].reset_index(drop=True)
    tables.intervals.index += 2
    return tables


def _places(study, number, rng):
    crs = named_crs(study.grid.crs)
    inside = _outline(crs.to_wkt())
    west, south, east, north = inside.bounds
    x, y = rng.uniform(west, east, 10 * number), rng.uniform(south, north, 10 * number)
    chosen = np.flatnonzero(shapely.contains_xy(inside, x, y))[:number]
    x, y = x[chosen], y[chosen]
    file = covariate_files(study)["elevation"]
    elevation = values_at(file, x, y) if file.is_file() else np.full(len(x), np.nan)
    return *_to_degrees(crs.to_wkt()).transform(x, y), elevation


def _ground(rng):
    """Return the ground of one hole, None where it is too warm for permafrost."""
    if rng.random() < 0.25:
        return None
    table = rng.uniform(0.5, 6)
    values = {
        "temperature": -1.0, "table": table, "base": table + rng.choice([rng.uniform(1, 8), 40]),
        "soil_depth": rng.uniform(2.5, 22), "odds": rng.normal(-0.5, 1.2), "valley": 0.5,
        "peat": rng.random(), "fines": rng.random(),
    }  # fmt: skip
    return ground.Ground(
        np.array([0]), **{name: np.array([value], np.float32) for name, value in values.items()}
    )


def _described(cores, rng):
    """Return cores with ice content, water content and dry density, or only the ice type."""
    way = rng.choice(["ice", "water", "both", "type"], p=[0.5, 0.35, 0.08, 0.07])
    seasonal = rng.random() < 0.15
    for core in cores:
        if seasonal and core["top_m"] < 0.6 and core["frozen"] == "no":
            core |= {"frozen": "yes", "ice_content": round(rng.uniform(0.05, 0.3), 3)}
        core["temperature_c"] = "-1.0" if core["frozen"] == "yes" else None
        theta = core["ice_content"]
        if way in ("water", "both") and (theta is not None or rng.random() < 0.5):
            core |= _laboratory(theta or 0.0, core["texture"], rng)
        if theta is None:
            core["ice_content"] = "0" if rng.random() < 0.1 else None
        elif way == "water" or rng.random() < 0.03:
            core["ice_content"] = None
        elif way == "type":
            kind = ICE_TYPES[1 + int(np.searchsorted([0.1, 0.2, 0.3, 0.5], theta, side="right"))]
            core |= {"ice_content": None, "ice_type": rng.choice([str(kind.code), kind.name])}
        core["remarks"] = "lenses, 2-3 cm" if rng.random() < 0.1 else None
    return cores


def _laboratory(theta, texture, rng):
    """Return the water content and dry density that a core of this ice content has."""
    grains = GRAINS.get(texture, 2.65)
    unfrozen = rng.uniform(0.05, 0.1)
    full = (
        1000 * (1 - theta) / (1 / grains + unfrozen)
    )  # ice, grains and unfrozen water fill the ground
    loosest, densest = {"peat": (120, 350), "rock": (2000, 2400)}.get(texture, (1000, 1750))
    density = round(min(rng.uniform(loosest, densest), full))
    total = unfrozen + theta * 917 / density
    if theta == 0:
        total = rng.uniform(0.08, 0.3) if texture != "peat" else rng.uniform(0.8, 3)
    measured = rng.random() < 0.9
    return {"water_content": f"{total:.3f}", "dry_density": str(density) if measured else None}


def _typed(rows, columns):
    frame = pd.DataFrame(
        [[_text(row.get(name)) for name in columns] for row in rows], columns=columns, dtype=object
    )
    frame.index += 2
    return frame


def _text(value):
    if value is None or value != value:
        return ""
    return str(value) if isinstance(value, str) else f"{value:g}"


# --- Planting


def _pick(tables, rng, share, file, columns, where=None):
    """Draw cells that hold something in free rows: a share of all rows, one at least."""
    wanted = max(1, round(share * len(tables[file])))
    chosen = []
    for row in rng.permutation(tables[file].index.to_numpy()):
        row = int(row)
        cells = [
            column
            for column in columns
            if tables.filled(file, row, column)
            and tables.free(file, row, column)
            and (not where or where(row, column))
        ]
        if cells:
            chosen.append((row, str(rng.choice(cells))))
            tables.damage(file, *chosen[-1])
        if len(chosen) == wanted:
            break
    return chosen


def _retype(tables, rng, share, file, columns, change, where=None):
    """Replace the text of cells by that of `change(text, column)`."""
    plants = set()
    for row, column in _pick(tables, rng, share, file, columns, where):
        tables[file].loc[row, column] = change(tables[file].loc[row, column], column)
        plants.add(Plant(file, row, column))
    return plants


def _some_files(rng):
    return [[SITES], [INTERVALS], [SITES, INTERVALS]][rng.integers(3)]


def _value(tables, file, row, column):
    return float(tables[file].loc[row, column])


def _is(tables, file, row, column, *words):
    return tables.text(file, row, column).lower() in words


def duplicated_site(tables, rng, share):
    plants = set()
    for row, _ in _pick(tables, rng, share, SITES, ["site_id"]):
        new = tables.append(SITES, row)
        if rng.random() < 0.5:
            tables.sites.loc[new, "source"] = "entered again"
        tables.damage(SITES, new)
        tables.accepted.add((SITES, row, "duplicated site"))
        plants.add(Plant(SITES, new, "site_id", frozenset({(row, "site_id")})))
    return plants


def outside(tables, rng, share):
    plants = set()
    for row, _ in _pick(tables, rng, share, SITES, ["longitude"]):
        old = [_value(tables, SITES, row, name) for name in ("longitude", "latitude")]
        while True:
            east, north = [
                (0.0, 0.0), (old[0] - 10, old[1]), (old[0], old[1] - 10), (old[0] * 10, old[1]),
                (-old[0], old[1]), (old[0] + rng.uniform(-40, 40), old[1] + rng.uniform(-30, 20)),
            ][rng.integers(6)]  # fmt: skip
            if _outline().distance(shapely.Point(east, north)) > 1.5:
                break
        tables.sites.loc[row, ["longitude", "latitude"]] = [f"{east:.5f}", f"{north:.5f}"]
        plants.add(Plant(SITES, row, "longitude", frozenset({(row, "latitude")})))
    return plants


def swapped(tables, rng, share):
    plants = set()
    for row, _ in _pick(tables, rng, share, SITES, ["longitude"]):
        tables.sites.loc[row, ["longitude", "latitude"]] = tables.sites.loc[
            row, ["latitude", "longitude"]
        ].tolist()
        plants.add(Plant(SITES, row, "longitude", frozenset({(row, "latitude")})))
    return plants


def sexagesimal(tables, rng, share):
    def change(text, column):
        degrees, rest = divmod(float(text), 1)
        minutes, rest = divmod(rest * 60, 1)
        d, m, s, side = (
            int(degrees),
            int(minutes),
            min(rest * 60, 59.4),
            "E" if column == "longitude" else "N",
        )
        return [
            f"{d}°{m:02}'{s:02.0f}\"{side}", f"{d}°{m}′{s:.1f}″", f"{d}° {m + rest:.3f}' {side}",
            f"{d}度{m}分{s:.0f}秒", f"{side}{d}°{m}'{s:.2f}\"", f"{d} {m:02} {s:04.1f}",
        ][rng.integers(6)]  # fmt: skip

    return _retype(tables, rng, share, SITES, ["longitude", "latitude"], change)


def decimal_comma(tables, rng, share):
    plants = set()
    for file in _some_files(rng):

        def pointed(row, column, file=file):
            return "." in tables[file].loc[row, column]

        plants |= _retype(
            tables, rng, share, file, NUMBERS[file], lambda t, _: t.replace(".", ","), pointed
        )
        _lose_table(tables, plants)
    return plants


def not_a_number(tables, rng, share):
    def change(text, _):
        forms = (
            "about {}",
            "{} m",
            ">{}",
            "<{}",
            "ca. {}",
            "{}?",
            "~{}",
            "约{}",
            "{}-{}",
            "{}m",
            "see log",
            "{}.{}.1",
        )
        return str(rng.choice(forms)).replace("{}", text)

    plants = set()
    for file in _some_files(rng):
        plants |= _retype(tables, rng, share, file, NUMBERS[file], change)
    _lose_table(tables, plants)
    return plants


def _lose_table(tables, plants):
    """Where the depth of the permafrost table cannot be read, a site lacks it."""
    tables.accepted |= {
        (SITES, p.row, "no permafrost table") for p in plants if p.column == "permafrost_table_m"
    }


def missing_value(tables, rng, share):
    plants = set()
    for file in _some_files(rng):
        for row, column in _pick(tables, rng, share, file, REQUIRED[file]):
            if (file, column) == (SITES, "site_id"):
                tables.accepted |= {
                    (INTERVALS, r, "interval without site") for r in tables.intervals_of(row)
                }
            tables[file].loc[row, column] = str(
                rng.choice(["", " ", "NA", "-"] if column != "site_id" else ["", " "])
            )
            plants.add(Plant(file, row, column))
    return plants


def unknown_word(tables, rng, share):
    words = {
        "permafrost": ("maybe", "probably", "see log", "yess", "island"),
        "frozen": ("partly", "mixed", "half", "ye s"),
        "method": ("auger", "trench", "bore hole", "radar"),
    }
    plants = set()
    for file in _some_files(rng):
        columns = ["permafrost", "method"] if file == SITES else ["frozen"]
        plants |= _retype(
            tables, rng, share, file, columns, lambda _, column: str(rng.choice(words[column]))
        )
    return plants


def unreadable_date(tables, rng, share):
    wrong = (
        "2023-02-30",
        "31/13/2020",
        "2023-13-05",
        "2021-06-31",
        "summer 2019",
        "20 Aug",
        "2020-00-10",
    )
    return _retype(tables, rng, share, SITES, ["date"], lambda *_: str(rng.choice(wrong)))


def far_elevation(tables, rng, share):
    def change(text, _):
        true = float(text)
        feet = true * 3.2808
        off = true + rng.choice([-1, 1]) * rng.uniform(400, 2500)
        wrong = [off, -9999, feet if feet - true > 400 else off]
        return f"{wrong[rng.choice(3, p=[0.7, 0.1, 0.2])]:.0f}"

    return _retype(tables, rng, share, SITES, ["elevation_m"], change)


def inverted_interval(tables, rng, share):
    plants = set()
    for row, _ in _pick(tables, rng, share, INTERVALS, ["bottom_m"]):
        top, bottom = tables.intervals.loc[row, ["top_m", "bottom_m"]]
        tables.intervals.loc[row, ["top_m", "bottom_m"]] = (
            [bottom, top] if rng.random() < 0.8 else [bottom, bottom]
        )
        plants.add(Plant(INTERVALS, row, "bottom_m", frozenset({(row, "top_m")})))
    return plants


def overlapping(tables, rng, share):
    frame, plants = tables.intervals, set()
    wanted = max(1, round(share * len(frame)))
    rows = frame.index.to_numpy()
    for upper, lower in rng.permutation(np.stack([rows[:-1], rows[1:]], axis=1)).tolist():
        same = frame.loc[upper, "site_id"] == frame.loc[lower, "site_id"]
        if not same or not (tables.free(INTERVALS, upper) and tables.free(INTERVALS, lower)):
            continue
        way = rng.integers(3)
        half = [
            (_value(tables, INTERVALS, row, "top_m") + _value(tables, INTERVALS, row, "bottom_m"))
            / 2
            for row in (upper, lower)
        ]
        row, column, other = [
            (lower, "top_m", upper),
            (upper, "bottom_m", lower),
            (None, "top_m", lower),
        ][way]
        if way == 2:
            row = tables.append(INTERVALS, lower)
        else:
            frame.loc[row, column] = f"{half[way]:.2f}"
        places = {(r, c) for r in (row, other) for c in ("top_m", "bottom_m")}
        for one in {row, upper, lower} if way < 2 else {row, lower}:
            tables.damage(INTERVALS, one)
            tables.accepted.add((INTERVALS, one, "overlapping intervals"))
        plants.add(Plant(INTERVALS, row, column, frozenset(places)))
        if len(plants) == wanted:
            break
    return plants


def impossible_content(tables, rng, share):
    def change(text, _):
        content = float(text)
        wrong = [-content, 100 * content, rng.uniform(1.2, 9), -9999]
        return f"{wrong[rng.choice(4, p=[0.3, 0.4, 0.25, 0.05])]:g}"

    def some(row, column):
        return float(tables.intervals.loc[row, column]) > 0.02

    return _retype(tables, rng, share, INTERVALS, ["ice_content"], change, some)


def interval_without_site(tables, rng, share):
    known = set(tables.sites["site_id"].str.lower()) | set(tables.intervals["site_id"].str.lower())
    made = {}  # the right site_id of each wrong one: no two sites get the same

    def change(text, _):
        while True:
            typo = [
                text + "x",
                text[:-1],
                text[:-2] + text[:-3:-1],
                "S" + text,
                f"{text[:-3]}{rng.integers(1000):03}",
            ]
            typo = typo[rng.integers(5)]
            if made.setdefault(typo, text) == text and typo.lower() not in known:
                return typo

    return _retype(tables, rng, share, INTERVALS, ["site_id"], change)


def negative_depth(tables, rng, share):
    plants = set()
    for file in _some_files(rng):
        columns = DEPTHS[SITES] if file == SITES else ["bottom_m"]
        for row, column in _pick(tables, rng, share, file, columns):
            frame, also = tables[file], frozenset()
            value = -_value(tables, file, row, column)
            if file == INTERVALS:
                also = frozenset({(row, "top_m")})
                top = (
                    _value(tables, file, row, "top_m")
                    if tables.filled(file, row, "top_m")
                    else None
                )
                if top == 0 and rng.random() < 0.5:  # the core is said to begin above the surface
                    frame.loc[row, "top_m"] = f"{-rng.uniform(0.1, 0.5):.1f}"
                    plants.add(Plant(file, row, "top_m"))
                    continue
                if top and rng.random() < 0.5:
                    frame.loc[row, "top_m"] = f"{-top:g}"
                tables.accepted.add((file, row, "inverted interval"))
            elif column == "permafrost_base_m":
                tables.accepted.add((file, row, "inverted permafrost"))
            elif column == "depth_reached_m":
                tables.accepted |= {
                    (INTERVALS, r, "interval below the hole") for r in tables.intervals_of(row)
                }
            frame.loc[row, column] = f"{value:g}"
            plants.add(Plant(file, row, column, also))
    return plants


def inverted_permafrost(tables, rng, share):
    plants = set()
    for row, _ in _pick(tables, rng, share, SITES, ["permafrost_table_m"]):
        table, base = tables.sites.loc[row, ["permafrost_table_m", "permafrost_base_m"]]
        shallow = f"{float(table) * rng.uniform(0.2, 0.9):.2f}"
        tables.sites.loc[row, ["permafrost_table_m", "permafrost_base_m"]] = (
            [base, table] if base else [table, shallow]
        )
        plants.add(Plant(SITES, row, "permafrost_base_m", frozenset({(row, "permafrost_table_m")})))
    return plants


def depth_without_permafrost(tables, rng, share):
    def without(row, _):
        frozen = tables.filled(SITES, row, "permafrost_table_m")
        return frozen or _is(tables, SITES, row, "permafrost", "no", "unknown")

    plants = set()
    for row, _ in _pick(tables, rng, share, SITES, ["permafrost"], without):
        column = "permafrost_table_m"
        if tables.filled(SITES, row, column):
            tables.sites.loc[row, "permafrost"] = str(rng.choice(["no", "unknown"]))
        else:
            column = str(rng.choice([column, "permafrost_base_m"]))
            tables.sites.loc[row, column] = f"{rng.uniform(0.5, 1.4):.1f}"
        plants.add(Plant(SITES, row, column, frozenset({(row, "permafrost")})))
    return plants


def interval_below_hole(tables, rng, share):
    frame = tables.intervals
    last = set(frame.index[frame["site_id"] != frame["site_id"].shift(-1)])
    deepest = dict(zip(tables.sites["site_id"], tables.sites["depth_reached_m"], strict=True))
    plants = set()
    for row, column in _pick(tables, rng, share, INTERVALS, ["bottom_m"], lambda r, _: r in last):
        depth = float(deepest[frame.loc[row, "site_id"]])
        frame.loc[row, column] = (
            f"{depth + rng.choice([rng.uniform(0.2, 2), rng.uniform(2, 20)]):.2f}"
        )
        plants.add(Plant(INTERVALS, row, column))
    return plants


def ice_in_unfrozen(tables, rng, share):
    def able(row, _):
        ice = (
            tables.filled(INTERVALS, row, "ice_content")
            and float(tables.intervals.loc[row, "ice_content"]) > 0
        )
        return ice or _is(tables, INTERVALS, row, "frozen", "no")

    plants = set()
    for row, _ in _pick(tables, rng, share, INTERVALS, ["frozen"], able):
        if _is(tables, INTERVALS, row, "frozen", "no"):
            tables.intervals.loc[row, "ice_content"] = f"{rng.uniform(0.03, 0.7):.2f}"
        else:
            tables.intervals.loc[row, "frozen"] = "no"
        plants.add(Plant(INTERVALS, row, "ice_content", frozenset({(row, "frozen")})))
    return plants


def missing_column(tables, rng, share):
    choices = [(SITES, c) for c in (*REQUIRED[SITES], *DEPTHS[SITES][1:])]
    choices += [(INTERVALS, c) for c in REQUIRED[INTERVALS]]
    plants = set()
    for index in rng.choice(len(choices), 1 + (share > 0.05), replace=False):
        file, column = choices[index]
        if rng.random() < 0.5:
            del tables[file][column]
        else:
            tables[file].columns = [
                name[:3] + name[4:] if name == column else name for name in tables[file].columns
            ]
        plants.add(Plant(file, WHOLE, column))
    return plants


def _scale(tables, file, columns, factor):
    for column in columns:
        if tables.has(file, column):
            tables[file][column] = [_scaled(text, factor) for text in tables[file][column]]
    places = frozenset((WHOLE, column) for column in columns)
    return Plant(file, WHOLE, columns[0], places)


def _scaled(text, factor):
    try:
        return f"{float(text) * factor:.6g}"
    except ValueError:
        return text


def percent(tables, rng, share):
    columns = [["ice_content"], ["water_content"], ["ice_content", "water_content"]][
        rng.integers(3)
    ]
    return {_scale(tables, INTERVALS, [column], 100) for column in columns}


def centimetres(tables, rng, share):
    whole = [file for file in (SITES, INTERVALS) if all(tables.has(file, c) for c in DEPTHS[file])]
    files = [[file] for file in whole] + ([whole] if len(whole) == 2 else [])
    return {
        _scale(tables, file, DEPTHS[file], 100)
        for file in (files[rng.integers(len(files))] if files else [])
    }


def dry_density(tables, rng, share):
    return {_scale(tables, INTERVALS, ["dry_density"], 0.001)}


DEFECTS = {
    "missing column": missing_column,
    "duplicated site": duplicated_site,
    "outside the study area": outside,
    "swapped coordinates": swapped,
    "degrees, minutes, seconds": sexagesimal,
    "decimal comma": decimal_comma,
    "not a number": not_a_number,
    "missing value": missing_value,
    "unknown word": unknown_word,
    "unreadable date": unreadable_date,
    "elevation far from the elevation model": far_elevation,
    "interval below the hole": interval_below_hole,
    "inverted interval": inverted_interval,
    "overlapping intervals": overlapping,
    "impossible ice content": impossible_content,
    "interval without site": interval_without_site,
    "negative depth": negative_depth,
    "inverted permafrost": inverted_permafrost,
    "depth without permafrost": depth_without_permafrost,
    "ice in unfrozen ground": ice_in_unfrozen,
    "content in percent": percent,
    "depths in centimetres": centimetres,
    "dry density in another unit": dry_density,
}
"""Kinds of defects and the functions (tables, rng, share of rows) that plant them, in this order:
first columns go, then cells change, then whole columns are scaled."""

HIDE = {
    "content in percent": {"impossible ice content"},
    "depths in centimetres": {"interval below the hole"},
}
"""Kinds that cannot be seen beside another one."""

NEEDS = {
    "duplicated site": {(SITES, "site_id")},
    "outside the study area": {(SITES, "longitude"), (SITES, "latitude")},
    "swapped coordinates": {(SITES, "longitude"), (SITES, "latitude")},
    "elevation far from the elevation model": {(SITES, "longitude"), (SITES, "latitude")},
    "inverted interval": {(INTERVALS, "top_m"), (INTERVALS, "bottom_m")},
    "overlapping intervals": {(INTERVALS, c) for c in ("site_id", "top_m", "bottom_m")},
    "interval without site": {(SITES, "site_id"), (INTERVALS, "site_id")},
    "inverted permafrost": {(SITES, "permafrost_table_m"), (SITES, "permafrost_base_m")},
    "depth without permafrost": {
        (SITES, c) for c in ("permafrost", "permafrost_table_m", "permafrost_base_m")
    },
    "interval below the hole": {
        (SITES, "site_id"), (SITES, "depth_reached_m"), (INTERVALS, "site_id"),
        (INTERVALS, "bottom_m"),
    },
    "ice in unfrozen ground": {(INTERVALS, "frozen")},
}  # fmt: skip
"""Columns without which a kind cannot be seen."""

EQUIVALENT = {
    "missing column": {"derived value"},
    "depths in centimetres": {"unclear unit of depths"},  # without the depth of any hole
}
"""Kinds that may be reported instead of a planted one, for want of any way to tell them apart."""


def schedule(seeds, rng):
    """Deal each seed 1-5 kinds that can stand together, all kinds about equally often."""
    deck, hands = deque(), []
    for _ in range(seeds):
        hand, wanted, put_back = [], int(rng.integers(1, 6)), []
        while len(hand) < wanted:
            if not deck:
                deck.extend(str(kind) for kind in rng.permutation(list(DEFECTS)))
            kind = deck.popleft()
            hides = any(
                kind in HIDE.get(other, ()) or other in HIDE.get(kind, ()) for other in hand
            )
            (put_back if hides or kind in hand else hand).append(kind)
        deck.extendleft(put_back)
        hands.append(hand)
    return hands


def plant(tables, rng, kinds=None):
    """Plant defects together, each in one row up to about a tenth of all.

    Parameters
    ----------
    tables : Tables
        Changed in place.
    rng : numpy.random.Generator
    kinds : sequence of str, optional
        By default one to five.

    Returns
    -------
    dict of str to set of Plant
        Kinds that could not be planted beside the others are left out.
    """
    planted = {}
    for kind in sorted(kinds or schedule(1, rng)[0], key=list(DEFECTS).index):
        if all(tables.has(*place) for place in NEEDS.get(kind, ())):
            share = rng.choice([0.0, rng.uniform(0, MOST_ROWS)])
            planted[kind] = DEFECTS[kind](tables, rng, share)
    return {kind: plants for kind, plants in planted.items() if plants}


# --- Evaluation


def judge(problems, planted, tables):
    """Compare what was found with what was planted.

    Parameters
    ----------
    problems : pandas.DataFrame
        With file, row, column and kind.
    planted : dict of str to set of Plant
    tables : Tables

    Returns
    -------
    missed : dict of str to list of Plant
        By kind; empty lists where all were found.
    false : set of tuple
        File, row and kind of the findings that are neither planted nor accepted.
    """
    found = {}
    for problem in problems.itertuples():
        columns = {name.strip() for name in problem.column.split(",")}
        found.setdefault((problem.file, int(problem.row), problem.kind), set()).update(columns)
    true, missed = set(tables.accepted), {}
    for kind, plants in planted.items():
        missed[kind] = []
        for wrong in plants:
            places = {(wrong.row, wrong.column), *wrong.also}
            kinds = {kind, *EQUIVALENT.get(kind, ())}
            true |= {(wrong.file, wrong.row, name) for name in kinds}
            if not any(
                column in found.get((wrong.file, row, name), ())
                for row, column in places
                for name in kinds
            ):
                missed[kind].append(wrong)
    return missed, set(found) - true
