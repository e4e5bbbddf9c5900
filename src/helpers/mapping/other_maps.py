"""Our map beside one that somebody already has: areas, agreement, and where the two differ.

Theirs may be a raster, a layer of polygons, or a rule on one of the covariates, such as an air
frost number above 0.5. It is brought onto the reference grid: the nearest cell of classes, means of
metres of ice.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rasterio.features import rasterize

from helpers.core import qgis, scores
from helpers.core.classes import NO_TYPE, TARGETS, Target, layer_name
from helpers.core.features import FeatureError, read_features
from helpers.core.files import write_json
from helpers.core.grid import Part, cell_areas, crs_wkt, grid_windows, reference_grid, reprojected
from helpers.core.mosaic import read_mosaic
from helpers.core.rasters import open_raster, reading
from helpers.core.settings import OtherMap
from helpers.core.study import Study
from helpers.core.user_rasters import OutsideError, Reading, raster_files
from helpers.mapping.files import MapError, difference_files, map_files
from helpers.prepare.registry import covariate_files, read_covariates

_SIDE = 2048  # cells along a side of the parts that are compared at once

DIFFERENCE = {
    0: ("both without permafrost", "#e0e0e0"),
    1: ("permafrost on ours alone", "#0072b2"),
    2: ("permafrost on theirs alone", "#d55e00"),
    3: ("both with permafrost", "#4d4d4d"),
}
"""Difference of two maps of permafrost by code; colours of Okabe and Ito for the colour-blind."""


def read_other(study: Study, other: OtherMap) -> Iterator[tuple[Part, np.ndarray]]:
    """Give the parts of the reference grid, and another map there, NaN where it says nothing.

    Its values are classes of ours (permafrost: 0 and 1), or metres of ice. MapError if there are no
    such values; RasterError or CovariateError if there is no such file or covariate.
    """
    polygons = other.file.lower().endswith((".gpkg", ".shp", ".geojson", ".json", ".fgb"))
    if other.covariate:
        read = _covariate(study, other)
    elif polygons:
        read = _polygons(study, other)
    else:
        read = _raster(study, other)
    found, outside = False, None
    for part in grid_windows(reference_grid(study), (_SIDE, _SIDE)):
        try:
            values = read(part)
        except OutsideError as error:
            shape = tuple(axis.stop - axis.start for axis in part)
            values, outside = np.full(shape, np.nan), error
        if other.above is not None:
            values = np.where(np.isfinite(values), values > other.above, np.nan)
        elif other.classes and not polygons:
            values = _recoded(other, values)
        found |= bool(np.isfinite(values).any())
        _check_values(study, other, part, values)
        yield part, values
    if not found:
        raise outside or MapError(
            f"The map {other.name} says nothing about the study area: "
            f"none of its values is one of {', '.join(other.classes) or 'its data'}.",
            "check its place, and the values in `classes`",
        )


def _check_values(study: Study, other: OtherMap, part: Part, values: np.ndarray) -> None:
    if other.compares == "storage":
        if (impossible := values < 0).any():
            row, column = np.argwhere(impossible)[0]
            place = f"row {part[0].start + row}, column {part[1].start + column}"
            raise MapError(
                f"The map {other.name} has less than no ice in {impossible.sum()} cells, such as "
                f"{values[row, column]:g} m in {place} of the grid.",
                "write its value for no data into the file's tags: rio edit-info --nodata VALUE",
            )
        return
    allowed = _target(study, other).codes
    codes = np.unique(values[np.isfinite(values)])
    if wrong := [f"{code:g}" for code in codes if code not in allowed]:
        raise MapError(
            f"The map {other.name} has the codes {', '.join(wrong[:5])}; "
            f"ours has {allowed[0]}-{allowed[-1]}.",
            "correct the codes in `classes`",
        )


def _target(study: Study, other: OtherMap) -> Target:
    return TARGETS["permafrost"] if other.compares == "permafrost" else study.target_classes


def _covariate(study: Study, other: OtherMap) -> Callable[[Part], np.ndarray]:
    """Return what reads a covariate."""
    read_covariates(study, [other.covariate])  # says what is missing
    path = covariate_files(study)[other.covariate]
    return lambda part: _window(path, part).astype(float)


def _window(path: Path, part: Part) -> np.ndarray:
    with reading(path) as source:
        return source.read(1, window=part)


def _raster(study: Study, other: OtherMap) -> Callable[[Part], np.ndarray]:
    """Return what reads a raster's values; of classes, the codes as they are stored."""
    rule = "average" if other.compares == "storage" else "nearest"
    how = Reading(scaled=not other.classes, finer=rule, coarser=rule)
    files, geobox = raster_files(study.path(other.file)), reference_grid(study)
    return lambda part: read_mosaic(files, geobox[part], how)[0].astype(float)


