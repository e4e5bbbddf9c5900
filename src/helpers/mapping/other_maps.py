"""Our map beside one that somebody already has: areas, agreement, and where the two differ.

Theirs may be a raster, a layer of polygons, or a rule on one of the covariates, such as an air frost number above 0.5.
It is brought onto the reference grid: the nearest cell of classes, means of metres of ice.
"""

from functools import partial

import numpy as np
import pandas as pd
import rasterio
from rasterio.features import rasterize

from helpers.core import qgis, scores
from helpers.core.classes import NO_TYPE, TARGETS, layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import write_json
from helpers.core.grid import reference_grid
from helpers.core.rasters import warp, write_raster
from helpers.mapping.files import map_files
from helpers.prepare.registry import read_covariates

NO_DATA = 255


DIFFERENCE = {
    0: ("both without permafrost", "#e0e0e0"),
    1: ("permafrost on ours alone", "#0072b2"),
    2: ("permafrost on theirs alone", "#d55e00"),
    3: ("both with permafrost", "#4d4d4d"),
}
"""Difference of two maps of permafrost by code; colours of Okabe and Ito, which the colour-blind tell apart."""


class OtherMapError(CompendiumError):
    """A map that cannot be compared with ours."""


def difference_files(study):
    """Return the rasters of differences by the names of the other maps."""
    return {
        other.name: study.results_dir / "maps" / f"difference_{other.name.replace('-', '_')}.tif"
        for other in study.compare_with
    }


def read_other(study, other):
    """Return another map on the reference grid.

    Parameters
    ----------
    study : helpers.core.study.Study
    other : helpers.core.settings.OtherMap

    Returns
    -------
    numpy.ndarray of float, shape (y, x)
        Classes of ours (permafrost: 0 and 1), or metres of ice; NaN where theirs says nothing.

    Raises
    ------
    OtherMapError
        The layer or column is missing, a value has no class, or the map says nothing about the study area.
    helpers.core.rasters.RasterError, helpers.prepare.registry.CovariateError
        The file or covariate is missing or does not fit.
    """
    if other.covariate:
        values = read_covariates(study, [other.covariate])[other.covariate].to_numpy().astype(float)
    elif _is_polygons(other):
        values = _polygons(study, other)
    else:
        path = study.path(other.file)
        rule, decode = "average" if other.compares == "storage" else "nearest", partial(_as_floats, _nodata(path))
        values = warp(path, reference_grid(study), rule, 1, decode)
    known = np.isfinite(values)
    if other.above is not None:
        values = np.where(known, values > other.above, np.nan)
    elif other.classes and not _is_polygons(other):
        values = _recoded(other, values)
    if not np.isfinite(values).any():
        raise OtherMapError(
            f"The map {other.name} says nothing about the study area: none of its values is one of "
            f"{', '.join(other.classes) or 'its data'}.",
            "check its place, and the values in `classes`",
        )
    _check_codes(study, other, values)
    return values


def _is_polygons(other):
    return other.file.lower().endswith((".gpkg", ".shp", ".geojson", ".json", ".fgb"))


def _nodata(path):
    if not path.is_file():
        return None  # warp says which file is missing
    try:
        with rasterio.open(path) as source:
            return source.nodata
    except rasterio.errors.RasterioError:
        return None


def _as_floats(nodata, numbers):
    values = numbers.astype(np.float64)
    return values if nodata is None else np.where(values == nodata, np.nan, values)


def _recoded(other, values):
    """Return our codes of a raster's values; others are no data."""
    try:
        pairs = [(float(value), code) for value, code in other.classes.items()]
    except ValueError:
        raise OtherMapError(
            f"`classes` of the map {other.name} are not numbers: {', '.join(other.classes)}.",
            "name the values that the raster holds; names of classes are for polygons, with `column`",
        ) from None
    codes = np.full(values.shape, np.nan)
    for value, code in pairs:
        codes[values == value] = code
    return codes


def _polygons(study, other):
    """Return what polygons say at the cells' centres: our codes by `classes`, or else the column's numbers."""
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    path, geobox = study.path(other.file), reference_grid(study)
    try:
        table = geopandas.read_file(path, **({"layer": other.layer} if other.layer else {}))
    except (DataSourceError, DataLayerError) as error:
        raise OtherMapError(f"{path.name} cannot be read: {error}", "correct `file` and `layer`") from None
    if not other.column or other.column not in table:
        raise OtherMapError(
            f"{path.name} has no column {other.column or '(none is named)'}.",
            f"set `column` to one of {', '.join(map(str, table.columns.drop('geometry')))}",
        )
    if table.crs is None:
        raise OtherMapError(f"{path.name} has no coordinate reference system.", "write the layer again with one")
    given = table[other.column]
    if other.classes:
        codes = given.map(lambda value: other.classes.get(f"{value:g}" if isinstance(value, float) else str(value)))
        if codes.isna().all():
            some = ", ".join(sorted({str(value) for value in given})[:5])
            raise OtherMapError(
                f"No value of {other.column} in {path.name} is one of `classes`; it has {some}.", "name these values"
            )
    else:
        codes = pd.to_numeric(given, errors="coerce")
        if codes.isna().all():
            raise OtherMapError(f"{other.column} of {path.name} holds no numbers.", "give `classes` for its values")
    kept = codes.notna() & ~table.geometry.is_empty
    shapes = list(zip(table.geometry[kept].to_crs(geobox.crs.to_wkt()), codes[kept].astype(float), strict=True))
    return rasterize(shapes, geobox.shape, fill=np.nan, transform=geobox.transform, dtype="float64")


