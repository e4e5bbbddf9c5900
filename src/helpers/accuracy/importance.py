"""Importance of predictors: by permutation, and as Shapley values."""

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.parallel import show_progress
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import bootstrap_matrices, confusion_matrix, interval, kappa
from helpers.folds import blocks
from helpers.forest.models import PREDICTION_BATCH
from helpers.prepare.registry import covariates
from helpers.samples.rows import predictor_values

_SHOWN = 12  # predictors in the figure of Shapley values


_CHUNK = 20  # sites whose Shapley values are computed between two steps of the progress bar


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
    from joblib import Parallel, delayed

    chosen = rows.sort_index()
    if len(chosen) > number:
        chosen = chosen.iloc[np.sort(rng.choice(len(chosen), number, replace=False))]
    values = predictor_values(chosen, card["predictors"])
    stages = getattr(model, "stages_", [model])
    chunks = [values[first : first + _CHUNK] for first in range(0, len(values), _CHUNK)]
    tasks = [delayed(shapley_values)(stage, chunk) for stage in stages for chunk in chunks]
    found = Parallel(n_jobs, prefer="threads", return_as="generator")(tasks)
    found = list(show_progress(found, len(tasks), f"{card['layer']}, sites by {_CHUNK}"))
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
    size = table.assign(part=table["part"].abs()).pivot_table("part", "site_id", ["predictor", "class"])
    sites = rows.set_index("site_id").loc[size.index].reset_index()
    block, counts = blocks.bootstrap(study, sites)
    sums = np.stack([np.bincount(block, part, counts.shape[1]) for part in size.to_numpy().T])
    drawn = np.einsum("db,pb->dp", counts.astype(float), sums) / (counts @ np.bincount(block))[:, np.newaxis]
    lower, upper = interval(drawn[1:], study.accuracy.interval, block)
    columns = {"mean_size": drawn[0], "lower": lower, "upper": upper}
    return pd.DataFrame(columns, index=size.columns).reset_index()


def plot_shapley(study, table):
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


def importance(model, values, types, predictors, seed, repeats=10, groups=None, draws=None, probability=0.9):
    """Return permutation importance: how much kappa falls when a predictor's values are shuffled.

    All shuffled copies are predicted together, which is many times faster than one by one.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    values : numpy.ndarray, shape (n, predictors)
        Predictors of samples that the forest was not grown from.
    types : array_like of int, shape (n,)
        Their classes.
    predictors : sequence of str
    seed : int
    repeats : int
        Shuffles of each predictor.
    groups : list of list of str, optional
        Predictors that are shuffled together, such as from `helpers.samples.collinearity.correlated_groups`:
        predictors that tell
        the same stand in for one another, so that each alone seems to matter little. By default each is one.
    draws : tuple of numpy.ndarray, optional
        Bootstrap draws of the samples, from `helpers.folds.blocks.bootstrap`.
    probability : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        Columns predictor (a group's joined by " + "), mean and sd (of the fall of kappa, over repeats), and with draws
        the ends ``lower`` and ``upper`` of its interval over blocks of samples, all repeats taken together; the most
        important first.
    """
    classes = np.union1d(model.classes_, types)  # kappa does not depend on others
    parts = [[column] for column in range(len(predictors))]
    if groups is not None:
        parts = [[list(predictors).index(name) for name in group] for group in groups]
    names = [" + ".join(predictors[column] for column in part) for part in parts]

    def predicted(block):
        return model.predict(block).reshape(-1, len(types))

    def score(part):
        return kappa(confusion_matrix(types, part, classes))

    together = max(1, PREDICTION_BATCH // (repeats * len(values)))
    mapped = [np.zeros((0, len(types)), int)]
    for first in range(0, len(parts), together):
        block = [_shuffled(values, part, seed, repeats) for part in parts[first : first + together]]
        mapped.append(predicted(np.concatenate(block)))
    mapped, (whole,) = np.concatenate(mapped).reshape(len(parts), repeats, len(types)), predicted(values)
    falls = score(whole) - np.array([[score(part) for part in each] for each in mapped]).reshape(len(parts), repeats)
    found = pd.DataFrame({"predictor": names, "mean": falls.mean(axis=1), "sd": falls.std(axis=1, ddof=1)})
    if draws is not None:
        size = int(classes.max()) + 1
        unshuffled = kappa(bootstrap_matrices(types, whole, size, draws)[1:])
        ends = []
        for each in mapped:
            again = np.tile(draws[0], repeats), draws[1]
            shuffled = bootstrap_matrices(np.tile(types, repeats), each.ravel(), size, again)[1:]
            ends.append(interval(np.subtract(unshuffled, kappa(shuffled)), probability, draws[0]))
        found[["lower", "upper"]] = np.reshape(ends, (len(parts), 2))
    return found.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _shuffled(values, columns, seed, repeats):
    """Return copies of the values below each other, some columns shuffled in each, all by one order."""
    copies, rng = np.repeat(values[np.newaxis], repeats, axis=0), np.random.default_rng([seed, *columns])
    orders = rng.permuted(np.tile(np.arange(len(values)), (repeats, 1)), axis=1)
    for column in columns:
        copies[:, :, column] = values[:, column][orders]
    return copies.reshape(-1, values.shape[1])
