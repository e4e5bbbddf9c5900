"""Formats of the raw products: file names, scale factors, fill values and quality bits.

Sources: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide; MOD11 Collection 6.1 User's
Guide; Peng et al. (2019, ESSD 11:1931); SoilGrids 2.0 (Poggio et al. 2021, SOIL 7:217).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers.core.study import Study

LANDSAT_BANDS = {"blue": "B2", "green": "B3", "red": "B4", "nir08": "B5", "swir16": "B6"}
"""STAC asset names of the five bands used, and their numbers on Landsat 8."""

QA_BITS = {
    "fill": 0,
    "dilated_cloud": 1,
    "cirrus": 2,
    "cloud": 3,
    "cloud_shadow": 4,
    "snow": 5,
    "clear": 6,
    "water": 7,
}
"""Bits of Landsat's QA_PIXEL."""

SOIL_LAYERS = ("sand", "silt", "clay", "soc")


@dataclass(frozen=True)
class Encoding:
    """How a product stores a physical quantity as whole numbers.

    value = number * scale + offset, in `unit`. The number `fill`, and numbers outside of
    `valid_min` to `valid_max`, are no values.
    """

    unit: str
    scale: float
    offset: float
    dtype: str
    fill: int
    valid_min: int
    valid_max: int

    def decode(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Return float32 values, NaN where a number is the fill value or out of range."""
        numbers = np.asarray(numbers)
        values = numbers.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        bad = (numbers == self.fill) | (numbers < self.valid_min) | (numbers > self.valid_max)
        return np.where(bad, np.float32(np.nan), values)

    def encode(self, values: npt.ArrayLike) -> np.ndarray:
        """Return digital numbers clipped into the valid range, the fill value for NaN."""
        numbers = np.rint((np.asarray(values) - self.offset) / self.scale)
        numbers = np.clip(numbers, self.valid_min, self.valid_max)
        return np.where(np.isnan(numbers), self.fill, numbers).astype(self.dtype)


LANDSAT_REFLECTANCE = Encoding("1", 0.0000275, -0.2, "uint16", 0, 7273, 43636)

MODIS_LST = Encoding("K", 0.02, 0.0, "uint16", 0, 7500, 65535)

MONTHLY_TEMPERATURE = Encoding("degC", 0.1, 0.0, "int16", -32768, -1000, 1000)

MONTHLY_PRECIPITATION = Encoding("mm", 0.1, 0.0, "uint16", 65535, 0, 65534)

SOIL_FRACTION = Encoding("%", 0.1, 0.0, "int16", -32768, 0, 1000)
"""Sand, silt and clay of SoilGrids in g kg-1, decoded to percent by weight."""

SOIL_CARBON = Encoding("%", 0.01, 0.0, "int16", -32768, 0, 10000)
"""Soil organic carbon of SoilGrids in dg kg-1, decoded to percent by weight."""


def raw_files(study: Study) -> dict[str, Path]:
    """Return the raw rasters of a study.

    Returns
    -------
    files
        ``dem`` (m, one band); ``landsat_<YYYYMMDD>_<asset>`` for the five bands and ``qa_pixel`` of
        each scene (one band each); ``lst_day``, ``qc_day``, ``lst_night``, ``qc_night``,
        ``air_temperature``, ``precipitation`` (12 bands, a band a month); ``sand``, ``silt``,
        ``clay``, ``soc`` (one band).
    """
    folder = study.raw_dir
    files = {"dem": folder / "dem.tif"}
    for day in scene_days(study):
        for asset in (*LANDSAT_BANDS, "qa_pixel"):
            files[f"landsat_{day}_{asset}"] = folder / "landsat" / f"LC08_L2SP_{day}_{asset}.tif"
    for name in ("LST_Day_1km", "QC_Day", "LST_Night_1km", "QC_Night"):
        files[name.lower().removesuffix("_1km")] = folder / "modis" / f"MOD11_monthly_{name}.tif"
    for name in ("air_temperature", "precipitation"):
        files[name] = folder / "climate" / f"{name}_monthly.tif"
    for name in SOIL_LAYERS:
        files[name] = folder / "soil" / f"{name}_0-30cm_mean.tif"
    return files


def scene_days(study: Study) -> list[str]:
    """Return the dates of the study's Landsat scenes, `source.scene_dates`, as YYYYMMDD."""
    return [str(day).replace("-", "") for day in getattr(study.source, "scene_dates", [])]
