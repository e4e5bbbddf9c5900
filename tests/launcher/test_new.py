"""A new study: every option gives a file that opens, and nothing is overwritten."""

import geopandas
import pytest
import shapely

from helpers.core.settings import ROOT
from helpers.core.study import Study, StudyError
from helpers.samples.columns import COLUMNS
from helpers.samples.readers import read_table
from launcher.new import new_study

DEM = str(ROOT / "data/examples/yukon/dem.tif")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.new.ROOT", tmp_path)
    return tmp_path


def files(project):
    return sorted(str(p.relative_to(project)) for p in project.rglob("*") if p.is_file())


@pytest.mark.parametrize("labels", ["cores", "points", "polygons"])
@pytest.mark.parametrize(
    ("options", "crs", "resolution"),
    [
        ({}, "+proj=aea", 1000),
        ({"like": DEM}, "PROJCS", pytest.approx(101.64, abs=0.01)),
        ({"box": (-70, -52, -68, -50), "resolution": 250}, "EPSG:32719", 250),
    ],
)
def test_every_option_gives_a_study(project, capsys, options, crs, resolution, labels):
    new_study("mine", labels=labels, **options)
    study = Study.open(project / "config/mine.yaml")
    assert study.grid.crs.startswith(crs)
    assert study.grid.resolution == resolution
    assert study.area.box == options.get("box")
    assert not study.domain.covariate
    assert study.has_boreholes == (labels == "cores")
    assert bool(study.samples.areas) == (labels == "polygons")
    assert bool(study.samples.points) == bool(study.classes and not study.samples.areas)
    tables = [f"data/own/mine/{kind}.csv" for kind in sorted(COLUMNS)]
    assert files(project) == ["config/mine.yaml", *(tables if labels == "cores" else [])]
    out = capsys.readouterr().out
    assert "python -m launcher check config/mine.yaml" in out
    assert "make map STUDY=config/mine.yaml" in out


def test_empty_tables_lack_no_column(project):
    new_study("mine")
    for kind, columns in COLUMNS.items():
        table = read_table(project / f"data/own/mine/{kind}.csv", kind, kind, 4326)
        assert table.header == [column.name for column in columns]
        assert table.text.empty


def test_what_is_off_can_be_switched_on(project):
    """Lines that are commented out are valid settings."""
    new_study("mine")
    path = project / "config/mine.yaml"
    off = path.read_text(encoding="utf-8").partition("# Samples")[0].splitlines()
    lines = [one[2:] for one in off if one.startswith(("# predictors", "# source:", "#   "))]
    path.write_text("name: mine\n" + "\n".join(lines), encoding="utf-8")
    study = Study.open(path)
    assert [one.kind for one in study.own_predictors] == ["number", "category", "circular"]
    assert all(getattr(study.source, name) for name in ("dem", "landsat", "lst", "soil"))


def test_polygons_give_their_utm_zone(project):
    shape = shapely.box(-139.5, 62.7, -139.2, 62.9)
    path = project / "area: of mine.gpkg"
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_file(path)
    new_study("mine", polygon=str(path), resolution=100)
    study = Study.open(project / "config/mine.yaml")
    assert (study.area.polygons, study.grid.crs) == (str(path), "EPSG:32607")
    assert study.grid.fine_resolution == 50


@pytest.mark.parametrize("there", ["config/mine.yaml", "data/own/mine/intervals.csv"])
def test_nothing_is_overwritten(project, there):
    path = project / there
    path.parent.mkdir(parents=True)
    path.write_text("old")
    with pytest.raises(StudyError, match=f"there is {there} already"):
        new_study("mine")
    assert files(project) == [there]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "My_area"}, "cannot have the name 'My_area'"),
        ({"name": "-a"}, "no hyphen first"),
        ({"name": "batches"}, "give the study another name"),
        ({"box": (124, 50, 122, 52)}, "west, south, east, north"),
        ({"resolution": -1}, "greater than"),
        ({"like": "none.tif"}, "none.tif"),
        ({"like": DEM, "box": (1, 2, 3, 4)}, "one of --like, --polygon and --box"),
    ],
)
def test_what_is_impossible_leaves_no_file(project, options, message):
    with pytest.raises(StudyError, match=message):
        new_study(**{"name": "mine", **options})
    assert files(project) == []
