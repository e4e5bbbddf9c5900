"""Ground ice: types, contents, the permafrost part of a depth layer, and storage.

Depths are metres below the surface, positive downwards. Ice content is the volume of ice per volume of ground
(m3 m-3). A *layer* is a pair ``(top, bottom)``. All functions are pure.
"""

import numpy as np

from helpers.core.classes import NO_TYPE
from helpers.core.errors import CompendiumError

ICE_DENSITY = 917.0
"""Density of ice, kg m-3."""


WATER_DENSITY = 1000.0
"""Density of water, kg m-3."""


SOLID_DENSITY = 2.65
"""Density of mineral grains relative to water; organic matter has about 1.5."""


_DECIMALS = 9  # contents are compared after rounding, so that a mean of 0.3 and 0.3 is not just below 0.3


class IceError(CompendiumError):
    """Numbers that cannot be those of frozen ground."""


def ice_type(ice_content, thresholds):
    """Classify the ice content of permafrost.

    Parameters
    ----------
    ice_content : array_like
        Volumetric ice content of the permafrost part, m3 m-3.
    thresholds : sequence of float
        The four increasing limits between the five types, m3 m-3; a content that equals a limit belongs to
        the type above it.

    Returns
    -------
    numpy.ndarray of uint8, or an int for a scalar
        1-5, and `NO_TYPE` where the content is NaN. Never 0: no permafrost is not a matter of ice content.

    Raises
    ------
    IceError
        A content lies outside 0-1.

    Examples
    --------
    >>> ice_type([0.05, 0.1, 0.5], [0.10, 0.20, 0.30, 0.50]).tolist()
    [1, 2, 5]
    """
    content = np.asarray(ice_content)
    check_share(content, "ice content")
    code = np.searchsorted(thresholds, np.round(content, _DECIMALS), side="right") + 1
    code = np.where(np.isnan(content), NO_TYPE, code).astype(np.uint8)
    return code if code.ndim else int(code)


def volumetric_ice_content(water_content, unfrozen_water_content, dry_density=None, solid_density=SOLID_DENSITY):
    """Return the volumetric ice content of a core from its gravimetric water content.

    Parameters
    ----------
    water_content : array_like
        Total water, ice included, as a fraction of the dry mass. May exceed 1, as in peat.
    unfrozen_water_content : array_like
        The part of it that is not frozen at the core's temperature, as a fraction of the dry mass.
    dry_density : array_like, optional
        Dry bulk density, kg m-3. Where it is NaN or not given, the ground is taken as saturated.
    solid_density : array_like
        Density of the solids relative to water, for the saturated closure.

    Returns
    -------
    numpy.ndarray or float
        m3 m-3; NaN where a water content is NaN.

    Raises
    ------
    IceError
        Water contents below zero, more unfrozen than total water, a density that is not positive, or a result
        outside 0-1.

    Notes
    -----
    With a measured density, theta = rho_d (w - w_u) / 917. Without one, theta = v / (1 + v + w_u G) with
    v = (w - w_u) G / 0.917: the volumes of ice, solids (1) and unfrozen water fill the ground.

    Examples
    --------
    >>> print(f"{volumetric_ice_content(0.25, 0.08):.3f}")
    0.288
    >>> print(f"{volumetric_ice_content(0.25, 0.08, dry_density=1500):.3f}")
    0.278
    """
    total, unfrozen = floats(water_content), floats(unfrozen_water_content)
    density = floats(np.nan if dry_density is None else dry_density)
    solids = floats(solid_density)
    if np.any((density <= 0) | (solids <= 0)):
        raise IceError("A density is zero or negative.", "give dry density in kg m-3 and the solids' relative to water")
    if np.any((unfrozen < 0) | (unfrozen > total)):
        raise IceError(
            "An unfrozen water content is negative or exceeds the total water content.",
            "give both as fractions of the dry mass, the total one first",
        )
    content = _content(total, unfrozen, density, solids)
    check_share(content, "ice content", "give the water content as a fraction and the density in kg m-3")
    return content if content.ndim else float(content)


def _content(total, unfrozen, density, solids):
    """Return m3 of ice per m3 of ground: by the dry density, and for saturated ground where that is NaN."""
    frozen = total - unfrozen
    volume = frozen * solids * WATER_DENSITY / ICE_DENSITY
    return np.where(np.isnan(density), volume / (1 + volume + unfrozen * solids), density * frozen / ICE_DENSITY)


def content_with_error(water_content, unfrozen_water_content, dry_density, solid_density, errors):
    """Return the volumetric ice content of cores and its standard deviation, by first-order propagation.

    Parameters
    ----------
    water_content, unfrozen_water_content, dry_density, solid_density : numpy.ndarray, shape (n,)
        As in `volumetric_ice_content`; NaN in `dry_density` means saturated ground.
    errors : tuple of float
        Standard deviations of water content and of unfrozen water content (fractions of the dry mass), and of dry
        density (as a share of it). They are taken as independent.

    Returns
    -------
    content, sd : numpy.ndarray, shape (n,)
        m3 m-3; NaN where the water content is. Contents that measurement errors brought above 1 are 1.
    """
    known = ~np.isnan(water_content)
    content, variance = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    total, unfrozen, density, solids = (
        floats(part)[known] for part in (water_content, unfrozen_water_content, dry_density, solid_density)
    )
    step = 1e-6
    middle = _content(total, unfrozen, density, solids)
    moved = (
        _content(total + step, unfrozen, density, solids),
        _content(total, unfrozen + step, density, solids),
        np.where(np.isnan(density), middle, _content(total, unfrozen, density * (1 + step), solids)),
    )
    content[known] = np.minimum(middle, 1)
    variance[known] = sum(((part - middle) / step * error) ** 2 for part, error in zip(moved, errors, strict=True))
    return content, np.sqrt(variance)


