"""The regression twin: ice regressed directly by a forest, beside the ice that follows from classes.

Neighbouring products regress ice content. Which way is better is judged on the same samples in the same folds, where a
quantile regression forest (Meinshausen 2006) also tells an interval. The map needs only its mean, which scikit-learn's
own forest of the same trees gives, so that is what is saved, and checked when read, like the classifier.
"""

import numpy as np

from helpers.core.classes import TARGETS, layer_name
from helpers.core.errors import CompendiumError
from helpers.forest import class_means
from helpers.forest.calibration import calibrate, fit_calibration
from helpers.forest.cards import model_card, model_path, save_model
from helpers.prepare.registry import used_predictors
from helpers.samples.rows import layer_rows, predictor_values


class RegressionError(CompendiumError):
    """Samples whose ice fraction cannot be regressed."""


def fit(study, rows, weight=None, quantiles=False, n_estimators=None):
    """Grow a regression forest of the ice fraction.

    Parameters
    ----------
    study : helpers.core.study.Study
    rows : pandas.DataFrame
        Samples of one layer.
    weight : str, optional
        Column of their weights, such as the area that each stands for; without, a forest shrinks towards the mean of
        the samples, which is icier than the area's.
    quantiles : bool
        Grow one that also tells quantiles; its trees, and so its mean, are the same.
    n_estimators : int, optional
        Trees; those of the final forests by default.

    Returns
    -------
    sklearn.ensemble.RandomForestRegressor or quantile_forest.RandomForestQuantileRegressor

    Raises
    ------
    RegressionError
        Samples have no ice fraction, or one that is no share.
    helpers.samples.rows.ForestError
        Samples lack a predictor.
    """
    from sklearn.ensemble import RandomForestRegressor

    settings, fraction = study.regression, _fraction(rows)
    params = {
        "n_estimators": n_estimators or study.forest.n_estimators,
        "max_features": settings.max_features,
        "min_samples_leaf": settings.min_samples_leaf,
        "random_state": study.forest.seed,
        "n_jobs": 1,
    }
    if quantiles:
        from quantile_forest import RandomForestQuantileRegressor

        model = RandomForestQuantileRegressor(max_samples_leaf=None, **params)
    else:
        model = RandomForestRegressor(**params)
    values = predictor_values(rows, used_predictors(study))
    return model.fit(values, fraction, rows[weight].to_numpy(float) if weight else None)


def _fraction(rows):
    if "ice_fraction" not in rows:
        raise RegressionError("The samples have no column ice_fraction.", "run 02-extract-samples again")
    fraction = rows["ice_fraction"].to_numpy(float)
    bad = ~((fraction >= 0) & (fraction <= 1))
    if bad.any():
        sites = ", ".join(rows.loc[bad, "site_id"].astype(str)[:5])
        raise RegressionError(
            f"{bad.sum()} samples have no ice fraction between 0 and 1, such as {sites}.",
            "correct their ice content, or drop them",
        )
    return fraction


def predict_interval(model, values, interval):
    """Return mean and interval of the ice fraction.

    Parameters
    ----------
    model : quantile_forest.RandomForestQuantileRegressor
        From `fit`.
    values : numpy.ndarray of float32, shape (n, predictors)
    interval : float
        Probability of the interval, as much of the rest below as above it.

    Returns
    -------
    numpy.ndarray, shape (n, 3)
        Mean, lower and upper end.

    References
    ----------
    Meinshausen, N. (2006). Quantile regression forests. J. Mach. Learn. Res. 7, 983-999.
    """
    # Leaves weigh alike whatever their size: Meinshausen's weights, with which the mean is the forest's own.
    mean = model.predict(values, quantiles="mean", weighted_leaves=True)
    ends = model.predict(values, quantiles=[(1 - interval) / 2, (1 + interval) / 2], weighted_leaves=True)
    return np.column_stack([mean, ends])


def regress_out_of_fold(study, rows, fold, weight=None, n_jobs=-1):
    """Predict samples by regression forests that were grown without their fold.

    Parameters
    ----------
    study : helpers.core.study.Study
        Forests have its `folds.estimators` trees.
    rows : pandas.DataFrame
        Samples of one layer.
    fold : numpy.ndarray of int, shape (n,)
    weight : str, optional
        As for `fit`.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    numpy.ndarray, shape (n, 3)
        As from `predict_interval`.
    """
    from joblib import Parallel, delayed

    numbers, found = np.unique(fold), np.empty((len(rows), 3))
    parts = Parallel(n_jobs)(delayed(_held_out)(study, rows, fold == number, weight) for number in numbers)
    for number, part in zip(numbers, parts, strict=True):
        found[fold == number] = part
    return found


def _held_out(study, rows, held, weight):
    model = fit(study, rows[~held], weight, quantiles=True, n_estimators=study.folds.estimators)
    values = predictor_values(rows[held], used_predictors(study))
    return predict_interval(model, values, study.regression.interval)


def expected_ice(study, rows, probabilities, fold, weight=None):
    """Return the ice that a classifier's probabilities let expect, as the map has it, but out of fold.

    Probabilities of a fold are calibrated by those of the other folds, and weighted with their class means.

    Parameters
    ----------
    study : helpers.core.study.Study
    rows : pandas.DataFrame
        Samples of one layer with their class.
    probabilities : numpy.ndarray, shape (n, k)
        The classifier's own, from forests that did not see the sample's fold.
    fold : numpy.ndarray of int, shape (n,)
    weight : str, optional
        Column of weights in the calibration.

    Returns
    -------
    numpy.ndarray, shape (n,)
        m3 of ice per m3 of the layer.
    """
    codes, expected = TARGETS[study.target].codes, np.empty(len(rows))
    for number in np.unique(fold):
        held = fold == number
        known = rows[~held]
        calibration = fit_calibration(probabilities[~held], known["class"], known[weight] if weight else None)
        means = np.asarray(class_means.class_means(known, codes))
        expected[held] = np.einsum("nk,k->n", calibrate(probabilities[held], calibration), means)
    return expected


def save_forests(study, table, weight=None):
    """Grow and save the regression forest of each layer that the storage map can be made from.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples; those that `forest.map_fit` names are used.
    weight : str, optional
        As for `fit`.

    Returns
    -------
    dict
        Path of each model file to its card.
    """
    cards = {}
    for layer in map(layer_name, study.layers):
        rows = layer_rows(table, layer, study.forest.map_fit, study.target)
        model, path = fit(study, rows, weight), model_path(study, layer, "regression")
        params = {name: getattr(model, name) for name in ("n_estimators", "max_features", "min_samples_leaf")}
        card = model_card(study, layer, study.forest.map_fit, rows, class_means.REGRESSED, params)
        cards[path] = save_model(path, model, card)
    return cards
