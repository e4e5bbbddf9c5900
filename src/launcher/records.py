"""What a run leaves as its record: settings, versions, code, times."""

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from helpers import __version__
from helpers.core.code import package_digest
from helpers.core.errors import MEMORY_REMEDY, CompendiumError, listed
from helpers.core.files import file_hash, read_json, short_hash, write_json
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.stages import (
    STAGES,
    RunError,
    code_path,
    executed_path,
    is_recorded,
    record_path,
    recorded,
    stage_fingerprint,
    stage_outputs,
    stages_before,
    stages_of,
)

Event = dict[str, Any]
"""What a stage reports: ``run``, ``stage``, ``event`` (start, cell, failure or end), and more."""

_PACKAGES = (
    "scikit-learn",
    "numpy",
    "scipy",
    "rasterio",
    "rioxarray",
    "xarray",
    "odc-geo",
    "pyflwdir",
)
_LEAST_FREE = 20  # MB of disk; with less, that is why a stage ended

_SHARED = ("stage", "study", "label", "python", "packages", "settings", "inputs")
"""What a run's index does not repeat of a stage's record, since all stages of a run have it."""


def failure(events: Iterable[Event], run: str | None = None) -> RunError | None:
    """Return the error of the first stage that failed, of one run or of any; None without one."""
    own = [event for event in events if run in (None, event["run"])]
    for event in own:
        if event["event"] == "failure":
            return RunError(event["message"], event["remedy"])
    last = {(event["run"], event["stage"]): event["event"] for event in own}
    for (_, stage), event in last.items():
        if event != "end":
            free = shutil.disk_usage(ROOT).free / 2**20
            if free < _LEAST_FREE:
                message = f"{stage} ended, and the project's disk has {free:.0f} MB left."
                return RunError(message, "free some space on it, then start again")
            why = f"{stage} was killed before it could say why; most often memory ran out."
            return RunError(why, MEMORY_REMEDY)
    return None


def changed_since(study: Study, name: str) -> list[Path] | None:
    """Return files of a finished stage that are gone or not what it made; None if there are none.

    An empty list says that code, settings or files of the user are others, whatever their times,
    or that nothing says what made the stage's files.
    """
    if not is_recorded(study, name):
        return []
    return damaged_files(study, name) or None


def damaged_files(study: Study, name: str, *, thorough: bool = False) -> list[Path]:
    """Return files that a stage's record names and that are gone, cut off or edited.

    Files whose state the system last changed before the record was written are read only if the
    check is `thorough`: a disk may err, and a clock may have been set back.
    """
    record = record_path(study, name)
    try:
        state, made = record.stat(), read_json(record)["outputs"]
        # Who can set a file's date cannot set when the system changed it.
        since = -1.0 if thorough else min(state.st_mtime, state.st_ctime)
        hashes = {ROOT / path: made[path] for path in made}
    except (OSError, CompendiumError, LookupError, TypeError):
        return []
    folders = (study.raw_dir, study.processed_dir, study.results_dir, study.figures_dir)
    # A record is a file, too: what it names elsewhere is nobody's to judge, and to delete.
    own = [path for path in hashes if any(map(path.resolve().is_relative_to, _resolved(folders)))]
    return [path for path in own if not _is_whole(path, hashes[path], since)]


