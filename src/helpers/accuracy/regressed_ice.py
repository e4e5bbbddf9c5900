"""Ice from classes beside ice that is regressed, at samples out of fold."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.core.classes import layer_title
from helpers.core.plot import mark_label, panels
from helpers.core.study import Study
from helpers.folds import blocks
from helpers.folds.weights import area_weights
from helpers.forest import out_of_fold
from helpers.forest.regression import expected_ice, regress_out_of_fold
from helpers.prepare.domain import by_domain

MODELS = {"classes": "from classes", "regression": "regressed"}
"""Ways to the ice of a place, as the setting `storage_from` names them, and their labels."""


def predict_samples(
    study: Study, table: pd.DataFrame, params: dict[str, dict[str, Any]], n_jobs: int = -1
) -> pd.DataFrame:
    """Predict the ice fraction of training samples out of fold, both ways in the same kNNDM folds.

    Both weigh samples by the area that they stand for, as the map does. There is one row a sample,
    with its square block of `folds.block_km`, the measured ``ice_fraction``, the predicted ones,
    and the interval of the regression from ``low`` to ``high``. Hyperparameters are the
    classifier's, by layer.
    """
    jobs = out_of_fold.training_jobs(study, table, params)
    chances = out_of_fold.out_of_fold(study, jobs, n_jobs)
    tables = []
    for (part, fold, _), probabilities in zip(jobs, chances, strict=True):
        part["area_weight"] = area_weights(study, part)
        mean, low, high = regress_out_of_fold(study, part, fold, "area_weight", n_jobs).T
        predicted = part[["layer", "site_id", "in_domain", "ice_fraction"]].assign(
            block=blocks.study_blocks(study, part, study.folds.block_km),
            classes=expected_ice(study, part, probabilities, fold, "area_weight"),
            regression=mean,
            low=low,
            high=high,
        )
        tables.append(predicted)
    return pd.concat(tables, ignore_index=True)


def score_ice(study: Study, predicted: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Score both ways to the ice fraction, from `predict_samples`, everywhere and in the domain.

    There is one row a layer, domain and model (a key of `MODELS`). R2 is one less the squared
    errors over those of the samples' own mean, NaN where all samples are equal; bias is predicted
    less measured, m3 m-3. Of the regression there are also the share of samples within the
    interval (`coverage`), its mean width, and by how much its RMSE is above that of the classes,
    with the 95 % interval of that, from a bootstrap of spatial blocks.
    """
    scores = []
    for layer, rows in predicted.groupby("layer", sort=False):
        for domain, inside in by_domain(study, rows["in_domain"]):
            if inside.any():
                first = {"layer": layer, "domain": domain, "n": int(inside.sum())}
                scores += [first | row for row in _scores(rows[inside], rng)]
    return pd.DataFrame(scores)


def _scores(rows: pd.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    measured = rows["ice_fraction"].to_numpy()
    block, counts = blocks.sample_blocks(rows["block"], blocks.DRAWS, rng)
    number = np.einsum("db,b->d", counts, np.bincount(block))
    spread = ((measured - measured.mean()) ** 2).sum()
    drawn, scores = {}, []
    for model in MODELS:
        error = rows[model].to_numpy() - measured
        squares = np.bincount(block, error**2)
        drawn[model] = np.sqrt(np.einsum("db,b->d", counts, squares) / number)
        r2 = np.nan if np.ptp(measured) == 0 else 1 - squares.sum() / spread
        scores.append({"model": model, "r2": r2, "rmse": drawn[model][0], "bias": error.mean()})
    more = drawn["regression"] - drawn["classes"]
    low, high = np.percentile(more[1:], [2.5, 97.5])
    within = (rows["low"] <= measured) & (measured <= rows["high"])
    scores[-1] |= {"coverage": within.mean(), "width": (rows["high"] - rows["low"]).mean()}
    scores[-1] |= {"rmse_difference": more[0], "rmse_low": low, "rmse_high": high}
    return scores


def plot_regressed_ice(study: Study, predicted: pd.DataFrame) -> Figure:
    """Draw measured over predicted ice of each layer, from `predict_samples`, in both ways."""
    layers = predicted["layer"].unique()
    figure, axes = panels(2, len(layers), 110, sharex=True, sharey=True)
    top = float(np.ceil(predicted[["ice_fraction", "high"]].to_numpy().max() * 10) / 10)
    for (model, title), row in zip(MODELS.items(), axes, strict=True):
        for layer, panel in zip(layers, row, strict=True):
            part = predicted[predicted["layer"] == layer].sort_values(model)
            x, y = part[model], part["ice_fraction"]
            if model == "regression":
                label = f"interval of {100 * study.regression.interval:g} %"
                panel.vlines(x, part["low"], part["high"], "0.8", linewidth=0.6, label=label)
            panel.plot(x, y, ".", markersize=3, color="#0072b2", label="a sample")
            panel.plot([0, top], [0, top], color="0.4", linewidth=0.7, label="known = predicted")
            panel.set_title(f"{layer_title(layer)}, {title}")
        row[0].set_ylabel("known (m³ m⁻³)")
    axes[0, 0].set(xlim=(0, top), ylim=(-0.02, top))
    for panel in axes[1]:
        panel.set_xlabel("predicted out of fold (m³ m⁻³)")
    handles = axes[1, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    mark_label(figure, study.label)
    return figure
