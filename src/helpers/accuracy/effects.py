"""How predictions depend on predictors: accumulated local effects.

Partial dependence averages predictions over combinations of predictors that do not occur, such as
cold air over warm ground; accumulated local effects add up differences within small intervals of a
predictor, among the samples that really lie there (Apley and Zhu, 2020), so that correlated
predictors do not mislead.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from helpers.core.classes import layer_name, layer_title
from helpers.core.parallel import show_progress
from helpers.core.plot import mark_label, panels
from helpers.core.scores import interval
from helpers.core.study import Study
from helpers.folds import blocks
from helpers.forest.hurdle import Hurdle
from helpers.prepare.registry import covariates
from helpers.samples.rows import predictor_values

INTERVALS = 20
"""Intervals of a predictor, each with about as many samples."""


def local_effects(
    predict: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    column: int,
    draws: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the accumulated local effect of a predictor, a column, on probabilities.

    Parameters
    ----------
    predict
        Returns probabilities, shape (n, k), of predictors.
    values : shape (n, predictors)
        Of the samples that it is averaged over.
    draws
        Bootstrap draws of the samples, from `helpers.folds.blocks.sample_blocks`.

    Returns
    -------
    edges : shape (m,)
        Where the effect is estimated, in units of the predictor: quantiles of the samples.
    effects : shape (1 + draws, m, k)
        Centred: their mean over samples is 0. The first is that of the samples as they are.

    References
    ----------
    Apley, D., Zhu, J. (2020). Visualizing the effects of predictor variables in black box
    supervised learning models. J. R. Stat. Soc. B 82, 1059-1086. https://doi.org/10.1111/rssb.12377

    Examples
    --------
    >>> values = np.array([[0.0, 9.0], [1.0, 5.0], [2.0, 7.0], [2.0, 6.0]])
    >>> draws = np.arange(4), np.ones((1, 4), int)  # each sample is a block, drawn once
    >>> # Each unit of the first predictor adds 0.2, whatever the second is.
    >>> edges, effects = local_effects(lambda x: x @ [[0.2], [0.05]], values, 0, draws)
    >>> edges.tolist(), effects[0, :, 0].round(2).tolist()
    ([0.0, 1.0, 2.0], [-0.2, 0.0, 0.2])
    """
    own = values[:, column]
    edges = np.unique(np.quantile(own, np.linspace(0, 1, INTERVALS + 1), method="inverted_cdf"))
    if len(edges) < 2:
        edges = np.repeat(edges, 2)
    place = np.clip(np.searchsorted(edges, own, side="left") - 1, 0, len(edges) - 2)
    ends = np.repeat(values[np.newaxis], 2, axis=0)
    ends[0, :, column] = edges[place]
    ends[1, :, column] = edges[place + 1]
    below, above = np.split(predict(ends.reshape(-1, values.shape[1])), 2)
    # Samples, and differences of each class, by block and interval; draws then add up whole blocks.
    block, counts = draws
    cell = block * (len(edges) - 1) + place
    size = counts.shape[1] * (len(edges) - 1)
    parts = [np.bincount(cell, part, minlength=size) for part in (None, *(above - below).T)]
    parts = np.reshape(parts, (len(parts), counts.shape[1], -1))
    sums = np.einsum("db,pbi->pdi", counts.astype(float), parts)
    number = sums[0]
    steps = np.moveaxis(sums[1:], 0, -1) / np.maximum(number, 1)[..., np.newaxis]
    effects = np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, axis=1)], axis=1)
    middle = (effects[:, 1:] + effects[:, :-1]) / 2
    mean = np.einsum("di,dik->dk", number, middle) / number.sum(axis=1)[:, np.newaxis]
    return edges, effects - mean[:, np.newaxis]


def explain_layer(
    study: Study, model: Hurdle, card: dict[str, Any], rows: pd.DataFrame, n_jobs: int = -1
) -> pd.DataFrame:
    """Return accumulated local effects on the probabilities of a layer's classes.

    The effects are those of the hurdle model in the domain, among the samples of the layer, `rows`.
    There is one row a predictor, class and value, with the interval of the effect over blocks of
    samples. Categories have no order, and so no such effect.
    """
    predictors, classes = card["predictors"], study.target_classes.codes
    values = predictor_values(rows, predictors)
    draws = blocks.bootstrap(study, rows)

    def predict(part: np.ndarray) -> np.ndarray:
        return model.predict(part, np.ones(len(part), bool)).classes

    def effects_of(name: str) -> pd.DataFrame:
        edges, effects = local_effects(predict, values, predictors.index(name), draws)
        lower, upper = interval(effects[1:], study.accuracy.interval, draws[0])
        columns = {"predictor": name, "class": np.tile(classes, len(edges))}
        columns |= {"value": np.repeat(edges, len(classes)), "effect": effects[0].ravel()}
        return pd.DataFrame(columns | {"lower": lower.ravel(), "upper": upper.ravel()})

    run = Parallel(n_jobs, prefer="threads", return_as="generator")
    numbers = [name for name in predictors if "=" not in name]
    tables = run(delayed(effects_of)(name) for name in numbers)
    return pd.concat(show_progress(tables, len(numbers), f"{card['layer']}, predictors"))


def plot_effects(study: Study, table: pd.DataFrame) -> Figure:
    """Draw accumulated local effects on the probability of permafrost, by predictor and layer.

    The table is that of `explain_layer`, with the column layer.
    """
    items = covariates(study)
    absent = table[table["class"].isin(study.target_classes.free)]
    # The ends of intervals add up only roughly where several classes are no permafrost.
    absent = absent.groupby(["layer", "predictor", "value"], sort=False)
    absent = absent[["effect", "lower", "upper"]].sum().reset_index()
    names = list(dict.fromkeys(table["predictor"]))
    layers = [layer_name(layer) for layer in study.layers]
    colours = cycle(("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"))
    colours = dict(zip(layers, colours, strict=False))
    nrows = -(-len(names) // 4)
    height = 12 + 37 * nrows
    figure, axes = panels(nrows, 4, height, sharey=True)
    for panel, name in zip(axes.flat, names, strict=False):
        for layer, line in absent[absent["predictor"] == name].groupby("layer", sort=False):
            x, look = line["value"], {"color": colours[layer]}
            panel.fill_between(x, -line["upper"], -line["lower"], alpha=0.15, lw=0, **look)
            panel.plot(x, -line["effect"], lw=1, label=layer_title(layer), **look)
        panel.axhline(0, color="0.7", linewidth=0.5, zorder=0)
        unit = f" ({items[name].unit})" if items[name].unit not in ("", "1") else ""
        panel.set_xlabel(items[name].title + unit)
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("effect on permafrost")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncols=len(layers), frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1 - 6 / height))
    mark_label(figure, study.label)
    return figure
