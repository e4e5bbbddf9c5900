"""Residuals in space: where predictions are wrong, whether errors lie together, and how far from known sites."""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from helpers.accuracy.reliability import wilson
from helpers.core import scores
from helpers.core.classes import TARGETS
from helpers.core.grid import reference_grid, study_area
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.folds import curves, distances

NEIGHBOURS = 8
"""Nearest samples that count as a sample's neighbours in Moran's I."""


_PERMUTATIONS = 999


_DISTANCE_KM = (0, 1, 2, 5, 10, 20, 50, 100, np.inf)


def morans_i(values, points, rng, group=None, neighbours=NEIGHBOURS, permutations=_PERMUTATIONS):
    """Return Moran's I of values among nearest neighbours, and its p-value by permutation.

    Weights are 1 / neighbours for the nearest ones. Samples that share a place or a group, such as a cell, tell the
    same: of each group the mean counts, at its mean place.

    Parameters
    ----------
    values : array_like, shape (n,)
    points : array_like, shape (n, 2)
    rng : numpy.random.Generator
    group : array_like, shape (n,), optional
    neighbours, permutations : int

    Returns
    -------
    dict
        ``n``, ``morans_i``, ``expected`` without autocorrelation, and ``p_value``: the share of permutations, the
        values as they are among them, with as large an I. NaN of too few or of equal values.

    References
    ----------
    Moran, P. (1950). Notes on continuous stochastic phenomena. Biometrika 37, 17-23. Permutations as in Anselin
    (1995), https://doi.org/10.1111/j.1538-4632.1995.tb00338.x
    """
    values, points = np.asarray(values, float), np.asarray(points, float)
    if group is not None:
        number = np.unique(np.asarray(group).astype(str), return_inverse=True)[1]
        size = np.bincount(number, minlength=1)
        values, *columns = (np.bincount(number, part) / size for part in (values, *points.T))
        points = np.stack(columns, axis=1)
    found = {"n": len(values), "morans_i": np.nan, "expected": np.nan, "p_value": np.nan}
    if len(values) < 3 or np.ptp(values) < 1e-12:
        return found
    neighbours = min(neighbours, len(values) - 1)
    near = cKDTree(points).query(points, neighbours + 1)[1]
    # At one place a point may be found after others, or not at all: it is no neighbour of itself.
    own = near == np.arange(len(values))[:, np.newaxis]
    own[~own.any(axis=1), -1] = True
    near = near[~own].reshape(len(values), neighbours)
    centred = values - values.mean()
    orders = rng.permuted(np.tile(np.arange(len(values)), (permutations, 1)), axis=1)
    drawn = np.concatenate([centred[np.newaxis], centred[orders]])
    lagged = sum(drawn[:, column] for column in near.T) / neighbours
    every = (drawn * lagged).sum(axis=1) / (centred**2).sum()
    p_value = (every >= every[0] - 1e-12).mean()
    return found | {"morans_i": every[0], "expected": -1 / (len(values) - 1), "p_value": p_value}


def residuals(study, predictions, kind="knndm"):
    """Return the errors of predictions of samples, at the test samples and out of fold.

    Parameters
    ----------
    study : helpers.core.study.Study
    predictions : helpers.accuracy.predictions.Predictions
    kind : str
        Of folds; where the samples cannot be dealt so, the study's own.

    Returns
    -------
    pandas.DataFrame
        One row a sample, layer and ``estimate`` (``test`` or the kind of folds): site_id, group, easting, northing,
        in_domain, ``reference`` and ``mapped`` class, ``error`` (1 where they differ), ``residual`` (mapped less
        reference class, in steps of the order of classes), ``surprise`` (1 less the probability of the reference
        class), and ``distance_km`` to the nearest sample that its forest was grown from.
    """
    found = []
    for layer, rows in predictions.rows.items():
        tested, places = predictions.tested[layer], rows[["easting", "northing"]].to_numpy(float)
        used = kind if (layer, kind) in predictions.folds else study.folds.kind
        away = {
            "test": cKDTree(places).query(tested[["easting", "northing"]].to_numpy(float))[0],
            used: distances.neighbour_distances(places, predictions.folds[layer, used]),
        }
        parts = {"test": (tested, predictions.test[layer]), used: (rows, predictions.unseen[layer, used])}
        for estimate, (known, probabilities) in parts.items():
            reference = known["class"].to_numpy()
            mapped = scores.mapped_class(probabilities, study.target)
            table = known[["site_id", "group", "layer", "easting", "northing", "in_domain"]].assign(
                estimate=estimate, reference=reference, mapped=mapped, error=(mapped != reference).astype(int),
                residual=mapped - reference, surprise=1 - probabilities[np.arange(len(known)), reference],
                distance_km=away[estimate] / 1000,
            )  # fmt: skip
            found.append(table)
    return pd.concat(found, ignore_index=True)


