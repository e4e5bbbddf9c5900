"""Samples from training areas, and from cells that are free of permafrost."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyproj
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from helpers.core.classes import layer_name
from helpers.core.errors import listed
from helpers.core.grid import area_mask, cell_centres, crs_wkt, named_crs, reference_grid
from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.prepare.domain import cells_in_and_out
from helpers.samples.columns import SampleError, ice_type_code
from helpers.samples.labels import content_of_type
from helpers.samples.store import LABEL_COLUMNS

if TYPE_CHECKING:
    import geopandas


def label_areas(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    """Return labels from the study's training areas: polygons whose ice type somebody mapped.

    `samples.areas` names a vector file with the column `samples.class_column`, and where types are
    not the same in all layers a column ``layer``, such as 2-3m. Labels are as from `label_layers`,
    a row a cell and layer, of at most `samples.cells_per_area` random cells a polygon, with the
    column `group`, one for each polygon. Empty where the study has no areas.

    Raises
    ------
    SampleError
        The file is missing or lacks the column; a polygon has no type or layer of the study, no
        geometry, lies outside of the study area, or overlaps one of another type.
    """
    if not study.samples.areas:
        return _no_labels()
    file, areas = study.path(study.samples.areas).name, _read_areas(study)
    geobox = reference_grid(study)
    inside = area_mask(study, geobox).ravel()
    layers = [layer_name(layer) for layer in study.layers]
    most = study.samples.cells_per_area
    parts = []
    for number, area in enumerate(areas.itertuples(), start=1):
        cells = _cells_of(area.geometry, geobox)
        cells = cells[inside[cells]]
        if not cells.size:
            message = f"{file}, feature {number}, lies outside of the study area."
            raise SampleError(message, "leave it out, or correct its CRS")
        chosen = rng.choice(cells, most, replace=False) if cells.size > most else cells
        part = pd.DataFrame({"group": f"area-{number}", "cell": cells, "ice_type": area.code})
        part["chosen"] = np.isin(cells, chosen)
        parts += [part.assign(layer=layer) for layer in ([area.layer] if area.layer else layers)]
    table = pd.concat(parts, ignore_index=True)
    types = table.groupby(["cell", "layer"])["ice_type"]
    twice = table[types.transform("min") < types.transform("max")]
    if len(twice):
        numbers = listed(twice["group"].str.removeprefix("area-").drop_duplicates())
        message = f"Features {numbers} of {file} give cells different types."
        raise SampleError(message, "let polygons not overlap")
    table = table[table["chosen"]].drop_duplicates(["cell", "layer"])
    table["site_id"] = table["group"] + "-" + table["cell"].astype(str)
    return _as_labels(study, table, geobox, "training area")


def _no_labels() -> pd.DataFrame:
    """Return no rows, with the types of a filled table: labels joined to them keep theirs."""
    text = dict.fromkeys(("site_id", "layer", "reason", "group"), object)
    kinds = dict.fromkeys(LABEL_COLUMNS, float) | text | {"ice_type": int}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _read_areas(study: Study) -> "geopandas.GeoDataFrame":
    """Return the polygons in the grid's CRS, with `code` and `layer`."""
    import geopandas

    path, column = study.path(study.samples.areas), study.samples.class_column
    remedy = "name a GeoPackage, GeoJSON or shapefile of polygons as samples.areas"
    try:
        areas = geopandas.read_file(path)
    except Exception as error:  # the readers' errors are of many classes
        message = f"The training areas {path.name} are not readable: {error}"
        raise SampleError(message, remedy) from None
    if not isinstance(areas, geopandas.GeoDataFrame):
        raise SampleError(f"The training areas {path.name} hold no polygons.", remedy)
    names = {column.lower(): column, "layer": "layer"}
    areas = areas.rename(columns=lambda name: names.get(name.lower(), name))
    if column not in areas:
        others = listed(areas.columns.drop(areas.geometry.name))
        message = f"{path.name} has no column {column}, but {others}."
        raise SampleError(message, "set samples.class_column")
    types = areas[column].astype(object).where(areas[column].notna(), "").astype(str)
    areas["code"] = types.map(ice_type_code)
    areas["layer"] = areas["layer"].fillna("").astype(str) if "layer" in areas else ""
    layers = [layer_name(layer) for layer in study.layers]
    polygons = areas.geometry.geom_type.isin(("Polygon", "MultiPolygon")) & ~areas.geometry.is_empty
    wrong = {
        f"no ice type in {column}": areas["code"].isna(),
        f"no layer of the study ({listed(layers)})": ~areas["layer"].isin(["", *layers]),
        "no polygon": ~polygons,
    }
    for what, rows in wrong.items():
        if rows.any():
            numbers = listed(np.flatnonzero(rows) + 1)
            raise SampleError(f"{path.name}, features {numbers}: {what}.", "correct these features")
    if areas.crs is None:
        raise SampleError(f"{path.name} has no coordinate reference system.", "save it with one")
    return areas.astype({"code": int}).to_crs(study.grid.crs)


def _cells_of(shape: BaseGeometry, geobox: GeoBox) -> np.ndarray:
    """Return flat indices of the cells with their centre in a polygon; of a tiny one, its cell."""
    grid = {"out_shape": geobox.shape, "transform": geobox.transform, "dtype": "uint8"}
    mask = rasterize([shape], **grid)
    if not mask.any():
        mask = rasterize([shape.representative_point()], **grid)
    return np.flatnonzero(mask)


def _as_labels(study: Study, table: pd.DataFrame, geobox: GeoBox, reason: str) -> pd.DataFrame:
    """Return labels at the centres of cells, from their `cell`, `layer` and `ice_type`."""
    easting, northing = cell_centres(geobox)
    row, column = np.divmod(table["cell"].to_numpy(int), geobox.shape[1])
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(easting[column], northing[row])
    content, error = content_of_type(study, table["ice_type"])
    icy = (table["ice_type"] > 0).to_numpy()
    labels = table.assign(
        longitude=longitude,
        latitude=latitude,
        ice_content=np.where(icy, content, np.nan),
        ice_content_sd=np.where(icy, error, np.nan),
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
    ``refuse`` raises SampleError. Labels with class 0 in each layer come back unchanged.
    """
    layers = [layer_name(layer) for layer in study.layers]
    if empty := [name for name in layers if name not in set(labels["layer"])]:
        raise SampleError(
            f"No hole gives a label in {listed(empty)}.",
            "add deeper boreholes, or leave these layers out of `layers`; see the counts by reason",
        )
    free = labels.loc[labels["ice_type"] == 0, "layer"]
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
    table = pd.DataFrame({"site_id": names, "group": names, "cell": cells, "ice_type": 0})
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
    with rasterio.open(path) as source:
        crs = source.crs.to_wkt()
    easting, northing = (values.ravel() for values in np.meshgrid(*cell_centres(geobox)))
    step = pyproj.Transformer.from_crs(crs_wkt(geobox), crs, always_xy=True)
    # Outside of the mask, and where it has no data, permafrost is possible.
    return (values_at(path, *step.transform(easting, northing)) == 0).reshape(geobox.shape)
