"""What the classes of a forest say of ice: their means and spreads among samples."""

from helpers.samples.rows import CLASSES

REGRESSED = "ice_fraction"
"""What a forest of `helpers.forest.regression` predicts: its target on the model card."""


def class_means(rows, classes=CLASSES):
    """Return the mean ice fraction of each class, m3 of ice per m3 of the layer.

    With the calibrated probabilities it gives the expected ice of a cell, sum of p_k m_k.

    Parameters
    ----------
    rows : pandas.DataFrame
        The samples that a forest was grown from, with their ``class``.
    classes : sequence of int
        Those of the target.

    Returns
    -------
    list of float
        One a class; 0 for no permafrost, and for a class without samples, whose probability is 0 everywhere.
    """
    means = rows.groupby("class")["ice_fraction"].mean().reindex(classes).fillna(0.0)
    means.loc[0] = 0.0
    return [float(mean) for mean in means]


def class_sds(rows, classes=CLASSES):
    """Return the standard deviation of the ice fraction within each class, m3 of ice per m3 of the layer.

    It is that of holes: it holds what varies within a cell, and what was measured wrongly.

    Parameters
    ----------
    rows : pandas.DataFrame
        The samples that a forest was grown from, with their ``class``.
    classes : sequence of int
        Those of the target.

    Returns
    -------
    list of float
        One a class; 0 for no permafrost, and for a class with fewer than two samples, which is improbable everywhere.
    """
    sds = rows.groupby("class")["ice_fraction"].std().reindex(classes).fillna(0.0)
    sds.loc[0] = 0.0
    return [float(sd) for sd in sds]
