"""The potential-permafrost domain: a rule on one covariate, fixed before any model."""

import numpy as np
import pandas as pd

from helpers.core.study import Study
from helpers.prepare.registry import check_predictor, read_covariates


def in_domain(study: Study, table: pd.DataFrame) -> pd.Series:
    """Return which rows lie in the domain; rows without a value of its covariate do not."""
    check_predictor(study, study.domain.covariate, "domain.covariate")
    return (table[study.domain.covariate] > study.domain.above).rename("in_domain")


def domain_of_cells(study: Study) -> np.ndarray:
    """Return which cells of the reference grid lie in the domain, shape (y, x)."""
    return cells_in_and_out(study)[0]


def cells_in_and_out(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells lie in the domain, and which outside; those without a value in neither."""
    name = study.domain.covariate
    check_predictor(study, name, "domain.covariate")
    values = read_covariates(study, [name])[name].to_numpy()
    return values > study.domain.above, values <= study.domain.above
