"""What several test modules use."""

import numpy as np
import pytest
import rasterio

from helpers.study import Study


def pytest_configure(config):
    """Let pass what libraries still do with `affine` 3, and that no line of this project can change."""
    config.addinivalue_line("filterwarnings", "ignore:Use `@` matmul:PendingDeprecationWarning")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The default area on a coarse grid, with raw and processed folders of its own."""
    monkeypatch.setattr(Study, "raw_dir", property(lambda self: tmp_path / "raw"))
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    return Study(
        name="tiny",
        grid={"resolution": 20_000, "fine_resolution": 10_000},
        covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
    )


@pytest.fixture
def raster_equal():
    """Return a function that compares two raster files: values within a tolerance, place, CRS, nodata, bands."""

    def compare(first, second, tolerance=0.0):
        with rasterio.open(first) as a, rasterio.open(second) as b:
            assert (a.crs, a.transform, a.shape, a.dtypes) == (b.crs, b.transform, b.shape, b.dtypes)
            assert (a.descriptions, a.units, a.scales, a.offsets) == (
                b.descriptions,
                b.units,
                b.scales,
                b.offsets,
            )
            np.testing.assert_equal(a.nodata, b.nodata)
            np.testing.assert_allclose(a.read(), b.read(), rtol=0, atol=tolerance, equal_nan=True)

    return compare
