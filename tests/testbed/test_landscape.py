"""The virtual landscape: real where it says so, and plausible where it is simulated."""

import datetime

import numpy as np
import pytest
import rasterio
import xarray as xr

from helpers.core.rasters import read_band
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.prepare import products
from testbed import landscape, scenes
from testbed.climate import (
    surface_for_lst,
    surface_temperature,
    write_climate_and_soil,
    write_lst,
)
from testbed.settings import VirtualStudy


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The quick study with two scenes only, its raw rasters in a temporary folder."""
    dates = [datetime.date(2023, 6, 18), datetime.date(2023, 7, 20)]
    settings = Study.open("config/quick.yaml").model_dump()
    settings["source"]["scene_dates"] = dates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "raw_dir", tmp_path_factory.mktemp("raw"))
        yield VirtualStudy(**settings)


@pytest.fixture(scope="module")
def surface(study):
    landscape.write_dem(study)
    return landscape.make_surface(study)


@pytest.fixture(scope="module")
def files(study, surface):
    scenes.write_landsat(study, surface)
    write_lst(study, surface_for_lst(study, surface))
    write_climate_and_soil(study)


def read(study, name, band=1):
    return read_band(products.raw_files(study)[name], band)


def test_every_file_says_simulated_and_has_its_unit(study, files):
    paths = products.raw_files(study)
    assert len(paths) == 1 + 2 * 6 + 4 + 2 + 4
    for path in paths.values():
        with rasterio.open(path) as source:
            assert source.tags()["LABEL"] == "SIMULATED"
    with rasterio.open(paths["lst_day"]) as source:
        assert (source.count, source.units[0]) == (12, "K")


def test_reflectance_and_quality_agree(study, files):
    for day in products.scene_days(study):
        quality = read(study, f"landsat_{day}_qa_pixel")
        flag = {name: quality >> bit & 1 == 1 for name, bit in products.QA_BITS.items()}
        for asset in products.LANDSAT_BANDS:
            numbers = read(study, f"landsat_{day}_{asset}")
            assert np.array_equal(numbers == 0, flag["fill"])
            valid = numbers[numbers > 0]
            assert valid.min() >= products.LANDSAT_REFLECTANCE.valid_min
            assert valid.max() <= products.LANDSAT_REFLECTANCE.valid_max
        blue = read(study, f"landsat_{day}_blue")
        clear = flag["clear"] & ~flag["cloud_shadow"] & ~flag["snow"]
        assert np.percentile(blue[flag["cloud"]], 5) > np.percentile(blue[clear], 95)
        assert np.median(blue[flag["cloud_shadow"] & ~flag["cirrus"]]) < np.median(blue[clear])


def test_spectra_of_forest_and_water(study, surface, files):
    day = products.scene_days(study)[1]
    clear = (read(study, f"landsat_{day}_qa_pixel") & 0b111111) == 0
    red, nir, green = (
        products.LANDSAT_REFLECTANCE.decode(read(study, f"landsat_{day}_{asset}"))
        for asset in ("red", "nir08", "green")
    )
    forest = clear & (surface.image(surface.cover["forest"]) > 0.8)
    water = clear & (surface.image(surface.cover["water"]) > 0.9)
    ndvi = (nir - red) / (nir + red)
    assert 0.75 < np.median(ndvi[forest]) < 0.9
    assert np.median(ndvi[water]) < 0
    assert np.median(((green - nir) / (green + nir))[water]) > 0.3


def test_shares_of_cover_sum_to_one(surface):
    total = sum(surface.cover.values())
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert min(share.min() for share in surface.cover.values()) >= 0


def test_most_cells_are_seen_in_one_of_two_scenes(study, surface, files):
    quality = np.stack(
        [read(study, f"landsat_{day}_qa_pixel") for day in products.scene_days(study)]
    )
    looks = ((quality & 0b111111) == 0).sum(axis=0)[surface.inside]
    assert (looks > 0).mean() > 0.7


def test_quality_of_surface_temperature_agrees_with_its_values(study, files):
    for time in ("day", "night"):
        numbers, flags = read(study, f"lst_{time}", 7), read(study, f"qc_{time}", 7)
        assert np.array_equal(numbers == 0, (flags & 0b11) >= 0b10)
        assert numbers[numbers > 0].min() >= products.MODIS_LST.valid_min
        assert np.array_equal(flags & 0b11 == 0, (flags >> 6 == 0) & (numbers > 0))


def test_winter_nights_are_colder_on_valley_floors(study, surface):
    air = np.zeros_like(surface.elevation)
    lapse = np.float32(study.source.temperature.lapse_rate[0] / 1000) * surface.lifted
    night = surface_temperature(study, surface, air, 0, "night") + lapse
    wooded = surface.cover["forest"] > 0.7
    valley, slope = (
        night[wooded & where].mean()
        for where in (surface.prominence < -0.8, surface.prominence > 0)
    )
    assert valley < slope - 3


def test_days_are_warmer_than_nights_and_the_year_stays_near_air_temperature(study, surface):
    air = np.zeros_like(surface.elevation)
    day, night = (
        np.mean([surface_temperature(study, surface, air, m, time) for m in range(12)], axis=0)
        for time in ("day", "night")
    )
    assert (day > night).mean() > 0.99
    assert abs(np.mean((day + night) / 2)) < 2


def test_climate_and_soil_are_the_real_layers(study, files):
    with xr.open_dataset(ROOT / "data/base/era5-monthly-means.nc") as climate:
        real = climate["air_temperature"][0].to_numpy()
    decoded = products.MONTHLY_TEMPERATURE.decode(read(study, "air_temperature"))
    np.testing.assert_allclose(decoded, real, atol=0.051)
    with xr.open_dataset(ROOT / "data/base/hwsd-topsoil.nc") as soil:
        real = soil["organic_carbon"].to_numpy()
    decoded = products.SOIL_CARBON.decode(read(study, "soc"))
    assert np.array_equal(np.isnan(decoded), np.isnan(real))
    np.testing.assert_allclose(decoded, real, atol=0.0051)


def test_a_product_has_a_stream_of_its_own(study):
    draws = {name: landscape.stream(study, name).random() for name in landscape.PRODUCTS}
    assert len(set(draws.values())) == len(draws)
    children = np.random.SeedSequence(study.source.seed).spawn(len(landscape.PRODUCTS))
    assert [np.random.default_rng(child).random() for child in children] == list(draws.values())
