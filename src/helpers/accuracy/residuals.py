"""Residuals in space: where predictions are wrong, and whether errors lie together."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from scipy.spatial import cKDTree

from helpers.accuracy.predictions import Predictions
from helpers.core.classes import layer_title
from helpers.core.grid import reference_grid, study_area
from helpers.core.plot import WIDTH_MM, mark_label, style
from helpers.core.scores import wilson
from helpers.core.study import Study
from helpers.folds.curves import CURVES
from helpers.folds.distances import neighbour_distances, prediction_distances
from helpers.folds.units import unit_centres
from helpers.prepare.domain import by_domain
from helpers.samples.together import coordinates

_DISTANCE_KM = (0, 1, 2, 5, 10, 20, 50, 100, np.inf)


def morans_i(
    values: npt.ArrayLike,
    points: npt.ArrayLike,
    rng: np.random.Generator,
    group: npt.ArrayLike | None = None,
    neighbours: int = 8,
    permutations: int = 999,
) -> dict[str, float]:
    """Return Moran's I of values among nearest neighbours, and its p-value by permutation.

    Weights are 1 / neighbours for the nearest ones. Samples that share a place or a group, such as
    a cell, are no evidence of their own: of each group the mean counts, at its mean place. Values
    and groups have the shape (n,), points (n, 2).

    I is ``expected`` without autocorrelation, and ``p_value`` is the share of permutations, the
    values as they are among them, with as large an I. They are NaN of too few or of equal values.

    References
    ----------
    Moran, P. (1950). Notes on continuous stochastic phenomena. Biometrika 37, 17-23. Permutations
    as in Anselin (1995), https://doi.org/10.1111/j.1538-4632.1995.tb00338.x

    Examples
    --------
    >>> line = [(x, 0) for x in range(40)]
    >>> half = [0] * 20 + [1] * 20  # alike beside alike; and every other one
    >>> rng = np.random.default_rng(0)
    >>> found = [morans_i(one, line, rng, neighbours=2) for one in (half, [0, 1] * 20)]
    >>> [round(float(one["morans_i"]), 1) for one in found]
    [0.9, -0.9]
    """
    values, points = np.asarray(values, float), np.asarray(points, float)
    if group is not None:
        number = np.unique(np.asarray(group).astype(str), return_inverse=True)[1]
        values = np.bincount(number, values) / np.bincount(number, minlength=1)
        points = unit_centres(points, number)
    n = len(values)
    result = {"n": n, "morans_i": np.nan, "expected": np.nan, "p_value": np.nan}
    if n < 3 or np.ptp(values) < 1e-12:
        return result
    neighbours = min(neighbours, n - 1)
    near = cKDTree(points).query(points, neighbours + 1)[1]
    # At one place a point may come after others, or not at all: it is no neighbour of itself.
    own = near == np.arange(n)[:, np.newaxis]
    own[~own.any(axis=1), -1] = True
    near = near[~own].reshape(n, neighbours)
    centred = values - values.mean()
    orders = rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    drawn = np.concatenate([centred[np.newaxis], centred[orders]])
    lagged = sum(drawn[:, column] for column in near.T) / neighbours
    every = (drawn * lagged).sum(axis=1) / (centred**2).sum()
    p_value = (every >= every[0] - 1e-12).mean()
    return result | {"morans_i": every[0], "expected": -1 / (n - 1), "p_value": p_value}


def residuals(study: Study, predictions: Predictions) -> pd.DataFrame:
    """Return the errors of predictions of samples, at the test samples and out of fold.

    There is one row a sample, layer and ``estimate`` (``test`` or the kind of folds), with
    ``residual`` in steps of the order of classes, if they have one, ``surprise``, which is 1 less
    the probability of the reference class, and ``distance_km`` to the nearest sample that its
    forest was grown from. Folds are those of kNNDM or, where these are not possible, of the study's
    own kind.
    """
    tables = []
    for layer, rows in predictions.rows.items():
        tested = predictions.tested[layer]
        used = "knndm" if (layer, "knndm") in predictions.folds else study.folds.kind
        places = coordinates(rows)
        away = prediction_distances(places, coordinates(tested))
        tables.append(_errors(study, tested, predictions.test[layer], "test", away))
        away = neighbour_distances(places, predictions.folds[layer, used])
        tables.append(_errors(study, rows, predictions.out_of_fold[layer, used], used, away))
    return pd.concat(tables, ignore_index=True)


def _errors(
    study: Study, rows: pd.DataFrame, probabilities: np.ndarray, estimate: str, away: np.ndarray
) -> pd.DataFrame:
    reference = rows["class"].to_numpy()
    mapped = probabilities.argmax(axis=1)
    columns = ["site_id", "group", "layer", "easting", "northing", "in_domain"]
    step = {"residual": mapped - reference} if study.target_classes.ordered else {}
    return rows[columns].assign(
        estimate=estimate,
        reference=reference,
        mapped=mapped,
        error=(mapped != reference).astype(int),
        **step,
        surprise=1 - probabilities[np.arange(len(rows)), reference],
        distance_km=away / 1000,
    )


def autocorrelation(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Return `morans_i` of `residuals`, ``of`` error, residual and surprise."""
    rows = []
    for (layer, estimate), part in table.groupby(["layer", "estimate"], sort=False):
        for domain, inside in by_domain(study, part["in_domain"]):
            chosen = part[inside]
            for of in (name for name in ("error", "residual", "surprise") if name in chosen):
                rng = np.random.default_rng(study.accuracy.seed)
                moran = morans_i(chosen[of], chosen[["easting", "northing"]], rng, chosen["group"])
                key = {"layer": layer, "estimate": estimate, "domain": domain, "of": of}
                rows.append(key | moran)
    return pd.DataFrame(rows)


