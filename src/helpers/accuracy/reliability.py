"""Reliability: whether a class occurs as often as its probability says."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.core.classes import IceType
from helpers.core.plot import mark_label, panels
from helpers.core.scores import checked_probabilities, wilson
from helpers.core.study import Study

LEAST = 5
"""Samples of a bin that is drawn."""

KINDS = {
    "reference": ("o", "0.45", "balanced forest"),
    "expected": ("s", "#0072b2", "hurdle model"),
}
"""Probabilities by their map (`helpers.accuracy.predictions.MAPS`): marker, colour and label."""

_DRAWS = 200  # outcomes drawn from the probabilities, for the error of a perfect model


def reliability(
    reference: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[int], bins: int = 10
) -> pd.DataFrame:
    """Return how often each class occurred among samples with about the same probability of it.

    There is one row a class and bin that holds samples: the mean ``predicted`` probability, and the
    ``observed`` share with its 90 % Wilson interval. Arguments and errors are those of
    `helpers.core.scores.log_loss`, and the number of bins of equal width between 0 and 1.

    Examples
    --------
    >>> chance = [[0.8, 0.2]] * 10  # class 1 occurs in 4 of 10, and 2 were said
    >>> table = reliability([1] * 4 + [0] * 6, chance, [0, 1])
    >>> table.loc[table["class"] == 1, ["n", "predicted", "observed"]].round(2).values.tolist()
    [[10.0, 0.2, 0.4]]
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    count, predicted, observed = _binned(probabilities, occurs, bins)
    code, place = np.nonzero(count)
    n = count[code, place]
    occurred = observed[code, place]
    lower, upper = wilson(occurred, n)
    columns = {"class": np.array(list(classes))[code], "bin": place, "n": n.astype(int)}
    columns |= {"predicted": predicted[code, place] / n, "observed": occurred / n}
    return pd.DataFrame(columns | {"lower": lower, "upper": upper})


def calibration_error(
    reference: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Sequence[int],
    rng: np.random.Generator,
    bins: int = 10,
) -> pd.DataFrame:
    """Return each class's expected calibration error, beside that of a perfect model.

    It is the mean over samples of the absolute difference between predicted probability and
    observed share of their bin (classwise, Kull et al. 2019). Of few samples also a perfect model
    has one: what outcomes that are drawn from the very probabilities give, on average and in 95 of
    100 draws at most.

    There is one row a class, with NaN where there are no samples. Arguments and errors are those of
    `reliability`.

    References
    ----------
    Kull, M., et al. (2019). Beyond temperature scaling: obtaining well-calibrated multi-class
    probabilities with Dirichlet calibration. NeurIPS 32. Broecker, J., Smith, L. (2007). Increasing
    the reliability of reliability diagrams. Weather and Forecasting 22, 651-661.

    Examples
    --------
    >>> chance = [[0.8, 0.2]] * 10  # class 1 occurs in 4 of 10, and 2 were said
    >>> rng = np.random.default_rng(0)
    >>> table = calibration_error([1] * 4 + [0] * 6, chance, [0, 1], rng)
    >>> table[["ece", "ece_perfect", "ece_perfect_95"]].round(1).values.tolist()[1]
    [0.2, 0.1, 0.2]
    """
    probabilities, occurs = checked_probabilities(reference, probabilities, classes)
    table = pd.DataFrame({"class": list(classes), "n": occurs.sum(axis=0)})
    if not len(probabilities):
        names = ("predicted", "observed", "ece", "ece_perfect", "ece_perfect_95")
        return table.assign(**dict.fromkeys(names, np.nan))
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


def _binned(probabilities: np.ndarray, occurs: np.ndarray, bins: int) -> list[np.ndarray]:
    """Return samples, sums of probabilities and of occurrences, each of shape (k, bins)."""
    size = probabilities.shape[1]
    place = np.minimum((probabilities * bins).astype(int), bins - 1) + bins * np.arange(size)
    parts = (None, probabilities.ravel(), occurs.ravel().astype(float))
    sums = [np.bincount(place.ravel(), part, minlength=size * bins) for part in parts]
    return [one.reshape(size, bins) for one in sums]


def _error(probabilities: np.ndarray, occurs: np.ndarray, bins: int) -> np.ndarray:
    _, predicted, observed = _binned(probabilities, occurs, bins)
    return np.abs(predicted - observed).sum(axis=1) / len(probabilities)


def evaluate_reliability(
    study: Study,
    tested: dict[str, pd.DataFrame],
    probabilities: dict[str, dict[str, np.ndarray]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `reliability` and `calibration_error` of the probabilities behind both maps.

    Both tables begin with ``layer`` (and ``all`` layers together) and ``probabilities``, a key of
    `KINDS`.

    Test samples with their class are by layer, their probabilities by map and layer.
    """
    classes, bins = study.target_classes.codes, study.accuracy.bins
    curves, errors = [], []
    for kind, by_layer in probabilities.items():
        pairs = {layer: (rows["class"], by_layer[layer]) for layer, rows in tested.items()}
        pairs["all"] = tuple(np.concatenate(parts) for parts in zip(*pairs.values(), strict=True))
        for layer, pair in pairs.items():
            rng = np.random.default_rng(study.accuracy.seed)
            key = pd.DataFrame({"layer": [layer], "probabilities": [kind]})
            curves.append(key.merge(reliability(*pair, classes, bins), "cross"))
            errors.append(key.merge(calibration_error(*pair, classes, rng, bins), "cross"))
    return pd.concat(curves, ignore_index=True), pd.concat(errors, ignore_index=True)


def plot_reliability(study: Study, curves: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Draw reliability diagrams of each class, all layers together.

    Bars are Wilson's 90 % intervals. Bins of fewer than `LEAST` samples are in the table alone.
    """
    classes = study.target_classes.classes
    ncols = min(3, len(classes)) if len(classes) != 4 else 2
    nrows = -(-len(classes) // ncols)
    figure, axes = panels(nrows, ncols, 14 + 66 * nrows, sharex=True, sharey=True)
    for panel, kind in zip(axes.flat, classes, strict=False):
        plot_class(panel, curves, errors, kind)
    for panel in axes.flat[len(classes) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("predicted probability")
    for panel in axes[:, 0]:
        panel.set_ylabel("observed share")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncols=len(KINDS), frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 0.95))
    mark_label(figure, study.label)
    return figure


def plot_class(axes: Axes, curves: pd.DataFrame, errors: pd.DataFrame, kind: IceType) -> None:
    """Draw the reliability diagram of one class."""
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.7, zorder=0)
    for place, (name, (marker, colour, label)) in enumerate(KINDS.items()):
        query = f"layer == 'all' and probabilities == '{name}' and `class` == {kind.code}"
        part = curves.query(f"{query} and n >= {LEAST}")
        error = errors.query(query)
        bars = np.abs(part[["lower", "upper"]].to_numpy().T - part["observed"].to_numpy())
        look = {"markersize": 3, "linewidth": 0.9, "elinewidth": 0.5, "label": label}
        x, y = part["predicted"], part["observed"]
        axes.errorbar(x, y, bars, fmt=f"{marker}-", color=colour, **look)
        text = f"ECE {error['ece'].item():.3f}"
        axes.text(0.03, 0.93 - 0.08 * place, text, color=colour, transform=axes.transAxes)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=kind.name, aspect="equal")
