"""Comparison of runs: what differs in their settings, what came out, and where their maps agree.

A *batch* is an index (``batch.json``) of runs, also of different studies; `launcher.batch` writes
it. Functions that take a `path` take the index's.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.core.classes import layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import read_json, read_yaml, write_json
from helpers.core.grid import reference_grid
from helpers.core.plot import mark_label, panels, save
from helpers.core.rasters import read_band, write_raster
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.mapping.files import map_files

COMPARED_SCORES = {"overall_accuracy": "overall accuracy", "kappa": "kappa", "macro_f1": "macro F1"}
"""Scores of the comparison, in the potential-permafrost domain, with their names."""

STORAGE = "ice_km3"
OUTCOMES = {**COMPARED_SCORES, STORAGE: "ground ice, km³"}

_IGNORED = ("name", "title", "label", "run", "compute")
_BLUE = "#5b8db8"


class CompareError(CompendiumError):
    """Runs that cannot be compared."""


def read_batch(path: str | Path) -> tuple[pd.DataFrame, list[str], dict[str, Path]]:
    """Read what a batch's runs made; CompareError if there is no index, or no run is finished.

    Returns
    -------
    table
        One row a run: ``run``, ``study``, ``status``, ``error``; the axes of the sweep, or else the
        settings that differ; ``training_samples``; the scores of each layer in the
        potential-permafrost domain, such as ``kappa_2-3m``, and their means over the layers, such
        as ``kappa``; ``ice_km3``, ``water_km3`` and ``extent_km2`` of the whole area; in a virtual
        study ``true_km3``, ``bias`` and ``in_permafrost_free_cells``.
    axes
        Its columns of settings that differ between finished runs.
    folders
        Of the finished runs.
    """
    path = ROOT / path
    if not path.is_file():
        raise CompareError(f"There is no batch {path.parent.name}.", "run `make batch` first")
    index = read_json(path)
    done = [one for one in index["runs"] if one["status"] == "done"]
    if not done:
        raise CompareError("No run of the batch is finished.", "mend the errors in its batch.json")
    axes = index["axes"]
    values = [one["values"] for one in index["runs"]]
    if not axes:
        differing = _differing([ROOT / one["folder"] for one in done])
        axes = list(differing.columns)
        values = differing.to_dict("records")
    rows = []
    for one, chosen in zip(index["runs"], values, strict=True):
        row = {"run": one["run"], "study": Path(one["folder"]).parent.name, "status": one["status"]}
        row["error"] = one["error"].partition("\nRemedy: ")[0]
        row |= {axis: chosen.get(axis, "") for axis in axes}
        rows.append(row | (_outcome(ROOT / one["folder"]) if one["status"] == "done" else {}))
    table = pd.DataFrame(rows)
    finished = table[table["status"] == "done"]
    axes = [axis for axis in axes if len(set(finished[axis])) > 1]
    folders = {f"{Path(one['folder']).parent.name}/{one['run']}": one["folder"] for one in done}
    return table, axes, {name: ROOT / folder for name, folder in folders.items()}


def _differing(folders: Sequence[Path]) -> pd.DataFrame:
    """Return the settings, by dotted name, in which runs differ: one row a run."""
    table = pd.json_normalize([read_yaml(folder / "study.yaml") for folder in folders])
    table = table.map(json.dumps).replace("NaN", "")
    names = [name for name in table if str(name).split(".")[0] not in _IGNORED]
    return table[[name for name in names if len(set(table[name])) > 1]]


def _outcome(folder: Path) -> dict[str, Any]:
    """Return the scores and totals of a run as one row of a table."""
    tables = folder / "tables"
    by_layer = read_json(tables / "accuracy.json")
    # The domain of the study comes last.
    reports = {layer: list(domains.values())[-1] for layer, domains in by_layer.items()}
    scores = pd.DataFrame(reports).loc[list(COMPARED_SCORES)].astype(float)
    cards = [read_json(path) for path in sorted((folder / "models").glob("*.json"))]
    trained = [card["n_samples"] for card in cards if card["fit"] == "train"]
    row = {"training_samples": float(np.mean(trained))}
    row |= scores.mean(axis=1, skipna=False).to_dict()
    totals = (STORAGE, "water_km3", "extent_km2")
    row |= dict.fromkeys(totals)  # of a study whose classes have no ice content
    if (tables / "storage.json").is_file():
        whole = read_json(tables / "storage.json")["regions"]["all"]
        row |= {name: whole.get(name) for name in totals}
    if (tables / "true_storage.json").is_file():
        truth = read_json(tables / "true_storage.json")
        names = ("true_km3", "bias", "in_permafrost_free_cells")
        row |= {name: truth[name] for name in names if name in truth}
    for score, by_layer in scores.iterrows():
        row |= {f"{score}_{layer}": value for layer, value in by_layer.items()}
    return row


def _finished(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a table that are done, with their outcomes as numbers."""
    done = table[table["status"] == "done"]
    return done.astype(dict.fromkeys(OUTCOMES, float))


