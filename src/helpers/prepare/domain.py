"""The potential-permafrost domain: a rule on one covariate, fixed before any model.

Where `domain.covariate` is empty, the domain is the whole study area.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from helpers.core.grid import area_mask, reference_grid, thinned_grid
from helpers.core.rasters import reading
from helpers.core.study import Study
from helpers.prepare.registry import check_predictor, covariate_files, read_covariates


def domain_covariates(study: Study) -> list[str]:
    """Return the covariate of the rule, or none where there is no rule."""
    if not study.domain.covariate:
        return []
    check_predictor(study, study.domain.covariate, "domain.covariate")
    return [study.domain.covariate]


def in_domain(study: Study, table: pd.DataFrame) -> pd.Series:
    """Return which rows lie in the domain; rows without a value of its covariate do not."""
    inside = pd.Series(True, index=table.index, name="in_domain")
    for name in domain_covariates(study):
        inside &= table[name] > study.domain.above
    return inside


def domain_of_cells(study: Study) -> np.ndarray:
    """Return which cells of the reference grid lie in the domain, shape (y, x)."""
    return cells_in_and_out(study)[0]


def in_domain_at(
    study: Study, part: tuple[slice, slice], cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells of a window lie in the domain, and of which that is known.

    `cells` are flat indices in the window.
    """
    inside, known = np.ones((2, len(cells)), bool)
    for name in domain_covariates(study):
        with reading(covariate_files(study)[name]) as source:
            rule = source.read(1, window=part).ravel()[cells]
        inside, known = rule > study.domain.above, np.isfinite(rule)
    return inside, known


def cells_in_and_out(study: Study, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells lie in the domain, and which outside; those without a value in neither.

    With a `step`, of every so many-th cell of every so many-th row.
    """
    for name in domain_covariates(study):
        values = read_covariates(study, [name], step)[name].to_numpy()
        return values > study.domain.above, values <= study.domain.above
    inside = area_mask(study, thinned_grid(reference_grid(study), step))
    return inside, np.zeros_like(inside)


def by_domain(study: Study, in_domain: npt.ArrayLike) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each of the study's domains and which samples or cells lie in it, shape (n,)."""
    in_domain = np.asarray(in_domain, bool)
    yield from zip(study.domains, (np.ones(len(in_domain), bool), in_domain), strict=False)
