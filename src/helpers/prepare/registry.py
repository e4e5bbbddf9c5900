"""The registry of covariates: what each layer is, and how all of them are written and read."""

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from rasterio.io import DatasetWriter

from helpers.core.errors import CompendiumError, listed
from helpers.core.grid import Part, area_mask, fine_grid, reference_grid, thinned_grid
from helpers.core.rasters import THREADS, RasterError, open_raster, read_band
from helpers.core.settings import OwnPredictor
from helpers.core.study import Study, StudyError
from helpers.core.user_rasters import Reading, open_source, tiles
from helpers.prepare.open_data import provenance
from helpers.prepare.products import has_raw

if TYPE_CHECKING:
    import xarray

GROUND_SHARE = "ground_share"
"""Covariate: the share of a cell that is no water, built-up land or rock, if a study has it."""

MOST_CATEGORIES = 255
"""Of a predictor: a forest gets a column for each."""

SOIL_GAP_KM = 20
"""Gaps of soil maps are filled from the nearest valid cell within this distance."""


class CovariateError(CompendiumError):
    """A covariate that is unknown or missing, or that cannot be made from the raw rasters."""


class NoValuesError(CovariateError):
    """Raw rasters without a value on a grid; no error where that is a part of a larger one."""


class ElsewhereError(NoValuesError):
    """Raw rasters that do not overlap a grid."""


@dataclass(frozen=True)
class Covariate:
    """One layer.

    Parameters
    ----------
    name
        File name without suffix, and column name in sample tables.
    title, long_name, unit
        A title for figures and tables, the whole name, and the unit; "1" where there is none.
    family
        The module that makes it.
    aggregation
        How it gets onto the reference grid.
    role
        ``predictor`` for the forests, ``quality`` of a cell's other layers, ``auxiliary`` for rules
        and comparisons.
    """

    name: str
    title: str
    long_name: str
    unit: str
    family: Literal["terrain", "vegetation", "climate", "soil", "own"]
    aggregation: str
    source: str
    role: Literal["predictor", "quality", "auxiliary"] = "predictor"


_MEAN = "mean of the fine grid's cells"
_MEDIAN = "nearest onto the fine grid, median over dates, mean of the fine grid's cells"
_CIRCULAR = "direction of the mean unit vector of the fine grid's cells"
_RANGE = "highest less lowest cell of the fine grid in a window centred on the cell"
_ANY = "1 where any of the fine grid's cells is"
_NEAREST = "nearest, native grid of about 1 km"
_LINEAR = "bilinear"
_FILLED = f"bilinear; gaps filled from the nearest valid cell within {SOIL_GAP_KM} km"
_CUT_OFF = "Contributing area touches the elevation model's edge"
_AIR = "Mean annual air temperature"

# By family and source: name, title, long name, unit, aggregation
_LAYERS = {
    ("terrain", "digital elevation model (such as Copernicus DEM)"): [
        ("elevation", "Elevation", "Elevation", "m", _MEAN),
        ("slope", "Slope", "Slope", "degrees", _MEAN),
        ("northness", "Northness", "Northness (cosine of aspect, 0 where flat)", "1", _MEAN),
        ("eastness", "Eastness", "Eastness (sine of aspect, 0 where flat)", "1", _MEAN),
        ("twi", "TWI", "Topographic wetness index", "1", _MEAN),
        ("relief_amplitude", "Relief amplitude", "Relief amplitude", "m", _RANGE),
        ("aspect", "Aspect", "Aspect from true north, none where flat", "degrees", _CIRCULAR),
        ("twi_edge", "TWI cut off", _CUT_OFF, "1", _ANY),
    ],
    ("vegetation", "Landsat 8 Collection 2 Level 2, growing-season scenes"): [
        ("ndvi", "NDVI", "Normalised difference vegetation index", "1", _MEDIAN),
        ("evi", "EVI", "Enhanced vegetation index", "1", _MEDIAN),
        ("ndwi", "NDWI", "Normalised difference water index (McFeeters)", "1", _MEDIAN),
        ("ndmi", "NDMI", "Normalised difference moisture index (Gao's NDWI)", "1", _MEDIAN),
        ("landsat_valid_share", "Valid Landsat share", "Valid pixels over all scenes", "1", _MEAN),
    ],
    ("climate", "MODIS MOD11 land surface temperature, monthly, clear sky"): [
        ("lst_mean", "Mean LST", "Mean annual land surface temperature", "degC", _NEAREST),
        ("thawing_index", "Thawing index", "Surface thawing index", "degC d", _NEAREST),
        ("freezing_index", "Freezing index", "Surface freezing index", "degC d", _NEAREST),
        ("lst_valid_share", "Valid LST share", "Valid months, day and night", "1", _NEAREST),
    ],
    ("climate", "monthly climate (Peng et al. 2019, ESSD 11:1931, or ERA5)"): [
        ("precipitation", "Precipitation", "Annual precipitation", "mm", _LINEAR),
        ("mean_annual_air_temperature", "Air temperature", _AIR, "degC", _LINEAR),
        ("air_frost_number", "Air frost number", "Air frost number", "1", _LINEAR),
    ],
    ("soil", "topsoil properties (SoilGrids 2.0, or HWSD)"): [
        ("sand", "Sand", "Sand in the topsoil", "%", _FILLED),
        ("silt", "Silt", "Silt in the topsoil", "%", _FILLED),
        ("clay", "Clay", "Clay in the topsoil", "%", _FILLED),
        ("organic_carbon", "Organic carbon", "Organic carbon in the topsoil", "%", _FILLED),
    ],
}

