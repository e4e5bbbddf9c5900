"""Runs the notebooks: stages, Snakemake, locks, batches, comparison, numbers of the README."""
