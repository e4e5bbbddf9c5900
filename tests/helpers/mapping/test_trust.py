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


@pytest.mark.parametrize(
    ("density", "none", "classes", "in_domain", "level"),
    [
        pytest.param(5, 0.95, [0], True, 4, id="surely no permafrost"),
        pytest.param(5, 0.05, [2], True, 4, id="surely of one class"),
        pytest.param(5, 0.05, [0, 2], True, 4, id="the set's no permafrost counts for nothing"),
        pytest.param(5, 0.05, [2, 3], True, 3, id="surely permafrost"),
        pytest.param(5, 0.9, [0], True, 4, id="just sure"),
        pytest.param(5, 0.8999, [0], True, 2, id="just in doubt"),
        pytest.param(0, 0.95, [0], True, 1, id="unlike the samples"),
        pytest.param(2, 0.95, [0], True, 1, id="too few are alike"),
        pytest.param(0, 0.95, [0], False, 4, id="too warm anyway"),
        pytest.param(0, 0.5, [0], False, 1, id="in doubt beyond the domain"),
    ],
)
def test_levels_by_hand(density, none, classes, in_domain, level):
    members = np.isin(range(1, 4), classes)[np.newaxis]  # of permafrost
    levels = trust.level_of([density], [none], members, [in_domain], Trust(similar_samples=3))
    assert levels.tolist() == [level]


def read(quick, name):
    with rasterio.open(quick / f"results/quick/main/maps/{name}.tif") as source:
        return source.read().squeeze(), source.nodata, source.tags(), source.tags(1)


@pytest.mark.parametrize("layer", NAMES)
def test_rasters_fit_each_other(quick, layer):
    chances = read(quick, f"class_probability_{layer}")[0]
    dissimilarity, density = (
        read(quick, f"{kind}_{layer}")[0] for kind in ("dissimilarity_index", "point_density")
    )
    count, bits = read(quick, f"prediction_set_{layer}")[0]
    mapped = chances[0] != 65535
    for band, none in (
        (dissimilarity, np.isnan),
        (density, lambda v: v == 65535),
        (count, lambda v: v == 0),
    ):
        np.testing.assert_array_equal(none(band), ~mapped)
    record = json.loads((quick / "results/quick/main/tables/applicability.json").read_text())[
        "layers"
    ][layer]
    np.testing.assert_array_equal(density[mapped] > 0, dissimilarity[mapped] < record["threshold"])
    members = bits[mapped][:, np.newaxis] >> np.arange(6) & 1
    np.testing.assert_array_equal(members.sum(axis=1), count[mapped])
    probable = chances[:, mapped].argmax(axis=0)
    assert members[np.arange(len(members)), probable].all()
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
    assert ((cells["by"] == "trust") & (cells["group"] == "sure")).sum() >= len(NAMES)
    sets = pd.read_csv(folder / "prediction_sets.csv")
    none = sets[(sets["class"] == "no permafrost") & (sets["domain"] == "whole")]
    assert (none["coverage_samples"] > 0.85).all()
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
