"""The study file: the only source of settings and of paths."""

import difflib
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

import numpy as np
import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from helpers.core.classes import ICE_TYPES, TARGETS, IceType, Layer, Target, layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import file_hash, read_yaml, short_hash, to_yaml, write_text
from helpers.core.settings import (
    ROOT,
    Accuracy,
    Area,
    Compute,
    Covariates,
    Domain,
    Folds,
    Forest,
    Grid,
    Ice,
    Maps,
    Name,
    OpenData,
    OtherMap,
    OwnPredictor,
    Record,
    RunName,
    Samples,
    Section,
    Source,
    StudyClass,
    Trust,
    Uncertainty,
    refuse_equal,
    source_makers,
)

LayerTitle = Annotated[str, Field(pattern=r"^[a-z][a-z ]*[a-z]$", max_length=80)]
Depth = Annotated[float, Field(ge=0, le=2000)]
"""In m; permafrost is nowhere deeper."""

MOST_CLASSES = 8
"""Classes of a study: the raster of prediction sets has one bit of a byte for each."""

DOMAINS = ("whole", "potential_permafrost")
"""Where accuracy is evaluated: everywhere, and where a rule on a covariate leaves permafrost
possible."""


_MESSAGE_LENGTH = 400
_MOST_PROBLEMS = 10
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxdict = 4
_SHORT.maxlevel = 2
"""Shows given values, which may be long, or nested without end."""


class StudyError(CompendiumError):
    """A study file that cannot be used."""


