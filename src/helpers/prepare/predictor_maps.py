"""Maps of the predictors."""

from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.core.grid import grid_step, reference_grid
from helpers.core.study import Study
from helpers.prepare.registry import covariates, numeric, read_covariates

if TYPE_CHECKING:
    import xarray

_COLOURS = {
    "lajolla_r": ("slope", "relief_amplitude", "organic_carbon", "sand", "silt", "clay"),
    "romaO": ("aspect",),
    "vik": ("northness", "eastness", "tpi"),
    "devon_r": ("twi",),
    "bamako_r": ("ndvi", "evi"),
    "lapaz": ("ndwi", "ndmi"),
    "lipari": ("lst_mean", "thawing_index", "mean_annual_air_temperature"),
    "oslo_r": ("freezing_index",),
    "davos_r": ("precipitation",),
    "vik_r": ("air_frost_number",),
}
# The colour map of each covariate, by its name or the first part of it; batlow for all others.
_COLOUR_OF = {name: colours for colours, names in _COLOURS.items() for name in names}

# Directions have no mean, and positions above the surroundings have the mean zero.
_NO_MEAN = ("aspect", "northness", "eastness", "tpi")

_LIMITS = {
    "aspect": (0, 360),
    "northness": (-1, 1),
    "eastness": (-1, 1),
    "air_frost_number": (0.3, 0.7),
    "twi_edge": (0, 1),
}


def covariate_panels(study: Study, data: "xarray.Dataset") -> list[dict[str, Any]]:
    """Return a panel for `map_panels` of each covariate that `read_covariates` gave."""
    geobox = reference_grid(study).zoom_out(data.attrs["step"])
    layers = covariates(study)
    panels = []
    for name in data.data_vars:
        stem = name.split("_")[0]
        panel = {
            "title": layers[name].title,
            "values": data[name].values,
            "geobox": geobox,
            "unit": layers[name].unit,
            "cmap": _COLOUR_OF.get(name) or _COLOUR_OF.get(stem, "batlow"),
        }
        if stem in _NO_MEAN or name.endswith(("_sin", "_cos")):
            panel["thin"] = "nearest"
        if not numeric(study, name):
            panel |= {"thin": "nearest", "cmap": "tab20", "unit": "code of the category"}
            panel |= {"vmin": np.nanmin(panel["values"]), "vmax": np.nanmax(panel["values"])}
        low, high = _LIMITS.get(name, (None, None))
        if stem == "tpi":  # about zero, so that mid-slope has the middle colour
            high = float(np.nanpercentile(np.abs(panel["values"]), 98))
            low = -high
        if low is not None:
            panel |= {"vmin": low, "vmax": high}
        panels.append(panel)
    return panels


def background_panel(study: Study) -> dict[str, Any]:
    """Return a panel that samples can be drawn over: elevation, or else the first predictor."""
    numbers = [name for name in covariates(study) if numeric(study, name)]
    name = "elevation" if "elevation" in numbers else (numbers or list(covariates(study)))[0]
    step = grid_step(study)
    return covariate_panels(study, read_covariates(study, [name], step))[0]
