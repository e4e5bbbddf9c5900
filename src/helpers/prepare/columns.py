"""Predictors as columns of a forest: a category is one column for each of its codes.

Tables of samples keep the code of a category in one column, and rasters in one band. A forest gets
a column such as ``vegetation=3``: 1 where the code is 3, else 0.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from helpers.core.rasters import reading
from helpers.core.study import Study
from helpers.prepare.registry import (
    CovariateError,
    covariate_files,
    covariates,
    numeric,
    used_predictors,
)


def forest_columns(study: Study) -> list[str]:
    """Return the columns of the study's forests, in their order.

    The codes of a category are those that occur on the map; notebook 01 writes them into the tags
    of its raster.
    """
    columns: list[str] = []
    for name in used_predictors(study):
        columns += [name] if numeric(study, name) else _columns_of(study, name)
    return columns


def _columns_of(study: Study, name: str) -> list[str]:
    path = covariate_files(study)[name]
    if not path.is_file():
        raise CovariateError(f"The covariate {name} is missing.", "run 01-prepare-data")
    with reading(path) as source:
        codes = source.tags().get("categories", "").split()
    if not codes:
        raise CovariateError(f"{path.name} names no categories.", "run 01-prepare-data again")
    return [f"{name}={code}" for code in codes]


def predictor_of(column: str) -> str:
    """Return the predictor of a column: of ``vegetation=3`` it is ``vegetation``.

    Examples
    --------
    >>> predictor_of("vegetation=3"), predictor_of("slope")
    ('vegetation', 'slope')
    """
    return column.partition("=")[0]


def predictors_of(columns: Iterable[str]) -> list[str]:
    """Return the predictors of columns, each once, in their order.

    Examples
    --------
    >>> predictors_of(["slope", "vegetation=1", "vegetation=3"])
    ['slope', 'vegetation']
    """
    return list(dict.fromkeys(map(predictor_of, columns)))


def column_values(column: str, values: np.ndarray) -> np.ndarray:
    """Return a column from its predictor's values, NaN where there is none.

    Examples
    --------
    >>> column_values("vegetation=3", np.array([3.0, 1.0, np.nan])).tolist()
    [1.0, 0.0, nan]
    """
    code = column.partition("=")[2]
    if not code:
        return values
    return np.where(np.isnan(values), np.nan, values == float(code)).astype(np.float32)


def column_title(study: Study, column: str) -> str:
    """Return the title of a predictor or column, as figures show it."""
    name, _, code = column.partition("=")
    title = covariates(study)[name].title
    return f"{title}: {code}" if code else title


def places_of(columns: Sequence[str], predictors: Iterable[str]) -> list[int]:
    """Return the places of the columns that belong to some predictors, or are named themselves.

    Examples
    --------
    >>> places_of(["slope", "cover=1", "cover=2", "ndvi"], ["cover", "ndvi"])
    [1, 2, 3]
    """
    wanted = set(predictors)
    return [k for k, name in enumerate(columns) if {name, predictor_of(name)} & wanted]
