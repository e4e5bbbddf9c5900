"""Predictors that tell the same: rank correlation, variance inflation, correlated groups."""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import complete, fcluster
from scipy.spatial.distance import squareform

from helpers.core.plot import WIDTH_MM, colour_map, mark_simulated, style
from helpers.prepare.registry import covariates

COLLINEAR = 1e8
"""From this variance inflation factor on, a predictor is said to follow wholly from others: float32 files know no
more digits."""


_STRONG = 0.7  # from this |correlation| on it is written into its field; a usual limit of what is called collinear


# --- Collinearity ------------------------------------------------------------------------------------------


def rank_correlation(table, predictors):
    """Return Spearman's rank correlation of predictors at the sites.

    Parameters
    ----------
    table : pandas.DataFrame
        With site_id and predictors; each site counts once.
    predictors : sequence of str

    Returns
    -------
    pandas.DataFrame, shape (k, k)
        NaN for a constant predictor.
    """
    return table.drop_duplicates("site_id")[list(predictors)].corr("spearman")


def collinearity_table(table, predictors):
    """Return what each predictor shares with the others at the sites.

    Parameters
    ----------
    table : pandas.DataFrame
        With site_id and predictors; each site counts once.
    predictors : sequence of str

    Returns
    -------
    pandas.DataFrame
        Index `predictor`. vif, the variance inflation factor 1 / (1 - R2) of its regression on all others, infinite
        where it follows wholly from them and NaN where it is constant; nearest, the other predictor with the largest
        absolute rank correlation, and that correlation, spearman; remark, which names the constant and the wholly
        collinear ones.

    Notes
    -----
    The factors are the diagonal of the inverse correlation matrix. Where that is singular, its null vectors are the
    linear laws between predictors, such as sand + silt + clay = 100: predictors in one are infinitely inflated, and for
    all others the pseudoinverse serves. A forest does not suffer from collinear predictors, but their importance is
    shared out among them.
    """
    predictors = list(predictors)
    ranks = rank_correlation(table, predictors)
    values = table.drop_duplicates("site_id")[predictors].astype(float).dropna()
    factors, groups = variance_inflation(values.to_numpy())
    rows = {}
    for number, name in enumerate(predictors):
        others = ranks[name].drop(name)
        nearest = others.abs().idxmax() if others.notna().any() else ""
        partners = [predictors[other] for other in groups[number]]
        remark = f"follows from {', '.join(partners)}" if partners else ""
        rows[name] = {
            "vif": factors[number],
            "nearest": nearest,
            "spearman": others.get(nearest, np.nan),
            "remark": "constant" if np.isnan(factors[number]) else remark,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")


def variance_inflation(values):
    """Return the variance inflation factor of each column, and the columns that it follows from.

    Parameters
    ----------
    values : array_like, shape (n, k)
        Finite numbers.

    Returns
    -------
    factors : numpy.ndarray, shape (k,)
        Infinite for a column that follows from others, NaN for a constant one.
    partners : list of list of int
        For each column the others in its linear laws; empty where there is none.

    Examples
    --------
    >>> variance_inflation([[1, 0], [2, 1], [3, 0], [4, 3]])[0].round(3).tolist()
    [2.143, 2.143]
    """
    values = np.asarray(values, float)
    factors, partners = np.full(values.shape[1], np.nan), [[] for _ in range(values.shape[1])]
    centred = values - values.mean(axis=0) if len(values) else values
    spread = np.sqrt((centred**2).sum(axis=0))
    varies = np.flatnonzero(spread > 1e-6 * np.abs(values).max(axis=0, initial=0))
    if not varies.size:
        return factors, partners
    scaled = centred[:, varies] / spread[varies]
    weights, vectors = np.linalg.eigh(scaled.T @ scaled)
    null = vectors[:, weights < 1 / COLLINEAR]
    laws = np.abs(null @ null.T) > 1e-3
    kept = weights >= 1 / COLLINEAR
    factors[varies] = np.where(laws.diagonal(), np.inf, (vectors[:, kept] ** 2 / weights[kept]).sum(axis=1))
    for column, law in zip(varies, laws, strict=True):
        partners[column] = [int(other) for other in varies[law] if other != column]
    return factors, partners


def correlated_groups(ranks, limit):
    """Return the groups of predictors that tell much the same: each pair within one correlates above a limit.

    Parameters
    ----------
    ranks : pandas.DataFrame
        From `rank_correlation`.
    limit : float
        Smallest absolute rank correlation within a group, such as the setting `samples.correlated`.

    Returns
    -------
    list of list of str
        Groups of two or more, by complete linkage, the largest first.

    Examples
    --------
    >>> import pandas
    >>> names = ["a", "b", "c"]
    >>> ranks = pandas.DataFrame([[1, -0.9, 0.2], [-0.9, 1, 0.1], [0.2, 0.1, 1]], names, names)
    >>> correlated_groups(ranks, 0.7)
    [['a', 'b']]
    """
    if len(ranks) < 2:
        return []
    apart = 1 - np.nan_to_num(np.abs(ranks.to_numpy(float)))
    np.fill_diagonal(apart, 0)
    number = fcluster(complete(squareform(apart, checks=False)), 1 - limit, "distance")
    groups = [[str(name) for name in ranks.index[number == one]] for one in dict.fromkeys(number)]
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def plot_correlation(study, ranks):
    """Draw a matrix of rank correlations; those of at least 0.7 are written into their fields.

    Parameters
    ----------
    study : helpers.core.study.Study
    ranks : pandas.DataFrame
        From `rank_correlation`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    layers, count = covariates(study), len(ranks)
    titles = [layers[name].title for name in ranks]
    values = ranks.to_numpy(copy=True)
    values[np.triu_indices(count)] = np.nan  # every pair once
    figure, axes = plt.subplots(figsize=(WIDTH_MM / 25.4 * 0.85, WIDTH_MM / 25.4 * 0.78), layout="constrained")
    image = axes.imshow(values[1:, :-1], cmap=colour_map("vik"), vmin=-1, vmax=1)
    for row, column in np.argwhere(np.abs(values) >= _STRONG):
        text = f"{100 * values[row, column]:.0f}"
        axes.text(column, row - 1, text, ha="center", va="center", size=5.5, color="white")
    axes.set_xticks(range(count - 1), titles[:-1], rotation=90)
    axes.set_yticks(range(count - 1), titles[1:])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, cax=axes.inset_axes([0.6, 0.93, 0.36, 0.02]), orientation="horizontal")
    bar.set_label("rank correlation at the sites\n(percent written in where 70 or more)")
    bar.outline.set_visible(False)
    if study.simulated:
        mark_simulated(figure)
    return figure
