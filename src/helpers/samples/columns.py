"""What the columns of the field tables are called and hold, and what can be wrong with them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from helpers.core.classes import ICE_TYPES
from helpers.core.errors import CompendiumError
from helpers.core.study import Study


class SampleError(CompendiumError):
    """Sample tables that cannot be used; `problems` has a row for each problem in them."""

    problems: pd.DataFrame | None = None


@dataclass(frozen=True)
class Column:
    """One column of a table; `aliases` are other headers that mean it."""

    name: str
    need: Literal["value", "column", "optional"]  # of each row, of the table, or neither
    kind: Literal["text", "number", "depth", "word", "date", "ice type"]  # depths: m, not negative
    aliases: tuple[str, ...] = ()


_SITE_NAMES = (
    *("孔号", "钻孔编号", "编号", "点号"),
    *("point", "site", "hole", "hole_id", "borehole", "borehole_id"),
)

# fmt: off
COLUMNS = {
    "sites": (
        Column("site_id", "value", "text", _SITE_NAMES),
        Column("longitude", "value", "number", ("经度", "lon", "long", "easting", "东坐标")),
        Column("latitude", "value", "number", ("纬度", "lat", "northing", "北坐标")),
        Column("date", "optional", "date", ("日期", "钻探日期", "调查日期")),
        Column("method", "optional", "word", ("方法", "勘探方法")),
        Column("elevation_m", "optional", "number", ("高程", "海拔", "elevation")),
        Column("depth_reached_m", "value", "depth", ("终孔深度", "孔深", "深度", "hole_depth")),
        Column("permafrost", "value", "word", ("多年冻土", "有无多年冻土")),
        Column("permafrost_table_m", "column", "depth",
               ("多年冻土上限", "冻土上限", "上限", "上限埋深")),
        Column("permafrost_base_m", "column", "depth",
               ("多年冻土下限", "冻土下限", "下限", "下限埋深")),
        Column("source", "optional", "text", ("来源", "资料来源")),
    ),
    "intervals": (
        Column("site_id", "value", "text", _SITE_NAMES),
        Column("top_m", "value", "depth", ("顶深", "顶深度", "顶板深度", "from", "depth_from")),
        Column("bottom_m", "value", "depth", ("底深", "底深度", "底板深度", "to", "depth_to")),
        Column("depth_m", "optional", "depth", ("深度", "取样深度", "sample_depth")),
        Column("frozen", "value", "word", ("冻结", "是否冻结", "冻结状态")),
        Column("ice_content", "optional", "number",
               ("体积含冰量", "含冰量", "体积含冰率", "含冰率")),
        Column("water_content", "optional", "number",
               ("含水率", "含水量", "质量含水率", "总含水率", "gmc", "gwc", "moisture_content",
                "gravimetric_moisture_content", "gravimetric_water_content")),
        Column("dry_density", "optional", "number", ("干密度",)),
        Column("temperature_c", "optional", "number",
               ("地温", "温度", "土温", "temperature", "ground_temperature")),
        Column("ice_type", "optional", "ice type", ("冻土类型", "含冰类型", "含冰类别")),
        Column("texture", "optional", "text", ("土质", "岩性", "土类")),
    ),
}
# fmt: on
"""Columns of both tables. Of the intervals' `ONE_OF` at least one must be there."""

ONE_OF = ("ice_content", "water_content", "ice_type")

WORDS = {
    "permafrost": {"yes": ("是", "有"), "no": ("否", "无"), "unknown": ("未知", "不详", "不明")},
    "frozen": {"yes": ("是", "冻结", "冻"), "no": ("否", "未冻结", "未冻", "融化", "融")},
    "method": {"borehole": ("钻孔",), "pit": ("探坑", "试坑", "坑探")},
}
"""Columns in which only these words may stand, in English or Chinese."""

TEXTURES = {
    "rock": r"rock|\w+stone\b|granite|basalt|岩",
    "peat": r"\bpeat\b|泥炭(?!质)",
    "clay": r"clays?\b|黏土|粘土",
    "silt": r"silts?\b|loam|粉土|粉质|壤土",
    "gravel": r"gravels?\b|stones\b|砾|碎石|卵石",
    "sand": r"sands?\b|砂",
}
"""Soil textures, by patterns of the words that name them; the first that a cell holds counts.

An adjective, as in sandy silt or gravelly sand, names none."""

EXAMPLE = "example-"
"""Rows of the templates have a `site_id` that begins so, in any case."""


class Kind(NamedTuple):
    """A kind of problem: how severe it is, what is wrong, and what to do."""

    severity: Literal["error", "drop", "warn"]
    problem: str
    remedy: str


