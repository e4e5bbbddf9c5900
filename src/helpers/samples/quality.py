"""Quality report of the samples: what became of each site, whether samples stand for the map, and collinearity.

It judges, and changes nothing: notebook 02 shows it below the table that it judges.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyproj

from helpers.core.classes import ICE_TYPES
from helpers.core.errors import CompendiumError
from helpers.core.files import write_text
from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.plot import WIDTH_MM, map_panels, mark_simulated, style
from helpers.core.points import values_at
from helpers.core.rasters import THREADS
from helpers.prepare.predictor_maps import covariate_panels
from helpers.prepare.registry import covariate_files, covariates, predictor_names, read_covariates
from helpers.samples.selection import DUPLICATE
from helpers.samples.store import samples_path

# Colours of Okabe and Ito, which the colour-blind tell apart; no two markers are alike, so grey prints serve too.
FATES = {
    "training": ("o", "#d55e00", 6),
    "test": ("^", "#0072b2", 7),
    "no label": ("x", "#000000", 8),
    "no data": ("s", "#cc79a7", 14),
    "outlier": ("D", "#f0e442", 13),
    "duplicate": ("P", "#009e73", 20),
    "other reason": ("v", "#56b4e9", 14),
}
"""Fates of sites in the order they are drawn, the rarer ones above: marker, colour, size in square points."""


USED = ("training", "test")
"""Fates of the sites that some layer uses."""


MOST_CELLS = 100_000
"""Cells that stand for the map: their distributions are known to about 0.005."""


_BINS = 24


class QualityError(CompendiumError):
    """Tables that do not belong together."""


# --- What became of each site ------------------------------------------------------------------------------


def site_fates(sites, table, unlabelled, lost):
    """Say of each site whether it is used, and if not, why.

    Parameters
    ----------
    sites : pandas.DataFrame
        All sites, with site_id, longitude and latitude, as `helpers.samples.read_tables` returns them.
    table : pandas.DataFrame
        The rows that are used: site_id, layer and split.
    unlabelled, lost : pandas.DataFrame
        site_id, layer and reason of the others, from `label_layers` and `drop_unusable` of `helpers.samples.labels`.

    Returns
    -------
    pandas.DataFrame
        One row a site: site_id, longitude, latitude, fate (of `FATES`), layers (number of those that use it), reason
        (all of them, also of the layers that do not use a used site).

    Raises
    ------
    QualityError
        A site is in none of the three tables.

    Notes
    -----
    A site is used if any of its layers is. One that had labels was dropped for the reason that `lost` tells, however
    many of its layers had none.
    """
    ids = sites["site_id"]
    known = dict.fromkeys(unlabelled["site_id"], "no label")
    known |= {site: _group(reason) for site, reason in zip(lost["site_id"], lost["reason"], strict=True)}
    known |= dict(zip(table["site_id"], table["split"].replace({"train": "training"}), strict=True))
    fate = ids.map(known)
    if fate.isna().any():
        raise QualityError(
            f"Nothing is known of {fate.isna().sum()} sites, such as {ids[fate.isna()].iloc[0]}.",
            "give the tables that label_layers and drop_unusable returned for these very sites",
        )
    reasons = pd.concat([lost, unlabelled], ignore_index=True).drop_duplicates(["site_id", "reason"])
    told = {site: "; ".join(part) for site, part in reasons.groupby("site_id")["reason"]}
    layers = table["site_id"].value_counts()
    return sites[["site_id", "longitude", "latitude"]].assign(
        fate=fate, layers=ids.map(layers).fillna(0).astype(int), reason=[told.get(site, "") for site in ids]
    )


def _group(reason):
    """Return the fate of a site that was dropped for a reason."""
    name = "duplicate" if reason == DUPLICATE else reason.partition(":")[0]
    return name if name in FATES else "other reason"


def fate_map(study, fates, width_mm=WIDTH_MM):
    """Draw the sites over the elevation: those that are used by split, the others by reason.

    Parameters
    ----------
    study : helpers.core.study.Study
    fates : pandas.DataFrame
        From `site_fates`.
    width_mm : float
        Width of the figure, 90 to 180 mm; below 140 mm the two maps stand one above the other.

    Returns
    -------
    matplotlib.figure.Figure
    """
    panel = covariate_panels(study, read_covariates(study, ["elevation"]))[0] | {"cmap": _pale()}
    titles = ("Sites that are used, over elevation", "Sites that are not used")
    figure = map_panels(
        study, [panel | {"title": t} for t in titles], ncols=2 if width_mm >= 140 else 1, width_mm=width_mm
    )
    project = pyproj.Transformer.from_crs("EPSG:4326", panel["geobox"].crs.to_wkt(), always_xy=True)
    easting, northing = project.transform(fates["longitude"].to_numpy(), fates["latitude"].to_numpy())
    maps = [axes for axes in figure.axes if axes.get_title(loc="left") in titles]
    for order, (fate, (marker, colour, size)) in enumerate(FATES.items()):
        where = (fates["fate"] == fate).to_numpy()
        if where.any():
            line = {"linewidths": 0.7} if marker == "x" else {"linewidths": 0.3, "edgecolors": "black"}
            look = {"s": size, "color": colour, "marker": marker, "zorder": 5 + order, **line}
            axes = maps[fate not in USED]
            axes.scatter(easting[where], northing[where], label=f"{fate} ({where.sum()})", **look)
    for axes in maps:
        if axes.get_legend_handles_labels()[0]:
            box = axes.legend(loc="upper left", framealpha=0.9, markerscale=1.2, handletextpad=0.2, borderpad=0.4)
            box.set_zorder(20)
    return figure


def _pale():
    """Return greys, darker in the mountains: nowhere as dark as a marker, nor white as what lies outside."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", ["0.93", "0.55"])


