"""The reference of settings says what each one is, and `study` prints it with the values."""

import pytest
import yaml
from conftest import ROOT

from helpers.core.settings import Folds, Ice
from helpers.core.study import Study, valid_names
from launcher.__main__ import main
from launcher.reference import commented, meanings, sections, settings
from testbed.settings import VirtualStudy

FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "config").glob("*.yaml"))


def test_comments_above_and_behind_a_setting_are_its_meaning():
    assert meanings(Ice)["spot_reach"].startswith("m; a sample of a single depth")
    assert meanings(Ice)["thresholds"].startswith("Class limits of the volumetric rule.")
    assert meanings(VirtualStudy)["target"] == meanings(Study)["target"]


def test_type_bounds_and_default_are_in_the_reference():
    rows = {row.name: row for row in settings(Folds)}
    assert rows["number"].type == "whole number, >= 2, <= 100"
    assert rows["number"].default == "5"
    assert rows["kind"].type.split(" or ")[0] == '"random"'


def test_every_setting_of_every_study_has_a_meaning():
    rows = [(section, row) for _, section in sections(Study) for row in settings(section)]
    assert [(section.__name__, row.name) for section, row in rows if not row.meaning] == []


def test_all_sections_are_in_the_reference():
    named = {name.replace("[]", "") for name, _ in sections(VirtualStudy)}
    below = {name.rpartition(".")[0] for name in valid_names(VirtualStudy)}
    assert below <= named


@pytest.mark.parametrize("path", FILES)
def test_a_study_with_comments_is_the_study(path):
    study = Study.open(path)
    assert yaml.safe_load(commented(study)) == yaml.safe_load(study.as_yaml())


def test_the_command_prints_comments_and_folders(capsys):
    assert main(["study", "config/quick.yaml"]) == 0
    text = capsys.readouterr().out
    assert "  # of the groups, for the test\n  test_share: 0.3\n" in text
    assert "# results_dir: results/quick/main" in text