# fmt: off
_ERRORS = {
    "missing column": ("the column is missing", "add the column"),
    "overlong row": ("the row has more values than the header has columns",
        "write decimals with a point, and text that holds a comma in quotes"),
    "missing value": ("there is no value", "fill it in"),
    "not a number": ("this is not a number",
        "write a plain number with a decimal point, without unit"),
    "unknown word": ("this word is not known", "write one of the words"),
    "unknown ice type": ("this is no ice type", "write 1-5, or a type's English or Chinese name"),
    "unclear unit of depths": ("the depths may be in metres or in centimetres",
        "write the unit into the header, in brackets: (m) or (cm)"),
    "pit deeper than 10 m": ("no pit is that deep", "write metres, or method borehole"),
    "table below the hole": ("the permafrost table lies below the bottom of the borehole",
        "correct one of the two depths, or write permafrost unknown"),
    "unclear unit of water contents": ("the values may be fractions or percent",
        "write the unit into the header, in brackets: (%), or (g/g) for fractions"),
    "duplicated site": ("an earlier row has the same site_id",
        "give every site a site_id of its own, or delete the repeated row"),
    "swapped coordinates": ("longitude and latitude are swapped", "exchange the two"),
    "outside the study area": ("the site lies outside the study area",
        "give longitude and latitude in WGS 84 degrees, or set samples.epsg, "
        "or leave the site out"),
    "negative depth": ("the depth is negative",
        "write metres below the surface as positive numbers"),
    "impossible depth": ("no borehole is that deep", "write metres below the surface"),
    "inverted permafrost": ("the base does not lie below the table",
        "correct one of the two depths"),
    "depth without permafrost": ("there is a depth of permafrost, but no permafrost",
        "write permafrost yes, or leave the depth empty"),
    "interval without site": ("there is no such site",
        "add the site to the table of sites, or correct the site_id"),
    "inverted interval": ("the bottom does not lie below the top", "correct one of the two depths"),
    "overlapping intervals": ("the interval overlaps another one of its site",
        "correct the depths, or delete one of the two"),
    "impossible ice content": ("the ice content lies outside 0-1",
        "write m3 of ice per m3 of ground, not percent"),
    "impossible water content": ("the water content lies outside 0-100",
        "write the mass of water over the dry mass, as a fraction"),
    "impossible dry density": ("the dry density lies outside 40-2700 kg m-3", "write kg m-3"),
    "too much water for the dry density": (
        "with the dry density the ice would fill more than the ground", "correct one of the two"),
    "ice in unfrozen ground": ("there is ice, but the ground is not frozen",
        "write frozen yes, or 0"),
}
_WARNINGS = {
    "decimal comma": ("the decimal sign is a comma", "write a point"),
    "degrees, minutes, seconds": ("this is not in decimal degrees", "write decimal degrees"),
    "content in percent": ("the column is in percent", "divided by 100"),
    "depths in centimetres": ("the depths are in centimetres", "divided by 100"),
    "dry density in another unit": ("the dry density is in g cm-3",
        "multiplied by 1000; write kg m-3"),
    "unused column": ("the column is not used", "rename it, if it was meant so"),
    "elevation far from the elevation model": ("the elevation is far from the elevation model's",
        "check the coordinates and the elevation"),
    "another datum": (
        "the elevations fit better where the coordinates are taken for GCJ-02 or BD-09",
        "ask where the coordinates come from, and set samples.datum"),
    "datum shift": ("the coordinates are of another datum than WGS 84",
        "convert them with the parameters of your region, if metres matter"),
    "derived value": ("the sheet has no value, and other columns tell it",
        "give the value if you have it"),
    "no dry density": ("these are taken as saturated, which gives dry ground too much ice",
        "give dry_density where it was measured"),
    "no temperature": ("these have the unfrozen water of ice.layer_temperatures",
        "give temperature_c where it was measured, or the temperature of each depth layer"),
    "frozen above 0 degC": ("frozen, and warmer than 0 degC",
        "correct one of the two; it counts as -0.1 degC"),
    "no permafrost table": ("without this depth the site gives no label", "give the depth"),
    "interval below the hole": ("the interval ends below the borehole",
        "correct one of the two depths"),
    "unreadable date": ("this is not a date", "write year-month-day, such as 2023-08-14"),
}
# fmt: on

KINDS = {
    **{name: Kind("error", *texts) for name, texts in _ERRORS.items()},
    **{name: Kind("warn", *texts) for name, texts in _WARNINGS.items()},
    "example row": Kind("drop", "this is an example of the template", "delete the row"),
}
"""Kinds of problems. ``error`` refuses the tables, ``drop`` leaves out the row, ``warn`` only lists
it. `samples.severity` of the study file changes it by kind, but no error to a mere warning."""


def class_code(study: Study, text: str) -> float:
    """Return the code of a type that samples of a study may have, by any of its names; or NaN.

    The study's own classes have their name, Chinese name and `words`; ice types as in
    `ice_type_code`.
    """
    if not study.classes:
        return ice_type_code(text)
    word = text.strip().lower()
    for code, kind in enumerate(study.classes):
        if word in {name.lower() for name in (kind.name, kind.name_zh, *kind.words) if name}:
            return code
    return np.nan


def ice_type_code(text: str) -> float:
    """Return an ice type's number (0-5) from its number, English or Chinese name; NaN otherwise.

    Examples
    --------
    >>> [ice_type_code(text) for text in ("富冰冻土", "icy frozen soil", "2", "clay")]
    [3, 2, 2, nan]
    """
    return _ICE_TYPE_CODES.get(text.lower().removesuffix(".0"), np.nan)


_ICE_TYPE_CODES = {
    name: ice.code
    for ice in ICE_TYPES
    for name in (str(ice.code), ice.chinese_name, ice.name, ice.name.removesuffix(" frozen soil"))
}
