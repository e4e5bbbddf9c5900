"""Tiles of an elevation model, and what a folder of rasters is."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core import mosaic, rasters, user_rasters
from helpers.core.warp import warp

GRID = GeoBox((40, 50), Affine(1000, 0, 500_000, 0, -1000, 5_300_000), "EPSG:32651")


def write(path, values, transform, **profile):
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "crs": "EPSG:4326"} | profile
    height, width = values.shape
    with rasterio.open(
        path, "w", height=height, width=width, transform=transform, **profile
    ) as target:
        target.write(values, 1)
    return path


def degrees(west, north, step=0.01):
    return Affine(step, 0, west, 0, -step, north)


def test_one_file_is_warped_as_by_warp(tmp_path):
    values = np.random.default_rng(0).normal(500, 50, (80, 100)).astype(np.float32)
    path = write(tmp_path / "a.tif", values, degrees(122.9, 47.9), nodata=np.nan)
    expected = warp(path, GRID, "bilinear")
    np.testing.assert_array_equal(mosaic.warp_tiles([path], GRID, "bilinear"), expected)


def test_tiles_cover_the_grid_and_nothing_else(tmp_path):
    """Whole numbers without nodata in the west, with nodata and a scale in the east."""
    west = write(tmp_path / "a.tif", np.full((90, 40), 7, np.int16), degrees(122.9, 47.9))
    numbers = np.full((90, 20), 80, np.int16)
    numbers[:, 10:] = -32768
    east = write(tmp_path / "b.tif", numbers, degrees(123.3, 47.9), nodata=-32768)
    with rasterio.open(east, "r+") as target:
        target.scales = [0.1]
    values = mosaic.warp_tiles([west, east], GRID, "bilinear")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, :20], 7)
    np.testing.assert_allclose(values[:, 25:29], 8, rtol=1e-6)
    assert np.isnan(values[:, 34:]).all()
    with pytest.raises(rasters.RasterError, match=r"a\.tif \(and 1 more files\) lies outside"):
        mosaic.warp_tiles([west, east], GRID[:, 45:], "bilinear")


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_tile_cut_off_is_named(tmp_path, dtype):
    values = np.random.default_rng(0).normal(500, 50, (42, 90)).astype(dtype)
    path = write(tmp_path / "a.tif", values, degrees(122.9, 47.9))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(rasters.RasterError, match=r"a\.tif cannot be read"):
        mosaic.warp_tiles([path], GRID, "bilinear")


def test_tiles_are_the_rasters_of_a_folder(tmp_path):
    for name in ("b.TIF", "a.vrt", "a.tif.aux.xml", "c.nc"):
        (tmp_path / name).touch()
    assert [path.name for path in user_rasters.tiles(tmp_path)] == ["a.vrt", "b.TIF", "c.nc"]
    assert user_rasters.tiles(tmp_path / "d.tif") == [tmp_path / "d.tif"]


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_tiles_of_one_lattice_have_no_seams(tmp_path, dtype):
    """They overlap by a column; the second one's values do not count there."""
    values = np.random.default_rng(0).normal(500, 50, (80, 80)).astype(dtype)
    whole = write(tmp_path / "whole.tif", values, degrees(122.9, 47.9))
    second = values.copy()
    second[:, 40] = -5
    tiles = [
        write(tmp_path / "a.tif", values[:40, :41], degrees(122.9, 47.9)),
        write(tmp_path / "b.tif", second[:40, 40:], degrees(123.3, 47.9)),
        write(tmp_path / "c.tif", values[40:], degrees(122.9, 47.5), nodata=-9999),
    ]
    for resampling in ("bilinear", "average"):
        one = mosaic.warp_tiles([whole], GRID, resampling)
        np.testing.assert_array_equal(mosaic.warp_tiles(tiles, GRID, resampling), one)
        reading = user_rasters.Reading(finer=resampling, coarser=resampling)
        one = mosaic.read_mosaic([whole], GRID, reading)
        np.testing.assert_array_equal(mosaic.read_mosaic(tiles, GRID, reading), one)
    without = mosaic.warp_tiles(tiles[1:], GRID, "nearest")
    assert np.isnan(without[:20, :20]).all()
    assert np.isfinite(without[:, 35:45]).all()


def test_one_of_many_tiles_cut_off_is_named(tmp_path):
    values = np.random.default_rng(0).normal(500, 50, (42, 90)).astype(np.float32)
    first = write(tmp_path / "a.tif", values[:, :30], degrees(122.9, 47.9))
    second = write(tmp_path / "b.tif", values[:, 30:], degrees(123.2, 47.9))
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2])
    for read in (mosaic.warp_tiles, mosaic.read_mosaic):
        how = "bilinear" if read is mosaic.warp_tiles else user_rasters.Reading()
        with pytest.raises(rasters.RasterError, match=r"tiles .* cannot be read.*b\.tif"):
            read([first, second], GRID, how)


@pytest.mark.parametrize("cells", [4, 8, 16])
def test_a_file_cut_to_the_area_gives_what_the_whole_one_gives(tmp_path, cells):
    """However few cells are left around the grid that a kernel does not reach."""
    values = np.random.default_rng(0).normal(500, 50, (900, 900)).astype(np.float32)
    place = degrees(122.8, 48.2, 0.0012)
    whole = write(tmp_path / "whole.tif", values, place)
    with rasterio.open(whole) as source:
        window = user_rasters.window_of(source, GRID)
        spare = cells - 4
        window = rasterio.windows.Window(
            window.col_off - spare,
            window.row_off - spare,
            window.width + 2 * spare,
            window.height + 2 * spare,
        )
        part = source.read(1, window=window)
        cut = write(tmp_path / "cut.tif", part, source.window_transform(window))
    expected = mosaic.warp_tiles([whole], GRID, "bilinear")
    np.testing.assert_array_equal(mosaic.warp_tiles([cut], GRID, "bilinear"), expected)
    assert expected.std() < 20  # a mean over the cell, not one of its pixels


def test_overviews_are_read_where_their_cells_are_fine_enough(tmp_path):
    """Overviews that hold another number tell which one was read; so for tiles joined to one."""
    paths = []
    for name, west in (("a", 122.9), ("b", 123.156)):
        values = np.full((512, 512), 1, np.float32)
        path = write(tmp_path / f"{name}.tif", values, degrees(west, 48.0, 0.0005), tiled=True)
        with rasterio.open(path, "r+") as target:
            target.build_overviews([2, 4, 8, 16], rasterio.enums.Resampling.nearest)
        for level in range(4):
            with rasterio.open(path, "r+", overview_level=level) as target:
                target.write(np.full(target.shape, 2 ** (level + 1), np.float32), 1)
        paths.append(path)
    # 0.0005 degrees are 55 by 37 m at 48 N, 45 m on average.
    for resolution, factor in ((1000, 16), (400, 8), (200, 4), (100, 2), (60, 1)):
        grid = GeoBox((20, 20), Affine(resolution, 0, 503_000, 0, -resolution, 5_310_000), GRID.crs)
        one = mosaic.warp_tiles(paths[:1], grid, "bilinear")
        np.testing.assert_array_equal(np.unique(one[np.isfinite(one)]), [factor])
        both = mosaic.warp_tiles(paths, grid, "bilinear")
        np.testing.assert_array_equal(np.unique(both[np.isfinite(both)]), [factor])
        nearest = warp(paths[0], grid)
        np.testing.assert_array_equal(np.unique(nearest[np.isfinite(nearest)]), [factor])
