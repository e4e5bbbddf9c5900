"""The regression twin: ice regressed directly by a forest, beside the ice that follows from classes.

Neighbouring products regress ice content. Which way is better is judged on the same samples in the same folds, where a
quantile regression forest (Meinshausen 2006) also tells an interval. The map needs only its mean, which scikit-learn's
own forest of the same trees gives, so that is what is saved, and checked when read, like the classifier.
"""

import numpy as np

from helpers.accuracy import estimates
from helpers.accuracy.report import DOMAINS
from helpers.core.errors import CompendiumError
from helpers.core.ice import TARGETS, layer_name
from helpers.folds import kinds
from helpers.forest import models
from helpers.samples.labels import area_weights, used_predictors

MODELS = {"classes": "from classes", "regression": "regressed"}
"""Ways to the ice of a place: labels by their keys in ``ice_fraction.csv`` and in the setting `storage_from`."""


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
    helpers.forest.models.ForestError
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
    values = models.predictor_values(rows, used_predictors(study))
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


def out_of_fold(study, rows, fold, weight=None, n_jobs=-1):
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
    values = models.predictor_values(rows[held], used_predictors(study))
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
        calibration = models.fit_calibration(probabilities[~held], known["class"], known[weight] if weight else None)
        means = np.asarray(models.class_means(known, codes))
        expected[held] = np.einsum("nk,k->n", models.calibrate(probabilities[held], calibration), means)
    return expected


def predict_samples(study, table, params, kind=None, n_jobs=-1):
    """Predict the ice fraction of the training samples out of fold, in both ways and the same folds.

    Both weigh samples by the area that they stand for, as the map does.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its covariates must be there.
    table : pandas.DataFrame
        Samples of all layers; only training samples are looked at.
    params : dict of str to dict
        The classifier's hyperparameters of each layer.
    kind : str, optional
        Of folds, as `helpers.folds.kinds.sample_folds` takes it.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a sample: layer, site_id, in_domain, block (square, of `folds.block_km`), the known ice_fraction, and
        those predicted: ``classes``, ``regression``, and the latter's interval from ``low`` to ``high``.
    """
    import pandas as pd

    layers = [layer_name(layer) for layer in study.layers]
    rows = [models.layer_rows(table, layer, "train", study.target) for layer in layers]
    folds = [kinds.sample_folds(study, part, kind) for part in rows]
    jobs = list(zip(rows, folds, (params[layer] for layer in layers), strict=True))
    found = []
    for (part, fold, _), chances in zip(jobs, estimates.out_of_fold(study, jobs, n_jobs), strict=True):
        places, unit = part[["easting", "northing"]].to_numpy(float), kinds.sample_units(study, part)
        part["area_weight"] = area_weights(study, part)
        mean, low, high = out_of_fold(study, part, fold, "area_weight", n_jobs).T
        one = part[["layer", "site_id", "in_domain", "ice_fraction"]].assign(
            block=kinds.blocks(places, unit, 1000 * study.folds.block_km),
            classes=expected_ice(study, part, chances, fold, "area_weight"),
            regression=mean, low=low, high=high,
        )  # fmt: skip
        found.append(one)
    return pd.concat(found, ignore_index=True)


def score_ice(predicted, rng):
    """Score both ways to the ice fraction, in the whole area and in the potential-permafrost domain.

    Parameters
    ----------
    predicted : pandas.DataFrame
        From `predict_samples`.
    rng : numpy.random.Generator
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain and model (a key of `MODELS`): n; r2, one less the squared errors over those of the
        samples' own mean, NaN where all samples are equal; rmse and bias (predicted less known), m3 m-3. Of the
        regression also `coverage`, the share of samples within the interval, and `width`, its mean width, m3 m-3;
        `rmse_difference`, by how much its RMSE is above that of the classes, and the 95 % interval of that, `rmse_low`
        to `rmse_high`, from a bootstrap that draws spatial blocks.
    """
    import pandas as pd

    found = []
    for layer, rows in predicted.groupby("layer", sort=False):
        for domain, inside in zip(DOMAINS, (np.ones(len(rows), bool), rows["in_domain"].to_numpy(bool)), strict=True):
            if inside.any():
                found += _scored({"layer": layer, "domain": domain, "n": int(inside.sum())}, rows[inside], rng)
    return pd.DataFrame(found)


def _scored(first, rows, rng):
    known = rows["ice_fraction"].to_numpy()
    number, counts = kinds.block_draws(rows["block"], kinds.DRAWS, rng)
    size, spread, drawn, found = np.bincount(number), ((known - known.mean()) ** 2).sum(), {}, []
    for model in MODELS:
        error = rows[model].to_numpy() - known
        squares = np.bincount(number, error**2)
        drawn[model] = np.sqrt(np.einsum("db,b->d", counts, squares) / np.einsum("db,b->d", counts, size))
        r2 = np.nan if np.ptp(known) == 0 else 1 - squares.sum() / spread
        found.append(first | {"model": model, "r2": r2, "rmse": drawn[model][0], "bias": error.mean()})
    more = drawn["regression"] - drawn["classes"]
    low, high = np.percentile(more[1:], [2.5, 97.5])
    within = (rows["low"] <= known) & (known <= rows["high"])
    found[-1] |= {"coverage": within.mean(), "width": (rows["high"] - rows["low"]).mean()}
    found[-1] |= {"rmse_difference": more[0], "rmse_low": low, "rmse_high": high}
    return found


