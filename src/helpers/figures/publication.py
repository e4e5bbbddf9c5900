"""The study's own figures, drawn from files that a run wrote."""

import json

import numpy as np
import pandas
import rasterio

from helpers.accuracy import estimates, reliability, report
from helpers.core import classes, plot, scores
from helpers.core.grid import reference_grid
from helpers.core.plot import WIDTH_MM, colour_map, map_panels, mark_simulated
from helpers.mapping import trust
from helpers.mapping.files import map_files
from helpers.prepare.predictor_maps import covariate_panels
from helpers.prepare.registry import covariates, read_covariates
from helpers.samples.store import read_samples

NAMES = ("samples", "ice-maps", "confusion-matrices", "importance", "trust", "accuracy-summary")
"""File names of the figures that notebook 06 writes."""


def sample_map(study, table=None):
    """Draw where the samples lie, training and test apart, over the elevation.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame, optional
        As `helpers.samples.store.read_samples` returns it, which is the default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    table = read_samples(study) if table is None else table
    data = read_covariates(study, ["elevation"])
    panel = covariate_panels(study, data)[0] | {"cmap": "grayC", "title": "Boreholes and test pits over elevation"}
    figure = map_panels(study, [panel], ncols=1, width_mm=WIDTH_MM / 2)
    axes = figure.axes[0]
    sites = table.drop_duplicates("site_id")
    for split, colour, marker in (("train", "#d55e00", "o"), ("test", "#0072b2", "^")):
        part = sites[sites["split"] == split]
        label = f"{split}ing ({len(part)})" if split == "train" else f"{split} ({len(part)})"
        style = {"s": 5, "color": colour, "marker": marker, "linewidths": 0.2, "edgecolors": "white", "zorder": 5}
        axes.scatter(part["easting"], part["northing"], label=label, **style)
    axes.legend(loc="upper left", fontsize=6, framealpha=0.9, markerscale=1.5)
    return figure


def ice_maps(study):
    """Draw the classes of all layers, by default ice types, and the storage, from the run's maps.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    matplotlib.figure.Figure
    """
    geobox, files, target = reference_grid(study), map_files(study), classes.TARGETS[study.target]
    panels = []
    for layer in study.layers:
        title = f"{target.name.capitalize()}, {layer[0]:g}-{layer[1]:g} m"
        values = _read_band(files[f"{target.file_name}_{classes.layer_name(layer)}"])
        panels.append({"title": title, "values": values, "geobox": geobox, "unit": "", "categories": target.legend})
    storage = _read_band(files["ice_storage"])
    depth = f"{study.layers[0][0]:g}-{study.layers[-1][1]:g} m"
    top = float(np.nanpercentile(storage, 99.5))
    panels.append(
        {"title": f"Ground ice, {depth}", "values": storage, "geobox": geobox, "unit": "m of ice", "cmap": "devon_r"}
        | {"vmin": 0.0, "vmax": top}
    )
    return map_panels(study, panels, ncols=2)


def trust_maps(study):
    """Draw dissimilarity, point density and size of the sets of the first layer, and the levels of trust of all.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    matplotlib.figure.Figure
    """
    geobox, files = reference_grid(study), trust.trust_files(study)
    layer, coverage = classes.layer_name(study.layers[0]), f"{100 * study.trust.coverage:g} %"
    depth = f"{study.layers[0][0]:g}-{study.layers[0][1]:g} m"
    record = json.loads((study.results_dir / "tables" / "applicability.json").read_text(encoding="utf-8"))
    limit = record["layers"][layer]["threshold"]
    unlike, dense = (_read_band(files[f"{kind}_{layer}"]) for kind in ("dissimilarity_index", "point_density"))
    sizes = _read_band(files[f"prediction_set_{layer}"])
    steps = colour_map("lajolla_r")(np.linspace(0.05, 0.8, int(sizes.max())))
    panels = [
        {"title": f"Dissimilarity index, {depth}", "values": unlike, "cmap": "vik", "vmin": 0.0, "vmax": 2 * limit}
        | {"unit": f"largest within the area of applicability: {limit:.2f}"},
        {"title": f"Samples alike, {depth}", "values": np.where(np.isfinite(unlike), dense, np.nan), "cmap": "batlow_r"}
        | {"vmin": 0.0, "unit": "local point density"},
        {"title": f"Classes in the {coverage} set, {depth}", "values": sizes, "unit": ""}
        | {"categories": {k: (f"{k} class{'es' if k > 1 else ''}", colour) for k, colour in enumerate(steps, 1)}},
        {"title": "Trust, the lowest of all layers", "values": _read_band(files["trust"]), "unit": ""}
        | {"categories": {code: level[:2] for code, level in reversed(trust.LEVELS.items())}},
    ]
    return map_panels(study, [panel | {"geobox": geobox} for panel in panels], ncols=2)


def _read_band(path):
    with rasterio.open(path) as source:
        return source.read(1)


def confusion_matrices(study):
    """Draw the confusion matrices of all layers, for the whole area and for the domain, from `accuracy.json`."""
    import matplotlib.pyplot as plt

    reports = json.loads((study.results_dir / "tables" / "accuracy.json").read_text(encoding="utf-8"))
    names = [kind.name.removesuffix(" frozen soil") for kind in classes.TARGETS[study.target].classes]
    plot.style()
    height = 87 * len(reports) + 2  # mm
    figure, axes = plt.subplots(len(reports), 2, figsize=(WIDTH_MM / 25.4, height / 25.4), squeeze=False)
    shown = [(layer, domain) for layer in reports for domain in scores.DOMAINS]
    for panel, (layer, domain) in zip(axes.flat, shown, strict=True):
        report.plot_confusion_matrix(panel, reports[layer][domain], names)
        panel.set_title(f"{layer.removesuffix('m')} m, {domain.replace('_', ' ')}")
    # Margins in mm for the longest names: a layout engine would draw all labels twice, which takes seconds.
    figure.subplots_adjust(33 / WIDTH_MM, 26 / height, 1 - 2 / WIDTH_MM, 1 - 5 / height, wspace=0.57, hspace=0.53)
    if study.simulated:
        mark_simulated(figure)
    return figure


def accuracy_summary(study):
    """Draw one page that sums up the accuracy, from the tables of notebook 04.

    Above, the headline scores with their intervals, by layer and domain, on the test samples and out of spatial folds
    (of the study's own kind where kNNDM is not possible). Below, for all layers together in the domain: confusion
    matrix of the test samples and reliability of permafrost.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    folder, target = study.results_dir / "tables", classes.TARGETS[study.target]
    test, folds = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("accuracy", "accuracy_folds")
    )
    kind = "knndm" if "knndm" in folds else study.folds.kind
    shown = {"test samples": test, estimates.ESTIMATES[kind]: folds[kind]}
    rows = [
        [layer.removesuffix("m") + " m", domain.replace("_", " "), judged, str(reports[layer][domain]["n"])]
        + [_with_interval(reports[layer][domain], score) for score in (*scores.HEADLINE_SCORES, "quadratic_kappa")]
        for layer in test
        for domain in scores.DOMAINS
        for judged, reports in shown.items()
    ]
    plot.style()
    height = 24 + 5 * len(rows) + 92
    figure = plt.figure(figsize=(WIDTH_MM / 25.4, height / 25.4))
    upper = figure.add_axes((0.02, 97 / height, 0.96, (5 * len(rows) + 8) / height))
    upper.axis("off")
    heads = ["layer", "domain", "judged on", "n", "overall accuracy", "kappa", "macro F1", "quadratic kappa"]
    table = upper.table(rows, colLabels=heads, loc="center", cellLoc="left", edges="horizontal",
                        colWidths=[0.06, 0.17, 0.11, 0.05, 0.16, 0.15, 0.15, 0.15], bbox=(0, 0, 1, 1))  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(6.5)
    for place, cell in table.get_celld().items():
        cell.set_linewidth(0.3)
        cell.get_text().set_fontweight("bold" if place[0] == 0 else "normal")
    percent, simulated = round(100 * study.accuracy.interval), "virtual landscape, " if study.simulated else ""
    figure.text(0.02, 1 - 5 / height, f"Accuracy: {simulated}{target.name} by depth layer", weight="bold", size=9)
    note = f"In brackets the {percent} % interval of a bootstrap of {study.accuracy.block_km:g} km blocks."
    figure.text(0.02, 1 - 10 / height, f"{note} Test samples and folds lie where people drilled, not as the map does.")
    domain = scores.DOMAINS[1]
    matrix = np.sum([reports[domain]["confusion_matrix"] for reports in test.values()], axis=0)
    left = figure.add_axes((33 / WIDTH_MM, 25 / height, 56 / WIDTH_MM, 56 / height))
    names = [kind.name.removesuffix(" frozen soil") for kind in target.classes]
    report.plot_confusion_matrix(left, {"confusion_matrix": matrix}, names)
    left.set_title(f"Test samples of all layers, {domain.replace('_', ' ')}")
    right = figure.add_axes((118 / WIDTH_MM, 25 / height, 56 / WIDTH_MM, 56 / height))
    curves, errors = (pandas.read_csv(folder / f"{name}.csv") for name in ("reliability", "calibration_error"))
    reliability.plot_class(right, curves, errors, target.classes[0])
    right.set(title=f"Reliability of {target.classes[0].name}", xlabel="predicted probability", ylabel="observed share")
    right.legend(frameon=False, loc="lower right")
    if study.simulated:
        mark_simulated(figure)
    return figure


