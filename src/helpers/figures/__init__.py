"""Figures for print, from results only."""

NAMES = (
    "samples", "ice-maps", "reference-maps", "confusion-matrices", "importance", "trust",
    "accuracy-summary",
)  # fmt: skip
"""File names of the figures that notebook 06 writes."""
