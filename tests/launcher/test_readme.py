"""The README's numbers: each block by its own files, and nothing else is touched."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import rasterio
from conftest import ROOT
from project import environment

from helpers.core.files import read_json
from launcher import readme, walk
from launcher.stages import RunError

FRONT = "<!-- quick-time:begin x -->\nold\n<!-- quick-time:end -->\n"
FRONT += "a\n<!-- quick:begin x -->\nold\n<!-- quick:end -->\nb\n"
REST = "<!-- quick-run:begin x -->\nold\n<!-- quick-run:end -->\n"
REST += "<!-- replicates:begin -->\nolder\n<!-- replicates:end -->\nc\n"


def write_pages(folder):
    """Write the pages with their places for results, as the project has them."""
    (folder / "README.md").write_text(FRONT)
    (folder / "README.zh-CN.md").write_text(FRONT)
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs/results.md").write_text(REST)


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    # A used checkout may have a run of this study, finished or not.
    monkeypatch.setattr(readme, "require_whole", lambda study: None)
    monkeypatch.setattr(readme, "_results", lambda study, numbers: "| layer |")
    monkeypatch.setattr(readme, "read_headline", lambda study: {"study": study.name})
    monkeypatch.setattr(readme, "_seconds", lambda study: ({"01-prepare-data": 90, "02": 30}, 100))
    monkeypatch.setattr(readme, "sentences", lambda numbers: ("22 predictors", ""))
    write_pages(tmp_path)
    return tmp_path / "README.md"


def test_without_a_coverage_study_its_table_stays(page):
    readme.write_readme("config/quick.yaml")
    time = "`make map` takes 2 min on 2 cores once its environment is there.\n"
    english = FRONT.replace("old\n", time, 1).replace("old\n", "| layer |\n", 1)
    assert page.read_text() == english
    chinese = page.with_name("README.zh-CN.md").read_text()
    assert "用时 2 分钟" in chinese
    assert "| 深度层 |" in chinese
    rest = (page.parent / "docs/results.md").read_text()
    rows = "| `01-prepare-data` | 90 |\n| `02` | 30 |\n| all, some side by side | 100 |\n"
    rows += "\n22 predictors.\n"
    assert rest == REST.replace("old\n", f"| notebook | seconds on 2 cores |\n|---|---|\n{rows}", 1)
    copied = read_json(page.parent / "figures/quick/headline.json")
    assert copied == {"study": "quick"}


def test_notebooks_that_ran_side_by_side_count_once(monkeypatch):
    """The second ends ten seconds after the first, the others ran again on another day."""
    records = {
        "one": {"seconds": 60, "finished": "2026-01-01T00:01:00+00:00"},
        "two": {"seconds": 30, "finished": "2026-01-01T00:01:10+00:00"},
        "three": {"seconds": 10, "finished": "2026-01-02T00:00:00+00:00"},
        "four": {"seconds": 10, "finished": "2026-01-02T00:00:15+00:00"},
    }
    monkeypatch.setattr(readme, "stages_of", lambda study: list(records))
    monkeypatch.setattr(readme, "record_path", lambda study, name: name)
    monkeypatch.setattr(readme, "_read", records.get)
    assert readme._seconds(None) == ({"one": 60, "two": 30, "three": 10, "four": 10}, 95)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("figures/*/headline.json")), ids=lambda path: path.parent.name
)
def test_the_readme_has_the_headline_numbers_of_the_committed_studies(path):
    numbers = read_json(path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, block = text.partition(f"<!-- {numbers['study']}:begin")
    block, _, _ = block.partition(f"<!-- {numbers['study']}:end")
    if numbers["total"] is None:
        rows, texts = walk.polygon_rows(numbers), []
    else:
        predictors, total = readme.sentences(numbers)
        assert predictors in (ROOT / "docs/results.md").read_text(encoding="utf-8")
        rows, texts = readme.layer_rows(numbers), [total]
        texts.append(f"Version {numbers['version']}, code {numbers['code']}.")
    for line in (*texts, *(f"| {' | '.join(row.values())} |" for row in rows)):
        assert line.removesuffix(" |") in block


def test_the_readme_of_a_run_has_its_headline_numbers(copy):
    """Its own total, area and scores, and those of the truth beside them."""
    write_pages(copy)
    scale = copy / "docs/scale.md"
    scale.write_text("<!-- quick-region:begin -->\n<!-- quick-region:end -->\n")
    command = [sys.executable, "-m", "launcher", "readme", "config/quick.yaml"]
    subprocess.run(command, cwd=copy, env=environment(copy), check=True)
    text = (copy / "README.md").read_text()
    tables = copy / "results/quick/main/tables"
    numbers, storage = (read_json(tables / f"{name}.json") for name in ("headline", "storage"))
    total = numbers["total"]
    assert total["ice_km3"] == storage["regions"]["all"]["ice_km3"]
    assert sum(one["ice_km3"] for one in numbers["layers"].values()) == pytest.approx(
        total["ice_km3"]
    )
    assert numbers["area"]["no_data_km2"] == storage["regions"]["all"]["no_data_km2"]
    assert numbers["label"] == "SIMULATED"
    ends = f"{total['ice_km3_lower']:.0f} to {total['ice_km3_upper']:.0f}"
    assert f": {total['ice_km3']:.0f} km3 of ice ({total['water_km3']:.0f} km3 of water)" in text
    assert f"90 % interval {ends}; the truth" in text
    for layer, parts in numbers["layers"].items():
        with rasterio.open(tables.parent / f"maps/ice_type_{layer}.tif") as source:
            frozen = (~np.isin(source.read(1), [0, 255])).sum() * 36.0
        assert parts["maps"]["expected"]["permafrost_km2"] == frozen
        assert f"| {layer} | map of the expected area | {frozen / 1000:.0f} |" in text
    record = read_json(next(copy.glob("data/processed/quick-*/01-prepare-data.json")))
    hours = record["seconds"] / numbers["predictors"]["most_valid_cells"] * 1.6e9 / 3600
    rows = scale.read_text().splitlines()
    assert rows[3].startswith("| deriving predictors |")
    assert rows[3].endswith(f"| {hours:.0f} |")
    assert [row.split(" ")[1] for row in rows[4:7]] == ["totals", "predicting", "trust"]


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
    text = (page.parent / "docs/results.md").read_text()
    row = "| roadside | 71 | +0.006 | 90 % | +2.7 % | 80 % | 75-95 % | 5.5 % | 0.51 | 96 % |"
    assert row in text
    assert "older" not in text


def test_a_page_without_the_lines_is_refused(page):
    page.write_text("nothing")
    with pytest.raises(RunError, match="no place for the results of quick"):
        readme.write_readme("config/quick.yaml")
    assert page.read_text() == "nothing"
