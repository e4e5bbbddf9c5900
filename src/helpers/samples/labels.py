"""Samples: from checked tables of boreholes and test pits to labels with covariates, and their split.

`helpers.samples.tables` reads and checks the tables. Depths are metres below the surface.
"""

import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pandas as pd

from helpers.core import ice
from helpers.core.code import write_text
from helpers.core.grid import THREADS, area_mask, cell_centres, named_crs, reference_grid
from helpers.core.ice import ice_type, layer_mean, layer_name, permafrost_part
from helpers.core.study import StudyError
from helpers.samples.tables import SampleError, ice_type_code, listed

SAMPLE_COLUMNS = (
    "site_id", "group", "layer", "longitude", "latitude", "easting", "northing", "ice_type", "ice_content",
    "ice_content_sd", "permafrost_share", "ice_fraction", "sampled_share", "reason", "in_domain", "split",
)  # fmt: skip
"""Columns of the sample table before its predictors."""


SAME_PLACE = 10.0
"""Two sites nearer to each other than this, in metres, are taken for one hole that was entered twice."""


NOT_REACHED = "the hole does not reach far enough into the layer"


TOO_LITTLE = "too little of the layer's permafrost was sampled"


UNKNOWN_STATE = "not known whether there is permafrost in the layer"


UNKNOWN_TABLE = "depth of the permafrost table unknown"


DUPLICATE = "another site in the same place"


MERGED = "merged: another site in the same cell"


THINNED = "training sample beyond `samples.train_share`"


_SLACK = 1e-6  # m; depths nearer than this are equal


_MAD_TO_SD = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


# --- Labels ------------------------------------------------------------------------------------------------


def label_layers(study, sites, intervals):
    """Give each site an ice type in each depth layer where the hole allows one.

    Parameters
    ----------
    study : helpers.core.study.Study
    sites, intervals : pandas.DataFrame
        As `read_tables` returns them.

    Returns
    -------
    labels : pandas.DataFrame
        One row a site and layer: site_id, layer, longitude, latitude, ice_type (0-5), ice_content (m3 m-3
        of the permafrost part, NaN for class 0) and its standard deviation by the errors of measurement,
        permafrost_share (of the layer's thickness), ice_fraction (their product), sampled_share (of the
        permafrost part; for class 0, how much of the layer the hole passed), reason (of class 0: ``talik``,
        ``above table`` or ``below base``; empty otherwise).
    lost : pandas.DataFrame
        The other pairs of site and layer: site_id, layer, reason.

    Notes
    -----
    A hole tells of a layer where it passed at least `ice.minimum_sampled_share` of it, whatever it found there, and
    what it passed stands for the rest. Were more asked of holes that met no permafrost, the samples would have more
    permafrost than the ground. Class 0 is an observation, never a lack of one: the permafrost table lies below the
    layer, its base above it, or the hole met no permafrost. A hole of which it is unknown whether it met permafrost
    gives class 0 only where its cores show unfrozen ground throughout, for frozen ground may be seasonal. Unfrozen
    cores within permafrost count as ice content 0.
    """
    pieces = _pieces_by_site(core_ice(study, intervals))
    labels, lost = [], []
    for site in sites.itertuples():
        for layer in study.layers:
            outcome = _label(site, layer, pieces.get(site.site_id, _NO_PIECES), study.ice)
            key = {"site_id": site.site_id, "layer": layer_name(layer)}
            if isinstance(outcome, str):
                lost.append(key | {"reason": outcome})
            else:
                labels.append(key | {"longitude": site.longitude, "latitude": site.latitude} | outcome)
    labels = pd.DataFrame(labels, columns=_LABEL_COLUMNS)
    for name in study.samples.more_columns:
        if name not in sites:
            raise SampleError(f"The table of sites has no column {name}.", "correct samples.more_columns")
        labels[name] = labels["site_id"].map(sites.set_index("site_id")[name])
    return labels, _lost_table(lost)


_LABEL_COLUMNS = [c for c in SAMPLE_COLUMNS if c not in ("group", "easting", "northing", "in_domain", "split")]


_NO_PIECES = np.empty((0, 5))


