"""Figures: what they hold, and that they are written whole."""

import matplotlib as mpl
import numpy as np
import pytest
from cartopy.mpl.gridliner import Gridliner
from matplotlib import pyplot as plt

from helpers.core import plot
from helpers.core.classes import TARGETS
from helpers.core.grid import geographic_grid, reference_grid

mpl.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_maps_have_titles_keys_and_the_label_and_are_written_whole(study, tmp_path):
    study, geobox = study.changed({"label": "SIMULATED"}), reference_grid(study)
    degrees = geographic_grid((118, 45, 122, 50), 600)
    codes = np.random.default_rng(0).integers(0, 6, geobox.shape)
    maps = [
        {"title": "Types", "values": codes, "geobox": geobox, "unit": "1"}
        | {"categories": TARGETS["ice_type"].legend},
        {"title": "Nothing", "values": np.full(degrees.shape, np.nan), "geobox": degrees}
        | {"unit": "m", "cmap": "devon_r"},
    ]
    figure = plot.map_panels(study, maps, ncols=2, suptitle="Both")
    types, nothing = figure.axes
    (key,) = nothing.child_axes
    assert [axes.get_title(loc="left") for axes in (types, nothing)] == ["Types", "Nothing"]
    legend = [text.get_text() for text in types.get_legend().get_texts()]
    assert legend == [kind.name for kind in TARGETS["ice_type"].classes]
    assert key.get_xlabel() == "m"
    assert {text.get_text() for text in figure.texts} == {"Both", "SIMULATED"}
    written = plot.save(figure, tmp_path / "new" / "figure")
    assert sorted(p.name for p in written) == ["figure.pdf", "figure.png"]
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    graticules = (
        next(child for child in axes.get_children() if isinstance(child, Gridliner))
        for axes in (types, nothing)
    )
    first, second = (
        {text.get_text() for text in lines.label_artists if text.get_visible()}
        for lines in graticules
    )
    assert {"120°E", "50°N"} <= first
    assert "120°E" in second
    assert not any(text.endswith("N") for text in second)  # only the first column has them


def test_panels_have_the_size_asked_for_and_an_empty_label_writes_nothing():
    figure, axes = plot.panels(2, 1, 50.8, width_mm=127, sharex=True)
    assert axes.shape == (2, 1)
    assert tuple(figure.get_size_inches()) == pytest.approx((5, 2))
    plot.mark_label(figure, "")
    assert not figure.texts
