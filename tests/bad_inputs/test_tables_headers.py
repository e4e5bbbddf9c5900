"""Headers of the user's own file: near names are told, and messages name what the file has."""

import pytest
from refusals import assert_refused
from test_tables_listing import CORES, SITES, study_file  # noqa: F401

from helpers.core.study import Study
from helpers.samples.columns import SampleError
from helpers.samples.tables import find_problems, read_tables


def problems(path, kind):
    found = find_problems(Study.open(path))
    return found[found["kind"] == kind].set_index("column")


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("天然含水率", "water_content ('含水率')"),
        ("天然含水量/%", "water_content ('含水量')"),
        ("体积含水率(%)", "water_content ('含水率')"),
        ("密度", "dry_density ('干密度')"),
        ("地温1/℃", "temperature_c ('地温')"),
        ("冻土类型名称", "ice_type ('冻土类型')"),
        ("watercontent", "water_content ('含水率')"),
    ],
)
def test_an_unused_column_near_a_known_one_is_told(study_file, header, meant):  # noqa: F811
    lines = CORES.splitlines()
    path = study_file(SITES.format(depth=1.5), f"{lines[0]},{header}\n{lines[1]},1\n")
    unused = problems(path, "unused column")
    assert list(unused["header"]) == [header]
    assert unused["remedy"].iloc[0] == f"rename it {meant}, if that is what it holds"


@pytest.mark.parametrize("header", ["备注", "样品编号", "队伍", "remarks", "孔口坐标系"])
def test_a_column_of_the_users_own_is_not_told(study_file, header):  # noqa: F811
    lines = CORES.splitlines()
    path = study_file(SITES.format(depth=1.5), f"{lines[0]},{header}\n{lines[1]},1\n")
    assert problems(path, "unused column").empty


@pytest.mark.parametrize(
    ("kind", "old", "new", "column"),
    [
        ("sites", "孔深/m", "钻孔深/m", "depth_reached_m ('终孔深度')"),
        ("sites", "冻土上限/m", "冻土层上限/m", "permafrost_table_m ('多年冻土上限')"),
        ("cores", "顶深/m", "层顶深/m", "top_m ('顶深')"),
        ("cores", "体积含冰量", "体积冰量", "ice_content ('体积含冰量')"),
    ],
)
def test_a_missing_column_is_named_in_the_files_language(
    study_file,  # noqa: F811
    tmp_path,
    kind,
    old,
    new,
    column,
):
    sites, cores = SITES.format(depth=1.5), CORES
    if kind == "sites":
        sites = sites.replace(old, new)
    else:
        cores = cores.replace(old, new)
    study = Study.open(study_file(sites, cores))
    parts = f"{kind}.csv, column {column}, row 1: the column is missing", f"rename the column {new}"
    assert_refused(lambda: read_tables(study), tmp_path, SampleError, *parts)


def test_remedies_name_the_headers_of_the_file(study_file, tmp_path):  # noqa: F811
    sites = SITES.format(depth=1.5).replace("有", "无")
    study = Study.open(study_file(sites, CORES.replace("是", "否")))
    parts = (
        "column permafrost_table_m ('冻土上限/m'), row 2: there is a depth of permafrost",
        "write permafrost ('多年冻土') yes, or leave the depth empty",
        "ice_content ('体积含冰量'): write frozen ('冻结') yes, or 0",
    )
    assert_refused(lambda: read_tables(study), tmp_path, SampleError, *parts)


def test_english_headers_of_the_file_are_named_in_remedies(study_file, tmp_path):  # noqa: F811
    sites = "Hole ID,Lon,Lat,Hole depth,Permafrost,Permafrost table,Permafrost base\n"
    sites += "A,122.5,52.5,12,yes,1.5,\nA,122.6,52.5,12,yes,1.5,\n"
    study = Study.open(study_file(sites))
    part = "site_id ('Hole ID'): give every site a site_id ('Hole ID') of its own"
    assert_refused(lambda: read_tables(study), tmp_path, SampleError, part)
