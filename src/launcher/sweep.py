"""Sweep files: which runs a batch has."""

import difflib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from helpers.core.errors import CompendiumError
from helpers.core.files import read_yaml
from helpers.core.settings import ROOT, Count, Section, Seed
from helpers.core.study import Study, StudyError, unknown_setting, valid_names

_RANGE = {"low", "high", "log"}


class SweepError(CompendiumError):
    """A sweep file that cannot be used."""


class Replicates(Section):
    """Repetitions of every run with other random numbers."""

    settings: list[str]  # such as forest.seed; each gets a number of its own from every seed
    seeds: Annotated[list[Seed], Field(min_length=1)]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    values: dict[str, str]  # the label of each axis, and `replicate` to its seed
    study: Study | None  # None where the settings are impossible
    error: str = ""  # why they are


class Sweep(Section):
    """Which runs a batch has.

    `axes` holds, for dotted names of settings, a list of values, or a dictionary of labels and
    values. The design is all combinations (``grid``), `size` of them drawn at random (``random``),
    or those of `runs` (``list``).
    """

    base: str
    title: str = ""
    design: Literal["grid", "random", "list"] = "grid"
    axes: dict[str, Any] = {}
    runs: list[dict[str, Any]] = []
    size: Count = 10
    seed: Seed = 0
    replicates: Replicates | None = None
    engine: Literal["notebooks", "process"] = "notebooks"
    # The last notebook; of those that a study has.
    until: Literal["05-map-ground-ice", "testbed/3-against-the-truth", "06-publication-figures"] = (
        "testbed/3-against-the-truth"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.design == "list" and not self.runs:
            raise ValueError("the design `list` needs `runs`: a list of settings, one entry a run")
        if self.design != "list" and not (self.axes or self.replicates):
            raise ValueError("there is nothing to vary: give `axes` or `replicates`")
        unread = "axes" if self.design == "list" else "runs"
        if getattr(self, unread):
            remedy = "leave it out, or change `design`"
            raise ValueError(f"the design `{self.design}` does not read `{unread}`; {remedy}")
        for name, values in self.axes.items():
            if not _levels(values):
                raise ValueError(f"the axis `{name}` has no values")
            # Sweeps once had ranges; read as two labelled values they would be another sweep.
            if (
                isinstance(values, dict)
                and {"low", "high"} <= values.keys() <= _RANGE
                and all(isinstance(value, int | float) for value in values.values())
            ):
                raise ValueError(f"`{name}` is a range: list its values, or use other labels")
        return self

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read and check a sweep file, by its path or its name in ``config/sweeps/``.

        SweepError if there is none, or if a part of it is unknown or impossible; a mistyped axis is
        named with its nearest.
        """
        path = sweep_path(path)
        try:
            settings = read_yaml(path)
            sweep = cls(**settings)
        except ValidationError as error:
            problems = []
            for one in error.errors():
                place = f"`{'.'.join(map(str, one['loc']))}`: " if one["loc"] else ""
                problems.append(place + one["msg"].removeprefix("Value error, "))
            message = f"{path.name}: {'; '.join(problems)}"
            raise SweepError(message, "correct the sweep file") from None
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            message = f"{path.name} is not readable as a sweep: {' '.join(str(error).split())}"
            raise SweepError(message, "see docs/batches.md") from None
        if problems := sweep._wrong_names():
            message = f"{path.name}: {'; '.join(problems)}."
            raise SweepError(message, "correct the axis; nothing was run")
        return sweep

    def _wrong_names(self) -> list[str]:
        """Return what is wrong with the names of axes, of runs' settings and of replicates."""
        study = Study.open(self.base)
        varied = dict.fromkeys([*self.axes, *itertools.chain.from_iterable(self.runs)])
        repeated = self.replicates.settings if self.replicates else []
        names = valid_names(type(study))
        problems = []
        for name in dict.fromkeys([*varied, *repeated]):
            if not study.has_setting(name):
                problems.append(unknown_setting(name, type(study)))
            if name.split(".")[0] in ("name", "run", "title", "label", "compute"):
                problems.append(f"`{name}` cannot vary within a batch")
            # Another value would reset every setting that it leaves out.
            if inner := [one for one in names if one.startswith(f"{name}.")]:
                such = f"name one of its settings, such as `{inner[0]}`"
                problems.append(f"`{name}` is a section: {such}")
        twice = sorted(varied.keys() & set(repeated))
        return problems + [f"`{name}` is an axis and in the replicates" for name in twice]

    def combinations(self) -> list[dict[str, tuple[str, Any]]]:
        """Return label and value of the settings of each run, before replicates."""
        if self.design == "list":
            return [{name: (_label(one[name]), one[name]) for name in one} for one in self.runs]
        axes = {name: _levels(values) for name, values in self.axes.items()}
        if self.design == "random":
            rng = np.random.default_rng(self.seed)
            return [
                {name: levels[rng.integers(len(levels))] for name, levels in axes.items()}
                for _ in range(self.size)
            ]
        return [dict(zip(axes, one, strict=True)) for one in itertools.product(*axes.values())]


def sweep_path(path: str | Path) -> Path:
    """Return the file of a sweep, by its path or its name; SweepError if there is none."""
    folder = ROOT / "config" / "sweeps"
    for candidate in (folder / f"{path}.yaml", ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    names = sorted(one.stem for one in folder.glob("*.yaml"))
    near = ", ".join(difflib.get_close_matches(str(path), names, n=1, cutoff=0.3) or names)
    raise SweepError(f"There is no sweep {path}.", f"name one that exists, such as {near}")


def _levels(values: Any) -> list[tuple[str, Any]]:
    """Return the labels and values of an axis."""
    if isinstance(values, dict):
        return list(values.items())
    return [(_label(value), value) for value in (values if isinstance(values, list) else [values])]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def planned_runs(sweep: Sweep) -> list[PlannedRun]:
    """Return all runs of a sweep, equal ones once."""
    base = Study.open(sweep.base)
    runs: dict[str, PlannedRun] = {}
    repeated = sweep.replicates.settings if sweep.replicates else []
    seeds = sweep.replicates.seeds if sweep.replicates else [None]
    for settings, seed in itertools.product(sweep.combinations(), seeds):
        labels = {name: label for name, (label, _) in settings.items()}
        values = {name: value for name, (_, value) in settings.items()}
        if seed is not None:
            labels["replicate"] = str(seed)
            numbers = np.random.SeedSequence(seed).generate_state(len(repeated))
            values |= dict(zip(repeated, map(int, numbers), strict=True))
        try:
            study = base.changed(values)
            study = study.changed({"run": f"run-{study.key}"})
            runs.setdefault(study.run, PlannedRun(labels, study))
        except StudyError as error:
            runs.setdefault(json.dumps(labels), PlannedRun(labels, None, error.message))
    return list(runs.values())
