"""What several test modules use."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import rasterio

from helpers.core.study import Study

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

ROOT = Path(__file__).parents[1]
COPIED = (
    "src",
    "config",
    "notebooks",
    "data/base",
    "data/README.md",
    "Snakefile",
    "Makefile",
    "pyproject.toml",
)


LONGEST = (
    "test_one_process_gives_what_the_notebooks_give",
    "test_the_next_run_works_after_kills_at_random_moments",
)


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
    """Return a function that compares two raster files: values, place, CRS, nodata, bands."""

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


def pytest_collection_modifyitems(items):
    """Let tests that need the finished quick study wait for it, and begin with the longest of these.

    The others run beside it, on the second core; and no worker is left with a long one when all others are done.
    """
    items.sort(key=lambda item: ("quick" in item.fixturenames, item.name not in LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _quick_run(request, tmp_path_factory):
    """Start the quick study in a copy of the project, if any test needs it: one for all processes of pytest."""
    if not any("quick" in item.fixturenames for item in request.session.items):
        yield None
        return
    base = tmp_path_factory.getbasetemp()
    project = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "quick"
    try:
        project.mkdir()
    except FileExistsError:
        yield project
        return
    for name in COPIED:
        source, target = ROOT / name, project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy2(source, target)
    with open(project / "run.log", "w", encoding="utf-8") as log:
        run = subprocess.Popen(
            ["sh", "-c", f"'{sys.executable}' -m launcher map config/quick.yaml; echo $? >.part; mv .part status"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        yield project
        # Another process may still wait for it.
        if request.session.shouldstop:
            os.killpg(run.pid, signal.SIGTERM)
        run.wait()


@pytest.fixture(scope="session")
def quick(_quick_run):
    """Return a copy of the project with the quick study finished, shared by all tests: do not edit it."""
    while not (_quick_run / "status").is_file():
        time.sleep(0.2)
    assert (_quick_run / "status").read_text() == "0\n", (_quick_run / "run.log").read_text(encoding="utf-8")
    return _quick_run
