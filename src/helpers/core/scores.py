"""Scores of a classification: a confusion matrix in, plain numbers out; kappa, log loss and their like."""

import math
import warnings

import numpy as np

from helpers.core.classes import TARGETS
from helpers.core.errors import CompendiumError

DOMAINS = ("whole", "potential_permafrost")
"""Where accuracy is judged: everywhere, and where a rule on covariates leaves permafrost possible."""


HEADLINE_SCORES = ("overall_accuracy", "kappa", "macro_f1")
"""The headline scores."""


BY_CLASS = ("precision", "recall", "f1")
"""The scores that each class has."""


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
        Such as from `helpers.folds.weights.sampling_weights`. One each by default.

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
    return ratio(_diagonal(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def precision(matrix):
    """Return the user's accuracy of each class: the correct share of what is mapped as it."""
    matrix = _checked(matrix)
    return ratio(_diagonal(matrix), matrix.sum(axis=-1))


def recall(matrix):
    """Return the producer's accuracy of each class: the share of it that is mapped as it."""
    matrix = _checked(matrix)
    return ratio(_diagonal(matrix), matrix.sum(axis=-2))


def f1(matrix):
    """Return the harmonic mean of precision and recall of each class."""
    matrix = _checked(matrix)
    return ratio(2 * _diagonal(matrix), matrix.sum(axis=-2) + matrix.sum(axis=-1))


def macro(values, matrix):
    """Return the mean of a per-class score over the classes that occur in the reference or on the map.

    A score that is undefined for such a class counts as 0, so that never mapping a rare class costs accuracy;
    this is scikit-learn's ``average="macro"`` with ``zero_division=0``.

    Parameters
    ----------
    values : array_like, shape (..., k)
        Such as ``recall(matrix)``.
    matrix : array_like, shape (..., k, k)

    Returns
    -------
    float, or numpy.ndarray of a stack
    """
    matrix = _checked(matrix)
    occurs = (matrix.sum(axis=-2) + matrix.sum(axis=-1)) > 0
    return ratio(np.where(occurs, np.nan_to_num(values), 0).sum(axis=-1), occurs.sum(axis=-1))


def weighted(values, matrix):
    """Return the mean of a per-class score, weighted by the samples that the reference has of each class.

    What is undefined counts as 0: scikit-learn's ``average="weighted"`` with ``zero_division=0``. Of recall it is the
    overall accuracy. Arguments as for `macro`.
    """
    matrix = _checked(matrix)
    support = matrix.sum(axis=-2)
    return ratio((np.nan_to_num(values) * support).sum(axis=-1), support.sum(axis=-1))


def balanced_accuracy(matrix):
    """Return the mean recall of the classes that occur in the reference (scikit-learn's `balanced_accuracy_score`)."""
    matrix = _checked(matrix)
    return ratio(np.nan_to_num(recall(matrix)).sum(axis=-1), (matrix.sum(axis=-2) > 0).sum(axis=-1))


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
    return ratio(np.subtract(observed, expected), np.subtract(1, expected))


def quadratic_kappa(matrix):
    """Return Cohen's kappa with quadratic weights: a confusion costs the squared distance of its classes.

    For classes that have an order, such as those of ice content (Cohen, 1968); no permafrost counts as the first.

    Parameters
    ----------
    matrix : array_like, shape (..., k, k)

    Returns
    -------
    float, or numpy.ndarray of a stack
        NaN where there is one class only, mapped and in the reference.

    Examples
    --------
    >>> quadratic_kappa([[5, 0, 0], [0, 0, 0], [0, 0, 5]]), quadratic_kappa([[0, 0, 5], [0, 0, 0], [5, 0, 0]])
    (1.0, -1.0)
    """
    matrix = _checked(matrix)
    place = np.arange(matrix.shape[-1])
    cost = (place[:, np.newaxis] - place) ** 2
    chance = matrix.sum(axis=-1)[..., :, np.newaxis] * matrix.sum(axis=-2)[..., np.newaxis, :]
    expected = ratio((cost * chance).sum(axis=(-2, -1)), matrix.sum(axis=(-2, -1)))
    return 1 - ratio((cost * matrix).sum(axis=(-2, -1)), expected)


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
    apart = np.abs(matrix.sum(axis=-1) - matrix.sum(axis=-2)).sum(axis=-1)
    return ratio(apart / 2, matrix.sum(axis=(-2, -1)))


def allocation_disagreement(matrix):
    """Return the disagreement that comes from right proportions in wrong places (Pontius and Millones, 2011).

    With `quantity_disagreement` it makes up all of ``1 - overall_accuracy``.
    """
    matrix = _checked(matrix)
    correct = _diagonal(matrix)
    wrong = np.minimum(matrix.sum(axis=-1) - correct, matrix.sum(axis=-2) - correct)
    return ratio(wrong.sum(axis=-1), matrix.sum(axis=(-2, -1)))


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
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    return ratio(-np.log(np.maximum(probabilities[occurs], PROBABILITY_FLOOR)).sum(), len(probabilities))


def brier_score(reference, probabilities, classes):
    """Return the mean over samples of the squared error of the probabilities, summed over classes (Brier, 1950).

    From 0 to 2: of two classes it is twice the score that some give. Arguments and errors as for `log_loss`.
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    return ratio(((probabilities - occurs) ** 2).sum(), len(probabilities))


def checked_probabilities(reference, probabilities, classes):
    """Return probabilities, and whether each class is the sample's true one: both of shape (n, k).

    Raises
    ------
    AccuracyError
        They do not fit the samples and classes, or a sample has a label that is none of the classes.
    """
    probabilities, reference = np.asarray(probabilities, float), np.ravel(reference)
    if probabilities.shape != (len(reference), len(classes)):
        raise AccuracyError(
            f"Probabilities of shape {probabilities.shape} do not fit {len(reference)} samples of "
            f"{len(classes)} classes.",
            "give one row a sample and one column a class",
        )
    occurs = reference[:, np.newaxis] == np.array(list(classes))
    if not (known := occurs.any(axis=1)).all():
        unknown = sorted({str(label) for label in reference[~known].tolist()})
        raise AccuracyError(
            f"There are labels that are none of the classes {list(classes)}: {', '.join(unknown[:5])}.",
            "correct the labels, or name all classes",
        )
    return probabilities, occurs


def bootstrap_matrices(reference, predicted, size, draws, sample_weight=None):
    """Return the confusion matrices of bootstrap draws of whole blocks.

    Parameters
    ----------
    reference, predicted : array_like of int, shape (n,)
        Codes of classes, from 0 on.
    size : int
        Number of classes.
    draws : tuple of numpy.ndarray
        Number of each sample's block, and how often each draw has each block, from
        `helpers.folds.blocks.sample_blocks`.
    sample_weight : array_like, shape (n,), optional
        One each by default.

    Returns
    -------
    numpy.ndarray, shape (draws, size, size)
        Rows are mapped, columns are reference classes; the first is that of the samples as they are.
    """
    block, counts = draws
    place = (np.asarray(block) * size + np.asarray(predicted)) * size + np.asarray(reference)
    matrices = np.bincount(place, sample_weight, minlength=counts.shape[1] * size**2)
    # einsum adds up in one order on any number of cores; a matrix product does not.
    drawn = np.einsum("db,bs->ds", counts.astype(float), matrices.reshape(-1, size**2).astype(float))
    return drawn.reshape(-1, size, size)


def by_mapped_share(matrix, shares):
    """Return a confusion matrix whose rows weigh as much as the map has of their class (Olofsson et al., 2014).

    Samples hit some classes of a map more often than others; within a class they are taken for those of a random
    choice. So a class that people drilled often does not count more than its area.

    Parameters
    ----------
    matrix : array_like, shape (..., k, k)
        Counts, rows mapped, columns reference classes; one matrix or a stack of them.
    shares : array_like, shape (k,)
        How much of the map has each class, in any unit.

    Returns
    -------
    numpy.ndarray, shape (..., k, k)
        Shares of area that add up to 1. Mapped classes without samples are left out; all is NaN where none has any.

    Examples
    --------
    >>> by_mapped_share([[8, 2], [1, 1]], [0.5, 0.5]).round(2).tolist()
    [[0.4, 0.1], [0.25, 0.25]]
    """
    matrix = np.asarray(matrix, float)
    number = matrix.sum(axis=-1)
    weight = np.where(number > 0, np.asarray(shares, float), 0)
    total = weight.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return matrix * (weight / total / np.where(number > 0, number, 1))[..., np.newaxis]


def interval(values, probability, block):
    """Return the expanded percentile interval of values that were drawn by a bootstrap of blocks.

    A plain percentile interval is too narrow where there are few blocks: by the root of 1 - 1/n, and as the normal
    distribution is narrower than Student's t. So percentiles further out are taken (Hesterberg 2015), for Kish's
    effective number of blocks, since one that holds half of the samples counts for many.

    Parameters
    ----------
    values : array_like, shape (draws, ...)
        Draws in which a value is undefined do not count.
    probability : float
    block : array_like of int, shape (n,)
        Number of each sample's block.

    Returns
    -------
    numpy.ndarray, shape (2, ...)
        Lower and upper end; NaN where no draw has a value.

    References
    ----------
    Hesterberg, T. (2015). What teachers should know about the bootstrap. The American Statistician 69, 371-386.
    https://doi.org/10.1080/00031305.2015.1089789
    Kish, L. (1965). Survey Sampling. Wiley.
    """
    from scipy.stats import norm, t

    sizes = np.bincount(np.asarray(block)).astype(float)
    blocks = max(sizes.sum() ** 2 / (sizes**2).sum(), 1 + 1e-9)
    tail = 100 * norm.cdf(np.sqrt(blocks / (blocks - 1)) * t.ppf((1 - probability) / 2, blocks - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN
        return np.nanpercentile(values, [tail, 100 - tail], axis=0)


def matrix_scores(matrix):
    """Return all scores that follow from a confusion matrix, or from a stack of them, by name."""
    by_class = dict(zip(BY_CLASS, (precision(matrix), recall(matrix), f1(matrix)), strict=True))
    return {
        "overall_accuracy": overall_accuracy(matrix),
        "kappa": kappa(matrix),
        "quadratic_kappa": quadratic_kappa(matrix),
        "balanced_accuracy": balanced_accuracy(matrix),
        **by_class,
        **{f"macro_{name}": macro(values, matrix) for name, values in by_class.items()},
        **{f"weighted_{name}": weighted(values, matrix) for name, values in by_class.items()},
        "quantity_disagreement": quantity_disagreement(matrix),
        "allocation_disagreement": allocation_disagreement(matrix),
    }


def _agreement(matrix):
    """Return the observed agreement and the one expected by chance."""
    matrix = _checked(matrix)
    chance = (matrix.sum(axis=-1) * matrix.sum(axis=-2)).sum(axis=-1)
    return overall_accuracy(matrix), ratio(chance, matrix.sum(axis=(-2, -1)) ** 2)


def _diagonal(matrix):
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _checked(matrix):
    matrix = np.asarray(matrix, float)
    square = matrix.ndim >= 2 and matrix.shape[-2] == matrix.shape[-1]
    if not (square and (np.isfinite(matrix) & (matrix >= 0)).all()):
        raise AccuracyError(
            f"An array of shape {matrix.shape} is no confusion matrix.",
            "give a square one of finite counts or shares, none negative",
        )
    return matrix


def ratio(part, whole):
    """Return part / whole, NaN where whole is 0; a float for scalars."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    ratio = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def mapped_class(probabilities, target="ice_type"):
    """Return the class that a forest maps: the most probable one.

    In two stages permafrost is decided first, then its type: against each type alone, no permafrost would win too
    often.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, k)
        The forest's own.
    target : str
        One of `helpers.core.classes.TARGETS`.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
    """
    if not TARGETS[target].two_stage:
        return probabilities.argmax(axis=1)
    return np.where(probabilities[:, 0] >= 0.5, 0, 1 + probabilities[:, 1:].argmax(axis=1))
