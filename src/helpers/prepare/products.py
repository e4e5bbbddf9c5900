"""Formats of the raw products: file names, scale factors, fill values and quality bits.

The virtual landscape encodes with them and notebook 01 decodes with them, so that simulated and real files are the same
to it. Sources: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide; MOD11 Collection 6.1 User's Guide;
Peng et al. (2019, ESSD 11:1931); SoilGrids 2.0 (Poggio et al. 2021, SOIL 7:217).
"""

from dataclasses import dataclass

import numpy as np

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


MONTHS = tuple(range(1, 13))


@dataclass(frozen=True)
class Encoding:
    """How a product stores a physical quantity as whole numbers.

    Parameters
    ----------
    unit : str
        Unit of the decoded value.
    scale, offset : float
        value = DN * scale + offset.
    dtype : str
        Type of the digital numbers.
    fill : int
        The digital number that means "no value".
    valid_min, valid_max : int
        Digital numbers outside of them are no values either.
    """

    unit: str
    scale: float
    offset: float
    dtype: str
    fill: int
    valid_min: int
    valid_max: int

    def decode(self, numbers):
        """Return float32 values, NaN where the digital number is the fill value or out of the valid range."""
        numbers = np.asarray(numbers)
        values = numbers.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        bad = (numbers == self.fill) | (numbers < self.valid_min) | (numbers > self.valid_max)
        return np.where(bad, np.float32(np.nan), values)

    def encode(self, values):
        """Return digital numbers, the fill value where a value is NaN; others are clipped into the valid range."""
        numbers = np.rint((np.asarray(values) - self.offset) / self.scale)
        numbers = np.clip(numbers, self.valid_min, self.valid_max)
        return np.where(np.isnan(numbers), self.fill, numbers).astype(self.dtype)


LANDSAT_REFLECTANCE = Encoding("1", 0.0000275, -0.2, "uint16", 0, 7273, 43636)


LANDSAT_TEMPERATURE = Encoding("K", 0.00341802, 149.0, "uint16", 0, 1, 65535)


MODIS_LST = Encoding("K", 0.02, 0.0, "uint16", 0, 7500, 65535)


MONTHLY_TEMPERATURE = Encoding("degC", 0.1, 0.0, "int16", -32768, -1000, 1000)


MONTHLY_PRECIPITATION = Encoding("mm", 0.1, 0.0, "uint16", 65535, 0, 65534)


SOIL_FRACTION = Encoding("%", 0.1, 0.0, "int16", -32768, 0, 1000)
"""Sand, silt and clay of SoilGrids in g kg-1, decoded to percent by weight."""


SOIL_CARBON = Encoding("%", 0.01, 0.0, "int16", -32768, 0, 10000)
"""Soil organic carbon of SoilGrids in dg kg-1, decoded to percent by weight."""


def raw_files(study):
    """Return the raw rasters of a study.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to pathlib.Path
        ``dem`` (m, one band); ``landsat_<YYYYMMDD>_<asset>`` for the five bands and ``qa_pixel`` of each scene (one
        band each); ``lst_day``, ``qc_day``, ``lst_night``, ``qc_night`` (12 bands, a band a month);
        ``air_temperature``, ``precipitation`` (12 bands); ``sand``, ``silt``, ``clay``, ``soc`` (one band).
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


def scene_days(study):
    """Return the dates of the study's Landsat scenes as YYYYMMDD."""
    return [f"{day:%Y%m%d}" for day in study.landscape.scene_dates]