def _with_interval(found, score):
    """Return a score of a report, with its interval where it has one."""
    if found[score] is None:
        return "-"
    ends = found["intervals"].get(score, [None])
    return f"{found[score]:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if None not in ends else "")


def importance(study):
    """Draw permutation importance by layer, from `importance.csv`: means and intervals over blocks of samples."""
    import matplotlib.pyplot as plt

    table = pandas.read_csv(study.results_dir / "tables" / "importance.csv")
    order = table.groupby("predictor")["mean"].mean().sort_values().index
    layers, known = table["layer"].unique(), covariates(study)
    plot.style()
    size = (WIDTH_MM / 25.4, 0.16 * len(order) + 0.7)
    figure, axes = plt.subplots(1, len(layers), figsize=size, sharex=True, sharey=True, squeeze=False)
    for panel, layer in zip(axes[0], layers, strict=True):
        part = table[table["layer"] == layer].set_index("predictor").loc[order]
        titles = [known[name].title for name in order]
        panel.barh(titles, part["mean"], color="#5b8db8")
        panel.hlines(titles, part["lower"], part["upper"], color="0.15", linewidth=0.6)
        panel.axvline(0, color="0.3", linewidth=0.5)
        panel.set(title=f"{layer.removesuffix('m')} m", xlabel="fall of kappa")
    axes[0, 0].locator_params(axis="x", nbins=4)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    if study.simulated:
        mark_simulated(figure)
    return figure
