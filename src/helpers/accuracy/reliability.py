"""Reliability: whether a class occurs as often as its probability says."""

import numpy as np
import pandas as pd

from helpers.core.classes import TARGETS
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import checked_probabilities
from helpers.forest import calibration

_DRAWS = 200  # outcomes drawn from the probabilities, for the error of a perfect model


LEAST = 5
"""Samples of a bin that is drawn."""


KINDS = {"raw": ("o", "0.45", "forest's own"), "calibrated": ("s", "#0072b2", "calibrated")}
"""Kinds of probabilities: marker, colour and label."""


def reliability(reference, probabilities, classes, bins=10):
    """Return how often each class occurred among samples that were given about the same probability of it.

    Parameters
    ----------
    reference : array_like, shape (n,)
        True classes.
    probabilities : array_like, shape (n, k)
    classes : sequence of length k
    bins : int
        Of equal width between 0 and 1.

    Returns
    -------
    pandas.DataFrame
        One row a class and bin that holds samples: ``class``, ``bin`` (from 0), ``n``, mean ``predicted`` probability,
        ``observed`` share, and the ends ``lower`` and ``upper`` of its 90 % Wilson interval.

    Raises
    ------
    helpers.core.scores.AccuracyError
        As from `helpers.core.scores.log_loss`.
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    count, predicted, observed = _binned(probabilities, occurs, bins)
    kind, place = np.nonzero(count)
    n, given, known = (part[kind, place] for part in (count, predicted, observed))
    lower, upper = wilson(known, n)
    table = {"class": np.array(list(classes))[kind], "bin": place, "n": n.astype(int), "predicted": given / n}
    return pd.DataFrame(table | {"observed": known / n, "lower": lower, "upper": upper})


def calibration_error(reference, probabilities, classes, rng, bins=10):
    """Return the expected calibration error of each class, beside the one that a perfect model would have.

    It is the mean over samples of the absolute difference between predicted probability and observed share of their
    bin (classwise, Kull et al. 2019). Of few samples also a perfect model has one: what outcomes that are drawn from
    the very probabilities give, on average and in 95 of 100 draws at most.

    Parameters
    ----------
    reference, probabilities, classes, bins
        As for `reliability`.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row a class: ``class``, ``n`` samples of it, mean ``predicted`` probability, ``observed`` share, ``ece``,
        ``ece_perfect`` and ``ece_perfect_95``. NaN without samples.

    References
    ----------
    Kull, M., et al. (2019). Beyond temperature scaling: obtaining well-calibrated multi-class probabilities with
    Dirichlet calibration. NeurIPS 32. Broecker, J., Smith, L. (2007). Increasing the reliability of reliability
    diagrams. Weather and Forecasting 22, 651-661.
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    table = pd.DataFrame({"class": list(classes), "n": occurs.sum(axis=0)})
    if not len(probabilities):
        return table.assign(predicted=np.nan, observed=np.nan, ece=np.nan, ece_perfect=np.nan, ece_perfect_95=np.nan)
    limits = np.cumsum(probabilities, axis=1)
    drawn = rng.random((_DRAWS, len(probabilities), 1)) > limits[:, :-1] / limits[:, -1:]
    drawn = drawn.sum(axis=2)[..., np.newaxis] == np.arange(len(table))
    perfect = np.array([_error(probabilities, one, bins) for one in drawn])
    return table.assign(
        predicted=probabilities.mean(axis=0),
        observed=occurs.mean(axis=0),
        ece=_error(probabilities, occurs, bins),
        ece_perfect=perfect.mean(axis=0),
        ece_perfect_95=np.percentile(perfect, 95, axis=0),
    )


def _binned(probabilities, occurs, bins):
    """Return samples, sum of probabilities and of occurrences by class and bin, each of shape (k, bins)."""
    size = probabilities.shape[1]
    place = np.minimum((probabilities * bins).astype(int), bins - 1) + bins * np.arange(size)
    parts = (None, probabilities.ravel(), occurs.ravel().astype(float))
    return [np.bincount(place.ravel(), part, minlength=size * bins).reshape(size, bins) for part in parts]


def _error(probabilities, occurs, bins):
    _, predicted, observed = _binned(probabilities, occurs, bins)
    return np.abs(predicted - observed).sum(axis=1) / len(probabilities)


