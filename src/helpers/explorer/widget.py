"""The page's view of a map in a notebook: a cell that is clicked comes back to Python."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython.display import Markdown, display

from helpers.core.study import Study
from helpers.explorer.explain import Explainer, Explanation
from helpers.explorer.page import BUNDLE, study_bands


class MapView(anywidget.AnyWidget):
    """The view of `explorer.html` as a widget; `place` has the coordinates of the cell asked."""

    _esm = BUNDLE / "explorer.js"
    _css = BUNDLE / "explorer.css"
    about = traitlets.Dict().tag(sync=True)
    place = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(self, about: dict[str, Any], text_of: Callable[[str], str]) -> None:
        super().__init__(about=about)
        self._text_of = text_of
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Send the text of the band that the view asks for."""
        if (name := message.get("band")) in self.about["bands"]:
            self.send({"band": name, "text": self._text_of(name)})


def explore(study: Study, truth: dict[str, Path] | None = None) -> ipywidgets.VBox:
    """Return the view of a finished map, and below it why the map says so in the cell clicked.

    Parameters
    ----------
    truth
        As of `helpers.explorer.page.write_explorer`.

    Raises
    ------
    ExplorerError
        If a map is missing, or the grid is too large for a page.
    """
    about, texts = study_bands(study, truth)
    view, answer = MapView(about, texts.__getitem__), ipywidgets.Output()
    explainer = cache(lambda layer: Explainer(study, layer))
    depths = [(depth["title"], depth["name"]) for depth in about["depths"]]
    depth = ipywidgets.ToggleButtons(options=depths, description="Explain")

    def explain(_: Any) -> None:
        if not view.place:
            return
        explanation = explainer(depth.value).at(*view.place)
        with answer:
            answer.clear_output(wait=True)
            show(explanation)

    view.observe(explain, "place")
    depth.observe(explain, "value")
    return ipywidgets.VBox([view, depth, answer])


def show(explanation: Explanation) -> None:
    """Show the tables of an explanation in a notebook."""
    display(Markdown(explanation.summary))
    for title, table in explanation.tables.items():
        display(table.style.set_caption(title).format(precision=2, na_rep="").hide(axis="index"))