def effects(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Return how much each setting moves each outcome.

    Returns
    -------
    effects
        One row an axis and outcome (scores and storage): ``levels``, ``range`` (between the highest
        and the lowest mean of a level), ``share`` of the outcome's variance between the means of
        levels, and ``within``: the standard deviation between runs of one level, to compare a
        difference with; NaN where levels have one run each.

    Notes
    -----
    ``share`` is the correlation ratio eta squared. Shares of several axes add up to at most one
    only if every combination has been run (a grid).
    """
    done = _finished(table)
    values = done[list(OUTCOMES)]
    total = ((values - values.mean()) ** 2).sum()
    parts = [pd.DataFrame()]
    for axis in axes:
        levels = values.groupby(done[axis].astype(str))
        means = levels.transform("mean")
        # NaN where levels have one run each.
        freedom = len(values) - levels.ngroups or np.nan
        columns = {
            "setting": axis,
            "outcome": list(OUTCOMES),
            "levels": levels.ngroups,
            "range": means.max() - means.min(),
            "share": ((means - values.mean()) ** 2).sum() / total.where(total > 0),
            "within": np.sqrt(((values - means) ** 2).sum() / freedom),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def plot_effects(table: pd.DataFrame, axes: Sequence[str], label: str) -> Figure | None:
    """Draw kappa and storage of every run against each of up to four settings.

    Where the largest number of training samples is 1.2 times the smallest or more, also against
    that: a learning curve. Black lines are means of levels. None where no setting differs.
    """
    if not axes:
        return None
    done = _finished(table)
    sizes = done["training_samples"].astype(float)
    columns = [*axes[:4], *(["training_samples"] if sizes.max() >= 1.2 * sizes.min() else [])]
    figure, grid = panels(2, len(columns), 107, sharex="col", sharey="row", layout="constrained")
    for column, axis in zip(grid.T, columns, strict=True):
        levels = done[axis].astype(str)
        numbers = pd.to_numeric(levels, errors="coerce")
        places = levels if numbers.isna().any() else numbers
        for panel, outcome in zip(column, ("kappa", STORAGE), strict=True):
            means = done[outcome].groupby(places, sort=False).mean()
            panel.scatter(places, done[outcome], s=9, color=_BLUE, alpha=0.8, linewidths=0)
            panel.plot(means.index, means, "_", color="black", markersize=12)
            panel.margins(x=0.2)
        column[-1].set_xlabel(axis)
        column[-1].tick_params(axis="x", rotation=45)
    grid[0, 0].set_ylabel(OUTCOMES["kappa"])
    grid[1, 0].set_ylabel(OUTCOMES[STORAGE])
    return _signed(figure, label)


def _signed(figure: Figure, label: str) -> Figure:
    """Return a figure with the label at its foot."""
    foot = 0.2 / figure.get_size_inches()[1]  # 0.2 inches, whatever the figure's height
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot))
    mark_label(figure, label)
    return figure


def plot_ablation(table: pd.DataFrame, axes: Sequence[str], label: str) -> Figure | None:
    """Draw how scores change when predictors are left out, against the runs that have all.

    None where `left_out` does not vary, or no run has all predictors.
    """
    done = _finished(table)
    whole = done["left_out"].isin(["[]", "nothing"]) if "left_out" in axes else None
    if whole is None or not whole.any():
        return None
    shown = ["overall_accuracy", "kappa", STORAGE]
    others = [axis for axis in axes if axis != "left_out"]
    # Each run beside that with the same other settings; without any there is one such run.
    how = "inner" if others else "cross"
    pairs = done[~whole].merge(done[whole], how, others or None, suffixes=("", " of all"))
    change = pairs[shown] - pairs[[f"{name} of all" for name in shown]].to_numpy()
    groups = change.groupby(pairs["left_out"])
    means = groups.mean().sort_values("kappa")
    spread = groups.std().loc[means.index].fillna(0)
    height = 25.4 * (0.3 * len(means) + 1)
    figure, grid = panels(1, 3, height, sharey=True, layout="constrained")
    for panel, outcome in zip(grid[0], shown, strict=True):
        bars = {"color": _BLUE, "error_kw": {"linewidth": 0.6}}
        panel.barh(means.index, means[outcome], xerr=spread[outcome], **bars)
        panel.axvline(0, color="0.3", linewidth=0.5)
        panel.locator_params(axis="x", nbins=5)
        panel.set(xlabel=f"change of {OUTCOMES[outcome]}")
    grid[0, 0].set_ylabel("left out")
    return _signed(figure, label)


def compared_studies(folders: Mapping[str, Path]) -> list[Study]:
    """Return the runs of `read_batch` whose maps can be laid over each other.

    They are of the most frequent grid, layers and target.
    """
    studies = [Study.open(folder / "study.yaml") for folder in folders.values()]
    kinds = [
        str((s.grid, s.area, s.layers, s.target_classes.file_name, s.ice.thresholds))
        for s in studies
    ]
    most = max(kinds, key=kinds.count)
    return [study for study, kind in zip(studies, kinds, strict=True) if kind == most]


def agreement(studies: Sequence[Study]) -> dict[str, np.ndarray]:
    """Return where runs of `compared_studies` agree, cell by cell, reading one map at a time.

    ``agreement_<layer>`` is the share of runs with the most frequent class; ``ice_mean`` and
    ``ice_sd`` are the mean and the standard deviation of storage over the runs, m of ice, where the
    studies have storage. NaN where not every run has a prediction.
    """
    first = studies[0]
    target = first.target_classes
    size = len(studies)
    maps = {}
    for layer in map(layer_name, first.layers):
        counts = np.zeros((len(target.codes), *reference_grid(first).shape), np.uint16)
        for study in studies:
            classes = read_band(map_files(study)[f"{target.file_name}_{layer}"])
            for code in target.codes:
                counts[code] += classes == code
        complete = counts.sum(axis=0) == size
        shares = np.where(complete, counts.max(axis=0) / size, np.nan)
        maps[f"agreement_{layer}"] = shares.astype(np.float32)
    if not first.has_storage:
        return maps
    mean = squares = np.zeros(reference_grid(first).shape)
    for number, study in enumerate(studies, 1):
        # Welford's update: no difference of large sums.
        storage = read_band(map_files(study)["ice_storage"]).astype(float)
        before = storage - mean
        mean = mean + before / number
        squares = squares + before * (storage - mean)
    maps["ice_mean"] = mean.astype(np.float32)
    maps["ice_sd"] = np.sqrt(squares / max(size - 1, 1)).astype(np.float32)
    return maps


def write_agreement(
    path: str | Path, studies: Sequence[Study], maps: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Write the rasters of `agreement` beside the batch's index, and ``agreement.json``.

    Returns
    -------
    summary
        For each layer the mean agreement and the share of cells in which at least nine of ten runs
        agree; the mean of the storage's standard deviation over cells that have ice, m, if any.
    """
    folder = (ROOT / path).parent
    study = studies[0]
    titles = {
        "ice_mean": "mean of ground-ice storage over runs",
        "ice_sd": "standard deviation of storage over runs",
    }
    summary: dict[str, Any] = {"runs": len(studies), "label": study.label}
    for name, values in maps.items():
        title = titles.get(name, "share of runs with the most frequent class")
        described = {"study": study, "names": name, "long_names": title}
        described["units"] = "m" if name in titles else "1"
        write_raster(folder / f"{name}.tif", values, reference_grid(study), **described)
        if name not in titles:
            shares = values[np.isfinite(values)]
            most = float((shares >= 0.9 - 1e-6).mean())
            summary[name] = {"mean": float(shares.mean()), "at_least_nine_of_ten": most}
    frozen = maps.get("ice_mean", np.zeros(1)) > 0
    summary["ice_sd_m"] = float(maps["ice_sd"][frozen].mean()) if frozen.any() else None
    write_json(folder / "agreement.json", summary)
    return summary


def save_figures(path: str | Path, **figures: Figure | None) -> None:
    """Save figures by name beside the batch's index, but those that are None."""
    for name, figure in figures.items():
        if figure is not None:
            save(figure, (ROOT / path).parent / name.replace("_", "-"))
