"""Reading and checking the tables of boreholes and pits."""

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from conftest import SOURCE

from helpers.core.grid import area_mask, cell_centres, fine_grid, named_crs, study_area
from helpers.core.rasters import write_raster
from helpers.core.settings import ROOT
from helpers.core.study import Study, StudyError
from helpers.prepare.registry import fine_files
from helpers.samples import datum
from helpers.samples.checks import CHECKS
from helpers.samples.columns import COLUMNS, KINDS, Kind, SampleError
from helpers.samples.labels import label_layers
from helpers.samples.tables import read_tables, table_paths
from testbed.boreholes import write_tables
from testbed.settings import VirtualStudy

SITES = """site_id,longitude,latitude,depth_reached_m,permafrost,permafrost_table_m,\
permafrost_base_m,date,method
A,122.5,52.5,12,yes,1.5,,2024-08-20,borehole
B,122.0,50.5,2.4,unknown,,,2024-09-03,pit
007,125.0,47.0,12,no,,,2023-07-11,borehole
"""
INTERVALS = """site_id,top_m,bottom_m,frozen,ice_content,texture
A,0,1.5,no,,peat
A,1.5,4,yes,0.45,silt
A,4,12,yes,0.25,sand
B,0,2.4,no,,silt
007,0,12,no,,sand
"""
HOLES = SITES.splitlines()[0].removesuffix(",date,method")
WATER = "site_id,top_m,bottom_m,frozen,water_content,texture\n"


@pytest.fixture
def tables(tmp_path):
    """A function that writes both tables and returns a study that names them."""

    def write(sites=SITES, intervals=INTERVALS, encoding="utf-8"):
        for name, text in (("sites", sites), ("intervals", intervals)):
            (tmp_path / f"{name}.csv").write_text(text, encoding=encoding)
        named = {n: str(tmp_path / f"{n}.csv") for n in ("sites", "intervals")}
        return Study(name="t", source=SOURCE, samples=named)

    return write


def refusal(study):
    with pytest.raises(SampleError) as caught:
        read_tables(study)
    return caught.value


# --- Reading and checking


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_good_tables_are_read_as_they_are(tables, encoding):
    sites, intervals, problems = read_tables(
        tables(SITES.replace("A,122", "钻孔一,122"), INTERVALS.replace("A,", "钻孔一,"), encoding)
    )
    assert problems.empty
    assert sites["site_id"].tolist() == ["钻孔一", "B", "007"]
    assert intervals.groupby("site_id").size().to_dict() == {"钻孔一": 3, "B": 1, "007": 1}
    assert sites["permafrost_table_m"].tolist()[0] == 1.5
    assert sites["permafrost_base_m"].isna().all()
    assert intervals["ice_content"].tolist()[1:3] == [0.45, 0.25]


def test_spaces_capitals_blank_rows_and_absent_optional_columns_are_no_problem(tables):
    sites = (
        SITES.replace(",date,method", "")
        .replace(",2024-08-20,borehole", "")
        .replace(",2024-09-03,pit", "")
    )
    sites = (
        sites.replace(",2023-07-11,borehole", "")
        .replace("yes", " Yes ")
        .replace("longitude", " Longitude")
    )
    read, _, problems = read_tables(tables(sites.replace("\nB", "\n\n,,,\nB")))
    assert problems.empty
    assert len(read) == 3
    assert read["permafrost"].tolist() == ["yes", "unknown", "no"]
    assert read["date"].tolist() == ["", "", ""]


def _changed(text, old, new):
    assert old in text
    return text.replace(old, new)


