"""Stages: every notebook is one, one entry adds one, and missing files have names."""

import json
import math

import nbformat
import pytest
from conftest import copy_project
from project import front_door

from helpers.core.grid import MOST_CELLS, reference_grid
from helpers.core.settings import ROOT
from helpers.core.study import Study
from launcher import stages
from launcher.batch import COMPARISON, MANY_WORLDS
from launcher.stages import STAGES
from testbed.settings import VirtualStudy

OPEN = "00-open-data"

STUDIES = {
    "virtual": VirtualStudy(name="a"),
    "own boreholes": VirtualStudy(name="a", samples={"sites": "a.csv", "intervals": "b.csv"}),
    "files": Study(name="a"),
}

ENTRY = """
    Stage(
        "09-count-samples",
        "how many samples there are",
        after=("02-extract-samples",),
        outputs=_files("tables/count.json"),
        seconds=7,
        memory_mb=(300, 0),
        settings=("maps",),
    ),
)  # fmt: skip
"""


def test_every_notebook_is_a_stage_compares_runs_or_explores_one():
    folder = ROOT / "notebooks"
    paths = [p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    names = {path.relative_to(folder).with_suffix("").as_posix() for path in paths}
    assert names == {*STAGES, COMPARISON, MANY_WORLDS, "09-explore"}


def test_stages_come_after_those_that_they_read():
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert all(order.index(earlier) < order.index(name) for earlier in stage.after)


@pytest.mark.parametrize("kind", STUDIES)
def test_no_two_stages_make_one_file(kind):
    study = STUDIES[kind]
    made = [
        path
        for name in stages.stages_of(study, full=True)
        for path in stages.stage_outputs(study, name)
    ]
    assert len(made) == len(set(made))
    assert all(path.is_relative_to(ROOT) for path in made)


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("virtual", [OPEN]),
        ("own boreholes", [OPEN, "testbed/2-boreholes", "testbed/3-against-the-truth"]),
        (
            "files",
            [OPEN, "testbed/1-landscape", "testbed/2-boreholes", "testbed/3-against-the-truth"],
        ),
    ],
)
def test_the_test_bed_has_stages_of_its_own(kind, absent):
    names = stages.stages_of(STUDIES[kind], full=True)
    assert names == [name for name in STAGES if name not in absent]
    for name in names:
        assert not {*stages.stages_before(STUDIES[kind], name)} & {*absent}


def test_memory_of_large_grids_grows_slowly_but_for_what_takes_whole_ones():
    assert stages.LARGE_GRID * 1e6 == MOST_CELLS
    fine = VirtualStudy(name="a", grid={"resolution": 100, "fine_resolution": 50})  # 144 million
    memory = {name: stages.memory_mb(fine, name) for name in stages.stages_of(fine)}
    whole = {"testbed/1-landscape", "testbed/2-boreholes"}
    assert {name for name, most in memory.items() if most > 20_000} == whole
    further = 144 - stages.LARGE_GRID
    assert memory["05-map-ground-ice"] == pytest.approx(4600 + stages._BEYOND * further, rel=0.01)
    # This one has the user's own rasters alone.
    sides = {"grid.like": "", "grid.resolution": 5, "grid.fine_resolution": 5}
    box = {"area.polygons": "", "area.box": [-139, 63, -138, 64]}
    finer = Study.open("config/yukon.yaml").changed(sides | box)
    million = math.prod(reference_grid(finer).shape) / 1e6
    assert million > 100
    assert stages.memory_mb(finer, "01-prepare-data") < 2100 + stages._BEYOND * million


def test_an_unknown_stage_names_the_nearest():
    with pytest.raises(stages.RunError, match="such as 05-map-ground-ice"):
        stages.stages_of(STUDIES["virtual"], until="05-map-ice")


@pytest.fixture
def scratch(tmp_path):
    copy_project(tmp_path)
    return tmp_path


