"""The record of a run: a folder fit to deposit, whole or not there."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.core.files import file_hash, read_json, to_yaml, write_json, write_table, write_text
from helpers.core.study import Study
from helpers.figures import SHOW_SITES
from helpers.record.coordinates import published_samples
from helpers.record.crate import Step, write_crate
from helpers.record.datacite import make_citation, make_datacite
from helpers.record.dictionary import make_dictionary, published_tables
from helpers.record.form import LANGUAGES, Description, describe, form_text, make_form
from helpers.record.headline import RecordError, headline_path, read_headline
from helpers.record.maps import copy_maps
from helpers.record.stac import write_stac


def record_dir(study: Study) -> Path:
    """Return the folder of a run's record."""
    return study.results_dir / "record"


def write_record(study: Study, steps: Sequence[Step], finished: datetime) -> Path:
    """Write the record of a finished run, and return its folder.

    It takes the place of an older one only when it is whole. RecordError if the study names no
    authors, or if a file of the run is missing.
    """
    if not study.record.authors:
        raise RecordError(
            f"The study {study.name} names no authors.",
            "list them under `record: authors:` (docs/record.md)",
        )
    about = describe(study, read_headline(study), finished)
    folder = record_dir(study)
    with _aside(folder) as part:
        _copy_results(study, part, steps)
        _describe(about, part, steps)
    return folder


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside another; at the end of the block it takes that one's place.

    After an error, or a kill at any moment, there is the old folder or the new one.
    """
    part, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for path in (part, old):
        shutil.rmtree(path, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _copy_results(study: Study, folder: Path, steps: Sequence[Step]) -> None:
    """Copy what the run made and may be published."""
    copy_maps(study, folder / "maps")
    for path in published_tables(study):
        _copy(path, folder / "tables" / path.name)
    for name, table in published_samples(study).items():
        write_table(folder / "tables" / f"{name}.csv", table)
    if study.has_storage:
        totals = read_json(study.results_dir / "tables" / "storage.json")
        write_table(folder / "tables" / "storage.csv", _storage(totals))
    for path in sorted(study.figures_dir.glob("*.p*")):
        if study.publishes_sites or not path.stem.startswith(SHOW_SITES):
            _copy(path, folder / "figures" / path.name)
    for step in steps:
        _copy(step.notebook, folder / "notebooks" / step.notebook.name)
    _copy(headline_path(study), folder / "headline.json")
    settings = study.model_dump(mode="json", exclude={"compute"})
    write_text(folder / "study.yaml", to_yaml(_without_folders(settings)))


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _storage(totals: dict[str, Any]) -> pd.DataFrame:
    """Return the totals by region and elevation as one table."""
    parts = {"region": totals["regions"], "elevation": totals["elevation_bands"]}
    rows = [
        {"by": by, "region": name} | values
        for by, part in parts.items()
        for name, values in part.items()
    ]
    return pd.DataFrame(rows)


def _without_folders(value: Any) -> Any:
    """Return settings with the names of files that lie anywhere on a machine, without folders."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _describe(about: Description, folder: Path, steps: Sequence[Step]) -> None:
    """Write all that describes the files of a record, the checksums last."""
    write_table(folder / "data-dictionary.csv", make_dictionary(about.study, folder))
    for language, name in zip(LANGUAGES, ("README.md", "README.zh.md"), strict=True):
        write_text(folder / name, about.text("readme", language))
    write_text(folder / "CITATION.cff", to_yaml(make_citation(about)))
    write_stac(about, folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    write_json(folder / "datacite.json", make_datacite(about, size))
    form = make_form(about, size, len(files))
    write_json(folder / "form.json", form)
    for language in LANGUAGES:
        write_text(folder / f"form.{language}.txt", form_text(form, language))
    write_crate(about, folder, steps, about.study.inputs)
    lines = [
        f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    write_text(folder / "checksums.sha256", "".join(lines))