class Study(Section):
    """All settings of one study, validated, and the paths that follow; `open` reads one."""

    renamed: ClassVar[dict[str, str]] = {
        "forest.folds": "folds.number",
        "folds.together_km": "folds.min_separation_km",
        "uncertainty.regrown": "uncertainty.refit_inflation",
    }
    """Old names of settings and sections to new ones."""

    name: Name  # of the study and its folders: small letters, digits, hyphens
    title: str = ""  # in figures and records
    run: RunName = "main"  # folder of its results, beside other runs
    language: Literal["en", "zh", "both"] = "en"  # of the texts of figures
    label: str = ""  # stamped on every figure, raster and record, such as SIMULATED
    source: Source = Source()
    area: Area = Area()
    grid: Grid = Grid()
    covariates: Covariates = Covariates()

    # Names of built-in covariates, and rasters of the user; `all` are the built-in ones.
    predictors: Annotated[list[str | OwnPredictor], Field(min_length=1)] | Literal["all"] = "all"
    left_out: list[str] = []  # covariates, or families such as terrain, that are no predictors
    # Depths in m; or one name, such as `upper metres`, where samples have no depths.
    layers: Annotated[list[tuple[Depth, Depth] | LayerTitle], Field(min_length=1)] = [
        (2, 3),
        (3, 5),
        (5, 10),
    ]
    classes: list[StudyClass] = []  # from little to much ice; empty: the ice types by ice content
    ordered_classes: bool = True  # whether the study's own classes go from little to much ice
    # what the forests tell apart
    target: Literal["ice_type", "permafrost", "ice_level"] = "ice_type"
    ice: Ice = Ice()
    campaign: dict[str, Any] = {}  # settings of what makes the sample tables, if no person does
    samples: Samples = Samples()
    forest: Forest = Forest()
    folds: Folds = Folds()
    accuracy: Accuracy = Accuracy()
    domain: Domain = Domain()
    uncertainty: Uncertainty = Uncertainty()
    maps: Maps = Maps()
    trust: Trust = Trust()
    compare_with: list[OtherMap] = []
    compute: Compute = Compute()
    record: Record = Record()

    @model_validator(mode="before")
    @classmethod
    def _whole_raster(cls, value: Any) -> Any:
        """Take the whole raster of `grid.like` where no area is named."""
        grid = value.get("grid") if isinstance(value, dict) else None
        if isinstance(grid, dict) and grid.get("like") and "area" not in value:
            return {**value, "area": {"polygons": ""}}
        return value

    @field_validator("predictors")
    @classmethod
    def _once_each(
        cls, predictors: list[str | OwnPredictor] | Literal["all"]
    ) -> list[str | OwnPredictor] | Literal["all"]:
        names = [one if isinstance(one, str) else one.name for one in predictors]
        if predictors != "all":
            refuse_equal(names, "predictors")
        return predictors

    @model_validator(mode="after")
    def _can_fetch(self) -> Self:
        if self.open_data and self.source.kind != "stac":
            raise ValueError("open data need `source: {kind: stac}`")
        collections = any(one.collection for one in self.open_data.values())
        if collections and not getattr(self.source, "api", ""):
            raise ValueError("a collection needs source.api, the root of a STAC API")
        return self

    @model_validator(mode="after")
    def _has_area(self) -> Self:
        if not (self.area.polygons or self.area.box or self.grid.like):
            raise ValueError("no area: name area.polygons, area.box or grid.like")
        return self

    @field_validator("name")
    @classmethod
    def _no_batch(cls, name: str) -> str:
        if name == "batches":
            raise ValueError("results/batches/ holds comparisons; give the study another name")
        return name

    @field_validator("layers")
    @classmethod
    def _from_top_to_bottom(cls, layers: list[Layer]) -> list[Layer]:
        if any(isinstance(layer, str) for layer in layers):
            if len(layers) > 1:
                raise ValueError("a layer without depths stands alone; give all layers depths")
            return layers
        depths = [layer for layer in layers if not isinstance(layer, str)]
        for top, bottom in depths:
            if top >= bottom:
                raise ValueError(f"the layer {top:g}-{bottom:g} m does not run downwards")
        for (_, bottom), (top, _) in itertools.pairwise(depths):
            if top < bottom:
                raise ValueError(
                    f"layers overlap: {bottom:g} m ends one, {top:g} m begins the next"
                )
        refuse_equal(map(layer_name, depths), "layers")
        return layers

    @field_validator("classes")
    @classmethod
    def _of_both_kinds(cls, classes: list[StudyClass]) -> list[StudyClass]:
        if not classes:
            return classes
        words = (word.lower() for kind in classes for word in {kind.name, *kind.words})
        refuse_equal(words, "classes")
        if len(classes) > MOST_CLASSES:
            raise ValueError(f"{len(classes)} classes; at most {MOST_CLASSES} are possible")
        permafrost = [kind.permafrost for kind in classes]
        if all(permafrost) or not any(permafrost):
            raise ValueError("some classes must be permafrost, and some not (`permafrost: false`)")
        contents = {kind.ice_content is None for kind in classes if kind.permafrost}
        if len(contents) > 1:
            raise ValueError("give all permafrost classes an ice_content, or none")
        return classes

    @model_validator(mode="after")
    def _fits_classes(self) -> Self:
        if self.classes and self.target != "ice_type":
            raise ValueError(
                f"target {self.target} is made of the default ice types, not of `classes`"
            )
        needs_labels = bool(self.classes) or isinstance(self.layers[0], str)
        if needs_labels and (self.samples.sites or self.samples.intervals):
            raise ValueError(
                "cores give the default ice types by depth; for `classes` of your own, or a layer "
                "without depths, name samples.points or samples.areas"
            )
        return self

    @model_validator(mode="after")
    def _temperature_of_each_layer(self) -> Self:
        given, layers = len(self.ice.layer_temperatures), len(self.layers)
        if given not in (1, layers):
            raise ValueError(
                f"ice.layer_temperatures has {given} temperatures for {layers} depth layers; "
                "give one of all, or one of each"
            )
        return self

    @field_validator("compare_with")
    @classmethod
    def _one_of_each_name(cls, others: list[OtherMap]) -> list[OtherMap]:
        refuse_equal((other.name for other in others), "maps")
        return others

    @classmethod
    def open(cls, path: str | Path) -> "Study":
        """Read, complete and check a study file in YAML.

        A relative path is taken from the project's folder, or from the working directory where only
        that one has the file. ``extends: other.yaml`` takes all settings that the file leaves out
        from another file beside it. StudyError names all unknown or impossible settings at once.
        """
        path = _find(path)
        shown = relative_path(path)
        return _validated(_read(path), f"{shown}: ", f"correct {shown} and run again")

    def has_setting(self, name: str) -> bool:
        """Return whether a dotted name is a setting, or a key of a setting with free keys.

        Examples
        --------
        >>> study = Study(name="example")
        >>> [study.has_setting(name) for name in ("grid.crs", "grid.colour", "campaign.sites")]
        [True, False, True]
        """
        names = valid_names(type(self))
        return name in names or names.get(name.rpartition(".")[0], False)

    def changed(self, settings: dict[str, Any]) -> "Study":
        """Return this study with other values of some settings, by dotted names.

        The result is checked like a study file: StudyError if a setting is unknown, or a value
        impossible.

        Examples
        --------
        >>> study = Study(name="example")
        >>> study.changed({"grid.resolution": 2000}).grid.resolution, study.grid.resolution
        (2000.0, 1000.0)
        """
        whole = self.model_dump(mode="json")
        if settings.get("source.kind", self.source.kind) != self.source.kind:
            whole["source"] = {}  # another source has other settings
        for name, value in settings.items():
            if not self.has_setting(name):
                raise StudyError(f"{unknown_setting(name, type(self))}.", "correct the name")
            *sections, last = name.split(".")
            section = whole
            for key in sections:
                section = section[key]
            section[last] = value
        return _validated(whole, "", "correct the value")

    def write(self, path: str | Path) -> None:
        """Write the study with every default spelled out; an unchanged file is left alone."""
        path, text = Path(path), self.as_yaml()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def as_yaml(self) -> str:
        """Return all settings as the text of a study file."""
        return to_yaml(self.model_dump(mode="json"))

    def path(self, relative: str) -> Path:
        """Return a path of a study file as an absolute one."""
        return ROOT / relative

    @cached_property
    def _base_hashes(self) -> dict[str, str]:
        """SHA-256 of the committed base layers, which every study may read, by name."""
        files = sorted((ROOT / "data" / "base").iterdir())
        return {p.name: file_hash(p) for p in files if p.suffix in {".tif", ".nc", ".gpkg"}}

    @cached_property
    def raw_key(self) -> str:
        """Short hash of all that raw rasters depend on: source, base layers, and their label."""
        source = self.source.model_dump(mode="json")
        return short_hash([self.label, source, self._base_hashes])

    @cached_property
    def processed_key(self) -> str:
        """Short hash of all that covariates depend on: raw rasters, area, grid and rules."""
        files = [file_hash(path) for path in self.grid_files if path.is_file()]
        sections = [self.area, self.grid, self.covariates]
        own = [one.model_dump(mode="json") for one in self.own_predictors]
        parts = [*files, *(section.model_dump(mode="json") for section in sections)]
        return short_hash([self.raw_key, *parts, *([own] if own else [])])

    @property
    def grid_files(self) -> list[Path]:
        """The user's files that give area and grid."""
        return [self.path(path) for path in (self.area.polygons, self.grid.like) if path]

    @property
    def target_classes(self) -> Target:
        """The classes between which the forests decide."""
        if not self.classes:
            return TARGETS[self.target]
        codes = tuple(range(len(self.classes)))
        return Target("ice type", self.sample_types, codes, ordered=self.ordered_classes)

    @property
    def sample_types(self) -> tuple[IceType, ...]:
        """The types that samples may have, by code: the study's own classes, or the ice types."""
        own = (
            IceType(code, kind.name, kind.name_zh or kind.name, kind.colour, kind.permafrost)
            for code, kind in enumerate(self.classes)
        )
        return tuple(own) or ICE_TYPES

    @property
    def has_boreholes(self) -> bool:
        """Whether samples come from the two tables of boreholes and their cores."""
        samples = self.samples
        return bool(samples.sites or samples.intervals) or not (samples.points or samples.areas)

    @property
    def publishes_sites(self) -> bool:
        """Whether positions of samples are published as they are."""
        return self.record.publish_coordinates == "exact"

    @property
    def permafrost_types(self) -> np.ndarray:
        """Which types of samples are permafrost, shape (types,)."""
        return np.array([kind.permafrost for kind in self.sample_types])

    @property
    def depths(self) -> list[tuple[float, float]]:
        """Top and bottom of the layers, m; none where the study has no depths."""
        return [layer for layer in self.layers if not isinstance(layer, str)]

    @property
    def domains(self) -> tuple[str, ...]:
        """Parts of the area for which accuracy is evaluated: the whole, and the domain if any."""
        return DOMAINS if self.domain.covariate else DOMAINS[:1]

    @property
    def has_storage(self) -> bool:
        """Whether ice contents and depths are known, from which the storage of ice follows."""
        contents = [kind.ice_content for kind in self.classes if kind.permafrost]
        return None not in contents and bool(self.depths)

    @property
    def own_predictors(self) -> list[OwnPredictor]:
        """The predictors that are rasters of the user."""
        return [one for one in self.predictors if isinstance(one, OwnPredictor)]

    @property
    def open_data(self) -> dict[str, OpenData]:
        """What is fetched, by the setting that names it: source.dem, predictors.land_cover."""
        fields = getattr(self.source, "open_data", {})
        own = {one.name: one.file for one in self.own_predictors}
        named = {f"source.{name}": one for name, one in fields.items()}
        fetched = {name: one for name, one in own.items() if isinstance(one, OpenData)}
        return named | {f"predictors.{name}": one for name, one in fetched.items()}

    @property
    def open_data_list(self) -> Path:
        """The list of what was fetched for this study, once all of it is there."""
        wanted = [one.model_dump(mode="json") for one in self.open_data.values()]
        key = short_hash([*self.open_data, getattr(self.source, "api", ""), *wanted])
        return self.raw_dir / f"open-data-{key}.json"

    @property
    def sample_files(self) -> list[Path]:
        """The user's files of samples: both tables, training areas and permafrost mask."""
        samples = self.samples
        files = (
            samples.sites,
            samples.intervals,
            samples.points,
            samples.areas,
            samples.permafrost_mask,
        )
        return [self.path(path) for path in files if path]

    @property
    def prevalence_files(self) -> list[Path]:
        """The user's table of known shares of ground with permafrost, if there is one."""
        return [self.path(self.samples.prevalence)] if self.samples.prevalence else []

    @property
    def other_map_files(self) -> list[Path]:
        """The user's files of maps that ours is compared with."""
        return [self.path(other.file) for other in self.compare_with if other.file]

    @cached_property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of every file that a run reads and none writes, by its path from `relative_path`.

        Empty where the file is missing. Raw rasters of the user, which may be large, are left out.
        """
        base = {f"data/base/{name}": digest for name, digest in self._base_hashes.items()}
        files = [*self.grid_files, *self.sample_files, *self.other_map_files]
        files += self.prevalence_files
        return base | {relative_path(p): file_hash(p) if p.is_file() else "" for p in files}

    @cached_property
    def key(self) -> str:
        """Short hash of all that results depend on but the code: settings and input files.

        Names, `language`, `compute` and `record` do not count. Runs of a batch lie in folders named
        after it, so that equal runs are one and different ones never meet.
        """
        names = {"name", "title", "run", "compute", "language", "record"}
        return short_hash([self.model_dump(mode="json", exclude=names), self.inputs])

    @property
    def raw_dir(self) -> Path:
        """Folder of the raw rasters, shared by all runs with the same settings upstream.

        That of open data depends on area and grid alone: with other dates or collections, what has
        been fetched stays.
        """
        key = self.raw_key
        if self.source.kind == "stac":
            files = [file_hash(path) for path in self.grid_files if path.is_file()]
            place = [section.model_dump(mode="json") for section in (self.area, self.grid)]
            key = short_hash([*place, *files])
        return ROOT / "data" / "raw" / f"{self.name}-{key}"

    @property
    def processed_dir(self) -> Path:
        """Folder of the covariates, shared like `raw_dir`."""
        return ROOT / "data" / "processed" / f"{self.name}-{self.processed_key}"

    @property
    def figures_dir(self) -> Path:
        """Folder of this run's figures; those of the run ``main`` are the study's."""
        main = ROOT / "figures" / self.name
        return main if self.run == "main" else self.results_dir / "figures"

    @property
    def own_figures(self) -> dict[str, tuple[str, str]]:
        """Figures that only a kind of study has: table that each needs, and its function."""
        return {}

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of figures: ``en``, ``zh`` or both."""
        return ("en", "zh") if self.language == "both" else (self.language,)

    @property
    def results_dir(self) -> Path:
        """Folder of this run's results."""
        return ROOT / "results" / self.name / self.run


