"""Covariates in parts: a large grid gives what the whole one would."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from helpers.core import grid, rasters
from helpers.core.study import Study
from helpers.prepare import make, terrain
from helpers.prepare.products import MONTHLY_PRECIPITATION, SOIL_FRACTION, raw_files
from helpers.prepare.registry import (
    CovariateError,
    ElsewhereError,
    NoValuesError,
    covariate_files,
    fine_files,
)

BOUNDS = (108, 36, 139, 56)


@pytest.fixture
def raw(study, tmp_path):
    """Valleys, soil with a gap, rain that ends in the east, and two rasters of the user."""
    write = {"study": study, "names": "band", "units": "1"}
    geobox = grid.geographic_grid(BOUNDS, 180)
    longitude, latitude = np.meshgrid(*grid.cell_centres(geobox))
    valleys = 40 * latitude + 300 * abs(np.sin(3 * longitude))
    rasters.write_raster(tmp_path / "raw/dem.tif", valleys.astype(np.float32), geobox, **write)
    coarse = grid.geographic_grid(BOUNDS, 720)
    longitude, latitude = np.meshgrid(*grid.cell_centres(coarse))
    files = raw_files(study)
    for name in ("sand", "silt", "clay", "soc"):
        numbers = np.rint(20 * (longitude - 108)).astype(np.int16)
        numbers[(abs(latitude - 47) < 0.3) & (abs(longitude - 124) < 3)] = SOIL_FRACTION.fill
        rasters.write_raster(files[name], numbers, coarse, nodata=-32768, **write)
    west = grid.geographic_grid((108, 36, 121, 56), 720)
    wetter = np.broadcast_to(np.linspace(20, 60, west.shape[1]), (12, *west.shape))
    rain = MONTHLY_PRECIPITATION.encode(wetter)
    rasters.write_raster(files["precipitation"], rain, west, nodata=65535, scale=0.1, **write)
    cover = (longitude // 3).astype(np.uint8)
    rasters.write_raster(tmp_path / "cover.tif", cover, coarse, **write)
    rasters.write_raster(tmp_path / "depth.tif", np.float32(longitude), coarse, **write)
    sources = {field: getattr(study.source, field) for field in ("dem", "precipitation", "soil")}
    return study.changed(
        {
            "source": sources,
            "grid.margin": 0,
            "predictors": [
                "elevation",
                {"name": "cover", "file": str(tmp_path / "cover.tif"), "kind": "category"},
                {"name": "depth", "file": str(tmp_path / "depth.tif")},
            ],
        }
    )


def made(study, folder, monkeypatch):
    """Make all layers in a folder; return them by name, and tags of their files."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: folder))
    list(make.make_covariates(study))
    layers, tags = {}, {}
    files = {f"fine {name}": path for name, path in fine_files(study).items()}
    for name, path in (covariate_files(study) | files).items():
        with rasterio.open(path) as source:
            layers[name], tags[name] = source.read(1), source.tags()
    return layers, tags


def only(study, name):
    """Return the study with one of the user's rasters as its only predictor."""
    (one,) = (one for one in study.own_predictors if one.name == name)
    return study.changed({"source": {"kind": "files"}, "predictors": [one.model_dump()]})


def in_small_parts(monkeypatch):
    monkeypatch.setattr(make, "SIDE", 16)
    monkeypatch.setattr(make, "FINE_SIDE", 72)
    monkeypatch.setattr(make, "_BLOCK", 4)
    monkeypatch.setattr(terrain, "_MARGIN_CELLS", 20)


