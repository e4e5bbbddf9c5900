"""Grids that fit, projection factors and means of blocks."""

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from helpers.core import grid
from helpers.core.study import Study

# Convergence by PROJ at a few places of the default projection, against n (lon - 105) of a cone
CONE = (np.sin(np.radians(25)) + np.sin(np.radians(47))) / 2


@pytest.fixture(scope="module")
def default():
    return Study(name="default")


def projected(bounds, crs, shape):
    """Return a grid of any shape over bounds in a projection."""
    west, south, east, north = bounds
    affine = Affine((east - west) / shape[1], 0, west, 0, (south - north) / shape[0], north)
    return GeoBox(shape, affine, crs)


def test_reference_grid_covers_the_area_in_whole_kilometres(default):
    geobox = grid.reference_grid(default)
    box = geobox.boundingbox
    assert [side % 1000 for side in box] == [0, 0, 0, 0]
    assert geobox.resolution.x == -geobox.resolution.y == 1000
    west, south, east, north = grid.study_area(default).bounds
    assert west <= 111.15
    assert south <= 38.73
    assert east >= 135.08
    assert north >= 53.56
    left, bottom, right, top = grid.study_area(default, geobox.crs.to_wkt()).bounds
    assert box.left <= left < box.left + 1000
    assert box.top - 1000 < top <= box.top
    assert box.bottom <= bottom
    assert box.right >= right


def test_mask_has_as_many_cells_as_the_area_has_square_kilometres(default):
    cells = grid.area_mask(default, grid.reference_grid(default)).sum()
    assert 1.40e6 < cells < 1.48e6
    outline = grid.study_area(default, default.grid.crs)
    assert cells == pytest.approx(outline.area / 1e6, rel=1e-3)


@pytest.mark.parametrize("resolution", [500, 250, 100])
def test_fine_grid_divides_the_reference_grid(default, resolution):
    coarse, fine = grid.reference_grid(default), grid.fine_grid(default, resolution)
    divisor = 1000 // resolution
    assert tuple(fine.shape) == tuple(divisor * n for n in coarse.shape)
    assert fine.boundingbox == coarse.boundingbox


def test_a_margin_keeps_the_grids_aligned(default):
    inner, outer = grid.fine_grid(default), grid.fine_grid(default, margin=1500)
    rows, columns = outer.overlap_roi(inner)
    assert (rows.start, columns.start) == (4, 4)  # 1500 m become 2 reference cells, 4 fine ones
    assert tuple(outer.shape) == tuple(n + 8 for n in inner.shape)


def test_a_resolution_that_does_not_divide_is_refused(default):
    with pytest.raises(ValueError, match="does not divide"):
        grid.fine_grid(default, 300)


def test_geographic_grid_snaps_outwards_to_whole_cells():
    geobox = grid.geographic_grid((110.001, 38.0, 111.0, 39.999), 15)
    assert geobox.boundingbox.bbox == pytest.approx((110.0, 38.0, 111.0, 40.0))
    assert tuple(geobox.shape) == (480, 240)


@pytest.mark.parametrize(
    ("longitude", "latitude"), [(113, 42), (124, 50), (134, 48)], ids=["southwest", "north", "east"]
)
def test_local_factors_agree_with_the_law_of_the_cone_and_with_finite_differences(
    default, longitude, latitude
):
    crs = pyproj.CRS(default.grid.crs)
    forward = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    easting, northing = forward.transform(longitude, latitude)
    bounds = (easting - 50_000, northing - 50_000, easting + 50_000, northing + 50_000)
    factors = grid.local_factors(projected(bounds, default.grid.crs, shape=(201, 201)))
    assert factors.convergence[100, 100] == pytest.approx(CONE * (longitude - 105), abs=0.02)
    geod = pyproj.Geod(ellps="WGS84")
    for azimuth, scale in ((0, factors.meridional_scale), (90, factors.parallel_scale)):
        ends = [geod.fwd(longitude, latitude, azimuth + turn, 50)[:2] for turn in (0, 180)]
        (x0, y0), (x1, y1) = (forward.transform(*end) for end in ends)
        assert np.hypot(x1 - x0, y1 - y0) / 100 == pytest.approx(scale[100, 100], rel=1e-5)
    np.testing.assert_allclose(factors.parallel_rotation, factors.convergence, atol=1e-5)