DEFECTS = {  # table, text, replacement, kind, rows, column
    "missing column": (
        "sites",
        "permafrost_base_m",
        "base",
        "missing column",
        [1],
        "permafrost_base_m",
    ),
    "overlong row": ("intervals", "0.45,silt", "0,45,silt,", "overlong row", [3], "texture"),
    "decimal comma without quotes": ("sites", "A,122.5", "A,122,5", "overlong row", [2], "method"),
    "missing value": ("sites", "122.5,52.5", "122.5,", "missing value", [2], "latitude"),
    "text in numbers": ("intervals", "1.5,4,", "1.5,4 m,", "not a number", [3], "bottom_m"),
    "unknown word": ("sites", "no,,,", "maybe,,,", "unknown word", [4], "permafrost"),
    "repeated site": ("sites", "B,122.0", "A,122.0", "duplicated site", [3], "site_id"),
    "swapped coordinates": (
        "sites",
        "122.5,52.5",
        "52.5,122.5",
        "swapped coordinates",
        [2],
        "longitude, latitude",
    ),
    "outside": (
        "sites",
        "125.0,47.0",
        "105.0,37.0",
        "outside the study area",
        [4],
        "longitude, latitude",
    ),
    "negative depth": ("sites", "yes,1.5", "yes,-1.5", "negative depth", [2], "permafrost_table_m"),
    "base above table": (
        "sites",
        "yes,1.5,,",
        "yes,1.5,1.0,",
        "inverted permafrost",
        [2],
        "permafrost_base_m",
    ),
    "table without permafrost": (
        "sites",
        "no,,,",
        "no,2.0,,",
        "depth without permafrost",
        [4],
        "permafrost_table_m",
    ),
    "stray interval": ("intervals", "007,0", "7,0", "interval without site", [6], "site_id"),
    "inverted interval": ("intervals", "1.5,4,", "4,1.5,", "inverted interval", [3], "bottom_m"),
    "overlap": ("intervals", "A,4,12", "A,3.9,12", "overlapping intervals", [4], "top_m"),
    "nested": ("intervals", "A,4,12", "A,2,3", "overlapping intervals", [4], "top_m"),
    "one value in percent": (
        "intervals",
        "0.45",
        "45",
        "impossible ice content",
        [3],
        "ice_content",
    ),
    "negative content": ("intervals", "0.45", "-0.1", "impossible ice content", [3], "ice_content"),
    "ice in unfrozen ground": (
        "intervals",
        "no,,peat",
        "no,0.3,peat",
        "ice in unfrozen ground",
        [2],
        "ice_content",
    ),
}


@pytest.mark.parametrize(
    ("table", "old", "new", "kind", "rows", "column"), DEFECTS.values(), ids=DEFECTS.keys()
)
def test_a_defect_is_named_with_file_rows_and_column(tables, table, old, new, kind, rows, column):
    texts = {"sites": SITES, "intervals": INTERVALS}
    texts[table] = _changed(texts[table], old, new)
    error = refusal(tables(**texts))
    found = error.problems[error.problems["kind"] == kind]
    assert found["row"].tolist() == rows
    assert set(found["file"]) == {f"{table}.csv"}
    assert found["column"].tolist() == [column]
    assert f"{table}.csv, column {column}, row {rows[0]}: " in error.message
    assert found["remedy"].item() in error.remedy


def test_a_misspelt_column_brings_its_right_name(tables):
    error = refusal(tables(SITES.replace("permafrost_table_m", "permafrost_tabel_m")))
    remedy = "permafrost_table_m: rename the column permafrost_tabel_m to permafrost_table_m"
    assert error.remedy == remedy


def test_all_problems_come_at_once_and_rows_are_gathered(tables):
    sites = SITES.replace("B,122.0", "A,122.0").replace("122.5,52.5", "12.5,52.5")
    error = refusal(
        tables(sites, INTERVALS.replace("0.45", "1.5").replace("0.25", "-1").replace("B,0", "X,0"))
    )
    assert set(error.problems["kind"]) == {
        "duplicated site", "outside the study area", "impossible ice content",
        "interval without site",
    }  # fmt: skip
    where = "intervals.csv, column ice_content, rows 3, 4: "
    assert f"{where}the ice content lies outside 0-1 ('1.5', '-1')" in error.message
    assert "\n" not in error.message
    assert "site_id" in error.remedy
    assert "not percent" in error.remedy


def test_long_lists_of_rows_are_cut_short(tables):
    rows = "".join(f"C{i},1000,47.0,12,no,,,,\n" for i in range(30))
    assert (
        "rows 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 20 more"
        in refusal(tables(SITES + rows)).message
    )


def test_severity_can_be_chosen(tables):
    study = tables(SITES.replace("125.0,47.0", "105.0,37.0"))
    chosen = {"severity": {"outside the study area": "drop"}}
    study = study.model_copy(update={"samples": study.samples.model_copy(update=chosen)})
    sites, intervals, problems = read_tables(study)
    assert sites["site_id"].tolist() == ["A", "B"]
    assert set(intervals["site_id"]) == {"A", "B"}
    assert problems[["file", "row", "severity"]].to_numpy().tolist() == [["sites.csv", 4, "drop"]]


