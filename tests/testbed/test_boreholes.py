"""The boreholes of the virtual study: tables as people would hand them in."""

import numpy as np

from helpers.core.study import Study
from helpers.samples.tables import read_tables

STUDY = Study.open("config/quick.yaml")


def test_the_quick_tables_are_what_people_would_hand_in(quick):
    folder = quick / "results/quick/main/samples"
    named = {name: str(folder / f"{name}.csv") for name in ("sites", "intervals")}
    sites, intervals, problems = read_tables(Study(name="t", samples=named))
    assert set(problems["kind"]) == {"decimal comma", "unreadable date"}
    assert set(problems["severity"]) == {"warn"}
    assert len(sites) >= STUDY.campaign.boreholes.sites
    assert set(sites["method"]) == {"borehole", "pit"}
    assert set(intervals["site_id"]) == set(sites["site_id"])
    assert (intervals["bottom_m"] > intervals["top_m"]).all()
    frozen = intervals["frozen"] == "yes"
    assert intervals.loc[frozen, "ice_content"].between(0, 1).all()
    assert intervals.loc[~frozen, "ice_content"].isna().all()
    deepest = intervals.groupby("site_id")["bottom_m"].max()
    reached = sites.set_index("site_id")["depth_reached_m"]
    np.testing.assert_allclose(deepest, reached[deepest.index])
