"""Vegetation and water indices from Landsat 8 Collection 2 Level 2 scenes.

Digital numbers and quality bits are read by nearest neighbour and never averaged: a pixel is masked, scaled,
made into indices scene by scene, and only then composed over dates and averaged over a cell.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.core.grid import area_mask, block_mean, fine_grid, reference_grid
from helpers.core.rasters import THREADS, warp
from helpers.prepare.products import LANDSAT_BANDS, LANDSAT_REFLECTANCE, QA_BITS, raw_files, scene_days

INDICES = ("ndvi", "evi", "ndwi", "ndmi")


_LEAST_SHARE = 0.25  # of a reference cell's fine cells; below, its indices are missing


def clear_pixels(qa, masked):
    """Return which pixels are free of what is masked.

    Parameters
    ----------
    qa : numpy.ndarray of uint16
        QA_PIXEL values, any shape.
    masked : sequence of str
        Names of `helpers.prepare.products.QA_BITS`; ``fill`` is always masked.

    Returns
    -------
    numpy.ndarray of bool
    """
    bits = sum(1 << QA_BITS[name] for name in {"fill", *masked})
    return (qa & np.uint16(bits)) == 0


def normalised_difference(first, second):
    """Return (first - second) / (first + second), NaN where the sum is not positive."""
    total = first + second
    return np.divide(first - second, total, out=np.full_like(total, np.nan), where=total > 0)


def spectral_indices(blue, green, red, nir08, swir16):
    """Return vegetation and water indices of surface reflectance.

    Parameters
    ----------
    blue, green, red, nir08, swir16 : numpy.ndarray of float32
        Surface reflectance (bands 2 to 6 of Landsat 8) of one shape, NaN where missing.

    Returns
    -------
    dict of str to numpy.ndarray
        ``ndvi`` (near infrared and red); ``evi``, the three-band enhanced vegetation index, clipped to [-1,
        1]; ``ndwi`` of McFeeters (1996), green and near infrared; ``ndmi``, the moisture index that Gao
        (1996) called NDWI, near and shortwave infrared.

    References
    ----------
    Huete et al. (2002), Remote Sensing of Environment 83, 195-213. McFeeters (1996), International Journal of
    Remote Sensing 17, 1425-1432. Gao (1996), Remote Sensing of Environment 58, 257-266.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        evi = np.clip(2.5 * (nir08 - red) / (nir08 + 6 * red - 7.5 * blue + 1), -1, 1)
    return {
        "ndvi": normalised_difference(nir08, red),
        "evi": evi,
        "ndwi": normalised_difference(green, nir08),
        "ndmi": normalised_difference(nir08, swir16),
    }


def median_over_dates(values):
    """Return the median along the first axis, passing over NaN; NaN where all are.

    Parameters
    ----------
    values : sequence of numpy.ndarray of float32
        One array a date, all of one shape. Sorted by a network of pairwise minima and maxima, which for the
        few dates of a composite is ten times faster than `numpy.nanmedian`.

    Returns
    -------
    numpy.ndarray of float32
    """
    count = sum(np.isfinite(v).astype(np.int8) for v in values)
    ranked = [np.where(np.isnan(v), np.float32(np.inf), v) for v in values]  # missing ones come last
    for turn in range(len(ranked)):
        for i in range(turn % 2, len(ranked) - 1, 2):
            ranked[i], ranked[i + 1] = (
                np.minimum(ranked[i], ranked[i + 1]),
                np.maximum(ranked[i], ranked[i + 1]),
            )
    median = np.full_like(ranked[0], np.nan)
    for n in range(1, len(ranked) + 1):
        middle = (ranked[(n - 1) // 2] + ranked[n // 2]) / 2
        np.copyto(median, middle, where=count == n)
    return median


def index_correlation(layers, first="ndwi", second="ndvi"):
    """Return Pearson's correlation of two layers over the cells that have both.

    Over forest, NDWI of McFeeters is nearly the mirror image of NDVI: both are dominated by the near
    infrared.
    """
    a, b = (np.asarray(layers[name]).ravel() for name in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both].astype(np.float64), b[both].astype(np.float64))[0, 1])


def make(study):
    """Make the indices and the share of valid pixels.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays on the reference grid by the names of the registry, NaN outside of the study area.
    """
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    inside = area_mask(study, reference_grid(study))
    cells = _fine_cells(inside, divisor)
    scenes = [_scene(study, day, cells) for day in scene_days(study)]
    with ThreadPoolExecutor(THREADS) as pool:
        composed = list(pool.map(lambda name: median_over_dates([scene[name] for scene in scenes]), INDICES))
    layers = {name: _cell_mean(values, inside, _LEAST_SHARE) for name, values in zip(INDICES, composed, strict=True)}
    valid = np.mean([np.isfinite(scene["ndvi"]).mean(axis=(1, 2)) for scene in scenes], axis=0)
    layers["landsat_valid_share"] = _on_grid(valid, inside)
    return layers


def _fine_cells(inside, divisor):
    """Return flat indices of the fine cells in each cell of the study area, (cell, divisor, divisor).

    Working on these alone spares the half of the grid that lies outside.
    """
    rows, columns = inside.shape
    index = np.arange(inside.size * divisor**2, dtype=np.int64).reshape(rows, divisor, columns, divisor)
    return index.swapaxes(1, 2)[inside]


def _scene(study, day, cells):
    """Return a scene's indices in the study area's cells, as arrays of shape (cell, divisor, divisor)."""
    files = raw_files(study)
    assets = ["qa_pixel", *LANDSAT_BANDS]
    stack = warp([files[f"landsat_{day}_{asset}"] for asset in assets], fine_grid(study))
    numbers = {asset: band.take(cells) for asset, band in zip(assets, stack, strict=True)}
    clear = clear_pixels(numbers.pop("qa_pixel"), study.covariates.vegetation.mask)
    bands = {asset: LANDSAT_REFLECTANCE.decode(band) for asset, band in numbers.items()}
    clear &= np.all([np.isfinite(band) for band in bands.values()], axis=0)
    return {name: np.where(clear, values, np.float32(np.nan)) for name, values in spectral_indices(**bands).items()}


def _cell_mean(blocks, inside, minimum_share):
    return _on_grid(block_mean(blocks, blocks.shape[-1], minimum_share)[:, 0, 0], inside)


def _on_grid(values, inside):
    grid = np.full(inside.shape, np.nan, np.float32)
    grid[inside] = values
    return grid