def test_one_entry_adds_a_stage(scratch):
    """The order, the help, the digest and the Snakefile have it without another edit."""
    path = scratch / "src/launcher/stages.py"
    text = path.read_text(encoding="utf-8")
    assert text.count("\n)  # fmt: skip\n") == 1
    path.write_text(text.replace("\n)  # fmt: skip\n", ENTRY), encoding="utf-8")
    source = [
        'study = "config/virtual.yaml"',
        "from helpers.core.files import write_json\nfrom helpers.core.study import Study",
        'write_json(Study.open(study).results_dir / "tables/count.json", 3)',
    ]
    cells = [nbformat.v4.new_code_cell(cell) for cell in source]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, scratch / "notebooks/09-count-samples.ipynb")

    status, out, _ = front_door(scratch, "--help")
    assert status == 0
    assert any(line.split(maxsplit=1)[1:] == ["how many samples there are"] for line in out)
    status, out, err = front_door(scratch, "check", "config/quick.yaml")
    assert status == 0, err
    names = [name for name, stage in STAGES.items() if not stage.full and name != OPEN]
    assert out[0].startswith("grid: 276 rows x 286 columns of 6000 m")
    assert out[1].startswith("run: about ")
    assert [line.split()[:3] for line in out[2:]] == [
        [name, "would", "run:"] for name in [*names, "09-count-samples"]
    ]

    status, _, err = front_door(scratch, "stage", "09-count-samples", "config/quick.yaml")
    assert status == 0, err
    run = scratch / "results/quick/main"
    assert json.loads((run / "tables/count.json").read_text()) == 3
    record = json.loads((run / "notebooks/09-count-samples.json").read_text())
    code = (run / "notebooks/.09-count-samples.code").read_text()
    assert record["made_of"] == code
    events = (scratch / ".run/quick/main/events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in events] == ["start", *["cell"] * 4, "end"]


def test_missing_rasters_have_a_name_and_a_place(scratch):
    text = "name: mine\nsource: {kind: files, dem: data/mine/dem.tif, soil: data/mine/soil}\n"
    own = "predictors: [twi, {name: snow, file: data/mine/snow}]\n"
    (scratch / "config/mine.yaml").write_text(text + own)
    status, _, err = front_door(scratch, "map", "config/mine.yaml")
    assert status == 1
    assert len(err) == 2
    assert err[0].startswith("There is no data/mine/dem.tif and 5 more, which 01-prepare-data")
    assert "correct its path in the study file" in err[1]
    status, out, _ = front_door(scratch, "check", "config/mine.yaml")
    assert status == 1
    problems = [line for line in out if line.startswith("problem: There is no data/mine/")]
    assert any("data/mine/dem.tif, which `source.dem` names" in line for line in problems)
    assert len(problems) == len(set(problems)) == 3  # a setting each


def test_a_missing_table_has_a_name(scratch):
    text = "extends: quick.yaml\nname: mine\nsamples: {sites: data/a.csv, intervals: data/b.csv}\n"
    (scratch / "config/mine.yaml").write_text(text)
    status, _, err = front_door(scratch, "map", "config/mine.yaml")
    assert status == 1
    assert err[0] == "There is no data/a.csv and 1 more, which 02-boreholes reads."


def test_a_table_of_shares_is_an_input_of_the_models_alone(tmp_path):
    """Their cards tell later stages what follows from it."""
    path = tmp_path / "shares.csv"
    prints = []
    for text in ("a", "b"):
        path.write_text(text)
        study = STUDIES["files"].changed({"samples.prevalence": str(path)})
        prints.append({name: stages.stage_fingerprint(study, name) for name in STAGES})
    different = {name for name in STAGES if prints[0][name] != prints[1][name]}
    assert different == {"03-grid-search"}
    path.unlink()
    error = stages.missing_file(study, ["03-grid-search"])
    assert "shares.csv, which 03-grid-search reads" in error.message
