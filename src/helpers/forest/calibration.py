"""Calibrated probabilities: a multinomial regression on log-probabilities out of fold."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from helpers.core.scores import PROBABILITY_FLOOR
from helpers.samples.rows import ForestError

# Pull of the calibration towards one slope for all classes, in samples: chosen on simulated data.
_SHRINKAGE = 3.0


def fit_calibration(
    probabilities: np.ndarray, types: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """Fit a multinomial logistic regression on log-probabilities that were predicted out of fold.

    A balanced forest gives rare classes too much; calibrated, the mean probability of each class
    equals its (weighted) share of the samples. The slopes are pulled towards one slope for all
    classes, because rare classes have too few samples for slopes of their own; the intercepts,
    which carry the shares, are free.

    Probabilities have the shape (n, k), reference classes (`types`) and weights, such as the area
    that each sample stands for, (n,). The result is for `calibrate`, and ready for JSON. It is a
    ForestError if the shapes do not fit, or a weight is negative or not finite.
    """
    probabilities = np.asarray(probabilities, float)
    types = np.asarray(types)
    weight = np.ones(len(types)) if sample_weight is None else np.asarray(sample_weight, float)
    fits = probabilities.ndim == 2 and len(probabilities) == len(types) == len(weight)
    fits = fits and np.isin(types, range(probabilities.shape[1])).all()
    if not (fits and np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
        raise ForestError(
            f"No calibration follows from probabilities of shape {probabilities.shape}, "
            f"{len(types)} types and weights of shape {weight.shape}.",
            "give one row, one type and one weight of 0 or more a sample, and one column a class",
        )
    kept = weight > 0
    present = np.unique(types[kept])
    size = len(present)
    target = (types[kept][:, np.newaxis] == present).astype(float)
    logs = np.log(np.maximum(probabilities[kept][:, present], PROBABILITY_FLOOR))
    share = (weight[kept] / weight.sum())[:, np.newaxis]

    # Scores are linear in the parameters: the common slope, an intercept for each class, and a
    # matrix that departs from the common slope. Departure is penalised, the intercepts are not.
    design = np.zeros((len(logs), size, 1 + size + size**2))
    design[:, :, 0] = logs
    for k in range(size):
        design[:, k, 1 + k] = 1
        design[:, k, 1 + size * (k + 1) : 1 + size * (k + 2)] = logs
    start = np.concatenate([[1.0], np.log(share.T @ target).ravel(), np.zeros(size**2)])
    centre = np.eye(len(start))[0]
    pull = np.full(len(start), _SHRINKAGE / len(logs))
    pull[1 : 1 + size] = 0

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scores = log_softmax(design @ values, axis=1)
        wrong = share * (np.exp(scores) - target)
        value = pull @ (values - centre) ** 2 / 2 - (share * target * scores).sum()
        return value, np.tensordot(wrong, design) + pull * (values - centre)

    def curvature(values: np.ndarray) -> np.ndarray:
        predicted = np.exp(log_softmax(design @ values, axis=1))
        mean = np.einsum("nk,nkp->np", predicted, design)
        flat = design.reshape(-1, len(values))
        squares = (flat.T * (share * predicted).ravel()) @ flat
        return squares - (mean.T * share.ravel()) @ mean + np.diag(pull)

    # Products of matrices add up in another order on more cores.
    solver = {"method": "trust-exact", "options": {"gtol": 1e-10}}
    with threadpool_limits(1):
        fitted = minimize(loss, start, jac=True, hess=curvature, **solver)
    slope, intercept, departure = np.split(fitted.x, [1, 1 + size])
    intercept = intercept - intercept.mean()  # a common part of all changes nothing
    return {
        "classes": present.tolist(),
        "matrix": (slope * np.eye(size) + departure.reshape(size, size)).round(9).tolist(),
        "intercept": intercept.round(9).tolist(),
        "floor": PROBABILITY_FLOOR,
    }


def calibrate_held_out(
    probabilities: np.ndarray, types: np.ndarray, fold: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return probabilities of samples, (n, k), calibrated by the samples of the other folds."""
    calibrated = np.empty_like(probabilities)
    for number in np.unique(fold):
        held = fold == number
        weights = None if weight is None else weight[~held]
        calibration = fit_calibration(probabilities[~held], types[~held], weights)
        calibrated[held] = calibrate(probabilities[held], calibration)
    return calibrated


def calibrate(probabilities: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """Return a forest's probabilities (n, k), calibrated, in the same type; rows sum to 1.

    The calibration is from `fit_calibration`; a class that had no sample in it gets probability 0.
    NaN rows stay NaN.
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
