"""Batches of runs: a sweep file says which settings vary, and only what differs is computed.

A run of a batch lies in ``results/<study>/run-<key>/``, where the key is the hash of all its
settings and input files: the same settings are the same run in whichever sweep they stand, and
different ones never meet in a folder.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.core.files import read_json, write_json
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.notebooks import execute
from launcher.processes import has_data, locks
from launcher.records import Event, failure, is_finished, write_index
from launcher.run import Job, StageProgress, launch, waiting_jobs
from launcher.stages import STAGES, check_name, impossible, stages_of
from launcher.sweep import Sweep, SweepError, planned_runs, sweep_path

BATCHES = ROOT / "results" / "batches"
COMPARISON = "07-compare-runs"  # the notebook that compares the runs of a batch
MANY_WORLDS = "testbed/4-many-worlds"  # and estimates with the truth, over hidden worlds


def run_batch(
    path: str | Path, cores: int | None = None, profile: str | None = None, dry_run: bool = False
) -> int:
    """Bring all runs of a sweep up to date, compare them, and return how many failed.

    `path` is the sweep file, or the name of one in ``config/sweeps``. All cores are used by
    default; `profile` is one of Snakemake's; `dry_run` prints what would run, and runs nothing. A
    run that fails does not stop the others, and after an interruption of whatever kind the same
    call goes on. SweepError if the sweep cannot be used, RunError if another process writes one of
    the runs.
    """
    batch = _Batch(path, cores, profile)
    if dry_run:
        with locks(batch.studies, batch.group):
            for name, jobs in waiting_jobs(batch.job(batch.studies)).items():
                print(f"{name:<28} {jobs:5} jobs")
        return 0
    started = time.monotonic()
    count = len(batch.plan)
    folder = relative_path(batch.group)
    print(f"{batch.group.name}: {count} runs of {batch.sweep.base}, in {folder}", flush=True)
    batch.write()
    batch.prepare_data()
    batch.run()
    index = batch.write()
    failed = [one for one in read_json(index)["runs"] if one["status"] != "done"]
    for one in failed:
        error = " ".join(one["error"].split())
        print(f"{one['status']}: {_title(one['values'])}: {error}", flush=True)
    if len(failed) < count:
        _compare_runs(index)
    seconds = time.monotonic() - started
    done = count - len(failed)
    print(f"{done} of {count} runs are done, {len(failed)} are not; {seconds:.0f} s: {folder}")
    return len(failed)


def compare(paths: Sequence[str | Path], name: str) -> None:
    """Compare the finished runs of some folders, also of different studies.

    The comparison lies in ``results/batches/<name>/``. SweepError if there is no such run, or if
    the name is that of a sweep.
    """
    runs = []
    check_name(name, "--name")
    if (ROOT / "config" / "sweeps" / f"{name}.yaml").is_file():
        raise SweepError(f"{name} is the name of a sweep.", "give the comparison another name")
    for path in paths:
        folder = ((ROOT / path) if (ROOT / path).is_dir() else Path.cwd() / path).resolve()
        finished = (folder / "tables" / "applicability.json").is_file()
        if not (finished and folder.is_relative_to(ROOT)):
            message = f"{path} is not the folder of a finished run."
            raise SweepError(message, "name folders such as results/virtual/main")
        place = {"run": folder.name, "folder": relative_path(folder)}
        runs.append({**place, "values": {}, "status": "done", "error": ""})
    index = {"title": name, "sweep": "", "axes": [], "runs": runs}
    write_json(BATCHES / name / "batch.json", index)
    _compare_runs(BATCHES / name / "batch.json")
    print(BATCHES / name)


def _compare_runs(index: Path) -> None:
    """Execute the notebooks that compare runs, beside a batch's index."""
    from launcher.compare import read_batch
    from testbed.coverage import worlds_of

    worlds = [MANY_WORLDS] if worlds_of(read_batch(index)[2]) else []
    for name in [COMPARISON, *worlds]:
        notebook = ROOT / "notebooks" / f"{name}.ipynb"
        execute(notebook, index.with_name(notebook.name), {"batch": relative_path(index)})


