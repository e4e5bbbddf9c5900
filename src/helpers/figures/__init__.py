"""Figures for print, from results only."""
