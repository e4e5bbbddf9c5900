"""Figures for print, from results only: one figure, one function, one file name."""

from pathlib import Path

from helpers.core.study import Study

_FUNCTIONS = {
    "samples": "samples:study_area",
    "predictors": "maps:predictors",
    "distances": "charts:distances",
    "folds": "samples:fold_maps",
    "search": "charts:search",
    "confusion-matrices": "charts:confusion_matrices",
    "class-areas": "charts:class_areas",
    "reliability": "charts:reliability",
    "importance": "charts:importance",
    "type-maps": "maps:type_maps",
    "permafrost-probability": "maps:permafrost_probability",
    "ice-content": "maps:ice_content",
    "storage": "maps:storage",
    "totals": "charts:totals",
    "trust": "maps:trust_maps",
}
_OF_ICE = ("ice-content", "storage", "totals")

# Drawn by the notebooks that write their tables, not by 06.
_OF_OTHERS = {"effects": ("local_effects", "helpers.figures.charts:effects")}

SHOW_SITES = ("samples", "folds")
"""Beginnings of the names of figures that show where samples lie, to some hundred metres."""


def figure_functions(study: Study) -> dict[str, str]:
    """Return the function of each figure that a run can have by now, as a module and a name in it.

    Figures of notebooks that need not be run are there once their tables are.
    """
    tables = study.results_dir / "tables"
    others = _OF_OTHERS | study.own_figures
    return main_figures(study) | {
        name: function
        for name, (table, function) in others.items()
        if (tables / f"{table}.csv").is_file()
    }


def main_figures(study: Study) -> dict[str, str]:
    """Return the function of each figure that notebook 06 draws."""
    return {
        name: f"helpers.figures.{function}"
        for name, function in _FUNCTIONS.items()
        if study.has_storage or name not in _OF_ICE
    }


def figure_files(study: Study) -> list[Path]:
    """Return the PNG files of the figures of notebook 06, in the languages of a study."""
    return [
        study.figures_dir / f"{name}{ending(language)}.png"
        for name in main_figures(study)
        for language in study.languages
    ]


def ending(language: str) -> str:
    """Return what follows a figure's name in files of a language; nothing in English.

    Examples
    --------
    >>> ending("en"), ending("zh")
    ('', '-zh')
    """
    return "" if language == "en" else f"-{language}"
