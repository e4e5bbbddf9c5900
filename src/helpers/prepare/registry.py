"""The registry of covariates: what each layer is, and how all of them are written and read."""

import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas

from helpers.core.errors import CompendiumError, listed
from helpers.core.files import write_text
from helpers.core.grid import area_mask, reference_grid
from helpers.core.rasters import THREADS, write_raster
from helpers.core.study import StudyError

SOIL_GAP_KM = 20
"""Gaps of soil maps are filled from the nearest valid cell within this distance."""


class CovariateError(CompendiumError):
    """A covariate that is unknown, missing, or not on the reference grid."""


@dataclass(frozen=True)
class Covariate:
    """One layer.

    Parameters
    ----------
    name : str
        File name without suffix, and column name in sample tables.
    title, long_name, unit : str
        A title for figures and tables, the whole name, and the unit; "1" where there is none.
    family : str
        terrain, vegetation, climate or soil: the module that makes it.
    aggregation : str
        How it gets onto the reference grid.
    source : str
    role : str
        ``predictor`` for the forests, ``quality`` to judge a cell by, ``auxiliary`` for rules and
        comparisons.
    """

    name: str
    title: str
    long_name: str
    unit: str
    family: Literal["terrain", "vegetation", "climate", "soil"]
    aggregation: str
    source: str
    role: Literal["predictor", "quality", "auxiliary"] = "predictor"


_MEAN = "mean of the fine grid's cells"


_MEDIAN = "nearest onto the fine grid, median over dates, mean of the fine grid's cells"


_CIRCULAR = "direction of the mean unit vector of the fine grid's cells"


_RANGE = "highest less lowest cell of the fine grid in a window centred on the cell"


_ANY = "1 where any of the fine grid's cells is"


_NEAREST = "nearest, native grid of about 1 km"


_SMOOTH = "bilinear"


_FILLED = f"bilinear; gaps filled from the nearest valid cell within {SOIL_GAP_KM} km"


# name, title, long name, unit, aggregation, and a role where it is no predictor
_TERRAIN = [
    ("elevation", "Elevation", "Elevation", "m", _MEAN),
    ("slope", "Slope", "Slope", "degrees", _MEAN),
    ("northness", "Northness", "Northness (cosine of aspect, 0 where flat)", "1", _MEAN),
    ("eastness", "Eastness", "Eastness (sine of aspect, 0 where flat)", "1", _MEAN),
    ("twi", "TWI", "Topographic wetness index", "1", _MEAN),
    ("relief_amplitude", "Relief amplitude", "Relief amplitude", "m", _RANGE),
    ("aspect", "Aspect", "Aspect from true north, none where flat", "degrees", _CIRCULAR, "auxiliary"),
    ("twi_edge", "TWI cut off", "Contributing area touches the elevation model's edge", "1", _ANY, "quality"),
]


_VEGETATION = [
    ("ndvi", "NDVI", "Normalised difference vegetation index", "1", _MEDIAN),
    ("evi", "EVI", "Enhanced vegetation index", "1", _MEDIAN),
    ("ndwi", "NDWI", "Normalised difference water index (McFeeters)", "1", _MEDIAN),
    ("ndmi", "NDMI", "Normalised difference moisture index (Gao's NDWI)", "1", _MEDIAN),
    ("landsat_valid_share", "Valid Landsat share", "Valid pixels over all scenes", "1", _MEAN, "quality"),
]


_LST = [
    ("lst_mean", "Mean LST", "Mean annual land surface temperature", "degC", _NEAREST),
    ("thawing_index", "Thawing index", "Surface thawing index", "degC d", _NEAREST),
    ("freezing_index", "Freezing index", "Surface freezing index", "degC d", _NEAREST),
    ("lst_valid_share", "Valid LST share", "Valid months, day and night", "1", _NEAREST, "quality"),
]


_CLIMATE = [
    ("precipitation", "Precipitation", "Annual precipitation", "mm", _SMOOTH),
    ("mean_annual_air_temperature", "Air temperature", "Mean annual air temperature", "degC", _SMOOTH),
    ("air_frost_number", "Air frost number", "Air frost number", "1", _SMOOTH),
]


