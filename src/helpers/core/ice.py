"""Ground ice: types, contents, the permafrost part of a depth layer, and storage.

Depths are metres below the surface, positive downwards. Ice content is the volume of ice per volume
of ground (m3 m-3). A *layer* is a pair ``(top, bottom)``. All functions are pure.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from helpers.core.classes import NO_TYPE
from helpers.core.errors import CompendiumError

ICE_DENSITY = 917.0
"""Density of ice, kg m-3."""

WATER_DENSITY = 1000.0
"""Density of water, kg m-3."""

SOLID_DENSITY = 2.65
"""Density of mineral grains relative to water; organic matter has about 1.5."""

WARMEST = -0.1
"""Frozen ground counts as no warmer, degC: towards 0 the law of unfrozen water has no bound, and
thermometers are no finer."""

# Contents are compared after rounding, so that a mean of 0.3 and 0.3 is not just below 0.3.
_DECIMALS = 9


class IceError(CompendiumError):
    """Numbers that cannot be those of frozen ground."""


def ice_type(ice_content: npt.ArrayLike, thresholds: Sequence[float]) -> np.ndarray | int:
    """Classify the ice content of permafrost.

    Parameters
    ----------
    ice_content
        Of the permafrost part, m3 m-3. IceError if it lies outside 0-1.
    thresholds
        The four increasing limits between the five types, m3 m-3; a content that equals a limit
        belongs to the type above it.

    Returns
    -------
    numpy.ndarray of uint8, or an int for a scalar
        1-5, and `NO_TYPE` where the content is NaN. Never 0: no permafrost is not a matter of ice
        content.

    Examples
    --------
    >>> ice_type([0.05, 0.1, 0.5], [0.10, 0.20, 0.30, 0.50]).tolist()
    [1, 2, 5]
    """
    content = np.asarray(ice_content)
    outside = content[(content < 0) | (content > 1)]
    if outside.size:
        raise IceError(
            f"{outside.size} values of ice content lie outside 0-1, such as {outside.flat[0]:g}.",
            "give fractions of the ground's volume, not percent",
        )
    code = np.searchsorted(thresholds, np.round(content, _DECIMALS), side="right") + 1
    code = np.where(np.isnan(content), NO_TYPE, code).astype(np.uint8)
    return code if code.ndim else int(code)


def unfrozen_water(
    temperature: npt.ArrayLike, alpha: npt.ArrayLike, beta: npt.ArrayLike
) -> np.ndarray:
    """Return the unfrozen water of frozen ground, as a fraction of the dry mass.

    `w_u = alpha |T|^-beta` (Anderson and Tice 1972), T in degC and no warmer than `WARMEST`;
    `alpha` is the unfrozen water at -1 degC.

    Examples
    --------
    >>> unfrozen_water([-1, -4], 0.06, 0.5).tolist()
    [0.06, 0.03]
    """
    return alpha * np.abs(np.minimum(temperature, WARMEST)) ** -np.asarray(beta, float)


def content_of_cores(
    water_content: npt.ArrayLike,
    unfrozen_water_content: npt.ArrayLike,
    dry_density: npt.ArrayLike,
    solid_density: npt.ArrayLike,
) -> np.ndarray:
    """Return the volumetric ice content of cores, m3 m-3; NaN where the water content is.

    Parameters
    ----------
    water_content
        Total water, ice included, as a fraction of the dry mass. May exceed 1, as in peat.
    unfrozen_water_content
        The part of it that is not frozen at the core's temperature, as a fraction of the dry mass.
    dry_density
        Dry bulk density, kg m-3. Where it is NaN, the ground is taken as saturated.
    solid_density
        Density of the solids relative to water, for saturated ground.

    Notes
    -----
    With a measured density, theta = rho_d (w - w_u) / 917. Without one,
    theta = v / (1 + v + w_u G) with v = (w - w_u) G / 0.917: the volumes of ice, solids (1) and
    unfrozen water fill the ground. Contents that measurement errors brought above 1 are 1.

    Examples
    --------
    >>> content_of_cores([0.25, 0.25], 0.08, [np.nan, 1500], 2.65).round(3).tolist()
    [0.288, 0.278]
    """
    total, unfrozen, density, solids = (
        np.asarray(part, float)
        for part in (water_content, unfrozen_water_content, dry_density, solid_density)
    )
    frozen = total - unfrozen
    volume = frozen * solids * WATER_DENSITY / ICE_DENSITY
    saturated = volume / (1 + volume + unfrozen * solids)
    content = np.where(np.isnan(density), saturated, density * frozen / ICE_DENSITY)
    return np.minimum(content, 1)


def permafrost_part(
    top: npt.ArrayLike, bottom: npt.ArrayLike, table: npt.ArrayLike, base: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | tuple[float, float, float]:
    """Return which part of a layer is permafrost: [max(top, table), min(bottom, base)].

    Parameters
    ----------
    top, bottom
        The layer, m.
    table
        Depth of the permafrost table, m; NaN where unknown.
    base
        Depth of the permafrost base, m; NaN where the borehole did not reach it: it is taken as
        below the layer.

    Returns
    -------
    upper, lower
        Where the permafrost part begins and ends, m; NaN where there is none.
    share
        Its thickness over the layer's, 0-1; NaN where the table is unknown.

    Examples
    --------
    >>> permafrost_part(2, 3, 2.25, float("nan"))
    (2.25, 3.0, 0.75)
    """
    top, bottom, table, base = np.broadcast_arrays(
        *(np.asarray(depth, float) for depth in (top, bottom, table, base))
    )
    upper, lower = np.maximum(top, table), np.fmin(bottom, base)
    share = np.clip((lower - upper) / (bottom - top), 0, 1)
    upper, lower = np.where(share > 0, upper, np.nan), np.where(share > 0, lower, np.nan)
    return (upper, lower, share) if share.ndim else (float(upper), float(lower), float(share))


def layer_mean(intervals: npt.ArrayLike, top: float, bottom: float) -> tuple[float, float]:
    """Return the thickness-weighted mean of core intervals in a range of depths, and their share.

    The share, 0-1, is sampled thickness over the range's: gaps between intervals and values that
    are NaN count as not sampled. The mean is NaN where nothing was.

    Parameters
    ----------
    intervals : shape (n, 3)
        Top (m), bottom (m) and value of each; they must not overlap.

    Examples
    --------
    >>> layer_mean([[1.0, 2.5, 0.2], [2.5, 2.75, 0.5]], 2, 3)
    (0.3, 0.75)
    """
    upper, lower, value = np.asarray(intervals, float).reshape(-1, 3).T
    overlap = np.maximum(np.minimum(lower, bottom) - np.maximum(upper, top), 0)
    used = (overlap > 0) & ~np.isnan(value)
    overlap, value = overlap[used], value[used]
    sampled = overlap.sum()
    if sampled == 0:
        return float("nan"), 0.0
    # A rounding error must not take the mean out of the range of its parts.
    mean = np.clip(np.einsum("k,k->", overlap, value) / sampled, value.min(), value.max())
    return float(mean), float(min(sampled / (bottom - top), 1))


def thickness(
    ice_fraction: npt.ArrayLike, layers: Sequence[tuple[float, float]]
) -> np.ndarray | float:
    """Return the thickness of ice in all layers together, m; NaN where a layer is NaN.

    The fraction, (layer, ...), is m3 of ice per m3 of the whole layer: content times permafrost
    share.

    Examples
    --------
    >>> print(thickness([0.2, 0.1, 0.3], [(2, 3), (3, 5), (5, 10)]))
    1.9
    """
    fraction = np.asarray(ice_fraction)
    if len(fraction) != len(layers):
        raise ValueError(f"{len(fraction)} arrays of ice fraction for {len(layers)} layers")
    return sum(part * (bottom - top) for part, (top, bottom) in zip(fraction, layers, strict=True))


def mass(ice_thickness: np.ndarray) -> np.ndarray:
    """Return the mass of ice below a square metre (kg m-2) from its thickness (m).

    Examples
    --------
    >>> print(mass(np.array([1.0])))  # a metre of ice
    [917.]
    """
    return ice_thickness * ICE_DENSITY


def water_equivalent(ice_thickness: np.ndarray) -> np.ndarray:
    """Return the thickness of the water (m) that ice of a thickness (m) melts to.

    Examples
    --------
    >>> round(water_equivalent(2.0), 2), round(mass(2.0))  # m of water, kg m-2 of 2 m of ice
    (1.83, 1834)
    """
    return ice_thickness * (ICE_DENSITY / WATER_DENSITY)
