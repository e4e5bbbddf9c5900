"""Files that are not what their name says, or that lead elsewhere: refused, and nothing is asked.

A server on this machine counts requests.
"""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from refusals import assert_refused

from helpers.core.errors import CompendiumError
from helpers.core.features import FeatureError, read_features
from helpers.core.rasters import RasterError
from helpers.core.settings import raster_grid
from helpers.core.user_rasters import Reading, open_source

SECRET = "/etc/hostname"


@pytest.fixture
def asked():
    """Address of a server, and the list of what it was asked."""
    requests = []

    class Counts(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *parts):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Counts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def virtual(part, relative=0):
    source = f'<SourceFilename relativeToVRT="{relative}">{part}</SourceFilename>'
    rectangle = 'xOff="0" yOff="0" xSize="8" ySize="8"'
    places = f"<SrcRect {rectangle}/><DstRect {rectangle}/>"
    band = f"<SimpleSource>{source}<SourceBand>1</SourceBand>{places}</SimpleSource>"
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32651</SRS>'
        "<GeoTransform>500000, 100, 0, 5600000, 0, -100</GeoTransform>"
        f'<VRTRasterBand dataType="Float32" band="1">{band}</VRTRasterBand></VRTDataset>'
    )


def service(address):
    return f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/a</ServerUrl></Service></GDAL_WMS>'


def layer(part):
    name = f"<SrcDataSource>{part}</SrcDataSource>"
    inner = f'<OGRVRTLayer name="x">{name}</OGRVRTLayer>'
    return f"<OGRVRTDataSource>{inner}</OGRVRTDataSource>"


def write_tile(path):
    profile = {"width": 8, "height": 8, "count": 1, "dtype": "float32", "crs": "EPSG:32651"}
    place = from_origin(500_000, 5_600_000, 100, 100)
    with rasterio.open(path, "w", driver="GTiff", transform=place, **profile) as target:
        target.write(np.ones((1, 8, 8), np.float32))


RASTERS = {
    "virtual raster of the web as .tif": ("a.tif", lambda url: virtual(f"/vsicurl/{url}/a.tif")),
    "virtual raster of a file as .tif": ("a.tif", lambda url: virtual(SECRET)),
    "virtual raster as .nc": ("a.nc", lambda url: virtual(f"/vsicurl/{url}/a.tif")),
    "virtual raster of the web": ("a.vrt", lambda url: virtual(f"/vsicurl/{url}/a.tif")),
    "virtual raster of an address": ("a.vrt", lambda url: virtual(f"{url}/a.tif")),
    "virtual raster in a virtual one": (
        "a.vrt",
        lambda url: virtual(virtual(f"/vsicurl/{url}/a.tif").replace("<", "&lt;")),
    ),
    "service as .tif": ("a.tif", service),
    "service as .vrt": ("a.vrt", service),
    "text as .tif": ("a.tif", lambda url: "no raster"),
    "empty .tif": ("a.tif", lambda url: ""),
    "empty .vrt": ("a.vrt", lambda url: ""),
    "cut off XML": ("a.vrt", lambda url: virtual("b.tif")[:90]),
    "page of a server": ("a.tif", lambda url: "<html>404</html>"),
}


@pytest.mark.parametrize("case", RASTERS.values(), ids=RASTERS)
def test_a_raster_that_leads_elsewhere_is_refused(tmp_path, asked, case):
    (name, content), (url, requests) = case, asked
    (tmp_path / name).write_text(content(url))

    def read():
        with open_source(tmp_path / name, Reading()) as source:
            source.read(1)

    assert_refused(read, tmp_path, RasterError, name, "cannot be read", "file again")
    with pytest.raises(ValueError, match=name):
        raster_grid(str(tmp_path / name))
    assert requests == []


@pytest.mark.parametrize("start", ["", "\ufeff", " \n"])
def test_a_virtual_raster_through_another_file_is_refused(tmp_path, asked, start):
    url, requests = asked
    (tmp_path / "inner.tif").write_text(start + virtual(f"/vsicurl/{url}/a.tif"))
    (tmp_path / "outer.vrt").write_text(virtual("inner.tif", relative=1))

    def read():
        with open_source(tmp_path / "outer.vrt", Reading()) as source:
            source.read(1)

    assert_refused(read, tmp_path, RasterError, "outer.vrt", "/vsicurl/", "on this machine")
    assert requests == []


@pytest.mark.parametrize("beside", ["a.tif.ovr", "a.tif.msk", "a.tif.aux.xml"])
def test_what_lies_beside_a_raster_asks_nobody(tmp_path, asked, beside):
    url, requests = asked
    write_tile(tmp_path / "a.tif")
    (tmp_path / beside).write_text(virtual(f"/vsicurl/{url}/a.tif"))
    with (
        contextlib.suppress(RasterError),
        open_source(tmp_path / "a.tif", Reading()) as source,
    ):
        source.read(1, out_shape=(4, 4))
        source.read_masks(1)
    assert requests == []


