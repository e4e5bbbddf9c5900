"""Cells of the map: the regions they lie in, and a systematic sample of them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import shapely

from helpers.core.grid import Part, cell_centres, reference_grid, study_regions
from helpers.core.rasters import reading
from helpers.core.settings import METRES
from helpers.core.study import Study
from helpers.mapping.files import MapError
from helpers.prepare.columns import column_values, forest_columns, predictor_of
from helpers.prepare.domain import domain_covariates, in_domain
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

        Examples
        --------
        >>> ground = Ground(share=np.array([0.5, 1.0]), bedrock=np.array([9.0, 4.0]), rock=0.0)
        >>> # Half of the first cell is water; the lower half of the second one's layer is rock.
        >>> ground.holds(np.array([0.4, 0.4]), layer=(3, 5)).tolist()
        [0.2, 0.2]
        """
        top, bottom = layer
        soil = np.clip((self.bedrock - top) / (bottom - top), 0, 1)
        return self.share * (soil * fraction + (1 - soil) * np.minimum(fraction, self.rock))


def study_ground(study: Study, part: Part | None = None) -> Ground:
    """Return what of the cells of the grid, or of a part of it, may hold ice, float32 (y, x).

    All of all may where neither land cover nor the depth to bedrock is known.
    """
    place = part or tuple(slice(0, size) for size in reference_grid(study).shape)

    def read(name: str) -> np.ndarray:
        with reading(covariate_files(study)[name]) as source:
            return source.read(1, window=place)

    return _ground(study, read, [one.stop - one.start for one in place])


def _ground(study: Study, read: Callable[[str], np.ndarray], shape: Sequence[int]) -> Ground:
    """Return what of cells may hold ice, by a function that gives a covariate's values of them."""
    share = np.broadcast_to(np.float32(1), shape)
    bedrock = np.broadcast_to(np.float32(np.inf), shape)
    if GROUND_SHARE in covariate_files(study):
        share = np.nan_to_num(read(GROUND_SHARE), nan=1)
    for one in study.own_predictors:
        if one.bedrock:
            depth = read(one.name) * np.float32(METRES[one.unit])
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
    geobox = reference_grid(study)
    area = np.sum([shape.area for shape, _ in study_regions(study, geobox)[1]])
    step = max(1, round(np.sqrt(area / study.grid.resolution**2 / wanted)))
    rows, columns = (np.arange(step // 2, size, step) for size in geobox.shape)
    place = np.indices((rows.size, columns.size)).reshape(2, -1)
    cells = cells_at(study, rows[place[0]], columns[place[1]], place)
    if not cells.row.size:
        raise MapError("No cell of the sample has all predictors.", "set more `uncertainty.cells`")
    return replace(cells, side=step * study.grid.resolution)


def cells_at(
    study: Study, rows: np.ndarray, columns: np.ndarray, place: np.ndarray | None = None
) -> Cells:
    """Return those of some cells that lie in a region and have all predictors.

    Parameters
    ----------
    rows, columns : shape (n,)
        Of the reference grid; rows never fall, so that each is read once.
    place : shape (2, n)
        Rows and columns in a lattice of their own; by default those of the grid.
    """
    geobox = reference_grid(study)
    predictors, files = forest_columns(study), covariate_files(study)
    easting, northing = cell_centres(geobox)
    points = np.stack([easting[columns], northing[rows]], axis=1)
    names, shapes = study_regions(study, geobox)
    region = np.full(len(rows), -1)
    for shape, number in shapes:
        region[shapely.contains_xy(shape, *points.T)] = number - 1
    values = np.empty((len(rows), len(predictors)), np.float32)
    lines = np.flatnonzero(np.diff(rows, prepend=-1))

    def read(name: str) -> np.ndarray:
        found = np.empty(len(rows), np.float32)
        with reading(files[name]) as source:
            for start, end in itertools.pairwise([*lines, len(rows)]):
                row = int(rows[start])
                part = source.read(1, window=((row, row + 1), (0, geobox.shape[1])))
                found[start:end] = part[0, columns[start:end]]
        return found

    for name, one in zip(predictors, values.T, strict=True):
        one[:] = column_values(name, read(predictor_of(name)))
    rule = pd.DataFrame({name: read(name) for name in domain_covariates(study)}, range(len(rows)))
    kept = (region >= 0) & np.isfinite(values).all(axis=1)
    row, column = (part[kept] for part in (np.stack([rows, columns]) if place is None else place))
    return Cells(
        values=values[kept],
        row=row,
        column=column,
        region=region[kept],
        ground=_ground(study, read, [len(rows)])[kept],
        points=points[kept],
        in_domain=in_domain(study, rule).to_numpy()[kept],
        names=names,
        side=study.grid.resolution,
    )
