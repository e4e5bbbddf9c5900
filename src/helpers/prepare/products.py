"""Formats of the raw products: file names, scale factors, fill values and quality bits.

Sources: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide; MOD11 Collection 6.1 User's
Guide; Peng et al. (2019, ESSD 11:1931); SoilGrids 2.0 (Poggio et al. 2021, SOIL 7:217).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers.core.study import Study
from helpers.core.user_rasters import ENDINGS, tiles

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

_SCENE = re.compile(
    r"(?P<scene>LC0[89]_L2S[PR]_\d{6}_(?P<day>\d{8})_\d{8}_02_T[12])_(SR_B[2-6]|QA_PIXEL)\.TIF",
    re.IGNORECASE,
)

# Where the rasters of a source other than `files` lie in the folder of raw rasters.
_PLACES = {
    "dem": "dem.tif",
    "lst": "modis",
    "air_temperature": "climate",
    "precipitation": "climate",
    "soil": "soil",
}

# By name: field of the source, file.
_FILES = {
    name.lower().removesuffix("_1km"): ("lst", f"MOD11_monthly_{name}.tif")
    for name in ("LST_Day_1km", "QC_Day", "LST_Night_1km", "QC_Night")
}
_FILES |= {n: (n, f"{n}_monthly.tif") for n in ("air_temperature", "precipitation")}
_FILES |= {name: ("soil", f"{name}_0-30cm_mean.tif") for name in SOIL_LAYERS}


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
        return np.where(self.is_valid(numbers), values, np.float32(np.nan))

    def is_valid(self, numbers: np.ndarray) -> np.ndarray:
        """Return which numbers are in the valid range and not the fill value."""
        inside = (numbers >= self.valid_min) & (numbers <= self.valid_max)
        return inside & (numbers != self.fill)

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


def has_raw(study: Study, field: str) -> bool:
    """Return whether a study has the raw rasters that a field of its source names.

    Only studies of ``source: files`` can lack them.
    """
    return study.source.kind != "files" or bool(getattr(study.source, field))


def raw_files(study: Study) -> dict[str, Path]:
    """Return the raw rasters of a study; of ``source: files`` only of the fields that it names.

    A missing one is listed where it should be.

    Returns
    -------
    files
        ``dem`` (m, one band), or ``dem_<name>`` of each tile; ``landsat_<scene>_<asset>`` for the
        five bands and ``qa_pixel`` of each scene (one band each); ``lst_day``, ``qc_day``,
        ``lst_night``, ``qc_night``, ``air_temperature``, ``precipitation`` (12 bands, a band a
        month); ``sand``, ``silt``, ``clay``, ``soc`` (one band).
    """
    files = {}
    if has_raw(study, "dem"):
        found = tiles(_place(study, "dem"))
        files = {"dem" if len(found) == 1 else f"dem_{path.name}": path for path in found}
    if has_raw(study, "landsat"):
        days = landsat_scenes(study).values()
        scenes = {scene: assets for day in days for scene, assets in day.items()}
        if study.source.kind == "files" and not scenes:
            files["landsat"] = _place(study, "landsat")
        for scene, assets in scenes.items():
            files |= {f"landsat_{scene}_{asset}": path for asset, path in assets.items()}
    for name, (field, file) in _FILES.items():
        if has_raw(study, field):
            place = _place(study, field)
            raster = place.suffix.lower() in ENDINGS
            files[name] = place if raster else min(place.rglob(file), default=place / file)
    return files


def field_of(name: str) -> str:
    """Return the field of the source that gives a raster, by its name in `raw_files`."""
    return _FILES[name][0] if name in _FILES else name.partition("_")[0]


def dem_files(study: Study) -> list[Path]:
    """Return the elevation model, or its tiles."""
    files = raw_files(study).items()
    return [path for name, path in files if name == "dem" or name.startswith("dem_")]


def landsat_scenes(study: Study) -> dict[str, dict[str, dict[str, Path]]]:
    """Return the Landsat scenes of a study: by date as YYYYMMDD and by scene, files by asset.

    Of ``source: files``, those of Landsat 8 and 9 in a folder, at any depth, named as by the USGS.
    """
    scenes: dict[str, dict[str, dict[str, Path]]] = {}
    if study.source.kind != "files":
        folder = study.raw_dir / "landsat"
        for day in scene_days(study):
            assets = ("qa_pixel", *LANDSAT_BANDS)
            scenes[day] = {day: {a: folder / f"LC08_L2SP_{day}_{a}.tif" for a in assets}}
    elif study.source.landsat:
        for path in sorted(_place(study, "landsat").rglob("*")):
            if match := _SCENE.fullmatch(path.name):
                scene, day, ending = match["scene"], match["day"], path.suffix
                endings = {"qa_pixel": "QA_PIXEL"}
                endings |= {asset: f"SR_{band}" for asset, band in LANDSAT_BANDS.items()}
                scenes.setdefault(day, {})[scene] = {
                    asset: path.with_name(f"{scene}_{band}{ending}")
                    for asset, band in endings.items()
                }
    return dict(sorted(scenes.items()))


def scene_days(study: Study) -> list[str]:
    """Return the dates of the study's Landsat scenes, `source.scene_dates`, as YYYYMMDD."""
    return [str(day).replace("-", "") for day in getattr(study.source, "scene_dates", [])]


def _place(study: Study, field: str) -> Path:
    """Return the file or folder of a field of the source."""
    if study.source.kind == "files":
        return study.path(getattr(study.source, field))
    return study.raw_dir / _PLACES[field]
