"""Forests as files with their model cards."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from helpers.forest.calibration import fit_calibration
from helpers.forest.class_means import REGRESSED, class_means, class_sds
from helpers.forest.file import Forest, forest_bytes, read_model
from helpers.forest.grid_search import Search, search_grid
from helpers.forest.models import CHECKED_INPUT, class_probabilities, classifier
from helpers.forest.paths import model_path
from helpers.forest.trees import grow
from helpers.prepare.columns import forest_columns, predictors_of
from helpers.prepare.registry import covariates
from helpers.samples.rows import forest_predictors, layer_rows, training_arrays

Card = dict[str, Any]
"""A model card: see `read_card`."""


class ModelError(CompendiumError):
    """A model file that is missing, damaged, or not what its card says."""


def save_forests(
    study: Study, table: pd.DataFrame, searched: Search, weight: str | None = None, n_jobs: int = -1
) -> dict[Path, Card]:
    """Grow, calibrate and save a layer's forests: the one that is tested, and the map's.

    Each is calibrated on predictions for the samples that it was grown from, made by forests that
    were grown without them: out of fold for the training samples, by the forest of the training
    samples for the others. `weight` is a column of the table with weights in the calibration, such
    as the area that each sample stands for. Forests do not depend on the number of processes. The
    result has the card of each model file.
    """
    layer = searched.layer
    kinds = list(dict.fromkeys(["train", study.forest.map_fit]))
    rows = {kind: layer_rows(table, layer, kind, study.target_classes) for kind in [*kinds, "test"]}
    tests = forest_predictors(study, rows["test"])
    model = classifier(study, **searched.params)
    codes = study.target_classes.codes
    training = [training_arrays(study, rows[kind], layer) for kind in kinds]
    with sklearn.config_context(**CHECKED_INPUT):
        grown = Parallel(n_jobs=n_jobs)(
            delayed(_grow)(model, *arrays, tests if kind == "train" else tests[:0], codes)
            for kind, arrays in zip(kinds, training, strict=True)
        )
    out_of_fold = searched.out_of_fold
    both = pd.concat([rows["train"], rows["test"]])
    of_both = np.concatenate([out_of_fold, grown[0][1]])
    calibrated_on = {"train": (rows["train"], out_of_fold), "all": (both, of_both)}
    cards = {}
    for kind, (data, _) in zip(kinds, grown, strict=True):
        samples, probabilities = calibrated_on[kind]
        weights = samples[weight] if weight else None
        calibration = fit_calibration(probabilities, samples["class"], weights)
        card = _classifier_card(study, searched, kind, rows[kind]) | {"calibration": calibration}
        path = model_path(study, layer, "map" if kind == study.forest.map_fit else "train")
        cards[path] = save_model(path, data, card)
    return cards


def _grow(
    model: RandomForestClassifier,
    values: np.ndarray,
    types: np.ndarray,
    others: np.ndarray,
    codes: tuple[int, ...],
) -> tuple[bytes, np.ndarray]:
    """Grow a forest; return its file, and its probabilities of other samples."""
    model = grow(model, values, types)
    return forest_bytes(model), class_probabilities(model, others, codes)


def save_model(path: Path, data: bytes, card: Card) -> Card:
    """Write a forest (`forest_bytes`) as an ``.npz`` file, then its model card as JSON beside it.

    A kill between them leaves a misfit, which is refused. The card must hold ``target``
    (`REGRESSED` of a regressor) and ``predictors``; it is returned with the file's SHA-256.
    """
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    with write_aside(path) as part:
        part.write_bytes(data)
    write_json(path.with_suffix(".json"), card)
    return card


def load_model(path: str | Path, target: str | None = None) -> tuple[Forest, Card]:
    """Read a forest that `save_model` wrote, and its card.

    No code of the file is run: the file must have the SHA-256 of its card, and
    `helpers.forest.file` checks every tree. A forest of another target than the study's, or
    `REGRESSED`, is refused.

    Raises
    ------
    ModelError
        A file is missing, changed, of another scikit-learn or target, or no sound forest.
    """
    path = Path(path)
    card = read_card(path)
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
        two_stage = card["target"] in TARGETS and TARGETS[card["target"]].two_stage
        model = read_model(data, len(card["predictors"]), card.get("classes"), two_stage)
    # Whatever a forged file makes the reader stumble over, it is no model.
    except Exception as error:
        raise ModelError(
            f"{path.name} holds no sound forest: {' '.join(str(error).split())[:200]}",
            "run 03-grid-search again",
        ) from error
    return model, card


def read_card(path: str | Path) -> Card:
    """Return the model card of a model file (``.npz``), without reading the model.

    It holds what `model_card` returns and the ``sha256`` of the model; of a classifier also its
    ``classes`` (columns of probabilities), the ``grid`` of the search, ``scores`` pooled over
    folds, means and standard deviations of the ice of each class, m3 m-3, and ``calibration``.
    ModelError if the card is missing or no card.
    """
    path = Path(path).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(card["sha256"], str) and isinstance(card["predictors"], list)
        sound = sound and card["target"] in (*TARGETS, REGRESSED)
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
    study: Study, layer: str, kind: str, rows: pd.DataFrame, target: str, params: dict[str, Any]
) -> Card:
    """Return what is worth knowing about any forest, as `save_model` takes it.

    It was grown from the `rows`, which are samples of a kind (all or train) in the file of the
    study. The target is one of `helpers.core.classes.TARGETS`, or `REGRESSED`.
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
        "target": target,
        "predictors": predictors,
        "covariates": ranges,
        "params": params,
        "seed": study.forest.seed,
        "n_samples": len(rows),
        "samples_sha256": file_hash(study.results_dir / "samples" / "samples.csv"),
        "code_digest": package_digest(),
        "versions": {"python": platform.python_version()} | versions,
    }


def _classifier_card(study: Study, searched: Search, kind: str, rows: pd.DataFrame) -> Card:
    target = study.target_classes
    params = {"n_estimators": study.forest.n_estimators, **searched.params}
    params["class_weight"] = "balanced"
    return model_card(study, searched.layer, kind, rows, study.target, params) | {
        "classes": list(target.codes),
        "class_names": target.names,
        "grid": search_grid(study),
        "decided_by": study.forest.score,
        "one_standard_error": study.forest.one_standard_error,
        "scores": searched.scores,
        "class_counts": [int((rows["class"] == code).sum()) for code in target.codes],
        "class_means": class_means(rows, target.codes),
        "class_sds": class_sds(rows, target.codes),
    }
