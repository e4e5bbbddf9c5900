"""The study file: the only source of settings and of paths."""

import difflib
import itertools
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from helpers.core.errors import CompendiumError
from helpers.core.files import file_hash, short_hash, write_text
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
    OtherMap,
    Regression,
    Samples,
    Section,
    Trust,
    Uncertainty,
)
from testbed.settings import Boreholes, Landscape, Truth


class StudyError(CompendiumError):
    """A study file that cannot be used."""


class Study(Section):
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

    predictors: Annotated[list[str], Field(min_length=1)] | Literal["all"] = "all"
    left_out: list[str] = []  # covariates, or families of them such as terrain, that are no predictors
    forward_selection: bool = False  # let notebook 08 choose predictors one by one
    layers: Annotated[list[tuple[float, float]], Field(min_length=1)] = [(2, 3), (3, 5), (5, 10)]
    target: Literal["ice_type", "permafrost", "ice_level", "two_stage"] = "ice_type"  # helpers.core.classes.TARGETS
    ice: Ice = Ice()
    truth: Truth = Truth()
    boreholes: Boreholes = Boreholes()
    samples: Samples = Samples()
    forest: Forest = Forest()
    storage_from: Literal["classes", "regression"] = "classes"  # what the ice content of a cell is expected from
    regression: Regression = Regression()
    folds: Folds = Folds()
    accuracy: Accuracy = Accuracy()
    domain: Domain = Domain()
    uncertainty: Uncertainty = Uncertainty()
    maps: Maps = Maps()
    trust: Trust = Trust()
    compare_with: list[OtherMap] = [OtherMap(name="air-frost-number", covariate="air_frost_number", above=0.5)]
    compute: Compute = Compute()

    @field_validator("name")
    @classmethod
    def _no_batch(cls, name):
        if name == "batches":
            raise ValueError("results/batches/ holds comparisons; give the study another name")
        return name

    @field_validator("layers")
    @classmethod
    def _from_top_to_bottom(cls, layers):
        for top, bottom in layers:
            if not 0 <= top < bottom:
                raise ValueError(f"the layer {top:g}-{bottom:g} m does not run downwards from the surface")
        for (_, bottom), (top, _) in itertools.pairwise(layers):
            if top < bottom:
                raise ValueError(f"layers overlap: one ends at {bottom:g} m and the next begins at {top:g} m")
        return layers

    @field_validator("compare_with")
    @classmethod
    def _one_of_each_name(cls, others):
        names = [other.name for other in others]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two maps have the name {twice[0]}")
        return others

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
            shown = relative_path(path)
            raise StudyError(f"{shown}: {_explain(error)}", f"correct {shown} and run again") from None

    def has_setting(self, name):
        """Return whether there is a setting of a dotted name; the keys of a setting that is a dictionary count, too."""
        names, value = valid_names(type(self)), self.model_dump(mode="json")
        parent, _, last = name.rpartition(".")
        if name in names or parent not in names:
            return name in names
        open_keys = not any(other.startswith(f"{parent}.") for other in names)
        return open_keys and isinstance(reduce(dict.__getitem__, parent.split("."), value), dict) and bool(last)

    def changed(self, settings):
        """Return this study with other values of some settings, checked like a study file.

        Parameters
        ----------
        settings : dict
            Dotted names of settings, such as ``forest.seed``, to values.

        Returns
        -------
        Study

        Raises
        ------
        StudyError
            A setting is unknown, or a value impossible.
        """
        whole = self.model_dump(mode="json")
        for name, value in settings.items():
            if not self.has_setting(name):
                raise StudyError(f"{unknown_setting(name)}.", "correct the name")
            *sections, last = name.split(".")
            reduce(dict.__getitem__, sections, whole)[last] = value
        try:
            return type(self)(**whole)
        except ValidationError as error:
            raise StudyError(f"{_explain(error)}.", "correct the value") from None

    def write(self, path):
        """Write the study with every default spelled out; an unchanged file is left alone."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        path = Path(path)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    @property
    def simulated(self):
        """Whether the study stands on the virtual landscape, so that everything made from it says SIMULATED."""
        return self.source == "virtual"

    @property
    def draws_boreholes(self):
        """Whether the study draws truth and boreholes itself: a virtual one without tables of its own."""
        return self.simulated and not (self.samples.sites or self.samples.intervals or self.samples.areas)

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
    def given_files(self):
        """The files that the user gave as samples: both tables, training areas and permafrost mask."""
        given = (self.samples.sites, self.samples.intervals, self.samples.areas, self.samples.permafrost_mask)
        return [self.path(path) for path in given if path]

    @property
    def _other_maps(self):
        return [self.path(other.file) for other in self.compare_with if other.file]

    @cached_property
    def inputs(self):
        """SHA-256 of every file that a run reads and none writes, by its path; empty where the file is missing."""
        files = [*self.base_files(), self.path(self.area.polygons), *self.given_files, *self._other_maps]
        return {relative_path(path): file_hash(path) if path.is_file() else "" for path in files}

    @cached_property
    def other_inputs(self):
        """Of `inputs` those that are maps which ours is compared with."""
        names = {relative_path(path) for path in self._other_maps}
        return {name: digest for name, digest in self.inputs.items() if name in names}

    @cached_property
    def key(self):
        """Short hash of all that results depend on but the code: every setting apart from names, and the input files.

        Runs of a batch lie in folders named after it, so that equal runs are one and different ones never meet.
        """
        settings = self.model_dump(mode="json", exclude={"name", "title", "run", "compute"})
        return short_hash([settings, self.inputs])

    @property
    def raw_dir(self):
        """Folder of the raw rasters, shared by all runs with the same settings upstream."""
        return ROOT / "data" / "raw" / f"{self.name}-{self.raw_key}"

    @property
    def processed_dir(self):
        """Folder of the covariates, shared like `raw_dir`."""
        return ROOT / "data" / "processed" / f"{self.name}-{self.processed_key}"

    @property
    def figures_dir(self):
        """Folder of this run's figures: those of the main run are the study's, and the default study's are in git."""
        return ROOT / "figures" / self.name if self.run == "main" else self.results_dir / "figures"

    @property
    def results_dir(self):
        """Folder of this run's results."""
        return ROOT / "results" / self.name / self.run


