"""Sets of classes that hold the true one with a stated probability: class-conditional conformal prediction.

A sample's score is 1 - p of its true class (LAC). A class enters a cell's set where its probability is not lower than
that of most samples which truly are of it. What is promised holds on average over samples of a class, and only if cells
are exchangeable with samples, which cells far from boreholes are not.
"""

import numpy as np

_ROUNDING = 1e-9  # 10 * 0.9 is 9 and not more


def set_limits(probabilities, types, coverage):
    """Return the least probability with which each class is in a prediction set.

    The score 1 - p of the ceil((n + 1) coverage)-th best of a class's n calibration samples is the largest that is
    still let in; with fewer samples than that, as with 8 at a coverage of 0.9, there is no such set.

    Parameters
    ----------
    probabilities : array_like, shape (n, k)
        Predicted without the samples.
    types : array_like of int, shape (n,)
        Column of each sample's true class.
    coverage : float
        Between 0 and 1.

    Returns
    -------
    numpy.ndarray, shape (k,)
        NaN for a class with too few samples.

    References
    ----------
    Sadinle, M., Lei, J., Wasserman, L. (2019). Least ambiguous set-valued classifiers with bounded error levels.
    J. Am. Stat. Assoc. 114, 223-234. https://doi.org/10.1080/01621459.2017.1395341

    Examples
    --------
    >>> set_limits([[0.1, 0.9]] * 9 + [[0.7, 0.3]] * 8, [1] * 9 + [0] * 8, 0.9).tolist()
    [nan, 0.9]
    """
    probabilities, types = np.asarray(probabilities, float), np.asarray(types)
    limits = np.full(probabilities.shape[1], np.nan)
    for code in range(len(limits)):
        own = np.sort(probabilities[types == code, code])[::-1]
        rank = int(np.ceil((len(own) + 1) * coverage - _ROUNDING))
        if rank <= len(own):
            limits[code] = own[rank - 1]
    return limits


def prediction_sets(probabilities, limits):
    """Return which classes are in the set of each cell.

    The most probable class always is, so that no set is empty. A class without a limit, of which there are too few
    samples to leave it out, is in wherever it has a probability at all.

    Parameters
    ----------
    probabilities : array_like, shape (n, k)
    limits : array_like, shape (k,)
        From `set_limits`.

    Returns
    -------
    numpy.ndarray of bool, shape (n, k)
    """
    probabilities, limits = np.asarray(probabilities), np.asarray(limits)
    members = np.where(np.isnan(limits), probabilities > 0, probabilities >= limits)
    members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
    return members


def held_out_sets(probabilities, types, fold, coverage):
    """Return the sets of samples, each by the limits that the other folds give: what their coverage is judged by.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, k)
    types : numpy.ndarray of int, shape (n,)
    fold : numpy.ndarray, shape (n,)
        Samples that belong together are in one.
    coverage : float

    Returns
    -------
    members : numpy.ndarray of bool, shape (n, k)
    judged : numpy.ndarray of bool, shape (n,)
        Whether the other folds give a limit for the sample's own class.
    """
    members, judged = np.zeros(probabilities.shape, bool), np.zeros(len(types), bool)
    for number in np.unique(fold):
        held = fold == number
        limits = set_limits(probabilities[~held], types[~held], coverage)
        members[held], judged[held] = prediction_sets(probabilities[held], limits), np.isfinite(limits[types[held]])
    return members, judged


def covered(members, types):
    """Return whether each set holds the true class.

    Parameters
    ----------
    members : numpy.ndarray of bool, shape (n, k)
    types : array_like of int, shape (n,)

    Returns
    -------
    numpy.ndarray of bool, shape (n,)
    """
    return members[np.arange(len(members)), np.asarray(types, int)]