def test_a_site_just_off_the_simplified_outline_is_not_refused(tables):
    outline = study_area(Study(name="t"), named_crs(Study(name="t").grid.crs))
    corner = outline.envelope.exterior.coords[0]
    near = shapely.ops.nearest_points(outline, shapely.Point(corner))[0]
    back = pyproj.Transformer.from_crs(
        named_crs(Study(name="t").grid.crs), "EPSG:4326", always_xy=True
    )
    away = np.subtract(corner, (near.x, near.y)) / near.distance(shapely.Point(corner))
    for metres, refused in ((900, False), (1100, True)):
        longitude, latitude = back.transform(near.x + metres * away[0], near.y + metres * away[1])
        study = tables(SITES.replace("122.5,52.5", f"{longitude:.7f},{latitude:.7f}"))
        if refused:
            assert refusal(study).problems["kind"].tolist() == ["outside the study area"]
        else:
            assert read_tables(study)[2].empty


def test_odd_rows_are_only_listed(tables):
    study = tables(
        SITES.replace("yes,1.5", "yes,").replace("2024-08-20", "20 Aug"),
        INTERVALS.replace("4,12", "4,13"),
    )
    sites, _, problems = read_tables(study)
    assert len(sites) == 3
    assert set(problems["kind"]) == {
        "derived value",
        "unreadable date",
        "interval below the hole",
    }
    assert set(problems["severity"]) == {"warn"}


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (None, "table of sites, sites.csv, does not exist"),
        ("", "sites.csv is empty"),
        (b"\xff\xff\x80", "sites.csv is not readable as a table"),
        (SITES.replace("date", "lon"), "two columns for longitude"),
        (
            SITES.splitlines()[0].encode(),
            "interval without site|no usable site|there is no such site",
        ),
    ],
    ids=["missing", "empty", "no text", "two names of one column", "header only"],
)
def test_unreadable_tables_are_named(tables, sites, message):
    study = tables()
    path = table_paths(study)[0]
    path.unlink() if sites is None else path.write_bytes(
        sites if isinstance(sites, bytes) else sites.encode()
    )
    with pytest.raises(SampleError, match=message) as caught:
        read_tables(study)
    assert str(path.parent) not in str(caught.value)


def test_header_only_tables_have_no_usable_site(tables):
    with pytest.raises(SampleError, match=r"sites\.csv has no usable site"):
        read_tables(tables(SITES.splitlines()[0], INTERVALS.splitlines()[0]))


def test_tables_that_the_study_does_not_name_are_those_of_the_run():
    study = Study(name="t")
    folder = study.results_dir / "samples"
    assert table_paths(study) == (folder / "sites.csv", folder / "intervals.csv")
    with pytest.raises(SampleError, match="does not exist") as caught:
        read_tables(study)
    assert "name your table as samples.sites" in caught.value.remedy


@pytest.mark.parametrize("missing", ["sites", "intervals"])
def test_a_study_names_both_tables_or_none(tables, missing):
    study = tables()
    chosen = study.samples.model_copy(update={missing: ""})
    with pytest.raises(SampleError, match=rf"samples\.{missing} is empty"):
        table_paths(study.model_copy(update={"samples": chosen}))


def test_template_examples_are_right_but_never_used(tables):
    texts = {
        n: (ROOT / "data" / "samples" / f"{n}.csv").read_text(encoding="utf-8")
        for n in ("sites", "intervals")
    }
    with pytest.raises(SampleError, match="no usable site"):
        read_tables(tables(**texts))
    sites, intervals, problems = read_tables(
        tables(**{n: t.replace("EXAMPLE-", "") for n, t in texts.items()})
    )
    assert problems.empty
    labels, _ = label_layers(Study(name="t"), sites, intervals)
    assert labels["ice_type"].tolist() == [4, 4, 3, 0, 0, 0]


def test_the_data_dictionary_has_every_column_and_kind_of_word():
    text = (ROOT / "data" / "samples" / "README.md").read_text(encoding="utf-8")
    for columns in COLUMNS.values():
        assert all(f"`{column.name}`" in text for column in columns)
        assert all(
            alias in text for column in columns for alias in column.aliases if not alias.isascii()
        )


