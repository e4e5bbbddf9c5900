"""The whole run against the size of the grid: seconds and peak memory of each notebook.

Central Yukon (``config/yukon.yaml``) on finer grids than its own: elevation is interpolated to
smaller cells in a raster that ``grid.like`` names, the other rasters are as they are, and notebook
01 brings them onto the grid. Each size is a ``make map`` from the first notebook to the last. That
of the largest one is killed by SIGKILL when half of a layer's chunks are done, and continued: the
seconds of the notebook that was killed are those of both parts. Printed for each notebook are
seconds, peak memory and microseconds a cell, and beside them those of the first size, which is the
peer: 1 is linear; and the power of cells by which seconds grow between the two largest sizes. The
last line is JSON.

``python benchmarks/scale.py [millions of cells ...]``, by default 1.4 6 25 100. What the runs made
is deleted at the end.
"""

import json
import math
import shutil
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


def run(path):
    """Make the map of a study; return seconds."""
    since = time.perf_counter()
    if subprocess.run([sys.executable, "-m", "launcher", "map", str(path)], check=False).returncode:
        raise SystemExit("the run failed")
    return time.perf_counter() - since


def run_and_kill(path, chunks):
    """Begin the map of a study, and kill it after so many chunks.

    Returned are its seconds, and those of the notebook that was under way.
    """
    study = Study.open(str(path))
    since = time.time()
    process = subprocess.Popen([sys.executable, "-m", "launcher", "map", str(path)])
    folder = study.results_dir / "maps" / ".chunks"
    while process.poll() is None and len(list(folder.glob("*/*.npy"))) < chunks:
        time.sleep(0.5)
    process.kill()
    process.wait()
    records = [record_path(study, stage) for stage in stages_of(study)]
    begun = max(record.stat().st_mtime for record in records if record.is_file())
    print(f"killed, with {len(list(folder.glob('*/*.npy')))} chunks of the map done", flush=True)
    return time.time() - since, time.time() - begun


def notebooks(study, cells, before):
    """Return what each notebook's record says; notebook 05 took some seconds `before` a kill."""
    rows = {}
    for stage in stages_of(study):
        path = record_path(study, stage)
        if path.is_file():
            record = json.loads(path.read_text())
            seconds = round(record["seconds"] + before * (stage == "05-map-ground-ice"), 1)
            each = round(1e6 * seconds / cells, 3)
            rows[stage] = [seconds, record["peak_memory_mb"], each]
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
                killed = before = 0.0
                if size == sizes[-1] and cells > 4 * CHUNKS:
                    killed, before = run_and_kill(path, int(cells / CHUNKS / 2))
                spent[size] = round(killed + run(path), 1)
                rows[size] = notebooks(study, cells, before)
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
