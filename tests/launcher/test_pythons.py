"""The same study in every Python that the project takes: the same maps, the same ice."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from project import assert_same_rasters

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter(version):
    """Return a Python of this version that can make environments, or None."""
    path = shutil.which(f"python{version}")
    works = path and not subprocess.run([path, "-c", "import venv"], capture_output=True).returncode
    return path if works else None


@pytest.mark.soak
@pytest.mark.parametrize("version", [one for one in ("3.11", "3.12", "3.13") if one != OURS])
def test_another_python_makes_the_same_map(quick, tmp_path, version):
    python = interpreter(version)
    if not python:
        pytest.skip(f"Python {version} is not there")
    project = tmp_path / "project"
    made = shutil.ignore_patterns("raw", "processed", "results", ".run", "__pycache__")
    shutil.copytree(quick, project, ignore=made)
    here = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    lock = ["--require-hashes", "-r", "requirements.lock"]
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    subprocess.run([here, "-m", "pip", "install", "--quiet", *lock], cwd=root, check=True)
    env = {**os.environ, "PYTHONPATH": str(project / "src")}
    command = [here, "-m", "launcher", "map", "config/quick.yaml"]
    subprocess.run(command, cwd=project, env=env, check=True)
    assert_same_rasters(project, quick, "data", "results/quick/main/maps")
    totals = [
        json.loads((root / "results/quick/main/tables/storage_interval.json").read_text())
        for root in (project, quick)
    ]
    assert totals[0] == totals[1]
