"""Samples from places and polygons with a known class, and from cells without permafrost."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyproj
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from helpers.core.classes import layer_name
from helpers.core.errors import listed
from helpers.core.features import FeatureError, read_features
from helpers.core.grid import (
    area_mask,
    cell_centres,
    crs_wkt,
    named_crs,
    reference_grid,
    reprojected,
)
from helpers.core.points import values_at
from helpers.core.rasters import BLOCK
from helpers.core.study import Study
from helpers.core.user_rasters import Reading, open_source, source_crs
from helpers.prepare.domain import cells_in_and_out
from helpers.samples.checks import datum_shift, to_wgs84
from helpers.samples.columns import KINDS, SampleError, class_code
from helpers.samples.labels import content_of_type
from helpers.samples.readers import read_places
from helpers.samples.store import LABEL_COLUMNS

if TYPE_CHECKING:
    import geopandas

YIELDED = "smaller than a cell, which another area has"

_TABLES = (".csv", ".txt", ".xlsx", ".xls")

_SHAPES = {"point": ("Point", "MultiPoint"), "area": ("Polygon", "MultiPolygon")}


def label_features(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    """Return labels from points and polygons whose class somebody knows.

    `samples.points` and `samples.areas` name files with the column `samples.class_column`, and
    where classes are not the same in all layers a column ``layer``, such as 2-3m. A polygon gives
    at most `samples.cells_per_area` random cells. One that is smaller than a cell takes the cell
    that it lies in, and yields where another polygon has it.

    Returns
    -------
    pandas.DataFrame
        As from `helpers.samples.store.read_labels`, a row a cell and layer, with the column
        `group`: one for each point and polygon. Samples of a group are one unit, which no split
        and no fold parts. Polygons that yielded have no `ice_type`, and `reason` says why. No rows
        where the study names neither file.

    Raises
    ------
    SampleError
        A file is missing or lacks the column; a feature has no class or layer of the study, no
        place, lies outside of the study area, or overlaps one of another class.
    """
    tables = [_no_labels()]
    for kind in _SHAPES:
        if path := getattr(study.samples, f"{kind}s"):
            features = _read_features(study, study.path(path), kind)
            cells = _cells_by_feature(study, features, study.path(path).name, kind)
            draw = pd.Series(rng.random(len(cells)), cells.index)
            each = draw.groupby([cells["number"], cells["layer"]], observed=True)
            chosen = cells[each.rank(method="first") <= study.samples.cells_per_area]
            chosen = _named(chosen, kind)
            labels = _as_labels(study, chosen, reference_grid(study), f"known {kind}")
            yielded = chosen["yields"].to_numpy(bool)
            labels.loc[yielded, "reason"] = YIELDED
            labels["ice_type"] = labels["ice_type"].where(~yielded)
            tables.append(labels)
    return pd.concat(tables, ignore_index=True)


def datum_remarks(study: Study) -> list[str]:
    """Return how the datums of `samples.points` and `samples.areas` were brought to WGS 84.

    A sentence for each file of another datum. SampleError or FeatureError if a file is not
    readable.
    """
    told = []
    for kind in _SHAPES:
        if setting := getattr(study.samples, f"{kind}s"):
            path = study.path(setting)
            table = _is_table(path, kind)
            shapes = (_table_points(study, path) if table else read_features(path)).geometry
            if shapes.crs is None:
                continue
            centres = shapes.to_crs(4326).representative_point()
            place = centres.x.to_numpy(float), centres.y.to_numpy(float)
            if shift := datum_shift(study.samples.epsg if table else shapes.crs, *place):
                _, problem, remedy = KINDS["datum shift"]
                told.append(f"{path.name}: {problem} ({shift}); {remedy}")
    return told


def _is_table(path: Path, kind: str) -> bool:
    return kind == "point" and path.suffix.lower() in _TABLES


def _no_labels() -> pd.DataFrame:
    """Return no rows, with the types of a filled table: labels joined to them keep theirs."""
    text = dict.fromkeys(("site_id", "layer", "reason", "group"), object)
    kinds = dict.fromkeys(LABEL_COLUMNS, float) | text
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _read_features(
    study: Study, path: Path, kind: Literal["point", "area"]
) -> "geopandas.GeoDataFrame":
    """Return points or polygons in the grid's CRS, with `code` and `layer`."""
    import geopandas

    column, setting = study.samples.class_column, f"samples.{kind}s"
    remedy = f"name a GeoPackage, GeoJSON or shapefile of {kind}s as {setting}"
    try:
        features = _table_points(study, path) if _is_table(path, kind) else read_features(path)
    except SampleError:
        raise
    except FeatureError as error:
        raise SampleError(f"{setting}: {error.message}", f"{error.remedy}; {remedy}") from None
    except Exception as error:  # the readers' errors are of many classes
        message = f"{setting}, {path.name}, is not readable: {error}"
        raise SampleError(message, remedy) from None
    if not isinstance(features, geopandas.GeoDataFrame):
        raise SampleError(f"{setting}, {path.name}, holds no {kind}s.", remedy)
    names = {column.lower(): column, "layer": "layer"}
    features = features.rename(columns=lambda name: names.get(name.lower(), name))
    if column not in features:
        others = listed(features.columns.drop(features.geometry.name))
        message = f"{path.name} has no column {column}, but {others}."
        raise SampleError(message, "set samples.class_column")
    words = features[column].astype(object).where(features[column].notna(), "").astype(str)
    features["code"] = words.map(lambda word: class_code(study, word))
    features["layer"] = features["layer"].fillna("").astype(str) if "layer" in features else ""
    layers = [layer_name(layer) for layer in study.layers]
    shapes = features.geometry.geom_type.isin(_SHAPES[kind]) & ~features.geometry.is_empty
    unknown = features["code"].isna()
    classes = listed([one.name for one in study.sample_types], 10)
    wrong = {
        f"no class in {column}, but {listed(words[unknown].unique())}; classes are {classes}": (
            unknown,
            "correct these features, or name the class in `classes` of the study file",
        ),
        f"no layer of the study ({listed(layers)})": (
            ~features["layer"].isin(["", *layers]),
            "correct these features",
        ),
        f"no {kind}": (~shapes, "correct these features"),
    }
    for what, (rows, remedy) in wrong.items():
        if rows.any():
            numbers = listed(np.flatnonzero(rows) + 1)
            raise SampleError(f"{path.name}, features {numbers}: {what}.", remedy)
    if features.crs is None:
        raise SampleError(f"{path.name} has no coordinate reference system.", "save it with one")
    shapes = reprojected(features.geometry, named_crs(study.grid.crs), study.grid.resolution)
    return features.astype({"code": int}).set_geometry(shapes)


