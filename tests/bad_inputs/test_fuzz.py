"""Random damage: the process survives, and says nothing but our own errors."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz.py")
KINDS = ["settings", "yaml", "tables", "rasters", "models"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("examples", [15, pytest.param(10_000, marks=pytest.mark.soak)])
def test_nothing_but_our_own_errors(kind, examples):
    done = subprocess.run(
        [sys.executable, SCRIPT, kind, str(examples)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