def class_by_layer(table):
    """Count training and test samples by ice type and layer.

    Parameters
    ----------
    table : pandas.DataFrame
        layer, ice_type and split of the rows that are used.

    Returns
    -------
    pandas.DataFrame of int
        A row each of the ice types, also of one without samples, and their sum; for each layer, from the top down, the
        columns train and test.
    """
    columns = pd.MultiIndex.from_product([sorted(table["layer"].unique(), key=_top), ["train", "test"]])
    counts = pd.crosstab(table["ice_type"], [table["layer"], table["split"]])
    counts = counts.reindex(index=[kind.code for kind in ICE_TYPES], columns=columns, fill_value=0)
    counts.index = pd.Index([f"{kind.code} {kind.name}" for kind in ICE_TYPES], name="ice type")
    counts.loc["all"] = counts.sum()
    return counts


def _top(layer):
    return float(layer.partition("-")[0])


# --- Do the samples stand for the map? ---------------------------------------------------------------------


def map_cells(study, rng=None, most=MOST_CELLS):
    """Read the predictors of cells of the map.

    Parameters
    ----------
    study : helpers.core.study.Study
    rng : numpy.random.Generator, optional
        Draws at most `most` cells of the study area; without one, all cells are read.
    most : int

    Returns
    -------
    pandas.DataFrame
        A row each cell that has all predictors: the predictors, in their units, and in_domain.
    """
    rule, names = study.domain.covariate, predictor_names(study)
    geobox, files = reference_grid(study), covariate_files(study)
    cells = np.flatnonzero(area_mask(study, geobox))
    if rng is not None and len(cells) > most:
        cells = np.sort(rng.choice(cells, most, replace=False))
    (easting, northing), (rows, columns) = cell_centres(geobox), np.unravel_index(cells, geobox.shape)
    wanted = list(dict.fromkeys([*names, rule]))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: values_at(files[name], easting[columns], northing[rows]), wanted)
        values = pd.DataFrame(dict(zip(wanted, found, strict=True)))
    return values[names].assign(in_domain=values[rule] > study.domain.above).dropna(ignore_index=True)


