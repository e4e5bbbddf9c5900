"""Chinese map datums: GCJ-02 and BD-09 to and from WGS 84.

Maps published in China are shifted on purpose. Amap, Tencent and Google (in China) draw in GCJ-02,
Baidu in BD-09, which is GCJ-02 shifted once more. Coordinates that were read off a GCJ-02 map, or boundaries
downloaded from one, lie 400-720 m from their place on the ground in Northeast China, off BD-09 maps more than
1 km, in a direction that varies from place to place. Nothing in a table of coordinates says so: it has to be
known from where they came.

The forward laws are closed formulas, each inverse is found by iteration. All functions take and
return ``(longitude, latitude)`` in degrees, as scalars or arrays of any shape that broadcast.
"""

import numpy as np

# Constants of the published law. The ellipsoid is Krasovsky 1940.
_SEMI_MAJOR_AXIS = 6378245.0  # m


_ECCENTRICITY_SQUARED = 0.00669342162296594323


_CHINA_BOX = (72.004, 0.8293, 137.8347, 55.8271)  # west, south, east, north; degrees


_BD09_TURN = np.pi * 3000.0 / 180.0


_BD09_OFFSET = (0.0065, 0.0060)  # degrees


_TOLERANCE = 1e-11  # degrees, a micrometre on the ground


_MAX_ITERATIONS = 50


def wgs84_to_gcj02(longitude, latitude):
    """Shift WGS 84 coordinates to GCJ-02.

    Parameters
    ----------
    longitude, latitude : array_like
        WGS 84 coordinates in degrees.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        GCJ-02 coordinates in degrees. Points outside the box in which the shift is defined
        (72.004-137.8347 E, 0.8293-55.8271 N) and NaN come back unchanged.

    Notes
    -----
    The law was never published officially. The formula is the one that became public in 2010-2013 (the
    "EvilTransform" and "eviltransform" code) and that all open converters share [1]_.

    References
    ----------
    .. [1] "Restrictions on geographic data in China", Wikipedia, section GCJ-02, and the code that it cites:
       https://github.com/googollee/eviltransform

    Examples
    --------
    >>> longitude, latitude = wgs84_to_gcj02(116.404, 39.915)
    >>> print(f"{longitude:.6f} {latitude:.6f}")
    116.410244 39.916404
    """
    return _forward(_gcj02_shift, longitude, latitude)


def gcj02_to_wgs84(longitude, latitude):
    """Take the GCJ-02 shift away.

    Parameters
    ----------
    longitude, latitude : array_like
        GCJ-02 coordinates in degrees, as read from Amap or Tencent maps.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        WGS 84 coordinates in degrees; unchanged outside the box of `wgs84_to_gcj02`.

    Notes
    -----
    The inverse has no closed form. The shift changes by less than one part in a hundred of the way moved, so
    the fixed point ``p = q - shift(p)`` is reached to 1e-11 degrees in about five steps. The widely copied
    one-step inverse ``p = q - shift(q)`` is wrong by up to several metres.
    Within 0.01 degrees of the box's edge, where shifted and unshifted points mix, the inverse isn't unique.
    """
    return _inverse(_gcj02_shift, longitude, latitude)


def gcj02_to_bd09(longitude, latitude):
    """Shift GCJ-02 coordinates to BD-09.

    Parameters
    ----------
    longitude, latitude : array_like
        GCJ-02 coordinates in degrees.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        BD-09 coordinates in degrees (as on Baidu maps); unchanged outside the box of `wgs84_to_gcj02`.

    Notes
    -----
    Formula as published with the GCJ-02 law (see `wgs84_to_gcj02`). Other converters apply this step
    outside China too; here a point outside the box is never moved by any of the six functions.

    Examples
    --------
    >>> longitude, latitude = gcj02_to_bd09(116.404, 39.915)
    >>> print(f"{longitude:.6f} {latitude:.6f}")
    116.410369 39.921337
    """
    return _forward(_bd09_shift, longitude, latitude)


def bd09_to_gcj02(longitude, latitude):
    """Take the step from GCJ-02 to BD-09 back.

    Parameters
    ----------
    longitude, latitude : array_like
        BD-09 coordinates in degrees, as read from Baidu maps.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        GCJ-02 coordinates in degrees; unchanged outside the box of `wgs84_to_gcj02`.

    Notes
    -----
    Iterated like `gcj02_to_wgs84`. The closed formula in common use is an approximation and differs from
    this exact inverse by a few decimetres.
    """
    return _inverse(_bd09_shift, longitude, latitude)


def wgs84_to_bd09(longitude, latitude):
    """Shift WGS 84 coordinates to BD-09, by way of GCJ-02.

    Parameters
    ----------
    longitude, latitude : array_like
        WGS 84 coordinates in degrees.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        BD-09 coordinates in degrees; unchanged outside the box of `wgs84_to_gcj02`.
    """
    return gcj02_to_bd09(*wgs84_to_gcj02(longitude, latitude))


def bd09_to_wgs84(longitude, latitude):
    """Take both shifts of BD-09 away.

    Parameters
    ----------
    longitude, latitude : array_like
        BD-09 coordinates in degrees, as read from Baidu maps.

    Returns
    -------
    longitude, latitude : numpy.ndarray or float
        WGS 84 coordinates in degrees; unchanged outside the box of `wgs84_to_gcj02`.
    """
    return gcj02_to_wgs84(*bd09_to_gcj02(longitude, latitude))


def _as_degrees(longitude, latitude):
    return np.broadcast_arrays(np.asarray(longitude, dtype=float), np.asarray(latitude, dtype=float))


def _in_china_box(longitude, latitude):
    west, south, east, north = _CHINA_BOX
    return (longitude >= west) & (longitude <= east) & (latitude >= south) & (latitude <= north)


def _forward(shift, longitude, latitude):
    longitude, latitude = _as_degrees(longitude, latitude)
    east, north = shift(longitude, latitude)
    inside = _in_china_box(longitude, latitude)
    return np.where(inside, longitude + east, longitude)[()], np.where(inside, latitude + north, latitude)[()]


def _inverse(shift, longitude, latitude):
    longitude, latitude = _as_degrees(longitude, latitude)
    inside = _in_china_box(longitude, latitude)
    # Outside points are iterated at a harmless place, so that they can't spoil the test of convergence.
    target_longitude = np.where(inside, longitude, 120.0)
    target_latitude = np.where(inside, latitude, 45.0)
    guess_longitude, guess_latitude = target_longitude, target_latitude
    for _ in range(_MAX_ITERATIONS):
        east, north = shift(guess_longitude, guess_latitude)
        last_longitude, last_latitude = guess_longitude, guess_latitude
        guess_longitude, guess_latitude = target_longitude - east, target_latitude - north
        step = np.abs(guess_longitude - last_longitude) + np.abs(guess_latitude - last_latitude)
        if np.all(step < _TOLERANCE):
            break
    # The empty index turns arrays without dimensions into scalars and leaves others as they are.
    return np.where(inside, guess_longitude, longitude)[()], np.where(inside, guess_latitude, latitude)[()]


def _gcj02_shift(longitude, latitude):
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


def _bd09_shift(longitude, latitude):
    """Shift of BD-09 against GCJ-02 (degrees east, degrees north) at a GCJ-02 point."""
    radius = np.hypot(longitude, latitude) + 2e-5 * np.sin(latitude * _BD09_TURN)
    angle = np.arctan2(latitude, longitude) + 3e-6 * np.cos(longitude * _BD09_TURN)
    east, north = _BD09_OFFSET
    return radius * np.cos(angle) + east - longitude, radius * np.sin(angle) + north - latitude
