"""Accuracy of a classified map: the confusion matrix and all that follows from it.

Rows of a confusion matrix are mapped (predicted) classes, columns reference classes, as in Olofsson et al.
(2014); scikit-learn has it the other way round. A value that is not defined, such as the precision of a class
that was never mapped, is NaN, and null in JSON.
"""

import json
import math

import numpy as np

from helpers.digest import write_text
from helpers.errors import CompendiumError

DOMAINS = ("whole", "potential_permafrost")
"""Where accuracy is judged: everywhere, and where a rule on covariates leaves permafrost possible."""

PROBABILITY_FLOOR = 1e-3
"""Smallest probability that log loss and calibration tell from zero: of 1000 trees, one vote."""


class AccuracyError(CompendiumError):
    """Labels or a confusion matrix from which no accuracy follows."""


def confusion_matrix(reference, predicted, classes, sample_weight=None):
    """Count samples by mapped and reference class, or add up their weights.

    Parameters
    ----------
    reference, predicted : array_like, shape (n,)
        Class of each sample in truth and on the map.
    classes : sequence
        All classes, in the order of rows and columns; some may have no sample.
    sample_weight : array_like, shape (n,), optional
        Such as from `helpers.space.sampling_weights`. One each by default.

    Returns
    -------
    numpy.ndarray of int, shape (k, k)
        Rows are mapped, columns are reference classes; of float where samples have weights.

    Raises
    ------
    AccuracyError
        The two differ in length, or hold a label that is not one of the classes.

    Examples
    --------
    >>> confusion_matrix([0, 0, 1], [0, 1, 1], [0, 1]).tolist()
    [[1, 0], [1, 1]]
    """
    reference, predicted, classes = np.ravel(reference), np.ravel(predicted), list(classes)
    if len(reference) != len(predicted):
        raise AccuracyError(
            f"There are {len(reference)} reference labels and {len(predicted)} predicted ones.",
            "give both labels of every sample, in one order",
        )
    unknown = sorted({str(label) for label in (*reference.tolist(), *predicted.tolist()) if label not in classes})
    if unknown:
        raise AccuracyError(
            f"There are labels that are none of the classes {classes}: {', '.join(unknown[:5])}.",
            "correct the labels, or name all classes",
        )
    code = {label: number for number, label in enumerate(classes)}
    weight = 1 if sample_weight is None else np.asarray(sample_weight, float)
    matrix = np.zeros((len(classes), len(classes)), int if sample_weight is None else float)
    np.add.at(matrix, ([code[p] for p in predicted.tolist()], [code[r] for r in reference.tolist()]), weight)
    return matrix


def overall_accuracy(matrix):
    """Return the share of samples, or of area, on the diagonal."""
    matrix = _checked(matrix)
    return _ratio(np.trace(matrix), matrix.sum())


def precision(matrix):
    """Return the user's accuracy of each class: the correct share of what is mapped as it."""
    matrix = _checked(matrix)
    return _ratio(np.diag(matrix), matrix.sum(axis=1))


def recall(matrix):
    """Return the producer's accuracy of each class: the share of it that is mapped as it."""
    matrix = _checked(matrix)
    return _ratio(np.diag(matrix), matrix.sum(axis=0))


def f1(matrix):
    """Return the harmonic mean of precision and recall of each class."""
    matrix = _checked(matrix)
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def macro(values, matrix):
    """Return the mean of a per-class score over the classes that occur in the reference or on the map.

    A score that is undefined for such a class counts as 0, so that never mapping a rare class costs accuracy;
    this is scikit-learn's ``average="macro"`` with ``zero_division=0``.

    Parameters
    ----------
    values : array_like, shape (k,)
        Such as ``recall(matrix)``.
    matrix : array_like, shape (k, k)

    Returns
    -------
    float
    """
    matrix = _checked(matrix)
    occurs = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return _ratio(np.nan_to_num(np.asarray(values, float))[occurs].sum(), occurs.sum())


def kappa(matrix):
    """Return Cohen's kappa: agreement beyond chance over the largest possible one.

    Parameters
    ----------
    matrix : array_like, shape (k, k)

    Returns
    -------
    float
        NaN where there is one class only, mapped and in the reference: chance alone then agrees always.

    Examples
    --------
    >>> print(f"{kappa([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]):.6f}")
    0.869964
    """
    observed, expected = _agreement(matrix)
    return _ratio(observed - expected, 1 - expected)


