"""Coordinates of another datum: which shift was made, or that none is known."""

import numpy as np
import pytest
from test_tables_listing import SITES, study_file  # noqa: F401

from helpers.core.study import Study
from helpers.samples.tables import read_tables


@pytest.mark.parametrize(
    ("epsg", "part"),
    [
        (4214, "Beijing 1954: no shift is known here"),
        (4610, "Xian 1980: no shift is known here"),
        (4267, "North American Datum 1927: "),
        (4490, ""),
        (4326, ""),
    ],
)
def test_the_shift_of_a_datum_is_listed(study_file, epsg, part):  # noqa: F811
    sites, _, problems = read_tables(Study.open(study_file(SITES.format(depth=1.5), epsg=epsg)))
    shifts = problems.loc[problems["kind"] == "datum shift", ["value", "severity"]]
    assert [part in value for value in shifts["value"]] == [True] * bool(part)
    assert (shifts["severity"] == "warn").all()
    assert np.allclose(sites[["longitude", "latitude"]].astype(float), [[122.5, 52.5]], atol=0.01)
