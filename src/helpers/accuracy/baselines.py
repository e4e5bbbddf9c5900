"""What a random forest must beat, and what its choices cost.

Baselines and nested cross-validation use the folds of the forest, and are scored on pooled
out-of-fold predictions of the training samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from helpers.core.scores import (
    HEADLINE_SCORES,
    bootstrap_matrices,
    matrix_scores,
)
from helpers.core.study import Study
from helpers.folds import blocks
from helpers.forest import grid_search, models
from helpers.forest.out_of_fold import out_of_fold, training_jobs
from helpers.prepare.columns import column_values, forest_columns, predictor_of, predictors_of
from helpers.prepare.domain import by_domain
from helpers.prepare.registry import covariates
from helpers.samples.rows import forest_predictors, layer_rows

MODELS = ("forest", "most_frequent", "frost_number", "logistic", "boosting", "neighbours")
"""The forest and its baselines, as ``baselines.csv`` names them."""


def compare_models(
    study: Study, table: pd.DataFrame, params: dict[str, dict[str, Any]], n_jobs: int = -1
) -> pd.DataFrame:
    """Evaluate the forest and its baselines in the same kNNDM folds.

    There is one row a layer, domain and model (of `MODELS`). For baselines it also says how much
    lower than the forest's each score is, with its 95 % interval.

    Of the samples of all layers, the training samples are used. They need air_frost_number. The
    forest has the hyperparameters of each layer, the baselines have scikit-learn's defaults. The
    interval is of a bootstrap that draws square blocks of `folds.block_km`, not samples: neighbours
    are not independent. Both models are scored on the same draws.
    """
    size = len(study.target_classes.codes)
    jobs = training_jobs(study, table, params)
    compared = []
    for (part, fold, _), probabilities in zip(jobs, out_of_fold(study, jobs, n_jobs), strict=True):
        reference = part["class"].to_numpy()
        mapped = {"forest": probabilities.argmax(axis=1)}
        for name, (estimator, columns) in _estimators(study).items():
            own = {name: part[name].to_numpy(float) for name in predictors_of(columns)}
            values = np.stack([column_values(one, own[predictor_of(one)]) for one in columns], 1)
            mapped[name] = _predict_out_of_fold(estimator, values, reference, fold)
        block = blocks.study_blocks(study, part, study.folds.block_km)
        for domain, inside in by_domain(study, part["in_domain"]):
            if not inside.any():
                continue
            rng = np.random.default_rng(study.folds.seed)
            draws = blocks.sample_blocks(block[inside], blocks.DRAWS, rng)
            drawn = {
                name: _drawn_scores(reference[inside], predicted[inside], size, draws)
                for name, predicted in mapped.items()
            }
            first = {"layer": part["layer"].iloc[0], "domain": domain, "n": int(inside.sum())}
            compared += [first | row for row in _score_rows(drawn)]
    return pd.DataFrame(compared)


def _estimators(study: Study) -> dict[str, tuple[BaseEstimator, list[str]]]:
    """Return each baseline's estimator and the columns of the samples that it uses."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    names = forest_columns(study)
    seed = study.folds.seed
    logistic = LogisticRegression(class_weight="balanced", max_iter=5000)
    balanced = {"class_weight": "balanced", "random_state": seed}
    boosting = HistGradientBoostingClassifier(early_stopping=False, **balanced)
    neighbours = KNeighborsClassifier(5, weights="distance")
    # A tree of one split is a threshold, the best one of the training samples.
    threshold = DecisionTreeClassifier(max_depth=1, random_state=seed)
    frost = {"frost_number": (threshold, ["air_frost_number"])}
    return {
        "most_frequent": (DummyClassifier(), names),
        **(frost if "air_frost_number" in covariates(study) else {}),
        "logistic": (make_pipeline(StandardScaler(), logistic), names),
        "boosting": (boosting, names),
        "neighbours": (neighbours, ["easting", "northing"]),
    }


def _predict_out_of_fold(
    estimator: BaseEstimator, values: np.ndarray, reference: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    mapped = np.empty_like(reference)
    for number in np.unique(fold):
        held = fold == number
        if len(np.unique(reference[~held])) < 2:
            mapped[held] = reference[~held][0]  # most estimators refuse to fit a single class
            continue
        # Samples are few: threads would wait for one another, thirty times as long as they work.
        with threadpool_limits(1):
            fitted = clone(estimator).fit(values[~held], reference[~held])
            mapped[held] = fitted.predict(values[held])
    return mapped


def _drawn_scores(
    reference: np.ndarray, predicted: np.ndarray, size: int, draws: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the headline scores of all samples, then of draws of blocks, shape (1 + draws, 3).

    Kappa counts as 0 where one class alone is mapped and in the reference.
    """
    scores = matrix_scores(bootstrap_matrices(reference, predicted, size, draws))
    return np.nan_to_num(np.column_stack([scores[name] for name in HEADLINE_SCORES]))


def _score_rows(drawn: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for name, scores in drawn.items():
        row = {"model": name} | dict(zip(HEADLINE_SCORES, scores[0].tolist(), strict=True))
        if name != "forest":
            less = drawn["forest"] - scores
            low, high = np.percentile(less[1:], [2.5, 97.5], axis=0)
            for score, *ends in zip(HEADLINE_SCORES, less[0], low, high, strict=True):
                columns = f"{score}_difference", f"{score}_low", f"{score}_high"
                row |= zip(columns, ends, strict=True)
        yield row


def selection_optimism(study: Study, table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Measure by how much a search's winner scores too high, because it was chosen for its score.

    The whole search is repeated without each fold in turn, and its winner predicts that fold: a
    nested cross-validation. Its scores are fair. There is one row a score: the ``winner``'s, the
    ``nested`` one, and their difference ``optimism``, all on pooled out-of-fold predictions of the
    training samples.
    """
    codes = study.target_classes.codes
    rows = layer_rows(table, layer, "train", study.target_classes)
    winner = grid_search.search(study, table, layer)
    nested = np.empty((len(rows), len(codes)))
    for number in np.unique(winner.fold):
        held = winner.fold == number
        others = table[~table["site_id"].isin(rows.loc[held, "site_id"])]
        params = grid_search.search(study, others, layer).params
        model = models.fit(study, others, layer, params, "train")
        values = forest_predictors(study, rows[held])
        nested[held] = models.class_probabilities(model, values, codes)
    nested_scores = grid_search.score_probabilities(winner.reference, nested, study.target_classes)
    scores = pd.DataFrame({"winner": winner.scores, "nested": nested_scores}).rename_axis("score")
    return scores.assign(optimism=scores["winner"] - scores["nested"])
