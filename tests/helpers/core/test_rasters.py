"""Files that say what they hold."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from helpers.core import grid, rasters

TWO_BANDS = {"names": ["first", "second"], "units": "m", "long_names": ["The first", "The second"]}


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


def test_blocks_that_gdal_keeps_are_no_share_of_the_machines_memory():
    code = "import helpers, rasterio._env as one; print(one.get_gdal_config('GDAL_CACHEMAX'))"
    own = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    for given, expected in (({}, 256), ({"GDAL_CACHEMAX": "64"}, 64)):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=own | given, capture_output=True, text=True, check=True)
        assert int(done.stdout) == expected * 2**20
