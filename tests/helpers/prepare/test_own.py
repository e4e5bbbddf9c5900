"""The user's rasters on the grid, against numbers worked out by hand and rasterio's own warp."""

import numpy as np
import pytest
import rasterio
import xarray
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import reproject

from helpers.core.settings import OwnPredictor
from helpers.prepare import own
from helpers.prepare.registry import CovariateError, covariates

GRID = GeoBox((12, 16), Affine(1000, 0, 500_000, 0, -1000, 5_300_000), "EPSG:32651")
ROWS, COLUMNS = GRID.shape


def write(path, values, transform=GRID.transform, crs="EPSG:32651", **profile):
    """Write a bare raster of one or more bands."""
    bands = np.atleast_3d(values.T).T
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    profile = {
        "driver": "GTiff",
        "dtype": bands.dtype,
        "crs": crs,
        "transform": transform,
    } | profile
    with rasterio.open(path, "w", **shape, **profile) as target:
        target.write(bands)
    return path


def read(study, path, geobox=GRID, **settings):
    """Return the only covariate of a number or category, or both of a circular predictor."""
    predictor = OwnPredictor(name="mine", file=str(path), **settings)
    bands = own.read_own(study, predictor, geobox)
    assert list(bands) == own.own_names(predictor)
    assert all(band.dtype == np.float32 and band.shape == GRID.shape for band in bands.values())
    return bands["mine"] if len(bands) == 1 else (bands["mine_sin"], bands["mine_cos"])


def noise(shape=GRID.shape):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def divided(times, shift=(0, 0)):
    """Return the transform of cells so many times finer, moved by columns and rows of the grid."""
    return GRID.transform * Affine.translation(*shift) * Affine.scale(1 / times)


class TestPlace:
    """Cells come from where they lie."""

    def test_a_file_on_the_grid_is_taken_byte_for_byte(self, study, tmp_path):
        values = noise()
        values[3, 4] = np.nan
        assert read(study, write(tmp_path / "a.tif", values)).tobytes() == values.tobytes()

    def test_of_a_larger_file_of_the_same_cells_a_part_is_cut_out(self, study, tmp_path):
        values = noise((ROWS + 5, COLUMNS + 9))
        path = write(tmp_path / "a.tif", values, divided(1, (-3, -2)))
        np.testing.assert_array_equal(read(study, path), values[2 : 2 + ROWS, 3 : 3 + COLUMNS])

    def test_a_smaller_file_of_the_same_cells_leaves_the_rest_empty(self, study, tmp_path):
        values = noise((5, 6))
        result = read(study, write(tmp_path / "a.tif", values, divided(1, (2, 3))))
        np.testing.assert_array_equal(result[3:8, 2:8], values)
        assert np.isfinite(result).sum() == values.size

    @pytest.mark.parametrize(
        ("step", "resampling"), [(0.05, "bilinear"), (0.002, "average"), (0.002, "nearest")]
    )
    def test_another_crs_gives_what_rasterio_gives(self, study, tmp_path, step, resampling):
        size = round(0.6 / step)
        values, expected = noise((size, size)), np.full(GRID.shape, np.nan, np.float32)
        transform = Affine(step, 0, 122.8, 0, -step, 48)
        where = {
            "src_crs": "EPSG:4326",
            "dst_crs": "EPSG:32651",
            "resampling": Resampling[resampling],
        }
        where |= {"src_transform": transform, "dst_transform": GRID.transform}
        reproject(values, expected, src_nodata=np.nan, dst_nodata=np.nan, **where)
        path = write(tmp_path / "a.tif", values, transform, "EPSG:4326")
        own_choice = {} if resampling != "nearest" else {"resampling": resampling}
        np.testing.assert_allclose(read(study, path, **own_choice), expected, rtol=1e-6)

    def test_a_large_file_is_read_in_blocks(self, study, tmp_path, monkeypatch):
        path = write(tmp_path / "a.tif", noise((ROWS * 10, COLUMNS * 10)), divided(10))
        whole = read(study, path)
        monkeypatch.setattr("helpers.core.mosaic.MOST_CELLS", 2000)
        np.testing.assert_allclose(read(study, path), whole, rtol=1e-6)

    def test_a_turned_raster_lies_right(self, study, tmp_path):
        turned = (
            GRID.transform * Affine.translation(8, -12) * Affine.rotation(45) * Affine.scale(0.1)
        )
        column, row = np.meshgrid(np.arange(250) + 0.5, np.arange(250) + 0.5)
        northing = turned.d * column + turned.e * row + turned.f - GRID.transform.f
        result = read(study, write(tmp_path / "a.tif", northing, turned))
        expected = -1000 * (np.arange(ROWS) + 0.5)
        assert np.isfinite(result).mean() > 0.8
        difference = np.abs(result - expected[:, None])
        assert np.nanmax(difference[2:-2, 3:-3]) < 50  # m, half a cell of the file

    def test_tiles_in_two_systems_make_one_raster(self, study, tmp_path):
        write(tmp_path / "a.tif", np.full((ROWS, 9), 5, np.int16))
        degrees = Affine(0.002, 0, 122.9, 0, -0.002, 47.9)
        write(tmp_path / "b.tif", np.full((150, 200), 7, np.uint8), degrees, "EPSG:4326")
        (tmp_path / "readme.txt").write_text("no raster")
        result = read(study, tmp_path)
        assert (result[:, :9] == 5).all()
        assert (result[:, 9:] == 7).all()

    def test_a_cell_that_the_first_tile_lacks_is_taken_from_the_second(self, study, tmp_path):
        first = np.full(GRID.shape, 5, np.int16)
        first[2, 2] = -1
        write(tmp_path / "a.tif", first, nodata=-1)
        write(tmp_path / "b.tif", np.full(GRID.shape, 6, np.int16))
        result = read(study, tmp_path)
        assert (result[2, 2], result[0, 0]) == (6, 5)


