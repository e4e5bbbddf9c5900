"""Fonts of figures, small and the same on every machine: bytes repeat, and PDFs are written fast.

What a figure may need of a large font is cut out once. matplotlib cuts out the letters of each
figure again, and that takes as long as the rest of a chart where a font has tables of layout.
"""

import atexit
import shutil
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib import font_manager

from helpers.core.errors import CompendiumError

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont

_CHINESE_PACKAGE = "pylopdf-fonts-zh-cn"
# Latin, Greek and Cyrillic letters, punctuation, and the signs of units and numbers; others come
# from the whole font.
_LETTERS = "".join(map(chr, [*range(0x20, 0x180), *range(0x370, 0x460), *range(0x2010, 0x2040)]))
_LETTERS += "⁰⁴⁵⁶⁷⁸⁹⁻√∞−≈≠≤≥"


class FontError(CompendiumError):
    """A font that is not there."""


@cache
def latin_font() -> str:
    """Return the family of a part of DejaVu Sans, which matplotlib brings, known to matplotlib."""
    source = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return _add("Ground Ice Sans", source, _LETTERS)


@cache
def chinese_font(characters: str) -> str:
    """Return the family of a font that has some Chinese characters, known to matplotlib.

    It is Noto Sans SC (SIL Open Font License 1.1) of the package pylopdf-fonts-zh-cn, with curves
    as TrueType has them: matplotlib would embed those of the package's OpenType file in a PDF under
    a wrong type, and printers refuse that. FontError if the package is not installed.
    """
    spec = find_spec(_CHINESE_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise FontError(
            "Chinese figures need a font that is not installed.",
            f"run `pip install {_CHINESE_PACKAGE}`, or set `language: en`",
        )
    source = Path(spec.submodule_search_locations[0]) / "NotoSansSC-Regular.otf"
    # A name of its own for each set of characters: matplotlib takes the first font of a name.
    family = f"Ground Ice Noto Sans SC {zlib.crc32(characters.encode()):08x}"
    return _add(family, source, characters, _make_quadratic)


def _add(
    family: str, source: Path, characters: str, change: Callable[["TTFont"], None] | None = None
) -> str:
    """Make a font of some characters of another known to matplotlib; return its family.

    The same file follows from the same font and characters, so that figures repeat to the byte.
    """
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    font = TTFont(source, recalcTimestamp=False)
    for table in {"FFTM", "GDEF", "GPOS", "GSUB"} & set(font.keys()):
        del font[table]  # of layout, which matplotlib does not do
    subsetter = Subsetter(Options(notdef_outline=True, hinting=False))
    subsetter.populate(text="".join(sorted(set(characters))))
    subsetter.subset(font)
    if change:
        change(font)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6, 16):
            record.string = family if record.nameID != 6 else family.replace(" ", "")
    folder = tempfile.mkdtemp(prefix="font-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # a PDF reads it when it is saved
    path = Path(folder) / "font.ttf"
    font.save(path)
    font_manager.fontManager.addfont(path)
    return family


def _make_quadratic(font: "TTFont") -> None:
    """Change the cubic curves of an OpenType font into those of TrueType."""
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.ttLib import newTable

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
    font.sfntVersion = "\000\001\000\000"
