"""The launcher: runs the numbered notebooks of a study, one a stage, by Snakemake and papermill.

Snakemake knows which stage has to run. What is added here, because it was seen to be missing: a lock that a
killed process cannot leave behind, jobs that die with the launcher, one progress line a stage, and errors in six
lines or less.
"""

import contextlib
import difflib
import fcntl
import io
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil
from joblib import cpu_count

from helpers import __version__
from helpers.core.code import package_digest, short_hash, stage_digest, write_text
from helpers.core.errors import CompendiumError
from helpers.core.study import ROOT, Study

STAGES = {
    "00-virtual-landscape": 60,
    "01-prepare-data": 60,
    "02-extract-samples": 75,
    "03-grid-search": 90,
    "04-evaluate-accuracy": 45,
    "05-map-ground-ice": 130,
    "06-publication-figures": 25,
}
"""The notebooks of `make map` in their order, and the seconds that each may take in the default study on 2 cores."""


FULL = {**STAGES, "08-baselines": 400}
"""Those of `make full`: the others say what the map's method is worth, and change no map."""


IN_PROCESS = ("02-extract-samples", "03-grid-search", "04-evaluate-accuracy", "05-map-ground-ice")
"""Stages that `run_in_process` does."""


ACCURACY = (
    "accuracy", "accuracy_by_class", "accuracy_permafrost", "accuracy_folds", "validation", "class_areas",
    "reliability", "calibration_error", "residuals", "morans_i", "error_by_distance", "importance", "importance_groups",
)  # fmt: skip
"""Tables of notebook 04, each as CSV and as JSON."""


SHARED = ("00-virtual-landscape", "01-prepare-data")
"""Stages whose outputs runs with the same settings share."""


RUN, LAUNCHER, EVENTS = "GROUND_ICE_RUN", "GROUND_ICE_LAUNCHER", "GROUND_ICE_EVENTS"
"""Environment variables that all processes of a run or batch inherit: its folder, the launcher's process, and the file
in which stages tell how far they are.
"""


