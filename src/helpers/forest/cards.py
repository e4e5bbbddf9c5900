"""Forests as files with their model cards."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import file_hash, write_json
from helpers.forest import models
from helpers.forest.calibration import fit_calibration
from helpers.forest.class_means import REGRESSED, class_means, class_sds
from helpers.forest.file import read_forests, write_forests
from helpers.forest.grid_search import search_grid
from helpers.forest.models import CHECKED_INPUT, class_probabilities
from helpers.forest.trees import grow
from helpers.forest.two_stage import TwoStageForest
from helpers.prepare.registry import covariates, used_predictors
from helpers.samples.rows import forest_predictors, layer_rows, training_arrays


class ModelError(CompendiumError):
    """A model file that is missing, damaged, or not what its card says."""


# Files ------------------------------------------------------------------------------------------------------


def model_path(study, layer, which="map"):
    """Return the file of a layer's forest; its card lies beside it, with the ending ``.json``.

    Parameters
    ----------
    study : helpers.core.study.Study
    layer : str
    which : {"map", "train", "regression"}
        The one that the map is made with, or the one that never saw the test samples; with
        ``forest.map_fit: train`` they are the same. Or the one that `helpers.forest.regression` grows.

    Returns
    -------
    pathlib.Path
    """
    if which == "regression":
        return study.results_dir / "models" / f"regression_{layer}.npz"
    apart = which == "train" and study.forest.map_fit == "all"
    return study.results_dir / "models" / f"forest_{layer}{'_train' if apart else ''}.npz"


def save_forests(study, table, found, weight=None, n_jobs=-1):
    """Grow, calibrate and save a layer's forests: the one that the test is made with, and the map's.

    Each is calibrated on predictions for the samples that it was grown from, made by forests that did not see
    them: out of fold for the training samples, by the forest of the training samples for the others.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples.
    found : Search
    weight : str, optional
        Column of the samples with their weights in the calibration, such as the area that each stands for.
    n_jobs : int
        Processes at once. The forests do not depend on it.

    Returns
    -------
    dict
        Path of each model file to its card.
    """
    import sklearn
    from sklearn.utils.parallel import Parallel, delayed

    layer, kinds = found.layer, list(dict.fromkeys(["train", study.forest.map_fit]))
    rows = {kind: layer_rows(table, layer, kind, study.target) for kind in [*kinds, "test"]}
    tested, model = forest_predictors(study, rows["test"]), models.classifier(study, **found.params)
    classes = TARGETS[study.target].codes
    others = {kind: tested if kind == "train" else tested[:0] for kind in kinds}
    with sklearn.config_context(**CHECKED_INPUT):
        grown = Parallel(n_jobs=n_jobs)(
            delayed(_grown_bytes)(model, *training_arrays(study, rows[kind], layer), others[kind], classes)
            for kind in kinds
        )
    unseen = {"train": found.out_of_fold, "all": np.concatenate([found.out_of_fold, grown[0][1]])}
    truth = {"train": rows["train"], "all": pd.concat([rows["train"], rows["test"]])}
    cards = {}
    for kind, (data, _) in zip(kinds, grown, strict=True):
        known = truth[kind]
        calibration = fit_calibration(unseen[kind], known["class"], known[weight] if weight else None)
        path = model_path(study, layer, "map" if kind == study.forest.map_fit else "train")
        cards[path] = _write_model(path, data, _card(study, found, kind, rows[kind], calibration))
    return cards


def save_model(path, model, card):
    """Write a forest (`helpers.forest.file`) and its model card as JSON beside it; whole new files replace old ones.

    Parameters
    ----------
    path : path-like
        With the ending ``.npz``.
    model : sklearn.ensemble.RandomForestClassifier, sklearn.ensemble.RandomForestRegressor or \
helpers.forest.two_stage.TwoStageForest
    card : dict
        Must hold ``target`` (`REGRESSED` of a regressor) and ``predictors``; the file's SHA-256 is added.

    Returns
    -------
    dict
        The card as written.
    """
    return _write_model(Path(path), _model_bytes(model), card)


def load_model(path, target=None):
    """Read a forest that `save_model` wrote.

    No code of the file is run: the file must have the SHA-256 of its card, may hold nothing but a forest or the two
    of a two-stage one, and every tree is checked, because a damaged one would take the process down in its first
    prediction.

    Parameters
    ----------
    path : path-like
    target : str, optional
        The study's, or `REGRESSED`; a forest of another target is refused.

    Returns
    -------
    model : sklearn.ensemble.RandomForestClassifier, sklearn.ensemble.RandomForestRegressor or \
