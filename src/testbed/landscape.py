"""The virtual landscape: raw rasters in the formats of the real products, on the real base layers.

Real: topography at 5 arc minutes, coast, lakes, monthly temperature and precipitation (ERA5),
topsoil (HWSD). Simulated, each by the law in its function's docstring: relief below 5', land cover,
Landsat scenes, surface temperature. The constants are in `testbed.settings.VirtualSource`. Every
product has a stream of random numbers of its own, so that a change of one never shifts another, and
it is the same on any number of threads.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask, rasterize
from scipy import ndimage
from scipy.special import expit, ndtri
from shapely.geometry.base import BaseGeometry

from helpers.core.grid import cell_centres, geographic_grid, study_area
from helpers.core.rasters import write_raster
from helpers.core.warp import warp
from helpers.prepare.climate import ERA5_MEANS
from helpers.prepare.products import raw_files
from testbed.relief import KM_PER_DEGREE, Mesh, fractal_noise, make_relief, refine
from testbed.settings import VirtualStudy

PRODUCTS = ("dem", "cover", "landsat", "lst")
"""Products with random draws; the position of a name decides its stream, so new names come last."""

COVER = ("forest", "grass", "crop", "wetland", "burned", "bare", "water")

COVER_COLOURS = ("#1b5e20", "#c5c76a", "#f2b134", "#4fa3a5", "#7b3f00", "#e8d8b0", "#2b5c9e")

OVERPASSES = {"landsat": -27.0, "lst": -15.0}
"""Hour angle of the sun in degrees: 10:12 and 11:00 solar time."""

THREADS = 2

_NOISE_HALVINGS = 2  # of the resolution of a large noise field


def stream(study: VirtualStudy, product: str) -> np.random.Generator:
    """Return the random generator of one of `PRODUCTS`: its numbered child of the study's seed."""
    seed = np.random.SeedSequence(study.source.seed, spawn_key=(PRODUCTS.index(product),))
    return np.random.default_rng(seed)


def landscape_grid(study: VirtualStudy, arcsec: float) -> GeoBox:
    """Return the longitude-latitude grid of the study area with the landscape's margin around."""
    west, south, east, north = study_area(study).bounds
    margin = study.source.margin_degrees
    return geographic_grid((west - margin, south - margin, east + margin, north + margin), arcsec)


def write_dem(study: VirtualStudy) -> Path:
    """Make the virtual elevation of the study area and its margin, and write it."""
    geobox = landscape_grid(study, study.source.dem_arcsec)
    with rasterio.open(study.path("data/base/topography.tif")) as source:
        topography = source.read(1).astype(np.float32)
        coarse = GeoBox(topography.shape, source.transform, source.crs.to_wkt())
    rng = stream(study, "dem")
    land = _layer(study, "land")
    elevation = make_relief(topography, coarse, geobox, land, study.source.relief, rng)
    return write_raster(
        raw_files(study)["dem"],
        elevation,
        geobox,
        study=study,
        names="elevation",
        units="m",
        long_names="Virtual elevation: real topography at 5', simulated relief below",
    )


def _layer(study: VirtualStudy, name: str) -> list[BaseGeometry]:
    import geopandas

    return geopandas.read_file(
        study.path("data/base/natural-earth.gpkg"), layer=name
    ).geometry.tolist()


# The ground that Landsat and MODIS look at --------------------------------------------------------


@dataclass(frozen=True)
class Surface:
    """Terrain and land cover in and near the study area, float32 vectors over the cells inside.

    Parameters
    ----------
    inside : shape (y, x)
        Cells within the landscape's `edge_km` of the study area.
    latitude, elevation
        Degrees; m.
    lifted
        Height above the ground that ERA5 has, means of 0.25 degrees, in m.
    northward, eastward
        Gradient of elevation.
    prominence
        Height above (negative: below) the mean of the ground around, as a share of `valley_depth`,
        squeezed into -1 to 1.
    cover
        Share of each class of `COVER` in a cell; they sum to 1.
    """

    geobox: GeoBox
    inside: np.ndarray
    latitude: np.ndarray
    elevation: np.ndarray
    lifted: np.ndarray
    northward: np.ndarray
    eastward: np.ndarray
    prominence: np.ndarray
    cover: dict[str, np.ndarray]

    def image(
        self, values: np.ndarray, outside: float = np.nan, dtype: npt.DTypeLike = None
    ) -> np.ndarray:
        """Return a vector over the cells inside as an image."""
        picture = np.full(self.inside.shape, outside, dtype or values.dtype)
        picture[self.inside] = values
        return picture


