"""The stages of a run: their notebooks, files, settings, budgets, and what their outputs are made of."""

import difflib
import json
import os

from helpers.core import classes
from helpers.core.code import stage_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import short_hash, write_text
from helpers.core.settings import ROOT
from helpers.figures import publication
from helpers.forest import cards
from helpers.mapping import files, interval, other_maps, trust
from helpers.prepare.products import raw_files
from helpers.prepare.registry import covariate_files, fine_files
from helpers.samples import store
from testbed.truth import truth_files


class RunError(CompendiumError):
    """A run that cannot start, or a stage that failed."""


STAGES = {
    "00-virtual-landscape": 60,
    "01-prepare-data": 60,
    "02-extract-samples": 75,
    "03-grid-search": 90,
    "04-evaluate-accuracy": 45,
    "05-map-ground-ice": 130,
    "06-publication-figures": 25,
}
"""The notebooks of `make map` in their order, and the seconds that each may take in the default study on 2 cores."""


FULL = {**STAGES, "08-baselines": 400}
"""Those of `make full`: the others say what the map's method is worth, and change no map."""


IN_PROCESS = ("02-extract-samples", "03-grid-search", "04-evaluate-accuracy", "05-map-ground-ice")
"""Stages that `run_in_process` does."""


ACCURACY = (
    "accuracy", "accuracy_by_class", "accuracy_permafrost", "accuracy_folds", "validation", "class_areas",
    "reliability", "calibration_error", "residuals", "morans_i", "error_by_distance", "importance", "importance_groups",
)  # fmt: skip
"""Tables of notebook 04, each as CSV and as JSON."""


SHARED = ("00-virtual-landscape", "01-prepare-data")
"""Stages whose outputs runs with the same settings share."""


_MEMORY_MB = {
    "00-virtual-landscape": (600, 1000),
    "01-prepare-data": (1200, 700),
    "02-extract-samples": (600, 1000),
    "03-grid-search": (900, 100),
    "04-evaluate-accuracy": (700, 500),
    "05-map-ground-ice": (600, 1000),
    "06-publication-figures": (600, 300),
    "08-baselines": (900, 300),
}
"""What a stage takes at most: for itself, and for each million cells of the reference grid; records tell the peaks."""


def notebook_path(stage):
    """Return the notebook of a stage."""
    return ROOT / "notebooks" / f"{stage}.ipynb"


def state_dir(study):
    """Return the hidden folder with what the launcher and Snakemake remember of a run; safe to delete."""
    return ROOT / ".run" / study.name / study.run


def stage_dir(study, stage):
    """Return the folder that keeps a stage's executed notebook and its record: where its outputs are."""
    return {"00": study.raw_dir, "01": study.processed_dir}.get(stage[:2], study.results_dir / "notebooks")


def stage_outputs(study, stage):
    """Return the files that tell that a stage is done, the executed notebook first."""
    layers, tables = [classes.layer_name(layer) for layer in study.layers], study.results_dir / "tables"
    twin = ["regression"] if study.storage_from == "regression" else []
    judged = [
        "baselines",
        "optimism",
        "ice_fraction",
        "storage_ways",
        "local_effects",
        *(["forward_selection"] if study.forward_selection else []),
    ]
    made = {
        "00-virtual-landscape": lambda: raw_files(study).values(),
        "01-prepare-data": lambda: [*covariate_files(study).values(), *fine_files(study).values()],
        "02-extract-samples": lambda: [
            store.samples_path(study),
            *(truth_files(study).values() if study.draws_boreholes else []),
        ],
        "03-grid-search": lambda: sorted(
            {cards.model_path(study, layer, which) for layer in layers for which in ("map", "train", *twin)}
        ),
        "04-evaluate-accuracy": lambda: [tables / f"{name}.{kind}" for name in ACCURACY for kind in ("csv", "json")],
        "05-map-ground-ice": lambda: [
            *files.map_files(study).values(),
            *interval.interval_files(study).values(),
            *trust.trust_files(study).values(),
            *other_maps.difference_files(study).values(),
            *(tables / f"{name}.json" for name in ("storage", "applicability", "other_maps")),
        ],
        "06-publication-figures": lambda: [study.figures_dir / f"{name}.png" for name in publication.NAMES],
        "08-baselines": lambda: [tables / f"{name}.csv" for name in judged],
    }
    return [stage_dir(study, stage) / f"{stage}.ipynb", *made[stage]()]


def memory_mb(study, stage):
    """Return the memory that a stage takes at most, in MB, for batches and clusters."""
    fixed, each = _MEMORY_MB[stage]
    return round(fixed + each * 1.44 * (1000 / study.grid.resolution) ** 2)


_SECTIONS = {
    "02-extract-samples": ("layers", "ice", "truth", "boreholes", "samples", "predictors", "domain", "target"),
    "03-grid-search": ("forest", "folds", "predictors", "left_out", "domain", "target", "storage_from", "regression"),
    "04-evaluate-accuracy": ("folds", "accuracy", "samples", "domain", "target"),
    "05-map-ground-ice": ("target", "storage_from", "maps", "uncertainty", "trust", "compare_with"),
    "06-publication-figures": ("target",),
    "08-baselines": (
        "accuracy",
        "forest",
        "folds",
        "predictors",
        "left_out",
        "forward_selection",
        "domain",
        "target",
        "regression",
    ),
}
"""Settings that a run's own stages read beside the files of earlier ones; those of 00 and 01 are in folder names."""


def code_file(study, stage):
    """Return the file with the digest of a stage's code and settings, an input of the stage's rule.

    It lies beside the outputs, so that runs which share them agree on what made them. It is rewritten only where the
    digest differs from the recorded one. Stages of a run add the settings that no folder name has.
    """
    path, digest = stage_dir(study, stage) / f".{stage}.code", stage_fingerprint(study, stage)
    if not path.is_file() or path.read_text() != digest:
        write_text(path, digest)
        record = path.with_name(f"{stage}.json")
        if record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("made_of") == digest:
            # An edit was undone before anything was made with it: the outputs stand, so the file is older than they.
            os.utime(path, (record.stat().st_mtime - 86_400,) * 2)
    return path


def stage_fingerprint(study, stage):
    """Return the digest of what a stage's outputs are made of, beside the files that earlier stages made."""
    digest = stage_digest(notebook_path(stage))
    if stage not in _SECTIONS:
        return digest
    settings = study.model_dump(mode="json", include=set(_SECTIONS[stage]))
    given = {
        "02-extract-samples": [digest for path, digest in study.inputs.items() if path not in study.other_inputs],
        "05-map-ground-ice": list(study.other_inputs.values()),
    }.get(stage, [])
    return f"{digest} {short_hash([study.processed_key, settings, given])}"


def has_equal_samples(study, other):
    """Whether two runs have the same samples: the same settings and files up to notebook 02, and the same code."""
    return stage_fingerprint(study, "02-extract-samples") == stage_fingerprint(other, "02-extract-samples")


def is_recorded(study, stage):
    """Whether a stage was finished with the present code, settings and input files."""
    record = stage_dir(study, stage) / f"{stage}.json"
    return record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("made_of") == stage_fingerprint(
        study, stage
    )


def stages_until(last):
    """Return the stages up to one; raise RunError if there is none of this name."""
    if last not in STAGES:
        near = difflib.get_close_matches(str(last), STAGES, n=1, cutoff=0.0)
        raise RunError(f"There is no stage {last}.", f"name one of {', '.join(STAGES)}, such as {near[0]}")
    return list(STAGES)[: list(STAGES).index(last) + 1]
