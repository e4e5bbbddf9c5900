"""The stages of a run, one record each: what a stage reads and writes, and what it may take.

The Snakefile, the help, budgets, memory, digests and batches all read `STAGES`: a new notebook is
one entry more.
"""

import contextlib
import difflib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from helpers.core.classes import layer_name
from helpers.core.code import stage_digest
from helpers.core.errors import CompendiumError, listed
from helpers.core.files import read_json, short_hash, write_text
from helpers.core.settings import ROOT, Area, RunName
from helpers.core.study import Study, relative_path
from testbed.settings import VirtualStudy


class RunError(CompendiumError):
    """A run that cannot start, or a stage that failed."""


def check_name(name: str, what: str) -> None:
    """Raise RunError if a name cannot be that of a folder of results."""
    try:
        TypeAdapter(RunName).validate_python(name)
    except ValidationError:
        shown = name if len(name) <= 80 else f"{name[:40]}..."
        message = f"{what}: '{shown}' cannot be the name of a folder."
        remedy = "use at most 80 letters, digits, hyphens, dots and underscores; a letter first"
        raise RunError(message, remedy) from None


SMALL_GRID = 0.1
"""Million cells below which every stage runs on one core."""

LARGE_GRID = 4
"""Million cells beyond which memory grows slowly: `helpers.core.grid.MOST_CELLS`."""

_BEYOND = 45
"""MB for each further million cells: at most 42 by `benchmarks/scale.py`, 25 to 100 million."""

Files = Callable[[Study], Iterable[Path]]
"""Gives files of a study."""


@dataclass(frozen=True)
class Stage:
    """A notebook, and all that the launcher needs to know of it."""

    name: str  # the notebook's path in notebooks/ without its ending
    makes: str  # what it makes, as one line
    after: tuple[str, ...]  # the stages whose files it reads
    outputs: Files  # they show that it is done, beside the executed notebook
    seconds: int  # that it may take in the default study on 2 cores
    memory_mb: tuple[int, int]  # at most: for itself, and for each million cells of the grid
    fine: bool = False  # whether it works on the fine grid; both numbers are for half the cell size
    # Whether it takes whole grids, however large; others take windows, or cells in regular steps.
    whole_grids: bool = False
    # Sections of the study, or settings of one, that it reads and no folder's name has.
    settings: tuple[str, ...] = ()
    reads: Files = lambda study: []  # files of the user
    # Runs with the same settings upstream share a folder of raw or of processed data.
    folder: Literal["raw", "processed", "run"] = "run"
    in_process: bool = False  # whether `launcher.notebooks.run_in_process` executes it, too
    cores: int | None = None  # that it gets at most; all by default
    full: bool = False  # whether only `make full` runs it
    applies: Callable[[Study], bool] = lambda study: True  # whether a study has this stage
    copied: Files | None = None  # what a run copies if another of its batch makes the same
    beside: Files = lambda study: []  # what it made beside its outputs, not in every study

    @property
    def notebook(self) -> Path:
        """The notebook."""
        return ROOT / "notebooks" / f"{self.name}.ipynb"

    @property
    def shared(self) -> bool:
        """Whether runs share its files."""
        return self.folder != "run"


def _is_virtual(study: Study) -> bool:
    return isinstance(study, VirtualStudy)


def _has_truth(study: Study) -> bool:
    return isinstance(study, VirtualStudy) and study.draws_boreholes


def _files(*parts: str) -> Files:
    """Join files of a study: of functions such as ``helpers.a.b:files``, and paths in its results.

    Modules of functions are imported when the files are asked for, because a stage that starts
    needs none of them, and they take seconds. For that reason the launcher has imports inside of
    functions.
    """

    def files(study: Study) -> list[Path]:
        paths: list[Path] = []
        for part in parts:
            if ":" in part:
                group = resolve_name(part)(study)
                paths += group.values() if isinstance(group, dict) else group
            else:
                paths.append(study.results_dir / part)
        return paths

    return files


