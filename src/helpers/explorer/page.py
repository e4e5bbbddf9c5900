"""Writing the page: one HTML file with the bundle, the study and its bands in it."""

import html
import json
from pathlib import Path
from typing import Any

from helpers.core.files import write_aside
from helpers.core.grid import reference_grid
from helpers.core.study import Study
from helpers.explorer.bands import ExplorerError, pack
from helpers.explorer.layers import bands, describe
from helpers.explorer.points import point_lists

MOST_CELLS = 8_000_000
"""Of the grid: a page of more would be too large to open on a phone."""

BUNDLE = Path(__file__).with_name("bundle")
"""Folder of the page's script and style."""


def write_explorer(study: Study, truth: dict[str, Path] | None = None) -> Path:
    """Write ``explorer.html`` beside a finished run's results; return its path.

    The page is made to be passed on: it tells where samples lie only if the study publishes that.

    Parameters
    ----------
    truth
        Rasters of a hidden truth by name, if there is one: ``ice_type_<layer>`` and
        ``ice_fraction_<layer>``.

    Raises
    ------
    ExplorerError
        If a map is missing, or the grid has more than `MOST_CELLS` cells.
    """
    about, texts = study_bands(study, truth, sites=study.publishes_sites)
    path = study.results_dir / "explorer.html"
    with write_aside(path) as part:
        part.write_text(_page(about, texts), "utf-8")
    return path


def study_bands(
    study: Study, truth: dict[str, Path] | None = None, *, sites: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a view has to know of a finished map, and its bands as text by name.

    Other arguments and errors are those of `write_explorer`.

    Parameters
    ----------
    sites
        Whether the view may tell where samples lie. If not, it has no sites, and dissimilarity
        indices do not mark the samples' cells.
    """
    rows, columns = reference_grid(study).shape
    if rows * columns > MOST_CELLS:
        raise ExplorerError(
            f"The grid has {rows * columns / 1e6:.1f} million cells, and a page takes "
            f"{MOST_CELLS / 1e6:g} million.",
            "make the map of a smaller area, or of larger cells",
        )
    packed = {name: pack(band) for name, band in bands(study, truth or {}, sites=sites)}
    about = describe(study, list(packed))
    about["points"] = point_lists(study, sites=sites)
    about["hides_sites"] = not sites
    about["bands"] = {name: described for name, (described, _) in packed.items()}
    return about, {name: text for name, (_, text) in packed.items()}


def _page(about: dict[str, Any], texts: dict[str, str]) -> str:
    """Return the page; the bands come last, since a browser shows what is before them at once."""
    script, style = (
        (BUNDLE / f"explorer.{ending}").read_text(encoding="utf-8") for ending in ("js", "css")
    )
    licences = (BUNDLE / "LICENSES.txt").read_text(encoding="utf-8")
    # In a script, only these characters could end it.
    data = json.dumps(about, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    title = html.escape(about["title"])
    label = html.escape(about["label"])
    badge = f'<strong class="badge">{label}</strong>' if label else ""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        # Nothing may be asked of any server.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\">",
        '<link rel="icon" href="data:,">',
        f"<style>{style}</style>\n</head>\n<body>",
        f'<div id="explorer" class="explorer"><header><h1>{title}</h1>{badge}</header></div>',
        f'<script type="application/json" id="about">{data}</script>',
        # It begins while the browser still reads the bands.
        f'<script type="module" async>{script}</script>',
        *(f'<script type="text/plain" id="band-{n}">{text}</script>' for n, text in texts.items()),
        f"<!--\n{licences}\n-->",
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)