def _resolved(folders: Iterable[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _is_whole(path: Path, made: str, since: float) -> bool:
    """Return whether a file is what was made, or one that a user may edit and that can be read."""
    if not path.is_file():
        return False
    if path.stat().st_ctime <= since or _hash(path, path.stat()) == made:
        return True
    readable = _EDITABLE.get(path.suffix)
    if readable is None:
        return False
    try:
        readable(path)
    except (ValueError, SyntaxError):
        return False
    return True


_EDITABLE = {".qml": ElementTree.parse, ".xml": ElementTree.parse, ".ipynb": read_json}
"""Files that QGIS or JupyterLab may save anew, and what reads them: they stay if it can."""


def damaged_input(study: Study, name: str, *, thorough: bool = False) -> RunError | None:
    """Return the error of a damaged file that a stage reads and an earlier one made, or None."""
    for earlier in stages_before(study, name):
        if files := damaged_files(study, earlier, thorough=thorough):
            return _damaged(earlier, files, f", which {name} reads,")
    return None


def require_whole(study: Study) -> None:
    """Raise RunError if a file of a run's stages is gone, cut off or edited."""
    for name in stages_of(study):
        if files := damaged_files(study, name):
            raise _damaged(name, files)


def _damaged(name: str, files: Collection[Path], use: str = "") -> RunError:
    message = f"{_names(files)}{use} is not what {name} made: gone, cut off or edited since."
    return RunError(
        message, f"start `make map` again: {name} makes it again; if not, delete it first"
    )


def why_stale(study: Study, name: str, stale: Collection[str]) -> str:
    """Return why a stage of a study would run; `stale` are all stages that would."""
    record, outputs = record_path(study, name), stage_outputs(study, name)
    if not record.is_file():
        return "it was not made yet, or not to its end"
    if recorded(record) != stage_fingerprint(study, name):
        return _difference(study, name, record)
    files = damaged_files(study, name)
    if missing := [path for path in (*outputs, *files) if not path.is_file()]:
        return f"missing: {_names(dict.fromkeys(missing))}"
    if files:
        return f"changed since it was made: {_names(files)}"
    if before := [one for one in stages_before(study, name) if one in stale]:
        return f"it reads what {before[0]} makes"
    return "a file that it reads is newer"


def _names(files: Collection[Path]) -> str:
    return listed([relative_path(path) for path in files], 2)


def _difference(study: Study, name: str, record: Path) -> str:
    """Say what differs between a record and a stage as it is: files, settings or code."""
    try:
        made = read_json(record)
        code, old = made["made_of"].split()[0], _flat(made["settings"])
        inputs = made["inputs"]
    except (CompendiumError, LookupError, TypeError, AttributeError):
        return f"damaged record: {relative_path(record)}"
    new, own = _flat(study.model_dump(mode="json")), STAGES[name].settings
    settings = [
        f"`{one}`"
        for one in new
        if old.get(one) != new[one] and any(f"{one}.".startswith(f"{part}.") for part in own)
    ]
    reads = dict.fromkeys(map(relative_path, STAGES[name].reads(study)))
    files = [one for one in reads if inputs.get(one) != study.inputs.get(one)]
    code_differs = code != stage_fingerprint(study, name).split()[0]
    what = listed(["code"] * code_differs + settings + files, 3) or "covariates"
    return f"made with other {what}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        own = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {}
        flat |= own or {f"{prefix}{name}": value}
    return flat


@cache
def _hash(path: Path, state: os.stat_result) -> str:
    """Return the hash of a file in this state: runs of a batch share hundreds of them."""
    return file_hash(path)


def forget_changed(study: Study, names: Iterable[str]) -> None:
    """Delete outputs that something else has changed, and records that are not true any more.

    So Snakemake, which goes by times, makes them again. Outputs of any stage that are dated in the
    future get the time of now: they would seem to be newer than what they are made from.
    """
    now = time.time()
    own = stages_of(study, full=True)
    for name in own:
        for path in (code_path(study, name), *stage_outputs(study, name)):
            if path.is_file() and path.stat().st_mtime > now:
                os.utime(path, (now, now))
    for name in (name for name in names if name in own):
        files = changed_since(study, name)
        if files is None:
            continue
        record, executed = record_path(study, name), executed_path(study, name)
        lost = [record] if executed.is_file() and not recorded(record) else files
        if lost:
            what = "is gone or has been changed since"
            print(f"{name} runs again: what it made {what}: {_names(lost)}", flush=True)
        for path in (study.results_dir / "run.json", record, executed, *files):
            path.unlink(missing_ok=True)


def is_finished(study: Study, stages: Iterable[str]) -> bool:
    """Return whether a run was finished and its index written.

    That is, with the present code, settings, files and covariates.
    """
    index = study.results_dir / "run.json"
    if not (index.is_file() and all(is_recorded(study, stage) for stage in stages)):
        return False
    finished = index.stat().st_mtime_ns
    records = [record_path(study, stage) for stage in stages_of(study, full=True)]
    return all(one.stat().st_mtime_ns <= finished for one in records if one.is_file())


def write_index(study: Study) -> None:
    """Write a run's index, `run.json`: what made it, when, and from which files."""
    paths = {stage: record_path(study, stage) for stage in stages_of(study, full=True)}
    records = {stage: read_json(path) for stage, path in paths.items() if path.is_file()}
    stages = {
        stage: {key: value for key, value in one.items() if key not in _SHARED}
        for stage, one in records.items()
    }
    # A run in one process leaves no executed notebooks.
    executed = all(paths[stage].with_suffix(".ipynb").is_file() for stage in records)
    # What only evaluates the map is no part of it.
    parts = [one["made_of"] for stage, one in records.items() if not STAGES[stage].full]
    index = {
        "study": study.name,
        "run": study.run,
        "label": study.label,
        "engine": "notebooks" if executed else "process",
        "key": study.key,
        "identity": short_hash([study.key, *parts], 16),
        "settings": "study.yaml",
        "inputs": study.inputs,
        "covariates": relative_path(study.processed_dir),
        "stages": stages,
        **_versions(),
    }
    write_json(study.results_dir / "run.json", index)


def write_record(study: Study, stage: str, seconds: float, made: Mapping[str, str]) -> None:
    """Write what made a stage's outputs: settings, code, versions; beside the outputs, as JSON.

    It has the SHA-256 of each, and of what lies beside them.

    `made` has the stage's fingerprint, and the run from which its files were copied, if any.
    """
    outputs = [*stage_outputs(study, stage), *STAGES[stage].beside(study)]
    record = {
        "stage": stage,
        "study": study.name,
        "label": study.label,
        "version": __version__,
        "code_digest": package_digest(),
        **made,
        "outputs": {relative_path(p): file_hash(p) for p in outputs if p.is_file()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory_mb(),
        **_versions(),
        "settings": study.model_dump(mode="json"),
        "inputs": study.inputs,
    }
    write_json(record_path(study, stage), record)


def _versions() -> dict[str, Any]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "packages": packages}


def _peak_memory_mb() -> int:
    """Return the largest memory of this process or a child of it, such as a notebook's kernel."""
    owners = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(owner).ru_maxrss for owner in owners)
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
