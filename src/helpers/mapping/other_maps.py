"""Our map beside one that somebody already has: areas, agreement, and where the two differ.

Theirs may be a raster, a layer of polygons, or a rule on one of the covariates, such as an air
frost number above 0.5. It is brought onto the reference grid: the nearest cell of classes, means of
metres of ice.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rasterio.features import rasterize

from helpers.core import qgis, scores
from helpers.core.classes import NO_TYPE, TARGETS, Target, layer_name
from helpers.core.features import FeatureError, read_features
from helpers.core.files import write_json
from helpers.core.grid import cell_areas, crs_wkt, reference_grid, reprojected
from helpers.core.mosaic import read_mosaic
from helpers.core.rasters import read_band, write_raster
from helpers.core.settings import OtherMap
from helpers.core.study import Study
from helpers.core.user_rasters import Reading, raster_files
from helpers.mapping.files import MapError, difference_files, map_files
from helpers.prepare.registry import read_covariates

DIFFERENCE = {
    0: ("both without permafrost", "#e0e0e0"),
    1: ("permafrost on ours alone", "#0072b2"),
    2: ("permafrost on theirs alone", "#d55e00"),
    3: ("both with permafrost", "#4d4d4d"),
}
"""Difference of two maps of permafrost by code; colours of Okabe and Ito for the colour-blind."""


def read_other(study: Study, other: OtherMap) -> np.ndarray:
    """Return another map on the reference grid, shape (y, x), NaN where it says nothing.

    Its values are classes of ours (permafrost: 0 and 1), or metres of ice. MapError if there are no
    such values; RasterError or CovariateError if there is no such file or covariate.
    """
    polygons = other.file.lower().endswith((".gpkg", ".shp", ".geojson", ".json", ".fgb"))
    if other.covariate:
        covariates = read_covariates(study, [other.covariate])
        values = covariates[other.covariate].to_numpy().astype(float)
    elif polygons:
        values = _polygons(study, other)
    else:
        values = _raster(study, other)
    if other.above is not None:
        values = np.where(np.isfinite(values), values > other.above, np.nan)
    elif other.classes and not polygons:
        values = _recoded(other, values)
    if other.compares == "storage" and (impossible := values < 0).any():
        row, column = np.argwhere(impossible)[0]
        raise MapError(
            f"The map {other.name} has less than no ice in {impossible.sum()} cells, such as "
            f"{values[row, column]:g} m in row {row}, column {column} of the grid.",
            "write its value for no data into the file's tags: rio edit-info --nodata VALUE",
        )
    codes = np.unique(values[np.isfinite(values)])
    if not codes.size:
        raise MapError(
            f"The map {other.name} says nothing about the study area: "
            f"none of its values is one of {', '.join(other.classes) or 'its data'}.",
            "check its place, and the values in `classes`",
        )
    allowed = _target(study, other).codes
    wrong = [f"{code:g}" for code in codes if code not in allowed]
    if wrong and other.compares != "storage":
        raise MapError(
            f"The map {other.name} has the codes {', '.join(wrong[:5])}; "
            f"ours has {allowed[0]}-{allowed[-1]}.",
            "correct the codes in `classes`",
        )
    return values


def _target(study: Study, other: OtherMap) -> Target:
    return TARGETS["permafrost"] if other.compares == "permafrost" else study.target_classes


def _raster(study: Study, other: OtherMap) -> np.ndarray:
    """Return a raster's values on the reference grid; of classes, the codes as they are stored."""
    rule = "average" if other.compares == "storage" else "nearest"
    reading = Reading(scaled=not other.classes, finer=rule, coarser=rule)
    files = raster_files(study.path(other.file))
    return read_mosaic(files, reference_grid(study), reading)[0].astype(float)


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


def _polygons(study: Study, other: OtherMap) -> np.ndarray:
    """Return our codes by `classes` at the cells' centres, or else the numbers of the column."""
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
    return rasterize(shapes, geobox.shape, fill=np.nan, transform=geobox.transform, dtype="float64")


