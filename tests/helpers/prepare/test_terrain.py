"""Terrain covariates against surfaces whose answer is known."""

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core import grid, rasters
from helpers.core.settings import ALBERS
from helpers.core.warp import warp
from helpers.prepare import terrain
from helpers.prepare.registry import FINE_LAYERS, CovariateError, covariates, fine_name

RESOLUTION = 500


def local_grid(longitude, latitude, cells=81):
    """Return a grid of 500 m in the default projection about a place."""
    easting, northing = pyproj.Transformer.from_crs(4326, ALBERS, always_xy=True).transform(
        longitude, latitude
    )
    half = cells * RESOLUTION / 2
    return GeoBox(
        (cells, cells),
        Affine(RESOLUTION, 0, easting - half, 0, -RESOLUTION, northing + half),
        ALBERS,
    )


def write_tilted_plane(path, longitude, latitude, azimuth, slope):
    """Write an elevation model of a plane that faces a true azimuth, 5 seconds of arc."""
    geobox = grid.geographic_grid(
        (longitude - 0.2, latitude - 0.15, longitude + 0.2, latitude + 0.15), 5
    )
    longitudes, latitudes = np.meshgrid(*grid.cell_centres(geobox))
    # metres on the ellipsoid from the middle, by an equidistant projection about it
    place = f"+proj=aeqd +lon_0={longitude} +lat_0={latitude} +datum=WGS84"
    east, north = pyproj.Transformer.from_crs(4326, place, always_xy=True).transform(
        longitudes, latitudes
    )
    fall = east * np.sin(np.radians(azimuth)) + north * np.cos(np.radians(azimuth))
    elevation = (1000 - np.tan(np.radians(slope)) * fall).astype(np.float32)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=geobox.shape[0],
        width=geobox.shape[1],
        dtype="float32",
        crs="EPSG:4326",
        transform=geobox.transform,
        nodata=-9999,
    ) as target:
        target.write(elevation, 1)
    return path


@pytest.mark.parametrize("azimuth", [0, 45, 135, 180, 250, 359])
@pytest.mark.parametrize(
    ("longitude", "latitude"), [(134, 50), (112, 43)], ids=["134E50N", "112E43N"]
)
def test_a_tilted_plane_keeps_its_true_slope_and_aspect(tmp_path, longitude, latitude, azimuth):
    geobox = local_grid(longitude, latitude)
    path = write_tilted_plane(tmp_path / "plane.tif", longitude, latitude, azimuth, slope=5)
    elevation = warp(path, geobox, "bilinear")
    east, north = terrain.gradient(elevation, RESOLUTION, grid.local_factors(geobox))
    northness, eastness = terrain.aspect_vector(east, north)
    middle = (slice(30, 50), slice(30, 50))
    assert np.degrees(np.arctan(np.hypot(east, north)))[middle].mean() == pytest.approx(5, rel=0.01)
    aspect = grid.direction(northness[middle].mean(), eastness[middle].mean())
    assert abs((aspect - azimuth + 180) % 360 - 180) < 0.5


def test_gradient_is_missing_beside_missing_cells():
    elevation = np.zeros((7, 7), np.float32)
    elevation[3, 3] = np.nan
    factors = grid.LocalFactors(*(np.full((7, 7), value, np.float32) for value in (0, 0, 1, 1)))
    east, _ = terrain.gradient(elevation, RESOLUTION, factors)
    around = np.isnan(east[2:5, 2:5])
    around[1, 1] = True  # Horn's method does not use the middle
    assert around.all()
    assert np.isnan(east[[0, -1]]).all()
    assert east[1, 1] == 0


def test_flat_ground_has_no_aspect():
    flat = np.zeros((2, 2), np.float32)
    northness, eastness = terrain.aspect_vector(flat, flat)
    assert (northness == 0).all()
    assert (eastness == 0).all()
    assert np.isnan(grid.direction(northness, eastness)).all()


def test_aspect_is_averaged_across_north():
    azimuths = np.radians([[350, 10], [350, 10]])
    steep = 0.1
    vector = terrain.aspect_vector(
        *(-steep * f(azimuths).astype(np.float32) for f in (np.sin, np.cos))
    )
    north, east = (grid.block_mean(part, 2) for part in vector)
    aspect = grid.direction(north, east)[0, 0]
    assert min(aspect, 360 - aspect) < 1e-3


