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
import pandas as pd
import pytest
import rasterio

from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.study import Study
from helpers.prepare.registry import write_covariates

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

ROOT = Path(__file__).parents[1]
COPIED = (
    "src",
    "config",
    "notebooks",
    "data/base",
    "data/examples",
    "data/README.md",
    "Snakefile",
    "Makefile",
    "pyproject.toml",
)


SOURCE = {
    "dem": "raw/dem.tif",
    "landsat": "raw/landsat",
    "lst": "raw/modis",
    "air_temperature": "raw/climate",
    "precipitation": "raw/climate",
    "soil": "raw/soil",
}
"""Raw rasters of all kinds, so that a study has all covariates; none of the files is there."""

SECRET = {
    "AWS_SECRET_ACCESS_KEY": "planted-0b5e7c41",
    "PC_SDK_SUBSCRIPTION_KEY": "planted-0b5e7c41",
}
"""What the environment of the quick run holds, and no file may."""

LONGEST = (
    "test_one_process_gives_what_the_notebooks_give",
    "test_open_data_are_as_good_as_the_same_files_and_go_on_to_a_map",
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The default area on a coarse grid, with raw and processed folders of its own."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    return Study(
        name="tiny",
        source={field: str(tmp_path / place) for field, place in SOURCE.items()},
        grid={"resolution": 20_000, "fine_resolution": 10_000},
        covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study of one layer on a coarse grid, its samples, and what its cells and boreholes have.

    Elevation says the ice type of a cell. One sample in five, and one borehole in five, has
    another.
    """
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
        patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
        study = Study(
            name="tiny",
            source=SOURCE,
            grid={"resolution": 20_000, "fine_resolution": 10_000},
            layers=[(2, 3)],
            predictors=["elevation", "twi"],
            folds={"number": 3, "estimators": 20, "min_separation_km": 0, "block_km": 300},
            covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
            forest={"n_estimators": 20, "max_depth": [3, None], "min_samples_split": [2, 30]},
        )
        rng, geobox = np.random.default_rng(0), reference_grid(study)
        inside = area_mask(study, geobox)
        fields = {name: rng.normal(size=geobox.shape) for name in study.predictors}
        fields["air_frost_number"] = 0.44 + 0.1 * fields["elevation"]
        rasters = {
            name: np.where(inside, values, np.nan).astype(np.float32)
            for name, values in fields.items()
        }
        write_covariates(study, rasters)
        types = np.digitize(fields["elevation"], [0, 0.7]) * 2
        types = np.where(inside, types, 255).astype(np.uint8)
        chosen = rng.choice(np.flatnonzero(inside), 240, replace=False)
        easting, northing = cell_centres(geobox)
        row, column = np.unravel_index(chosen, geobox.shape)
        own = types.ravel()[chosen]
        wrong = rng.random(240) < 0.2
        sites = [f"S{number}" for number in range(240)]
        table = pd.DataFrame(
            {
                "site_id": sites,
                "group": sites,
                "layer": "2-3m",
                "easting": easting[column],
                "northing": northing[row],
                "in_domain": own > 0,
                "ice_type": np.where(wrong, rng.permutation(own), own),
                "ice_fraction": 0.1,
                "split": np.where(np.arange(240) % 4 == 0, "test", "train"),
                **{name: values.ravel()[chosen] for name, values in rasters.items()},
            }
        )
        other = rng.random(types.shape) < 0.2
        boreholes = np.where(other, rng.choice(types[inside], types.shape), types)
        boreholes = np.where(inside, boreholes, 255)
        yield study, table, {"ice_type_2-3m": types, "borehole_type_2-3m": boreholes}


@pytest.fixture(scope="session")
def open_world(tmp_path_factory):
    """Return a world of open data, its file server, and the root of a STAC API that lists it."""
    import open_server

    folder = tmp_path_factory.mktemp("open")
    files = folder / "files"
    files.mkdir()
    with open_server.file_server(files) as server:
        world = open_server.World(files, server.url)
        with open_server.stac_api(world.items, folder) as api:
            yield world, server, api


@pytest.fixture
def raster_equal():
    """Return a function that compares two raster files: values, place, CRS, nodata, bands."""

    def compare(first, second, tolerance=0.0):
        with rasterio.open(first) as a, rasterio.open(second) as b:
            for name in ("crs", "transform", "shape", "dtypes"):
                assert getattr(a, name) == getattr(b, name)
            for name in ("descriptions", "units", "scales", "offsets"):
                assert getattr(a, name) == getattr(b, name)
            np.testing.assert_equal(a.nodata, b.nodata)
            np.testing.assert_allclose(a.read(), b.read(), rtol=0, atol=tolerance, equal_nan=True)

    return compare


def pytest_collection_modifyitems(items):
    """Let tests that need the finished quick study wait, and begin with the longest of these.

    The others run beside it, on the second core; and no worker is left with a long one when all
    others are done.
    """
    items.sort(key=lambda item: ("quick" in item.fixturenames, item.name not in LONGEST))


def copy_project(project):
    """Copy what a run needs into a folder."""
    for name in COPIED:
        source, target = ROOT / name, project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)


@pytest.fixture(scope="session", autouse=True)
def _quick_run(request, tmp_path_factory):
    """Start the quick study in a copy of the project, if any test needs it.

    It is one for all processes of pytest.
    """
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
    copy_project(project)
    command = f"'{sys.executable}' -m launcher map config/quick.yaml"
    with open(project / "run.log", "w", encoding="utf-8") as log:
        run = subprocess.Popen(
            ["sh", "-c", f"{command}; echo $? >.part; mv .part status"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project / "src"), **SECRET},
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
    """Return a copy of the project with the quick study finished.

    All tests share it: do not edit it.
    """
    while not (_quick_run / "status").is_file():
        time.sleep(0.2)
    log = (_quick_run / "run.log").read_text(encoding="utf-8")
    assert (_quick_run / "status").read_text() == "0\n", log
    return _quick_run


@pytest.fixture
def copy(quick, tmp_path):
    """Return a copy of the finished quick project, file times kept, free to be edited."""
    shutil.copytree(quick, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"
