"""Comparison of runs: what differs in their settings, what came out, and where their maps agree.

A *batch* is an index (``batch.json``) of runs that `launcher.batch` writes; the runs may be of different studies.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import yaml

from helpers.core.classes import TARGETS, layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import write_json, write_table
from helpers.core.grid import reference_grid
from helpers.core.plot import WIDTH_MM, map_panels, mark_simulated, save, style
from helpers.core.rasters import write_raster
from helpers.core.scores import DOMAINS
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.mapping.files import map_files

COMPARED_SCORES = {"overall_accuracy": "overall accuracy", "kappa": "kappa", "macro_f1": "macro F1"}
"""Scores of the comparison, in the potential-permafrost domain, with their names."""


STORAGE = "ice_km3"


_IGNORED = ("name", "title", "run", "compute")


class CompareError(CompendiumError):
    """Runs that cannot be compared."""


def read_batch(path):
    """Read what a batch's runs made.

    Parameters
    ----------
    path : path-like
        The batch's index.

    Returns
    -------
    table : pandas.DataFrame
        One row a run: ``run``, ``study``, ``status``, ``error``; the axes of the sweep, or else the settings that
        differ; ``training_samples``; the scores of each layer in the potential-permafrost domain, such as
        ``kappa_2-3m``, and their means over the layers, such as ``kappa``; ``ice_km3``, ``water_km3`` and
        ``extent_km2`` of the whole area; in a virtual study ``true_km3``, ``bias`` and ``in_permafrost_free_cells``.
    axes : list of str
        Its columns of settings, of those that differ between finished runs.
    folders : dict of str to pathlib.Path
        Of the finished runs.

    Raises
    ------
    CompareError
        There is no such index, or no run of it is finished.
    """
    path = ROOT / path
    if not path.is_file():
        raise CompareError(f"There is no batch {path.name} in {path.parent.name}.", "run `make batch` first")
    index = json.loads(path.read_text(encoding="utf-8"))
    done = [one for one in index["runs"] if one["status"] == "done"]
    if not done:
        raise CompareError("No run of the batch is finished.", "mend the errors that batch.json names, and run again")
    axes, values = index["axes"], [one["values"] for one in index["runs"]]
    if not axes:
        differing = _differing([ROOT / one["folder"] for one in done])
        axes = list(differing.columns)
        values = differing.to_dict("records")
    rows = []
    for one, chosen in zip(index["runs"], values, strict=True):
        row = {"run": one["run"], "study": Path(one["folder"]).parent.name, "status": one["status"]}
        row |= {"error": one["error"].partition("\nRemedy: ")[0]} | {axis: chosen.get(axis, "") for axis in axes}
        rows.append(row | (_outcome(ROOT / one["folder"]) if one["status"] == "done" else {}))
    axes = [axis for axis in axes if len({row[axis] for row in rows if row["status"] == "done"}) > 1]
    folders = {f"{Path(one['folder']).parent.name}/{one['run']}": ROOT / one["folder"] for one in done}
    return pd.DataFrame(rows), axes, folders


def _differing(folders):
    """Return the settings, by dotted name, in which runs differ: one row a run."""
    flat = []
    for folder in folders:
        settings = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        flat.append({name: json.dumps(value) for name, value in _flat(settings)})
    table = pd.DataFrame(flat).fillna("")
    return table[[name for name in table if len(set(table[name])) > 1]]


def _flat(settings, prefix=""):
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name not in _IGNORED:
            yield f"{prefix}{name}", value


def _outcome(folder):
    """Return the scores and totals of a run as one row of a table."""
    tables = folder / "tables"
    reports = json.loads((tables / "accuracy.json").read_text(encoding="utf-8"))
    storage = json.loads((tables / "storage.json").read_text(encoding="utf-8"))
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "models").glob("*.json"))]
    trained = [card["n_samples"] for card in cards if card["fit"] == "train"]
    scores = {
        f"{score}_{layer}": report[DOMAINS[1]][score] for score in COMPARED_SCORES for layer, report in reports.items()
    }
    means = {
        score: float(np.mean([np.nan if report[DOMAINS[1]][score] is None else report[DOMAINS[1]][score]
                              for report in reports.values()]))
        for score in COMPARED_SCORES
    }  # fmt: skip
    whole = storage["regions"]["all"]
    totals = {name: whole.get(name) for name in (STORAGE, "water_km3", "extent_km2")}
    truth = storage["against_truth"] or {}
    told = {name: truth[name] for name in ("true_km3", "bias", "in_permafrost_free_cells") if name in truth}
    return {"training_samples": float(np.mean(trained))} | means | totals | told | scores


def write_comparison(path, table):
    """Write the table of `read_batch` beside the batch's index, as ``runs.csv``."""
    write_table((ROOT / path).with_name("runs.csv"), table)