class TestNumbers:
    """What a number of a file means."""

    def test_359_and_1_degrees_are_neighbours_and_flat_ground_has_no_direction(
        self, study, tmp_path
    ):
        degrees = np.full((ROWS * 2, COLUMNS * 2), 359, np.float32)
        degrees[:, ::2] = 1
        degrees[:2, :2] = -1
        sine, cosine = read(study, write(tmp_path / "a.tif", degrees, divided(2)), kind="circular")
        np.testing.assert_allclose(sine, 0, atol=1e-6)
        np.testing.assert_allclose(cosine.ravel()[1:], np.cos(np.radians(1)), rtol=1e-6)
        assert cosine[0, 0] == 0

    @pytest.mark.parametrize("missing", [np.nan, np.inf, -9999, -5, 2000])
    def test_no_data_never_enters_a_mean(self, study, tmp_path, missing):
        values = np.full((ROWS * 4, COLUMNS * 4), 100, np.float32)
        values[1::2] = missing
        path = write(tmp_path / "a.tif", values, divided(4), nodata=-9999)
        np.testing.assert_array_equal(read(study, path, valid_range=(0, 1000)), 100)

    def test_masked_cells_are_no_data(self, study, tmp_path):
        path = tmp_path / "a.tif"
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write(path, noise())
            with rasterio.open(path, "r+") as target:
                target.write_mask(np.arange(COLUMNS) > np.zeros(GRID.shape))
        np.testing.assert_array_equal(
            np.isnan(read(study, path)), np.arange(COLUMNS) == np.zeros(GRID.shape)
        )

    def test_cells_that_an_alpha_band_hides_are_no_data(self, study, tmp_path):
        alpha = np.where(np.arange(COLUMNS) > np.zeros(GRID.shape), 255, 0)
        path = write(tmp_path / "a.tif", np.stack([noise().astype(np.uint8), alpha.astype("u1")]))
        with rasterio.open(path, "r+") as target:
            target.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        np.testing.assert_array_equal(np.isnan(read(study, path, band=1)), alpha == 0)

    def test_scale_and_offset_come_before_the_valid_range(self, study, tmp_path):
        path = write(tmp_path / "a.tif", np.tile(np.arange(COLUMNS, dtype=np.int16), (ROWS, 1)))
        with rasterio.open(path, "r+") as target:
            target.scales, target.offsets = [0.5], [10]
        expected = 10 + 0.5 * np.arange(COLUMNS)
        np.testing.assert_allclose(read(study, path)[0], expected)
        limited = read(study, path, valid_range=(11, 12))[0]
        np.testing.assert_array_equal(np.isfinite(limited), (expected >= 11) & (expected <= 12))
        assert read(study, path, kind="category")[0, 3] == 3

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_renamed_categories_are_the_same_cells(self, study, tmp_path, dtype):
        codes = np.random.default_rng(1).choice([1, 7, 40], (ROWS * 5, COLUMNS * 5)).astype(dtype)
        renamed = np.select([codes == 1, codes == 7], [200, 3], 90).astype(dtype)
        degrees = Affine(0.0013, 0, 122.95, 0, -0.0013, 47.87)
        result = [
            read(study, write(tmp_path / "a.tif", numbers, where, crs), kind="category")
            for numbers in (codes, renamed)
            for where, crs in ((divided(5), "EPSG:32651"), (degrees, "EPSG:4326"))
        ]
        for first, second in zip(result[:2], result[2:], strict=True):
            for old, new in ((1, 200), (7, 3), (40, 90)):
                np.testing.assert_array_equal(first == old, second == new)
            assert set(np.unique(first[np.isfinite(first)])) == {1, 7, 40}

    def test_a_category_is_the_most_frequent_one(self, study, tmp_path):
        codes = np.full((ROWS * 2, COLUMNS * 2), 9, np.uint8)
        codes[::2, ::2] = 4
        assert (
            read(study, write(tmp_path / "a.tif", codes, divided(2)), kind="category") == 9
        ).all()

    def test_of_a_coarser_category_the_nearest_cell_counts(self, study, tmp_path):
        codes = np.array([[2, 50], [50, 2]], np.uint8)
        path = write(tmp_path / "a.tif", codes, GRID.transform * Affine.scale(8, 6))
        result = read(study, path, kind="category")
        np.testing.assert_array_equal(result, np.repeat(np.repeat(codes, 6, 0), 8, 1))


