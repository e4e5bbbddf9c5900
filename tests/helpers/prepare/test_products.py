"""Numbers of the raw products, and the values that they stand for."""

from datetime import date

import numpy as np
import pytest

from helpers.core.grid import geographic_grid, reference_grid
from helpers.core.rasters import write_raster
from helpers.core.settings import Source
from helpers.core.study import Study
from helpers.prepare import make
from helpers.prepare.products import (
    LANDSAT_BANDS,
    LANDSAT_REFLECTANCE,
    dem_files,
    raw_files,
    scene_days,
)
from helpers.prepare.registry import covariates
from testbed.settings import VirtualStudy


def test_a_digital_number_of_the_product_guide():
    reflectance = LANDSAT_REFLECTANCE.decode(np.array([18639, 0], np.uint16))
    assert reflectance[0] == pytest.approx(0.3126, rel=2e-4)
    assert np.isnan(reflectance[1])


@pytest.mark.parametrize("number", [0, 7272, 43637, 65535])
def test_reflectance_out_of_the_valid_range_is_missing(number):
    assert np.isnan(LANDSAT_REFLECTANCE.decode(np.array([number], np.uint16)))[0]


@pytest.mark.parametrize("day", ["2023-06-18", date(2023, 6, 18)], ids=["text", "date"])
def test_virtual_scenes_are_named_by_their_dates(day):
    study = VirtualStudy(name="a", source={"scene_dates": [day]})
    assert scene_days(study) == ["20230618"]
    assert raw_files(study)["landsat_20230618_red"].name == "LC08_L2SP_20230618_red.tif"


def test_rasters_are_found_in_folders_at_any_depth(tmp_path):
    """Two tiles of elevation, a scene that lacks its bands, soil maps of which one is missing."""
    name = "LC09_L2SP_121024_20230618_20230623_02_T1"
    found = ["dem/b.tif", "dem/a.tif", f"usgs/x/{name}_QA_PIXEL.TIF", f"usgs/x/{name}_ST_B10.TIF"]
    found += [f"soil/deep/{layer}_0-30cm_mean.tif" for layer in ("sand", "silt", "clay")]
    for path in found:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    fields = {"dem": "dem", "landsat": "usgs", "soil": "soil", "precipitation": "rain.tif"}
    source = {field: str(tmp_path / place) for field, place in fields.items()}
    study = Study(name="t", source=source)
    files = {n: str(p.relative_to(tmp_path)) for n, p in raw_files(study).items()}
    assert [str(path.relative_to(tmp_path)) for path in dem_files(study)] == [
        "dem/a.tif",
        "dem/b.tif",
    ]
    assert files["sand"] == "soil/deep/sand_0-30cm_mean.tif"
    assert files["soc"] == "soil/soc_0-30cm_mean.tif"
    assert files["precipitation"] == "rain.tif"
    assert files[f"landsat_{name}_red"] == f"usgs/x/{name}_SR_B4.TIF"
    assert len(files) == 2 + 6 + 4 + 1
    empty = study.model_copy(update={"source": Source(landsat=str(tmp_path / "soil"))})
    assert raw_files(empty) == {"landsat": tmp_path / "soil"}


def test_virtual_rasters_handed_in_as_files_give_the_same_covariates(tmp_path, monkeypatch):
    settings = {
        "name": "tiny",
        "grid": {"resolution": 40_000, "fine_resolution": 20_000},
        "covariates": {"terrain": {"tpi_radii": [40_000], "relief_window_km2": 6400}},
    }
    monkeypatch.setattr(Study, "raw_dir", property(lambda self: tmp_path / "raw"))
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    virtual, rng = VirtualStudy(**settings), np.random.default_rng(0)
    geobox = geographic_grid((110, 37, 137, 55), 720)
    for name, path in raw_files(virtual).items():
        bands = (
            12 if name in ("air_temperature", "precipitation") or path.parent.name == "modis" else 1
        )
        low, high, dtype, nodata = {"dem": (100, 900, "float32", np.nan)}.get(
            name, (8000, 16000, "uint16", 0)
        )
        if name.startswith("qc") or name.endswith("qa_pixel"):
            low, high, dtype, nodata = (0, 4, "uint8", None)
        elif path.parent.name in ("soil", "climate"):
            low, high, dtype, nodata = (0, 300, "int16", -32768)
        numbers = rng.uniform(low, high, (bands, *geobox.shape)).astype(dtype)
        profile = {"study": virtual, "names": "band", "units": "1", "nodata": nodata}
        profile |= {"scale": 0.1} if path.parent.name == "climate" else {}
        write_raster(path, numbers, geobox, **profile)
        if path.parent.name == "landsat":
            day, _, asset = name.removeprefix("landsat_").partition("_")
            ending = f"SR_{LANDSAT_BANDS[asset]}" if asset in LANDSAT_BANDS else "QA_PIXEL"
            usgs = tmp_path / f"usgs/LC08_L2SP_121024_{day}_{day}_02_T1_{ending}.TIF"
            usgs.parent.mkdir(exist_ok=True)
            usgs.hardlink_to(path)
    raw = tmp_path / "raw"
    source = {"dem": raw / "dem.tif", "landsat": tmp_path / "usgs", "lst": raw, "soil": raw}
    source |= {"air_temperature": raw / "climate", "precipitation": raw / "climate"}
    files = Study(**settings, source={field: str(path) for field, path in source.items()})
    geobox = reference_grid(virtual)
    for one in (maker for makers in make._MAKERS.values() for maker in makers.values()):
        expected, made = one(virtual, geobox), one(files, geobox)
        assert list(made) == list(expected)
        for name, values in made.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
            assert np.isfinite(values).any(), name
    assert covariates(files) == covariates(virtual)
