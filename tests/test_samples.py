"""Sample tables: what is refused and how it is told, labels of hand-made holes, extraction, and the split."""

import json
import os

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.covariates.registry import covariate_files, covariates, write_covariates
from helpers.grid import area_mask, cell_centres, named_crs, reference_grid, study_area
from helpers.samples import (
    CHECKS,
    COLUMNS,
    DUPLICATE,
    KINDS,
    NOT_REACHED,
    SAMPLE_COLUMNS,
    TOO_LITTLE,
    UNKNOWN_STATE,
    UNKNOWN_TABLE,
    SampleError,
    counts_by_reason,
    drop_unusable,
    extract_covariates,
    in_domain,
    label_layers,
    predictor_names,
    read_samples,
    read_tables,
    split_sites,
    table_paths,
    write_samples,
)
from helpers.study import ROOT, Study, StudyError

SITES = """site_id,longitude,latitude,depth_reached_m,permafrost,permafrost_table_m,\
permafrost_base_m,date,method
A,122.5,52.5,12,yes,1.5,,2024-08-20,borehole
B,122.0,50.5,2.4,unknown,,,2024-09-03,pit
007,125.0,47.0,12,no,,,2023-07-11,borehole
"""
INTERVALS = """site_id,top_m,bottom_m,frozen,ice_content,texture
A,0,1.5,no,,peat
A,1.5,4,yes,0.45,silt
A,4,12,yes,0.25,sand
B,0,2.4,no,,silt
007,0,12,no,,sand
"""


@pytest.fixture
def tables(tmp_path):
    """A function that writes both tables and returns a study that names them."""

    def write(sites=SITES, intervals=INTERVALS, encoding="utf-8"):
        for name, text in (("sites", sites), ("intervals", intervals)):
            (tmp_path / f"{name}.csv").write_text(text, encoding=encoding)
        return Study(name="t", samples={n: str(tmp_path / f"{n}.csv") for n in ("sites", "intervals")})

    return write


def refusal(study, **options):
    with pytest.raises(SampleError) as caught:
        read_tables(study, **options)
    return caught.value


# --- Reading and checking


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_good_tables_are_read_as_they_are(tables, encoding):
    sites, intervals, problems = read_tables(
        tables(SITES.replace("A,122", "钻孔一,122"), INTERVALS.replace("A,", "钻孔一,"), encoding)
    )
    assert problems.empty
    assert sites["site_id"].tolist() == ["钻孔一", "B", "007"]
    assert intervals.groupby("site_id").size().to_dict() == {"钻孔一": 3, "B": 1, "007": 1}
    assert sites["permafrost_table_m"].tolist()[0] == 1.5
    assert sites["permafrost_base_m"].isna().all()
    assert intervals["ice_content"].tolist()[1:3] == [0.45, 0.25]


def test_spaces_capitals_blank_rows_and_absent_optional_columns_are_no_problem(tables):
    sites = SITES.replace(",date,method", "").replace(",2024-08-20,borehole", "").replace(",2024-09-03,pit", "")
    sites = sites.replace(",2023-07-11,borehole", "").replace("yes", " Yes ").replace("longitude", " Longitude")
    read, _, problems = read_tables(tables(sites.replace("\nB", "\n\n,,,\nB")))
    assert problems.empty
    assert len(read) == 3
    assert read["permafrost"].tolist() == ["yes", "unknown", "no"]
    assert read["date"].tolist() == ["", "", ""]


def _changed(text, old, new):
    assert old in text
    return text.replace(old, new)


