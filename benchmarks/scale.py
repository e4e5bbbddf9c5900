"""A region at 30 m: cells per second beside the 1 km map, memory, and a map that is killed midway.

Run after ``make map``. The balanced forest of the first layer is grown with 200 trees; its hurdle
model is the study's. The default study's covariates in the central Greater Khingan Range are
interpolated to 30 m, with noise of a fiftieth of their standard deviation, for a patch of 5.2
million cells; virtual rasters repeat it until the region is as large as asked. The region is mapped
once without a break, and once killed by SIGKILL when half of its chunks are done, and continued;
all bands must be equal. Each map has a process of its own, whose peak of memory is printed. On a
machine that does other things too, processor seconds are more reliable than those of the clock. The
last line is JSON; the peer is the 1 km map with the same models.

``python benchmarks/scale.py [cells in millions, 105] [config/virtual.yaml]``
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import shapely
from mapping import THREADS
from rasterio.windows import Window

from helpers.core.classes import layer_name
from helpers.core.grid import named_crs, reference_grid
from helpers.core.points import projected
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.core.warp import warp
from helpers.forest import cards, hurdle, models
from helpers.forest.file import forest_bytes
from helpers.forest.paths import model_path
from helpers.mapping.predict import map_layer
from helpers.prepare.domain import domain_covariates
from helpers.prepare.registry import covariate_files
from helpers.samples.store import read_samples

TREES = 200
CELL = 30.0
PATCH = (2048, 2560)
CORNER = (121.5, 50.8)  # longitude and latitude of the north-west
REGION = 1.6e9  # cells of the whole region at 30 m
NOISE = 0.02  # standard deviations of the covariate


def open_study(path, folder, copies=None):
    """Return the study with results in a folder.

    With numbers of copies of the patch, down and across, it is that of the region at 30 m.
    """

    def results_dir(study):
        return Path(folder) / ("30m" if study.grid.resolution == CELL else "1km")

    Study.results_dir = property(results_dir)
    study = Study.open(path)
    if copies is None:
        return study
    Study.processed_dir = property(lambda self: Path(folder) / "covariates")
    polygons = Path(folder) / "region.gpkg"
    if not polygons.is_file():
        write_region(study, polygons, copies)
    return study.changed(
        {
            "area.polygons": str(polygons),
            "grid.resolution": CELL,
            "grid.fine_resolution": CELL / 2,
        }
    )


def write_region(study, polygons, copies):
    """Write the outline of the region."""
    import geopandas

    crs = named_crs(study.grid.crs)
    west, north = (round(float(value) / CELL) * CELL for value in projected(*CORNER, crs.to_wkt()))
    height, width = (CELL * size * number for size, number in zip(PATCH, copies, strict=True))
    box = shapely.box(west, north - height, west + width, north)
    frame = geopandas.GeoDataFrame({"name": ["region"]}, geometry=[box], crs=crs.to_wkt())
    for layer in (study.area.layer, study.area.regions_layer):
        frame.to_file(polygons, layer=layer)


def make_covariates(path, folder, copies, names):
    """Write the patch of each covariate, and by the covariate's name a raster that repeats it."""
    coarse = covariate_files(Study.open(path))
    study = open_study(path, folder, copies)
    rng = np.random.default_rng(1)
    geobox = reference_grid(study)
    files = covariate_files(study)
    height, width = PATCH
    part = geobox[:height, :width]
    assert tuple(geobox.shape) == tuple(np.multiply(PATCH, copies))
    rows, columns = (range(0, whole, size) for whole, size in zip(geobox.shape, PATCH, strict=True))
    transform = ", ".join(f"{value!r}" for value in geobox.transform.to_gdal())
    for name in names:
        values = warp(coarse[name], part, "bilinear")
        values += rng.normal(0, NOISE * np.nanstd(values) + 1e-6, PATCH).astype(np.float32)
        assert np.isfinite(values).mean() > 0.9, name
        with rasterio.open(coarse[name]) as source:
            unit = source.units[0]
        patch = files[name].with_name(f"patch_{name}.tif")
        write_raster(patch, values, part, study=study, names=name, units=unit)
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{patch.name}</SourceFilename>'
            f"<SourceBand>1</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{column}" yOff="{row}" xSize="{width}" ySize="{height}"/>'
            f"</SimpleSource>"
            for row in rows
            for column in columns
        )
        files[name].write_text(
            f'<VRTDataset rasterXSize="{geobox.shape[1]}" rasterYSize="{geobox.shape[0]}">'
            f"<SRS>{geobox.crs.to_wkt()}</SRS><GeoTransform>{transform}</GeoTransform>"
            f'<VRTRasterBand dataType="Float32" band="1" blockXSize="512" blockYSize="512">'
            f"<NoDataValue>nan</NoDataValue><UnitType>{unit}</UnitType>{sources}"
            f"</VRTRasterBand></VRTDataset>"
        )


def make_map(results, path, folder, copies=None):
    """Map the first layer; send the cells of classes, chunks, seconds and memory."""
    study = open_study(path, folder, copies)
    since, worked = time.perf_counter(), time.process_time()
    summary = map_layer(study, study.layers[0], THREADS)
    spent = {"seconds": time.perf_counter() - since, "cpu": time.process_time() - worked}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = sum(summary["cells"]["expected"].values())
    results.put(summary | spent | {"cells": cells, "mb": memory})