def test_the_list_of_checks_can_grow(tables, monkeypatch):
    monkeypatch.setitem(KINDS, "odd name", Kind("warn", "the name is odd", "choose another"))
    more = [*CHECKS, lambda study, sites, intervals: [sites.problem("site_id", "odd name", row=4)]]
    monkeypatch.setattr("helpers.samples.tables.CHECKS", more)
    assert read_tables(tables())[2]["kind"].tolist() == ["odd name"]


# --- Formats, notations and units


CHINESE = {
    "sites": [
        "孔号",
        "经度",
        "纬度",
        "终孔深度(m)",
        "多年冻土",
        "多年冻土上限",
        "多年冻土下限",
        "日期",
        "方法",
    ],
    "intervals": ["孔号", "顶深", "底深", "冻结", "体积含冰量", "土质"],
}
WORDS = {"yes": "是", "no": "否", "unknown": "未知", "borehole": "钻孔", "pit": "探坑"}
WORDS |= {"peat": "泥炭", "silt": "粉土", "sand": "细砂"}


def frames(chinese=False):
    """Return both tables as text, with English or Chinese headers and words."""
    found = {}
    for kind, text in (("sites", SITES), ("intervals", INTERVALS)):
        lines = [line.split(",") for line in text.splitlines()]
        frame = pd.DataFrame(lines[1:], columns=CHINESE[kind] if chinese else lines[0])
        found[kind] = frame.replace(WORDS) if chinese else frame
    return found


def written(folder, how):
    """Write both tables in a format and return the study that names them."""
    names = {
        kind: str(folder / f"{kind}.{how.partition(' ')[0]}") for kind in ("sites", "intervals")
    }
    parts = frames(chinese="chinese" in how)
    if how.startswith("csv"):
        encoding = "gb18030" if "gb18030" in how else "utf-8-sig" if "bom" in how else "utf-8"
        separator = ";" if "semicolon" in how else ","
        for kind, part in parts.items():
            part.to_csv(names[kind], index=False, encoding=encoding, sep=separator)
    elif how.startswith("xlsx"):
        names = dict.fromkeys(names, str(folder / "tables.xlsx"))
        with pd.ExcelWriter(names["sites"], engine="xlsxwriter") as book:
            for kind, sheet in (("intervals", "岩芯"), ("sites", "钻孔")):
                part = parts[kind]
                for column in part.columns.difference(["孔号"]):
                    numbers = pd.to_numeric(part[column], errors="coerce")
                    part[column] = part[column] if numbers.isna().all() else numbers
                if "日期" in part:
                    part["日期"] = pd.to_datetime(part["日期"])
                part.to_excel(book, sheet_name=sheet, index=False)
    else:
        names = dict.fromkeys(names, str(folder / "tables.gpkg"))
        points = geopandas.points_from_xy(
            *(parts["sites"][n].astype(float) for n in ("longitude", "latitude"))
        )
        place = parts["sites"].drop(columns=["longitude", "latitude"])
        geopandas.GeoDataFrame(place, geometry=points, crs=4326).to_file(
            names["sites"], layer="sites"
        )
        geopandas.GeoDataFrame(parts["intervals"]).to_file(names["sites"], layer="intervals")
    return Study(name="t", samples=names)


@pytest.mark.parametrize(
    "how", ["csv gb18030 chinese", "csv bom chinese", "csv semicolon", "xlsx chinese", "gpkg"]
)
def test_the_same_data_in_any_format_give_equal_samples(tmp_path, tables, how):
    usual, labels = read_tables(tables()), []
    other = read_tables(written(tmp_path, how))
    for one, two, columns in zip(usual[:2], other[:2], ("date", "texture"), strict=True):
        pd.testing.assert_frame_equal(one, two[one.columns], atol=1e-9, check_dtype=False)
        assert one[columns].tolist() == two[columns].tolist()
    for sites, intervals, problems in (usual, other):
        assert problems.empty
        labels.append(label_layers(Study(name="t"), sites, intervals)[0])
    pd.testing.assert_frame_equal(*labels, rtol=1e-9)


def test_points_of_a_geopackage_keep_their_place_whatever_the_system_of_the_study(tmp_path, tables):
    usual = read_tables(tables())[0]
    study = written(tmp_path, "gpkg")
    sites, _, problems = read_tables(study.changed({"samples.epsg": 32651}))
    assert problems.empty
    names = ["longitude", "latitude"]
    np.testing.assert_allclose(sites[names], usual[names], atol=1e-7)