def _recoded(other: OtherMap, values: np.ndarray) -> np.ndarray:
    """Return our codes of a raster's values; others are no data."""
    codes = np.full(values.shape, np.nan)
    for value, code in other.classes.items():
        try:
            codes[values == float(value)] = code
        except ValueError:
            raise MapError(
                f"`classes` of the map {other.name} are not numbers: {', '.join(other.classes)}.",
                "name the values that the raster holds; "
                "names of classes are for polygons, with `column`",
            ) from None
    return codes


def _polygons(study: Study, other: OtherMap) -> Callable[[Part], np.ndarray]:
    """Return what gives our codes by `classes` at the cells' centres, or the column's numbers."""
    path = study.path(other.file)
    try:
        table = read_features(path, other.layer)
    except FeatureError as error:
        remedy = f"correct `file` and `layer` of {other.name}: {error.remedy}"
        raise MapError(error.message, remedy) from None
    if not other.column or other.column not in table:
        raise MapError(
            f"{path.name} has no column {other.column or '(none is named)'}.",
            f"set `column` to one of {', '.join(map(str, table.columns.drop('geometry')))}",
        )
    if table.crs is None:
        raise MapError(
            f"{path.name} has no coordinate reference system.", "write the layer again with one"
        )
    column = table[other.column]
    if other.classes:
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in column]
        codes = pd.Series(texts, column.index).map(other.classes)
    else:
        codes = pd.to_numeric(column, errors="coerce")
    if codes.isna().all():
        some = ", ".join(sorted({str(value) for value in column})[:5])
        wanted = "one of `classes`" if other.classes else "a number"
        raise MapError(
            f"No value of {other.column} in {path.name} is {wanted}; it has {some}.",
            "name these values in `classes`, or set another `column`",
        )
    kept = codes.notna() & ~table.geometry.is_empty
    geobox = reference_grid(study)
    geometry = reprojected(table.geometry[kept], crs_wkt(geobox), study.grid.resolution)
    shapes = list(zip(geometry, codes[kept].astype(float), strict=True))

    def read(part: Part) -> np.ndarray:
        grid = geobox[part]
        return rasterize(shapes, grid.shape, np.nan, transform=grid.transform, dtype="float64")

    return read


def read_ours(study: Study, other: OtherMap, part: Part) -> np.ndarray:
    """Return of a part of our map what another one is compared with, as `read_other` theirs."""
    files = map_files(study)
    if other.compares == "storage":
        return _window(files["ice_storage"], part).astype(float)
    layers = [other.depth] if other.compares == "class" else study.layers
    if not set(layers) <= set(study.layers):
        names = ", ".join(map(layer_name, study.layers))
        raise MapError(
            f"The map {other.name} is of {layer_name(other.depth)}; ours has the layers {names}.",
            "set `depth` to one of them",
        )
    target = study.target_classes
    kind = target.file_name
    paths = [files[f"{kind}_{layer_name(layer)}"] for layer in layers]
    types = np.stack([_window(path, part) for path in paths])
    # Permafrost in any layer is permafrost.
    frozen = np.isin(types, np.flatnonzero(target.permafrost))
    codes = types[0] if other.compares == "class" else frozen.any(axis=0)
    return np.where((types != NO_TYPE).all(axis=0), codes, np.nan)


def compare(count: np.ndarray, matrix: np.ndarray) -> dict[str, Any]:
    """Compare two maps of classes by their confusion matrices, in cells and in km2.

    Rows are our classes, columns theirs.

    Returns
    -------
    record
        ``km2`` of the common area; for each class its area on our map (``ours_km2``), on
        theirs (``theirs_km2``), and the ``overlap`` (the area that has it on both, as a share of
        that which has it on either); ``confusion_km2`` (rows ours, columns theirs), ``agreement``,
        ``kappa``, and quantity and allocation disagreement.

    Examples
    --------
    >>> count = np.array([[1, 0], [1, 2]])  # of cells of 2 km2; ours in rows
    >>> found = compare(count, 2.0 * count)
    >>> found["km2"].tolist(), found["ours_km2"].tolist(), found["theirs_km2"].tolist()
    (8.0, [2.0, 6.0], [4.0, 4.0])
    >>> found["agreement"], found["overlap"].round(2).tolist()  # one cell of four differs
    (0.75, [0.5, 0.67])
    """
    shared = np.diag(count)
    either = count.sum(axis=0) + count.sum(axis=1) - shared
    return {
        "km2": matrix.sum(),
        "ours_km2": matrix.sum(axis=1),
        "theirs_km2": matrix.sum(axis=0),
        "overlap": scores.ratio(shared, either),
        "confusion_km2": matrix,
        "agreement": scores.overall_accuracy(count),
        "kappa": scores.kappa(count),
        "quantity_disagreement": scores.quantity_disagreement(count),
        "allocation_disagreement": scores.allocation_disagreement(count),
    }


