"""Warps that say what is wrong."""

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core import grid
from helpers.core.rasters import RasterError
from helpers.core.study import Study
from helpers.core.warp import warp


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


SOURCE = grid.geographic_grid((120, 45, 121, 46), 60)


def longitudes():
    longitude, latitude = grid.cell_centres(SOURCE)
    return np.broadcast_to(longitude, SOURCE.shape).astype(np.float32), latitude


def target(default, bounds=(120.2, 45.2, 120.8, 45.8)):
    forward = pyproj.Transformer.from_crs(4326, default.grid.crs, always_xy=True)
    west, south, east, north = forward.transform_bounds(*bounds)
    return projected((west, south, east, north), default.grid.crs, shape=(40, 50))


def test_bilinear_recovers_a_linear_field(default, tmp_path):
    path = write(tmp_path / "longitude.tif", longitudes()[0], SOURCE)
    geobox = target(default)
    eastings, northings = np.meshgrid(*grid.cell_centres(geobox))
    expected, _ = pyproj.Transformer.from_crs(default.grid.crs, 4326, always_xy=True).transform(
        eastings, northings
    )
    np.testing.assert_allclose(warp(path, geobox, "bilinear"), expected, atol=2e-3)


def test_nodata_of_the_file_stays_and_reaches_outside(default, tmp_path):
    numbers = np.full(SOURCE.shape, 7, np.uint16)
    numbers[:, :30] = 65535
    path = write(tmp_path / "numbers.tif", numbers, SOURCE, nodata=65535)
    values = warp(path, target(default, (120.2, 45.2, 121.8, 45.8)))
    assert values.dtype == np.uint16
    assert set(np.unique(values)) == {7, 65535}
    assert values[20, -1] == 65535


def test_decode_keeps_fill_values_out_of_means(default, tmp_path):
    numbers = np.full((2, *SOURCE.shape), 100, np.int16)
    numbers[:, 30, 30] = 9999  # not the declared nodata value, but no value either
    path = write(tmp_path / "numbers.tif", numbers, SOURCE, nodata=-1)

    def decode(n):
        return np.where(n > 1000, np.nan, n / 10).astype(np.float32).sum(axis=0)

    values = warp(path, target(default), "bilinear", decode=decode)
    assert values.shape == (40, 50)
    assert np.nanmin(values) == np.nanmax(values) == 20


def test_several_files_of_one_grid_are_stacked(default, tmp_path):
    paths = [
        write(
            tmp_path / f"{n}.tif",
            np.full(SOURCE.shape, n, np.uint16),
            SOURCE,
            nodata=0,
        )
        for n in (3, 5)
    ]
    values = warp(paths, target(default))
    assert values.shape == (2, 40, 50)
    assert (values[0] == 3).all()
    assert (values[1] == 5).all()


@pytest.mark.parametrize(
    ("bands", "shape"), [(2, (40, 50)), ([2], (1, 40, 50)), (None, (3, 40, 50))]
)
def test_shape_follows_the_bands_asked_for(default, tmp_path, bands, shape):
    stack = np.stack([np.full(SOURCE.shape, n, np.float32) for n in (1, 2, 3)])
    values = warp(write(tmp_path / "stack.tif", stack, SOURCE), target(default), bands=bands)
    assert values.shape == shape
    assert (values[-1] == (3 if bands is None else 2)).all()


def test_a_missing_file_is_named(default, tmp_path):
    with pytest.raises(RasterError, match=r"no raster nothing\.tif") as caught:
        warp(tmp_path / "nothing.tif", target(default))
    assert caught.value.remedy


def test_a_file_that_is_no_raster_is_named(default, tmp_path):
    path = tmp_path / "text.tif"
    path.write_text("not a raster")
    with pytest.raises(RasterError, match=r"text\.tif cannot be read"):
        warp(path, target(default))


@pytest.mark.parametrize("decode", [None, np.float32], ids=["streamed", "decoded"])
def test_a_file_cut_off_is_named(default, tmp_path, decode):
    noise = np.random.default_rng(0).normal(size=SOURCE.shape).astype(np.float32)
    path = write(tmp_path / "half.tif", noise, SOURCE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterError, match=r"half\.tif cannot be read"):
        warp(path, target(default), decode=decode)


def test_a_file_without_crs_is_named(default, tmp_path):
    path = write(tmp_path / "nowhere.tif", longitudes()[0], SOURCE, crs=None)
    with pytest.raises(RasterError, match=r"nowhere\.tif has no coordinate reference system"):
        warp(path, target(default))


def test_a_file_outside_the_grid_is_named(default, tmp_path):
    path = write(tmp_path / "far.tif", longitudes()[0], SOURCE)
    with pytest.raises(RasterError, match=r"far\.tif lies outside the grid"):
        warp(path, target(default, (125, 45, 126, 46)))
