"""The last lines of a run: numbers as the headline file has them, and warnings of thin results."""

import copy

import pytest

from helpers.core.files import read_json, write_json
from helpers.core.settings import ROOT
from helpers.core.study import Study
from launcher.summary import summary


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "results_dir", property(lambda self: ROOT / "results/x/main"))
    monkeypatch.setattr("launcher.summary.headline_path", lambda study: tmp_path / "headline.json")
    monkeypatch.setattr(
        "launcher.summary.read_headline", lambda study: read_json(tmp_path / "headline.json")
    )
    return Study.open("config/virtual.yaml")


@pytest.fixture
def numbers():
    return read_json(ROOT / "figures" / "virtual" / "headline.json")


def test_a_sound_result_has_its_numbers_and_no_warning(study, numbers, tmp_path):
    numbers["area"]["no_data_share"] = 0.01
    write_json(tmp_path / "headline.json", numbers)
    lines = summary(study)
    total = numbers["total"]
    assert f"{total['ice_km3']:.0f} km3" in lines[0]
    assert f"{total['ice_km3_lower']:.0f} to {total['ice_km3_upper']:.0f}" in lines[0]
    assert all(layer in lines[1] and layer in lines[2] for layer in numbers["layers"])
    assert not [line for line in lines if line.startswith("warning")]
    assert lines[-1] == "open next: figures/virtual, results/x/main/maps"


def test_a_thin_result_does_not_end_like_a_good_one(study, numbers, tmp_path):
    thin = copy.deepcopy(numbers)
    thin["area"]["no_data_share"] = 0.2
    thin["layers"]["2-3m"]["groups"]["test"] = 13
    thin["layers"]["2-3m"]["outside_applicability_share"] = 0.76
    write_json(tmp_path / "headline.json", thin)
    told = [line for line in summary(study) if line.startswith("warning")]
    assert len(told) == 3
    assert "13 independent test samples" in told[0]
    assert "76 %" in told[1]
    assert "20 % of the study area has no data" in told[2]


def test_a_study_without_ice_contents_has_no_total(study, numbers, tmp_path):
    write_json(tmp_path / "headline.json", numbers | {"total": None})
    assert not summary(study)[0].startswith("ice")


def test_a_run_that_has_no_numbers_yet_says_nothing(study):
    assert summary(study) == []