def problem_of(study):
    """Return the values that were read, and the only problem."""
    sites, intervals, problems = read_tables(study)
    assert len(problems["kind"].unique()) == 1, problems
    return sites, intervals, problems.iloc[0]


@pytest.mark.parametrize(
    "typed", ["52°30'00\"", "52°30′N", "N52°30′0″", "５２°３０′", "52度30分", "52° 30' 0.0''"]
)
def test_degrees_minutes_and_seconds_are_converted_and_listed(tables, typed):
    escaped = typed.replace('"', '""')
    sites, _, problem = problem_of(tables(SITES.replace("A,122.5,52.5", f'A,122.5,"{escaped}"')))
    assert sites["latitude"][0] == pytest.approx(52.5)
    assert problem["kind"] == "degrees, minutes, seconds"
    assert problem["remedy"] == "read as 52.5; write decimal degrees"


def test_units_of_whole_columns_are_converted_and_listed(tables):
    text = INTERVALS.replace("0.45", "45").replace("0.25", "25")
    _, intervals, problem = problem_of(tables(intervals=text))
    assert (problem["row"], problem["column"], problem["kind"]) == (
        1,
        "ice_content",
        "content in percent",
    )
    assert intervals["ice_content"].dropna().tolist() == [0.45, 0.25]
    lines = [line.split(",") for line in INTERVALS.splitlines()]
    lines[1:] = [
        [a, f"{float(b) * 100:g}", f"{float(c) * 100:g}", *rest] for a, b, c, *rest in lines[1:]
    ]
    _, intervals, problem = problem_of(tables(intervals="\n".join(map(",".join, lines))))
    assert problem["kind"] == "depths in centimetres"
    assert intervals["bottom_m"].tolist() == [1.5, 4, 12, 2.4, 12]


def test_dry_density_in_g_per_cm3_is_converted_and_water_in_percent(tables):
    text = "site_id,top_m,bottom_m,frozen,water_content,dry_density\n"
    text += "A,2,3,yes,25,1.5\nA,3,4,yes,30,1.4\n"
    _, intervals, problems = read_tables(tables(intervals=text))
    assert intervals["dry_density"].tolist() == [1500, 1400]
    assert intervals["water_content"].tolist() == [0.25, 0.30]
    assert set(problems["kind"]) == {
        "dry density in another unit", "content in percent", "no temperature",
    }  # fmt: skip
    assert set(problems["severity"]) == {"warn"}


def test_peat_may_hold_more_water_than_solids(tables):
    text = WATER + "A,2,3,yes,2.5,peat\nA,3,4,yes,4,peat\nA,4,5,yes,.3,\n"
    _, intervals, problems = read_tables(tables(intervals=text))
    assert problems["kind"].tolist() == ["no temperature"]
    assert problems["value"].item() == "3 of 3 samples, at -1 degC"
    assert intervals["water_content"].tolist() == [2.5, 4.0, 0.3]


@pytest.mark.parametrize("header", ["地温(℃)", "温度/℃", "土温", "Temperature (°C)"])
def test_a_temperature_is_read_and_frozen_ground_above_0_degc_is_a_remark(tables, header):
    text = WATER.replace("texture", header) + "A,2,3,yes,0.25,-2.5\nA,3,4,yes,0.3,0.4\n"
    _, intervals, problems = read_tables(tables(intervals=text))
    assert intervals["temperature_c"].tolist() == [-2.5, 0.4]
    remark = problems.set_index("column").loc["temperature_c"]
    assert remark[["kind", "row", "severity"]].tolist() == ["frozen above 0 degC", 3, "warn"]


def test_decimal_commas_are_points_and_thousands_are_not(tables):
    sites, _, problem = problem_of(tables(SITES.replace("A,122.5", 'A,"122,5"')))
    assert (sites["longitude"][0], problem["kind"]) == (122.5, "decimal comma")
    text = SITES.replace("date", "elevation_m").replace("2024-08-20", '"1,234"')
    assert "not a number" in refusal(tables(text)).problems["kind"].tolist()


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("2023/8/14", "2023-08-14"),
        ("2023年8月14日", "2023-08-14"),
        ("20230814", "2023-08-14"),
        ("2023-02-30", ""),
        ("2923-08-14", ""),
        ("14.8.2023", ""),
    ],
)
def test_dates(tables, typed, read):
    sites, _, problems = read_tables(tables(SITES.replace("2024-08-20", typed)))
    assert sites["date"][0] == read
    assert problems["kind"].tolist() == ([] if read else ["unreadable date"])


