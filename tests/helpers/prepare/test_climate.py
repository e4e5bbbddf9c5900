"""Surface temperature, its indices and gap filling; precipitation, air, soil; the registry."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.core import grid, rasters
from helpers.core.study import Study
from helpers.prepare import climate, registry, soil
from helpers.prepare.products import MODIS_LST, MONTHLY_PRECIPITATION, MONTHLY_TEMPERATURE, SOIL_FRACTION, raw_files

MONTHS = np.arange(12) + 0.5


def cycle(mean, amplitude, second=0.0):
    """Return monthly values of an annual and a half-annual wave, coldest in mid-January."""
    phase = 2 * np.pi * (MONTHS - 0.5) / 12
    return mean - amplitude * np.cos(phase) + second * np.sin(2 * phase)


@pytest.mark.parametrize(
    ("qc", "max_error", "accepted"),
    [
        (0b00000000, 1, True),
        (0b11000000, 1, True),
        (0b00000001, 1, True),
        (0b01000001, 1, False),
        (0b01000001, 2, True),
        (0b10000001, 2, False),
        (0b10000001, 3, True),
        (0b11000001, 3, False),
        (0b00000010, 3, False),
        (0b00000011, 3, False),
    ],
)
def test_quality_bits(qc, max_error, accepted):
    value = climate.decode_lst(np.array([14000], np.uint16), np.array([qc], np.uint8), max_error)[0]
    assert np.isfinite(value) == accepted
    if accepted:
        assert value == pytest.approx(280 - 273.15, abs=1e-3)


@pytest.mark.parametrize("number", [0, 7499])
def test_numbers_out_of_the_valid_range_are_missing(number):
    assert np.isnan(climate.decode_lst(np.array([number], np.uint16), np.array([0], np.uint8)))[0]


class TestHarmonicFilling:
    """Missing months from the mean and two harmonics of the others."""

    @pytest.mark.parametrize("missing", [[], [0], [5, 6], [0, 11], [0, 3, 6, 9], [4, 5, 6, 7]], ids=str)
    def test_recovers_an_exact_series(self, missing):
        truth = np.stack([cycle(-2, 22, 1.5), cycle(5, 15, -3)], axis=1).astype(np.float32)
        gappy = truth.copy()
        gappy[missing, 0] = np.nan
        np.testing.assert_allclose(climate.fill_harmonic(gappy), truth, atol=2e-3)

    @given(st.integers(0, 2**32 - 1))
    def test_keeps_valid_months_and_fills_each_cell_by_itself(self, seed):
        rng = np.random.default_rng(seed)
        monthly = rng.normal(size=(12, 40)).astype(np.float32)
        monthly[rng.random(monthly.shape) < 0.25] = np.nan
        filled = climate.fill_harmonic(monthly)
        enough = np.isfinite(monthly).sum(axis=0) >= 8
        assert np.isnan(filled[:, ~enough]).all()
        assert np.isfinite(filled[:, enough]).all()
        kept = np.isfinite(monthly) & enough
        np.testing.assert_array_equal(filled[kept], monthly[kept])
        alone = np.concatenate([climate.fill_harmonic(monthly[:, [cell]]) for cell in range(40)], axis=1)
        np.testing.assert_allclose(filled, alone, atol=1e-4)

    def test_equals_least_squares(self):
        monthly = np.random.default_rng(0).normal(size=(12, 1)).astype(np.float32)
        monthly[[2, 7]] = np.nan
        have = np.isfinite(monthly[:, 0])
        design = climate.harmonics_matrix(2)
        fit = np.linalg.lstsq(design[have], monthly[have, 0], rcond=None)[0]
        np.testing.assert_allclose(climate.fill_harmonic(monthly)[~have, 0], (design @ fit)[~have], atol=1e-5)


class TestIndices:
    """Thawing and freezing index and frost number."""

    @pytest.mark.parametrize(("mean", "amplitude"), [(-4, 20), (0, 22), (3, 18), (12, 10), (-15, 10)])
    def test_a_sine_year(self, mean, amplitude):
        """A sine year has indices in closed form; those of its monthly means come close from below."""
        share = np.clip(mean / amplitude, -1, 1)
        half = np.pi / 2 + np.arcsin(share)  # half of the thawing season, as an angle
        thawing = 365.25 / np.pi * (mean * half + amplitude * np.sin(half))
        freezing = thawing - 365.25 * mean
        edges = np.append(0, np.cumsum(climate.DAYS))
        day = (np.arange(365_250) + 0.5) / 1000
        daily = mean + amplitude * np.sin(2 * np.pi * day / 365.25)
        monthly = np.array([daily[(day >= a) & (day < b)].mean() for a, b in pairwise(edges)])
        for index, truth in ((climate.thawing_index, thawing), (climate.freezing_index, freezing)):
            assert index(monthly) <= truth + 0.5
            assert index(monthly) == pytest.approx(truth, abs=60)
        assert climate.annual_mean(monthly) == pytest.approx(mean, abs=0.01)

    def test_the_indices_differ_by_the_degree_days_of_the_mean(self):
        monthly = cycle(-3, 20).astype(np.float32)[:, None]
        difference = climate.thawing_index(monthly) - climate.freezing_index(monthly)
        np.testing.assert_allclose(difference, 365.25 * climate.annual_mean(monthly), rtol=1e-4)

    @pytest.mark.parametrize(("thawing", "freezing", "number"), [(1600, 1600, 0.5), (400, 3600, 0.75), (900, 0, 0)])
    def test_frost_numbers_by_hand(self, thawing, freezing, number):
        assert climate.frost_number(np.float64(thawing), np.float64(freezing)) == pytest.approx(number)

    def test_no_temperature_on_either_side_has_no_frost_number(self):
        assert np.isnan(climate.frost_number(np.zeros(1), np.zeros(1)))[0]

    @given(arrays.arrays(np.float64, 12, elements=st.floats(-60, 50)))
    def test_frost_number_of_a_half_is_a_mean_of_at_most_zero(self, monthly):
        mean = climate.annual_mean(monthly)
        thawing, freezing = climate.thawing_index(monthly), climate.freezing_index(monthly)
        if abs(mean) > 1e-9:  # on the boundary itself, rounding decides
            assert (climate.frost_number(thawing, freezing) >= 0.5) == (mean <= 0)


def test_area_of_frost_by_air_temperature_is_that_of_the_notes():
    assert climate.frost_area(Study(name="default")) == pytest.approx(20.4, rel=0.02)


def test_cell_areas_sum_to_the_earths_surface():
    latitude = np.arange(-89.875, 90, 0.25)
    assert climate.cell_areas(latitude, 0.25).sum() * 1440 == pytest.approx(510.0656e6, rel=1e-6)


@pytest.fixture
def raw_climate(study):
    """Monthly rasters of a sine year in the formats of the products, with a rejected month."""
    geobox = grid.geographic_grid((110, 37, 137, 55), 720)
    full = np.ones((12, *geobox.shape))
    year = cycle(-1, 20)[:, None, None] * full
    files, write = raw_files(study), {"geobox": geobox, "study": study, "units": "1", "names": "month"}
    for time, shift in (("day", 8), ("night", -8)):
        rasters.write_raster(files[f"lst_{time}"], MODIS_LST.encode(year + shift + 273.15), nodata=0, **write)
        qc = np.zeros(full.shape, np.uint8)
        qc[3] = 0b11000001
        rasters.write_raster(files[f"qc_{time}"], qc, **write)
    rasters.write_raster(files["air_temperature"], MONTHLY_TEMPERATURE.encode(year), nodata=-32768, **write)
    rasters.write_raster(files["precipitation"], MONTHLY_PRECIPITATION.encode(40.5 * full), nodata=65535, **write)
    return files


def test_make_gives_all_climate_layers(study, raw_climate):
    layers = climate.make(study)
    expected = {name for name, layer in registry.covariates(study).items() if layer.family == "climate"}
    assert set(layers) == expected
    inside = grid.area_mask(study, grid.reference_grid(study))
    year = cycle(-1, 20)
    known = {
        "lst_mean": climate.annual_mean(year),
        "thawing_index": climate.thawing_index(year),
        "freezing_index": climate.freezing_index(year),
        "mean_annual_air_temperature": climate.annual_mean(year),
        "precipitation": 486,
        "lst_valid_share": 11 / 12,
    }
    for name, value in known.items():
        np.testing.assert_allclose(layers[name][inside], value, rtol=2e-3, atol=0.06, err_msg=name)
    assert (layers["air_frost_number"][inside] > 0.5).all()


def test_a_file_without_twelve_months_is_named(study, raw_climate):
    geobox = grid.geographic_grid((110, 37, 137, 55), 720)
    rasters.write_raster(
        raw_climate["air_temperature"],
        np.zeros((11, *geobox.shape), np.int16),
        geobox,
        study=study,
        names="month",
        units="degC",
    )
    with pytest.raises(climate.ClimateError, match=r"air_temperature_monthly\.tif has 11 bands"):
        climate.make(study)


class TestSoil:
    """Percent by weight, with small gaps filled."""

    def test_gaps_are_filled_from_the_nearest_cell_within_a_distance(self):
        values = np.full((1, 9), np.nan, np.float32)
        values[0, 0] = 30
        np.testing.assert_array_equal(soil.fill_nearest(values, 1000, 3000), [[30, 30, 30, 30, *[np.nan] * 5]])

    def test_make_decodes_each_product(self, study):
        geobox = grid.geographic_grid((110, 37, 137, 55), 720)
        for name, number in (("sand", 400), ("silt", 350), ("clay", 250), ("soc", 250)):
            numbers = np.full(geobox.shape, number, np.int16)
            numbers[40:42, 60:62] = SOIL_FRACTION.fill
            rasters.write_raster(
                raw_files(study)[name], numbers, geobox, study=study, names=name, units="%", nodata=-32768
            )
        layers = soil.make(study)
        inside = grid.area_mask(study, grid.reference_grid(study))
        for name, percent in (("sand", 40), ("silt", 35), ("clay", 25), ("organic_carbon", 2.5)):
            np.testing.assert_allclose(layers[name][inside], percent, rtol=1e-5, err_msg=name)


class TestRegistry:
    """What is written can be read, and says what it is."""

    def test_layers_come_back_inside_the_area_only(self, study):
        geobox = grid.reference_grid(study)
        inside = grid.area_mask(study, geobox)
        registry.write_covariates(study, {"sand": np.full(geobox.shape, 40.0), "clay": np.full(geobox.shape, 20)})
        data = registry.read_covariates(study, ["sand", "clay"])
        np.testing.assert_array_equal(np.isfinite(data["sand"].to_numpy()), inside)
        assert data["sand"].attrs["units"] == "%"
        table = registry.coverage_table(study, data)
        assert table.loc["clay", "valid_cells"] == inside.sum()
        assert table.loc["clay", ["share_of_area", "minimum", "median", "maximum"]].tolist() == [
            1,
            20,
            20,
            20,
        ]
        with rasterio.open(registry.covariate_files(study)["sand"]) as source:
            assert source.units == ("%",)
            assert source.tags()["role"] == "predictor"
            assert source.tags()["SIMULATED"]

    def test_unknown_names_and_shapes_are_refused_before_anything_is_written(self, study):
        geobox = grid.reference_grid(study)
        with pytest.raises(registry.CovariateError, match="no covariate peat"):
            registry.write_covariates(study, {"sand": np.zeros(geobox.shape), "peat": np.zeros(geobox.shape)})
        with pytest.raises(registry.CovariateError, match="sand has"):
            registry.write_covariates(study, {"sand": np.zeros((3, 3))})
        assert not study.processed_dir.exists()

    def test_missing_files_are_named(self, study):
        with pytest.raises(registry.CovariateError, match=r"missing from .*: clay"):
            registry.read_covariates(study, ["clay"])

    def test_every_layer_is_described(self, study):
        for name, layer in registry.covariates(study).items():
            assert layer.name == name
            assert layer.title
            assert layer.long_name
            assert layer.unit
            assert layer.aggregation
            assert layer.source


PROCESSOR = """
import hashlib, numpy as np
from helpers.prepare import climate
from helpers.core.grid import local_factors, reference_grid
from helpers.core.study import Study

rng, digest = np.random.default_rng(1), hashlib.sha256()
monthly = rng.normal(0, 15, (12, 20_000)).astype(np.float32)
monthly[rng.random(monthly.shape) < 0.15] = np.nan
filled = climate.fill_harmonic(monthly)
factors = local_factors(reference_grid(Study(name="tiny", grid={"resolution": 20_000, "fine_resolution": 10_000})))
for values in (filled, climate.annual_mean(filled), climate.thawing_index(filled), *vars(factors).values()):
    digest.update(np.ascontiguousarray(values).tobytes())
print(digest.hexdigest())
"""


def test_covariates_do_not_depend_on_how_a_processor_multiplies_matrices():
    """OpenBLAS has kernels of its own for each processor; results must not change with them."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PROCESSOR], env={**os.environ, "OPENBLAS_CORETYPE": kind}, text=True, check=True,
            capture_output=True,
        ).stdout
        for kind in ("Nehalem", "Haswell")
    }  # fmt: skip
    assert len(found) == 1
