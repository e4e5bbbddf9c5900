"""The datum conversions against published pairs, and against their own inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from helpers.samples.datum import (
    bd09_to_gcj02,
    bd09_to_wgs84,
    gcj02_to_bd09,
    gcj02_to_wgs84,
    wgs84_to_gcj02,
)

# The pairs of the test suite of googollee/eviltransform: WGS 84, then GCJ-02; longitude, latitude.
SHARED_PAIRS = {
    "Shanghai": ((121.5272106, 31.1774276), (121.531541859215, 31.17530398364597)),
    "Shenzhen": ((113.912316, 22.543847), (113.9171764808363, 22.540796131694766)),
    "Beijing": ((116.377817, 39.911954), (116.38404722455657, 39.91334545536069)),
}
FORWARD = {
    "GCJ-02": (wgs84_to_gcj02, gcj02_to_wgs84),
    "GCJ-02 to BD-09": (gcj02_to_bd09, bd09_to_gcj02),
    "BD-09": (lambda *place: gcj02_to_bd09(*wgs84_to_gcj02(*place)), bd09_to_wgs84),
}
# A little inside the box of the law: at its edge shifted and unshifted points mix.
longitudes = st.floats(72.1, 137.7)
latitudes = st.floats(0.9, 55.7)


@pytest.mark.parametrize(("wgs84", "gcj02"), SHARED_PAIRS.values(), ids=SHARED_PAIRS.keys())
def test_gcj02_agrees_with_published_pairs(wgs84, gcj02):
    np.testing.assert_allclose(wgs84_to_gcj02(*wgs84), gcj02, rtol=0, atol=1e-10)
    np.testing.assert_allclose(gcj02_to_wgs84(*gcj02), wgs84, rtol=0, atol=1e-10)


def test_bd09_agrees_with_published_pair():
    # Beijing railway station, from the manual of the R package geoChina, given to five decimals.
    np.testing.assert_allclose(
        gcj02_to_bd09(116.42703, 39.90245), (116.43351, 39.90851), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        bd09_to_gcj02(116.43351, 39.90851), (116.42703, 39.90245), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("forward", "inverse"), FORWARD.values(), ids=FORWARD.keys())
@given(longitude=longitudes, latitude=latitudes)
def test_there_and_back(forward, inverse, longitude, latitude):
    np.testing.assert_allclose(
        inverse(*forward(longitude, latitude)), (longitude, latitude), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(("forward", "inverse"), FORWARD.values(), ids=FORWARD.keys())
@given(longitude=longitudes, latitude=latitudes)
def test_back_and_there(forward, inverse, longitude, latitude):
    np.testing.assert_allclose(
        forward(*inverse(longitude, latitude)), (longitude, latitude), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    "convert", [f for pair in FORWARD.values() for f in pair], ids=lambda f: f.__name__
)
@given(
    longitude=st.one_of(st.floats(-180, 71.9), st.floats(137.9, 180)),
    latitude=st.floats(-90, 90),
)
def test_points_outside_china_stay(convert, longitude, latitude):
    assert convert(longitude, latitude) == (longitude, latitude)


def test_shift_in_northeast_china_is_400_to_720_m():
    longitude, latitude = np.meshgrid(
        np.linspace(111.14, 135.09, 200), np.linspace(38.72, 53.56, 200)
    )
    _, _, length = Geod(ellps="WGS84").inv(
        longitude, latitude, *wgs84_to_gcj02(longitude, latitude)
    )
    assert 400 < length.min() < 450
    assert 650 < length.max() < 720


def test_arrays_broadcast_and_nan_stays_with_its_point():
    longitude, latitude = gcj02_to_wgs84([[116.0], [np.nan], [-100.0]], [40.0, 45.0])
    assert longitude.shape == latitude.shape == (3, 2)
    assert np.isnan(longitude[1]).all()
    np.testing.assert_array_equal(longitude[2], -100.0)
    # A NaN or a far point beside it must not change what a point converts to.
    np.testing.assert_allclose(longitude[0, 0], gcj02_to_wgs84(116.0, 40.0)[0], rtol=0, atol=1e-10)


def test_inputs_are_not_changed():
    longitude, latitude = np.array([120.0, 125.0]), np.array([45.0, 50.0])
    gcj02_to_wgs84(longitude, latitude)
    np.testing.assert_array_equal(longitude, [120.0, 125.0])
    np.testing.assert_array_equal(latitude, [45.0, 50.0])
