"""Grids that fit, warps that say what is wrong, files that say what they hold."""

import os

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from helpers.core import grid, rasters
from helpers.core.study import Study

# Convergence by PROJ at a few places of the default projection, against n (lon - 105) of a cone
CONE = (np.sin(np.radians(25)) + np.sin(np.radians(47))) / 2


@pytest.fixture(scope="module")
def default():
    return Study(name="default")


def write(path, values, geobox, **profile):
    """Write a bare raster, without any helper."""
    bands = values if values.ndim == 3 else values[np.newaxis]
    profile = {"crs": "EPSG:4326", "nodata": np.nan, **profile}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        transform=geobox.transform,
        **profile,
    ) as target:
        target.write(bands)
    return path


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
    rows, columns = rasters.window(inner, outer)
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
def test_local_factors_agree_with_the_law_of_the_cone_and_with_finite_differences(default, longitude, latitude):
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


class TestWarp:
    """Onto a grid in one step."""

    source = grid.geographic_grid((120, 45, 121, 46), 60)

    def longitudes(self):
        longitude, latitude = grid.cell_centres(self.source)
        return np.broadcast_to(longitude, self.source.shape).astype(np.float32), latitude

    def target(self, default, bounds=(120.2, 45.2, 120.8, 45.8)):
        forward = pyproj.Transformer.from_crs(4326, default.grid.crs, always_xy=True)
        west, south, east, north = forward.transform_bounds(*bounds)
        return projected((west, south, east, north), default.grid.crs, shape=(40, 50))

    def test_bilinear_recovers_a_linear_field(self, default, tmp_path):
        path = write(tmp_path / "longitude.tif", self.longitudes()[0], self.source)
        target = self.target(default)
        eastings, northings = np.meshgrid(*grid.cell_centres(target))
        expected, _ = pyproj.Transformer.from_crs(default.grid.crs, 4326, always_xy=True).transform(eastings, northings)
        np.testing.assert_allclose(rasters.warp(path, target, "bilinear"), expected, atol=2e-3)

    def test_nodata_of_the_file_stays_and_reaches_outside(self, default, tmp_path):
        numbers = np.full(self.source.shape, 7, np.uint16)
        numbers[:, :30] = 65535
        path = write(tmp_path / "numbers.tif", numbers, self.source, nodata=65535)
        values = rasters.warp(path, self.target(default, (120.2, 45.2, 121.8, 45.8)))
        assert values.dtype == np.uint16
        assert set(np.unique(values)) == {7, 65535}
        assert values[20, -1] == 65535

    def test_decode_keeps_fill_values_out_of_means(self, default, tmp_path):
        numbers = np.full((2, *self.source.shape), 100, np.int16)
        numbers[:, 30, 30] = 9999  # not the declared nodata value, but no value either
        path = write(tmp_path / "numbers.tif", numbers, self.source, nodata=-1)

        def decode(n):
            return np.where(n > 1000, np.nan, n / 10).astype(np.float32).sum(axis=0)

        values = rasters.warp(path, self.target(default), "bilinear", decode=decode)
        assert values.shape == (40, 50)
        assert np.nanmin(values) == np.nanmax(values) == 20

    def test_several_files_of_one_grid_are_stacked(self, default, tmp_path):
        paths = [
            write(tmp_path / f"{n}.tif", np.full(self.source.shape, n, np.uint16), self.source, nodata=0)
            for n in (3, 5)
        ]
        values = rasters.warp(paths, self.target(default))
        assert values.shape == (2, 40, 50)
        assert (values[0] == 3).all()
        assert (values[1] == 5).all()

    @pytest.mark.parametrize(("bands", "shape"), [(2, (40, 50)), ([2], (1, 40, 50)), (None, (3, 40, 50))])
    def test_shape_follows_the_bands_asked_for(self, default, tmp_path, bands, shape):
        stack = np.stack([np.full(self.source.shape, n, np.float32) for n in (1, 2, 3)])
        values = rasters.warp(write(tmp_path / "stack.tif", stack, self.source), self.target(default), bands=bands)
        assert values.shape == shape
        assert (values[-1] == (3 if bands is None else 2)).all()

    def test_a_missing_file_is_named(self, default, tmp_path):
        with pytest.raises(rasters.RasterError, match=r"nothing\.tif is missing") as caught:
            rasters.warp(tmp_path / "nothing.tif", self.target(default))
        assert caught.value.remedy

    def test_a_file_that_is_no_raster_is_named(self, default, tmp_path):
        path = tmp_path / "text.tif"
        path.write_text("not a raster")
        with pytest.raises(rasters.RasterError, match=r"text\.tif cannot be read"):
            rasters.warp(path, self.target(default))

    @pytest.mark.parametrize("decode", [None, np.float32], ids=["streamed", "decoded"])
    def test_a_file_cut_off_is_named(self, default, tmp_path, decode):
        noise = np.random.default_rng(0).normal(size=self.source.shape).astype(np.float32)
        path = write(tmp_path / "half.tif", noise, self.source)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(rasters.RasterError, match=r"half\.tif cannot be read"):
            rasters.warp(path, self.target(default), decode=decode)

    def test_a_file_without_crs_is_named(self, default, tmp_path):
        path = write(tmp_path / "nowhere.tif", self.longitudes()[0], self.source, crs=None)
        with pytest.raises(rasters.RasterError, match=r"nowhere\.tif has no coordinate reference system"):
            rasters.warp(path, self.target(default))

    def test_a_file_outside_the_grid_is_named(self, default, tmp_path):
        path = write(tmp_path / "far.tif", self.longitudes()[0], self.source)
        with pytest.raises(rasters.RasterError, match=r"far\.tif lies outside the grid"):
            rasters.warp(path, self.target(default, (125, 45, 126, 46)))