def make_surface(study: VirtualStudy, arcsec: float | None = None) -> Surface:
    """Return terrain and land cover on the grid of Landsat, or on another one; needs the DEM.

    Land cover follows climate (temperature lowered to the fine relief, de Martonne's humidity
    index), slope and valley position through logistic curves, with patches of fractal noise: forest
    where it is humid or steep, crops on warm plains, wetland on floors of humid valleys, sand and
    bare soil where it is dry, water in real lakes and in a few hollows of flat ground, burned
    forest in patches.
    """
    geobox = landscape_grid(study, arcsec or study.source.landsat_arcsec)
    inside = _near(study, geobox)
    elevation = warp(raw_files(study)["dem"], geobox, "average")
    climate, mesh = era5_layer(study, geobox)
    terrain = _terrain(study, elevation, geobox, mesh)
    terrain = {name: np.ascontiguousarray(values[inside]) for name, values in terrain.items()}
    annual = {
        "air_temperature": climate["air_temperature"].to_numpy().mean(axis=0),
        "precipitation": climate["precipitation"].to_numpy().sum(axis=0),
    }
    annual = {name: on_cells(mesh, values, inside) for name, values in annual.items()}
    cover = _cover(study, geobox, inside, terrain, annual)
    return Surface(geobox, inside, **terrain, cover=cover)


def _near(study: VirtualStudy, geobox: GeoBox) -> np.ndarray:
    """Return which cells are in the study area or near it."""
    import geopandas

    outline = study_area(study, study.grid.crs).buffer(study.source.edge_km * 1000)
    outline = geopandas.GeoSeries([outline.simplify(500)], crs=study.grid.crs).to_crs("EPSG:4326")
    return geometry_mask(outline, out_shape=geobox.shape, transform=geobox.transform, invert=True)


def era5_layer(study: VirtualStudy, geobox: GeoBox) -> tuple[xr.Dataset, Mesh]:
    """Return the monthly means on their own grid, and the mesh between it and a finer one."""
    climate = xr.load_dataset(study.path(ERA5_MEANS))
    return climate, Mesh(geobox, grid_of(climate))


def grid_of(data: xr.Dataset | xr.DataArray) -> GeoBox:
    """Return the grid of data by its cell centres, the first row in the north."""
    step = round(float(data.longitude[1] - data.longitude[0]), 6)
    west = float(data.longitude[0]) - step / 2
    north = float(data.latitude[0]) + step / 2
    shape = (data.sizes["latitude"], data.sizes["longitude"])
    return GeoBox(shape, Affine(step, 0, west, 0, -step, north), "EPSG:4326")


def on_cells(mesh: Mesh, values: npt.ArrayLike, inside: np.ndarray) -> np.ndarray:
    """Return values of a mesh at the cells of the study area."""
    return np.ascontiguousarray(mesh.spread(np.asarray(values, np.float32))[inside])


def _terrain(
    study: VirtualStudy, elevation: np.ndarray, geobox: GeoBox, mesh: Mesh
) -> dict[str, np.ndarray]:
    """Return the terrain fields of a `Surface` as images."""
    cover = study.source.cover
    latitude = cell_centres(geobox)[1].astype(np.float32)[:, None]
    north_m = np.float32(geobox.transform.a * KM_PER_DEGREE * 1000)
    east_m = north_m * np.cos(np.radians(latitude))
    window = [max(3, round(cover.valley_window / float(m))) for m in (north_m, east_m.mean())]
    prominence = elevation - ndimage.uniform_filter(elevation, window)
    era5_height = np.nan_to_num(mesh.mean(elevation))
    return {
        "latitude": np.broadcast_to(latitude, elevation.shape),
        "elevation": elevation,
        "lifted": elevation - mesh.spread(era5_height),
        "northward": -np.gradient(elevation, north_m, axis=0),
        "eastward": np.gradient(elevation, axis=1) / east_m,
        "prominence": np.tanh(prominence / np.float32(cover.valley_depth)),
    }


