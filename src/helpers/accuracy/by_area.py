"""Accuracy and areas of classes, adjusted for mapped areas (Olofsson et al., 2014).

Samples are rarely spread over classes as the map is, so that the plain share of correct samples is
not the correct share of the map's area. Here each mapped class is a stratum that counts by its
share of the map. What follows is unbiased where the samples of each mapped class are a probability
sample of it; boreholes hardly ever are, so that results of them are marked as indicative.

References
----------
Olofsson, P., Foody, G., Herold, M., Stehman, S., Woodcock, C., Wulder, M. (2014). Good practices
for estimating area and assessing accuracy of land change. Remote Sens. Environ. 148, 42-57.
https://doi.org/10.1016/j.rse.2014.02.015
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import ndtri

from helpers.accuracy.predictions import Predictions, mapped_areas
from helpers.core.scores import matrix_scores
from helpers.core.study import Study


def area_adjusted(
    matrix: npt.ArrayLike,
    mapped: npt.ArrayLike,
    area_km2: float,
    probability: float = 0.9,
    probability_sample: bool = False,
) -> dict[str, Any]:
    """Return accuracy by area, and the area of each class, with standard errors.

    Parameters
    ----------
    matrix : shape (k, k)
        Counts of samples, rows mapped and columns reference classes.
    mapped : shape (k,)
        How much of the map has each class, 0 or more, in any unit, such as cells.
    area_km2
        Of the map.
    probability
        Of the intervals of areas, which take errors for normal.
    probability_sample
        Whether samples were drawn at random within mapped classes.

    Returns
    -------
    dict
        ``indicative``: whether the samples are no probability sample. ``left_out_share``: the share
        of the map whose class no sample was mapped as; all that follows refers to the rest. Areas
        are those of classes in the reference. NaN is undefined.

    Examples
    --------
    >>> # One in ten of 100 samples mapped as forest is steppe, but most of the map is forest.
    >>> result = area_adjusted([[90, 10], [0, 100]], [900, 100], area_km2=1000)
    >>> float(round(result["overall_accuracy"], 2)), result["area_km2"].round().tolist()
    (0.91, [810.0, 190.0])
    """
    counts, mapped = np.asarray(matrix, float), np.asarray(mapped, float)
    nothing = np.full(len(mapped), np.nan)
    number, total = counts.sum(axis=1), mapped.sum()
    share = mapped / total if total else nothing
    used = (number > 0) & (mapped > 0)
    weight = np.where(used, mapped, 0) / mapped[used].sum() if used.any() else nothing
    size = np.where(number > 0, number, 1)
    within = counts / size[:, np.newaxis]  # shares of the reference classes in each mapped class
    right = np.diag(within)
    area = weight[:, np.newaxis] * within
    column = area.sum(axis=0)
    # Variance of each share within its mapped class; Olofsson et al. divide by n - 1.
    variance = within * (1 - within) / np.maximum(size - 1, 1)[:, np.newaxis]
    # A class that is absent among many samples has none; one sample says nothing, so that it gets
    # the largest variance of a share.
    variance[number == 1] = 0.25
    by_area = weight[:, np.newaxis] ** 2 * variance
    scores = matrix_scores(area if used.any() else counts)
    share_se = np.sqrt(by_area.sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.diag(area) / column
        own = np.diag(by_area) * (1 - recall) ** 2
        others = recall**2 * (by_area.sum(axis=0) - np.diag(by_area))
        recall_se = np.sqrt(own + others) / column
    rest = area_km2 * (mapped[used].sum() / total if total else np.nan)
    reach = ndtri((1 + probability) / 2) * share_se
    of_areas = ("kappa", "macro_f1", "quantity_disagreement", "allocation_disagreement")
    return {
        "indicative": not probability_sample,
        "mapped_share": share,
        "left_out_share": 1 - share[used].sum() if total else np.nan,
        "overall_accuracy": (weight * right).sum(),
        "overall_accuracy_se": np.sqrt(np.diag(by_area).sum()),
        "precision": np.where(used, right, np.nan),
        "precision_se": np.where(used, np.sqrt(np.diag(variance)), np.nan),
        "recall": recall,
        "recall_se": recall_se,
        "area_share": column,
        "area_share_se": share_se,
        "area_km2": rest * column,
        "area_km2_se": rest * share_se,
        "area_km2_lower": rest * np.maximum(column - reach, 0),
        "area_km2_upper": rest * np.minimum(column + reach, 1),
        **{name: scores[name] for name in of_areas},
    }


def class_areas(study: Study, predictions: Predictions, reports: dict[str, Any]) -> pd.DataFrame:
    """Return the area of each class: among samples, mapped, and estimated from samples by area.

    There is one row a layer, domain and class. Areas mapped by the forest of the training samples
    are counted among cells in regular steps (`helpers.samples.extract.EVALUATION_CELLS`).
    Reports are those of the test samples by layer, from `helpers.accuracy.report.evaluate`.
    """
    tables = []
    kinds = study.target_classes.classes
    codes = {"class": [kind.code for kind in kinds], "class_name": [kind.name for kind in kinds]}
    for layer in predictions.rows:
        for domain, (cells, whole_km2) in mapped_areas(study, predictions, layer).items():
            report = reports[layer][domain]
            columns = {"layer": layer, "domain": domain, **codes}
            columns["sample_share"] = np.divide(report["support"], report["n"] or np.nan)
            columns["mapped_km2"] = whole_km2 * cells / max(cells.sum(), 1)
            for name, end in {"km2": "", "lower": "_lower", "upper": "_upper"}.items():
                area = np.array(report["area_adjusted"][f"area_km2{end}"], float)
                columns[f"adjusted_{name}"] = area
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def plot_areas(axes: Axes, areas: pd.DataFrame) -> None:
    """Plot mapped and estimated areas of the classes of one layer and domain."""
    places = np.arange(len(areas))[::-1]
    lower, upper = areas["adjusted_lower"] / 1000, areas["adjusted_upper"] / 1000
    axes.hlines(places, lower, upper, color="#0072b2", linewidth=0.7)
    look = {"markersize": 5, "fillstyle": "none"}
    estimated, mapped = areas["adjusted_km2"] / 1000, areas["mapped_km2"] / 1000
    axes.plot(estimated, places, "o", color="#0072b2", label="from the test samples", **look)
    axes.plot(mapped, places, "^", color="#009e73", label="mapped", **look)
    axes.set(xlabel="area (1000 km²)", ylim=(-0.6, len(areas) - 0.4), xlim=(0, None))
    axes.set_yticks(places, areas["class_name"].str.replace(" frozen soil", ""))
    axes.grid(axis="y", color="0.92", linewidth=0.4)