def _tables(*names: str) -> list[str]:
    """Return the paths of tables that are written as CSV and as JSON."""
    return [f"tables/{name}.{ending}" for name in names for ending in ("csv", "json")]


_raw_files = _files("helpers.prepare.products:raw_files")
_labels = _files("samples/labels.csv")
_field_tables = _files(
    "helpers.samples.tables:table_paths", "testbed.truth:truth_files", "samples/prevalence.csv"
)


def _user_rasters(study: Study) -> list[Path]:
    """Return the user's raw rasters, and those of own predictors."""
    files = resolve_name("helpers.prepare.products:user_files")(study).values()
    tiles = resolve_name("helpers.core.user_rasters:tiles")
    named = [one.file for one in study.own_predictors if isinstance(one.file, str)]
    own = [tiles(study.path(file)) for file in named]
    return list(dict.fromkeys(itertools.chain(files, *own)))


def _found(*patterns: str) -> Files:
    """Find files in the results of a study."""
    return lambda study: [path for one in patterns for path in study.results_dir.glob(one)]


def _samples(study: Study) -> list[Path]:
    made = (study.results_dir / "samples").glob("*")
    others = ("sites.csv", "intervals.csv", "prevalence.csv", "labels.csv")
    return [path for path in made if path.name not in others]


def _forests(study: Study) -> list[Path]:
    model_path = resolve_name("helpers.forest.paths:model_path")
    layers = [layer_name(layer) for layer in study.layers]
    parts = itertools.product(layers, ("map", "train"), ("forest", "ice"))
    models = sorted({model_path(study, *part) for part in parts})
    return [*models, *(path.with_suffix(".json") for path in models)]


def _figures(study: Study) -> list[Path]:
    figures = resolve_name("helpers.figures:figure_files")(study)
    return [study.results_dir / "tables" / "headline.json", *figures]


def _evaluations(study: Study) -> list[Path]:
    names = ["baselines", "optimism", "local_effects"]
    return [study.results_dir / "tables" / f"{name}.csv" for name in names]


