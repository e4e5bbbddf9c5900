"""Promised against true, over many virtual worlds: the bias of estimates of accuracy, and how often intervals hold.

A replicate redraws what is hidden, the truth and the boreholes. What a run promised about its map is then compared with
what is true of it, design by design; one world tells next to nothing, hundreds tell whether a method can be believed.
"""

import json

import numpy as np
import pandas as pd

from helpers.accuracy.estimates import ESTIMATES
from helpers.core.files import write_json, write_table
from helpers.core.plot import WIDTH_MM, mark_simulated, style
from helpers.core.scores import DOMAINS, HEADLINE_SCORES
from helpers.core.settings import ROOT
from helpers.core.study import Study

TRUTHS = {"holes": "what holes would find", "cells": "the class of the cell"}
"""What a map's accuracy is true of: a hole at a random place of each cell, or the class that most of the cell has."""


JUDGED = ("error", "error_probable", "expected", "avoidable")
"""What is compared inside and outside of the area of applicability, as in `helpers.mapping.trust_tables.tables`."""


LEAST_WORLDS = 10
"""Fewer replicates, each a truth and its boreholes, tell nothing about how often an interval holds."""


_NAMES = {"overall_accuracy": "overall accuracy", "kappa": "kappa", "macro_f1": "macro F1"}


_COLOURS = {"random": "#0072b2", "clustered": "#d55e00", "roadside": "#009e73"}


_MARKERS = {"random": "o", "clustered": "s", "roadside": "^"}


def _worlds(folders):
    """Return design and seed of the runs whose truth is known, by name.

    Empty where there are too few of them, or several of one world and design, which are no replicates of each other.
    """
    worlds = {}
    for name, folder in folders.items():
        study = Study.open(folder / "study.yaml")
        if study.draws_boreholes:
            worlds[name] = {"design": study.boreholes.design, "seed": study.truth.seed}
    different = {(world["design"], world["seed"]) for world in worlds.values()}
    return worlds if LEAST_WORLDS <= len(different) == len(worlds) else {}


def read_promises(folders):
    """Read what runs promised about their maps, beside the truth.

    Parameters
    ----------
    folders : dict of str to pathlib.Path
        Of finished runs of virtual studies, from `launcher.compare.read_batch`.

    Returns
    -------
    promises : pandas.DataFrame
        One row a run, layer, estimate, score and truth (of `TRUTHS`), for the potential-permafrost domain: ``design``,
        ``seed``, ``promised``, ``lower``, ``upper``, ``true``. The truth is that of the forest which the estimate is
        about, grown from the training samples.
    totals : pandas.DataFrame
        One row a run: ``design``, ``seed``, ``km3``, ``lower``, ``upper``, ``true_km3`` and
        ``in_permafrost_free_cells``. Both tables are empty where runs know no truth, or fewer than `LEAST_WORLDS`.
    """
    promises, totals, worlds = [], [], _worlds(folders)
    if not worlds:
        return pd.DataFrame(), pd.DataFrame()
    for name, world in worlds.items():
        folder, world = folders[name], {"run": name, **world}
        table = pd.read_csv(folder / "tables/validation.csv")
        table = table[table["domain"] == DOMAINS[1]]
        known = table[table["estimate"] == "true_train"]
        table = table[(table["reference"] == "samples") & ~table["estimate"].str.startswith("true_")]
        for truth, reference in zip(TRUTHS, ("samples", "cells"), strict=True):
            true = known[known["reference"] == reference].set_index("layer")
            for score in HEADLINE_SCORES:
                part = table[["layer", "estimate"]].assign(score=score, truth=truth, **world)
                part["promised"] = table[score]
                for end in ("lower", "upper"):
                    part[end] = table[f"{score}_{end}"]
                promises.append(part.assign(true=part["layer"].map(true[score])))
        storage = json.loads((folder / "tables/storage.json").read_text(encoding="utf-8"))
        interval = pd.read_csv(folder / "tables/storage_interval.csv", index_col=0).loc["all"]
        ends = {key: float(interval[key]) for key in ("km3", "lower", "upper", "true_km3")}
        totals.append(world | ends | {"in_permafrost_free_cells": storage["against_truth"]["in_permafrost_free_cells"]})
    promises = pd.concat(promises, ignore_index=True).dropna(subset=["true", "promised"])
    return promises, pd.DataFrame(totals)


def wilson(successes, n, z=1.645):
    """Return the Wilson score interval of a share (Wilson, 1927), by default at 90 %.

    Parameters
    ----------
    successes, n : int or numpy.ndarray
    z : float
        Quantile of the normal distribution.

    Returns
    -------
    lower, upper : float or numpy.ndarray

    Examples
    --------
    >>> [round(end, 3) for end in wilson(9, 10, 1.96)]
    [0.596, 0.982]
    """
    share, spread = np.asarray(successes) / n, z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return middle - reach, middle + reach


