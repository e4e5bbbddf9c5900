"""A region at 30 m: cells per second beside the 1 km map, memory, and a map that is killed in the middle and continued.

Run after ``make map``. The forest of the first layer is grown with 200 trees. The default study's covariates in the
central Greater Khingan Range are interpolated to 30 m, with noise of a fiftieth of their standard deviation, for a
patch of 5.2 million cells; virtual rasters repeat it until the region is as large as asked. The region is mapped once
without a break, and once killed by SIGKILL when half of its chunks are done, and continued; all bands must be equal.
Each map has a process of its own, whose peak of memory is told. On a machine that does other things too, processor
seconds tell more than those of the clock. The last line is JSON; the peer is the 1 km map with the same forest.

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
from mapping import THREADS
from rasterio.windows import Window

from helpers.core import classes
from helpers.core.grid import named_crs, reference_grid
from helpers.core.rasters import warp, write_raster
from helpers.core.study import Study
from helpers.forest import cards, models
from helpers.mapping import predict
from helpers.prepare.registry import covariate_files
from helpers.samples import store

TREES = 200
CELL = 30.0
PATCH = (2048, 2560)
CORNER = (121.5, 50.8)  # longitude and latitude of the north-west
REGION = 1.6e9  # cells of the whole region at 30 m
NOISE = 0.02  # standard deviations of the covariate


def open_study(path, folder, copies=None):
    """Return the study with results in a folder; with copies down and across also that of the region at 30 m."""
    import pyproj

    Study.results_dir = property(lambda self: Path(folder) / ("30m" if self.grid.resolution == CELL else "1km"))
    study = Study.open(path)
    if copies is None:
        return study
    Study.processed_dir = property(lambda self: Path(folder) / "covariates")
    polygons = Path(folder) / "region.gpkg"
    if not polygons.is_file():
        import geopandas
        import shapely

        crs = named_crs(study.grid.crs)
        corner = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*CORNER)
        west, north = (round(value / CELL) * CELL for value in corner)
        height, width = (CELL * size * number for size, number in zip(PATCH, copies, strict=True))
        box = shapely.box(west, north - height, west + width, north)
        frame = geopandas.GeoDataFrame({"name": ["region"]}, geometry=[box], crs=crs.to_wkt())
        for layer in (study.area.layer, study.area.regions_layer):
            frame.to_file(polygons, layer=layer)
    return study.changed({"area.polygons": str(polygons), "grid.resolution": CELL, "grid.fine_resolution": CELL / 2})


def make_covariates(path, folder, copies, names):
    """Write the patch of each covariate, and a virtual raster that repeats it, under the name of the covariate."""
    coarse = covariate_files(Study.open(path))
    study, rng = open_study(path, folder, copies), np.random.default_rng(1)
    geobox, files = reference_grid(study), covariate_files(study)
    assert tuple(geobox.shape) == tuple(np.multiply(PATCH, copies))
    rows, columns = (range(0, whole, size) for whole, size in zip(geobox.shape, PATCH, strict=True))
    transform = ", ".join(f"{value!r}" for value in geobox.transform.to_gdal())
    for name in names:
        values = warp(coarse[name], geobox[: PATCH[0], : PATCH[1]], "bilinear")
        values += rng.normal(0, NOISE * np.nanstd(values) + 1e-6, PATCH).astype(np.float32)
        assert np.isfinite(values).mean() > 0.9, name
        with rasterio.open(coarse[name]) as source:
            unit = source.units[0]
        patch = files[name].with_name(f"patch_{name}.tif")
        write_raster(patch, values, geobox[: PATCH[0], : PATCH[1]], study=study, names=name, units=unit)
        parts = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{patch.name}</SourceFilename><SourceBand>1</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{PATCH[1]}" ySize="{PATCH[0]}"/>'
            f'<DstRect xOff="{column}" yOff="{row}" xSize="{PATCH[1]}" ySize="{PATCH[0]}"/></SimpleSource>'
            for row in rows for column in columns
        )  # fmt: skip
        files[name].write_text(
            f'<VRTDataset rasterXSize="{geobox.shape[1]}" rasterYSize="{geobox.shape[0]}">'
            f"<SRS>{geobox.crs.to_wkt()}</SRS><GeoTransform>{transform}</GeoTransform>"
            f'<VRTRasterBand dataType="Float32" band="1" blockXSize="512" blockYSize="512">'
            f"<NoDataValue>nan</NoDataValue><UnitType>{unit}</UnitType>{parts}</VRTRasterBand></VRTDataset>"
        )


def make_map(told, path, folder, copies=None):
    """Map the first layer; tell the cells of classes, chunks, seconds and memory."""
    study = open_study(path, folder, copies)
    since, worked = time.perf_counter(), time.process_time()
    found = predict.map_layer(study, study.layers[0], THREADS)
    found |= {"seconds": time.perf_counter() - since, "cpu": time.process_time() - worked}
    told.put(found | {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def run(*args, kill_at=None):
    """Return what a process of its own tells; or kill it when that many chunks are done, and return their number."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=make_map, args=(told, *args), daemon=True)
    process.start()
    if kill_at is None:
        found = told.get()
        process.join()
        return found
    chunks = Path(args[1]) / "30m" / "maps" / ".chunks"
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
    """Grow the forest for both studies; return its predictors."""
    plain = Study.open(path)
    table, layer, source = store.read_samples(plain), classes.layer_name(plain.layers[0]), plain.results_dir
    card = cards.read_card(cards.model_path(plain, layer))
    model = models.fit(plain, table, layer, cards.card_params(card) | {"n_estimators": TREES}, card["fit"])
    for study in (open_study(path, folder), open_study(path, folder, copies)):
        shutil.copytree(source / "samples", study.results_dir / "samples")
        cards.save_model(cards.model_path(study, layer), model, card)
    return card["predictors"]