_SOIL = [
    ("sand", "Sand", "Sand in the topsoil", "%", _FILLED),
    ("silt", "Silt", "Silt in the topsoil", "%", _FILLED),
    ("clay", "Clay", "Clay in the topsoil", "%", _FILLED),
    ("organic_carbon", "Organic carbon", "Organic carbon in the topsoil", "%", _FILLED),
]


_TABLES = [
    ("terrain", "digital elevation model (Copernicus DEM, or the virtual landscape's)", _TERRAIN),
    ("vegetation", "Landsat 8 Collection 2 Level 2, growing-season scenes", _VEGETATION),
    ("climate", "MODIS MOD11 land surface temperature, monthly, clear sky", _LST),
    ("climate", "monthly climate (Peng et al. 2019, ESSD 11:1931, or ERA5)", _CLIMATE),
    ("soil", "topsoil properties (SoilGrids 2.0, or HWSD in the virtual landscape)", _SOIL),
]


_ROLES = ("predictor", "auxiliary", "quality")


def tpi_name(radius):
    """Return the name of the topographic position index of a radius in metres: 1000 gives ``tpi_1km``."""
    return f"tpi_{radius / 1000:g}km"


def covariates(study):
    """Return the layers of a study by name: the fixed ones, and one topographic position index a radius.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to Covariate
    """
    positions = [
        (
            tpi_name(radius),
            f"TPI {radius / 1000:g} km",
            f"Topographic position index, radius {radius / 1000:g} km",
            "m",
            _MEAN,
        )
        for radius in study.covariates.terrain.tpi_radii
    ]
    layers = [
        Covariate(name, title, long_name, unit, family, aggregation, source, *role)
        for family, source, table in _TABLES
        for name, title, long_name, unit, aggregation, *role in (table + positions if table is _TERRAIN else table)
    ]
    return {layer.name: layer for layer in sorted(layers, key=lambda layer: _ROLES.index(layer.role))}


def predictors(study):
    """Return the names of the layers that the forests use, in their order."""
    return [name for name, layer in covariates(study).items() if layer.role == "predictor"]


def covariate_files(study):
    """Return the file of each layer.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to pathlib.Path
    """
    return {name: study.processed_dir / f"{name}.tif" for name in covariates(study)}


FINE_LAYERS = {"elevation": "m", "slope": "degrees", "northness": "1", "tpi": "m", "twi": "1"}
"""Terrain on the fine grid that the hidden truth of the virtual study is drawn from, and units; no forest sees them."""


def fine_files(study):
    """Return the files of the fine terrain layers; only the virtual study has them."""
    return {name: study.processed_dir / "fine" / f"{name}.tif" for name in FINE_LAYERS if study.simulated}


def write_covariates(study, arrays):
    """Write layers as float32 GeoTIFFs, NaN outside of the study area.

    Parameters
    ----------
    study : helpers.core.study.Study
    arrays : dict of str to numpy.ndarray
        Arrays on the reference grid, by the names of the registry.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    CovariateError
        A name is unknown or an array does not fit the reference grid; nothing is written then.
    """
    layers, files = covariates(study), covariate_files(study)
    geobox = reference_grid(study)
    if unknown := sorted(set(arrays) - set(layers)):
        raise CovariateError(
            f"There is no covariate {', '.join(unknown)} in the registry.",
            "describe it in src/helpers/prepare/registry.py",
        )
    for name, values in arrays.items():
        if values.shape != tuple(geobox.shape):
            raise CovariateError(
                f"{name} has {values.shape} cells, the reference grid {tuple(geobox.shape)}.",
                "make it on the reference grid",
            )
    inside = area_mask(study, geobox)

    def write(name):
        values = np.where(inside, arrays[name], np.float32(np.nan)).astype(np.float32)
        layer = layers[name]
        tags = {
            "family": layer.family,
            "role": layer.role,
            "aggregation": layer.aggregation,
            "source": layer.source,
        }
        return write_raster(
            files[name],
            values,
            geobox,
            study=study,
            names=name,
            units=layer.unit,
            long_names=layer.long_name,
            tags=tags,
        )

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(write, arrays))


