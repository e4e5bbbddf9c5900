"""Terrain covariates: computed in metres on the fine grid, then brought onto the reference grid.

The elevation model is warped once, onto the fine grid with a margin, so that windows and contributing areas
do not end at the study area's bounds. Directions are from true north. Window radii are lengths on the grid;
its scale differs from the ground's by a few percent at most.
"""

import math

import numpy as np
from scipy import fft
from scipy.ndimage import binary_erosion

from helpers.core.errors import CompendiumError
from helpers.core.grid import block_mean, direction, fine_grid, local_factors, reference_grid
from helpers.core.rasters import THREADS, warp, window, write_raster
from helpers.prepare.products import raw_files
from helpers.prepare.registry import FINE_LAYERS, fine_files, tpi_name

_NO_ELEVATION = np.float32(-9999)


_LARGEST_SHARE, _SMALLEST_SHARE = 0.9, 1e-4  # of the elevation model, for the largest contributing area


class FlowError(CompendiumError):
    """Flow directions or contributing areas that cannot be right."""


def gradient(elevation, resolution, factors):
    """Return the ground's gradient towards true east and true north, by the method of Horn (1981).

    Parameters
    ----------
    elevation : numpy.ndarray of float32, shape (y, x)
        Metres, NaN where there is none.
    resolution : float
        Cell size of the grid in metres.
    factors : helpers.core.grid.LocalFactors
        Of the same grid. On an equal-area projection a metre on the grid is not a metre on the ground, and
        not the same in both directions; grid north is not true north.

    Returns
    -------
    east, north : numpy.ndarray of float32, shape (y, x)
        Metres of rise for a metre on the ground. NaN where one of the eight neighbours has no elevation, and
        in the first and last row and column.

    References
    ----------
    Horn, B. K. P. (1981). Hill shading and the reflectance map. Proceedings of the IEEE 69, 14-47.
    """
    z = np.asarray(elevation, np.float32)
    right, up = np.full_like(z, np.nan), np.full_like(z, np.nan)
    across = z[:, 2:] - z[:, :-2]
    right[1:-1, 1:-1] = (across[:-2] + 2 * across[1:-1] + across[2:]) / np.float32(8 * resolution)
    along = z[:-2] - z[2:]
    up[1:-1, 1:-1] = (along[:, :-2] + 2 * along[:, 1:-1] + along[:, 2:]) / np.float32(8 * resolution)
    turn, tilt = np.radians(factors.parallel_rotation), np.radians(factors.convergence)
    east = factors.parallel_scale * (right * np.cos(turn) + up * np.sin(turn))
    north = factors.meridional_scale * (up * np.cos(tilt) - right * np.sin(tilt))
    return east, north


def slope_degrees(east, north):
    """Return the slope in degrees from the gradient towards east and north."""
    return np.degrees(np.arctan(np.hypot(east, north)))


def aspect_vector(east, north, flat_degrees=0.01):
    """Return the unit vector that points downslope.

    Parameters
    ----------
    east, north : numpy.ndarray, shape (y, x)
        Gradient.
    flat_degrees : float
        Cells with a smaller slope are flat and have no aspect.

    Returns
    -------
    northness, eastness : numpy.ndarray
        Cosine and sine of the aspect from true north; both 0 on flat cells. `helpers.core.grid.direction` gives
        the aspect itself, in degrees, and the aspect of a mean vector after both were averaged: 350 and 10
        degrees give 0.
    """
    steepness = np.hypot(east, north)
    flat = steepness < math.tan(math.radians(flat_degrees))
    steepness[flat] = np.inf
    return -north / steepness, -east / steepness


def annulus(inner, outer):
    """Return the ring of cells whose distance from the middle, in cells, lies within two radii, inclusive."""
    reach = math.floor(outer)
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return (distance >= inner) & (distance <= outer) & (distance > 0)


