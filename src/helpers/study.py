"""The study file: the only source of settings and of paths."""

import difflib
import os
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers.digest import file_hash, short_hash
from helpers.errors import CompendiumError

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; every path in a study file is relative to it, whatever the working directory."""

ALBERS = "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class StudyError(CompendiumError):
    """A study file that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Area(_Section):
    """Where the map is made."""

    polygons: str = "data/base/study-area.gpkg"
    layer: str = "study_area"
    regions_layer: str = "regions"


class Grid(_Section):
    """The reference grid, and the finer grid on which terrain and indices are computed; lengths in metres."""

    crs: str = ALBERS
    resolution: Positive = 1000
    fine_resolution: Positive = 500
    margin: Annotated[float, Field(ge=0)] = 40_000

    @field_validator("crs")
    @classmethod
    def _in_metres(cls, text):
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        try:
            crs = CRS.from_user_input(text)
        except CRSError:
            raise ValueError("no coordinate reference system is known by this name") from None
        if not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1:
            raise ValueError("a projected system in metres is needed, such as EPSG:32651 or a PROJ string")
        return text

    @model_validator(mode="after")
    def _fits(self):
        if self.resolution % self.fine_resolution:
            raise ValueError(
                f"fine_resolution {self.fine_resolution:g} m does not divide resolution {self.resolution:g} m evenly"
            )
        return self


class Landscape(_Section):
    """The virtual landscape: the raw products that notebook 00 makes where no real ones are given."""

    seed: int = 20240601
    dem_arcsec: Positive = 15
    landsat_arcsec: Positive = 30
    lst_arcsec: Positive = 30
    margin_degrees: Positive = 0.75
    scene_dates: list[date] = [date(2023, 6, 18), date(2023, 7, 20), date(2023, 8, 21), date(2024, 9, 8)]


class Terrain(_Section):
    """Terrain covariates; lengths in metres."""

    tpi_radii: list[Positive] = [1000, 5000]
    tpi_inner_share: Share = 0.5
    relief_window_km2: Positive = 4.0
    slope_floor: Positive = 0.001
    flat_slope_degrees: Annotated[float, Field(ge=0)] = 0.01


class Vegetation(_Section):
    """Vegetation and water indices from Landsat scenes."""

    mask: list[Literal["dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "water"]] = [
        "dilated_cloud",
        "cirrus",
        "cloud",
        "cloud_shadow",
        "snow",
    ]


class Climate(_Section):
    """Land surface temperature, thawing and freezing index, precipitation."""

    lst_max_error: Literal[1, 2, 3] = 2
    minimum_months: Annotated[int, Field(ge=5, le=12)] = 8
    harmonics: Annotated[int, Field(ge=1, le=2)] = 2


class Covariates(_Section):
    """How covariates are made from raw rasters."""

    terrain: Terrain = Terrain()
    vegetation: Vegetation = Vegetation()
    climate: Climate = Climate()


class Study(_Section):
    """All settings of one study, validated, and the paths that follow from them.

    Open one with :meth:`open`; every field has a default but the name.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str = ""
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "main"
    source: Literal["virtual"] = "virtual"
    area: Area = Area()
    grid: Grid = Grid()
    landscape: Landscape = Landscape()
    covariates: Covariates = Covariates()

    @classmethod
    def open(cls, path):
        """Read, complete and check a study file.

        Parameters
        ----------
        path : path-like
            A YAML file. Relative paths are taken from the project's folder, or from the working directory where only
            that one has the file. ``extends: other.yaml`` takes all settings that the file leaves out from another file
            beside it.

        Returns
        -------
        Study

        Raises
        ------
        StudyError
            The file is missing, is no YAML, or has unknown or impossible settings; all of them are named at once.
        """
        path = _find(path)
        try:
            return cls(**_read(path))
        except ValidationError as error:
            raise StudyError(_explain(error, path), f"correct {_relative(path)} and run again") from None

    def write(self, path):
        """Write the study with every default spelled out; an unchanged file is left alone."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        path = Path(path)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)

    @property
    def simulated(self):
        """Whether the study stands on the virtual landscape, so that everything made from it says SIMULATED."""
        return self.source == "virtual"

    def path(self, relative):
        """Return a path of a study file as an absolute one."""
        return ROOT / relative

    def base_files(self):
        """Return the committed base layers, which every study may read."""
        folder = ROOT / "data" / "base"
        return [p for p in sorted(folder.iterdir()) if p.suffix in {".tif", ".nc", ".gpkg"}]

    @cached_property
    def _base_hashes(self):
        return {p.name: file_hash(p) for p in self.base_files()}

    @cached_property
    def raw_key(self):
        """Short hash of all that raw rasters depend on: their settings and the base layers."""
        return short_hash([self.source, self.landscape.model_dump(mode="json"), self._base_hashes])

    @cached_property
    def processed_key(self):
        """Short hash of all that covariates depend on: raw rasters, area, grid and rules."""
        polygons = file_hash(self.path(self.area.polygons))
        sections = [self.area, self.grid, self.covariates]
        return short_hash([self.raw_key, polygons, *(s.model_dump(mode="json") for s in sections)])

    @property
    def raw_dir(self):
        """Folder of the raw rasters, shared by all runs with the same settings upstream."""
        return ROOT / "data" / "raw" / f"{self.name}-{self.raw_key}"

    @property
    def processed_dir(self):
        """Folder of the covariates, shared like `raw_dir`."""
        return ROOT / "data" / "processed" / f"{self.name}-{self.processed_key}"

    @property
    def results_dir(self):
        """Folder of this run's results."""
        return ROOT / "results" / self.name / self.run


def _relative(path):
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _find(path):
    for candidate in (ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    known = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "config").glob("*.yaml"))]
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.3) or known
    raise StudyError(f"There is no study file {path}.", f"name one that exists, such as {', '.join(near) or 'your own'}")


def _read(path, seen=()):
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{_relative(path)} is not readable as YAML: {reason}", "correct the file's syntax") from None
    if not isinstance(settings, dict):
        raise StudyError(f"{_relative(path)} holds no settings.", "write `name: value` lines, as in config/virtual.yaml")
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    parent = path.parent / str(parent)
    if not parent.is_file() or parent in seen:
        why = "extends itself" if parent in seen else "does not exist"
        raise StudyError(f"{_relative(path)} extends {parent.name}, which {why}.", "name another file after `extends:`")
    return _merged(_read(parent, (*seen, path)), settings)


def _merged(base, over):
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            both[key] = _merged(base[key], over[key])
    return both


def valid_names(model, prefix=""):
    """Return the dotted names of all settings of a section and of the sections in it."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += valid_names(field.annotation, f"{prefix}{name}.")
    return names


def _explain(error, path):
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            names = valid_names(Study)
            by_leaf = {n.rsplit(".", 1)[-1]: n for n in reversed(names)}
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            near = near or [by_leaf[m] for m in difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1)]
            hint = f"; did you mean `{near[0]}`?" if near else ""
            lines.append(f"there is no setting `{name}`{hint}")
        elif problem["type"] == "missing":
            lines.append(f"the setting `{name}` is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = f" (given: {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
            lines.append(f"`{name}`: {message}{given}")
    return f"{_relative(path)}: " + "; ".join(lines)
