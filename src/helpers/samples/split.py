"""The 70/30 split into training and test samples."""

import numpy as np
import pandas as pd

from helpers.core.study import Study
from helpers.samples.together import sample_units

THINNED = "training sample beyond `samples.train_share`"


def split_sites(study: Study, table: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
    """Return ``train`` or ``test`` for each sample, once for all layers.

    Units are dealt as in the folds (`sample_units`), so that no test sample has a training sample
    of its group, or nearer than `folds.min_separation_km`. The same generator gives the same split,
    whatever the order of rows.

    Parameters
    ----------
    study
        Its `samples.test_share` is the share of test samples of each ice type in each layer.
    table
        With `layer`, `ice_type`, `group`, `easting` and `northing`.

    Notes
    -----
    Iterative stratification (Sechidis et al. 2011): the units of the rarest label first, each to
    the side that lacks that label most. Units are then moved or exchanged until each label's
    number of test samples is within max(2, its largest number in one unit) of its share, where
    that is possible.

    References
    ----------
    Sechidis, K., Tsoumakas, G., Vlahavas, I. (2011). On the stratification of multi-label data.
    ECML PKDD. https://doi.org/10.1007/978-3-642-23808-6_10
    """
    unit = _unit_names(study, table)
    counts = pd.crosstab(unit, [table["layer"], table["ice_type"]])
    matrix, share = counts.to_numpy(float), study.samples.test_share
    test = _repaired(matrix, _stratified(matrix, share, rng), share)
    side = pd.Series(np.where(test, "test", "train"), index=counts.index)
    return unit.map(side).rename("split")


def thin_training(
    study: Study, table: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep all test samples, and for a learning curve `samples.train_share` of the others.

    The same generator gives nested parts: what a smaller share keeps, a larger one keeps, too.
    Returns the rows that stay, and site_id, layer and reason of the others.
    """
    unit = _unit_names(study, table)
    names = np.unique(unit[table["split"] == "train"].to_numpy(str))
    kept = rng.permutation(names)[: max(1, round(study.samples.train_share * len(names)))]
    stays = (table["split"] == "test") | unit.isin(kept)
    lost = table.loc[~stays, ["site_id", "layer"]].assign(reason=THINNED)
    return table[stays].reset_index(drop=True), lost


def _unit_names(study: Study, table: pd.DataFrame) -> pd.Series:
    """Return the unit of each sample by its first group: numbers would follow the order of rows."""
    return table.groupby(sample_units(study, table))["group"].transform("min")


def _stratified(matrix: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which units are for testing, by iterative stratification of counts (unit, label)."""
    units = len(matrix)
    shares = np.array([1 - share, share])
    wanted, size = np.outer(shares, matrix.sum(axis=0)), shares * units
    side = np.full(units, -1)
    order = rng.permutation(units)
    while (side < 0).any():
        remaining = (matrix[side < 0] > 0).sum(axis=0)
        label = np.where(remaining > 0, remaining, units + 1).argmin()
        for index in order[(side[order] < 0) & (matrix[order, label] > 0)]:
            best = int(np.lexsort((rng.random(2), size, wanted[:, label]))[-1])
            side[index] = best
            wanted[best] -= matrix[index]
            size[best] -= 1
    return side == 1


def _repaired(matrix: np.ndarray, test: np.ndarray, share: float) -> np.ndarray:
    """Move or exchange units while a label misses its tolerance and that reduces the misfit."""
    test = test.copy()
    target, tolerance = share * matrix.sum(axis=0), np.maximum(2, matrix.max(axis=0))
    nothing = np.zeros((1, matrix.shape[1]))
    while True:
        off = matrix[test].sum(axis=0) - target
        if (np.abs(off) <= tolerance).all():
            return test
        # The last row stands for no unit, so that an exchange with it is a move.
        inner, outer = np.append(np.flatnonzero(test), -1), np.append(np.flatnonzero(~test), -1)
        leaving = off - np.vstack([matrix[test], nothing])
        coming = np.vstack([matrix[~test], nothing])
        both = np.einsum("ik,jk->ij", leaving, coming)
        cost = (leaving**2).sum(axis=1)[:, None] + 2 * both + (coming**2).sum(axis=1)
        # Of equal ones the first, whatever the last digits of a processor are.
        out, into = np.unravel_index(cost.round(6).argmin(), cost.shape)
        if cost[out, into] >= (off**2).sum() - 1e-9:
            return test
        for index, value in ((inner[out], False), (outer[into], True)):
            if index >= 0:
                test[index] = value
