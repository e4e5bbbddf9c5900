"""Figures for print, from results only."""

NAMES = (
    "samples", "ice-maps", "reference-maps", "confusion-matrices", "importance", "trust",
    "accuracy-summary",
)  # fmt: skip
"""File names of the figures that notebook 06 writes."""

SHOW_SITES = ("samples",)
"""Beginnings of the names of figures that show where samples lie, to some hundred metres."""
