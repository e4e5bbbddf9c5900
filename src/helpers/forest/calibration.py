"""Calibrated probabilities: a multinomial regression on log-probabilities out of fold."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from helpers.core.scores import PROBABILITY_FLOOR
from helpers.samples.rows import ForestError

_SHRINKAGE = 3.0  # pull of the calibration towards one slope for all classes, in samples: chosen on simulated data


# Calibration ------------------------------------------------------------------------------------------------


def fit_calibration(probabilities, types, sample_weight=None):
    """Fit a multinomial logistic regression on log-probabilities that were predicted out of fold.

    A balanced forest gives rare classes too much; calibrated, the mean probability of each class equals its
    (weighted) share of the samples. The slopes are pulled towards one slope for all classes, because rare
    classes have too few samples for slopes of their own; the intercepts, which carry the shares, are free.

    Parameters
    ----------
    probabilities : numpy.ndarray, shape (n, k)
        Of forests that did not see the samples.
    types : array_like of int, shape (n,)
        True classes.
    sample_weight : array_like, shape (n,), optional
        Weight of each sample, for example the area that it stands for. One each by default.

    Returns
    -------
    dict
        For `calibrate`; ready for JSON.

    Raises
    ------
    ForestError
        The shapes do not fit, or a weight is negative or not finite.
    """
    probabilities, types = np.asarray(probabilities, float), np.asarray(types)
    weight = np.ones(len(types)) if sample_weight is None else np.asarray(sample_weight, float)
    fits = probabilities.ndim == 2 and probabilities.shape[0] == len(types) and weight.shape == types.shape
    fits = fits and np.isin(types, range(probabilities.shape[1])).all()
    if not (fits and np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
        raise ForestError(
            f"No calibration follows from probabilities of shape {probabilities.shape}, "
            f"{len(types)} types and weights of shape {weight.shape}.",
            "give one row, one type and one weight of 0 or more a sample, and one column a class",
        )
    kept = weight > 0
    present = np.unique(types[kept])
    size, target = len(present), (types[kept][:, np.newaxis] == present).astype(float)
    logs = np.log(np.maximum(probabilities[kept][:, present], PROBABILITY_FLOOR))
    share = (weight[kept] / weight.sum())[:, np.newaxis]

    # Scores are linear in the parameters: the common slope, an intercept for each class, and a matrix that departs
    # from the common slope. Departure is penalised, the intercepts are not.
    design = np.zeros((len(logs), size, 1 + size + size**2))
    design[:, :, 0] = logs
    for k in range(size):
        design[:, k, 1 + k] = 1
        design[:, k, 1 + size * (k + 1) : 1 + size * (k + 2)] = logs
    start = np.concatenate([[1.0], np.log(share.T @ target).ravel(), np.zeros(size**2)])
    centre = np.eye(len(start))[0]
    pull = np.full(len(start), _SHRINKAGE / len(logs))
    pull[1 : 1 + size] = 0

    def loss(values):
        scores = log_softmax(design @ values, axis=1)
        wrong = share * (np.exp(scores) - target)
        value = pull @ (values - centre) ** 2 / 2 - (share * target * scores).sum()
        return value, np.tensordot(wrong, design) + pull * (values - centre)

    def curvature(values):
        given = np.exp(log_softmax(design @ values, axis=1))
        mean = np.einsum("nk,nkp->np", given, design)
        flat = design.reshape(-1, len(values))
        return (flat.T * (share * given).ravel()) @ flat - (mean.T * share.ravel()) @ mean + np.diag(pull)

    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
    slope, intercept, departure = np.split(found.x, [1, 1 + size])
    intercept = intercept - intercept.mean()  # a common part changes nothing, and nothing determines it
    return {
        "classes": present.tolist(),
        "matrix": (slope * np.eye(size) + departure.reshape(size, size)).round(9).tolist(),
        "intercept": intercept.round(9).tolist(),
        "floor": PROBABILITY_FLOOR,
    }


def calibrate(probabilities, calibration):
    """Return calibrated probabilities.

    Parameters
    ----------
    probabilities : numpy.ndarray of float, shape (n, k)
        A forest's own, one column a class. NaN rows stay NaN.
    calibration : dict
        From `fit_calibration`.

    Returns
    -------
    numpy.ndarray, shape (n, k)
        Of the same type; rows sum to 1. A class that had no sample keeps probability 0.
    """
    probabilities = np.asarray(probabilities)
    kind = probabilities.dtype if probabilities.dtype.kind == "f" else np.dtype(float)
    columns = calibration["classes"]
    scores = np.maximum(probabilities[:, columns], kind.type(calibration["floor"]), dtype=kind)
    np.log(scores, out=scores)
    # einsum adds up in one order on any number of cores; a matrix product does not.
    scores = np.einsum("nj,kj->nk", scores, np.asarray(calibration["matrix"], kind))
    scores += np.asarray(calibration["intercept"], kind)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    calibrated = np.zeros(probabilities.shape, kind)
    calibrated[:, columns] = scores
    return calibrated