def read_ours(study: Study, other: OtherMap) -> np.ndarray:
    """Return of our map what another one is compared with, as `read_other` returns theirs."""
    files = map_files(study)
    if other.compares == "storage":
        return read_band(files["ice_storage"]).astype(float)
    layers = [other.depth] if other.compares == "class" else study.layers
    if not set(layers) <= set(study.layers):
        names = ", ".join(map(layer_name, study.layers))
        raise MapError(
            f"The map {other.name} is of {layer_name(other.depth)}; ours has the layers {names}.",
            "set `depth` to one of them",
        )
    target = study.target_classes
    kind = target.file_name
    types = np.stack([read_band(files[f"{kind}_{layer_name(layer)}"]) for layer in layers])
    # Permafrost in any layer is permafrost.
    frozen = np.isin(types, np.flatnonzero(target.permafrost))
    codes = types[0] if other.compares == "class" else frozen.any(axis=0)
    return np.where((types != NO_TYPE).all(axis=0), codes, np.nan)


def compare(
    ours: np.ndarray, theirs: np.ndarray, codes: Sequence[int], cells_km2: np.ndarray
) -> dict[str, Any]:
    """Compare two maps of classes, shape (y, x), where both have a code, not NaN.

    `cells_km2` are the areas of the cells.

    Returns
    -------
    record
        ``km2`` of the common area; for each of all `codes` its area on our map (``ours_km2``), on
        theirs (``theirs_km2``), and the ``overlap`` (the area that has it on both, as a share of
        that which has it on either); ``confusion_km2`` (rows ours, columns theirs), ``agreement``,
        ``kappa``, and quantity and allocation disagreement.
    """
    both = np.isfinite(ours) & np.isfinite(theirs)
    pair = theirs[both].astype(int), ours[both].astype(int)
    count = scores.confusion_matrix(*pair, codes)
    matrix = scores.confusion_matrix(*pair, codes, cells_km2[both])
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
    record = {}
    areas = cell_areas(reference_grid(study))
    for other in study.compare_with:
        ours = read_ours(study, other)
        theirs = read_other(study, other)
        if other.compares == "storage":
            both = np.isfinite(ours) & np.isfinite(theirs)
            change = ours[both] - theirs[both]
            area = areas[both]
            record[other.name] = {
                "km2": area.sum(),
                "ours_km3": (ours[both] * area).sum() / 1000,
                "theirs_km3": (theirs[both] * area).sum() / 1000,
                "mean_difference_m": change.mean(),
                "rms_difference_m": np.sqrt((change**2).mean()),
            }
        else:
            target = _target(study, other)
            names = [kind.name for kind in target.classes]
            record[other.name] = {"classes": names} | compare(ours, theirs, target.codes, areas)
        _write_difference(study, other, ours, theirs)
    write_json(study.results_dir / "tables" / "other_maps.json", record)
    return record


def _write_difference(study: Study, other: OtherMap, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Write a raster of where two maps differ, and its style."""
    path = difference_files(study)[other.name]
    geobox = reference_grid(study)
    described = {"study": study, "names": f"difference from {other.name}", "units": "1"}
    if other.compares == "permafrost":
        codes = ours + 2 * theirs
        change = np.where(np.isfinite(codes), codes, NO_TYPE).astype(np.uint8)
        described |= {"legend": DIFFERENCE, "overviews": "mode"}
        write_raster(path, change, geobox, nodata=NO_TYPE, **described)
        qgis.write_class_style(path, DIFFERENCE)
        return
    described["long_names"] = "code of our class minus code of theirs"
    if other.compares == "storage":
        described |= {"units": "m", "long_names": "thickness of ice, ours minus theirs"}
    change = (ours - theirs).astype(np.float32)
    write_raster(path, change, geobox, overviews="average", **described)
    top = np.nanmax(np.abs(change), initial=0) or 1.0
    qgis.write_ramp_style(path, top, described["units"].strip("1"), "vik", bottom=-top)


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
