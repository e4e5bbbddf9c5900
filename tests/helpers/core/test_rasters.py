"""Warps that say what is wrong, files that say what they hold."""

import os

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core import grid, rasters
from helpers.core.study import Study

TWO_BANDS = {"names": ["first", "second"], "units": "m", "long_names": ["The first", "The second"]}


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
        expected, _ = pyproj.Transformer.from_crs(default.grid.crs, 4326, always_xy=True).transform(
            eastings, northings
        )
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
            write(
                tmp_path / f"{n}.tif",
                np.full(self.source.shape, n, np.uint16),
                self.source,
                nodata=0,
            )
            for n in (3, 5)
        ]
        values = rasters.warp(paths, self.target(default))
        assert values.shape == (2, 40, 50)
        assert (values[0] == 3).all()
        assert (values[1] == 5).all()

    @pytest.mark.parametrize(
        ("bands", "shape"), [(2, (40, 50)), ([2], (1, 40, 50)), (None, (3, 40, 50))]
    )
    def test_shape_follows_the_bands_asked_for(self, default, tmp_path, bands, shape):
        stack = np.stack([np.full(self.source.shape, n, np.float32) for n in (1, 2, 3)])
        values = rasters.warp(
            write(tmp_path / "stack.tif", stack, self.source), self.target(default), bands=bands
        )
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
        with pytest.raises(
            rasters.RasterError, match=r"nowhere\.tif has no coordinate reference system"
        ):
            rasters.warp(path, self.target(default))

    def test_a_file_outside_the_grid_is_named(self, default, tmp_path):
        path = write(tmp_path / "far.tif", self.longitudes()[0], self.source)
        with pytest.raises(rasters.RasterError, match=r"far\.tif lies outside the grid"):
            rasters.warp(path, self.target(default, (125, 45, 126, 46)))


class TestWriteRaster:
    """Files that say what they hold."""

    def values(self, study, kind=np.float32):
        shape = (2, *grid.reference_grid(study).shape)
        return np.random.default_rng(1).integers(0, 1000, shape).astype(kind)

    def test_round_trip(self, study, tmp_path):
        study = study.changed({"label": "SIMULATED"})
        geobox, values = grid.reference_grid(study), self.values(study)
        values[:, :5] = np.nan
        path = rasters.write_raster(
            tmp_path / "new" / "file.tif",
            values,
            geobox,
            study=study,
            **TWO_BANDS,
            tags={"more": "yes"},
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
        assert tags["LABEL"] == "SIMULATED"
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

    @pytest.mark.parametrize("failing", ["tags", "replace"])
    def test_a_failing_write_leaves_the_old_file_and_nothing_else(
        self, study, tmp_path, monkeypatch, failing
    ):
        def fail(*_):
            raise OSError("the disk is full")

        path, geobox = tmp_path / "file.tif", grid.reference_grid(study)
        rasters.write_raster(path, self.values(study), geobox, study=study, **TWO_BANDS)
        before = path.read_bytes()
        monkeypatch.setattr(
            *((rasters, "_write_tags") if failing == "tags" else (os, "replace")), fail
        )
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
