"""Sweep files: which runs a batch has."""

import difflib
import itertools
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from helpers.core.errors import CompendiumError
from helpers.core.settings import ROOT
from helpers.core.study import Study, StudyError, unknown_setting, valid_names


class SweepError(CompendiumError):
    """A sweep file that cannot be used."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replicates(_Model):
    """Repetitions of every run with other random numbers."""

    settings: list[str]  # such as truth.seed; each gets a number of its own from every seed
    seeds: Annotated[list[int], Field(min_length=1)]


class Range(_Model):
    """Values of an axis between two numbers, for random designs; whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _rising(self):
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a range runs from `low` to a larger `high`, and with `log` from above 0")
        return self

    def draw(self, rng):
        """Return one value, uniform or, with `log`, uniform in the logarithm."""
        ends = np.log([self.low, self.high]) if self.log else (self.low, self.high)
        value = rng.uniform(*ends)
        value = float(np.exp(value) if self.log else value)
        return round(value) if isinstance(self.low, int) and isinstance(self.high, int) else value


class Sweep(_Model):
    """Which runs a batch has.

    `axes` holds, for dotted names of settings, a list of values, a dictionary of labels and values, or a `Range`. The
    design is all combinations (``grid``), `size` of them drawn at random (``random``), or those of `runs` (``list``).
    """

    base: str
    title: str = ""
    design: Literal["grid", "random", "list"] = "grid"
    axes: dict[str, Any] = {}
    runs: list[dict[str, Any]] = []
    size: Annotated[int, Field(gt=0)] = 10
    seed: int = 0
    replicates: Replicates | None = None
    engine: Literal["notebooks", "process"] = "notebooks"
    until: Literal["05-map-ground-ice", "06-publication-figures"] = "05-map-ground-ice"  # of the notebooks

    @model_validator(mode="after")
    def _complete(self):
        if self.design == "list" and not self.runs:
            raise ValueError("the design `list` needs `runs`: a list of settings, one entry a run")
        if self.design != "list" and not (self.axes or self.replicates):
            raise ValueError("there is nothing to vary: give `axes` or `replicates`")
        if unread := ("axes" if self.axes else "") if self.design == "list" else ("runs" if self.runs else ""):
            raise ValueError(f"the design `{self.design}` does not read `{unread}`; leave it out, or change `design`")
        for name, values in self.axes.items():
            if not (levels := _levels(values)):
                raise ValueError(f"the axis `{name}` has no values")
            if isinstance(levels, Range) and self.design != "random":
                raise ValueError(f"`{name}` is a range: list its values, or set `design: random`")
        return self

    @classmethod
    def open(cls, path):
        """Read and check a sweep file.

        Parameters
        ----------
        path : path-like
            A YAML file, or the name of one in ``config/sweeps/``.

        Returns
        -------
        Sweep

        Raises
        ------
        SweepError
            There is no such file, or a part of it is unknown or impossible; a mistyped axis is named with its nearest.
        """
        path = sweep_path(path)
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise TypeError("it holds no settings such as `base: config/quick.yaml`")
            sweep = cls(**settings)
        except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
            raise SweepError(
                f"{path.name} is not readable as a sweep: {' '.join(str(error).split())}", "see docs/batches.md"
            ) from None
        except ValidationError as error:
            told = [
                f"`{'.'.join(map(str, one['loc']))}`: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors()
            ]
            raise SweepError(f"{path.name}: {'; '.join(told)}", "correct the sweep file") from None
        sweep._check_names(path)
        return sweep

    def _check_names(self, path):
        study = Study.open(self.base)
        names = [*self.axes, *(name for one in self.runs for name in one)]
        names += self.replicates.settings if self.replicates else []
        wrong = [unknown_setting(name) for name in dict.fromkeys(names) if not study.has_setting(name)]
        fixed = [name for name in names if name.split(".")[0] in ("name", "run", "title", "compute")]
        wrong += [f"`{name}` cannot vary within a batch" for name in dict.fromkeys(fixed)]
        for name in dict.fromkeys(names):
            # Another value would reset every setting that it leaves out.
            if inner := [known for known in valid_names(Study) if known.startswith(f"{name}.")]:
                wrong.append(f"`{name}` is a section: name one of its settings, such as `{inner[0]}`")
        varied = {*self.axes, *(name for one in self.runs for name in one)}
        twice = varied.intersection(self.replicates.settings if self.replicates else [])
        wrong += [f"`{name}` is an axis and among the settings of the replicates" for name in sorted(twice)]
        if wrong:
            raise SweepError(f"{path.name}: {'; '.join(wrong)}.", "correct the axis; nothing was run")

    def combinations(self):
        """Return the labels and the settings of each run, before replicates.

        Returns
        -------
        list of (dict of str to str, dict of str to object)
        """
        if self.design == "list":
            return [({name: _label(value) for name, value in one.items()}, one) for one in self.runs]
        axes = {name: _levels(values) for name, values in self.axes.items()}
        if self.design == "random":
            rng = np.random.default_rng(self.seed)
            drawn = [{name: _draw(levels, rng) for name, levels in axes.items()} for _ in range(self.size)]
        else:
            drawn = [dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())]
        return [
            ({name: label for name, (label, _) in one.items()}, {name: value for name, (_, value) in one.items()})
            for one in drawn
        ]


def sweep_path(path):
    """Return the file of a sweep, by its path or its name; raise SweepError if there is none."""
    folder = ROOT / "config" / "sweeps"
    for candidate in (folder / f"{path}.yaml", ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    known = sorted(one.stem for one in folder.glob("*.yaml"))
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.3) or known
    raise SweepError(
        f"There is no sweep {path}.", f"name one that exists, such as {', '.join(near) or 'your own file'}"
    )


def _levels(values):
    """Return an axis as a list of labels and values, or as a range."""
    ends = [values.get(end) for end in ("low", "high")] if isinstance(values, dict) else [None]
    if all(isinstance(end, int | float) for end in ends) and values.keys() <= {"low", "high", "log"}:
        return Range(**values)
    if isinstance(values, dict):
        return list(values.items())
    return [(_label(value), value) for value in (values if isinstance(values, list) else [values])]


def _draw(levels, rng):
    if isinstance(levels, Range):
        value = levels.draw(rng)
        return f"{value:.6g}", value
    return levels[rng.integers(len(levels))]


def _label(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def planned_runs(sweep):
    """Return all runs of a sweep, equal ones once.

    Parameters
    ----------
    sweep : Sweep

    Returns
    -------
    list of dict
        ``values`` (axis to label, and ``replicate`` to its seed), ``study`` (a Study, or None) and ``error`` (empty, or
        why its settings are impossible).
    """
    base, found = Study.open(sweep.base), {}
    seeds = sweep.replicates.seeds if sweep.replicates else [None]
    for (labels, settings), seed in itertools.product(sweep.combinations(), seeds):
        values, own = dict(labels), dict(settings)
        if seed is not None:
            values["replicate"] = str(seed)
            numbers = np.random.SeedSequence(seed).generate_state(len(sweep.replicates.settings))
            own |= {name: int(number) for name, number in zip(sweep.replicates.settings, numbers, strict=True)}
        try:
            study = base.changed(own)
            planned = {"values": values, "study": study.changed({"run": f"run-{study.key}"}), "error": ""}
        except StudyError as error:
            planned = {"values": values, "study": None, "error": error.message}
        found.setdefault(planned["study"].run if planned["study"] else json.dumps(values), planned)
    return list(found.values())
