"""A run that has less memory than it needs ends with a sentence, and goes on when it has more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_project
from project import assert_same_rasters, environment, front_door

QUICK = "config/quick.yaml"

PLACES = {
    Path("/sys/fs/cgroup"): "memory.max",
    Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes",
}
"""Where a control group of the system's second or first version is made, and its limit."""


@pytest.fixture
def small_group():
    """A control group of 600 MB for all processes of a run together."""
    for place, limit in PLACES.items():
        group = place / f"ground-ice-{os.getpid()}"
        try:
            if (place / "cgroup.procs").is_file():
                group.mkdir()
                (group / limit).write_text(str(600 * 2**20))
                break
        except OSError:
            if group.is_dir():
                group.rmdir()
    else:
        pytest.skip("no right to make a control group that limits memory")
    yield group
    group.rmdir()


@pytest.mark.soak
def test_too_little_memory_ends_in_a_sentence_and_the_next_run_goes_on(
    quick, small_group, tmp_path
):
    project = tmp_path / "project"
    copy_project(project)
    script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    command = [sys.executable, "-m", "launcher", "map", QUICK]
    done = subprocess.run(
        ["sh", "-c", script, str(small_group), *command],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "memory ran out" in done.stderr or "MemoryError" in done.stderr
    assert "Remedy: close other programs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(project.rglob(".*.part"))
    status, _, err = front_door(project, "map", QUICK)
    assert status == 0, err
    assert_same_rasters(project, quick, "data", "results")