def compare_all(study: Study) -> dict[str, dict[str, Any]]:
    """Compare our map with all of `compare_with`; write ``other_maps.json`` and differences.

    Returns
    -------
    record
        By name of the other map: the result of `compare` with the names of the ``classes``; or of
        storage, the common area, both totals in km3 of ice, and of the difference in m of ice
        (ours minus theirs) the mean and the root mean square.
    """
    record = {other.name: _compare(study, other) for other in study.compare_with}
    write_json(study.results_dir / "tables" / "other_maps.json", record)
    return record


def _compare(study: Study, other: OtherMap) -> dict[str, Any]:
    """Compare our map with another one, part by part; write where they differ, and its style."""
    geobox, target = reference_grid(study), _target(study, other)
    path, storage = difference_files(study)[other.name], other.compares == "storage"
    dtype = np.uint8 if other.compares == "permafrost" else np.float32
    sums, matrices, top = np.zeros(6), np.zeros((2, len(target.codes), len(target.codes))), 0.0
    with open_raster(path, geobox, 1, dtype, **_described(study, other)) as raster:
        for part, theirs in read_other(study, other):
            ours = read_ours(study, other, part)
            both = np.isfinite(ours) & np.isfinite(theirs)
            area, one, two = cell_areas(geobox, part)[both], ours[both], theirs[both]
            if storage:
                change = one - two
                amounts = [np.ones_like(area), area, one * area, two * area, change, change**2]
                sums += [amount.sum() for amount in amounts]
            else:
                pair = two.astype(int), one.astype(int)
                for matrix, weights in zip(matrices, (None, area), strict=True):
                    matrix += scores.confusion_matrix(*pair, target.codes, weights)
            if other.compares == "permafrost":
                codes = ours + 2 * theirs
                change = np.where(np.isfinite(codes), codes, NO_TYPE)
            else:
                change = ours - theirs
                top = max(top, np.nanmax(np.abs(change), initial=0))
            raster.write(change.astype(dtype), 1, window=part)
    if other.compares == "permafrost":
        qgis.write_class_style(path, DIFFERENCE)
    else:
        unit = "m" if storage else ""
        qgis.write_ramp_style(path, top or 1.0, unit, "vik", bottom=-(top or 1.0))
    if not storage:
        return {"classes": [kind.name for kind in target.classes]} | compare(*matrices)
    cells, km2, ours, theirs, change, squared = sums
    return {
        "km2": km2,
        "ours_km3": ours / 1000,
        "theirs_km3": theirs / 1000,
        "mean_difference_m": change / cells,
        "rms_difference_m": math.sqrt(squared / cells),
    }


def _described(study: Study, other: OtherMap) -> dict[str, Any]:
    """Return what the raster of differences says of itself."""
    described: dict[str, Any] = {"study": study, "names": f"difference from {other.name}"}
    if other.compares == "permafrost":
        classes = {"legend": DIFFERENCE, "overviews": "mode", "nodata": NO_TYPE}
        return described | classes | {"units": "1"}
    long_name, unit = "code of our class minus code of theirs", "1"
    if other.compares == "storage":
        long_name, unit = "thickness of ice, ours minus theirs", "m"
    return described | {"long_names": long_name, "units": unit, "overviews": "average"}


def summary(record: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return agreement, kappa and area of permafrost on both maps (km2), one row a map of classes.

    The record is that of `compare_all`.
    """
    rows = {
        name: {
            "km2": entry["km2"],
            "agreement": entry["agreement"],
            "kappa": entry["kappa"],
            "permafrost_ours_km2": sum(entry["ours_km2"][1:]),
            "permafrost_theirs_km2": sum(entry["theirs_km2"][1:]),
        }
        for name, entry in record.items()
        if "kappa" in entry
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")
