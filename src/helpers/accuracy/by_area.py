"""Accuracy and areas of classes that are adjusted for the mapped area of each class (Olofsson et al., 2014).

Samples are rarely spread over classes as the map is, so that the plain share of correct samples is not the correct
share of the map's area. Here each mapped class is a stratum that counts by its share of the map. What follows is
unbiased where the samples of each mapped class are a probability sample of it; boreholes hardly ever are, so that
results of them are marked as indicative.

References
----------
Olofsson, P., Foody, G., Herold, M., Stehman, S., Woodcock, C., Wulder, M. (2014). Good practices for estimating area
and assessing accuracy of land change. Remote Sens. Environ. 148, 42-57. https://doi.org/10.1016/j.rse.2014.02.015
"""

import numpy as np
import pandas as pd

from helpers.accuracy.predictions import by_domain, mapped_areas
from helpers.core.classes import TARGETS
from helpers.core.scores import AccuracyError, matrix_scores

_MOST = 0.25
"""Largest variance of a share: that of a stratum of one sample, which has none of its own."""


def area_adjusted(matrix, mapped, area_km2, probability=0.9, probability_sample=False):
    """Return accuracy by area, and the area of each class, with standard errors.

    Parameters
    ----------
    matrix : array_like of int, shape (k, k)
        Samples, rows mapped and columns reference classes.
    mapped : array_like, shape (k,)
        How much of the map has each class, in any unit, such as cells.
    area_km2 : float
        Area of the map.
    probability : float
        Of the intervals of areas, which take errors for normal.
    probability_sample : bool
        Whether samples were drawn at random within mapped classes.

    Returns
    -------
    dict
        ``indicative``: whether the samples are no probability sample. ``mapped_share`` of the map by class.
        ``left_out_share``: the share of the map whose class no sample was mapped as, of which nothing is known; all
        that follows refers to the rest. ``overall_accuracy`` and its standard error ``overall_accuracy_se``; by class
        ``precision``, ``recall``, ``area_share`` and ``area_km2`` (of the class in the reference), each with ``_se``,
        and ``area_km2_lower`` and ``area_km2_upper``; ``kappa``, ``macro_f1``, ``quantity_disagreement`` and
        ``allocation_disagreement`` of the matrix of areas. NaN is undefined. A mapped class of one sample has no
        variance of its own: the largest possible is taken.

    Raises
    ------
    AccuracyError
        Shapes do not fit, mapped shares are negative or not finite, or counts are weighted.
    """
    from scipy.stats import norm

    counts, mapped = np.asarray(matrix, float), np.asarray(mapped, float)
    found = matrix_scores(counts)  # checks the matrix
    if mapped.shape != counts.shape[:1] or not (np.isfinite(mapped).all() and (mapped >= 0).all()):
        raise AccuracyError(
            f"Mapped shares of shape {mapped.shape} do not fit {len(counts)} classes.",
            "give how much of the map has each class, 0 or more",
        )
    if not (counts == np.rint(counts)).all():
        raise AccuracyError("Standard errors do not follow from weighted samples.", "give counts of samples")
    number, total = counts.sum(axis=1), mapped.sum()
    share = mapped / total if total else np.full(len(mapped), np.nan)
    used = (number > 0) & (mapped > 0)
    weight = np.where(used, mapped, 0) / mapped[used].sum() if used.any() else np.full(len(mapped), np.nan)
    size = np.where(number > 0, number, 1)
    within = counts / size[:, np.newaxis]  # shares of the reference classes in each mapped class
    area = weight[:, np.newaxis] * within
    column = area.sum(axis=0)
    # Variance of each share within its mapped class; Olofsson et al. divide by n - 1.
    variance = within * (1 - within) / np.maximum(size - 1, 1)[:, np.newaxis]
    # A class that was never seen among many samples is taken for absent; one sample says nothing.
    variance[number == 1] = _MOST
    by_area, right = weight[:, np.newaxis] ** 2 * variance, np.diag(within)
    if used.any():
        found = matrix_scores(area)
    share_se = np.sqrt(by_area.sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.diag(area) / column
        own = np.diag(by_area) * (1 - recall) ** 2
        others = recall**2 * (by_area.sum(axis=0) - np.diag(by_area))
        recall_se = np.sqrt(own + others) / column
    precision = np.where(used, right, np.nan)
    rest = area_km2 * (mapped[used].sum() / total if total else np.nan)
    reach = norm.ppf((1 + probability) / 2) * share_se
    return {
        "indicative": not probability_sample,
        "mapped_share": share,
        "left_out_share": 1 - share[used].sum() if total else np.nan,
        "overall_accuracy": (weight * right).sum(),
        "overall_accuracy_se": np.sqrt(np.diag(by_area).sum()),
        "precision": precision,
        "precision_se": np.where(used, np.sqrt(np.diag(variance)), np.nan),
        "recall": recall,
        "recall_se": recall_se,
        "area_share": column,
        "area_share_se": share_se,
        "area_km2": rest * column,
        "area_km2_se": rest * share_se,
        "area_km2_lower": rest * np.maximum(column - reach, 0),
        "area_km2_upper": rest * np.minimum(column + reach, 1),
        **{name: found[name] for name in ("kappa", "macro_f1", "quantity_disagreement", "allocation_disagreement")},
    }


def class_areas(study, predictions, reports, truth=None):
    """Return the area of each class: among samples, mapped, estimated from samples by area, and in truth.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictions : Predictions
    reports : dict
        Layer to domain to the report of the test samples, from `helpers.accuracy.report.evaluate`.
    truth : dict of str to numpy.ndarray, optional
        As for `estimate_accuracy`.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain and class: ``class``, ``class_name``, ``sample_share``, ``mapped_km2`` by the forest of
        the training samples, ``adjusted_km2`` with its ends ``adjusted_lower`` and ``adjusted_upper``, and with the
        truth ``true_km2``, and ``mapped_bias`` and ``adjusted_bias``: differences from it, km2. Areas are counted
        among cells in regular steps (`TRUE_CELLS`).
    """
    found, kinds = [], TARGETS[study.target].classes
    for layer in predictions.rows:
        areas, known = mapped_areas(study, predictions, layer), None
        if truth is not None:
            import testbed.against_truth

            known = testbed.against_truth.class_of_type(study)[truth[f"ice_type_{layer}"].ravel()[predictions.cells]]
        for domain, inside in by_domain(predictions.in_domain):
            report, (cells, area) = reports[layer][domain], areas[domain]
            share = np.divide(report["support"], report["n"]) if report["n"] else np.full(len(kinds), np.nan)
            adjusted = {key: np.array(report["area_adjusted"][key], float) for key in
                        ("area_km2", "area_km2_lower", "area_km2_upper")}  # fmt: skip
            table = pd.DataFrame({"layer": layer, "domain": domain, "class": [kind.code for kind in kinds]})
            table = table.assign(
                class_name=[kind.name for kind in kinds],
                sample_share=share,
                mapped_km2=area * cells / max(cells.sum(), 1),
                **{name.replace("area_km2", "adjusted") + ("_km2" if name == "area_km2" else ""): values
                   for name, values in adjusted.items()},
            )  # fmt: skip
            if known is not None:
                true = area * np.bincount(known[inside], minlength=len(kinds)) / max(inside.sum(), 1)
                table = table.assign(true_km2=true, mapped_bias=table["mapped_km2"] - true)
                table["adjusted_bias"] = table["adjusted_km2"] - true
            found.append(table)
    return pd.concat(found, ignore_index=True)


def plot_areas(axes, areas):
    """Draw mapped, estimated and true areas of the classes of one layer and domain."""
    places, thousand = np.arange(len(areas))[::-1], 1e-3
    axes.hlines(places, areas["adjusted_lower"] * thousand, areas["adjusted_upper"] * thousand, color="#0072b2",
                linewidth=0.7)  # fmt: skip
    marks = {"adjusted_km2": ("o", "#0072b2", "from the test samples"), "mapped_km2": ("^", "#009e73", "mapped")}
    marks |= {"true_km2": ("|", "0.0", "true")} if "true_km2" in areas else {}
    for name, (marker, colour, label) in marks.items():
        axes.plot(areas[name] * thousand, places, marker, markersize=5, color=colour, fillstyle="none", label=label)
    names = areas["class_name"].str.replace(" frozen soil", "")
    axes.set(xlabel="area (1000 km²)", ylim=(-0.6, len(areas) - 0.4), xlim=(0, None))
    axes.set_yticks(places, names)
    axes.grid(axis="y", color="0.92", linewidth=0.4)