# Effects ----------------------------------------------------------------------------------------------------


def effects(table, axes):
    """Return how much each setting moves each outcome.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_batch`.
    axes : list of str

    Returns
    -------
    pandas.DataFrame
        One row an axis and outcome (scores and storage): ``levels``, ``range`` (between the highest and the lowest mean
        of a level), ``share`` of the outcome's variance between the means of levels, and ``within`` (standard deviation
        between runs of one level, by which a difference is to be judged; NaN where levels have one run each).

    Notes
    -----
    ``share`` is the correlation ratio eta squared. Shares of several axes add up to at most one only if every
    combination has been run (a grid).
    """
    done = table[table["status"] == "done"]
    rows = []
    for axis in axes:
        levels = done[axis].astype(str)
        for outcome in (*COMPARED_SCORES, STORAGE):
            values = done[outcome].astype(float)
            means = values.groupby(levels).transform("mean")
            total = ((values - values.mean()) ** 2).sum()
            freedom = len(values) - levels.nunique()
            rows.append(
                {
                    "setting": axis,
                    "outcome": outcome,
                    "levels": levels.nunique(),
                    "range": means.max() - means.min(),
                    "share": ((means - values.mean()) ** 2).sum() / total if total > 0 else np.nan,
                    "within": np.sqrt(((values - means) ** 2).sum() / freedom) if freedom else np.nan,
                }
            )
    return pd.DataFrame(rows)


