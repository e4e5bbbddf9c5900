"""Paths and names with whatever people put into them, and files that are not what they seem."""

import shlex
import shutil
import subprocess
import sys

import pytest
from refusals import assert_refused

from helpers.core.errors import CompendiumError
from helpers.core.files import write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study
from launcher import batch, run, stages
from launcher.batch import compare, run_batch
from launcher.new import new_study
from launcher.run import StageProgress
from launcher.stages import RunError, check_name, impossible

NAMES = {
    "path traversal": "../../../x",
    "another run": "../quick/main",
    "parent": "..",
    "absolute": "/tmp/x",
    "hidden": ".git",
    "empty": "",
    "space": "a b",
    "line break": "a\nb",
    "zero": "a\0b",
    "300 letters": "a" * 300,
    "option": "--name",
    "braces": "a{b}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_comparison_stays_in_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.setattr(batch, "BATCHES", tmp_path)
    assert_refused(lambda: compare([], name), tmp_path, RunError, "--name", "letters, digits")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_new_study_stays_in_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.setattr("launcher.new.ROOT", tmp_path)
    assert_refused(lambda: new_study(name), tmp_path, CompendiumError, "cannot have the name")


def test_a_sweep_with_a_name_of_300_letters_is_refused(tmp_path):
    path = tmp_path / f"{'a' * 200}.yaml"
    path.write_text("base: config/quick.yaml\naxes: {forest.seed: [1]}")
    assert_refused(lambda: run_batch(path, dry_run=True), tmp_path, RunError, "aaa", "80")


@pytest.mark.parametrize("name", ["main", "run-0a1b2c", "My_run.2", "a" * 80])
def test_usual_names_are_taken(name):
    check_name(name, "--name")


FILES = {
    "area that is a folder": ({"polygons": "data/base"}, "`area.polygons` names, is a folder"),
    "area that is missing": ({"polygons": "data/no.gpkg"}, "`area.polygons` names, is not there"),
    "address of an area": ({"polygons": "https://a.b/c.gpkg"}, "is not there"),
    "area on the web": ({"polygons": "/vsicurl/https://a.b/c.gpkg"}, "is not there"),
    "layer that is missing": ({"layer": "x"}, "no layer x; it has study_area, regions"),
    "area that is a text": ({"polygons": "README.md"}, "README.md is no file of features"),
}


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_an_area_that_cannot_be_read_is_told_before_anything_runs(tmp_path, case):
    area, *parts = case
    study = Study(name="a", source={"dem": "data/base/topography.tif"}, area=area)

    def start():
        raise impossible(study, ["01-prepare-data"])

    assert_refused(start, ROOT / "config", RunError, *parts)


SETTINGS = {
    "projection of another place": ({"grid": {"crs": "EPSG:32733"}}, "EPSG:32733", "123.1 E"),
    "too many cells": (
        {"grid": {"resolution": 1, "fine_resolution": 1}},
        "A grid of 1 m would have",
    ),
    "mistyped predictor": ({"predictors": ["elevatoin"]}, "did you mean `elevation`"),
    "mistyped left_out": ({"left_out": ["elevatoin"]}, "left_out", "`elevation`"),
    "relief of one cell": (
        {"grid": {"fine_resolution": 1000}},
        "`covariates.terrain.relief_window_km2`",
        "relief would be 0 everywhere",
    ),
    "radius within a cell": (
        {"covariates": {"terrain": {"tpi_radii": [5000, 300]}}},
        "`covariates.terrain.tpi_radii`: 300 m",
        "500 m",
    ),
    "mistyped domain": ({"domain": {"covariate": "frost"}}, "`domain.covariate`", "frost"),
}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS)
def test_settings_that_fit_no_file_are_told_before_anything_runs(case):
    settings, *parts = case
    usual = {"source": {"dem": "data/base/topography.tif"}, "domain": {"covariate": ""}}
    study = Study(name="a", **usual | settings)

    def start():
        raise impossible(study, ["01-prepare-data"])

    assert_refused(start, ROOT / "config", RunError, *parts)


def test_the_usual_utm_zones_are_taken():
    for zone in (50, 51, 52):
        grid = {"crs": f"EPSG:326{zone}"}
        study = Study(name="a", area={"box": (119, 50, 123, 52)}, grid=grid)
        assert stages.memory_mb(study, "01-prepare-data") > 0


@pytest.mark.parametrize("place", ["project", "raster"])
def test_braces_in_paths_are_told_before_anything_runs(tmp_path, monkeypatch, place):
    folder = tmp_path / "a {b} c"
    folder.mkdir()
    dem = "data/base/topography.tif"
    if place == "raster":
        shutil.copy(ROOT / dem, folder / "dem.tif")
        dem = str(folder / "dem.tif")
    else:
        monkeypatch.setattr(stages, "ROOT", folder)
    study = Study(name="a", source={"dem": dem}, domain={"covariate": ""})

    def start():
        raise impossible(study, ["01-prepare-data"])

    assert_refused(start, tmp_path, RunError, "a {b} c", "braces", "rename")


@pytest.mark.parametrize("path", ["l'etude/a.yaml", 'a "b"/c.yaml', "a; true/$HOME `x`.yaml"])
def test_commands_of_the_snakefile_take_any_path(path):
    """The rules' own expression, read from the Snakefile."""
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    line = next(one for one in text.splitlines() if '"launcher", "stage"' in one).strip(" ,")
    command = eval(line, {"shlex": shlex, "sys": sys, "name": "01", "path": path})
    assert shlex.split(command)[-1] == path
    shown = subprocess.run(
        ["bash", "-c", command.replace(shlex.quote(sys.executable), "printf '%s\\n'", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines()[-1] == path
    assert "'{" not in text


@pytest.mark.parametrize("target", ["map", "full", "batch"])
def test_make_takes_a_study_with_spaces(tmp_path, target):
    """Run with a Python that prints what it is given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        write_text(tmp_path / name, "")
    write_text(tmp_path / ".venv/bin/python", '#!/bin/sh\nprintf "<%s>" "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    write_text(tmp_path / ".venv/.ready", "")
    path = "config/my study's.yaml"
    options = [f"STUDY={path}", f"SWEEP={path}", "PROFILE=my slurm"]
    done = subprocess.run(
        ["make", target, *options], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"<{path}>" in done.stdout
    assert ("<--profile><my slurm>" in done.stdout) == (target == "batch")


def test_removing_the_files_of_a_run_under_way_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "relative_path", lambda path: path.name)

    class Child:
        poll = staticmethod(lambda: None)

    events = tmp_path / "events.jsonl"
    assert_refused(
        lambda: run._show_progress(Child, events, StageProgress()),
        tmp_path,
        RunError,
        "events.jsonl",
        "make clean",
        "start again",
    )


def test_a_link_out_of_the_project_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ROOT", tmp_path / "project")
    outside = tmp_path / "outside"
    write_text(outside / "tables/applicability.json", "{}")
    (tmp_path / "project/results").mkdir(parents=True)
    (tmp_path / "project/results/link").symlink_to(outside)
    assert_refused(
        lambda: compare(["results/link"], "x"), tmp_path, CompendiumError, "results/link", "name"
    )
