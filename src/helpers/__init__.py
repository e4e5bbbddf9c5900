"""Helpers of the ground-ice research compendium; modules are imported by their full names."""

__version__ = "0.1.0"
