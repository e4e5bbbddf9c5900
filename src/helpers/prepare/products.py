"""Formats of the raw products: file names, scale factors, fill values and quality bits.

Sources: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide; MOD11 Collection 6.1 User's
Guide; Peng et al. (2019, ESSD 11:1931); SoilGrids 2.0 (Poggio et al. 2021, SOIL 7:217).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.core.errors import listed
from helpers.core.files import read_json
from helpers.core.settings import OpenData, OwnPredictor
from helpers.core.study import Study
from helpers.core.user_rasters import ENDINGS, RasterError, raster_files, tiles

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

SOIL_DEPTHS = {"0-5cm": 5, "5-15cm": 10, "15-30cm": 15}
"""Depths of SoilGrids that make up the topsoil, and how thick they are in cm."""

LST_ASSETS = ("LST_Day_1km", "QC_Day", "LST_Night_1km", "QC_Night")

COMPOSITE_DAYS = 8
"""Days of a composite of MOD11A2 and MYD11A2."""

SCENE = re.compile(
    r"(?P<scene>LC0[89]_L2S[PR]_\d{6}_(?P<day>\d{8})_\d{8}_02_T[12])_(SR_B[2-6]|QA_PIXEL)\.TIF",
    re.IGNORECASE,
)
"""Names of the files of a scene of Landsat 8 or 9."""

COMPOSITE = re.compile(
    r"(?P<name>M[OY]D11A2\.A(?P<day>\d{7})\.(?P<tile>h\d\dv\d\d)\.[\d.]+_)"
    rf"({'|'.join(LST_ASSETS)})\.tif",
    re.IGNORECASE,
)
"""Names of the files of an 8-day composite."""

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
        """Return float32 values, NaN where a number is the fill value or out of range.

        Examples
        --------
        >>> MONTHLY_TEMPERATURE.decode([-205, -32768, 2000]).tolist()  # tenths; fill; over 100 degC
        [-20.5, nan, nan]
        """
        numbers = np.asarray(numbers)
        values = numbers.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        return np.where(self.is_valid(numbers), values, np.float32(np.nan))

    def is_valid(self, numbers: np.ndarray) -> np.ndarray:
        """Return which numbers are in the valid range and not the fill value.

        Examples
        --------
        >>> SOIL_FRACTION.is_valid(np.array([0, 1000, 1001, -32768])).tolist()  # g kg-1
        [True, True, False, False]
        """
        inside = (numbers >= self.valid_min) & (numbers <= self.valid_max)
        return inside & (numbers != self.fill)

    def encode(self, values: npt.ArrayLike) -> np.ndarray:
        """Return digital numbers clipped into the valid range, the fill value for NaN.

        Examples
        --------
        >>> MONTHLY_TEMPERATURE.encode([-20.5, np.nan, 500]).tolist()  # tenths; 1000 is the most
        [-205, -32768, 1000]
        """
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


def _from_package(study: Study) -> bool:
    """Return whether a package makes the raw rasters, and no field of the source names them."""
    return study.source.kind not in ("files", "stac")


def has_raw(study: Study, field: str) -> bool:
    """Return whether a study has the raw rasters that a field of its source names.

    Only studies of ``source: files`` or ``stac`` can lack them.
    """
    return _from_package(study) or bool(getattr(study.source, field))


def raw_files(study: Study) -> dict[str, Path]:
    """Return the raw rasters of a study; of files and open data only of the fields that it names.

    A missing one is listed where it should be. RasterError if open data are not fetched.

    Returns
    -------
    files
        ``dem`` (m, one band), or ``dem_<name>`` of each tile; ``landsat_<scene>_<asset>`` for the
        five bands and ``qa_pixel`` of each scene (one band each); ``lst_day``, ``qc_day``,
        ``lst_night``, ``qc_night``, ``air_temperature``, ``precipitation`` (12 bands, a band a
        month), or ``lst_<name>_<asset>`` of each 8-day composite (one band); ``sand``, ``silt``,
        ``clay``, ``soc`` (one band), or ``sand_0-5cm`` and so on.
    """
    files = {}
    if has_raw(study, "dem"):
        found = _rasters(study, "dem")
        files = {"dem" if len(found) == 1 else f"dem_{path.name}": path for path in found}
    if has_raw(study, "landsat"):
        days = landsat_scenes(study).values()
        scenes = {scene: assets for day in days for scene, assets in day.items()}
        if study.source.kind == "files" and not scenes:
            files["landsat"] = _place(study, "landsat")
        for scene, assets in scenes.items():
            files |= {f"landsat_{scene}_{asset}": path for asset, path in assets.items()}
    composites = lst_composites(study)
    for one in composites:
        files |= {f"lst_{path.stem}": path for path in one.files}
    depths = _soil_depths(study)
    files |= depths
    found = {field for field, there in (("lst", composites), ("soil", depths)) if there}
    for name, (field, file) in _FILES.items():
        if has_raw(study, field) and field not in found:
            files[name] = _one_raster(study, field, file)
    return files


def user_files(study: Study) -> dict[str, Path]:
    """Return those of `raw_files` that the user names: no open data, and none of a package."""
    if _from_package(study):
        return {}
    source = study.source.model_copy(update=dict.fromkeys(study.source.open_data, ""))
    return raw_files(study.model_copy(update={"source": source}))


def field_of(name: str) -> str:
    """Return the field of the source that gives a raster, by its name in `raw_files`.

    Examples
    --------
    >>> [field_of(name) for name in ("qc_day", "sand_0-5cm", "precipitation", "dem")]
    ['lst', 'soil', 'precipitation', 'dem']
    """
    field = name.partition("_")[0]
    return _FILES[name][0] if name in _FILES else "soil" if field in SOIL_LAYERS else field


def dem_files(study: Study) -> list[Path]:
    """Return the elevation model, or its tiles."""
    return _rasters(study, "dem")


def landsat_scenes(study: Study) -> dict[str, dict[str, dict[str, Path]]]:
    """Return the Landsat scenes of a study: by date as YYYYMMDD and by scene, files by asset.

    Of files, those of Landsat 8 and 9 in a folder, at any depth, named as by the USGS.
    """
    scenes: dict[str, dict[str, dict[str, Path]]] = {}
    if not has_raw(study, "landsat"):
        return scenes
    if _from_package(study):
        folder = study.raw_dir / "landsat"
        for day in scene_days(study):
            assets = ("qa_pixel", *LANDSAT_BANDS)
            scenes[day] = {day: {a: folder / f"LC08_L2SP_{day}_{a}.tif" for a in assets}}
    else:
        for path in _at_any_depth(study, "landsat"):
            if match := SCENE.fullmatch(path.name):
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


@dataclass(frozen=True)
class Composite:
    """An 8-day composite of surface temperature in one tile.

    Parameters
    ----------
    first
        Its first day.
    tile
        Its place in the grid of MODIS, such as h25v03.
    files
        The rasters of `LST_ASSETS`, in this order.
    """

    first: date
    tile: str
    files: tuple[Path, ...]

    @property
    def days(self) -> dict[int, int]:
        """How many of its days each month has, by number from 1; the year ends the last one.

        Examples
        --------
        >>> Composite(date(2023, 1, 25), "h25v03", files=()).days
        {1: 7, 2: 1}
        >>> Composite(date(2023, 12, 27), "h25v03", files=()).days  # the year's last one is shorter
        {12: 5}
        """
        days = [self.first + timedelta(day) for day in range(COMPOSITE_DAYS)]
        months = [day.month for day in days if day.year == self.first.year]
        return {month: months.count(month) for month in months}


def lst_composites(study: Study) -> list[Composite]:
    """Return the 8-day composites of a study by tile and date; none where it has monthly rasters.

    Those of Terra and of Aqua, named as by NASA: MOD11A2 and MYD11A2.
    """
    if _from_package(study) or not has_raw(study, "lst"):
        return []
    found = {}
    for path in _at_any_depth(study, "lst"):
        if match := COMPOSITE.fullmatch(path.name):
            first = datetime.strptime(match["day"], "%Y%j").date()
            files = (path.with_name(f"{match['name']}{a}{path.suffix}") for a in LST_ASSETS)
            found[match["name"]] = Composite(first, match["tile"], tuple(files))
    return sorted(found.values(), key=lambda one: (one.tile, one.first, one.files))


def predictor_files(study: Study, predictor: OwnPredictor) -> list[Path]:
    """Return the rasters of a predictor: a file, the tiles of a folder, or what was fetched.

    RasterError if the folder is empty, or nothing was fetched.
    """
    if isinstance(predictor.file, OpenData):
        return fetched(study, f"predictors.{predictor.name}")
    return raster_files(study.path(predictor.file))


def fetched(study: Study, setting: str) -> list[Path]:
    """Return the files that notebook 00 fetched for a setting such as ``source.dem``.

    RasterError if they are not all there, or none has a cell in the grid.
    """
    return [study.raw_dir / part["file"] for part in fetched_parts(study, setting)]


def fetched_parts(study: Study, setting: str) -> list[dict[str, Any]]:
    """Return what the list of open data says of each file that was fetched for a setting.

    Errors as `fetched`.
    """
    path = study.open_data_list
    if not path.is_file():
        raise RasterError(
            f"The open data of `{setting}` are not all fetched.", "run notebooks/00-open-data.ipynb"
        )
    parts = _read_list(path, path.stat().st_mtime_ns)["parts"]
    # Those without bytes lie beside the grid.
    there = [part for part in parts if part["setting"] == setting and part["bytes"]]
    if not there:
        raise RasterError(
            f"No file of the open data of `{setting}` has a cell in the grid.",
            "correct its address, or leave the setting out",
        )
    return there


@cache
def _read_list(path: Path, _modified: int) -> dict[str, Any]:
    return read_json(path)


def _soil_depths(study: Study) -> dict[str, Path]:
    """Return the soil maps of single depths, by layer and depth; none where one is missing."""
    if _from_package(study) or not has_raw(study, "soil"):
        return {}
    by_name = {path.stem: path for path in _at_any_depth(study, "soil")}
    names = [f"{layer}_{depth}" for layer in SOIL_LAYERS for depth in SOIL_DEPTHS]
    found = {name: by_name.get(f"{name}_mean") for name in names}
    return {name: path for name, path in found.items() if path and all(found.values())}


def _rasters(study: Study, field: str) -> list[Path]:
    """Return a raster of the source, or its tiles."""
    if isinstance(getattr(study.source, field, ""), OpenData):
        return fetched(study, f"source.{field}")
    return tiles(_place(study, field))


def _at_any_depth(study: Study, field: str) -> Iterator[Path]:
    """Yield what was fetched for a field, or all that lies in its folder."""
    if isinstance(getattr(study.source, field), OpenData):
        yield from fetched(study, f"source.{field}")
    else:
        yield from sorted(_place(study, field).rglob("*"))


def _one_raster(study: Study, field: str, file: str) -> Path:
    """Return the raster that a field names, or that has this name in its folder."""
    if isinstance(getattr(study.source, field, ""), OpenData):
        found = fetched(study, f"source.{field}")
        if one := [path for path in found if path.name == file]:
            return one[0]
        raise RasterError(
            f"The open data of `source.{field}` have no {file}, but {listed([found[0].name])}.",
            "correct its address or assets",
        )
    place = _place(study, field)
    return (
        place if place.suffix.lower() in ENDINGS else min(place.rglob(file), default=place / file)
    )


def _place(study: Study, field: str) -> Path:
    """Return the file or folder of a field of the source."""
    if _from_package(study):
        return study.raw_dir / _PLACES[field]
    return study.path(getattr(study.source, field))