DEFECTS = {  # table, text, replacement, kind, rows, column
    "missing column": ("sites", "depth_reached_m", "depth", "missing column", [1], "depth_reached_m"),
    "overlong row": ("intervals", "0.45,silt", "0,45,silt,", "overlong row", [3], "texture"),
    "decimal comma": ("sites", "A,122.5", "A,122,5", "overlong row", [2], "method"),
    "missing value": ("sites", "122.5,52.5", "122.5,", "missing value", [2], "latitude"),
    "text in numbers": ("intervals", "1.5,4,", "1.5,4 m,", "not a number", [3], "bottom_m"),
    "unknown word": ("sites", "no,,,", "maybe,,,", "unknown word", [4], "permafrost"),
    "repeated site": ("sites", "B,122.0", "A,122.0", "duplicated site", [3], "site_id"),
    "swapped coordinates": (
        "sites",
        "122.5,52.5",
        "52.5,122.5",
        "outside the study area",
        [2],
        "longitude, latitude",
    ),
    "outside": ("sites", "125.0,47.0", "105.0,37.0", "outside the study area", [4], "longitude, latitude"),
    "negative depth": ("sites", "yes,1.5", "yes,-1.5", "negative depth", [2], "permafrost_table_m"),
    "base above table": (
        "sites",
        "yes,1.5,,",
        "yes,1.5,1.0,",
        "inverted permafrost",
        [2],
        "permafrost_base_m",
    ),
    "table without permafrost": (
        "sites",
        "no,,,",
        "no,2.0,,",
        "depth without permafrost",
        [4],
        "permafrost_table_m",
    ),
    "stray interval": ("intervals", "007,0", "7,0", "interval without site", [6], "site_id"),
    "inverted interval": ("intervals", "1.5,4,", "4,1.5,", "inverted interval", [3], "bottom_m"),
    "overlap": ("intervals", "A,4,12", "A,3.9,12", "overlapping intervals", [4], "top_m"),
    "nested": ("intervals", "A,4,12", "A,2,3", "overlapping intervals", [4], "top_m"),
    "percent": ("intervals", "0.45", "45", "impossible ice content", [3], "ice_content"),
    "negative content": ("intervals", "0.45", "-0.1", "impossible ice content", [3], "ice_content"),
    "ice in unfrozen ground": (
        "intervals",
        "no,,peat",
        "no,0.3,peat",
        "ice in unfrozen ground",
        [2],
        "ice_content",
    ),
}


