"""A small world of open data on loopback: a real STAC API, and a file server that can fail."""

import collections
import contextlib
import itertools
import json
import math
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyproj
import rasterio
import rasterio.shutil
import requests
import shapely
import uvicorn
import xarray
from affine import Affine
from rasterio.warp import transform_geom
from scipy.ndimage import zoom
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

BOX = (119.84, 50.05, 120.16, 50.25)
"""West, south, east and north in degrees; UTM zones 50 and 51 meet in it."""

EDGES = ("west", "south", "east", "north")

BANDS = {
    "blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir08": "SR_B5", "swir16": "SR_B6",
    "qa_pixel": "QA_PIXEL",
}  # fmt: skip
CLEAR, CLOUD, FILL = 21824, 22280, 1
SIDE = 1024  # pixels of a scene
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
MODIS_CELL = 926.625433138333
HOMOLOSINE = "+proj=igh +lon_0=0 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


class FileServer:
    """The file server's app: counts requests and bytes, and fails as it is told.

    ``/control`` gives the counts, and takes settings: `failures` map the end of a path to how often
    it fails, and how (a status, or ``cut``); files in the folder `protected` need a token, which
    lives for so many seconds (`lives`); earlier tokens are not taken any more.
    """

    def __init__(self, folder):
        self.start({})
        self.number = 0
        routes = [
            Route("/control", self.control, methods=["GET", "POST"]),
            Route("/token/{collection}", self.token),
            Route("/months/{variable}", self.months),
            Route("/api", self.api),
            Route("/api/search", self.search, methods=["POST"]),
            Mount("/files", StaticFiles(directory=folder)),
        ]
        self.app = Starlette(routes=routes)

    def start(self, settings):
        self.requests, self.bytes = collections.Counter(), collections.Counter()
        self.valid = set()
        self.seen, self.failures = collections.Counter(), settings.get("failures", {})
        self.protected, self.lives = settings.get("protected", ""), settings.get("lives", 3600)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] == "/control":
            return await self.app(scope, receive, send)
        path, how = scope["path"], self.failure(scope)
        if how == "cut":
            await send({"type": "http.response.start", "status": 206, "headers": CUT})
            await send({"type": "http.response.body", "body": b"II*", "more_body": True})
            raise ConnectionError("uvicorn closes the connection")
        if how:
            return await Response("no", how)(scope, receive, send)

        async def sending(message):
            self.bytes[path] += len(message.get("body", b""))
            await send(message)

        if scope["method"] == "GET":
            self.requests[path] += 1
        return await self.app(scope, receive, sending)

    def failure(self, scope):
        path = scope["path"]
        signed = self.protected and path.startswith(f"/files/{self.protected}/")
        if signed and scope["query_string"].decode() not in self.valid:
            return 403
        for end, (times, how) in self.failures.items():
            if path.endswith(end) and (how != "cut" or scope["method"] == "GET"):
                self.seen[path] += 1
                if self.seen[path] <= times:
                    return how
        return None

    async def control(self, request):
        if request.method == "POST":
            self.start(await request.json())
        counts = {"requests": self.requests, "bytes": self.bytes, "refused": self.seen}
        return JSONResponse(counts)

    async def api(self, request):
        """Answer as the root of a small STAC API, whose search may fail."""
        own = str(request.base_url)
        links = [{"rel": "root", "href": f"{own}api"}]
        links.append({"rel": "search", "href": f"{own}api/search", "method": "POST"})
        links[-1]["type"] = "application/geo+json"
        conforms = ["https://api.stacspec.org/v1.0.0/core"]
        conforms.append("https://api.stacspec.org/v1.0.0/item-search")
        root = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "a"}
        return JSONResponse(root | {"links": links, "conformsTo": conforms})

    async def search(self, request):
        place = Affine(0.01, 0, 119, 0, -0.01, 51)
        files = {"data": (f"{request.base_url}files/dem.tif", {})}
        found = item("one", "dem", "EPSG:4326", place, (200, 200), files, datetime=None)
        answer = {"type": "FeatureCollection", "features": [found], "links": []}
        return JSONResponse(answer)

    async def token(self, request):
        self.number += 1
        token = f"sig=secret{self.number}"
        self.valid.add(token)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lives))
        return JSONResponse({"token": token, "msft:expiry": ends})

    async def months(self, request):
        """Answer as a subset service: a window of a series as NetCDF."""
        asked = request.query_params
        if request.path_params["variable"] not in ("tmax", "tmin", "ppt"):
            return Response("no such variable", 400)
        west, south, east, north = (
            float(asked[edge]) for edge in ("west", "south", "east", "north")
        )
        data = series(request.path_params["variable"]).sel(
            time=slice(asked["first"], asked["last"]),
            lon=slice(west, east),
            lat=slice(north, south),
        )
        return Response(bytes(data.to_netcdf(engine="scipy")), media_type="application/x-netcdf")


