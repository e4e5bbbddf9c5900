"""The launcher: runs the numbered notebooks of a study, one a stage, by Snakemake and papermill.

Snakemake knows which stage has to run. What is added here, because it was seen to be missing: a lock that a
killed process cannot leave behind, jobs that die with the launcher, one progress line a stage, and errors in six
lines or less.
"""

import contextlib
import difflib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from helpers import __version__
from helpers.digest import file_hash, package_digest, short_hash, stage_digest, write_text
from helpers.errors import CompendiumError
from helpers.study import ROOT, Study

STAGES = {
    "00-virtual-landscape": 60,
    "01-prepare-data": 60,
    "02-extract-samples": 75,
    "03-grid-search": 90,
    "04-evaluate-accuracy": 45,
    "05-map-ground-ice": 130,
    "06-publication-figures": 25,
}
"""The notebooks in their order, and the seconds that each may take in the default study on 2 cores."""

RUN, LAUNCHER = "GROUND_ICE_RUN", "GROUND_ICE_LAUNCHER"
"""Environment variables that all processes of a run inherit: the run's folder, and the launcher's process."""

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


_SECTIONS = {
    "02-extract-samples": ("layers", "ice", "truth", "boreholes", "samples", "predictors", "domain", "target"),
    "03-grid-search": ("forest", "folds", "predictors", "domain", "target"),
    "04-evaluate-accuracy": ("folds", "domain", "target"),
    "05-map-ground-ice": ("target",),
    "06-publication-figures": ("target",),
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
    """Return the digest of what a stage's outputs are made of, beside the files that it reads."""
    digest = stage_digest(notebook_path(stage))
    if stage not in _SECTIONS:
        return digest
    settings = study.model_dump(mode="json", include=set(_SECTIONS[stage]))
    return f"{digest} {short_hash([study.processed_key, settings])}"


# The processes of a run -----------------------------------------------------------------------------------------------


def _processes(run):
    """Return the living processes of a run, except this one: all that inherited its environment variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(RUN) == str(run):
                found.append(process)
    return found


def _kill(run):
    """Kill all other processes of a run, and wait until they are gone."""
    for _ in range(50):
        found = _processes(run)
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def follow_launcher():
    """Make this process, and with it its run, end within a second of the launcher's end, however that came."""
    if LAUNCHER not in os.environ:
        return
    pid, created = os.environ[LAUNCHER].split(":")

    def watch():
        while True:
            time.sleep(0.3)
            try:
                process = psutil.Process(int(pid))
                alive = f"{process.create_time():.2f}" == created and process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                alive = False
            if not alive:
                _kill(os.environ[RUN])
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _locked(path, busy):
    """Hold an operating-system lock on a file; the system frees it however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            busy(stream.read().strip() or "unknown")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextlib.contextmanager
def _run_locks(study):
    """Hold the run's own lock, and those of the data folders that it shares with other runs."""
    run = str(study.results_dir.relative_to(ROOT))

    def refuse(pid):
        raise RunError(f"{run} is being written by process {pid}.", "wait until that run has ended, or stop it")

    def wait(pid):
        print(f"waiting for process {pid}, which prepares the same data", flush=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_locked(state_dir(study) / "lock", refuse))
        for folder in sorted({study.raw_dir, study.processed_dir}):
            stack.enter_context(_locked(ROOT / ".run" / f"{folder.parent.name}-{folder.name}.lock", wait))
        yield


def _remove_parts(study):
    """Remove half-written files of a killed run: they have names of their own and are never anybody's input."""
    for folder in (study.raw_dir, study.processed_dir, study.results_dir, study.figures_dir, state_dir(study)):
        for part in folder.rglob(".*.part"):
            part.unlink(missing_ok=True)


# The launcher ---------------------------------------------------------------------------------------------------------


def run_study(path, cores=None, until=None):
    """Bring a study's results up to date.

    Parameters
    ----------
    path : path-like
        The study file.
    cores : int, optional
        How many cores to use; all by default.
    until : str, optional
        The last stage to run; all by default.

    Raises
    ------
    RunError
        Another process writes this run, or a stage failed; the message has the cell, the cause and the remedy.
    """
    study = Study.open(path)
    state = state_dir(study)
    with _run_locks(study):
        _kill(study.results_dir)
        _remove_parts(study)
        events = state / "events.jsonl"
        write_text(events, "")
        started = time.monotonic()
        status = _snakemake(study, _prepare(study, cores or os.cpu_count(), until), events)
        if status:
            raise _failure(state)
        seconds = time.monotonic() - started
    ran = [e for e in _read_events(events) if e["event"] == "end"]
    if not ran:
        print(f"{study.name}/{study.run} is up to date: nothing to do ({seconds:.0f} s).")
    else:
        budget = sum(STAGES[e["stage"]] for e in ran)
        print(f"{study.name}/{study.run} is done in {seconds:.0f} s (budget {budget} s): {_shown(study.results_dir)}")


def stale_stages(path):
    """Return the stages that a run would execute now, in their order.

    Parameters
    ----------
    path : path-like
        The study file.

    Raises
    ------
    RunError
        Snakemake cannot tell.
    """
    study = Study.open(path)
    with _run_locks(study):
        command = [*_prepare(study, 1), "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(study), check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        raise RunError(f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", "mend the Snakefile")
    return [stage for stage in STAGES if f"helpers stage {stage} " in done.stdout]


def _shown(path):
    return str(Path(path).relative_to(ROOT))


def _prepare(study, cores, until=None):
    """Write the resolved study file and the digests of code, and return the command that runs Snakemake."""
    resolved = study.results_dir / "study.yaml"
    study.write(resolved)
    for stage in STAGES:
        code_file(study, stage)
    if until and until not in STAGES:
        near = difflib.get_close_matches(until, STAGES, n=1, cutoff=0.0)
        raise RunError(f"There is no stage {until}.", f"name one of {', '.join(STAGES)}, such as {near[0]}")
    target = stage_dir(study, until) / f"{until}.ipynb" if until else "map"
    command = [sys.executable, "-m", "helpers", "snakemake", target, "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", state_dir(study), "--cores", cores, "--config", f"study={resolved}"]
    # Only file times decide (settings are in folder names, code is a file); the lock above replaces Snakemake's.
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock", "--scheduler", "greedy"]
    command += ["--latency-wait", 3, "--nocolor", "--printshellcmds"]
    return [str(part) for part in command]


def _environment(study):
    created = f"{psutil.Process().create_time():.2f}"
    ours = {RUN: str(study.results_dir), LAUNCHER: f"{os.getpid()}:{created}", "PYTHONPATH": str(ROOT / "src")}
    return {**os.environ, **ours}


def _snakemake(study, command, events):
    """Run Snakemake as a child with its log in a file, show progress, and leave no process behind."""
    handlers = {s: signal.signal(s, _stop) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with open(state_dir(study) / "snakemake.log", "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                command,
                env=_environment(study),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            _show_progress(child, events)
        return child.returncode
    finally:
        _kill(study.results_dir)
        _remove_parts(study)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(number, frame):
    raise RunError(f"Stopped by {signal.Signals(number).name}.", "start again: what is done is kept")


def _read_events(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _show_progress(child, path):
    """Print one line a stage: on a terminal a line that moves, elsewhere one when the stage ends."""
    terminal = sys.stdout.isatty()
    shown = 0
    current = None
    while True:
        running = child.poll() is None
        events = _read_events(path)
        for event in events[shown:]:
            if event["event"] in ("start", "cell"):
                current = {**(current or {}), **event} if event["event"] == "cell" else event
            elif event["event"] == "end":
                budget = STAGES[event["stage"]]
                line = f"{event['stage']:<22} {event['seconds']:5.0f} s of {budget} s"
                print(f"\r{line:<110}" if terminal else line, flush=True)
                current = None
        shown = len(events)
        if terminal and current:
            seconds = time.time() - current["since"]
            line = f"{current['stage']:<22} {seconds:5.0f} s of {STAGES[current['stage']]} s  {current.get('cell', '')}"
            print(f"\r{line:<110.110}", end="", flush=True)
        if not running:
            break
        time.sleep(0.2)
    if terminal and current:
        print()


def _failure(state):
    """Return the error of a run that failed, from the record that the failed stage left, or from Snakemake's log."""
    record = state / "failure.json"
    if record.is_file():
        told = json.loads(record.read_text(encoding="utf-8"))
        record.unlink()
        return RunError(told["message"], told["remedy"])
    log = state / "snakemake.log"
    started = [e["stage"] for e in _read_events(state / "events.jsonl") if e["event"] == "start"]
    ended = [e["stage"] for e in _read_events(state / "events.jsonl") if e["event"] == "end"]
    open_stages = [stage for stage in started if stage not in ended]
    if open_stages:
        return RunError(
            f"{open_stages[-1]} was killed before it could say why; most often memory ran out.",
            "start again: what is done is kept; close other programs first if memory was short",
        )
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return RunError(f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", f"see {_shown(log)}")


# One stage ------------------------------------------------------------------------------------------------------------


def run_stage(stage, path):
    """Execute a stage's notebook by papermill, and publish it only if every cell succeeded.

    Parameters
    ----------
    stage : str
        The notebook's name without its ending.
    path : path-like
        The resolved study file, the notebook's only parameter.

    Raises
    ------
    RunError
        A parameter is unknown to the notebook, or a cell failed.
    """
    study = Study.open(path)
    follow_launcher()
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
    try:
        execute(
            notebook_path(stage), part, {"study": str(Path(path))}, lambda cell: _tell(study, stage, "cell", cell=cell)
        )
    except RunError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file():
            os.replace(part, failed)
        message = f"{stage} failed after {time.time() - since:.0f} s, {error.message}"
        remedy = f"{error.remedy}\nFailed notebook: {_shown(failed)}" if failed.is_file() else error.remedy
        write_text(state_dir(study) / "failure.json", json.dumps({"message": message, "remedy": remedy}))
        raise
    os.replace(part, folder / f"{stage}.ipynb")
    failed.unlink(missing_ok=True)
    seconds = time.time() - since
    _record(study, stage, seconds, made_of)
    _tell(study, stage, "end", seconds=seconds)


def _tell(study, stage, event, **more):
    path = state_dir(study) / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"stage": stage, "event": event, **more}) + "\n")


def _record(study, stage, seconds, made_of):
    """Write what made a stage's outputs: settings, code, versions; beside the outputs, as JSON."""
    folder = stage_dir(study, stage)
    packages = ("scikit-learn", "numpy", "scipy", "rasterio", "rioxarray", "xarray", "odc-geo", "pyflwdir")
    record = {
        "stage": stage,
        "study": study.name,
        "simulated": study.simulated,
        "version": __version__,
        "code_digest": package_digest(),
        "made_of": made_of,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in packages},
        "settings": study.model_dump(mode="json"),
        "base_layers": {p.name: file_hash(p) for p in study.base_files()},
    }
    write_text(folder / f"{stage}.json", json.dumps(record, indent=1, ensure_ascii=False))


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
    headings = _headings(notebook)

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            start = nb_man.cell_start

            def cell_start(cell, cell_index=None, **more):
                if cell.cell_type == "code":
                    on_cell(_heading(headings, cell))
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
        cell = headings.get(error.source, "")
        cause, _, remedy = error.evalue.partition("\nRemedy: ")
        cause = " ".join(cause.split())[:MESSAGE_LENGTH]
        remedy = (
            " ".join(remedy.split()) or f"open the failed notebook, mend the cell's cause in {notebook.name}, run again"
        )
        raise RunError(f'in the cell under "{cell}":\n{error.ename}: {cause}', remedy) from None
    except nbclient.exceptions.DeadKernelError:
        raise RunError("its kernel died; most often memory ran out.", "close other programs and start again") from None


def _headings(notebook):
    """Return the heading above each code cell, by the cell's source."""
    import nbformat

    above, headings = notebook.stem, {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            above = titles[-1] if titles else above
        elif cell.cell_type == "code":
            headings[cell.source] = above
    return headings


def _heading(headings, cell):
    return headings.get(cell.source, "parameters")