def core_ice(study, intervals):
    """Return pieces of core with their volumetric ice content and its error, however the ice was described.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its section `ice` has the errors of measurement, and the unfrozen water by texture.
    intervals : pandas.DataFrame
        As `helpers.samples.tables.read_tables` returns them.

    Returns
    -------
    pandas.DataFrame
        A copy with `ice_content` filled, in this order of preference: as measured; from water content, with the dry
        density or for saturated ground without it; the middle of a directly given ice type; 0 where unfrozen. New
        is `ice_content_sd`, m3 m-3: by first-order propagation, and for a given type of an even spread over its range.
    """
    settings, filled = study.ice, intervals.copy()
    optional = ["ice_content", "water_content", "dry_density", "ice_type", "texture"]
    intervals = intervals.reindex(columns=["frozen", *optional])
    content = intervals["ice_content"].to_numpy(float)
    error = np.where(np.isnan(content), np.nan, settings.ice_content_error)
    texture = intervals["texture"].where(intervals["texture"].isin(list(settings.unfrozen_water)), "unknown")
    water = intervals["water_content"].to_numpy(float)
    unfrozen = np.minimum(texture.map(settings.unfrozen_water).to_numpy(float), water)
    solids = np.where(texture == "peat", settings.organic_density, ice.SOLID_DENSITY)
    measured = {"water_content": water, "unfrozen_water_content": unfrozen}
    measured |= {"dry_density": intervals["dry_density"].to_numpy(float), "solid_density": solids}
    errors = (settings.water_content_error, settings.unfrozen_water_error, settings.dry_density_error)
    ways = [ice.content_with_error(**measured, errors=errors), _content_of_type(study, intervals["ice_type"])]
    for other, sd in ways:
        use = np.isnan(content) & ~np.isnan(other)
        content, error = np.where(use, other, content), np.where(use, sd, error)
    thawed = (intervals["frozen"] == "no") & (np.isnan(content) | intervals["ice_content"].isna())
    filled["ice_content"] = np.where(thawed, 0.0, content)
    filled["ice_content_sd"] = np.where(thawed, 0.0, error)
    return filled


def _content_of_type(study, types):
    """Return the middle of each ice type's range of contents, and the standard deviation of an even spread over it."""
    limits = np.array([0, *study.ice.thresholds, study.ice.richest])
    code = types.to_numpy(float)
    known = (code >= 1) & (code <= 5)
    place = np.where(known, code, 1).astype(int)
    low, high = limits[place - 1], limits[place]
    nothing = np.where(code == 0, 0.0, np.nan)
    return np.where(known, (low + high) / 2, nothing), np.where(known, (high - low) / np.sqrt(12), nothing)


def _pieces_by_site(intervals):
    """Return top, bottom, ice content, its error, and whether unfrozen (1 or 0) of each site's pieces of core."""
    columns = [intervals[name] for name in ("top_m", "bottom_m", "ice_content", "ice_content_sd")]
    table = np.column_stack([*columns, intervals["frozen"] == "no"])
    return {site: table[rows] for site, rows in intervals.groupby("site_id").indices.items()}


def _label(site, layer, pieces, settings):
    """Return a label's columns, or why there is none."""
    top, bottom = layer
    passed = float(np.clip((site.depth_reached_m - top) / (bottom - top), 0, 1))
    # Whatever the hole met: were less asked of those that met permafrost, samples would have too much of it.
    if passed < max(settings.minimum_sampled_share - _SLACK, _SLACK):
        return NOT_REACHED
    if site.permafrost == "no":
        return _class_zero("talik", passed)
    reached = min(bottom, site.depth_reached_m)
    if site.permafrost != "yes":
        unfrozen, share = layer_mean(pieces[:, [0, 1, 4]], top, reached)
        enough = unfrozen == 1 and share >= settings.minimum_sampled_share - _SLACK
        return _class_zero("talik", passed) if enough else UNKNOWN_STATE
    if np.isnan(site.permafrost_table_m):
        return UNKNOWN_TABLE
    upper, lower, share = permafrost_part(top, bottom, site.permafrost_table_m, site.permafrost_base_m)
    if share == 0:
        return _class_zero("above table" if site.permafrost_table_m >= bottom else "below base", passed)
    if reached <= upper:
        return NOT_REACHED
    _, cored = layer_mean(pieces[:, :3], upper, min(lower, reached))
    content, sampled = layer_mean(pieces[:, :3], upper, lower)
    if sampled == 0 or cored < settings.minimum_sampled_share - _SLACK:
        return TOO_LITTLE
    # One hole is one hand and one balance: its errors are taken to go together, so they do not average out.
    error, _ = layer_mean(pieces[:, [0, 1, 3]], upper, lower)
    return {"ice_type": ice_type(content, settings.thresholds), "ice_content": content, "ice_content_sd": error,
            "permafrost_share": share, "ice_fraction": content * share, "sampled_share": sampled,
            "reason": ""}  # fmt: skip