_STAGES = (
    Stage(
        "00-open-data",
        "what is fetched of open data, before it is, and what came",
        after=(),
        outputs=lambda study: [study.open_data_list],
        seconds=3600,
        memory_mb=(600, 100),
        folder="raw",
        cores=1,
        applies=lambda study: bool(study.open_data),
    ),
    Stage(
        "testbed/1-landscape",
        "raw rasters of a virtual Northeast China, in the formats of the real products",
        after=(),
        outputs=_raw_files,
        seconds=60,
        memory_mb=(600, 1000),
        whole_grids=True,
        folder="raw",
        applies=_is_virtual,
    ),
    Stage(
        "01-prepare-data",
        "terrain, vegetation and water, climate and soil on the reference grid",
        after=("00-open-data", "testbed/1-landscape"),
        outputs=_files(
            "helpers.prepare.registry:covariate_files", "helpers.prepare.registry:fine_files"
        ),
        reads=_user_rasters,
        seconds=60,
        memory_mb=(1300, 700),
        fine=True,
        folder="processed",
        beside=lambda study: [study.processed_dir / "summary.json"],
    ),
    Stage(
        "testbed/2-boreholes",
        "the hidden truth, and the tables that a field campaign would hand in",
        after=("testbed/1-landscape", "01-prepare-data"),
        outputs=_field_tables,
        seconds=45,
        memory_mb=(600, 1000),
        whole_grids=True,
        settings=("layers", "ice", "campaign", "predictors", "domain"),
        in_process=True,
        applies=_has_truth,
        copied=_field_tables,
        beside=_found("truth/*.aux.xml"),
    ),
    Stage(
        "02-boreholes",
        "the ice type of each borehole and test pit in each depth layer",
        after=("01-prepare-data", "testbed/2-boreholes"),
        outputs=_labels,
        seconds=30,
        memory_mb=(600, 300),
        settings=(
            "layers", "ice", "campaign", "predictors", "domain", "samples.sites",
            "samples.intervals", "samples.epsg", "samples.datum", "samples.severity",
            "samples.elevation_tolerance", "samples.more_columns",
        ),
        reads=lambda study: study.sample_files,
        in_process=True,
        cores=1,
        applies=lambda study: study.has_boreholes,
        copied=_labels,
    ),
    Stage(
        "02-extract-samples",
        "class and predictors of each sample and layer, and the 70/30 split",
        after=("01-prepare-data", "02-boreholes"),
        outputs=_files("samples/samples.csv"),
        seconds=45,
        memory_mb=(600, 700),
        settings=(
            "layers", "ice", "campaign", "samples", "predictors", "domain", "target", "classes",
            "folds.min_separation_km",
        ),
        reads=lambda study: study.sample_files,
        in_process=True,
        copied=_samples,
        beside=_samples,
    ),
    Stage(
        "03-grid-search",
        "grid search by cross-validation on the training samples; forests, and models of ice",
        after=("testbed/2-boreholes", "02-extract-samples"),
        outputs=lambda study: [*_forests(study), study.results_dir / "tables" / "distances.csv"],
        seconds=90,
        memory_mb=(900, 100),
        settings=("forest", "folds", "predictors", "left_out", "domain", "target"),
        reads=lambda study: study.prevalence_files,
        in_process=True,
        beside=_found("tables/search_*.csv"),
    ),
    Stage(
        "04-evaluate-accuracy",
        "confusion matrix, kappa and other scores on the 30 %; estimates from folds; importance",
        after=("01-prepare-data", "02-extract-samples", "03-grid-search"),
        outputs=_files(
            "tables/predictions.npz",
            *_tables(
                "accuracy", "accuracy_by_class", "accuracy_permafrost", "accuracy_folds",
                "validation", "class_areas", "reliability", "calibration_error", "residuals",
                "morans_i", "error_by_distance", "importance", "importance_groups",
            ),
        ),
        seconds=45,
        memory_mb=(700, 500),
        settings=("folds", "accuracy", "samples", "domain", "target"),
        in_process=True,
        cores=1,
    ),
    Stage(
        "05-map-ground-ice",
        "ice type, probabilities and ice content of every cell; storage; where to believe it",
        after=("01-prepare-data", "02-extract-samples", "03-grid-search"),
        outputs=_files(
            "helpers.mapping.files:map_files", "helpers.mapping.files:trust_files",
            "helpers.mapping.files:difference_files",
            "tables/applicability.csv", "tables/applicability.json",
            "tables/prediction_sets.csv", "tables/prediction_set_sizes.csv",
            "tables/other_maps.json",
        ),
        seconds=130,
        memory_mb=(600, 1000),
        settings=("target", "classes", "maps", "trust", "compare_with"),
        reads=lambda study: study.other_map_files,
        in_process=True,
        beside=_found("maps/*.qml", "maps/*.aux.xml"),
    ),
    Stage(
        "05-storage",
        "ground ice by region, elevation and class, and the interval of its total",
        after=("01-prepare-data", "02-extract-samples", "03-grid-search", "05-map-ground-ice"),
        outputs=_files("helpers.mapping.files:interval_files", "tables/storage.json"),
        seconds=40,
        memory_mb=(700, 700),
        settings=("target", "classes", "maps", "uncertainty"),
        in_process=True,
        cores=1,
        applies=lambda study: study.has_storage,
    ),
    Stage(
        "testbed/3-against-the-truth",
        "what the run estimated beside what is true: accuracy, totals, intervals, trust",
        after=("testbed/2-boreholes", "04-evaluate-accuracy", "05-map-ground-ice", "05-storage"),
        outputs=_files(
            *_tables("true_accuracy", "promised_and_true", "true_class_areas"),
            "tables/true_storage.json", "tables/true_totals.csv",
            "tables/true_applicability.csv", "tables/true_prediction_sets.csv",
            "tables/true_withheld.csv",
        ),
        seconds=30,
        memory_mb=(700, 700),
        settings=("accuracy", "forest", "domain", "target", "trust"),
        in_process=True,
        cores=1,
        applies=_has_truth,
    ),
    Stage(
        "06-publication-figures",
        "headline numbers and figures for print, from results only",
        after=("02-extract-samples", "04-evaluate-accuracy", "05-map-ground-ice", "05-storage"),
        outputs=_figures,
        seconds=25,
        memory_mb=(600, 300),
        settings=("target", "language"),
        cores=1,
    ),
    Stage(
        "08-baselines",
        "what the method is worth: baselines, what choosing costs, effects of predictors",
        after=("01-prepare-data", "02-extract-samples", "03-grid-search"),
        outputs=_evaluations,
        seconds=400,
        memory_mb=(900, 300),
        settings=("accuracy", "forest", "folds", "predictors", "left_out", "domain", "target"),
        full=True,
    ),
)  # fmt: skip

