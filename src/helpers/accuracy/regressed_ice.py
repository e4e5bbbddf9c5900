"""Ice from classes beside ice that is regressed, at samples out of fold."""

import numpy as np
import pandas as pd

from helpers.core.classes import layer_name
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import DOMAINS
from helpers.folds import blocks, kinds, units
from helpers.folds.weights import area_weights
from helpers.forest import out_of_fold
from helpers.forest.regression import expected_ice, regress_out_of_fold
from helpers.samples.rows import layer_rows

MODELS = {"classes": "from classes", "regression": "regressed"}
"""Ways to the ice of a place: labels by their keys in ``ice_fraction.csv`` and in the setting `storage_from`."""


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
    layers = [layer_name(layer) for layer in study.layers]
    rows = [layer_rows(table, layer, "train", study.target) for layer in layers]
    folds = [kinds.sample_folds(study, part, kind) for part in rows]
    jobs = list(zip(rows, folds, (params[layer] for layer in layers), strict=True))
    found = []
    for (part, fold, _), chances in zip(jobs, out_of_fold.out_of_fold(study, jobs, n_jobs), strict=True):
        places, unit = part[["easting", "northing"]].to_numpy(float), units.sample_units(study, part)
        part["area_weight"] = area_weights(study, part)
        mean, low, high = regress_out_of_fold(study, part, fold, "area_weight", n_jobs).T
        one = part[["layer", "site_id", "in_domain", "ice_fraction"]].assign(
            block=blocks.blocks(places, unit, 1000 * study.folds.block_km),
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
    found = []
    for layer, rows in predicted.groupby("layer", sort=False):
        for domain, inside in zip(DOMAINS, (np.ones(len(rows), bool), rows["in_domain"].to_numpy(bool)), strict=True):
            if inside.any():
                found += _scored({"layer": layer, "domain": domain, "n": int(inside.sum())}, rows[inside], rng)
    return pd.DataFrame(found)


def _scored(first, rows, rng):
    known = rows["ice_fraction"].to_numpy()
    number, counts = blocks.sample_blocks(rows["block"], blocks.DRAWS, rng)
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


def plot_regressed_ice(study, predicted):
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
