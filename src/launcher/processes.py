"""The processes of a run: locks, and jobs that end with the launcher."""

import contextlib
import fcntl
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Generator
from pathlib import Path
from types import FrameType

import psutil

from helpers.core.files import short_hash
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.records import changed_since
from launcher.stages import STAGES, RunError, is_recorded, stage_outputs, stages_of, state_dir

RUN, LAUNCHER, EVENTS = "GROUND_ICE_RUN", "GROUND_ICE_LAUNCHER", "GROUND_ICE_EVENTS"
"""Environment variables that all processes of a run or batch inherit: its folder, the launcher's
process, and the file to which stages write how far they are.
"""

MESSAGE_LENGTH = 400


def _is_alive(mark: str) -> bool:
    """Return whether the launcher of a mark lives; true for one of another machine."""
    host, pid, command = mark.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and short_hash(process.cmdline()) == command
    except psutil.Error:
        return False


def _processes(group: str | Path) -> list[psutil.Process]:
    """Return the living processes of a run or batch, and any of this project without a launcher.

    This process is left out. The environment variables that processes inherit say what they are of.
    """
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            run, mark = (process.environ().get(name, "") for name in (RUN, LAUNCHER))
            lost = run.startswith(f"{ROOT}{os.sep}") and mark and not _is_alive(mark)
            if process.pid != os.getpid() and (run == str(group) or lost):
                processes.append(process)
    return processes


def kill(group: str | Path) -> None:
    """Kill all other processes of a run or batch, and wait until they are gone."""
    for _ in range(300):
        processes = _processes(group)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        # No waiting for a child of this process: a pool waits for its own children, and forever if
        # another has done so before.
        time.sleep(0.1)


def follow_launcher() -> None:
    """Make this process, and with it its run, end within a second of the launcher's end.

    On another machine than the launcher's, such as a cluster's node, the scheduler ends it.
    """
    mark = os.environ.get(LAUNCHER)
    if not mark:
        return

    def watch() -> None:
        while _is_alive(mark):
            time.sleep(0.3)
        kill(os.environ[RUN])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _locked(path: Path, run: Path | None = None, share: bool = False) -> Generator[None]:
    """Hold an operating-system lock on a file, alone or with others; a process's end frees it.

    Where another process has it: RunError if it is the lock of a run, or else wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if share else fcntl.LOCK_EX
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            pid = stream.read().strip() or "unknown"
            if run:
                message = f"{relative_path(run)} is being written by process {pid}."
                raise RunError(message, "wait until that has ended, or stop it") from None
            print(f"waiting for process {pid}, which prepares the same data", flush=True)
            fcntl.flock(stream, kind)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextlib.contextmanager
def locks(studies: Collection[Study], group: Path | None = None) -> Generator[None]:
    """Hold the locks of runs, of the batch's folder `group`, and of data folders that they share.

    RunError if another process writes one of the runs; shared data are waited for.
    """
    with contextlib.ExitStack() as stack:
        groups = {study.results_dir for study in studies} | ({group} if group else set())
        for folder in sorted(groups):
            stack.enter_context(_locked(state_dir(folder) / "lock", run=folder))
        shared = {
            folder: study for study in studies for folder in (study.raw_dir, study.processed_dir)
        }
        # Always in one order, so that no two launchers wait for each other. Complete data can be
        # read together.
        for folder in sorted(shared):
            lock = ROOT / ".run" / f"{folder.parent.name}-{folder.name}.lock"
            stack.enter_context(_locked(lock, share=has_data(shared[folder])))
        yield


def has_data(study: Study) -> bool:
    """Return whether the shared stages are done, with the present code."""
    return all(
        is_recorded(study, stage)
        and changed_since(study, stage) is None
        and all(path.is_file() for path in stage_outputs(study, stage))
        for stage in stages_of(study)
        if STAGES[stage].shared
    )


@contextlib.contextmanager
def guard(studies: Collection[Study], group: Path) -> Generator[None]:
    """Begin and end without a process or a half-written file of a run or batch.

    A signal becomes a RunError.
    """
    folders = {state_dir(study.results_dir) for study in studies}
    for study in studies:
        folders |= {study.raw_dir, study.processed_dir, study.results_dir, study.figures_dir}

    def clear() -> None:
        kill(group)
        for part in itertools.chain.from_iterable(folder.rglob(".*.part") for folder in folders):
            part.unlink(missing_ok=True)

    def stop(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise RunError(f"Stopped by {name}.", "start again: what is done is kept")

    clear()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        yield
    finally:
        clear()


def environment(group: Path, events: str | Path = "") -> dict[str, str]:
    """Return the environment of all processes of a run or batch."""
    # No later process has this mark. It has no start time, because the system's clock may be set
    # while a run is on.
    mark = f"{socket.gethostname()}:{os.getpid()}:{short_hash(psutil.Process().cmdline())}"
    marks = {RUN: str(group), LAUNCHER: mark, EVENTS: str(events)}
    return {**os.environ, **marks, "PYTHONPATH": str(ROOT / "src")}