@pytest.mark.parametrize(("table", "old", "new", "kind", "rows", "column"), DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_is_named_with_file_rows_and_column(tables, table, old, new, kind, rows, column):
    texts = {"sites": SITES, "intervals": INTERVALS}
    texts[table] = _changed(texts[table], old, new)
    error = refusal(tables(**texts))
    found = error.problems[error.problems["kind"] == kind]
    assert found["row"].tolist() == rows
    assert set(found["file"]) == {f"{table}.csv"}
    assert found["column"].tolist() == [column]
    assert f"{table}.csv, column {column}, row {rows[0]}: " in error.message
    assert found["remedy"].item() in error.remedy


def test_a_misspelt_column_is_told_its_right_name(tables):
    error = refusal(tables(SITES.replace("permafrost_table_m", "permafrost_table")))
    assert error.remedy == "permafrost_table_m: rename the column permafrost_table"


def test_all_problems_come_at_once_and_rows_are_gathered(tables):
    sites = SITES.replace("B,122.0", "A,122.0").replace("122.5,52.5", "12.5,52.5")
    error = refusal(tables(sites, INTERVALS.replace("0.45", "45").replace("0.25", "25").replace("B,0", "X,0")))
    assert set(error.problems["kind"]) == {
        "duplicated site", "outside the study area", "impossible ice content", "interval without site",
    }  # fmt: skip
    assert (
        "intervals.csv, column ice_content, rows 3, 4: the ice content lies outside 0-1 ('45', '25')" in error.message
    )
    assert "\n" not in error.message
    assert "site_id" in error.remedy
    assert "not percent" in error.remedy


def test_long_lists_of_rows_are_cut_short(tables):
    rows = "".join(f"C{i},1000,47.0,12,no,,,,\n" for i in range(30))
    assert "rows 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 20 more" in refusal(tables(SITES + rows)).message


def test_severity_can_be_chosen(tables):
    study = tables(SITES.replace("125.0,47.0", "105.0,37.0"))
    sites, intervals, problems = read_tables(study, severity={"outside the study area": "drop"})
    assert sites["site_id"].tolist() == ["A", "B"]
    assert set(intervals["site_id"]) == {"A", "B"}
    assert problems[["file", "row", "severity"]].to_numpy().tolist() == [["sites.csv", 4, "drop"]]


def test_a_site_just_off_the_simplified_outline_is_not_refused(tables):
    outline = study_area(Study(name="t"), named_crs(Study(name="t").grid.crs))
    corner = outline.envelope.exterior.coords[0]
    near = shapely.ops.nearest_points(outline, shapely.Point(corner))[0]
    back = pyproj.Transformer.from_crs(named_crs(Study(name="t").grid.crs), "EPSG:4326", always_xy=True)
    away = np.subtract(corner, (near.x, near.y)) / near.distance(shapely.Point(corner))
    for metres, refused in ((900, False), (1100, True)):
        longitude, latitude = back.transform(near.x + metres * away[0], near.y + metres * away[1])
        study = tables(SITES.replace("122.5,52.5", f"{longitude:.7f},{latitude:.7f}"))
        if refused:
            assert refusal(study).problems["kind"].tolist() == ["outside the study area"]
        else:
            assert read_tables(study)[2].empty


def test_odd_rows_are_only_told(tables):
    study = tables(SITES.replace("yes,1.5", "yes,").replace("2024-08-20", "20 Aug"), INTERVALS.replace("4,12", "4,13"))
    sites, _, problems = read_tables(study)
    assert len(sites) == 3
    assert set(problems["kind"]) == {"no permafrost table", "unreadable date", "interval below the hole"}
    assert set(problems["severity"]) == {"warn"}


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        (None, "table of sites, sites.csv, does not exist"),
        ("", "sites.csv is empty"),
        ("钻孔".encode("gb18030"), "sites.csv is not a CSV file in UTF-8"),
        (SITES.splitlines()[0].encode(), "interval without site|no usable site|there is no such site"),
    ],
    ids=["missing", "empty", "another encoding", "header only"],
)
def test_unreadable_tables_are_told(tables, sites, told):
    study = tables()
    path = table_paths(study)[0]
    path.unlink() if sites is None else path.write_bytes(sites if isinstance(sites, bytes) else sites.encode())
    with pytest.raises(SampleError, match=told) as caught:
        read_tables(study)
    assert str(path.parent) not in str(caught.value)


def test_header_only_tables_have_no_usable_site(tables):
    with pytest.raises(SampleError, match=r"sites\.csv has no usable site"):
        read_tables(tables(SITES.splitlines()[0], INTERVALS.splitlines()[0]))


def test_the_virtual_study_reads_its_own_tables():
    study = Study(name="t")
    assert table_paths(study) == tuple(study.results_dir / "samples" / n for n in ("sites.csv", "intervals.csv"))


def test_a_real_study_must_name_its_tables():
    study = Study(name="t").model_copy(update={"source": "open"})
    with pytest.raises(SampleError, match=r"samples\.sites and samples\.intervals are empty"):
        table_paths(study)


def test_template_examples_are_right_but_never_used(tables):
    texts = {n: (ROOT / "data" / "samples" / f"{n}.csv").read_text(encoding="utf-8") for n in ("sites", "intervals")}
    with pytest.raises(SampleError, match="no usable site"):
        read_tables(tables(**texts))
    sites, intervals, problems = read_tables(tables(**{n: t.replace("EXAMPLE-", "") for n, t in texts.items()}))
    assert problems.empty
    labels, _ = label_layers(Study(name="t"), sites, intervals)
    assert labels["ice_type"].tolist() == [4, 4, 3, 0, 0, 0]


def test_the_data_dictionary_has_every_column_and_kind_of_word():
    text = (ROOT / "data" / "samples" / "README.md").read_text(encoding="utf-8")
    for columns in COLUMNS.values():
        assert all(f"`{name}`" in text for names in columns.values() for name in names)


