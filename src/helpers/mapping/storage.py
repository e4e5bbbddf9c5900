"""Ground-ice storage of all layers, and its totals by region, elevation and class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rasterio.features import rasterize

from helpers.core import ice, qgis
from helpers.core.classes import layer_name
from helpers.core.files import write_json
from helpers.core.grid import cell_areas, reference_grid, study_regions
from helpers.core.rasters import open_raster
from helpers.core.study import Study
from helpers.folds.weights import area_weights
from helpers.forest import cards
from helpers.forest.paths import model_path
from helpers.forest.regression import fit
from helpers.mapping.cells import ground_share, sample_cells
from helpers.mapping.extent import confine_to_permafrost
from helpers.mapping.files import grid_windows, layer_files, map_files, open_rasters
from helpers.mapping.predict import predict
from helpers.prepare.columns import forest_columns
from helpers.prepare.registry import GROUND_SHARE, covariate_files
from helpers.samples.rows import layer_rows

_UNITS = {
    "ice_km3": "km3 of ice",
    "water_km3": "km3 of water",
    "mapped_km2": "km2",
    "extent_km2": "km2",
    "no_ice_km2": "km2",
    "area_km2": "km2",
    "mean_thickness_m": "m of ice",
    "mean_mass_kg_m2": "kg of ice per m2",
    "mean_water_equivalent_mm": "mm of water",
}


def compare_totals(study: Study, table: pd.DataFrame, cells: int = 25_000) -> pd.DataFrame:
    """Return the ground ice of each region in both ways.

    Both come from the same systematic sample of about so many of the map's cells, each within the
    extent of permafrost: expected from the map's forest (notebook 03) and class means, and from a
    regression forest of the same samples, `table` with all layers.

    Returns
    -------
    ways
        One row a layer and region, with ``all`` for all layers and for all regions: km3 of ice by
        ``classes`` and by ``regression``.
    """
    sample = sample_cells(study, forest_columns(study), cells)
    volumes = {}
    free = study.target_classes.free
    for top, bottom in study.depths:
        layer = layer_name((top, bottom))
        model, card = cards.load_model(model_path(study, layer), study.target)
        rows = layer_rows(table, layer, card["fit"], study.target_classes)
        rows["area_weight"] = area_weights(study, rows)
        _, chances = predict(model, card["calibration"], sample.values, study.target_classes)
        chances = chances.astype(np.float32)
        regression = fit(study, rows, "area_weight")
        expected = {
            "classes": np.einsum("nk,k->n", chances, np.asarray(card["class_means"], np.float32)),
            "regression": regression.predict(sample.values).astype(np.float32),
        }
        volume = pd.DataFrame(index=pd.Index(sample.names, name="region"))
        scale = (bottom - top) * sample.side**2 / 1e9
        for way, content in expected.items():
            confined = confine_to_permafrost(content, 1 - chances[:, free].sum(axis=1))
            inside = confined * sample.ground
            volume[way] = np.bincount(sample.region, inside, len(sample.names)) * scale
        volumes[layer] = volume
    volumes["all"] = sum(volumes.values())
    for volume in volumes.values():
        volume.loc["all"] = volume.sum()
    return pd.concat(volumes, names=["layer"]).reset_index()


def map_storage(study: Study) -> Path | None:
    """Write the raster of ground-ice storage over all layers, by the rasters of `map_layer`.

    A mean over the cell: water, built-up land and rock in it hold none, where land cover is known.
    None where the study's classes have no ice content, or its layers no depths.
    """
    if not study.has_storage:
        return None
    share = ground_share(study)
    geobox = reference_grid(study)
    path = map_files(study)["ice_storage"]
    top, bottom = study.depths[0][0], study.depths[-1][1]
    depth = f"ground ice between {top:g} and {bottom:g} m below the surface"
    titles = ("thickness of ice", "mass of ice", "water that the ice melts to")
    described = {
        "names": ["ice_thickness", "ice_mass", "water_equivalent"],
        "units": ["m", "kg m-2", "mm"],
        "long_names": [f"{depth}, {title}" for title in titles],
        "overviews": "average",
    }
    highest = 0.0
    with (
        open_rasters(layer_files(study, "ice_content")) as contents,
        open_raster(path, geobox, 3, "float32", study=study, **described) as target,
    ):
        for part in grid_windows(geobox):
            fractions = [content.read(1, window=part) for content in contents]
            thickness = ice.thickness(fractions, study.depths)
            thickness = thickness if share is None else thickness * share[part]
            if np.isfinite(thickness).any():
                highest = max(highest, float(np.nanmax(thickness)))
                water = 1000 * ice.water_equivalent(thickness)
                bands = np.stack([thickness, ice.mass(thickness), water])
                target.write(bands.astype(np.float32), window=part)
    qgis.write_ramp_style(path, highest or 1.0, "m")
    return path


def storage_totals(study: Study) -> dict[str, pd.DataFrame]:
    """Return the volume of ground ice by layer, and by region, elevation band and class.

    The rasters of `map_layer` are summed up by windows, always the same ones, so that no sum
    depends on how they were made.

    Returns
    -------
    regions, elevation_bands
        One row each and one for the whole area (`all`), with `ice_km3_<layer>` of each layer,
        `ice_km3`, `water_km3` of all, `mapped_km2`, `extent_km2` of ground with permafrost in any
        layer, with `no_ice_km2` of water, built-up land and rock where land cover is known, and
        means over the latter: `mean_thickness_m_<layer>` and `mean_thickness_m` of ice, its mass
        `mean_mass_kg_m2`, and `mean_water_equivalent_mm`.
    types
        One row a class, with `area_km2_<layer>`, where it is mapped, and `ice_km3_<layer>` there.
    """
    geobox = reference_grid(study)
    target = study.target_classes
    areas = cell_areas(geobox)
    share = ground_share(study)
    ground = areas if share is None else areas * share
    regions, shapes = study_regions(study, geobox)
    width = study.maps.elevation_band
    layers = [layer_name(layer) for layer in study.layers]
    first, last = (int(np.floor(height / width)) for height in (-500, 9000))  # m, of any ground
    bands = [f"{n * width:g}-{(n + 1) * width:g}m" for n in range(first, last + 1)]
    bands.append("without elevation")
    by_region, by_band = (np.zeros((len(names), 3 + len(layers))) for names in (regions, bands))
    by_type = np.zeros((len(layers), len(target.classes), 2))
    elevations = [path for name, path in covariate_files(study).items() if name == "elevation"]
    with (
        open_rasters(layer_files(study, "ice_content")) as contents,
        open_rasters(layer_files(study, target.file_name)) as types,
        open_rasters(elevations) as elevation,
    ):
        for part in grid_windows(geobox):
            ices = [content.read(1, window=part) for content in contents]
            if not np.isfinite(ices[0]).any():
                continue
            inner = geobox[part]
            region = rasterize(shapes, inner.shape, transform=inner.transform, dtype="int32")
            mapped = np.isfinite(ices[0]) & (region > 0)
            depths = [
                fraction[mapped].astype(float) * (bottom - top)
                for fraction, (top, bottom) in zip(ices, study.depths, strict=True)
            ]
            frozen = np.any([depth > 0 for depth in depths], axis=0)
            area, own = areas[part][mapped], ground[part][mapped]
            volumes = [depth * own for depth in depths]
            columns = [area, frozen * own, area - own, *volumes]
            height = np.full(np.count_nonzero(mapped), np.inf)
            for model in elevation:
                height = np.nan_to_num(model.read(1, window=part)[mapped], nan=np.inf) / width
            band = np.clip(np.floor(height), first, last + 1).astype(int) - first
            by_region += _by_group(region[mapped] - 1, columns, len(by_region))
            by_band += _by_group(band, columns, len(by_band))
            for sums, kinds, volume in zip(by_type, types, volumes, strict=True):
                codes = kinds.read(1, window=part)[mapped]
                sums += _by_group(codes, [area, volume], len(sums))
    table = pd.DataFrame(index=pd.Index([kind.name for kind in target.classes], name="class"))
    for layer, sums in zip(layers, by_type, strict=True):
        table[f"area_km2_{layer}"] = sums[:, 0]
        table[f"ice_km3_{layer}"] = sums[:, 1] / 1000
    by_region = _storage_table(study, pd.Index(regions, name="region"), by_region)
    by_band = _storage_table(study, pd.Index(bands, name="elevation"), by_band)
    by_band = by_band.query("mapped_km2 > 0")
    return {"regions": by_region, "elevation_bands": by_band, "types": table}


def _by_group(group: np.ndarray, columns: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the sum of each column in each group, shape (size, columns)."""
    return np.stack([np.bincount(group, column, size) for column in columns], axis=1)


