"""Time of kNNDM for 700 clustered sites against all cells of the map, beside brute-force distances.

``python benchmarks/folds.py [config/virtual.yaml] [sites]`` needs no earlier run. The peer is
scikit-learn's nearest neighbour by brute force, for the distances from cells to sites alone, which
are asserted to be equal. The last line is JSON: seconds of these distances by ours and by the peer,
their ratio (above 1: ours is faster), the seconds of the whole of kNNDM, and the peak memory before
the peer ran.
"""

import json
import resource
import sys
import time

import numpy as np

from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.study import Study
from helpers.folds import knndm
from helpers.folds.distances import Distribution, neighbour_distances, prediction_distances
from helpers.folds.units import deal_units
from helpers.samples.together import units


def clustered_sites(cells, number, rng, clusters=90, radius=6000):
    """Return sites in clusters, as people drill: uniformly around some of the cells."""
    centres = cells[rng.choice(len(cells), clusters)]
    return centres[rng.integers(0, clusters, number)] + rng.uniform(-radius, radius, (number, 2))


def peak_mb():
    """Return the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def seconds(call):
    """Return the time of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main(path="config/virtual.yaml", number="700"):
    """Print what is timed, then the summary as JSON."""
    from sklearn.neighbors import NearestNeighbors

    study, rng = Study.open(path), np.random.default_rng(1)
    geobox = reference_grid(study)
    row, column = np.nonzero(area_mask(study, geobox))
    easting, northing = cell_centres(geobox)
    cells = np.stack([easting[column], northing[row]], axis=1)
    sites = clustered_sites(cells, int(number), rng)
    types, unit = rng.integers(0, 6, len(sites)), units(sites, np.arange(len(sites)), 1000)
    samples = knndm.SamplePoints(sites, unit, types, np.ones(len(sites), bool))
    whole, matched = seconds(lambda: knndm.knndm(samples, cells, 5, 1))
    random = neighbour_distances(sites, deal_units(unit, types, 5, 1))
    by_chance = Distribution(matched.distances["Gij"]).wasserstein(random)
    print(
        f"kNNDM of {len(sites)} sites and {len(cells)} cells: {whole:.2f} s, "
        f"{matched.clusters} clusters, W {matched.wasserstein / 1000:.1f} km; "
        f"random folds {by_chance / 1000:.1f} km",
        flush=True,
    )
    ours, distances = seconds(lambda: prediction_distances(sites, cells))
    memory = peak_mb()
    print(f"distances from cells to sites: {ours:.2f} s", flush=True)
    brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(sites)
    peer, expected = seconds(lambda: brute.kneighbors(cells)[0][:, 0])
    print(f"by brute force: {peer:.2f} s")
    # The peer's squares lose digits.
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1.0)
    summary = {
        "name": "folds",
        "seconds": ours,
        "peer": "scikit-learn brute force",
        "peer_seconds": peer,
        "ratio": peer / ours,
        "knndm_seconds": whole,
        "peak_rss_mb": memory,
    }
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in summary.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main(*sys.argv[1:])
