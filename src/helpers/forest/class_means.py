"""What the classes of a forest say of ice: their means and spreads among samples."""

from collections.abc import Sequence

import pandas as pd

from helpers.samples.rows import CLASSES

REGRESSED = "ice_fraction"
"""What a forest of `helpers.forest.regression` predicts: its target on the model card."""


def class_means(rows: pd.DataFrame, classes: Sequence[int] = CLASSES) -> list[float]:
    """Return the mean ice fraction of each class among samples, m3 of ice per m3 of the layer.

    With the calibrated probabilities it gives the expected ice of a cell, sum of p_k m_k. It is 0
    for no permafrost, and for a class without samples, whose probability is 0 everywhere.
    """
    means = rows.groupby("class")["ice_fraction"].mean().reindex(classes).fillna(0.0)
    return means.tolist()


def class_sds(rows: pd.DataFrame, classes: Sequence[int] = CLASSES) -> list[float]:
    """Return the standard deviation of the ice fraction within each class, in the same unit.

    It is that of boreholes: it holds what varies within a cell, and errors of measurement. It is 0
    for no permafrost, and for a class with fewer than two samples, which is improbable everywhere.
    """
    sds = rows.groupby("class")["ice_fraction"].std().reindex(classes).fillna(0.0)
    return sds.tolist()
