"""How far the map may be believed: levels by hand, and what the quick run's rasters and tables hold."""

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
    members = np.isin(range(4), classes)[np.newaxis]
    found = trust.level_of([density], [none], members, [in_domain], Trust(similar_samples=3))
    assert found.tolist() == [level]


def read(quick, name):
    with rasterio.open(quick / f"results/quick/main/maps/{name}.tif") as source:
        return source.read().squeeze(), source.nodata, source.tags(), source.tags(1)


@pytest.mark.parametrize("layer", NAMES)
def test_rasters_fit_each_other(quick, layer):
    chances = read(quick, f"class_probability_{layer}")[0]
    dissimilarity, density = (read(quick, f"{kind}_{layer}")[0] for kind in ("dissimilarity_index", "point_density"))
    count, bits = read(quick, f"prediction_set_{layer}")[0]
    mapped = chances[0] != 65535
    for band, none in ((dissimilarity, np.isnan), (density, lambda v: v == 65535), (count, lambda v: v == 0)):
        np.testing.assert_array_equal(none(band), ~mapped)
    record = json.loads((quick / "results/quick/main/tables/applicability.json").read_text())["layers"][layer]
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
            codes = {int(entry.get("value")) for entry in renderer.findall("colorPalette/paletteEntry")}
            assert set(np.unique(band)) <= codes, path.name
        else:
            values = [float(item.get("value")) for item in renderer.findall("rastershader/colorrampshader/item")]
            assert values == sorted(values)
            assert values[0] <= np.nanmedian(band) <= values[-1], path.name


def test_levels_of_the_map_have_names_and_meanings(quick):
    levels, nodata, tags, band = read(quick, "trust")
    assert nodata == 0
    assert set(np.unique(levels)) <= {0, *trust.LEVELS}
    assert band["class_1"] == "unlike the samples"
    assert tags["meaning_4"] == trust.LEVELS[4][2]
    assert "SIMULATED" in tags


def test_tables_tell_the_map_and_the_truth(quick):
    folder = quick / "results/quick/main/tables"
    errors, sets = pd.read_csv(folder / "applicability.csv"), pd.read_csv(folder / "prediction_sets.csv")
    for (_, _, by), part in errors.groupby(["layer", "domain", "by"]):
        whole = errors[(errors["layer"] == part["layer"].iloc[0]) & (errors["domain"] == part["domain"].iloc[0])]
        whole = whole[whole["by"] == "all"].iloc[0]
        assert part["cells"].sum() == whole["cells"], by
        for name in ("error", "error_probable", "expected"):
            assert (part[name] * part["cells"]).sum() / whole["cells"] == pytest.approx(whole[name], abs=1e-6)
    # Where the map is said to be sure, it is wrong less often than one time in ten.
    sure = errors[(errors["by"] == "trust") & (errors["group"] == "sure")]
    assert len(sure) >= len(NAMES)
    assert (sure["error_probable"] < 1 - STUDY.trust.coverage).all()
    none = sets[(sets["class"] == "no permafrost") & (sets["domain"] == "whole")]
    assert (none[["coverage_samples", "coverage_cells"]] > 0.85).all(axis=None)
    assert (
        sets.loc[sets["calibration_samples"] < 9, ["limit", "coverage_samples", "coverage_cells"]].isna().all(axis=None)
    )


def test_a_map_of_another_makes_its_table_and_raster(quick):
    record = json.loads((quick / "results/quick/main/tables/other_maps.json").read_text())["air-frost-number"]
    assert record["classes"] == ["no permafrost", "permafrost"]
    assert 0 < record["kappa"] < 1
    change, nodata, *_ = read(quick, "difference_air_frost_number")
    assert nodata == 255
    assert (change == 3).sum() * 36 == pytest.approx(record["confusion_km2"][1][1])