def _table_points(study: Study, path: Path) -> "geopandas.GeoDataFrame":
    """Return the rows of a CSV or Excel table as points."""
    import geopandas

    table = read_places(path, study.samples.epsg)
    place = [pd.to_numeric(table[name], errors="coerce") for name in ("longitude", "latitude")]
    bad = place[0].isna() | place[1].isna()
    if bad.any():
        rows = listed(table.index[bad])
        raise SampleError(f"{path.name}, rows {rows}: no coordinates.", "write plain numbers")
    longitude, latitude = to_wgs84(study, *(values.to_numpy(float) for values in place))
    points = geopandas.points_from_xy(longitude, latitude, crs="EPSG:4326")
    return geopandas.GeoDataFrame(table.reset_index(drop=True), geometry=points)


def _cells_by_feature(
    study: Study, features: "geopandas.GeoDataFrame", file: str, kind: str
) -> pd.DataFrame:
    """Return a row for each feature, layer and cell: number, layer, cell and ice_type.

    The number is that of the feature, from 1. A polygon has the cells whose centre it holds, a tiny
    one the cell that it lies in; `yields` says where another polygon has that cell.
    """
    geobox = reference_grid(study)
    inside = area_mask(study, geobox).ravel()
    layers = [layer_name(layer) for layer in study.layers]
    rows, outside = [], []
    for number, feature in enumerate(features.itertuples(), start=1):
        cells = _cells_in(geobox, feature.geometry)
        tiny = kind == "area" and not cells.size
        if tiny:
            cells = _cells_in(geobox, feature.geometry.representative_point())
        cells = cells[inside[cells]]
        if not cells.size:
            outside.append(number)
        part = pd.DataFrame({"cell": cells, "ice_type": np.int16(feature.code), "tiny": tiny})
        part["number"] = np.int32(number)
        own = [feature.layer] if feature.layer else layers
        for one in own:
            code = np.full(len(part), layers.index(one), np.int8)
            rows.append(part.assign(layer=pd.Categorical.from_codes(code, layers)))
    if outside:
        message = f"{file}, features {listed(outside)}: they lie outside of the study area."
        raise SampleError(message, "leave them out, or correct the file's CRS")
    table = pd.concat(rows, ignore_index=True).assign(yields=False)
    if kind == "area":
        # The larger ones first: of what shares a cell the first one has it.
        table = table.sort_values(["layer", "cell", "tiny"], kind="stable")
        again = table.duplicated(["layer", "cell"])
        large = table[~table["tiny"]]
        same = large.duplicated(["layer", "cell"]).to_numpy()
        other = same & (large["ice_type"].diff() != 0).to_numpy()
        if other.any():
            both = large["number"].to_numpy()[other | np.append(other[1:], False)]
            message = f"Features {listed(np.unique(both))} of {file} overlap, "
            raise SampleError(f"{message}and are of different classes.", "let polygons not overlap")
        table["yields"] = again & table["tiny"]
        table = table[~again | table["tiny"]].sort_index()
    return table


