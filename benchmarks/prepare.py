"""Time of a user's rasters onto the reference grid, and memory of Landsat scenes.

``python benchmarks/prepare.py [scenes]`` needs no earlier run. It makes up five rasters of
Northeast China: one on the grid itself, elevations of 250 m in degrees, whole numbers with a scale,
a category, and a folder of four tiles. The peer is a plain loop over rasterio's `reproject`. Both
are asserted to agree. Then vegetation indices are made of some dates of scenes of 180 km, and of
four times as many, each in a process of its own. The last line is JSON: seconds of both, their
ratio (above 1: ours is faster), and both peaks of memory.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from extract import seconds
from rasterio.enums import Resampling
from rasterio.transform import from_bounds, from_origin
from rasterio.warp import reproject

from helpers.core.grid import crs_wkt, reference_grid
from helpers.core.study import Study
from helpers.prepare import own, vegetation
from helpers.prepare.products import LANDSAT_BANDS

DEGREES = (114.0, 37.5, 136.5, 54.5)  # west, south, east, north: more than the study's grid
CELLS = (6800, 9000)  # of 250 m
SCENE_M, PIXEL_M = 180_000, 30
UTM = "EPSG:32651"
CORNER = (400_000, 5_700_000)  # of the scenes
BOX = [121.8, 50.0, 123.9, 51.3]  # inside of them


def patches(rng, shape, cell=50):
    """Return numbers that are alike in squares of cells, as ground is."""
    rows, columns = (-(-size // cell) for size in shape)
    coarse = rng.integers(0, 12, (rows, columns))
    return coarse.repeat(cell, 0).repeat(cell, 1)[: shape[0], : shape[1]]


def write(path, numbers, transform, crs, scale=1.0, nodata=None):
    """Write a tiled GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": numbers.dtype, "crs": crs, "nodata": nodata}
    size = {"height": numbers.shape[0], "width": numbers.shape[1], "transform": transform}
    with rasterio.open(path, "w", **profile, **size, tiled=True, compress="deflate") as target:
        target.write(numbers, 1)
        target.scales = (scale,)


def user_files(folder):
    """Write the user's rasters; return their entries of a study file."""
    rng, geobox = np.random.default_rng(1), reference_grid(Study(name="benchmark"))
    west, south, east, north = DEGREES
    whole = from_bounds(*DEGREES, CELLS[1], CELLS[0])
    relief = patches(rng, CELLS) * 100 + rng.normal(0, 5, CELLS).astype(np.float32)
    noise = rng.normal(0, 1, geobox.shape).astype(np.float32)
    write(folder / "aligned.tif", noise, geobox.transform, crs_wkt(geobox))
    write(folder / "elevation.tif", relief.astype(np.float32), whole, "EPSG:4326")
    snow = (relief * 2).clip(0, 5000).astype(np.int16)
    write(folder / "snow.tif", snow, whole, "EPSG:4326", scale=0.01, nodata=-32768)
    write(folder / "geology.tif", patches(rng, CELLS).astype(np.uint8), whole, "EPSG:4326")
    half = CELLS[1] // 2
    step = (east - west) / CELLS[1]
    for number, part in enumerate((relief[:, :half], relief[:, half:])):
        place = from_origin(west + number * half * step, north, step, (north - south) / CELLS[0])
        write(folder / f"tiles/{number}.tif", part.astype(np.float32), place, "EPSG:4326")
    kinds = {"geology": "category"}
    names = {"aligned": "aligned.tif", "elevation": "elevation.tif", "snow": "snow.tif"}
    names |= {"geology": "geology.tif", "tiles": "tiles"}
    return [
        {"name": name, "file": str(folder / file), "kind": kinds.get(name, "number")}
        for name, file in names.items()
    ]