def wilson(successes, number, probability=0.9):
    """Return lower and upper ends of Wilson's interval of a share.

    Examples
    --------
    >>> [round(float(end), 4) for end in wilson(8, 10, 0.95)]
    [0.4902, 0.9433]
    """
    from scipy.stats import norm

    z = norm.ppf((1 + probability) / 2)
    share, number = np.divide(successes, number), np.asarray(number, float)
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    reach = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)


def evaluate_reliability(study, tested, probabilities, calibrations):
    """Judge the probabilities of the test samples: the forest's own (raw) and the calibrated ones.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its `accuracy.bins` and `accuracy.seed`.
    tested : dict of str to pandas.DataFrame
        Test samples of each layer, with their class.
    probabilities : dict of str to numpy.ndarray, shape (n, k)
        The forest's own, of each layer.
    calibrations : dict of str to dict
        Of each layer's card.

    Returns
    -------
    curves : pandas.DataFrame
        As from `reliability`, with ``layer`` (and ``all`` layers together) and ``probabilities``, a key of `KINDS`.
    errors : pandas.DataFrame
        As from `calibration_error`, with the same two columns.
    """
    classes, curves, errors = TARGETS[study.target].codes, [], []
    known = {layer: rows["class"].to_numpy() for layer, rows in tested.items()}
    given = {
        "raw": dict(probabilities),
        "calibrated": {
            layer: calibration.calibrate(part, calibrations[layer]) for layer, part in probabilities.items()
        },
    }
    for kind, parts in given.items():
        every = {"all": (np.concatenate(list(known.values())), np.concatenate(list(parts.values())))}
        for layer, pair in ({layer: (known[layer], parts[layer]) for layer in known} | every).items():
            rng, bins = np.random.default_rng(study.accuracy.seed), study.accuracy.bins
            names = {"layer": layer, "probabilities": kind}
            curves.append(_first(reliability(*pair, classes, bins), names))
            errors.append(_first(calibration_error(*pair, classes, rng, bins), names))
    return pd.concat(curves, ignore_index=True), pd.concat(errors, ignore_index=True)


def _first(table, names):
    for place, (name, value) in enumerate(names.items()):
        table.insert(place, name, value)
    return table


def plot_reliability(study, curves, errors, layer="all"):
    """Draw reliability diagrams of each class, raw and calibrated; bars are 90 % intervals, by Wilson.

    Bins of fewer than `LEAST` samples are in the table alone.

    Parameters
    ----------
    study : helpers.core.study.Study
    curves, errors : pandas.DataFrame
        From `judge`.
    layer : str
        A layer, or all together.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    classes = TARGETS[study.target].classes
    ncols = min(3, len(classes))
    nrows = -(-len(classes) // ncols)
    size = (WIDTH_MM / 25.4, (14 + 66 * nrows) / 25.4)
    figure, axes = plt.subplots(nrows, ncols, figsize=size, sharex=True, sharey=True, squeeze=False)
    for panel, kind in zip(axes.flat, classes, strict=False):
        plot_class(panel, curves, errors, kind, layer)
    for panel in axes.flat[len(classes) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("predicted probability")
    for panel in axes[:, 0]:
        panel.set_ylabel("observed share")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncols=len(KINDS), frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 0.95))
    if study.simulated:
        mark_simulated(figure)
    return figure


def plot_class(axes, curves, errors, kind, layer="all"):
    """Draw the reliability diagram of one class (`helpers.core.classes.IceType`) into axes."""
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.7, zorder=0)
    for place, (name, (marker, colour, label)) in enumerate(KINDS.items()):
        chosen = {"layer": layer, "probabilities": name, "class": kind.code}
        part, error = (table[(table[list(chosen)] == chosen).all(axis=1)] for table in (curves, errors))
        part = part[part["n"] >= LEAST]
        bars = np.abs(part[["lower", "upper"]].to_numpy().T - part["observed"].to_numpy())
        axes.errorbar(
            part["predicted"], part["observed"], bars, fmt=f"{marker}-", color=colour, markersize=3, linewidth=0.9,
            elinewidth=0.5, label=label,
        )  # fmt: skip
        text = f"ECE {error['ece'].item():.3f}"
        axes.text(0.03, 0.93 - 0.08 * place, text, color=colour, transform=axes.transAxes, size=6.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=kind.name, aspect="equal")
