"""The user's own rasters as predictors: numbers, categories, and degrees of a circle."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from helpers.core.grid import reference_grid
from helpers.core.mosaic import describe_mosaic, mosaic_at, read_mosaic
from helpers.core.rasters import RasterError
from helpers.core.settings import OwnPredictor
from helpers.core.study import Study
from helpers.core.user_rasters import OutsideError, Reading
from helpers.prepare.products import predictor_files
from helpers.prepare.registry import (
    GROUND_SHARE,
    CovariateError,
    ElsewhereError,
    NoValuesError,
    check_categories,
    own_names,
)

_LARGEST_CODE = 2**24  # above, float32 has not every whole number


def make(study: Study, geobox: GeoBox, predictor: OwnPredictor) -> dict[str, np.ndarray]:
    """Make the covariates of one of the user's own predictors, float32 on a part of the grid."""
    whole = reference_grid(study)
    layers = read_own(study, predictor, geobox, whole)
    if predictor.no_ice:
        layers[GROUND_SHARE] = ground_share(study, predictor, geobox, whole)
    return layers


def read_own(
    study: Study, predictor: OwnPredictor, geobox: GeoBox, whole: GeoBox | None = None
) -> dict[str, np.ndarray]:
    """Return a predictor's covariates, float32 on a grid, NaN where there is no value.

    `whole` is the grid of which this is a part, as for `helpers.core.mosaic.read_mosaic`.
    Numbers are scaled by the file's tags. Categories are whole numbers: the codes of the file.
    Degrees of a circle become sine and cosine, which are averaged in their place; both are 0 where
    the number is negative, which stands for flat ground.

    CovariateError names predictor and file if a file cannot be read, or if its categories are no
    whole numbers or too many; it is a NoValuesError if the file has no value here.
    """
    decode = _sine_and_cosine if predictor.kind == "circular" else None
    with _named(predictor):
        files = predictor_files(study, predictor)
        bands = read_mosaic(files, geobox, _reading(predictor), decode, whole)
    if not np.isfinite(bands).any():
        raise NoValuesError(
            f"Predictor {predictor.name}: {predictor.file} has no value on the grid.",
            "check its nodata value, and `band` and `valid_range` in the study file",
        )
    if predictor.kind == "category":
        bands = np.rint(bands) if predictor.nearest_code else bands
        _check_codes(predictor, bands)
    return dict(zip(own_names(predictor), bands, strict=True))


def ground_share(
    study: Study, predictor: OwnPredictor, geobox: GeoBox, whole: GeoBox | None = None
) -> np.ndarray:
    """Return the share of cells of a category's rasters that may hold ice, float32 on a grid.

    Errors and `whole` as those of `read_own`.
    """

    def holds_ice(codes: np.ndarray) -> np.ndarray:
        codes = np.rint(codes) if predictor.nearest_code else codes
        shares = np.where(np.isin(codes, predictor.no_ice), np.float32(0), np.float32(1))
        return np.where(np.isnan(codes), codes, shares)[np.newaxis]

    reading = replace(_reading(predictor), finer="average", coarser="nearest")
    with _named(predictor):
        files = predictor_files(study, predictor)
        return read_mosaic(files, geobox, reading, holds_ice, whole)[0]


def describe_own(study: Study, predictor: OwnPredictor, geobox: GeoBox) -> dict[str, Any]:
    """Return what a predictor's rasters are, as `helpers.core.mosaic.describe_mosaic`.

    The unit is that of the study file, if it has one.
    """
    with _named(predictor):
        files = predictor_files(study, predictor)
        facts = describe_mosaic(files, geobox, _reading(predictor))
    return facts | ({"unit": predictor.unit} if predictor.unit else {})


def own_at(
    study: Study, predictor: OwnPredictor, geobox: GeoBox, places: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return a predictor's numbers or codes at places, as `helpers.core.mosaic.mosaic_at`.

    CovariateError as from `read_own`.
    """
    with _named(predictor):
        files = predictor_files(study, predictor)
        values = mosaic_at(files, geobox, places, _reading(predictor))
    if predictor.kind == "category" and not predictor.nearest_code:
        _check_codes(predictor, values)
    return values


@contextmanager
def _named(predictor: OwnPredictor) -> Iterator[None]:
    """Add the predictor to errors of its rasters."""
    try:
        yield
    except RasterError as error:
        message = f"Predictor {predictor.name}: {error.message}"
        kind = ElsewhereError if isinstance(error, OutsideError) else CovariateError
        raise kind(message, error.remedy) from None


def _reading(predictor: OwnPredictor) -> Reading:
    category = predictor.kind == "category"
    finer, coarser = ("mode", "nearest") if category else ("average", "bilinear")
    return Reading(
        band=predictor.band,
        variable=predictor.variable,
        scaled=not category,
        valid_range=predictor.valid_range,
        finer=predictor.resampling or finer,
        coarser=predictor.resampling or coarser,
    )


def _sine_and_cosine(degrees: np.ndarray) -> np.ndarray:
    angle = np.radians(degrees)
    flat = degrees < 0
    return np.stack([np.where(flat, np.float32(0), wave(angle)) for wave in (np.sin, np.cos)])


def _check_codes(predictor: OwnPredictor, codes: np.ndarray) -> None:
    found = np.sort(pd.unique(codes.ravel()))
    found = found[np.isfinite(found)]
    where = f"Predictor {predictor.name}: {predictor.file}"
    wrong = found[(found != np.rint(found)) | (np.abs(found) > _LARGEST_CODE)]
    if wrong.size:
        share = np.isin(codes, wrong).sum() / np.isfinite(codes).sum()
        raise CovariateError(
            f"{where} is no raster of categories: {share:.2%} of its cells have values such as "
            f"{wrong[0]:g}, which are no whole numbers up to {_LARGEST_CODE}.",
            "give the raster as it was before its codes were averaged, set nearest_code, or use "
            "`kind: number`",
        )
    check_categories(predictor, found)