def _title(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "as the base study"


class _Batch:
    """The runs of a sweep, and how they are run; `run_batch` has the parameters."""

    def __init__(self, path: str | Path, cores: int | None, profile: str | None) -> None:
        path = sweep_path(path)
        check_name(path.stem, path.name)
        self.sweep = Sweep.open(path)
        self.group = BATCHES / path.stem
        self.cores = cores
        self.profile = profile
        self.plan = planned_runs(self.sweep)
        self.errors: dict[str, str] = {}  # why runs failed, by their names
        if not any(one.study for one in self.plan):
            first = self.plan[0]
            raise SweepError(
                f"{path.name}: no run of it is possible. {_title(first.values)}: {first.error}",
                "correct the values of its axes; nothing was run",
            )
        for one in self.plan:
            if not one.study:
                print(f"impossible: {_title(one.values)}: {one.error}", flush=True)
            elif error := impossible(one.study, stages_of(one.study)):
                self.errors[one.study.run] = str(error)

    @property
    def studies(self) -> list[Study]:
        """Its possible runs apart from those that have failed."""
        studies = [one.study for one in self.plan if one.study]
        return [study for study in studies if study.run not in self.errors]

    def stages(self, study: Study) -> list[str]:
        """Return the stages of a run; shared data come first and are made once."""
        names = stages_of(study, until=self.sweep.until)
        in_process = self.sweep.engine == "process"
        return [name for name in names if STAGES[name].in_process or not in_process]

    def job(self, studies: Sequence[Study]) -> Job:
        """Return what Snakemake has to do for some of its runs."""
        stages = dict.fromkeys(name for study in studies for name in self.stages(study))
        in_process = self.sweep.engine == "process"
        return Job(studies, self.group, list(stages), self.cores, self.profile, in_process)

    def prepare_data(self) -> None:
        """Make the covariates that runs share, so that afterwards they are only read."""
        studies = self.studies
        first = {one.processed_dir: one for one in reversed(studies) if not has_data(one)}
        if not first:
            return
        shared = list(first.values())
        stages = [name for name, stage in STAGES.items() if stage.shared]
        progress = StageProgress()
        with locks(shared, self.group):
            launch(Job(shared, self.group, stages, self.cores, self.profile), progress)
        for one in studies:
            if one.processed_dir in first and not has_data(one):
                # Another study's run may have failed at raw rasters that both share.
                own = failure(progress.events, first[one.processed_dir].run)
                if error := own or failure(progress.events):
                    self.errors[one.run] = str(error)

    def run(self) -> None:
        """Run all runs by one Snakemake."""
        studies = self.studies
        if not studies:
            return
        with locks(studies, self.group):
            progress = _RunProgress(
                titles={one.study.run: _title(one.values) for one in self.plan if one.study},
                last={one.run: self.stages(one)[-1] for one in studies},
                ended={one.run for one in studies if is_finished(one, self.stages(one))},
            )
            job = self.job(studies)
            launch(job, progress)
            for study in studies:
                if error := failure(progress.events, study.run):
                    self.errors[study.run] = str(error)
                    continue
                if not is_finished(study, self.stages(study)):
                    write_index(study)
                if not is_finished(study, self.stages(study)):
                    # Most often a run failed from which it was to copy its samples.
                    self.errors[study.run] = f"Snakemake left it out; see {relative_path(job.log)}"

    def write(self) -> Path:
        """Write the index: the runs, the settings that differ, and how each run ended."""
        runs = []
        for one in self.plan:
            row = {"run": "", "folder": "", "values": one.values, "status": "impossible"}
            error = one.error
            if study := one.study:
                error = self.errors.get(study.run, "")
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
        write_json(self.group / "batch.json", index)
        return self.group / "batch.json"


@dataclass(kw_only=True)
class _RunProgress(StageProgress):
    """A line for each run that ends, and how many have ended."""

    titles: Mapping[str, str]  # of all runs, by their names
    last: Mapping[str, str]  # the last stage of each
    ended: set[str]  # with those that were done before
    started: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> str:
        """Take an event; return a line where a run has failed, or has ended with its last stage."""
        self.events.append(event)
        run, stage = event["run"], event["stage"]
        if event["event"] == "failure":
            what = f"failed in {stage}"
        elif event["event"] == "end" and stage == self.last.get(run):
            what = "done"
        else:
            return ""
        self.ended.add(run)
        return f"[{self.now()}] {self.titles.get(run, run)}: {what}"

    def now(self) -> str:
        """Return how many runs have ended."""
        seconds = time.monotonic() - self.started
        return f"{len(self.ended)}/{len(self.titles)}, {seconds:.0f} s"
