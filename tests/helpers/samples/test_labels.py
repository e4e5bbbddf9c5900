"""Labels of hand-made boreholes, extraction, selection, split, and the table of samples."""

import json
import os

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from conftest import SOURCE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from helpers.core.grid import area_mask, cell_centres, named_crs, reference_grid
from helpers.core.rasters import write_raster
from helpers.core.study import Study, StudyError
from helpers.prepare.domain import in_domain
from helpers.prepare.registry import covariate_files, covariates, predictor_names, write_covariates
from helpers.samples.areas import add_absences, label_features
from helpers.samples.columns import SampleError
from helpers.samples.extract import extract_covariates
from helpers.samples.labels import (
    NOT_REACHED,
    TOO_LITTLE,
    UNKNOWN_STATE,
    UNKNOWN_TABLE,
    core_ice,
    label_layers,
)
from helpers.samples.selection import (
    DUPLICATE,
    counts_by_reason,
    drop_unusable,
    group_cells,
    settle_rare_classes,
)
from helpers.samples.split import split_sites, thin_training
from helpers.samples.store import SAMPLE_COLUMNS, read_samples, split_labels, write_samples
from helpers.samples.together import sample_units, units

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
    rows = [
        [
            site_id,
            top,
            bottom,
            "no" if content == "no" else "yes",
            content if content != "no" else None,
        ]
        for top, bottom, content in pieces
    ]
    return pd.DataFrame(
        rows, columns=["site_id", "top_m", "bottom_m", "frozen", "ice_content"]
    ).astype({"ice_content": float})


def outcome(sites, intervals, layer="3-5m", **settings):
    """Return ice type and reason of class 0, or why there is no label."""
    labels, lost = label_layers(Study(name="t", **settings), sites, intervals)
    assert len(labels) + len(lost) == 3 * len(sites)
    row = labels[labels["layer"] == layer]
    return (
        tuple(row[["ice_type", "reason"]].iloc[0])
        if len(row)
        else lost.loc[lost["layer"] == layer, "reason"].item()
    )


WHOLE = core((0, 12, 0.25))
UNKNOWN = {"permafrost": "unknown", "table": np.nan}
NONE = {"permafrost": "no", "table": np.nan}
OUTCOMES = {
    "permafrost throughout": (site(), WHOLE, (3, "")),
    "table below the layer": (site(table=5.0), WHOLE, (0, "above table")),
    "table below the layer, shallow hole": (site(table=5.0, depth=4), core(), (0, "above table")),
    "base above the layer": (site(base=3.0), WHOLE, (0, "below base")),
    "no permafrost, passed through": (site(**NONE), core(), (0, "no permafrost")),
    "no permafrost, ended inside": (site(**NONE, depth=4), core(), (0, "no permafrost")),
    "no permafrost, ended too early": (site(**NONE, depth=3.9), core(), NOT_REACHED),
    "no permafrost, seasonal frost": (site(**NONE), core((0, 3.5, 0.3)), (0, "no permafrost")),
    "not reached": (site(depth=2.5), core((1, 2.5, 0.4)), NOT_REACHED),
    "reached the table only": (site(table=4.0, depth=4.0), core(), NOT_REACHED),
    "ended inside, half sampled": (site(depth=4), core((1, 4, 0.4)), (4, "")),
    "ended inside, too little": (site(depth=3.9), core((1, 3.9, 0.4)), NOT_REACHED),
    "passed, too little core": (site(), core((3, 3.3, 0.4)), TOO_LITTLE),
    "no core": (site(), core(), TOO_LITTLE),
    "half of the permafrost part": (site(table=4.0), core((4, 4.5, 0.4)), (4, "")),
    "content not measured": (site(), core((3, 5, np.nan)), TOO_LITTLE),
    "unfrozen lens counts as no ice": (site(), core((3, 4, 0.3), (4, 5, "no")), (2, "")),
    "core above the table": (site(table=4.0), core((3, 4, 0.9), (4, 5, 0.05)), (1, "")),
    "unknown, not reached": (site(**UNKNOWN, depth=2.4), core((0, 2.4, "no")), NOT_REACHED),
    "unknown, ended inside, unfrozen": (
        site(**UNKNOWN, depth=4), core((0, 4, "no")), (0, "no permafrost")),
    "unknown, frozen below": (
        site(**UNKNOWN, depth=4), core((0, 3.5, "no"), (3.5, 4, 0.2)), UNKNOWN_STATE),
    "table near the hole's end": (site(table=3.9, depth=4), core((3.9, 4, 0.4)), (4, "")),
    "unknown, frozen": (site(**UNKNOWN), WHOLE, UNKNOWN_STATE),
    "unknown, unfrozen": (site(**UNKNOWN), core((0, 12, "no")), (0, "no permafrost")),
    "unknown, no core": (site(**UNKNOWN), core(), UNKNOWN_STATE),
    "table unknown": (site(table=np.nan), WHOLE, UNKNOWN_TABLE),
}  # fmt: skip


