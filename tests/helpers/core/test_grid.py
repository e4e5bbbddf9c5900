"""Grids that fit, projection factors and means of blocks."""

import numpy as np
import pyproj
import pytest
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
    with pytest.raises(grid.StudyAreaError, match=r"counties of study-area\.gpkg"):
        grid.reference_grid(study)
