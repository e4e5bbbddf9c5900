"""Importance of predictors: by permutation, and as Shapley values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from sklearn.base import ClassifierMixin

from helpers.core.classes import layer_title
from helpers.core.parallel import show_progress
from helpers.core.plot import mark_label, panels
from helpers.core.scores import bootstrap_matrices, confusion_matrix, interval, kappa
from helpers.core.study import Study
from helpers.folds import blocks
from helpers.forest.leaves import most_probable
from helpers.forest.models import PREDICTION_BATCH
from helpers.prepare.columns import column_title, places_of, predictors_of
from helpers.samples.rows import predictor_values

REPEATS = 10
"""Shuffles of each predictor in permutation importance."""

_SHOWN = 12  # predictors in the figure of Shapley values

_CHUNK = 20  # sites whose Shapley values are computed between two steps of the progress bar


def shapley_values(forest: ClassifierMixin, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each predictor adds to a forest's probabilities: TreeSHAP (Lundberg, 2020).

    Predictors that are left out are averaged over as the trees' training samples are shared out at
    their nodes. The probabilities without any predictor, shape (k,), and these parts, shape (n,
    predictors, k), add up to `forest.predict_proba`.

    References
    ----------
    Lundberg, S. M., and others (2020). From local explanations to global understanding with
    explainable AI for trees. Nature Machine Intelligence 2, 56-67.
    https://doi.org/10.1038/s42256-019-0138-9
    """
    explainer = shapley_explainer(forest)
    return explainer.expected_value, explainer.shap_values(values)


def shapley_explainer(forest: ClassifierMixin) -> Any:
    """Return what `shapley_values` asks, for many calls with one forest."""
    import shap

    return shap.TreeExplainer(forest, feature_perturbation="tree_path_dependent")