def run(path, folder, copies=None, kill_at=None):
    """Return what a process of its own sends.

    With `kill_at`, kill it when so many chunks are done, and return their number.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    args = (results, path, folder, copies)
    process = context.Process(target=make_map, args=args, daemon=True)
    process.start()
    if kill_at is None:
        summary = results.get()
        process.join()
        return summary
    chunks = Path(folder) / "30m" / "maps" / ".chunks"
    while len(list(chunks.glob("*/[!.]*.npy"))) < kill_at:
        if not process.is_alive():
            raise SystemExit("the map ended before it was killed")
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return len(list(chunks.glob("*/[!.]*.npy")))


def assert_equal(first, second):
    """Compare all bands of all rasters of two folders by windows."""
    for path in sorted(first.glob("*.tif")):
        with rasterio.open(path) as one, rasterio.open(second / path.name) as other:
            floats = one.dtypes[0].startswith("float")
            for row in range(0, one.height, 512):
                part = Window(0, row, one.width, min(512, one.height - row))
                for a, b in zip(one.read(window=part), other.read(window=part), strict=True):
                    assert np.array_equal(a, b, equal_nan=floats), path.name


def grow(path, folder, copies):
    """Grow the forest for both studies; return the covariates that the map needs."""
    plain = Study.open(path)
    source = plain.results_dir
    layer = layer_name(plain.layers[0])
    of_ice = model_path(plain, layer, kind="ice")
    card = cards.read_card(model_path(plain, layer))
    params = cards.card_params(card) | {"n_estimators": TREES}
    model = models.fit(plain, read_samples(plain), layer, params, card["fit"])
    for study in (open_study(path, folder), open_study(path, folder, copies)):
        shutil.copytree(source / "samples", study.results_dir / "samples")
        cards.save_model(model_path(study, layer), forest_bytes(model), card)
        for ending in (".npz", ".json"):
            shutil.copy2(of_ice.with_suffix(ending), study.results_dir / "models")
    return list(dict.fromkeys([*card["predictors"], *domain_covariates(plain)]))


def report(coarse, fine, finished, rest):
    """Print cells per second at 1 km and 30 m, and the estimate for the whole region."""
    for name, summary in (("1 km", coarse), ("30 m", fine)):
        cells, seconds, cpu = (summary[key] for key in ("cells", "seconds", "cpu"))
        print(
            f"{name}: {cells:,} cells in {seconds:.1f} s ({cpu:.1f} s of processor), "
            f"{cells / seconds:,.0f} cells/s ({cells / cpu:,.0f} a processor second), "
            f"peak {summary['mb']:.0f} MB"
        )
    speed, cpu_speed = (
        fine["cells"] / fine[key] / (coarse["cells"] / coarse[key]) for key in ("seconds", "cpu")
    )
    print(f"30 m over 1 km: {speed:.3f} by the clock, {cpu_speed:.3f} by processor seconds")
    print(
        f"killed with {finished} of {fine['chunks']} chunks done; "
        f"{rest['kept']} of them were not predicted again; all bands are equal"
    )
    hours = REGION / fine["cells"] * fine["cpu"] / 3600
    on_two, on_64 = hours / THREADS, hours / 64
    print(
        f"on paper, {REGION:.1e} cells of a layer: {on_two:.1f} h on 2 cores, {on_64:.2f} h on 64"
    )
    of_hurdle = 2 * hurdle.TREES  # of permafrost and of contents
    more = 3 * (1000 + of_hurdle) / (TREES + of_hurdle)
    print(
        f"and three layers, 1000 trees of classes: "
        f"{more * on_two:.0f} h on 2 cores, {more * on_64:.1f} h on 64"
    )
    record = {
        "name": "scale",
        "cells": fine["cells"],
        "seconds": round(fine["seconds"], 1),
        "peer": "1 km, the same models",
        "peer_seconds": round(coarse["seconds"] * fine["cells"] / coarse["cells"], 1),
        "ratio": round(speed, 3),
        "cpu_ratio": round(cpu_speed, 3),
        "peak_rss_mb": round(max(fine["mb"], rest["mb"])),
        "chunks": fine["chunks"],
        "finished_when_killed": finished,
        "not_predicted_again": rest["kept"],
    }
    print(json.dumps(record))


def main(millions="105", path="config/virtual.yaml"):
    """Map the region in a temporary folder, and print what `report` does."""
    number = max(1, round(float(millions) * 1e6 / np.prod(PATCH)))
    down = max(n for n in range(1, number + 1) if number % n == 0 and n * n <= number)
    copies = (down, number // down)
    processed_dir = Study.processed_dir
    results_dir = Study.results_dir
    with tempfile.TemporaryDirectory() as folder:
        names = grow(path, folder, copies)
        Study.processed_dir = processed_dir
        Study.results_dir = results_dir
        make_covariates(path, folder, copies, names)
        maps = Path(folder) / "30m" / "maps"
        coarse = run(path, folder)
        fine = run(path, folder, copies)
        shutil.rmtree(maps / ".chunks")
        maps.rename(maps.with_name("whole"))
        finished = run(path, folder, copies, kill_at=fine["chunks"] // 2)
        rest = run(path, folder, copies)
        assert_equal(maps.with_name("whole"), maps)
    report(coarse, fine, finished, rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