def bias(promises):
    """Return how far each estimate is from the truth on average, and how often its interval holds it.

    Parameters
    ----------
    promises : pandas.DataFrame
        From `read_promises`.

    Returns
    -------
    pandas.DataFrame
        One row a design, estimate, score and truth: ``replicates``; ``bias`` (mean promised less true, over layers and
        replicates) and its standard error between replicates; ``rmse`` of one promise; ``holds``, the share of
        intervals that hold the truth, and its Wilson interval at 90 %, which counts worlds, not layers.
    """
    off = promises["promised"] - promises["true"]
    holds = (promises["true"] >= promises["lower"]) & (promises["true"] <= promises["upper"])
    known = promises["lower"].notna()
    table = promises.assign(off=off, square=off**2, holds=holds.where(known).astype(float))
    keys = ["design", "estimate", "score", "truth"]
    by_world = table.groupby([*keys, "run"], sort=False)[["off", "square", "holds"]].mean()
    groups = by_world.groupby(level=keys, sort=False)
    found = groups["off"].agg(replicates="size", bias="mean", bias_se="sem")
    found["rmse"] = np.sqrt(groups["square"].mean())
    found["holds"] = groups["holds"].mean()
    found["holds_lower"], found["holds_upper"] = wilson(found["holds"] * found["replicates"], found["replicates"])
    return found.reset_index()


def best_estimate(promises, score="overall_accuracy", truth="holes"):
    """Choose the estimate with the least root mean square error on half of the worlds, and judge it on the others.

    An estimate that is chosen and judged on the same worlds looks better than it is. Seeds are halved in turn, each
    half chooses for the other.

    Parameters
    ----------
    promises : pandas.DataFrame
        From `read_promises`.
    score : str
        One of `helpers.validation.SCORES`.
    truth : str
        One of `TRUTHS`.

    Returns
    -------
    pandas.DataFrame
        One row a design and half: the ``chosen`` estimate, and of it on the worlds of that half what `bias` tells.
    """
    part = promises[(promises["score"] == score) & (promises["truth"] == truth)]
    rank = part["seed"].rank(method="dense").astype(int) % 2
    rows = []
    for half in (0, 1):
        chosen = bias(part[rank != half]).groupby("estimate")["rmse"].mean().idxmin() if (rank != half).any() else None
        judged = part[(rank == half) & (part["estimate"] == chosen)]
        if len(judged):
            rows.append(bias(judged).rename(columns={"estimate": "chosen"}).assign(half=half))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def total_coverage(totals):
    """Return the bias of totals, and how often their intervals hold the truth, by design.

    Parameters
    ----------
    totals : pandas.DataFrame
        From `read_promises`.

    Returns
    -------
    pandas.DataFrame
        Index design: ``replicates``; ``bias``, the mean of the total over the true one less 1, and its standard error;
        ``in_permafrost_free_cells``, the mean share of the ice; ``holds`` with its Wilson interval at 90 %; ``width``,
        the mean of the interval over the true total.
    """
    off = totals["km3"] / totals["true_km3"] - 1
    holds = (totals["true_km3"] >= totals["lower"]) & (totals["true_km3"] <= totals["upper"])
    width = (totals["upper"] - totals["lower"]) / totals["true_km3"]
    groups = totals.assign(off=off, holds=holds.astype(float), width=width).groupby("design", sort=False)
    found = groups["off"].agg(replicates="size", bias="mean", bias_se="sem")
    found["in_permafrost_free_cells"] = groups["in_permafrost_free_cells"].mean()
    found["holds"] = groups["holds"].mean()
    found["holds_lower"], found["holds_upper"] = wilson(found["holds"] * found["replicates"], found["replicates"])
    return found.assign(width=groups["width"].mean())


def read_applicability(folders):
    """Read how often maps of the domain err inside and outside of the area of applicability.

    Parameters
    ----------
    folders : dict of str to pathlib.Path
        As for `read_promises`.

    Returns
    -------
    pandas.DataFrame
        One row a run, layer and measure of `JUDGED`: ``design``, ``seed``, ``inside``, ``outside`` and the share of the
        domain that is ``outside_share``. Runs that have no cell on one side are left out; empty as in `read_promises`.
    """
    rows = []
    for name, world in _worlds(folders).items():
        table = pd.read_csv(folders[name] / "tables/applicability.csv")
        table = table[(table["domain"] == DOMAINS[1]) & (table["by"] == "area of applicability")]
        for layer, part in table.groupby("layer", sort=False):
            sides = part.set_index("group")
            if {"inside", "outside"} <= set(sides.index):
                given = {"run": name, **world, "layer": layer, "outside_share": sides.loc["outside", "share"]}
                rows += [given | {"measure": key, **sides[key].to_dict()} for key in JUDGED]
    return pd.DataFrame(rows)


