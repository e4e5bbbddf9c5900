"""Quality report of the samples: what became of each site, and whether samples stand for the map.

It evaluates, and changes nothing: notebook 02 shows it below the sample table.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.core.classes import layer_name
from helpers.core.files import to_json_value, write_json, write_table
from helpers.core.grid import area_mask, cell_centres, named_crs, reference_grid
from helpers.core.plot import WIDTH_MM, map_panels, mark_label, panels
from helpers.core.points import projected, values_at
from helpers.core.rasters import THREADS
from helpers.core.study import Study
from helpers.prepare.domain import domain_covariates, in_domain
from helpers.prepare.predictor_maps import background_panel
from helpers.prepare.registry import (
    covariate_files,
    covariates,
    numeric,
    predictor_names,
)
from helpers.samples.columns import SampleError
from helpers.samples.selection import DUPLICATE
from helpers.samples.store import samples_path

# Colours of Okabe and Ito, which colour-blind readers can distinguish; no two markers are alike, so
# grey prints serve too.
SITE_STATUS = {
    "training": ("o", "#d55e00", 6),
    "test": ("^", "#0072b2", 7),
    "no label": ("x", "#000000", 8),
    "no data": ("s", "#cc79a7", 14),
    "outlier": ("D", "#f0e442", 13),
    "duplicate": ("P", "#009e73", 20),
    "other reason": ("v", "#56b4e9", 14),
}
"""Status of sites in drawing order, the rarer ones above: marker, colour, size in square points."""

_USED = ("training", "test")

MOST_CELLS = 100_000
"""Cells that stand for the map: enough to estimate their distributions to about 0.005."""

# Greys, darker in the mountains: nowhere as dark as a marker, nor white as what lies outside.
_PALE = LinearSegmentedColormap.from_list("pale", ["0.93", "0.55"])


def site_status(
    sites: pd.DataFrame, table: pd.DataFrame, unlabelled: pd.DataFrame, lost: pd.DataFrame
) -> pd.DataFrame:
    """Say of each site whether it is used, and if not, why.

    A site is used if any of its layers is in `table`. One that had labels was dropped for the
    reason in `lost` (from `drop_unusable`), however many of its layers are in `unlabelled` (from
    `label_layers`).

    Returns
    -------
    pandas.DataFrame
        One row a site: site_id, longitude, latitude, fate (of `SITE_STATUS`), layers (number of
        those that use it), reason (all of them, also of the layers that do not use a used site).
    """
    sites = sites.drop_duplicates("site_id", ignore_index=True)
    ids = sites["site_id"]
    status = dict.fromkeys(unlabelled["site_id"], "no label")
    status |= dict(zip(lost["site_id"], lost["reason"].map(_status_of), strict=True))
    status |= dict(zip(table["site_id"], table["split"].replace("train", "training"), strict=True))
    if missing := [site for site in ids if site not in status]:
        raise SampleError(
            f"Nothing is known of {len(missing)} sites, such as {missing[0]}.",
            "give the tables that label_layers and drop_unusable returned for these very sites",
        )
    reasons = pd.concat([lost, unlabelled], ignore_index=True)
    reasons = reasons.drop_duplicates(["site_id", "reason"]).groupby("site_id")["reason"]
    reason = {site: "; ".join(part) for site, part in reasons}
    return sites[["site_id", "longitude", "latitude"]].assign(
        fate=ids.map(status),
        layers=ids.map(table["site_id"].value_counts()).fillna(0).astype(int),
        reason=[reason.get(site, "") for site in ids],
    )


def _status_of(reason: str) -> str:
    """Return the status of a site that was dropped for a reason."""
    name = "duplicate" if reason == DUPLICATE else reason.partition(":")[0]
    return name if name in SITE_STATUS else "other reason"


def plot_site_status(study: Study, status: pd.DataFrame, width_mm: float = WIDTH_MM) -> Figure:
    """Draw the sites over a covariate: those that are used by split, the others by reason.

    `width_mm` is 90 to 180; below 140 the two maps stand one above the other.
    """
    panel = background_panel(study) | {"cmap": _PALE}
    titles = (f"Samples that are used, over {panel['title'].lower()}", "Samples that are not used")
    titled = [panel | {"title": title} for title in titles]
    ncols = 2 if width_mm >= 140 else 1
    figure = map_panels(study, titled, ncols=ncols, width_mm=width_mm)
    easting, northing = projected(
        status["longitude"], status["latitude"], named_crs(study.grid.crs)
    )
    maps = [axes for axes in figure.axes if axes.get_title(loc="left") in titles]
    for order, (name, (marker, colour, size)) in enumerate(SITE_STATUS.items(), start=5):
        where = (status["fate"] == name).to_numpy()
        if where.any():
            edge = {"linewidths": 0.7} if marker == "x" else {"linewidths": 0.3, "edgecolors": "k"}
            label = f"{name} ({where.sum()})"
            look = {"s": size, "color": colour, "marker": marker, "zorder": order, "label": label}
            maps[name not in _USED].scatter(easting[where], northing[where], **look, **edge)
    for axes in maps:
        if axes.get_legend_handles_labels()[0]:
            box = {"framealpha": 0.9, "markerscale": 1.2, "handletextpad": 0.2, "borderpad": 0.4}
            axes.legend(loc="upper left", **box).set_zorder(20)
    return figure


def units_by_type(study: Study, labels: pd.DataFrame) -> pd.DataFrame:
    """Count units and samples (cells) by type and layer.

    A unit is a borehole, a point or a polygon; the cells of one polygon are no independent samples.
    """
    unit = labels["group"] if "group" in labels else labels["site_id"]
    labels = labels.assign(units=unit.fillna(labels["site_id"]), samples=labels["site_id"])
    counts = labels.pivot_table(
        ["units", "samples"], "ice_type", "layer", aggfunc={"units": "nunique", "samples": "size"}
    )
    counts = counts.reindex(range(len(study.sample_types))).fillna(0).astype(int)
    counts.index = pd.Index([kind.name for kind in study.sample_types], name="type")
    layers = [layer_name(layer) for layer in study.layers]
    columns = [(name, layer) for layer in layers for name in ("units", "samples")]
    return counts[columns].swaplevel(axis="columns")


def class_by_layer(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Count training and test samples by ice type and layer.

    A row each of the ice types, also of one without samples, and their sum (``all``); for each
    layer, from the top down, the columns train and test.
    """
    layers = [layer_name(layer) for layer in study.layers]
    columns = pd.MultiIndex.from_product([layers, ["train", "test"]])
    counts = pd.crosstab(table["ice_type"], [table["layer"], table["split"]])
    counts = counts.reindex(
        [kind.code for kind in study.sample_types], columns=columns, fill_value=0
    )
    counts.index = pd.Index(
        [f"{kind.code} {kind.name}" for kind in study.sample_types], name="ice type"
    )
    counts.loc["all"] = counts.sum()
    return counts


