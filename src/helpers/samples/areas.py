"""Samples from training areas, and cells that are known to be free of permafrost."""

import numpy as np
import pandas as pd
import pyproj
import rasterio
from rasterio.features import rasterize

from helpers.core.classes import layer_name
from helpers.core.errors import listed
from helpers.core.grid import area_mask, cell_centres, named_crs, reference_grid
from helpers.core.points import values_at
from helpers.prepare.registry import read_covariates
from helpers.samples.columns import SampleError, ice_type_code
from helpers.samples.labels import content_of_type
from helpers.samples.store import LABEL_COLUMNS


def label_areas(study, rng):
    """Return samples from the study's training areas: polygons whose ice type somebody mapped.

    Parameters
    ----------
    study : helpers.core.study.Study
        `samples.areas` names a vector file with the column `samples.class_column`, and where types are not the same in
        all layers a column ``layer``, such as 2-3m.
    rng : numpy.random.Generator
        Draws at most `samples.cells_per_area` cells of each polygon.

    Returns
    -------
    pandas.DataFrame
        Labels as `label_layers` returns them, a row a cell and layer, and the column `group`, one for each polygon.
        Empty where the study has no areas.

    Raises
    ------
    SampleError
        The file is missing or lacks the column; a polygon has no known type or layer, no geometry, lies outside of the
        study area, or covers a cell that another polygon gives another type.
    """
    if not study.samples.areas:
        # With the types of a filled table, so that the labels keep theirs when the two are joined.
        text = dict.fromkeys(("site_id", "layer", "reason", "group"), object)
        kinds = dict.fromkeys(LABEL_COLUMNS, float) | text | {"ice_type": int}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    areas, file = _read_areas(study)
    geobox, inside = reference_grid(study), area_mask(study, reference_grid(study))
    names, parts = [layer_name(layer) for layer in study.layers], []
    for number, area in enumerate(areas.itertuples(), start=1):
        cells = _cells_of(area.geometry, geobox)
        cells = cells[inside.ravel()[cells]]
        if not cells.size:
            raise SampleError(
                f"{file}, feature {number}, lies outside of the study area.", "leave it out, or correct its CRS"
            )
        most = study.samples.cells_per_area
        chosen = np.sort(rng.choice(cells, most, replace=False)) if cells.size > most else cells
        for layer in [area.layer] if area.layer else names:
            part = {"group": f"area-{number}", "cell": cells, "layer": layer, "ice_type": area.code}
            parts.append(pd.DataFrame(part | {"drawn": np.isin(cells, chosen)}))
    table = pd.concat(parts, ignore_index=True)
    types = table.groupby(["cell", "layer"])["ice_type"]
    twice = table[types.transform("min") < types.transform("max")]
    if len(twice):
        listing = listed(twice["group"].str.removeprefix("area-").drop_duplicates())
        raise SampleError(f"Features {listing} of {file} give cells different types.", "let polygons not overlap")
    table = table[table.pop("drawn")].drop_duplicates(["cell", "layer"])
    table["site_id"] = table["group"] + "-" + table["cell"].astype(str)
    return _as_labels(study, table, geobox, "training area")


def _read_areas(study):
    """Return the polygons in the grid's CRS, with `code` and `layer`, and the name of their file."""
    import geopandas

    path, column = study.path(study.samples.areas), study.samples.class_column
    remedy = "name a GeoPackage, GeoJSON or shapefile of polygons as samples.areas"
    try:
        areas = geopandas.read_file(path)
    # The readers' errors are of many classes.
    except Exception as error:
        raise SampleError(f"The training areas {path.name} are not readable: {error}", remedy) from None
    if not isinstance(areas, geopandas.GeoDataFrame):
        raise SampleError(f"The training areas {path.name} hold no polygons.", remedy)
    areas = areas.rename(
        columns={name: name.lower() for name in areas.columns if name.lower() in (column.lower(), "layer")}
    )
    areas = areas.rename(columns={column.lower(): column})
    if column not in areas:
        given = listed(areas.columns.drop(areas.geometry.name))
        raise SampleError(f"{path.name} has no column {column}, but {given}.", "set samples.class_column")
    areas["code"] = areas[column].astype(object).where(areas[column].notna(), "").astype(str).map(ice_type_code)
    areas["layer"] = areas["layer"].fillna("").astype(str) if "layer" in areas else ""
    layers = ["", *(layer_name(layer) for layer in study.layers)]
    wrong = {
        f"no ice type in {column}": areas["code"].isna(),
        f"no layer of the study ({listed(layers[1:])})": ~areas["layer"].isin(layers),
        "no polygon": ~areas.geometry.geom_type.isin(("Polygon", "MultiPolygon")) | areas.geometry.is_empty,
    }
    for what, rows in wrong.items():
        if rows.any():
            numbers = listed(np.flatnonzero(rows) + 1)
            raise SampleError(f"{path.name}, features {numbers}: {what}.", "correct these features")
    if areas.crs is None:
        raise SampleError(f"{path.name} has no coordinate reference system.", "save it with one")
    return areas.astype({"code": int}).to_crs(study.grid.crs), path.name


