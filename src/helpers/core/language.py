"""Texts of figures in Chinese, by a table of translations.

A figure is drawn once, in English; `translate` then changes its texts in place. A text without a
translation is an error, never English among Chinese.
"""

import re
from collections.abc import Mapping
from functools import cache

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from helpers.core.chinese import CHINESE
from helpers.core.errors import CompendiumError
from helpers.core.fonts import chinese_font

_UNITS = r"m|km|cm|mm|m²|m³|km²|km³|°|°C|%|ECE|kg|g|kappa|E|N|W|S"
# Numbers, depths, units and signs are the same in both languages.
_SAME = re.compile(rf"(?:[\d\s.,:;%°′()\[\]<>≤≥=/+±×·−–\-]|\$.*?\$|\b(?:{_UNITS})\b)*")

_CHARACTERS = re.compile("[\u4e00-\u9fff]")  # what has some was translated before


class LanguageError(CompendiumError):
    """A text that a language lacks."""


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
        If a text has no translation.
    FontError
        If the font's package is not installed.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _translate_ticks(axis, names)
    for text in _texts(figure):
        text.set_text(translated(text.get_text(), names))
    use_chinese_font(figure)


def use_chinese_font(figure: Figure) -> None:
    """Give the texts of a figure a font that has their Chinese characters, if they have any.

    FontError if the font's package is not installed.
    """
    found = {one for text in _texts(figure) for one in _CHARACTERS.findall(text.get_text())}
    if found:
        family = ["sans-serif", chinese_font("".join(sorted(found.union(*CHINESE.values()))))]
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set(fontfamily=family, fontweight="normal")  # the font has one weight


def _texts(figure: Figure) -> list[Text]:
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    return [text for text in texts if text.get_text()]


def _translate_ticks(axis: Axis, names: Mapping[str, str] | None) -> None:
    """Translate labels that were set; a formatter would write them anew when they are drawn."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return
    labels = [label.get_text() for label in axis.get_ticklabels()]
    if not all(_SAME.fullmatch(label) for label in labels):
        axis.set_ticklabels([translated(label, names) for label in labels])
