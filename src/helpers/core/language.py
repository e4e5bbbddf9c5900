"""Texts of figures in Chinese: a table of translations, and a font that has the characters.

A figure is drawn once, in English; `translate` then changes its texts in place. A text without a
translation is an error, never English among Chinese.
"""

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from helpers.core.chinese import CHINESE
from helpers.core.errors import CompendiumError

_FONT_PACKAGE = "pylopdf-fonts-zh-cn"
_CONVERTED = "Ground Ice Noto Sans SC"
_UNITS = r"m|km|cm|mm|m²|m³|km²|km³|°|°C|%|ECE|kg|g|kappa|NDVI|EVI|NDWI|NDMI|E|N|W|S"
# Numbers, depths, units and signs are the same in both languages.
_SAME = re.compile(rf"(?:[\d\s.,:;%°′()\[\]<>≤≥=/+±×·−–\-]|\$.*?\$|\b(?:{_UNITS})\b)*")

_CHARACTERS = re.compile("[\u4e00-\u9fff]")  # what has some was translated before


class LanguageError(CompendiumError):
    """A text or a font that a language lacks."""


def translated(text: str, names: Mapping[str, str] | None = None) -> str:
    """Return a text in Chinese.

    Parameters
    ----------
    text
        English, as a figure has it. ``{}`` in an entry of the table stands for a part that is
        translated by itself, such as a layer or a number.
    names
        Chinese of a study's own names.

    Raises
    ------
    LanguageError
        If there is no translation.

    Examples
    --------
    >>> translated("Dissimilarity index, 2-3 m")
    '不相似指数，2-3 m'
    """
    if text in (own := names or {}):
        return own[text]
    if text in CHINESE:
        return CHINESE[text]
    if _SAME.fullmatch(text) or _CHARACTERS.search(text):
        return text
    for pattern, chinese in _patterns():
        if match := pattern.fullmatch(text):
            try:
                return chinese.format(*(translated(part, own) for part in match.groups()))
            except LanguageError:
                continue
    if "\n" in text:
        return "\n".join(translated(line, own) for line in text.split("\n"))
    raise LanguageError(
        f"The text '{text}' of a figure has no Chinese translation.",
        "add it to src/helpers/core/chinese.py",
    )


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the entries with parts, those with the longest fixed text first."""
    entries = [key for key in CHINESE if "{}" in key]
    entries.sort(key=lambda key: -len(key))
    return [
        (re.compile("(.+?)".join(map(re.escape, key.split("{}"))), re.DOTALL), CHINESE[key])
        for key in entries
    ]


def translate(figure: Figure, names: Mapping[str, str] | None = None) -> None:
    """Change all texts of a figure into Chinese, and give them a font that has the characters.

    Raises
    ------
    LanguageError
        If a text has no translation, or if the font's package is not installed.
    """
    family = ["sans-serif", chinese_font()]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _translate_ticks(axis, names)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text():
            text.set_text(translated(text.get_text(), names))
        text.set(fontfamily=family, fontweight="normal")  # the font has one weight


def _translate_ticks(axis: Axis, names: Mapping[str, str] | None) -> None:
    """Translate labels that were set; a formatter would write them anew when they are drawn."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return
    labels = [label.get_text() for label in axis.get_ticklabels()]
    if not all(_SAME.fullmatch(label) for label in labels):
        axis.set_ticklabels([translated(label, names) for label in labels])


@cache
def chinese_font() -> str:
    """Return the family of a font that has all characters of the table, known to matplotlib.

    It is Noto Sans SC (SIL Open Font License 1.1) of the package pylopdf-fonts-zh-cn, with curves
    as TrueType has them: matplotlib would embed those of the package's OpenType file in a PDF under
    a wrong type, and printers refuse that.
    """
    spec = find_spec(_FONT_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise LanguageError(
            "Chinese figures need a font that is not installed.",
            f"run `pip install {_FONT_PACKAGE}`, or set `language: en`",
        )
    source = Path(spec.submodule_search_locations[0]) / "NotoSansSC-Regular.otf"
    folder = tempfile.mkdtemp(prefix="font-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # a PDF reads it when it is saved
    path = Path(folder) / "chinese.ttf"
    _convert(source, path)
    font_manager.fontManager.addfont(path)
    return _CONVERTED


def _convert(source: Path, target: Path) -> None:
    """Write the characters of the table as a TrueType font, from an OpenType font of cubic curves.

    The same file follows from the same font and table, so that figures repeat to the byte.
    """
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont, newTable

    font = TTFont(source, recalcTimestamp=False)
    subsetter = Subsetter(Options(layout_features=[], notdef_outline=True, hinting=False))
    subsetter.populate(text="".join(sorted(set("".join(CHINESE.values())))))
    subsetter.subset(font)
    outlines, order = font.getGlyphSet(), font.getGlyphOrder()
    glyphs = {}
    for name in order:
        pen = TTGlyphPen(None)
        outlines[name].draw(Cu2QuPen(pen, max_err=1, reverse_direction=True))
        glyphs[name] = pen.glyph()
    for table in ("CFF ", "VORG"):
        if table in font:
            del font[table]
    font["loca"], font["glyf"] = newTable("loca"), newTable("glyf")
    font["glyf"].glyphOrder, font["glyf"].glyphs = order, glyphs
    zones = ("maxZones", "maxTwilightPoints", "maxStorage", "maxFunctionDefs")
    zones += ("maxInstructionDefs", "maxStackElements", "maxSizeOfInstructions")
    font["maxp"].tableVersion = 0x00010000
    for field in (*zones, "maxComponentElements"):
        setattr(font["maxp"], field, 1 if field == "maxZones" else 0)
    for field, value in {"formatType": 2.0, "extraNames": [], "mapping": {}}.items():
        setattr(font["post"], field, value)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6, 16):
            record.string = _CONVERTED if record.nameID != 6 else _CONVERTED.replace(" ", "")
    font.sfntVersion = "\000\001\000\000"
    font.save(target)
