"""The accuracy report of a set of samples: the confusion matrix and all that follows from it.

Rows of a confusion matrix are mapped (predicted) classes, columns reference classes, as in Olofsson
et al. (2014); scikit-learn has it the other way round. A value that is not defined, such as the
precision of a class that was never mapped, is NaN, and null in JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import setp
from matplotlib.axes import Axes
from scipy.special import ndtri

from helpers.accuracy.by_area import area_adjusted
from helpers.core.files import to_json_value
from helpers.core.scores import (
    BY_CLASS,
    bootstrap_matrices,
    brier_score,
    confusion_matrix,
    interval,
    kappa_standard_error,
    log_loss,
    matrix_scores,
    ratio,
)
from helpers.core.study import Study
from helpers.folds.blocks import bootstrap
from helpers.prepare.domain import by_domain


def accuracy_report(
    reference: npt.ArrayLike,
    predicted: npt.ArrayLike,
    classes: Sequence[Any],
    draws: tuple[np.ndarray, np.ndarray] | None = None,
    probability: float = 0.9,
) -> dict[str, Any]:
    """Return all accuracy figures of a set of samples, ready for JSON.

    Arguments and errors are those of `helpers.core.scores.confusion_matrix`, bootstrap draws of
    whole blocks, from `helpers.folds.blocks.sample_blocks`, and the probability of intervals.
    Without draws, or with one block alone, there are no intervals but kappa's.

    Among the figures are the ``shares`` of the ``confusion_matrix`` in all samples, all of
    `helpers.core.scores.matrix_scores`, ``support`` (reference samples by class), and the two ends
    of each score's interval in ``intervals``, of which ``kappa_large_sample`` takes samples for
    independent. Undefined values are None; without samples all scores are.

    Examples
    --------
    >>> report = accuracy_report([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 1])
    >>> report["confusion_matrix"], report["overall_accuracy"]  # rows are mapped, columns are true
    ([[3, 0], [1, 1]], 0.8)
    >>> report["recall"], report["support"]
    ([0.75, 1.0], [4, 1])
    """
    classes = list(classes)
    matrix = confusion_matrix(reference, predicted, classes)
    scores = matrix_scores(matrix)
    error = kappa_standard_error(matrix)
    reach = ndtri((1 + probability) / 2) * error
    large_sample = [scores["kappa"] - reach, scores["kappa"] + reach]
    ends = {"probability": probability, "kappa_large_sample": large_sample}
    if draws is not None and draws[1].shape[1] > 1:
        code = {label: number for number, label in enumerate(classes)}
        codes = ([code[one] for one in np.ravel(part).tolist()] for part in (reference, predicted))
        drawn = matrix_scores(bootstrap_matrices(*codes, len(classes), draws)[1:])
        ends |= {"blocks": draws[1].shape[1], "draws": len(draws[1]) - 1}
        ends |= {name: interval(values, probability, draws[0]) for name, values in drawn.items()}
    report = {"n": matrix.sum(), "classes": classes, "confusion_matrix": matrix}
    report |= {"shares": ratio(matrix, matrix.sum()), **scores}
    report |= {"kappa_se": error, "support": matrix.sum(axis=0), "intervals": ends}
    return to_json_value(report)


def evaluate(
    study: Study,
    rows: pd.DataFrame,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    mapped: Mapping[str, tuple[np.ndarray, float]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate predictions of samples that the model was not grown from, in each domain.

    Each of the study's `domains` has its `accuracy_report`, with log loss and Brier score;
    ``permafrost``, the report of permafrost (1) or none (0); and ``area_adjusted``, as from
    `helpers.accuracy.by_area.area_adjusted`.

    Parameters
    ----------
    probabilities : shape (n, k)
    predicted : shape (n,)
        Classes.
    mapped
        From `helpers.accuracy.predictions.mapped_areas`.
    """
    target = study.target_classes
    classes = list(target.codes)
    level = study.accuracy.interval
    reports = {}
    for domain, inside in by_domain(study, rows["in_domain"]):
        reference = rows["class"].to_numpy()[inside]
        draws = bootstrap(study, rows[inside]) if inside.any() else None
        report = accuracy_report(reference, predicted[inside], classes, draws, level)
        if not target.ordered:  # the distance between two codes means nothing
            report["quadratic_kappa"] = None
            report["intervals"].pop("quadratic_kappa", None)
        report["log_loss"] = log_loss(reference, probabilities[inside], classes)
        report["brier_score"] = brier_score(reference, probabilities[inside], classes)
        frozen = (target.permafrost[part].astype(int) for part in (reference, predicted[inside]))
        report["permafrost"] = accuracy_report(*frozen, [0, 1], draws, level)
        if mapped:
            areas = *mapped[domain], level, study.samples.probability_sample
            report["area_adjusted"] = area_adjusted(report["confusion_matrix"], *areas)
        reports[domain] = to_json_value(report)
    return reports


