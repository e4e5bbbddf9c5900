"""How predictions depend on predictors: accumulated local effects and Shapley values.

Partial dependence averages predictions over combinations of predictors that do not occur, such as cold air over warm
ground; accumulated local effects add up differences within small intervals of a predictor, among the samples that
really lie there (Apley and Zhu, 2020), so that correlated predictors do not mislead. Shapley values part the prediction
of a single site among its predictors.
"""

import numpy as np

from helpers.core.ice import TARGETS, layer_name
from helpers.forest import models

INTERVALS = 20
"""Intervals of a predictor, each with about as many samples."""


_COLUMNS = 4  # of panels


_SHOWN = 12  # predictors in the figure of Shapley values


_CHUNK = 20  # sites whose Shapley values are computed between two steps of the progress bar


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
        Bootstrap draws of the samples, from `helpers.folds.kinds.block_draws`.
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
    import pandas as pd
    from joblib import Parallel, delayed

    from helpers.accuracy.report import interval
    from helpers.folds import kinds

    values, draws = models.predictor_values(rows, card["predictors"]), kinds.bootstrap(study, rows)

    def predict(part):
        return models.calibrate(models.class_probabilities(model, part, card["classes"]), card["calibration"])

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
    return pd.concat(_progress(found, len(predictors), f"{card['layer']}, predictors"))


def _progress(steps, number, name):
    """Show how many of the steps are done, in one line of text."""
    import sys

    from tqdm import tqdm

    return tqdm(steps, name, number, file=sys.stdout, ascii=" #", mininterval=1)


def shapley_values(forest, values):
    """Return what each predictor adds to a forest's probabilities (TreeSHAP; Lundberg and others 2020).

    What is not known of a site is averaged over as the trees' training samples are shared out at their nodes.

    Parameters
    ----------
    forest : sklearn.ensemble.RandomForestClassifier
    values : numpy.ndarray, shape (n, predictors)

    Returns
    -------
    base : numpy.ndarray, shape (k,)
        Probabilities when no predictor is known.
    parts : numpy.ndarray, shape (n, predictors, k)
        They add up, with the base, to `forest.predict_proba`.

    References
    ----------
    Lundberg, S. M., and others (2020). From local explanations to global understanding with explainable AI for trees.
    Nature Machine Intelligence 2, 56-67. https://doi.org/10.1038/s42256-019-0138-9
    """
    import shap

    explainer = shap.TreeExplainer(forest, feature_perturbation="tree_path_dependent")
    return explainer.expected_value, explainer.shap_values(values)


def shapley_layer(model, card, rows, rng, number, n_jobs=-1):
    """Return Shapley values of the raw probabilities of a layer's classes, at some of its samples.

    Those of calibrated probabilities would need the calibration among the trees. Of a two-stage model, class 0 is that
    of the first forest and types are those of the second, given permafrost.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    card : dict
    rows : pandas.DataFrame
        Samples of the layer.
    rng : numpy.random.Generator
        Draws the samples, where there are more than `number`.
    number : int
    n_jobs : int
        Threads at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a site, predictor and class: ``site_id``, ``predictor``, ``value``, ``class``, ``base`` and ``part``.
    """
    import pandas as pd
    from joblib import Parallel, delayed

    chosen = rows.sort_index()
    if len(chosen) > number:
        chosen = chosen.iloc[np.sort(rng.choice(len(chosen), number, replace=False))]
    values = models.predictor_values(chosen, card["predictors"])
    stages = getattr(model, "stages_", [model])
    chunks = [values[first : first + _CHUNK] for first in range(0, len(values), _CHUNK)]
    tasks = [delayed(shapley_values)(stage, chunk) for stage in stages for chunk in chunks]
    found = Parallel(n_jobs, prefer="threads", return_as="generator")(tasks)
    found = list(_progress(found, len(tasks), f"{card['layer']}, sites by {_CHUNK}"))
    tables = []
    for place, stage in enumerate(stages):
        ours = found[place * len(chunks) : (place + 1) * len(chunks)]
        base, parts = ours[0][0], np.concatenate([part for _, part in ours])
        for column, code in enumerate(stage.classes_):
            if len(stages) == 2 and place == 0 and code:
                continue  # permafrost in the first stage is what class 0 is not
            of_class = pd.DataFrame(parts[..., column], columns=card["predictors"])
            of_class = of_class.assign(site_id=chosen["site_id"].to_numpy()).melt("site_id", var_name="predictor")
            known = np.ravel(values, order="F")
            tables.append(
                of_class.rename(columns={"value": "part"}).assign(value=known, base=base[column], **{"class": code})
            )
    return pd.concat(tables, ignore_index=True)[["site_id", "predictor", "value", "class", "base", "part"]]