STAGES = {stage.name: stage for stage in _STAGES}
"""The stages by name, in the order in which they run."""


def stages_of(study: Study, *, full: bool = False, until: str | None = None) -> list[str]:
    """Return the names of the stages that a study has, in their order.

    `full` adds those that evaluate the map and change nothing; `until` names the last one, and
    RunError if there is none of this name.
    """
    order = list(STAGES)
    if until is not None and until not in order:
        near = difflib.get_close_matches(until, order, n=1, cutoff=0.0)
        names = ", ".join(order)
        raise RunError(f"There is no stage {until}.", f"name one of {names}, such as {near[0]}")
    last = len(order) if until is None else order.index(until) + 1
    stages = [STAGES[name] for name in order[:last]]
    return [stage.name for stage in stages if stage.applies(study) and (full or not stage.full)]


def stages_before(study: Study, name: str) -> list[str]:
    """Return the stages whose files a stage of a study reads."""
    return [earlier for earlier in STAGES[name].after if STAGES[earlier].applies(study)]


def state_dir(group: Path) -> Path:
    """Return the hidden folder of what the launcher remembers of a run or batch; safe to delete."""
    return ROOT / ".run" / group.relative_to(ROOT / "results")


def stage_dir(study: Study, name: str) -> Path:
    """Return the folder that keeps a stage's executed notebook and its record."""
    run = study.results_dir / "notebooks"
    return {"raw": study.raw_dir, "processed": study.processed_dir, "run": run}[STAGES[name].folder]


def executed_path(study: Study, name: str) -> Path:
    """Return the executed notebook of a stage."""
    return stage_dir(study, name) / STAGES[name].notebook.name


def record_path(study: Study, name: str) -> Path:
    """Return the record of a stage: what made its outputs."""
    return executed_path(study, name).with_suffix(".json")


def stage_outputs(study: Study, name: str) -> list[Path]:
    """Return the files that show that a stage is done, the executed notebook first."""
    return [executed_path(study, name), *STAGES[name].outputs(study)]


def memory_mb(study: Study, name: str) -> int:
    """Return the memory that a stage may take at most, MB, for batches and clusters."""
    (fixed, each), cells = STAGES[name].memory_mb, _million_cells(study)
    beyond = 0 if STAGES[name].whole_grids else max(cells - LARGE_GRID, 0)
    work = (cells - beyond) * fine_share(study, name)
    if STAGES[name].fine and cells * fine_share(study, name) > LARGE_GRID:
        work = resolve_name("helpers.prepare.make:most_fine_cells")(study) / 4
    return round(fixed + each * work + _BEYOND * beyond)


def fine_share(study: Study, name: str) -> float:
    """Return how many fine cells a stage works on, where a cell with four of them counts as 1."""
    return (study.grid.divisor / 2) ** 2 if STAGES[name].fine else 1.0


def _million_cells(study: Study) -> float:
    if study.area == Area():
        # The default area has 1.44 million cells of 1 km.
        return 1.44 * (1000 / study.grid.resolution) ** 2
    rows, columns = resolve_name("helpers.core.grid:reference_grid")(study).shape
    return rows * columns / 1e6


def stage_cores(study: Study, name: str, cores: int) -> int:
    """Return how many of some cores a stage gets.

    On a small grid most of its time goes into starting and drawing, so that two stages side by
    side are faster than one on all cores.
    """
    if _million_cells(study) < SMALL_GRID:
        return 1
    return min(cores, STAGES[name].cores or cores)


