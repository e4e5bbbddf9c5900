"""Batches of runs: a sweep file says which settings vary, and only what differs is computed.

A run of a batch lies in ``results/<study>/run-<key>/``, where the key is the hash of all its
settings and input files: the same settings are the same run in whichever sweep they stand, and
different ones never meet in a folder.
"""

import contextlib
import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from joblib import cpu_count

from helpers.core.errors import CompendiumError
from helpers.core.files import read_json, write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.notebooks import CORES, execute, run_in_process
from launcher.processes import environment, follow_launcher, guard, has_data, kill, locks
from launcher.records import Event, failure, is_finished, write_index
from launcher.run import Job, StageProgress, launch, waiting_jobs
from launcher.stages import (
    STAGES,
    executed_path,
    memory_mb,
    missing_file,
    stages_of,
    state_dir,
)
from launcher.sweep import Sweep, SweepError, planned_runs, sweep_path

BATCHES = ROOT / "results" / "batches"
COMPARISON = "07-compare-runs"  # the notebook that compares the runs of a batch
MANY_WORLDS = "testbed/4-many-worlds"  # and estimates with the truth, over hidden worlds

Errors = dict[str, str]
"""Why runs failed, by their names."""


def run_batch(path: str | Path, cores: int | None = None, profile: str | None = None) -> int:
    """Bring all runs of a sweep up to date, compare them, and return how many failed.

    `path` is the sweep file, or the name of one in ``config/sweeps``. All cores are used by
    default; `profile` is one of Snakemake's, for notebooks only. A run that fails does not stop the
    others, and after an interruption of whatever kind the same call goes on. SweepError if the
    sweep cannot be used, RunError if another process writes one of the runs.
    """
    batch = _Batch(path, cores, profile)
    started = time.monotonic()
    count = len(batch.plan)
    folder = relative_path(batch.group)
    print(f"{batch.group.name}: {count} runs of {batch.sweep.base}, in {folder}", flush=True)
    batch.write({})
    errors = batch.missing_files()
    errors |= batch.prepare_data(batch.studies_without(errors))
    if studies := batch.studies_without(errors):
        with locks(studies, batch.group):
            todo = [study for study in studies if not batch.is_done(study)]
            if len(todo) < len(studies):
                print(f"{len(studies) - len(todo)} runs are done already", flush=True)
            run = batch.run_in_processes if batch.in_process else batch.run_notebooks
            errors |= run(studies, todo)
    index = batch.write(errors)
    failed = [one for one in read_json(index)["runs"] if one["status"] != "done"]
    for one in failed:
        title = _title(one["values"])
        print(f"{one['status']}: {title}: {' '.join(one['error'].split())}", flush=True)
    if len(failed) < count:
        _compare_runs(index)
    seconds = time.monotonic() - started
    done = count - len(failed)
    print(f"{done} of {count} runs are done, {len(failed)} are not; {seconds:.0f} s: {folder}")
    return len(failed)


def plan_batch(path: str | Path, profile: str | None = None) -> dict[str, int]:
    """Return how many jobs of each notebook `run_batch` would start now, and start none."""
    batch = _Batch(path, None, profile)
    studies = batch.studies_without(batch.missing_files())
    with locks(studies, batch.group):
        return waiting_jobs(batch.job(studies, batch.stages_of_all(studies)))


def compare(paths: Sequence[str | Path], name: str) -> Path:
    """Compare the finished runs of some folders, also of different studies.

    Returns the folder of the comparison, ``results/batches/<name>/``. SweepError if there is no
    such run, or if the name is that of a sweep.
    """
    runs = []
    if (ROOT / "config" / "sweeps" / f"{name}.yaml").is_file():
        raise SweepError(f"{name} is the name of a sweep.", "give the comparison another name")
    for path in paths:
        folder = ((ROOT / path) if (ROOT / path).is_dir() else Path.cwd() / path).resolve()
        finished = (folder / "tables" / "storage.json").is_file()
        if not (finished and folder.is_relative_to(ROOT)):
            message = f"{path} is not the folder of a finished run."
            raise SweepError(message, "name folders such as results/virtual/main")
        place = {"run": folder.name, "folder": relative_path(folder)}
        runs.append({**place, "values": {}, "status": "done", "error": ""})
    index = {"title": name, "sweep": "", "axes": [], "runs": runs}
    _compare_runs(_write_batch(BATCHES / name, index))
    return BATCHES / name


