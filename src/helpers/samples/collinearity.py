"""Predictors that share information: rank correlation, variance inflation, correlated groups."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import complete, fcluster
from scipy.spatial.distance import squareform

from helpers.core.plot import WIDTH_MM, colour_map, mark_label, panels
from helpers.core.study import Study
from helpers.prepare.registry import covariates

COLLINEAR = 1e8
"""From this variance inflation factor on, a predictor counts as wholly determined by others:
float32 files have no more digits."""

_STRONG = 0.7  # a usual limit of |correlation| for what is called collinear


def rank_correlation(table: pd.DataFrame, predictors: Sequence[str]) -> pd.DataFrame:
    """Return Spearman's rank correlation of predictors at the sites, shape (k, k).

    Each site_id of the table counts once. NaN for a constant predictor.
    """
    return table.drop_duplicates("site_id")[list(predictors)].corr("spearman")


def collinearity_table(table: pd.DataFrame, predictors: Sequence[str]) -> pd.DataFrame:
    """Return what each predictor shares with the others at the sites; each site_id counts once.

    Returns
    -------
    pandas.DataFrame
        Index `predictor`. vif, the variance inflation factor 1 / (1 - R2) of its regression on all
        others, infinite where it follows wholly from them and NaN where it is constant; nearest,
        the other predictor with the largest absolute rank correlation, and that correlation,
        spearman; remark, which names the constant and the wholly collinear ones.

    Notes
    -----
    The factors are the diagonal of the inverse correlation matrix. Where that is singular, its null
    vectors are the linear laws between predictors, such as sand + silt + clay = 100: predictors in
    one are infinitely inflated, and for all others the pseudoinverse serves. A forest does not
    suffer from collinear predictors, but their importance is shared out among them.
    """
    predictors = list(predictors)
    ranks = rank_correlation(table, predictors)
    values = table.drop_duplicates("site_id")[predictors].astype(float).dropna()
    factors, partners = variance_inflation(values.to_numpy())
    rows = {}
    for name, factor, others in zip(predictors, factors, partners, strict=True):
        ranked = ranks[name].drop(name)
        nearest = ranked.abs().idxmax() if ranked.notna().any() else ""
        law = f"follows from {', '.join(predictors[other] for other in others)}" if others else ""
        rows[name] = {
            "vif": factor,
            "nearest": nearest,
            "spearman": ranked.get(nearest, np.nan),
            "remark": "constant" if np.isnan(factor) else law,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")


def variance_inflation(values: npt.ArrayLike) -> tuple[np.ndarray, list[list[int]]]:
    """Return the variance inflation factor of each column, and the columns that it follows from.

    Of finite values of shape (n, k). A factor is infinite for a column that follows from others,
    whose numbers are in the second list, and NaN for a constant one.

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
    kept = weights >= 1 / COLLINEAR
    null = vectors[:, ~kept]
    laws = np.abs(null @ null.T) > 1e-3
    inverse_diagonal = (vectors[:, kept] ** 2 / weights[kept]).sum(axis=1)
    factors[varies] = np.where(laws.diagonal(), np.inf, inverse_diagonal)
    for column, law in zip(varies, laws, strict=True):
        partners[column] = [int(other) for other in varies[law] if other != column]
    return factors, partners


def correlated_groups(ranks: pd.DataFrame, limit: float) -> list[list[str]]:
    """Return the groups of predictors in which each pair of `ranks` correlates above a limit.

    Groups of two or more, by complete linkage, the largest first. The limit is an absolute rank
    correlation, such as the setting `samples.correlated`.

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


def plot_correlation(study: Study, ranks: pd.DataFrame) -> Figure:
    """Draw the rank correlations of `rank_correlation`; those of at least 0.7 as numbers, too."""
    import seaborn

    titles = [covariates(study)[name].title for name in ranks]
    every = ranks.set_axis(titles).set_axis(titles, axis=1).iloc[1:, :-1]
    twice = np.triu(np.ones(every.shape, bool), 1)  # every pair once
    texts = (100 * every).round().astype("Int64").astype(str).where(every.abs() >= _STRONG, "")
    figure, grid = panels(1, 1, 0.78 * WIDTH_MM, width_mm=0.85 * WIDTH_MM, layout="constrained")
    look = {"cmap": colour_map("vik"), "vmin": -1, "vmax": 1, "annot_kws": {"size": 5.5}}
    key = grid[0, 0].inset_axes([0.6, 0.93, 0.36, 0.02])
    bar = {"orientation": "horizontal"}
    label = "rank correlation at the sites\n(percent written in where 70 or more)"
    seaborn.heatmap(
        every, mask=twice, annot=texts, fmt="", ax=grid[0, 0], cbar_ax=key, cbar_kws=bar, **look
    )
    key.set_xlabel(label)
    mark_label(figure, study.label)
    return figure
