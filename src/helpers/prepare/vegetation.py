"""Vegetation and water indices from Landsat 8 Collection 2 Level 2 scenes.

Digital numbers and quality bits are read by nearest neighbour and never averaged: a pixel is
masked, scaled, made into indices scene by scene, and only then composed over dates and averaged
over a cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from helpers.core.grid import area_mask, block_mean, fine_grid, reference_grid
from helpers.core.rasters import THREADS, warp
from helpers.core.study import Study
from helpers.prepare import products
from helpers.prepare.registry import CovariateError, on_grid

INDICES = ("ndvi", "evi", "ndwi", "ndmi")

_LEAST_SHARE = 0.25  # of a reference cell's fine cells; below, its indices are missing


def clear_pixels(qa: np.ndarray, masked: Iterable[str]) -> np.ndarray:
    """Return which QA_PIXEL values, uint16, have none of the bits named; ``fill`` is always one."""
    bits = sum(1 << products.QA_BITS[name] for name in {"fill", *masked})
    return (qa & np.uint16(bits)) == 0


def normalised_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (first - second) / (first + second), NaN where the sum is not positive."""
    total = first + second
    return np.divide(first - second, total, out=np.full_like(total, np.nan), where=total > 0)


def spectral_indices(
    blue: np.ndarray, green: np.ndarray, red: np.ndarray, nir08: np.ndarray, swir16: np.ndarray
) -> dict[str, np.ndarray]:
    """Return vegetation and water indices of surface reflectance, float32, NaN where it is missing.

    Returns
    -------
    indices
        ``ndvi`` (near infrared and red); ``evi``, the three-band enhanced vegetation index, clipped
        to [-1, 1]; ``ndwi`` of McFeeters (1996), green and near infrared; ``ndmi``, the moisture
        index that Gao (1996) called NDWI, near and shortwave infrared.

    References
    ----------
    Huete et al. (2002), Remote Sensing of Environment 83, 195-213. McFeeters (1996), International
    Journal of Remote Sensing 17, 1425-1432. Gao (1996), Remote Sensing of Environment 58, 257-266.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        evi = np.clip(2.5 * (nir08 - red) / (nir08 + 6 * red - 7.5 * blue + 1), -1, 1)
    return {
        "ndvi": normalised_difference(nir08, red),
        "evi": evi,
        "ndwi": normalised_difference(green, nir08),
        "ndmi": normalised_difference(nir08, swir16),
    }


def median_over_dates(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median of float32 arrays, one a date, passing over NaN; NaN where all are.

    A network of pairwise minima and maxima sorts them, which for the few dates of a composite is
    ten times faster than `numpy.nanmedian`.
    """
    count = sum(np.isfinite(v).astype(np.int16) for v in values)
    # Missing values come last.
    ranked = [np.where(np.isnan(v), np.float32(np.inf), v) for v in values]
    for turn in range(len(ranked)):
        for i in range(turn % 2, len(ranked) - 1, 2):
            low = np.minimum(ranked[i], ranked[i + 1])
            ranked[i + 1] = np.maximum(ranked[i], ranked[i + 1])
            ranked[i] = low
    median = np.full_like(ranked[0], np.nan)
    for n in range(1, len(ranked) + 1):
        middle = (ranked[(n - 1) // 2] + ranked[n // 2]) / 2
        np.copyto(median, middle, where=count == n)
    return median


def index_correlation(layers: Mapping[str, npt.ArrayLike]) -> float:
    """Return Pearson's correlation of NDWI with NDVI over the cells that have both.

    Over forest, NDWI of McFeeters is nearly the mirror image of NDVI, for the near infrared
    dominates both.
    """
    ndwi, ndvi = (np.asarray(layers[name]).ravel() for name in ("ndwi", "ndvi"))
    both = np.isfinite(ndwi) & np.isfinite(ndvi)
    return float(np.corrcoef(ndwi[both].astype(np.float64), ndvi[both].astype(np.float64))[0, 1])


def make(study: Study) -> dict[str, np.ndarray]:
    """Make the indices and the share of valid pixels, float32, NaN outside of the study area."""
    days = products.scene_days(study)
    if not days:
        raise CovariateError("The study has no Landsat scene.", "list dates as source.scene_dates")
    inside = area_mask(study, reference_grid(study))
    divisor = round(study.grid.resolution / study.grid.fine_resolution)
    cells = _fine_cells(inside, divisor)
    scenes = [_scene(study, day, cells) for day in days]

    def layer(name: str) -> np.ndarray:
        composite = median_over_dates([scene[name] for scene in scenes])
        return on_grid(block_mean(composite, divisor, _LEAST_SHARE)[:, 0, 0], inside)

    with ThreadPoolExecutor(THREADS) as pool:
        layers = dict(zip(INDICES, pool.map(layer, INDICES), strict=True))
    valid = np.mean([np.isfinite(scene["ndvi"]).mean(axis=(1, 2)) for scene in scenes], axis=0)
    layers["landsat_valid_share"] = on_grid(valid, inside)
    return layers


def _fine_cells(inside: np.ndarray, divisor: int) -> np.ndarray:
    """Return flat indices of the fine cells in the study area, shape (cell, divisor, divisor).

    Working on these alone spares the half of the grid that lies outside.
    """
    rows, columns = inside.shape
    index = np.arange(inside.size * divisor**2, dtype=np.int64)
    return index.reshape(rows, divisor, columns, divisor).swapaxes(1, 2)[inside]


def _scene(study: Study, day: str, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Return a scene's indices in the cells of `_fine_cells`, NaN where a pixel is not clear."""
    files = products.raw_files(study)
    assets = ["qa_pixel", *products.LANDSAT_BANDS]
    stack = warp([files[f"landsat_{day}_{asset}"] for asset in assets], fine_grid(study))
    numbers = {asset: band.take(cells) for asset, band in zip(assets, stack, strict=True)}
    clear = clear_pixels(numbers.pop("qa_pixel"), study.covariates.vegetation.mask)
    bands = {asset: products.LANDSAT_REFLECTANCE.decode(band) for asset, band in numbers.items()}
    clear &= np.all([np.isfinite(band) for band in bands.values()], axis=0)
    indices = spectral_indices(**bands)
    return {name: np.where(clear, values, np.float32(np.nan)) for name, values in indices.items()}
