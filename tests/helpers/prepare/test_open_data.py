"""Open data from real servers on loopback: what is fetched, what is read of it, what may fail."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import open_server
import pytest
import rasterio
import yaml
from affine import Affine

from helpers.core.grid import fine_grid, reference_grid
from helpers.core.rasters import RasterError
from helpers.core.settings import ROOT
from helpers.core.study import Study, StudyError
from helpers.core.user_rasters import overview_for
from helpers.prepare import climate, fetch, open_data, products
from helpers.prepare.open_data import OpenDataError

NO_WAIT = (0, 0, 0, 0)
SCENE = "LC08_L2SP_122050_20230618_20230618_02_T1"


@pytest.fixture
def opened(open_world, tmp_path, monkeypatch):
    """Return a function that gives a study of some settings of the world, in folders of its own."""
    _, server, api = open_world
    server.start()

    def study(*settings, sign="", **changes):
        wanted = open_server.settings(api, server.url, sign)
        source = wanted["source"]
        kept = {"kind", "api", "sign", *settings}
        fields = {name: value for name, value in source.items() if name in kept or not settings}
        for name, change in changes.items():
            fields[name] = fields[name] | change
        predictors = "all" if settings else wanted["predictors"]
        return Study(name="open", **wanted | {"source": fields, "predictors": predictors})

    monkeypatch.setattr(Study, "raw_dir", property(lambda self: tmp_path / "raw"))
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / self.name))
    return study


def fetched(study):
    return fetch.fetch(study, open_data.make_plan(study), NO_WAIT)


def assets(server):
    """Return how often each file of the server was asked for; tokens do not count."""
    return {p: n for p, n in server.counts["requests"].items() if p.startswith("/files")}


def test_the_plan_takes_what_fits_and_says_why_not(opened):
    study = opened()
    plan = open_data.make_plan(study)
    table = open_data.table_of_plan(study, plan)
    assert table.loc["source.landsat", ["items", "files"]].tolist() == [4, 24]
    assert table.loc["source.lst", ["items", "files"]].tolist() == [24, 96]  # without `datetime`
    assert table.loc["source.lst", ["first", "last"]].tolist() == ["2023-01-01", "2023-12-11"]
    assert table.loc["source.soil", "files"] == 12
    assert table.loc["source.landsat", "cloud"] == 12.5
    assert (table["licence"][:-1] == "test").all()
    reasons = open_data.table_of_left_out(plan)["reason"].tolist()
    assert reasons == [
        "it lacks qa_pixel",
        "it lacks swir16",
        "more than 60 % of clouds",
        "platform landsat-7",
    ]
    # Clear in size and time: 6 bands of uint16 in cells of 240 m over the box.
    square = 4 * 24e3 * 23e3 / 240**2 * 12 / 1e6
    assert table.loc["source.landsat", "MB"] == pytest.approx(square, rel=0.35)
    hours = table.loc["source.landsat", "MB"] * 8 / study.compute.bandwidth / 3600
    assert table.loc["source.landsat", "hours"] == pytest.approx(hours)
    assert open_data.make_plan(study) == plan  # as it was written


def test_scenes_of_three_zones_arrive_as_they_are_stored(opened, open_world):
    world, _, _ = open_world
    study = opened("landsat")
    fetched(study)
    zones = set()
    for path in products.fetched(study, "source.landsat"):
        original = next((world.folder / "landsat").rglob(path.name))
        with rasterio.open(path) as source, rasterio.open(original, overview_level=2) as whole:
            zones.add(source.crs.to_epsg())
            window = rasterio.windows.from_bounds(*source.bounds, whole.transform)
            rounded = window.round_offsets().round_lengths()
            np.testing.assert_array_equal(source.read(1), whole.read(1, window=rounded))
            assert source.nodata == whole.nodata
    assert zones == {32650, 32651, 32652}


def test_what_was_killed_goes_on_where_it_was(opened, open_world, tmp_path):
    _, server, _ = open_world
    study = opened("landsat", "dem", "lst")
    plan = open_data.make_plan(study)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    code = (
        "import sys, pathlib; from helpers.core.study import Study\n"
        "from helpers.prepare import fetch, open_data\n"
        f"Study.raw_dir = property(lambda self: pathlib.Path({str(study.raw_dir)!r}))\n"
        "study = Study.open(sys.argv[1]); fetch.fetch(study, open_data.make_plan(study))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=env, stdout=subprocess.DEVNULL
    ) as process:
        while len(arrived := list(study.raw_dir.rglob("*.[tT][iI][fF]"))) < 20:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    arrived = [file for file in study.raw_dir.rglob("*.[tT][iI][fF]") if file.suffix != ".part"]
    assert 20 <= len(arrived) < len(plan.parts)
    server.start()
    plan = fetched(study)
    asked = {address.rpartition("/")[2] for address in assets(server)}
    assert asked
    assert not asked & {file.name for file in arrived}
    for part in plan.parts:
        with rasterio.open(study.raw_dir / part.file) as source:
            source.read()
    server.start()
    assert fetched(study) == plan
    assert not assets(server)
    again = opened("landsat", "dem", "lst", landsat={"cloud": 50})  # other settings: same files
    fetched(again)
    assert not assets(server)
    sums = {part.file: part.sha256 for part in plan.parts}
    for part in plan.parts:
        (study.raw_dir / part.file).unlink()
    assert {part.file: part.sha256 for part in fetched(study).parts} == sums


@pytest.mark.parametrize(
    ("failures", "times"),
    [
        pytest.param({"SR_B4.TIF": [2, 429]}, 4, id="too many requests"),
        pytest.param({"SR_B4.TIF": [2, 503]}, 4, id="out of order"),
        pytest.param({"QA_PIXEL.TIF": [2, "cut"]}, 4, id="cut in the middle"),
    ],
)
def test_a_server_that_refuses_twice_is_asked_again(opened, open_world, failures, times):
    _, server, _ = open_world
    study = opened("landsat")
    server.start(failures=failures)
    plan = fetched(study)
    assert all(part.bytes for part in plan.parts)
    end = next(iter(failures))
    assert sum(path.endswith(end) for path in assets(server)) == times


def test_tokens_are_renewed_and_stay_secret(opened, open_world, capfd, tmp_path):
    _, server, _ = open_world
    study = opened("landsat", sign=f"{server.url}/token")
    plan = open_data.make_plan(study)
    server.start(protected="landsat", failures={"SR_B4.TIF": [4, 403]})
    tokens = fetch.Tokens(study.source.sign)
    first = tokens.signed("http://a/b", "landsat-c2-l2")
    assert tokens.signed("http://a/c", "landsat-c2-l2") == first.replace("/b?", "/c?")
    tokens.forget("landsat-c2-l2", "http://a/b?old")  # somebody has renewed it meanwhile
    assert tokens.signed("http://a/b", "landsat-c2-l2") == first
    fetch.fetch(study, plan, NO_WAIT)
    asked = server.counts["requests"]["/token/landsat-c2-l2"]
    assert 3 <= asked <= 10  # ours, one, and a new one where it was refused

    for part in plan.parts:
        (study.raw_dir / part.file).unlink()
    broken = plan.parts[3].addresses[0].rpartition("/")[2]
    server.start(protected="landsat", failures={broken: [99, 403]})
    with pytest.raises(OpenDataError, match="1 of 24 files") as caught:
        fetch.fetch(study, plan, NO_WAIT)
    assert "403" in str(caught.value)
    texts = [str(caught.value), *capfd.readouterr()]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 24
    assert not any("secret" in text for text in texts)


def test_tokens_that_end_soon_are_not_used(opened, open_world):
    _, server, _ = open_world
    study = opened("landsat", sign=f"{server.url}/token")
    plan = open_data.make_plan(study)
    server.start(lives=30)
    fetch.fetch(study, plan, NO_WAIT)
    assert server.counts["requests"]["/token/landsat-c2-l2"] == 1 + 24


def test_a_truncated_file_is_named_and_may_be_left_out(opened, open_world):
    world, server, _ = open_world
    study = opened("landsat")
    path = world.folder / f"landsat/{SCENE}/{SCENE}_SR_B3.TIF"
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000])  # overviews lie near the beginning
    try:
        with pytest.raises(OpenDataError) as caught:
            fetched(study)
    finally:
        path.write_bytes(whole)
    assert f"1 of 24 files of open data could not be fetched, of the items {SCENE}" in str(
        caught.value
    )
    assert "SR_B3.TIF of `source.landsat`" in caught.value.message
    assert "`leave_out`" in caught.value.remedy
    with pytest.raises(Exception, match="not all fetched"):
        products.fetched(study, "source.landsat")
    server.start()
    without = opened("landsat", landsat={"leave_out": [SCENE]})
    assert len(fetched(without).parts) == 18
    assert not assets(server)  # all others had come


def test_no_server_is_told_within_ten_seconds(opened):
    with socket.socket() as silent, socket.socket() as closed:
        for one in (silent, closed):
            one.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections, and never answers
        for one in (silent, closed):
            port = one.getsockname()[1]
            study = opened("dem").changed({"source.api": f"http://127.0.0.1:{port}"})
            start = time.monotonic()
            with pytest.raises(OpenDataError, match="cannot be reached") as caught:
                open_data.make_plan(study)
            assert time.monotonic() - start < 10
            assert f"127.0.0.1:{port}" in caught.value.message
            assert "check the network" in caught.value.remedy


def test_a_server_that_goes_away_ends_the_fetch_and_no_other(opened, open_world):
    world, server, _ = open_world
    study = opened("lst", "dem")
    plan = open_data.make_plan(study)
    server.start(failures={".tif": [10_000, 500]})
    with open_server.file_server(world.folder) as second:
        moved = tuple(p.addresses[0].replace(server.url, second.url) for p in plan.parts[:2])
        dem = [replace(p, addresses=(a,)) for p, a in zip(plan.parts[:2], moved, strict=True)]
        # Those of the other server come last.
        plan = replace(plan, parts=(*plan.parts[2:], *dem))
        with pytest.raises(OpenDataError, match="96 of 98 files"):
            fetch.fetch(study, plan, NO_WAIT)
        assert len(second.counts["requests"]) == 2
    assert 20 <= len(server.counts["refused"]) < 60  # not each file was tried


def test_without_tokens_others_go_on(opened, open_world):
    _, server, _ = open_world
    study = opened("dem", "soil", sign=f"{server.url}/nothing")
    with pytest.raises(OpenDataError, match="2 of 14 files") as caught:
        fetched(study)
    assert "There is no token for cop-dem-glo-90: 404" in caught.value.message


def test_nothing_in_the_area_is_an_error_with_a_remedy(opened):
    with pytest.raises(OpenDataError, match="no item for the study area") as caught:
        open_data.make_plan(opened("landsat", landsat={"years": [1999, 2000]}))
    assert "landsat-c2-l2 of `source.landsat`" in caught.value.message
    with pytest.raises(OpenDataError, match="all 3 are left out: platform landsat-8"):
        open_data.make_plan(
            opened("landsat", landsat={"platforms": ["landsat-3"], "months": [6, 7]})
        )
    with pytest.raises(OpenDataError, match="has a name in braces that is not known"):
        open_data.make_plan(opened("soil", soil={"address": "http://a.b/{layer}.tif"}))


def test_only_windows_of_overviews_are_read(tmp_path, monkeypatch):
    """A 30 m scene for fine cells of 250 m: the blocks of its 240 m overview, and little else.

    Ideal is to read just the blocks with a cell of the grid, for no part of a block can be decoded.
    """
    monkeypatch.setattr(Study, "raw_dir", property(lambda self: tmp_path / "raw"))
    numbers = np.random.default_rng(0).integers(8000, 30_000, (4096, 4096)).astype(np.uint16)
    place = Affine(30, 0, 500_000, 0, -30, 5_600_000)
    open_server.write_cog(tmp_path / "files/scene.tif", numbers, place, "EPSG:32651", 0)
    with open_server.file_server(tmp_path / "files") as server:
        study = Study(
            name="bytes",
            source={"kind": "stac"},
            area={"box": (123.2, 49.6, 124.4, 50.35)},
            grid={"crs": "EPSG:32651", "resolution": 1000, "fine_resolution": 250},
            predictors=[
                {
                    "name": "scene",
                    "unit": "1",
                    "file": {"address": f"{server.url}/files/scene.tif", "licence": "test"},
                }
            ],
        )
        plan = fetched(study)
        read = server.counts["bytes"]["/files/scene.tif"]
    with rasterio.open(tmp_path / "files/scene.tif") as source:
        assert overview_for(source, fine_grid(study)) == 2
        sizes = {}
        for level in range(3):
            with rasterio.open(source.name, overview_level=level) as overview:
                sizes[level] = overview.shape
    assert sizes[2] == (512, 512)
    with rasterio.open(study.raw_dir / plan.parts[0].file) as window:
        assert window.res == (240, 240)
        shape = window.shape
    assert min(shape) > 300
    west, south, east, north = fine_grid(study).boundingbox.bbox
    columns, rows = (np.divide(edges, 240 * 256) for edges in [(west, east), (north, south)])
    columns, rows = columns - 500_000 / 240 / 256, 5_600_000 / 240 / 256 - rows
    blocks = np.prod([np.floor(last) - np.floor(first) + 1 for first, last in (columns, rows)])
    ideal = blocks * 256**2 * 2  # noise cannot be compressed
    print(f"bytes read: {read:,}, of the blocks needed: {ideal:,.0f}, ratio {read / ideal:.3f}")
    assert 0.9 <= read / ideal <= 1.3


def test_months_of_composites_by_hand(tmp_path, monkeypatch):
    """Composites count by their days in a month; what quality bits refuse does not count."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path / "processed"))
    study = Study(
        name="lst",
        source={"kind": "files", "lst": str(tmp_path)},
        area={"box": (119.9, 50.0, 120.1, 50.1)},
        grid={"resolution": 1000, "fine_resolution": 1000},
    )
    x, y = (int(v // 926) * 926 for v in (8_560_000, 5_580_000))
    place = Affine(926.6, 0, x - 40_000, 0, -926.6, y + 40_000)

    def write(name, day, night, quality=0):
        for asset, value in zip(products.LST_ASSETS, (day, quality, night, 0), strict=True):
            kind = np.uint8 if asset.startswith("QC") else np.uint16
            number = value if asset.startswith("QC") else round((value + 273.15) / 0.02)
            array = np.full((90, 90), number, kind)
            path = tmp_path / f"{name}_{asset}.tif"
            open_server.write_cog(path, array, place, open_server.SINUSOIDAL, overviews=())

    write("MOD11A2.A2023025.h25v03.061.2023034000000", 0, -10)  # 25 January to 1 February
    write("MYD11A2.A2023025.h25v03.061.2023034000000", 8, -2)
    write("MOD11A2.A2023033.h25v03.061.2023042000000", 16, 4)  # 2 to 9 February
    write("MYD11A2.A2023033.h25v03.061.2023042000000", 99, 4, quality=0b10)  # day: not produced
    composites = products.lst_composites(study)
    assert [one.days for one in composites] == [{1: 7, 2: 1}] * 2 + [{2: 8}] * 2
    months = climate._months_of_composites(study, reference_grid(study), composites)[:, :, 5, 5]
    expected = np.full((2, 12), np.nan)
    expected[0, :2] = 4, (0 + 8 + 8 * 16) / 10
    expected[1, :2] = -6, (-10 - 2 + 8 * 4 + 8 * 4) / 18
    np.testing.assert_allclose(months, expected, atol=0.011)


def test_series_are_means_of_months_and_of_variables(opened):
    study = opened("air_temperature", "precipitation")
    fetched(study)
    air, rain = (products.raw_files(study)[n] for n in ("air_temperature", "precipitation"))
    with rasterio.open(air) as source:
        assert source.count == 12
        series = open_server.series("tmax")["tmax"].sel(lon=120, lat=50, method="nearest")
        column, row = ~source.transform * (120, 50)
        months = source.read()[:, int(row), int(column)]
    np.testing.assert_allclose(months, series.to_numpy().reshape(2, 12).mean(axis=0) - 5, atol=1e-4)
    with rasterio.open(rain) as source:
        assert source.bounds.left < open_server.BOX[0] - 0.3  # interpolation needs cells beyond
    with pytest.raises(OpenDataError, match="1 of 1 files") as caught:
        fetched(opened("precipitation", precipitation={"assets": ["snow"]}))
    assert "precipitation_monthly.tif of `source.precipitation`: 400" in caught.value.message


def test_the_list_has_checksums_and_no_token(opened, open_world):
    _, server, _ = open_world
    study = opened("dem", sign=f"{server.url}/token")
    plan = fetched(study)
    record = json.loads(study.open_data_list.read_text())
    assert [part["sha256"] for part in record["parts"]] == [part.sha256 for part in plan.parts]
    assert all(len(part.sha256) == 64 for part in plan.parts)
    assert record["licences"] == {"source.dem": "test"}
    assert "sig=" not in study.open_data_list.read_text()
    assert not list(study.raw_dir.rglob(".*.part"))


def test_a_search_that_is_refused_is_asked_again(opened, open_world):
    _, server, _ = open_world
    study = opened("dem", dem={"collection": "dem"}).changed({"source.api": f"{server.url}/api"})
    server.start(failures={"/api/search": [1, 503]})
    plan = open_data.make_plan(study)
    assert [part.item for part in plan.parts] == ["one"]
    other = opened("dem", dem={"collection": "dem2"}).changed({"source.api": f"{server.url}/api"})
    server.start(failures={"/api/search": [99, 400]})
    with pytest.raises(OpenDataError, match=r"did not say what dem2 has: .+\.") as caught:
        open_data.make_plan(other)
    assert "has: ." not in caught.value.message


def test_a_server_that_is_gone_does_not_keep_others_from_giving(opened, open_world):
    _, server, _ = open_world
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}/{{variable}}_{{depth}}_mean.vrt"
        study = opened("dem", "soil", soil={"address": gone})
        with pytest.raises(OpenDataError, match="12 of 14 files") as caught:
            fetched(study)
    assert "cannot be reached" in caught.value.message
    assert len(assets(server)) == 2


def test_other_addresses_are_other_files(opened, open_world):
    """Years that the file's name does not have; a layer's map is not taken for another's."""
    _, server, _ = open_world
    names = set()
    for year in (2020, 2021):
        address = server.url + "/files/{first}/burnt.tif"
        burnt = {"address": address, "years": [year, year], "licence": "test"}
        one = {"name": "burnt", "unit": "1", "file": burnt}
        study = opened("dem").changed({"predictors": ["elevation", one]})
        names |= {part.file for part in open_data.make_plan(study).parts if "burnt" in part.file}
    assert len(names) == 2
    study = opened("soil", soil={"address": server.url + "/files/soil/clay/clay_0-5cm_mean.vrt"})
    assert len(fetched(study).parts) == 1
    with pytest.raises(RasterError, match=r"have no sand_0-30cm_mean\.tif, but clay_0-5cm_mean"):
        products.raw_files(study)
    with pytest.raises(StudyError, match="String should match pattern"):
        opened("soil").changed({"source.soil.address": "http://me:secret@server/a.tif"})


def test_an_internal_mask_arrives(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "raw_dir", property(lambda self: tmp_path / "raw"))
    (tmp_path / "files").mkdir()
    profile = {"driver": "GTiff", "height": 60, "width": 60, "count": 1, "dtype": "uint8"}
    place = Affine(1000, 0, 480_000, 0, -1000, 5_590_000)
    mask = np.full((60, 60), 255, np.uint8)
    mask[:, :30] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            tmp_path / "files/a.tif", "w", crs="EPSG:32651", transform=place, **profile
        ) as target,
    ):
        target.write(np.full((60, 60), 7, np.uint8), 1)
        target.write_mask(mask)
    with open_server.file_server(tmp_path / "files") as server:
        file = {"address": f"{server.url}/files/a.tif", "licence": "test"}
        study = Study(
            name="mask",
            source={"kind": "stac"},
            area={"box": (122.9, 50.1, 123.4, 50.3)},
            grid={"crs": "EPSG:32651", "resolution": 1000, "fine_resolution": 1000},
            predictors=[{"name": "a", "kind": "category", "file": file}],
        )
        plan = fetched(study)
    with rasterio.open(study.raw_dir / plan.parts[0].file) as source:
        masked = source.read_masks(1)
        left, _ = ~place * (source.bounds.left, source.bounds.top)
    np.testing.assert_array_equal(masked[:, : 30 - round(left)], 0)
    assert (masked[:, 30 - round(left) :] == 255).all()


def test_a_series_with_a_gap_is_refused(opened):
    with pytest.raises(OpenDataError, match="24 months, not those of 3 years"):
        fetched(opened("precipitation", precipitation={"years": [2023, 2025]}))
