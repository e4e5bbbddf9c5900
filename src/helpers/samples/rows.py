"""The samples of one layer as a forest takes them: predictors, classes, weights."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from helpers.core.classes import DEFAULT_TARGET, Target
from helpers.core.errors import CompendiumError
from helpers.core.study import Study
from helpers.prepare.columns import column_values, forest_columns, predictor_of, predictors_of

CLASSES = DEFAULT_TARGET.codes
"""Codes of the ice types, which are the classes of the default target."""


class ForestError(CompendiumError):
    """Samples or settings from which no forest can be grown."""


def layer_rows(
    table: pd.DataFrame,
    layer: str,
    which: Literal["all", "train", "test"] = "all",
    target: Target = DEFAULT_TARGET,
) -> pd.DataFrame:
    """Return the samples of a depth layer such as ``"2-3m"``, with their ``class`` as a column.

    This is the one place where the types of samples become the classes of a target. `table` is as
    from `read_samples`. ForestError if there are no such samples, or of types that are none.
    """
    chosen = table["layer"] == layer
    if which != "all":
        chosen &= table["split"] == which
    if not chosen.any():
        layers = ", ".join(sorted(table["layer"].unique())) or "none"
        raise ForestError(
            f"There are no samples of the layer {layer} ({which}), but of {layers}.",
            "run 02-extract-samples for these layers, or correct `layers` in the study file",
        )
    rows = table[chosen].reset_index(drop=True)
    types = rows["ice_type"].to_numpy(int)
    if others := sorted(set(types.tolist()) - set(range(len(target.of_type)))):
        remedy = f"use 0-{len(target.of_type) - 1}"
        raise ForestError(f"The samples of {layer} have the ice types {others}.", remedy)
    return rows.assign(**{"class": np.array(target.of_type)[types]})


def predictor_values(rows: pd.DataFrame, predictors: Sequence[str]) -> np.ndarray:
    """Return the predictors of samples, shape (n, k): 32-bit floats, as scikit-learn's trees see.

    ForestError if a column is missing or has values that are not finite.
    """
    if missing := [name for name in predictors_of(predictors) if name not in rows]:
        raise ForestError(
            f"The samples have no column {', '.join(missing[:5])}.",
            "run 02-extract-samples with these predictors",
        )
    own = rows[predictors_of(predictors)].astype(np.float32)
    columns = [column_values(name, own[predictor_of(name)].to_numpy()) for name in predictors]
    values = np.stack(columns, axis=1)
    bad = ~np.isfinite(values)
    if bad.any():
        name = predictors[int(bad.any(axis=0).argmax())]
        sites = rows.loc[bad.any(axis=1), "site_id"].astype(str)
        some = ", ".join(sites[:5])
        raise ForestError(
            f"{len(sites)} samples lack a finite value of a predictor, such as {name} at {some}.",
            "drop these samples, as 02-extract-samples does, or leave the predictor out",
        )
    return values


def forest_predictors(study: Study, rows: pd.DataFrame) -> np.ndarray:
    """Return the predictors of the study's forests of some samples, shape (n, predictors)."""
    return predictor_values(rows, forest_columns(study))


def training_arrays(study: Study, rows: pd.DataFrame, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return predictors and classes of samples that a forest can be grown from."""
    classes = rows["class"].to_numpy()
    if len(np.unique(classes)) < 2:
        name = study.target_classes.classes[classes[0]].name
        raise ForestError(
            f"All {len(classes)} samples of {layer} are of the class {name}.",
            "add sites of other classes, leave the layer out of `layers`, or set another `target`",
        )
    values = forest_predictors(study, rows)
    columns = forest_columns(study)
    # A category that no sample has is no mistake.
    constant = (values == values[0]).all(axis=0) & ~np.char.count(columns, "=").astype(bool)
    if constant.any():
        names = ", ".join(np.array(columns)[constant][:5])
        raise ForestError(
            f"Predictors have one value at all {len(classes)} samples of {layer}: {names}.",
            "correct the rasters of these covariates, or leave them out of `predictors`",
        )
    return values, classes
