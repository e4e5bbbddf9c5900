"""Points of a page: what each site found, to the last number."""

import numpy as np
import pandas as pd
import pytest
from hand_made import places_of_sites, settings, write_sites
from rasterio.warp import transform

from helpers.core.grid import reference_grid
from helpers.core.study import Study
from helpers.explorer.bands import ExplorerError
from helpers.explorer.points import advised_holes, pack, point_lists, site_points, unpack
from helpers.mapping.drilling import Advice, Question, write_advice


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of boreholes, without maps."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / "results"))
    study = Study(**settings("ice"))
    write_sites(study)
    return study


def test_a_site_has_its_layers_and_cores(study):
    hole, bare, pit, point = site_points(study)
    assert hole["layers"][0] == {"code": 4, "ice": 0.2, "share": 0.5}
    assert hole["layers"][1] == {"code": 3, "ice": 0.25, "share": 1.0}
    assert "reach" in hole["layers"][2]["reason"]
    # Unfrozen cores that touch are one.
    assert hole["cores"] == [[0.0, 2.5, None], [2.5, 3.0, 0.4], [3.0, 6.0, 0.25]]
    assert (hole["reached"], hole["table"], hole["date"]) == (6.0, 2.5, "2023-05-02")
    assert "base" not in hole
    assert [layer["code"] for layer in bare["layers"]] == [0, 0, 0]
    assert "cores" not in pit
    # Somebody's word for a class is no measurement of ice.
    assert point["layers"] == [{"code": 1}, {}, {}]


def test_advised_holes_are_points_of_the_page(study):
    assert advised_holes(study) == []
    table = pd.DataFrame({"hole": [1, 2], "easting": 5.0, "northing": [6.0, 7.0], "left": 0.5})
    write_advice(study, Advice(Question(holes=2), table.assign(longitude=1.0, latitude=2.0), 9.0))
    first, second = advised_holes(study)
    assert first == {"name": "1", "place": [5.0, 6.0], "goal": "dissimilarity", "left": 0.5}
    assert second["place"] == [5.0, 7.0]
    assert [one["id"] for one in point_lists(study, sites=False)] == ["holes"]
    with open(study.results_dir / "samples/samples.csv", "a", encoding="utf-8") as samples:
        samples.write("\n")
    with pytest.raises(ExplorerError, match="of another map") as raised:
        advised_holes(study)
    assert "drill" in raised.value.remedy


def test_polygons_and_drawn_absences_are_no_sites(study):
    points = site_points(study)
    assert [one["name"] for one in points] == ["Mohe-1", "Mohe-2", "Pit-3", "point-1"]


def test_a_study_of_polygons_has_no_sites(study):
    table = study.results_dir / "samples/samples.csv"
    table.write_text(table.read_text("utf-8").replace("known point", "known area"), "utf-8")
    assert site_points(study.changed({"samples.areas": "areas.gpkg"})) == []


def test_a_site_lies_where_its_table_says(study):
    crs = reference_grid(study).crs
    for one, place in zip(site_points(study), places_of_sites(), strict=False):
        (longitude,), (latitude,) = transform(crs, "EPSG:4326", *([n] for n in one["place"]))
        assert (longitude, latitude) == pytest.approx(place, abs=1e-5)


@pytest.mark.parametrize(("fit", "of_test"), [("all", "map"), ("train", "test")])
def test_test_sites_are_held_out_of_a_map_of_training_sites(study, fit, of_test):
    points = site_points(study.changed({"forest.map_fit": fit}))
    assert [one["use"] for one in points] == ["map", of_test, "no label", "map"]


def test_classes_are_those_of_the_target(study):
    hole, bare, *_ = site_points(study.changed({"target": "permafrost"}))
    assert [layer.get("code") for layer in hole["layers"]] == [1, 1, None]
    assert [layer["code"] for layer in bare["layers"]] == [0, 0, 0]


def test_without_the_field_tables_layers_remain(study):
    (study.results_dir / "samples/sites.csv").unlink()
    assert set(site_points(study)[0]) == {"name", "place", "use", "layers"}


def test_a_thousand_sites_take_some_tens_of_kilobytes(study):
    rng, hole = np.random.default_rng(0), site_points(study)[0]
    depths = np.linspace(0, 10, 14).round(1)
    ends = list(zip(depths[:-1].tolist(), depths[1:].tolist(), strict=True))
    many = [
        hole
        | {"name": f"S{n:04}", "place": (rng.random(2) * 1e6).round(1).tolist()}
        | {"cores": [[*one, round(rng.random(), 3)] for one in ends]}
        for n in range(1000)
    ]
    assert len(pack(many)) < 100_000
    assert unpack(pack(many)) == many
