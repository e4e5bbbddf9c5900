"""Landsat masks, indices and composites against numbers worked out by hand."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from odc.geo.geobox import GeoBox

from helpers.core import grid, rasters
from helpers.prepare import vegetation
from helpers.prepare.make import made_by_parts
from helpers.prepare.products import LANDSAT_BANDS, LANDSAT_REFLECTANCE
from helpers.prepare.registry import CovariateError, layers_of, write_parts


def test_indices_of_a_forest_pixel():
    bands = {"blue": 0.02, "green": 0.05, "red": 0.03, "nir08": 0.31, "swir16": 0.15}
    indices = vegetation.spectral_indices(
        **{name: np.array([v], np.float32) for name, v in bands.items()}
    )
    assert indices["ndvi"][0] == pytest.approx(0.28 / 0.34)
    assert indices["evi"][0] == pytest.approx(2.5 * 0.28 / (0.31 + 0.18 - 0.15 + 1))
    assert indices["ndwi"][0] == pytest.approx(-0.26 / 0.36)
    assert indices["ndmi"][0] == pytest.approx(0.16 / 0.46)


def test_indices_of_a_water_pixel():
    bands = {"blue": 0.06, "green": 0.05, "red": 0.03, "nir08": 0.01, "swir16": 0.005}
    indices = vegetation.spectral_indices(
        **{name: np.array([v], np.float32) for name, v in bands.items()}
    )
    assert indices["ndwi"][0] == pytest.approx(0.04 / 0.06)
    assert indices["ndvi"][0] == pytest.approx(-0.5)


def test_evi_is_clipped_and_ratios_without_light_are_missing():
    bright = {"blue": 0.9, "green": 0.9, "red": 0.7, "nir08": 0.9, "swir16": 0.1}
    dark = dict.fromkeys(bright, 0.0)
    assert (
        vegetation.spectral_indices(**{n: np.array([v], np.float32) for n, v in bright.items()})[
            "evi"
        ][0]
        <= 1
    )
    assert np.isnan(
        vegetation.spectral_indices(**{n: np.array([v], np.float32) for n, v in dark.items()})[
            "ndvi"
        ][0]
    )


@given(arrays.arrays(np.float32, (5, 20), elements=st.floats(0, 1, width=32)))
def test_indices_stay_in_their_range(reflectance):
    for name, values in vegetation.spectral_indices(*reflectance).items():
        assert np.nanmax(np.abs(np.append(values, 0))) <= 1, name


@pytest.mark.parametrize(
    ("qa", "clear"),
    [
        (0b0000000001000000, True),
        (0b0000000000000001, False),
        (0b0000000000000010, False),
        (0b0000000000000100, False),
        (0b0000000000001000, False),
        (0b0000000000010000, False),
        (0b0000000000100000, False),
        (0b0000000011000000, True),
        (21824, True),
        (22280, False),
    ],
    ids=[
        "clear",
        "fill",
        "dilated",
        "cirrus",
        "cloud",
        "shadow",
        "snow",
        "water",
        "usgs_clear",
        "usgs_cloud",
    ],
)
def test_quality_bits(study, qa, clear):
    assert (
        vegetation.clear_pixels(np.array([qa], np.uint16), study.covariates.vegetation.mask)[0]
        == clear
    )


def test_fill_is_masked_even_when_nothing_else_is():
    np.testing.assert_array_equal(
        vegetation.clear_pixels(np.array([1, 8], np.uint16), []), [False, True]
    )


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 7), st.integers(1, 9)),
        elements=st.one_of(st.just(np.nan), st.floats(-1, 1, width=32)),
    )
)
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_median_equals_numpys(values):
    np.testing.assert_array_equal(
        vegetation.median_over_dates(list(values)), np.nanmedian(values, axis=0)
    )


def test_correlation_passes_over_missing_cells():
    first = np.array([0.1, 0.2, np.nan, 0.5])
    assert vegetation.index_correlation({"ndwi": first, "ndvi": 1 - 2 * first}) == pytest.approx(-1)


def scene(folder, day, path_row="121024", satellite="LC08_L2SP"):
    """Return the files of a scene by asset, named as the USGS does."""
    name = f"{satellite}_{path_row}_{day}_20240930_02_T1"
    bands = {"qa_pixel": "QA_PIXEL", **{a: f"SR_{band}" for a, band in LANDSAT_BANDS.items()}}
    return {asset: folder / name / f"{name}_{band}.TIF" for asset, band in bands.items()}


def test_make_masks_scene_by_scene_and_never_averages_numbers(study, tmp_path):
    """Two of four scenes are cloudy with wild numbers, one lacks its west: the others count."""
    days = ["20230618", "20230720", "20230821", "20240908"]
    geobox = grid.geographic_grid((110, 37, 137, 55), 360)
    clear_value = dict(zip(LANDSAT_BANDS, (0.02, 0.05, 0.03, 0.31, 0.15), strict=True))
    cloudy = days[:2]
    west = np.arange(geobox.shape[1]) < geobox.shape[1] // 2
    for number, day in enumerate(days):
        files = scene(tmp_path / "raw/landsat", day)
        qa = np.full(geobox.shape, 8 if day in cloudy else 64, np.uint16)
        write = {"geobox": geobox, "study": study, "names": "band", "units": "1"}
        rasters.write_raster(files["qa_pixel"], qa, **write)
        for asset, value in clear_value.items():
            numbers = np.full(
                geobox.shape,
                43000 if day in cloudy else LANDSAT_REFLECTANCE.encode(value),
                np.uint16,
            )
            numbers[:, west & (number == 3)] = 0
            rasters.write_raster(files[asset], numbers, nodata=0, **write)
    layers = vegetation.make(study, grid.reference_grid(study))
    inside = grid.area_mask(study, grid.reference_grid(study))
    np.testing.assert_allclose(layers["ndvi"][inside], 0.28 / 0.34, atol=2e-4)
    assert np.isnan(layers["ndvi"][~inside]).all()
    assert set(np.unique(layers["landsat_valid_share"][inside])) >= {0.25, 0.5}


def test_a_study_without_scenes_is_refused(study):
    with pytest.raises(CovariateError, match="no Landsat scene"):
        vegetation.make(study, grid.reference_grid(study))


def test_scenes_of_a_date_become_one_in_any_zone_and_any_blocks(study, tmp_path, monkeypatch):
    """The first scene has clouds in its north; one in the next zone lies under it."""
    folder = tmp_path / "raw/landsat"

    def write(day, zone, ndvi, cloudy_rows=0, **named):
        number = {"red": 0.1, "nir08": 0.1 * (1 + ndvi) / (1 - ndvi)}
        affine = Affine(3000, 0, 300_000, 0, -3000, 5_400_000)
        geobox = GeoBox((100, 80), affine, f"EPSG:326{zone}")
        for asset, path in scene(folder, day, **named).items():
            values = LANDSAT_REFLECTANCE.encode(np.full(geobox.shape, number.get(asset, 0.2)))
            if asset == "qa_pixel":
                values[:] = 21824
                values[:cloudy_rows] = 22280
                values[:, :4] = 1  # fill; QA_PIXEL has no nodata tag
            write = {"study": study, "names": "band", "units": "1"}
            write["nodata"] = None if asset == "qa_pixel" else 0
            rasters.write_raster(path, values, geobox, **write)

    write("20230618", 51, 0.5, cloudy_rows=50)
    write("20230618", 51, 0.6, path_row="121025", satellite="LC09_L2SR")
    write("20230618", 52, 0.4, path_row="119025")
    write("20230720", 51, 0.7)
    write("20230720", 11, 0.1, path_row="044025")  # in America
    made = vegetation.make(study, grid.reference_grid(study))
    ndvi, share = made["ndvi"], made["landsat_valid_share"]
    found = ndvi[np.isfinite(ndvi)]
    for expected in (0.6, 0.65, 0.4):
        assert (np.abs(found - expected) < 1e-3).any()
    assert set(np.unique(share[np.isfinite(share)])) >= {0, 0.5, 1}
    monkeypatch.setattr(vegetation, "_MOST_VALUES", 30_000)
    monkeypatch.setattr(vegetation, "_MOST_PIXELS", 4000)
    names = layers_of(study, "landsat")
    files = write_parts(study, names, made_by_parts(study, vegetation.make, names, 32))
    for name, path in zip(names, files, strict=True):
        values = rasters.read_band(path)
        same = np.isclose(values, made[name], atol=1e-3, equal_nan=True)
        assert same.mean() > 0.999, name  # a point on the edge of two pixels may fall to the other


@pytest.mark.parametrize(
    ("crs", "qa", "message"),
    [
        ("EPSG:32611", 64, r"None of the Landsat scenes .*121024_20230618"),
        ("EPSG:32651", 8, "No pixel of the Landsat scenes on the grid is clear: 1 dates"),
    ],
    ids=["elsewhere", "all cloud"],
)
def test_scenes_without_a_clear_pixel_are_refused(study, tmp_path, crs, qa, message):
    geobox = GeoBox((9, 9), Affine(3000, 0, 300_000, 0, -3000, 5_400_000), crs)
    for path in scene(tmp_path / "raw/landsat", "20230618").values():
        numbers = np.full(geobox.shape, qa, np.uint16)
        rasters.write_raster(path, numbers, geobox, study=study, names="band", units="1")
    with pytest.raises(CovariateError, match=message):
        vegetation.make(study, grid.reference_grid(study))


def test_averaged_flags_are_refused(tmp_path):
    """Half clear, half cloud: as they are, and as means of two, such as overviews may have."""
    flags = np.tile(np.array([21824, 22280, 1, 0], np.uint16), (4, 5))
    path = tmp_path / "LC08_QA_PIXEL.TIF"
    vegetation._check_flags(flags, path)
    averaged = (flags.astype(int) + np.roll(flags, 1, axis=1)) // 2
    with pytest.raises(CovariateError, match=r"LC08_QA_PIXEL\.TIF: quality bits of \d+ pixels"):
        vegetation._check_flags(averaged.astype(np.uint16), path)
