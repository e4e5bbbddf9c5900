"""What `tables` prints: errors first, kinds by name, the user's own headers, samples by layer."""

import pytest
import yaml
from refusals import assert_refused

from helpers.core.study import Study
from helpers.samples.columns import SampleError
from helpers.samples.tables import read_tables
from launcher.tables import list_problems

SITES = "孔号,经度,纬度,孔深/m,多年冻土,冻土上限/m,冻土下限/m\nA,122.5,52.5,12,有,{depth},\n"
CORES = "孔号,顶深/m,底深/m,冻结,体积含冰量\nA,1.5,4,是,0.3\n"


@pytest.fixture
def study_file(tmp_path):
    """A function that writes tables and a study file that names them, and returns its path."""

    def write(table, cores=CORES, **samples):
        (tmp_path / "sites.csv").write_text(table, encoding="utf-8")
        (tmp_path / "cores.csv").write_text(cores, encoding="utf-8")
        named = {"sites": str(tmp_path / "sites.csv"), "intervals": str(tmp_path / "cores.csv")}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"name": "mine", "samples": named | samples}), "utf-8")
        return path

    return write


def test_header_only_tables_are_errors(study_file, capsys):
    path = study_file(SITES.splitlines()[0], CORES.splitlines()[0])
    assert list_problems(path) == 1
    assert "error  sites.csv has no usable site." in capsys.readouterr().out


@pytest.mark.parametrize("how", ["stop", "merge"])
def test_a_table_of_one_row_has_too_few_samples(study_file, capsys, how):
    assert list_problems(study_file(SITES.format(depth=1.5), rare_classes=how)) == 1
    text = capsys.readouterr().out
    assert "error  Too few samples: " in text
    assert "samples 2-3m" in text  # what there is, by layer and class
    remedy = text[text.index("Remedy: ") :]
    assert (how == "stop") == ("to merge" in remedy)


def test_rare_classes_that_are_kept_are_no_error(study_file):
    assert list_problems(study_file(SITES.format(depth=1.5), rare_classes="keep")) == 0


@pytest.mark.parametrize("depth", ["1e308", "2001"])
def test_impossible_depths_are_refused_with_the_own_header(study_file, tmp_path, depth):
    study = Study.open(study_file(SITES.format(depth=depth)))
    parts = "sites.csv, column permafrost_table_m ('冻土上限/m'), row 2: no borehole", "metres"
    assert_refused(lambda: read_tables(study), tmp_path, SampleError, *parts)


def test_kinds_are_named_and_errors_stand_before_gathered_warnings(study_file, capsys):
    rows = "".join(f"B{number},'122,5',52.5,12,有,,\n".replace("'", '"') for number in range(25))
    list_problems(study_file(SITES.format(depth="x") + rows))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error  sites.csv, permafrost_table_m ('冻土上限/m'), row 2: ")
    assert lines[0].endswith(" [not a number]")
    commas = [line for line in lines if line.endswith("[decimal comma]")]
    assert len(commas) == 1
    assert "and 15 more" in commas[0]
    assert "samples.severity" in lines[-1]
