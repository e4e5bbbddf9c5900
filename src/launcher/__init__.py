"""Runs the notebooks: stages, Snakemake, locks, batches, comparison of runs, the numbers of the README."""
