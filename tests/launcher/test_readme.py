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
    score = {"score": "overall_accuracy", "truth": "holes", "holds": 0.9}
    bias = [
        score | {"design": design, "estimate": estimate, "bias": bias}
        for design in designs
        for estimate, bias in (("test", -0.014), ("random_adjusted", 0.006))
    ]
    total = {"design": designs, "replicates": [70, 71], "bias": [0.006, 0.027], "holds": [0.9, 0.8]}
    errors = {"design": designs, "measure": "error", "difference": -0.1}
    record = {"bias": bias, "applicability": pd.DataFrame(errors).to_dict("records")}
    record["total"] = pd.DataFrame(total).to_dict("records")
    path = tmp_path / "results/batches/replicates/coverage.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    readme.write_readme("config/quick.yaml")
    text = page.read_text()
    assert "| roadside | 71 | -0.014 | +0.006 | 90 % | +2.7 % | 80 % | -0.100 |" in text
    assert "older" not in text


def test_a_page_without_the_lines_is_refused(page):
    page.write_text("nothing")
    with pytest.raises(RunError, match="no place for the results of quick"):
        readme.write_readme("config/quick.yaml")
    assert page.read_text() == "nothing"
