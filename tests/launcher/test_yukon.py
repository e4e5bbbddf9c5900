"""Central Yukon, with small forests: polygons without depths and ice contents go on to a map."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
from conftest import copy_project
from project import environment

from helpers.core.study import Study
from launcher.stages import stages_of

SMALL = {"forest.n_estimators": 40, "forest.search_sizes": [20], "folds.estimators": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run in one process, as batches run it: without what only reports need."""
    project = tmp_path_factory.mktemp("project")
    copy_project(project)
    Study.open("config/yukon.yaml").changed(SMALL).write(project / "config/yukon.yaml")
    code = (
        "from launcher import notebooks, stages; from helpers.core.study import Study\n"
        "path = 'config/yukon.yaml'\n"
        "names = stages.stages_of(Study.open(path), until='05-map-ground-ice')\n"
        "for name in names: notebooks._run_cells(name, path)"
    )
    command = [sys.executable, "-c", code]
    told = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=project, env=environment(project), **told)
    assert done.returncode == 0, done.stderr[-2000:]
    return project / "results/yukon/main"


def test_what_needs_depths_or_ice_contents_is_absent(run):
    assert "05-storage" not in stages_of(Study.open("config/yukon.yaml"))
    kinds = ["class_probability", "dissimilarity_index", "expected_error", "ice_type"]
    kinds += ["ice_type_reference", "permafrost_probability", "point_density", "prediction_set"]
    names = [f"{kind}_upper-metres" for kind in kinds]
    assert {path.stem for path in run.glob("maps/*.tif")} == {*names, "trust"}
    assert (run / "tables/validation.json").is_file()
    assert not list(run.glob("tables/*storage*"))


def test_both_maps_follow_from_their_probabilities(run):
    def read(kind):
        with rasterio.open(run / f"maps/{kind}_upper-metres.tif") as source:
            return source.read().astype(int)

    shares, (chance,), (types,), (reference,) = map(
        read, ("class_probability", "permafrost_probability", "ice_type", "ice_type_reference")
    )
    valid = chance != 65535
    assert (shares[:, valid].sum(axis=0) == 10_000).all()
    np.testing.assert_array_equal(shares[1:, valid].sum(axis=0), chance[valid])
    assert (types[valid] > 0).sum() == pytest.approx(chance[valid].sum() / 1e4, rel=0.01)
    for one in (types, reference):
        assert set(np.unique(one[valid])) == {0, 1, 2, 3}
        assert (one[~valid] == 255).all()