def _check_codes(study, other, values):
    if other.compares == "storage":
        return
    allowed = [0, 1] if other.compares == "permafrost" else list(TARGETS[study.target].codes)
    found = np.unique(values[np.isfinite(values)])
    if wrong := [f"{code:g}" for code in found if code not in allowed]:
        raise OtherMapError(
            f"The map {other.name} has the codes {', '.join(wrong[:5])}; ours has {allowed[0]}-{allowed[-1]}.",
            "correct the codes in `classes`",
        )


def read_ours(study, other):
    """Return of our map what another one is compared with, as `read_other` returns theirs."""
    files, target = map_files(study), TARGETS[study.target]
    if other.compares == "storage":
        return _read(files["ice_storage"]).astype(float)
    layers = study.layers
    if other.compares == "class":
        layers = [layer for layer in study.layers if layer == other.depth]
        if not layers:
            names = ", ".join(map(layer_name, study.layers))
            raise OtherMapError(
                f"The map {other.name} is of {layer_name(other.depth)}; ours has the layers {names}.",
                "set `depth` to one of them",
            )
    classes = np.stack([_read(files[f"{target.file_name}_{layer_name(layer)}"]) for layer in layers])
    known = (classes != NO_TYPE).all(axis=0)
    # Permafrost in any layer is permafrost.
    codes = classes[0] if other.compares == "class" else (classes > 0).any(axis=0)
    return np.where(known, codes, np.nan)


def _read(path):
    with rasterio.open(path) as source:
        return source.read(1)


def compare(ours, theirs, codes, cell_km2):
    """Compare two maps of classes where both say something.

    Parameters
    ----------
    ours, theirs : numpy.ndarray of float, shape (y, x)
        Codes, NaN for no data.
    codes : sequence of int
        All classes.
    cell_km2 : float
        Area of a cell.

    Returns
    -------
    dict
        ``km2`` of the common area; for each class its area on our map (``ours_km2``), on theirs (``theirs_km2``), and
        the ``overlap`` (the area that both give it, as a share of that which either does); ``confusion_km2`` (rows
        ours, columns theirs), ``agreement``, ``kappa``, and quantity and allocation disagreement.
    """
    both = np.isfinite(ours) & np.isfinite(theirs)
    count = scores.confusion_matrix(theirs[both].astype(int), ours[both].astype(int), codes)
    matrix, shared = count * cell_km2, np.diag(count)
    either = count.sum(axis=0) + count.sum(axis=1) - shared
    return {
        "km2": matrix.sum(),
        "ours_km2": matrix.sum(axis=1),
        "theirs_km2": matrix.sum(axis=0),
        "overlap": [part / whole if whole else None for part, whole in zip(shared, either, strict=True)],
        "confusion_km2": matrix,
        "agreement": scores.overall_accuracy(count),
        "kappa": scores.kappa(count),
        "quantity_disagreement": scores.quantity_disagreement(count),
        "allocation_disagreement": scores.allocation_disagreement(count),
    }


def compare_all(study):
    """Compare our map with all of `compare_with`: write ``other_maps.json`` and a raster of each difference.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict
        By name of the other map: the result of `compare` with the names of the ``classes``; or of storage, the
        common area, both totals in km3 of ice, and of the difference in m of ice (ours minus theirs) the mean and
        the root mean square.
    """
    record, geobox, cell = {}, reference_grid(study), study.grid.resolution**2 / 1e6
    for other in study.compare_with:
        ours, theirs = read_ours(study, other), read_other(study, other)
        both = np.isfinite(ours) & np.isfinite(theirs)
        written = {"names": f"difference from {other.name}", "units": "1", "study": study}
        if other.compares == "storage":
            change = np.where(both, ours - theirs, np.nan).astype(np.float32)
            record[other.name] = _storage(ours[both], theirs[both], cell)
            written |= {"units": "m", "long_names": "thickness of ice, ours minus theirs"}
        else:
            target = TARGETS["permafrost" if other.compares == "permafrost" else study.target]
            names = [kind.name for kind in target.classes]
            record[other.name] = {"classes": names} | compare(ours, theirs, target.codes, cell)
            if other.compares == "permafrost":
                change = np.full(ours.shape, NO_DATA, np.uint8)
                change[both] = ours[both] + 2 * theirs[both]
                written |= {"nodata": NO_DATA, "legend": DIFFERENCE}
            else:
                change = np.where(both, ours - theirs, np.nan).astype(np.float32)
                written |= {"long_names": "code of our class minus code of theirs"}
        path = difference_files(study)[other.name]
        write_raster(path, change, geobox, **written)
        if "legend" in written:
            qgis.write_class_style(path, DIFFERENCE)
        else:
            top = np.abs(change[both]).max(initial=0) or 1.0
            qgis.write_ramp_style(path, top, written["units"].replace("1", ""), "vik", bottom=-top)
    write_json(study.results_dir / "tables" / "other_maps.json", record)
    return record


def _storage(ours, theirs, cell):
    change = ours - theirs
    return {
        "km2": len(ours) * cell,
        "ours_km3": ours.sum() * cell / 1000,
        "theirs_km3": theirs.sum() * cell / 1000,
        "mean_difference_m": change.mean(),
        "rms_difference_m": np.sqrt((change**2).mean()),
    }


def summary(record):
    """Return one row a map of classes, with agreement, kappa and the area of permafrost on both, in km2."""
    rows = {
        name: {
            "km2": found["km2"],
            "agreement": found["agreement"],
            "kappa": found["kappa"],
            "permafrost_ours_km2": sum(found["ours_km2"][1:]),
            "permafrost_theirs_km2": sum(found["theirs_km2"][1:]),
        }
        for name, found in record.items()
        if "kappa" in found
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")
