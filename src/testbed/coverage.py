"""Estimates beside the truth over many virtual worlds: their bias, and how often intervals hold.

A replicate redraws what is hidden, the truth and the boreholes. What a run estimated of its map is
then compared with what is true of it, design by design. One world shows next to nothing, hundreds
show whether a method can be relied on.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.accuracy.estimates import ESTIMATES
from helpers.core.files import read_json, write_json, write_table
from helpers.core.plot import mark_label, panels
from helpers.core.scores import wilson
from helpers.core.settings import ROOT
from helpers.core.study import DOMAINS, Study
from testbed.against_truth import ERRORS
from testbed.settings import VirtualStudy

TRUTHS = {"holes": "what boreholes would find", "cells": "the class of the cell"}
"""What a map's accuracy is true of: a borehole at a random place of each cell, or the class that
most of the cell has."""

LEAST_WORLDS = 10
"""Fewer replicates, each a truth and its boreholes, say nothing about how often intervals hold."""

_Z = 1.645  # of a 90 % interval
_DESIGNS = {
    "random": ("#0072b2", "o"),
    "clustered": ("#d55e00", "s"),
    "roadside": ("#009e73", "^"),
    "ice_seeking": ("#cc79a7", "D"),
    "ice_seeking, surveyed": ("#e69f00", "v"),
}


def worlds_of(folders: Mapping[str, Path]) -> dict[str, dict]:
    """Return run, design and seed of the runs whose truth can be read, by name.

    A design with a survey of the share of permafrost is one of its own. Empty where there are too
    few of them, or several of one world and design, which are no replicates of each other.
    """
    worlds = {}
    for name, folder in folders.items():
        study = Study.open(folder / "study.yaml")
        if isinstance(study, VirtualStudy) and study.draws_boreholes:
            surveyed = ", surveyed" if study.campaign.survey_error else ""
            design = study.campaign.boreholes.design + surveyed
            worlds[name] = {"run": name, "design": design, "seed": study.campaign.truth.seed}
    different = {(world["design"], world["seed"]) for world in worlds.values()}
    return worlds if LEAST_WORLDS <= len(different) == len(worlds) else {}


def read_estimates(folders: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read what runs estimated of their maps, beside the truth.

    Parameters
    ----------
    folders
        Of finished runs of virtual studies by name, from `launcher.compare.read_batch`.

    Returns
    -------
    estimates
        One row a run, layer, estimate, score and truth (of `TRUTHS`), for the potential-permafrost
        domain: ``design``, ``seed``, ``estimated``, ``lower``, ``upper``, ``true``. The truth is
        that of the forest which the estimate is about, grown from the training samples.
    totals
        One row a run: ``design``, ``seed``, ``km3``, ``lower``, ``upper``, ``true_km3`` and
        ``in_permafrost_free_cells``. Both tables are empty where runs have no truth, or are fewer
        than `LEAST_WORLDS`.
    """
    estimates = []
    totals = []
    for name, world in worlds_of(folders).items():
        tables = folders[name] / "tables"
        estimates += _estimates_of_run(tables, world)
        free = read_json(tables / "true_storage.json")["in_permafrost_free_cells"]
        whole = pd.read_csv(tables / "true_totals.csv", index_col=0).loc["all"]
        ends = {key: float(whole[key]) for key in ("km3", "lower", "upper", "true_km3")}
        totals.append(world | ends | {"in_permafrost_free_cells": free})
    if not totals:
        return pd.DataFrame(), pd.DataFrame()
    estimates = pd.concat(estimates, ignore_index=True).dropna(subset=["true", "estimated"])
    return estimates, pd.DataFrame(totals)


def _estimates_of_run(tables: Path, world: dict) -> list[pd.DataFrame]:
    table = pd.read_csv(tables / "promised_and_true.csv")
    table = table[table["domain"] == DOMAINS[1]].rename(columns={"promised": "estimated"})
    shown = table[["layer", "estimate", "score", "estimated", "lower", "upper"]]
    return [
        shown.assign(truth=truth, true=table[column], **world)
        for truth, column in zip(TRUTHS, ("true", "true_of_cells"), strict=True)
    ]