def permafrost_part(top, bottom, table, base):
    """Return which part of a depth layer is permafrost: [max(top, table), min(bottom, base)].

    Parameters
    ----------
    top, bottom : array_like
        The layer, m.
    table : array_like
        Depth of the permafrost table, m; NaN where unknown.
    base : array_like
        Depth of the permafrost base, m; NaN where the hole did not reach it: it is taken as below the layer.

    Returns
    -------
    upper, lower : numpy.ndarray or float
        Where the permafrost part begins and ends, m; NaN where there is none.
    share : numpy.ndarray or float
        Its thickness over the layer's, 0-1; NaN where the table is unknown.

    Examples
    --------
    >>> permafrost_part(2, 3, 2.25, float("nan"))
    (2.25, 3.0, 0.75)
    """
    top, bottom, table, base = np.broadcast_arrays(*map(floats, (top, bottom, table, base)))
    upper, lower = np.maximum(top, table), np.fmin(bottom, base)
    share = np.clip((lower - upper) / (bottom - top), 0, 1)
    some = share > 0
    upper, lower = np.where(some, upper, np.nan), np.where(some, lower, np.nan)
    return (upper, lower, share) if share.ndim else (float(upper), float(lower), float(share))


def layer_mean(intervals, top, bottom):
    """Return the thickness-weighted mean of the core intervals that overlap a range of depths.

    Parameters
    ----------
    intervals : array_like, shape (n, 3)
        Top (m), bottom (m) and value of each; they must not overlap. NaN values count as not sampled.
    top, bottom : float
        The range, m.

    Returns
    -------
    mean : float
        NaN where nothing was sampled.
    sampled_share : float
        Sampled thickness over the range's thickness, 0-1; gaps between intervals are not sampled.

    Examples
    --------
    >>> layer_mean([[1.0, 2.5, 0.2], [2.5, 2.75, 0.5]], 2, 3)
    (0.3, 0.75)
    """
    upper, lower, value = floats(intervals).reshape(-1, 3).T
    overlap = np.maximum(np.minimum(lower, bottom) - np.maximum(upper, top), 0)
    used = (overlap > 0) & ~np.isnan(value)
    overlap, value = overlap[used], value[used]
    sampled = overlap.sum()
    if sampled == 0:
        return float("nan"), 0.0
    # A rounding error must not take the mean out of the range of its parts.
    mean = np.clip(np.einsum("k,k->", overlap, value) / sampled, value.min(), value.max())
    return float(mean), float(min(sampled / (bottom - top), 1))


def thickness(ice_fraction, layers):
    """Return the thickness of ice in all layers together.

    Parameters
    ----------
    ice_fraction : array_like, shape (layer, ...)
        Ice content times permafrost share of each layer: m3 of ice per m3 of the whole layer.
    layers : sequence of tuple of float
        Top and bottom of each, m, in the same order.

    Returns
    -------
    numpy.ndarray or float
        Metres of ice; NaN where a layer is NaN.

    Examples
    --------
    >>> print(thickness([0.2, 0.1, 0.3], [(2, 3), (3, 5), (5, 10)]))
    1.9
    """
    fraction = np.asarray(ice_fraction)
    if len(fraction) != len(layers):
        raise ValueError(f"{len(fraction)} arrays of ice fraction for {len(layers)} layers")
    return sum(part * (bottom - top) for part, (top, bottom) in zip(fraction, layers, strict=True))


def mass(ice_thickness):
    """Return the mass of ice below a square metre (kg m-2) from its thickness (m)."""
    return np.multiply(ice_thickness, ICE_DENSITY)[()]


def water_equivalent(ice_thickness):
    """Return the thickness of the water (m) that ice of a thickness (m) melts to."""
    return np.multiply(ice_thickness, ICE_DENSITY / WATER_DENSITY)[()]


def volume(ice_thickness, cell_area):
    """Return the volume of ice below a map.

    Parameters
    ----------
    ice_thickness : array_like
        Metres of ice in each cell; NaN outside the map. Metres of water give km3 of water.
    cell_area : float or array_like
        Area of a cell, m2.

    Returns
    -------
    float
        km3.

    Examples
    --------
    >>> volume([2.0, 3.0], 1e6)
    0.005
    """
    return float(np.nansum(floats(ice_thickness) * cell_area)) / 1e9


def floats(values):
    """Return numbers as an array of float."""
    return np.asarray(values, float)


def check_share(values, what, remedy="give fractions of the ground's volume, not percent"):
    """Raise IceError where a share of the volume lies outside 0-1."""
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        message = f"{outside.size} values of {what} lie outside 0-1, such as {outside.flat[0]:g}."
        raise IceError(message, remedy)
