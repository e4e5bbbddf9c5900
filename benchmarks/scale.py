"""The whole run against the size of the grid: seconds and peak memory of each notebook.

Central Yukon (``config/yukon.yaml``) on finer grids than its own: elevation is interpolated to
smaller cells in a raster that ``grid.like`` names, the other rasters are as they are, and notebook
01 brings them onto the grid. Each size is a ``make map`` from the first notebook to the last. Of
the largest one the map is then made again, killed by SIGKILL when half of a layer's chunks are
done, and continued; these seconds are a line of their own, and in no other number. Printed for each
notebook are seconds, peak memory and microseconds a cell, and beside them those of the first size,
which is the peer: 1 is linear; and the power of cells by which seconds grow between the two largest
sizes. The last line is JSON.

``python benchmarks/scale.py [millions of cells ...]``, by default 1.4 6 25 100. What the runs made
is deleted at the end.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from helpers.core.grid import reference_grid
from helpers.core.study import Study
from launcher.stages import record_path, stages_of

BASE = "config/yukon.yaml"
CHUNKS = 131_072  # cells of a chunk of the map


def write_study(folder, millions):
    """Write the study of a finer grid, and the raster that gives it; return its path."""
    base = Study.open(BASE)
    factor = math.sqrt(millions * 1e6 / math.prod(reference_grid(base).shape))
    like = folder / "like.tif"
    with rasterio.open(base.path(base.grid.like)) as source:
        rows, columns = (int(size * factor) for size in source.shape)
        profile = source.profile | {
            "height": rows,
            "width": columns,
            "transform": source.transform * source.transform.scale(1 / factor),
            "compress": "deflate",
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
        }
        with rasterio.open(like, "w", **profile) as target:
            for top in range(0, rows, 512):
                height = min(512, rows - top)
                values = source.read(
                    1,
                    window=Window(0, top / factor, columns / factor, height / factor),
                    out_shape=(height, columns),
                    resampling=Resampling.bilinear,
                )
                target.write(values, 1, window=Window(0, top, columns, height))
    path = folder / "study.yaml"
    path.write_text(
        f"extends: {Path(BASE).resolve()}\nname: scale-{round(1000 * millions)}\n"
        f"title: Central Yukon, {millions:g} million cells\ngrid: {{like: {like}}}\n"
    )
    return path


def run(path, kill_at=None):
    """Make the map of a study; return seconds. With `kill_at`, kill it after so many chunks."""
    study = Study.open(str(path))
    since = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "launcher", "map", str(path)])
    chunks = study.results_dir / "maps" / ".chunks"
    while kill_at and process.poll() is None and len(list(chunks.glob("*/*.npy"))) < kill_at:
        time.sleep(0.5)
    if kill_at:
        os.kill(process.pid, signal.SIGKILL)
    if process.wait() and not kill_at:
        raise SystemExit("the run failed")
    return time.perf_counter() - since


def notebooks(study, cells):
    """Return what each notebook's record says."""
    rows = {}
    for stage in stages_of(study):
        path = record_path(study, stage)
        if path.is_file():
            record = json.loads(path.read_text())
            each = round(1e6 * record["seconds"] / cells, 3)
            rows[stage] = [record["seconds"], record["peak_memory_mb"], each]
    return rows


def power(rows, sizes, stage):
    """Return the power of cells by which a notebook's seconds grow, from the two largest sizes."""
    (first, second), seconds = sizes[-2:], [rows[size][stage][0] for size in sizes[-2:]]
    return round(float(np.log(seconds[1] / seconds[0]) / np.log(second / first)), 2)


def main(*sizes):
    """Print a table a size, and the powers."""
    sizes = [float(size) for size in sizes] or [1.4, 6, 25, 100]
    rows, spent = {}, {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = write_study(Path(folder), size)
            study = Study.open(str(path))
            cells = math.prod(reference_grid(study).shape)
            try:
                spent[size] = round(run(path), 1)
                rows[size] = notebooks(study, cells)
                if size == sizes[-1] and cells > 4 * CHUNKS:
                    shutil.rmtree(study.results_dir / "maps")
                    killed = run(path, int(cells / CHUNKS / 2))
                    rest = run(path)
                    print(f"killed after {killed:.0f} s, continued in {rest:.0f} s", flush=True)
            finally:
                for made in (study.results_dir.parent, study.processed_dir, study.figures_dir):
                    shutil.rmtree(made, ignore_errors=True)
        print(f"{size:g} million cells, {spent[size]:.0f} s in all")
        for stage, (seconds, memory, each) in rows[size].items():
            linear = each / max(rows[sizes[0]][stage][2], 1e-9)
            print(
                f"  {stage:24} {seconds:8.1f} s {memory:6} MB {each:8.2f} us a cell, "
                f"{linear:.2f} of the first size",
                flush=True,
            )
    powers = {}
    if len(sizes) > 1:
        powers = {stage: power(rows, sizes, stage) for stage in rows[sizes[-1]]}
        print("seconds grow as cells to the power of:", powers)
    record = {"name": "scale", "peer": f"{sizes[0]:g} million cells", "powers": powers}
    record |= {f"{size:g}": {"seconds": spent[size], "notebooks": rows[size]} for size in sizes}
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