@pytest.mark.parametrize(("sites", "intervals", "expected"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcome_of_the_layer_from_3_to_5_m(sites, intervals, expected):
    assert outcome(sites, intervals) == expected


def test_a_partly_frozen_layer_by_hand():
    labels, lost = label_layers(
        Study(name="t"),
        site(table=2.25, base=7.5),
        core((0, 2.5, 0.5), (2.5, 4, 0.2), (4, 12, 0.1)),
    )
    assert lost.empty
    np.testing.assert_allclose(labels["permafrost_share"], [0.75, 1, 0.5])
    np.testing.assert_allclose(labels["ice_content"], [(0.25 * 0.5 + 0.5 * 0.2) / 0.75, 0.15, 0.1])
    np.testing.assert_allclose(labels["ice_fraction"], [0.225, 0.15, 0.05])
    np.testing.assert_allclose(labels["sampled_share"], 1)
    assert labels["ice_type"].tolist() == [4, 2, 2]
    assert labels["layer"].tolist() == ["2-3m", "3-5m", "5-10m"]
    assert labels["ice_type"].dtype == int


@given(st.floats(0.5, 12), st.floats(0, 1), st.sampled_from(["2-3m", "3-5m", "5-10m"]))
@settings(deadline=None, max_examples=60)
def test_whether_a_borehole_labels_a_layer_does_not_depend_on_what_it_met(depth, share, layer):
    """Else samples would have more permafrost than the ground."""
    kinds = {
        "frozen": (site(depth=depth, table=0.4), core((0, depth, 0.3))),
        "talik": (site(**NONE, depth=depth), core((0, depth, "no"))),
        "unknown": (site(**UNKNOWN, depth=depth), core((0, depth, "no"))),
    }
    outcomes = {
        kind: outcome(*hole, layer, ice={"minimum_passed_share": share})
        for kind, hole in kinds.items()
    }
    assert len({one == NOT_REACHED for one in outcomes.values()}) == 1, outcomes


def test_class_zero_holds_no_ice():
    labels, _ = label_layers(
        Study(name="t"), site(permafrost="no", table=np.nan), core((0, 12, "no"))
    )
    assert labels["ice_content"].isna().all()
    assert (labels[["permafrost_share", "ice_fraction"]] == 0).all(axis=None)
    assert (labels["sampled_share"] == 1).all()


def test_thresholds_and_sampled_share_are_settings():
    assert outcome(site(), WHOLE, ice={"thresholds": [0.05, 0.06, 0.07, 0.08]}) == (5, "")
    assert outcome(site(depth=3.9), core((1, 3.9, 0.4)), ice={"minimum_passed_share": 0.4}) == (
        4,
        "",
    )


def pieces(**columns):
    """Return pieces of core of one site, one metre each, frozen unless they say otherwise."""
    number = max(len(values) for values in columns.values())
    table = {
        "site_id": ["S"] * number,
        "top_m": np.arange(2.0, 2 + number),
        "bottom_m": np.arange(3.0, 3 + number),
    }
    return pd.DataFrame(table | {"frozen": ["yes"] * number} | columns)


def test_ice_of_cores_by_hands():
    """w = 0.25, w_u = 0.08, G = 2.65 give 0.288 in saturated ground; 1500 kg m-3 gives 0.278."""
    study = Study(name="t", ice={"unfrozen_water": {"silt": (0.08, 0.4)}})
    table = pieces(
        water_content=[0.25, 0.25, np.nan], dry_density=[np.nan, 1500, np.nan], texture=["silt"] * 3
    )
    found = core_ice(study, table)
    np.testing.assert_allclose(found["ice_content"], [0.28843, 0.27808, np.nan], atol=1e-5)


def test_measured_ice_comes_before_water_and_water_before_a_type():
    study = Study(name="t")
    table = pieces(
        ice_content=[0.4, np.nan, np.nan],
        water_content=[0.25, 0.25, np.nan],
        ice_type=[1.0, 1.0, 3.0],
    )
    found = core_ice(study, table)
    assert found["ice_content"][0] == 0.4
    assert found["ice_content"][1] == pytest.approx(0.3379, abs=1e-4)
    assert found["ice_content"][2] == pytest.approx(0.25)


def test_less_frozen_water_than_bound_water_is_no_ice():
    found = core_ice(Study(name="t"), pieces(water_content=[0.03], texture=["clay"]))
    assert found["ice_content"].tolist() == [0.0]


@given(
    st.floats(0, 100),
    st.floats(-60, 5),
    st.floats(0, 30),
    st.sampled_from(["peat", "clay", "silt", "sand", "gravel", "rock", "loess"]),
    st.one_of(st.just(np.nan), st.floats(40, 2700)),
)
def test_colder_ground_has_no_less_ice(water, temperature, colder, texture, density):
    table = pieces(
        water_content=[water] * 2,
        temperature_c=[temperature, temperature - colder],
        texture=[texture] * 2,
        dry_density=[density] * 2,
    )
    warm, cold = core_ice(Study(name="t"), table)["ice_content"]
    assert 0 <= warm <= cold + 1e-12
    assert cold <= 1


def test_temperature_is_the_cores_own_or_that_of_its_layer_or_the_nearest():
    study = Study(name="t", ice={"layer_temperatures": [-1, -2, -4]})
    ends = {"top_m": [0.0, 2, 4, 5, 20, 2], "bottom_m": [1.0, 3, 4.5, 9, 30, 3]}
    table = pieces(water_content=[0.3] * 6, dry_density=[1400] * 6, texture=["silt"] * 6)
    table = table.assign(**ends, temperature_c=[np.nan] * 5 + [-3])
    bound = 0.06 * np.array([1, 1, 2, 4, 4, 3]) ** -0.4
    found = core_ice(study, table)["ice_content"]
    np.testing.assert_allclose(found, 1400 / 917 * (0.3 - bound))


@pytest.mark.parametrize("given", [[-1, -2], []])
def test_a_wrong_number_of_temperatures_is_refused(given):
    with pytest.raises(StudyError, match=f"has {len(given)} temperatures for 3 depth layers"):
        Study(name="t").changed({"ice.layer_temperatures": given})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.1, 0.9), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_splitting_a_piece_in_two_changes_nothing(contents, where, which):
    study, hole = (
        Study(name="t", layers=[(2, 8)], ice={"minimum_sampled_share": 0.1}),
        site(depth=20.0),
    )
    table = pieces(ice_content=contents)
    row = table.iloc[which % len(table)]
    middle = row["top_m"] + where
    halves = pd.DataFrame([{**row, "bottom_m": middle}, {**row, "top_m": middle}])
    split = pd.concat([table.drop(index=row.name), halves], ignore_index=True)
    one, two = (label_layers(study, hole, part)[0] for part in (table, split))
    pd.testing.assert_frame_equal(one, two, atol=1e-9)
    if len(one):
        assert min(contents) - 1e-12 <= one["ice_content"].item() <= max(contents) + 1e-12


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
    study = Study(name="t", grid={"resolution": 6000, "fine_resolution": 3000}, source=SOURCE)
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
    longitude, latitude = back.transform(
        easting[columns[chosen]] + offset[0], northing[rows[chosen]] + offset[1]
    )
    table = pd.DataFrame(
        {"site_id": [f"S{i:03}" for i in range(300)], "longitude": longitude, "latitude": latitude}
    )
    table = table.merge(pd.DataFrame({"layer": ["2-3m", "3-5m", "5-10m"]}), how="cross")
    table = table[rng.random(len(table)) < 0.8].reset_index(drop=True)
    code = rng.choice(6, len(table), p=[0.5, 0.1, 0.12, 0.13, 0.1, 0.05])
    table["ice_type"] = code
    table["ice_content"] = np.where(code > 0, rng.random(len(table)), np.nan)
    table["permafrost_share"] = (code > 0).astype(float)
    table["ice_fraction"] = table["ice_content"].fillna(0.0)
    table["sampled_share"] = 1.0
    table["reason"] = np.where(code == 0, "no permafrost", "")
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


def test_missing_covariates_are_named(tmp_path, mapped):
    _, table = mapped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: tmp_path))
        with pytest.raises(SampleError, match="Covariates are missing: elevation"):
            extract_covariates(Study(name="t", source=SOURCE), table)