def _cells_of(shape, geobox):
    """Return flat indices of the cells whose centre lies in a polygon; of a tiny one, the cell that it lies in."""
    mask = rasterize([shape], geobox.shape, transform=geobox.transform, dtype="uint8")
    if not mask.any():
        mask = rasterize([shape.representative_point()], geobox.shape, transform=geobox.transform, dtype="uint8")
    return np.flatnonzero(mask)


def _as_labels(study, table, geobox, reason):
    """Return labels at the centres of cells, from their `cell`, `layer` and `ice_type`."""
    easting, northing = cell_centres(geobox)
    row, column = np.divmod(table["cell"].to_numpy(int), geobox.shape[1])
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(easting[column], northing[row])
    content, error = content_of_type(study, table["ice_type"])
    some = (table["ice_type"] > 0).to_numpy()
    return table.drop(columns="cell").assign(
        longitude=longitude,
        latitude=latitude,
        ice_content=np.where(some, content, np.nan),
        ice_content_sd=np.where(some, error, np.nan),
        permafrost_share=some.astype(float),
        ice_fraction=np.where(some, content, 0.0),
        sampled_share=1.0,
        reason=reason,
    )[[*LABEL_COLUMNS, "group"]]


def add_absences(study, labels, rng):
    """Make sure that each layer has samples without permafrost, for a forest cannot learn a class that it never sees.

    Parameters
    ----------
    study : helpers.core.study.Study
        By `samples.absences`: ``refuse`` such tables; take cells without permafrost from `samples.permafrost_mask`
        (``mask``); or take cells outside of the potential-permafrost domain (``pseudo``). The last two are drawn at
        random and flagged in `reason`.
    labels : pandas.DataFrame
        As `label_layers` returns them.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        The labels, unchanged where each layer has class 0.

    Raises
    ------
    SampleError
        A layer has no sample without permafrost and the setting is ``refuse``, or the mask has no such cell.
    """
    names = [layer_name(layer) for layer in study.layers]
    if nothing := [name for name in names if not (labels["layer"] == name).any()]:
        raise SampleError(
            f"No hole gives a label in {listed(nothing)}.",
            "add deeper holes, or leave these layers out of `layers`; the counts by reason say what the holes lack",
        )
    without = [name for name in names if not ((labels["layer"] == name) & (labels["ice_type"] == 0)).any()]
    if not without:
        return labels
    if study.samples.absences == "refuse":
        raise SampleError(
            f"All samples of {listed(without)} have permafrost, so a map would have it everywhere.",
            "add holes without permafrost, or set samples.absences to mask or pseudo",
        )
    geobox = reference_grid(study)
    pool = np.flatnonzero(_permafrost_free(study, geobox) & area_mask(study, geobox))
    if not pool.size:
        raise SampleError("No cell is known to be free of permafrost.", "correct samples.permafrost_mask")
    cells = rng.choice(pool, min(study.samples.absence_sites, pool.size), replace=False)
    table = pd.DataFrame({"site_id": [f"absence-{n + 1}" for n in range(cells.size)], "cell": cells, "ice_type": 0})
    table = table.merge(pd.DataFrame({"layer": without}), how="cross").assign(group=lambda t: t["site_id"])
    flag = "permafrost mask" if study.samples.absences == "mask" else "pseudo-absence"
    return pd.concat([labels, _as_labels(study, table, geobox, flag)], ignore_index=True)


def _permafrost_free(study, geobox):
    if study.samples.absences == "pseudo":
        rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
        return rule <= study.domain.above
    path = study.path(study.samples.permafrost_mask)
    if not (study.samples.permafrost_mask and path.is_file()):
        raise SampleError(
            f"There is no permafrost mask {path.name}.", "name a raster as samples.permafrost_mask: 0 is no permafrost"
        )
    with rasterio.open(path) as source:
        crs = source.crs
    easting, northing = (values.ravel() for values in np.meshgrid(*cell_centres(geobox)))
    step = pyproj.Transformer.from_crs(geobox.crs.to_wkt(), crs.to_wkt(), always_xy=True)
    # Outside of the mask, and where it has no data, nothing is known.
    return (values_at(path, *step.transform(easting, northing)) == 0).reshape(geobox.shape)
