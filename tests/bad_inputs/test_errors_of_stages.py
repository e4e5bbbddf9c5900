"""Every exception of a stage is told as itself, and every error of the system with its remedy."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from refusals import state

from helpers.core.errors import MEMORY_REMEDY, system_remedy
from helpers.core.files import write_text
from helpers.core.study import Study
from launcher import __main__, notebooks, records
from launcher.records import failure
from launcher.stages import RunError

STAGE = "02-boreholes"
FULL = OSError(errno.ENOSPC, "No space left on device", "02-boreholes.ipynb")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose results, and events of stages, are in a folder of their own."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / "results"))
    monkeypatch.setenv(notebooks.EVENTS, str(tmp_path / "events.jsonl"))
    return Study(name="a")


CAUSES = {
    "full disk": (FULL, "OSError: [Errno 28]", "free some space"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota", "free some space"),
    "read-only": (OSError(errno.EROFS, "Read-only file system"), "Read-only", "right to write"),
    "no right": (PermissionError(errno.EACCES, "Permission denied"), "denied", "right to write"),
    "many files": (OSError(errno.EMFILE, "Too many open files"), "Too many", "ulimit"),
    "any error": (KeyError("kernelspec"), "KeyError: 'kernelspec'", "mend that cause"),
    "memory": (MemoryError("cannot allocate"), "MemoryError: cannot allocate", "close other"),
    "our own": (RunError("A sentence.", "A remedy."), "A sentence.", "A remedy."),
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_an_exception_outside_of_cells_is_told_as_itself(study, tmp_path, cause):
    error, *parts = cause
    with pytest.raises(RunError) as caught, notebooks._recorded(study, STAGE):
        raise error
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = str(failure(events))
    assert f"{STAGE} failed after" in told
    for part in parts:
        assert part in str(caught.value)
        assert part in told
    assert "killed" not in told


def test_a_full_disk_while_the_record_is_written_is_told(study, tmp_path, monkeypatch):
    def no_space(*parts):
        raise FULL

    monkeypatch.setattr(notebooks, "write_record", no_space)
    with pytest.raises(RunError, match="Errno 28"), notebooks._recorded(study, STAGE):
        pass
    told = [json.loads(one) for one in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [one["event"] for one in told] == ["start", "failure"]


@pytest.mark.parametrize(("free", "expected"), [(0, "0 MB left"), (2**40, "memory ran out")])
def test_a_stage_that_could_not_even_write_why_it_ended(monkeypatch, free, expected):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(records.shutil, "disk_usage", lambda path: usage)
    events = [{"run": "main", "stage": STAGE, "event": "start"}]
    assert expected in str(failure(events))


def test_a_full_disk_in_the_launcher_is_a_sentence(monkeypatch, capsys):
    def no_space(path):
        raise FULL

    monkeypatch.setitem(__main__._COMMANDS, "study", ("", no_space, [__main__._STUDY]))
    assert __main__.main(["study"]) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "Remedy: free some space" in told


def test_causes_of_causes_have_their_remedy():
    error = ValueError("cannot save")
    error.__cause__ = FULL
    assert "free some space" in system_remedy(error)
    assert not system_remedy(ValueError("a"))


def test_a_full_disk_in_a_cell_has_its_remedy():
    error = notebooks._cell_error(STAGE, "Labels", "OSError", "[Errno 28] No space left on device")
    assert "OSError: [Errno 28]" in error.message
    assert "free some space" in error.remedy


@pytest.mark.parametrize("name", ["MemoryError", "_ArrayMemoryError", "TerminatedWorkerError"])
def test_lack_of_memory_in_a_cell_has_its_remedy(name):
    error = notebooks._cell_error(STAGE, "Labels", name, "Unable to allocate 2.00 GiB")
    assert "Unable to allocate" in error.message
    assert error.remedy == MEMORY_REMEDY


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a.json", "old")
    before = state(tmp_path)

    def no_space(number):
        raise FULL

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.json", "new")
    assert state(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="rights do not bind this user")
def test_a_folder_without_the_right_to_write_is_told(tmp_path):
    (tmp_path / "results").mkdir(mode=0o500)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "results/a.json", "a")
    assert "right to write" in system_remedy(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_the_system_itself_says_that_a_disk_is_full():
    with pytest.raises(OSError, match="No space") as caught:
        Path("/dev/full").write_text("a")
    assert "free some space" in system_remedy(caught.value)