def _compare_runs(index: Path) -> None:
    """Execute the notebooks that compare runs, beside a batch's index."""
    from launcher.compare import read_batch
    from testbed.coverage import has_worlds

    names = [COMPARISON]
    if has_worlds(read_batch(index)[2]):
        names.append(MANY_WORLDS)
    # A kernel's remarks on its connection are no part of what a batch has to say.
    with open(index.with_name(f".{COMPARISON}.log"), "wb") as log:
        before = os.dup(2)
        try:
            os.dup2(log.fileno(), 2)
            for name in names:
                notebook = ROOT / "notebooks" / f"{name}.ipynb"
                execute(notebook, index.with_name(notebook.name), {"batch": relative_path(index)})
        finally:
            os.dup2(before, 2)
            os.close(before)


def _write_batch(group: Path, index: Mapping[str, Any]) -> Path:
    path = group / "batch.json"
    write_text(path, json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return path


def _title(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "as the base study"


class _Batch:
    """The runs of a sweep, and how they are run; `run_batch` has the parameters."""

    def __init__(self, path: str | Path, cores: int | None, profile: str | None) -> None:
        path = sweep_path(path)
        self.sweep = Sweep.open(path)
        self.group = BATCHES / path.stem
        self.cores = cores
        self.profile = profile
        self.in_process = self.sweep.engine == "process"
        if profile and self.in_process:
            raise SweepError(
                f"{path.name} runs in processes of this machine, which no profile sends elsewhere.",
                "leave out the profile, or set `engine: notebooks`; for a dask cluster, "
                "`compute.scheduler` in the study",
            )
        self.plan = planned_runs(self.sweep)
        self.titles = {one.study.run: _title(one.values) for one in self.plan if one.study}

        for one in self.plan:
            if one.error:
                print(f"impossible: {_title(one.values)}: {one.error}", flush=True)

    def studies_without(self, errors: Errors) -> list[Study]:
        """Return its possible runs apart from those that have failed."""
        studies = [one.study for one in self.plan if one.study]
        return [study for study in studies if study.run not in errors]

    def stages(self, study: Study) -> list[str]:
        """Return the stages of a run; shared data come first and are made once."""
        names = stages_of(study, until=self.sweep.until)
        return [name for name in names if STAGES[name].in_process or not self.in_process]

    def stages_of_all(self, studies: Sequence[Study]) -> list[str]:
        """Return the stages that any of some runs has."""
        return list(dict.fromkeys(name for study in studies for name in self.stages(study)))

    def job(self, studies: Sequence[Study], stages: Sequence[str]) -> Job:
        """Return what Snakemake has to do for some of its runs."""
        return Job(studies, self.group, stages, self.cores, self.profile)

    def is_done(self, study: Study) -> bool:
        """Return whether a run is finished, by notebooks if the sweep wants them executed."""
        stages = self.stages(study)
        executed = self.in_process or all(executed_path(study, one).is_file() for one in stages)
        return executed and is_finished(study, stages)

    def missing_files(self) -> Errors:
        """Return the errors of runs that lack a file of the user."""
        studies = self.studies_without({})
        missing = {one.run: missing_file(one, stages_of(one)) for one in studies}
        return {run: str(error) for run, error in missing.items() if error}

    def prepare_data(self, studies: Sequence[Study]) -> Errors:
        """Make the covariates that runs share, so that afterwards they are only read.

        Returns the errors of runs that are without them.
        """
        first = {one.processed_dir: one for one in reversed(studies) if not has_data(one)}
        if not first:
            return {}
        shared = list(first.values())
        progress = StageProgress()
        with locks(shared, self.group):
            launch(self.job(shared, [one for one in STAGES if STAGES[one].shared]), progress)
        lacking = [one for one in studies if one.processed_dir in first and not has_data(one)]
        errors = {}
        for one in lacking:
            # Another study's run may have failed at raw rasters that both share.
            own = failure(progress.events, first[one.processed_dir].run)
            if error := own or failure(progress.events):
                errors[one.run] = str(error)
        return errors

    def run_notebooks(self, studies: Sequence[Study], todo: Sequence[Study]) -> Errors:
        """Run the notebooks of all runs by one Snakemake, and return the errors of runs."""
        last = {study.run: self.stages(study)[-1] for study in studies}
        progress = _RunProgress({study.run: self.titles[study.run] for study in todo}, last)
        job = self.job(studies, self.stages_of_all(studies))
        launch(job, progress)
        errors = {}
        for study in studies:
            if error := failure(progress.events, study.run):
                errors[study.run] = str(error)
            elif not is_finished(study, self.stages(study)):
                write_index(study)
            if study.run not in errors and not is_finished(study, self.stages(study)):
                # Most often a run failed from which it was to copy its samples.
                errors[study.run] = f"Snakemake left it out; see {relative_path(job.log)}"
        return errors

    def run_in_processes(self, studies: Sequence[Study], todo: Sequence[Study]) -> Errors:
        """Do the run's own notebooks in a pool of processes; return the errors of runs."""
        waiting = list(todo)
        progress = _RunProgress({study.run: self.titles[study.run] for study in todo}, {})
        errors: Errors = {}
        while waiting:
            with guard(waiting, self.group), _pool(studies[0], self.group, self.cores) as pool:
                futures = {}
                for study in waiting:
                    (state_dir(study.results_dir) / "events.jsonl").unlink(missing_ok=True)
                    path = study.results_dir / "study.yaml"
                    study.write(path)
                    futures[pool.submit(run_in_process, str(path))] = study
                lost = _collect(futures, progress, errors)
            # A process that dies takes the pool with it. The runs that it may have died of have
            # failed, the others go on.
            begun = [
                study for study in lost if (state_dir(study.results_dir) / "events.jsonl").is_file()
            ]
            for study in begun or lost:
                why = "its process died; most often memory ran out."
                errors[study.run] = f"{why}\nRemedy: start again with fewer --cores"
                print(progress.line(study.run, "its process died"), flush=True)
            waiting = [study for study in lost if study.run not in errors]
        return errors

    def write(self, errors: Errors) -> Path:
        """Write the index: the runs, the settings that differ, and how each run ended."""
        runs = []
        for one in self.plan:
            row = {"run": "", "folder": "", "values": one.values, "status": "impossible"}
            error = one.error
            if study := one.study:
                error = errors.get(study.run, "")
                finished = is_finished(study, self.stages(study))
                row["status"] = "failed" if error else "done" if finished else "unfinished"
                row |= {"run": study.run, "folder": relative_path(study.results_dir)}
            runs.append(row | {"error": error})
        index = {
            "title": self.sweep.title or self.group.name,
            "sweep": self.sweep.model_dump(mode="json"),
            "axes": list(dict.fromkeys(name for one in self.plan for name in one.values)),
            "runs": runs,
        }
        return _write_batch(self.group, index)


class _RunProgress(StageProgress):
    """A line for each run that ends, and how many are left."""

    def __init__(self, titles: Mapping[str, str], last: Mapping[str, str]) -> None:
        """Take the titles of runs that are to be done, and the last stage of each."""
        super().__init__()
        self._titles = titles
        self._last = last
        self._ended: set[str] = set()
        self._started = time.monotonic()

    def __call__(self, event: Event) -> str:
        """Take an event; return a line where a run has failed, or has ended with its last stage."""
        self.events.append(event)
        if event["event"] == "failure":
            return self.line(event["run"], f"failed in {event['stage']}")
        if event["event"] == "end" and event["stage"] == self._last.get(event["run"]):
            return self.line(event["run"], "done")
        return ""

    def line(self, run: str, what: str) -> str:
        """Return the line of a run that ended."""
        self._ended.add(run)
        seconds = time.monotonic() - self._started
        share = f"{len(self._ended)}/{len(self._titles)}"
        return f"[{share}, {seconds:.0f} s] {self._titles.get(run, run)}: {what}"

    def now(self) -> str:
        """Return how far the batch is."""
        ended, all_runs = len(self._ended), len(self._titles)
        seconds = time.monotonic() - self._started
        minutes = seconds / ended * (all_runs - ended) / 60 if ended else 0
        left = f", about {minutes:.0f} min left" if ended else ""
        return f"{ended} of {all_runs} runs ended after {seconds:.0f} s{left}"


def _collect(
    futures: Mapping[Future, Study], progress: _RunProgress, errors: Errors
) -> list[Study]:
    """Wait for runs and print each that ends; return those that were lost with their pool."""
    lost = []
    for future in as_completed(futures):
        study = futures[future]
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            lost.append(study)
            continue
        if error:
            errors[study.run] = str(error) if isinstance(error, CompendiumError) else repr(error)
        print(progress.line(study.run, "failed" if error else "done"), flush=True)
    return lost


@contextlib.contextmanager
def _pool(study: Study, group: Path, cores: int | None) -> Generator[Executor]:
    """Give the study's dask scheduler, or as many processes as cores and memory allow."""
    if study.compute.scheduler:
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            yield client.get_executor()
        return
    most = max(memory_mb(study, one) for one in stages_of(study) if STAGES[one].in_process)
    room = int(psutil.virtual_memory().available / 2**20 / most)
    workers = max(1, min(cores or cpu_count(), room))
    before = dict(os.environ)
    os.environ |= environment(group) | dict.fromkeys(CORES, "1")
    # Forked processes would inherit the threads' locks of this one.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=follow_launcher)
    try:
        yield pool
    except BaseException:
        kill(group)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.clear()
        os.environ |= before
