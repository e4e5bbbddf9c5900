"""What a run leaves as its record: settings, versions, code, times."""

import json
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import version

from helpers import __version__
from helpers.core.code import package_digest
from helpers.core.files import short_hash, write_text
from launcher.processes import RunError, shown_path
from launcher.stages import FULL, SHARED, STAGES, is_recorded, stage_dir, state_dir

_PACKAGES = ("scikit-learn", "numpy", "scipy", "rasterio", "rioxarray", "xarray", "odc-geo", "pyflwdir")


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
        "covariates": shown_path(study.processed_dir),
        "stages": {stage: {key: one[key] for key in kept if key in one} for stage, one in records.items()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    write_text(study.results_dir / "run.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return index


def write_record(study, stage, seconds, made_of, more=None):
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
