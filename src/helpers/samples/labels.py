"""Labels: the ice type of each depth layer at each borehole or test pit.

Depths are metres below the surface.
"""

from typing import Any

import numpy as np
import pandas as pd

from helpers.core import ice
from helpers.core.classes import layer_name
from helpers.core.settings import Ice
from helpers.core.study import Study
from helpers.samples.columns import SampleError
from helpers.samples.store import LABEL_COLUMNS

NOT_REACHED = "the hole does not reach far enough into the layer"
TOO_LITTLE = "too little of the layer's permafrost was sampled"
UNKNOWN_STATE = "not known whether there is permafrost in the layer"
UNKNOWN_TABLE = "depth of the permafrost table unknown"

_SLACK = 1e-6  # m; depths nearer than this are equal

_NO_PIECES = np.empty((0, 4))

_CLASS_ZERO = {"ice_type": 0, "permafrost_share": 0.0, "ice_fraction": 0.0}  # no content


def label_layers(
    study: Study, sites: pd.DataFrame, intervals: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each site of `read_tables` an ice type in each depth layer where it allows one.

    Returns
    -------
    labels
        One row a site and layer: site_id, layer, longitude, latitude, ice_type (0-5), ice_content
        (m3 m-3 of the permafrost part, NaN for class 0), permafrost_share (of the layer's
        thickness), ice_fraction (their product), sampled_share (of the permafrost part; for
        class 0, how much of the layer the borehole passed), reason (of class 0:
        ``no permafrost``, ``above table`` or ``below base``; empty otherwise).
    lost
        The other pairs of site and layer: site_id, layer, reason.

    Notes
    -----
    A borehole labels a layer if it passed at least `ice.minimum_passed_share` of it, whatever it
    met there, and what it passed stands for the rest. Were more asked of boreholes that met no
    permafrost, the samples would have more permafrost than the ground. Of the permafrost that it
    passed, its samples must cover `ice.minimum_sampled_share`: little, since only permafrost has
    to be sampled, and spot samples would else leave the holes without. Class 0 is an observation,
    never a lack of one: the permafrost table lies below the layer, its base above it, or the
    borehole met no permafrost. A borehole of which it is unknown whether it met permafrost gives
    class 0 only where its cores show unfrozen ground throughout, for frozen ground may be seasonal.
    Unfrozen cores within permafrost count as ice content 0.
    """
    pieces = _pieces_by_site(core_ice(study, intervals))
    labels, lost = [], []
    for site in sites.itertuples():
        for layer in study.depths:
            outcome = _label(site, layer, pieces.get(site.site_id, _NO_PIECES), study.ice)
            key = {"site_id": site.site_id, "layer": layer_name(layer)}
            if isinstance(outcome, str):
                lost.append(key | {"reason": outcome})
            else:
                place = {"longitude": site.longitude, "latitude": site.latitude}
                labels.append(key | place | outcome)
    labels = pd.DataFrame(labels, columns=LABEL_COLUMNS)
    for name in study.samples.more_columns:
        if name not in sites:
            message = f"The table of sites has no column {name}."
            raise SampleError(message, "correct samples.more_columns")
        labels[name] = labels["site_id"].map(sites.set_index("site_id")[name])
    return labels, lost_table(lost)


def lost_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return a table of lost pairs of site and layer, with the reason."""
    return pd.DataFrame(rows, columns=["site_id", "layer", "reason"])


def core_ice(study: Study, intervals: pd.DataFrame) -> pd.DataFrame:
    """Return the intervals of `read_tables` with their ice content.

    `ice_content` (m3 m-3) is filled in this order of preference: as measured; from water content,
    with the dry density or for saturated ground without it; the middle of a directly described ice
    type; 0 where unfrozen. Unfrozen water follows from texture and temperature: the core's own
    `temperature_c`, or the study's in the depth layer of its middle, else in the nearest one.
    """
    laws = pd.DataFrame(study.ice.unfrozen_water)  # alpha and beta
    optional = ["ice_content", "water_content", "dry_density", "ice_type", "texture"]
    cores = intervals.reindex(columns=["top_m", "bottom_m", "frozen", "temperature_c", *optional])
    content = cores["ice_content"].to_numpy(float)
    texture = cores["texture"].where(cores["texture"].isin(laws.columns), "unknown")
    water = cores["water_content"].to_numpy(float)
    bound = ice.unfrozen_water(_temperature(study, cores), *laws[texture].to_numpy())
    from_water = ice.content_of_cores(
        water,
        np.minimum(bound, water),
        cores["dry_density"].to_numpy(float),
        np.where(texture == "peat", study.ice.organic_density, ice.SOLID_DENSITY),
    )
    for other in (from_water, content_of_type(study, cores["ice_type"])):
        content = np.where(np.isnan(content), other, content)
    unfrozen = (cores["frozen"] == "no") & (np.isnan(content) | cores["ice_content"].isna())
    return intervals.assign(ice_content=np.where(unfrozen, 0.0, content))


def _temperature(study: Study, cores: pd.DataFrame) -> np.ndarray:
    """Return the temperature of cores, degC: their own, or that of a layer."""
    middle = ((cores["top_m"] + cores["bottom_m"]) / 2).to_numpy(float)
    # The distance to each layer; negative inside.
    away = [np.maximum(top - middle, middle - bottom) for top, bottom in study.depths]
    of_layer = np.broadcast_to(study.ice.layer_temperatures, len(away))
    own = cores["temperature_c"].to_numpy(float)
    return np.where(np.isnan(own), of_layer[np.argmin(away, axis=0)], own)


def content_of_type(study: Study, types: pd.Series) -> np.ndarray:
    """Return the middle of each ice type's range of contents, or what the study's own class has.

    It is 0 for no permafrost and NaN for what is no type.
    """
    if study.classes:
        given = [kind.ice_content for kind in study.classes]
        contents = np.array([np.nan if one is None else one for one in given])
        contents[~study.permafrost_types] = 0.0
        return contents[types.to_numpy(int)]
    limits = np.array([0, *study.ice.thresholds, study.ice.richest])
    code = types.to_numpy(float)
    icy = (code >= 1) & (code <= 5)
    place = np.where(icy, code, 1).astype(int)
    middle = (limits[place - 1] + limits[place]) / 2
    return np.where(icy, middle, np.where(code == 0, 0.0, np.nan))


def _pieces_by_site(intervals: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return top, bottom, content and unfrozen (1 or 0) of each site's cores."""
    names = ["top_m", "bottom_m", "ice_content"]
    table = np.column_stack([*(intervals[name] for name in names), intervals["frozen"] == "no"])
    return {site: table[rows] for site, rows in intervals.groupby("site_id").indices.items()}


def _label(
    site: Any, layer: tuple[float, float], pieces: np.ndarray, settings: Ice
) -> dict[str, Any] | str:
    """Return a label's columns, or why there is none."""
    top, bottom = layer
    least = settings.minimum_sampled_share - _SLACK
    passed = float(np.clip((site.depth_reached_m - top) / (bottom - top), 0, 1))
    # Whatever it met: if less were asked of permafrost, samples would have too much of it.
    if passed < max(settings.minimum_passed_share - _SLACK, _SLACK):
        return NOT_REACHED
    class_zero = _CLASS_ZERO | {"sampled_share": passed}
    if site.permafrost == "no":
        return class_zero | {"reason": "no permafrost"}
    reached = min(bottom, site.depth_reached_m)
    if site.permafrost != "yes":
        unfrozen, share = ice.layer_mean(pieces[:, [0, 1, 3]], top, reached)
        enough = unfrozen == 1 and share >= least
        return class_zero | {"reason": "no permafrost"} if enough else UNKNOWN_STATE
    table = site.permafrost_table_m
    if np.isnan(table):
        return UNKNOWN_TABLE
    upper, lower, share = ice.permafrost_part(top, bottom, table, site.permafrost_base_m)
    if share == 0:
        return class_zero | {"reason": "above table" if table >= bottom else "below base"}
    if reached <= upper:
        return NOT_REACHED
    _, cored = ice.layer_mean(pieces[:, :3], upper, min(lower, reached))
    content, sampled = ice.layer_mean(pieces[:, :3], upper, lower)
    if sampled == 0 or cored < least:
        return TOO_LITTLE
    return {
        "ice_type": ice.ice_type(content, settings.thresholds),
        "ice_content": content,
        "permafrost_share": share,
        "ice_fraction": content * share,
        "sampled_share": sampled,
        "reason": "",
    }
