"""Figures for print, from results only: one figure, one function, one file name."""

from pathlib import Path

from helpers.core.study import Study

_FUNCTIONS = {
    "samples": "samples:study_area",
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

SHOW_SITES = ("samples",)
"""Beginnings of the names of figures that show where samples lie, to some hundred metres."""


def figure_functions(study: Study) -> dict[str, str]:
    """Return the function of each figure that a study has, as a module and a name in it."""
    return {
        name: f"helpers.figures.{function}"
        for name, function in _FUNCTIONS.items()
        if study.has_storage or name not in _OF_ICE
    }


def figure_files(study: Study) -> list[Path]:
    """Return the PNG files of all figures of a study, in its languages."""
    return [
        study.figures_dir / f"{name}{ending(language)}.png"
        for name in figure_functions(study)
        for language in study.languages
    ]


def ending(language: str) -> str:
    """Return what follows a figure's name in files of a language; nothing in English."""
    return "" if language == "en" else f"-{language}"
