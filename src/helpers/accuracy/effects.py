"""How predictions depend on predictors: accumulated local effects and Shapley values.

Partial dependence averages predictions over combinations of predictors that do not occur, such as cold air over warm
ground; accumulated local effects add up differences within small intervals of a predictor, among the samples that
really lie there (Apley and Zhu, 2020), so that correlated predictors do not mislead. Shapley values part the prediction
of a single site among its predictors.
"""

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS, layer_name
from helpers.core.parallel import show_progress
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import interval
from helpers.folds import blocks
from helpers.forest import calibration, models
from helpers.prepare.registry import covariates
from helpers.samples.rows import predictor_values

INTERVALS = 20
"""Intervals of a predictor, each with about as many samples."""


_COLUMNS = 4  # of panels


def local_effects(predict, values, column, draws, intervals=INTERVALS):
    """Return the accumulated local effect of a predictor on probabilities.

    Parameters
    ----------
    predict : callable
        Returns probabilities, shape (n, k), of predictors.
    values : numpy.ndarray, shape (n, predictors)
        Of the samples that it is averaged over.
    column : int
    draws : tuple of numpy.ndarray
        Bootstrap draws of the samples, from `helpers.folds.blocks.sample_blocks`.
    intervals : int

    Returns
    -------
    edges : numpy.ndarray, shape (m,)
        Where the effect is known, in units of the predictor: quantiles of the samples.
    effects : numpy.ndarray, shape (1 + draws, m, k)
        Centred: their mean over samples is 0. The first is that of the samples as they are.

    References
    ----------
    Apley, D., Zhu, J. (2020). Visualizing the effects of predictor variables in black box supervised learning models.
    J. R. Stat. Soc. B 82, 1059-1086. https://doi.org/10.1111/rssb.12377
    """
    known = values[:, column]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, intervals + 1), method="inverted_cdf"))
    if len(edges) < 2:
        edges = np.repeat(edges, 2)
    place = np.clip(np.searchsorted(edges, known, side="left") - 1, 0, len(edges) - 2)
    ends = np.repeat(values[np.newaxis], 2, axis=0)
    ends[0, :, column], ends[1, :, column] = edges[place], edges[place + 1]
    below, above = np.split(predict(ends.reshape(-1, values.shape[1])), 2)
    # Samples, and differences of each class, by block and interval; draws then add up whole blocks.
    block, counts = draws
    cell, size = block * (len(edges) - 1) + place, counts.shape[1] * (len(edges) - 1)
    parts = [np.bincount(cell, part, minlength=size) for part in (None, *(above - below).T)]
    sums = np.einsum("db,pbi->pdi", counts.astype(float), np.reshape(parts, (len(parts), counts.shape[1], -1)))
    number, steps = sums[0], np.moveaxis(sums[1:], 0, -1) / np.maximum(sums[0], 1)[..., np.newaxis]
    effects = np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, axis=1)], axis=1)
    middle = (effects[:, 1:] + effects[:, :-1]) / 2
    mean = np.einsum("di,dik->dk", number, middle) / number.sum(axis=1)[:, np.newaxis]
    return edges, effects - mean[:, np.newaxis]


def explain_layer(study, model, card, rows, predictors, n_jobs=-1):
    """Return the accumulated local effects of predictors on the calibrated probabilities of a layer's classes.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its `accuracy` for the bootstrap of blocks.
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    card : dict
    rows : pandas.DataFrame
        Samples of the layer: the effects are those of the forest among them.
    predictors : sequence of str
        Those of the forest that are looked at.
    n_jobs : int
        Threads at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a predictor, class and value: ``predictor``, ``class``, ``value``, ``effect`` on the probability of the
        class, and the ends ``lower`` and ``upper`` of its interval over blocks of samples.
    """
    from joblib import Parallel, delayed

    values, draws = predictor_values(rows, card["predictors"]), blocks.bootstrap(study, rows)

    def predict(part):
        return calibration.calibrate(models.class_probabilities(model, part, card["classes"]), card["calibration"])

    def effects_of(name):
        edges, effects = local_effects(predict, values, card["predictors"].index(name), draws)
        lower, upper = interval(effects[1:], study.accuracy.interval, draws[0])
        shape = effects[0].shape
        return pd.DataFrame(
            {
                "predictor": name,
                "class": np.broadcast_to(card["classes"], shape).ravel(),
                "value": np.broadcast_to(edges[:, np.newaxis], shape).ravel(),
                "effect": effects[0].ravel(),
                "lower": lower.ravel(),
                "upper": upper.ravel(),
            }
        )

    found = Parallel(n_jobs, prefer="threads", return_as="generator")(delayed(effects_of)(name) for name in predictors)
    return pd.concat(show_progress(found, len(predictors), f"{card['layer']}, predictors"))


def plot_effects(study, table):
    """Draw accumulated local effects on the probability that there is permafrost, by predictor and layer.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Of `explain_layer`, with the column layer.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    known, names = covariates(study), list(dict.fromkeys(table["predictor"]))
    nrows, layers = -(-len(names) // _COLUMNS), [layer_name(layer) for layer in study.layers]
    colours = dict(zip(layers, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9") * len(layers), strict=False))
    height = 12 + 37 * nrows
    figure, axes = plt.subplots(nrows, _COLUMNS, figsize=(WIDTH_MM / 25.4, height / 25.4), sharey=True, squeeze=False)
    for panel, name in zip(axes.flat, names, strict=False):
        part = table[(table["predictor"] == name) & (table["class"] == TARGETS[study.target].codes[0])]
        for layer, line in part.groupby("layer", sort=False):
            # Permafrost is what class 0 is not.
            panel.fill_between(line["value"], -line["upper"], -line["lower"], color=colours[layer], alpha=0.15, lw=0)
            panel.plot(line["value"], -line["effect"], color=colours[layer], lw=1, label=f"{layer.removesuffix('m')} m")
        panel.axhline(0, color="0.7", linewidth=0.5, zorder=0)
        unit = f" ({known[name].unit})" if known[name].unit not in ("", "1") else ""
        panel.set_xlabel(f"{known[name].title}{unit}")
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("effect on permafrost")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncols=len(layers), frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1 - 6 / height))
    if study.simulated:
        mark_simulated(figure)
    return figure
