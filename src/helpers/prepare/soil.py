"""Soil covariates: texture and organic carbon of the topsoil, in percent by weight."""

import numpy as np
from scipy.ndimage import distance_transform_edt

from helpers.core.grid import reference_grid
from helpers.core.rasters import warp
from helpers.prepare.products import SOIL_CARBON, SOIL_FRACTION, SOIL_LAYERS, raw_files
from helpers.prepare.registry import SOIL_GAP_KM

_NAMES = {"soc": "organic_carbon"}


def fill_nearest(values, resolution, distance):
    """Fill missing cells from the nearest valid one.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (y, x)
    resolution : float
        Cell size in metres.
    distance : float
        Cells farther than this many metres from a valid one stay missing.

    Returns
    -------
    numpy.ndarray of float32, shape (y, x)
    """
    missing = np.isnan(values)
    if not missing.any() or missing.all():
        return values
    away, nearest = distance_transform_edt(missing, sampling=resolution, return_indices=True)
    return np.where(away <= distance, values[tuple(nearest)], np.float32(np.nan))


def make(study):
    """Make all soil covariates.

    Soil maps leave out water, towns and rock; those gaps are filled from the nearest soil within
    `SOIL_GAP_KM`, so that a forest can judge the cell by its other covariates.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays on the reference grid by the names of the registry, in percent.
    """
    files = raw_files(study)
    values = warp([files[name] for name in SOIL_LAYERS], reference_grid(study), "bilinear", decode=_decode)
    return {
        _NAMES.get(name, name): fill_nearest(layer, study.grid.resolution, SOIL_GAP_KM * 1000)
        for name, layer in zip(SOIL_LAYERS, values, strict=True)
    }


def _decode(numbers):
    encodings = {"soc": SOIL_CARBON}
    return np.stack(
        [encodings.get(name, SOIL_FRACTION).decode(n) for name, n in zip(SOIL_LAYERS, numbers, strict=True)]
    )
