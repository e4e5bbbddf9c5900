"""Storage of ice and its totals: by hand, and those of the quick run."""

import json

import numpy as np
import pytest
import rasterio
from conftest import SOURCE

from helpers.core.grid import area_mask, grid_windows, reference_grid, study_regions
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.mapping import storage
from helpers.mapping.cells import Ground, study_ground
from helpers.mapping.files import map_files
from helpers.mapping.storage import map_storage, storage_totals
from helpers.prepare.registry import write_covariates


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Return a study of cells of 400 km2, its grid, names of regions, and their numbers by cell."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path))
    study = Study(
        name="tiny",
        source=SOURCE,
        grid={"resolution": 20_000, "fine_resolution": 10_000},
        layers=[(2, 3), (3, 5)],
        maps={"elevation_band": 100},
    )
    geobox = reference_grid(study)
    names, shapes = study_regions(study, geobox)
    region = rasterio.features.rasterize(shapes, geobox.shape, transform=geobox.transform)
    return study, geobox, names, region


def write_layer(study, layer, content, types):
    """Write a layer's maps; the reference's has the next type in each cell, but for the last."""
    reference = np.where(types < 5, types + 1, types).astype(np.uint8)
    kinds = {"ice_content": content, "ice_type": types, "ice_type_reference": reference}
    for kind, data in kinds.items():
        nodata = None if kind == "ice_content" else 255
        path = map_files(study)[f"{kind}_{layer}"]
        geobox = reference_grid(study)
        write_raster(path, data, geobox, study=study, names=kind, units="1", nodata=nodata)


def test_totals_of_three_cells_by_hand(tiny, monkeypatch):
    """Of 400 km2: 0.5, 0, 0.1 of 2-3 m and 0.2, 0.3, 0 of 3-5 m are 0.9, 0.6, 0.1 m of ice."""
    study, geobox, names, region = tiny
    inside = area_mask(study, geobox)
    cells = np.flatnonzero(inside & (region == 3))[:3]
    for layer, ices, types in (
        ("2-3m", [0.5, 0, 0.1], [5, 0, 1]),
        ("3-5m", [0.2, 0.3, 0], [3, 4, 0]),
    ):
        content, kinds = (
            np.full(geobox.shape, np.nan, np.float32),
            np.full(geobox.shape, 255, np.uint8),
        )
        content.ravel()[cells], kinds.ravel()[cells] = ices, types
        write_layer(study, layer, content, kinds)
    elevation = np.full(geobox.shape, 50, np.float32)
    elevation.ravel()[cells[2]] = 700
    write_covariates(study, {"elevation": elevation})

    with rasterio.open(map_storage(study)) as source:
        assert source.descriptions == ("ice_thickness", "ice_mass", "water_equivalent")
        assert source.units == ("m", "kg m-2", "mm")
        bands = source.read().reshape(3, -1)
    np.testing.assert_allclose(bands[:, cells], np.outer([1, 917, 917], [0.9, 0.6, 0.1]), rtol=1e-6)
    assert np.isnan(np.delete(bands, cells, axis=1)).all()
    result = storage_totals(study)
    for table in (
        result["regions"].loc[names[2]],
        result["regions"].loc["all"],
        result["elevation_bands"].loc["all"],
    ):
        assert table["mapped_km2"] == table["extent_km2"] == 1200
        assert table["ice_km3_2-3m"] == pytest.approx(0.24)
        assert table["ice_km3"] == pytest.approx(0.64)
        assert table["water_km3"] == pytest.approx(0.64 * 0.917)
        assert table["mean_thickness_m_3-5m"] == pytest.approx(1 / 3)
        assert table["mean_thickness_m"] == pytest.approx(1.6 / 3)
        assert table["mean_mass_kg_m2"] == pytest.approx(917 * 1.6 / 3)
        assert table["mean_water_equivalent_mm"] == pytest.approx(917 * 1.6 / 3)
    assert result["regions"]["ice_km3"].drop(["all", names[2]]).eq(0).all()
    assert result["elevation_bands"]["ice_km3"].round(6).to_dict() == {
        "0-100m": 0.6,
        "700-800m": 0.04,
        "all": 0.64,
    }
    elevation.ravel()[cells[2]] = np.nan
    write_covariates(study, {"elevation": elevation})
    without = storage_totals(study)["elevation_bands"]["ice_km3"]
    assert without.round(6).to_dict() == {"0-100m": 0.6, "without elevation": 0.04, "all": 0.64}
    # Half of the first cell is water, and nobody knows of the second one.
    share = np.ones(geobox.shape, np.float32)
    share.ravel()[cells[:2]] = 0.5, np.nan
    deep = np.full(geobox.shape, np.inf, np.float32)
    ground = Ground(np.nan_to_num(share, nan=1), deep, 0.03)
    monkeypatch.setattr(storage, "study_ground", lambda study, part: ground[part])
    monkeypatch.setattr(storage, "GROUND_SHARE", "elevation")  # a covariate that the study has
    row = storage_totals(study)["regions"].loc["all"]
    assert row["ice_km3"] == pytest.approx(0.64 - 0.18)
    assert row[["mapped_km2", "extent_km2", "no_ice_km2"]].tolist() == [1200, 1000, 200]
    assert row["mean_thickness_m"] == pytest.approx(0.46)
    with rasterio.open(map_storage(study)) as source:
        np.testing.assert_allclose(source.read(1).ravel()[cells], [0.45, 0.6, 0.1], rtol=1e-6)
    # A quarter of 3-5 m of the first cell is above bedrock, which holds 0.03 at most: 0.145 m.
    deep.ravel()[cells] = 3.5, 9.0, 1.0
    row = storage_totals(study)["regions"].loc["all"]
    assert row["ice_km3_3-5m"] == pytest.approx(0.4 * (0.145 / 2 + 0.6))
    assert row["ice_km3_2-3m"] == pytest.approx(0.4 * (0.5 / 2 + 0.03))
    with rasterio.open(map_storage(study)) as source:
        np.testing.assert_allclose(source.read(1).ravel()[cells], [0.3225, 0.6, 0.03], rtol=1e-6)
    types = result["types"]
    assert types["area_km2_2-3m"].tolist() == [400, 400, 0, 0, 0, 400]
    assert types["reference_km2_2-3m"].tolist() == [0, 400, 400, 0, 0, 400]
    np.testing.assert_allclose(types["ice_km3_3-5m"], [0, 0, 0, 0.16, 0.24, 0], rtol=1e-6)