def _storage_table(study: Study, index: pd.Index, sums: np.ndarray) -> pd.DataFrame:
    """Return a table of storage.

    The columns of `sums` are those over cells, times their area (km2), of 1, whether there is
    permafrost, the share that holds no ice, and metres of ice in each layer.
    """
    table = pd.DataFrame({"mapped_km2": sums[:, 0], "extent_km2": sums[:, 1]}, index=index)
    if GROUND_SHARE in covariate_files(study):
        table["no_ice_km2"] = sums[:, 2]
    names = [layer_name(layer) for layer in study.layers]
    for name, column in zip(names, sums.T[3:], strict=True):
        table[f"ice_km3_{name}"] = column / 1000
    table.loc["all"] = table.sum()
    table["ice_km3"] = table.filter(like="ice_km3_").sum(axis=1)
    table["water_km3"] = table["ice_km3"] * ice.ICE_DENSITY / ice.WATER_DENSITY
    extent = table["extent_km2"].where(table["extent_km2"] > 0)
    for name in names:
        table[f"mean_thickness_m_{name}"] = table[f"ice_km3_{name}"] * 1000 / extent
    thickness = table["ice_km3"] * 1000 / extent
    table["mean_thickness_m"] = thickness
    table["mean_mass_kg_m2"] = ice.mass(thickness.to_numpy())
    table["mean_water_equivalent_mm"] = 1000 * ice.water_equivalent(thickness.to_numpy())
    return table


def write_totals(study: Study, totals: dict[str, pd.DataFrame]) -> None:
    """Write the tables of `storage_totals` as JSON."""
    record = {
        "depth_m": [study.depths[0][0], study.depths[-1][1]],
        "datum": "below the surface",
        "label": study.label,
        "storage_from": study.storage_from,
        "units": _UNITS,
        **{name: table.round(6).to_dict(orient="index") for name, table in totals.items()},
    }
    write_json(study.results_dir / "tables" / "storage.json", record)