def test_local_factors_of_a_geographic_grid_are_refused():
    with pytest.raises(ValueError, match="geographic"):
        grid.local_factors(grid.geographic_grid((110, 40, 111, 41), 60))


def test_block_mean_needs_a_share_of_valid_cells():
    fine = np.array([[1, 3, np.nan, np.nan], [np.nan, np.nan, np.nan, 8]], np.float32)
    np.testing.assert_array_equal(grid.block_mean(fine, 2), [[2, np.nan]])
    np.testing.assert_array_equal(grid.block_mean(fine, 2, minimum_share=0.25), [[2, 8]])
    assert np.isnan(grid.block_mean(np.full((2, 2), np.nan), 2, minimum_share=0)).all()


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_block_mean_keeps_the_mean(divisor, seed):
    fine = np.random.default_rng(seed).normal(size=(2, 4 * divisor, 3 * divisor)).astype(np.float32)
    coarse = grid.block_mean(fine, divisor)
    assert coarse.shape == (2, 4, 3)
    np.testing.assert_allclose(coarse.mean(axis=(1, 2)), fine.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 45, 90, 180, 269, 359.5])
def test_direction_is_clockwise_from_north(degrees):
    angle = np.radians(degrees)
    assert grid.direction(np.cos(angle), np.sin(angle)) == pytest.approx(degrees, abs=1e-3)


def test_direction_is_missing_without_a_vector_and_below_360():
    assert np.isnan(grid.direction(np.float32(0), np.float32(0)))
    assert grid.direction(np.float32(1), np.float32(-1e-12)) == 0


def test_a_missing_layer_of_polygons_is_named():
    study = Study(name="other", area={"layer": "counties"})
    with pytest.raises(
        grid.StudyAreaError,
        match="no layer counties; it has study_area",
    ):
        grid.reference_grid(study)


@pytest.mark.parametrize(
    ("crs", "bounds", "alike"),
    [
        pytest.param("EPSG:32651", (300_000, 5_500_000, 500_000, 5_700_000), False, id="UTM"),
        pytest.param("EPSG:3413", (500_000, -2e6, 700_000, -1.8e6), False, id="stereographic"),
        pytest.param("EPSG:3579", (140_000, 930_000, 166_000, 961_000), True, id="equal-area"),
    ],
)
def test_areas_of_cells_are_those_of_the_ellipsoid(crs, bounds, alike):
    geobox = projected(bounds, crs, (40, 50))
    areas = grid.cell_areas(geobox)
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    geod = pyproj.Geod(ellps="WGS84")
    ring = [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)]
    for row, column in ((0, 0), (20, 25), (39, 49)):
        corners = [geobox.transform * (column + right, row + down) for right, down in ring]
        true = abs(geod.polygon_area_perimeter(*back.transform(*zip(*corners, strict=True)))[0])
        assert areas[row, column] == pytest.approx(true / 1e6, rel=2e-4)
    assert (np.ptp(areas) == 0) == alike


def raster(path, crs, affine, values=None):
    values = np.ones((4, 5), np.float32) if values is None else values
    profile = {"driver": "GTiff", "width": values.shape[1], "height": values.shape[0], "count": 1}
    profile |= {"dtype": values.dtype.name, "crs": crs, "transform": affine}
    with rasterio.open(path, "w", **profile) as target:
        target.write(values, 1)
    return str(path)


