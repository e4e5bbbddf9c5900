"""Which samples stay: those with all predictors, one of each place, no outliers, classes that are not too rare."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from helpers.core import classes
from helpers.core.classes import layer_name
from helpers.prepare.registry import check_predictor, predictor_names
from helpers.samples.columns import SampleError
from helpers.samples.labels import lost_table

SAME_PLACE = 10.0
"""Two sites nearer to each other than this, in metres, are taken for one hole that was entered twice."""


DUPLICATE = "another site in the same place"


MERGED = "merged: another site in the same cell"


_MAD_TO_SD = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


def drop_unusable(study, table):
    """Drop sites without a value of each predictor, sites entered twice, and sites with outlying values.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        As `extract_covariates` returns it.

    Returns
    -------
    kept : pandas.DataFrame
    lost : pandas.DataFrame
        site_id, layer and reason, which names the covariate.

    Notes
    -----
    A value is outlying where |x - median| / (1.4826 MAD) over all sites exceeds `samples.outlier_limit`; a
    covariate whose median absolute deviation (MAD) is zero is not judged. Of sites within `SAME_PLACE` of one
    another the one with the most labels stays.
    """
    predictors = predictor_names(study)
    check_predictor(study, study.domain.covariate, "domain.covariate")
    sites = table.drop_duplicates("site_id").set_index("site_id")
    reasons = pd.Series("", index=sites.index)
    for name in dict.fromkeys([*predictors, study.domain.covariate]):
        reasons[(reasons == "") & sites[name].isna()] = f"no data: {name}"
    labels = table["site_id"].value_counts().reindex(sites.index)
    left = reasons == ""
    reasons[left] = np.where(_repeated(sites[left], labels[left]), DUPLICATE, "")
    valid = sites[reasons == ""]
    for name in predictors:
        far = valid.index[_robust_z(valid[name]) > study.samples.outlier_limit]
        reasons[far] = reasons[far].mask(reasons[far] == "", f"outlier: {name}")
    reason = table["site_id"].map(reasons)
    lost = table[["site_id", "layer"]].assign(reason=reason)[reason != ""]
    return table[reason == ""].reset_index(drop=True), lost.reset_index(drop=True)


def _robust_z(values):
    distance = (values - values.median()).abs()
    spread = _MAD_TO_SD * distance.median()
    return distance / spread if spread > 0 else distance * 0.0


def group_cells(study, table):
    """Group the samples that share a cell, whose covariates are the same, or merge them.

    Parameters
    ----------
    study : helpers.core.study.Study
        With `samples.same_cell` ``together``, sites in one cell form a group, which no fold and no split parts; with
        ``merge`` they become one sample a layer: the most frequent type, of equally frequent ones the icier, and the
        mean of contents and shares.
    table : pandas.DataFrame
        With `easting` and `northing`; training areas have their `group` already.

    Returns
    -------
    table : pandas.DataFrame
        With the column `group`, the name of a site in it.
    merged : pandas.DataFrame
        site_id, layer and reason of the samples that went into another one.
    """
    column = (table["easting"] // study.grid.resolution).astype(int)
    row = (table["northing"] // study.grid.resolution).astype(int)
    given = table["group"] if "group" in table else pd.Series(None, index=table.index, dtype=object)
    first = table.groupby([row, column])["site_id"].transform("min")
    # A polygon's group is larger than a cell, so that a site in it joins the polygon.
    table = table.assign(group=given.groupby([row, column]).transform("first").fillna(first).astype(str))
    if study.samples.same_cell == "together":
        return table, lost_table([])
    keys = [table["group"].where(given.notna(), first), row, column, table["layer"]]
    numbers = ["ice_content", "ice_content_sd", "permafrost_share", "ice_fraction", "sampled_share"]
    votes = table.assign(votes=table.groupby([*keys, table["ice_type"]])["site_id"].transform("size"))
    votes = votes.assign(**{name: table.groupby(keys)[name].transform("mean") for name in numbers})
    best = votes.sort_values(["votes", "ice_type", "site_id"], ascending=[False, False, True], kind="stable")
    kept = best.groupby([key.reindex(best.index) for key in keys], sort=False).head(1).sort_index()
    # Without permafrost there is no ice content, whatever a neighbour has.
    none = kept["ice_type"] == 0
    content, error = kept["ice_content"].mask(none), kept["ice_content_sd"].mask(none)
    share, fraction = (kept[name].mask(none, 0.0) for name in ("permafrost_share", "ice_fraction"))
    merged = table.drop(index=kept.index)[["site_id", "layer"]].assign(reason=MERGED)
    kept = kept.assign(ice_content=content, ice_content_sd=error, permafrost_share=share, ice_fraction=fraction)
    kept = kept.drop(columns="votes")
    return kept.reset_index(drop=True), merged.reset_index(drop=True)


def settle_rare_classes(study, table):
    """Merge, keep or refuse classes that have fewer sites in a layer than can be learnt from and tested.

    Parameters
    ----------
    study : helpers.core.study.Study
        The classes are those of its `target`. By `samples.minimum_class_sites` and `samples.rare_classes`: ``stop``,
        ``merge`` an ice type with the neighbouring one that has fewer sites, or ``keep``.
    table : pandas.DataFrame
        With `layer`, `ice_type` and `site_id`.

    Returns
    -------
    table : pandas.DataFrame
    merged : list of dict
        `layer`, `from` and `into` (ice types), `sites` that changed.

    Raises
    ------
    SampleError
        The setting is ``stop`` and a type is too rare; or there is nothing that it could be merged with.
    """
    least, how = study.samples.minimum_class_sites, study.samples.rare_classes
    if how == "keep":
        return table, []
    table, merged, target = table.copy(), [], classes.TARGETS[study.target]
    for layer in map(layer_name, study.layers):
        rows = table["layer"] == layer
        while True:
            kinds = np.asarray(target.of_type)[table.loc[rows, "ice_type"]]
            sites = table.loc[rows, "site_id"].groupby(kinds).nunique()
            rare = sites[sites < least].sort_values(kind="stable")
            if rare.empty:
                break
            kind = int(rare.index[0])
            others = [code for code in sites.index if code not in (0, kind)]
            # Only ice types have neighbours that they may join; fewer classes are a target of their own.
            if how == "stop" or kind == 0 or not others or target.classes != classes.ICE_TYPES:
                told = f"{target.classes[kind].name} has {rare.iloc[0]} sites in {layer}, fewer than {least}"
                also = f"; so do {len(rare) - 1} other classes" if len(rare) > 1 else ""
                raise SampleError(
                    f"Too few samples: {told}{also}.",
                    "add sites, or set samples.rare_classes to merge or keep, or samples.minimum_class_sites lower",
                )
            into = min(others, key=lambda code: (abs(code - kind), sites[code]))
            table.loc[rows & (table["ice_type"] == kind), "ice_type"] = into
            merged.append({"layer": layer, "from": kind, "into": int(into), "sites": int(rare.iloc[0])})
    return table, merged


def _repeated(sites, labels):
    """Return which sites have another one in the same place that has more labels or comes first."""
    near = cKDTree(sites[["easting", "northing"]]).query_ball_point(sites[["easting", "northing"]], SAME_PLACE)
    kept = np.zeros(len(sites), bool)
    for site in np.argsort(-labels.to_numpy(), kind="stable"):
        kept[site] = not kept[near[site]].any()
    return ~kept


def counts_by_reason(*lost):
    """Count losses.

    Parameters
    ----------
    *lost : pandas.DataFrame
        Tables with site_id, layer and reason.

    Returns
    -------
    dict of str to dict
        For each reason the number of `sites` and of `labels`, which are pairs of site and layer; the most
        frequent first.
    """
    groups = pd.concat(lost, ignore_index=True).groupby("reason")["site_id"]
    counts = groups.agg(sites="nunique", labels="size").sort_values("labels", ascending=False, kind="stable")
    return {reason: {"sites": int(sites), "labels": int(labels)} for reason, sites, labels in counts.itertuples()}