@pytest.mark.parametrize(
    ("typed", "code"), [("4", 4), ("饱冰冻土", 4), ("Ice-saturated", 4), ("ice layer with soil", 5)]
)
def test_ice_types_are_given_by_number_or_name(tables, typed, code):
    text = f"site_id,top_m,bottom_m,frozen,ice_type\nA,2,3,yes,{typed}\n"
    _, intervals, problems = read_tables(tables(intervals=text))
    assert problems.empty
    assert intervals["ice_type"].tolist() == [code]
    assert refusal(tables(intervals=text.replace(typed, "wet"))).problems["kind"].tolist() == [
        "unknown ice type"
    ]


def test_intervals_need_one_description_of_ice(tables):
    text = "site_id,top_m,bottom_m,frozen,ice\nA,2,3,yes,0.3\n"
    assert refusal(tables(intervals=text)).problems["kind"].tolist() == ["missing column"]


@pytest.mark.parametrize("epsg", [4490, 32651])
def test_coordinates_in_another_system(tables, epsg):
    step = pyproj.Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
    text = SITES
    for place in ("122.5,52.5", "122.0,50.5", "125.0,47.0"):
        first, second = step.transform(*map(float, place.split(",")))
        text = text.replace(place, f"{first:.9f},{second:.9f}")
    names = "easting,northing" if epsg == 32651 else "longitude,latitude"
    study = tables(text.replace("longitude,latitude", names))
    study = study.model_copy(update={"samples": study.samples.model_copy(update={"epsg": epsg})})
    sites, _, problems = read_tables(study)
    assert problems.empty
    np.testing.assert_allclose(sites["longitude"], [122.5, 122.0, 125.0], atol=1e-7)
    np.testing.assert_allclose(sites["latitude"], [52.5, 50.5, 47.0], atol=1e-7)


@pytest.mark.parametrize("name", ["gcj02", "bd09"])
def test_shifted_coordinates_are_taken_back(tables, name):
    text = SITES
    for place in ("122.5,52.5", "122.0,50.5", "125.0,47.0"):
        longitude, latitude = datum.wgs84_to_gcj02(*map(float, place.split(",")))
        if name == "bd09":
            longitude, latitude = datum.gcj02_to_bd09(longitude, latitude)
        text = text.replace(place, f"{longitude:.8f},{latitude:.8f}")
    study = tables(text)
    study = study.model_copy(update={"samples": study.samples.model_copy(update={"datum": name})})
    sites, _, _ = read_tables(study)
    np.testing.assert_allclose(
        sites[["longitude", "latitude"]], [[122.5, 52.5], [122, 50.5], [125, 47]], atol=2e-7
    )


def test_an_unknown_kind_of_problem_is_refused(tables):
    study = tables()
    chosen = study.samples.model_copy(update={"severity": {"decimal coma": "warn"}})
    with pytest.raises(StudyError, match="no kind of problem"):
        read_tables(study.model_copy(update={"samples": chosen}))


def test_tables_of_ones_own_are_never_written_to(tables):
    study = VirtualStudy(name="t", samples=tables().samples)
    with pytest.raises(SampleError, match="its own tables"):
        write_tables(study, *frames().values())
    assert read_tables(study)[2].empty


