"""Time of dissimilarity index and local point density for a whole map, beside brute force.

``python benchmarks/applicability.py [cells] [samples] [covariates]`` needs no earlier run. By
default there are as many cells as in the default study; samples are clustered, so that densities
are as on a map. The peer is scikit-learn's nearest neighbour by brute force, which finds the
distances alone, from the same numbers already scaled and in whichever precision is faster for it.
They are asserted to be equal to ours within 1e-6, the densities of some cells to be exact, and all
to be the same on one thread. The last line is JSON: seconds of both indices by ours and of the
distances by the peer, their ratio (above 1: ours is faster), and the memory that our pass takes on
one thread, in windows of `WINDOW` cells, beside its inputs and results.
"""

import json
import resource
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import cpu_count

from helpers.mapping import applicability

WINDOW = 100_000


def peak_mb():
    """Return the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def seconds(call):
    """Return the time of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main(cells="1440000", samples="700", covariates="25"):
    """Print what is timed, then the summary as JSON."""
    from scipy.spatial.distance import cdist
    from sklearn.neighbors import NearestNeighbors

    rng, count = np.random.default_rng(1), int(covariates)
    centres = rng.normal(size=(90, count))
    places = centres[rng.integers(0, 90, int(samples))] + rng.normal(0, 0.3, (int(samples), count))
    values = rng.normal(size=(int(cells), count)).astype(np.float32)
    near = rng.integers(0, len(values), len(values) // 2)
    values[near] = centres[rng.integers(0, 90, len(near))] + rng.normal(0, 0.4, (len(near), count))
    names = [f"covariate {k}" for k in range(count)]
    area = applicability.fit(
        places, names, rng.uniform(0.1, 1, count), rng.integers(0, 5, len(places))
    )
    area.measure(values[:10])  # compiled, or read from numba's cache
    dissimilarity, density = np.zeros(len(values)), np.zeros(len(values), np.int64)

    def part(start):
        chunk = slice(start, start + WINDOW)
        dissimilarity[chunk], density[chunk] = area.measure(values[chunk])

    def ours(threads):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(0, len(values), WINDOW)))

    part(0)
    taken, _ = seconds(lambda: ours(cpu_count()))
    first = dissimilarity.copy(), density.copy()
    tracemalloc.start()
    ours(1)
    extra = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    np.testing.assert_array_equal(first, (dissimilarity, density))
    print(
        f"both indices of {len(values)} cells: {taken:.2f} s, "
        f"{extra:.1f} MB beside their inputs and results"
    )
    scaled, times = (values - area.centre) * area.factor, {}
    for kind in (np.float32, np.float64):
        brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(area.points.astype(kind))
        cast = scaled.astype(kind)
        times[kind.__name__], nearest = seconds(
            lambda brute=brute, cast=cast: brute.kneighbors(cast)[0][:, 0]
        )
    print("brute force:", ", ".join(f"{kind} {value:.2f} s" for kind, value in times.items()))
    np.testing.assert_allclose(dissimilarity, nearest, rtol=0, atol=1e-6)
    some = slice(0, 20_000)
    np.testing.assert_array_equal(
        density[some], (cdist(scaled[some], area.points) < area.threshold).sum(axis=1)
    )
    peer = min(times.values())
    summary = {
        "name": "applicability",
        "seconds": taken,
        "peer": "scikit-learn brute force, distances alone",
        "peer_seconds": peer,
        "ratio": peer / taken,
        "peak_rss_mb": peak_mb(),
        "extra_mb": extra,
    }
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in summary.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main(*sys.argv[1:])
