"""Topsoil in percent by weight, with small gaps filled."""

import numpy as np

from helpers.core import grid, rasters
from helpers.core.study import Study
from helpers.prepare import soil
from helpers.prepare.products import SOIL_DEPTHS, SOIL_FRACTION, SOIL_LAYERS, raw_files


def test_gaps_are_filled_from_the_nearest_cell_within_a_distance():
    values = np.full((1, 9), np.nan, np.float32)
    values[0, 0] = 30
    np.testing.assert_array_equal(
        soil.fill_nearest(values, 1000, 3000), [[30, 30, 30, 30, *[np.nan] * 5]]
    )


def test_make_decodes_each_product(study):
    geobox = grid.geographic_grid((110, 37, 137, 55), 720)
    for name, number in (("sand", 400), ("silt", 350), ("clay", 250), ("soc", 250)):
        numbers = np.full(geobox.shape, number, np.int16)
        numbers[40:42, 60:62] = SOIL_FRACTION.fill
        rasters.write_raster(
            raw_files(study)[name],
            numbers,
            geobox,
            study=study,
            names=name,
            units="%",
            nodata=-32768,
        )
    layers = soil.make(study, grid.reference_grid(study))
    inside = grid.area_mask(study, grid.reference_grid(study))
    for name, percent in (("sand", 40), ("silt", 35), ("clay", 25), ("organic_carbon", 2.5)):
        np.testing.assert_allclose(layers[name][inside], percent, rtol=1e-5, err_msg=name)


def test_single_depths_are_averaged_by_their_thickness(tmp_path, monkeypatch):
    """5, 10 and 15 cm of 10, 40 and 70 %: 50 %. A cell that lacks a depth has no value."""
    study = Study(
        name="depths",
        source={"soil": str(tmp_path)},
        area={"box": (120, 50, 120.2, 50.1)},
        grid={"resolution": 1000, "fine_resolution": 1000},
    )
    geobox = grid.geographic_grid((119.5, 49.7, 120.7, 50.4), 60)
    for layer in SOIL_LAYERS:
        for depth, number in zip(SOIL_DEPTHS, (100, 400, 700), strict=True):
            numbers = np.full(geobox.shape, number, np.int16)
            if depth == "0-5cm":
                numbers[:, :36] = SOIL_FRACTION.fill
            path = tmp_path / f"{layer}_{depth}_mean.tif"
            rasters.write_raster(
                path, numbers, geobox, study=study, names=layer, units="%", nodata=-32768
            )
    assert len(raw_files(study)) == 12
    monkeypatch.setattr(soil, "fill_nearest", lambda values, *_: values)
    sand = soil.make(study, grid.reference_grid(study))["sand"]
    values = sand[np.isfinite(sand)]
    np.testing.assert_allclose(values, 50, rtol=1e-5)
    assert 0.2 < values.size / sand.size < 0.8