def _class_zero(reason, passed):
    return {"ice_type": 0, "ice_content": np.nan, "ice_content_sd": np.nan, "permafrost_share": 0.0,
            "ice_fraction": 0.0, "sampled_share": passed, "reason": reason}  # fmt: skip


def _lost_table(rows):
    return pd.DataFrame(rows, columns=["site_id", "layer", "reason"])


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
        kinds = dict.fromkeys(_LABEL_COLUMNS, float) | text | {"ice_type": int}
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
    from rasterio.features import rasterize

    mask = rasterize([shape], geobox.shape, transform=geobox.transform, dtype="uint8")
    if not mask.any():
        mask = rasterize([shape.representative_point()], geobox.shape, transform=geobox.transform, dtype="uint8")
    return np.flatnonzero(mask)


def _as_labels(study, table, geobox, reason):
    """Return labels at the centres of cells, from their `cell`, `layer` and `ice_type`."""
    import pyproj

    easting, northing = cell_centres(geobox)
    row, column = np.divmod(table["cell"].to_numpy(int), geobox.shape[1])
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(easting[column], northing[row])
    content, error = _content_of_type(study, table["ice_type"])
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
    )[[*_LABEL_COLUMNS, "group"]]


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
    import pyproj
    import rasterio

    from helpers.prepare.registry import read_covariates

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


# --- Covariates --------------------------------------------------------------------------------------------


def predictor_names(study):
    """Return the covariates that samples must have and that forests may use, in their order.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    list of str

    Raises
    ------
    StudyError
        The study file names a covariate that the registry does not have.
    """
    from helpers.prepare import registry

    if study.predictors == "all":
        return list(registry.predictors(study))
    for name in study.predictors:
        _check_covariate(study, name, "predictors")
    return list(dict.fromkeys(study.predictors))


def used_predictors(study):
    """Return the predictors of the forests: `predictor_names` without what the study leaves out.

    Samples do not depend on what is left out, so that forests with and without it learn from the same ones.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    list of str

    Raises
    ------
    StudyError
        `left_out` names a covariate or family that the registry does not have, or every predictor.
    """
    from helpers.prepare.registry import covariates

    names, family = predictor_names(study), {name: one.family for name, one in covariates(study).items()}
    for name in study.left_out:
        _check_covariate(study, name, "left_out", also=family.values())
    kept = [name for name in names if not {name, family[name]} & set(study.left_out)]
    if not kept:
        raise StudyError(f"`left_out` leaves no predictor of {listed(names)}.", "leave out fewer")
    return kept


def _check_covariate(study, name, setting, also=()):
    from helpers.prepare.registry import covariates

    known = [*covariates(study), *dict.fromkeys(also)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise StudyError(
            f"`{setting}`: there is no covariate `{name}`{f'; did you mean `{near[0]}`?' if near else ''}",
            f"choose from {', '.join(known)}",
        )


def extract_covariates(study, table):
    """Add to each row the values of all covariates in the cell that holds its site.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With `longitude` and `latitude`, WGS 84 degrees.

    Returns
    -------
    pandas.DataFrame
        The table with easting and northing (m, in the study's CRS) and one column a covariate; NaN where
        there is no value.

    Raises
    ------
    SampleError
        Covariates have not been made.
    """
    from helpers.prepare.registry import covariate_files

    files = covariate_files(study)
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise SampleError(f"Covariates are missing: {listed(missing)}.", "run notebooks/01-prepare-data.ipynb")
    easting, northing = projected(table["longitude"], table["latitude"], named_crs(study.grid.crs))
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(lambda path: values_at(path, easting, northing), files.values())
        added = {"easting": easting, "northing": northing, **dict(zip(files, values, strict=True))}
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1)