def autocorrelation(study, table):
    """Return Moran's I of `residuals` by layer, estimate and domain, for errors, residuals and surprise.

    Returns
    -------
    pandas.DataFrame
        Columns layer, estimate, domain, of, and those of `morans_i`.
    """
    found = []
    for (layer, estimate), part in table.groupby(["layer", "estimate"], sort=False):
        domains = (part, part[part["in_domain"].to_numpy(bool)])
        for domain, chosen in zip(scores.DOMAINS, domains, strict=True):
            for of in ("error", "residual", "surprise"):
                rng = np.random.default_rng(study.accuracy.seed)
                told = morans_i(chosen[of], chosen[["easting", "northing"]], rng, chosen["group"])
                found.append({"layer": layer, "estimate": estimate, "domain": domain, "of": of} | told)
    return pd.DataFrame(found)


def error_by_distance(table):
    """Return the share of wrong predictions by the distance to the nearest sample that the forest had seen.

    Returns
    -------
    pandas.DataFrame
        One row an estimate, domain and class of distances that holds samples, all layers together: ``from_km``,
        ``to_km``, mean ``distance_km``, ``n``, ``error``, and the ends ``lower`` and ``upper`` of its 90 % Wilson
        interval, which takes samples for independent.
    """
    found = []
    for estimate, part in table.groupby("estimate", sort=False):
        for domain, chosen in zip(scores.DOMAINS, (part, part[part["in_domain"].to_numpy(bool)]), strict=True):
            place = np.digitize(chosen["distance_km"], _DISTANCE_KM) - 1
            for number, (first, last) in enumerate(pairwise(_DISTANCE_KM)):
                inside = chosen[place == number]
                if len(inside):
                    lower, upper = wilson(inside["error"].sum(), len(inside))
                    row = {"estimate": estimate, "domain": domain, "from_km": first, "to_km": last}
                    row |= {"distance_km": inside["distance_km"].mean(), "n": len(inside)}
                    found.append(row | {"error": inside["error"].mean(), "lower": float(lower), "upper": float(upper)})
    return pd.DataFrame(found)


def plot_residuals(study, table, by_distance, domain="potential_permafrost"):
    """Draw where out-of-fold predictions of each layer are wrong, and how errors grow with distance.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        From `residuals`.
    by_distance : pandas.DataFrame
        From `error_by_distance`.
    domain : str
        Of the errors by distance.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt
    from geopandas import GeoSeries

    style()
    layers, geobox = table["layer"].unique(), reference_grid(study)
    box, outline = geobox.boundingbox, GeoSeries([study_area(study, geobox.crs.to_wkt())])
    steps = len(TARGETS[study.target].codes) - 1
    width = 51 if len(layers) > 2 else WIDTH_MM / len(layers) - 12
    height = width * box.span_y / box.span_x
    size = (WIDTH_MM / 25.4, (height + 78) / 25.4)
    figure = plt.figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))
    above, below = figure.subfigures(2, 1, height_ratios=[height + 20, 56])
    axes = above.subplots(1, len(layers), sharex=True, sharey=True, squeeze=False)[0]
    for panel, layer in zip(axes, layers, strict=True):
        part = table[(table["layer"] == layer) & (table["estimate"] != "test")]
        outline.boundary.plot(ax=panel, color="0.6", linewidth=0.4)
        right = part[part["error"] == 0]
        panel.scatter(right["easting"], right["northing"], s=3, color="0.75", linewidths=0, label="right")
        wrong = part[part["error"] == 1].sort_values("residual", key=np.abs)
        shown = panel.scatter(
            wrong["easting"], wrong["northing"], s=6, c=wrong["residual"], cmap="PuOr_r", vmin=-steps, vmax=steps,
            linewidths=0.2, edgecolors="0.2",
        )  # fmt: skip
        panel.set(title=f"{layer.removesuffix('m')} m", aspect="equal", xticks=[], yticks=[], xlabel="", ylabel="")
        panel.spines[:].set_visible(False)
    bar = above.colorbar(shown, ax=list(axes), shrink=0.7, aspect=25, location="bottom")
    bar.set_label("mapped less reference class, out of fold (grey: right)")
    axes = below.subplots()
    for estimate, part in by_distance[by_distance["domain"] == domain].groupby("estimate", sort=False):
        label, colour, line, _ = curves.CURVES.get(estimate, ("test samples", "0.3", "-", 1))
        bars = np.abs(part[["lower", "upper"]].to_numpy().T - part["error"].to_numpy())
        axes.errorbar(part["distance_km"], part["error"], bars, fmt=f"o{line}", color=colour, markersize=3,
                      linewidth=1, elinewidth=0.6, capsize=1.5, label=label)  # fmt: skip
    axes.set(xscale="log", ylim=(0, 1), xlabel="distance to the nearest sample that the forest had seen (km)")
    axes.set(ylabel="share of wrong classes", title=f"Errors by distance, {domain.replace('_', ' ')}, all layers")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, loc="upper right")
    if study.simulated:
        mark_simulated(figure)
    return figure
