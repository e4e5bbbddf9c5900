"""The launcher: runs the numbered notebooks of a study, one a stage, by Snakemake and papermill.

Snakemake knows which stage has to run. What is added here, because it was seen to be missing: a lock that a
killed process cannot leave behind, jobs that die with the launcher, one progress line a stage, and errors in six
lines or less.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
from joblib import cpu_count

from helpers.core.files import write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study
from launcher.processes import MESSAGE_LENGTH, RunError, environment, guard, locks, shown_path, state_folder
from launcher.records import failure, is_finished, write_index
from launcher.stages import FULL, STAGES, code_file, stage_fingerprint, stage_outputs, stages_until

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
        print(
            f"{study.name}/{study.run} is done in {seconds:.0f} s (budget {budget} s): {shown_path(study.results_dir)}"
        )


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
    state = state_folder(group)
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
        raise RunError(
            f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", f"see {shown_path(log_path(group))}"
        )


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
    command = [*_command(studies, state_folder(group), stages, cores or 1, profile), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(group), check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        raise RunError(
            f"Snakemake stopped: {' '.join(lines[-2:])[:MESSAGE_LENGTH]}", "mend the Snakefile or the profile"
        )
    jobs = {stage: done.stdout.count(f"launcher stage {stage} ") for stage in FULL}
    return {stage: number for stage, number in jobs.items() if number}


def log_path(group):
    """Return the file of Snakemake's messages about a run or batch."""
    return state_folder(group) / "snakemake.log"


def _command(studies, state, stages, cores, profile=None):
    """Write resolved study files and digests of code, and return the command that runs Snakemake."""
    paths, first, twins = {}, {}, {}
    for study in studies:
        path = paths[study.run] = str(study.results_dir / "study.yaml")
        study.write(path)
        for stage in FULL:
            code_file(study, stage)
        # Of runs with equal samples the first draws them, and the others wait for it and copy.
        samples = stage_fingerprint(study, "02-extract-samples")
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
