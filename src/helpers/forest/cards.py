"""Forests as files with their model cards."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.parallel import Parallel, delayed

from helpers.core.classes import TARGETS
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import file_hash, write_aside, write_json
from helpers.core.study import Study
from helpers.forest.file import forest_bytes, read_forests
from helpers.forest.grid_search import Search, search_grid
from helpers.forest.hurdle import (
    HURDLE_ARRAYS,
    HURDLE_OTHERS,
    TREES,
    Hurdle,
    agree_with_shares,
    fit_hurdle,
    hurdle_card,
)
from helpers.forest.models import CHECKED_INPUT, classifier
from helpers.forest.paths import model_path
from helpers.forest.trees import grow
from helpers.prepare.columns import forest_columns, predictors_of
from helpers.prepare.registry import covariates
from helpers.samples.rows import layer_rows, training_arrays

Card = dict[str, Any]
"""A model card: see `read_card`."""


class ModelError(CompendiumError):
    """A model file that is missing, damaged, or not what its card says."""


def save_forests(
    study: Study, table: pd.DataFrame, searched: Search, n_jobs: int = -1
) -> dict[Path, Card]:
    """Grow and save a layer's forests and hurdle models: those that are tested, and the map's.

    Forests have the hyperparameters of the search. They do not depend on the number of processes.
    The result has the card of each model file.
    """
    kinds = dict.fromkeys(["train", study.forest.map_fit])
    rows = {kind: layer_rows(table, searched.layer, kind, study.target_classes) for kind in kinds}
    with sklearn.config_context(**CHECKED_INPUT):
        grown = Parallel(n_jobs=n_jobs)(
            delayed(grow_model)(study, searched, kind, rows[kind])
            for grow_model in (_forest, _hurdle)
            for kind in kinds
        )
    return {path: save_model(path, data, card) for path, data, card in grown}


def _forest(
    study: Study, searched: Search, kind: str, rows: pd.DataFrame
) -> tuple[Path, bytes, Card]:
    """Return a balanced forest as file and card."""
    layer, target = searched.layer, study.target_classes
    model = grow(classifier(study, **searched.params), *training_arrays(study, rows, layer))
    params = {"n_estimators": study.forest.n_estimators, **searched.params}
    card = model_card(study, layer, kind, rows, params | {"class_weight": "balanced"}) | {
        "classes": list(target.codes),
        "class_names": target.names,
        "grid": search_grid(study),
        "decided_by": study.forest.score,
        "one_standard_error": study.forest.one_standard_error,
        "scores": searched.scores,
        "class_counts": [int((rows["class"] == code).sum()) for code in target.codes],
    }
    return _path(study, layer, kind, "forest"), forest_bytes(model), card


def _hurdle(
    study: Study, searched: Search, kind: str, rows: pd.DataFrame
) -> tuple[Path, bytes, Card]:
    """Return a hurdle model as file and card."""
    layer = searched.layer
    hurdle = agree_with_shares(study, fit_hurdle(study, rows), layer)
    card = model_card(study, layer, kind, rows, {"n_estimators": TREES}) | hurdle_card(hurdle)
    return _path(study, layer, kind, "ice"), forest_bytes(*hurdle.forests), card


def _path(study: Study, layer: str, kind: str, model: Literal["forest", "ice"]) -> Path:
    return model_path(study, layer, "map" if kind == study.forest.map_fit else "train", model)


def save_model(path: Path, data: bytes, card: Card) -> Card:
    """Write a forest (`forest_bytes`) as an ``.npz`` file, then its model card as JSON beside it.

    A kill between them leaves a misfit, which is refused. The card must hold ``target`` and
    ``predictors``; it is returned with the file's SHA-256.
    """
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    with write_aside(path) as part:
        part.write_bytes(data)
    write_json(path.with_suffix(".json"), card)
    return card


def load_model(path: str | Path, target: str | None = None) -> tuple[RandomForestClassifier, Card]:
    """Read a forest that `save_model` wrote, and its card.

    No code of the file is run: the file must have the SHA-256 of its card, and
    `helpers.forest.file` checks every tree. A forest of another target than the study's is refused.

    Raises
    ------
    ModelError
        A file is missing, changed, of another scikit-learn or target, or no sound forest.
    """
    card = read_card(path)
    return _load(Path(path), card, target, [card.get("classes", ())])[0], card


def load_hurdle(path: str | Path, target: str | None = None) -> tuple[Hurdle, Card]:
    """Read a hurdle model that `save_model` wrote, and its card; errors are as of `load_model`."""
    path = Path(path)
    card = read_card(path)
    if not {*HURDLE_ARRAYS, *HURDLE_OTHERS} <= set(card):
        raise ModelError(f"{path.name} is no hurdle model.", "run 03-grid-search again")
    arrays = {name: np.array(card[name], float) for name in HURDLE_ARRAYS}
    free = card["free"]
    allowed = [(0, 1), range(len(arrays["types"])), *([free] if len(free) > 1 else [])]
    forests = _load(path, card, target, allowed)
    others = {name: card[name] for name in HURDLE_OTHERS}
    return Hurdle(forests, **arrays, **others), card


def _load(
    path: Path, card: Card, target: str | None, classes: Sequence[Sequence[int]]
) -> list[RandomForestClassifier]:
    """Return the forests of a file, checked against its card; `classes` is what each may have."""
    if target not in (None, card["target"]):
        raise ModelError(
            f"{path.name} is of the target {card['target']}, and the study's is {target}.",
            "run 03-grid-search again, or give the study a `run` of its own",
        )
    if not path.is_file():
        raise ModelError(f"There is no model {path.name}.", "run 03-grid-search")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ModelError(
            f"{path.name} is not the file that its card describes: the SHA-256 differs.",
            "run 03-grid-search again, and do not use a model from a source that you do not trust",
        )
    written = card.get("versions", {}).get("scikit-learn", "")
    if written.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise ModelError(
            f"{path.name} was written by scikit-learn {written or '(no version)'}; "
            f"this is {sklearn.__version__}.",
            "run 03-grid-search again, or install that version",
        )
    try:
        return read_forests(data, len(card["predictors"]), classes)
    # Whatever a forged file makes the reader stumble over, it is no model.
    except Exception as error:
        raise ModelError(
            f"{path.name} holds no sound forest: {' '.join(str(error).split())[:200]}",
            "run 03-grid-search again",
        ) from error


def read_card(path: str | Path) -> Card:
    """Return the model card of a model file (``.npz``), without reading the model.

    It holds what `model_card` returns and the ``sha256`` of the model; of a forest also its
    ``classes`` (columns of probabilities), the ``grid`` of the search and ``scores`` pooled over
    folds; of a hurdle model the fields of `helpers.forest.hurdle.Hurdle`. ModelError if the card is
    missing or no card.
    """
    path = Path(path).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(card["sha256"], str) and isinstance(card["predictors"], list)
        sound = sound and card["target"] in TARGETS
    except FileNotFoundError:
        raise ModelError(f"There is no model card {path.name}.", "run 03-grid-search") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ModelError(f"{path.name} is no model card.", "run 03-grid-search again")
    return card


def card_params(card: Card) -> dict[str, Any]:
    """Return the hyperparameters of a model card, as `helpers.forest.models.fit` takes them."""
    return {name: value for name, value in card["params"].items() if name != "class_weight"}


def model_card(
    study: Study, layer: str, kind: str, rows: pd.DataFrame, params: dict[str, Any]
) -> Card:
    """Return what is worth knowing about any model, as `save_model` takes it.

    It was grown from the `rows`, which are samples of a kind (all or train) in the file of the
    study.
    """
    predictors = forest_columns(study)
    units = {name: covariate.unit for name, covariate in covariates(study).items()}
    ranges = {}
    for name in predictors_of(predictors):
        ends = {"minimum": float(rows[name].min()), "maximum": float(rows[name].max())}
        ranges[name] = {"unit": units.get(name)} | ends
    versions = {name: version(name) for name in ("scikit-learn", "numpy")}
    return {
        "layer": layer,
        "fit": kind,
        "study": study.name,
        "run": study.run,
        "label": study.label,
        "target": study.target,
        "predictors": predictors,
        "covariates": ranges,
        "params": params,
        "seed": study.forest.seed,
        "n_samples": len(rows),
        "samples_sha256": file_hash(study.results_dir / "samples" / "samples.csv"),
        "code_digest": package_digest(),
        "versions": {"python": platform.python_version()} | versions,
    }