def main(millions="105", path="config/virtual.yaml"):
    """Print cells per second at 1 km and 30 m, chunks kept after the kill, and the estimate for the whole region."""
    number = max(1, round(float(millions) * 1e6 / np.prod(PATCH)))
    down = max(n for n in range(1, number + 1) if number % n == 0 and n * n <= number)
    copies = (down, number // down)
    plain = (Study.processed_dir, Study.results_dir)
    with tempfile.TemporaryDirectory() as folder:
        predictors = grow(path, folder, copies)
        Study.processed_dir, Study.results_dir = plain
        make_covariates(path, folder, copies, predictors)
        maps = Path(folder) / "30m" / "maps"
        coarse, fine = run(path, folder), run(path, folder, copies)
        shutil.rmtree(maps / ".chunks")
        maps.rename(maps.with_name("whole"))
        finished = run(path, folder, copies, kill_at=fine["chunks"] // 2)
        rest = run(path, folder, copies)
        assert_equal(maps.with_name("whole"), maps)
    for name, found in (("1 km", coarse), ("30 m", fine)):
        cells = found["cells"] = sum(found["cells"].values())
        print(f"{name}: {cells:,} cells in {found['seconds']:.1f} s ({found['cpu']:.1f} s of processor), "
              f"{cells / found['seconds']:,.0f} cells/s ({cells / found['cpu']:,.0f} a processor second), "
              f"peak {found['mb']:.0f} MB")  # fmt: skip
    speeds = [fine["cells"] / fine[key] / (coarse["cells"] / coarse[key]) for key in ("seconds", "cpu")]
    print(f"30 m over 1 km: {speeds[0]:.3f} by the clock, {speeds[1]:.3f} by processor seconds")
    print(f"killed with {finished} of {fine['chunks']} chunks done; {rest['kept']} of them were not predicted again; "
          "all bands are equal")  # fmt: skip
    hours = REGION / fine["cells"] * fine["cpu"] / 3600 / THREADS
    print(f"on paper, {REGION:.1e} cells of a layer: {hours:.1f} h on 2 cores, {hours * THREADS / 64:.2f} h on 64")
    hours *= 3 * 1000 / TREES
    print(f"and three layers of 1000 trees: {hours:.0f} h on 2 cores, {hours * THREADS / 64:.1f} h on 64")
    print(json.dumps({
        "name": "scale", "cells": fine["cells"], "seconds": round(fine["seconds"], 1), "peer": "1 km, the same forest",
        "peer_seconds": round(coarse["seconds"] * fine["cells"] / coarse["cells"], 1), "ratio": round(speeds[0], 3),
        "cpu_ratio": round(speeds[1], 3), "peak_rss_mb": round(max(fine["mb"], rest["mb"])),
        "chunks": fine["chunks"], "finished_when_killed": finished, "not_predicted_again": rest["kept"],
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
