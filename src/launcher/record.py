"""The record of a finished run: what each stage made, for ``python -m launcher record``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from helpers.core.files import read_json
from helpers.core.study import Study, relative_path
from launcher.processes import locks
from launcher.records import is_finished, require_whole
from launcher.stages import STAGES, RunError, record_path, stages_before, stages_of


def record_study(path: str | Path) -> None:
    """Write the record of a study's finished run, a folder fit to deposit.

    RunError if the run is not up to date.
    """
    from helpers.record.folder import write_record

    study = Study.open(path)
    names = stages_of(study)
    with locks([study]):
        if not is_finished(study, names):
            raise RunError(f"{study.name}/{study.run} is not up to date.", "run `make map` first")
        require_whole(study)
        steps, last = _steps(study, names)
        folder = write_record(study, steps, last)
    print(relative_path(folder))


def _steps(study: Study, names: Sequence[str]) -> tuple[list[Any], datetime]:
    """Return the stages as steps of a record, and when the last one ended."""
    from helpers.record.crate import Step

    records = {name: read_json(record_path(study, name)) for name in names}
    results = {name: _in_record(study, name) for name in names}
    steps = []
    for name in names:
        ended = datetime.fromisoformat(records[name]["finished"])
        started = ended - timedelta(seconds=records[name]["seconds"])
        before = [file for earlier in stages_before(study, name) for file in results[earlier]]
        read = [relative_path(file) for file in STAGES[name].reads(study)]
        own = list(study.inputs) if not before else read
        steps.append(
            Step(
                name,
                STAGES[name].makes,
                STAGES[name].notebook,
                started.isoformat(timespec="seconds"),
                ended.isoformat(),
                [*before, *own],
                results[name],
            )
        )
    return steps, max(datetime.fromisoformat(one["finished"]) for one in records.values())


def _in_record(study: Study, name: str) -> list[str]:
    """Return the files of a stage as paths in a record, where all samples lie in ``tables/``."""
    files = list(STAGES[name].outputs(study))
    more = [path for path in STAGES[name].beside(study) if path.suffix != ".json"]
    files += sorted(path for path in more if path.parent.name != "truth" and path not in files)
    if study.figures_dir in [file.parent for file in files]:
        files += sorted(study.figures_dir.glob("*.pdf"))
    paths = []
    for file in files:
        folder = {"samples": "tables"}.get(file.parent.name, file.parent.name)
        if file.parent == study.figures_dir:
            folder = "figures"
        if file.name == "storage.json":
            file = file.with_suffix(".csv")
        paths.append("headline.json" if file.name == "headline.json" else f"{folder}/{file.name}")
    return list(dict.fromkeys(paths))
