"""Every figure of the quick study in both languages: width, letters, and texts that are whole."""

from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import RendererAgg

from helpers import figures
from helpers.core import plot
from helpers.core.language import translate, translated
from helpers.core.study import Study
from helpers.figures import publish

mpl.use("agg")

MM = 25.4
DPI = 200  # of files for screens
TOUCH = 2.5  # pixels by which boxes of texts may overlap: they have room above and below letters


@pytest.fixture
def quick_study(quick, monkeypatch):
    monkeypatch.setattr("helpers.core.study.ROOT", quick)
    return Study.open("config/quick.yaml")


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws a figure, and gives each text that is seen and its box."""
    seen = []
    whole = RendererAgg.draw_text

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        if s.strip() and mtext is not None:
            seen.append(mtext)
        whole(self, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", draw_text)

    def draw(figure):
        seen.clear()
        figure.set_dpi(DPI)
        figure.canvas.draw()
        texts = list({id(text): text for text in seen}.values())
        return [(text, text.get_window_extent()) for text in texts]

    return draw


def check_texts(figure, texts):
    """Assert that all texts lie in the figure, have 7 to 9 points and do not lie on each other."""
    assert texts
    for text, box in texts:
        what = text.get_text()
        assert 7 <= text.get_fontsize() <= 9, what
        assert box.x0 > -TOUCH, what
        assert box.y0 > -TOUCH, what
        assert box.x1 < figure.bbox.x1 + TOUCH, what
        assert box.y1 < figure.bbox.y1 + TOUCH, what
    upright = [pair for pair in texts if pair[0].get_rotation() % 90 == 0]
    for (one, first), (other, second) in combinations(upright, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        where = f"{one.get_text()!r} and {other.get_text()!r}"
        assert min(wide, high) <= TOUCH, f"{where} overlap by {wide:.1f} x {high:.1f} pixels"


@pytest.mark.parametrize("name", [*figures._FUNCTIONS, "promised"])
def test_a_figure_has_the_width_of_print_and_whole_texts(quick_study, drawn, name):
    figure = publish.draw(quick_study, name)
    width, height = figure.get_size_inches() * MM
    assert round(width, 3) in (plot.COLUMN_MM, plot.WIDTH_MM)
    assert height < 240  # of a page
    english = drawn(figure)
    check_texts(figure, english)
    assert quick_study.label in [text.get_text() for text, _ in english]
    names = publish.study_names(quick_study)
    translate(figure, names)
    chinese = drawn(figure)
    check_texts(figure, chinese)
    written = {text.get_text() for text, _ in chinese}
    assert translated(quick_study.label) in written
    plt.close(figure)


def test_a_run_lacks_figures_of_notebooks_that_were_not_run(quick_study):
    assert "promised" in figures.figure_functions(quick_study)
    assert "effects" not in figures.figure_functions(quick_study)
    assert "promised" not in figures.main_figures(quick_study)


def test_an_unknown_figure_is_an_error_that_names_the_nearest(quick_study):
    with pytest.raises(publish.UnknownFigureError, match="did you mean storage"):
        publish.draw(quick_study, "storrage")