def error_by_distance(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of wrong predictions by the distance to the forest's nearest sample.

    There is one row an estimate, domain and class of distances that holds samples, all layers
    together, with the mean distance and the 90 % Wilson interval of the error, which takes samples
    for independent.
    """
    rows = []
    for estimate, part in table.groupby("estimate", sort=False):
        for domain, inside in by_domain(study, part["in_domain"]):
            place = np.digitize(part.loc[inside, "distance_km"], _DISTANCE_KM[1:-1])
            for number, chosen in part[inside].groupby(place):
                first, last = _DISTANCE_KM[number : number + 2]
                row = {"estimate": estimate, "domain": domain, "from_km": first, "to_km": last}
                row |= {"distance_km": chosen["distance_km"].mean(), "n": len(chosen)}
                lower, upper = wilson(chosen["error"].sum(), len(chosen))
                rows.append(row | {"error": chosen["error"].mean(), "lower": lower, "upper": upper})
    return pd.DataFrame(rows)


def plot_residuals(study: Study, table: pd.DataFrame, by_distance: pd.DataFrame) -> Figure:
    """Draw where predictions out of fold are wrong, and how errors grow with distance.

    The tables are from `residuals` and `error_by_distance`; the latter's errors are those in the
    potential-permafrost domain.
    """
    import matplotlib.pyplot as plt
    from geopandas import GeoSeries

    style()
    layers, geobox = table["layer"].unique(), reference_grid(study)
    box = geobox.boundingbox
    outline = GeoSeries([study_area(study, geobox.crs.to_wkt())]).boundary
    steps = len(study.target_classes.codes) - 1
    width = 51 if len(layers) > 2 else WIDTH_MM / len(layers) - 12
    height = width * box.span_y / box.span_x
    figure = plt.figure(figsize=(WIDTH_MM / 25.4, (height + 78) / 25.4), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))
    above, below = figure.subfigures(2, 1, height_ratios=[height + 20, 56])
    axes = above.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    ordered = study.target_classes.ordered
    scale = {"cmap": "PuOr_r", "vmin": -steps, "vmax": steps}
    for panel, layer in zip(axes, layers, strict=True):
        part = table[(table["layer"] == layer) & (table["estimate"] != "test")]
        outline.plot(ax=panel, color="0.6", linewidth=0.4)
        right = part[part["error"] == 0]
        panel.scatter(right["easting"], right["northing"], s=3, color="0.75", linewidths=0)
        wrong = part[part["error"] == 1]
        if ordered:
            wrong = wrong.sort_values("residual", key=np.abs)
        look = scale | {"c": wrong["residual"]} if ordered else {"color": "#7f3b08"}
        places = wrong["easting"], wrong["northing"]
        points = panel.scatter(*places, s=6, linewidths=0.2, edgecolors="0.2", **look)
        panel.set(title=layer_title(layer), aspect="equal", xticks=[], yticks=[])
        panel.set(xlabel="", ylabel="")
        panel.spines[:].set_visible(False)
    if ordered:
        bar = above.colorbar(points, ax=list(axes), shrink=0.7, aspect=25, location="bottom")
        bar.set_label("mapped less reference class, out of fold (grey: right)")
    else:
        above.supxlabel("mapped class out of fold (brown: wrong, grey: right)", size=7)
    axes = below.subplots()
    look = {"markersize": 3, "linewidth": 1, "elinewidth": 0.6, "capsize": 1.5}
    chosen = by_distance[by_distance["domain"] == study.domains[-1]]
    for estimate, part in chosen.groupby("estimate", sort=False):
        label, colour, line, _ = CURVES.get(estimate, ("test samples", "0.3", "-", 1))
        bars = np.abs(part[["lower", "upper"]].to_numpy().T - part["error"].to_numpy())
        look |= {"fmt": f"o{line}", "color": colour, "label": label}
        axes.errorbar(part["distance_km"], part["error"], bars, **look)
    title = f"Errors by distance, {study.domains[-1].replace('_', ' ')}, all layers"
    axes.set(title=title, xscale="log", ylim=(0, 1), ylabel="share of wrong classes")
    axes.set_xlabel("distance to the nearest sample that the forest had seen (km)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, loc="best")
    mark_label(figure, study.label)
    return figure
