"""Terrain covariates: computed in metres on the fine grid, then brought onto the reference grid.

The elevation model is warped once, onto the fine grid or a part of it, with a margin, so that
windows and contributing areas do not end at the study area's bounds. Directions are from true
north. Window radii are lengths on the grid; its scale differs from the ground's by a few percent at
most.

Arrays have the shape (y, x). `elevation` is in metres, float32, NaN where there is none, and
`resolution` the side of its cells in metres. The gradient `east`, `north` is the rise in metres for
a metre on the ground, towards true east and true north.
"""

import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from odc.geo.geobox import GeoBox
from scipy import fft
from scipy.ndimage import binary_erosion

from helpers.core.grid import (
    LocalFactors,
    block_mean,
    direction,
    fine_grid,
    local_factors,
    reference_grid,
)
from helpers.core.mosaic import warp_tiles
from helpers.core.rasters import THREADS
from helpers.core.study import Study
from helpers.prepare.products import dem_files
from helpers.prepare.registry import CovariateError, NoValuesError, fine_name, tpi_name

if TYPE_CHECKING:
    from pyflwdir import FlwdirRaster

_NO_ELEVATION = np.float32(-9999)

# Cells of the fine grid that a part of a large grid has around it at least.
_MARGIN_CELLS = 1000

# Plausible shares of the elevation model for the largest contributing area.
_LARGEST_SHARE = 0.9
_SMALLEST_SHARE = 1e-4