@pytest.mark.parametrize("epsg", [4326, 32651])
def test_elevations_show_a_shifted_datum_and_a_wrong_height(tables, tmp_path, monkeypatch, epsg):
    """In rough ground a shift by half a kilometre misses the cell of most sites."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    study = Study(name="t", source=SOURCE)
    geobox, rng = fine_grid(study), np.random.default_rng(4)
    model = rng.normal(600, 60, geobox.shape).astype(np.float32)
    path = fine_files(study)["elevation"]
    path.parent.mkdir(parents=True)
    write_raster(
        path, model, geobox, study=study, names="elevation", units="m", long_names="elevation"
    )
    rows, columns = np.nonzero(area_mask(study, geobox))
    chosen = rng.choice(len(rows), 60, replace=False)
    easting, northing = cell_centres(geobox)
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    place = back.transform(easting[columns[chosen]], northing[rows[chosen]])
    height = model[rows[chosen], columns[chosen]] + rng.normal(0, 3, 60)
    step = pyproj.Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)

    def problems_of(place, height):
        lines = enumerate(zip(*step.transform(*place), height, strict=True))
        text = "".join(f"S{n},{x:.6f},{y:.6f},12,no,,,{z:.0f}\n" for n, (x, y, z) in lines)
        study = tables(f"{HOLES},elevation_m\n{text}", INTERVALS.splitlines()[0])
        return read_tables(study.changed({"samples.epsg": epsg}))[2]

    assert problems_of(place, height).empty
    shifted = datum.wgs84_to_gcj02(*place)
    problems = problems_of(shifted, height)
    other_datum = problems[problems["kind"] == "another datum"]
    assert other_datum["row"].tolist() == [1]
    assert "as gcj02" in other_datum["value"].item()
    wrong = problems_of(shifted, [*height[:-1], 2600])
    assert (wrong.query("kind == 'elevation far from the elevation model'")["row"] == 61).any()


@pytest.mark.parametrize(
    ("header", "rows", "read"),
    [
        ("water_content (%)", "A,2,3,yes,18,\n", [0.18]),
        ("含水率(%)", "A,2,3,yes,1.5,砂\nA,3,4,yes,2.8,砂\n", [0.015, 0.028]),
        (
            "water content",
            "A,2,3,yes,4.5,peat\nA,3,4,yes,6.0,peat\nA,4,5,yes,3.6,泥炭\n",
            [4.5, 6.0, 3.6],
        ),
    ],
    ids=["one row", "low percent", "only peat"],
)
def test_a_unit_in_the_header_decides_and_peat_stays_wet(tables, header, rows, read):
    _, intervals, _ = read_tables(tables(intervals=WATER.replace("water_content", header) + rows))
    assert intervals["water_content"].tolist() == pytest.approx(read)


def test_water_that_only_peat_holds_is_a_question_elsewhere(tables):
    text = WATER + "".join(
        f"A,{n},{n + 1},yes,{w},gravel\n" for n, w in enumerate((2.5, 2.8, 6, 8), start=2)
    )
    problems = refusal(tables(intervals=text)).problems
    assert problems["kind"].tolist() == ["unclear unit of water contents"]
    assert problems["value"].tolist() == ["2 of 4 values above 3"]
    assert problems["row"].tolist() == [1]


@pytest.mark.parametrize(
    ("rows", "cores", "depths"),
    [
        ("A,122.5,52.5,120,yes,1.6,60\nB,122,50.5,150,yes,1.8,\n", "A,2,10,yes,0.3\n", [120, 150]),
        ("A,122.5,52.5,15,yes,0.3,\n", "A,0,0.4,no,\n", [15]),
        ("A,122.5,52.5,60,yes,12,40\nB,122,50.5,60,yes,11,45\n", "A,30,34,yes,0.3\n", [60, 60]),
        ("A,122.5,52.5,1500,yes,160,\nB,122,50.5,900,no,,\n", "A,2,10,yes,0.3\n", [15, 9]),
    ],
    ids=["deep holes", "active-layer cores", "relict", "centimetres"],
)  # fmt: skip
def test_metres_stay_metres(tables, rows, cores, depths):
    sites, _, _ = read_tables(
        tables(f"{HOLES}\n{rows}", f"site_id,top_m,bottom_m,frozen,ice_content\n{cores}")
    )
    assert sites["depth_reached_m"].tolist() == depths


def test_shallow_pits_in_centimetres_need_a_unit_or_are_refused(tables):
    rows = "A,122.5,52.5,80,yes,60,\nB,122,50.5,90,no,,\nC,125,47,95,yes,70,\n"
    cores = "site_id,top_m,bottom_m,frozen,ice_content\nA,60,80,yes,0.3\n"
    assert (
        "unclear unit of depths"
        in refusal(tables(f"{HOLES}\n{rows}", cores)).problems["kind"].tolist()
    )
    named = HOLES.replace("depth_reached_m", "终孔深度(cm)").replace("table_m", "table_m (cm)")
    sites, intervals, _ = read_tables(
        tables(f"{named}\n{rows}", cores.replace("top_m,bottom_m", "top_m (cm),bottom_m (cm)"))
    )
    assert sites["depth_reached_m"].tolist() == [0.8, 0.9, 0.95]
    assert intervals["bottom_m"].tolist() == [0.8]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("12,yes,1.5,", "5,yes,8,", "table below the hole"),
        ("2.4,unknown", "240,unknown", "pit deeper than 10 m"),
    ],
)
def test_depths_that_cannot_be_are_errors(tables, old, new, kind):
    assert kind in refusal(tables(_changed(SITES, old, new))).problems["kind"].tolist()


def test_an_unclosed_quote_does_not_swallow_rows(tables):
    with pytest.raises(SampleError, match="not readable as a table"):
        read_tables(tables(SITES.replace("2024-08-20,borehole", '2024-08-20,"borehole')))


def test_blank_rows_above_the_header_do_not_matter(tables):
    sites, _, problems = read_tables(tables("\n,,\n" + SITES.replace("2024-08-20", "soon")))
    assert len(sites) == 3
    assert problems["row"].tolist() == [4]


def test_an_error_cannot_be_made_a_mere_warning(tables):
    study = tables(SITES.replace("12,yes", "12,maybe"))
    for severity, error in (("warn", StudyError), ("drop", None)):
        chosen = study.samples.model_copy(update={"severity": {"unknown word": severity}})
        changed = study.model_copy(update={"samples": chosen})
        if error:
            with pytest.raises(error, match="lets 'unknown word' pass"):
                read_tables(changed)
        else:
            assert read_tables(changed)[0]["site_id"].tolist() == ["B", "007"]


def test_a_header_near_a_usual_one_is_named(tables):
    _, _, problems = read_tables(tables(intervals=INTERVALS.replace("texture", "texturs")))
    assert problems["kind"].tolist() == ["unused column"]
    _, intervals, problems = read_tables(
        tables(intervals=INTERVALS.replace("ice_content", "Ice content (-)"))
    )
    assert problems.empty
    assert intervals["ice_content"].tolist()[1] == 0.45


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("泥炭质粉土", "silt"),
        ("peaty silt", "silt"),
        ("砂岩", "rock"),
        ("泥炭", "peat"),
        ("loess", "loess"),
    ],
)
def test_textures(tables, typed, read):
    assert (
        read_tables(tables(intervals=INTERVALS.replace("silt", typed)))[1]["texture"].tolist()[1]
        == read
    )


@pytest.mark.parametrize("code", [99999, 5773, 4978])
def test_a_system_without_places_is_refused(code):
    with pytest.raises(ValueError, match=f"EPSG:{code}"):
        Study(name="t", samples={"epsg": code})


GB_SITES = """{title}孔号,经度,纬度,孔深/m,多年冻土,冻土上限／m,多年冻土下限/m
A,122.5,52.5,12,有,1.5,
"""
GB_CORES = """{title}孔号,顶深/cm,底深(cm),冻结,含水率/%,干密度/(g·cm⁻³)
A,150,400,是,35,1.35
A,400,1200,是,28,1.45
"""


@pytest.mark.parametrize("title", ["", "\n", "漠河钻孔一览表,,,\n", "2024 survey\n\n"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_units_after_a_slash_and_titles_above_the_header(tables, title, separator):
    texts = [text.format(title=title) for text in (GB_SITES, GB_CORES)]
    study = tables(*(text.replace(",", separator) for text in texts))
    sites, intervals, problems = read_tables(study)
    assert sites["permafrost_table_m"].tolist() == [1.5]
    assert intervals["bottom_m"].tolist() == [4, 12]
    assert intervals["water_content"].tolist() == [0.35, 0.28]
    assert intervals["dry_density"].tolist() == [1350, 1450]
    assert set(problems["severity"]) == {"warn"}


def test_sheets_without_a_telling_name_are_told_by_their_columns(tmp_path):
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        for name, text in (("Sheet1", "note\nnothing\n"), ("Sheet2", INTERVALS), ("Sheet3", SITES)):
            frame = pd.DataFrame([line.split(",") for line in text.splitlines()])
            frame.to_excel(book, sheet_name=name, index=False, header=False)
    study = Study(name="t", source=SOURCE, samples=dict.fromkeys(("sites", "intervals"), str(path)))
    sites, intervals, problems = read_tables(study)
    assert (len(sites), len(intervals), len(problems)) == (3, 5, 0)
