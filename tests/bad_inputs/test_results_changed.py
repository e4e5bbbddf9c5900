"""Results that something else has changed: named, and made again by their own stage."""

import json

import numpy as np
import pytest
import rasterio
import rasterio.transform
from refusals import assert_refused

from helpers.core.errors import CompendiumError
from helpers.core.files import read_json, write_text
from helpers.core.rasters import RasterError, read_band
from helpers.core.study import Study
from launcher import records
from launcher.records import why_stale, write_record
from launcher.stages import STAGES, record_path, stage_fingerprint, stage_outputs

STAGE = "02-boreholes"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A study of which one stage was made, in a folder of its own."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / "results"))
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
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
    assert why_stale(made, STAGE, []) == f"changed since it was made: {labels.name}"
    records.forget_changed(made, [STAGE])
    assert "02-boreholes runs again: what it made has been changed since: labels.csv" in (
        capsys.readouterr().out
    )
    assert not labels.exists()


def test_a_missing_output_is_named(made):
    labels = STAGES[STAGE].outputs(made)[0]
    labels.unlink()
    assert why_stale(made, STAGE, []) == "missing: labels.csv"


def test_an_earlier_stage_is_named(made):
    assert why_stale(made, STAGE, ["01-prepare-data"]) == "it reads what 01-prepare-data makes"


def test_model_cards_are_outputs_like_their_models(made):
    names = {path.suffix for path in STAGES["03-grid-search"].outputs(made)}
    assert names == {".npz", ".json"}


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