class TestNetCDF:
    """Variables of a file."""

    @pytest.fixture
    def path(self, tmp_path):
        degrees = {"lat": 47.5 + 0.02 * np.arange(30), "lon": 122.8 + 0.02 * np.arange(30)}
        field = xarray.DataArray(np.full((30, 30), 3.0), degrees, ("lat", "lon"))
        field["lat"].attrs["units"], field["lon"].attrs["units"] = "degrees_north", "degrees_east"
        both = xarray.Dataset({"snow": field, "rain": field + field["lon"]})
        both.to_netcdf(tmp_path / "both.nc")
        both[["rain"]].to_netcdf(tmp_path / "one.nc")
        return tmp_path / "both.nc"

    def test_degrees_are_those_of_wgs_84(self, study, path):
        longitude = read(study, path, variable="rain") - 3
        np.testing.assert_allclose(longitude[0, 0], 123 + 500 / 74_900, atol=1e-3)
        np.testing.assert_array_equal(read(study, path.with_name("one.nc")), longitude + 3)

    @pytest.mark.parametrize("variable", ["", "hail"])
    def test_a_variable_must_be_named(self, study, path, variable):
        with pytest.raises(CovariateError, match=r"mine: both\.nc has .*variable") as caught:
            read(study, path, variable=variable)
        assert "snow, rain" in str(caught.value)