CORES = ("LOKY_MAX_CPU_COUNT", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that tell the libraries how many cores they may use."""


_PACKAGES = ("scikit-learn", "numpy", "scipy", "rasterio", "rioxarray", "xarray", "odc-geo", "pyflwdir")


_MEMORY_MB = {
    "00-virtual-landscape": (600, 1000),
    "01-prepare-data": (1200, 700),
    "02-extract-samples": (600, 1000),
    "03-grid-search": (900, 100),
    "04-evaluate-accuracy": (700, 500),
    "05-map-ground-ice": (600, 1000),
    "06-publication-figures": (600, 300),
    "08-baselines": (900, 300),
}
"""What a stage takes at most: for itself, and for each million cells of the reference grid; records tell the peaks."""


MESSAGE_LENGTH = 400


class RunError(CompendiumError):
    """A run that cannot start, or a stage that failed."""


def notebook_path(stage):
    """Return the notebook of a stage."""
    return ROOT / "notebooks" / f"{stage}.ipynb"


def state_dir(study):
    """Return the hidden folder with what the launcher and Snakemake remember of a run; safe to delete."""
    return ROOT / ".run" / study.name / study.run


def stage_dir(study, stage):
    """Return the folder that keeps a stage's executed notebook and its record: where its outputs are."""
    return {"00": study.raw_dir, "01": study.processed_dir}.get(stage[:2], study.results_dir / "notebooks")


def stage_outputs(study, stage):
    """Return the files that tell that a stage is done, the executed notebook first."""
    from helpers.core import ice
    from helpers.figures import publication
    from helpers.forest import models
    from helpers.mapping import interval, other_maps, predict, trust
    from helpers.prepare.products import raw_files
    from helpers.prepare.registry import covariate_files, fine_files
    from helpers.samples import labels
    from testbed.boreholes import truth_files

    layers, tables = [ice.layer_name(layer) for layer in study.layers], study.results_dir / "tables"
    twin = ["regression"] if study.storage_from == "regression" else []
    judged = [
        "baselines",
        "optimism",
        "ice_fraction",
        "storage_ways",
        "local_effects",
        *(["forward_selection"] if study.forward_selection else []),
    ]
    made = {
        "00-virtual-landscape": lambda: raw_files(study).values(),
        "01-prepare-data": lambda: [*covariate_files(study).values(), *fine_files(study).values()],
        "02-extract-samples": lambda: [
            labels.samples_path(study),
            *(truth_files(study).values() if study.draws_boreholes else []),
        ],
        "03-grid-search": lambda: sorted(
            {models.model_path(study, layer, which) for layer in layers for which in ("map", "train", *twin)}
        ),
        "04-evaluate-accuracy": lambda: [tables / f"{name}.{kind}" for name in ACCURACY for kind in ("csv", "json")],
        "05-map-ground-ice": lambda: [
            *predict.map_files(study).values(),
            *interval.interval_files(study).values(),
            *trust.trust_files(study).values(),
            *other_maps.difference_files(study).values(),
            *(tables / f"{name}.json" for name in ("storage", "applicability", "other_maps")),
        ],
        "06-publication-figures": lambda: [study.figures_dir / f"{name}.png" for name in publication.NAMES],
        "08-baselines": lambda: [tables / f"{name}.csv" for name in judged],
    }
    return [stage_dir(study, stage) / f"{stage}.ipynb", *made[stage]()]


def memory_mb(study, stage):
    """Return the memory that a stage takes at most, in MB, for batches and clusters."""
    fixed, each = _MEMORY_MB[stage]
    return round(fixed + each * 1.44 * (1000 / study.grid.resolution) ** 2)


_SECTIONS = {
    "02-extract-samples": ("layers", "ice", "truth", "boreholes", "samples", "predictors", "domain", "target"),
    "03-grid-search": ("forest", "folds", "predictors", "left_out", "domain", "target", "storage_from", "regression"),
    "04-evaluate-accuracy": ("folds", "accuracy", "samples", "domain", "target"),
    "05-map-ground-ice": ("target", "storage_from", "maps", "uncertainty", "trust", "compare_with"),
    "06-publication-figures": ("target",),
    "08-baselines": (
        "accuracy",
        "forest",
        "folds",
        "predictors",
        "left_out",
        "forward_selection",
        "domain",
        "target",
        "regression",
    ),
}
"""Settings that a run's own stages read beside the files of earlier ones; those of 00 and 01 are in folder names."""


def code_file(study, stage):
    """Return the file with the digest of a stage's code and settings, an input of the stage's rule.

    It lies beside the outputs, so that runs which share them agree on what made them. It is rewritten only where the
    digest differs from the recorded one. Stages of a run add the settings that no folder name has.
    """
    path, digest = stage_dir(study, stage) / f".{stage}.code", _made_of(study, stage)
    if not path.is_file() or path.read_text() != digest:
        write_text(path, digest)
        record = path.with_name(f"{stage}.json")
        if record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("made_of") == digest:
            # An edit was undone before anything was made with it: the outputs stand, so the file is older than they.
            os.utime(path, (record.stat().st_mtime - 86_400,) * 2)
    return path


def _made_of(study, stage):
    """Return the digest of what a stage's outputs are made of, beside the files that earlier stages made."""
    digest = stage_digest(notebook_path(stage))
    if stage not in _SECTIONS:
        return digest
    settings = study.model_dump(mode="json", include=set(_SECTIONS[stage]))
    given = {
        "02-extract-samples": [digest for path, digest in study.inputs.items() if path not in study.other_inputs],
        "05-map-ground-ice": list(study.other_inputs.values()),
    }.get(stage, [])
    return f"{digest} {short_hash([study.processed_key, settings, given])}"


def has_equal_samples(study, other):
    """Whether two runs have the same samples: the same settings and files up to notebook 02, and the same code."""
    return _made_of(study, "02-extract-samples") == _made_of(other, "02-extract-samples")


def is_recorded(study, stage):
    """Whether a stage was finished with the present code, settings and input files."""
    record = stage_dir(study, stage) / f"{stage}.json"
    return record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("made_of") == _made_of(study, stage)


# The processes of a run -----------------------------------------------------------------------------------------------


def _launcher_mark():
    """Return what names this process on this machine, also after its number is given to another.

    Not by the time when it started: the system tells that by its clock, which may be set while a run is on.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{short_hash(psutil.Process().cmdline())}"


def _is_alive(mark):
    """Whether the launcher of a mark lives; one of another machine cannot be seen and counts as living."""
    host, pid, command = mark.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and short_hash(process.cmdline()) == command
    except psutil.Error:
        return False


def _processes(group):
    """Return the living processes of a run or batch, except this one, and any of this project without a launcher.

    The environment variables that they inherited tell.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            run, mark = (process.environ().get(name, "") for name in (RUN, LAUNCHER))
            lost = run.startswith(f"{ROOT}{os.sep}") and mark and not _is_alive(mark)
            if process.pid != os.getpid() and (run == str(group) or lost):
                found.append(process)
    return found


def kill(group):
    """Kill all other processes of a run or batch, and wait until they are gone."""
    for _ in range(300):
        found = _processes(group)
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        # No waiting for a child of this process: a pool waits for its own, and forever if another has done so before.
        time.sleep(0.1)


def follow_launcher():
    """Make this process, and with it its run, end within a second of the launcher's end, however that came.

    On another machine than the launcher's, such as a cluster's node, it is the scheduler that ends it.
    """
    mark = os.environ.get(LAUNCHER)
    if not mark:
        return

    def watch():
        while _is_alive(mark):
            time.sleep(0.3)
        kill(os.environ[RUN])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _locked(path, busy, share=False):
    """Hold an operating-system lock on a file, alone or with others; the system frees it however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if share else fcntl.LOCK_EX
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            busy(stream.read().strip() or "unknown")
            fcntl.flock(stream, kind)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextlib.contextmanager
def locks(studies, group=None):
    """Hold the locks of runs, and of the data folders that they share with others.

    Parameters
    ----------
    studies : list of helpers.core.study.Study
    group : pathlib.Path, optional
        The batch that they are of; its folder is locked, too.

    Raises
    ------
    RunError
        Another process writes one of them.
    """

    def refuse(pid, folder):
        raise RunError(f"{_shown(folder)} is being written by process {pid}.", "wait until that has ended, or stop it")

    def wait(pid):
        print(f"waiting for process {pid}, which prepares the same data", flush=True)

    with contextlib.ExitStack() as stack:
        owned = {state_dir(study): study.results_dir for study in studies}
        if group:
            owned[ROOT / ".run" / "batches" / group.name] = group
        for state, folder in sorted(owned.items()):
            stack.enter_context(_locked(state / "lock", partial(refuse, folder=folder)))
        shared = {folder: study for study in studies for folder in (study.raw_dir, study.processed_dir)}
        # Always in one order, so that no two launchers wait for each other. Complete data can be read together.
        for folder in sorted(shared):
            lock = ROOT / ".run" / f"{folder.parent.name}-{folder.name}.lock"
            stack.enter_context(_locked(lock, wait, share=has_data(shared[folder])))
        yield


def has_data(study):
    """Whether the shared stages are done, with the present code."""
    done = (is_recorded(study, stage) and all(map(Path.is_file, stage_outputs(study, stage))) for stage in SHARED)
    return all(done)


def _remove_parts(studies):
    """Remove half-written files of a killed run: they have names of their own and are never anybody's input."""
    folders = {
        folder
        for study in studies
        for folder in (study.raw_dir, study.processed_dir, study.results_dir, study.figures_dir, state_dir(study))
    }
    for folder in folders:
        for part in folder.rglob(".*.part"):
            part.unlink(missing_ok=True)


# The launcher ---------------------------------------------------------------------------------------------------------


def run_study(path, cores=None, until=None, full=False):
    """Bring a study's results up to date.

    Parameters
    ----------
    path : path-like
        The study file.
    cores : int, optional
        How many cores to use; all by default.
    until : str, optional
        The last stage to run; all of `STAGES` by default.
    full : bool
        Run all of `FULL`.

    Raises
    ------
    RunError
        Another process writes this run, or a stage failed; the message has the cell, the cause and the remedy.
    """
    study = Study.open(path)
    stages = stages_until(until) if until else list(FULL if full else STAGES)
    with locks([study]):
        progress, started = StageProgress(), time.monotonic()
        launch([study], study.results_dir, stages, progress, cores)
        if error := failure(study, progress.events):
            raise error
        seconds = time.monotonic() - started
        if not is_finished(study, stages):
            write_index(study)
    ran = [e for e in progress.events if e["event"] == "end"]
    if not ran:
        print(f"{study.name}/{study.run} is up to date: nothing to do ({seconds:.0f} s).")
    else:
        budget = sum(FULL[e["stage"]] for e in ran)
        print(f"{study.name}/{study.run} is done in {seconds:.0f} s (budget {budget} s): {_shown(study.results_dir)}")


def stages_until(last):
    """Return the stages up to one; raise RunError if there is none of this name."""
    if last not in STAGES:
        near = difflib.get_close_matches(str(last), STAGES, n=1, cutoff=0.0)
        raise RunError(f"There is no stage {last}.", f"name one of {', '.join(STAGES)}, such as {near[0]}")
    return list(STAGES)[: list(STAGES).index(last) + 1]


def launch(studies, group, stages, progress, cores=None, profile=None):
    """Bring stages of one or many runs up to date by Snakemake, whose log goes to a file; hold `locks` meanwhile.

    Where a stage fails, the others go on that do not need it.

    Parameters
    ----------
    studies : list of helpers.core.study.Study
    group : pathlib.Path
        The folder of the run or batch.
    stages : list of str
    progress : callable
        Is given each event of a stage, a dict, and returns a line for the screen, or an empty one; its `now` returns
        what is under way.
    cores : int, optional
        How many cores to use; all by default. Stages of several runs share them. With a profile, the cores of a job.
    profile : str, optional
        A Snakemake profile, for a cluster or a restricted budget: a folder, or the name of one in ``config/profiles``.

    Raises
    ------
    RunError
        It was stopped by a signal, or Snakemake could not start.
    """
    state = _state(group)
    events = state / "events.jsonl"
    with guard(studies, group):
        write_text(events, "")
        command = _command(studies, state, stages, cores or (2 if profile else cpu_count()), profile)
        with open(log_path(group), "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                command,
                env=environment(group, events),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            _show_progress(child, events, progress)
    if child.returncode and not any(event["event"] == "start" for event in progress.events):
        lines = [line for line in log_path(group).read_text(encoding="utf-8").splitlines() if line.strip()]
        raise RunError(f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", f"see {_shown(log_path(group))}")


@contextlib.contextmanager
def guard(studies, group):
    """Begin and end without a process or a half-written file of a run or batch; a signal becomes a RunError."""

    def clear():
        kill(group)
        _remove_parts(studies)

    clear()
    for study in studies:
        (state_dir(study) / "failure.json").unlink(missing_ok=True)
    handlers = {s: signal.signal(s, _stop) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        clear()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stale_stages(path, full=False):
    """Return the stages that a run would execute now, in their order.

    Parameters
    ----------
    path : path-like
        The study file.
    full : bool
        Look at all of `FULL`, not only at `STAGES`.

    Raises
    ------
    RunError
        Snakemake cannot tell.
    """
    study = Study.open(path)
    with locks([study]):
        jobs = waiting_jobs([study], study.results_dir, list(FULL if full else STAGES))
    return list(jobs)


def waiting_jobs(studies, group, stages, cores=None, profile=None):
    """Return how many jobs of each stage Snakemake would start now, in the stages' order; hold `locks` meanwhile.

    Parameters
    ----------
    studies, group, stages, cores, profile
        As for `launch`.

    Returns
    -------
    dict of str to int

    Raises
    ------
    RunError
        Snakemake cannot tell.
    """
    command = [*_command(studies, _state(group), stages, cores or 1, profile), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(group), check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        raise RunError(
            f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", "mend the Snakefile or the profile"
        )
    jobs = {stage: done.stdout.count(f"launcher stage {stage} ") for stage in FULL}
    return {stage: number for stage, number in jobs.items() if number}


def _shown(path):
    return str(Path(path).relative_to(ROOT))


def _state(group):
    """Return the hidden folder of a run or batch."""
    return ROOT / ".run" / group.relative_to(ROOT / "results")


def log_path(group):
    """Return the file of Snakemake's messages about a run or batch."""
    return _state(group) / "snakemake.log"


def _command(studies, state, stages, cores, profile=None):
    """Write resolved study files and digests of code, and return the command that runs Snakemake."""
    paths, first, twins = {}, {}, {}
    for study in studies:
        path = paths[study.run] = str(study.results_dir / "study.yaml")
        study.write(path)
        for stage in FULL:
            code_file(study, stage)
        # Of runs with equal samples the first draws them, and the others wait for it and copy.
        samples = _made_of(study, "02-extract-samples")
        if samples in first:
            twins[path] = [str(file) for file in stage_outputs(first[samples], "02-extract-samples")]
        first.setdefault(samples, study)
    # Runs share the cores of this machine; with a profile, which knows how many there are, `cores` are those of a job.
    threads = cores if profile else max(1, cores // len(studies))
    config = {"studies": list(paths.values()), "stages": stages, "threads": threads, "twins": twins}
    write_text(state / "config.json", json.dumps(config, indent=1))
    command = [sys.executable, "-m", "launcher", "snakemake", "map", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", state, "--configfile", state / "config.json"]
    command += ["--keep-going"] if len(studies) > 1 else []
    # Only file times decide (settings are in folder names, code is a file); the locks above replace Snakemake's.
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock", "--scheduler", "greedy"]
    command += ["--nocolor", "--printshellcmds"]
    if profile:
        command += ["--profile", _profile(profile)]
    else:
        command += ["--latency-wait", 3]
        command += ["--cores", cores, "--resources", f"mem_mb={int(psutil.virtual_memory().available / 2**20)}"]
    return [str(part) for part in command]


def _profile(path):
    """Return the folder of a Snakemake profile; raise RunError if there is none."""
    for folder in (ROOT / path, ROOT / "config" / "profiles" / path, Path.cwd() / path):
        if (folder / "config.yaml").is_file():
            return folder.resolve()
    known = ", ".join(sorted(one.name for one in (ROOT / "config" / "profiles").iterdir()))
    raise RunError(f"There is no Snakemake profile {path}.", f"name a folder with a config.yaml, or one of {known}")


def environment(group, events=""):
    """Return the environment of all processes of a run or batch."""
    ours = {RUN: str(group), LAUNCHER: _launcher_mark(), EVENTS: str(events), "PYTHONPATH": str(ROOT / "src")}
    return {**os.environ, **ours}


def _stop(number, frame):
    raise RunError(f"Stopped by {signal.Signals(number).name}.", "start again: what is done is kept")


class StageProgress:
    """One line a stage with its time and budget."""

    def __init__(self):
        self.events, self.current = [], None

    def __call__(self, event):
        """Take an event of a stage; return the line of one that has ended."""
        self.events.append(event)
        if event["event"] == "end":
            self.current = None
            return f"{event['stage']:<22} {event['seconds']:5.0f} s of {FULL[event['stage']]} s"
        self.current = {**(self.current or {}), **event} if event["event"] == "cell" else event
        return ""

    def now(self):
        """Return the stage and the cell under way."""
        if not self.current:
            return ""
        stage, seconds = self.current["stage"], time.time() - self.current["since"]
        return f"{stage:<22} {seconds:5.0f} s of {FULL[stage]} s  {self.current.get('cell', '')}"


def _show_progress(child, path, progress):
    """Print the lines that `progress` makes of a file's events; on a terminal, the last line moves."""
    terminal, shown = sys.stdout.isatty(), 0
    while True:
        running = child.poll() is None
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        for line in lines[shown:]:
            if told := progress(json.loads(line)):
                print(f"\r{told:<110}" if terminal else told, flush=True)
        shown = len(lines)
        if terminal and (now := progress.now()):
            print(f"\r{now:<110.110}", end="", flush=True)
        if not running:
            break
        time.sleep(0.2)
    if terminal and progress.now():
        print()


def failure(study, events):
    """Return the error of a run that failed, from the record that the failed stage left or from its events.

    Parameters
    ----------
    study : helpers.core.study.Study
    events : list of dict

    Returns
    -------
    RunError or None
        None where nothing failed.
    """
    record = state_dir(study) / "failure.json"
    if record.is_file():
        told = json.loads(record.read_text(encoding="utf-8"))
        record.unlink()
        return RunError(told["message"], told["remedy"])
    ended = [event["stage"] for event in events if event["event"] == "end"]
    for event in events:
        if event["event"] == "start" and event["stage"] not in ended:
            return RunError(
                f"{event['stage']} was killed before it could say why; most often memory ran out.",
                "start again: what is done is kept; close other programs first if memory was short",
            )
    return None


def is_finished(study, stages):
    """Whether a run was finished with the present code, settings, files and covariates, and its index written."""
    index = study.results_dir / "run.json"
    if not (index.is_file() and all(is_recorded(study, stage) for stage in (*SHARED, *stages))):
        return False
    finished = index.stat().st_mtime_ns
    return all(
        (stage_dir(study, stage) / f"{stage}.json").stat().st_mtime_ns <= finished
        for stage in FULL
        if (stage_dir(study, stage) / f"{stage}.json").is_file()
    )


def write_index(study, engine="notebooks"):
    """Write a run's index, `run.json`: what it is made of, by which code and packages, when, and from which files.

    Parameters
    ----------
    study : helpers.core.study.Study
    engine : {"notebooks", "process"}
        Whether papermill executed the notebooks, or their code ran in one process.

    Returns
    -------
    dict
    """
    records = {}
    for stage in FULL:
        path = stage_dir(study, stage) / f"{stage}.json"
        if path.is_file():
            records[stage] = json.loads(path.read_text(encoding="utf-8"))
    kept = ("made_of", "version", "code_digest", "finished", "seconds", "peak_memory_mb", "copied_from")
    index = {
        "study": study.name,
        "run": study.run,
        "simulated": study.simulated,
        "engine": engine,
        "key": study.key,
        # What only judges the map is no part of it.
        "identity": short_hash([study.key, *(records[stage]["made_of"] for stage in STAGES if stage in records)], 16),
        "settings": "study.yaml",
        "inputs": study.inputs,
        "covariates": _shown(study.processed_dir),
        "stages": {stage: {key: one[key] for key in kept if key in one} for stage, one in records.items()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    write_text(study.results_dir / "run.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return index


# One stage ------------------------------------------------------------------------------------------------------------


def run_stage(stage, path, cores=None):
    """Execute a stage's notebook by papermill, and publish it only if every cell succeeded.

    Samples that another run of the study has drawn with the same settings, files and code are copied instead.

    Parameters
    ----------
    stage : str
        The notebook's name without its ending.
    path : path-like
        The resolved study file, the notebook's only parameter.
    cores : int, optional
        How many cores to use; all by default.

    Raises
    ------
    RunError
        A parameter is unknown to the notebook, or a cell failed.
    """
    study = Study.open(path)
    follow_launcher()
    if cores:
        os.environ |= dict.fromkeys(CORES, str(cores))
    folder, failed = stage_dir(study, stage), study.results_dir / "failed" / f"{stage}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{stage}.ipynb.part"
    # While outputs are being replaced, nothing says what they are made of.
    (folder / f"{stage}.json").unlink(missing_ok=True)
    # Before the notebook runs: an edit meanwhile is none that it saw.
    since, made_of = time.time(), _made_of(study, stage)
    _tell(study, stage, "start", since=since)
    # A plotting backend of the caller's would silently drop the figures from the notebook.
    os.environ.pop("MPLBACKEND", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    twin = _copy_samples(study, made_of, part) if stage == "02-extract-samples" else None
    try:
        if not twin:
            tell = partial(_tell, study, stage, "cell")
            execute(notebook_path(stage), part, {"study": str(Path(path))}, lambda heading: tell(cell=heading))
    except RunError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file():
            os.replace(part, failed)
        _tell_failure(study, stage, since, error, f"\nFailed notebook: {_shown(failed)}" if failed.is_file() else "")
        raise
    os.replace(part, folder / f"{stage}.ipynb")
    failed.unlink(missing_ok=True)
    seconds = time.time() - since
    _record(study, stage, seconds, made_of, {"copied_from": _shown(twin)} if twin else {})
    _tell(study, stage, "end", seconds=seconds)


def run_in_process(path):
    """Do in this process what notebooks 02-05 do, for studies of hundreds of replicates.

    It runs the notebooks' own code, cell by cell, without a kernel; cells tagged ``report``, which nothing later needs,
    are left out. So the result files are the same but for those of reports: quality of samples, reliability, figures.

    Parameters
    ----------
    path : path-like
        The resolved study file; covariates must be there.

    Raises
    ------
    RunError
        A cell failed.
    """
    from joblib import parallel_config
    from threadpoolctl import threadpool_limits

    study = Study.open(path)
    since = time.time()
    for stage in IN_PROCESS:
        folder = stage_dir(study, stage)
        folder.mkdir(parents=True, exist_ok=True)
        for old in (f"{stage}.json", f"{stage}.ipynb"):
            (folder / old).unlink(missing_ok=True)
    for stage in IN_PROCESS:
        started, made_of = time.time(), _made_of(study, stage)
        _tell(study, stage, "start", since=started)
        names = {"display": lambda *shown, **more: None}
        try:
            # One core a run: hundreds of them share a machine.
            with threadpool_limits(1), parallel_config("sequential"), contextlib.redirect_stdout(io.StringIO()):
                for heading, tags, source in _code_cells(notebook_path(stage)):
                    if "report" not in tags:
                        exec(compile(source, f"{stage}: {heading}", "exec"), names)
                    if "parameters" in tags:
                        names["study"] = str(path)
        except Exception as error:
            cause = _cell_error(stage, heading, type(error).__name__, str(error))
            _tell_failure(study, stage, since, cause)
            raise cause from error
        _record(study, stage, time.time() - started, made_of)
        _tell(study, stage, "end", seconds=time.time() - started)
    write_index(study, "process")


def _copy_samples(study, made_of, part):
    """Copy the samples, with the executed notebook, from a run that made the same ones; return its folder, or None."""
    notebook = "02-extract-samples.ipynb"
    prepared = (study.processed_dir / "01-prepare-data.ipynb").stat().st_mtime_ns
    for record in sorted(study.results_dir.parent.glob(f"*/notebooks/{notebook.replace('.ipynb', '.json')}")):
        twin, executed = record.parents[1], record.with_suffix(".ipynb")

        def stands(record=record, executed=executed):
            told = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
            fresh = executed.is_file() and executed.stat().st_mtime_ns > prepared
            return fresh and told.get("made_of") == made_of

        if twin != study.results_dir and stands():
            files = [path for folder in ("samples", "truth") for path in (twin / folder).rglob("*") if path.is_file()]
            for path in files:
                ours = study.results_dir / path.relative_to(twin)
                ours.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, ours.with_name(f".{ours.name}.part"))
                os.replace(ours.with_name(f".{ours.name}.part"), ours)
            shutil.copyfile(executed, part)
            # Unless it was being written anew meanwhile.
            if stands():
                return twin
    return None


def _tell(study, stage, event, **more):
    path = Path(os.environ.get(EVENTS) or state_dir(study) / "events.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"run": study.run, "stage": stage, "event": event, **more}) + "\n")


def _tell_failure(study, stage, since, error, more=""):
    message = f"{stage} failed after {time.time() - since:.0f} s, {error.message}"
    told = {"message": message, "remedy": f"{error.remedy}{more}"}
    write_text(state_dir(study) / "failure.json", json.dumps(told))
    _tell(study, stage, "failure")


def _record(study, stage, seconds, made_of, more=None):
    """Write what made a stage's outputs: settings, code, versions; beside the outputs, as JSON."""
    record = {
        "stage": stage,
        "study": study.name,
        "simulated": study.simulated,
        "version": __version__,
        "code_digest": package_digest(),
        "made_of": made_of,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory_mb(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "settings": study.model_dump(mode="json"),
        "inputs": study.inputs,
        **(more or {}),
    }
    write_text(stage_dir(study, stage) / f"{stage}.json", json.dumps(record, indent=1, ensure_ascii=False))


def _peak_memory_mb():
    """Return the largest memory of this process or a child of it, such as a notebook's kernel."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def execute(notebook, output, parameters, on_cell=lambda heading: None):
    """Execute a notebook by papermill.

    Parameters
    ----------
    notebook, output : pathlib.Path
        The notebook, and where the executed one goes; it is written after each cell and stays there on failure.
    parameters : dict
        Values for the cell tagged ``parameters``; a name that the notebook does not have is refused, where papermill
        itself would warn and run with the defaults.
    on_cell : callable
        Called with the heading above each code cell before it runs.

    Raises
    ------
    RunError
        A parameter is unknown, a cell failed, or the kernel died.
    """
    import nbclient.exceptions
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise RunError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}.",
            "tag the cell that sets it `parameters`, or correct the name",
        )
    headings = {source: heading for heading, _, source in _code_cells(notebook)}

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            start = nb_man.cell_start

            def cell_start(cell, cell_index=None, **more):
                if cell.cell_type == "code":
                    on_cell(headings.get(cell.source, "parameters"))
                return start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("reporting", Engine)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters,
            engine_name="reporting",
            progress_bar=False,
            kernel_name="python3",
            cwd=str(ROOT),
        )
    except papermill.PapermillExecutionError as error:
        raise _cell_error(notebook.stem, headings.get(error.source, ""), error.ename, error.evalue) from None
    except nbclient.exceptions.DeadKernelError:
        raise RunError("its kernel died; most often memory ran out.", "close other programs and start again") from None


def _cell_error(stage, heading, name, value):
    """Return the error of a cell that raised an error of this name and value."""
    cause, _, remedy = value.partition("\nRemedy: ")
    cause, remedy = " ".join(cause.split())[:MESSAGE_LENGTH], " ".join(remedy.split())
    remedy = remedy or f"open the failed notebook, mend the cell's cause in {stage}.ipynb, run again"
    return RunError(f'in the cell under "{heading}":\n{name}: {cause}', remedy)


def _code_cells(notebook):
    """Return the heading above each code cell, its tags and its source."""
    import nbformat

    heading, cells = notebook.stem, []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
        elif cell.cell_type == "code":
            cells.append((heading, cell.metadata.get("tags", []), cell.source))
    return cells
