"""The launcher: runs the numbered notebooks of a study, one a stage, by Snakemake and papermill.

Snakemake decides which stage has to run. This module adds what it lacks: a lock that a killed
process cannot leave behind, jobs that die with the launcher, one progress line a stage, and errors
in six lines or less.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from joblib import cpu_count

from helpers.core.files import write_json, write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.processes import MESSAGE_LENGTH, environment, guard, locks
from launcher.records import (
    Event,
    changed_since,
    failure,
    forget_changed,
    is_finished,
    why_stale,
    write_index,
)
from launcher.stages import (
    STAGES,
    RunError,
    impossible,
    stages_before,
    stages_of,
    state_dir,
)


@dataclass(frozen=True)
class Job:
    """What Snakemake has to do, for one or many runs."""

    studies: Sequence[Study]
    group: Path  # the folder of the run or batch
    stages: Sequence[str]  # whose files are wanted
    cores: int | None = None  # all by default, shared by runs; with a profile, those of a stage
    profile: str | None = None  # of Snakemake: a folder, or the name of one in config/profiles
    in_process: bool = False  # whether a run is one process, by `launcher.notebooks.run_in_process`

    @property
    def log(self) -> Path:
        """The file of Snakemake's messages."""
        return state_dir(self.group) / "snakemake.log"


@dataclass
class StageProgress:
    """One line a stage with its time and budget."""

    events: list[Event] = field(default_factory=list)
    running: dict[str, Event] = field(default_factory=dict)  # stages under way, and their cells

    def __call__(self, event: Event) -> str:
        """Take an event of a stage; return the line of one that has ended."""
        self.events.append(event)
        stage = event["stage"]
        if event["event"] in ("start", "cell"):
            self.running[stage] = self.running.get(stage, {}) | event
            return ""
        self.running.pop(stage, None)
        return self._line(stage, event["seconds"]) if event["event"] == "end" else ""

    def now(self) -> str:
        """Return the stages under way, each with its cell."""
        return "; ".join(
            f"{self._line(stage, time.time() - event['since'])}  {event.get('cell', '')}"
            for stage, event in self.running.items()
        )

    @staticmethod
    def _line(stage: str, seconds: float) -> str:
        return f"{stage:<28} {seconds:5.0f} s of {STAGES[stage].seconds} s"


def run_study(
    path: str | Path, cores: int | None = None, until: str | None = None, full: bool = False
) -> None:
    """Bring a study's results up to date.

    With all cores and all of `make map` by default; `until` names the last stage, and `full` adds
    those of `make full`. RunError if another process writes this run, a file of the user is
    missing, or a stage failed; it has the cell, the cause and the remedy.
    """
    study = Study.open(path)
    stages = stages_of(study, full=full, until=until)
    if error := impossible(study, stages):
        raise error
    with locks([study]):
        progress = StageProgress()
        started = time.monotonic()
        launch(Job([study], study.results_dir, stages, cores), progress)
        if error := failure(progress.events):
            raise error
        seconds = time.monotonic() - started
        if not is_finished(study, stages):
            write_index(study)
    name = f"{study.name}/{study.run}"
    budgets = [STAGES[e["stage"]].seconds for e in progress.events if e["event"] == "end"]
    if budgets:
        folder = relative_path(study.results_dir)
        print(f"{name} is done in {seconds:.0f} s (budget {sum(budgets)} s): {folder}")
    else:
        print(f"{name} is up to date: nothing to do ({seconds:.0f} s).")
    if until is None:
        from launcher.summary import summary  # reads tables: its modules take seconds

        print("\n".join(summary(study)))