def test_the_list_of_checks_can_grow(tables, monkeypatch):
    from helpers.samples import _problem

    monkeypatch.setitem(KINDS, "odd name", ("warn", "the name is odd", "choose another"))
    more = [*CHECKS, lambda study, sites, intervals: [_problem(sites, 4, "site_id", "007", "odd name")]]
    monkeypatch.setattr("helpers.samples.CHECKS", more)
    assert read_tables(tables())[2]["kind"].tolist() == ["odd name"]


# --- Labels


def site(site_id="S", depth=12.0, permafrost="yes", table=1.0, base=np.nan):
    names = [
        "site_id",
        "longitude",
        "latitude",
        "depth_reached_m",
        "permafrost",
        "permafrost_table_m",
        "permafrost_base_m",
    ]
    return pd.DataFrame([[site_id, 122.5, 52.5, depth, permafrost, table, base]], columns=names)


def core(*pieces, site_id="S"):
    rows = [[site_id, top, bottom, "no" if content == "no" else "yes", np.nan if content == "no" else content]
            for top, bottom, content in pieces]  # fmt: skip
    return pd.DataFrame(rows, columns=["site_id", "top_m", "bottom_m", "frozen", "ice_content"]).astype(
        {"ice_content": float}
    )


def outcome(sites, intervals, layer="3-5m", **settings):
    """Return ice type and reason of class 0, or why there is no label."""
    labels, lost = label_layers(Study(name="t", **settings), sites, intervals)
    assert len(labels) + len(lost) == 3 * len(sites)
    row = labels[labels["layer"] == layer]
    return tuple(row[["ice_type", "reason"]].iloc[0]) if len(row) else lost.loc[lost["layer"] == layer, "reason"].item()


WHOLE = core((0, 12, 0.25))
UNKNOWN = {"permafrost": "unknown", "table": np.nan}
NONE = {"permafrost": "no", "table": np.nan}
FATES = {
    "permafrost throughout": (site(), WHOLE, (3, "")),
    "table below the layer": (site(table=5.0), WHOLE, (0, "above table")),
    "table below the layer, shallow hole": (site(table=5.0, depth=4), core(), (0, "above table")),
    "base above the layer": (site(base=3.0), WHOLE, (0, "below base")),
    "no permafrost, passed through": (site(**NONE), core(), (0, "talik")),
    "no permafrost, ended inside": (site(**NONE, depth=4.9), core(), NOT_REACHED),
    "no permafrost, seasonal frost above": (site(**NONE), core((0, 3.5, 0.3)), (0, "talik")),
    "not reached": (site(depth=2.5), core((1, 2.5, 0.4)), NOT_REACHED),
    "reached the table only": (site(table=4.0, depth=4.0), core(), NOT_REACHED),
    "ended inside, half sampled": (site(depth=4), core((1, 4, 0.4)), (4, "")),
    "ended inside, too little": (site(depth=3.9), core((1, 3.9, 0.4)), NOT_REACHED),
    "passed, too little core": (site(), core((3, 3.9, 0.4)), TOO_LITTLE),
    "no core": (site(), core(), TOO_LITTLE),
    "half of the permafrost part": (site(table=4.0), core((4, 4.5, 0.4)), (4, "")),
    "content not measured": (site(), core((3, 5, np.nan)), TOO_LITTLE),
    "unfrozen lens counts as no ice": (site(), core((3, 4, 0.3), (4, 5, "no")), (2, "")),
    "core above the table is not permafrost": (site(table=4.0), core((3, 4, 0.9), (4, 5, 0.05)), (1, "")),
    "unknown, not reached": (site(**UNKNOWN, depth=2.4), core((0, 2.4, "no")), NOT_REACHED),
    "unknown, frozen": (site(**UNKNOWN), WHOLE, UNKNOWN_STATE),
    "unknown, unfrozen": (site(**UNKNOWN), core((0, 12, "no")), (0, "talik")),
    "unknown, no core": (site(**UNKNOWN), core(), UNKNOWN_STATE),
    "table unknown": (site(table=np.nan), WHOLE, UNKNOWN_TABLE),
}  # fmt: skip


