"""Scores of a classification: a confusion matrix in, plain numbers out; kappa, log loss and others.

Matrices have mapped classes in rows and reference classes in columns, as counts or shares. Where a
shape is ``(..., k, k)``, one matrix gives a float, a stack of them an array.
"""

import math
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from helpers.core.errors import CompendiumError

HEADLINE_SCORES = ("overall_accuracy", "kappa", "macro_f1")

BY_CLASS = ("precision", "recall", "f1")
"""The scores that each class has."""

_RAKING_ROUNDS = 30  # of `raked`; a test holds what is left to 1e-4

PROBABILITY_FLOOR = 1e-3
"""Smallest probability that log loss and calibration distinguish from zero: of 1000 trees, one
vote."""


class AccuracyError(CompendiumError):
    """Labels or a confusion matrix from which no accuracy follows."""


def confusion_matrix(
    reference: npt.ArrayLike,
    predicted: npt.ArrayLike,
    classes: Iterable[Hashable],
    sample_weight: npt.ArrayLike | None = None,
) -> np.ndarray:
    """Count samples by mapped and reference class, or add up their weights: shape (k, k).

    `classes` are all k, in the order of rows and columns; some may have no sample. AccuracyError if
    the labels differ in length, or one is not one of the classes.

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
    _check_labels((*reference.tolist(), *predicted.tolist()), classes)
    code = {label: number for number, label in enumerate(classes)}
    rows, columns = ([code[label] for label in part.tolist()] for part in (predicted, reference))
    weight = 1 if sample_weight is None else np.asarray(sample_weight, float)
    kind = int if sample_weight is None else float
    matrix = np.zeros((len(classes), len(classes)), kind)
    np.add.at(matrix, (rows, columns), weight)
    return matrix


def _check_labels(labels: Iterable[Hashable], classes: list[Any]) -> None:
    if unknown := sorted({str(label) for label in set(labels) - set(classes)}):
        raise AccuracyError(
            f"There are labels that are none of the classes {classes}: {', '.join(unknown[:5])}.",
            "correct the labels, or name all classes",
        )


def overall_accuracy(matrix: npt.ArrayLike) -> Any:
    """Return the share of samples, or of area, on the diagonal.

    Examples
    --------
    >>> overall_accuracy([[40, 10], [5, 45]])  # rows are mapped, columns are true
    0.85
    """
    matrix = _checked(matrix)
    return ratio(_diagonal(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def precision(matrix: npt.ArrayLike) -> np.ndarray:
    """Return the user's accuracy of each class: the correct share of what is mapped as it.

    Examples
    --------
    >>> precision([[3, 1], [0, 6]]).tolist()  # rows are mapped classes
    [0.75, 1.0]
    """
    matrix = _checked(matrix)
    return ratio(_diagonal(matrix), matrix.sum(axis=-1))


def recall(matrix: npt.ArrayLike) -> np.ndarray:
    """Return the producer's accuracy of each class: the share of it that is mapped as it.

    Examples
    --------
    >>> recall([[3, 1], [0, 6]]).round(2).tolist()  # columns are reference classes
    [1.0, 0.86]
    """
    matrix = _checked(matrix)
    return ratio(_diagonal(matrix), matrix.sum(axis=-2))


def f1(matrix: npt.ArrayLike) -> np.ndarray:
    """Return the harmonic mean of precision and recall of each class.

    Examples
    --------
    >>> f1([[40, 10], [5, 45]]).round(3).tolist()
    [0.842, 0.857]
    """
    matrix = _checked(matrix)
    return ratio(2 * _diagonal(matrix), matrix.sum(axis=-2) + matrix.sum(axis=-1))


def macro(values: npt.ArrayLike, matrix: npt.ArrayLike) -> Any:
    """Return the mean of a score, (..., k), over the classes in the reference or on the map.

    A score that is undefined for such a class counts as 0, so that never mapping a rare class costs
    accuracy; this is scikit-learn's ``average="macro"`` with ``zero_division=0``.

    Examples
    --------
    >>> matrix = [[90, 10], [0, 0]]  # the rare class is never mapped
    >>> float(macro(recall(matrix), matrix)), overall_accuracy(matrix)
    (0.5, 0.9)
    """
    matrix = _checked(matrix)
    occurs = (matrix.sum(axis=-2) + matrix.sum(axis=-1)) > 0
    return ratio(np.where(occurs, np.nan_to_num(values), 0).sum(axis=-1), occurs.sum(axis=-1))


def weighted(values: npt.ArrayLike, matrix: npt.ArrayLike) -> Any:
    """Return the mean of a score, (..., k), weighted by the reference samples of each class.

    What is undefined counts as 0: scikit-learn's ``average="weighted"`` with ``zero_division=0``.
    Of recall it is the overall accuracy.

    Examples
    --------
    >>> matrix = [[40, 10], [5, 45]]
    >>> round(float(weighted(recall(matrix), matrix)), 3)  # of recall: the overall accuracy
    0.85
    """
    support = _checked(matrix).sum(axis=-2)
    return ratio((np.nan_to_num(values) * support).sum(axis=-1), support.sum(axis=-1))


def balanced_accuracy(matrix: npt.ArrayLike) -> Any:
    """Return the mean recall of the classes that occur in the reference, as scikit-learn does.

    Examples
    --------
    >>> balanced_accuracy([[90, 10], [0, 0]])  # all is mapped as the frequent class
    0.5
    """
    occurs = _checked(matrix).sum(axis=-2) > 0
    return ratio(np.nan_to_num(recall(matrix)).sum(axis=-1), occurs.sum(axis=-1))


def kappa(matrix: npt.ArrayLike) -> Any:
    """Return Cohen's kappa: agreement beyond chance over the largest possible one.

    NaN where there is one class only, mapped and in the reference: chance alone then agrees always.

    Examples
    --------
    >>> print(f"{kappa([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]):.6f}")
    0.869964
    """
    expected = _chance_agreement(matrix)
    return ratio(np.subtract(overall_accuracy(matrix), expected), np.subtract(1, expected))


def _chance_agreement(matrix: npt.ArrayLike) -> Any:
    matrix = _checked(matrix)
    chance = (matrix.sum(axis=-1) * matrix.sum(axis=-2)).sum(axis=-1)
    return ratio(chance, matrix.sum(axis=(-2, -1)) ** 2)


def quadratic_kappa(matrix: npt.ArrayLike) -> Any:
    """Return Cohen's kappa with quadratic weights: a confusion costs its classes' squared distance.

    For classes that have an order, such as those of ice content (Cohen, 1968); no permafrost counts
    as the first. NaN where there is one class only, mapped and in the reference.

    Examples
    --------
    >>> quadratic_kappa([[5, 0, 0], [0, 0, 0], [0, 0, 5]])
    1.0
    >>> quadratic_kappa([[0, 0, 5], [0, 0, 0], [5, 0, 0]])
    -1.0
    """
    matrix = _checked(matrix)
    place = np.arange(matrix.shape[-1])
    cost = (place[:, np.newaxis] - place) ** 2
    chance = matrix.sum(axis=-1)[..., :, np.newaxis] * matrix.sum(axis=-2)[..., np.newaxis, :]
    expected = ratio((cost * chance).sum(axis=(-2, -1)), matrix.sum(axis=(-2, -1)))
    return 1 - ratio((cost * matrix).sum(axis=(-2, -1)), expected)


def kappa_standard_error(matrix: npt.ArrayLike) -> float:
    """Return the large-sample standard error of kappa (Fleiss, Cohen and Everitt, 1969).

    The matrix holds counts, not shares. NaN where kappa is. Samples are taken as independent; for
    sites in clusters the error is too small.

    Examples
    --------
    >>> matrix = [[40, 10], [5, 45]]
    >>> round(float(kappa(matrix)), 3), round(kappa_standard_error(matrix), 3)
    (0.7, 0.071)
    """
    matrix = _checked(matrix)
    total = matrix.sum()
    expected = _chance_agreement(matrix)
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


def quantity_disagreement(matrix: npt.ArrayLike) -> Any:
    """Return the disagreement from wrong class proportions (Pontius and Millones, 2011).

    Examples
    --------
    >>> swapped = [[4, 2], [2, 4]]  # as much of each class as there is
    >>> quantity_disagreement(swapped), round(allocation_disagreement(swapped), 2)
    (0.0, 0.33)
    """
    matrix = _checked(matrix)
    apart = np.abs(matrix.sum(axis=-1) - matrix.sum(axis=-2)).sum(axis=-1)
    return ratio(apart / 2, matrix.sum(axis=(-2, -1)))


def allocation_disagreement(matrix: npt.ArrayLike) -> Any:
    """Return the disagreement from right proportions in wrong places (Pontius and Millones, 2011).

    With `quantity_disagreement` it makes up all of ``1 - overall_accuracy``.

    Examples
    --------
    >>> too_much = [[6, 4], [0, 2]]  # of the first class
    >>> allocation_disagreement(too_much), round(quantity_disagreement(too_much), 2)
    (0.0, 0.33)
    """
    matrix = _checked(matrix)
    correct = _diagonal(matrix)
    wrong = np.minimum(matrix.sum(axis=-1) - correct, matrix.sum(axis=-2) - correct)
    return ratio(wrong.sum(axis=-1), matrix.sum(axis=(-2, -1)))


def log_loss(
    reference: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[Hashable]
) -> float:
    """Return the mean of -ln of the probability of each sample's true class; NaN without samples.

    Probabilities below `PROBABILITY_FLOOR` count as that: a forest says 0 where no tree voted for a
    class. Arguments and errors as for `checked_probabilities`.

    Examples
    --------
    >>> sure, unsure = [[0.9, 0.1]], [[0.6, 0.4]]
    >>> [round(log_loss([1], one, [0, 1]), 2) for one in (sure, unsure)]  # both wrong
    [2.3, 0.92]
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    floored = np.maximum(probabilities[occurs], PROBABILITY_FLOOR)
    return ratio(-np.log(floored).sum(), len(probabilities))