def topographic_position(elevation, resolution, radius, inner_share=0.5):
    """Return the topographic position index: elevation less the mean elevation of a ring around the cell.

    Parameters
    ----------
    elevation : numpy.ndarray of float32, shape (y, x)
        Metres, NaN where there is none: such cells, and those beyond the array's edge, do not enter a mean.
    resolution, radius : float
        Cell size and the ring's outer radius in metres.
    inner_share : float
        Inner radius as a share of the outer.

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)
        Metres; positive on ridges, negative in valleys.

    Raises
    ------
    ValueError
        The radius is shorter than a cell.

    References
    ----------
    Weiss, A. D. (2001). Topographic position and landforms analysis. ESRI User Conference, San Diego.
    """
    if radius < resolution:
        raise ValueError(f"a radius of {radius:g} m is shorter than a cell of {resolution:g} m")
    kernel = annulus(inner_share * radius / resolution, radius / resolution).astype(np.float32)
    valid = np.isfinite(elevation)
    # about the mean: the transform's rounding error is relative to the largest number
    level = np.mean(elevation[valid], dtype=np.float64).astype(np.float32)
    height = np.where(valid, elevation - level, np.float32(0))
    total, count = _convolve([height, valid.astype(np.float32)], kernel)
    near = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0.5)
    return np.where(valid, height - near, np.float32(np.nan))


def _convolve(arrays, kernel):
    """Return arrays convolved with a symmetric kernel, by Fourier transform, zeros beyond the edges."""
    reach = kernel.shape[0] // 2
    rows, columns = arrays[0].shape
    shape = [fft.next_fast_len(n + 2 * reach, real=True) for n in (rows, columns)]
    response = fft.rfft2(kernel, shape, workers=THREADS)
    for array in arrays:
        spectrum = fft.rfft2(array, shape, workers=THREADS)
        spectrum *= response
        yield fft.irfft2(spectrum, shape, workers=THREADS)[reach : reach + rows, reach : reach + columns]


def relief_amplitude(elevation, resolution, area, divisor):
    """Return the highest less the lowest elevation in a square window centred on each reference cell.

    Parameters
    ----------
    elevation : numpy.ndarray of float32, shape (y, x)
        Metres on the fine grid, NaN where there is none.
    resolution : float
        Fine cell size in metres.
    area : float
        Area of the window in km2. Its side is rounded so that as many fine cells stand out on either side of
        the reference cell: the window is centred on it, not on one of its fine cells.
    divisor : int
        Fine cells along a side of a reference cell.

    Returns
    -------
    numpy.ndarray of float32, shape (y / divisor, x / divisor)
        Metres.
    """
    overhang = max(0, round((math.sqrt(area) * 1000 / resolution - divisor) / 2))
    padded = np.pad(elevation, overhang, constant_values=np.nan)
    side = divisor + 2 * overhang
    return _strided_extreme(padded, side, divisor, np.fmax) - _strided_extreme(padded, side, divisor, np.fmin)