def impossible(study: Study, names: Iterable[str]) -> RunError | None:
    """Return why some stages of a study cannot start, or None: what one of them would run into."""
    names = list(names)
    if error := missing_file(study, names):
        return error
    shared = [path for name in names if STAGES[name].shared for path in STAGES[name].reads(study)]
    for path in map(str, (ROOT, *shared)):
        if {"{", "}"} & set(path):
            message = f"The path {path} has braces, which Snakemake takes for wildcards."
            return RunError(message, "rename the folder or file, with other brackets")
    needed = ("core.grid:reference_grid", "prepare.registry:used_predictors")
    for one in (*needed, "prepare.domain:domain_covariates", "prepare.registry:check_terrain"):
        try:
            resolve_name(f"helpers.{one}")(study)
        except CompendiumError as error:
            return RunError(error.message, error.remedy)
    return None


def missing_file(study: Study, names: Iterable[str]) -> RunError | None:
    """Return the error of a file of the user that a stage would read and that is not there.

    Or of a raster that is dated in the future: what is made of it would seem to be older.
    """
    named = {"area.polygons": study.area.polygons, "grid.like": study.grid.like}
    for setting, path in named.items():
        if path and not study.path(path).is_file():
            what = "is a folder" if study.path(path).is_dir() else "is not there"
            remedy = f"correct `{setting}` in the study file, or put the file there"
            return RunError(f"{path}, which `{setting}` names, {what}.", remedy)
    for name in names:
        paths = STAGES[name].reads(study)
        missing = [path for path in paths if not path.is_file()]
        soon = time.time() + 60  # s, that clocks of two machines may differ by
        rasters = paths if STAGES[name].shared and not missing else []
        ahead = [path for path in rasters if path.stat().st_mtime > soon]
        if ahead:
            files = listed([relative_path(path) for path in ahead], 1)
            message = f"The date of {files}, which {name} reads, is in the future."
            return RunError(message, "give it today's, as `touch FILE` does; or mend the clock")
        if missing:
            files = listed([relative_path(path) for path in missing], 1)
            remedy = "correct its path in the study file, or put it there"
            return RunError(f"There is no {files}, which {name} reads.", remedy)
    return None


def code_path(study: Study, name: str) -> Path:
    """Return the path of `code_file`."""
    record = record_path(study, name)
    return record.with_name(f".{record.stem}.code")


def code_file(study: Study, name: str) -> Path:
    """Return the file with the fingerprint of a stage, an input of the stage's rule.

    It lies beside the outputs, so that runs which share them agree on what made them. It is
    rewritten only where the fingerprint differs.
    """
    path, record = code_path(study, name), record_path(study, name)
    fingerprint = stage_fingerprint(study, name)
    if not path.is_file() or path.read_text() != fingerprint:
        write_text(path, fingerprint)
        if recorded(record) == fingerprint:
            # An edit was undone before anything was made with it: the outputs stand, so the file
            # has to be older than they.
            os.utime(path, (record.stat().st_mtime - 86_400,) * 2)
    return path


def stage_fingerprint(study: Study, name: str) -> str:
    """Return the digest of a stage's code, of settings that no folder name has, and of files."""
    stage = STAGES[name]
    digest = stage_digest(stage.notebook)
    if stage.shared:
        return digest
    whole = study.model_dump(mode="json")
    settings = [reduce(getitem, name.split("."), whole) for name in stage.settings]
    files = [study.inputs[relative_path(path)] for path in stage.reads(study)]
    return f"{digest} {short_hash([study.processed_key, settings, files])}"


def recorded(record: Path) -> str:
    """Return the fingerprint that a record has; empty if there is no record that can be read."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return read_json(record)["made_of"]
    return ""


def is_recorded(study: Study, name: str) -> bool:
    """Return whether a stage was finished with the present code, settings and input files."""
    return recorded(record_path(study, name)) == stage_fingerprint(study, name)
