"""Sets of classes that hold the right one with a stated probability.

Class-conditional conformal prediction: a sample's score is 1 - p of its own class (LAC). A class
is in a cell's set where its probability is not lower than that of most samples of this class. The
stated probability holds on average over samples of a class, and only if cells are exchangeable
with samples, which cells far from boreholes are not.
"""

import numpy as np
import numpy.typing as npt


def set_limits(probabilities: npt.ArrayLike, types: npt.ArrayLike, coverage: float) -> np.ndarray:
    """Return the least probability with which each class is in a prediction set, shape (k,).

    The score 1 - p of the ceil((n + 1) coverage)-th best of a class's n calibration samples is the
    largest that is let in. A class with fewer samples than that, such as 8 at a coverage of 0.9,
    has no limit: NaN.

    Parameters
    ----------
    probabilities : shape (n, k)
        Predicted without the samples.
    types : shape (n,)
        Column of each sample's own class.
    coverage
        Between 0 and 1.

    References
    ----------
    Sadinle, M., Lei, J., Wasserman, L. (2019). Least ambiguous set-valued classifiers with bounded
    error levels. J. Am. Stat. Assoc. 114, 223-234. https://doi.org/10.1080/01621459.2017.1395341

    Examples
    --------
    >>> set_limits([[0.1, 0.9]] * 9 + [[0.7, 0.3]] * 8, [1] * 9 + [0] * 8, 0.9).tolist()
    [nan, 0.9]
    """
    probabilities = np.asarray(probabilities, float)
    types = np.asarray(types)
    limits = np.full(probabilities.shape[1], np.nan)
    for code in range(len(limits)):
        own = np.sort(probabilities[types == code, code])[::-1]
        rank = int(np.ceil((len(own) + 1) * coverage - 1e-9))  # 10 * 0.9 is 9 and not more
        if rank <= len(own):
            limits[code] = own[rank - 1]
    return limits


def prediction_sets(probabilities: npt.ArrayLike, limits: npt.ArrayLike) -> np.ndarray:
    """Return whether each class is in the set of each cell, shape (n, k).

    Limits are those of `set_limits`. The most probable class is always in, so that no set is
    empty. A class without a limit has too few samples to be left out: it is in wherever its
    probability is not 0.

    Examples
    --------
    >>> cell = [[0.7, 0.2, 0.1]]
    >>> prediction_sets(cell, [0.4, 0.3, 0.2]).tolist()
    [[True, False, False]]
    >>> prediction_sets(cell, [0.4, 0.3, np.nan]).tolist()  # too few samples of the last class
    [[True, False, True]]
    """
    probabilities = np.asarray(probabilities)
    limits = np.asarray(limits)
    members = np.where(np.isnan(limits), probabilities > 0, probabilities >= limits)
    members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
    return members


def held_out_sets(
    probabilities: np.ndarray, types: np.ndarray, fold: np.ndarray, coverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of samples by the limits of the other folds: coverage is estimated from them.

    Samples that belong together must be in one fold.

    Returns
    -------
    members : shape (n, k)
        Whether each class is in the set of each sample.
    has_limit : shape (n,)
        Whether the other folds give a limit for the sample's own class.

    Examples
    --------
    >>> chances = np.array([[0.6, 0.4], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
    >>> types, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    >>> # Limits are what the other fold gives true classes: 0.4 and 0.4, then 0.6 and 0.7.
    >>> members, _ = held_out_sets(chances, types, fold, coverage=0.5)
    >>> members.astype(int).tolist()
    [[1, 1], [0, 1], [0, 1], [1, 0]]
    """
    members = np.zeros(probabilities.shape, bool)
    has_limit = np.zeros(len(types), bool)
    for number in np.unique(fold):
        held = fold == number
        limits = set_limits(probabilities[~held], types[~held], coverage)
        members[held] = prediction_sets(probabilities[held], limits)
        has_limit[held] = np.isfinite(limits[types[held]])
    return members, has_limit


def covered(members: np.ndarray, types: npt.ArrayLike) -> np.ndarray:
    """Return whether each set holds the sample's or cell's own class, shape (n,).

    Examples
    --------
    >>> sets = np.array([[True, False], [True, True]])
    >>> covered(sets, [1, 1]).tolist()
    [False, True]
    """
    return members[np.arange(len(members)), np.asarray(types, int)]
