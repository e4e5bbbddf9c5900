"""The potential-permafrost domain at samples and in cells."""

import numpy as np
import pandas as pd
import pytest

from helpers.core.grid import area_mask, reference_grid
from helpers.core.study import StudyError
from helpers.prepare import domain
from helpers.prepare.registry import write_covariates


def test_cells_without_a_value_lie_neither_in_nor_outside(study):
    geobox = reference_grid(study)
    numbers = np.linspace(0.3, 0.7, geobox.shape[0] * geobox.shape[1]).reshape(geobox.shape)
    numbers[::5] = np.nan
    write_covariates(study, {study.domain.covariate: numbers})
    valid = area_mask(study, geobox) & np.isfinite(numbers)
    inside, outside = domain.cells_in_and_out(study)
    np.testing.assert_array_equal(inside, valid & (numbers > study.domain.above))
    np.testing.assert_array_equal(outside, valid & (numbers <= study.domain.above))
    np.testing.assert_array_equal(domain.domain_of_cells(study), inside)
    cells = np.arange(numbers.size)
    window = tuple(slice(0, size) for size in geobox.shape)
    within, known = domain.in_domain_at(study, window, cells)
    np.testing.assert_array_equal(known, valid.ravel())
    np.testing.assert_array_equal(within, inside.ravel())
    table = pd.DataFrame({study.domain.covariate: numbers[area_mask(study, geobox)]})
    np.testing.assert_array_equal(domain.in_domain(study, table), inside[area_mask(study, geobox)])


def test_an_unknown_covariate_is_named(study):
    rule = study.domain.model_copy(update={"covariate": "air_frost"})
    with pytest.raises(StudyError, match="did you mean `air_frost_number`"):
        domain.domain_of_cells(study.model_copy(update={"domain": rule}))