def _strided_extreme(padded, side, step, extreme):
    """Return the extreme of a square window at every step, by one axis after the other."""
    rows, columns = ((n - side) // step + 1 for n in padded.shape)
    result = padded[: rows * step : step]
    for shift in range(1, side):
        result = extreme(result, padded[shift : shift + (rows - 1) * step + 1 : step])
    across = result
    result = across[:, : columns * step : step]
    for shift in range(1, side):
        result = extreme(result, across[:, shift : shift + (columns - 1) * step + 1 : step])
    return result


def flow_directions(elevation):
    """Return flow directions, after filling depressions and resolving flats.

    Parameters
    ----------
    elevation : numpy.ndarray of float32, shape (y, x)
        Metres, NaN where there is none. Water leaves at the edge of the valid cells.

    Returns
    -------
    pyflwdir.FlwdirRaster

    Raises
    ------
    FlowError
        A cell in the interior has no direction.

    Notes
    -----
    A level sheet that reaches the edge, such as the sea, drains through one cell of the edge; contributing areas
    upslope of it are not affected.

    References
    ----------
    Wang, L., Liu, H. (2006). An efficient method for identifying and filling surface depressions in digital
    elevation models. International Journal of Geographical Information Science 20, 193-213.
    """
    import pyflwdir

    missing = ~np.isfinite(elevation)
    # The same types as in sources/relief.py, so that numba compiles the search once for both.
    _, d8 = pyflwdir.dem.fill_depressions(np.where(missing, _NO_ELEVATION, elevation), nodata=_NO_ELEVATION)
    flow = pyflwdir.from_array(d8, ftype="d8", check_ftype=False)
    stuck = np.zeros(elevation.size, bool)
    stuck[flow.idxs_pit] = True
    stuck &= ~edge_cells(~missing).ravel()
    if stuck.any():
        raise FlowError(
            f"{stuck.sum()} cells in the interior of the elevation model have no flow direction.",
            "look for isolated missing cells in the elevation model and fill them",
        )
    return flow


def edge_cells(valid):
    """Return the valid cells at the array's edge, or beside one that is not valid."""
    return valid & ~binary_erosion(valid, np.ones((3, 3), bool), border_value=0)


def upstream_cells(flow):
    """Return the number of cells that drain through each, itself included.

    Parameters
    ----------
    flow : pyflwdir.FlwdirRaster

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)
        NaN where there is no elevation.

    Raises
    ------
    FlowError
        The largest is implausible: nearly the whole elevation model, or hardly more than a hillside, which is
        what flats without directions give.
    """
    cells = flow.upstream_area("cell").astype(np.float32)
    cells[cells <= 0] = np.nan
    largest, size = np.nanmax(cells), np.isfinite(cells).sum()
    if size > 1 / _SMALLEST_SHARE and not _SMALLEST_SHARE * size <= largest <= _LARGEST_SHARE * size:
        raise FlowError(
            f"The largest contributing area is {largest:.0f} of {size} cells.",
            "look for missing tiles, wrong units or a constant in the elevation model",
        )
    return cells


def wetness_index(upstream, resolution, east, north, slope_floor=0.001):
    """Return the topographic wetness index, ln(a / tan(beta)).

    Parameters
    ----------
    upstream : numpy.ndarray, shape (y, x)
        Cells that drain through each cell, itself included.
    resolution : float
        Cell size in metres: the specific catchment area a is upstream area / cell width, in metres.
    east, north : numpy.ndarray, shape (y, x)
        Gradient; tan(beta) is its length.
    slope_floor : float
        Least tan(beta), for flat ground.

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)

    References
    ----------
    Beven, K. J., Kirkby, M. J. (1979). A physically based, variable contributing area model of basin
    hydrology. Hydrological Sciences Bulletin 24, 43-69.
    """
    steepness = np.maximum(np.hypot(east, north), np.float32(slope_floor))
    return np.log(upstream * np.float32(resolution) / steepness)


def reached_from_edge(flow, valid):
    """Return which cells get water from the elevation model's edge: their contributing area is cut off."""
    edge = edge_cells(valid).astype(np.float32)
    return flow.accuflux(edge) > 0


def make(study):
    """Make all terrain covariates.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays on the reference grid by the names of the registry.
    """
    settings, resolution = study.covariates.terrain, study.grid.fine_resolution
    divisor = round(study.grid.resolution / resolution)
    buffered = fine_grid(study, margin=study.grid.margin)
    core = window(fine_grid(study), buffered)
    elevation = warp(raw_files(study)["dem"], buffered, "bilinear").astype(np.float32, copy=False)

    east, north = gradient(elevation, resolution, local_factors(buffered))
    northness, eastness = aspect_vector(east[core], north[core], settings.flat_slope_degrees)
    slope = slope_degrees(east[core], north[core])
    fine = {"elevation": elevation[core], "slope": slope, "northness": northness}
    layers = {
        "elevation": block_mean(elevation[core], divisor),
        "slope": block_mean(slope, divisor),
        "northness": block_mean(northness, divisor),
        "eastness": block_mean(eastness, divisor),
    }
    del eastness
    layers["aspect"] = direction(layers["northness"], layers["eastness"])
    for radius in settings.tpi_radii:
        position = topographic_position(elevation, resolution, radius, settings.tpi_inner_share)
        layers[tpi_name(radius)] = block_mean(position[core], divisor)
        fine.setdefault("tpi", position[core])
    coarse_core = window(reference_grid(study), fine_grid(study, study.grid.resolution, study.grid.margin))
    layers["relief_amplitude"] = relief_amplitude(elevation, resolution, settings.relief_window_km2, divisor)[
        coarse_core
    ]
    flow = flow_directions(elevation)
    upstream = upstream_cells(flow)[core]
    fine["twi"] = wetness_index(upstream, resolution, east[core], north[core], settings.slope_floor)
    layers["twi"] = block_mean(fine["twi"], divisor)
    touched = reached_from_edge(flow, np.isfinite(elevation))[core]
    layers["twi_edge"] = (block_mean(touched, divisor) > 0).astype(np.float32)
    for name, path in fine_files(study).items():
        write_raster(path, fine[name], fine_grid(study), study=study, names=name, units=FINE_LAYERS[name])
    return layers