@pytest.mark.parametrize(("sites", "intervals", "fate"), FATES.values(), ids=FATES.keys())
def test_fate_of_the_layer_from_3_to_5_m(sites, intervals, fate):
    assert outcome(sites, intervals) == fate


def test_a_partly_frozen_layer_known_answer():
    labels, lost = label_layers(
        Study(name="t"), site(table=2.25, base=7.5), core((0, 2.5, 0.5), (2.5, 4, 0.2), (4, 12, 0.1))
    )
    assert lost.empty
    np.testing.assert_allclose(labels["permafrost_share"], [0.75, 1, 0.5])
    np.testing.assert_allclose(labels["ice_content"], [(0.25 * 0.5 + 0.5 * 0.2) / 0.75, 0.15, 0.1])
    np.testing.assert_allclose(labels["ice_fraction"], [0.225, 0.15, 0.05])
    np.testing.assert_allclose(labels["sampled_share"], 1)
    assert labels["ice_type"].tolist() == [4, 2, 2]
    assert labels["layer"].tolist() == ["2-3m", "3-5m", "5-10m"]
    assert labels["ice_type"].dtype == int


def test_class_zero_holds_no_ice():
    labels, _ = label_layers(Study(name="t"), site(permafrost="no", table=np.nan), core((0, 12, "no")))
    assert labels["ice_content"].isna().all()
    assert (labels[["permafrost_share", "ice_fraction"]] == 0).all(axis=None)
    assert (labels["sampled_share"] == 1).all()


def test_thresholds_and_sampled_share_are_settings():
    assert outcome(site(), WHOLE, ice={"thresholds": [0.05, 0.06, 0.07, 0.08]}) == (5, "")
    assert outcome(site(depth=3.9), core((1, 3.9, 0.4)), ice={"minimum_sampled_share": 0.4}) == (4, "")


def test_no_sites_give_empty_tables():
    labels, lost = label_layers(Study(name="t"), site().iloc[:0], core())
    assert labels.empty
    assert lost.empty
    assert counts_by_reason(lost) == {}


# --- Covariates


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A coarse study whose covariates are noise on disk, and labelled sites in its area."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("study")
    patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
    patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
    study = Study(name="t", grid={"resolution": 6000, "fine_resolution": 3000})
    geobox = reference_grid(study)
    rng = np.random.default_rng(1)
    names = list(covariates(study))
    arrays = {name: rng.normal(size=geobox.shape).astype(np.float32) for name in names}
    arrays["air_frost_number"] = rng.uniform(0.2, 0.7, geobox.shape).astype(np.float32)
    arrays["aspect"][::2] = np.nan
    write_covariates(study, arrays)
    rows, columns = np.nonzero(area_mask(study, geobox))
    chosen = rng.choice(len(rows), 300, replace=False)
    easting, northing = cell_centres(geobox)
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    offset = rng.uniform(-2900, 2900, (2, 300))
    longitude, latitude = back.transform(easting[columns[chosen]] + offset[0], northing[rows[chosen]] + offset[1])
    table = pd.DataFrame({"site_id": [f"S{i:03}" for i in range(300)], "longitude": longitude, "latitude": latitude})
    table = table.merge(pd.DataFrame({"layer": ["2-3m", "3-5m", "5-10m"]}), how="cross")
    table = table[rng.random(len(table)) < 0.8].reset_index(drop=True)
    code = rng.choice(6, len(table), p=[0.5, 0.1, 0.12, 0.13, 0.1, 0.05])
    table["ice_type"] = code
    table["ice_content"] = np.where(code > 0, rng.random(len(table)), np.nan)
    table["permafrost_share"] = (code > 0).astype(float)
    table["ice_fraction"] = table["ice_content"].fillna(0.0)
    table["sampled_share"] = 1.0
    table["reason"] = np.where(code == 0, "talik", "")
    yield study, table
    patch.undo()


