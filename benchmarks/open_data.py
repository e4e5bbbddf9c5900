"""Indices from a STAC API: fetched and composed as in notebooks 00 and 01, against odc-stac.

Scenes of 30 m with overviews lie on a file server on loopback, behind a real STAC API. Ours lists
them, fetches the windows that cells of 250 m need, and makes the indices; the peer is a plain loop
over days with `odc.stac.load` on the same fine grid. The peak memory is that of the process that
does either, and of ours also with four times the scenes.

    python benchmarks/open_data.py [DATES]
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from affine import Affine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import open_server

from helpers.core.grid import block_mean, fine_grid, reference_grid
from helpers.core.study import Study
from helpers.prepare import fetch, open_data, vegetation
from helpers.prepare.products import LANDSAT_BANDS, LANDSAT_REFLECTANCE

UTM, SIDE, CORNER = "EPSG:32651", 3072, (500_000, 5_600_000)
BOX = (123.05, 49.8, 124.2, 50.5)
ASSETS = ("qa_pixel", *LANDSAT_BANDS)


def scenes(folder, url, dates):
    """Write a scene, link it under the names of so many dates, and return the items."""
    rng = np.random.default_rng(0)
    place = Affine(30, 0, CORNER[0], 0, -30, CORNER[1])
    for asset, band in open_server.BANDS.items():
        numbers = np.full((SIDE, SIDE), open_server.CLEAR, np.uint16)
        if asset != "qa_pixel":
            level = 15_000 if asset == "nir08" else 9000
            numbers = (level + rng.integers(0, 1500, numbers.shape)).astype(np.uint16)
        nodata = None if asset == "qa_pixel" else 0
        open_server.write_cog(folder / f"first_{band}.TIF", numbers, place, UTM, nodata)
    items = []
    for date in range(dates):
        day = f"{2013 + date // 12}{date % 12 + 1:02d}15"
        name = f"LC08_L2SP_121025_{day}_{day}_02_T1"
        files = {}
        for asset, band in open_server.BANDS.items():
            (folder / f"{name}_{band}.TIF").hardlink_to(folder / f"first_{band}.TIF")
            raster = {"spatial_resolution": 30, "data_type": "uint16", "nodata": 0}
            if asset == "qa_pixel":
                raster["nodata"] = 1
            files[asset] = (f"{url}/files/{name}_{band}.TIF", {"raster:bands": [raster]})
        more = {"datetime": f"{day[:4]}-{day[4:6]}-15T02:00:00Z", "platform": "landsat-8"}
        more |= {"proj:epsg": 32651, "proj:shape": [SIDE, SIDE], "proj:transform": list(place)[:6]}
        item = open_server.item(name, "landsat-c2-l2", UTM, place, (SIDE, SIDE), files, **more)
        items.append(item)
    return items


def study_in(folder, api):
    """Return a study of the scenes whose raw rasters lie in a folder."""
    Study.raw_dir = property(lambda self: folder / "raw")
    landsat = {"collection": "landsat-c2-l2", "years": [2013, 2030], "licence": "made up"}
    return Study(
        name="benchmark",
        source={"kind": "stac", "api": api, "landsat": landsat},
        area={"box": BOX},
        grid={"crs": UTM, "resolution": 1000, "fine_resolution": 250, "margin": 0},
    )


def fetched(study):
    """Fetch the scenes."""
    fetch.fetch(study, open_data.make_plan(study))


def composed(study):
    """Make the indices of fetched scenes."""
    return vegetation.make(study, reference_grid(study))["ndvi"]


def odc_loop(study):
    """Make the index as a short script with odc-stac does it, day by day."""
    import odc.stac
    from pystac_client import Client

    items = Client.open(study.source.api).search(collections=["landsat-c2-l2"], bbox=BOX).items()
    days = defaultdict(list)
    for item in items:
        days[item.datetime.date()].append(item)
    geobox, indices = fine_grid(study), []
    for group in days.values():
        data = odc.stac.load(group, ASSETS, geobox=geobox, groupby="solar_day")
        bands = {name: data[name].to_numpy()[0] for name in ASSETS}
        clear = vegetation.clear_pixels(bands.pop("qa_pixel"), study.covariates.vegetation.mask)
        values = {name: LANDSAT_REFLECTANCE.decode(numbers) for name, numbers in bands.items()}
        for numbers in bands.values():
            clear &= LANDSAT_REFLECTANCE.is_valid(numbers)
        ndvi = vegetation.spectral_indices(**values)["ndvi"]
        indices.append(np.where(clear, ndvi, np.nan))
    return block_mean(np.nanmedian(indices, axis=0), 4, 0.25)


def measured(steps, folder, api, queue):
    """Put seconds, the peak memory of this process in MB after each step, and the last result."""
    study, peaks = study_in(folder, api), []
    start = time.perf_counter()
    for step in steps:
        result = step(study)
        # Not `getrusage`, which remembers the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peaks.append(round(int(status.partition("VmHWM:")[2].split()[0]) / 2**10))
    queue.put((time.perf_counter() - start, peaks, result))


def in_process(steps, dates):
    """Return what `measured` puts, for some dates."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        with open_server.file_server(folder / "files") as server:
            items = scenes(folder / "files", server.url, dates)
            with open_server.stac_api(items, folder) as api:
                process = context.Process(target=measured, args=(steps, folder, api, queue))
                process.start()
                result = queue.get(timeout=900)
                process.join()
    return result


def main(dates="12"):
    """Print both times, their ratio and the peaks as JSON."""
    number = int(dates)
    ours = (fetched, composed)
    mine, theirs = in_process(ours, number), in_process((odc_loop,), number)
    many = in_process(ours, 4 * number)
    both = np.isfinite(mine[2]) & np.isfinite(theirs[2])
    apart = np.abs(mine[2][both] - theirs[2][both]).mean()
    print(f"NDVI of {both.sum()} cells, on average {apart:.4f} apart")
    assert both.sum() > 3000
    assert apart < 0.02  # both thin out noise, each by pixels of its own
    print(f"{number} dates {mine[0]:.1f} s, {4 * number} dates {many[0]:.1f} s")
    result = {"name": "open_data", "seconds": round(mine[0], 2), "peer": "odc.stac.load day by day"}
    result |= {"peer_seconds": round(theirs[0], 2), "ratio": round(theirs[0] / mine[0], 2)}
    result |= {"peak_mb": mine[1][1], "peer_peak_mb": theirs[1][0]}
    result |= {"peak_mb_of_four_times": many[1][1]}
    result |= {"fetching_peak_mb": mine[1][0], "fetching_peak_mb_of_four_times": many[1][0]}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