def test_the_grid_of_a_raster_is_taken_as_it_is(tmp_path):
    affine = Affine(101.64, 0, 143_124.7, 0, -101.64, 961_075.9)
    path = raster(tmp_path / "dem.tif", "EPSG:3579", affine)
    study = Study(name="a", grid={"like": path})
    geobox = grid.reference_grid(study)
    assert (geobox.transform, tuple(geobox.shape)) == (affine, (4, 5))
    assert study.grid.resolution == study.grid.fine_resolution == 101.64
    assert grid.area_mask(study, geobox).all()
    again = study.changed({"title": "A"})
    assert again.grid == study.grid
    west, south, east, north = grid.study_area(study).bounds
    assert -139.6 < west < east < -139.5
    assert 62.9 < south < north < 63.1


@pytest.mark.parametrize(
    ("crs", "affine", "expected"),
    [
        ("EPSG:4326", Affine(0.1, 0, 120, 0, -0.1, 50), "in degrees.*gdalwarp -t_srs"),
        ("EPSG:3579", Affine(100, 0, 0, 0, -50, 0), "no square cells"),
        ("EPSG:3579", Affine(100, 10, 0, 10, -100, 0), "no square cells"),
        (None, Affine(100, 0, 0, 0, -100, 0), "no coordinate reference system"),
    ],
    ids=["degrees", "not square", "turned", "no CRS"],
)
def test_a_raster_that_is_no_grid_for_maps_is_refused(tmp_path, crs, affine, expected):
    path = raster(tmp_path / "dem.tif", crs, affine)
    with pytest.raises(ValueError, match=expected):
        Study(name="a", grid={"like": path})


def test_a_box_is_an_area(tmp_path):
    where = {"box": [120, 50, 121, 51]}
    study = Study(name="a", area=where, grid={"crs": "EPSG:32651", "resolution": 1000})
    assert grid.study_area(study).bounds == (120, 50, 121, 51)
    geobox = grid.reference_grid(study)
    km2 = grid.cell_areas(geobox)[grid.area_mask(study, geobox)].sum()
    true = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(grid.study_area(study))[0]) / 1e6
    assert km2 == pytest.approx(true, rel=2e-3)
    with pytest.raises(ValueError, match="either `polygons` or a `box`"):
        Study(name="a", area={"polygons": "data/base/study-area.gpkg", **where})


@pytest.mark.parametrize("resolution", [1000, 6000])
def test_long_edges_follow_their_parallel(tmp_path, resolution):
    """By their vertices alone, 902 cells of 6 km lay on the wrong side, up to 50.18 N."""
    path = tmp_path / "area.gpkg"
    box = shapely.box(115, 45, 130, 50)
    geopandas.GeoSeries([box], crs="EPSG:4326").to_file(path)
    sizes = {"resolution": resolution, "fine_resolution": resolution}
    study = Study(name="a", area={"polygons": str(path)}, grid=sizes)
    geobox = grid.reference_grid(study)
    back = pyproj.Transformer.from_crs(study.grid.crs, 4326, always_xy=True)
    longitude, latitude = back.transform(*np.meshgrid(*grid.cell_centres(geobox)))
    true = shapely.contains_xy(box, longitude, latitude)
    wrong = true != grid.area_mask(study, geobox)
    edge = shapely.distance(shapely.points(longitude[wrong], latitude[wrong]), box.boundary)
    assert (edge * 111_000 < 0.12 * resolution).all()
    assert wrong.sum() < 0.001 * true.sum()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shapely.box(120, 50, 121, 51), shapely.LineString([(0, 0), (1, 1)])], "2: no polygons"),
        (
            [shapely.Polygon([(120, 50), (121, 51), (121, 50), (120, 51)])],
            "1: outlines that cross themselves",
        ),
    ],
    ids=["line", "bow tie"],
)
def test_features_that_bound_no_area_are_named(tmp_path, shapes, message):
    path = tmp_path / "area.gpkg"
    geopandas.GeoSeries(shapes, crs="EPSG:4326").to_file(path)
    with pytest.raises(grid.StudyAreaError, match=f"features {message}"):
        grid.study_area(Study(name="a", area={"polygons": str(path)}))
