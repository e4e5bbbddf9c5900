"""What a lab sheet leaves out and its other columns tell: ends of samples, depths, frozen or not.

Nothing that was typed is changed. What was derived is told, once a column.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers.core.study import Study
from helpers.samples.readers import Problem, RawTable


def derive(study: Study, sites: RawTable, intervals: RawTable) -> Iterator[Problem]:
    """Fill in what follows from other columns.

    - `depth_reached_m`, if no hole has one: the deepest sample; the hole went at least that deep.
    - `top_m` and `bottom_m` of samples of a single depth `depth_m`: half-way to the next ones, and
      not further than `ice.spot_reach`.
    - `frozen`, if no sample has it: whether the sample lies between permafrost table and base, or
      has ice.
    - `permafrost_table_m`: half-way between the deepest unfrozen sample and the frozen ones below.
    """
    frame = intervals.frame
    deepest = frame[["bottom_m", "depth_m"]].max(axis=1).groupby(frame["site_id"]).max()
    if _empty(sites, "depth_reached_m"):
        reached = sites.frame["site_id"].map(deepest)
        yield from _fill(sites, "depth_reached_m", reached, "from the deepest sample of each hole")
    if _empty(intervals, "top_m") and _empty(intervals, "bottom_m"):
        top, bottom = _ends(study, sites, intervals)
        how = "from half the distance to the next samples"
        yield from _fill(intervals, "top_m", top, how)
        yield from _fill(intervals, "bottom_m", bottom, how)
    if not _empty(intervals, "frozen"):
        tables = sites.frame["site_id"].map(_tables(sites, intervals))
        below = tables > sites.frame["depth_reached_m"].astype(float)
        tables = tables.where((sites.frame["permafrost"] == "yes") & ~below)
        yield from _fill(sites, "permafrost_table_m", tables, "from unfrozen and frozen samples")
    else:
        states = _states(sites, intervals)
        yield from _fill(intervals, "frozen", states, "from permafrost, its table and its base")


def _empty(table: RawTable, name: str) -> bool:
    return bool((table.text[name] == "").all())


def _by_site(sites: RawTable) -> pd.DataFrame:
    return sites.frame.drop_duplicates("site_id").set_index("site_id")


def _fill(table: RawTable, name: str, values: pd.Series, how: str) -> Iterator[Problem]:
    """Put values where a column has none, as if they had been typed."""
    use = (table.text[name] == "") & values.notna()
    absent = name not in table.header
    if not use.any() or (absent and table.unused_like(name, 0.75)):
        return
    if absent and name == "frozen" and values.isna().any():
        return  # one word on the missing column, and not one on each sample
    if absent:
        table.header.append(name)
    table.frame.loc[use, name] = values[use]
    table.text.loc[use, name] = values[use].map(str)
    yield table.problem(name, "derived value", f"{use.sum()} values {how}")


def _ends(study: Study, sites: RawTable, intervals: RawTable) -> tuple[pd.Series, pd.Series]:
    """Return top and bottom of samples of a single depth, m."""
    depth, site = intervals.frame["depth_m"], intervals.frame["site_id"]
    ordered = pd.DataFrame({"site": site, "depth": depth}).dropna().drop_duplicates()
    ordered = ordered.sort_values(["site", "depth"], kind="stable")
    steps = ordered.groupby("site")["depth"]
    above, below = steps.diff() / 2, -steps.diff(-1) / 2
    reach = study.ice.spot_reach
    above, below = (
        half.fillna(other).fillna(reach).clip(upper=reach)
        for half, other in ((above, below), (below, above))
    )
    ends = ordered.assign(top=ordered["depth"] - above, bottom=ordered["depth"] + below)
    ends = ends.set_index(["site", "depth"])
    found = ends.reindex(pd.MultiIndex.from_arrays([site, depth])).set_index(depth.index)
    bottom_of_hole = _by_site(sites)["depth_reached_m"]
    # No sample stands for ground that the hole did not reach, unless it lies there itself.
    most = np.fmax(site.map(bottom_of_hole).astype(float), depth)
    return found["top"].clip(lower=0), found["bottom"].clip(upper=most)


def _tables(sites: RawTable, intervals: RawTable) -> dict[str, float]:
    """Return the depth of the permafrost table by site, m, where samples show it."""
    bases = _by_site(sites)["permafrost_base_m"]
    frame, tables = intervals.frame.sort_values("top_m", kind="stable"), {}
    for site, rows in frame.groupby("site_id"):
        base = bases.get(site, np.nan)
        upper = rows[~(rows["top_m"] >= base)]
        unfrozen, frozen = (upper[upper["frozen"] == word] for word in ("no", "yes"))
        below = frozen[frozen["top_m"] >= unfrozen["bottom_m"].max()]
        if len(below):
            tables[site] = (unfrozen["bottom_m"].max() + below["top_m"].min()) / 2
    return tables


def _states(sites: RawTable, intervals: RawTable) -> pd.Series:
    """Return yes or no, whether each sample is frozen ground; missing where nothing tells."""
    known = _by_site(sites)
    site = intervals.frame["site_id"]
    permafrost = site.map(known["permafrost"])
    table, base = (
        site.map(known[name]).astype(float) for name in ("permafrost_table_m", "permafrost_base_m")
    )
    middle = (intervals.frame["top_m"] + intervals.frame["bottom_m"]) / 2
    inside = (middle >= table) & ~(middle > base)
    # Ice above the table is seasonal frost: frozen, too, but no part of any label.
    icy = (intervals.frame["ice_content"] > 0) | (intervals.frame["ice_type"] > 0)
    told = (permafrost == "no") | ((permafrost == "yes") & table.notna() & middle.notna())
    return (inside | icy).map({True: "yes", False: "no"}).where(told | icy)
