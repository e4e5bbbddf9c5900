"""Maps of the predictors."""

import numpy as np

from helpers.core.grid import reference_grid
from helpers.prepare.registry import covariates

COVARIATE_COLOURS = {
    "slope": "lajolla_r",
    "aspect": "romaO",
    "northness": "vik",
    "eastness": "vik",
    "twi": "devon_r",
    "relief_amplitude": "lajolla_r",
    "tpi": "vik",
    "ndvi": "bamako_r",
    "evi": "bamako_r",
    "ndwi": "lapaz",
    "ndmi": "lapaz",
    "lst_mean": "lipari",
    "thawing_index": "lipari",
    "freezing_index": "oslo_r",
    "precipitation": "davos_r",
    "mean_annual_air_temperature": "lipari",
    "air_frost_number": "vik_r",
    "organic_carbon": "lajolla_r",
    "sand": "lajolla_r",
    "silt": "lajolla_r",
    "clay": "lajolla_r",
}
"""Colour map of each covariate, by its name or the first part of it; batlow for all others."""


def covariate_panels(study, data):
    """Return panels for `map_panels` of covariates.

    Parameters
    ----------
    study : helpers.core.study.Study
    data : xarray.Dataset
        As `helpers.prepare.registry.read_covariates` returns it.

    Returns
    -------
    list of dict
    """
    geobox, layers = reference_grid(study), covariates(study)
    return [_covariate_panel(layers[name], data[name].values, geobox) for name in data.data_vars]


def _covariate_panel(layer, values, geobox):
    colours = COVARIATE_COLOURS.get(layer.name) or COVARIATE_COLOURS.get(layer.name.split("_")[0], "batlow")
    panel = {"title": layer.title, "values": values, "geobox": geobox, "unit": layer.unit, "cmap": colours}
    if layer.name in ("aspect", "northness", "eastness"):
        panel["thin"] = "nearest"
    if layer.name.startswith("tpi_"):  # about zero, so that the middle of the colours is the middle of the slope
        reach = float(np.nanpercentile(np.abs(values), 98))
        panel |= {"vmin": -reach, "vmax": reach}
    fixed = {
        "aspect": (0, 360),
        "northness": (-1, 1),
        "eastness": (-1, 1),
        "air_frost_number": (0.3, 0.7),
        "twi_edge": (0, 1),
    }
    if layer.name in fixed:
        panel |= dict(zip(("vmin", "vmax"), fixed[layer.name], strict=True))
    return panel
