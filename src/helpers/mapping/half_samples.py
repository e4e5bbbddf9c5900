"""Calibrations fitted anew for every draw of sites, by forests of half of the blocks."""

import numpy as np
from scipy.special import softmax

# Of the calibration's slope towards the one of all samples, in samples, as in
# `helpers.forest.calibration.fit_calibration`.
_PULL = 3.0


def half_samples(blocks: int, bags: int, rng: np.random.Generator) -> np.ndarray:
    """Return whether a block is in a half, shape (bags, blocks).

    Halves come in pairs, of which the second is what the first leaves out. An even number of
    `bags` leaves out each block equally often.
    """
    halves = np.zeros((bags, blocks), bool)
    for pair in halves.reshape(-1, 2, blocks):
        pair[0, rng.permutation(blocks)[: blocks // 2]] = True
        pair[1] = ~pair[0]
    return halves


def refit_shares(scores: np.ndarray, types: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Fit intercepts and one slope of scores anew for many weightings of the samples.

    It is the calibration of `helpers.forest.calibration.fit_calibration`, but for the slopes
    between classes, which stay those of all samples: they hardly move a total. Newton's method,
    all draws at once.

    Parameters
    ----------
    scores : shape (n, k)
        Calibrated log-probabilities.
    types : shape (n,)
        Columns of the samples' own classes.
    share : shape (draws, n)
        Weights, which add up to 1 in each draw.

    Returns
    -------
    values : shape (draws, 1 + k)
        Slope and intercepts; that of a class without a weighted sample is so low that its
        probability is 0.
    """
    draws = len(share)
    n, k = scores.shape
    target = np.eye(k)[types]
    present = np.einsum("dn,nk->dk", share, target) > 0
    values = np.concatenate([np.ones((draws, 1)), np.where(present, 0.0, -60.0)], axis=1)
    probabilities = class_shares(scores, values)
    reached = _loss(values, probabilities, types, share)
    for _ in range(50):
        wrong = probabilities - target
        gradient = np.empty_like(values)
        gradient[:, 0] = np.einsum("dn,nk,dnk->d", share, scores, wrong)
        gradient[:, 0] += _PULL / n * (values[:, 0] - 1)
        gradient[:, 1:] = np.einsum("dn,dnk->dk", share, wrong)
        if np.abs(gradient).max() < 1e-8:
            break
        curvature = _curvature(scores, share, probabilities, present)
        step = np.linalg.solve(curvature, gradient[:, :, np.newaxis])[:, :, 0]
        length = np.ones((draws, 1))
        for _ in range(30):
            tried = values - length * step
            probabilities = class_shares(scores, tried)
            now = _loss(tried, probabilities, types, share)
            worse = now > reached + 1e-12
            if not worse.any():
                break
            length[worse] /= 2
        values = tried
        reached = now
    return values


def _loss(
    values: np.ndarray, probabilities: np.ndarray, types: np.ndarray, share: np.ndarray
) -> np.ndarray:
    own = np.take_along_axis(probabilities, types[np.newaxis, :, np.newaxis], 2)[:, :, 0]
    logs = np.log(np.maximum(own, 1e-300))
    return _PULL / len(types) * (values[:, 0] - 1) ** 2 / 2 - np.einsum("dn,dn->d", share, logs)


def _curvature(
    scores: np.ndarray, share: np.ndarray, probabilities: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Return the loss's second derivatives by slope and intercepts, shape (draws, 1 + k, 1 + k)."""
    n, k = scores.shape
    draws = len(share)
    weighted = share[:, :, np.newaxis] * probabilities
    mean = np.einsum("dnk,nk->dn", probabilities, scores)
    curvature = np.empty((draws, 1 + k, 1 + k))
    curvature[:, 0, 0] = (
        np.einsum("dnk,nk->d", weighted, scores**2)
        - np.einsum("dn,dn->d", share, mean**2)
        + _PULL / n
    )
    cross = np.einsum("dnk,nk->dk", weighted, scores) - np.einsum("dnk,dn->dk", weighted, mean)
    curvature[:, 0, 1:] = cross
    curvature[:, 1:, 0] = cross
    curvature[:, 1:, 1:] = np.eye(k) * weighted.sum(axis=1)[:, :, np.newaxis]
    curvature[:, 1:, 1:] -= np.matmul(weighted.transpose(0, 2, 1), probabilities)
    # Neither a common part of all intercepts nor the intercept of an absent class is determined.
    curvature[:, 1:, 1:] += (present[:, np.newaxis] & present[:, :, np.newaxis]) / k
    absent = np.concatenate([np.zeros((draws, 1)), ~present], axis=1)
    eye = np.eye(1 + k)
    curvature += eye * absent[:, :, np.newaxis] + 1e-12 * eye
    return curvature


def class_shares(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return probabilities, shape (draws, n, k), by slope and intercepts, the columns of values."""
    raised = values[:, 0, np.newaxis, np.newaxis] * scores + values[:, np.newaxis, 1:]
    return softmax(raised, axis=2)