def test_the_depth_to_bedrock_is_read_in_metres(tiny):
    study, geobox, *_ = tiny
    rock = {"name": "rock", "file": "rock.tif", "unit": "cm", "bedrock": True}
    study = study.changed({"predictors": ["elevation", rock]})
    depth = np.full(geobox.shape, np.nan, np.float32)
    row, column = (place[:3] for place in np.nonzero(area_mask(study, geobox)))
    depth[row[:2], column[:2]] = 350, 90
    write_covariates(study, {"rock": depth})
    ground = study_ground(study)[row, column]
    np.testing.assert_allclose(ground.bedrock, [3.5, 0.9, np.inf])
    assert (ground.share == 1).all()
    held = ground.holds(np.full(3, 0.2), (3, 5))
    np.testing.assert_allclose(held, [0.25 * 0.2 + 0.75 * 0.03, 0.03, 0.2], rtol=1e-6)


def test_a_region_that_lacks_more_than_two_percent_is_incomplete(tiny, monkeypatch):
    study, geobox, names, region = tiny
    # Some windows have no value at all.
    monkeypatch.setattr(storage, "grid_windows", lambda geobox: grid_windows(geobox, (10, 10)))
    whole = area_mask(study, geobox)
    write_covariates(study, {"elevation": np.where(region == 3, 150, 50)})
    holes = whole & (region != 3)
    holes.ravel()[np.flatnonzero(region == 1)[:2]] = False
    for mapped in (whole, holes):
        for layer in ("2-3m", "3-5m"):
            content = np.where(mapped, 0.1, np.nan).astype(np.float32)
            write_layer(study, layer, content, np.where(mapped, 1, 255).astype(np.uint8))
        totals = storage_totals(study)
        tables = [totals["regions"], totals["elevation_bands"]]
        for table in tables:
            area = table["mapped_km2"] + table["no_data_km2"]
            assert table.loc["all", "mapped_km2"] == 400 * mapped.sum()
            assert area["all"] == 400 * whole.sum()
            assert table["no_data_share"].tolist() == (table["no_data_km2"] / area).tolist()
            if mapped is whole:
                assert table["no_data_km2"].eq(0).all()
                assert not table["incomplete"].any()
    regions, bands = tables
    lacking = {names[0]: 800, names[2]: 400 * (region == 3).sum()}
    assert regions["no_data_km2"][lambda km2: km2 > 0].to_dict() == {
        **lacking,
        "all": sum(lacking.values()),
    }
    assert bands["no_data_km2"].tolist() == [*lacking.values(), sum(lacking.values())]
    assert 0 < regions["no_data_share"][names[0]] < storage.MOST_MISSING
    assert regions.index[regions["incomplete"]].tolist() == [names[2], "all"]
    assert bands.index[bands["incomplete"]].tolist() == ["100-200m", "all"]
    # There are no models here, whose cards would say it.
    monkeypatch.setattr(storage, "how_sites_count", lambda _: "as drawn")
    storage.write_totals(study, totals)
    record = json.loads((study.results_dir / "tables" / "storage.json").read_text())
    assert record["regions"][names[2]]["incomplete"] is True
    assert set(record["regions"]["all"]) - set(record["units"]) <= {
        f"{name}_{layer}" for name in ("ice_km3", "mean_thickness_m") for layer in ("2-3m", "3-5m")
    }


def test_totals_add_up(quick):
    record = json.loads((quick / "results/quick/main/tables/storage.json").read_text())
    regions = dict(record["regions"])
    whole = regions.pop("all")
    assert len(regions) == 8
    for name in ("ice_km3", "water_km3", "mapped_km2", "extent_km2"):
        assert sum(part[name] for part in regions.values()) == pytest.approx(whole[name])
    assert whole["water_km3"] == pytest.approx(0.917 * whole["ice_km3"])
    with rasterio.open(quick / "results/quick/main/maps/ice_storage.tif") as source:
        thickness = source.read(1)
    assert np.nansum(thickness) * 36 / 1000 == pytest.approx(whole["ice_km3"], rel=0.02)