def projected(longitude, latitude, crs):
    """Return easting and northing (m) of WGS 84 degrees in a projected CRS; inf for impossible ones."""
    return _projection(str(crs)).transform(np.asarray(longitude), np.asarray(latitude))


@cache
def _projection(crs):
    import pyproj

    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def values_at(path, easting, northing):
    """Return a raster's values in the cells that hold some points.

    Parameters
    ----------
    path : path-like
        Its first band is read.
    easting, northing : numpy.ndarray, shape (n,)
        Coordinates in the raster's CRS.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        NaN outside the raster and where it has no data.
    """
    import rasterio
    from rasterio.transform import rowcol
    from rasterio.windows import Window

    # Impossible degrees have no projected coordinates.
    known = np.isfinite(easting) & np.isfinite(northing)
    easting, northing = np.where(known, easting, 1e9), np.where(known, northing, 1e9)
    with rasterio.open(path) as source:
        rows, columns = (np.asarray(index) for index in rowcol(source.transform, easting, northing))
        inside = (rows >= 0) & (rows < source.height) & (columns >= 0) & (columns < source.width)
        values = np.full(len(rows), np.nan)
        if inside.any():
            rows, columns = rows[inside], columns[inside]
            (top, left), (bottom, right) = (rows.min(), columns.min()), (rows.max(), columns.max())
            block = source.read(1, window=Window(left, top, right - left + 1, bottom - top + 1))
            found = block[rows - top, columns - left].astype(float)
            empty = np.isnan(found) if source.nodata is None else np.isnan(found) | (found == source.nodata)
            values[inside] = np.where(empty, np.nan, found * source.scales[0] + source.offsets[0])
    return values


def drop_unusable(study, table):
    """Drop sites without a value of each predictor, sites entered twice, and sites with outlying values.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        As `extract_covariates` returns it.

    Returns
    -------
    kept : pandas.DataFrame
    lost : pandas.DataFrame
        site_id, layer and reason, which names the covariate.

    Notes
    -----
    A value is outlying where |x - median| / (1.4826 MAD) over all sites exceeds `samples.outlier_limit`; a
    covariate whose median absolute deviation (MAD) is zero is not judged. Of sites within `SAME_PLACE` of one
    another the one with the most labels stays.
    """
    predictors = predictor_names(study)
    _check_covariate(study, study.domain.covariate, "domain.covariate")
    sites = table.drop_duplicates("site_id").set_index("site_id")
    reasons = pd.Series("", index=sites.index)
    for name in dict.fromkeys([*predictors, study.domain.covariate]):
        reasons[(reasons == "") & sites[name].isna()] = f"no data: {name}"
    labels = table["site_id"].value_counts().reindex(sites.index)
    left = reasons == ""
    reasons[left] = np.where(_repeated(sites[left], labels[left]), DUPLICATE, "")
    valid = sites[reasons == ""]
    for name in predictors:
        far = valid.index[_robust_z(valid[name]) > study.samples.outlier_limit]
        reasons[far] = reasons[far].mask(reasons[far] == "", f"outlier: {name}")
    reason = table["site_id"].map(reasons)
    lost = table[["site_id", "layer"]].assign(reason=reason)[reason != ""]
    return table[reason == ""].reset_index(drop=True), lost.reset_index(drop=True)


def _robust_z(values):
    distance = (values - values.median()).abs()
    spread = _MAD_TO_SD * distance.median()
    return distance / spread if spread > 0 else distance * 0.0


