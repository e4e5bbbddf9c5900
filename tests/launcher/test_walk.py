"""The numbers of the lesson: known answers of each block, and a page that has all of them."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import ROOT

from helpers.core.files import read_json, write_json
from launcher import walk

PAGE = (ROOT / "docs/yukon.md").read_text(encoding="utf-8")


@pytest.fixture
def study(tmp_path):
    """A study of two classes and its tables: three of ten test cells are wrong."""
    tables = tmp_path / "tables"
    tables.mkdir()
    by_class = {
        "class": [0, 1],
        "class_name": ["Dry", "Icy"],
        "support": [4, 6],
        "precision": [0.6, 0.8],
        "recall": [0.75, 2 / 3],
        "mapped_as_0": [3, 2],
        "mapped_as_1": [1, 4],
    }
    pd.DataFrame(by_class).to_csv(tables / "accuracy_by_class.csv", index=False)
    areas = {"class": [0, 1, 0, 1], "map": ["reference"] * 2 + ["expected"] * 2}
    areas |= {"mapped_km2": [10, 30, 20, 20], "adjusted_km2": [12, 28, 0, 0]}
    areas |= {"adjusted_lower": [9, 25, 0, 0], "adjusted_upper": [15, 31, 0, 0]}
    pd.DataFrame(areas).to_csv(tables / "class_areas.csv", index=False)
    scores = {"map": ["reference", "expected"], "overall_accuracy": [0.7, 0.8], "kappa": [0.4, 0.6]}
    pd.DataFrame(scores).to_csv(tables / "accuracy.csv", index=False)
    groups = {"by": ["all", "trust", "trust"], "group": ["all", "unlike", "sure"]}
    groups |= {"share": [1, 0.25, 0.75], "expected": [0.3, 0.6, 0.2]}
    pd.DataFrame(groups).to_csv(tables / "applicability.csv", index=False)
    sizes = {"classes": [1, 2, 3, 4], "share": [0.4, 0.3, 0.2, 0.1]}
    pd.DataFrame(sizes).to_csv(tables / "prediction_set_sizes.csv", index=False)
    errors = {"estimate": ["test", "knndm"], "from_km": [0, 1], "to_km": [1, 2]}
    errors |= {"n": [10, 20], "error": [0.3, 0.5]}
    pd.DataFrame(errors).to_csv(tables / "error_by_distance.csv", index=False)
    names = SimpleNamespace(names=["Dry", "Icy"])
    trust = SimpleNamespace(coverage=0.9)
    return SimpleNamespace(results_dir=tmp_path, target_classes=names, trust=trust)


def test_classes_have_their_accuracy_beside_their_area(study):
    text = walk.classes_block(study)
    assert "| Dry | 4 | 5 | 0.60 | 0.75 | 10 | 12 (9 to 15) | 20 |" in text
    assert "| Icy | 6 | 5 | 0.80 | 0.67 | 30 | 28 (25 to 31) | 20 |" in text
    assert "says Icy everywhere would be right in 0.60 of the test cells" in text
    assert "right in 0.70 (kappa 0.40), that of the expected area in 0.80 (kappa 0.60)" in text


def test_trust_has_its_levels_alone_and_counts_sets_of_three_and_more(study):
    study.target_classes.names = ["Dry", "Poor", "Rich", "Icy"]
    text = walk.trust_block(study)
    assert "| unlike | 25 % | 0.60 |\n| sure | 75 % | 0.20 |" in text
    assert "| all |" not in text
    assert "in 40 % of the map, and 3 or more, which says nothing, in 30 %" in text


def test_distances_are_those_of_folds_as_far_as_the_map(study):
    assert walk.distance_block(study).endswith("|---|---|---|\n| 1 to 2 km | 20 | 0.50 |")


def test_samples_count_polygons_and_cells_and_say_which_gave_none(study, monkeypatch):
    rows = pd.DataFrame(
        {
            "group": ["a", "a", "b", "c", "d"],
            "split": ["train", "train", "test", "train", "test"],
            "ice_type": [0, 0, 0, 1, 1],
        }
    )
    monkeypatch.setattr(walk, "read_samples", lambda study: rows)
    (study.results_dir / "samples").mkdir()
    lost = {"too small": {"sites": 2, "labels": 2}}
    write_json(study.results_dir / "samples/counts.json", lost)
    text = walk.samples_block(study)
    assert "| Dry | 1 | 1 | 2 | 1 |\n| Icy | 1 | 1 | 1 | 1 |" in text
    assert text.endswith("4 polygons gave samples; 2 more gave none: too small.")


def test_the_lesson_has_every_block_and_the_committed_numbers():
    begun = re.findall(r"<!-- (\S+):begin", PAGE)
    parts = ("samples", "forest", "classes", "distance", "trust")
    assert sorted(begun) == sorted(["yukon", *(f"yukon-{part}" for part in parts)])
    for name in begun:
        block = re.search(f"<!-- {name}:begin.*?\n(.*?)<!-- {name}:end -->", PAGE, re.DOTALL)
        assert block[1].strip()
    for row in walk.polygon_rows(read_json(ROOT / "figures/yukon/headline.json")):
        assert f"| {' | '.join(row.values())} |" in PAGE