class TestErrors:
    """Each names the predictor and the file, and says what to do."""

    def refused(self, study, path, match, **settings):
        with pytest.raises(CovariateError, match=f"^Predictor mine: .*{match}") as caught:
            read(study, path, **settings)
        assert caught.value.remedy

    def test_missing_files(self, study, tmp_path):
        self.refused(study, tmp_path / "nothing.tif", r"no raster nothing\.tif in ")
        (tmp_path / "tiles").mkdir()
        self.refused(study, tmp_path / "tiles", "folder tiles/ has no raster")

    def test_files_that_are_no_rasters(self, study, tmp_path):
        (tmp_path / "a.tif").write_text("text")
        self.refused(study, tmp_path / "a.tif", r"a\.tif cannot be read")
        (tmp_path / "b.hdf").write_bytes(b"\x0e\x03\x13\x01" + bytes(100))
        self.refused(study, tmp_path / "b.hdf", r"b\.hdf is an HDF4 file")

    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("kind", ["number", "category", "circular"])
    def test_files_cut_off(self, study, tmp_path, times, kind):
        values = np.rint(noise((ROWS * times, COLUMNS * times)))
        path = write(tmp_path / "a.tif", values, divided(times))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.refused(study, path, r"a\.tif cannot be read", kind=kind)

    def test_files_elsewhere(self, study, tmp_path):
        self.refused(
            study, write(tmp_path / "a.tif", noise(), crs=None), r"a\.tif has no coordinate"
        )
        for shift in (COLUMNS, 5000):
            path = write(tmp_path / "b.tif", noise(), divided(1, (shift, 0)))
            self.refused(study, path, r"b\.tif lies outside the grid")
        path = write(tmp_path / "c.tif", noise(), crs="EPSG:32611")
        self.refused(study, path, r"c\.tif lies outside the grid")

    def test_bands_and_values(self, study, tmp_path):
        path = write(tmp_path / "a.tif", noise((2, *GRID.shape)))
        self.refused(study, path, r"a\.tif has no band 3: it has 2", band=3)
        self.refused(study, path, r"a\.tif has no value on the grid", valid_range=(-3, -2))

    def test_categories(self, study, tmp_path):
        path = write(tmp_path / "a.tif", np.full(GRID.shape, 1.5, np.float32))
        self.refused(study, path, r"a\.tif is no raster of categories: 100.00%", kind="category")
        codes = np.arange(256, dtype=np.uint16).reshape(16, 16)
        geobox = GeoBox((16, 16), GRID.transform, GRID.crs)
        path = write(tmp_path / "b.tif", codes)
        predictor = OwnPredictor(name="mine", file=str(path), kind="category")
        with pytest.raises(CovariateError, match=r"b\.tif has 256 categories"):
            own.read_own(study, predictor, geobox)


def test_a_description_says_how_the_file_gets_onto_the_grid(study, tmp_path):
    path = write(tmp_path / "a.tif", noise((ROWS * 2, COLUMNS)), divided(2), nodata=-1)
    with rasterio.open(path, "r+") as target:
        target.units = ["K"]
    predictor = OwnPredictor(name="mine", file=str(path), kind="category", valid_range=(50, 150))
    facts = own.describe_own(study, predictor, GRID)
    assert 50 <= facts.pop("minimum") < 90 < 110 < facts.pop("maximum") <= 150
    assert facts == {
        "codes": 0,
        "files": 1,
        "crs": "WGS 84 / UTM zone 51N",
        "cell_size": "500",
        "nodata": "-1",
        "unit": "K",
        "resampling": "mode",
        "share_of_grid": 0.5,
    }
    on_grid = OwnPredictor(name="mine", file=str(write(path, noise())), unit="m")
    facts = own.describe_own(study, on_grid, GRID)
    assert (facts["resampling"], facts["unit"], facts["share_of_grid"]) == ("none", "m", 1)


def test_the_share_that_may_hold_ice(study, tmp_path):
    """Of four pixels in a cell: one of water, three of it, and one without a code."""
    codes = np.full((2 * ROWS, 2 * COLUMNS), 30, np.uint8)
    codes[0, 0] = codes[0, 2] = codes[1, 2] = codes[0, 3] = 80
    codes[0, 4] = 255
    path = write(tmp_path / "cover.tif", codes, divided(2), nodata=255)
    cover = OwnPredictor(name="cover", file=str(path), kind="category", no_ice=[50, 80])
    share = own.ground_share(study, cover, GRID)
    np.testing.assert_allclose(share[0, :3], [0.75, 0.25, 1])
    assert (share[1:] == 1).all()
    layers = covariates(study.changed({"predictors": [cover.model_dump()]}))
    assert layers["ground_share"].role == "auxiliary"
    with pytest.raises(ValueError, match="no category, which no_ice is for"):
        OwnPredictor(name="cover", file="a.tif", no_ice=[80])
    with pytest.raises(ValueError, match="depth to bedrock: give its `unit`, m or cm"):
        OwnPredictor(name="rock", file="a.tif", bedrock=True, unit="feet")