def group_cells(study, table):
    """Group the samples that share a cell, whose covariates are the same, or merge them.

    Parameters
    ----------
    study : helpers.core.study.Study
        With `samples.same_cell` ``together``, sites in one cell form a group, which no fold and no split parts; with
        ``merge`` they become one sample a layer: the most frequent type, of equally frequent ones the icier, and the
        mean of contents and shares.
    table : pandas.DataFrame
        With `easting` and `northing`; training areas have their `group` already.

    Returns
    -------
    table : pandas.DataFrame
        With the column `group`, the name of a site in it.
    merged : pandas.DataFrame
        site_id, layer and reason of the samples that went into another one.
    """
    column = (table["easting"] // study.grid.resolution).astype(int)
    row = (table["northing"] // study.grid.resolution).astype(int)
    given = table["group"] if "group" in table else pd.Series(None, index=table.index, dtype=object)
    first = table.groupby([row, column])["site_id"].transform("min")
    # A polygon's group is larger than a cell, so that a site in it joins the polygon.
    table = table.assign(group=given.groupby([row, column]).transform("first").fillna(first).astype(str))
    if study.samples.same_cell == "together":
        return table, _lost_table([])
    keys = [table["group"].where(given.notna(), first), row, column, table["layer"]]
    numbers = ["ice_content", "ice_content_sd", "permafrost_share", "ice_fraction", "sampled_share"]
    votes = table.assign(votes=table.groupby([*keys, table["ice_type"]])["site_id"].transform("size"))
    votes = votes.assign(**{name: table.groupby(keys)[name].transform("mean") for name in numbers})
    best = votes.sort_values(["votes", "ice_type", "site_id"], ascending=[False, False, True], kind="stable")
    kept = best.groupby([key.reindex(best.index) for key in keys], sort=False).head(1).sort_index()
    # Without permafrost there is no ice content, whatever a neighbour has.
    none = kept["ice_type"] == 0
    content, error = kept["ice_content"].mask(none), kept["ice_content_sd"].mask(none)
    share, fraction = (kept[name].mask(none, 0.0) for name in ("permafrost_share", "ice_fraction"))
    merged = table.drop(index=kept.index)[["site_id", "layer"]].assign(reason=MERGED)
    kept = kept.assign(ice_content=content, ice_content_sd=error, permafrost_share=share, ice_fraction=fraction)
    kept = kept.drop(columns="votes")
    return kept.reset_index(drop=True), merged.reset_index(drop=True)


def settle_rare_classes(study, table):
    """Merge, keep or refuse classes that have fewer sites in a layer than can be learnt from and tested.

    Parameters
    ----------
    study : helpers.core.study.Study
        The classes are those of its `target`. By `samples.minimum_class_sites` and `samples.rare_classes`: ``stop``,
        ``merge`` an ice type with the neighbouring one that has fewer sites, or ``keep``.
    table : pandas.DataFrame
        With `layer`, `ice_type` and `site_id`.

    Returns
    -------
    table : pandas.DataFrame
    merged : list of dict
        `layer`, `from` and `into` (ice types), `sites` that changed.

    Raises
    ------
    SampleError
        The setting is ``stop`` and a type is too rare; or there is nothing that it could be merged with.
    """
    least, how = study.samples.minimum_class_sites, study.samples.rare_classes
    if how == "keep":
        return table, []
    table, merged, target = table.copy(), [], ice.TARGETS[study.target]
    for layer in map(layer_name, study.layers):
        rows = table["layer"] == layer
        while True:
            kinds = np.asarray(target.of_type)[table.loc[rows, "ice_type"]]
            sites = table.loc[rows, "site_id"].groupby(kinds).nunique()
            rare = sites[sites < least].sort_values(kind="stable")
            if rare.empty:
                break
            kind = int(rare.index[0])
            others = [code for code in sites.index if code not in (0, kind)]
            # Only ice types have neighbours that they may join; fewer classes are a target of their own.
            if how == "stop" or kind == 0 or not others or target.classes != ice.ICE_TYPES:
                told = f"{target.classes[kind].name} has {rare.iloc[0]} sites in {layer}, fewer than {least}"
                also = f"; so do {len(rare) - 1} other classes" if len(rare) > 1 else ""
                raise SampleError(
                    f"Too few samples: {told}{also}.",
                    "add sites, or set samples.rare_classes to merge or keep, or samples.minimum_class_sites lower",
                )
            into = min(others, key=lambda code: (abs(code - kind), sites[code]))
            table.loc[rows & (table["ice_type"] == kind), "ice_type"] = into
            merged.append({"layer": layer, "from": kind, "into": int(into), "sites": int(rare.iloc[0])})
    return table, merged


def _repeated(sites, labels):
    """Return which sites have another one in the same place that has more labels or comes first."""
    from scipy.spatial import cKDTree

    near = cKDTree(sites[["easting", "northing"]]).query_ball_point(sites[["easting", "northing"]], SAME_PLACE)
    kept = np.zeros(len(sites), bool)
    for site in np.argsort(-labels.to_numpy(), kind="stable"):
        kept[site] = not kept[near[site]].any()
    return ~kept


def in_domain(study, table):
    """Return which rows lie in the potential-permafrost domain, by the study's rule on one covariate.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With the covariate `domain.covariate`; rows without a value are outside.

    Returns
    -------
    pandas.Series of bool
    """
    _check_covariate(study, study.domain.covariate, "domain.covariate")
    return (table[study.domain.covariate] > study.domain.above).rename("in_domain")


def counts_by_reason(*lost):
    """Count losses.

    Parameters
    ----------
    *lost : pandas.DataFrame
        Tables with site_id, layer and reason.

    Returns
    -------
    dict of str to dict
        For each reason the number of `sites` and of `labels`, which are pairs of site and layer; the most
        frequent first.
    """
    groups = pd.concat(lost, ignore_index=True).groupby("reason")["site_id"]
    counts = groups.agg(sites="nunique", labels="size").sort_values("labels", ascending=False, kind="stable")
    return {reason: {"sites": int(sites), "labels": int(labels)} for reason, sites, labels in counts.itertuples()}


# --- Split and files ---------------------------------------------------------------------------------------


def split_sites(study, table, rng, group="group"):
    """Part sites into training and test samples, once for all layers.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its `samples.test_share` is the share of test samples of each ice type in each layer.
    table : pandas.DataFrame
        With `layer`, `ice_type` and the group's column.
    rng : numpy.random.Generator
        The same generator gives the same split, whatever the order of rows.
    group : str
        Column whose equal values stay together: a site, or a cluster of sites.

    Returns
    -------
    pandas.Series of str
        ``train`` or ``test`` for each row.

    Notes
    -----
    Iterative stratification (Sechidis et al. 2011): the groups of the rarest label first, each to the side
    that lacks that label most. Groups are then moved or exchanged until each label's number of test samples
    is within max(2, its largest number in one group) of its share, where that can be had.

    References
    ----------
    Sechidis, K., Tsoumakas, G., Vlahavas, I. (2011). On the stratification of multi-label data. ECML PKDD.
    https://doi.org/10.1007/978-3-642-23808-6_10
    """
    counts = pd.crosstab(table[group], [table["layer"], table["ice_type"]])
    matrix = counts.to_numpy(float)
    test = _repaired(matrix, _stratified(matrix, study.samples.test_share, rng), study.samples.test_share)
    side = pd.Series(np.where(test, "test", "train"), index=counts.index)
    return table[group].map(side).rename("split")


def thin_training(study, table, rng):
    """Keep a share of the training samples, for a learning curve; test samples all stay.

    The same generator gives nested parts: what a smaller `samples.train_share` keeps, a larger one keeps, too.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With `group` and `split`.
    rng : numpy.random.Generator

    Returns
    -------
    table : pandas.DataFrame
        Without the training groups that are not used.
    lost : pandas.DataFrame
        site_id, layer and reason of the rows that went.
    """
    groups = np.unique(table.loc[table["split"] == "train", "group"].to_numpy(str))
    kept = rng.permutation(groups)[: max(1, round(study.samples.train_share * len(groups)))]
    stays = (table["split"] == "test") | table["group"].isin(kept)
    return table[stays].reset_index(drop=True), table.loc[~stays, ["site_id", "layer"]].assign(reason=THINNED)


def _stratified(matrix, share, rng):
    """Return which groups are for testing, by iterative stratification of counts (group, label)."""
    groups = len(matrix)
    shares = np.array([1 - share, share])
    wanted, size = np.outer(shares, matrix.sum(axis=0)), shares * groups
    side = np.full(groups, -1)
    order = rng.permutation(groups)
    while (side < 0).any():
        remaining = (matrix[side < 0] > 0).sum(axis=0)
        label = np.where(remaining > 0, remaining, groups + 1).argmin()
        for index in order[(side[order] < 0) & (matrix[order, label] > 0)]:
            best = int(np.lexsort((rng.random(2), size, wanted[:, label]))[-1])
            side[index] = best
            wanted[best] -= matrix[index]
            size[best] -= 1
    return side == 1


def _repaired(matrix, test, share):
    """Move or exchange groups while a label misses its tolerance and that brings them nearer their share."""
    test = test.copy()
    target, tolerance = share * matrix.sum(axis=0), np.maximum(2, matrix.max(axis=0))
    nothing = np.zeros((1, matrix.shape[1]))
    while True:
        off = matrix[test].sum(axis=0) - target
        if (np.abs(off) <= tolerance).all():
            return test
        # The last row stands for no group, so that an exchange with it is a move.
        inner, outer = np.append(np.flatnonzero(test), -1), np.append(np.flatnonzero(~test), -1)
        leaving = off - np.vstack([matrix[test], nothing])
        coming = np.vstack([matrix[~test], nothing])
        both = np.einsum("ik,jk->ij", leaving, coming)
        cost = (leaving**2).sum(axis=1)[:, None] + 2 * both + (coming**2).sum(axis=1)
        # Of equal ones the first, whatever the last digits of a processor are.
        out, into = np.unravel_index(cost.round(6).argmin(), cost.shape)
        if cost[out, into] >= (off**2).sum() - 1e-9:
            return test
        for index, value in ((inner[out], False), (outer[into], True)):
            if index >= 0:
                test[index] = value


def write_samples(study, table, counts=None):
    """Write the sample table, the counts by reason of loss, and the study's settings to the run's folder.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With the columns of `SAMPLE_COLUMNS` and all predictors; others are left out.
    counts : dict, optional
        As `counts_by_reason` returns them.

    Returns
    -------
    pathlib.Path
        Of the sample table.
    """
    path, more = samples_path(study), study.samples.more_columns
    columns = [*SAMPLE_COLUMNS, *more, *predictor_names(study)]
    if lacking := [name for name in columns if name not in table]:
        raise SampleError(f"The sample table lacks {listed(lacking)}.", "extract covariates and split sites first")
    # What has no value, as training areas, has its group's own.
    table = table.assign(**{name: table[name].where(table[name].fillna("") != "", table["group"]) for name in more})
    write_text(path, table[columns].to_csv(index=False, lineterminator="\n"))
    study.write(path.parents[1] / "study.yaml")  # a run made by hand in JupyterLab can be compared, too
    if counts is not None:
        write_text(path.with_name("counts.json"), json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    return path


def read_samples(study):
    """Read the sample table of a run.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    pandas.DataFrame
        As it was handed to `write_samples`: text, whole numbers, bool and float, to the last digit.

    Raises
    ------
    SampleError
        There is none yet.
    """
    path = samples_path(study)
    if not path.is_file():
        raise SampleError(f"This run has no {path.name}.", "run notebooks/02-extract-samples.ipynb for this study")
    text = dict.fromkeys(("site_id", "group", "layer", "reason", "split", *study.samples.more_columns), str)
    table = pd.read_csv(
        path,
        dtype=text | {"ice_type": int, "in_domain": bool},
        keep_default_na=False,
        na_values={name: [] for name in text} | {"ice_content": [""], "ice_content_sd": [""], "sampled_share": [""]},
    )
    floats = [name for name in table if name not in text and name not in ("ice_type", "in_domain")]
    return table.astype(dict.fromkeys(floats, float))


def samples_path(study):
    """Return the file of the run's sample table."""
    return study.results_dir / "samples" / "samples.csv"


def area_weights(study, table):
    """Return the share of the area that each sample stands for, over its share of the samples.

    Two strata are told apart, in and outside of the potential-permafrost domain: people drill where they expect
    permafrost, so samples alone would make the map too icy.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With columns `layer` and `in_domain`.

    Returns
    -------
    pandas.Series
        Mean 1 in each layer, unless a stratum has no sample.
    """
    from helpers.prepare.registry import read_covariates

    rule = read_covariates(study, [study.domain.covariate])[study.domain.covariate].to_numpy()
    domain = float((rule[np.isfinite(rule)] > study.domain.above).mean())
    sampled = table.groupby("layer")["in_domain"].transform("mean")
    return np.where(table["in_domain"], domain / sampled, (1 - domain) / (1 - sampled))
