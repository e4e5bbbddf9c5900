"""Lab sheets: one depth a sample, and what is left out because other columns tell it."""

import numpy as np
import pandas as pd
import pytest
from conftest import SOURCE

from helpers.core.study import Study
from helpers.samples.columns import SampleError
from helpers.samples.labels import NOT_REACHED, TOO_LITTLE, label_layers
from helpers.samples.tables import read_tables

FROZEN_HOLES, STEP, DEEPEST = 33, 0.3, 6.0


@pytest.fixture
def study(tmp_path):
    """A function that writes both tables as text and returns a study that names them."""

    def write(sites, intervals, **more):
        for name, text in (("sites", sites), ("intervals", intervals)):
            (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        named = {n: str(tmp_path / f"{n}.csv") for n in ("sites", "intervals")}
        return Study(name="t", source=SOURCE, samples=named, layers=[(2, 3), (3, 5)], **more)

    return write


def campaign(header="Depth"):
    """Return the sheets of 33 holes with permafrost below 1.5 m and one without, and their water.

    A sample every 30 cm; 305-643 % of water in frozen silt, two pieces of ice with 3436 %.
    """
    rng = np.random.default_rng(1)
    sites = ["Point,Longitude,Latitude,Permafrost,permafrost_table_m,permafrost_base_m"]
    rows = [f"Point,{header},GMC,Texture"]
    for hole in range(FROZEN_HOLES + 1):
        frozen = hole < FROZEN_HOLES
        place = f"P{hole},{122 + hole / 50:.2f},52.0"
        sites.append(f"{place},{'yes,1.5,' if frozen else 'no,,'}")
        for depth in np.arange(STEP, DEEPEST + STEP / 2, STEP):
            icy = frozen and depth > 1.5
            water = rng.uniform(305, 643) if icy else rng.uniform(8, 30)
            water = 3436 if icy and hole in (3, 4) and abs(depth - 3) < 0.1 else water
            rows.append(f"P{hole},{depth:.1f},{water:.0f},silt")
    return "\n".join(sites), "\n".join(rows)


def test_a_lab_sheet_is_read_as_it_is(study):
    sites, intervals, problems = read_tables(study(*campaign("Depth (m)")))
    assert set(problems["kind"]) == {
        "derived value", "content in percent", "no dry density", "no temperature",
    }  # fmt: skip
    told = problems.set_index("kind").loc["no dry density"]
    assert told["value"] == "528 of 528 frozen samples"
    derived = problems.query("kind == 'derived value'").set_index("column")["value"]
    assert set(derived.index) == {"depth_reached_m", "top_m", "bottom_m", "frozen"}
    assert derived["depth_reached_m"] == "34 values from the deepest sample of each hole"
    assert (sites["depth_reached_m"] == DEEPEST).all()
    one = intervals[intervals["site_id"] == "P0"]
    np.testing.assert_allclose(one["top_m"].iloc[1:], one["bottom_m"].iloc[:-1])
    np.testing.assert_allclose(one["top_m"].iloc[0], STEP / 2)
    assert one["bottom_m"].iloc[-1] == DEEPEST  # the hole went no deeper
    assert intervals["water_content"].max() == 34.36
    frozen = intervals["frozen"] == "yes"
    assert (frozen == ((intervals["site_id"] != "P33") & (intervals["depth_m"] >= 1.5))).all()


def test_spot_samples_do_not_select_against_permafrost(study):
    """All holes with permafrost were lost, while the one without gave class 0."""
    opened = study(*campaign())
    labels, lost = label_layers(opened, *read_tables(opened)[:2])
    assert lost.empty
    classes = labels.groupby("site_id")["ice_type"].max()
    assert (classes.drop("P33") == 5).all()
    assert classes["P33"] == 0


def test_short_pieces_with_gaps_label_too(study):
    """Pieces of 10 cm every 30 cm cover a third of the permafrost."""
    sites, rows = campaign()
    cut = [row.split(",", 2) for row in rows.splitlines()[1:]]
    pieces = [f"{hole},{float(d) - 0.1:.1f},{float(d):.1f},{rest}" for hole, d, rest in cut]
    text = "\n".join(["Point,top_m,bottom_m,GMC,Texture", *pieces])
    opened = study(sites, text)
    labels, lost = label_layers(opened, *read_tables(opened)[:2])
    assert lost.empty
    icy = labels[labels["ice_type"] > 0]
    assert icy["sampled_share"].between(0.2, 0.5).all()
    strict = study(sites, text, ice={"minimum_sampled_share": 0.5})
    labels, lost = label_layers(strict, *read_tables(strict)[:2])
    assert set(lost["reason"]) == {TOO_LITTLE}
    deep = study(sites, text, ice={"minimum_passed_share": 1.0}).changed({"layers": [[5, 8]]})
    labels, lost = label_layers(deep, *read_tables(deep)[:2])
    assert set(lost["reason"]) == {NOT_REACHED}
    assert labels.empty


def test_a_single_sample_stands_for_its_reach_alone(study):
    sites = "site_id,longitude,latitude,depth_reached_m,permafrost,permafrost_table_m,"
    sites += "permafrost_base_m\nA,122.5,52.5,9,yes,1,\nB,122.6,52.5,9,yes,1,\n"
    rows = "site_id,depth_m,frozen,ice_content\nA,2.5,yes,0.4\nB,0.1,no,\nB,2.5,yes,0.4\n"
    _, intervals, _ = read_tables(study(sites, rows))
    assert intervals["top_m"].tolist() == [2.25, 0.0, 2.25]
    assert intervals["bottom_m"].tolist() == [2.75, 0.35, 2.75]
    wide = study(sites, rows, ice={"spot_reach": 5})
    assert read_tables(wide)[1]["bottom_m"].tolist() == [7.5, 1.3, 3.7]


def test_two_samples_of_one_depth_are_an_error(study):
    sites, rows = campaign()
    where = r"column depth_m \('Depth'\), row 682: .*overlaps another one .* \('0.3'\)"
    with pytest.raises(SampleError, match=where):
        read_tables(study(sites, rows + "\nP0,0.3,12,silt"))


@pytest.mark.parametrize(
    ("states", "table"),
    [
        (["no", "no", "yes", "yes"], 1.75),
        (["yes", "no", "yes", "yes"], 1.75),  # seasonal frost above
        (["no", "yes", "no", "yes"], 2.75),  # the deepest unfrozen sample counts
        (["yes", "yes", "yes", "yes"], np.nan),  # seasonal frost may reach the permafrost
        (["no", "no", "no", "no"], np.nan),
    ],
)
def test_the_permafrost_table_lies_between_unfrozen_and_frozen_samples(study, states, table):
    sites = "site_id,longitude,latitude,permafrost,permafrost_table_m,permafrost_base_m\n"
    sites += "A,122.5,52.5,yes,,\n"
    rows = "site_id,top_m,bottom_m,frozen,ice_type\n"
    for top, state in enumerate(states):
        rows += f"A,{top},{top + 0.5},{state},{3 if state == 'yes' else ''}\n"
    found, _, problems = read_tables(study(sites, rows))
    assert found["permafrost_table_m"].item() == pytest.approx(table, nan_ok=True)
    kinds = set(problems["kind"])
    assert kinds == {"derived value"} | ({"no permafrost table"} if np.isnan(table) else set())


def test_nothing_typed_is_changed_and_what_cannot_be_told_is_asked_for(study):
    sites = "site_id,longitude,latitude,depth_reached_m,permafrost,permafrost_table_m,"
    sites += "permafrost_base_m\nA,122.5,52.5,9,yes,1,\nB,122.6,52.5,8,unknown,,\n"
    rows = "site_id,depth_m,ice_content\nA,2,0.4\nB,2,0.2\nB,1,\n"
    with pytest.raises(SampleError) as caught:  # whether B's piece without ice is frozen
        read_tables(study(sites, rows))
    missing = caught.value.problems
    assert missing["kind"].tolist() == ["missing column"]
    assert missing["column"].tolist() == ["frozen"]
    found, intervals, _ = read_tables(study(sites, rows.replace("B,1,\n", "")))
    assert found["depth_reached_m"].tolist() == [9, 8]
    assert intervals["frozen"].tolist() == ["yes", "yes"]


def test_a_misspelt_column_is_not_derived(study):
    sites, rows = campaign()
    text = sites.replace("Permafrost,", "depth_reachd_m,Permafrost,")
    text = text.replace(",52.0,", ",52.0,6,")
    with pytest.raises(SampleError, match="column is missing") as caught:
        read_tables(study(text, rows))
    assert "rename the column depth_reachd_m" in caught.value.remedy


def test_depths_without_any_hole_depth_need_a_unit(study):
    sites, rows = campaign()
    table = pd.DataFrame([row.split(",") for row in rows.splitlines()[1:]])
    table[1] = (table[1].astype(float) * 100).map("{:.0f}".format)
    text = table.to_csv(index=False, header=False, lineterminator="\n")
    with pytest.raises(SampleError, match="may be in metres or in centimetres"):
        read_tables(study(sites, "Point,Depth,GMC,Texture\n" + text))
    for header in ("Point,Depth (cm),GMC,Texture", "Point,Depth_cm,GMC_pct,Texture"):
        found, intervals, _ = read_tables(study(sites, f"{header}\n{text}"))
        assert intervals["depth_m"].max() == DEEPEST
        assert (found["depth_reached_m"] == DEEPEST).all()


def test_few_wet_values_are_one_question_about_the_column(study):
    sites, rows = campaign()
    head, *lines = rows.splitlines()
    parts = [line.split(",") for line in lines]
    fractions = [[h, d, f"{float(w) / 100:.4f}", t] for h, d, w, t in parts]
    dry = [[h, d, w if i % 40 == 15 else f"{float(w) % 2.5:.2f}", t]
           for i, (h, d, w, t) in enumerate(fractions)]  # fmt: skip
    text = "\n".join([head, *map(",".join, dry)])
    with pytest.raises(SampleError, match="may be fractions or percent") as caught:
        read_tables(study(sites, text))
    assert len(caught.value.problems) == 1
    named = text.replace("GMC", "GMC (g/g)")
    assert read_tables(study(sites, named))[1]["water_content"].max() > 3
    percent = rows.replace("GMC", "GMC (g/g)")  # the header contradicts the values
    with pytest.raises(SampleError, match="may be fractions or percent"):
        read_tables(study(sites, percent))
