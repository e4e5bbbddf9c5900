"""Files that say the same thing twice must say the same: packages, versions, the lock."""

import json
import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker

import helpers

ROOT = Path(__file__).parents[2]
CONDA_NAMES = json.loads((ROOT / "tests/pypi-to-conda.json").read_text())


def requirements():
    """Return the packages of pyproject.toml with their version ranges."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + project["optional-dependencies"]["dev"]
    return dict(re.match(r"([A-Za-z0-9_.-]+)(.*)", requirement).groups() for requirement in listed)


def test_environment_yml_equals_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(
        [*line.split(" ", 1), ""][:2] for line in conda if not line.startswith(("python ", "pip"))
    )
    assert conda == {CONDA_NAMES.get(name, name): spec for name, spec in requirements().items()}


def test_lock_holds_every_package_with_hashes_and_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", lock, re.M))
    assert {re.sub("[_.]", "-", name.lower()) for name in requirements()} <= locked
    blocks = re.split(r"\n(?=[a-z0-9])", lock)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock


@pytest.mark.parametrize(
    "machine", [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
)
def test_all_pythons_get_the_same_versions(machine):
    """With two versions of numpy the same study had 452 and 476 km3 of ice."""
    lock = (ROOT / "requirements.lock").read_text()
    system, processor = machine
    found = {}
    for python in ("3.11", "3.12", "3.13"):
        place = {"python_version": python, "python_full_version": f"{python}.9"}
        place |= {"sys_platform": system, "platform_machine": processor}
        for name, version, marker in re.findall(
            r"^([a-z0-9][^ =]*)==(\S+)( ; .+)? \\$", lock, re.M
        ):
            if not marker or Marker(marker.removeprefix(" ; ")).evaluate(place):
                found.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}
    assert {"numpy", "scipy", "scikit-learn", "rasterio"} <= found.keys()


FAMILIES = {"PSF-2.0": "Python Software Foundation"}


def test_licences_of_all_dependencies_are_listed():
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| ([a-z0-9.-]+) \| (.+?) \| .+ \|$", page, re.M))
    assert listed.pop("package") == "licence"
    assert sorted(listed) == sorted(requirements())
    for name, licence in listed.items():
        about = metadata(name)
        texts = [about.get("License-Expression", ""), (about.get("License") or "")[:80]]
        told = " ".join([*texts, *(about.get_all("Classifier") or [])])
        family = FAMILIES.get(licence, licence.split("-")[0].split()[0])
        assert family in told or "License" not in told, f"{name} says {told[:80]}"


@pytest.mark.parametrize("file", ["CITATION.cff", "CHANGELOG.md"])
def test_version_is_the_same_everywhere(file):
    assert helpers.__version__ in (ROOT / file).read_text()