def relative_path(path: str | Path) -> str:
    """Return a path as text from the project's folder; of a file elsewhere its name."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _find(path: str | Path) -> Path:
    for candidate in (ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    names = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "config").glob("*.yaml"))]
    near = difflib.get_close_matches(str(path), names, n=1, cutoff=0.3) or names or ["your own"]
    remedy = f"name one that exists, such as {', '.join(near)}"
    raise StudyError(f"There is no study file {path}.", remedy)


def _read(path: Path, seen: Sequence[Path] = ()) -> dict[str, Any]:
    shown = relative_path(path)
    try:
        settings = read_yaml(path)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())[:_MESSAGE_LENGTH]
        message = f"{shown} is not readable as YAML: {reason}"
        raise StudyError(message, "correct the file's syntax") from None
    if not isinstance(settings, dict) or not settings:
        remedy = "write `name: value` lines, as in config/virtual.yaml"
        raise StudyError(f"{shown} holds no settings.", remedy)
    if odd := [key for key in settings if not isinstance(key, str)]:
        message = f"{shown}: there is no setting `{to_yaml(odd[0]).split()[0]}`."
        raise StudyError(message, "name settings by words, such as `title: value`")
    if isinstance(settings.get("source"), str):
        settings["source"] = {"kind": settings["source"]}
    name = settings.pop("extends", None)
    if name is None:
        return settings
    parent = path.parent / str(name)
    if not parent.is_file() or parent in seen:
        why = "extends itself" if parent in seen else "does not exist"
        message = f"{shown} extends {parent.name}, which {why}."
        raise StudyError(message, "name another file after `extends:`")
    return _merged(_read(parent, (*seen, path)), settings)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            both[key] = _merged(base[key], over[key])
    return both


def _validated(settings: dict[str, Any], head: str, remedy: str) -> Study:
    """Return a study of the class of its source, or raise StudyError with all problems."""
    source = settings.get("source")
    kind = source.get("kind") if isinstance(source, dict) else None
    makers = source_makers()
    study_class = Study
    if isinstance(kind, str) and kind in makers.names:
        study_class = makers[kind].load()
    try:
        return study_class(**settings)
    except RecursionError:
        raise StudyError(f"{head}settings are nested too deep.", remedy) from None
    except ValidationError as error:
        lines = list(dict.fromkeys(_problems(error, study_class)))
        more = f"; and {len(lines) - _MOST_PROBLEMS} more" if len(lines) > _MOST_PROBLEMS else ""
        problems = "; ".join(lines[:_MOST_PROBLEMS]) + more
        raise StudyError(f"{head}{problems}", remedy) from None


def _problems(error: ValidationError, study_class: type[Study]) -> list[str]:
    lines = []
    names = [_setting(problem["loc"]) for problem in error.errors()]
    for problem, name in zip(error.errors(), names, strict=True):
        # Of a setting that may be of several kinds, the problem deepest in it says the most.
        if any(other.startswith(f"{name}.") for other in names):
            continue
        value = problem["input"]
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_setting(name, study_class))
        elif problem["type"] == "missing":
            lines.append(f"the setting `{name}` is missing")
        else:
            shown = "" if isinstance(value, dict | BaseModel) else f" (given: {_SHORT.repr(value)})"
            place = f"`{name}`: " if name else ""
            lines.append(f"{place}{problem['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _setting(place: tuple[str | int, ...]) -> str:
    """Return the dotted name of a setting, without the kinds that pydantic tried on the way."""
    kinds = {"str", "int", "float", "none", "OwnPredictor", "OpenData"}
    parts = [p for p in place if isinstance(p, int) or not (p in kinds or "[" in p or "-" in p)]
    return ".".join(map(str, parts))


def valid_names(model: type[BaseModel], prefix: str = "") -> dict[str, bool]:
    """Return the dotted names of all settings of a section, and whether keys below are free.

    Examples
    --------
    >>> names = valid_names(Study)
    >>> names["grid.crs"], names["campaign"]  # what a campaign's settings are, its maker says
    (False, True)
    """
    names = {}
    for name, field in model.model_fields.items():
        kinds = field.annotation, *get_args(field.annotation)
        names[prefix + name] = get_origin(field.annotation) is dict
        for section in kinds:
            if isinstance(section, type) and issubclass(section, BaseModel):
                names |= valid_names(section, f"{prefix}{name}.")
    return names


def unknown_setting(name: str, study_class: type[Study]) -> str:
    """Return what to say of a setting that no study has, with the nearest one that there is."""
    for old, new in study_class.renamed.items():
        if f"{name}.".startswith(f"{old}."):
            return f"the setting `{name}` is now `{new}{name.removeprefix(old)}`"
    names = list(valid_names(study_class))
    by_leaf = {n.rpartition(".")[2]: n for n in reversed(names)}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    leaves = difflib.get_close_matches(name.rpartition(".")[2], by_leaf, n=1)
    near = near or [by_leaf[leaf] for leaf in leaves]
    return f"there is no setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")
