"""Chinese map datums: GCJ-02 and BD-09 to and from WGS 84.

Maps published in China are shifted on purpose. Amap, Tencent and Google (in China) draw in GCJ-02,
Baidu in BD-09, which is GCJ-02 shifted once more. Coordinates that were read off a GCJ-02 map, or
boundaries downloaded from one, lie 400-720 m from their place on the ground in Northeast China, off
BD-09 maps more than 1 km, in a direction that varies from place to place. Nothing in a table of
coordinates says so: whoever uses it must know where they came from.

The forward laws are closed formulas, each inverse is by iteration. All functions take and return
``(longitude, latitude)`` in degrees, as scalars or arrays of any shape that broadcast. Points
outside the box of the law (72.004-137.8347 E, 0.8293-55.8271 N) and NaN come back unchanged.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Degrees = tuple[np.ndarray, np.ndarray]
_Shift = Callable[[np.ndarray, np.ndarray], Degrees]

# Constants of the published law. The ellipsoid is Krasovsky 1940.
_SEMI_MAJOR_AXIS = 6378245.0  # m
_ECCENTRICITY_SQUARED = 0.00669342162296594323
_CHINA_BOX = (72.004, 0.8293, 137.8347, 55.8271)  # west, south, east, north; degrees
_BD09_TURN = np.pi * 3000.0 / 180.0
_BD09_OFFSET = (0.0065, 0.0060)  # degrees

_TOLERANCE = 1e-11  # degrees, a micrometre on the ground
_MAX_ITERATIONS = 50


def wgs84_to_gcj02(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    """Shift WGS 84 coordinates to GCJ-02.

    Notes
    -----
    The law was never published officially. The formula is the one that became public in 2010-2013
    (the "EvilTransform" and "eviltransform" code) and that all open converters share.

    References
    ----------
    "Restrictions on geographic data in China", Wikipedia, section GCJ-02, and the code that
    it cites: https://github.com/googollee/eviltransform

    Examples
    --------
    >>> longitude, latitude = wgs84_to_gcj02(116.404, 39.915)
    >>> print(f"{longitude:.6f} {latitude:.6f}")
    116.410244 39.916404
    """
    return _forward(_gcj02_shift, longitude, latitude)


def gcj02_to_wgs84(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    """Take the GCJ-02 shift away.

    Notes
    -----
    The inverse has no closed form. The shift changes by less than one part in a hundred of the way
    moved, so the fixed point ``p = q - shift(p)`` is reached to 1e-11 degrees in about five steps.
    The widely copied one-step inverse ``p = q - shift(q)`` is wrong by up to several metres.
    Within 0.01 degrees of the box's edge, where shifted and unshifted points mix, the inverse isn't
    unique.

    Examples
    --------
    >>> shifted = wgs84_to_gcj02(121.5, 50.8)
    >>> [round(float(one), 9) for one in gcj02_to_wgs84(*shifted)]
    [121.5, 50.8]
    """
    return _inverse(_gcj02_shift, longitude, latitude)


def gcj02_to_bd09(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    """Shift GCJ-02 coordinates to BD-09.

    Notes
    -----
    Formula as published with the GCJ-02 law (see `wgs84_to_gcj02`). Other converters apply this
    step outside China too; here no function moves a point outside the box.

    Examples
    --------
    >>> longitude, latitude = gcj02_to_bd09(116.404, 39.915)
    >>> print(f"{longitude:.6f} {latitude:.6f}")
    116.410369 39.921337
    """
    return _forward(_bd09_shift, longitude, latitude)


def bd09_to_gcj02(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    """Take the step from GCJ-02 to BD-09 back.

    Iterated like `gcj02_to_wgs84`. The closed formula in common use is an approximation and differs
    from this exact inverse by a few decimetres.

    Examples
    --------
    >>> shifted = gcj02_to_bd09(116.404, 39.915)
    >>> [round(float(one), 9) for one in bd09_to_gcj02(*shifted)]
    [116.404, 39.915]
    """
    return _inverse(_bd09_shift, longitude, latitude)


def bd09_to_wgs84(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    """Take both shifts of BD-09 away.

    Examples
    --------
    >>> shifted = gcj02_to_bd09(*wgs84_to_gcj02(121.5, 50.8))
    >>> [round(float(one), 9) for one in bd09_to_wgs84(*shifted)]
    [121.5, 50.8]
    """
    return gcj02_to_wgs84(*bd09_to_gcj02(longitude, latitude))


def _forward(shift: _Shift, longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    place, inside = _in_box(longitude, latitude)
    east, north = np.where(inside, place + shift(*place), place)
    return east, north


def _inverse(shift: _Shift, longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Degrees:
    place, inside = _in_box(longitude, latitude)
    # Outside points are iterated at a harmless place, so that they can't spoil the test of
    # convergence.
    target = np.stack([np.where(inside, place[0], 120.0), np.where(inside, place[1], 45.0)])
    guess = target
    for _ in range(_MAX_ITERATIONS):
        last, guess = guess, target - shift(*guess)
        if np.all(np.abs(guess - last).sum(axis=0) < _TOLERANCE):
            break
    east, north = np.where(inside, guess, place)
    return east, north


def _in_box(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both coordinates as one array, and which points lie in the box of the law."""
    place = np.stack(np.broadcast_arrays(longitude, latitude)).astype(float)
    west, south, east, north = _CHINA_BOX
    inside = (place[0] >= west) & (place[0] <= east) & (place[1] >= south) & (place[1] <= north)
    return place, inside


