"""Figures in Chinese: translations, a font that prints, and colours that all readers tell apart."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from coloraide import Color
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from helpers.core import fonts, language, plot
from helpers.core.chinese import CHINESE
from helpers.core.classes import ICE_TYPES, TARGETS
from helpers.figures import publish
from helpers.prepare import registry

mpl.use("agg")


def test_texts_are_translated_with_their_parts():
    assert language.translated("Expected error, 2-3 m") == "期望误差，2-3 m"
    assert language.translated("training (418)") == "训练（418）"
    assert language.translated("40 km²") == "40 km²"
    unit = "m of ice; in total 422 km³ (90 % interval 357 to 482)"
    assert language.translated(unit) == "冰厚（m）；总量 422 km³（90 % 区间 357–482）"
    assert language.translated("my slope", {"my slope": "my slope"}) == "my slope"


def test_a_text_without_translation_is_an_error():
    with pytest.raises(language.LanguageError, match="has no Chinese translation"):
        language.translated("Unheard of")


def test_a_missing_font_is_an_error_and_no_boxes(monkeypatch):
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)
    fonts.chinese_font.cache_clear()
    with pytest.raises(fonts.FontError, match="not installed"):
        fonts.chinese_font("冰")
    fonts.chinese_font.cache_clear()


def test_classes_and_built_in_predictors_have_translations():
    for target in TARGETS.values():
        for kind in target.classes:
            assert language.translated(kind.name) == kind.chinese_name
    for rows in registry._LAYERS.values():
        for _, title, *_ in rows:
            assert re.search("[\u4e00-\u9fff]", language.translated(title))


def test_chinese_is_drawn_by_an_embedded_truetype_font_and_repeats(tmp_path):
    found = []
    for name in ("one", "two"):
        figure, axes = plot.panels(1, 1, 40, width_mm=plot.COLUMN_MM)
        axes[0, 0].set(title="Ice content, 2-3 m", xlabel="probability")
        axes[0, 0].set_yticks([0, 1], ["no permafrost", "ice-rich"])
        plot.mark_label(figure, "SIMULATED")
        language.translate(figure)
        assert [text.get_text() for text in axes[0, 0].get_yticklabels()] == [
            "非多年冻土",
            "富冰冻土",
        ]
        figure.draw_without_rendering()
        plot.save(figure, tmp_path / name)
        found.append((tmp_path / f"{name}.pdf").read_bytes())
        plt.close(figure)
    assert found[0] == found[1]
    assert b"/CIDFontType2" in found[0]
    assert b"/FontFile2" in found[0]
    assert b"GroundIceNotoSansSC" in found[0]
    assert b"/Type3" not in found[0]


def test_texts_of_the_style_have_7_to_9_points():
    sizes = [value for name, value in plot._STYLE.items() if name.endswith(("size", "titlesize"))]
    texts = [size for size in sizes if isinstance(size, int | float) and size > 3]
    assert texts
    assert all(7 <= size <= 9 for size in texts)


def test_classes_are_told_apart_by_readers_with_deuteranopia():
    colours = [Color(kind.colour).filter("deutan", 1, method="machado") for kind in ICE_TYPES]
    assert all(one.delta_e(other, method="2000") >= 10 for one, other in pairwise(colours))


def test_table_has_no_key_twice():
    tree = ast.parse(Path(language.__file__).with_name("chinese.py").read_text())
    keys = [
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    ]
    assert len(keys) == len(set(keys))
    assert all(to_rgb(kind.colour) for kind in ICE_TYPES)
    assert np.all([CHINESE[key].count("{}") == key.count("{}") for key in CHINESE])


def test_a_name_of_a_user_gets_its_own_characters_or_is_an_error(tmp_path):
    figure, axes = plot.panels(1, 1, 40, width_mm=plot.COLUMN_MM)
    axes[0, 0].set(title="Permafrost in 鄂伦春旗")
    language.use_chinese_font(figure)
    publish._write(figure, tmp_path / "one.png", large=False)
    assert {path.name for path in tmp_path.iterdir()} == {"one.pdf", "one.png"}
    axes[0, 0].set(title="Permafrost in ᠮᠣᠩᠭᠣᠯ")
    with pytest.raises(fonts.FontError, match="the figure two"):
        publish._write(figure, tmp_path / "two.png", large=False)
    assert {path.name for path in tmp_path.iterdir()} == {"one.pdf", "one.png"}
    plt.close(figure)