class Server:
    """A file server in a process of its own."""

    def __init__(self, url):
        self.url = url

    def start(self, **settings):
        """Begin to count anew, with other settings."""
        requests.post(f"{self.url}/control", json=settings, timeout=5)

    @property
    def counts(self):
        """Return requests and bytes by path, and how often `failures` were met."""
        return requests.get(f"{self.url}/control", timeout=5).json()


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def _process(command, url):
    """Run a server until the end of the block, which begins when it answers."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(list(map(str, command)), **quiet) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(requests.ConnectionError):
                    requests.get(url, timeout=5)
                    break
                time.sleep(0.05)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def file_server(folder):
    """Serve a folder by range requests."""
    url = f"http://127.0.0.1:{(port := _free_port())}"
    with _process([sys.executable, __file__, folder, port], f"{url}/control"):
        yield Server(url)


@contextlib.contextmanager
def stac_api(items, folder):
    """Serve items by rustac; give the root of the API."""
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    url = f"http://127.0.0.1:{(port := _free_port())}/"
    rustac = Path(sys.executable).with_name("rustac")
    with _process([rustac, "serve", "-a", f"127.0.0.1:{port}", path], url):
        yield url


CUT = [(b"content-length", b"16384"), (b"content-range", b"bytes 0-16383/99999")]


def series(variable):
    """Return monthly values of two years on a grid of a tenth of a degree."""
    times = np.arange("2023-01", "2025-01", dtype="datetime64[M]").astype("datetime64[ns]")
    lat, lon = np.arange(52, 48, -0.1), np.arange(118, 122, 0.1)
    month = np.arange(24)[:, None, None]
    wave = -np.cos(2 * np.pi * (month % 12 + 0.5) / 12)
    place = (lat[:, None] - 50) * -2 + (lon - 120)
    warm = {"tmax": 5, "tmin": -5}.get(variable, 0)
    values = 20 * wave + place - 3 + warm + month // 12
    if variable == "ppt":
        values = 35 + 25 * wave + place
    names = ("time", "lat", "lon")
    coordinates = dict(zip(names, (times, lat, lon), strict=True))
    return xarray.Dataset({variable: (names, values.astype("float32"))}, coordinates)


def write_cog(path, values, place, crs, nodata=None, overviews=(2, 4, 8)):
    """Write a small cloud-optimised GeoTIFF whose overviews are nearest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"count": 1, "height": values.shape[0], "width": values.shape[1], "crs": crs}
    profile |= {"dtype": values.dtype, "transform": place, "nodata": nodata, "tiled": True}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", blockxsize=256, blockysize=256, **profile) as target:
            target.write(values, 1)
            target.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
        with memory.open() as source:
            options = {"compress": "deflate", "level": 1, "blocksize": 256}
            options["overviews"] = "FORCE_USE_EXISTING"
            rasterio.shutil.copy(source, path, driver="COG", **options)


def item(name, collection, crs, place, shape, files, **properties):
    """Return a STAC item in the shape of those of the Planetary Computer."""
    west, north = place * (0, 0)
    east, south = place * shape[::-1]
    corners = shapely.box(west, south, east, north).segmentize((east - west) / 8)
    outline = transform_geom(crs, "EPSG:4326", shapely.geometry.mapping(corners))
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": outline,
        "bbox": shapely.geometry.shape(outline).bounds,
        "links": [],
        "assets": {asset: {"href": href, **more} for asset, (href, more) in files.items()},
        "properties": properties,
    }