def draw_ice(study, predicted):
    """Draw known over predicted ice of each layer, in both ways, with the interval of the regression.

    Parameters
    ----------
    study : helpers.core.study.Study
    predicted : pandas.DataFrame
        From `predict_samples`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    from helpers.core.plot import WIDTH_MM, mark_simulated, style

    style()
    layers = predicted["layer"].unique()
    size = (WIDTH_MM / 25.4, 110 / 25.4)
    figure, axes = plt.subplots(2, len(layers), figsize=size, sharex=True, sharey=True, squeeze=False)
    top = float(np.ceil(predicted[["ice_fraction", "high"]].to_numpy().max() * 10) / 10)
    for (model, title), row in zip(MODELS.items(), axes, strict=True):
        for layer, panel in zip(layers, row, strict=True):
            part = predicted[predicted["layer"] == layer].sort_values(model)
            if model == "regression":
                label = f"interval of {100 * study.regression.interval:g} %"
                panel.vlines(part[model], part["low"], part["high"], color="0.8", linewidth=0.6, label=label)
            panel.plot(part[model], part["ice_fraction"], ".", markersize=3, color="#0072b2", label="a sample")
            panel.plot([0, top], [0, top], color="0.4", linewidth=0.7, label="known = predicted")
            panel.set_title(f"{layer.removesuffix('m')} m, {title}")
        row[0].set_ylabel("known (m³ m⁻³)")
    axes[0, 0].set(xlim=(0, top), ylim=(-0.02, top))
    for panel in axes[1]:
        panel.set_xlabel("predicted out of fold (m³ m⁻³)")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    if study.simulated:
        mark_simulated(figure)
    return figure


def compare_totals(study, table, cells=25_000):
    """Return the ground ice of each region in both ways, and in the virtual study the true one.

    Both come from the same systematic sample of the map's cells, each within the extent of permafrost: expected from
    the map's forest and class means, and from a regression forest of the same samples.

    Parameters
    ----------
    study : helpers.core.study.Study
        With forests (notebook 03).
    table : pandas.DataFrame
        Samples of all layers.
    cells : int
        About so many are looked at.

    Returns
    -------
    pandas.DataFrame
        One row a layer and region, with ``all`` for all layers and for all regions: km3 of ice by ``classes``, by
        ``regression`` and, with the truth, ``true``.
    """
    import pandas as pd
    import rasterio

    from helpers.mapping import predict
    from helpers.mapping.interval import sample_cells
    from testbed.boreholes import truth_files

    sample = sample_cells(study, used_predictors(study), cells)
    step = round(sample.side / study.grid.resolution)
    row, column = (step // 2 + step * place for place in (sample.row, sample.column))
    volumes = {}
    for top, bottom in study.layers:
        layer = layer_name((top, bottom))
        model, card = models.load_model(models.model_path(study, layer), study.target)
        rows = models.layer_rows(table, layer, card["fit"], study.target)
        rows["area_weight"] = area_weights(study, rows)
        _, chances = predict.predict(model, card["calibration"], sample.values, target=study.target)
        expected = {
            "classes": np.einsum("nk,k->n", chances, np.asarray(card["class_means"], np.float32)),
            "regression": predict.predict_ice(fit(study, rows, "area_weight"), sample.values),
        }
        found = {way: predict.within_extent(content, 1 - chances[:, 0]) for way, content in expected.items()}
        if study.draws_boreholes:
            with rasterio.open(truth_files(study)[f"ice_fraction_{layer}"]) as source:
                found["true"] = source.read(1)[row, column]
        scale = (bottom - top) * sample.side**2 / 1e9
        volumes[layer] = pd.DataFrame(
            {way: np.bincount(sample.region, content, len(sample.names)) * scale for way, content in found.items()},
            index=pd.Index(sample.names, name="region"),
        )
    volumes["all"] = sum(volumes.values())
    for volume in volumes.values():
        volume.loc["all"] = volume.sum()
    return pd.concat(volumes, names=["layer"]).reset_index()


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
        rows = models.layer_rows(table, layer, study.forest.map_fit, study.target)
        model, path = fit(study, rows, weight), models.model_path(study, layer, "regression")
        params = {name: getattr(model, name) for name in ("n_estimators", "max_features", "min_samples_leaf")}
        card = models.model_card(study, layer, study.forest.map_fit, rows, models.REGRESSED, params)
        cards[path] = models.save_model(path, model, card)
    return cards