TWO_BANDS = {"names": ["first", "second"], "units": "m", "long_names": ["The first", "The second"]}


class TestWriteRaster:
    """Files that say what they hold."""

    def values(self, study, kind=np.float32):
        shape = (2, *grid.reference_grid(study).shape)
        return np.random.default_rng(1).integers(0, 1000, shape).astype(kind)

    def test_round_trip(self, study, tmp_path):
        geobox, values = grid.reference_grid(study), self.values(study)
        values[:, :5] = np.nan
        path = rasters.write_raster(
            tmp_path / "new" / "file.tif", values, geobox, study=study, **TWO_BANDS, tags={"more": "yes"}
        )
        with rasterio.open(path) as source:
            np.testing.assert_array_equal(source.read(), values)
            assert np.isnan(source.nodata)
            assert source.transform == geobox.transform
            assert source.crs == rasterio.CRS.from_user_input(study.grid.crs)
            assert geobox.crs == grid.reference_grid(study).crs
            assert source.descriptions == ("first", "second")
            assert source.units == ("m", "m")
            assert source.tags(1)["long_name"] == "The first"
            tags = source.tags()
        assert tags["SIMULATED"].startswith("yes")
        assert {"version", "code_digest", "study", "more"} <= set(tags)
        assert list(path.parent.iterdir()) == [path]

    def test_whole_numbers_keep_scale_offset_and_nodata(self, study, tmp_path):
        path = rasters.write_raster(
            tmp_path / "file.tif",
            self.values(study, np.uint16),
            grid.reference_grid(study),
            study=study,
            **TWO_BANDS,
            nodata=0,
            scale=0.02,
            offset=-1.5,
        )
        with rasterio.open(path) as source:
            assert (source.nodata, source.scales, source.offsets) == (0, (0.02, 0.02), (-1.5, -1.5))

    def test_the_projection_has_a_name(self, study):
        assert grid.reference_grid(study).crs.proj.name == "WGS 84 / Albers Equal Area 105"

    def test_the_same_arrays_give_equal_files(self, study, tmp_path, raster_equal):
        files = [
            rasters.write_raster(
                tmp_path / f"{n}.tif",
                self.values(study),
                grid.reference_grid(study),
                study=study,
                **TWO_BANDS,
            )
            for n in "ab"
        ]
        raster_equal(*files)

    @pytest.mark.parametrize("failing", ["describe", "replace"])
    def test_a_failing_write_leaves_the_old_file_and_nothing_else(self, study, tmp_path, monkeypatch, failing):
        def fail(*_):
            raise OSError("the disk is full")

        path, geobox = tmp_path / "file.tif", grid.reference_grid(study)
        rasters.write_raster(path, self.values(study), geobox, study=study, **TWO_BANDS)
        before = path.read_bytes()
        monkeypatch.setattr(*((rasters, "_describe") if failing == "describe" else (os, "replace")), fail)
        with pytest.raises(OSError, match="disk is full"):
            rasters.write_raster(path, self.values(study) + 1, geobox, study=study, **TWO_BANDS)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_another_shape_than_the_grid_is_refused(self, study, tmp_path):
        with pytest.raises(rasters.RasterError, match="do not fit a grid"):
            rasters.write_raster(
                tmp_path / "file.tif",
                np.zeros((3, 3)),
                grid.reference_grid(study),
                study=study,
                names="a",
                units="1",
            )


def test_a_missing_layer_of_polygons_is_named():
    study = Study(name="other", area={"layer": "counties"})
    with pytest.raises(grid.StudyAreaError, match=r"counties of study-area\.gpkg"):
        grid.reference_grid(study)
