"""Batches of runs: a sweep file says which settings vary; only what differs is computed, and one table tells the rest.

A run of a batch lies in ``results/<study>/run-<key>/``, where the key is the hash of all its settings and input files:
the same settings are the same run in whichever sweep they stand, and different ones never meet in a folder.
"""

import contextlib
import difflib
import itertools
import json
import os
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import psutil
import yaml
from joblib import cpu_count
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from helpers.core.code import write_text
from helpers.core.errors import CompendiumError
from helpers.core.study import ROOT, Study, StudyError, unknown_setting, valid_names
from launcher import run

COMPARISON = "07-compare-runs"
"""The notebook that compares the runs of a batch."""


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


def run_batch(path, cores=None, profile=None):
    """Bring all runs of a sweep up to date, and compare them.

    A run that fails does not stop the others. After an interruption of whatever kind the same call goes on.

    Parameters
    ----------
    path : path-like
        The sweep file, or the name of one in ``config/sweeps/``.
    cores : int, optional
        How many cores to use; all by default.
    profile : str, optional
        A Snakemake profile, such as one of ``config/profiles/``; for notebooks only.

    Returns
    -------
    int
        How many runs failed.

    Raises
    ------
    SweepError
        The sweep file cannot be used.
    launcher.run.RunError
        Another process writes one of the runs.
    """
    sweep, group = Sweep.open(path), ROOT / "results" / "batches" / sweep_path(path).stem
    if profile and sweep.engine == "process":
        raise SweepError(
            f"{sweep_path(path).name} runs in processes of this machine, which no profile sends elsewhere.",
            "leave out the profile, or set `engine: notebooks`; for a dask cluster, `compute.scheduler` in the study",
        )
    plan, started = planned_runs(sweep), time.monotonic()
    studies = [one["study"] for one in plan if one["study"]]
    print(f"{group.name}: {len(plan)} runs of {sweep.base}, in {_shown(group)}", flush=True)
    for one in plan:
        if one["error"]:
            print(f"impossible: {_told(one['values'])}: {one['error']}", flush=True)
    _write_batch(sweep, group, plan, {})
    errors = _prepare_data(studies, group, cores, profile)
    studies = [study for study in studies if study.run not in errors]
    if studies:
        with run.locks(studies, group):
            stages = _stages(sweep)
            done = [study for study in studies if run.is_finished(study, stages)]
            if sweep.engine == "notebooks":  # what one process did has no executed notebooks
                done = [study for study in done if all(run.stage_outputs(study, one)[0].is_file() for one in stages)]
            todo = {study.run for study in studies} - {study.run for study in done}
            names = {
                one["study"].run: _told(one["values"]) for one in plan if one["study"] and one["study"].run in todo
            }
            if len(todo) < len(studies):
                print(f"{len(studies) - len(todo)} runs are done already", flush=True)
            if sweep.engine == "process":
                errors |= _run_in_processes(studies, group, names, cores)
            else:
                errors |= _run_notebooks(studies, group, names, stages, cores, profile)
    index = _write_batch(sweep, group, plan, errors)
    failed = [one for one in json.loads(index.read_text(encoding="utf-8"))["runs"] if one["status"] != "done"]
    for one in failed:
        print(f"{one['status']}: {_told(one['values'])}: {' '.join(one['error'].split())}", flush=True)
    if len(failed) < len(plan):
        _compare_runs(index)
    seconds = time.monotonic() - started
    done = len(plan) - len(failed)
    print(f"{done} of {len(plan)} runs are done, {len(failed)} are not; {seconds:.0f} s: {_shown(group)}")
    return len(failed)


def plan_batch(path, profile=None):
    """Say how many jobs of each notebook a batch would start now, and start none.

    Parameters
    ----------
    path, profile
        As for `run_batch`.

    Returns
    -------
    dict of str to int
    """
    sweep, group = Sweep.open(path), ROOT / "results" / "batches" / sweep_path(path).stem
    plan = planned_runs(sweep)
    for one in plan:
        if one["error"]:
            print(f"impossible: {_told(one['values'])}: {one['error']}", flush=True)
    studies = [one["study"] for one in plan if one["study"]]
    with run.locks(studies, group):
        return run.waiting_jobs(studies, group, _stages(sweep), profile=profile)