def test_extraction_equals_rasterio_sample(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    pd.testing.assert_frame_equal(extracted[table.columns], table)
    points = extracted[["easting", "northing"]].to_numpy()
    for name, path in covariate_files(study).items():
        with rasterio.open(path) as source:
            expected = np.array([v[0] for v in source.sample(points)], float)
        np.testing.assert_array_equal(extracted[name], expected, err_msg=name)
    assert extracted["aspect"].isna().mean() > 0.3


def test_points_outside_the_grid_have_no_value(mapped):
    study, table = mapped
    far = table.head(2).assign(longitude=[100.0, 122.5], latitude=[20.0, 50.0])
    extracted = extract_covariates(study, far)
    assert np.isnan(extracted["elevation"].iloc[0])
    assert np.isfinite(extracted["elevation"].iloc[1])


def test_missing_covariates_are_told(tmp_path, mapped):
    _, table = mapped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: tmp_path))
        with pytest.raises(SampleError, match="Covariates are missing: elevation"):
            extract_covariates(Study(name="t"), table)


def test_nodata_outliers_and_duplicates_are_dropped_and_counted(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    clean, _ = drop_unusable(study, extracted)
    first, second, third, fourth = clean["site_id"].unique()[:4]
    spoilt = clean.copy()
    spoilt.loc[spoilt["site_id"] == first, "ndvi"] = np.nan
    spoilt.loc[spoilt["site_id"] == second, "slope"] = 60.0
    spoilt["sand"] = 1.0
    spoilt.loc[spoilt["site_id"] == third, "sand"] = 2.0  # the median absolute deviation is zero: not judged
    twin = spoilt[spoilt["site_id"] == fourth].assign(site_id="twin", northing=lambda t: t["northing"] + 3)
    kept, lost = drop_unusable(study, pd.concat([spoilt, twin]))
    told = lost.drop_duplicates("site_id").set_index("site_id")["reason"].to_dict()
    assert told == {first: "no data: ndvi", second: "outlier: slope", "twin": DUPLICATE}
    assert set(kept["site_id"]) == set(clean["site_id"]) - {first, second}
    assert len(kept) + len(lost) == len(spoilt) + len(twin)
    counts = counts_by_reason(lost)
    assert counts[DUPLICATE] == {"sites": 1, "labels": len(twin)}
    assert sum(c["labels"] for c in counts.values()) == len(lost)


def test_aspect_is_no_predictor_so_flat_sites_stay(mapped):
    study, table = mapped
    kept, lost = drop_unusable(study, extract_covariates(study, table))
    assert kept["aspect"].isna().any()
    assert not lost["reason"].str.contains("aspect").any()


def test_the_site_with_more_labels_stays(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    rich = extracted["site_id"].value_counts().index[0]
    poor = extracted[extracted["site_id"] == rich].head(1).assign(site_id="A first by name")
    kept, _ = drop_unusable(study, pd.concat([poor, extracted]))
    assert rich in set(kept["site_id"])
    assert "A first by name" not in set(kept["site_id"])


def test_domain_is_the_rule_of_the_study(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    extracted.loc[0, "air_frost_number"] = np.nan
    inside = in_domain(study, extracted)
    assert inside.dtype == bool
    np.testing.assert_array_equal(inside, extracted["air_frost_number"] > study.domain.above)
    assert not inside[0]


def test_predictors_are_those_of_the_registry_or_of_the_study():
    names = predictor_names(Study(name="t"))
    assert "ndvi" in names
    assert "aspect" not in names
    assert predictor_names(Study(name="t", predictors=["slope", "aspect", "slope"])) == ["slope", "aspect"]


@pytest.mark.parametrize("changed", [{"predictors": ["slope", "elevaton"]}, {"domain": {"covariate": "elevaton"}}])
def test_an_unknown_covariate_is_told_the_nearest(changed, mapped):
    _, table = mapped
    study = Study(name="t", **changed)
    with pytest.raises(StudyError, match="no covariate `elevaton`; did you mean `elevation`"):
        predictor_names(study) and in_domain(study, table)


# --- Split


def deviations(table, split, share, group="site_id"):
    """Return, for each layer and class, how far the test samples are from their share, and the tolerance."""
    keys = [table["layer"], table["ice_type"]]
    off = (split == "test").groupby(keys).sum() - share * table.groupby(keys).size()
    largest = table.groupby([group, "layer", "ice_type"]).size().groupby(["layer", "ice_type"]).max()
    return off.abs() - np.maximum(2, largest)


def test_split_keeps_the_tolerance_and_the_site(mapped):
    study, table = mapped
    split = split_sites(study, table, np.random.default_rng(study.samples.seed))
    assert split.groupby(table["site_id"]).nunique().max() == 1
    assert (deviations(table, split, 0.3) <= 0).all()
    assert (split == "test").mean() == pytest.approx(0.3, abs=0.02)


def test_same_seed_same_split_whatever_the_order(mapped):
    study, table = mapped
    first = split_sites(study, table, np.random.default_rng(5))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(split_sites(study, shuffled, np.random.default_rng(5)).sort_index(), first)
    assert not split_sites(study, table, np.random.default_rng(6)).equals(first)


@st.composite
def labelled(draw):
    seed, sites = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 250))
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(6, draw(st.sampled_from([0.2, 1.0, 10.0]))), size=3)
    table = pd.DataFrame({"site_id": np.arange(sites).astype(str)}).merge(
        pd.DataFrame({"layer": range(3)}), how="cross"
    )
    table["ice_type"] = [rng.choice(6, p=shares[layer]) for layer in table["layer"]]
    table["cluster"] = (table["site_id"].astype(int) // draw(st.sampled_from([1, 2, 4]))).astype(str)
    return table[rng.random(len(table)) < draw(st.sampled_from([0.5, 0.8, 1.0]))], seed


@settings(max_examples=60, deadline=None)
@given(labelled(), st.sampled_from([0.2, 0.3, 0.5]), st.sampled_from(["site_id", "cluster"]))
def test_split_never_parts_a_group_and_keeps_the_tolerance(case, share, group):
    table, seed = case
    if table.empty:
        return
    study = Study(name="t", samples={"test_share": share})
    split = split_sites(study, table, np.random.default_rng(seed), group=group)
    assert set(split) <= {"train", "test"}
    assert split.groupby(table[group]).nunique().max() == 1
    assert (deviations(table, split, share, group) <= 1e-9).all()


# --- Files


def test_samples_come_back_as_they_were(mapped):
    study, table = mapped
    table, lost = drop_unusable(study, extract_covariates(study, table))
    table["in_domain"] = in_domain(study, table)
    table["split"] = split_sites(study, table, np.random.default_rng(1))
    table.loc[table["site_id"] == table["site_id"][0], "site_id"] = "007"
    table.loc[table["site_id"] == table["site_id"].iloc[-1], "site_id"] = "NA"
    path = write_samples(study, table, counts_by_reason(lost))
    back = read_samples(study)
    assert back.columns.tolist() == [*SAMPLE_COLUMNS, *predictor_names(study)]
    pd.testing.assert_frame_equal(back, table[back.columns], check_exact=True)
    assert json.loads((path.parent / "counts.json").read_text(encoding="utf-8")) == counts_by_reason(lost)
    assert not [name for name in os.listdir(path.parent) if name.endswith(".part")]


def test_a_table_that_lacks_columns_is_not_written(mapped):
    study, table = mapped
    with pytest.raises(SampleError, match="The sample table lacks easting, northing, in_domain, split, elevation"):
        write_samples(study, table)


def test_samples_that_were_not_made_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    with pytest.raises(SampleError, match=r"no samples\.csv"):
        read_samples(Study(name="t"))