def patches(
    geobox: GeoBox, rng: np.random.Generator, kilometres: float, hurst: float = 0.4
) -> np.ndarray:
    """Return a fractal field of mean 0 and standard deviation 1; a large one is made coarser."""
    halvings = _NOISE_HALVINGS if min(geobox.shape) > 1000 else 0
    shape = [-(-n // 2**halvings) for n in geobox.shape]
    longest = kilometres / (KM_PER_DEGREE * geobox.transform.a * 2**halvings)
    field = fractal_noise(shape, rng, hurst, max(longest, 4.0), 0.69)
    for _ in range(halvings):
        field = refine(field)
    return field[: geobox.shape[0], : geobox.shape[1]]


def _rising(values: np.ndarray, where: tuple[float, float]) -> np.ndarray:
    """Return a logistic curve with 1/2 at the first of `where`; the second is its softness."""
    return expit((values - np.float32(where[0])) / np.float32(where[1]))


def falling(values: np.ndarray, where: tuple[float, float]) -> np.ndarray:
    """Return a logistic curve that falls from 1 to 0, as `_rising` rises."""
    return expit((np.float32(where[0]) - values) / np.float32(where[1]))


def above_share(share: float) -> float:
    """Return the threshold that this share of a standard normal field exceeds."""
    return float(ndtri(1 - share))  # a float keeps float32


def _cover(
    study: VirtualStudy,
    geobox: GeoBox,
    inside: np.ndarray,
    terrain: dict[str, np.ndarray],
    annual: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the share of each class: each takes its part of what the classes before it left."""
    law = study.source.cover
    rngs = stream(study, "cover").spawn(6)
    logits = np.float32(law.patch_logits)
    patch = [patches(geobox, rng, law.patch_km)[inside] * logits for rng in rngs[:4]]
    pond, fire = (patches(geobox, rng, law.patch_km, 0.8)[inside] for rng in rngs[4:])
    warmth = annual["air_temperature"] - np.float32(law.lapse_rate / 1000) * terrain["lifted"]
    humidity = annual["precipitation"] / np.maximum(warmth + 10, 3)
    slope = np.degrees(np.arctan(np.hypot(terrain["northward"], terrain["eastward"])))
    flat = falling(slope, law.wet_slope)
    valley = np.maximum(-terrain["prominence"], 0)
    ponds = expit(8 * (pond * flat - above_share(law.water_share)))
    wet = _rising(humidity + 4 * patch[0], law.wet_humidity)
    warm = _rising(warmth + 0.5 * patch[1], law.crop_temperature)
    level = falling(slope, law.crop_slope)
    rainy = _rising(annual["precipitation"], law.crop_precipitation)
    half, softness = law.forest_humidity
    wooded = (humidity - half) / softness + law.forest_slope * np.minimum(slope, 4) + patch[2]
    shares = {
        "water": np.maximum(_lakes(study, geobox)[inside], ponds),
        "wetland": flat * (0.15 + 0.85 * valley) * wet,
        "crop": warm * level * rainy * 0.9,
        "wood": expit(wooded),
        "bare": 0.05 + 0.75 * falling(humidity + 4 * patch[3], law.bare_humidity),
    }
    left = np.float32(1)
    cover = {}
    for name, share in shares.items():
        cover[name] = (left * share).astype(np.float32)
        left = left - cover[name]
    burned = expit(6 * (fire - above_share(law.burned_share)))
    wood = cover.pop("wood")
    cover |= {"forest": wood * (1 - burned), "burned": wood * burned, "grass": left}
    return {name: cover[name].astype(np.float32) for name in COVER}


def _lakes(study: VirtualStudy, geobox: GeoBox) -> np.ndarray:
    """Return 1 in lakes and in the sea, 0 elsewhere."""
    lakes, land = (
        rasterize(_layer(study, name), geobox.shape, transform=geobox.transform, dtype="uint8")
        for name in ("lakes", "land")
    )
    return np.maximum(lakes, 1 - land).astype(np.float32)


def sunlight(surface: Surface, day_of_year: float, hour_angle: float) -> np.ndarray:
    """Return the direct sun on the slope over that on flat ground; 0 in its own shade.

    By the law of cosines, with `hour_angle` in degrees.
    """
    declination = math.radians(23.44) * math.sin(2 * math.pi * (day_of_year - 81) / 365.25)
    hour = math.radians(hour_angle)
    latitude = np.radians(surface.latitude)
    sine = np.sin(latitude)
    cosine = np.cos(latitude)
    sunny = math.sin(declination)
    level = math.cos(declination) * math.cos(hour)
    up = sine * sunny + cosine * level
    north = cosine * sunny - sine * level
    east = -math.cos(declination) * math.sin(hour)
    steep = np.sqrt(1 + surface.northward**2 + surface.eastward**2)
    facing = up - north * surface.northward - east * surface.eastward
    return np.maximum(facing, 0) / (steep * np.maximum(up, np.float32(0.1)))
