"""The README's numbers: each block by its own files, and nothing else is touched."""

import json

import pandas as pd
import pytest

from launcher import readme
from launcher.stages import RunError

BLOCKS = "a\n<!-- quick:begin x -->\nold\n<!-- quick:end -->\nb\n<!-- replicates:begin -->\nolder\n"
BLOCKS += "<!-- replicates:end -->\nc\n"


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "_results", lambda study: "new")
    path = tmp_path / "README.md"
    path.write_text(BLOCKS)
    return path


def test_without_a_coverage_study_its_table_stays(page):
    readme.write_readme("config/quick.yaml")
    assert page.read_text() == BLOCKS.replace("old\n", "new\n", 1)


def test_a_coverage_study_replaces_its_table(page, tmp_path):
    designs = ["random", "roadside"]
    score = {"score": "overall_accuracy", "truth": "holes", "map": "expected", "holds": 0.9}
    bias = [
        score | {"design": design, "estimate": "random_adjusted", "bias": 0.006}
        for design in designs
    ]
    bias += [one | {"map": "reference", "bias": 0.5} for one in bias]
    whole = {
        "of": "all",
        "replicates": [70, 71],
        "given": [70, 71],
        "bias": [0.006, 0.027],
        "holds": [0.9, 0.8],
    }
    whole |= {"true_km3": 500, "rmse_m": 0.512, "in_permafrost_free_cells": 0.055}
    parts = [
        {"of": "Hulunbuir", "replicates": 70, "given": 70, "true_km3": 300, "holds": 0.95},
        {"of": "Hinggan", "replicates": 70, "given": 40, "true_km3": 20, "holds": 0.75},
        {"of": "Tongliao", "replicates": 70, "given": 70, "true_km3": 1, "holds": 0.1},
        {"of": "2-3m", "true_km3": 60},
    ]
    total = [pd.DataFrame(whole | {"design": designs})]
    total += [pd.DataFrame(parts).assign(design=design, replicates=70) for design in designs]
    withheld = pd.DataFrame({"design": designs, "higher": [1.0, 0.96]})
    record = {"bias": bias, "withheld": withheld.to_dict("records")}
    record["total"] = json.loads(pd.concat(total).to_json(orient="records"))
    path = tmp_path / "results/batches/replicates/coverage.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    readme.write_readme("config/quick.yaml")
    text = page.read_text()
    row = "| roadside | 71 | +0.006 | 90 % | +2.7 % | 80 % | 75-95 % | 5.5 % | 0.51 | 96 % |"
    assert row in text
    assert "older" not in text


def test_a_page_without_the_lines_is_refused(page):
    page.write_text("nothing")
    with pytest.raises(RunError, match="no place for the results of quick"):
        readme.write_readme("config/quick.yaml")
    assert page.read_text() == "nothing"
