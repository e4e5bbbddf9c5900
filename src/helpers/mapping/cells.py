"""Cells of the map: the regions they lie in, and a systematic sample of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from helpers.core.grid import cell_centres, reference_grid, study_regions
from helpers.core.rasters import read_band, reading
from helpers.core.settings import METRES
from helpers.core.study import Study
from helpers.mapping.files import MapError
from helpers.prepare.columns import column_values, forest_columns, predictor_of
from helpers.prepare.domain import domain_of_cells
from helpers.prepare.registry import GROUND_SHARE, covariate_files


@dataclass(frozen=True)
class Ground:
    """What of cells may hold ice, arrays of one shape.

    Parameters
    ----------
    share
        Of the cell's area: water, built-up land and rock at the surface hold none.
    bedrock
        Depth to bedrock, m.
    rock
        Largest ice fraction of bedrock.
    """

    share: np.ndarray
    bedrock: np.ndarray
    rock: float

    def __getitem__(self, place: Any) -> "Ground":
        return Ground(self.share[place], self.bedrock[place], self.rock)

    def holds(self, fraction: np.ndarray, layer: tuple[float, float]) -> np.ndarray:
        """Return what whole cells hold of a layer's ice fraction, shape `(..., *cells)`.

        The part of the layer below bedrock holds no more than rock does.
        """
        top, bottom = layer
        soil = np.clip((self.bedrock - top) / (bottom - top), 0, 1)
        return self.share * (soil * fraction + (1 - soil) * np.minimum(fraction, self.rock))


def study_ground(study: Study) -> Ground:
    """Return what of the reference grid's cells may hold ice, float32 (y, x).

    All of all may where neither land cover nor the depth to bedrock is known.
    """
    files = covariate_files(study)
    shape = reference_grid(study).shape
    share = np.broadcast_to(np.float32(1), shape)
    bedrock = np.broadcast_to(np.float32(np.inf), shape)
    if GROUND_SHARE in files:
        share = np.nan_to_num(read_band(files[GROUND_SHARE]), nan=1)
    for one in study.own_predictors:
        if one.bedrock:
            depth = read_band(files[one.name]) * np.float32(METRES[one.unit])
            bedrock = np.nan_to_num(depth, nan=np.inf)
    return Ground(share, bedrock, study.ice.rock)


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
    ground
        What of them may hold ice, shape (n,).
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
    ground: Ground
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
        with reading(files[predictor_of(name)]) as source:
            for line, row in zip(layer, rows, strict=True):
                part = source.read(1, window=((row, row + 1), (0, geobox.shape[1])))
                line[:] = column_values(name, part[0, columns])
    row, column = np.nonzero((region >= 0) & np.isfinite(values).all(axis=0))
    if not row.size:
        raise MapError("No cell of the sample has all predictors.", "set more `uncertainty.cells`")
    values = np.ascontiguousarray(values[:, row, column].T)
    side = step * study.grid.resolution
    ground = study_ground(study)[rows[row], columns[column]]
    in_domain = domain_of_cells(study)[rows[row], columns[column]]
    points = np.stack([easting[row, column], northing[row, column]], axis=1)
    region = region[row, column]
    return Cells(values, row, column, region, ground, points, in_domain, names, side)
