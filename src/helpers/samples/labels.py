"""Samples: from checked tables of boreholes and test pits to labels with covariates, and their split.

`helpers.samples.tables` reads and checks the tables. Depths are metres below the surface.
"""

import numpy as np
import pandas as pd

from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.ice import ice_type, layer_mean, permafrost_part
from helpers.samples.columns import SampleError
from helpers.samples.store import LABEL_COLUMNS

NOT_REACHED = "the hole does not reach far enough into the layer"


TOO_LITTLE = "too little of the layer's permafrost was sampled"


UNKNOWN_STATE = "not known whether there is permafrost in the layer"


UNKNOWN_TABLE = "depth of the permafrost table unknown"


_SLACK = 1e-6  # m; depths nearer than this are equal


# --- Labels ------------------------------------------------------------------------------------------------


def label_layers(study, sites, intervals):
    """Give each site an ice type in each depth layer where the hole allows one.

    Parameters
    ----------
    study : helpers.core.study.Study
    sites, intervals : pandas.DataFrame
        As `read_tables` returns them.

    Returns
    -------
    labels : pandas.DataFrame
        One row a site and layer: site_id, layer, longitude, latitude, ice_type (0-5), ice_content (m3 m-3
        of the permafrost part, NaN for class 0) and its standard deviation by the errors of measurement,
        permafrost_share (of the layer's thickness), ice_fraction (their product), sampled_share (of the
        permafrost part; for class 0, how much of the layer the hole passed), reason (of class 0: ``talik``,
        ``above table`` or ``below base``; empty otherwise).
    lost : pandas.DataFrame
        The other pairs of site and layer: site_id, layer, reason.

    Notes
    -----
    A hole tells of a layer where it passed at least `ice.minimum_sampled_share` of it, whatever it found there, and
    what it passed stands for the rest. Were more asked of holes that met no permafrost, the samples would have more
    permafrost than the ground. Class 0 is an observation, never a lack of one: the permafrost table lies below the
    layer, its base above it, or the hole met no permafrost. A hole of which it is unknown whether it met permafrost
    gives class 0 only where its cores show unfrozen ground throughout, for frozen ground may be seasonal. Unfrozen
    cores within permafrost count as ice content 0.
    """
    pieces = _pieces_by_site(core_ice(study, intervals))
    labels, lost = [], []
    for site in sites.itertuples():
        for layer in study.layers:
            outcome = _label(site, layer, pieces.get(site.site_id, _NO_PIECES), study.ice)
            key = {"site_id": site.site_id, "layer": layer_name(layer)}
            if isinstance(outcome, str):
                lost.append(key | {"reason": outcome})
            else:
                labels.append(key | {"longitude": site.longitude, "latitude": site.latitude} | outcome)
    labels = pd.DataFrame(labels, columns=LABEL_COLUMNS)
    for name in study.samples.more_columns:
        if name not in sites:
            raise SampleError(f"The table of sites has no column {name}.", "correct samples.more_columns")
        labels[name] = labels["site_id"].map(sites.set_index("site_id")[name])
    return labels, lost_table(lost)


_NO_PIECES = np.empty((0, 5))


def core_ice(study, intervals):
    """Return pieces of core with their volumetric ice content and its error, however the ice was described.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its section `ice` has the errors of measurement, and the unfrozen water by texture.
    intervals : pandas.DataFrame
        As `helpers.samples.tables.read_tables` returns them.

    Returns
    -------
    pandas.DataFrame
        A copy with `ice_content` filled, in this order of preference: as measured; from water content, with the dry
        density or for saturated ground without it; the middle of a directly given ice type; 0 where unfrozen. New
        is `ice_content_sd`, m3 m-3: by first-order propagation, and for a given type of an even spread over its range.
    """
    settings, filled = study.ice, intervals.copy()
    optional = ["ice_content", "water_content", "dry_density", "ice_type", "texture"]
    intervals = intervals.reindex(columns=["frozen", *optional])
    content = intervals["ice_content"].to_numpy(float)
    error = np.where(np.isnan(content), np.nan, settings.ice_content_error)
    texture = intervals["texture"].where(intervals["texture"].isin(list(settings.unfrozen_water)), "unknown")
    water = intervals["water_content"].to_numpy(float)
    unfrozen = np.minimum(texture.map(settings.unfrozen_water).to_numpy(float), water)
    solids = np.where(texture == "peat", settings.organic_density, ice.SOLID_DENSITY)
    measured = {"water_content": water, "unfrozen_water_content": unfrozen}
    measured |= {"dry_density": intervals["dry_density"].to_numpy(float), "solid_density": solids}
    errors = (settings.water_content_error, settings.unfrozen_water_error, settings.dry_density_error)
    ways = [ice.content_with_error(**measured, errors=errors), content_of_type(study, intervals["ice_type"])]
    for other, sd in ways:
        use = np.isnan(content) & ~np.isnan(other)
        content, error = np.where(use, other, content), np.where(use, sd, error)
    thawed = (intervals["frozen"] == "no") & (np.isnan(content) | intervals["ice_content"].isna())
    filled["ice_content"] = np.where(thawed, 0.0, content)
    filled["ice_content_sd"] = np.where(thawed, 0.0, error)
    return filled