def plain_loop(study, geobox):
    """Return the rasters on the grid as a short script would bring them there."""
    layers = {}
    for entry in study.own_predictors:
        path = Path(entry.file)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        rule = Resampling.mode if entry.kind == "category" else Resampling.average
        for file in files:
            values = np.full(geobox.shape, np.nan, np.float32)
            with rasterio.open(file) as source:
                reproject(
                    rasterio.band(source, 1),
                    values,
                    dst_transform=geobox.transform,
                    dst_crs=crs_wkt(geobox),
                    dst_nodata=np.nan,
                    resampling=rule,
                )
                values *= source.scales[0]
            before = layers.get(entry.name, values)
            layers[entry.name] = np.where(np.isnan(before), values, before)
    return layers


def scenes(folder, dates):
    """Write a scene, and link it under the names of so many dates."""
    rng = np.random.default_rng(2)
    size = (SCENE_M // PIXEL_M,) * 2
    place = from_origin(*CORNER, PIXEL_M, PIXEL_M)
    first = folder / "first"
    for band in (*LANDSAT_BANDS.values(), "QA"):
        numbers = np.full(size, 21824, np.uint16)
        if band != "QA":
            numbers = (9000 + 1500 * patches(rng, size)).astype(np.uint16)
        write(first / f"{band}.tif", numbers, place, UTM)
    for date in range(dates):
        day = f"{2013 + date // 12}{date % 12 + 1:02d}15"
        for band in (*LANDSAT_BANDS.values(), "QA"):
            name = "QA_PIXEL" if band == "QA" else f"SR_{band}"
            link = folder / f"landsat/LC08_L2SP_121024_{day}_{day}_02_T1_{name}.TIF"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(first / f"{band}.tif")


def peak_of_indices(folder, queue):
    """Make the indices of all scenes; put seconds and the peak memory of this process, MB."""
    study = Study(
        name="benchmark",
        area={"box": BOX},
        grid={"crs": UTM, "resolution": 1000, "fine_resolution": 125, "margin": 0},
        source={"kind": "files", "landsat": str(folder / "landsat")},
    )
    start = time.perf_counter()
    layers = vegetation.make(study, reference_grid(study))
    assert np.isfinite(layers["ndvi"]).any()
    # Not `getrusage`, which remembers the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    queue.put((time.perf_counter() - start, int(status.partition("VmHWM:")[2].split()[0]) / 2**10))


def in_process(dates):
    """Return seconds and peak memory of the indices of some dates."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as name:
        scenes(Path(name), dates)
        process = context.Process(target=peak_of_indices, args=(Path(name), queue))
        process.start()
        process.join()
    return queue.get_nowait()


def main(dates="12"):
    """Print both times, their ratio and both peaks as JSON."""
    with tempfile.TemporaryDirectory() as name:
        entries = user_files(Path(name))
        study = Study(name="benchmark", source={"kind": "files"}, predictors=entries)
        geobox = reference_grid(study)
        taken, ours = seconds(
            lambda: dict(
                layer
                for one in study.own_predictors
                for layer in own.make(study, geobox, one).items()
            )
        )
        peer_taken, theirs = seconds(lambda: plain_loop(study, geobox))
        for layer, values in ours.items():
            both = np.isfinite(values) & np.isfinite(theirs[layer])
            apart = np.abs(values[both] - theirs[layer][both]).mean() / theirs[layer][both].std()
            print(f"{layer}: {both.sum()} cells, on average {apart:.2e} standard deviations apart")
            assert apart < 0.01, layer  # both take places in the file for a little off
    some, many = in_process(int(dates)), in_process(4 * int(dates))
    print(f"{dates} dates {some[0]:.0f} s, {4 * int(dates)} dates {many[0]:.0f} s")
    result = {"name": "prepare", "seconds": round(taken, 2)}
    result |= {"peer": "rasterio's reproject, file by file", "peer_seconds": round(peer_taken, 2)}
    result |= {"ratio": round(peer_taken / taken, 2), "peak_mb": round(some[1])}
    print(json.dumps(result | {"peak_mb_of_four_times": round(many[1])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