_NO_PREDICTORS = {
    "aspect": "auxiliary",
    "twi_edge": "quality",
    "landsat_valid_share": "quality",
    "lst_valid_share": "quality",
}
# The field of the source whose rasters a layer is made from, by its name or its family.
_MADE_FROM = {
    "terrain": "dem",
    "vegetation": "landsat",
    "climate": "lst",
    "soil": "soil",
    "precipitation": "precipitation",
    "mean_annual_air_temperature": "air_temperature",
    "air_frost_number": "air_temperature",
}

_ROLES = ("predictor", "auxiliary", "quality")


def tpi_name(radius: float) -> str:
    """Return the name of the TPI of a radius in metres: 1000 gives ``tpi_1km``.

    Examples
    --------
    >>> tpi_name(500), tpi_name(2000)
    ('tpi_0.5km', 'tpi_2km')
    """
    return f"tpi_{radius / 1000:g}km"


def covariates(study: Study) -> dict[str, Covariate]:
    """Return the layers of a study by name, predictors first, with one TPI for each radius.

    Those whose raw rasters the study has, and the user's own ones. StudyError if one of these has
    the name of another layer.
    """
    layers = [layer for layer in _built_in(study) if has_raw(study, _field(layer))]
    layers += [layer for predictor in study.own_predictors for layer in _own(study, predictor)]
    layers.sort(key=lambda layer: _ROLES.index(layer.role))
    by_name = {layer.name: layer for layer in layers}
    if len(by_name) < len(layers):
        names = [layer.name for layer in layers]
        twice = listed([name for name in by_name if names.count(name) > 1])
        raise StudyError(
            f"`predictors`: two covariates have the name {twice}.",
            "rename your own; or write the name alone, which takes that of `source`",
        )
    return by_name


def layers_of(study: Study, field: str) -> list[str]:
    """Return the names of the built-in layers that are made from a field of the source."""
    layers = covariates(study).values()
    return [one.name for one in layers if one.family != "own" and _field(one) == field]


def _field(layer: Covariate) -> str:
    """Return the field of the source that a built-in layer is made from."""
    return _MADE_FROM.get(layer.name) or _MADE_FROM[layer.family]


def setting_of(study: Study, layer: Covariate) -> str:
    """Return the setting whose rasters a layer is made from, such as ``source.dem``."""
    if layer.family != "own":
        return f"source.{_field(layer)}"
    makers = {GROUND_SHARE: [one.name for one in study.own_predictors if one.no_ice]}
    makers |= {name: [one.name] for one in study.own_predictors for name in own_names(one)}
    return f"predictors.{makers[layer.name][0]}"


def _built_in(study: Study) -> Iterator[Covariate]:
    for (family, source), rows in _LAYERS.items():
        for name, title, long_name, unit, aggregation in rows:
            role = _NO_PREDICTORS.get(name, "predictor")
            yield Covariate(name, title, long_name, unit, family, aggregation, source, role)
        if family == "terrain":
            for radius in study.covariates.terrain.tpi_radii:
                length = f"{radius / 1000:g} km"
                long_name = f"Topographic position index, radius {length}"
                name, title = tpi_name(radius), f"TPI {length}"
                yield Covariate(name, title, long_name, "m", family, _MEAN, source)


