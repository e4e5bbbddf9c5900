"""Coordinates of another datum: which shift was made, or that none is known."""

import geopandas
import numpy as np
import pytest
from shapely import Point, box
from test_tables_listing import SITES, study_file  # noqa: F401

from helpers.core.study import Study
from helpers.samples.areas import datum_remarks
from helpers.samples.tables import read_tables


@pytest.mark.parametrize(
    ("epsg", "part"),
    [
        (4214, "Beijing 1954: no shift is known here"),
        (4610, "Xian 1980: no shift is known here"),
        (4267, "North American Datum 1927: "),
        (4490, ""),
        (4326, ""),
    ],
)
def test_the_shift_of_a_datum_is_listed(study_file, epsg, part):  # noqa: F811
    sites, _, problems = read_tables(Study.open(study_file(SITES.format(depth=1.5), epsg=epsg)))
    shifts = problems.loc[problems["kind"] == "datum shift", ["value", "severity"]]
    assert [part in value for value in shifts["value"]] == [True] * bool(part)
    assert (shifts["severity"] == "warn").all()
    assert np.allclose(sites[["longitude", "latitude"]].astype(float), [[122.5, 52.5]], atol=0.01)


DATUMS = [
    (4214, "Beijing 1954: no shift is known here, and none was made"),
    (4610, "Xian 1980: no shift is known here"),
    (2435, "Beijing 1954: "),
    (4267, "North American Datum 1927: "),
    (4490, ""),
    (32651, ""),
]


@pytest.mark.parametrize(("epsg", "part"), DATUMS)
def test_the_shift_of_a_geopackage_of_sites_is_listed(study_file, tmp_path, epsg, part):  # noqa: F811
    row = {"孔号": "A", "孔深/m": 12.0, "多年冻土": "有", "冻土上限/m": 1.5, "冻土下限/m": None}
    sites = geopandas.GeoDataFrame([row], geometry=[Point(122.5, 52.5)], crs=4326).to_crs(epsg)
    sites.to_file(tmp_path / "sites.gpkg", layer="sites")
    path = study_file(SITES.format(depth=1.5), sites=str(tmp_path / "sites.gpkg"))
    read, _, problems = read_tables(Study.open(path))
    shifts = problems.loc[problems["kind"] == "datum shift", "value"]
    assert [part in value for value in shifts] == [True] * bool(part)
    assert np.allclose(read[["longitude", "latitude"]].astype(float), [[122.5, 52.5]], atol=0.01)


@pytest.mark.parametrize(("epsg", "part"), DATUMS)
@pytest.mark.parametrize("kind", ["points", "areas"])
def test_the_shift_of_points_and_areas_is_told(tmp_path, kind, epsg, part):
    shape = Point(122.5, 52.5) if kind == "points" else box(122.4, 52.4, 122.6, 52.6)
    path = tmp_path / "known.gpkg"
    features = geopandas.GeoDataFrame({"ice_type": [1]}, geometry=[shape], crs=4326)
    features.to_crs(epsg).to_file(path)
    told = datum_remarks(Study(name="a", samples={kind: str(path)}))
    assert len(told) == bool(part)
    assert all("known.gpkg" in text and part in text for text in told)


def test_the_shift_of_a_table_of_points_is_told(tmp_path):
    (tmp_path / "known.csv").write_text("lon,lat,ice_type\n122.5,52.5,1\n")
    samples = {"points": str(tmp_path / "known.csv"), "epsg": 4214}
    (told,) = datum_remarks(Study(name="a", samples=samples))
    assert "known.csv" in told
    assert "Beijing 1954: no shift is known here" in told