helpers.forest.two_stage.TwoStageForest
    card : dict

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
    written, ours = card.get("versions", {}).get("scikit-learn", ""), version("scikit-learn")
    if written.split(".")[:2] != ours.split(".")[:2]:
        raise ModelError(
            f"{path.name} was written by scikit-learn {written or 'of no known version'}; this is {ours}.",
            "run 03-grid-search again, or install that version",
        )
    try:
        model = _read_model(data, card["target"], len(card["predictors"]))
    # Whatever a forged file makes the reader stumble over, it is no model.
    except Exception as error:
        raise ModelError(
            f"{path.name} holds no sound forest: {' '.join(str(error).split())[:200]}",
            "run 03-grid-search again",
        ) from error
    return model, card


def read_card(path):
    """Return the model card of a model file, without reading the model.

    Parameters
    ----------
    path : path-like
        The ``.npz`` file.

    Returns
    -------
    dict
        ``layer``, ``fit`` (all or train), ``target``, ``predictors`` in order, ``covariates`` (unit, least and largest
        value of each at the samples), ``classes`` (columns of probabilities), ``params``, ``seed``, ``grid`` of the
        search and the score it was ``decided_by``, ``scores`` (pooled over folds), ``class_counts``, ``class_means``
        and ``class_sds`` (m3 m-3) by class, ``calibration``, ``samples_sha256``, ``versions``, ``sha256`` of the model,
        and more.

    Raises
    ------
    ModelError
        The card is missing or no card.
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


def card_params(card):
    """Return the hyperparameters of a model card, as `fit` takes them."""
    return {name: value for name, value in card["params"].items() if name != "class_weight"}


def model_card(study, layer, kind, rows, target, params):
    """Return what is worth knowing about any forest, beside the forest itself, as `save_model` takes it.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its samples must be there.
    layer : str
    kind : {"all", "train"}
        The samples that it was grown from.
    rows : pandas.DataFrame
        Those samples.
    target : str
        One of `helpers.core.classes.TARGETS`, or `REGRESSED`.
    params : dict
        Hyperparameters.

    Returns
    -------
    dict
        Ready for JSON.
    """
    return {
        "layer": layer,
        "fit": kind,
        "study": study.name,
        "run": study.run,
        "simulated": study.simulated,
        "target": target,
        "predictors": list(used_predictors(study)),
        "covariates": _ranges(study, rows),
        "params": params,
        "seed": study.forest.seed,
        "n_samples": len(rows),
        "samples_sha256": file_hash(study.results_dir / "samples" / "samples.csv"),
        "code_digest": package_digest(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("scikit-learn", "numpy")},
    }


def _card(study, found, kind, rows, calibration):
    params = {"n_estimators": study.forest.n_estimators, **found.params, "class_weight": "balanced"}
    target = TARGETS[study.target]
    return model_card(study, found.layer, kind, rows, study.target, params) | {
        "classes": list(target.codes),
        "class_names": [kind.name for kind in target.classes],
        "grid": search_grid(study),
        "decided_by": study.forest.score,
        "one_standard_error": study.forest.one_standard_error,
        "scores": found.scores,
        "class_counts": [int((rows["class"] == code).sum()) for code in target.codes],
        "class_means": class_means(rows, target.codes),
        "class_sds": class_sds(rows, target.codes),
        "calibration": calibration,
    }


def _ranges(study, rows):
    """Return unit, least and largest value of each predictor at the samples."""
    known = covariates(study)
    return {
        name: {
            "unit": known[name].unit if name in known else None,
            "minimum": float(rows[name].min()),
            "maximum": float(rows[name].max()),
        }
        for name in used_predictors(study)
    }


def _write_model(path, data, card):
    """Write the model, then its card: a kill between them leaves a misfit, which is refused."""
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
    write_json(path.with_suffix(".json"), card)
    return card


def _model_bytes(model):
    return write_forests(getattr(model, "stages_", [model]))


def _grown_bytes(classifier, values, types, others, classes):
    """Grow a forest; return its file, and its probabilities of other samples."""
    model = grow(classifier, values, types)
    return _model_bytes(model), class_probabilities(model, others, classes)


def _read_model(data, target, predictors):
    """Return the model of a file: one sound forest, or two; otherwise raise ValueError."""
    if target == REGRESSED:
        return read_forests(data, predictors, [None])[0]
    target = TARGETS[target]
    if not target.two_stage:
        return read_forests(data, predictors, [target.codes])[0]
    model = TwoStageForest()
    model.stages_ = read_forests(data, predictors, [(0, 1), target.codes[1:]])
    if model.stages_[0].classes_[-1] != 1:
        raise ValueError("the first forest knows no permafrost")
    return model
