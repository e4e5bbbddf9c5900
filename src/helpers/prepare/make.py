"""Makes the covariates of a study, family by family, and says whether they are plausible."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.core.parallel import in_parallel
from helpers.core.rasters import THREADS
from helpers.core.settings import Area, OwnPredictor
from helpers.core.study import Study
from helpers.prepare import climate, own, soil, terrain, vegetation
from helpers.prepare.registry import covariates, write_covariates

if TYPE_CHECKING:
    import xarray

_MAKERS: dict[str, Callable[[Study], dict[str, np.ndarray]]] = {
    "terrain": terrain.make,
    "vegetation": vegetation.make,
    "climate": climate.make,
    "soil": soil.make,
}

LEAST_SHARE = 0.97
"""A predictor should cover at least this share of the study area."""


def make_covariates(study: Study) -> Iterator[tuple[str, list[Path]]]:
    """Make and write the covariates; yield each family that the study has, and its files.

    The user's own ones are made side by side, two at a time or on a cluster
    (`helpers.core.parallel`), so that memory does not grow with their number.
    """
    families = {layer.family for layer in covariates(study).values()}
    for family, make in _MAKERS.items():
        if family in families:
            yield family, write_covariates(study, make(study))
    if study.own_predictors:
        # While one is read, another is written.
        files = in_parallel(study, partial(_make_own, study), study.own_predictors, THREADS)
        yield "own", list(itertools.chain(*files))


def _make_own(study: Study, predictor: OwnPredictor) -> list[Path]:
    return write_covariates(study, own.make(study, predictor))


def plausibility(study: Study, data: "xarray.Dataset", coverage: pd.DataFrame) -> pd.DataFrame:
    """Return what can be told of the covariates by numbers that are known from elsewhere.

    `data` are those of `read_covariates`, `coverage` the table of `coverage_table`. There is one
    row a check, as far as the study has the layers for it: `value`, and what is `expected`.

    Notes
    -----
    NDWI and NDVI both follow the near infrared: where their correlation is near 1, the second adds
    little. An air frost number of 0.5 is a mean annual air temperature of 0 degC, by the monthly
    means of ERA5 at 0.25 degrees; permafrost need not end there, since valleys, peat and forest
    keep it in warmer air.
    """
    predictors = coverage[coverage["role"] == "predictor"]
    thin = predictors.index[predictors["share_of_area"] < LEAST_SHARE].tolist()
    share = f"{100 * LEAST_SHARE:g} %"
    rows = {
        f"predictors that cover less than {share} of the area": (", ".join(thin) or "none", "none")
    }
    if {"ndwi", "ndvi"} <= set(data.data_vars):
        size = abs(vegetation.index_correlation(data))
        rows["|r| of NDWI with NDVI"] = (f"{size:.3f}", "below 1")
    # Both the means of ERA5 and the published area are those of Northeast China.
    if "air_frost_number" in data and study.area.polygons == Area().polygons:
        low, high = climate.PUBLISHED_PERMAFROST_AREA
        area = f"{climate.frost_area(study):.1f}"
        rows["air frost number >= 0.5, 10^4 km2"] = (area, f"permafrost: {low} to {high}")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "expected"])
