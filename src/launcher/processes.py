"""The processes of a run: locks, and jobs that end with the launcher."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

import psutil

from helpers.core.files import short_hash
from helpers.core.settings import ROOT
from launcher.stages import SHARED, RunError, is_recorded, stage_outputs, state_dir

RUN, LAUNCHER, EVENTS = "GROUND_ICE_RUN", "GROUND_ICE_LAUNCHER", "GROUND_ICE_EVENTS"
"""Environment variables that all processes of a run or batch inherit: its folder, the launcher's process, and the file
in which stages tell how far they are.
"""


MESSAGE_LENGTH = 400


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
        raise RunError(
            f"{shown_path(folder)} is being written by process {pid}.", "wait until that has ended, or stop it"
        )

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


def shown_path(path):
    """Return a path as text from the project's folder."""
    return str(Path(path).relative_to(ROOT))


def state_folder(group):
    """Return the hidden folder of a run or batch."""
    return ROOT / ".run" / group.relative_to(ROOT / "results")


def environment(group, events=""):
    """Return the environment of all processes of a run or batch."""
    ours = {RUN: str(group), LAUNCHER: _launcher_mark(), EVENTS: str(events), "PYTHONPATH": str(ROOT / "src")}
    return {**os.environ, **ours}


def _stop(number, frame):
    raise RunError(f"Stopped by {signal.Signals(number).name}.", "start again: what is done is kept")