def content_of_type(study, types):
    """Return the middle of each ice type's range of contents, and the standard deviation of an even spread over it."""
    limits = np.array([0, *study.ice.thresholds, study.ice.richest])
    code = types.to_numpy(float)
    known = (code >= 1) & (code <= 5)
    place = np.where(known, code, 1).astype(int)
    low, high = limits[place - 1], limits[place]
    nothing = np.where(code == 0, 0.0, np.nan)
    return np.where(known, (low + high) / 2, nothing), np.where(known, (high - low) / np.sqrt(12), nothing)


def _pieces_by_site(intervals):
    """Return top, bottom, ice content, its error, and whether unfrozen (1 or 0) of each site's pieces of core."""
    columns = [intervals[name] for name in ("top_m", "bottom_m", "ice_content", "ice_content_sd")]
    table = np.column_stack([*columns, intervals["frozen"] == "no"])
    return {site: table[rows] for site, rows in intervals.groupby("site_id").indices.items()}


def _label(site, layer, pieces, settings):
    """Return a label's columns, or why there is none."""
    top, bottom = layer
    passed = float(np.clip((site.depth_reached_m - top) / (bottom - top), 0, 1))
    # Whatever the hole met: were less asked of those that met permafrost, samples would have too much of it.
    if passed < max(settings.minimum_sampled_share - _SLACK, _SLACK):
        return NOT_REACHED
    if site.permafrost == "no":
        return _class_zero("talik", passed)
    reached = min(bottom, site.depth_reached_m)
    if site.permafrost != "yes":
        unfrozen, share = layer_mean(pieces[:, [0, 1, 4]], top, reached)
        enough = unfrozen == 1 and share >= settings.minimum_sampled_share - _SLACK
        return _class_zero("talik", passed) if enough else UNKNOWN_STATE
    if np.isnan(site.permafrost_table_m):
        return UNKNOWN_TABLE
    upper, lower, share = permafrost_part(top, bottom, site.permafrost_table_m, site.permafrost_base_m)
    if share == 0:
        return _class_zero("above table" if site.permafrost_table_m >= bottom else "below base", passed)
    if reached <= upper:
        return NOT_REACHED
    _, cored = layer_mean(pieces[:, :3], upper, min(lower, reached))
    content, sampled = layer_mean(pieces[:, :3], upper, lower)
    if sampled == 0 or cored < settings.minimum_sampled_share - _SLACK:
        return TOO_LITTLE
    # One hole is one hand and one balance: its errors are taken to go together, so they do not average out.
    error, _ = layer_mean(pieces[:, [0, 1, 3]], upper, lower)
    return {"ice_type": ice_type(content, settings.thresholds), "ice_content": content, "ice_content_sd": error,
            "permafrost_share": share, "ice_fraction": content * share, "sampled_share": sampled,
            "reason": ""}  # fmt: skip


def _class_zero(reason, passed):
    return {"ice_type": 0, "ice_content": np.nan, "ice_content_sd": np.nan, "permafrost_share": 0.0,
            "ice_fraction": 0.0, "sampled_share": passed, "reason": reason}  # fmt: skip


def lost_table(rows):
    """Return a table of lost pairs of site and layer, with the reason."""
    return pd.DataFrame(rows, columns=["site_id", "layer", "reason"])
