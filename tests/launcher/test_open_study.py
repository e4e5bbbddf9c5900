"""A study of open data by the front door: from servers on loopback to a map; what check says."""

import json
import subprocess
import sys

import numpy as np
import open_server
import pandas as pd
import pytest
import rasterio
import yaml
from conftest import copy_project
from project import environment, front_door

from helpers.core.study import Study
from launcher.check import check_study

CLASSES = [
    {"name": "thawed", "colour": "#d9d9d9", "permafrost": False},
    {"name": "poor", "colour": "#ffffcc", "ice_content": 0.1},
    {"name": "rich", "colour": "#41b6c4", "ice_content": 0.3},
]


def settings(world, server, api, points):
    """Return a study of points with a class that hills and latitude give."""
    west, south, east, north = open_server.BOX
    rng = np.random.default_rng(1)
    lon = rng.uniform(west + 0.02, east - 0.02, 120)
    lat = rng.uniform(south + 0.02, north - 0.02, 120)
    kind = (np.sin(40 * lon) * np.cos(50 * lat) > 0.1).astype(int) + (lat > 50.15)
    table = {"longitude": lon, "latitude": lat, "ice_type": [CLASSES[k]["name"] for k in kind]}
    pd.DataFrame(table).to_csv(points, index=False)
    return open_server.settings(api, server.url, f"{server.url}/token") | {
        "name": "open",
        "title": "Open data on loopback",
        "layers": [[1, 3]],
        "classes": CLASSES,
        "samples": {"points": str(points), "minimum_class_sites": 5},
        "domain": {"covariate": ""},
        "folds": {"min_separation_km": 0, "block_km": 6, "estimators": 20, "number": 3},
        "accuracy": {"block_km": 6, "draws": 50},
        "uncertainty": {"block_km": 6, "farthest_km": 12, "cells": 300, "draws": 40},
        "forest": {
            "n_estimators": 40,
            "search_sizes": [20],
            "max_depth": [None, 6],
            "min_samples_split": [2],
            "max_features": ["sqrt"],
        },
    }


def test_open_data_are_as_good_as_the_same_files_and_go_on_to_a_map(open_world, tmp_path):
    world, server, api = open_world
    server.start(protected="landsat")
    project = tmp_path / "project"
    copy_project(project)
    ours = settings(world, server, api, project / "points.csv")
    path = project / "config/open.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(ours)), sort_keys=False))
    status, out, errors = front_door(project, "map", str(path), "--until", "00-open-data")
    assert status == 0, errors
    assert [line.split()[0] for line in out] == ["00-open-data", "open/main"]

    raw = next((project / "data/raw").iterdir())
    listed = json.loads(next(raw.glob("open-data-??????????.json")).read_text())["parts"]
    scenes = {part["item"] for part in listed if part["setting"] == "source.landsat"}
    theirs = yaml.safe_load(path.read_text()) | {"name": "files"}
    theirs["source"] = open_server.as_files(world.folder, project / "own", scenes)
    for name in ("air_temperature", "precipitation"):
        theirs["source"][name] = str(next(raw.rglob(f"{name}_monthly.tif")))
    for one, place in zip(theirs["predictors"][-2:], ("cover", "bedrock.tif"), strict=True):
        one["file"] = str(world.folder / place)
    other = project / "config/files.yaml"
    other.write_text(yaml.safe_dump(theirs, sort_keys=False))
    # The notebooks' own code without kernels, which takes less than half the time.
    code = (
        "import sys; from launcher import notebooks\n"
        "from helpers.core.study import Study; from helpers.prepare.make import make_covariates\n"
        "names = '02-extract-samples 03-grid-search 05-map-ground-ice 05-storage'.split()\n"
        "for path in sys.argv[1:]: list(make_covariates(Study.open(path)))\n"
        "for name in names: notebooks._run_cells(name, sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(path), str(other)]
    done = subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = (next((project / "data/processed").glob(f"{n}-*")) for n in ("open", "files"))
    files = sorted(ours.glob("*.tif"))
    assert len(files) == 29
    for file in files:
        with rasterio.open(file) as one, rasterio.open(theirs / file.name) as two:
            own, other = one.read(), two.read()
        np.testing.assert_allclose(own, other, rtol=0, atol=1e-6, err_msg=file.name)
        assert np.isfinite(own).sum() > 400, file.name
    assert len(list((project / "results/open/main/maps").glob("*.tif"))) == 12

    with rasterio.open(ours / "ndvi.tif") as raster:
        tags = raster.tags()
    assert tags["open_data"] == "landsat-c2-l2"
    assert tags["items"].split(", ") == sorted(scenes)
    assert (tags["dates"], tags["licence"]) == ("2023-06-18 to 2024-08-22", "test")
    assert 0.9 < float(tags["valid_share"]) <= 1
    assert tags["aggregation"].startswith("nearest onto the fine grid")
    with rasterio.open(ours / "lst_mean.tif") as raster:
        assert raster.tags()["items"].startswith("24 items, SHA-256 of their sorted ids ")
    storage = json.loads((project / "results/open/main/tables/storage.json").read_text())["regions"]
    assert storage["all"]["no_ice_km2"] > 5
    assert storage["all"]["ice_km3"] > 0

    texts = [p.read_bytes() for p in project.rglob("*") if p.is_file() and "src" not in p.parts]
    assert any(b"landsat-c2-l2" in text for text in texts)
    assert not any(b"secret" in text for text in texts)


@pytest.mark.parametrize("name", ["northeast-china", "genhe-30m"])
def test_studies_of_open_data_tell_what_is_missing_without_a_network(name, capsys):
    study = Study.open(f"config/{name}.yaml")
    assert {"source.dem", "source.landsat", "source.lst", "source.soil"} < set(study.open_data)
    for one in study.open_data.values():
        assert one.licence
    assert check_study(f"config/{name}.yaml") == 2
    out = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("open data ") for line in out) == len(study.open_data)
    missing = [line for line in out if line.startswith("problem")]
    assert all("There is no data/own/boreholes.xlsx" in line for line in missing)
