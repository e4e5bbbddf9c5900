"""Surface temperature, its indices and gap filling; precipitation and air temperature."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.core import grid, rasters
from helpers.core.study import Study
from helpers.prepare import climate, registry
from helpers.prepare.products import (
    MODIS_LST,
    MONTHLY_PRECIPITATION,
    MONTHLY_TEMPERATURE,
    raw_files,
)
from helpers.prepare.registry import CovariateError

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

    @pytest.mark.parametrize(
        "missing", [[], [0], [5, 6], [0, 11], [0, 3, 6, 9], [4, 5, 6, 7]], ids=str
    )
    def test_recovers_an_exact_series(self, missing):
        exact = np.stack([cycle(-2, 22, 1.5), cycle(5, 15, -3)], axis=1).astype(np.float32)
        gappy = exact.copy()
        gappy[missing, 0] = np.nan
        np.testing.assert_allclose(climate.fill_harmonic(gappy), exact, atol=2e-3)

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
        alone = np.concatenate(
            [climate.fill_harmonic(monthly[:, [cell]]) for cell in range(40)], axis=1
        )
        np.testing.assert_allclose(filled, alone, atol=1e-4)

    def test_equals_least_squares(self):
        monthly = np.random.default_rng(0).normal(size=(12, 1)).astype(np.float32)
        monthly[[2, 7]] = np.nan
        have = np.isfinite(monthly[:, 0])
        design = climate.harmonics_matrix(2)
        fit = np.linalg.lstsq(design[have], monthly[have, 0], rcond=None)[0]
        np.testing.assert_allclose(
            climate.fill_harmonic(monthly)[~have, 0], (design @ fit)[~have], atol=1e-5
        )


class TestIndices:
    """Thawing and freezing index and frost number."""

    @pytest.mark.parametrize(
        ("mean", "amplitude"), [(-4, 20), (0, 22), (3, 18), (12, 10), (-15, 10)]
    )
    def test_a_sine_year(self, mean, amplitude):
        """A sine year has indices in closed form; those of monthly means come close from below."""
        share = np.clip(mean / amplitude, -1, 1)
        half = np.pi / 2 + np.arcsin(share)  # half of the thawing season, as an angle
        thawing = 365.25 / np.pi * (mean * half + amplitude * np.sin(half))
        freezing = thawing - 365.25 * mean
        edges = np.append(0, np.cumsum(climate.DAYS))
        day = (np.arange(365_250) + 0.5) / 1000
        daily = mean + amplitude * np.sin(2 * np.pi * day / 365.25)
        monthly = np.array([daily[(day >= a) & (day < b)].mean() for a, b in pairwise(edges)])
        for index, exact in ((climate.thawing_index, thawing), (climate.freezing_index, freezing)):
            assert index(monthly) <= exact + 0.5
            assert index(monthly) == pytest.approx(exact, abs=60)
        assert climate.annual_mean(monthly) == pytest.approx(mean, abs=0.01)

    def test_the_indices_differ_by_the_degree_days_of_the_mean(self):
        monthly = cycle(-3, 20).astype(np.float32)[:, None]
        difference = climate.thawing_index(monthly) - climate.freezing_index(monthly)
        np.testing.assert_allclose(difference, 365.25 * climate.annual_mean(monthly), rtol=1e-4)

    @pytest.mark.parametrize(
        ("thawing", "freezing", "number"), [(1600, 1600, 0.5), (400, 3600, 0.75), (900, 0, 0)]
    )
    def test_frost_numbers_by_hand(self, thawing, freezing, number):
        assert climate.frost_number(np.float64(thawing), np.float64(freezing)) == pytest.approx(
            number
        )

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


@pytest.fixture
def raw_climate(study):
    """Monthly rasters of a sine year in the formats of the products, with a rejected month."""
    geobox = grid.geographic_grid((110, 37, 137, 55), 720)
    full = np.ones((12, *geobox.shape))
    year = cycle(-1, 20)[:, None, None] * full
    files, write = (
        raw_files(study),
        {"geobox": geobox, "study": study, "units": "1", "names": "month"},
    )
    for time, shift in (("day", 8), ("night", -8)):
        rasters.write_raster(
            files[f"lst_{time}"], MODIS_LST.encode(year + shift + 273.15), nodata=0, **write
        )
        qc = np.zeros(full.shape, np.uint8)
        qc[3] = 0b11000001
        rasters.write_raster(files[f"qc_{time}"], qc, **write)
    rasters.write_raster(
        files["air_temperature"],
        MONTHLY_TEMPERATURE.encode(year),
        nodata=-32768,
        scale=0.1,
        **write,
    )
    rasters.write_raster(
        files["precipitation"],
        MONTHLY_PRECIPITATION.encode(40.5 * full),
        nodata=65535,
        scale=0.1,
        **write,
    )
    return files


def make(study):
    geobox = grid.reference_grid(study)
    makers = (climate.make_surface, climate.make_air, climate.make_precipitation)
    return {name: values for one in makers for name, values in one(study, geobox).items()}


def test_make_gives_all_climate_layers(study, raw_climate):
    layers = make(study)
    family = {
        name for name, layer in registry.covariates(study).items() if layer.family == "climate"
    }
    assert set(layers) == family
    inside = grid.area_mask(study, grid.reference_grid(study))
    year = cycle(-1, 20)
    expected = {
        "lst_mean": climate.annual_mean(year),
        "thawing_index": climate.thawing_index(year),
        "freezing_index": climate.freezing_index(year),
        "mean_annual_air_temperature": climate.annual_mean(year),
        "precipitation": 486,
        "lst_valid_share": 11 / 12,
    }
    for name, value in expected.items():
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
    with pytest.raises(CovariateError, match=r"air_temperature_monthly\.tif has 11 bands"):
        make(study)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.float32, 1, 0), (np.float32, 1, -273.15), (np.int16, 0.01, 5)],
)
def test_floats_and_scaled_numbers_mean_what_the_file_says(
    study, raw_climate, dtype, scale, offset
):
    path, geobox = raw_climate["air_temperature"], grid.geographic_grid((110, 37, 137, 55), 720)
    year = cycle(-1, 20)[:, None, None] * np.ones(geobox.shape)
    numbers = np.rint((year - offset) / scale) if dtype is np.int16 else year - offset
    profile = {"study": study, "units": "degC", "names": "month", "scale": scale, "offset": offset}
    rasters.write_raster(path, numbers.astype(dtype), geobox, **profile)
    inside = grid.area_mask(study, grid.reference_grid(study))
    mean = make(study)["mean_annual_air_temperature"][inside]
    np.testing.assert_allclose(mean, climate.annual_mean(cycle(-1, 20)), atol=5e-3)
    kelvin = (numbers + 300).astype(np.float32)
    rasters.write_raster(path, kelvin, geobox, **profile | {"scale": 1, "offset": 0})
    with pytest.raises(CovariateError, match=r"air_temperature.*cannot be degC"):
        make(study)
    whole = np.full(year.shape, -10, np.int16)
    rasters.write_raster(path, whole, geobox, **profile | {"scale": 1, "offset": 0})
    with pytest.raises(CovariateError, match="whole numbers without a scale: degC, or tenths"):
        make(study)


PROCESSOR = """
import hashlib, numpy as np
from helpers.prepare import climate
from helpers.core.grid import local_factors, reference_grid
from helpers.core.study import Study

