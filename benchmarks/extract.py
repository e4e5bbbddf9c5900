"""Time of extracting all covariates at 10 000 sites on the full grid, beside rasterio's sampling.

``python benchmarks/extract.py [config/virtual.yaml] [sites]`` needs no earlier run: it makes the
registry's covariates from smooth noise in a temporary folder. It asserts that both ways give the
same values, and its last line is JSON: seconds of ours and of the peer, their ratio (above 1: ours
is faster), and the peak memory of the extraction.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

from helpers.core.grid import named_crs, reference_grid, study_area
from helpers.core.study import Study
from helpers.prepare.registry import covariate_files, covariates, write_covariates
from helpers.samples.extract import extract_covariates

REPEATS = 3


def open_study(path, folder):
    """Return the study with its covariates in a folder of our own."""
    Study.processed_dir = property(lambda self: Path(folder))
    return Study.open(path)


def make_covariates(path, folder):
    """Write every layer of the registry as smooth noise on the reference grid."""
    from scipy.ndimage import zoom

    study, rng = open_study(path, folder), np.random.default_rng(1)
    shape = reference_grid(study).shape
    for name in covariates(study):
        coarse = rng.normal(size=[n // 40 + 2 for n in shape]).astype(np.float32)
        values = zoom(coarse, 41, order=1)[: shape[0], : shape[1]]
        values += rng.normal(scale=0.01, size=shape).astype(np.float32)
        write_covariates(study, {name: values})


def random_sites(study, number, rng):
    """Return sites spread evenly over the study area, in WGS 84 degrees."""
    import pyproj
    import shapely

    crs = named_crs(study.grid.crs)
    area = study_area(study, crs)
    sites = np.empty((0, 2))
    west, south, east, north = area.bounds
    shapely.prepare(area)
    while len(sites) < number:
        points = rng.uniform((west, south), (east, north), (2 * number, 2))
        sites = np.concatenate([sites, points[shapely.contains_xy(area, *points.T)]])
    back = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(*sites[:number].T)
    return pd.DataFrame(
        {"site_id": np.arange(number).astype(str), "longitude": longitude, "latitude": latitude}
    )


def sample_by_rasterio(study, table):
    """Return the values of each covariate at each site by rasterio's `sample`."""
    points = table[["easting", "northing"]].to_numpy()
    sampled = {}
    for name, path in covariate_files(study).items():
        with rasterio.open(path) as source:
            sampled[name] = np.array([values[0] for values in source.sample(points)], float)
    return sampled


def peak_mb():
    """Return the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def seconds(call):
    """Return the least time of some calls, and the last result."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return min(times), result


def main(path="config/virtual.yaml", number="10000"):
    """Print what is timed, then the summary as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that the peak memory is that of the extraction.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_covariates, args=(path, folder)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("The covariates could not be made.")
        study = open_study(path, folder)
        files, rows = covariate_files(study), reference_grid(study).shape
        opened, _ = seconds(lambda: [rasterio.open(file).close() for file in files.values()])
        print(
            f"{len(files)} covariates of {rows[0]} x {rows[1]} cells; "
            f"opening them takes {opened:.3f} s",
            flush=True,
        )
        sites = random_sites(study, int(number), np.random.default_rng(2))
        ours, table = seconds(lambda: extract_covariates(study, sites))
        memory = peak_mb()
        print(
            f"helpers.samples.extract.extract_covariates: {ours:.3f} s for {len(sites)} sites",
            flush=True,
        )
        start = time.perf_counter()
        expected = sample_by_rasterio(study, table)
        peer = time.perf_counter() - start
        print(f"rasterio sample, file by file: {peer:.3f} s", flush=True)
        for name, values in expected.items():
            np.testing.assert_array_equal(table[name], values, err_msg=name)
        print(f"equal at all {table[list(files)].size} values")
    summary = {"name": "extract", "seconds": ours, "peer": "rasterio sample", "peer_seconds": peer}
    summary |= {"ratio": peer / ours, "peak_rss_mb": memory}
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in summary.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main(*sys.argv[1:])