def brier_score(
    reference: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[Hashable]
) -> float:
    """Return the mean over samples of the probabilities' squared error, summed over classes.

    From 0 to 2 (Brier, 1950): of two classes it is twice the score that some give. NaN without
    samples. Arguments and errors as for `checked_probabilities`.

    Examples
    --------
    >>> [round(brier_score([1], [one], [0, 1]), 2) for one in ([0.9, 0.1], [0.5, 0.5], [0, 1])]
    [1.62, 0.5, 0.0]
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    return ratio(((probabilities - occurs) ** 2).sum(), len(probabilities))


def checked_probabilities(
    reference: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and whether each class is the sample's true one: both of shape (n, k).

    AccuracyError if they do not fit the n true labels and k classes, or a label is none of these.

    Examples
    --------
    >>> _, occurs = checked_probabilities([1, 0], [[0.2, 0.8], [0.6, 0.4]], [0, 1])
    >>> occurs.tolist()
    [[False, True], [True, False]]
    """
    probabilities, reference = np.asarray(probabilities, float), np.ravel(reference)
    if probabilities.shape != (len(reference), len(classes)):
        raise AccuracyError(
            f"Probabilities of shape {probabilities.shape} do not fit {len(reference)} samples of "
            f"{len(classes)} classes.",
            "give one row a sample and one column a class",
        )
    _check_labels(reference.tolist(), list(classes))
    return probabilities, reference[:, np.newaxis] == np.array(list(classes))


