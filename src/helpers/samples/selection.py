"""Which samples stay: those with all predictors, one of each place, no outliers or rare classes."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from helpers.core.classes import layer_name
from helpers.core.grid import reference_grid
from helpers.core.study import Study
from helpers.prepare.domain import domain_covariates
from helpers.prepare.registry import numeric, predictor_names
from helpers.samples.columns import SampleError
from helpers.samples.labels import lost_table

SAME_PLACE = 10.0
"""Two sites nearer than this, in metres, are taken for one borehole that was entered twice."""

DUPLICATE = "another site in the same place"
MERGED = "merged: another site in the same cell"

_MAD_TO_SD = (
    1.4826  # standard deviation of a normal distribution over its median absolute deviation
)


def drop_unusable(study: Study, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop sites without a value of each predictor, entered twice, or with outlying values.

    `table` is as from `extract_covariates`. Returns the rows that stay, and site_id, layer and
    reason, which names the covariate, of the others.

    Notes
    -----
    A value is outlying where `|x - median| / (1.4826 MAD)` over all sites exceeds
    `samples.outlier_limit`; a covariate whose median absolute deviation (MAD) is zero is not
    evaluated. Of sites within `SAME_PLACE` of one another the one with the most labels stays.
    """
    predictors = predictor_names(study)
    sites = table.drop_duplicates("site_id").set_index("site_id")
    reasons = pd.Series("", index=sites.index)
    for name in dict.fromkeys([*predictors, *domain_covariates(study)]):
        reasons[(reasons == "") & sites[name].isna()] = f"no data: {name}"
    labels = table["site_id"].value_counts().reindex(sites.index)
    left = reasons == ""
    reasons[left] = np.where(_repeated(sites[left], labels[left]), DUPLICATE, "")
    valid = sites[reasons == ""]
    for name in (name for name in predictors if numeric(study, name)):
        far = valid.index[_robust_z(valid[name]) > study.samples.outlier_limit]
        reasons[far] = reasons[far].mask(reasons[far] == "", f"outlier: {name}")
    reason = table["site_id"].map(reasons)
    lost = table[["site_id", "layer"]].assign(reason=reason)[reason != ""]
    return table[reason == ""].reset_index(drop=True), lost.reset_index(drop=True)


def _repeated(sites: pd.DataFrame, labels: pd.Series) -> np.ndarray:
    """Return which sites have another one in their place with more labels, or that comes first."""
    places = sites[["easting", "northing"]]
    near = cKDTree(places).query_ball_point(places, SAME_PLACE)
    kept = np.zeros(len(sites), bool)
    for site in np.argsort(-labels.to_numpy(), kind="stable"):
        kept[site] = not kept[near[site]].any()
    return ~kept


def _robust_z(values: pd.Series) -> pd.Series:
    distance = (values - values.median()).abs()
    spread = _MAD_TO_SD * distance.median()
    return distance / spread if spread > 0 else distance * 0.0


def group_cells(study: Study, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Group the samples that share a cell, whose covariates are the same, or merge them.

    With `samples.same_cell` ``together``, sites in one cell form a group, which no fold and no
    split parts. With ``merge`` they become one sample a layer: the most frequent type, of equally
    frequent ones the icier, and the mean of contents and shares. Training areas have their `group`
    already. Returns the table with the column `group`, the name of a site in it, and site_id, layer
    and reason of the samples that went into another one.
    """
    grid = reference_grid(study)
    column, row = ~grid.transform * (table["easting"], table["northing"])
    column, row = np.floor(column).astype(int), np.floor(row).astype(int)
    area = table["group"] if "group" in table else pd.Series(None, table.index, dtype=object)
    first = table.groupby([row, column])["site_id"].transform("min")
    # A polygon's group is larger than a cell, so that a site in it joins the polygon.
    group = area.groupby([row, column]).transform("first").fillna(first).astype(str)
    table = table.assign(group=group)
    if study.samples.same_cell == "together":
        return table, lost_table([])
    place = table.groupby([group.where(area.notna(), first), row, column, "layer"]).ngroup()
    means = ["ice_content", "permafrost_share", "ice_fraction", "sampled_share"]
    votes = table.groupby([place, "ice_type"])["site_id"].transform("size")
    ranked = table.assign(place=place, votes=-votes, icier=-table["ice_type"])
    ranked[means] = table.groupby(place)[means].transform("mean")
    ranked = ranked.sort_values(["votes", "icier", "site_id"], kind="stable")
    kept = ranked.drop_duplicates("place").sort_index()[table.columns]
    # Without permafrost there is no ice content, whatever a neighbour has.
    none = kept["ice_type"].isin(study.target_classes.free)
    kept.loc[none, "ice_content"] = np.nan
    kept.loc[none, ["permafrost_share", "ice_fraction"]] = 0.0
    merged = table.drop(index=kept.index)[["site_id", "layer"]].assign(reason=MERGED)
    return kept.reset_index(drop=True), merged.reset_index(drop=True)


def settle_rare_classes(
    study: Study, table: pd.DataFrame
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Merge, keep or refuse classes with fewer units in a layer than can be learnt and tested.

    A unit is a site, a point or a polygon, or several that share a cell.

    The classes are those of the study's `target`. By `samples.minimum_class_sites` and
    `samples.rare_classes`: ``stop`` (SampleError, also where there is nothing to merge with),
    ``merge`` an ice type with the neighbouring one that has fewer sites, or ``keep``. Returns the
    table, and `layer`, `from` and `into` (ice types) and `sites` that changed of each merger.
    """
    least, how = study.samples.minimum_class_sites, study.samples.rare_classes
    if how == "keep":
        return table, []
    table, merged, target = table.copy(), [], study.target_classes
    reduced = target.of_type != target.codes
    for layer in map(layer_name, study.layers):
        rows = table["layer"] == layer
        while True:
            kinds = np.asarray(target.of_type)[table.loc[rows, "ice_type"]]
            sites = table.loc[rows, "group"].groupby(kinds).nunique()
            rare = sites[sites < least].sort_values(kind="stable")
            if rare.empty:
                break
            kind, number = int(rare.index[0]), int(rare.iloc[0])
            others = [code for code in sites.index if code not in (*target.free, kind)]
            # Fewer classes than samples have types are another target, and are not merged.
            if how == "stop" or kind in target.free or not others or not target.ordered or reduced:
                name = target.classes[kind].name
                also = f"; so do {len(rare) - 1} other classes" if len(rare) > 1 else ""
                few = f"{name} has {number} units in {layer}, fewer than {least}{also}"
                remedy = "add sites, or set samples.rare_classes to keep, or a smaller "
                remedy += "samples.minimum_class_sites"
                if how == "stop" and kind not in target.free:
                    remedy = "add sites, or set samples.rare_classes to merge or to keep"
                raise SampleError(f"Too few samples: {few}.", remedy)
            into = int(min(others, key=lambda code: (abs(code - kind), sites[code])))
            table.loc[rows & (table["ice_type"] == kind), "ice_type"] = into
            merged.append({"layer": layer, "from": kind, "into": into, "sites": number})
    return table, merged


def counts_by_reason(*lost: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return for each reason of lost rows the number of `sites` and of `labels`.

    Labels are pairs of site and layer. The most frequent reason comes first.
    """
    groups = pd.concat(lost, ignore_index=True).groupby("reason")["site_id"]
    counts = groups.agg(sites="nunique", labels="size")
    counts = counts.sort_values("labels", ascending=False, kind="stable")
    return counts.to_dict("index")