def test_nodata_outliers_and_duplicates_are_dropped_and_counted(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    clean, _ = drop_unusable(study, extracted)
    first, second, third, fourth = clean["site_id"].unique()[:4]
    spoilt = clean.copy()
    spoilt.loc[spoilt["site_id"] == first, "ndvi"] = np.nan
    spoilt.loc[spoilt["site_id"] == second, "slope"] = 60.0
    spoilt["sand"] = 1.0
    spoilt.loc[spoilt["site_id"] == third, "sand"] = (
        2.0  # the median absolute deviation is zero: not evaluated
    )
    twin = spoilt[spoilt["site_id"] == fourth].assign(
        site_id="twin", northing=lambda t: t["northing"] + 3
    )
    kept, lost = drop_unusable(study, pd.concat([spoilt, twin]))
    message = lost.drop_duplicates("site_id").set_index("site_id")["reason"].to_dict()
    assert message == {first: "no data: ndvi", second: "outlier: slope", "twin": DUPLICATE}
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


def in_cells(counts, types, easting=0.0):
    """Return samples of one layer in neighbouring cells: so many in each, of these types."""
    cells = np.repeat(np.arange(len(counts)), counts)
    names = [f"S{i}" for i in range(len(cells))]
    table = pd.DataFrame(
        {"site_id": names, "layer": "2-3m", "easting": easting + cells * 6000 + 10.0}
    )
    table["northing"], table["ice_type"] = 10.0, types
    table["ice_content"] = np.where(table["ice_type"] > 0, table["ice_type"] / 10, np.nan)
    table["ice_fraction"] = table["ice_content"].fillna(0.0)
    return table.assign(permafrost_share=1.0, sampled_share=1.0)


def test_sites_in_one_cell_stay_together_or_become_one(mapped):
    study, _ = mapped
    table = in_cells([3, 1, 2], [4, 4, 0, 2, 0, 3])
    grouped, none = group_cells(study, table)
    assert none.empty
    assert grouped["group"].tolist() == ["S0", "S0", "S0", "S3", "S4", "S4"]
    merging = study.model_copy(
        update={"samples": study.samples.model_copy(update={"same_cell": "merge"})}
    )
    merged, others = group_cells(merging, table)
    assert others["site_id"].tolist() == ["S1", "S2", "S4"]
    assert merged["site_id"].tolist() == ["S0", "S3", "S5"]
    assert merged["ice_type"].tolist() == [4, 2, 3]
    np.testing.assert_allclose(merged["ice_fraction"], [0.8 / 3, 0.2, 0.15])


def rare(study, **chosen):
    return study.model_copy(update={"samples": study.samples.model_copy(update=chosen)})


def test_rare_classes_are_named_merged_or_kept(mapped):
    study, _ = mapped
    table = in_cells([60], np.repeat([0, 1, 2, 4], [30, 4, 20, 6]))
    table["group"] = table["site_id"]
    with pytest.raises(
        SampleError,
        match=r"ice-poor frozen soil has 4 units in 2-3m, fewer than 15; so do 1 other classes",
    ):
        settle_rare_classes(rare(study, rare_classes="stop"), table)
    same, merged = settle_rare_classes(rare(study, rare_classes="keep"), table)
    assert same is table
    assert merged == []
    settled, merged = settle_rare_classes(rare(study, rare_classes="merge"), table)
    assert settled["ice_type"].value_counts().to_dict() == {0: 30, 2: 30}
    assert [(one["from"], one["into"], one["sites"]) for one in merged] == [(1, 2, 4), (4, 2, 6)]
    level = rare(study, rare_classes="stop").model_copy(update={"target": "permafrost"})
    assert settle_rare_classes(level, table)[1] == []
    few = in_cells([23], np.repeat([0, 4], [3, 20]))
    with pytest.raises(SampleError, match="no permafrost has 3 units"):
        settle_rare_classes(rare(study, rare_classes="merge"), few.assign(group=few["site_id"]))


@pytest.mark.parametrize("how", ["mask", "pseudo"])
def test_without_class_zero_tables_are_refused_or_completed(mapped, tmp_path, how):
    study, table = mapped
    frozen = table.assign(ice_type=3)
    with pytest.raises(SampleError, match="All samples of 2-3m, 3-5m, 5-10m have permafrost"):
        add_absences(study, frozen, np.random.default_rng(0))
    geobox = reference_grid(study)
    free = np.zeros(geobox.shape, np.uint8)
    free[: geobox.shape[0] // 2] = 1
    write_raster(
        tmp_path / "mask.tif",
        free,
        geobox,
        study=study,
        names="mask",
        units="1",
        long_names="m",
        nodata=255,
    )
    with_mask = rare(
        study, absences=how, permafrost_mask=str(tmp_path / "mask.tif"), absence_sites=40
    )
    full = add_absences(with_mask, frozen, np.random.default_rng(0))
    added = extract_covariates(study, full[len(frozen) :].reset_index(drop=True))
    assert len(added) == 120
    assert set(added["ice_type"]) == {0}
    if how == "pseudo":
        assert (added["air_frost_number"] <= study.domain.above).all()
        assert set(added["reason"]) == {"pseudo-absence"}
    else:
        row = (geobox.transform.f - added["northing"]) // study.grid.resolution
        assert (row >= geobox.shape[0] // 2).all()
    assert add_absences(study, table, np.random.default_rng(0)) is table


def polygons(folder, boxes, types, **columns):
    """Write squares (longitude, latitude, half width in degrees) with a type each."""
    shapes = [shapely.box(x - h, y - h, x + h, y + h) for x, y, h in boxes]
    path = folder / "areas.gpkg"
    geopandas.GeoDataFrame({"ice_type": types, **columns}, geometry=shapes, crs=4326).to_file(path)
    return str(path)


def test_labels_without_areas_keep_their_types_through_merging(mapped):
    """As in notebook 02: labels, no areas, rare classes merged."""
    study, table = mapped
    joined = pd.concat([table, label_features(study, np.random.default_rng(1))], ignore_index=True)
    joined, _ = split_labels(joined)
    assert joined["ice_type"].dtype == int
    grouped, _ = group_cells(study, extract_covariates(study, joined))
    assert len(settle_rare_classes(rare(study, rare_classes="merge"), grouped)[0]) == len(table)


def test_outside_of_the_mask_nothing_is_known(mapped, tmp_path):
    study, table = mapped
    with rasterio.open(
        tmp_path / "mask.tif", "w", width=30, height=30, count=1, dtype="uint8", crs="EPSG:4326",
        transform=rasterio.transform.from_origin(121, 53, 0.1, 0.1),
    ) as mask:  # fmt: skip
        mask.write(np.ones((1, 30, 30), np.uint8))
    chosen = rare(study, absences="mask", permafrost_mask=str(tmp_path / "mask.tif"))
    with pytest.raises(SampleError, match="No cell is known to be free of permafrost"):
        add_absences(chosen, table.assign(ice_type=3), np.random.default_rng(0))


def test_a_layer_without_any_label_is_named(mapped):
    study, table = mapped
    with pytest.raises(SampleError, match="No hole gives a label in 5-10m"):
        add_absences(study, table[table["layer"] != "5-10m"], np.random.default_rng(0))


def test_training_areas_become_samples_in_groups(mapped, tmp_path):
    study, _ = mapped
    path = polygons(
        tmp_path, [(122, 51, 0.3), (124, 48, 0.001)], ["富冰冻土", "0"], layer=["2-3m", None]
    )
    areas = label_features(rare(study, areas=path, cells_per_area=5), np.random.default_rng(1))
    assert areas.groupby(["group", "layer"]).size().to_dict() == {
        ("area-1", "2-3m"): 5, ("area-2", "2-3m"): 1, ("area-2", "3-5m"): 1, ("area-2", "5-10m"): 1,
    }  # fmt: skip
    first = areas[areas["group"] == "area-1"]
    assert set(first["ice_type"]) == {3}
    assert first["longitude"].between(121.65, 122.35).all()
    assert first["ice_content"].tolist() == pytest.approx([0.25] * 5)
    grouped, _ = group_cells(study, extract_covariates(study, areas))
    assert grouped["group"].nunique() == 2
    assert label_features(study, np.random.default_rng(1)).empty


@pytest.mark.parametrize(
    ("boxes", "types", "message"),
    [
        (
            [(122, 51, 0.5), (122.9, 51, 0.5)],
            [1, 2],
            "Features 1, 2 of areas.gpkg overlap, and are of different classes",
        ),
        ([(100, 30, 0.3)], [1], "features 1: they lie outside of the study area"),
        ([(122, 51, 0.3)], ["wet"], "features 1: no class in ice_type, but wet"),
    ],
    ids=["overlap", "outside", "unknown type"],
)
def test_unusable_training_areas_are_named(mapped, tmp_path, boxes, types, message):
    study, _ = mapped
    chosen = rare(study, areas=polygons(tmp_path, boxes, types), cells_per_area=5)
    with pytest.raises(SampleError, match=message):
        label_features(chosen, np.random.default_rng(1))


def test_domain_is_the_rule_of_the_study(mapped):
    study, table = mapped
    extracted = extract_covariates(study, table)
    extracted.loc[0, "air_frost_number"] = np.nan
    inside = in_domain(study, extracted)
    assert inside.dtype == bool
    np.testing.assert_array_equal(inside, extracted["air_frost_number"] > study.domain.above)
    assert not inside[0]


def test_predictors_are_those_of_the_registry_or_of_the_study():
    names = predictor_names(Study(name="t", source=SOURCE))
    assert "ndvi" in names
    assert "aspect" not in names
    study = Study(name="t", source=SOURCE, predictors=["slope", "aspect"])
    assert predictor_names(study) == ["slope", "aspect"]


@pytest.mark.parametrize(
    "changed", [{"predictors": ["slope", "elevaton"]}, {"domain": {"covariate": "elevaton"}}]
)
def test_an_unknown_covariate_brings_the_nearest_name(changed, mapped):
    _, table = mapped
    study = Study(name="t", source=SOURCE, **changed)
    with pytest.raises(StudyError, match="no covariate `elevaton`; did you mean `elevation`"):
        predictor_names(study) and in_domain(study, table)


# --- Split


def test_units_by_hand():
    points = np.column_stack([[0, 1, 2, 10, 11.5, 30], np.zeros(6)])
    assert units(points, list("abcdef"), 1).tolist() == [0, 0, 0, 1, 2, 3]
    assert units(points, list("abcdaf"), 1).tolist() == [0, 0, 0, 1, 0, 2]
    assert units(points, list("abcdef"), 0).tolist() == [0, 1, 2, 3, 4, 5]


def deviations(table, split, share):
    """Return by layer and class how far the test samples miss their share beyond the tolerance."""
    keys = [table["layer"], table["ice_type"]]
    off = (split == "test").groupby(keys).sum() - share * table.groupby(keys).size()
    largest = table.groupby(["unit", "layer", "ice_type"]).size()
    largest = largest.groupby(["layer", "ice_type"]).max()
    return off.abs() - np.maximum(2, largest)


def test_split_keeps_the_tolerance_and_the_site(mapped):
    study, table = mapped
    table = extract_covariates(study, table.assign(group=table["site_id"]))
    table["unit"] = sample_units(study, table)
    split = split_sites(study, table, np.random.default_rng(study.samples.seed))
    assert split.groupby(table["site_id"]).nunique().max() == 1
    assert (deviations(table, split, 0.3) <= 0).all()
    assert (split == "test").mean() == pytest.approx(0.3, abs=0.02)


def test_same_seed_same_split_whatever_the_order(mapped):
    study, table = mapped
    table = extract_covariates(study, table.assign(group=table["site_id"]))
    first = split_sites(study, table, np.random.default_rng(5))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(
        split_sites(study, shuffled, np.random.default_rng(5)).sort_index(), first
    )
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
    number = table["site_id"].astype(int)
    table["group"] = (number // draw(st.sampled_from([1, 2, 4]))).astype(str)
    side = draw(st.sampled_from([10_000, 30_000, 1_000_000]))
    table["easting"], table["northing"] = rng.uniform(0, side, (2, sites))[:, number]
    return table[rng.random(len(table)) < draw(st.sampled_from([0.5, 0.8, 1.0]))], seed


@settings(max_examples=60, deadline=None)
@given(labelled(), st.sampled_from([0.2, 0.3, 0.5]))
def test_split_never_parts_a_group_or_neighbours_and_keeps_the_tolerance(case, share):
    table, seed = case
    if table.empty:
        return
    study = Study(name="t", samples={"test_share": share, "train_share": 0.5})
    split = split_sites(study, table, np.random.default_rng(seed))
    assert set(split) <= {"train", "test"}
    assert split.groupby(table["group"]).nunique().max() == 1
    one, other = cKDTree(table[["easting", "northing"]]).query_pairs(1000, output_type="ndarray").T
    assert (split.to_numpy()[one] == split.to_numpy()[other]).all()
    table = table.assign(unit=sample_units(study, table))
    stays, _ = thin_training(study, table.assign(split=split), np.random.default_rng(seed))
    whole = table[table["unit"].isin(stays["unit"])]
    assert stays["site_id"].tolist() == whole["site_id"].tolist()
    # Single moves and exchanges end now and then just before a tolerance that could be had.
    assert (deviations(table, split, share) <= 1).all()


# --- Files


def test_samples_come_back_as_they_were(mapped):
    study, table = mapped
    table, lost = drop_unusable(study, extract_covariates(study, table))
    table, _ = group_cells(study, table)
    table["in_domain"] = in_domain(study, table)
    table["split"] = split_sites(study, table, np.random.default_rng(1))
    table.loc[table["site_id"] == table["site_id"][0], "site_id"] = "007"
    table.loc[table["site_id"] == table["site_id"].iloc[-1], "site_id"] = "NA"
    path = write_samples(study, table, counts_by_reason(lost))
    back = read_samples(study)
    assert back.columns.tolist() == [*SAMPLE_COLUMNS, *predictor_names(study)]
    pd.testing.assert_frame_equal(back, table[back.columns], check_exact=True)
    assert json.loads(
        (path.parent / "counts.json").read_text(encoding="utf-8")
    ) == counts_by_reason(lost)
    assert not [name for name in os.listdir(path.parent) if name.endswith(".part")]


def test_more_columns_of_the_sites_come_along(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    more = {"more_columns": ["campaign"]}
    study = Study(name="t", source=SOURCE, predictors=["slope"], samples=more)
    sites = pd.concat([site("S1").assign(campaign="Genhe 2021"), site("S2").assign(campaign="")])
    labels, _ = label_layers(
        study, sites, pd.concat([core((0, 12, 0.25), site_id=name) for name in ("S1", "S2")])
    )
    table = labels.assign(
        group="G", easting=0.0, northing=0.0, in_domain=True, split="train", slope=1.0
    )
    write_samples(study, table)
    assert read_samples(study)["campaign"].tolist() == ["Genhe 2021"] * 3 + ["G"] * 3
    with pytest.raises(SampleError, match="no column campaign"):
        label_layers(study, site(), WHOLE)


def test_a_table_that_lacks_columns_is_not_written(mapped):
    study, table = mapped
    with pytest.raises(SampleError, match="The sample table lacks group, easting, northing"):
        write_samples(study, table)


def test_samples_that_were_not_made_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    with pytest.raises(SampleError, match=r"no samples\.csv"):
        read_samples(Study(name="t"))


OWN_CLASSES = [
    {"name": "Unfrozen", "colour": "#d9d9d9", "permafrost": False},
    {"name": "Ice-rich", "colour": "#41b6c4", "words": ["rich"]},
]


def labelled(**samples):
    """A study of own classes without depths on a grid of 1 km."""
    return Study(
        name="t",
        classes=OWN_CLASSES,
        layers=["top"],
        area={"box": [122, 50, 122.4, 50.2]},
        grid={"crs": "EPSG:32651"},
        samples={"class_column": "kind", **samples},
    )


def test_a_polygon_smaller_than_a_cell_yields_to_its_neighbour(tmp_path):
    """The first is large; the second lies in one of its cells; the third has a cell of its own."""
    boxes = [(122.1, 50.1, 0.03), (122.1295, 50.1, 0.0004), (122.3, 50.15, 0.0004)]
    path = polygons(tmp_path, boxes, [0] * 3, kind=["rich", "Unfrozen", "unfrozen"])
    study = labelled(areas=path, cells_per_area=5)
    pairs = label_features(study, np.random.default_rng(0))
    labels, lost = split_labels(pairs)
    assert labels["group"].value_counts().to_dict() == {"area-1": 5, "area-3": 1}
    assert dict(zip(labels["group"], labels["ice_type"], strict=True)) == {"area-1": 1, "area-3": 0}
    assert lost["reason"].tolist() == ["smaller than a cell, which another area has"]
    assert labels["ice_fraction"].isna().tolist() == [True] * 5 + [False]


def test_points_of_a_table_are_units_of_their_own(tmp_path):
    table = "经度,纬度,kind,layer\n122.1,50.1,Rich,top\n122.2,50.1,unfrozen,\n"
    (tmp_path / "points.csv").write_text(table, encoding="utf-8")
    study = labelled(points=str(tmp_path / "points.csv"))
    labels, _ = split_labels(label_features(study, np.random.default_rng(0)))
    assert labels["site_id"].tolist() == labels["group"].tolist() == ["point-1", "point-2"]
    assert labels["ice_type"].tolist() == [1, 0]
    assert labels["longitude"].tolist() == pytest.approx([122.1, 122.2], abs=0.01)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("lon,lat,kind\n122.1,50.1,wet\n", "features 1: no class in kind, but wet; classes are"),
        ("lon,kind\n122.1,rich\n", "no column latitude"),
        ("lon,lat,kind\n122.1,north,rich\n", "rows 2: no coordinates"),
        ("lon,lat,kind\n22.1,50.1,rich\n", "features 1: they lie outside"),
        ("lon,lat,kind,layer\n122.1,50.1,rich,2-3m\n", "no layer of the study"),
        ("lon,lat,type\n122.1,50.1,rich\n", "no column kind, but"),
    ],
    ids=["class", "no latitude", "no number", "outside", "layer", "no class column"],
)
def test_points_that_cannot_be_used_are_named(tmp_path, table, expected):
    (tmp_path / "points.csv").write_text(table, encoding="utf-8")
    with pytest.raises(SampleError, match=expected):
        label_features(labelled(points=str(tmp_path / "points.csv")), np.random.default_rng(0))