def check_terrain(study: Study) -> None:
    """Raise StudyError for a radius or window of terrain that holds one cell of the fine grid."""
    if not has_raw(study, "dem"):
        return
    terrain, cell = study.covariates.terrain, study.grid.fine_resolution
    remedy = "set a larger one, or a finer `grid.fine_resolution`"
    if short := [f"{radius:g}" for radius in terrain.tpi_radii if radius < cell]:
        raise StudyError(
            f"`covariates.terrain.tpi_radii`: {listed(short)} m is less than a cell of {cell:g} m, "
            "which `grid.fine_resolution` has.",
            remedy,
        )
    # A reference cell of several fine ones has relief of its own.
    if study.grid.resolution == cell and 1000 * math.sqrt(terrain.relief_window_km2) <= 2 * cell:
        raise StudyError(
            f"`covariates.terrain.relief_window_km2`: {terrain.relief_window_km2:g} km2 about a "
            f"cell of {cell:g} m holds that cell alone, so that relief would be 0 everywhere.",
            remedy,
        )


def own_names(predictor: OwnPredictor) -> list[str]:
    """Return the names of a predictor's covariates: sine and cosine of a circular one.

    Examples
    --------
    >>> own_names(OwnPredictor(name="wind", file="wind.tif", kind="circular"))
    ['wind_sin', 'wind_cos']
    """
    if predictor.kind == "circular":
        return [f"{predictor.name}_sin", f"{predictor.name}_cos"]
    return [predictor.name]


def _own(study: Study, predictor: OwnPredictor) -> Iterator[Covariate]:
    long_name = predictor.long_name or predictor.name.replace("_", " ").capitalize()
    unit = predictor.unit or (
        _unit_of_file(study.path(predictor.file), predictor)
        if isinstance(predictor.file, str)
        else "1"
    )
    how = f"{predictor.kind}, {predictor.resampling or 'by its cells'}"
    parts = [("", unit)]
    if predictor.kind == "circular":
        parts = [(", sine", "1"), (", cosine", "1")]
    for name, (part, part_unit) in zip(own_names(predictor), parts, strict=True):
        whole = long_name + part
        yield Covariate(name, whole, whole, part_unit, "own", how, str(predictor.file))
    if predictor.no_ice:
        title, whole = "Ground", "Share of ground that may hold ice"
        rule = "share of the raster's cells"
        more = (str(predictor.file), "auxiliary")
        yield Covariate(GROUND_SHARE, title, whole, "1", "own", rule, *more)


@cache
def _unit_of_file(path: Path, predictor: OwnPredictor) -> str:
    """Return the unit in a file's tags; "1" where there is none, or no file yet."""
    reading = Reading(band=predictor.band, variable=predictor.variable)
    try:
        with open_source(tiles(path)[0], reading) as source:
            return source.units[predictor.band - 1] or "1"
    except RasterError:
        return "1"


def predictor_names(study: Study) -> list[str]:
    """Return the covariates that samples must have and that forests may use, in their order."""
    if study.predictors == "all":
        names = [name for name, layer in covariates(study).items() if layer.role == "predictor"]
        if not names:
            raise StudyError(
                "The study has no predictors.",
                "name raw rasters in `source`, such as dem, or your own rasters in `predictors`",
            )
        return names
    names: list[str] = []
    for predictor in study.predictors:
        if isinstance(predictor, OwnPredictor):
            names += own_names(predictor)
        else:
            check_predictor(study, predictor, "predictors")
            names.append(predictor)
    return list(dict.fromkeys(names))


def used_predictors(study: Study) -> list[str]:
    """Return the predictors of the forests: `predictor_names` without what the study leaves out.

    Samples do not depend on what is left out, so that forests with and without it learn from the
    same ones. StudyError if nothing is left.
    """
    names = predictor_names(study)
    family = {name: layer.family for name, layer in covariates(study).items()}
    for name in study.left_out:
        check_predictor(study, name, "left_out", also=family.values())
    kept = [name for name in names if not {name, family[name]} & set(study.left_out)]
    if not kept:
        raise StudyError(f"`left_out` leaves no predictor of {listed(names)}.", "leave out fewer")
    return kept


def numeric(study: Study, name: str) -> bool:
    """Return whether a covariate is a number, and not the code of a category."""
    return name not in {one.name for one in study.own_predictors if one.kind == "category"}