class TestTopographicPosition:
    """Elevation less the mean of a ring."""

    def test_a_plane_has_none(self):
        rows, columns = np.mgrid[:60, :50].astype(np.float32)
        position = terrain.topographic_position(3 * rows + 2 * columns, 500, 5000)
        np.testing.assert_allclose(position[11:-11, 11:-11], 0, atol=1e-3)

    def test_a_bowl_lies_below_its_surroundings_by_the_rings_mean_square(self):
        rows, columns = np.mgrid[-40:41, -40:41]
        ring = terrain.annulus(5, 10)
        reach = np.mgrid[-10:11, -10:11]
        expected = -0.1 * (reach**2).sum(axis=0)[ring].mean()
        position = terrain.topographic_position(
            (0.1 * (rows**2 + columns**2)).astype(np.float32), 500, 5000
        )
        np.testing.assert_allclose(position[15:-15, 15:-15], expected, rtol=1e-3)

    def test_agrees_with_the_definition_at_edges_and_gaps(self):
        elevation = np.random.default_rng(3).normal(800, 50, (23, 19)).astype(np.float32)
        elevation[5:8, 6] = np.nan
        position = terrain.topographic_position(elevation, 500, 2000, inner_share=0.5)
        for row, column in ((0, 0), (9, 9), (6, 7), (22, 4)):
            distance = (
                np.hypot(*(np.mgrid[:23, :19] - np.array([row, column])[:, None, None])) * 500
            )
            ring = elevation[(distance >= 1000) & (distance <= 2000)]
            expected = elevation[row, column] - np.nanmean(ring)
            assert position[row, column] == pytest.approx(expected, abs=1e-2)
        assert np.isnan(position[6, 6])

    def test_a_radius_shorter_than_a_cell_is_refused(self):
        with pytest.raises(ValueError, match="shorter than a cell"):
            terrain.topographic_position(np.zeros((5, 5), np.float32), 500, 400)


class TestReliefAmplitude:
    """Highest less lowest in a window about a reference cell."""

    @pytest.mark.parametrize(("area", "cells"), [(4.0, 4), (1.0, 2), (9.0, 6)])
    def test_a_plane_has_the_rise_across_the_window(self, area, cells):
        rows = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None], (40, 40))
        relief = terrain.relief_amplitude(10 * rows, 500, area, divisor=2)
        assert relief.shape == (20, 20)
        np.testing.assert_array_equal(relief[4:-4, 4:-4], 10 * (cells - 1))

    def test_the_window_is_centred_on_the_reference_cell(self):
        elevation = np.zeros((24, 24), np.float32)
        elevation[10:12, 10:12] = 100  # exactly the reference cell (5, 5)
        relief = terrain.relief_amplitude(elevation, 500, 4.0, divisor=2)
        expected = np.zeros((12, 12))
        expected[4:7, 4:7] = 100
        np.testing.assert_array_equal(relief, expected)

    def test_gaps_are_passed_over(self):
        elevation = np.full((8, 8), np.nan, np.float32)
        elevation[4, 4] = 5
        relief = terrain.relief_amplitude(elevation, 500, 4.0, divisor=2)
        assert relief[2, 2] == 0
        assert np.isnan(relief[0, 0])


def from_the_middle():
    """Return the distance in metres from the middle of a grid of 161 cells a side."""
    return np.hypot(*(np.mgrid[:161, :161] - 80)) * RESOLUTION


@pytest.fixture(scope="module")
def cone():
    """Return a cone of slope 0.05 with a flat top of 4 km and a terrace from 30 to 33 km."""
    distance = from_the_middle()
    climb = np.clip(distance, 4000, 30_000) + np.maximum(distance - 33_000, 0)
    return (4000 - 0.05 * climb).astype(np.float32)