def gradient(
    elevation: np.ndarray, resolution: float, factors: LocalFactors
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ground's gradient towards true east and true north, by the method of Horn (1981).

    It is NaN where one of the eight neighbours has no elevation, and in the first and last row and
    column. The factors are needed because on an equal-area projection a metre on the grid is not a
    metre on the ground, nor the same in both directions, and grid north is not true north.

    References
    ----------
    Horn, B. K. P. (1981). Hill shading and the reflectance map. Proceedings of the IEEE 69, 14-47.

    Examples
    --------
    >>> hillside = np.tile([0, 10, 20], (3, 1))  # rises along its rows, 10 m in 100 m
    >>> true = LocalFactors(0, 0, 1, 1)  # the grid's north is true north, and a metre a metre
    >>> [round(float(part[1, 1]), 2) for part in gradient(hillside, 100, true)]
    [0.1, 0.0]
    >>> turned = LocalFactors(90, 90, 1, 1)  # the grid's north is true east, its east true south
    >>> [round(float(part[1, 1]), 2) for part in gradient(hillside, 100, turned)]
    [0.0, -0.1]
    """
    z = np.asarray(elevation, np.float32)
    run = np.float32(8 * resolution)
    right = np.full_like(z, np.nan)
    across = z[:, 2:] - z[:, :-2]
    right[1:-1, 1:-1] = (across[:-2] + 2 * across[1:-1] + across[2:]) / run
    up = np.full_like(z, np.nan)
    along = z[:-2] - z[2:]
    up[1:-1, 1:-1] = (along[:, :-2] + 2 * along[:, 1:-1] + along[:, 2:]) / run
    turn = np.radians(factors.parallel_rotation)
    tilt = np.radians(factors.convergence)
    east = factors.parallel_scale * (right * np.cos(turn) + up * np.sin(turn))
    north = factors.meridional_scale * (up * np.cos(tilt) - right * np.sin(tilt))
    return east, north


def aspect_vector(
    east: np.ndarray, north: np.ndarray, flat_degrees: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Return northness and eastness: the unit vector that points downslope.

    They are cosine and sine of the aspect from true north, both 0 where the slope is less than
    `flat_degrees`. `helpers.core.grid.direction` gives the aspect itself, in degrees, and the
    aspect of a mean vector after both were averaged: 350 and 10 degrees give 0.

    Examples
    --------
    >>> # Ground that rises to the south and to the west faces north-east.
    >>> northness, eastness = aspect_vector(np.array([-0.1]), np.array([-0.1]))
    >>> northness.round(2).tolist(), eastness.round(2).tolist()
    ([0.71], [0.71])
    """
    steepness = np.hypot(east, north)
    flat = steepness < math.tan(math.radians(flat_degrees))
    steepness[flat] = np.inf
    return -north / steepness, -east / steepness


def annulus(inner: float, outer: float) -> np.ndarray:
    """Return the ring of cells whose distance from the middle, in cells, is in [inner, outer].

    Examples
    --------
    >>> annulus(1, 1).astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    reach = math.floor(outer)
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return (distance >= inner) & (distance <= outer) & (distance > 0)


def topographic_position(
    elevation: np.ndarray, resolution: float, radius: float, inner_share: float = 0.5
) -> np.ndarray:
    """Return the topographic position index: elevation less the mean of a ring around the cell, m.

    Positive on ridges, negative in valleys. The ring's outer radius is `radius`, m, of which the
    inner one is a share. Cells without elevation and those beyond the array's edge do not enter a
    mean. ValueError if the radius is shorter than a cell.

    References
    ----------
    Weiss, A. D. (2001). Topographic position and landforms analysis. ESRI User Conference.

    Examples
    --------
    >>> ridge = np.zeros((7, 7), np.float32)
    >>> ridge[3] = 10
    >>> print(topographic_position(ridge, 100, 300, inner_share=0)[3, 3].round(1))
    7.9
    """
    if radius < resolution:
        raise ValueError(f"a radius of {radius:g} m is shorter than a cell of {resolution:g} m")
    kernel = annulus(inner_share * radius / resolution, radius / resolution).astype(np.float32)
    valid = np.isfinite(elevation)
    # About the mean, for the transform's rounding error is relative to the largest number.
    level = np.mean(elevation[valid], dtype=np.float64).astype(np.float32)
    height = np.where(valid, elevation - level, np.float32(0))
    total, count = _convolve([height, valid.astype(np.float32)], kernel)
    near = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0.5)
    return np.where(valid, height - near, np.float32(np.nan))


def _convolve(arrays: list[np.ndarray], kernel: np.ndarray) -> Iterator[np.ndarray]:
    """Give arrays convolved with a symmetric kernel by Fourier transform, 0 beyond the edges."""
    reach = kernel.shape[0] // 2
    rows, columns = arrays[0].shape
    shape = [fft.next_fast_len(n + 2 * reach, real=True) for n in (rows, columns)]
    response = fft.rfft2(kernel, shape, workers=THREADS)
    for array in arrays:
        spectrum = fft.rfft2(array, shape, workers=THREADS)
        spectrum *= response
        whole = fft.irfft2(spectrum, shape, workers=THREADS)
        yield whole[reach : reach + rows, reach : reach + columns]


def relief_amplitude(
    elevation: np.ndarray, resolution: float, area: float, divisor: int
) -> np.ndarray:
    """Return the highest less the lowest elevation, m, in a square about each reference cell.

    The square has this area in km2, but its side is rounded so that as many fine cells stand out on
    either side of the reference cell of `divisor` fine cells: it is centred on that.

    Examples
    --------
    >>> slope = np.arange(16.0).reshape(4, 4)
    >>> relief_amplitude(slope, 1000, area=4, divisor=2).tolist()  # each square is its cell
    [[5.0, 5.0], [5.0, 5.0]]
    >>> relief_amplitude(slope, 1000, area=16, divisor=2).tolist()  # a cell more on each side
    [[10.0, 10.0], [10.0, 10.0]]
    """
    overhang = max(0, round((math.sqrt(area) * 1000 / resolution - divisor) / 2))
    padded = np.pad(elevation, overhang, constant_values=np.nan)
    side = divisor + 2 * overhang
    highest = _strided_extreme(padded, side, divisor, np.fmax)
    return highest - _strided_extreme(padded, side, divisor, np.fmin)


def _strided_extreme(
    padded: np.ndarray, side: int, step: int, extreme: Callable[..., np.ndarray]
) -> np.ndarray:
    """Return the extreme of a square window at every step, by one axis after the other."""
    result = padded
    for _ in range(2):
        count = (result.shape[0] - side) // step + 1
        parts = [result[shift : shift + (count - 1) * step + 1 : step] for shift in range(side)]
        result = reduce(extreme, parts).T
    return result


def flow_directions(elevation: np.ndarray) -> "FlwdirRaster":
    """Return flow directions, after filling depressions and resolving flats.

    Water leaves at the edge of the valid cells. A level sheet that reaches the edge, such as the
    sea, drains through one cell of the edge; contributing areas upslope of it are not affected.
    CovariateError if a cell in the interior has no direction.

    References
    ----------
    Wang, L., Liu, H. (2006). An efficient method for identifying and filling surface depressions
    in digital elevation models. International Journal of Geographical Information Science 20,
    193-213.

    Examples
    --------
    >>> valley = np.abs(np.arange(5.0) - 2) + np.arange(5.0)[:, np.newaxis]  # falls northwards
    >>> upstream_cells(flow_directions(valley))[0].tolist()  # all drains through its mouth
    [1.0, 3.0, 25.0, 3.0, 1.0]
    """
    import pyflwdir

    missing = ~np.isfinite(elevation)
    # Numba compiles the search once for all calls with these types.
    filled = np.where(missing, _NO_ELEVATION, elevation)
    _, d8 = pyflwdir.dem.fill_depressions(filled, nodata=_NO_ELEVATION)
    flow = pyflwdir.from_array(d8, ftype="d8", check_ftype=False)
    stuck = np.zeros(elevation.size, bool)
    stuck[flow.idxs_pit] = True
    stuck &= ~edge_cells(~missing).ravel()
    if stuck.any():
        raise CovariateError(
            f"{stuck.sum()} cells in the interior of the elevation model have no flow direction.",
            "look for isolated missing cells in the elevation model and fill them",
        )
    return flow


def edge_cells(valid: np.ndarray) -> np.ndarray:
    """Return the valid cells at the array's edge, or beside one that is not valid.

    Examples
    --------
    >>> edge_cells(np.ones((3, 3), bool)).astype(int).tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    return valid & ~binary_erosion(valid, np.ones((3, 3), bool), border_value=0)


def upstream_cells(flow: "FlwdirRaster") -> np.ndarray:
    """Return how many cells drain through each, itself included; NaN without elevation."""
    cells = flow.upstream_area("cell").astype(np.float32)
    cells[cells <= 0] = np.nan
    return cells


def check_upstream(cells: np.ndarray, whole: bool) -> None:
    """Raise CovariateError if the largest contributing area is implausible.

    That is hardly more than a hillside, which is what flats without directions give, or nearly the
    `whole` elevation model; a part of it may lie in one basin.
    """
    largest = np.nanmax(cells)
    size = np.isfinite(cells).sum()
    plausible = _SMALLEST_SHARE * size <= largest <= (_LARGEST_SHARE if whole else 1) * size
    if size > 1 / _SMALLEST_SHARE and not plausible:
        raise CovariateError(
            f"The largest contributing area is {largest:.0f} of {size} cells.",
            "look for missing tiles, wrong units or a constant in the elevation model",
        )


def wetness_index(
    upstream: np.ndarray,
    resolution: float,
    east: np.ndarray,
    north: np.ndarray,
    slope_floor: float = 0.001,
) -> np.ndarray:
    """Return the topographic wetness index, ln(a / tan(beta)).

    The specific catchment area a is upstream area / cell width, in metres, from the number of
    cells upstream, the cell itself included; tan(beta) is the length of the gradient, on flat
    ground `slope_floor`.

    References
    ----------
    Beven, K. J., Kirkby, M. J. (1979). A physically based, variable contributing area model of
    basin hydrology. Hydrological Sciences Bulletin 24, 43-69.

    Examples
    --------
    >>> upstream, flat = np.array([1.0, 1000.0]), np.array([0.0, 0.0])
    >>> wetness_index(upstream, 100, np.array([0.5, 0.0]), flat).round(1).tolist()  # crest, valley
    [5.3, 18.4]
    """
    steepness = np.maximum(np.hypot(east, north), np.float32(slope_floor))
    return np.log(upstream * np.float32(resolution) / steepness)


def reached_from_edge(flow: "FlwdirRaster", valid: np.ndarray) -> np.ndarray:
    """Return which cells get water from the model's edge: their contributing area is cut off.

    Examples
    --------
    >>> hill = -np.hypot(*np.mgrid[-2:3, -2:3])  # all water runs outwards
    >>> valid = np.ones((5, 5), bool)
    >>> reached_from_edge(flow_directions(hill), valid).astype(int).tolist()
    [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    """
    edge = edge_cells(valid).astype(np.float32)
    return flow.accuflux(edge) > 0


def margin_of_parts(study: Study) -> float:
    """Return the margin of elevation, m, around each part of a grid that is made in several.

    At least `grid.margin`, for which a study may have no elevation beyond its grid, and what
    windows and most hillslopes need.
    """
    terrain = study.covariates.terrain
    window = math.sqrt(terrain.relief_window_km2) * 1000
    return max(
        study.grid.margin, *terrain.tpi_radii, window, _MARGIN_CELLS * study.grid.fine_resolution
    )


def make(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make all terrain covariates, float32 on a part of the reference grid.

    Those of the fine grid are named by `fine_name`. Each part has a margin of its own, at whose
    edge contributing areas are cut off: `twi_edge` says where. NoValuesError if the part has no
    elevation.
    """
    whole = geobox.shape == reference_grid(study).shape
    margin = study.grid.margin if whole else margin_of_parts(study)
    settings = study.covariates.terrain
    resolution = study.grid.fine_resolution
    divisor = study.grid.divisor
    buffered = fine_grid(study, margin=margin, part=geobox)
    core = buffered.overlap_roi(fine_grid(study, part=geobox))
    elevation = warp_tiles(dem_files(study), buffered, "bilinear")
    if not np.isfinite(elevation[core]).any():
        raise NoValuesError(
            "The elevation model has no value on the grid.",
            "give tiles of the study area, and check their nodata value",
        )

    east, north = gradient(elevation, resolution, local_factors(buffered))
    east, north = east[core].copy(), north[core].copy()
    northness, eastness = aspect_vector(east, north, settings.flat_slope_degrees)
    fine = {
        "elevation": elevation[core],
        "slope": np.degrees(np.arctan(np.hypot(east, north))),
        "northness": northness,
    }
    layers = {name: block_mean(values, divisor) for name, values in fine.items()}
    layers["eastness"] = block_mean(eastness, divisor)
    del eastness
    layers["aspect"] = direction(layers["northness"], layers["eastness"])
    for radius in settings.tpi_radii:
        position = topographic_position(elevation, resolution, radius, settings.tpi_inner_share)
        layers[tpi_name(radius)] = block_mean(position[core], divisor)
        fine.setdefault("tpi", position[core])
    relief = relief_amplitude(elevation, resolution, settings.relief_window_km2, divisor)
    coarse = fine_grid(study, study.grid.resolution, margin, part=geobox)
    layers["relief_amplitude"] = relief[coarse.overlap_roi(geobox)]

    flow = flow_directions(elevation)
    upstream = upstream_cells(flow)
    check_upstream(upstream, whole)
    upstream = upstream[core]
    twi = wetness_index(upstream, resolution, east, north, settings.slope_floor)
    fine["twi"] = twi
    layers["twi"] = block_mean(twi, divisor)
    touched = reached_from_edge(flow, np.isfinite(elevation))[core]
    layers["twi_edge"] = (block_mean(touched, divisor) > 0).astype(np.float32)
    return layers | {fine_name(name): np.array(values, np.float32) for name, values in fine.items()}
