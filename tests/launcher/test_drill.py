"""The command that says where to drill next, on the quick run."""

import json

import geopandas
import numpy as np
import pandas as pd
import pytest
from project import front_door


@pytest.mark.parametrize("goal", ["total", "dissimilarity"])
def test_the_quick_run_is_told_where_to_drill_next(copy, goal):
    status, out, err = front_door(copy, "drill", "config/quick.yaml", "--goal", goal)
    assert status == 0, err
    folder = copy / "results/quick/main/drilling"
    table = pd.read_csv(folder / "holes.csv")
    assert table["hole"].tolist() == list(range(1, 31))
    assert not table.duplicated(["easting", "northing"]).any()
    assert table["left"].is_monotonic_decreasing
    assert 0.5 < table["left"].iloc[-1] < 0.99
    assert table["permafrost_probability_2-3m"].between(0, 1).all()
    record = json.loads((folder / "holes.json").read_text())
    assert record["question"]["goal"] == goal
    assert record["label"] == "SIMULATED"
    if goal == "total":
        interval = json.loads((folder.parent / "tables/storage_interval.json").read_text())
        assert record["now"] == pytest.approx(interval["regions"]["all"]["sites_se"], abs=1e-5)
    layer = geopandas.read_file(folder / "holes.gpkg")
    np.testing.assert_allclose(layer.geometry.x, table["longitude"])
    ways = geopandas.read_file(folder / "holes.gpx", layer="waypoints")
    assert ways["name"].tolist()[:2] == ["SIMULATED 1", "SIMULATED 2"]
    assert f"{folder.name}/holes.gpx" in "".join(out)
    if goal == "dissimilarity":
        before = (folder / "holes.csv").read_bytes()
        front_door(copy, "drill", "config/quick.yaml")
        assert (folder / "holes.csv").read_bytes() == before
