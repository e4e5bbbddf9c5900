"""How far the map may be believed: levels by hand, rasters and tables of the quick run."""

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import rasterio

from helpers.core.classes import layer_name
from helpers.core.settings import Trust
from helpers.core.study import Study
from helpers.mapping import trust

STUDY = Study.open("config/quick.yaml")
NAMES = [layer_name(layer) for layer in STUDY.layers]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize(
    ("density", "permafrost", "in_domain", "level"),
    [
        pytest.param(5, 0.05, True, 4, id="surely no permafrost"),
        pytest.param(5, 0.95, True, 3, id="surely permafrost"),
        pytest.param(5, 0.1, True, 4, id="just sure"),
        pytest.param(5, 0.1001, True, 2, id="just in doubt"),
        pytest.param(0, 0.95, True, 1, id="unlike the samples"),
        pytest.param(2, 0.05, True, 1, id="too few are alike"),
        pytest.param(5, 0.0, False, 5, id="no level beyond the domain"),
    ],
)
def test_levels_by_hand(density, permafrost, in_domain, level):
    levels = trust.level_of([density], [permafrost], [in_domain], Trust(similar_samples=3))
    assert levels.tolist() == [level]


def test_the_error_profile_is_what_errors_exceed_expectation_by(rng):
    # Near the samples as many are wrong as expected, far from them three in ten more.
    away = rng.uniform(0, 2, 4000)
    types = (rng.random(4000) < np.where(away < 1, 0.2, 0.5)).astype(int)
    chances = np.tile([0.8, 0.2], (4000, 1))
    profile = trust.error_profile(types, [(away, chances), (away, chances)])
    excess = np.interp([0.2, 0.8, 1.2, 1.8, 9.0], *profile)
    np.testing.assert_allclose(excess, [0, 0, 0.3, 0.3, 0.3], atol=0.12)
    assert (np.diff(profile[1]) >= 0).all()
    assert profile[1].min() >= 0


@pytest.mark.parametrize(("classes", "least"), [(2, 2), (4, 3), (6, 5)])
def test_a_set_of_nearly_all_classes_is_undecided(classes, least):
    assert trust.undecided(classes) == least


def read(quick, name):
    with rasterio.open(quick / f"results/quick/main/maps/{name}.tif") as source:
        return source.read().squeeze(), source.nodata, source.tags(), source.tags(1)


@pytest.mark.parametrize("layer", NAMES)
def test_rasters_fit_each_other(quick, layer):
    chances = read(quick, f"class_probability_{layer}")[0]
    dissimilarity, plain = read(quick, f"dissimilarity_index_{layer}")[0]
    density, error = (
        read(quick, f"{kind}_{layer}")[0] for kind in ("point_density", "expected_error")
    )
    count, bits = read(quick, f"prediction_set_{layer}")[0]
    types = read(quick, f"ice_type_{layer}")[0]
    mapped = chances[0] != 65535
    (rule,) = (quick / "data/processed").glob(f"*/{STUDY.domain.covariate}.tif")
    with rasterio.open(rule) as source:
        inside = mapped & (source.read(1) > STUDY.domain.above)
    for band, none, where in (
        (dissimilarity, np.isnan, inside),
        (plain, np.isnan, inside),
        (error, np.isnan, inside),
        (density, lambda v: v == 65535, inside),
        (count, lambda v: v == 0, mapped),
    ):
        np.testing.assert_array_equal(none(band), ~where)
    record = json.loads((quick / "results/quick/main/tables/applicability.json").read_text())[
        "layers"
    ][layer]
    np.testing.assert_array_equal(density[inside] > 0, dissimilarity[inside] < record["threshold"])
    # The profile only adds to what the probability of the mapped class says.
    own = np.take_along_axis(chances[:, inside].astype(float), types[inside][np.newaxis], 0)[0]
    added = error[inside] - (1 - own / 10_000)
    assert added.min() > -1e-6
    order = dissimilarity[inside].argsort()
    assert (np.diff(np.where(error[inside] < 1, added, np.nan)[order]) > -1e-6).mean() > 0.9
    members = bits[mapped][:, np.newaxis] >> np.arange(6) & 1
    np.testing.assert_array_equal(members.sum(axis=1), count[mapped])
    probable = chances[:, mapped].argmax(axis=0)
    assert members[np.arange(len(members)), probable].all()
    assert (count[mapped & ~inside] == 1).all()
    assert record["weights"]["northness"] == record["weights"]["eastness"]


def test_every_raster_has_a_style_with_its_own_classes_or_values(quick):
    for path in (quick / "results/quick/main/maps").glob("*.tif"):
        renderer = ElementTree.parse(path.with_suffix(".qml")).getroot().find("pipe/rasterrenderer")
        with rasterio.open(path) as source:
            band = source.read(1, masked=True).compressed() * source.scales[0] + source.offsets[0]
        if renderer.get("type") == "paletted":
            codes = {
                int(entry.get("value")) for entry in renderer.findall("colorPalette/paletteEntry")
            }
            assert set(np.unique(band)) <= codes, path.name
        else:
            values = [
                float(item.get("value"))
                for item in renderer.findall("rastershader/colorrampshader/item")
            ]
            assert values == sorted(values)
            assert values[0] <= np.nanmedian(band) <= values[-1], path.name


def test_levels_of_the_map_have_names_and_meanings(quick):
    levels, nodata, tags, band = read(quick, "trust")
    assert nodata == 0
    assert set(np.unique(levels)) <= {0, *trust.LEVELS}
    assert band["class_1"] == "unlike the samples"
    assert tags["meaning_4"] == trust.MEANINGS[4]
    assert tags["LABEL"] == STUDY.label


def test_groups_of_cells_add_up_and_sets_cover_the_samples(quick):
    folder = quick / "results/quick/main/tables"
    cells = pd.read_csv(folder / "applicability.csv")
    for _, domain in cells.groupby(["layer", "domain"]):
        whole = domain[domain["by"] == "all"].iloc[0]
        for by, part in domain.groupby("by"):
            assert part["cells"].sum() == whole["cells"], by
            mean = (part["expected"] * part["cells"]).sum() / whole["cells"]
            assert mean == pytest.approx(whole["expected"], abs=1e-6)
    levels = [name for code, (name, _) in trust.LEVELS.items() if code < 5]
    # Each level holds something.
    held = cells[cells["by"] == "trust"].groupby("layer")["group"].apply(set)
    assert all(groups == set(levels) for groups in held)
    sets = pd.read_csv(folder / "prediction_sets.csv")
    none = sets[sets["class"] == "no permafrost"]
    assert len(none) == len(NAMES)
    assert (none["coverage_samples"] > 0.85).all()
    sizes = pd.read_csv(folder / "prediction_set_sizes.csv")
    assert sizes.groupby("layer")["share"].sum().to_numpy() == pytest.approx(1)
    np.testing.assert_array_equal(sizes["undecided"], sizes["classes"] >= 5)
    few = sets[sets["calibration_samples"] < 9]
    assert few[["limit", "coverage_samples"]].isna().all(axis=None)


def test_a_map_of_another_makes_its_table_and_raster(quick):
    record = json.loads((quick / "results/quick/main/tables/other_maps.json").read_text())[
        "air-frost-number"
    ]
    assert record["classes"] == ["no permafrost", "permafrost"]
    assert 0 < record["kappa"] < 1
    change, nodata, *_ = read(quick, "difference_air_frost_number")
    assert nodata == 255
    assert (change == 3).sum() * 36 == pytest.approx(record["confusion_km2"][1][1])