def compare_with_map(table, cells):
    """Compare the predictors at the sites with those of the map.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows that are used, with site_id, in_domain and predictors; each site counts once.
    cells : pandas.DataFrame
        From `map_cells`.

    Returns
    -------
    pandas.DataFrame
        Index `predictor`. ks_domain and ks_map, the two-sample Kolmogorov-Smirnov distance (0: alike, 1: apart) of the
        sites in the potential-permafrost domain from its cells, and of all sites from all cells; outside_domain and
        outside_map, the share of these cells beyond the least and the largest value of all sites, where a forest
        cannot but repeat its edge; median_sites, median_domain, median_map. NaN where a side has no values.
    """
    sites = table.drop_duplicates("site_id")
    inside, domain = sites[sites["in_domain"]], cells[cells["in_domain"]]
    rows = {
        name: {
            "ks_domain": ks_distance(inside[name], domain[name]),
            "ks_map": ks_distance(sites[name], cells[name]),
            "outside_domain": _outside(domain[name], sites[name]),
            "outside_map": _outside(cells[name], sites[name]),
            "median_sites": sites[name].median(),
            "median_domain": domain[name].median(),
            "median_map": cells[name].median(),
        }
        for name in cells.columns.drop("in_domain")
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor").astype(float)


def ks_distance(first, second):
    """Return the largest difference of two empirical distribution functions.

    Parameters
    ----------
    first, second : array_like
        Values; NaN are left out.

    Returns
    -------
    float
        0 to 1; NaN where one has no values.

    Examples
    --------
    >>> ks_distance([1, 2, 3, 4], [3, 4, 5, 6])
    0.5
    """
    first, second = (np.sort(v[np.isfinite(v)]) for v in (np.asarray(first, float), np.asarray(second, float)))
    if not len(first) or not len(second):
        return float("nan")
    steps = np.concatenate([first, second])
    shares = [np.searchsorted(values, steps, side="right") / len(values) for values in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _outside(values, known):
    """Return the share of values beyond the range of the known ones."""
    values, known = values.dropna(), known.dropna()
    return float(((values < known.min()) | (values > known.max())).mean()) if len(values) and len(known) else np.nan


def plot_distributions(study, table, cells, compared, ncols=4):
    """Draw how each predictor is distributed at the sites, in the potential-permafrost domain and on the map.

    Parameters
    ----------
    study : helpers.core.study.Study
    table, cells : pandas.DataFrame
        As for `compare_with_map`.
    compared : pandas.DataFrame
        What that returns.
    ncols : int
        Panels in a row.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a predictor, from its 0.5th to its 99.5th percentile, each curve of area 1; to the right of its title
        the Kolmogorov-Smirnov distance in the domain.
    """
    import matplotlib.pyplot as plt

    style()
    layers, sites, nrows = covariates(study), table.drop_duplicates("site_id"), -(-len(compared) // ncols)
    height = 0.87 * nrows + 0.35  # inches; placed by hand, for a layout engine draws all panels several times
    figure, axes = plt.subplots(nrows, ncols, figsize=(WIDTH_MM / 25.4, height), squeeze=False)
    figure.subplots_adjust(0.015, 0.3 / height, 0.99, 1 - 0.38 / height, wspace=0.09, hspace=0.75)
    for panel, name in zip(axes.flat, compared.index, strict=False):
        _draw_distribution(panel, sites[name], cells[name], cells.loc[cells["in_domain"], name])
        layer = layers[name]
        panel.set_title(layer.title + (f", {layer.unit}" if layer.unit != "1" else ""), size=7)
        panel.set_title(f"{compared.loc[name, 'ks_domain']:.2f}", loc="right", size=6)
    for panel in axes.flat[len(compared) :]:
        panel.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], linestyle="none"))
    labels.append("right of a title: KS distance of the sites in the domain from its cells")
    figure.legend(handles, labels, loc="upper left", ncols=4, frameon=False)
    if study.simulated:
        mark_simulated(figure)
    return figure


def _draw_distribution(panel, sites, everywhere, domain):
    low, high = np.nanpercentile(np.concatenate([sites, everywhere]), [0.5, 99.5])
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    shown = (
        ("whole map", everywhere, {"color": "0.82", "fill": True}),
        ("potential-permafrost domain", domain, {"color": "#0072b2", "linewidth": 0.9}),
        ("sites", sites, {"color": "#d55e00", "linewidth": 1.1}),
    )
    for label, values, look in shown:
        counts = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
        panel.stairs(counts, edges, label=label, **look)
    panel.set(yticks=[], xlim=(edges[0], edges[-1]), ylim=(0, None))
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(pad=1.5)
    panel.spines["left"].set_visible(False)


# --- Files and tables --------------------------------------------------------------------------------------


def browse(tables):
    """Show tables that can be searched, sorted and paged in JupyterLab, without any network.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        By their captions.

    Notes
    -----
    The script that does so, 0.9 MB, goes into the output of the cell once for all tables, so that a notebook that was
    executed elsewhere has it. JupyterLab runs it in notebooks that are trusted; else the first page shows.
    """
    import itables

    itables.init_notebook_mode(all_interactive=False, connected=False)
    for caption, table in tables.items():
        itables.show(
            table, caption, maxBytes="1MB", showIndex=False, display_logo_when_loading=False,
            style="table-layout:auto;width:auto;margin:0;caption-side:top",
            columnDefs=[{"targets": "_all", "className": "dt-left"}],
        )  # fmt: skip


def write_quality(study, fates, classes, compared, shared):
    """Write the report beside the samples: ``fates.csv`` and ``quality.json``.

    Parameters
    ----------
    study : helpers.core.study.Study
    fates, classes, compared, shared : pandas.DataFrame
        From `site_fates`, `class_by_layer`, `compare_with_map` and `collinearity`.

    Returns
    -------
    dict
        As written: sites (number by fate), samples (layer, split and ice type), predictors (both tables; null where
        not defined or infinite), and the names of constant and of collinear predictors.
    """
    folder = samples_path(study).parent
    counts = fates["fate"].value_counts()
    predictors = compared.join(shared).to_json(orient="index", double_precision=6)
    split = classes.drop(index="all")
    report = {
        "sites": {fate: int(counts.get(fate, 0)) for fate in FATES},
        "samples": {
            layer: {part: split[layer][part].to_dict() for part in ("train", "test")}
            for layer in split.columns.levels[0]
        },
        "constant": list(shared.index[shared["vif"].isna()]),
        "collinear": list(shared.index[np.isinf(shared["vif"])]),
        "predictors": json.loads(predictors),
    }
    write_text(folder / "fates.csv", fates.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "quality.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return report