def compare(paths, name):
    """Compare any runs, also of different studies, and return the folder of the comparison.

    Parameters
    ----------
    paths : sequence of path-like
        Folders of runs.
    name : str
        Of the comparison, which goes to ``results/batches/<name>/``.

    Raises
    ------
    SweepError
        A folder is not one of a finished run, or the name is that of a sweep.
    """
    group, runs = ROOT / "results" / "batches" / name, []
    if (ROOT / "config" / "sweeps" / f"{name}.yaml").is_file():
        raise SweepError(f"{name} is the name of a sweep.", "give the comparison another name")
    for path in paths:
        folder = (ROOT / path) if (ROOT / path).is_dir() else Path.cwd() / path
        if not (folder / "tables" / "storage.json").is_file():
            raise SweepError(
                f"{path} is not the folder of a finished run.", "name folders such as results/virtual/main"
            )
        runs.append(
            {"run": folder.name, "folder": _shown(folder.resolve()), "values": {}, "status": "done", "error": ""}
        )
    index = {"title": name, "sweep": "", "axes": [], "runs": runs}
    write_text(group / "batch.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    _compare_runs(group / "batch.json")
    return group


def _compare_runs(index):
    """Execute the comparison notebook beside a batch's index."""
    notebook, executed = run.notebook_path(COMPARISON), index.with_name(f"{COMPARISON}.ipynb")
    # A kernel's remarks on its connection are no part of what a batch has to say.
    with open(index.with_name(f".{COMPARISON}.log"), "wb") as log:
        before = os.dup(2)
        try:
            os.dup2(log.fileno(), 2)
            run.execute(notebook, executed, {"batch": _shown(index)})
        finally:
            os.dup2(before, 2)
            os.close(before)


def _shown(path):
    return str(Path(path).relative_to(ROOT))


def _told(values):
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "as the base study"


def _write_batch(sweep, group, plan, errors):
    """Write the index of a batch: its runs, the settings that differ, and how each ended."""
    runs = []
    for one in plan:
        study = one["study"]
        error = one["error"] or errors.get(study.run, "")
        status = "failed" if error else "done" if run.is_finished(study, _stages(sweep)) else "unfinished"
        runs.append(
            {
                "run": study.run if study else "",
                "folder": _shown(study.results_dir) if study else "",
                "values": one["values"],
                "status": status if study else "impossible",
                "error": error,
            }
        )
    axes = list(dict.fromkeys(name for one in plan for name in one["values"]))
    index = {"title": sweep.title or group.name, "sweep": sweep.model_dump(mode="json"), "axes": axes, "runs": runs}
    write_text(group / "batch.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return group / "batch.json"


def _stages(sweep):
    return run.IN_PROCESS if sweep.engine == "process" else run.stages_until(sweep.until)


def _prepare_data(studies, group, cores, profile):
    """Make the covariates that runs share, so that then they are only read; return the errors of runs without them."""
    first = {study.processed_dir: study for study in reversed(studies) if not run.has_data(study)}
    if not first:
        return {}
    progress, shared = run.StageProgress(), list(first.values())
    with run.locks(shared, group):
        run.launch(shared, group, list(run.SHARED), progress, cores, profile)
        found = {folder: run.failure(study, progress.events) for folder, study in first.items()}
    failed = {folder: error for folder, error in found.items() if error}
    return {study.run: str(failed[study.processed_dir]) for study in studies if study.processed_dir in failed}


def _run_notebooks(studies, group, names, stages, cores, profile):
    """Run the notebooks of all runs by one Snakemake, and return the errors of those that failed."""
    progress = _RunProgress(names, stages[-1])
    run.launch(studies, group, stages, progress, cores, profile)
    errors = {}
    for study in studies:
        if error := run.failure(study, [event for event in progress.events if event["run"] == study.run]):
            errors[study.run] = str(error)
        elif not run.is_finished(study, stages):
            run.write_index(study)
    for study in studies:
        if study.run not in errors and not run.is_finished(study, stages):
            twins = [other.run for other in studies if other.run in errors and run.has_equal_samples(study, other)]
            errors[study.run] = (
                errors[twins[0]] if twins else f"Snakemake left it out; see {_shown(run.log_path(group))}"
            )
    return errors


class _RunProgress:
    """A line for each run that ends, and how many are left."""

    def __init__(self, names, last=""):
        self.names, self.last = names, last
        self.events, self.ended, self.started = [], {}, time.monotonic()

    def __call__(self, event):
        """Take an event of a stage; return a line where a run has failed, or has ended with its last stage."""
        self.events.append(event)
        if event["event"] == "failure":
            return self.line(event["run"], f"failed in {event['stage']}")
        return self.line(event["run"], "done") if (event["event"], event["stage"]) == ("end", self.last) else ""

    def line(self, name, what):
        """Return the line of a run that ended."""
        self.ended[name] = what
        seconds = time.monotonic() - self.started
        return f"[{len(self.ended)}/{len(self.names)}, {seconds:.0f} s] {self.names.get(name, name)}: {what}"

    def now(self):
        """Return how far the batch is."""
        left = len(self.names) - len(self.ended)
        seconds = time.monotonic() - self.started
        rest = f", about {seconds / len(self.ended) * left / 60:.0f} min left" if self.ended else ""
        return f"{len(self.ended)} of {len(self.names)} runs ended after {seconds:.0f} s{rest}"


def _run_in_processes(studies, group, names, cores):
    """Do notebooks 02-05 of all runs in a pool of processes, or of dask workers, and return the errors."""
    todo = deque(study for study in studies if study.run in names)
    progress, errors = _RunProgress(names), {}
    while todo:
        with run.guard(todo, group), _pool(studies[0], group, cores) as pool:
            futures = {}
            for study in todo:
                (run.state_dir(study) / "events.jsonl").unlink(missing_ok=True)
                study.write(study.results_dir / "study.yaml")
                futures[pool.submit(run.run_in_process, str(study.results_dir / "study.yaml"))] = study
            broken = _collect(futures, progress, errors)
        # A process that dies takes the pool with it. The runs that it may have died of have failed, the others go on.
        begun = [study for study in broken if (run.state_dir(study) / "events.jsonl").is_file()]
        for study in begun or broken:
            errors[study.run] = "its process died; most often memory ran out.\nRemedy: start again with fewer --cores"
            print(progress.line(study.run, "its process died"), flush=True)
        todo = deque(study for study in broken if study.run not in errors)
    return errors


def _collect(futures, progress, errors):
    """Wait for runs, telling each that ends; return those that were lost with their pool."""
    pending, lost = set(futures), []
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            study, error = futures[future], future.exception()
            if isinstance(error, BrokenProcessPool):
                lost.append(study)
                continue
            if error:
                errors[study.run] = str(error) if isinstance(error, CompendiumError) else repr(error)
            print(progress.line(study.run, "failed" if error else "done"), flush=True)
    return lost


@contextlib.contextmanager
def _pool(study, group, cores):
    """Give an executor: of the study's dask scheduler, or of as many processes as cores and memory allow."""
    if study.compute.scheduler:
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            yield client.get_executor()
        return
    room = psutil.virtual_memory().available / 2**20 / max(run.memory_mb(study, stage) for stage in run.IN_PROCESS)
    workers = max(1, min(cores or cpu_count(), int(room)))
    before = dict(os.environ)
    os.environ |= run.environment(group) | dict.fromkeys(run.CORES, "1")
    # Forked processes would inherit the threads' locks of this one.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=run.follow_launcher)
    try:
        yield pool
    except BaseException:
        run.kill(group)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.clear()
        os.environ |= before