rng, digest = np.random.default_rng(1), hashlib.sha256()
monthly = rng.normal(0, 15, (12, 20_000)).astype(np.float32)
monthly[rng.random(monthly.shape) < 0.15] = np.nan
filled = climate.fill_harmonic(monthly)
study = Study(name="tiny", grid={"resolution": 20_000, "fine_resolution": 10_000})
factors = vars(local_factors(reference_grid(study))).values()
means = climate.annual_mean(filled)
for values in (filled, means, climate.thawing_index(filled), *factors):
    digest.update(np.ascontiguousarray(values).tobytes())
print(digest.hexdigest())
"""


def test_covariates_do_not_depend_on_how_a_processor_multiplies_matrices():
    """OpenBLAS has kernels of its own for each processor; results must not change with them."""
    digests = set()
    for kind in ("Nehalem", "Haswell"):
        done = subprocess.run(
            [sys.executable, "-c", PROCESSOR],
            env={**os.environ, "OPENBLAS_CORETYPE": kind},
            text=True,
            check=True,
            capture_output=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_frost_number_of_what_is_masked_is_missing():
    thawing = np.ma.masked_equal([100.0, -9999.0], -9999.0)
    freezing = np.ma.masked_equal([100.0, -9999.0], -9999.0)
    number = climate.frost_number(thawing, freezing)
    assert number[0] == 0.5
    assert np.isnan(number[1])
