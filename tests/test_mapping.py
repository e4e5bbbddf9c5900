"""The map: storage by hand, the same forest on any number of threads, and what the quick run's files hold."""

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from helpers import forest, ice, mapping
from helpers.study import Study

STUDY = Study.open("config/quick.yaml")
NAMES = [ice.layer_name(layer) for layer in STUDY.layers]


def test_storage_of_three_cells_by_hand():
    """Cells of 6 km: contents 0.5, 0 and 0.1 over layers of 1, 2 and 5 m give 4, 0 and 0.8 m of ice."""
    content = np.array([[0.5, 0.0, 0.1]], np.float32)
    truth = np.array([[0.4, 0.0, 0.0]], np.float32)
    found = mapping.compare_storage(STUDY, [content] * 3, [truth] * 3, np.array([[False, False, True]]))
    assert found["mapped_km3"] == pytest.approx(4.8 * 36 / 1000)
    assert found["true_km3"] == pytest.approx(3.2 * 36 / 1000)
    assert found["bias"] == pytest.approx(0.5)
    assert found["in_permafrost_free_cells"] == pytest.approx(0.8 / 4.8)


def test_prediction_is_the_same_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(mapping, "CHUNK", 50)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(333, 4)).astype(np.float32)
    types = rng.integers(0, 6, 333)
    model = RandomForestClassifier(20, random_state=1, n_jobs=2).fit(values, types)
    calibration = forest.fit_calibration(forest.class_probabilities(model, values), types)
    one, two = (mapping.predict(model, calibration, values, threads) for threads in (1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(one[0], model.predict(values))
    np.testing.assert_allclose(one[1].sum(axis=1), 1, atol=1e-6)


def test_ice_lies_within_the_extent_of_permafrost():
    content, probability = np.array([0.3, 0.2, 0.1, 0.1], np.float32), np.array([0.9, 0.8, 0.2, 0.1])
    np.testing.assert_allclose(mapping.within_extent(content, probability), [0.42, 0.28, 0, 0], rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.floats(0.01, 5))
@settings(deadline=None, max_examples=60)
def test_the_extent_keeps_the_total_and_has_the_area_of_the_probabilities(seed, cells, shape):
    rng = np.random.default_rng(seed)
    probability = rng.beta(shape, 1, cells)
    content = (probability * rng.uniform(0.1, 0.5, cells)).astype(np.float32)
    moved = mapping.within_extent(content, probability)
    assert moved.sum() == pytest.approx(content.sum(), rel=1e-5)
    assert (moved >= 0).all()
    if probability.sum() >= 1:
        assert abs((moved > 0).sum() - probability.sum()) <= 1.5


def test_certain_permafrost_stays_where_it_is():
    content, probability = np.array([0.3, 0.0, 0.1], np.float32), np.array([1.0, 0.0, 1.0])
    np.testing.assert_array_equal(mapping.within_extent(content, probability), content)


def read(quick, name):
    with rasterio.open(quick / f"results/quick/main/maps/{name}.tif") as source:
        return source.read(), source


@pytest.mark.parametrize("layer", NAMES)
def test_type_maps_hold_classes_names_and_colours(quick, layer):
    types, source = read(quick, f"ice_type_{layer}")
    assert source.nodata == 255
    assert types.dtype == np.uint8
    assert set(np.unique(types)) <= {*range(6), 255}
    with rasterio.open(source.name) as raster:
        assert raster.colormap(1)[5][:3] == (0x25, 0x34, 0x94)
        assert raster.tags(1)["class_4"] == "ice-saturated frozen soil"
        assert "SIMULATED" in raster.tags()


@pytest.mark.parametrize("layer", NAMES)
def test_probabilities_add_up_and_contents_follow_from_them(quick, layer):
    shares, source = read(quick, f"class_probability_{layer}")
    content, _ = read(quick, f"ice_content_{layer}")
    valid = shares[0] != 65535
    assert source.count == 6
    assert (shares[:, valid].astype(int).sum(axis=0) == 10_000).all()
    card = json.loads((quick / f"results/quick/main/models/forest_{layer}.json").read_text())
    expected = np.tensordot(card["class_means"], shares / 1e4, axes=1)[valid]
    np.testing.assert_allclose(content[0][valid].mean(), expected.mean(), rtol=1e-3)
    some = content[0][valid] > 0
    assert some.sum() == pytest.approx((1 - shares[0][valid] / 1e4).sum(), rel=0.01)
    ratio = content[0][valid][some] / expected[some]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.02)
    assert np.isnan(content[0][~valid]).all()


def test_totals_add_up(quick):
    record = json.loads((quick / "results/quick/main/tables/storage.json").read_text())
    regions = dict(record["regions"])
    whole = regions.pop("all")
    assert len(regions) == 8
    for name in ("ice_km3", "water_km3", "mapped_km2", "extent_km2"):
        assert sum(part[name] for part in regions.values()) == pytest.approx(whole[name])
    assert whole["water_km3"] == pytest.approx(0.917 * whole["ice_km3"])
    storage, _ = read(quick, "ice_storage")
    assert np.nansum(storage) * 36 / 1000 == pytest.approx(whole["ice_km3"], rel=0.02)
