"""Comparison with another map: areas and kappa by hand, any rasters and polygons, clear errors."""

import json

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from helpers.core.errors import CompendiumError
from helpers.core.grid import cell_centres, reference_grid
from helpers.core.rasters import read_band, write_raster
from helpers.core.scores import confusion_matrix
from helpers.core.settings import OtherMap
from helpers.core.study import Study, StudyError
from helpers.mapping import other_maps
from helpers.mapping.files import difference_files, map_files


@pytest.fixture
def project(study, tmp_path, monkeypatch):
    """A study whose map has permafrost in the north, 2 m of ice there, in all three layers."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / "results"))
    geobox, files = reference_grid(study), map_files(study)
    half = geobox.shape[0] // 2
    types = np.zeros(geobox.shape, np.uint8)
    types[:half], types[-1] = 3, 255
    for name in ("ice_type_2-3m", "ice_type_3-5m", "ice_type_5-10m"):
        write_raster(files[name], types, geobox, study=study, names=name, units="1", nodata=255)
    storage = np.where(types == 255, np.nan, np.where(types > 0, 2.0, 0.0)).astype(np.float32)
    write_raster(files["ice_storage"], storage, geobox, study=study, names="ice_storage", units="m")
    return study, geobox, half, tmp_path


def with_map(study, **settings):
    return study.model_copy(update={"compare_with": [OtherMap(name="theirs", **settings)]})


def whole(study, other):
    """Return another map on the grid, which is one part."""
    ((_, values),) = other_maps.read_other(study, other)
    return values


def test_two_by_two_by_hand():
    """Of 10 cells 9 have codes on both: 4 and 3 agree, one is permafrost on each map alone."""
    ours = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0]], float)
    theirs = np.array([[1, 1, 1, 1, 0, 1, 0, 0, 0, np.nan]], float)
    both = np.isfinite(theirs)
    count = confusion_matrix(theirs[both].astype(int), ours[both].astype(int), [0, 1])
    record = other_maps.compare(count, 2.0 * count)
    assert record["km2"] == 18
    np.testing.assert_array_equal(record["ours_km2"], [8, 10])
    np.testing.assert_array_equal(record["theirs_km2"], [8, 10])
    np.testing.assert_array_equal(record["confusion_km2"], [[6, 2], [2, 8]])
    np.testing.assert_allclose(record["overlap"], [3 / 5, 4 / 6])
    chance = (4 * 4 + 5 * 5) / 81
    assert record["kappa"] == pytest.approx((7 / 9 - chance) / (1 - chance))
    assert (record["quantity_disagreement"], record["allocation_disagreement"]) == pytest.approx(
        (0, 2 / 9)
    )


def test_a_map_in_degrees_with_codes_of_its_own(project):
    """A raster of the whole earth has 7, permafrost, everywhere: it agrees in the northern half."""
    study, geobox, half, folder = project
    transform = rasterio.transform.from_bounds(100, 30, 145, 60, 90, 60)
    profile = {
        "driver": "GTiff",
        "height": 60,
        "width": 90,
        "count": 1,
        "dtype": "int16",
        "crs": "EPSG:4326",
    }
    with rasterio.open(
        folder / "theirs.tif", "w", transform=transform, nodata=-1, **profile
    ) as target:
        target.write(np.full((1, 60, 90), 7, np.int16))
    study = with_map(study, file=str(folder / "theirs.tif"), classes={7: 1, 1: 0})
    record = other_maps.compare_all(study)["theirs"]
    cell, columns = 20.0**2, geobox.shape[1]
    np.testing.assert_allclose(record["theirs_km2"], [0, (geobox.shape[0] - 1) * columns * cell])
    np.testing.assert_allclose(record["ours_km2"][1], half * columns * cell)
    with rasterio.open(difference_files(study)["theirs"]) as source:
        change = source.read(1)
        assert source.tags(1)["class_2"] == "permafrost on theirs alone"
    assert set(np.unique(change[:half])) == {3}
    assert set(np.unique(change[half:-1])) == {2}
    assert set(np.unique(change[-1])) == {255}
    table = json.loads((study.results_dir / "tables" / "other_maps.json").read_text())
    assert table["theirs"]["agreement"] == pytest.approx(half / (geobox.shape[0] - 1))


def polygons(geobox, half, **columns):
    """Return two polygons, the northern and the southern half of the grid, in degrees."""
    west, south, east, north = geobox.boundingbox
    middle = north - half * 20_000
    shapes = [box(west, middle, east, north), box(west, south, east, middle)]
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=geobox.crs.to_wkt())


@pytest.mark.parametrize("kind", ["gpkg", "shp", "geojson"])
def test_polygons_by_a_column_of_words(project, kind):
    study, geobox, half, folder = project
    table = polygons(geobox, half, zone=["continuous", "none"])
    table.geometry = table.geometry.segmentize(5000)  # straight in the grid's projection
    table.to_crs("EPSG:4326").to_file(folder / f"zones.{kind}")
    study = with_map(
        study,
        file=str(folder / f"zones.{kind}"),
        column="zone",
        classes={"continuous": 3, "none": 0},
        compares="class",
        depth=(3, 5),
    )
    record = other_maps.compare_all(study)["theirs"]
    assert record["kappa"] == pytest.approx(1)
    assert record["classes"][3] == "ice-rich frozen soil"


def test_metres_of_ice_are_compared_as_numbers(project):
    study, geobox, half, folder = project
    theirs = np.full(geobox.shape, 1.5, np.float32)
    write_raster(folder / "theirs.tif", theirs, geobox, study=study, names="ice", units="m")
    record = other_maps.compare_all(
        with_map(study, file=str(folder / "theirs.tif"), compares="storage")
    )["theirs"]
    rows, columns = geobox.shape
    assert record["ours_km3"] == pytest.approx(2 * half * columns * 0.4)
    assert record["theirs_km3"] == pytest.approx(1.5 * (rows - 1) * columns * 0.4)
    share = half / (rows - 1)
    assert record["mean_difference_m"] == pytest.approx(2 * share - 1.5)
    assert record["rms_difference_m"] == pytest.approx(np.sqrt(share * 0.25 + (1 - share) * 2.25))


@pytest.mark.parametrize("compares", ["permafrost", "class", "storage"])
def test_parts_of_a_large_grid_add_up(project, monkeypatch, compares):
    """Their raster, 0 in the west and 3 in the east, covers the middle of the grid alone."""
    study, geobox, _, folder = project
    rows, columns = geobox.shape
    theirs = np.zeros((rows - 8, columns - 10), np.uint8)
    theirs[:, columns // 3 :] = 3
    grid = geobox[4 : rows - 4, 5 : columns - 5]
    path = folder / "theirs.tif"
    write_raster(path, theirs, grid, study=study, names="theirs", units="1")
    codes = {0: 0, 3: 1 if compares == "permafrost" else 3}
    how = {"compares": compares} | ({} if compares == "storage" else {"classes": codes})
    how |= {"depth": (2, 3)} if compares == "class" else {}
    study = with_map(study, file=str(path), **how)
    expected = other_maps.compare_all(study)["theirs"]
    before = read_band(difference_files(study)["theirs"])
    monkeypatch.setattr(other_maps, "_SIDE", 7)
    for name, value in other_maps.compare_all(study)["theirs"].items():
        if name != "classes":
            np.testing.assert_allclose(value, expected[name], rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(read_band(difference_files(study)["theirs"]), before)
    assert np.isfinite(expected["km2"])


def test_bad_maps_are_refused_by_name(project):
    study, geobox, half, folder = project
    path = folder / "zones.gpkg"
    polygons(geobox, half, zone=["a", "b"]).to_file(path)
    write_raster(
        folder / "ones.tif",
        np.ones(geobox.shape, np.uint8),
        geobox,
        study=study,
        names="p",
        units="1",
    )
    ones = str(folder / "ones.tif")
    cases = [
        ({"file": str(path), "column": "type", "classes": {"a": 1}}, "no column type"),
        ({"file": str(path), "column": "zone", "classes": {"c": 1}}, "it has a, b"),
        ({"file": str(path), "column": "zone", "above": 1}, "is a number"),
        (
            {"file": str(path), "layer": "other", "column": "zone", "above": 1},
            "no layer other; it has zones",
        ),
        ({"file": ones, "classes": {"x": 1}}, "not numbers"),
        ({"file": ones, "classes": {5: 1}}, "says nothing"),
        ({"file": ones, "classes": {1: 4}}, "codes 4"),
        (
            {"file": ones, "classes": {1: 0}, "compares": "class", "depth": (1, 2)},
            "ours has the layers",
        ),
        ({"file": str(folder / "no.tif"), "above": 1}, "no raster no.tif"),
        ({"covariate": "frost", "above": 1}, "no covariate frost"),
    ]
    for settings, text in cases:
        with pytest.raises(CompendiumError, match=text):
            other_maps.compare_all(with_map(study, **settings))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"above": 1}, "either `file` or `covariate`"),
        ({"file": "a.tif"}, "either `above`"),
        ({"file": "a.tif", "compares": "class", "classes": {1: 1}}, "give `depth`"),
    ],
)
def test_settings_must_name_one_map_and_its_meaning(settings, text):
    with pytest.raises(StudyError, match=text):
        Study.open("config/quick.yaml").changed({"compare_with": [{"name": "theirs", **settings}]})


def test_a_changed_file_is_another_input(tmp_path):
    study = Study.open("config/quick.yaml")
    path = tmp_path / "theirs.tif"
    others = [{"name": "theirs", "file": str(path), "classes": {"1": 1}}]
    path.write_bytes(b"one")
    first = study.changed({"compare_with": others})
    assert list(first.inputs)[-1] == "theirs.tif"
    path.write_bytes(b"two")
    assert first.key != study.changed({"compare_with": others}).key
    assert first.other_map_files == [path]
    assert first.compare_with[0].classes == {"1": 1}


def test_scale_mask_and_rotation_of_a_users_map_are_respected(project):
    """Thousandths of metres, an internal mask, and a grid that is turned by 10 degrees."""
    study, geobox, _, folder = project
    rows, columns = geobox.shape
    profile = {"driver": "GTiff", "height": rows, "width": columns, "count": 1}
    profile |= {"crs": geobox.crs.to_wkt(), "transform": geobox.transform}
    with rasterio.open(folder / "scaled.tif", "w", dtype="int16", **profile) as target:
        target.write(np.full((rows, columns), 1500, np.int16), 1)
        target.scales = (0.001,)
    storage = with_map(study, file=str(folder / "scaled.tif"), compares="storage")
    assert np.unique(whole(storage, storage.compare_with[0])) == [1.5]

    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(folder / "masked.tif", "w", dtype="uint8", **profile) as target,
    ):
        target.write(np.full((rows, columns), 40, np.uint8), 1)
        target.scales = (0.01,)
        known = np.ones((rows, columns), bool)
        known[:, : columns // 3] = False
        target.write_mask(known)
    masked = with_map(study, file=str(folder / "masked.tif"), above=0.5)
    theirs = whole(masked, masked.compare_with[0])
    np.testing.assert_array_equal(np.isnan(theirs), ~known)
    assert not theirs[known].any()

    turned = geobox.transform * Affine.rotation(10, (columns / 2, rows / 2))
    with rasterio.open(
        folder / "turned.tif", "w", dtype="float32", **profile | {"transform": turned}
    ) as target:
        target.write(np.tile(np.arange(columns, dtype=np.float32), (rows, 1)), 1)
    rotated = with_map(study, file=str(folder / "turned.tif"), above=columns / 2)
    theirs = whole(rotated, rotated.compare_with[0])
    place = ~turned * (geobox.transform * (columns * 0.5 + 10.5, rows * 0.25 + 0.5))
    assert theirs[rows // 4, columns // 2 + 10] == (int(place[0]) > columns / 2)
    middle = ~turned * (geobox.transform * (columns * 0.5 + 0.5, 0.5))
    assert theirs[0, columns // 2] == (int(middle[0]) > columns / 2) != theirs[-1, columns // 2]


def test_metres_of_ice_below_zero_are_refused(project):
    study, geobox, _, folder = project
    theirs = np.full(geobox.shape, 1.5, np.float32)
    theirs[3, :7] = -9999
    profile = {"driver": "GTiff", "height": geobox.shape[0], "width": geobox.shape[1], "count": 1}
    profile |= {"crs": geobox.crs.to_wkt(), "transform": geobox.transform, "dtype": "float32"}
    with rasterio.open(folder / "ice.tif", "w", **profile) as target:
        target.write(theirs, 1)
    storage = with_map(study, file=str(folder / "ice.tif"), compares="storage")
    with pytest.raises(
        CompendiumError, match="less than no ice in 7 cells, such as -9999 m in row 3"
    ):
        whole(storage, storage.compare_with[0])


def test_yes_and_no_are_words_and_truth_values_of_a_column(project):
    study, geobox, half, folder = project
    words = {"zone": ["yes", "no"], "kind": ["continuous", "no"], "frozen": [True, False]}
    polygons(geobox, half, **words).to_file(folder / "z.gpkg")
    path = folder / "study.yaml"
    for column, classes in (
        ("zone", "{yes: 1, no: 0}"),
        ("kind", "{continuous: 1, no: 0}"),
        ("frozen", "{true: 1, false: 0}"),
    ):
        path.write_text(f"name: t\ncompare_with: [{{name: theirs, file: {folder / 'z.gpkg'}, "
                        f"column: {column}, classes: {classes}}}]\n")  # fmt: skip
        (other,) = Study.open(path).compare_with
        assert other_maps.compare_all(with_map(study, **other.model_dump(exclude={"name"})))[
            "theirs"
        ]["kappa"] == pytest.approx(1)


def test_a_long_edge_of_a_map_follows_its_parallel(project):
    study, geobox, _, folder = project
    table = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[box(105, 50, 145, 60)], crs=4326)
    table.to_file(folder / "zones.gpkg")
    named = {"file": str(folder / "zones.gpkg"), "column": "zone", "classes": {"a": 1}}
    theirs = whole(study, with_map(study, **named).compare_with[0])
    back = pyproj.Transformer.from_crs(geobox.crs.to_wkt(), 4326, always_xy=True)
    latitude = back.transform(*np.meshgrid(*cell_centres(geobox)))[1]
    wrong = np.isfinite(theirs) != (latitude > 50)
    assert (np.abs(latitude[wrong] - 50) * 111_000 < 0.12 * study.grid.resolution).all()
