"""Topsoil in percent by weight, with small gaps filled."""

import numpy as np

from helpers.core import grid, rasters
from helpers.prepare import soil
from helpers.prepare.products import SOIL_FRACTION, raw_files


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
    layers = soil.make(study)
    inside = grid.area_mask(study, grid.reference_grid(study))
    for name, percent in (("sand", 40), ("silt", 35), ("clay", 25), ("organic_carbon", 2.5)):
        np.testing.assert_allclose(layers[name][inside], percent, rtol=1e-5, err_msg=name)
