"""Results that something else has changed: named, and made again by their own stage."""

import json
import os
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.transform
from rasterio.errors import RasterioIOError
from refusals import assert_refused

from helpers.core.errors import CompendiumError
from helpers.core.files import read_json, write_text
from helpers.core.rasters import RasterError, read_band
from helpers.core.settings import ROOT
from helpers.core.study import Study, relative_path
from launcher import records
from launcher.notebooks import _recorded
from launcher.records import why_stale, write_record
from launcher.stages import (
    STAGES,
    RunError,
    executed_path,
    record_path,
    stage_fingerprint,
    stage_outputs,
    stages_of,
)

STAGE = "02-boreholes"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A study of which one stage was made, in a project of its own."""
    for module in ("helpers.core.study", "launcher.records"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    (tmp_path / "data" / "base").mkdir(parents=True)
    for name in ("data/README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    study = Study(name="a", samples={"sites": "data/README.md", "intervals": "data/README.md"})
    for path in stage_outputs(study, STAGE):
        write_text(path, "content")
    write_record(study, STAGE, 1.0, {"made_of": stage_fingerprint(study, STAGE)})
    return study


def test_what_is_as_it_was_made_is_up_to_date(made):
    assert records.changed_since(made, STAGE) is None


def test_a_setting_is_named(made):
    other = made.changed({"samples.elevation_tolerance": 50, "layers": [(1, 2)]})
    why = why_stale(other, STAGE, [])
    assert "`layers`" in why
    assert "`samples.elevation_tolerance`" in why


def test_a_setting_that_the_stage_does_not_read_is_not_named(made):
    other = made.changed({"samples.elevation_tolerance": 50, "forest.seed": 5})
    assert "forest" not in why_stale(other, STAGE, [])


def test_a_file_is_named(made):
    other = made.changed({"samples.sites": "LICENSE"})
    assert "`samples.sites`" in why_stale(other, STAGE, [])
    record = read_json(record_path(made, STAGE))
    record["inputs"]["data/README.md"] = "0"
    record["made_of"] = "0 0"
    record_path(made, STAGE).write_text(json.dumps(record))
    assert why_stale(made, STAGE, []) == "made with other code, data/README.md"


DAMAGES = {"empty": "", "cut off": '{"stage": "02-', "a list": "[]", "null": "null", "zeros": "\0"}


@pytest.mark.parametrize("text", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_made_again(made, text):
    record_path(made, STAGE).write_text(text)
    assert records.changed_since(made, STAGE) == []
    assert "damaged record" in why_stale(made, STAGE, [])
    records.forget_changed(made, [STAGE])
    assert not record_path(made, STAGE).exists()
    records.write_index(made)


@pytest.mark.parametrize("text", DAMAGES.values(), ids=DAMAGES)
def test_json_that_cannot_be_read_names_its_file(tmp_path, text):
    path = tmp_path / "accuracy.json"
    path.write_text(text)
    if text in ("[]", "null"):
        assert read_json(path) == json.loads(text)
    else:
        assert_refused(lambda: read_json(path), tmp_path, CompendiumError, "accuracy.json")


def test_a_changed_output_is_named_and_forgotten(made, capsys):
    labels = STAGES[STAGE].outputs(made)[0]
    labels.write_text("edited")
    assert records.changed_since(made, STAGE) == [labels]
    assert why_stale(made, STAGE, []) == f"changed since it was made: {relative_path(labels)}"
    records.forget_changed(made, [STAGE])
    told = capsys.readouterr().out
    assert told.startswith(
        "02-boreholes runs again: what it made is gone or has been changed since"
    )
    assert "labels.csv" in told
    assert not labels.exists()


def test_a_missing_output_is_named(made):
    labels = STAGES[STAGE].outputs(made)[0]
    labels.unlink()
    assert why_stale(made, STAGE, []) == f"missing: {relative_path(labels)}"


def test_a_record_that_is_gone_is_named_and_its_stage_made_again(made, capsys):
    record_path(made, STAGE).unlink()
    assert records.changed_since(made, STAGE) == []
    records.forget_changed(made, [STAGE])
    assert "02-boreholes.json" in capsys.readouterr().out
    assert not executed_path(made, STAGE).exists()


WAYS = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}
FILES = (
    "data/processed/quick-*/slope.tif",
    "data/processed/quick-*/summary.json",
    "results/quick/main/truth/*_2-3m.tif",
    "results/quick/main/samples/labels.csv",
    "results/quick/main/samples/samples.csv",
    "results/quick/main/samples/fates.csv",
    "results/quick/main/models/forest_2-3m.npz",
    "results/quick/main/models/ice_2-3m.json",
    "results/quick/main/tables/search_2-3m.csv",
    "results/quick/main/tables/predictions.npz",
    "results/quick/main/tables/accuracy.json",
    "results/quick/main/maps/ice_type_2-3m.qml",
    "results/quick/main/maps/ice_type_2-3m.tif.aux.xml",
    "results/quick/main/maps/trust.tif",
    "results/quick/main/notebooks/05-map-ground-ice.ipynb",
    "figures/quick/storage.png",
)


@pytest.fixture(scope="module")
def finished(quick, tmp_path_factory):
    """A copy of the finished quick study, whose files are damaged and mended."""
    project = tmp_path_factory.mktemp("finished") / "copy"
    shutil.copytree(quick, project, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("helpers.core.study", "launcher.records", "launcher.stages"):
            patch.setattr(f"{module}.ROOT", project)
        yield project, Study.open(project / "config/quick.yaml")


def changed(study):
    """Return the names of changed files of each stage that has some."""
    files = {name: records.changed_since(study, name) for name in stages_of(study)}
    return {name: [path.name for path in made] for name, made in files.items() if made is not None}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("pattern", FILES)
def test_any_damaged_file_of_a_run_is_named_and_its_stage_alone_runs_again(finished, pattern, way):
    project, study = finished
    path = sorted(project.glob(pattern))[0]
    content = path.read_bytes()
    assert changed(study) == {}
    way(path)
    damaged = changed(study)
    path.write_bytes(content)
    assert [path.name] in damaged.values()
    assert len(damaged) == 1


def test_a_style_that_qgis_saved_anew_stays(finished):
    project, study = finished
    path = project / "results/quick/main/maps/ice_type_2-3m.qml"
    style = path.read_text()
    path.write_text(style.replace('opacity="1"', 'opacity="0.5"'))
    found = changed(study)
    path.write_text(style)
    assert found == {}


def test_a_file_that_changed_without_a_date_is_found_by_a_thorough_check(finished, monkeypatch):
    """As on a disk that errs, or after the clock was set back."""
    project, study = finished
    path = project / "results/quick/main/samples/samples.csv"
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    monkeypatch.setattr(records, "_hash", lambda path, state: pytest.fail("it was read"))
    record = record_path(study, "02-extract-samples")
    later = type("State", (), {"st_mtime": 9e9, "st_ctime": 9e9})
    monkeypatch.setattr(
        type(record), "stat", lambda p, **o: later if p == record else os.stat(p, **o)
    )
    assert records.damaged_files(study, "02-extract-samples") == []
    monkeypatch.undo()
    assert records.damaged_files(study, "02-extract-samples", thorough=True) == [path]
    path.write_bytes(content)


def test_a_record_names_no_file_elsewhere(made, tmp_path):
    """A forged record must not have the launcher delete what lies outside of the run."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    record = read_json(record_path(made, STAGE))
    record["outputs"] |= {str(mine): "0", f"{made.results_dir}/../mine.txt": "0"}
    record_path(made, STAGE).write_text(json.dumps(record))
    records.forget_changed(made, [STAGE])
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("stage", "pattern"),
    [
        ("04-evaluate-accuracy", "data/processed/quick-*/slope.tif"),
        ("03-grid-search", "results/quick/main/samples/samples.csv"),
        ("05-map-ground-ice", "results/quick/main/models/forest_2-3m.npz"),
        ("06-publication-figures", "results/quick/main/tables/accuracy.json"),
    ],
)
def test_a_stage_alone_names_what_is_damaged_of_what_it_reads(finished, stage, pattern):
    project, study = finished
    path = sorted(project.glob(pattern))[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    own = record_path(study, stage).read_bytes()
    with pytest.raises(RunError) as caught, _recorded(study, stage):
        pytest.fail("it began")
    path.write_bytes(content)
    assert path.name in caught.value.message
    assert "start `make map` again" in caught.value.remedy
    assert record_path(study, stage).read_bytes() == own
    assert records.damaged_input(study, stage) is None


def test_what_fails_a_stage_late_is_named_if_it_is_a_damaged_file(finished):
    """GDAL tells of a window that cannot be read, and not of which file."""
    project, study = finished
    path = sorted(project.glob("data/processed/quick-*/slope.tif"))[0]
    content, stage = path.read_bytes(), "08-baselines"

    def fail():
        with _recorded(study, stage):
            path.write_bytes(content[:-1000])
            raise RasterioIOError("Read failed. See previous exception for details.")

    with pytest.raises(RunError) as caught:
        fail()
    path.write_bytes(content)
    assert "slope.tif" in caught.value.message
    assert "01-prepare-data makes it again" in caught.value.remedy


def test_an_earlier_stage_is_named(made):
    assert why_stale(made, STAGE, ["01-prepare-data"]) == "it reads what 01-prepare-data makes"


@pytest.mark.parametrize("size", [0, 100, 900])
def test_a_raster_that_was_cut_off_is_named(tmp_path, size):
    path = tmp_path / "trust.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=32, height=32, count=1, dtype="float32",
        crs="EPSG:32651", transform=rasterio.transform.from_origin(500_000, 5_600_000, 100, 100),
    ) as target:  # fmt: skip
        target.write(np.ones((1, 32, 32), np.float32))
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(lambda: read_band(path), tmp_path, RasterError, "trust.tif", "run again")