def relative_path(path):
    """Return a path as text from the project's folder; of a file elsewhere its name."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _find(path):
    for candidate in (ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    known = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "config").glob("*.yaml"))]
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.3) or known
    raise StudyError(
        f"There is no study file {path}.", f"name one that exists, such as {', '.join(near) or 'your own'}"
    )


def _read(path, seen=()):
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(
            f"{relative_path(path)} is not readable as YAML: {reason}", "correct the file's syntax"
        ) from None
    if not isinstance(settings, dict):
        raise StudyError(
            f"{relative_path(path)} holds no settings.", "write `name: value` lines, as in config/virtual.yaml"
        )
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    parent = path.parent / str(parent)
    if not parent.is_file() or parent in seen:
        why = "extends itself" if parent in seen else "does not exist"
        raise StudyError(
            f"{relative_path(path)} extends {parent.name}, which {why}.", "name another file after `extends:`"
        )
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


_RENAMED = {"forest.folds": "folds.number"}


def unknown_setting(name):
    """Return what to say of a setting that no study has, with the nearest one that there is."""
    if name in _RENAMED:
        return f"the setting `{name}` is now `{_RENAMED[name]}`"
    names = valid_names(Study)
    by_leaf = {n.rsplit(".", 1)[-1]: n for n in reversed(names)}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    near = near or [by_leaf[m] for m in difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1)]
    return f"there is no setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _explain(error):
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_setting(name))
        elif problem["type"] == "missing":
            lines.append(f"the setting `{name}` is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = f" (given: {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
            lines.append(f"`{name}`: {message}{given}")
    return "; ".join(lines)