def map_cells(
    study: Study, rng: np.random.Generator | None = None, most: int = MOST_CELLS
) -> pd.DataFrame:
    """Return the predictors that are numbers, and in_domain, of cells that have all of these.

    The generator draws at most `most` cells of the study area; without one, all cells are read.
    """
    names = [name for name in predictor_names(study) if numeric(study, name)]
    files = covariate_files(study)
    geobox = reference_grid(study)
    cells = np.flatnonzero(area_mask(study, geobox))
    if rng is not None and len(cells) > most:
        cells = np.sort(rng.choice(cells, most, replace=False))
    easting, northing = cell_centres(geobox)
    rows, columns = np.unravel_index(cells, geobox.shape)
    place = easting[columns], northing[rows]
    wanted = list(dict.fromkeys([*names, *domain_covariates(study)]))
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(lambda name: values_at(files[name], *place), wanted)
        table = pd.DataFrame(dict(zip(wanted, values, strict=True)))
    return table[names].assign(in_domain=in_domain(study, table)).dropna(ignore_index=True)


def compare_with_map(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Compare the predictors at the sites, each of which counts once, with those of `map_cells`.

    Returns
    -------
    pandas.DataFrame
        Index `predictor`. ks_domain and ks_map, the two-sample Kolmogorov-Smirnov distance (0:
        alike, 1: apart) of the sites in the potential-permafrost domain from its cells, and of all
        sites from all cells; outside_domain and outside_map, the share of these cells beyond the
        least and the largest value of all sites, where a forest cannot but repeat its edge;
        median_sites, median_domain, median_map. NaN where a side has no values.
    """
    sites = table.drop_duplicates("site_id")
    inside, domain = sites[sites["in_domain"]], cells[cells["in_domain"]]
    rows = {
        name: {
            "ks_domain": _ks_distance(inside[name], domain[name]),
            "ks_map": _ks_distance(sites[name], cells[name]),
            "outside_domain": _share_outside(domain[name], sites[name]),
            "outside_map": _share_outside(cells[name], sites[name]),
            "median_sites": sites[name].median(),
            "median_domain": domain[name].median(),
            "median_map": cells[name].median(),
        }
        for name in cells.columns.drop("in_domain")
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor").astype(float)


def _ks_distance(first: pd.Series, second: pd.Series) -> float:
    from scipy.stats import ks_2samp

    first, second = first.dropna(), second.dropna()
    if first.empty or second.empty:
        return np.nan
    return ks_2samp(first, second, method="asymp").statistic


def _share_outside(values: pd.Series, of_sites: pd.Series) -> float:
    """Return the share of values beyond the range of those of the sites."""
    values, of_sites = values.dropna(), of_sites.dropna()
    if values.empty or of_sites.empty:
        return np.nan
    return (~values.between(of_sites.min(), of_sites.max())).mean()


def plot_distributions(
    study: Study, table: pd.DataFrame, cells: pd.DataFrame, compared: pd.DataFrame
) -> Figure:
    """Draw how each predictor is distributed at the sites, in the domain and on the map.

    A panel a predictor, from its 0.5th to its 99.5th percentile, each curve of area 1; to the right
    of its title the Kolmogorov-Smirnov distance in the domain, `compared` by `compare_with_map`.
    """
    ncols = 4
    layers, sites = covariates(study), table.drop_duplicates("site_id")
    nrows = -(-len(compared) // ncols)
    height = 0.87 * nrows + 0.35  # inches; by hand, for a layout engine draws panels several times
    figure, axes = panels(nrows, ncols, height * 25.4)
    figure.subplots_adjust(0.015, 0.3 / height, 0.99, 1 - 0.38 / height, wspace=0.09, hspace=0.75)
    for panel, name in zip(axes.flat, compared.index, strict=False):
        _draw_distribution(panel, sites[name], cells[name], cells["in_domain"])
        unit = "" if layers[name].unit == "1" else f", {layers[name].unit}"
        panel.set_title(layers[name].title + unit, size=7)
        panel.set_title(f"{compared.loc[name, 'ks_domain']:.2f}", loc="right", size=6)
    for panel in axes.flat[len(compared) :]:
        panel.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    handles.append(Line2D([], [], linestyle="none"))
    labels.append("right of a title: KS distance of the sites in the domain from its cells")
    figure.legend(handles, labels, loc="upper left", ncols=4, frameon=False)
    mark_label(figure, study.label)
    return figure


def _draw_distribution(panel: Axes, sites: pd.Series, cells: pd.Series, domain: pd.Series) -> None:
    low, high = np.nanpercentile(np.concatenate([sites, cells]), [0.5, 99.5])
    if low == high:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, 25)
    curves = {
        "whole map": (cells, {"color": "0.82", "fill": True}),
        "potential-permafrost domain": (cells[domain], {"color": "#0072b2", "linewidth": 0.9}),
        "sites": (sites, {"color": "#d55e00", "linewidth": 1.1}),
    }
    for label, (values, look) in curves.items():
        density = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
        panel.stairs(density, edges, label=label, **look)
    panel.set(yticks=[], xlim=(edges[0], edges[-1]), ylim=(0, None))
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(pad=1.5)
    panel.spines["left"].set_visible(False)


def browse(tables: dict[str, pd.DataFrame]) -> None:
    """Show tables, by their captions, that can be searched, sorted and paged in JupyterLab.

    The script that does so, 0.9 MB, goes into the output of the cell once for all tables, so that a
    notebook that was executed elsewhere needs no network. JupyterLab runs it in notebooks that are
    trusted; else the first page shows.
    """
    import itables

    itables.init_notebook_mode(all_interactive=False, connected=False)
    look = {
        "maxBytes": "1MB",
        "showIndex": False,
        "display_logo_when_loading": False,
        "style": "table-layout:auto;width:auto;margin:0;caption-side:top",
        "columnDefs": [{"targets": "_all", "className": "dt-left"}],
    }
    for caption, table in tables.items():
        itables.show(table, caption, **look)


def write_quality(
    study: Study,
    status: pd.DataFrame,
    classes: pd.DataFrame,
    compared: pd.DataFrame,
    shared: pd.DataFrame,
) -> dict[str, Any]:
    """Write the report beside the samples: ``fates.csv`` and ``quality.json``, which is returned.

    The tables are those of `site_status`, `class_by_layer`, `compare_with_map` and
    `collinearity_table`. The report has sites (number by status), samples (by layer, split and ice
    type), predictors (the last two tables; null where not defined or infinite), and the names of
    constant and of collinear predictors.
    """
    counts = status["fate"].value_counts()
    split = classes.drop(index="all")
    report = to_json_value(
        {
            "sites": {name: int(counts.get(name, 0)) for name in SITE_STATUS},
            "samples": {
                layer: {part: split[layer][part].to_dict() for part in ("train", "test")}
                for layer in split.columns.levels[0]
            },
            "constant": list(shared.index[shared["vif"].isna()]),
            "collinear": list(shared.index[np.isinf(shared["vif"])]),
            "predictors": compared.join(shared).round(6).to_dict("index"),
        }
    )
    folder = samples_path(study).parent
    write_table(folder / "fates.csv", status)
    write_json(folder / "quality.json", report)
    return report