class World:
    """Files of all kinds for the box, and the items that describe them."""

    def __init__(self, folder, url):
        self.folder, self.url, self.items = folder, f"{url}/files", []
        self.rng = np.random.default_rng(5)
        self.elevation()
        for number, (path, zone, day, platform, change) in enumerate(
            [
                ("122024", 50, "20230618", "landsat-8", ""),
                ("122024", 51, "20230618", "landsat-8", ""),  # of the same day
                ("121024", 51, "20230721", "landsat-9", "clouds"),
                ("121024", 52, "20240822", "landsat-9", ""),
                ("121024", 51, "20240830", "landsat-9", "no swir16"),
                ("121024", 51, "20240908", "landsat-9", "no qa_pixel"),
                ("121024", 51, "20240910", "landsat-7", ""),
                ("121024", 51, "20240912", "landsat-8", "overcast"),
                ("121024", 51, "20240101", "landsat-8", "winter"),
            ]
        ):
            self.scene(number, path, zone, day, platform, change)
        self.surface_temperature()
        self.soil()
        self.categories()

    def add(self, *arguments, **properties):
        self.items.append(item(*arguments, **properties))

    def fields(self, place, shape, crs):
        """Return smooth fields of longitude and latitude on a grid, and noise."""
        columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
        x, y = place * (columns, rows)
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(x[::8, ::8], y[::8, ::8])
        lon, lat = (zoom(axis, 8, order=1, grid_mode=True, mode="nearest") for axis in (lon, lat))
        lon, lat = (axis[: shape[0], : shape[1]] for axis in (lon, lat))
        hills = np.sin(40 * lon) * np.cos(50 * lat) + 0.5 * np.sin(90 * lat + 60 * lon)
        return hills, lat, self.rng.normal(size=shape)

    def elevation(self):
        size = 1 / 1200
        for west in (119, 120):
            place = Affine(size, 0, west, 0, -size, 51)
            hills, lat, noise = self.fields(place, (1200, 1200), "EPSG:4326")
            values = (800 + 150 * hills - 200 * (lat - 50) + 3 * noise).astype("float32")
            name = f"Copernicus_DSM_COG_30_N50_00_E{west}_00_DEM"
            write_cog(self.folder / f"dem/{name}.tif", values, place, "EPSG:4326", overviews=(2, 4))
            files = {"data": (f"{self.url}/dem/{name}.tif", {})}
            day = {"datetime": "2021-04-22T00:00:00Z", "gsd": 90}
            self.add(name, "cop-dem-glo-90", "EPSG:4326", place, (1200, 1200), files, **day)

    def scene(self, number, path, zone, day, platform, change):
        crs, shape = f"EPSG:326{zone}", (SIDE, SIDE)
        middle = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(120, 50.16)
        shift, half = (-6000, 4000, 0)[number % 3], SIDE * 15
        corner = [30 * round(v / 30) for v in (middle[0] - half + shift, middle[1] + half)]
        place = Affine(30, 0, corner[0], 0, -30, corner[1])
        hills, _, noise = self.fields(place, shape, crs)
        qa = np.full(shape, CLEAR, np.uint16)
        qa[np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 200] = FILL
        if change == "clouds":
            qa[(hills > 0.6) & (qa == CLEAR)] = CLOUD
        prefix = {"landsat-8": "LC08", "landsat-9": "LC09", "landsat-7": "LE07"}[platform]
        name = f"{prefix}_L2SP_{path}_{day}_{day}_02_T1"
        name = name.replace("122024", f"1220{zone}")
        files = {}
        for asset, band in BANDS.items():
            if change == f"no {asset}":
                continue
            level = {"blue": 8400, "green": 9200, "red": 9800, "nir08": 15_000, "swir16": 12_000}
            values = qa
            if asset != "qa_pixel":
                wave = 500 * hills * (-1 if asset == "red" else 1)
                values = (level[asset] + wave + 40 * noise + 30 * number).astype(np.uint16)
                values[qa == FILL] = 0
            file = f"landsat/{name}/{name}_{band}.TIF"
            if change in ("", "clouds") and platform != "landsat-7":  # nobody asks for the others
                nodata = 0 if asset != "qa_pixel" else None
                write_cog(self.folder / file, values, place, crs, nodata)
            raster = {"spatial_resolution": 30, "data_type": "uint16"}
            files[asset] = (f"{self.url}/{file}", {"raster:bands": [raster]})
        when = f"{day[:4]}-{day[4:6]}-{day[6:]}T02:40:00Z"
        properties = {"datetime": when, "platform": platform}
        properties["eo:cloud_cover"] = 90.0 if change == "overcast" else 12.5
        self.add(name[:-6] + "_02_T1", "landsat-c2-l2", crs, place, shape, files, **properties)

    def surface_temperature(self):
        """Write a composite a month of Terra and of Aqua, without dates, EPSG and nodata."""
        x, y = pyproj.Proj(SINUSOIDAL)(120, 50.16)
        size = MODIS_CELL
        place = Affine(size, 0, round(x / size - 60) * size, 0, -size, round(y / size + 60) * size)
        for month, satellite in itertools.product(range(12), ("MOD", "MYD")):
            first = np.datetime64("2023-01-01") + 8 * (4 * month - month // 6)
            doy = int((first - np.datetime64("2023-01-01")).astype(int)) + 1
            name = f"{satellite}11A2.A2023{doy:03d}.h25v03.061.2023{doy:03d}120000"
            last = first + (25 if month == 11 else 7)  # the last one reaches into the next year
            files = {}
            for asset in ("LST_Day_1km", "QC_Day", "LST_Night_1km", "QC_Night"):
                hills, lat, noise = self.fields(place, (120, 120), SINUSOIDAL)
                warm = 6 if "Day" in asset else -8
                celsius = -2 + warm - 22 * math.cos(2 * math.pi * (month + 0.5) / 12) - 2 * hills
                values = np.rint((celsius + 0.2 * noise - lat + 50 + 273.15) / 0.02)
                values = values.astype(np.uint16)
                values[noise > 2] = 0
                if asset.startswith("QC"):
                    values = np.where(noise > 1.5, 0b11000001, 0).astype(np.uint8)
                file = f"modis/{name}_{asset}.tif"
                write_cog(self.folder / file, values, place, SINUSOIDAL, overviews=())
                raster = {"spatial_resolution": 1000, "data_type": str(values.dtype)}
                files[asset] = (f"{self.url}/{file}", {"raster:bands": [raster]})
            dates = {"datetime": None, "start_datetime": f"{first}T00:00:00Z"}
            dates |= {"end_datetime": f"{last}T23:59:59Z", "platform": ""}
            shape = (120, 120)
            self.add(name, "modis-11A2-061", SINUSOIDAL, place, shape, files, **dates)

    def soil(self):
        """Write virtual rasters that name tiles beside them, as SoilGrids has them."""
        x, y = pyproj.Proj(HOMOLOSINE)(120, 50.16)
        place = Affine(250, 0, 250 * round(x / 250 - 120), 0, -250, 250 * round(y / 250 + 120))
        means = {"sand": 420, "silt": 370, "clay": 210, "soc": 350}
        depths = ("0-5cm", "5-15cm", "15-30cm")
        for (name, mean), (index, depth) in itertools.product(means.items(), enumerate(depths)):
            hills, _, noise = self.fields(place, (240, 240), HOMOLOSINE)
            values = (mean + 60 * hills - 10 * index + noise).astype(np.int16)
            values[:20, :20] = -32768
            stem = f"{name}_{depth}_mean"
            tile = self.folder / f"soil/{name}/{stem}/tile.tif"
            write_cog(tile, values, place, HOMOLOSINE, -32768, overviews=())
            rasterio.shutil.copy(tile, tile.parent.with_suffix(".vrt"), driver="VRT")
            text = tile.parent.with_suffix(".vrt").read_text()
            assert 'relativeToVRT="1"' in text, text

    def categories(self):
        size = 1 / 700  # coarser than half of the fine cells: no overview is read
        place = Affine(size, 0, 119.5, 0, -size, 50.5)
        hills, _, noise = self.fields(place, (420, 700), "EPSG:4326")
        values = np.select([hills > 0.8, hills < -1, noise > 1.8], [10, 80, 50], 30)
        name = "ESA_WorldCover_10m_2021_v200_N50E119"
        file = self.folder / f"cover/{name}_Map.tif"
        write_cog(file, values.astype(np.uint8), place, "EPSG:4326", 0)
        files = {"map": (f"{self.url}/cover/{name}_Map.tif?old=token", {})}
        dates = {"datetime": None, "start_datetime": "2021-01-01T00:00:00Z"}
        dates["end_datetime"] = "2021-12-31T23:59:59Z"
        self.add(name, "esa-worldcover", "EPSG:4326", place, (420, 700), files, **dates)
        depth = (500 + 300 * hills + 5 * noise).astype(np.int32)
        write_cog(self.folder / "bedrock.tif", depth, place, "EPSG:4326", -99999)


def settings(api, url, sign=""):
    """Return the sections of a study that fetches all of it, on 1 km and fine cells of 250 m."""
    years, licence = [2023, 2024], "test"
    period = {"years": years, "licence": licence}
    months = f"{url}/months/{{variable}}?west={{west}}&south={{south}}&east={{east}}"
    months += "&north={north}&first={first}&last={last}"
    landsat = {"collection": "landsat-c2-l2", "months": [6, 7, 8, 9], "cloud": 60, **period}
    landsat["platforms"] = ["landsat-8", "landsat-9"]
    soil = f"{url}/files/soil/{{variable}}/{{variable}}_{{depth}}_mean.vrt"
    cover = {"collection": "esa-worldcover", "assets": ["map"], "years": [2021, 2021]}
    return {
        "area": {"box": BOX},
        "grid": {"resolution": 1000, "fine_resolution": 250, "margin": 5000},
        "source": {
            "kind": "stac",
            "api": api,
            "sign": sign,
            "dem": {"collection": "cop-dem-glo-90", "licence": licence},
            "landsat": landsat,
            "lst": {"collection": "modis-11A2-061", "platforms": ["terra", "aqua"], **period},
            "soil": {"address": soil, "licence": licence},
            "air_temperature": {"address": months, "assets": ["tmax", "tmin"], **period},
            "precipitation": {"address": months, "assets": ["ppt"], **period},
        },
        "predictors": [
            "elevation", "slope", "twi", "ndvi", "ndmi", "lst_mean", "thawing_index",
            "precipitation", "air_frost_number", "clay",
            {
                "name": "land_cover", "kind": "category", "no_ice": [50, 80],
                "file": cover | {"licence": licence},
            },
            {
                "name": "bedrock_depth", "unit": "cm",
                "file": {"address": f"{url}/files/bedrock.tif", "licence": licence},
            },
        ],
    }  # fmt: skip


def as_files(folder, target, scenes):
    """Copy the files that the study needs, as somebody would download them; return `source`."""
    wanted = {"dem": "dem", "lst": "modis"}
    for field, name in wanted.items():
        shutil.copytree(folder / name, target / field)
    for scene in scenes:
        shutil.copytree(folder / "landsat" / scene, target / "landsat" / scene)
    for vrt in (folder / "soil").rglob("*.vrt"):
        (target / "soil").mkdir(exist_ok=True)
        with rasterio.open(vrt) as source:
            rasterio.shutil.copy(source, target / f"soil/{vrt.stem}.tif", driver="GTiff")
    return {
        "kind": "files",
        "dem": str(target / "dem"),
        "landsat": str(target / "landsat"),
        "lst": str(target / "lst"),
        "soil": str(target / "soil"),
    }


if __name__ == "__main__":
    uvicorn.run(FileServer(sys.argv[1]), port=int(sys.argv[2]), log_level="critical")
