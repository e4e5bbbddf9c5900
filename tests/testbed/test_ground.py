"""The hidden ground: what the law must say of ice and of layers."""

import numpy as np
import pytest

from helpers.core.grid import geographic_grid
from helpers.core.study import Study
from testbed.ground import Ground, _random_field, ice_content_at, layer_truth

STUDY = Study.open("config/quick.yaml")
LAW = STUDY.campaign.truth


def ground(**changes):
    """Return one cell with permafrost from 2.5 to 30 m in deep soil."""
    values = {"temperature": -1.0, "table": 2.5, "base": 30.0, "soil_depth": 40.0}
    values |= {"odds": 0.0, "valley": 1.0, "peat": 0.5, "fines": 0.5} | changes
    arrays = {name: np.array([value], np.float32) for name, value in values.items()}
    return Ground(np.array([0]), **arrays)


def test_ice_is_richest_at_the_permafrost_table_and_falls_with_depth():
    depths = np.arange(2.5, 20, 0.5)
    content = [float(ice_content_at(ground(), np.float32(d), LAW)[0]) for d in depths]
    assert np.all(np.diff(content) < 0)
    assert 0 < content[-1] < content[0] < LAW.ice_cap


def test_bedrock_holds_little_ice():
    assert ice_content_at(ground(soil_depth=5.0), np.float32(6), LAW)[0] == pytest.approx(
        LAW.rock_ice
    )


@pytest.mark.parametrize(
    ("changes", "layer", "share"),
    [
        pytest.param({}, (2, 3), 0.5, id="table inside"),
        pytest.param({}, (5, 10), 1.0, id="frozen through"),
        pytest.param({"table": 4.0, "base": 4.5}, (3, 5), 0.25, id="thin"),
        pytest.param({"table": 6.0}, (3, 5), 0.0, id="above the table"),
        pytest.param({"base": 4.0}, (5, 10), 0.0, id="below the base"),
        pytest.param({"table": np.nan, "base": np.nan}, (3, 5), 0.0, id="none"),
    ],
)
def test_a_layer_counts_ice_only_between_table_and_base(changes, layer, share):
    types, fraction = layer_truth(STUDY, ground(**changes), layer)
    assert (types[0] > 0) == (share > 0)
    assert fraction[0] <= share * LAW.ice_cap
    assert (fraction[0] > 0) == (share > 0)


def test_a_random_field_has_its_variance_and_its_reach():
    geobox = geographic_grid((0, 0, 1, 1), 9)  # 400 x 400 cells
    cell = abs(geobox.transform.a)
    field = _random_field(geobox, 20 * cell, np.random.default_rng(1))
    assert field.shape == geobox.shape
    assert field.std() == pytest.approx(1, abs=0.2)
    near, far = (np.corrcoef(field[:, :-d].ravel(), field[:, d:].ravel())[0, 1] for d in (5, 60))
    assert near > 0.8
    assert abs(far) < 0.25
