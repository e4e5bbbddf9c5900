"""Working with a copy of the project: its front door, and its rasters."""

import os
import subprocess
import sys

import numpy as np
import rasterio


def environment(project):
    """Return the environment of a process that uses the packages of a project's copy."""
    return {**os.environ, "PYTHONPATH": str(project / "src")}


def front_door(project, *arguments):
    """Run a command of a project's copy; return status, lines of output and lines of errors."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def assert_same_rasters(project, reference, *folders):
    ours, theirs = (
        sorted(
            path.relative_to(root)
            for folder in folders or ["data"]
            for path in (root / folder).rglob("*.tif")
        )
        for root in (project, reference)
    )
    assert ours == theirs
    for path in ours:
        with rasterio.open(project / path) as one, rasterio.open(reference / path) as other:
            np.testing.assert_array_equal(one.read(), other.read(), err_msg=str(path))
