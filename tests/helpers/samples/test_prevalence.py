"""Known shares of ground with permafrost: the table, its strata, and the shift of log-odds."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit

from helpers.core.grid import reference_grid, study_regions
from helpers.core.study import Study
from helpers.samples import prevalence
from helpers.samples.columns import SampleError
from helpers.samples.prevalence import (
    COLUMNS,
    describe,
    read_prevalence,
    shift_to,
    shifted,
    stratum_of,
)

HEADER = ",".join(COLUMNS)
WHOLE = ",,,,0.4,0.3,0.5,a survey"


@pytest.fixture
def table(study, tmp_path):
    """Return a function that writes a table and returns the study that names it."""

    def write(*lines, header=HEADER, encoding="utf-8"):
        path = tmp_path / "shares.csv"
        path.write_text("\n".join([header, *lines]), encoding=encoding)
        return study.changed({"samples.prevalence": str(path)})

    return write


def first_region(study):
    return study_regions(study, reference_grid(study))[0][0]


def test_a_row_without_layer_counts_in_each(table, study):
    region = first_region(study)
    rows = [f"{region},,500,2-3m,0.2,0.1,0.3,map", f"{region},500,,,0.6,0.5,0.7,", ""]
    rows[1] += "report"
    read = read_prevalence(table(*rows))
    assert tuple(read.columns) == COLUMNS
    assert list(read["layer"]) == ["2-3m", "2-3m", "3-5m", "5-10m"]
    assert list(read["from_m"]) == [-np.inf, 500, 500, 500]
    assert list(read["to_m"]) == [500, np.inf, np.inf, np.inf]
    assert set(read["region"]) == {region}
    assert describe(read) == "permafrost shares from map; report"


def test_a_spreadsheet_s_own_csv_is_read(table):
    lines = (WHOLE.replace("a survey", "冻土图").replace(",", ";"),)
    read = read_prevalence(table(*lines, header=HEADER.replace(",", ";"), encoding="gb18030"))
    assert set(read["source"]) == {"冻土图"}


def test_without_rows_there_is_no_table(table, study):
    assert read_prevalence(table()) is None
    assert read_prevalence(study) is None
    assert describe(None) == "assumes that sites were not chosen for their ice"


def test_the_run_s_own_table_goes_with_the_run_s_own_samples(study, tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    prevalence.run_table(study).parent.mkdir()
    prevalence.run_table(study).write_text(f"{HEADER}\n{WHOLE}\n")
    assert len(read_prevalence(study)) == 3
    named = study.changed({"samples.sites": "a.csv", "samples.intervals": "b.csv"})
    assert read_prevalence(named) is None


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["Nowhere" + WHOLE], ["column region, rows 2", "for Nowhere write "]),
        ([WHOLE, ",,,2-4m,0.4,0.3,0.5,a"], ["column layer, rows 3", "for 2-4m write 2-3m"]),
        ([",,,,40,30,50,a"], ["column low, share, high, rows 2", "0.4 for 40 %"]),
        ([",,,,0.4,0,0.5,a"], ["column low, share, high, rows 2: not between 0 and 1"]),
        ([",,,,0.4,0.5,0.6,a"], ["rows 2: they do not increase"]),
        ([",,,,0.4,,0.6,a"], ["column low, rows 2: no number"]),
        ([",low,,,0.4,0.3,0.6,a"], ["column from_m, rows 2: no number"]),
        ([",900,500,,0.4,0.3,0.6,a"], ["column from_m, to_m, rows 2: the belt is empty"]),
        ([",,,,0.4,0.3,0.6,"], ["column source, rows 2"]),
        ([",,,,0,4,0,3,0,6,a"], ["rows 2: more values than columns", "with a point"]),
        ([WHOLE, "", WHOLE], ["rows 2 and 4, have ground of 2-3m"]),
        ([",,600,,0.4,0.3,0.5,a", ",500,,3-5m,0.4,0.3,0.5,a"], ["rows 2 and 3", "of 3-5m"]),
        (["X,,,,0.4,0.3,0.5,", ",,,,4,3,5,a"], ["column region", "rows 3", "column source"]),
    ],
)
def test_a_wrong_row_is_named(table, lines, parts):
    with pytest.raises(SampleError) as caught:
        read_prevalence(table(*lines))
    for part in ["shares.csv", *parts]:
        assert part in str(caught.value)


def test_adjacent_belts_do_not_overlap(table):
    lines = [",,500,,0.4,0.3,0.5,a", ",500,,,0.4,0.3,0.5,a"]
    assert len(read_prevalence(table(*lines))) == 6


def test_belts_need_elevations(table):
    study = table(",,500,,0.4,0.3,0.5,a").changed({"predictors": ["twi"]})
    with pytest.raises(SampleError, match="rows 2: the study has no predictor elevation"):
        read_prevalence(study)


def test_what_is_no_table_is_refused(table, study, tmp_path):
    gone = study.changed({"samples.prevalence": str(tmp_path / "gone.csv")})
    with pytest.raises(SampleError, match=r"gone\.csv, does not exist"):
        read_prevalence(gone)
    with pytest.raises(SampleError, match=r"shares\.csv has the columns region, share") as caught:
        read_prevalence(table(header="region,share"))
    assert "from_m" in caught.value.remedy
    (tmp_path / "shares.csv").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(SampleError, match="not readable"):
        read_prevalence(study.changed({"samples.prevalence": str(tmp_path / "shares.csv")}))
    (tmp_path / "shares.csv").write_text("")
    with pytest.raises(SampleError, match="has the columns"):
        read_prevalence(study.changed({"samples.prevalence": str(tmp_path / "shares.csv")}))


def test_a_cell_lies_in_the_stratum_of_its_region_and_belt():
    rows = pd.DataFrame(
        {"region": ["A", "A", "B"], "from_m": [-np.inf, 500, -np.inf], "to_m": [500, 900, np.inf]}
    )
    region = ["A", "A", "A", "A", "B", "B", "C"]
    elevation = [499, 500, 900, np.nan, 100, np.nan, 100]
    assert stratum_of(rows, region, elevation).tolist() == [0, 1, -1, -1, 2, 2, -1]
    whole = pd.DataFrame({"region": [""], "from_m": [-np.inf], "to_m": [np.inf]})
    assert stratum_of(whole, region, elevation).tolist() == [0] * 7


@pytest.mark.parametrize(("probability", "share"), [(0.2, 0.5), (0.5, 0.1), (0.9, 0.9)])
def test_equal_probabilities_move_to_the_share(probability, share):
    shift = shift_to(np.full((3, 2), probability), share)
    assert shift == pytest.approx(logit(share) - logit(probability), abs=1e-9)


def test_where_the_mean_is_the_share_nothing_moves():
    values = np.array([0.1, 0.5, 0.9, np.nan])
    assert shift_to(values, 0.5) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(shifted(values, 0.0), values)


def test_what_is_certain_stays():
    values = np.array([0, 1, 0.5, 0.5], np.float32)
    moved = shifted(values, shift_to(values, 0.6))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, [0, 1, 0.7, 0.7], rtol=1e-6)
    for share in (0.2, 0.8):
        with pytest.raises(SampleError, match="No shift"):
            shift_to(values, share)
    with pytest.raises(SampleError, match="of 0 cells"):
        shift_to([], 0.5)


CHANCES = hnp.arrays(float, st.integers(1, 50), elements=st.floats(1e-6, 1 - 1e-6))


@given(CHANCES, st.floats(0.001, 0.999))
def test_the_mean_is_the_share_and_the_order_is_kept(chances, share):
    moved = shifted(np.sort(chances), shift_to(chances, share))
    assert moved.mean() == pytest.approx(share, abs=1e-6)
    assert (np.diff(moved) >= 0).all()