def launch(job: Job, progress: StageProgress) -> None:
    """Bring stages of one or many runs up to date by Snakemake; hold `locks` meanwhile.

    Where a stage fails, the others go on that do not need it. RunError if a signal stopped it, or
    Snakemake failed by itself.
    """
    events = state_dir(job.group) / "events.jsonl"
    with guard(job.studies, job.group):
        write_text(events, "")
        for study in job.studies:
            forget_changed(study, job.stages)
        command = _command(job)
        with open(job.log, "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                command,
                env=environment(job.group, events),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            _show_progress(child, events, progress)
    if child.returncode and not failure(progress.events):
        raise _stopped(job.log.read_text(encoding="utf-8"), f"see {relative_path(job.log)}")


def show_stale(path: str | Path, full: bool = False) -> None:
    """Print which stages a run would execute now, and why; `full` adds those of ``make full``."""
    study = Study.open(path)
    stages = stages_of(study, full=full)
    if error := impossible(study, stages):
        raise error
    with locks([study]):
        stale = set(waiting_jobs(Job([study], study.results_dir, stages, cores=1)))
    for name in stages:
        if changed_since(study, name) is not None or stale & set(stages_before(study, name)):
            stale.add(name)
    for name in stages:
        why = f"would run: {why_stale(study, name, stale)}" if name in stale else "is up to date"
        print(f"{name:<28} {why}")


def waiting_jobs(job: Job) -> dict[str, int]:
    """Return how many notebooks of each stage, or whole runs, would run; hold `locks` meanwhile.

    RunError if Snakemake refuses.
    """
    command = [*_command(job), "--dry-run"]
    env = environment(job.group)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise _stopped(done.stdout + done.stderr, "mend the Snakefile or the profile")
    commands = {name: f"stage {name}" for name in STAGES} | {"runs in one process": "process"}
    counts = {name: done.stdout.count(f"launcher {one} ") for name, one in commands.items()}
    return {name: count for name, count in counts.items() if count}


def _stopped(log: str, remedy: str) -> RunError:
    lines = [line for line in log.splitlines() if line.strip()]
    return RunError(f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", remedy)


def _command(job: Job) -> list[str]:
    """Write resolved study files, and return the command of Snakemake."""
    state = state_dir(job.group)
    for study in job.studies:
        study.write(_study_file(study))
    # Runs share the cores of this machine. A profile has its own number of cores.
    cores = job.cores or (2 if job.profile else cpu_count())
    config = {
        "studies": [str(_study_file(study)) for study in job.studies],
        "stages": list(job.stages),
        "in_process": job.in_process,
        "threads": cores if job.profile else max(1, cores // len(job.studies)),
    }
    write_json(state / "config.json", config)
    command = [sys.executable, "-m", "launcher", "snakemake", "map"]
    command += ["--snakefile", ROOT / "Snakefile"]
    command += ["--directory", state, "--configfile", state / "config.json"]
    command += ["--keep-going"] if len(job.studies) > 1 else []
    # Only file times decide (settings are in folder names, code is a file); `locks` replaces
    # Snakemake's lock.
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock"]
    command += ["--scheduler", "greedy", "--nocolor", "--printshellcmds"]
    if job.profile:
        command += ["--profile", _profile(job.profile)]
    else:
        memory = int(psutil.virtual_memory().available / 2**20)
        command += ["--latency-wait", 3, "--cores", cores, "--resources", f"mem_mb={memory}"]
    return [str(part) for part in command]


def _study_file(study: Study) -> Path:
    return study.results_dir / "study.yaml"


def _profile(path: str) -> Path:
    """Return the folder of a Snakemake profile; RunError if there is none."""
    profiles = ROOT / "config" / "profiles"
    for folder in (ROOT / path, profiles / path, Path.cwd() / path):
        if (folder / "config.yaml").is_file():
            return folder.resolve()
    names = ", ".join(sorted(one.name for one in profiles.iterdir()))
    message = f"There is no Snakemake profile {path}."
    raise RunError(message, f"name a folder with a config.yaml, or one of {names}")


def _show_progress(child: subprocess.Popen, path: Path, progress: StageProgress) -> None:
    """Print the lines of a file's events; on a terminal, the last line moves.

    RunError if somebody removes the file.
    """
    terminal = sys.stdout.isatty()
    cleared = f"\r{'':110}\r" if terminal else ""
    shown = 0
    running = True
    while running:
        running = child.poll() is None
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            message = f"{relative_path(path)} was removed while the run was on, as by `make clean`."
            raise RunError(message, "start again; what is gone is made again") from None
        for line in lines[shown:]:
            if text := progress(json.loads(line)):
                print(f"{cleared}{text}", flush=True)
        shown = len(lines)
        if terminal:
            print(f"\r{progress.now():<110.110}", end="", flush=True)
        if running:
            time.sleep(0.2)
    print(cleared, end="", flush=True)