def plot_effects(table, axes, simulated):
    """Draw kappa and storage of every run against each of up to four settings; black lines are means of levels.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_batch`.
    axes : list of str
    simulated : bool

    Returns
    -------
    matplotlib.figure.Figure or None
        None where no setting differs.
    """
    import matplotlib.pyplot as plt

    if not axes:
        return None
    done = table[table["status"] == "done"]
    style()
    shown, outcomes = axes[:4], {"kappa": "kappa, mean of layers", STORAGE: "ground ice, km³"}
    figure, panels = plt.subplots(
        len(outcomes),
        len(shown),
        figsize=(WIDTH_MM / 25.4, 4.2),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, axis in enumerate(shown):
        levels = list(dict.fromkeys(sorted(done[axis].astype(str), key=_order)))
        place = done[axis].astype(str).map(levels.index).to_numpy()
        for row, (outcome, title) in enumerate(outcomes.items()):
            panel, values = panels[row, column], done[outcome].astype(float)
            jitter = _spread(place, values)
            panel.scatter(place + jitter, values, s=9, color="#5b8db8", alpha=0.8, linewidths=0)
            for level, mean in values.groupby(place).mean().items():
                panel.plot([level - 0.3, level + 0.3], [mean, mean], color="black", linewidth=1)
            if column == 0:
                panel.set_ylabel(title)
            step = max(1, -(-len(levels) // 8))
            labels = [_short(name) for name in levels[::step]] if row == len(outcomes) - 1 else []
            panel.set_xticks(range(0, len(levels), step), labels or [""] * len(levels[::step]))
            panel.tick_params(axis="x", rotation=45 if max(map(len, levels)) > 4 else 0)
            panel.set_xlim(-0.6, len(levels) - 0.4)
        panels[-1, column].set_xlabel(axis)
    _sign(figure, simulated)
    return figure


def _order(level):
    try:
        return (0, float(level), level)
    except ValueError:
        return (1, 0.0, level)


def _short(level, most=18):
    return level if len(level) <= most else f"{level[: most - 1]}…"


def _spread(place, values):
    """Return small offsets that part the points of one level, in the order of their values."""
    rank = values.groupby(place).rank(method="first") - 1
    count = values.groupby(place).transform("size")
    return ((rank + 0.5) / count - 0.5).to_numpy() * 0.5


def _sign(figure, simulated):
    if simulated:
        foot = 0.2 / figure.get_size_inches()[1]  # of 0.2 inches, whatever the figure's height
        figure.get_layout_engine().set(rect=(0, foot, 1, 1 - foot))
        mark_simulated(figure)


def learning_curve(table, simulated):
    """Draw scores and storage against the number of training samples: points are runs, lines their means.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_batch`.
    simulated : bool

    Returns
    -------
    matplotlib.figure.Figure or None
        None where the largest number of training samples is less than 1.2 times the smallest: there is no curve then.
    """
    import matplotlib.pyplot as plt

    done = table[table["status"] == "done"]
    sizes = done["training_samples"].astype(float)
    if sizes.max() < 1.2 * sizes.min():
        return None
    style()
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH_MM / 25.4, 2.3), layout="constrained")
    # Runs of one size differ by a few samples: a gap of a fifth parts sizes. Means are drawn at mean sizes.
    ordered = np.sort(sizes)
    bins = np.searchsorted(ordered[1:][np.diff(np.log(ordered)) > np.log(1.2)], sizes, side="right")
    for panel, (name, title) in zip(
        panels, {**dict(list(COMPARED_SCORES.items())[:2]), STORAGE: "ground ice, km³"}.items(), strict=True
    ):
        panel.scatter(sizes, done[name].astype(float), s=9, color="#5b8db8", alpha=0.8, linewidths=0)
        means = pd.DataFrame({"size": sizes, "value": done[name].astype(float)}).groupby(bins).mean()
        panel.plot(means["size"], means["value"], color="black", linewidth=1)
        panel.set(xlabel="training samples a layer", ylabel=title, xscale="log")
        ticks = [n for n in (25, 50, 100, 200, 400, 800, 1600, 3200) if sizes.min() * 0.7 <= n <= sizes.max() * 1.4]
        panel.set_xticks(ticks, [str(n) for n in ticks])
        panel.minorticks_off()
    if "true_km3" in done:
        panels[-1].axhline(done["true_km3"].astype(float).mean(), color="#b8605b", linestyle="--", linewidth=1)
        panels[-1].set_title("dashed: truth", fontsize=7)
    _sign(figure, simulated)
    return figure


def ablation(table, axes, simulated):
    """Draw how scores change when predictors are left out, against the runs that have all.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_batch`.
    axes : list of str
    simulated : bool

    Returns
    -------
    matplotlib.figure.Figure or None
        None where `left_out` does not vary, or no run has all predictors.
    """
    import matplotlib.pyplot as plt

    if "left_out" not in axes:
        return None
    done = table[table["status"] == "done"]
    others = [axis for axis in axes if axis != "left_out"]
    whole = done[done["left_out"].isin(["[]", "nothing"])]
    if whole.empty:
        return None
    names = [*COMPARED_SCORES, STORAGE]
    keys = ["left_out", *others]
    reference = whole.set_index(others)[names] if others else whole[names].mean().to_frame().T
    left = done[~done["left_out"].isin(["[]", "nothing"])].set_index(keys)[names].astype(float)
    changes = left - (
        reference.reindex(left.index.droplevel("left_out")).to_numpy() if others else reference.to_numpy()
    )
    style()
    order = changes["kappa"].groupby(level="left_out").mean().sort_values().index
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH_MM / 25.4, 0.3 * len(order) + 1), sharey=True, layout="constrained"
    )
    titles = {"overall_accuracy": "overall accuracy", "kappa": "kappa", STORAGE: "ground ice, km³"}
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        groups = changes[name].groupby(level="left_out")
        means, spread = groups.mean()[order], groups.std()[order]
        panel.barh(order, means, xerr=spread.fillna(0), color="#5b8db8", error_kw={"linewidth": 0.6})
        panel.axvline(0, color="0.3", linewidth=0.5)
        panel.set(xlabel=f"change of {title}")
    panels[0].set_ylabel("left out")
    _sign(figure, simulated)
    return figure


# Maps -------------------------------------------------------------------------------------------------------


def compared_studies(folders):
    """Return the runs whose maps can be laid over each other: of the most frequent grid, layers and target.

    Parameters
    ----------
    folders : dict of str to pathlib.Path
        From `read_batch`.

    Returns
    -------
    list of helpers.core.study.Study
    """
    studies = [Study.open(folder / "study.yaml") for folder in folders.values()]
    kinds = [str((s.grid, s.area, s.layers, TARGETS[s.target].file_name, s.ice.thresholds)) for s in studies]
    most = max(kinds, key=kinds.count)
    return [study for study, kind in zip(studies, kinds, strict=True) if kind == most]


