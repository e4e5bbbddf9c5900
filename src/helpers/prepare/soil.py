"""Soil covariates: texture and organic carbon of the topsoil, in percent by weight."""

import math
from contextlib import suppress

import numpy as np
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt

from helpers.core.grid import reference_grid
from helpers.core.study import Study
from helpers.core.user_rasters import OutsideError
from helpers.core.warp import warp
from helpers.prepare import products
from helpers.prepare.products import SOIL_CARBON, SOIL_DEPTHS, SOIL_FRACTION, SOIL_LAYERS
from helpers.prepare.registry import SOIL_GAP_KM

_COVARIATES = ("sand", "silt", "clay", "organic_carbon")  # as SOIL_LAYERS
_ENCODINGS = (SOIL_FRACTION, SOIL_FRACTION, SOIL_FRACTION, SOIL_CARBON)


def fill_nearest(values: np.ndarray, resolution: float, distance: float) -> np.ndarray:
    """Fill missing cells from the nearest valid one, if it is within a distance in metres.

    Examples
    --------
    >>> row = np.array([[20.0, np.nan, np.nan, np.nan]])
    >>> fill_nearest(row, resolution=1000, distance=2000).tolist()
    [[20.0, 20.0, 20.0, nan]]
    """
    missing = np.isnan(values)
    if not missing.any() or missing.all():
        return values
    away, nearest = distance_transform_edt(missing, sampling=resolution, return_indices=True)
    return np.where(away <= distance, values[tuple(nearest)], np.float32(np.nan))


def make(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make all soil covariates: float32 on a part of the reference grid, in percent by weight.

    Soil maps leave out water, towns and rock; those gaps are filled from the nearest soil within
    `SOIL_GAP_KM`, so that a forest can go by the cell's other covariates. Maps of single depths are
    averaged by their thickness.
    """
    files = products.raw_files(study)
    names = SOIL_LAYERS
    if names[0] not in files:
        names = tuple(f"{layer}_{depth}" for layer in SOIL_LAYERS for depth in SOIL_DEPTHS)
    paths = [files[name] for name in names]
    # Soil beside the part fills its gaps, too, but none beyond the reference grid.
    reach = math.ceil(SOIL_GAP_KM * 1000 / study.grid.resolution)
    around = geobox.pad(reach) & reference_grid(study)
    core = around.overlap_roi(geobox)
    if around.shape != geobox.shape:
        with suppress(OutsideError):
            values = warp(paths, geobox, "bilinear", decode=_decode)
            if not np.isnan(values).any():
                return dict(zip(_COVARIATES, values, strict=True))
    values = warp(paths, around, "bilinear", decode=_decode)
    return {
        name: fill_nearest(layer, study.grid.resolution, SOIL_GAP_KM * 1000)[core]
        for name, layer in zip(_COVARIATES, values, strict=True)
    }


def _decode(bands: np.ndarray) -> np.ndarray:
    """Return four layers from as many bands, or from one band a layer and depth."""
    depths = len(bands) // len(_ENCODINGS)
    thickness = list(SOIL_DEPTHS.values()) if depths > 1 else [1]
    weights = np.array(thickness, np.float32) / np.float32(sum(thickness))
    parts = zip(_ENCODINGS, bands.reshape(-1, depths, *bands.shape[1:]), strict=True)
    return np.stack(
        [np.einsum("d,d...->...", weights, encoding.decode(numbers)) for encoding, numbers in parts]
    )
