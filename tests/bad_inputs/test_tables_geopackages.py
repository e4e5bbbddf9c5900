"""GeoPackages as tables: their own coordinate system is used once, and conflicts are told."""

import geopandas
import pytest
from refusals import assert_refused
from test_tables_workbooks import SITES

from helpers.samples.columns import SampleError
from helpers.samples.readers import read_table

DEGREES = geopandas.GeoSeries.from_xy(SITES["longitude"], SITES["latitude"], crs=4326)
BARE = SITES.drop(columns=["longitude", "latitude"])


def write(path, table, points):
    geopandas.GeoDataFrame(table, geometry=points).to_file(path, layer="sites")


@pytest.mark.parametrize("epsg", [4326, 32651], ids=["epsg degrees", "epsg metres"])
@pytest.mark.parametrize("own", [4326, 32651], ids=["points degrees", "points metres"])
@pytest.mark.parametrize("columns", [0, 4326, 32651], ids=["alone", "degrees", "metres"])
def test_points_are_converted_once(tmp_path, epsg, own, columns):
    table = BARE
    if columns:
        typed = DEGREES.to_crs(columns)
        table = BARE.assign(Lon=typed.x, 北坐标=typed.y)
    write(tmp_path / "a.gpkg", table, DEGREES.to_crs(own))
    read = read_table(tmp_path / "a.gpkg", "a.gpkg", "sites", epsg).text
    right = DEGREES.to_crs(epsg)
    assert read["longitude"].astype(float).tolist() == pytest.approx(right.x.tolist(), rel=1e-7)
    assert read["latitude"].astype(float).tolist() == pytest.approx(right.y.tolist(), rel=1e-7)


def test_columns_that_lie_elsewhere_are_named(tmp_path):
    table = SITES.assign(longitude=[122.5, 112.0])
    write(tmp_path / "a.gpkg", table, DEGREES.to_crs(32651))
    parts = "a.gpkg, rows 3: the points", "longitude and latitude", "delete the columns"
    call = lambda: read_table(tmp_path / "a.gpkg", "a.gpkg", "sites", 32651)  # noqa: E731
    assert_refused(call, tmp_path, SampleError, *parts)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_points_without_a_coordinate_system_are_refused(tmp_path):
    write(tmp_path / "a.gpkg", BARE, DEGREES.set_crs(None, allow_override=True))
    call = lambda: read_table(tmp_path / "a.gpkg", "a.gpkg", "sites", 4326)  # noqa: E731
    parts = "a.gpkg, layer sites: it has no coordinate system", "define its projection"
    assert_refused(call, tmp_path, SampleError, *parts)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_columns_serve_where_points_have_no_coordinate_system(tmp_path):
    write(tmp_path / "a.gpkg", SITES, DEGREES.set_crs(None, allow_override=True))
    read = read_table(tmp_path / "a.gpkg", "a.gpkg", "sites", 4326).text
    assert read["longitude"].astype(float).tolist() == SITES["longitude"].tolist()