def kappa_standard_error(matrix):
    """Return the large-sample standard error of kappa (Fleiss, Cohen and Everitt, 1969).

    It assumes independent samples; sites in clusters tell less than their number, and the error is too small.

    Parameters
    ----------
    matrix : array_like, shape (k, k)
        Counts, not shares.

    Returns
    -------
    float
        NaN where kappa is.
    """
    matrix = _checked(matrix)
    total = matrix.sum()
    _, expected = _agreement(matrix)
    if not expected < 1:
        return math.nan
    shares, value = matrix / total, kappa(matrix)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    diagonal = np.diag(shares) @ (1 - (rows + columns) * (1 - value)) ** 2
    pairs = shares * (columns[:, np.newaxis] + rows[np.newaxis, :]) ** 2
    rest = (1 - value) ** 2 * (pairs.sum() - np.trace(pairs))
    chance = (value - expected * (1 - value)) ** 2
    # For perfect agreement the difference is zero but for rounding.
    return math.sqrt(max(diagonal + rest - chance, 0) / total) / (1 - expected)


def quantity_disagreement(matrix):
    """Return the disagreement that comes from wrong class proportions (Pontius and Millones, 2011)."""
    matrix = _checked(matrix)
    return _ratio(np.abs(matrix.sum(axis=1) - matrix.sum(axis=0)).sum() / 2, matrix.sum())


def allocation_disagreement(matrix):
    """Return the disagreement that comes from right proportions in wrong places (Pontius and Millones, 2011).

    With `quantity_disagreement` it makes up all of ``1 - overall_accuracy``.
    """
    matrix = _checked(matrix)
    correct = np.diag(matrix)
    return _ratio(np.minimum(matrix.sum(axis=1) - correct, matrix.sum(axis=0) - correct).sum(), matrix.sum())


def log_loss(reference, probabilities, classes):
    """Return the mean of -ln of the probability that was given to each sample's true class.

    Probabilities below `PROBABILITY_FLOOR` count as that: a forest says 0 where no tree voted for a class.

    Parameters
    ----------
    reference : array_like, shape (n,)
    probabilities : array_like, shape (n, k)
    classes : sequence of length k

    Returns
    -------
    float
        NaN without samples.
    """
    probabilities = np.asarray(probabilities, float)
    if probabilities.shape != (len(reference), len(classes)):
        raise AccuracyError(
            f"Probabilities of shape {probabilities.shape} do not fit {len(reference)} samples of "
            f"{len(classes)} classes.",
            "give one row a sample and one column a class",
        )
    code = {label: number for number, label in enumerate(classes)}
    chosen = [code[label] for label in np.ravel(reference).tolist()]
    given = probabilities[np.arange(len(chosen)), chosen]
    return _ratio(-np.log(np.maximum(given, PROBABILITY_FLOOR)).sum(), len(chosen))


def report(reference, predicted, classes):
    """Return all accuracy figures of a set of samples, ready for JSON.

    Parameters
    ----------
    reference, predicted : array_like, shape (n,)
        Class of each sample in truth and on the map.
    classes : sequence of length k
        All classes.

    Returns
    -------
    dict
        ``n``, ``classes``, ``confusion_matrix`` (rows mapped, columns reference), ``overall_accuracy``,
        ``kappa``, ``kappa_se``, ``precision``, ``recall`` and ``f1`` by class, their ``macro_*`` means,
        ``support`` (reference samples by class), ``quantity_disagreement``, ``allocation_disagreement``.
        Undefined values are None; without samples all scores are.

    Raises
    ------
    AccuracyError
        As from `confusion_matrix`.
    """
    matrix = confusion_matrix(reference, predicted, classes)
    by_class = {"precision": precision(matrix), "recall": recall(matrix), "f1": f1(matrix)}
    return _plain(
        {
            "n": matrix.sum(),
            "classes": list(classes),
            "confusion_matrix": matrix,
            "overall_accuracy": overall_accuracy(matrix),
            "kappa": kappa(matrix),
            "kappa_se": kappa_standard_error(matrix),
            **by_class,
            **{f"macro_{name}": macro(values, matrix) for name, values in by_class.items()},
            "support": matrix.sum(axis=0),
            "quantity_disagreement": quantity_disagreement(matrix),
            "allocation_disagreement": allocation_disagreement(matrix),
        }
    )