def by_applicability(found):
    """Return by how much maps err more outside of the area of applicability than inside, over all worlds.

    Parameters
    ----------
    found : pandas.DataFrame
        From `read_applicability`.

    Returns
    -------
    pandas.DataFrame
        One row a design, layer and measure: ``replicates``, means of ``inside``, ``outside`` and ``outside_share``,
        their ``difference``, its standard error between worlds, and the share of worlds where it is ``higher`` outside.
    """
    table = found.dropna(subset=["inside", "outside"]).assign(difference=lambda part: part["outside"] - part["inside"])
    table["higher"] = (table["difference"] > 0).astype(float)
    groups = table.groupby(["design", "layer", "measure"], sort=False)
    means = groups[["outside_share", "inside", "outside", "difference", "higher"]].mean()
    means.insert(0, "replicates", groups.size())
    means.insert(5, "difference_se", groups["difference"].sem())
    return means.reset_index()


def write_coverage(batch, biases, best, totals, applicability):
    """Write all tables of a coverage study as CSV, and as one JSON, beside the index of its batch.

    Parameters
    ----------
    batch : path-like
        The index.
    biases, best, totals, applicability : pandas.DataFrame
        From `bias`, `best_estimate`, `total_coverage` and `by_applicability`.
    """
    batch, record = ROOT / batch, {}
    tables = {"bias": biases, "best_estimate": best, "total": totals.reset_index(), "applicability": applicability}
    for name, table in tables.items():
        write_table(batch.with_name(f"coverage_{name}.csv"), table)
        record[name] = table.to_dict("records")
    write_json(batch.with_name("coverage.json"), {"simulated": True, "probability_of_wilson": 0.9, **record})


def plot_bias(biases, score="overall_accuracy"):
    """Draw the bias of each estimate against both truths, and how often its interval held the truth, by design.

    Parameters
    ----------
    biases : pandas.DataFrame
        From `bias`.
    score : str
        One of `helpers.validation.SCORES`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    part = biases[biases["score"] == score]
    names = [name for name in reversed(ESTIMATES) if (part["estimate"] == name).any()]
    designs = [name for name in _COLOURS if (part["design"] == name).any()]
    size = (WIDTH_MM / 25.4, (24 + 8 * len(names)) / 25.4)
    figure, axes = plt.subplots(1, 3, figsize=size, sharey=True)
    columns = {"holes": axes[:2], "cells": (axes[2],)}
    for truth, panels in columns.items():
        for number, design in enumerate(designs):
            shown = part[(part["truth"] == truth) & (part["design"] == design)].set_index("estimate")
            places = np.array([names.index(name) for name in shown.index]) + 0.22 * (1 - number)
            look = {"color": _COLOURS[design], "marker": _MARKERS[design], "linestyle": "", "markersize": 4}
            panels[0].errorbar(
                shown["bias"], places, xerr=1.645 * shown["bias_se"], label=design, elinewidth=0.8, **look
            )
            if len(panels) > 1:
                ends = np.abs(shown[["holds_lower", "holds_upper"]].to_numpy().T - shown["holds"].to_numpy())
                panels[1].errorbar(shown["holds"], places, xerr=ends, elinewidth=0.8, **look)
    for panel, title in zip((axes[0], axes[2]), TRUTHS.values(), strict=True):
        panel.axvspan(-0.03, 0.03, color="0.93", zorder=0)
        panel.axvline(0, color="0.3", linewidth=0.6)
        panel.set(xlabel="promised less true", title=f"{_NAMES[score]}\nagainst {title}")
    axes[1].axvspan(0.85, 0.95, color="0.93", zorder=0)
    axes[1].set(xlabel="share of 90 % intervals", title=f"interval holds\n{TRUTHS['holes']}", xlim=(0, 1.02))
    axes[0].set_yticks(range(len(names)), [ESTIMATES[name] for name in names])
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    for panel in axes:
        panel.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])  # labels of quarters would touch
        panel.grid(axis="y", color="0.92", linewidth=0.4)
        panel.set_axisbelow(True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, title=None)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    mark_simulated(figure)
    return figure


def plot_totals(totals):
    """Draw each world's total over the true one, with its interval, ordered, by design.

    Parameters
    ----------
    totals : pandas.DataFrame
        From `read_promises`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    style()
    designs = [name for name in _COLOURS if (totals["design"] == name).any()]
    figure, axes = plt.subplots(1, len(designs), figsize=(WIDTH_MM / 25.4, 2.4), sharey=True, squeeze=False)
    for panel, design in zip(axes[0], designs, strict=True):
        part = totals[totals["design"] == design].copy()
        for name in ("km3", "lower", "upper"):
            part[name] /= part["true_km3"]
        part = part.sort_values("km3", ignore_index=True)
        missed = (part["lower"] > 1) | (part["upper"] < 1)
        for chosen, colour, label in ((~missed, "#0072b2", "holds the truth"), (missed, "#d55e00", "misses it")):
            shown = part[chosen]
            panel.vlines(shown.index, shown["lower"], shown["upper"], color=colour, linewidth=0.8, label=label)
            panel.plot(shown.index, shown["km3"], ".", color=colour, markersize=2.5)
        panel.axhline(1, color="0.2", linewidth=0.7)
        panel.set(title=f"{design} sites: {100 * (~missed).mean():.0f} % hold", xlabel="worlds, by their total")
    axes[0, 0].set_ylabel("total over the true total")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    mark_simulated(figure)
    return figure
