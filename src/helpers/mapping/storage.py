"""Ground-ice storage of all layers, and its totals by region, elevation and class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rasterio.features import rasterize

from helpers.core import ice, qgis
from helpers.core.classes import layer_name
from helpers.core.files import write_json
from helpers.core.grid import area_mask, cell_areas, grid_windows, reference_grid, study_regions
from helpers.core.rasters import open_raster
from helpers.core.study import Study
from helpers.forest.cards import read_card
from helpers.forest.paths import model_path
from helpers.mapping.cells import study_ground
from helpers.mapping.files import layer_files, map_files, open_rasters
from helpers.prepare.registry import GROUND_SHARE, covariate_files
from helpers.samples.prevalence import describe

MOST_MISSING = 0.02
"""Share of a region without data above which it is flagged.

Cells without data count as no ice, so that its totals are too low by about this share: more than
that is not small against the interval of a total.
"""

_UNITS = {
    "ice_km3": "km3 of ice",
    "water_km3": "km3 of water",
    "mapped_km2": "km2",
    "no_data_km2": "km2",
    "no_data_share": "1",
    "incomplete": f"no_data_share > {MOST_MISSING:g}",
    "extent_km2": "km2",
    "no_ice_km2": "km2",
    "area_km2": "km2",
    "mean_thickness_m": "m of ice",
    "mean_mass_kg_m2": "kg of ice per m2",
    "mean_water_equivalent_mm": "mm of water",
}


def map_storage(study: Study) -> Path | None:
    """Write the raster of ground-ice storage over all layers, by the rasters of `map_layer`.

    A mean over the cell: water, built-up land and rock in it hold none, where land cover is known,
    and the part of a layer below bedrock holds what rock does (`helpers.mapping.cells.Ground`).
    None where the study's classes have no ice content, or its layers no depths.
    """
    if not study.has_storage:
        return None
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
            ground = study_ground(study, part)
            fractions = [
                ground.holds(content.read(1, window=part), layer)
                for content, layer in zip(contents, study.depths, strict=True)
            ]
            thickness = ice.thickness(fractions, study.depths)
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
        `ice_km3`, `water_km3` of all, `mapped_km2`, `no_data_km2` of the study area's cells without
        a value on the map, their `no_data_share`, whether it is above `MOST_MISSING`
        (`incomplete`), `extent_km2` of ground that is mapped as permafrost in any layer, with
        `no_ice_km2` of water, built-up land and rock where land cover is known, and means over the
        extent: `mean_thickness_m_<layer>` and `mean_thickness_m` of ice, its mass
        `mean_mass_kg_m2`, and `mean_water_equivalent_mm`.
    types
        One row a class, with `area_km2_<layer>`, where it is mapped, `ice_km3_<layer>` there, and
        `reference_km2_<layer>`, where the reference's method maps it.
    """
    geobox = reference_grid(study)
    target = study.target_classes
    regions, shapes = study_regions(study, geobox)
    width = study.maps.elevation_band
    layers = [layer_name(layer) for layer in study.layers]
    first, last = (int(np.floor(height / width)) for height in (-500, 9000))  # m, of any ground
    bands = [f"{n * width:g}-{(n + 1) * width:g}m" for n in range(first, last + 1)]
    bands.append("without elevation")
    study_cells = area_mask(study, geobox)
    by_region, by_band = (np.zeros((len(names), 4 + len(layers))) for names in (regions, bands))
    by_type = np.zeros((len(layers), 2, len(target.classes), 2))
    elevations = [path for name, path in covariate_files(study).items() if name == "elevation"]
    with (
        open_rasters(layer_files(study, "ice_content")) as contents,
        open_rasters(layer_files(study, target.file_name)) as types,
        open_rasters(layer_files(study, f"{target.file_name}_reference")) as references,
        open_rasters(elevations) as elevation,
    ):
        for part in grid_windows(geobox):
            inner = geobox[part]
            region = rasterize(shapes, inner.shape, transform=inner.transform, dtype="int32")
            inside = study_cells[part] & (region > 0)
            if not inside.any():
                continue
            ices = [content.read(1, window=part)[inside] for content in contents]
            mapped = np.isfinite(ices[0])
            area = cell_areas(geobox, part)[inside]
            held = study_ground(study, part)[inside]
            volumes = [
                area
                * held.holds(np.where(mapped, fraction, 0).astype(float), layer)
                * np.ptp(layer)
                for fraction, layer in zip(ices, study.depths, strict=True)
            ]
            codes = [
                [kind.read(1, window=part)[inside] for kind in pair]
                for pair in zip(types, references, strict=True)
            ]
            permafrost = np.flatnonzero(target.permafrost)
            frozen = np.any([np.isin(code, permafrost) for code, _ in codes], axis=0)
            own = area * held.share
            columns = [area * mapped, area * ~mapped, frozen * own, (area - own) * mapped, *volumes]
            height = np.full(len(mapped), np.inf)
            for model in elevation:
                height = np.nan_to_num(model.read(1, window=part)[inside], nan=np.inf) / width
            band = np.clip(np.floor(height), first, last + 1).astype(int) - first
            by_region += _by_group(region[inside] - 1, columns, len(by_region))
            by_band += _by_group(band, columns, len(by_band))
            for sums, pair, volume in zip(by_type, codes, volumes, strict=True):
                for part_of, code in zip(sums, pair, strict=True):
                    part_of += _by_group(code[mapped], [area[mapped], volume[mapped]], len(part_of))
    table = pd.DataFrame(index=pd.Index([kind.name for kind in target.classes], name="class"))
    for layer, (sums, reference) in zip(layers, by_type, strict=True):
        table[f"area_km2_{layer}"] = sums[:, 0]
        table[f"ice_km3_{layer}"] = sums[:, 1] / 1000
        table[f"reference_km2_{layer}"] = reference[:, 0]
    by_region = _storage_table(study, pd.Index(regions, name="region"), by_region)
    by_band = _storage_table(study, pd.Index(bands, name="elevation"), by_band)
    by_band = by_band.query("mapped_km2 + no_data_km2 > 0")
    return {"regions": by_region, "elevation_bands": by_band, "types": table}