def summary_table(reports: Mapping[str, Mapping[str, dict[str, Any]]]) -> pd.DataFrame:
    """Return one row a layer and domain with the scores of the reports of `evaluate` by layer."""
    keys = ["n", "overall_accuracy", "kappa", "kappa_se", *(f"macro_{name}" for name in BY_CLASS)]
    keys += ["quantity_disagreement", "allocation_disagreement", "log_loss", "brier_score"]
    keys += ["quadratic_kappa", "balanced_accuracy", *(f"weighted_{name}" for name in BY_CLASS)]
    rows = []
    for layer, domains in reports.items():
        for domain, report in domains.items():
            row = {"layer": layer, "domain": domain} | {key: report.get(key) for key in keys}
            ends = report.get("intervals", {})
            for score in (key for key in keys if key in ends):
                row[f"{score}_lower"], row[f"{score}_upper"] = ends[score]
            rows.append(row)
    return pd.DataFrame(rows)


def class_table(report: dict[str, Any]) -> pd.DataFrame:
    """Return what an accuracy report says of each class: scores, and the confusion matrix.

    ``mapped_as_<code>`` are the samples of the class that are mapped as another. Where there are
    mapped areas, ``adjusted_<score>`` are precision and recall by them, with standard errors.

    Examples
    --------
    >>> report = accuracy_report([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 1])
    >>> class_table(report).loc[0, ["recall", "support", "mapped_as_0", "mapped_as_1"]].tolist()
    [0.75, 4.0, 3.0, 1.0]
    """
    classes = report["classes"]
    columns = {key: report[key] for key in (*BY_CLASS, "support")}
    for code, row in zip(classes, report["confusion_matrix"], strict=True):
        columns[f"mapped_as_{code}"] = row
    if by_area := report.get("area_adjusted"):
        for score in ("precision", "precision_se", "recall", "recall_se"):
            columns[f"adjusted_{score}"] = by_area[score]
    return pd.DataFrame(columns, index=pd.Index(classes, name="class"))


def plot_confusion_matrix(axes: Axes, report: dict[str, Any], names: Sequence[str]) -> None:
    """Draw a report's confusion matrix: the colour is the row's share, the text count and share.

    Names are those of the classes, in their order.
    """
    import seaborn

    matrix = np.array(report["confusion_matrix"])
    shares = np.nan_to_num(ratio(matrix, matrix.sum(axis=1, keepdims=True)))
    mapped = [f"{name} ({n})" for name, n in zip(names, matrix.sum(axis=1), strict=True)]
    pairs = zip(matrix.flat, shares.flat, strict=True)
    texts = [f"{n}\n{100 * share:.0f} %" if n else "0" for n, share in pairs]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linecolor": "0.8", "linewidths": 0.4}
    look |= {"annot": np.reshape(texts, matrix.shape), "fmt": "", "annot_kws": {"size": 7}}
    names = {"xticklabels": names, "yticklabels": mapped}
    seaborn.heatmap(shares, ax=axes, square=True, cbar=False, **look, **names)
    axes.set(xlabel="reference class", ylabel="mapped class (samples)")
    axes.tick_params(length=0)
    setp(axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