def test_a_virtual_raster_of_itself_ends(tmp_path):
    (tmp_path / "a.vrt").write_text(virtual("a.vrt", relative=1))

    def read():
        with open_source(tmp_path / "a.vrt", Reading()) as source:
            source.read(1)

    assert_refused(read, tmp_path, RasterError, "a.vrt", "cannot be read")


def test_a_virtual_raster_of_tiles_on_this_machine_is_read(tmp_path):
    write_tile(tmp_path / "tile.tif")
    (tmp_path / "all.vrt").write_text(virtual("tile.tif", relative=1))
    with open_source(tmp_path / "all.vrt", Reading()) as source:
        assert source.read(1).tolist() == [[1] * 8] * 8


ADDRESSES = ["/vsicurl/{url}/a.tif", "/vsizip//vsicurl/{url}/a.zip/a.tif", "WMS:{url}", "{url}/a"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_in_place_of_a_file_asks_nobody(tmp_path, asked, address):
    url, requests = asked
    path = tmp_path / address.format(url=url)

    def read():
        with open_source(path, Reading()):
            pass

    assert_refused(read, tmp_path, RasterError, "There is no raster", "correct its path")
    assert_refused(lambda: read_features(path), tmp_path, FeatureError, "There is no file")
    assert requests == []


def test_a_folder_in_place_of_a_raster_is_named(tmp_path):
    (tmp_path / "a.tif").mkdir()

    def read():
        with open_source(tmp_path / "a.tif", Reading()):
            pass

    assert_refused(read, tmp_path, RasterError, "a.tif")


def test_a_raster_that_is_cut_off_is_named(tmp_path):
    write_tile(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])

    def read():
        with open_source(tmp_path / "a.tif", Reading()) as source:
            source.read(1)

    assert_refused(read, tmp_path, RasterError, "a.tif", "file again")


STREAM = '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read %s"}'

FEATURES = {
    "virtual layers as .gpkg": ("a.gpkg", lambda url: layer(f"/vsicurl/{url}/a.json")),
    "virtual layers as .shp": ("a.shp", lambda url: layer(SECRET)),
    "virtual layers as .geojson": ("a.geojson", lambda url: layer(f"/vsicurl/{url}/a.json")),
    "virtual layers": ("a.vrt", lambda url: layer(f"/vsicurl/{url}/a.json")),
    "commands as .geojson": ("a.geojson", lambda url: STREAM % f"/vsicurl/{url}/a.json"),
    "text as .gpkg": ("a.gpkg", lambda url: "no package"),
    "empty .gpkg": ("a.gpkg", lambda url: ""),
    "blank .geojson": ("a.geojson", lambda url: "  \n"),
    "broken .geojson": ("a.geojson", lambda url: '{"type": "FeatureColl'),
    "JSON of something else": ("a.json", lambda url: '{"a": 1}'),
    "head of a GeoPackage": ("a.gpkg", lambda url: "SQLite format 3\0"),
    "KML": ("a.kml", lambda url: f"<kml><NetworkLink><href>{url}</href></NetworkLink></kml>"),
    "spreadsheet": ("a.xlsx", lambda url: "PK"),
    "no ending": ("a", lambda url: "{}"),
}


@pytest.mark.parametrize("case", FEATURES.values(), ids=FEATURES)
def test_features_that_lead_elsewhere_are_refused(tmp_path, asked, case):
    (name, content), (url, requests) = case, asked
    (tmp_path / name).write_text(content(url))
    assert_refused(lambda: read_features(tmp_path / name), tmp_path, FeatureError, name)
    assert requests == []


def test_a_folder_in_place_of_features_is_named(tmp_path):
    (tmp_path / "a.gpkg").mkdir()
    path = tmp_path / "a.gpkg"
    assert_refused(lambda: read_features(path), tmp_path, CompendiumError, "a.gpkg is a folder")


def opened(path):
    with open_source(path, Reading()):
        pass


@pytest.mark.parametrize("side", [0, 1e-160, 1e12, float("nan"), float("inf")])
def test_cells_without_a_size_are_refused(tmp_path, side):
    path = tmp_path / "own.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "float32"}
    place = from_origin(500_000, 5_600_000, 100, 100)
    with rasterio.open(path, "w", crs="epsg:32651", transform=place, **profile) as target:
        target.transform = from_origin(500_000, 5_600_000, side, side)
        target.write(np.ones((1, 4, 4), np.float32))
    assert_refused(lambda: opened(path), tmp_path, RasterError, "own.tif", "size", "geotransform")


def test_a_header_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "own.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "float32"}
    place = from_origin(500_000, 5_600_000, 100, 100)
    with rasterio.open(path, "w", crs="epsg:32651", transform=place, **profile) as target:
        target.write(np.ones((1, 4, 4), np.float32))
    data = path.read_bytes()
    name = data.find(b"WGS 84 / UTM")
    assert name > 0
    # Another projection than the numbers say, so that the name is read and not looked up.
    code = data.find((32651).to_bytes(2, "little"))
    damaged = bytearray(data)
    damaged[code : code + 2] = (32767).to_bytes(2, "little")
    damaged[name : name + 2] = b"\x80\xff"
    path.write_bytes(damaged)
    assert_refused(lambda: opened(path), tmp_path, RasterError, "own.tif", "header")