def shapley_layer(
    model: ClassifierMixin,
    card: dict[str, Any],
    rows: pd.DataFrame,
    rng: np.random.Generator,
    number: int,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Return Shapley values of the forest's probabilities of a layer's classes, at some samples.

    There is one row a site, predictor and class. Of the samples of the layer, `rows`, `number` are
    drawn where there are more.
    """
    chosen = rows.sort_index()
    if len(chosen) > number:
        chosen = chosen.iloc[np.sort(rng.choice(len(chosen), number, replace=False))]
    values = predictor_values(chosen, card["predictors"])
    chunks = [values[first : first + _CHUNK] for first in range(0, len(values), _CHUNK)]
    run = Parallel(n_jobs, prefer="threads", return_as="generator")
    explained = run(delayed(shapley_values)(model, chunk) for chunk in chunks)
    title = f"{card['layer']}, sites by {_CHUNK}"
    bases, parts = zip(*show_progress(explained, len(chunks), title), strict=True)
    parts = np.concatenate(parts)
    sites = np.tile(chosen["site_id"], values.shape[1])
    names = np.repeat(card["predictors"], len(chosen))
    columns = {"site_id": sites, "predictor": names, "value": values.T.ravel()}
    tables = []
    for base, part, code in zip(bases[0], np.moveaxis(parts, -1, 0), model.classes_, strict=True):
        tables.append(pd.DataFrame(columns | {"class": code, "base": base, "part": part.T.ravel()}))
    return pd.concat(tables, ignore_index=True)


def shapley_importance(study: Study, table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean size of Shapley values of a layer by predictor and class, with intervals.

    Sizes are in units of probability, and intervals over blocks of samples. The table is that of
    `shapley_layer`, the rows are the samples of the layer.
    """
    size = table.assign(part=table["part"].abs())
    size = size.pivot_table("part", "site_id", ["predictor", "class"])
    sites = rows.set_index("site_id").loc[size.index].reset_index()
    block, counts = blocks.bootstrap(study, sites)
    sums = np.stack([np.bincount(block, part, counts.shape[1]) for part in size.to_numpy().T])
    drawn = np.einsum("db,pb->dp", counts.astype(float), sums)
    drawn /= (counts @ np.bincount(block))[:, np.newaxis]
    lower, upper = interval(drawn[1:], study.accuracy.interval, block)
    columns = {"mean_size": drawn[0], "lower": lower, "upper": upper}
    return pd.DataFrame(columns, index=size.columns).reset_index()


def plot_shapley(study: Study, table: pd.DataFrame) -> Figure:
    """Draw what the most important predictors add to the probability of permafrost, by layer.

    The table is that of `shapley_layer`, with the column layer.
    """
    absent = _without_permafrost(study, table)
    order = absent["part"].abs().groupby(absent["predictor"]).mean().nlargest(_SHOWN).index
    titles = [column_title(study, name) for name in order]
    layers = absent.groupby("layer", sort=False)
    figure, axes = panels(1, len(layers), 24 + 6.5 * len(order), sharex=True, sharey=True)
    look = {"s": 2, "cmap": "cividis", "vmin": 0, "vmax": 1}
    for panel, (layer, part) in zip(axes[0], layers, strict=True):
        for line, name in enumerate(order):
            here = part[part["predictor"] == name]
            added = -here["part"].to_numpy()
            rank = here["value"].rank(pct=True)
            points = panel.scatter(added, line + _swarm(added), c=rank, **look)
        panel.axvline(0, color="0.7", linewidth=0.5, zorder=0)
        panel.set_title(layer_title(layer))
        panel.set_yticks(range(len(order)), titles)
    axes[0, 0].invert_yaxis()
    figure.supxlabel("added to the probability of permafrost", fontsize="medium", y=0.03)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    bar = figure.colorbar(points, ax=axes, ticks=[0, 1], pad=0.01, aspect=40)
    bar.set_ticklabels(["lowest", "highest"])
    bar.set_label("value of the predictor, by rank", labelpad=-20)
    mark_label(figure, study.label)
    return figure


def _without_permafrost(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Return what predictors add to the probability of no permafrost, whatever its class."""
    free = table[table["class"].isin(study.target_classes.free)]
    keys = ["layer", "site_id", "predictor", "value"]
    return free.groupby(keys, sort=False)["part"].sum().reset_index()


def _swarm(values: np.ndarray) -> np.ndarray:
    """Return offsets that keep points of about one value apart: wider where there are more."""
    place = pd.Series(np.digitize(values, np.linspace(values.min(), values.max() + 1e-9, 61)))
    groups = place.groupby(place)
    size = groups.transform("size")
    return (0.76 * (groups.cumcount() - (size - 1) / 2) / size.max()).to_numpy()


def importance(
    study: Study,
    model: ClassifierMixin,
    card: dict[str, Any],
    rows: pd.DataFrame,
    groups: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Return permutation importance: how much kappa falls when a predictor is shuffled.

    All shuffled copies are predicted together, which is many times faster than one by one. Mean and
    standard deviation are over `REPEATS`, the interval over blocks of samples, all repeats taken
    together; the most important predictor comes first.

    The rows are samples that the forest was not grown from. Groups of predictors, such as from
    `helpers.samples.collinearity.correlated_groups`, are shuffled together: correlated predictors
    stand in for one another, so that each alone seems to matter little. By default each is one; the
    columns of a category are always together.
    """
    predictors = card["predictors"]
    groups = [[name] for name in predictors_of(predictors)] if groups is None else groups
    parts = [places_of(predictors, group) for group in groups]
    values, types = predictor_values(rows, predictors), rows["class"].to_numpy()
    size = int(max(model.classes_.max(), types.max())) + 1
    together = max(1, PREDICTION_BATCH // (REPEATS * len(values)))
    mapped = [np.zeros(0, int)]
    for first in range(0, len(parts), together):
        some = parts[first : first + together]
        copies = [_shuffled(values, part, card["seed"], REPEATS) for part in some]
        mapped.append(most_probable(model, np.concatenate(copies)))
    mapped = np.concatenate(mapped).reshape(len(parts), REPEATS, len(types))
    whole = most_probable(model, values)
    block, counts = blocks.bootstrap(study, rows)
    types_again, draws_again = np.tile(types, REPEATS), (np.tile(block, REPEATS), counts)
    score, *drawn = kappa(bootstrap_matrices(types, whole, size, (block, counts)))
    table = []
    for group, shuffled in zip(groups, mapped, strict=True):
        falls = [score - kappa(confusion_matrix(types, one, range(size))) for one in shuffled]
        matrices = bootstrap_matrices(types_again, shuffled.ravel(), size, draws_again)[1:]
        ends = interval(np.subtract(drawn, kappa(matrices)), study.accuracy.interval, block)
        table.append([" + ".join(group), np.mean(falls), np.std(falls, ddof=1), *ends])
    table = pd.DataFrame(table, columns=["predictor", "mean", "sd", "lower", "upper"])
    return table.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _shuffled(values: np.ndarray, columns: Sequence[int], seed: int, repeats: int) -> np.ndarray:
    """Return copies of values below each other; each has some columns shuffled, in one order."""
    rng = np.random.default_rng([seed, *columns])
    copies = np.repeat(values[np.newaxis], repeats, axis=0)
    orders = rng.permuted(np.tile(np.arange(len(values)), (repeats, 1)), axis=1)
    for column in columns:
        copies[:, :, column] = values[:, column][orders]
    return copies.reshape(-1, values.shape[1])
