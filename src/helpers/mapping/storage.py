"""Ground-ice storage of all layers, and its totals by region, elevation and class."""

import json

import numpy as np
import pandas
import pandas as pd
import rasterio
from rasterio.features import rasterize

from helpers.core import classes, ice, qgis
from helpers.core.classes import layer_name
from helpers.core.files import write_json
from helpers.core.grid import reference_grid
from helpers.core.rasters import open_raster
from helpers.folds.weights import area_weights
from helpers.forest import cards
from helpers.forest.regression import fit
from helpers.mapping import predict
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.files import grid_windows, layer_files, map_files, open_bands
from helpers.mapping.interval import sample_cells
from helpers.prepare.registry import covariate_files, used_predictors
from helpers.samples.rows import layer_rows
from testbed.truth import truth_files


def compare_totals(study, table, cells=25_000):
    """Return the ground ice of each region in both ways, and in the virtual study the true one.

    Both come from the same systematic sample of the map's cells, each within the extent of permafrost: expected from
    the map's forest and class means, and from a regression forest of the same samples.

    Parameters
    ----------
    study : helpers.core.study.Study
        With forests (notebook 03).
    table : pandas.DataFrame
        Samples of all layers.
    cells : int
        About so many are looked at.

    Returns
    -------
    pandas.DataFrame
        One row a layer and region, with ``all`` for all layers and for all regions: km3 of ice by ``classes``, by
        ``regression`` and, with the truth, ``true``.
    """
    sample = sample_cells(study, used_predictors(study), cells)
    step = round(sample.side / study.grid.resolution)
    row, column = (step // 2 + step * place for place in (sample.row, sample.column))
    volumes = {}
    for top, bottom in study.layers:
        layer = layer_name((top, bottom))
        model, card = cards.load_model(cards.model_path(study, layer), study.target)
        rows = layer_rows(table, layer, card["fit"], study.target)
        rows["area_weight"] = area_weights(study, rows)
        _, chances = predict.predict(model, card["calibration"], sample.values, target=study.target)
        expected = {
            "classes": np.einsum("nk,k->n", chances, np.asarray(card["class_means"], np.float32)),
            "regression": predict.predict_ice(fit(study, rows, "area_weight"), sample.values),
        }
        found = {way: confine_to_permafrost(content, 1 - chances[:, 0]) for way, content in expected.items()}
        if study.draws_boreholes:
            with rasterio.open(truth_files(study)[f"ice_fraction_{layer}"]) as source:
                found["true"] = source.read(1)[row, column]
        scale = (bottom - top) * sample.side**2 / 1e9
        volumes[layer] = pd.DataFrame(
            {way: np.bincount(sample.region, content, len(sample.names)) * scale for way, content in found.items()},
            index=pd.Index(sample.names, name="region"),
        )
    volumes["all"] = sum(volumes.values())
    for volume in volumes.values():
        volume.loc["all"] = volume.sum()
    return pd.concat(volumes, names=["layer"]).reset_index()


_ELEVATIONS = (-500.0, 9000.0)  # m, of any ground


# Storage ----------------------------------------------------------------------------------------------------


STORAGE_BANDS = {
    "ice_thickness": ("m", "thickness of ice"),
    "ice_mass": ("kg m-2", "mass of ice"),
    "water_equivalent": ("mm", "water that the ice melts to"),
}
"""Bands of the raster ``ice_storage``: unit and long name."""


def map_storage(study):
    """Write ground-ice storage over all layers from their ice contents: thickness, mass and water equivalent.

    Parameters
    ----------
    study : helpers.core.study.Study
        With the rasters of all layers (`map_layer`).

    Returns
    -------
    pathlib.Path
        A raster of the bands `STORAGE_BANDS`.
    """
    geobox, path, highest = reference_grid(study), map_files(study)["ice_storage"], 0.0
    depth = f"ground ice between {study.layers[0][0]:g} and {study.layers[-1][1]:g} m below the surface"
    units, titles = zip(*STORAGE_BANDS.values(), strict=True)
    described = {"names": list(STORAGE_BANDS), "units": units, "long_names": [f"{depth}, {one}" for one in titles]}
    with (
        open_bands(layer_files(study, "ice_content")) as contents,
        open_raster(path, geobox, len(units), "float32", study=study, overviews="average", **described) as target,
    ):
        for part in grid_windows(geobox):
            thickness = ice.thickness([read(part) for read in contents], study.layers)
            if np.isfinite(thickness).any():
                highest = max(highest, float(np.nanmax(thickness)))
                water = 1000 * ice.water_equivalent(thickness)
                target.write(np.stack([thickness, ice.mass(thickness), water]).astype(np.float32), window=part)
    qgis.write_ramp_style(path, highest or 1.0, "m")
    return path


def storage_totals(study):
    """Return the volume of ground ice by layer, and by region, elevation band and class.

    The rasters of the map are summed up by windows, always the same ones, so that no sum depends on how they were made.

    Parameters
    ----------
    study : helpers.core.study.Study
        With the rasters of all layers (`map_layer`).

    Returns
    -------
    dict of str to pandas.DataFrame
        `regions` and `elevation_bands`: one row each and one for the whole area (`all`), with `ice_km3_<layer>` of each
        layer, `ice_km3`, `water_km3` of all, `mapped_km2`, `extent_km2` with permafrost in any layer, and means over
        the latter: `mean_thickness_m_<layer>` and `mean_thickness_m` of ice, its mass `mean_mass_kg_m2`, and
        `mean_water_equivalent_mm`. `types`: one row a class, with `area_km2_<layer>`, where it is mapped, and
        `ice_km3_<layer>` there.
    """
    geobox, target, cell = reference_grid(study), classes.TARGETS[study.target], study.grid.resolution**2 / 1e6
    regions, shapes = _regions(study, geobox)
    width, layers = study.maps.elevation_band, [classes.layer_name(layer) for layer in study.layers]
    first, last = (int(np.floor(height / width)) for height in _ELEVATIONS)
    bands = [f"{n * width:g}-{(n + 1) * width:g}m" for n in range(first, last + 1)]
    by_region, by_band = (np.zeros((len(names) + 1, 2 + len(layers))) for names in (regions, bands))
    by_type = np.zeros((len(layers), len(target.classes), 2))
    with (
        open_bands(layer_files(study, "ice_content")) as contents,
        open_bands(layer_files(study, target.file_name)) as types,
        open_bands([covariate_files(study)["elevation"]]) as (elevation,),
    ):
        for part in grid_windows(geobox):
            ices = [read(part) for read in contents]
            if not np.isfinite(ices[0]).any():
                continue
            inner = geobox[part]
            region = rasterize(shapes, out_shape=inner.shape, transform=inner.transform, dtype="int32")
            mapped = np.isfinite(ices[0]) & (region > 0)
            depths = [one[mapped].astype(float) * (b - t) for one, (t, b) in zip(ices, study.layers, strict=True)]
            frozen = np.any([depth > 0 for depth in depths], axis=0)
            columns = [np.ones(len(frozen)), frozen, *depths]
            # Cells without an elevation count in the last row, which is left out.
            height = np.nan_to_num(elevation(part)[mapped], nan=np.inf) / width
            band = np.clip(np.floor(height), first, last + 1).astype(int) - first
            for sums, group in ((by_region, region[mapped] - 1), (by_band, band)):
                sums += _by_group(group, columns, len(sums))
            for sums, read, depth in zip(by_type, types, depths, strict=True):
                sums += _by_group(read(part)[mapped], [np.ones(len(depth)), depth], len(sums))
    found = {
        name: _storage_table(study, pandas.Index(rows, name=title), sums[:-1] * cell)
        for name, title, rows, sums in (
            ("regions", "region", regions, by_region),
            ("elevation_bands", "elevation", bands, by_band),
        )
    }
    found["elevation_bands"] = found["elevation_bands"].query("mapped_km2 > 0")
    table = pandas.DataFrame(index=pandas.Index([kind.name for kind in target.classes], name="class"))
    for layer, sums in zip(layers, by_type, strict=True):
        table[f"area_km2_{layer}"], table[f"ice_km3_{layer}"] = sums.T * [[cell], [cell / 1000]]
    return found | {"types": table}


def _regions(study, geobox):
    """Return the names of the regions, and their shapes on the grid with numbers from 1."""
    import geopandas

    regions = geopandas.read_file(study.path(study.area.polygons), layer=study.area.regions_layer)
    shapes = list(zip(regions.to_crs(geobox.crs.to_wkt()).geometry, range(1, len(regions) + 1), strict=True))
    return regions["name"].tolist(), shapes


def _by_group(group, columns, size):
    """Return the sum of each column in each group, shape (size, columns)."""
    return np.stack([np.bincount(group, column, size) for column in columns], axis=1)


def _storage_table(study, index, sums):
    """Return a table of storage from sums over cells times their area (km2): one, permafrost, and metres of ice."""
    table = pandas.DataFrame({"mapped_km2": sums[:, 0], "extent_km2": sums[:, 1]}, index=index)
    names = [classes.layer_name(layer) for layer in study.layers]
    for name, column in zip(names, sums.T[2:], strict=True):
        table[f"ice_km3_{name}"] = column / 1000
    table.loc["all"] = table.sum()
    table["ice_km3"] = table.filter(like="ice_km3_").sum(axis=1)
    table["water_km3"] = table["ice_km3"] * ice.ICE_DENSITY / ice.WATER_DENSITY
    extent = table["extent_km2"].where(table["extent_km2"] > 0)
    for name in names:
        table[f"mean_thickness_m_{name}"] = table[f"ice_km3_{name}"] * 1000 / extent
    table["mean_thickness_m"] = table["ice_km3"] * 1000 / extent
    table["mean_mass_kg_m2"] = ice.mass(table["mean_thickness_m"].to_numpy())
    table["mean_water_equivalent_mm"] = 1000 * ice.water_equivalent(table["mean_thickness_m"].to_numpy())
    return table


def write_totals(study, totals, truth=None):
    """Write the tables of `storage_totals` as JSON, with the comparison of `against_truth` where there is one."""
    first, last = study.layers[0][0], study.layers[-1][1]
    record = {
        "depth_m": [first, last],
        "datum": "below the surface",
        "simulated": study.simulated,
        "storage_from": study.storage_from,
        "units": {
            "ice_km3": "km3 of ice",
            "water_km3": "km3 of water",
            "mapped_km2": "km2",
            "extent_km2": "km2",
            "area_km2": "km2",
            "mean_thickness_m": "m of ice",
            "mean_mass_kg_m2": "kg of ice per m2",
            "mean_water_equivalent_mm": "mm of water",
        },
        "against_truth": truth,
        **{name: json.loads(table.round(6).to_json(orient="index")) for name, table in totals.items()},
    }
    write_json(study.results_dir / "tables" / "storage.json", record)
    return record