class TestWetness:
    """Flow on a cone with a flat top and a terrace."""

    def test_every_cell_in_the_interior_has_a_direction(self, cone):
        flow = terrain.flow_directions(cone)
        on_edge = terrain.edge_cells(np.isfinite(cone)).ravel()
        assert on_edge[flow.idxs_pit].all()
        assert terrain.upstream_cells(flow).min() >= 1

    def test_all_water_reaches_the_edge(self, cone):
        flow = terrain.flow_directions(cone)
        cells = terrain.upstream_cells(flow)
        assert cells.ravel()[flow.idxs_pit].sum() == cone.size

    def test_index_on_the_flank_follows_the_analytic_one(self, cone):
        """On a cone, a = r / 2 and tan(beta) is constant: the mean index grows as ln(r)."""
        slope = np.full_like(cone, 0.05)
        upstream = terrain.upstream_cells(terrain.flow_directions(cone))
        index = terrain.wetness_index(upstream, RESOLUTION, slope, np.zeros_like(slope))
        distance = from_the_middle()
        radii = np.array([10_000, 15_000, 20_000, 25_000])
        # Single-direction routing keeps the mean of a over a ring; its logarithm scatters.
        for radius in radii:
            ring = np.abs(distance - radius) < 1000
            area = upstream[ring].mean() * RESOLUTION
            assert area == pytest.approx(radius / 2, rel=0.35)
        means = [index[np.abs(distance - radius) < 1000].mean() for radius in radii]
        assert np.all(np.diff(means) > 0)

    def test_known_value(self):
        one = np.ones((1, 1), np.float32)
        assert terrain.wetness_index(10 * one, 500, 0.03 * one, 0.04 * one)[0, 0] == pytest.approx(
            np.log(5000 / 0.05)
        )
        assert terrain.wetness_index(10 * one, 500, 0 * one, 0 * one, 0.001)[0, 0] == pytest.approx(
            np.log(5000 / 0.001)
        )

    def test_depressions_are_filled(self):
        rows = np.broadcast_to(np.arange(30, dtype=np.float32)[:, None], (30, 30)).copy()
        rows[12:15, 12:15] -= 20
        terrain.flow_directions(rows)  # raises where a cell has no direction

    def test_water_from_the_edge_is_flagged(self):
        rows = np.broadcast_to(np.arange(30, dtype=np.float32)[:, None], (30, 30)).copy()
        rows += np.abs(
            np.arange(30) - 15
        )  # a valley that enters in the last row and leaves in the first
        flow = terrain.flow_directions(rows)
        flagged = terrain.reached_from_edge(flow, np.isfinite(rows))
        assert flagged[1:-1, 15].all()

    def test_a_hill_gets_no_water_from_the_edge(self):
        hill = -from_the_middle().astype(np.float32)
        flagged = terrain.reached_from_edge(terrain.flow_directions(hill), np.isfinite(hill))
        assert not flagged[1:-1, 1:-1].any()

    def test_an_implausible_accumulation_is_refused(self):
        for largest, whole in ((1, True), (1, False), (39_000, True)):
            cells = np.ones((200, 200))
            cells[0, 0] = largest
            with pytest.raises(CovariateError, match="largest contributing area"):
                terrain.check_upstream(cells, whole)
        terrain.check_upstream(cells, whole=False)  # a part may lie in one basin


def test_make_gives_all_terrain_layers_on_the_reference_grid(study, tmp_path):
    geobox = grid.geographic_grid((108, 36, 139, 56), 180)
    longitude, latitude = np.meshgrid(*grid.cell_centres(geobox))
    elevation = (800 + 300 * np.sin(longitude * 3) * np.cos(latitude * 4)).astype(np.float32)
    rasters.write_raster(
        tmp_path / "raw" / "dem.tif", elevation, geobox, study=study, names="elevation", units="m"
    )
    layers = terrain.make(study, grid.reference_grid(study))
    inside = grid.area_mask(study, grid.reference_grid(study))
    fine = set(map(fine_name, FINE_LAYERS))
    assert set(layers) == fine | {
        name for name, layer in covariates(study).items() if layer.family == "terrain"
    }
    for name in set(layers) - fine:
        values = layers[name]
        assert values.shape == inside.shape, name
        assert values.dtype == np.float32, name
        assert np.isfinite(values[inside]).mean() > 0.99, name
