"""Accuracy of a classified map: the confusion matrix and all that follows from it.

Rows of a confusion matrix are mapped (predicted) classes, columns reference classes, as in Olofsson et al.
(2014); scikit-learn has it the other way round. A value that is not defined, such as the precision of a class
that was never mapped, is NaN, and null in JSON.

Scores take one matrix or a stack of them, shape (..., k, k), such as all draws of a bootstrap, and return one value
each (one a class, shape (..., k), for `precision`, `recall` and `f1`).
"""

import numpy as np
import pandas as pd

from helpers.accuracy.by_area import area_adjusted
from helpers.core.classes import TARGETS
from helpers.core.files import to_json_value
from helpers.core.scores import (
    BY_CLASS,
    DOMAINS,
    bootstrap_matrices,
    brier_score,
    confusion_matrix,
    interval,
    kappa_standard_error,
    log_loss,
    mapped_class,
    matrix_scores,
    ratio,
)
from helpers.folds.blocks import bootstrap
from helpers.forest.calibration import calibrate


def accuracy_report(reference, predicted, classes, draws=None, probability=0.9):
    """Return all accuracy figures of a set of samples, ready for JSON.

    Parameters
    ----------
    reference, predicted : array_like, shape (n,)
        Class of each sample in truth and on the map.
    classes : sequence of length k
        All classes, in their order.
    draws : tuple of numpy.ndarray, optional
        Bootstrap draws of whole blocks, from `helpers.folds.blocks.sample_blocks`; without them, or with one
        block alone, there are no intervals but kappa's.
    probability : float
        Of intervals.

    Returns
    -------
    dict
        ``n``, ``classes``, ``confusion_matrix`` (rows mapped, columns reference) and its ``shares`` of all samples,
        ``overall_accuracy``, ``kappa``, ``kappa_se``, ``quadratic_kappa``, ``balanced_accuracy``, ``precision``,
        ``recall`` and ``f1`` by class, their ``macro_*`` and ``weighted_*`` means, ``support`` (reference samples by
        class), ``quantity_disagreement``, ``allocation_disagreement``. ``intervals``: the ``probability``, the number
        of ``blocks`` and of ``draws``, ``kappa_large_sample`` (lower and upper end, of samples taken for independent),
        and by the name of each score the two ends, lists of them for scores by class. Undefined values are None;
        without samples all scores are.

    Raises
    ------
    AccuracyError
        As from `confusion_matrix`.
    """
    from scipy.stats import norm

    classes = list(classes)
    matrix = confusion_matrix(reference, predicted, classes)
    found, error = matrix_scores(matrix), kappa_standard_error(matrix)
    reach = norm.ppf((1 + probability) / 2) * error
    ends = {"probability": probability, "kappa_large_sample": [found["kappa"] - reach, found["kappa"] + reach]}
    if draws is not None and draws[1].shape[1] > 1:
        codes = [np.array([classes.index(label) for label in np.ravel(labels).tolist()]) for labels in
                 (reference, predicted)]  # fmt: skip
        drawn = matrix_scores(bootstrap_matrices(*codes, len(classes), draws)[1:])
        ends |= {"blocks": draws[1].shape[1], "draws": len(draws[1]) - 1}
        ends |= {name: interval(values, probability, draws[0]) for name, values in drawn.items()}
    return to_json_value(
        {"n": matrix.sum(), "classes": classes, "confusion_matrix": matrix, "shares": ratio(matrix, matrix.sum())}
        | found
        | {"kappa_se": error, "support": matrix.sum(axis=0), "intervals": ends}
    )


