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


def read_estimates(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Read what runs estimated of the accuracy of their maps, beside the truth.

    Parameters
    ----------
    folders
        Of finished runs of virtual studies by name, from `launcher.compare.read_batch`.

    Returns
    -------
    pandas.DataFrame
        One row a run, map, layer, estimate, score and truth (of `TRUTHS`), for the
        potential-permafrost domain: ``design``, ``seed``, ``estimated``, ``lower``, ``upper``,
        ``true``. The truth is that of the model which the estimate is about, grown from the
        training samples. Empty where runs have no truth, or are fewer than `LEAST_WORLDS`.
    """
    worlds = worlds_of(folders)
    parts = [
        part
        for name, world in worlds.items()
        for part in _estimates_of_run(folders[name] / "tables", world)
    ]
    if not parts:
        return pd.DataFrame()
    return pd.concat(parts, ignore_index=True).dropna(subset=["true", "estimated"])


def read_totals(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Read the ice of runs beside the true one.

    Returns
    -------
    pandas.DataFrame
        One row a run and part (``of``: all, a region, or a layer): ``design``, ``seed``, ``km3``,
        ``lower`` and ``upper`` end of its interval (not of layers) and ``true_km3``; of all also
        ``rmse_m`` of a cell, m of ice, and the share ``in_permafrost_free_cells``. Empty as in
        `read_estimates`.
    """
    tables = []
    for name, world in worlds_of(folders).items():
        folder = folders[name] / "tables"
        record = read_json(folder / "true_storage.json")
        regions = pd.read_csv(folder / "true_totals.csv").rename(columns={"region": "of"})
        regions = regions[["of", "km3", "lower", "upper", "true_km3"]]
        cells = {key: record[key] for key in ("rmse_m", "in_permafrost_free_cells")}
        regions.loc[regions["of"] == "all", list(cells)] = list(cells.values())
        layers = pd.DataFrame.from_dict(record["layers"], orient="index").rename_axis("of")
        layers = layers.rename(columns={"mapped_km3": "km3"}).reset_index()
        tables.append(pd.concat([regions, layers], ignore_index=True).assign(**world))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _estimates_of_run(tables: Path, world: dict) -> list[pd.DataFrame]:
    table = pd.read_csv(tables / "promised_and_true.csv")
    table = table[table["domain"] == DOMAINS[1]].rename(columns={"promised": "estimated"})
    shown = table[["map", "layer", "estimate", "score", "estimated", "lower", "upper"]]
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
        One row a design, map, estimate, score and truth: ``replicates``; ``bias`` (mean estimated
        less true, over layers and replicates) and its standard error between replicates; ``rmse``
        of one estimate; ``holds``, the share of intervals that hold the truth, and its Wilson
        interval at 90 %, which counts worlds, not layers.
    """
    off = estimates["estimated"] - estimates["true"]
    holds = estimates["true"].between(estimates["lower"], estimates["upper"])
    holds = holds.where(estimates["lower"].notna()).astype(float)
    table = estimates.assign(off=off, square=off**2, holds=holds)
    keys = ["design", "map", "estimate", "score", "truth"]
    by_world = table.groupby([*keys, "run"], sort=False)[["off", "square", "holds"]].mean()
    groups = by_world.groupby(level=keys, sort=False)
    biases = groups["off"].agg(replicates="size", bias="mean", bias_se="sem")
    biases["rmse"] = np.sqrt(groups["square"].mean())
    biases["holds"] = groups["holds"].mean()
    return _with_wilson(biases, biases["replicates"]).reset_index()


def _with_wilson(table: pd.DataFrame, number: pd.Series) -> pd.DataFrame:
    number = number.where(number > 0)
    lower, upper = wilson(table["holds"] * number, number)
    return table.assign(holds_lower=lower, holds_upper=upper)


def total_coverage(totals: pd.DataFrame) -> pd.DataFrame:
    """Return the bias of totals, and how often their intervals hold the truth.

    Returns
    -------
    pandas.DataFrame
        One row a design and part (all, a region or a layer) of `read_totals`: ``replicates``; mean
        ``true_km3``; ``bias``, the mean total over the mean true one less 1, and its standard
        error; ``given``, how many have an interval; ``holds`` with its Wilson interval at 90 %;
        ``width``, the mean of the interval over the mean true total; of all also the means of
        ``rmse_m`` and ``in_permafrost_free_cells``.
    """
    holds = totals["true_km3"].between(totals["lower"], totals["upper"]).astype(float)
    table = totals.assign(
        off=totals["km3"] - totals["true_km3"],
        holds=holds.where(totals["lower"].notna()),
        width=totals["upper"] - totals["lower"],
    )
    groups = table.groupby(["design", "of"], sort=False)
    means = groups[
        ["true_km3", "off", "holds", "width", "rmse_m", "in_permafrost_free_cells"]
    ].mean()
    true = means["true_km3"].where(means["true_km3"] > 0)
    coverage = pd.DataFrame({"replicates": groups.size(), "true_km3": means["true_km3"]})
    coverage["bias"] = means["off"] / true
    coverage["bias_se"] = groups["off"].sem() / true
    coverage["given"] = groups["lower"].count()
    coverage["holds"] = means["holds"]
    coverage = _with_wilson(coverage, coverage["given"]).assign(width=means["width"] / true)
    return coverage.join(means[["rmse_m", "in_permafrost_free_cells"]]).reset_index()


def read_trust(folders: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read how often maps of the domain err, by levels of trust and where they were not sampled.

    Returns
    -------
    groups
        One row a run, layer and group: ``by`` (area of applicability, trust), ``group``, its
        ``share`` of the domain, and the measures `ERRORS`.
    withheld
        One row a run and layer, from `testbed.against_truth.withheld_environment`; with the
        ``correlation_of_map`` of expected and true error over tenths of the dissimilarity index on
        the run's own map. Both are empty as in `read_estimates`.
    """
    groups, withheld = [], []
    for name, world in worlds_of(folders).items():
        tables = folders[name] / "tables"
        cells = pd.read_csv(tables / "true_applicability.csv")
        own = cells["by"].isin(["area of applicability", "trust"])
        groups.append(cells[own].assign(**world))
        tenths = cells[cells["by"] == "dissimilarity"].groupby("layer")
        related = {layer: part["expected"].corr(part["error"]) for layer, part in tenths}
        without = pd.read_csv(tables / "true_withheld.csv").assign(**world)
        withheld.append(without.assign(correlation_of_map=without["layer"].map(related)))
    if not groups:
        return pd.DataFrame(), pd.DataFrame()
    return pd.concat(groups, ignore_index=True), pd.concat(withheld, ignore_index=True)


def trust_levels(groups: pd.DataFrame) -> pd.DataFrame:
    """Return means of `read_trust`'s groups over worlds and layers: share, and errors by cells."""
    measures = ["error", "error_permafrost", "expected", "avoidable"]
    keys = ["design", "by", "group"]
    weighted = groups[measures].mul(groups["share"], axis=0)
    sums = weighted.assign(**groups[[*keys, "share"]]).groupby(keys, sort=False).sum()
    runs = groups.groupby("design")[["run", "layer"]].apply(
        lambda part: len(part.drop_duplicates())
    )
    means = sums[measures].div(sums["share"], axis=0)
    share = sums["share"] / sums.index.get_level_values("design").map(runs)
    return means.assign(share=share).reset_index()[[*keys, "share", *measures]]


def withheld_errors(withheld: pd.DataFrame) -> pd.DataFrame:
    """Return by how much maps err more outside of the area of applicability, where it was withheld.

    Returns
    -------
    pandas.DataFrame
        One row a design: ``replicates``; means over worlds and layers of ``outside_share``,
        ``inside``, ``outside``, ``correlation`` and ``correlation_of_map``; the share of worlds
        where the error, meant over layers, is ``higher`` outside.
    """
    columns = ["outside_share", "inside", "outside", "correlation", "correlation_of_map"]
    by_run = withheld.groupby(["design", "run"], sort=False)[columns].mean()
    by_run["higher"] = (by_run["outside"] > by_run["inside"]).astype(float)
    groups = by_run.groupby("design", sort=False)
    means = groups.mean()
    means.insert(0, "replicates", groups.size())
    return means.reset_index()


def write_coverage(batch: str | Path, **tables: pd.DataFrame) -> None:
    """Write tables of a coverage study as CSV, and as one JSON, beside the index of its batch."""
    batch = ROOT / batch
    record = {"label": "SIMULATED", "probability_of_wilson": 0.9}
    for name, table in tables.items():
        write_table(batch.with_name(f"coverage_{name}.csv"), table)
        record[name] = table.to_dict("records")
    write_json(batch.with_name("coverage.json"), record)


def plot_bias(biases: pd.DataFrame) -> Figure:
    """Plot how far each estimate of the overall accuracy is off, and how often its interval held.

    The map is that of the expected area, the truth what boreholes would find.
    """
    part = biases[(biases["score"] == "overall_accuracy") & (biases["truth"] == "holes")]
    part = part[part["map"] == "expected"]
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
    totals = totals[totals["of"] == "all"]
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
