"""The survey of the virtual study: shares near the true ones, and a range that holds these."""

import numpy as np
import pytest

from helpers.core.classes import NO_TYPE, layer_name
from helpers.core.study import Study
from helpers.samples.prevalence import read_prevalence
from testbed import survey

TRUE = {"2-3m": 0.25, "3-5m": 0.5, "5-10m": 0.95}


@pytest.fixture
def virtual(tmp_path, monkeypatch):
    """A virtual study whose domain is three of the four rows of a grid, and its truth."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    domain = np.repeat([True, True, True, False], 100).reshape(4, 100)
    monkeypatch.setattr(survey, "domain_of_cells", lambda study: domain)
    truth = {}
    for name, share in TRUE.items():
        types = np.zeros((4, 100), np.uint8)
        types[:2, : round(100 * share)] = 3
        types[2], types[3] = NO_TYPE, 1
        truth[f"borehole_type_{name}"] = types
    return Study.open("config/quick.yaml"), truth


def test_a_survey_is_near_the_truth_and_its_range_holds_it(virtual):
    study, truth = virtual
    study = study.changed({"campaign.survey_error": 0.1})
    factors = []
    for seed in range(50):
        written = survey.write_survey(study, truth, np.random.default_rng(seed))
        table = read_prevalence(study)
        assert list(table["layer"]) == [layer_name(layer) for layer in study.layers]
        assert set(table["source"]) == {"SIMULATED survey"}
        np.testing.assert_allclose(table["share"], written["share"].astype(float))
        true = table["layer"].map(TRUE)
        assert (true.between(table["low"], table["high"])).all()
        factor = (table["share"] / true)[:2]
        assert np.ptp(factor) < 0.01  # but for the rounding of the truth to whole cells
        factors += list(factor)
    assert 0.9 <= min(factors) < 0.93
    assert 1.07 < max(factors) <= 1.1


def test_without_a_survey_an_earlier_one_is_gone(virtual):
    study, truth = virtual
    rng = np.random.default_rng(0)
    survey.write_survey(study.changed({"campaign.survey_error": 0.1}), truth, rng)
    assert survey.write_survey(study, truth, rng).empty
    assert read_prevalence(study) is None