def _by_group(group: np.ndarray, columns: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the sum of each column in each group, shape (size, columns)."""
    return np.stack([np.bincount(group, column, size) for column in columns], axis=1)


def _storage_table(study: Study, index: pd.Index, sums: np.ndarray) -> pd.DataFrame:
    """Return a table of storage.

    The columns of `sums` are those over cells, times their area (km2), of whether the map has a
    value, whether it has none, whether there is permafrost, the share that holds no ice, and metres
    of ice in each layer.
    """
    columns = ["mapped_km2", "no_data_km2", "extent_km2", "no_ice_km2"]
    table = pd.DataFrame(sums[:, :4], index, columns)
    if GROUND_SHARE not in covariate_files(study):
        del table["no_ice_km2"]
    names = [layer_name(layer) for layer in study.layers]
    for name, column in zip(names, sums.T[4:], strict=True):
        table[f"ice_km3_{name}"] = column / 1000
    table.loc["all"] = table.sum()
    table["no_data_share"] = table["no_data_km2"] / table[["mapped_km2", "no_data_km2"]].sum(axis=1)
    table["incomplete"] = table["no_data_share"] > MOST_MISSING
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


def how_sites_count(study: Study) -> str:
    """Return what totals assume of how sites were chosen, as one line."""
    paths = [model_path(study, layer_name(layer), kind="ice") for layer in study.layers]
    strata = [row for path in paths for row in read_card(path)["strata"]]
    return describe(pd.DataFrame(strata) if strata else None)


def write_totals(study: Study, totals: dict[str, pd.DataFrame]) -> None:
    """Write the tables of `storage_totals` as JSON."""
    record = {
        "depth_m": [study.depths[0][0], study.depths[-1][1]],
        "datum": "below the surface",
        "label": study.label,
        "sites": how_sites_count(study),
        "units": _UNITS,
        **{name: table.round(6).to_dict(orient="index") for name, table in totals.items()},
    }
    write_json(study.results_dir / "tables" / "storage.json", record)
