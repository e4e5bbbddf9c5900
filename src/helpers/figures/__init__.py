"""Figures for print, from results only."""

NAMES = ("samples", "ice-maps", "confusion-matrices", "importance", "trust", "accuracy-summary")
"""File names of the figures that notebook 06 writes."""
