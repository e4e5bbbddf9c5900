"""Values of the predictors in the cells that hold the samples, and of whole grids."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import rasterio

from helpers.core.errors import listed
from helpers.core.grid import named_crs, reference_grid
from helpers.core.points import projected, values_at
from helpers.core.rasters import THREADS
from helpers.prepare.registry import CovariateError, covariate_files
from helpers.samples.columns import SampleError


def read_predictors(study, predictors, part=None, units=None, step=1):
    """Return the predictors of all cells, or those of a window, that have every one of them.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictors : sequence of str
        Names of covariates, in the order of the forest.
    part : tuple of slice, optional
        Rows and columns of the reference grid; all by default.
    units : dict of str to str, optional
        The unit that each covariate must have.
    step : int
        Of both rows and columns: every cell by default.

    Returns
    -------
    values : numpy.ndarray of float32, shape (cells, predictors)
        In raster order, which predicts faster than any other.
    cells : numpy.ndarray of int, shape (cells,)
        Their flat indices on the reference grid, or in the window.

    Raises
    ------
    CovariateError
        A covariate is missing, lies on another grid, or has another unit.
    """
    geobox = reference_grid(study)
    part = part or (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
    cells, values, files = None, None, covariate_files(study)
    for number, name in enumerate(predictors):
        with open_predictor(files, name, geobox, (units or {}).get(name)) as source:
            band = source.read(1, window=part).ravel()
        if cells is None:
            # Covariates have no values outside of the study area.
            cells = np.flatnonzero(np.isfinite(band))
            if step > 1:
                row, column = np.divmod(cells, part[1].stop - part[1].start)
                cells = cells[(row % step == 0) & (column % step == 0)]
            values = np.empty((len(predictors), len(cells)), np.float32)
            if not values.size:
                break
        band.take(cells, out=values[number])
    complete = np.isfinite(values).all(axis=0)
    if not complete.all():
        values, cells = values[:, complete], cells[complete]
    return np.ascontiguousarray(values.T), cells


def open_predictor(files, name, geobox, unit=None):
    """Return the opened file of a covariate that is what the forest learnt from."""
    path, again = files.get(name), "run 01-prepare-data for this study"
    if path is None or not path.is_file():
        raise CovariateError(f"The covariate {name} of the forest is missing.", again)
    try:
        source = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise CovariateError(f"{path.name} cannot be read: {error}", again) from None
    if source.shape != tuple(geobox.shape) or not source.transform.almost_equals(geobox.transform):
        raise CovariateError(f"{path.name} is not on the reference grid.", again)
    if source.crs != rasterio.CRS.from_wkt(geobox.crs.to_wkt()):
        raise CovariateError(f"{path.name} is in another coordinate reference system than the reference grid.", again)
    if unit is not None and source.units[0] != unit:
        raise CovariateError(
            f"{path.name} is in {source.units[0] or 'no unit'}, and the forest learnt {name} in {unit}.",
            "convert the raster, or run 01-prepare-data and 03-grid-search again",
        )
    return source


def extract_covariates(study, table):
    """Add to each row the values of all covariates in the cell that holds its site.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With `longitude` and `latitude`, WGS 84 degrees.

    Returns
    -------
    pandas.DataFrame
        The table with easting and northing (m, in the study's CRS) and one column a covariate; NaN where
        there is no value.

    Raises
    ------
    SampleError
        Covariates have not been made.
    """
    files = covariate_files(study)
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise SampleError(f"Covariates are missing: {listed(missing)}.", "run notebooks/01-prepare-data.ipynb")
    easting, northing = projected(table["longitude"], table["latitude"], named_crs(study.grid.crs))
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(lambda path: values_at(path, easting, northing), files.values())
        added = {"easting": easting, "northing": northing, **dict(zip(files, values, strict=True))}
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1)