def check_categories(predictor: OwnPredictor, codes: np.ndarray) -> None:
    """Raise CovariateError if a predictor has more than `MOST_CATEGORIES` different codes."""
    if codes.size > MOST_CATEGORIES:
        raise CovariateError(
            f"Predictor {predictor.name}: {predictor.file} has {codes.size} categories; "
            f"{MOST_CATEGORIES} are possible.",
            "join categories, or use `kind: number`",
        )


def check_predictor(study: Study, name: str, setting: str, also: Iterable[str] = ()) -> None:
    """Raise StudyError where a setting names no covariate of the registry, and none of `also`."""
    names = [*covariates(study), *dict.fromkeys(also)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise StudyError(
            f"`{setting}`: there is no covariate `{name}`{hint}", f"choose from {', '.join(names)}"
        )


def covariate_files(study: Study) -> dict[str, Path]:
    """Return the file of each layer."""
    return {name: study.processed_dir / f"{name}.tif" for name in covariates(study)}


FINE_LAYERS = {"elevation": "m", "slope": "degrees", "northness": "1", "tpi": "m", "twi": "1"}
"""Units of the terrain layers that are kept on the fine grid, too.

They serve to check the elevation of sites, and for work at a site's scale; no forest uses them.
"""


def fine_files(study: Study) -> dict[str, Path]:
    """Return the files of the terrain layers on the fine grid; none without an elevation model."""
    if not has_raw(study, "dem"):
        return {}
    return {name: study.processed_dir / f"{fine_name(name)}.tif" for name in FINE_LAYERS}


def fine_name(name: str) -> str:
    """Return the name of a terrain layer on the fine grid, by which `write_parts` knows it."""
    return f"fine/{name}"


def on_grid(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return values of the cells inside a mask as a float32 grid of its shape, NaN outside.

    Examples
    --------
    >>> on_grid(np.array([7.0]), np.array([[True, False]])).tolist()
    [[7.0, nan]]
    """
    grid = np.full(inside.shape, np.nan, np.float32)
    grid[inside] = values
    return grid


def write_covariates(study: Study, arrays: Mapping[str, np.ndarray]) -> list[Path]:
    """Write arrays on the whole reference grid, as `write_parts`."""
    rows, columns = reference_grid(study).shape
    return write_parts(study, list(arrays), [((slice(0, rows), slice(0, columns)), arrays)])


def write_parts(
    study: Study, names: Sequence[str], parts: Iterable[tuple[Part, Mapping[str, np.ndarray]]]
) -> list[Path]:
    """Write layers part by part as float32 GeoTIFFs, whole or not at all.

    Parameters
    ----------
    names
        Of covariates; those of `fine_name` are on the fine grid.
    parts
        Rows and columns of the reference grid, and arrays there. A layer is NaN in cells that no
        part has, or whose part lacks the layer, and outside of the study area; layers of the fine
        grid are kept there.

    Returns
    -------
    paths
        Of the layers on the reference grid.

    Raises
    ------
    CovariateError
        If a name is unknown, or an array has another shape than its part.
    """
    layers, geobox = covariates(study), reference_grid(study)
    categories = {one.name: one for one in study.own_predictors if one.kind == "category"}
    plain = [name for name in names if not name.startswith(fine_name(""))]
    if unknown := sorted(set(plain) - set(layers)):
        raise CovariateError(
            f"There is no covariate {', '.join(unknown)} in the registry.",
            "describe it in src/helpers/prepare/registry.py",
        )
    valid, codes, cells = dict.fromkeys(names, 0), dict.fromkeys(categories, np.empty(0)), 0
    with contextlib.ExitStack() as stack:
        targets = {name: stack.enter_context(_open_layer(study, name)) for name in names}
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        for place, arrays in parts:
            inside = area_mask(study, geobox[place])
            cells += np.count_nonzero(inside)
            here = [name for name in names if name in arrays]
            write = partial(_write_part, study, targets, place, inside, arrays)
            for name, values in zip(here, pool.map(write, here), strict=True):
                valid[name] += np.count_nonzero(np.isfinite(values))
                if name in categories:
                    found = pd.unique(values.ravel())  # of millions of cells
                    codes[name] = np.union1d(codes[name], found[np.isfinite(found)])
        for name in plain:
            tags = {"valid_share": f"{valid[name] / max(cells, 1):.4f}"}
            if name in categories:
                check_categories(categories[name], codes[name])
                tags["categories"] = " ".join(f"{code:g}" for code in codes[name])
            targets[name].update_tags(**tags)
    return [covariate_files(study)[name] for name in plain]


def _open_layer(study: Study, name: str) -> contextlib.AbstractContextManager[DatasetWriter]:
    """Give a layer to be written, on the fine grid by its `fine_name`."""
    described: dict[str, Any] = {"study": study, "names": name}
    layer = covariates(study).get(name)
    if layer is None:
        short = name.removeprefix(fine_name(""))
        described |= {"names": short, "units": FINE_LAYERS[short]}
        return open_raster(fine_files(study)[short], fine_grid(study), 1, np.float32, **described)
    tags = {key: getattr(layer, key) for key in ("family", "role", "aggregation", "source")}
    tags |= provenance(study, setting_of(study, layer))
    described |= {"units": layer.unit, "long_names": layer.long_name, "tags": tags}
    path = covariate_files(study)[name]
    return open_raster(path, reference_grid(study), 1, np.float32, **described)


def _write_part(
    study: Study,
    targets: Mapping[str, DatasetWriter],
    place: Part,
    inside: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    name: str,
) -> np.ndarray:
    """Write a part of a layer; return what was written. Fine layers are kept outside, too."""
    values, divisor = np.asarray(arrays[name], np.float32), 1
    fine = name.startswith(fine_name(""))
    if fine:
        divisor = study.grid.divisor
    shape = tuple(divisor * size for size in inside.shape)
    if values.shape != shape:
        raise CovariateError(
            f"{name} has {values.shape} cells, its part of the grid {shape}.",
            "make it on that part of the reference grid",
        )
    if not fine:
        values = np.where(inside, values, np.float32(np.nan))
    window = tuple(slice(divisor * axis.start, divisor * axis.stop) for axis in place)
    targets[name].write(values, 1, window=window)
    return values


def read_covariates(
    study: Study, names: Iterable[str] | None = None, step: int = 1
) -> "xarray.Dataset":
    """Open layers, by default all, as one data set; values are read when they are used.

    It has one float32 variable a layer on dimensions (y, x), with `units` and `long_name`. With a
    `step`, which is also its attribute, it has every so many-th cell of every so many-th row, and
    they are read at once.
    """
    import rioxarray
    import xarray

    files = covariate_files(study)
    layers = covariates(study)
    names = list(layers if names is None else names)
    if unknown := sorted(set(names) - set(files)):
        raise CovariateError(
            f"There is no covariate {', '.join(unknown)}.", f"choose from {', '.join(layers)}"
        )
    if missing := [name for name in names if not files[name].is_file()]:
        raise CovariateError(
            f"Covariates are missing from {study.processed_dir.name}/: {', '.join(missing)}.",
            "run notebooks/01-prepare-data.ipynb for this study",
        )
    arrays = {}
    for name in names:
        array = rioxarray.open_rasterio(files[name]).squeeze("band", drop=True)
        if step > 1:
            # What is read through rioxarray would hold the whole band in memory.
            array = array.isel(y=slice(None, None, step), x=slice(None, None, step))
            array = array.copy(data=read_band(files[name], step=step))
        array.attrs |= {"units": layers[name].unit, "long_name": layers[name].long_name}
        arrays[name] = array
    return xarray.Dataset(arrays, attrs={"step": step})


def coverage_table(study: Study, data: "xarray.Dataset") -> pd.DataFrame:
    """Return how much of the study area each layer covers, and its distribution there.

    From `data` of `read_covariates`; index `name`, columns long_name, unit, role, valid_cells,
    share_of_area, and minimum, p05, median, p95 and maximum. Where the data have every so many-th
    cell, each counts for as many.
    """
    layers = covariates(study)
    step = data.attrs["step"]
    inside = area_mask(study, thinned_grid(reference_grid(study), step))

    def row(name: str) -> dict[str, object]:
        layer = layers[name]
        values = data[name].to_numpy()[inside]
        values = values[np.isfinite(values)]
        levels = [0, 0.05, 0.5, 0.95, 1]
        numbers = np.quantile(values, levels) if values.size else np.full(len(levels), np.nan)
        return {
            "name": name,
            "long_name": layer.long_name,
            "unit": layer.unit,
            "role": layer.role,
            "valid_cells": values.size * step**2,
            "share_of_area": values.size / inside.sum(),
            **dict(zip(("minimum", "p05", "median", "p95", "maximum"), numbers, strict=True)),
        }

    with ThreadPoolExecutor(THREADS) as pool:
        return pd.DataFrame(list(pool.map(row, data.data_vars))).set_index("name")