def bias(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return how far each estimate is from the truth on average, and how often its interval holds.

    Parameters
    ----------
    estimates
        From `read_estimates`.

    Returns
    -------
    pandas.DataFrame
        One row a design, estimate, score and truth: ``replicates``; ``bias`` (mean estimated less
        true, over layers and replicates) and its standard error between replicates; ``rmse`` of one
        estimate; ``holds``, the share of intervals that hold the truth, and its Wilson interval at
        90 %, which counts worlds, not layers.
    """
    off = estimates["estimated"] - estimates["true"]
    holds = estimates["true"].between(estimates["lower"], estimates["upper"])
    holds = holds.where(estimates["lower"].notna()).astype(float)
    table = estimates.assign(off=off, square=off**2, holds=holds)
    keys = ["design", "estimate", "score", "truth"]
    by_world = table.groupby([*keys, "run"], sort=False)[["off", "square", "holds"]].mean()
    groups = by_world.groupby(level=keys, sort=False)
    biases = groups["off"].agg(replicates="size", bias="mean", bias_se="sem")
    biases["rmse"] = np.sqrt(groups["square"].mean())
    biases["holds"] = groups["holds"].mean()
    return _with_wilson(biases).reset_index()


def _with_wilson(table: pd.DataFrame) -> pd.DataFrame:
    number = table["replicates"]
    lower, upper = wilson(table["holds"] * number, number)
    return table.assign(holds_lower=lower, holds_upper=upper)


def total_coverage(totals: pd.DataFrame) -> pd.DataFrame:
    """Return the bias of totals, and how often their intervals hold the truth, by design.

    Returns
    -------
    pandas.DataFrame
        Index design: ``replicates``; ``bias``, the mean of the total over the true one less 1, and
        its standard error; ``in_permafrost_free_cells``, the mean share of the ice; ``holds`` with
        its Wilson interval at 90 %; ``width``, the mean of the interval over the true total.
    """
    holds = totals["true_km3"].between(totals["lower"], totals["upper"]).astype(float)
    off = totals["km3"] / totals["true_km3"] - 1
    width = (totals["upper"] - totals["lower"]) / totals["true_km3"]
    groups = totals.assign(off=off, holds=holds, width=width).groupby("design", sort=False)
    coverage = groups["off"].agg(replicates="size", bias="mean", bias_se="sem")
    coverage["in_permafrost_free_cells"] = groups["in_permafrost_free_cells"].mean()
    coverage["holds"] = groups["holds"].mean()
    return _with_wilson(coverage).assign(width=groups["width"].mean())


def read_applicability(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Read how often maps of the domain err inside and outside of the area of applicability.

    Returns
    -------
    pandas.DataFrame
        One row a run, layer and measure of `ERRORS`: ``design``, ``seed``, ``inside``, ``outside``
        and the share of the domain that is ``outside_share``. Runs that have no cell on one side
        are left out; empty as in `read_estimates`.
    """
    rows = []
    for name, world in worlds_of(folders).items():
        table = pd.read_csv(folders[name] / "tables/true_applicability.csv")
        table = table[(table["domain"] == DOMAINS[1]) & (table["by"] == "area of applicability")]
        for layer, part in table.groupby("layer", sort=False):
            sides = part.set_index("group")
            if {"inside", "outside"} <= set(sides.index):
                first = {**world, "layer": layer, "outside_share": sides.loc["outside", "share"]}
                rows += [first | {"measure": key, **sides[key].to_dict()} for key in ERRORS]
    return pd.DataFrame(rows)


def by_applicability(errors: pd.DataFrame) -> pd.DataFrame:
    """Return by how much maps err more outside of the area of applicability than inside.

    Parameters
    ----------
    errors
        From `read_applicability`.

    Returns
    -------
    pandas.DataFrame
        One row a design, layer and measure: ``replicates``, means of ``inside``, ``outside`` and
        ``outside_share``, their ``difference``, its standard error between worlds, and the share of
        worlds where it is ``higher`` outside.
    """
    table = errors.dropna(subset=["inside", "outside"])
    table = table.assign(difference=table["outside"] - table["inside"])
    table["higher"] = (table["difference"] > 0).astype(float)
    groups = table.groupby(["design", "layer", "measure"], sort=False)
    means = groups[["outside_share", "inside", "outside", "difference", "higher"]].mean()
    means.insert(0, "replicates", groups.size())
    means.insert(5, "difference_se", groups["difference"].sem())
    return means.reset_index()


def write_coverage(
    batch: str | Path, biases: pd.DataFrame, totals: pd.DataFrame, applicability: pd.DataFrame
) -> None:
    """Write all tables of a coverage study as CSV, and as one JSON, beside the index of its batch.

    They are from `bias`, `total_coverage` and `by_applicability`.
    """
    batch = ROOT / batch
    tables = {
        "bias": biases,
        "total": totals.reset_index(),
        "applicability": applicability,
    }
    record = {"label": "SIMULATED", "probability_of_wilson": 0.9}
    for name, table in tables.items():
        write_table(batch.with_name(f"coverage_{name}.csv"), table)
        record[name] = table.to_dict("records")
    write_json(batch.with_name("coverage.json"), record)


def plot_bias(biases: pd.DataFrame) -> Figure:
    """Plot how far each estimate of the overall accuracy is off, and how often its interval held.

    The truth is what boreholes would find.
    """
    part = biases[(biases["score"] == "overall_accuracy") & (biases["truth"] == "holes")]
    names = [name for name in reversed(ESTIMATES) if (part["estimate"] == name).any()]
    figure, ((off, held),) = panels(1, 2, 24 + 8 * len(names), sharey=True)
    designs = [name for name in _DESIGNS if (part["design"] == name).any()]
    for number, design in enumerate(designs):
        colour, marker = _DESIGNS[design]
        look = {"color": colour, "marker": marker, "linestyle": "", "markersize": 4}
        look |= {"elinewidth": 0.8, "label": design}
        shown = part[part["design"] == design]
        off_centre = 0.66 * ((len(designs) - 1) / 2 - number) / len(designs)
        places = shown["estimate"].map(names.index) + off_centre
        off.errorbar(shown["bias"], places, xerr=_Z * shown["bias_se"], **look)
        ends = shown["holds"] - shown["holds_lower"], shown["holds_upper"] - shown["holds"]
        held.errorbar(shown["holds"], places, xerr=np.abs(ends), **look)
    off.axvspan(-0.03, 0.03, color="0.93", zorder=0)
    off.axvline(0, color="0.3", linewidth=0.6)
    off.set(xlabel="estimated less true", title="overall accuracy")
    held.axvspan(0.85, 0.95, color="0.93", zorder=0)
    held.set(xlabel="share of 90 % intervals", title="interval holds", xlim=(0, 1.02))
    off.set_yticks(range(len(names)), [ESTIMATES[name] for name in names])
    off.set_ylim(-0.6, len(names) - 0.4)
    for axes in figure.axes:
        axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])  # quarters would touch
        axes.grid(axis="y", color="0.92", linewidth=0.4)
        axes.set_axisbelow(True)
    return _with_legend(figure, off)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    mark_label(figure, "SIMULATED")
    return figure


