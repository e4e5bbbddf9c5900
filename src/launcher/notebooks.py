"""Executing one notebook, by papermill or in this process."""

import contextlib
import io
import json
import os
import shutil
import time
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from helpers.core.files import write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study
from launcher.processes import EVENTS, MESSAGE_LENGTH, RunError, follow_launcher, shown_path
from launcher.records import write_index, write_record
from launcher.stages import IN_PROCESS, notebook_path, stage_dir, stage_fingerprint, state_dir

CORES = ("LOKY_MAX_CPU_COUNT", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that tell the libraries how many cores they may use."""


# One stage ------------------------------------------------------------------------------------------------------------


def run_stage(stage, path, cores=None):
    """Execute a stage's notebook by papermill, and publish it only if every cell succeeded.

    Samples that another run of the study has drawn with the same settings, files and code are copied instead.

    Parameters
    ----------
    stage : str
        The notebook's name without its ending.
    path : path-like
        The resolved study file, the notebook's only parameter.
    cores : int, optional
        How many cores to use; all by default.

    Raises
    ------
    RunError
        A parameter is unknown to the notebook, or a cell failed.
    """
    study = Study.open(path)
    follow_launcher()
    if cores:
        os.environ |= dict.fromkeys(CORES, str(cores))
    folder, failed = stage_dir(study, stage), study.results_dir / "failed" / f"{stage}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{stage}.ipynb.part"
    # While outputs are being replaced, nothing says what they are made of.
    (folder / f"{stage}.json").unlink(missing_ok=True)
    # Before the notebook runs: an edit meanwhile is none that it saw.
    since, made_of = time.time(), stage_fingerprint(study, stage)
    _tell(study, stage, "start", since=since)
    # A plotting backend of the caller's would silently drop the figures from the notebook.
    os.environ.pop("MPLBACKEND", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    twin = _copy_samples(study, made_of, part) if stage == "02-extract-samples" else None
    try:
        if not twin:
            tell = partial(_tell, study, stage, "cell")
            execute(notebook_path(stage), part, {"study": str(Path(path))}, lambda heading: tell(cell=heading))
    except RunError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file():
            os.replace(part, failed)
        _tell_failure(
            study, stage, since, error, f"\nFailed notebook: {shown_path(failed)}" if failed.is_file() else ""
        )
        raise
    os.replace(part, folder / f"{stage}.ipynb")
    failed.unlink(missing_ok=True)
    seconds = time.time() - since
    write_record(study, stage, seconds, made_of, {"copied_from": shown_path(twin)} if twin else {})
    _tell(study, stage, "end", seconds=seconds)


def run_in_process(path):
    """Do in this process what notebooks 02-05 do, for studies of hundreds of replicates.

    It runs the notebooks' own code, cell by cell, without a kernel; cells tagged ``report``, which nothing later needs,
    are left out. So the result files are the same but for those of reports: quality of samples, reliability, figures.

    Parameters
    ----------
    path : path-like
        The resolved study file; covariates must be there.

    Raises
    ------
    RunError
        A cell failed.
    """
    from joblib import parallel_config

    study = Study.open(path)
    since = time.time()
    for stage in IN_PROCESS:
        folder = stage_dir(study, stage)
        folder.mkdir(parents=True, exist_ok=True)
        for old in (f"{stage}.json", f"{stage}.ipynb"):
            (folder / old).unlink(missing_ok=True)
    for stage in IN_PROCESS:
        started, made_of = time.time(), stage_fingerprint(study, stage)
        _tell(study, stage, "start", since=started)
        names = {"display": lambda *shown, **more: None}
        try:
            # One core a run: hundreds of them share a machine.
            with threadpool_limits(1), parallel_config("sequential"), contextlib.redirect_stdout(io.StringIO()):
                for heading, tags, source in _code_cells(notebook_path(stage)):
                    if "report" not in tags:
                        exec(compile(source, f"{stage}: {heading}", "exec"), names)
                    if "parameters" in tags:
                        names["study"] = str(path)
        except Exception as error:
            cause = _cell_error(stage, heading, type(error).__name__, str(error))
            _tell_failure(study, stage, since, cause)
            raise cause from error
        write_record(study, stage, time.time() - started, made_of)
        _tell(study, stage, "end", seconds=time.time() - started)
    write_index(study, "process")


def _copy_samples(study, made_of, part):
    """Copy the samples, with the executed notebook, from a run that made the same ones; return its folder, or None."""
    notebook = "02-extract-samples.ipynb"
    prepared = (study.processed_dir / "01-prepare-data.ipynb").stat().st_mtime_ns
    for record in sorted(study.results_dir.parent.glob(f"*/notebooks/{notebook.replace('.ipynb', '.json')}")):
        twin, executed = record.parents[1], record.with_suffix(".ipynb")

        def stands(record=record, executed=executed):
            told = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
            fresh = executed.is_file() and executed.stat().st_mtime_ns > prepared
            return fresh and told.get("made_of") == made_of

        if twin != study.results_dir and stands():
            files = [path for folder in ("samples", "truth") for path in (twin / folder).rglob("*") if path.is_file()]
            for path in files:
                ours = study.results_dir / path.relative_to(twin)
                ours.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, ours.with_name(f".{ours.name}.part"))
                os.replace(ours.with_name(f".{ours.name}.part"), ours)
            shutil.copyfile(executed, part)
            # Unless it was being written anew meanwhile.
            if stands():
                return twin
    return None


def _tell(study, stage, event, **more):
    path = Path(os.environ.get(EVENTS) or state_dir(study) / "events.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"run": study.run, "stage": stage, "event": event, **more}) + "\n")


def _tell_failure(study, stage, since, error, more=""):
    message = f"{stage} failed after {time.time() - since:.0f} s, {error.message}"
    told = {"message": message, "remedy": f"{error.remedy}{more}"}
    write_text(state_dir(study) / "failure.json", json.dumps(told))
    _tell(study, stage, "failure")


def execute(notebook, output, parameters, on_cell=lambda heading: None):
    """Execute a notebook by papermill.

    Parameters
    ----------
    notebook, output : pathlib.Path
        The notebook, and where the executed one goes; it is written after each cell and stays there on failure.
    parameters : dict
        Values for the cell tagged ``parameters``; a name that the notebook does not have is refused, where papermill
        itself would warn and run with the defaults.
    on_cell : callable
        Called with the heading above each code cell before it runs.

    Raises
    ------
    RunError
        A parameter is unknown, a cell failed, or the kernel died.
    """
    import nbclient.exceptions
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise RunError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}.",
            "tag the cell that sets it `parameters`, or correct the name",
        )
    headings = {source: heading for heading, _, source in _code_cells(notebook)}

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            start = nb_man.cell_start

            def cell_start(cell, cell_index=None, **more):
                if cell.cell_type == "code":
                    on_cell(headings.get(cell.source, "parameters"))
                return start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("reporting", Engine)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters,
            engine_name="reporting",
            progress_bar=False,
            kernel_name="python3",
            cwd=str(ROOT),
        )
    except papermill.PapermillExecutionError as error:
        raise _cell_error(notebook.stem, headings.get(error.source, ""), error.ename, error.evalue) from None
    except nbclient.exceptions.DeadKernelError:
        raise RunError("its kernel died; most often memory ran out.", "close other programs and start again") from None


def _cell_error(stage, heading, name, value):
    """Return the error of a cell that raised an error of this name and value."""
    cause, _, remedy = value.partition("\nRemedy: ")
    cause, remedy = " ".join(cause.split())[:MESSAGE_LENGTH], " ".join(remedy.split())
    remedy = remedy or f"open the failed notebook, mend the cell's cause in {stage}.ipynb, run again"
    return RunError(f'in the cell under "{heading}":\n{name}: {cause}', remedy)


def _code_cells(notebook):
    """Return the heading above each code cell, its tags and its source."""
    import nbformat

    heading, cells = notebook.stem, []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
        elif cell.cell_type == "code":
            cells.append((heading, cell.metadata.get("tags", []), cell.source))
    return cells