def _gcj02_shift(longitude: np.ndarray, latitude: np.ndarray) -> Degrees:
    """Shift of GCJ-02 against WGS 84 (degrees east, degrees north) at a WGS 84 point."""
    x, y = longitude - 105.0, latitude - 35.0
    wave = 20.0 * np.sin(6.0 * np.pi * x) + 20.0 * np.sin(2.0 * np.pi * x)
    east = 300.0 + x + 2.0 * y + 0.1 * x**2 + 0.1 * x * y + 0.1 * np.sqrt(np.abs(x))
    east += 2.0 / 3.0 * (wave + 20.0 * np.sin(np.pi * x) + 40.0 * np.sin(np.pi / 3.0 * x))
    east += 2.0 / 3.0 * (150.0 * np.sin(np.pi / 12.0 * x) + 300.0 * np.sin(np.pi / 30.0 * x))
    north = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y**2 + 0.1 * x * y + 0.2 * np.sqrt(np.abs(x))
    north += 2.0 / 3.0 * (wave + 20.0 * np.sin(np.pi * y) + 40.0 * np.sin(np.pi / 3.0 * y))
    north += 2.0 / 3.0 * (160.0 * np.sin(np.pi / 12.0 * y) + 320.0 * np.sin(np.pi / 30.0 * y))
    # From metres to degrees by the radii of curvature of the ellipsoid.
    phi = np.radians(latitude)
    w_squared = 1.0 - _ECCENTRICITY_SQUARED * np.sin(phi) ** 2
    prime_vertical = _SEMI_MAJOR_AXIS / np.sqrt(w_squared)
    meridian = _SEMI_MAJOR_AXIS * (1.0 - _ECCENTRICITY_SQUARED) / w_squared**1.5
    return np.degrees(east / (prime_vertical * np.cos(phi))), np.degrees(north / meridian)


def _bd09_shift(longitude: np.ndarray, latitude: np.ndarray) -> Degrees:
    """Shift of BD-09 against GCJ-02 (degrees east, degrees north) at a GCJ-02 point."""
    radius = np.hypot(longitude, latitude) + 2e-5 * np.sin(latitude * _BD09_TURN)
    angle = np.arctan2(latitude, longitude) + 3e-6 * np.cos(longitude * _BD09_TURN)
    east, north = _BD09_OFFSET
    return radius * np.cos(angle) + east - longitude, radius * np.sin(angle) + north - latitude
