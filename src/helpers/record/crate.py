"""The RO-Crate of a record: which step made which file, by which notebook, from what."""

import mimetypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.model.person import Person
from rocrate.rocrate import ROCrate

from helpers import __version__
from helpers.core.files import file_hash
from helpers.core.settings import Author
from helpers.record.form import LICENCE, Description

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
"""Process Run Crate: actions that are no workflow of a workflow language."""


@dataclass(frozen=True)
class Step:
    """A step that made files of a record.

    Parameters
    ----------
    name
        The notebook's path without ending, such as ``05-storage``.
    about
        What it makes, as one line.
    notebook
        The notebook's file.
    started, ended
        Times as ISO 8601 with a time zone.
    inputs
        What it reads: paths in the record, and names of files that are not part of it.
    results
        The files in the record that it made, as paths there.
    """

    name: str
    about: str
    notebook: Path
    started: str
    ended: str
    inputs: Sequence[str] = ()
    results: Sequence[str] = ()


def write_crate(
    about: Description, folder: Path, steps: Sequence[Step], hashes: dict[str, str]
) -> None:
    """Write ``ro-crate-metadata.json`` (RO-Crate 1.2) of all files of a record's folder.

    `hashes` are SHA-256 by name of files that steps read and the record does not hold. Files that
    no step of the run made are results of writing the record itself.
    """
    crate = ROCrate(version="1.2")
    crate.name, crate.description = about.text("title"), about.text("abstract")
    crate.datePublished = about.finished.date().isoformat()
    crate.license = _add(crate, LICENCE, "CreativeWork", name="CC BY 4.0")
    crate.keywords = about.keywords["en"]
    crate.publisher = _add(crate, "#publisher", "Organization", name=about.study.record.publisher)
    authors = [_author(crate, author) for author in about.study.record.authors]
    crate.creator = authors
    profile = _add(
        crate, PROFILE, ["CreativeWork", "Profile"], name="Process Run Crate", version="0.5"
    )
    crate.root_dataset["conformsTo"] = [profile]
    code = f"Ground-ice compendium {__version__}, code {about.numbers['code']}"
    software = _add(
        crate,
        "#software",
        "SoftwareApplication",
        name=f"Python, with the {code}",
        version=platform.python_version(),
        url="https://www.python.org/",
    )
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    entities = {
        name: crate.add_file(path, name, properties=_properties(path))
        for name, path in files.items()
        if path.is_file()
    }
    others = {
        name: _add(
            crate, f"#input-{number}", "CreativeWork", name=name, identifier=f"sha256:{digest}"
        )
        for number, (name, digest) in enumerate(hashes.items(), start=1)
    }
    made = {name for step in steps for name in step.results}
    written = [name for name in entities if name not in made and not name.startswith("notebooks/")]
    now = about.finished.isoformat()
    last = Step("record", "this record", Path(), now, now, sorted(made), written)
    actions = []
    for step in [*steps, last]:
        instrument = software
        if (notebook := f"notebooks/{step.notebook.name}") in entities:
            instrument = entities[notebook]
            instrument["programmingLanguage"] = "Python"
            instrument["runtimePlatform"] = code
        action = _add(
            crate,
            f"#{step.name.replace('/', '-')}",
            "CreateAction",
            name=f"{step.name}: {step.about}",
            startTime=step.started,
            endTime=step.ended,
            actionStatus="http://schema.org/CompletedActionStatus",
        )
        known = entities | others
        action["instrument"], action["agent"] = instrument, authors
        action["object"] = [known[name] for name in step.inputs if name in known]
        action["result"] = [entities[name] for name in step.results if name in entities]
        actions.append(action)
    crate.root_dataset["mentions"] = actions
    crate.metadata.write(folder)


def _add(crate: ROCrate, name: str, kind: str | list[str], /, **properties: Any) -> Any:
    return crate.add(ContextEntity(crate, name, properties={"@type": kind, **properties}))


def _author(crate: ROCrate, author: Author) -> Any:
    name = " ".join(part for part in (author.given_name, author.family_name) if part)
    identifier = f"https://orcid.org/{author.orcid}" if author.orcid else f"#{name}"
    if not author.given_name:
        return _add(crate, identifier.replace(" ", "-"), "Organization", name=name)
    properties: dict[str, Any] = {"name": name}
    if author.affiliation:
        place = f"#{author.affiliation}".replace(" ", "-")
        known = crate.dereference(place)
        properties["affiliation"] = known or _add(
            crate, place, "Organization", name=author.affiliation
        )
    return crate.add(Person(crate, identifier.replace(" ", "-"), properties=properties))


def _properties(path: Path) -> dict[str, Any]:
    """Return name, type, size and checksum of a file; notebooks are code."""
    kinds = {".qml": "application/xml", ".cff": "application/yaml", ".ipynb": "application/json"}
    kind = kinds.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    properties = {
        "name": path.name,
        "encodingFormat": kind,
        "contentSize": str(path.stat().st_size),
        "sha256": file_hash(path),
    }
    code = {"@type": ["File", "SoftwareSourceCode"]} if path.suffix == ".ipynb" else {}
    return properties | code
