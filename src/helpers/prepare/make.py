"""Makes the covariates of a study, family by family, and says whether they are plausible."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from helpers.core.errors import CompendiumError
from helpers.core.grid import Part, area_mask, fine_grid, grid_windows, reference_grid
from helpers.core.parallel import in_parallel, show_progress
from helpers.core.rasters import BLOCK, THREADS, RasterError
from helpers.core.settings import Area, OwnPredictor
from helpers.core.study import Study
from helpers.core.user_rasters import OutsideError
from helpers.prepare import climate, own, soil, terrain, vegetation
from helpers.prepare.registry import (
    FINE_LAYERS,
    GROUND_SHARE,
    CovariateError,
    ElsewhereError,
    NoValuesError,
    covariates,
    fine_name,
    layers_of,
    own_names,
    write_parts,
)

if TYPE_CHECKING:
    import xarray

Make = Callable[[Study, GeoBox], dict[str, np.ndarray]]
"""Makes layers on a part of the reference grid; an error says that rasters have no value there."""

# By family, and by the field of the source that layers are made from.
_MAKERS: dict[str, dict[str, Make]] = {
    "terrain": {"dem": terrain.make},
    "vegetation": {"landsat": vegetation.make},
    "climate": {
        "lst": climate.make_surface,
        "air_temperature": climate.make_air,
        "precipitation": climate.make_precipitation,
    },
    "soil": {"soil": soil.make},
}

SIDE = 2048
"""Cells along a side of the parts in which a large grid is made; whole blocks of its files."""

FINE_SIDE = 4500
"""Fine cells along such a side for terrain, with the margin on both sides."""

_BLOCK = BLOCK[0]

Made = dict[str, np.ndarray] | OutsideError | NoValuesError

LEAST_SHARE = 0.97
"""A predictor should cover at least this share of the study area."""


def make_covariates(study: Study) -> Iterator[tuple[str, list[Path]]]:
    """Make and write the covariates; yield each family that the study has, and its files.

    The user's own ones are made side by side, two at a time, so that memory does not grow with
    their number; others part by part. A cluster (`helpers.core.parallel`) makes more at once.
    """
    for family, makers in _MAKERS.items():
        files: list[Path] = []
        for field, make in makers.items():
            if names := layers_of(study, field):
                if field == "dem":
                    names += map(fine_name, FINE_LAYERS)
                side = _terrain_side(study) if field == "dem" else SIDE
                parts = made_by_parts(study, make, names, side, partial(_shared, study, field))
                files += write_parts(study, names, parts)
        if files:
            yield family, files
    if study.own_predictors:
        # While one is read, another is written.
        files = in_parallel(study, partial(_make_own, study), study.own_predictors, THREADS)
        yield "own", list(itertools.chain(*files))


def _shared(
    study: Study, field: str, work: Callable[[GeoBox], Made], parts: Sequence[GeoBox]
) -> Iterable[Made]:
    # Here a part has threads of its own, and memory for one.
    made = in_parallel(study, work, parts) if study.compute.scheduler else map(work, parts)
    return show_progress(made, len(parts), field) if len(parts) > 1 else made


def _make_own(study: Study, predictor: OwnPredictor) -> list[Path]:
    names = own_names(predictor) + [GROUND_SHARE] * bool(predictor.no_ice)
    make = partial(own.make, predictor=predictor)
    return write_parts(study, names, made_by_parts(study, make, names, SIDE))


def _terrain_side(study: Study) -> int:
    """Return the side of parts for terrain, in reference cells; not much less than a margin."""
    whole = fine_grid(study, margin=study.grid.margin).shape
    if whole[0] * whole[1] <= FINE_SIDE**2:
        return max(reference_grid(study).shape)
    margin = terrain.margin_of_parts(study) / study.grid.fine_resolution
    fine = max(FINE_SIDE - 2 * margin, margin)
    side = max(1, int(fine / study.grid.divisor))
    # A power of two lies in one block, or is several.
    return side // _BLOCK * _BLOCK or 1 << (side.bit_length() - 1)


def most_fine_cells(study: Study) -> float:
    """Return how many million fine cells, with their margin, are made at once at most."""
    if not layers_of(study, "dem"):
        return min((SIDE * study.grid.divisor) ** 2, FINE_SIDE**2) / 1e6
    side = _terrain_side(study)
    rows, columns = (min(side, size) for size in reference_grid(study).shape)
    whole = (rows, columns) == tuple(reference_grid(study).shape)
    margin = study.grid.margin if whole else terrain.margin_of_parts(study)
    both = 2 * margin / study.grid.fine_resolution
    return (rows * study.grid.divisor + both) * (columns * study.grid.divisor + both) / 1e6


def made_by_parts(
    study: Study,
    make: Make,
    names: Sequence[str],
    side: int,
    share: Callable[[Callable[[GeoBox], Made], Sequence[GeoBox]], Iterable[Made]] = map,
) -> Iterator[tuple[Part, Mapping[str, np.ndarray]]]:
    """Make layers in squares of so many cells along a side; give each part, and the layers there.

    Where the raw rasters of one part have no value, layers of quality are 0 there, and others are
    left out. If none has a value, the error is that of one of them. Parts without a cell of the
    study area are passed over. `share` has a function applied to each part.
    """
    geobox = reference_grid(study)
    parts = [(place, geobox[place]) for place in grid_windows(geobox, (side, side))]
    if len(parts) > 1:
        parts = [(place, part) for place, part in parts if area_mask(study, part).any()]
    layers = covariates(study)
    quality = [name for name in names if name in layers and layers[name].role == "quality"]
    problem, found = None, False
    made = share(partial(_made, study, make), [part for _, part in parts])
    for (place, part), arrays in zip(parts, made, strict=True):
        if isinstance(arrays, CompendiumError):
            if problem is None or isinstance(problem, (OutsideError, ElsewhereError)):
                problem = arrays
            arrays = dict.fromkeys(quality, np.zeros(part.shape, np.float32))
        else:
            found = True
        yield place, arrays
    if problem and not found:
        if len(parts) == 1:
            raise problem
        message = f"No part of the grid has values; of one of them: {problem.message}"
        raise CovariateError(message, problem.remedy)


def _made(study: Study, make: Make, part: GeoBox) -> Made:
    try:
        return make(study, part)
    except (OutsideError, NoValuesError) as error:
        return error
    except RasterioError as error:  # else it would be taken for one of the file that is written
        message = f"Raw rasters cannot be brought onto the grid: {error.__cause__ or error}"
        raise RasterError(message, "make or download them again") from error


def plausibility(study: Study, data: "xarray.Dataset", coverage: pd.DataFrame) -> pd.DataFrame:
    """Return what can be told of the covariates by numbers that are known from elsewhere.

    `data` are those of `read_covariates`, `coverage` the table of `coverage_table`. There is one
    row a check, as far as the study has the layers for it: `value`, and what is `expected`.

    Notes
    -----
    NDWI and NDVI both follow the near infrared: where their correlation is near 1, the second adds
    little. An air frost number of 0.5 is a mean annual air temperature of 0 degC, by the monthly
    means of ERA5 at 0.25 degrees; permafrost need not end there, since valleys, peat and forest
    keep it in warmer air.
    """
    predictors = coverage[coverage["role"] == "predictor"]
    thin = predictors.index[predictors["share_of_area"] < LEAST_SHARE].tolist()
    share = f"{100 * LEAST_SHARE:g} %"
    rows = {
        f"predictors that cover less than {share} of the area": (", ".join(thin) or "none", "none")
    }
    if {"ndwi", "ndvi"} <= set(data.data_vars):
        size = abs(vegetation.index_correlation(data))
        rows["|r| of NDWI with NDVI"] = (f"{size:.3f}", "below 1")
    # Both the means of ERA5 and the published area are those of Northeast China.
    if "air_frost_number" in data and study.area.polygons == Area().polygons:
        low, high = climate.PUBLISHED_PERMAFROST_AREA
        area = f"{climate.frost_area(study):.1f}"
        rows["air frost number >= 0.5, 10^4 km2"] = (area, f"permafrost: {low} to {high}")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "expected"])