def evaluate(study, rows, probabilities, calibration=None, mapped=None):
    """Judge predictions of samples that their forest had not seen: everywhere and in the potential-permafrost domain.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its `target`, and `accuracy` for intervals by a bootstrap of blocks.
    rows : pandas.DataFrame
        The samples, as from `helpers.samples.rows.layer_rows`.
    probabilities : numpy.ndarray, shape (n, k)
        The forest's own, by `helpers.forest.models.class_probabilities`.
    calibration : dict, optional
        Of the forest, as on its card.
    mapped : dict of str to tuple, optional
        For each of `DOMAINS` how many cells of the map have each class, and the area of all in km2: as from
        `helpers.accuracy.predictions.mapped_areas`.

    Returns
    -------
    dict
        For each of `DOMAINS` the `report`, with ``log_loss`` and ``brier_score`` of the forest's own, and
        ``log_loss_calibrated`` and ``brier_score_calibrated`` of its calibrated probabilities; ``permafrost``, the
        report of permafrost (1) or none (0); and ``area_adjusted``, as from `helpers.accuracy.by_area.area_adjusted`.
    """
    classes, result = list(TARGETS[study.target].codes), {}
    reference, predicted = rows["class"].to_numpy(), mapped_class(probabilities, study.target)
    kinds = {"": probabilities}
    if calibration:
        kinds["_calibrated"] = calibrate(probabilities, calibration)
    for domain, inside in zip(DOMAINS, (np.ones(len(rows), bool), rows["in_domain"].to_numpy(bool)), strict=True):
        known, given = reference[inside], predicted[inside]
        draws = bootstrap(study, rows[inside]) if inside.any() else None
        found = accuracy_report(known, given, classes, draws, study.accuracy.interval)
        for kind, values in kinds.items():
            found[f"log_loss{kind}"] = log_loss(known, values[inside], classes)
            found[f"brier_score{kind}"] = brier_score(known, values[inside], classes)
        found["permafrost"] = accuracy_report(
            (known > 0).astype(int), (given > 0).astype(int), [0, 1], draws, study.accuracy.interval
        )
        if mapped:
            cells, area = mapped[domain]
            found["area_adjusted"] = area_adjusted(
                found["confusion_matrix"], cells, area, study.accuracy.interval, study.samples.probability_sample
            )
        result[domain] = to_json_value(found)
    return result


def summary_table(reports):
    """Return one row a layer and domain with the headline scores of `evaluate`.

    Parameters
    ----------
    reports : dict
        Layer to the result of `evaluate`, as in ``tables/accuracy.json``.

    Returns
    -------
    pandas.DataFrame
    """
    keys = ["n", "overall_accuracy", "kappa", "kappa_se", "macro_precision", "macro_recall", "macro_f1"]
    keys += ["quantity_disagreement", "allocation_disagreement", "log_loss", "log_loss_calibrated"]
    keys += ["quadratic_kappa", "balanced_accuracy", "weighted_precision", "weighted_recall", "weighted_f1"]
    keys += ["brier_score", "brier_score_calibrated"]
    rows = []
    for layer, domains in reports.items():
        for domain, found in domains.items():
            ends = found.get("intervals", {})
            row = {"layer": layer, "domain": domain, **{key: found.get(key) for key in keys}}
            for score in keys:
                if score in ends:
                    row[f"{score}_lower"], row[f"{score}_upper"] = ends[score]
            rows.append(row)
    return pd.DataFrame(rows)


def class_table(found):
    """Return what one `report` tells of each class as a table.

    Parameters
    ----------
    found : dict

    Returns
    -------
    pandas.DataFrame
        Index class: precision, recall, F1 score and support; ``mapped_as_<code>``, the samples of the class that are
        mapped as each class, which is the confusion matrix; and where there are mapped areas precision and recall by
        them with standard errors, ``adjusted_<score>`` and ``adjusted_<score>_se``.
    """
    columns = {key: found[key] for key in (*BY_CLASS, "support")}
    columns |= {f"mapped_as_{code}": row for code, row in zip(found["classes"], found["confusion_matrix"], strict=True)}
    if by_area := found.get("area_adjusted"):
        scores = [f"{score}{end}" for score in ("precision", "recall") for end in ("", "_se")]
        columns |= {f"adjusted_{name}": by_area[name] for name in scores}
    return pd.DataFrame(columns, index=pd.Index(found["classes"], name="class"))


def plot_confusion_matrix(axes, found, names):
    """Draw a confusion matrix as a heatmap: the colour is the row's share, the text count and share.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    found : dict
        A `report`.
    names : sequence of str
        Names of the classes, in their order.
    """
    matrix = np.array(found["confusion_matrix"])
    shares = ratio(matrix, matrix.sum(axis=1, keepdims=True))
    mapped = [f"{name} ({n})" for name, n in zip(names, matrix.sum(axis=1), strict=True)]
    axes.pcolormesh(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, edgecolors="0.8", linewidth=0.4)
    for row, column in np.ndindex(matrix.shape):
        n, share = matrix[row, column], shares[row, column]
        text, colour = f"{n}\n{100 * share:.0f} %" if n else "0", "white" if share > 0.55 else "0.15"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", size=6, linespacing=1.0, color=colour)
    axes.set(xlabel="reference class", ylabel="mapped class (samples)", aspect="equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    middle = np.arange(len(names)) + 0.5
    axes.set_xticks(middle, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(middle, mapped)