def plot_totals(totals: pd.DataFrame) -> Figure:
    """Plot each world's total over the true one, with its interval, ordered, by design."""
    designs = [name for name in _DESIGNS if (totals["design"] == name).any()]
    figure, (row,) = panels(1, len(designs), 61, sharey=True)
    for axes, design in zip(row, designs, strict=True):
        part = totals[totals["design"] == design]
        shares = part[["km3", "lower", "upper"]].div(part["true_km3"], axis=0)
        shares = shares.sort_values("km3", ignore_index=True)
        holds = (shares["lower"] <= 1) & (shares["upper"] >= 1)
        for chosen, colour, label in (
            (holds, "#0072b2", "holds the truth"),
            (~holds, "#d55e00", "misses it"),
        ):
            shown = shares[chosen]
            look = {"color": colour, "linewidth": 0.8, "label": label}
            axes.vlines(shown.index, shown["lower"], shown["upper"], **look)
            axes.plot(shown.index, shown["km3"], ".", color=colour, markersize=2.5)
        axes.axhline(1, color="0.2", linewidth=0.7)
        title = f"{design}:\n{100 * holds.mean():.0f} % hold"
        axes.set(title=title, xlabel="worlds, by their total")
    row[0].set_ylabel("total over the true total")
    return _with_legend(figure, row[0])
