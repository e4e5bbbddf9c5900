"""The regression twin: ice regressed by a forest, beside the ice that follows from classes.

Other products regress ice content. Which way is better is evaluated on the same samples in the same
folds, where a quantile regression forest (Meinshausen 2006) also gives an interval. The map needs
only its mean, which scikit-learn's own forest of the same trees gives, so that is what is saved,
and checked when read, like the classifier.

Meinshausen, N. (2006). Quantile regression forests. J. Mach. Learn. Res. 7, 983-999.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.ensemble import RandomForestRegressor

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.forest.calibration import calibrate_held_out
from helpers.forest.cards import model_card, save_model
from helpers.forest.class_means import REGRESSED, class_means
from helpers.forest.file import forest_bytes
from helpers.forest.paths import model_path
from helpers.samples.rows import ForestError, forest_predictors, layer_rows


def fit(
    study: Study,
    rows: pd.DataFrame,
    weight: str | None = None,
    quantiles: bool = False,
    n_estimators: int | None = None,
) -> RandomForestRegressor:
    """Grow a regression forest of the ice fraction from samples of one layer.

    Parameters
    ----------
    weight
        Column of their weights, such as the area that each stands for; without, a forest shrinks
        towards the mean of the samples, which is icier than the area's.
    quantiles
        Grow a RandomForestQuantileRegressor; its trees, and so its mean, are the same.
    n_estimators
        Trees; those of the final forests by default.

    Raises
    ------
    ForestError
        Samples have no ice fraction, one that is no share, or lack a predictor.
    """
    fraction = _fraction(rows)
    model = RandomForestRegressor()
    if quantiles:
        from quantile_forest import RandomForestQuantileRegressor

        model = RandomForestQuantileRegressor(max_samples_leaf=None)
    model.set_params(
        n_estimators=n_estimators or study.forest.n_estimators,
        max_features=study.regression.max_features,
        min_samples_leaf=study.regression.min_samples_leaf,
        random_state=study.forest.seed,
        n_jobs=1,
    )
    values = forest_predictors(study, rows)
    return model.fit(values, fraction, rows[weight].to_numpy(float) if weight else None)


def _fraction(rows: pd.DataFrame) -> np.ndarray:
    if "ice_fraction" not in rows:
        raise ForestError(
            "The samples have no column ice_fraction.", "run 02-extract-samples again"
        )
    fraction = rows["ice_fraction"].to_numpy(float)
    bad = ~((fraction >= 0) & (fraction <= 1))
    if bad.any():
        sites = ", ".join(rows.loc[bad, "site_id"].astype(str)[:5])
        raise ForestError(
            f"{bad.sum()} samples have no ice fraction between 0 and 1, such as {sites}.",
            "correct their ice content, or drop them",
        )
    return fraction


def predict_interval(model: Any, values: np.ndarray, interval: float) -> np.ndarray:
    """Return mean, lower and upper end of the ice fraction, shape (n, 3).

    The model is a RandomForestQuantileRegressor from `fit`, and `interval` a probability, with as
    much of the rest below as above.
    """
    # Leaves weigh alike whatever their size: Meinshausen's weights, whose mean is the forest's own.
    mean = model.predict(values, quantiles="mean", weighted_leaves=True)
    quantiles = [(1 - interval) / 2, (1 + interval) / 2]
    return np.column_stack([mean, model.predict(values, quantiles=quantiles, weighted_leaves=True)])


def regress_out_of_fold(
    study: Study, rows: pd.DataFrame, fold: np.ndarray, weight: str | None = None, n_jobs: int = -1
) -> np.ndarray:
    """Return `predict_interval` of a layer's samples, by forests grown without their fold.

    Forests have `folds.estimators` trees. Weights are as for `fit`. The result does not depend on
    the number of processes, `n_jobs`.
    """
    predicted = np.empty((len(rows), 3))
    held_out = [fold == number for number in np.unique(fold)]
    parts = Parallel(n_jobs)(delayed(_predict_held_out)(study, rows, h, weight) for h in held_out)
    for held, part in zip(held_out, parts, strict=True):
        predicted[held] = part
    return predicted


def _predict_held_out(
    study: Study, rows: pd.DataFrame, held: np.ndarray, weight: str | None
) -> np.ndarray:
    trees = study.folds.estimators
    model = fit(study, rows[~held], weight, quantiles=True, n_estimators=trees)
    return predict_interval(model, forest_predictors(study, rows[held]), study.regression.interval)


def expected_ice(
    study: Study,
    rows: pd.DataFrame,
    probabilities: np.ndarray,
    fold: np.ndarray,
    weight: str | None = None,
) -> np.ndarray:
    """Return the ice expected from a classifier's probabilities, as on the map, but out of fold.

    Probabilities of a fold, shape (n, k), from forests that were grown without it, are calibrated
    by those of the other folds, and weighted with their class means. `weight` is a column of
    weights in the calibration. The ice, shape (n,), is in m3 per m3 of the layer.
    """
    codes = study.target_classes.codes
    weights = rows[weight].to_numpy() if weight else None
    chances = calibrate_held_out(probabilities, rows["class"].to_numpy(), fold, weights)
    means = {number: class_means(rows[fold != number], codes) for number in np.unique(fold)}
    return np.einsum("nk,nk->n", chances, [means[number] for number in fold])


def save_forests(
    study: Study, table: pd.DataFrame, weight: str | None = None
) -> dict[Path, dict[str, Any]]:
    """Grow and save the regression forest of each layer that the storage map can be made from.

    Those samples of the table are used that `forest.map_fit` names, with weights as for `fit`. The
    result has the card of each model file.
    """
    kind = study.forest.map_fit
    names = ("n_estimators", "max_features", "min_samples_leaf")
    cards = {}
    for layer in map(layer_name, study.layers):
        rows = layer_rows(table, layer, kind, study.target_classes)
        model = fit(study, rows, weight)
        params = {name: getattr(model, name) for name in names}
        path = model_path(study, layer, "regression")
        card = model_card(study, layer, kind, rows, REGRESSED, params)
        cards[path] = save_model(path, forest_bytes(model), card)
    return cards