def test_parts_give_what_the_whole_grid_gives(raw, tmp_path, monkeypatch):
    whole, tags = made(raw, tmp_path / "whole", monkeypatch)
    in_small_parts(monkeypatch)
    assert len(grid.grid_windows(grid.reference_grid(raw), (make._terrain_side(raw),) * 2)) > 9
    parts, tags_of_parts = made(raw, tmp_path / "parts", monkeypatch)
    inside = grid.area_mask(raw, grid.reference_grid(raw))
    cut = parts["twi_edge"] > 0
    assert 0.02 < cut[inside].mean() - whole["twi_edge"][inside].mean() < 0.5
    # A depression that a margin cuts drains there, where the whole grid has it drain on.
    assert ((whole["twi_edge"] > 0) & ~cut)[inside].mean() < 0.03
    assert np.quantile(abs(parts["twi"] - whole["twi"])[inside & ~cut], 0.95) < 0.1
    for name in set(whole) - {"twi", "twi_edge", "fine twi"}:
        here = np.isfinite(whole[name]) if name.startswith("fine") else inside
        if name.startswith("fine"):  # parts without a cell of the study area are passed over
            here &= np.isfinite(parts[name])
            assert here.mean() > 0.5
        found, expected = parts[name][here], whole[name][here]
        if name == "aspect":
            found, expected = np.cos(np.radians(found)), np.cos(np.radians(expected))
        assert (np.isfinite(found) == np.isfinite(expected)).mean() > 0.995, name
        apart = np.nanquantile(abs(found - expected), 0.9) / np.nanstd(expected)
        assert apart < 0.1, name  # GDAL's places in a file differ a little in each part
    for name in covariate_files(raw):
        assert tags_of_parts[name].keys() == tags[name].keys()
        assert tags_of_parts[name].get("categories") == tags[name].get("categories")
        shares = [float(one[name]["valid_share"]) for one in (tags, tags_of_parts)]
        assert shares[0] == pytest.approx(shares[1], abs=2e-3)
    assert np.isnan(whole["precipitation"][inside]).any()


def test_rasters_elsewhere_are_refused_and_nothing_is_written(raw, tmp_path, monkeypatch):
    elsewhere = grid.geographic_grid((0, 0, 2, 2), 720)
    path = tmp_path / "depth.tif"
    write = {"study": raw, "names": "band", "units": "1"}
    rasters.write_raster(path, np.ones(elsewhere.shape, np.float32), elsewhere, **write)
    in_small_parts(monkeypatch)
    with pytest.raises(CovariateError, match=r"No part of the grid .* depth: .*lies outside"):
        made(only(raw, "depth"), tmp_path / "parts", monkeypatch)
    assert not list((tmp_path / "parts").glob("*depth*"))


def test_too_many_categories_are_found_over_all_parts(raw, tmp_path, monkeypatch):
    geobox = grid.geographic_grid(BOUNDS, 720)
    codes = np.arange(geobox.shape[0] * geobox.shape[1]).reshape(geobox.shape) // 10
    write = {"study": raw, "names": "band", "units": "1"}
    rasters.write_raster(tmp_path / "cover.tif", codes.astype(np.uint16), geobox, **write)
    in_small_parts(monkeypatch)
    with pytest.raises(CovariateError, match=r"cover\.tif has \d+ categories; 255 are possible"):
        made(only(raw, "cover"), tmp_path / "parts", monkeypatch)


@pytest.mark.parametrize(
    ("rows", "columns", "resolution", "fine", "margin"),
    [
        (1655, 1716, 1000, 500, 40_000),  # the default study is one part
        (100, 32_000, 30, 30, 40_000),
        (40_000, 40_000, 30, 30, 40_000),
        (3000, 3000, 1000, 20, 40_000),
        (9000, 9000, 5, 5, 0),
    ],
)
def test_no_part_of_terrain_is_larger_than_memory(
    rows, columns, resolution, fine, margin, monkeypatch
):
    whole = GeoBox((rows, columns), Affine(resolution, 0, 0, 0, -resolution, 0), "EPSG:32651")
    monkeypatch.setattr(grid, "_coarse_grid", lambda study: whole)
    study = Study(
        name="large", grid={"resolution": resolution, "fine_resolution": fine, "margin": margin}
    )
    side = make._terrain_side(study)
    if (rows, columns) == (1655, 1716):
        assert len(grid.grid_windows(whole, (side, side))) == 1
    assert side % 256 == 0 or 256 % side == 0 or side >= max(rows, columns)
    limit = max(make.FINE_SIDE, 3 * margin / fine + 2) ** 2
    assert make.most_fine_cells(study) * 1e6 <= limit


def test_of_two_problems_the_nearer_one_is_told(study):
    """In one part there are scenes, but none is clear; in the others there are none."""

    def no_scene(study, part):
        clouds = part.boundingbox.left < grid.reference_grid(study).boundingbox.left + 1
        raise (NoValuesError if clouds else ElsewhereError)("clouds" if clouds else "none", "")

    parts = make.made_by_parts(study, no_scene, ["landsat_valid_share"], 16)
    with pytest.raises(CovariateError, match=r"No part of the grid .*clouds"):
        list(parts)