def agreement(studies):
    """Return where runs agree, cell by cell, reading one map at a time.

    Parameters
    ----------
    studies : list of helpers.core.study.Study
        From `compared_studies`.

    Returns
    -------
    dict of str to numpy.ndarray
        ``agreement_<layer>``: the share of runs with the most frequent class; ``ice_mean`` and ``ice_sd``, the mean and
        standard deviation of storage over the runs, m of ice. NaN where not every run has a prediction.
    """
    first, found = studies[0], {}
    target, size = TARGETS[first.target], len(studies)

    def read(study, name):
        with rasterio.open(map_files(study)[name]) as source:
            return source.read(1)

    for layer in map(layer_name, first.layers):
        counts = np.zeros((len(target.codes), *reference_grid(first).shape), np.uint16)
        for study in studies:
            classes = read(study, f"{target.file_name}_{layer}")
            for code in target.codes:
                counts[code] += classes == code
        complete = counts.sum(axis=0) == size
        found[f"agreement_{layer}"] = np.where(complete, counts.max(axis=0) / size, np.nan).astype(np.float32)
    mean, squares = 0.0, 0.0
    for number, study in enumerate(studies, 1):
        # Welford's update: no difference of large sums.
        storage = read(study, "ice_storage").astype(float)
        before = storage - mean
        mean = mean + before / number
        squares = squares + before * (storage - mean)
    found["ice_mean"] = np.asarray(mean, np.float32)
    found["ice_sd"] = np.sqrt(np.asarray(squares) / max(size - 1, 1)).astype(np.float32)
    return found


def write_agreement(path, studies, found):
    """Write the rasters of `agreement` beside the batch's index, and a summary as ``agreement.json``.

    Parameters
    ----------
    path : path-like
        The batch's index.
    studies : list of helpers.core.study.Study
    found : dict of str to numpy.ndarray

    Returns
    -------
    dict
        For each layer the mean agreement and the share of cells in which at least nine of ten runs agree; the mean of
        the storage's standard deviation over cells that have ice, m.
    """
    folder, study = (ROOT / path).parent, studies[0]
    titles = {"ice_mean": "mean of ground-ice storage over runs", "ice_sd": "standard deviation of storage over runs"}
    for name, values in found.items():
        title, unit = (titles[name], "m") if name in titles else ("share of runs with the most frequent class", "1")
        write_raster(
            folder / f"{name}.tif", values, reference_grid(study), study=study, names=name, units=unit, long_names=title
        )
    layers = {name: values[np.isfinite(values)] for name, values in found.items() if name.startswith("agreement")}
    frozen = found["ice_mean"] > 0
    summary = {"runs": len(studies), "simulated": study.simulated}
    summary |= {
        name: {"mean": float(values.mean()), "at_least_nine_of_ten": float((values >= 0.9 - 1e-6).mean())}
        for name, values in layers.items()
    }
    summary["ice_sd_m"] = float(found["ice_sd"][frozen].mean()) if frozen.any() else None
    write_json(folder / "agreement.json", summary)
    return summary


def agreement_maps(studies, found):
    """Draw the maps of `agreement`."""
    study, panels = studies[0], []
    geobox, least = reference_grid(study), 1 / len(TARGETS[study.target].codes)
    for top, bottom in study.layers:
        values = found[f"agreement_{layer_name((top, bottom))}"]
        panel = {"title": f"Agreement of {len(studies)} runs, {top:g}-{bottom:g} m", "values": values, "geobox": geobox}
        panels.append(panel | {"unit": "share of runs", "cmap": "lapaz", "vmin": least, "vmax": 1.0})
    frozen = np.where(found["ice_mean"] > 0, found["ice_sd"], np.where(np.isfinite(found["ice_mean"]), 0, np.nan))
    top = float(np.nanpercentile(frozen, 99.5))
    panel = {"title": "Spread of ground ice between runs", "values": frozen, "geobox": geobox, "unit": "sd, m of ice"}
    panels.append(panel | {"cmap": "devon_r", "vmin": 0.0, "vmax": max(top, 1e-3)})
    return map_panels(study, panels, ncols=2)


def keep(path, **figures):
    """Save figures beside the batch's index, leaving out those that there is nothing to draw for.

    Parameters
    ----------
    path : path-like
        The batch's index.
    **figures : matplotlib.figure.Figure or None
        By name.
    """
    for name, figure in figures.items():
        if figure is not None:
            save(figure, (ROOT / path).parent / name.replace("_", "-"))
