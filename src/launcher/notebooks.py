"""Executing one notebook, by papermill or in this process."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from helpers.core.errors import MEMORY_REMEDY, CompendiumError, system_remedy
from helpers.core.files import read_json, write_aside
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher.processes import EVENTS, MESSAGE_LENGTH, follow_launcher
from launcher.records import damaged_input, write_index, write_record
from launcher.stages import (
    STAGES,
    RunError,
    executed_path,
    is_recorded,
    record_path,
    stage_fingerprint,
    stages_of,
    state_dir,
)

_LIBRARIES = ("NUMBA", "OMP", "OPENBLAS", "MKL")
_CORES = ("LOKY_MAX_CPU_COUNT", *(f"{library}_NUM_THREADS" for library in _LIBRARIES))


def run_stage(
    name: str, path: str | Path, cores: int | None = None, twin: str | None = None
) -> None:
    """Execute a stage's notebook by papermill, and publish it only if every cell succeeded.

    `path` is the resolved study file, the notebook's only parameter. `twin` is that of a run whose
    files of this stage are the same, and are copied instead. RunError if the study file is unknown
    to the notebook, or if a cell failed.
    """
    study = Study.open(path)
    maker = Study.open(twin) if twin else None
    _begin(cores)
    if name not in stages_of(study, full=True):
        raise RunError(f"The study {study.name} has no stage {name}.", "name another")
    stage = STAGES[name]
    executed = executed_path(study, name)
    failed = study.results_dir / "failed" / executed.name
    part = executed.with_name(f".{executed.name}.part")
    # A plotting backend of the caller's would silently drop the figures from the notebook.
    os.environ.pop("MPLBACKEND", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"

    def on_cell(heading: str) -> None:
        _report(study, name, "cell", cell=heading)

    with _recorded(study, name) as made:
        try:
            if maker and stage.copied and is_recorded(maker, name):
                # Not links: they would have the other run's file time, by which they look stale.
                for file in stage.copied(maker):
                    own = study.results_dir / file.relative_to(maker.results_dir)
                    with write_aside(own) as copy:
                        shutil.copyfile(file, copy)
                shutil.copyfile(executed_path(maker, name), part)
                made["copied_from"] = relative_path(maker.results_dir)
            else:
                execute(stage.notebook, part, {"study": str(path)}, on_cell)
        except RunError as error:
            if part.is_file():
                failed.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, failed)
                error.remedy += f"\nFailed notebook: {relative_path(failed)}"
            raise
        os.replace(part, executed)
        failed.unlink(missing_ok=True)


def run_in_process(path: str | Path, cores: int | None = None) -> None:
    """Do in this process what a run's own notebooks do, for studies of hundreds of replicates.

    It runs the notebooks' own code, cell by cell, without a kernel. Cells tagged ``report``, which
    no later cell needs, are left out: the result files are the same but for those of reports.
    `path` is the resolved study file; covariates must be there. RunError if a cell failed.
    """
    study = Study.open(path)
    _begin(cores)
    names = [name for name in stages_of(study) if STAGES[name].in_process]
    for name in names:
        record_path(study, name).unlink(missing_ok=True)
        executed_path(study, name).unlink(missing_ok=True)
    for name in names:
        with _recorded(study, name):
            _run_cells(name, str(path))
    write_index(study)


def _begin(cores: int | None) -> None:
    """Tie this process to the launcher, and tell libraries how many cores they may use."""
    follow_launcher()
    if cores:
        os.environ |= dict.fromkeys(_CORES, str(cores))


@contextlib.contextmanager
def _recorded(study: Study, name: str) -> Generator[dict[str, str]]:
    """Report start and end of a stage, or its failure, and write its record.

    Gives what the record says of the origin of the stage's files, to which the block may add.
    """
    record = record_path(study, name)
    record.parent.mkdir(parents=True, exist_ok=True)
    since = time.time()
    # Before the notebook runs: it does not see an edit meanwhile.
    made = {"made_of": stage_fingerprint(study, name)}
    _report(study, name, "start", since=since)
    try:
        if damage := damaged_input(study, name):
            raise damage
        # While outputs are being replaced, nothing says what they are made of.
        record.unlink(missing_ok=True)
        yield made
        seconds = time.time() - since
        write_record(study, name, seconds, made)
        _report(study, name, "end", seconds=seconds)
    except Exception as cause:
        error = damaged_input(study, name, thorough=True) or _as_itself(cause)
        message = f"{name} failed after {time.time() - since:.0f} s, {error.message}"
        # On a full disk not even that can be written; the process's own output has it, too.
        with contextlib.suppress(OSError):
            _report(study, name, "failure", message=message, remedy=error.remedy)
        raise error from None


def _as_itself(error: Exception) -> RunError:
    """Return what ended a stage outside of its cells, such as a full disk while it was saved."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, CompendiumError):
        return RunError(error.message, error.remedy)
    reason = " ".join(str(error).split())[:MESSAGE_LENGTH]
    remedy = system_remedy(error) or "mend that cause, then start again: what is done is kept"
    return RunError(f"outside of its cells:\n{type(error).__name__}: {reason}", remedy)


