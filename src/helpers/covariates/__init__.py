"""Covariates: what the forests see of every cell. One module a family, and a registry of all layers."""