def bootstrap_matrices(
    reference: npt.ArrayLike,
    predicted: npt.ArrayLike,
    size: int | tuple[int, int],
    draws: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return the confusion matrices of bootstrap draws of whole blocks: (draws, rows, columns).

    Reference and predicted are codes of classes, from 0 on, and size is their number; two numbers
    are those of rows and columns. `draws` is from
    `helpers.folds.blocks.sample_blocks`: the number of each sample's block, and how often each draw
    has each block; the first draw is the samples as they are.

    Examples
    --------
    >>> block, counts = np.array([0, 0, 1]), np.array([[1, 1], [0, 2]])
    >>> bootstrap_matrices([0, 1, 1], [0, 1, 0], 2, (block, counts)).tolist()
    [[[1.0, 1.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]]
    """
    block, counts = draws
    shape = (size, size) if isinstance(size, int) else size
    places = tuple(np.asarray(one, int) for one in (block, predicted, reference))
    place = np.ravel_multi_index(places, (counts.shape[1], *shape))
    matrices = np.bincount(place, minlength=counts.shape[1] * math.prod(shape))
    matrices = matrices.reshape(len(counts[0]), -1).astype(float)
    # einsum adds up in one order on any number of cores; a matrix product does not.
    drawn = np.einsum("db,bs->ds", counts.astype(float), matrices)
    return drawn.reshape(-1, *shape)


def by_mapped_share(matrix: npt.ArrayLike, shares: npt.ArrayLike) -> np.ndarray:
    """Return a confusion matrix whose rows weigh as much as their class does on the map.

    Samples hit some classes of a map more often than others; within a class they are taken for
    those of a random choice (Olofsson et al., 2014). So a class that people drilled often does not
    count more than its area.

    From counts (..., k, k), and how much of the map has each class (k,), in any unit, come shares
    of area that add up to 1; classes without samples are left out, NaN if all are.

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


def raked(areas: npt.ArrayLike, groups: npt.ArrayLike, known: npt.ArrayLike) -> np.ndarray:
    """Return shares of area whose reference classes agree with known shares of ground.

    Where people drill for ice, samples of each mapped class have permafrost more often than its
    ground. With the share of permafrost known from elsewhere, columns of permafrost are scaled to
    it, the others to the rest, and rows back to the map's shares, in turn, until both agree
    (iterative proportional fitting: Deming and Stephan, 1940).

    Parameters
    ----------
    areas : shape (..., k, m)
        From `by_mapped_share`.
    groups : shape (g, m)
        Whether each column belongs to each group of reference classes; it belongs to one.
    known : shape (..., g)
        Shares of the map's ground of each group, which add up to 1.

    Returns
    -------
    numpy.ndarray, shape (..., k, m)
        A group without samples is left out, and its share given to the others.

    References
    ----------
    Deming, W. E., Stephan, F. F. (1940). On a least squares adjustment of a sampled frequency table
    when the expected marginal totals are known. Ann. Math. Stat. 11, 427-444.

    Examples
    --------
    >>> raked([[0.4, 0.1], [0.25, 0.25]], np.eye(2), [0.65, 0.35]).round(3).tolist()
    [[0.4, 0.1], [0.25, 0.25]]
    """
    areas, groups = np.asarray(areas, float), np.asarray(groups, float)
    there = np.where(areas.sum(axis=-2) @ groups.T > 0, known, 0)
    wanted = ratio(there, there.sum(axis=-1, keepdims=True))
    rows = areas.sum(axis=-1, keepdims=True)
    fitted = areas
    for _ in range(_RAKING_ROUNDS):
        columns = np.nan_to_num(ratio(wanted, fitted.sum(axis=-2) @ groups.T)) @ groups
        fitted = fitted * columns[..., np.newaxis, :]
        fitted = np.nan_to_num(fitted * ratio(rows, fitted.sum(axis=-1, keepdims=True)))
    return fitted


def effective_number(matrix: npt.ArrayLike, areas: npt.ArrayLike) -> float:
    """Return how many samples of equal weight are worth those of `by_mapped_share`: Kish's number.

    It is (sum w)^2 / sum w^2 of their weights, from counts and areas (k, k). Kish, L. (1965).
    Survey Sampling. Wiley.

    Examples
    --------
    >>> counts = [[2, 0], [0, 2]]
    >>> effective_number(counts, counts), effective_number(counts, by_mapped_share(counts, [3, 1]))
    (4.0, 3.2)
    """
    number = np.asarray(matrix, float)
    weight = ratio(areas, number)[number > 0]
    number = number[number > 0]
    return float((weight @ number) ** 2 / (weight**2 @ number))


def interval(values: npt.ArrayLike, probability: float, block: npt.ArrayLike) -> np.ndarray:
    """Return both ends of the expanded percentile interval of values that a bootstrap drew.

    A plain percentile interval is too narrow where there are few blocks: by the root of 1 - 1/n,
    and as the normal distribution is narrower than Student's t. So percentiles further out are
    taken (Hesterberg 2015), for Kish's effective number of blocks, since one that holds half of the
    samples counts for many.

    Draws, the first axis of the values, in which a value is undefined do not count; NaN where all
    are. `block` is the number of each sample's block.

    References
    ----------
    Hesterberg, T. (2015). What teachers should know about the bootstrap. The American Statistician
    69, 371-386. https://doi.org/10.1080/00031305.2015.1089789
    Kish, L. (1965). Survey Sampling. Wiley.

    Examples
    --------
    >>> values = np.linspace(0, 1, 101)  # as if drawn
    >>> plain, expanded = (interval(values, 0.9, np.arange(n)).round(2) for n in (1000, 5))
    >>> plain.tolist(), expanded.tolist()
    ([0.05, 0.95], [0.01, 0.99])
    """
    sizes = np.bincount(np.asarray(block)).astype(float)
    blocks = max(sizes.sum() ** 2 / (sizes**2).sum(), 1 + 1e-9)
    student = stdtrit(blocks - 1, (1 - probability) / 2)
    tail = 100 * ndtr(np.sqrt(blocks / (blocks - 1)) * student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN
        return np.nanpercentile(np.asarray(values, float), [tail, 100 - tail], axis=0)


def wilson(
    successes: npt.ArrayLike, number: npt.ArrayLike, probability: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of Wilson's interval of shares.

    Examples
    --------
    >>> [round(float(end), 4) for end in wilson(8, 10, 0.95)]
    [0.4902, 0.9433]
    """
    z = ndtri((1 + probability) / 2)
    share, number = np.divide(successes, number), np.asarray(number, float)
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    spread = np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    reach = z / (1 + z**2 / number) * spread
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)


def matrix_scores(matrix: npt.ArrayLike) -> dict[str, Any]:
    """Return all scores that follow from a confusion matrix, or from a stack of them, by name.

    Examples
    --------
    >>> scores = matrix_scores([[40, 10], [5, 45]])
    >>> {name: round(float(scores[name]), 2) for name in ("overall_accuracy", "kappa", "macro_f1")}
    {'overall_accuracy': 0.85, 'kappa': 0.7, 'macro_f1': 0.85}
    """
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


def _diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _checked(matrix: npt.ArrayLike) -> np.ndarray:
    matrix = np.asarray(matrix, float)
    square = matrix.ndim >= 2 and matrix.shape[-2] == matrix.shape[-1]
    if not (square and (np.isfinite(matrix) & (matrix >= 0)).all()):
        raise AccuracyError(
            f"An array of shape {matrix.shape} is no confusion matrix.",
            "give a square one of finite counts or shares, none negative",
        )
    return matrix


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Any:
    """Return part / whole, NaN where whole is 0; a float for scalars.

    Examples
    --------
    >>> ratio([1, 0], [4, 0]).tolist()
    [0.25, nan]
    """
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    quotient = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return quotient if quotient.ndim else float(quotient)
