"""Cells of the map: the regions they lie in, and a systematic sample of them."""

from dataclasses import dataclass

import numpy as np
import rasterio
import shapely

from helpers.core.grid import cell_centres, reference_grid, study_regions
from helpers.core.rasters import read_band
from helpers.core.study import Study
from helpers.mapping.files import MapError
from helpers.prepare.columns import column_values, forest_columns, predictor_of
from helpers.prepare.domain import domain_of_cells
from helpers.prepare.registry import GROUND_SHARE, covariate_files


def ground_share(study: Study) -> np.ndarray | None:
    """Return the share of each cell that may hold ice, float32 (y, x); None if all of all may.

    A cell without land cover counts as ground.
    """
    files = covariate_files(study)
    if GROUND_SHARE not in files:
        return None
    return np.nan_to_num(read_band(files[GROUND_SHARE]), nan=1)


@dataclass(frozen=True)
class Cells:
    """A systematic sample of the map's cells: every so many-th in both directions.

    Parameters
    ----------
    values : shape (n, predictors)
        All predictors, float32.
    row, column : shape (n,)
        Place in the sample's own lattice.
    region : shape (n,)
        Number of the province or league, in the order of `names`.
    ground : shape (n,)
        Share that may hold ice, as `ground_share`.
    points : shape (n, 2)
        Easting and northing, m.
    in_domain : shape (n,)
        Whether they lie in the potential-permafrost domain.
    side
        Distance between neighbours, m: each stands for a square of this side.
    """

    values: np.ndarray
    row: np.ndarray
    column: np.ndarray
    region: np.ndarray
    ground: np.ndarray
    points: np.ndarray
    in_domain: np.ndarray
    names: list[str]
    side: float


def sample_cells(study: Study, wanted: int) -> Cells:
    """Return a systematic sample of about so many cells; only their rows are read."""
    predictors = forest_columns(study)
    geobox = reference_grid(study)
    files = covariate_files(study)
    names, shapes = study_regions(study, geobox)
    area = np.sum([shape.area for shape, _ in shapes])
    step = max(1, round(np.sqrt(area / study.grid.resolution**2 / wanted)))
    rows, columns = (np.arange(step // 2, size, step) for size in geobox.shape)
    easting, northing = cell_centres(geobox)
    easting, northing = np.meshgrid(easting[columns], northing[rows])
    region = np.full(easting.shape, -1)
    for shape, number in shapes:
        region[shapely.contains_xy(shape, easting, northing)] = number - 1
    values = np.empty((len(predictors), *region.shape), np.float32)
    for layer, name in zip(values, predictors, strict=True):
        with rasterio.open(files[predictor_of(name)]) as source:
            for line, row in zip(layer, rows, strict=True):
                part = source.read(1, window=((row, row + 1), (0, geobox.shape[1])))
                line[:] = column_values(name, part[0, columns])
    row, column = np.nonzero((region >= 0) & np.isfinite(values).all(axis=0))
    if not row.size:
        raise MapError("No cell of the sample has all predictors.", "set more `uncertainty.cells`")
    values = np.ascontiguousarray(values[:, row, column].T)
    side = step * study.grid.resolution
    share = ground_share(study)
    ground = np.ones(len(values), np.float32)
    if share is not None:
        ground = share[rows[row], columns[column]]
    in_domain = domain_of_cells(study)[rows[row], columns[column]]
    points = np.stack([easting[row, column], northing[row, column]], axis=1)
    region = region[row, column]
    return Cells(values, row, column, region, ground, points, in_domain, names, side)
