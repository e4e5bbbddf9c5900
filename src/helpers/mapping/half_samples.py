"""Calibrations fitted anew for every draw of sites, by forests of half of the blocks."""

import numpy as np

_PULL = 3.0  # of the calibration's slope towards the one of all samples, in samples, as in `forest.fit_calibration`


_STEPS = 50


# Sites ----------------------------------------------------------------------------------------------------------------


def half_samples(blocks, bags, rng):
    """Return halves of the blocks in pairs, of which the second is what the first leaves out.

    Parameters
    ----------
    blocks : int
    bags : int
        Even, so that each block is left out equally often.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of bool, shape (bags, blocks)
        Whether a block is in a half.
    """
    halves = np.zeros((bags, blocks), bool)
    for pair in halves.reshape(-1, 2, blocks):
        pair[0, rng.permutation(blocks)[: blocks // 2]] = True
        pair[1] = ~pair[0]
    return halves


def refit_shares(scores, types, share):
    """Fit intercepts and one slope of given scores anew for many weightings of the samples.

    It is the calibration of `helpers.forest.calibration.fit_calibration`, but for the slopes between classes, which
    stay those of
    all samples: they hardly move a total. Newton's method, all draws at once.

    Parameters
    ----------
    scores : numpy.ndarray, shape (n, k)
        Calibrated log-probabilities.
    types : numpy.ndarray of int, shape (n,)
        Columns of the true classes.
    share : numpy.ndarray, shape (draws, n)
        Weights, which add up to 1 in each draw.

    Returns
    -------
    slope : numpy.ndarray, shape (draws,)
    intercept : numpy.ndarray, shape (draws, k)
        Of a class without a weighted sample so low that its probability is 0.
    """
    draws, (n, k) = len(share), scores.shape
    target = np.eye(k)[types]
    present = np.einsum("dn,nk->dk", share, target) > 0
    values = np.concatenate([np.ones((draws, 1)), np.where(present, 0.0, -60.0)], axis=1)
    pull, eye = _PULL / n, np.eye(1 + k)

    def loss(values, probabilities, part):
        given = np.take_along_axis(probabilities[part], types[np.newaxis, :, np.newaxis], 2)[:, :, 0]
        logs = np.log(np.maximum(given, 1e-300))
        return pull * (values[:, 0] - 1) ** 2 / 2 - np.einsum("dn,dn->d", share, logs)

    probabilities = class_shares(scores, values)
    reached = loss(values, probabilities, slice(None))
    for _ in range(_STEPS):
        wrong = probabilities - target
        gradient = np.empty_like(values)
        gradient[:, 0] = np.einsum("dn,nk,dnk->d", share, scores, wrong) + pull * (values[:, 0] - 1)
        gradient[:, 1:] = np.einsum("dn,dnk->dk", share, wrong)
        if np.abs(gradient).max() < 1e-8:
            break
        weighted, mean = share[:, :, np.newaxis] * probabilities, np.einsum("dnk,nk->dn", probabilities, scores)
        curvature = np.empty((draws, 1 + k, 1 + k))
        curvature[:, 0, 0] = np.einsum("dnk,nk->d", weighted, scores**2) - np.einsum("dn,dn->d", share, mean**2) + pull
        cross = np.einsum("dnk,nk->dk", weighted, scores) - np.einsum("dnk,dn->dk", weighted, mean)
        curvature[:, 0, 1:] = curvature[:, 1:, 0] = cross
        curvature[:, 1:, 1:] = np.eye(k) * weighted.sum(axis=1)[:, :, np.newaxis] - np.matmul(
            weighted.transpose(0, 2, 1), probabilities
        )
        # Neither a common part of all intercepts nor the intercept of an absent class is determined.
        curvature[:, 1:, 1:] += np.where(present, 1 / k, 0)[:, np.newaxis] * np.where(present, 1, 0)[:, :, np.newaxis]
        curvature += eye * np.concatenate([np.zeros((draws, 1)), ~present], axis=1)[:, :, np.newaxis] + 1e-12 * eye
        step = np.linalg.solve(curvature, gradient[:, :, np.newaxis])[:, :, 0]
        length = np.ones((draws, 1))
        for _ in range(30):
            tried = values - length * step
            probabilities = class_shares(scores, tried)
            now = loss(tried, probabilities, slice(None))
            worse = now > reached + 1e-12
            if not worse.any():
                break
            length[worse] /= 2
        values, reached = tried, now
    return values[:, 0], values[:, 1:]


def class_shares(scores, values):
    """Return probabilities, shape (draws, n, k), by slope and intercepts in the columns of values."""
    raised = values[:, 0, np.newaxis, np.newaxis] * scores + values[:, np.newaxis, 1:]
    raised -= raised.max(axis=2, keepdims=True)
    np.exp(raised, out=raised)
    raised /= raised.sum(axis=2, keepdims=True)
    return raised