def shapley_importance(study, table, rows):
    """Return the mean size of Shapley values of a layer by predictor and class, with intervals.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its `accuracy` for the bootstrap of blocks.
    table : pandas.DataFrame
        Of `shapley_layer`.
    rows : pandas.DataFrame
        The samples of the layer.

    Returns
    -------
    pandas.DataFrame
        ``predictor``, ``class``, ``mean_size`` in units of probability, and the ends ``lower`` and ``upper`` of its
        interval over blocks of samples.
    """
    import pandas as pd

    from helpers.accuracy.report import interval
    from helpers.folds import kinds

    size = table.assign(part=table["part"].abs()).pivot_table("part", "site_id", ["predictor", "class"])
    sites = rows.set_index("site_id").loc[size.index].reset_index()
    block, counts = kinds.bootstrap(study, sites)
    sums = np.stack([np.bincount(block, part, counts.shape[1]) for part in size.to_numpy().T])
    drawn = np.einsum("db,pb->dp", counts.astype(float), sums) / (counts @ np.bincount(block))[:, np.newaxis]
    lower, upper = interval(drawn[1:], study.accuracy.interval, block)
    columns = {"mean_size": drawn[0], "lower": lower, "upper": upper}
    return pd.DataFrame(columns, index=size.columns).reset_index()


def draw_shapley(study, table):
    """Draw what the most important predictors add to the probability that there is permafrost, by layer.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Of `shapley_layer`, with the column layer.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    from helpers.core.plot import WIDTH_MM, mark_simulated, style
    from helpers.prepare.registry import covariates

    style()
    frozen = table[table["class"] == TARGETS[study.target].codes[0]]
    order = frozen["part"].abs().groupby(frozen["predictor"]).mean().nlargest(_SHOWN).index
    titles, known = {name: item.title for name, item in covariates(study).items()}, frozen.groupby("layer", sort=False)
    height = 24 + 6.5 * len(order)
    figure, axes = plt.subplots(1, len(known), figsize=(WIDTH_MM / 25.4, height / 25.4), sharex=True, sharey=True)
    for panel, (layer, part) in zip(np.atleast_1d(axes), known, strict=True):
        for line, name in enumerate(order):
            here = part[part["predictor"] == name]
            rank = here["value"].rank(pct=True)
            # Permafrost is what class 0 is not.
            points = panel.scatter(
                -here["part"], line + _swarm(-here["part"].to_numpy()), s=2, c=rank, cmap="cividis", vmin=0, vmax=1
            )
        panel.axvline(0, color="0.7", linewidth=0.5, zorder=0)
        panel.set_title(f"{layer.removesuffix('m')} m")
        panel.set_yticks(range(len(order)), [titles.get(name, name) for name in order])
    panel.invert_yaxis()
    figure.supxlabel("added to the probability of permafrost", fontsize="medium", y=0.03)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    bar = figure.colorbar(points, ax=axes, ticks=[0, 1], pad=0.01, aspect=40)
    bar.set_ticklabels(["lowest", "highest"])
    bar.set_label("value of the predictor, by rank", labelpad=-20)
    if study.simulated:
        mark_simulated(figure)
    return figure


def _swarm(values, bins=60, width=0.38):
    """Return offsets that keep points of nearly the same value apart: wider where there are more."""
    edges = np.linspace(values.min(), values.max() + 1e-9, bins + 1)
    place = np.digitize(values, edges)
    many = np.bincount(place).max()
    offsets = np.empty(len(values))
    for number in np.unique(place):
        here = np.flatnonzero(place == number)
        offsets[here] = (np.arange(len(here)) - (len(here) - 1) / 2) / max(many, 1)
    return 2 * width * offsets


def draw_effects(study, table):
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

    from helpers.core.plot import WIDTH_MM, mark_simulated, style
    from helpers.prepare.registry import covariates

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
