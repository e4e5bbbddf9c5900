"""Batches of runs: a sweep file says which settings vary; only what differs is computed, and one table tells the rest.

A run of a batch lies in ``results/<study>/run-<key>/``, where the key is the hash of all its settings and input files:
the same settings are the same run in whichever sweep they stand, and different ones never meet in a folder.
"""

import contextlib
import json
import os
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import psutil
from joblib import cpu_count

from helpers.core.errors import CompendiumError
from helpers.core.files import write_text
from helpers.core.settings import ROOT
from launcher import notebooks, processes, records, run
from launcher.stages import (
    IN_PROCESS,
    SHARED,
    has_equal_samples,
    memory_mb,
    notebook_path,
    stage_outputs,
    stages_until,
    state_dir,
)
from launcher.sweep import Sweep, SweepError, planned_runs, sweep_path

COMPARISON = "07-compare-runs"
"""The notebook that compares the runs of a batch."""


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
    launcher.processes.RunError
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
        with processes.locks(studies, group):
            stages = _stages(sweep)
            done = [study for study in studies if records.is_finished(study, stages)]
            if sweep.engine == "notebooks":  # what one process did has no executed notebooks
                done = [study for study in done if all(stage_outputs(study, one)[0].is_file() for one in stages)]
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
    with processes.locks(studies, group):
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
    notebook, executed = notebook_path(COMPARISON), index.with_name(f"{COMPARISON}.ipynb")
    # A kernel's remarks on its connection are no part of what a batch has to say.
    with open(index.with_name(f".{COMPARISON}.log"), "wb") as log:
        before = os.dup(2)
        try:
            os.dup2(log.fileno(), 2)
            notebooks.execute(notebook, executed, {"batch": _shown(index)})
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
        status = "failed" if error else "done" if records.is_finished(study, _stages(sweep)) else "unfinished"
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
    return IN_PROCESS if sweep.engine == "process" else stages_until(sweep.until)


def _prepare_data(studies, group, cores, profile):
    """Make the covariates that runs share, so that then they are only read; return the errors of runs without them."""
    first = {study.processed_dir: study for study in reversed(studies) if not processes.has_data(study)}
    if not first:
        return {}
    progress, shared = run.StageProgress(), list(first.values())
    with processes.locks(shared, group):
        run.launch(shared, group, list(SHARED), progress, cores, profile)
        found = {folder: records.failure(study, progress.events) for folder, study in first.items()}
    failed = {folder: error for folder, error in found.items() if error}
    return {study.run: str(failed[study.processed_dir]) for study in studies if study.processed_dir in failed}


def _run_notebooks(studies, group, names, stages, cores, profile):
    """Run the notebooks of all runs by one Snakemake, and return the errors of those that failed."""
    progress = _RunProgress(names, stages[-1])
    run.launch(studies, group, stages, progress, cores, profile)
    errors = {}
    for study in studies:
        if error := records.failure(study, [event for event in progress.events if event["run"] == study.run]):
            errors[study.run] = str(error)
        elif not records.is_finished(study, stages):
            records.write_index(study)
    for study in studies:
        if study.run not in errors and not records.is_finished(study, stages):
            twins = [other.run for other in studies if other.run in errors and has_equal_samples(study, other)]
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
        with processes.guard(todo, group), _pool(studies[0], group, cores) as pool:
            futures = {}
            for study in todo:
                (state_dir(study) / "events.jsonl").unlink(missing_ok=True)
                study.write(study.results_dir / "study.yaml")
                futures[pool.submit(notebooks.run_in_process, str(study.results_dir / "study.yaml"))] = study
            broken = _collect(futures, progress, errors)
        # A process that dies takes the pool with it. The runs that it may have died of have failed, the others go on.
        begun = [study for study in broken if (state_dir(study) / "events.jsonl").is_file()]
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
    room = psutil.virtual_memory().available / 2**20 / max(memory_mb(study, stage) for stage in IN_PROCESS)
    workers = max(1, min(cores or cpu_count(), int(room)))
    before = dict(os.environ)
    os.environ |= processes.environment(group) | dict.fromkeys(notebooks.CORES, "1")
    # Forked processes would inherit the threads' locks of this one.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=processes.follow_launcher)
    try:
        yield pool
    except BaseException:
        processes.kill(group)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.clear()
        os.environ |= before
