"""The samples of one layer as a forest takes them: predictors, classes, weights."""

import numpy as np

from helpers.core.classes import TARGETS
from helpers.core.errors import CompendiumError
from helpers.prepare.registry import used_predictors

CLASSES = TARGETS["ice_type"].codes
"""Codes of the ice types, which are the classes of the default target."""


class ForestError(CompendiumError):
    """Samples or settings from which no forest can be grown."""


# Samples ----------------------------------------------------------------------------------------------------


def layer_rows(table, layer, which="all", target="ice_type"):
    """Return the samples of a depth layer with their class: the one place where ice types become a target's classes.

    Parameters
    ----------
    table : pandas.DataFrame
        Samples, as from `helpers.samples.store.read_samples`.
    layer : str
        Name of the layer, such as ``"2-3m"``.
    which : {"all", "train", "test"}
        The part of the split.
    target : str
        One of `helpers.core.classes.TARGETS`.

    Returns
    -------
    pandas.DataFrame
        With one more column, ``class``.

    Raises
    ------
    ForestError
        There are none, or they have other ice types than 0-5.
    """
    chosen = table["layer"] == layer
    if which != "all":
        chosen &= table["split"] == which
    if not chosen.any():
        known = ", ".join(sorted(table["layer"].unique())) or "none"
        raise ForestError(
            f"There are no samples of the layer {layer} ({which}); the table has the layers {known}.",
            "run 02-extract-samples for these layers, or correct `layers` in the study file",
        )
    rows, of_type = table[chosen].reset_index(drop=True), np.array(TARGETS[target].of_type)
    types = rows["ice_type"].to_numpy(int)
    if unknown := sorted(set(types.tolist()) - set(CLASSES)):
        raise ForestError(f"The samples of {layer} have the ice types {unknown}.", f"use {CLASSES[0]}-{CLASSES[-1]}")
    return rows.assign(**{"class": of_type[types]})


def predictor_values(rows, predictors):
    """Return the predictors of samples as 32-bit floats, as scikit-learn's trees see them.

    Parameters
    ----------
    rows : pandas.DataFrame
    predictors : sequence of str
        Columns, in order.

    Returns
    -------
    numpy.ndarray of float32, shape (n, len(predictors))

    Raises
    ------
    ForestError
        A column is missing or has values that are not finite.
    """
    missing = [name for name in predictors if name not in rows]
    if missing:
        raise ForestError(
            f"The samples have no column {', '.join(missing[:5])}.",
            "run 02-extract-samples with these predictors",
        )
    values = np.ascontiguousarray(rows[list(predictors)].to_numpy(np.float32))
    bad = ~np.isfinite(values)
    if bad.any():
        name = predictors[int(bad.any(axis=0).argmax())]
        sites = ", ".join(rows.loc[bad.any(axis=1), "site_id"].astype(str)[:5])
        raise ForestError(
            f"{bad.any(axis=1).sum()} samples lack a finite value of a predictor, such as {name} at {sites}.",
            "drop these samples, as 02-extract-samples does, or leave the predictor out",
        )
    return values


def forest_predictors(study, rows):
    """Return the predictors of the study's forests of some samples, shape (n, predictors)."""
    return predictor_values(rows, used_predictors(study))


def training_arrays(study, rows, layer):
    """Return predictors and classes of samples that a forest can be grown from."""
    types = rows["class"].to_numpy()
    if len(np.unique(types)) < 2:
        name = TARGETS[study.target].classes[types[0]].name
        raise ForestError(
            f"All {len(types)} samples of {layer} are of the class {name}: nothing is to be told apart.",
            "give sites of other classes, leave the layer out of `layers`, or set another `target`",
        )
    values = forest_predictors(study, rows)
    constant = [
        name for name, same in zip(used_predictors(study), (values == values[0]).all(axis=0), strict=True) if same
    ]
    if constant:
        raise ForestError(
            f"Predictors have one value at all {len(types)} samples of {layer}: {', '.join(constant[:5])}.",
            "correct the rasters of these covariates, or leave them out of `predictors`",
        )
    return values, types
