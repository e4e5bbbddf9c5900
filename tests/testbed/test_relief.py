"""The relief: valleys that drain, over real means, and the same on any number of threads."""

import numpy as np
import pyflwdir
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from shapely import box

from helpers.core.grid import cell_centres, geographic_grid
from helpers.core.settings import ROOT
from testbed import relief
from testbed.settings import Relief

SETTINGS = Relief()


@pytest.fixture(scope="module")
def topography():
    with rasterio.open(ROOT / "data/base/topography.tif") as source:
        return source.read(1).astype(np.float32), GeoBox(
            source.shape, source.transform, source.crs.to_wkt()
        )


@pytest.fixture(scope="module")
def mountains(topography):
    """Relief of a part of the Greater Khingan Range, at 30 arc seconds, and its grid."""
    grid = geographic_grid((120, 49, 124, 52), 30)
    return _relief(topography, grid), grid


def _relief(topography, grid, seed=1):
    return relief.make_relief(
        *topography, grid, [box(100, 30, 140, 60)], SETTINGS, np.random.default_rng(seed)
    )


def test_relief_is_the_same_on_one_and_two_threads(topography, monkeypatch):
    grid = geographic_grid((120, 49, 122, 50), 30)
    made = []
    for threads in (1, 2):
        monkeypatch.setattr(relief, "_FFT_THREADS", threads)
        made.append(_relief(topography, grid))
    assert np.array_equal(*made)


def test_another_seed_gives_another_relief(topography, mountains):
    elevation, grid = mountains
    assert np.abs(_relief(topography, grid, seed=2) - elevation).mean() > 5


def test_means_of_the_real_cells_are_kept(topography, mountains):
    real, coarse = topography
    mesh = relief.Mesh(mountains[1], coarse)
    lack = (mesh.mean(mountains[0]) - real)[mesh.covered]
    assert abs(lack.mean()) < 1
    assert lack.std() < 5  # m; the relief within a cell is tens of times that


def test_mesh_gives_back_a_plane(topography):
    _, coarse = topography
    grid = geographic_grid((120, 49, 122, 50), 60)
    mesh = relief.Mesh(grid, coarse)

    def plane(box):
        longitude, latitude = cell_centres(box)
        return (3 * longitude[None, :] - 2 * latitude[:, None]).astype(np.float32)

    np.testing.assert_allclose(mesh.spread(plane(coarse)), plane(grid), atol=1e-3)
    np.testing.assert_allclose(
        mesh.mean(plane(grid))[mesh.covered], plane(coarse)[mesh.covered], atol=1e-3
    )


def test_mesh_refuses_a_grid_beyond_the_topography(topography):
    with pytest.raises(relief.ReliefError, match="beyond the real topography"):
        relief.Mesh(geographic_grid((100, 49, 122, 50), 60), topography[1])


def test_valleys_drain(mountains):
    elevation, _ = mountains
    filled, _ = pyflwdir.dem.fill_depressions(elevation, nodata=-9999.0)
    assert np.mean(filled - elevation > 2) < 0.1


def test_relief_follows_that_of_the_real_topography(topography, mountains):
    plain = _relief(topography, geographic_grid((124, 45, 126, 46.5), 30))

    def median_step(elevation):
        return np.median(np.abs(np.diff(elevation, axis=1)))

    assert median_step(mountains[0]) > 10
    assert median_step(plain) < 4
