"""What the columns of the field tables are called, hold and may hold."""

import re
from dataclasses import dataclass

import numpy as np

from helpers.core.classes import ICE_TYPES
from helpers.core.errors import CompendiumError


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


EXAMPLE = "example-"


EMPTY = ("", "na", "n/a", "nan", "null", "none", "-", "--", "/", "—", "无数据")


PROBLEM_COLUMNS = ["file", "row", "column", "value", "kind", "problem", "remedy", "severity"]


SLACK = 1e-6  # m; depths nearer than this are equal


HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " "}


IN_BRACKETS = re.compile(r"\s*[\[(](.*?)[\])]")


class SampleError(CompendiumError):
    """Sample tables that cannot be used; `problems` has a row for each problem that was found in them."""

    problems = None


def plain_text(value):
    """Return a cell's text without spaces around it and with half-width signs."""
    return str(value).translate(HALF_WIDTH).strip()


def plain_header(name):
    """Return a header in small letters, with underscores for spaces, and without a unit in brackets."""
    return re.sub(r"[\s-]+", "_", IN_BRACKETS.sub("", plain_text(name)).strip().lower())


def make_problem(table, row, column, value, kind, remedy=None):
    """Return one problem of a table, a row for the list of all."""
    _, problem, usual = KINDS[kind]
    values = (table.file, int(row), column, str(value), kind, problem, remedy or usual, "")
    return dict(zip(PROBLEM_COLUMNS, values, strict=True))


def problems_where(table, where, column, kind, remedy=None):
    """Return a problem for each row of a table where a condition holds."""
    rows = table.frame.index[np.asarray(where, bool)]
    return [make_problem(table, row, column, table.text.loc[row, column], kind, remedy) for row in rows]


def ice_type_code(text):
    """Return an ice type's number (0-5) from its number, its English or its Chinese name; NaN for anything else."""
    names = {name: kind.code for kind in ICE_TYPES for name in (str(kind.code), kind.name, kind.chinese_name)}
    names |= {kind.name.removesuffix(" frozen soil"): kind.code for kind in ICE_TYPES}
    return names.get(text.lower().removesuffix(".0"), np.nan)