def _run_cells(name: str, path: str) -> None:
    """Run the cells of a stage's notebook on one core: hundreds of runs share a machine."""
    from joblib import parallel_config

    variables: dict[str, Any] = {"display": lambda *shown, **more: None}
    out = io.StringIO()
    with threadpool_limits(1), parallel_config("sequential"), contextlib.redirect_stdout(out):
        for heading, tags, source in _code_cells(STAGES[name].notebook):
            try:
                if "report" not in tags:
                    exec(compile(source, f"{name}: {heading}", "exec"), variables)
            except Exception as error:
                raise _cell_error(name, heading, type(error).__name__, str(error)) from error
            if "parameters" in tags:
                variables["study"] = path


def _report(study: Study, stage: str, event: str, **more: Any) -> None:
    """Add an event of a stage to the file that the launcher follows."""
    path = Path(os.environ.get(EVENTS) or state_dir(study.results_dir) / "events.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"run": study.run, "stage": stage, "event": event, **more}) + "\n")


def execute(
    notebook: Path,
    output: Path,
    parameters: dict[str, str],
    on_cell: Callable[[str], None] = lambda heading: None,
) -> None:
    """Execute a notebook by papermill; `output` is written after each cell, also on failure.

    `parameters` are values for the cell tagged ``parameters``. A name that the notebook does not
    have is refused, where papermill itself would warn and run with the defaults. `on_cell` is
    called with the heading above each code cell before it runs, and with what a progress bar in it
    shows. RunError if a parameter is unknown,
    a cell failed, or the kernel died.
    """
    # jsonschema would build a grammar to check web addresses, two seconds at each start;
    # notebooks have none to be checked, and it does without a package that is not there.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[invalid-argument-type]
    import nbclient.exceptions
    import papermill

    names = papermill.inspect_notebook(str(notebook))
    if unknown := sorted(parameters.keys() - names.keys()):
        message = f"has no parameter {', '.join(unknown)}; it has {', '.join(names) or 'none'}"
        remedy = "tag the cell that sets it `parameters`, or correct the name"
        raise RunError(f"{notebook.name} {message}.", remedy)
    headings = {source: heading for heading, _, source in _code_cells(notebook)}

    progress = _Progress(on_cell)

    def report(cell: Any, cell_index: int) -> None:
        progress.heading = headings.get(cell.source, "parameters")
        on_cell(progress.heading)

    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters,
            progress_bar=False,
            kernel_name="python3",
            cwd=str(ROOT),
            on_cell_execute=report,
            stdout_file=progress,
            extra_arguments=["--log-level=ERROR"],  # no remark on the kernel's connection
        )
    except papermill.PapermillExecutionError as error:
        heading = headings.get(error.source, "")
        raise _cell_error(notebook.stem, heading, error.ename, error.evalue) from None
    except nbclient.exceptions.DeadKernelError:
        message = "its kernel died; most often memory ran out."
        raise RunError(message, MEMORY_REMEDY) from None


class _Progress(io.StringIO):
    """Takes what cells print, and hands on the last line of a bar, after the cell's heading."""

    def __init__(self, on_cell: Callable[[str], None]) -> None:
        super().__init__()
        self.heading, self._on_cell = "", on_cell

    def write(self, text: str) -> int:
        """Hand on the line, if it is of a progress bar."""
        line = text.rstrip().rpartition("\r")[2]
        if "%|" in line:
            self._on_cell(f"{self.heading}: {line.strip()}")
        return len(text)


def _cell_error(stage: str, heading: str, name: str, value: str) -> RunError:
    """Return the error of a cell that raised an error of this name and value."""
    cause, _, remedy = value.partition("\nRemedy: ")
    cause = " ".join(cause.split())[:MESSAGE_LENGTH]
    number = re.search(r"\[Errno (\d+)\]", cause)
    system = system_remedy(OSError(int(number[1]), "")) if number else ""
    # numpy has one of its own, and joblib tells of a worker that the system killed.
    if name.endswith(("MemoryError", "TerminatedWorkerError")):
        system = MEMORY_REMEDY
    usual = system or f"open the failed notebook, mend the cell's cause in {stage}.ipynb, run again"
    message = f'in the cell under "{heading}":\n{name}: {cause}'
    return RunError(message, " ".join(remedy.split()) or usual)


def _code_cells(notebook: Path) -> list[tuple[str, list[str], str]]:
    """Return the heading above each code cell, its tags and its source."""
    heading = notebook.stem
    cells = []
    for cell in read_json(notebook)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            titles = [line.lstrip("# ") for line in source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
        elif cell["cell_type"] == "code":
            cells.append((heading, cell["metadata"].get("tags", []), source))
    return cells