def _named(cells: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Add the names of group and site, and the layer as text."""
    group = kind + "-" + cells["number"].astype(str)
    site = group + "-" + cells["cell"].astype(str) if kind == "area" else group
    return cells.assign(group=group, site_id=site, layer=cells["layer"].astype(str))


def _cells_in(geobox: GeoBox, shape: BaseGeometry) -> np.ndarray:
    """Return the flat indices of the cells of a grid that have their centre in a shape, or hold it.

    Only the part of the grid around it is drawn, so that many small shapes on a large grid are
    quick.
    """
    left, low, right, high = shape.bounds
    columns, rows = ~geobox.transform * (np.array([left, right]), np.array([high, low]))
    place = []
    for ends, size in ((rows, geobox.shape.y), (columns, geobox.shape.x)):
        first, last = np.clip([np.floor(ends.min()) - 1, np.ceil(ends.max()) + 1], 0, size)
        place.append(slice(int(first), int(last)))
    part = geobox[tuple(place)]
    if not math.prod(part.shape):
        return np.empty(0, int)
    burnt = rasterize([shape], part.shape, transform=part.transform, dtype="uint8")
    row, column = np.divmod(np.flatnonzero(burnt), part.shape.x)
    return (row + place[0].start) * geobox.shape.x + column + place[1].start


def _as_labels(study: Study, table: pd.DataFrame, geobox: GeoBox, reason: str) -> pd.DataFrame:
    """Return labels at the centres of cells, from their `cell`, `layer` and `ice_type`."""
    easting, northing = cell_centres(geobox)
    row, column = np.divmod(table["cell"].to_numpy(int), geobox.shape[1])
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(easting[column], northing[row])
    content = content_of_type(study, table["ice_type"])
    icy = study.permafrost_types[table["ice_type"].to_numpy(int)]
    labels = table.assign(
        longitude=longitude,
        latitude=latitude,
        ice_content=np.where(icy, content, np.nan),
        permafrost_share=icy.astype(float),
        ice_fraction=np.where(icy, content, 0.0),
        sampled_share=1.0,
        reason=reason,
    )
    return labels[[*LABEL_COLUMNS, "group"]]


def add_absences(study: Study, labels: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Add samples without permafrost to the layers that have none: a forest needs every class.

    By `samples.absences` they are random cells without permafrost in `samples.permafrost_mask`
    (``mask``) or outside of the potential-permafrost domain (``pseudo``), flagged in `reason`;
    ``refuse`` raises SampleError. Labels with such a class in each layer come back unchanged.
    """
    layers = [layer_name(layer) for layer in study.layers]
    if empty := [name for name in layers if name not in set(labels["layer"])]:
        raise SampleError(
            f"No hole gives a label in {listed(empty)}.",
            "add deeper boreholes, or leave these layers out of `layers`; see the counts by reason",
        )
    free = labels.loc[~study.permafrost_types[labels["ice_type"].to_numpy(int)], "layer"]
    without = [name for name in layers if name not in set(free)]
    if not without:
        return labels
    if study.samples.absences == "refuse":
        raise SampleError(
            f"All samples of {listed(without)} have permafrost, so a map would have it everywhere.",
            "add boreholes without permafrost, or set samples.absences to mask or pseudo",
        )
    geobox = reference_grid(study)
    pool = np.flatnonzero(_permafrost_free(study, geobox) & area_mask(study, geobox))
    if not pool.size:
        message = "No cell is known to be free of permafrost."
        raise SampleError(message, "correct samples.permafrost_mask")
    cells = rng.choice(pool, min(study.samples.absence_sites, pool.size), replace=False)
    names = [f"absence-{number + 1}" for number in range(cells.size)]
    table = pd.DataFrame({"site_id": names, "group": names, "cell": cells})
    table["ice_type"] = int(np.flatnonzero(~study.permafrost_types)[0])
    table = table.merge(pd.DataFrame({"layer": without}), how="cross")
    flag = "permafrost mask" if study.samples.absences == "mask" else "pseudo-absence"
    return pd.concat([labels, _as_labels(study, table, geobox, flag)], ignore_index=True)


def _permafrost_free(study: Study, geobox: GeoBox) -> np.ndarray:
    """Return which cells have no permafrost, shape (y, x)."""
    if study.samples.absences == "pseudo":
        return cells_in_and_out(study)[1]
    path = study.path(study.samples.permafrost_mask)
    if not (study.samples.permafrost_mask and path.is_file()):
        raise SampleError(
            f"There is no permafrost mask {path.name}.",
            "name a raster as samples.permafrost_mask: 0 is no permafrost",
        )
    with open_source(path, Reading()) as source:
        crs = source_crs(source).to_wkt()
    easting, northings = cell_centres(geobox)
    step = pyproj.Transformer.from_crs(crs_wkt(geobox), crs, always_xy=True)
    free = np.empty(geobox.shape, bool)
    for top in range(0, len(northings), BLOCK[0]):
        rows = slice(top, top + BLOCK[0])
        place = (values.ravel() for values in np.meshgrid(easting, northings[rows]))
        # Outside of the mask, and where it has no data, permafrost is possible.
        free[rows].flat = values_at(path, *step.transform(*place)) == 0
    return free
