"""What `check` says before the list of stages: facts, costs, and all problems at once."""

import shutil

import numpy as np
import pytest
import rasterio
import yaml

from helpers.core.settings import ROOT
from launcher import check

YUKON = ROOT / "config/yukon.yaml"
DATA = "data/examples/yukon"


@pytest.fixture
def stages(monkeypatch):
    """The studies whose stages were listed, in place of Snakemake."""
    listed = []
    monkeypatch.setattr(check, "show_stale", lambda path, full: listed.append(path))
    return listed


@pytest.fixture
def changed(tmp_path):
    """Return a function that writes the Yukon study with other settings."""

    def write(**settings):
        path = tmp_path / "changed.yaml"
        text = yaml.safe_load(YUKON.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(text | settings), encoding="utf-8")
        return path

    return write


def said(capsys, start):
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith(start)]


def test_a_study_without_problems(stages, capsys):
    assert check.check_study(YUKON) == 0
    assert stages == [YUKON]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == (
        "grid: 210 rows x 251 columns of 101.641 m, NAD83(CSRS) / Yukon Albers; "
        "52,710 cells in the area"
    )
    predictors = [line for line in out if line.startswith("predictor ")]
    names = ["elevation:", "slope:", "aspect:", "radiation:", "vegetation:"]
    assert [line.split()[1] for line in predictors] == names
    assert len({line.index("taken as is") for line in predictors}) == 1
    assert "427 to 1455.31 m " in predictors[0]
    classes = [" ".join(line.split()) for line in out if line.startswith("samples.areas")]
    assert classes[1] == "samples.areas upper-metres Ice-poor: 19 units 264 samples"
    assert len(classes) == 4
    assert "samples: 1335 of 1335 places have a value of all own predictors" in out
    assert out[-1].startswith("run: about 1 min on 2 cores, at most 1,309 MB of memory, about ")


def test_one_problem_hides_no_other(stages, changed, capsys):
    own = [
        {"name": "slope", "file": "data/nowhere.tif"},
        {"name": "far", "file": "data/base/topography.tif"},
        {"name": "codes", "file": f"{DATA}/veg.tif", "kind": "category"},
        {"name": "none", "file": f"{DATA}/slp.tif", "valid_range": [200, 300]},
        {"name": "steep", "file": f"{DATA}/slp.tif", "valid_range": [10, 90]},
    ]
    samples = {"areas": f"{DATA}/pmfst.gpkg", "class_column": "Type", "points": "data/nowhere.csv"}
    samples["prevalence"] = "data/shares.csv"
    path = changed(predictors=own, samples=samples, domain={"covariate": "snow"})
    assert check.check_study(path) == 7
    assert stages == []  # which would name the missing files once more
    out = capsys.readouterr().out.splitlines()
    problems = [line for line in out if line.startswith("problem: ")]
    expected = [
        "There is no data/nowhere.csv, which `samples.points` names.",
        "There is no data/shares.csv, which `samples.prevalence` names.",
        "There is no data/nowhere.tif, which `predictors.slope` names.",
        "Predictor far: The raster topography.tif lies outside the grid",
        f"Predictor none: {DATA}/slp.tif has no value on the grid.",
        f"Predictor codes: {DATA}/veg.tif is no raster of categories",
        "`domain.covariate`: there is no covariate `snow`",
    ]
    for line, text in zip(problems, expected, strict=True):
        assert line.startswith(f"problem: {text}")
        assert " Remedy: " in line
    (kept,) = [line for line in out if "places have a value" in line]
    assert "; steep loses most, " in kept
    assert 0 < int(kept.split()[1]) < 1335


def test_known_shares_are_told_and_checked(stages, changed, capsys, tmp_path):
    path = tmp_path / "shares.csv"
    samples = {"areas": f"{DATA}/pmfst.gpkg", "class_column": "Type", "prevalence": str(path)}
    header = "region,from_m,to_m,layer,share,low,high,source\n"
    path.write_text(f"{header},,,,0.4,0.3,0.5,a map\n")
    assert check.check_study(changed(samples=samples)) == 0
    assert said(capsys, "samples: permafrost") == ["samples: permafrost shares from a map"]
    path.write_text(f"{header},,,,40,30,50,a map\n")
    assert check.check_study(changed(samples=samples)) == 1
    assert "shares.csv, column low, share, high, rows 2" in said(capsys, "problem: ")[0]


def test_without_an_area_no_stage_is_listed(stages, changed, capsys):
    path = changed(area={"polygons": "data/nowhere.gpkg"})
    assert check.check_study(path) == 1
    assert not stages
    assert "`area.polygons`" in said(capsys, "problem: ")[0]


def test_tables_tell_sites_errors_and_remarks(stages, tmp_path, capsys):
    for kind in ("sites", "intervals"):
        shutil.copy(ROOT / f"data/samples/{kind}.csv", tmp_path)
    text = (tmp_path / "sites.csv").read_text(encoding="utf-8")
    tables = {kind: str(tmp_path / f"{kind}.csv") for kind in ("sites", "intervals")}
    study = {"name": "mine", "grid": {"resolution": 20_000, "fine_resolution": 10_000}}
    own = [{"name": "height", "file": "data/base/topography.tif"}]
    study |= {"samples": tables, "predictors": own, "domain": {"covariate": ""}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    check.check_study(path)
    assert "sites.csv has no usable site." in said(capsys, "problem: ")[0]
    for old, new in (("EXAMPLE-", "H"), ("122.5000", "22.5")):
        text = text.replace(old, new)
        (tmp_path / "sites.csv").write_text(text, encoding="utf-8")
        intervals = (
            (tmp_path / "intervals.csv").read_text(encoding="utf-8").replace("EXAMPLE-", "H")
        )
        (tmp_path / "intervals.csv").write_text(intervals, encoding="utf-8")
        problems = check.check_study(path)
        lines = said(capsys, ("samples: ", "problem: "))
        if old == "EXAMPLE-":
            assert problems == 0
            assert lines[0].startswith("samples: 3 sites in sites.csv; 0 errors and 0 remarks")
            assert lines[1].startswith("samples: 3 of 3 places have a value")
        else:
            assert problems == 1
            assert lines[0].startswith("samples: 3 sites in sites.csv; 1 errors and 0 remarks")
            assert lines[1].startswith("problem: The tables of boreholes have errors: 1.")


def test_codes_given_as_a_number_are_pointed_out(stages, changed, capsys, tmp_path):
    with rasterio.open(ROOT / DATA / "veg.tif") as source:
        profile, codes = source.profile, np.nan_to_num(source.read())
    with rasterio.open(tmp_path / "codes.tif", "w", **profile) as target:
        target.write(np.rint(np.where(codes > 100, 0, codes)).astype(profile["dtype"]))
    own = [
        {"name": "cover", "file": str(tmp_path / "codes.tif")},
        {"name": "slope", "file": f"{DATA}/slp.tif"},
    ]
    grid = {"crs": "EPSG:3579", "resolution": 200, "fine_resolution": 100, "margin": 0}
    area = {"box": [-139.4, 62.8, -139.2, 62.9]}
    check.check_study(changed(predictors=own, grid=grid, area=area))
    out = capsys.readouterr().out
    remarks = [line for line in out.splitlines() if line.startswith("remark: cover has ")]
    assert "whole numbers, which are averaged; if they are codes" in remarks[0]
    assert "remark: slope" not in out