def evaluate(model, card, rows):
    """Judge a forest on samples that it was not grown from, everywhere and in the potential-permafrost domain.

    Parameters
    ----------
    model : sklearn.ensemble.RandomForestClassifier or helpers.two_stage.TwoStageForest
    card : dict
        Its model card, as from `helpers.forest.load_model`.
    rows : pandas.DataFrame
        The samples, as from `helpers.forest.layer_rows` for the card's target.

    Returns
    -------
    dict
        For each of `DOMAINS` the `report`, with ``log_loss`` of the forest's own and ``log_loss_calibrated``
        of its calibrated probabilities.
    """
    from helpers import forest

    classes = card["classes"]
    probabilities = forest.class_probabilities(model, forest.predictor_values(rows, card["predictors"]), classes)
    calibrated = forest.calibrate(probabilities, card["calibration"])
    reference, mapped = rows["class"].to_numpy(), forest.mapped_class(probabilities, card["target"])
    result, everywhere = {}, np.ones(len(rows), bool)
    for domain, inside in zip(DOMAINS, (everywhere, rows["in_domain"].to_numpy(bool)), strict=True):
        losses = {
            "log_loss": log_loss(reference[inside], probabilities[inside], classes),
            "log_loss_calibrated": log_loss(reference[inside], calibrated[inside], classes),
        }
        result[domain] = report(reference[inside], mapped[inside], classes) | _plain(losses)
    return result


def summary(reports):
    """Return one row a layer and domain with the headline scores of `evaluate`.

    Parameters
    ----------
    reports : dict
        Layer to the result of `evaluate`, as in ``tables/accuracy.json``.

    Returns
    -------
    pandas.DataFrame
    """
    import pandas as pd

    keys = ["n", "overall_accuracy", "kappa", "kappa_se", "macro_precision", "macro_recall", "macro_f1"]
    keys += ["quantity_disagreement", "allocation_disagreement", "log_loss", "log_loss_calibrated"]
    rows = [
        {"layer": layer, "domain": domain, **{key: found[key] for key in keys}}
        for layer, domains in reports.items()
        for domain, found in domains.items()
    ]
    return pd.DataFrame(rows)


def by_class(found):
    """Return the precision, recall, F1 score and support of each class of one `report` as a table."""
    import pandas as pd

    columns = {key: found[key] for key in ("precision", "recall", "f1", "support")}
    return pd.DataFrame(columns, index=pd.Index(found["classes"], name="class"))


def draw_confusion(axes, found, names):
    """Draw a confusion matrix as a heatmap: the colour is the row's share, the text count and share.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    found : dict
        A `report`.
    names : sequence of str
        Names of the classes, in their order.
    """
    import seaborn

    matrix = np.array(found["confusion_matrix"])
    shares = _ratio(matrix, matrix.sum(axis=1, keepdims=True))
    text = [
        [f"{n}\n{100 * s:.0f} %" if n else "0" for n, s in zip(*row, strict=True)]
        for row in zip(matrix, shares, strict=True)
    ]
    mapped = [f"{name} ({n})" for name, n in zip(names, matrix.sum(axis=1), strict=True)]
    seaborn.heatmap(
        np.nan_to_num(shares), annot=np.array(text), fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False,
        square=True, linewidths=0.4, linecolor="0.8", annot_kws={"size": 6, "linespacing": 1.0}, ax=axes,
        xticklabels=False, yticklabels=False,
    )  # fmt: skip
    axes.set(xlabel="reference class", ylabel="mapped class (samples)")
    axes.tick_params(length=0)
    # seaborn would draw the whole figure to see whether its labels overlap; ours are set here.
    middle = np.arange(len(names)) + 0.5
    axes.set_xticks(middle, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(middle, mapped, rotation=0)


def write_table(path, table):
    """Write a table as CSV; an old file is replaced only by a whole new one.

    Parameters
    ----------
    path : path-like
    table : pandas.DataFrame
        Its index is left out.
    """
    write_text(path, table.to_csv(index=False))


def write_json(path, value):
    """Write a value as JSON; an old file is replaced only by a whole new one. NaN becomes null.

    Parameters
    ----------
    path : path-like
    value : dict or list
        May hold numpy numbers and arrays.
    """
    write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _agreement(matrix):
    """Return the observed agreement and the one expected by chance."""
    matrix = _checked(matrix)
    total = matrix.sum()
    return _ratio(np.trace(matrix), total), _ratio(matrix.sum(axis=1) @ matrix.sum(axis=0), total**2)


def _checked(matrix):
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not (np.isfinite(matrix) & (matrix >= 0)).all():
        raise AccuracyError(
            f"An array of shape {matrix.shape} is no confusion matrix.",
            "give a square one of finite counts or shares, none negative",
        )
    return matrix


def _ratio(part, whole):
    """Return part / whole, NaN where whole is 0; a float for scalars."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    ratio = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def _plain(value):
    """Return a value of plain Python types, with None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