def read_covariates(study, names=None):
    """Open layers as one data set; values are read when they are used.

    Parameters
    ----------
    study : helpers.core.study.Study
    names : sequence of str, optional
        All layers by default.

    Returns
    -------
    xarray.Dataset
        One float32 variable a layer on dimensions (y, x), with `units` and `long_name`.

    Raises
    ------
    CovariateError
        A layer is unknown, or its file is missing.
    """
    import rioxarray
    import xarray

    files, layers = covariate_files(study), covariates(study)
    names = list(layers) if names is None else list(names)
    if unknown := sorted(set(names) - set(files)):
        raise CovariateError(f"There is no covariate {', '.join(unknown)}.", f"choose from {', '.join(layers)}")
    if missing := [name for name in names if not files[name].is_file()]:
        raise CovariateError(
            f"Covariates are missing from {study.processed_dir.name}/: {', '.join(missing)}.",
            "run notebooks/01-prepare-data.ipynb for this study",
        )
    arrays = {}
    for name in names:
        array = rioxarray.open_rasterio(files[name]).squeeze("band", drop=True)
        array.attrs |= {"units": layers[name].unit, "long_name": layers[name].long_name}
        arrays[name] = array
    return xarray.Dataset(arrays)


def coverage_table(study, data=None):
    """Return how much of the study area each layer covers, and its distribution there.

    Parameters
    ----------
    study : helpers.core.study.Study
    data : xarray.Dataset, optional
        As `read_covariates` returns it, which is also the default.

    Returns
    -------
    pandas.DataFrame
        Index `name`; long_name, unit, role, valid_cells, share_of_area, and minimum, 5th percentile, median,
        95th percentile and maximum.
    """
    data = read_covariates(study) if data is None else data
    layers = covariates(study)
    inside = area_mask(study, reference_grid(study))

    def row(name):
        values = data[name].to_numpy()[inside]
        values = values[np.isfinite(values)]
        layer = layers[name]
        numbers = np.quantile(values, [0, 0.05, 0.5, 0.95, 1]) if values.size else np.full(5, np.nan)
        return [layer.long_name, layer.unit, layer.role, values.size, values.size / inside.sum(), *numbers]

    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(row, data.data_vars))
    columns = [
        "long_name",
        "unit",
        "role",
        "valid_cells",
        "share_of_area",
        "minimum",
        "p05",
        "median",
        "p95",
        "maximum",
    ]
    return pandas.DataFrame(rows, columns=columns, index=pandas.Index(list(data.data_vars), name="name"))


def write_summary(study, coverage, frost_area, correlation):
    """Write the headline numbers of the covariates as JSON beside them.

    Parameters
    ----------
    study : helpers.core.study.Study
    coverage : pandas.DataFrame
        From `coverage_table`.
    frost_area : float
        Area with an air frost number of at least 0.5, 10^4 km2.
    correlation : float
        Of NDWI with NDVI.

    Returns
    -------
    dict
    """
    predictors = coverage[coverage["role"] == "predictor"]
    grid = reference_grid(study)
    summary = {
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "resolution_m": study.grid.resolution,
        "predictors": len(predictors),
        "fewest_valid_cells": int(predictors["valid_cells"].min()),
        "most_valid_cells": int(predictors["valid_cells"].max()),
        "frost_area_1e4_km2": round(frost_area, 2),
        "correlation_ndwi_ndvi": round(correlation, 3),
    }
    write_text(study.processed_dir / "summary.json", json.dumps(summary, indent=1))
    return summary


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
    if study.predictors == "all":
        return list(predictors(study))
    for name in study.predictors:
        check_predictor(study, name, "predictors")
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
    names, family = predictor_names(study), {name: one.family for name, one in covariates(study).items()}
    for name in study.left_out:
        check_predictor(study, name, "left_out", also=family.values())
    kept = [name for name in names if not {name, family[name]} & set(study.left_out)]
    if not kept:
        raise StudyError(f"`left_out` leaves no predictor of {listed(names)}.", "leave out fewer")
    return kept


def check_predictor(study, name, setting, also=()):
    """Raise StudyError where a setting names a covariate that the registry does not have."""
    known = [*covariates(study), *dict.fromkeys(also)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise StudyError(
            f"`{setting}`: there is no covariate `{name}`{f'; did you mean `{near[0]}`?' if near else ''}",
            f"choose from {', '.join(known)}",
        )
