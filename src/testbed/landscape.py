"""The virtual landscape: raw rasters in the formats of the real products, on the real base layers.

Real: topography at 5 arc minutes, coast, lakes, monthly temperature and precipitation (ERA5), topsoil (HWSD).
Simulated, each by the law in its function's docstring: relief below 5', land cover, Landsat scenes, surface
temperature. The constants are in `testbed.settings.Landscape`. Every product draws from a stream of its own, so
that a change of one never shifts another, and gives the same numbers on any number of threads.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask, rasterize
from scipy import ndimage
from scipy.special import expit, ndtri

from helpers.core.grid import cell_centres, geographic_grid, study_area
from helpers.core.rasters import warp, write_raster
from helpers.prepare.products import raw_files
from testbed.relief import KM_PER_DEGREE, Mesh, fractal_noise, make_relief, refine

PRODUCTS = ("dem", "cover", "landsat", "lst")
"""Products with random draws; the position of a name decides its stream, so new names come last."""


COVER = ("forest", "grass", "crop", "wetland", "burned", "bare", "water")


COVER_COLOURS = ("#1b5e20", "#c5c76a", "#f2b134", "#4fa3a5", "#7b3f00", "#e8d8b0", "#2b5c9e")


OVERPASSES = {"landsat": -27.0, "lst": -15.0}  # hour angle of the sun in degrees: 10:12 and 11:00 solar time


THREADS = 2


_NOISE_COARSENING = 4


def stream(study, product):
    """Return the random generator of a product: the child of the study's seed that has the product's number.

    Parameters
    ----------
    study : helpers.core.study.Study
    product : str
        One of `PRODUCTS`.

    Returns
    -------
    numpy.random.Generator
    """
    seed = np.random.SeedSequence(study.landscape.seed, spawn_key=(PRODUCTS.index(product),))
    return np.random.default_rng(seed)


def landscape_grid(study, arcsec):
    """Return the longitude-latitude grid of the study area with the landscape's margin around it."""
    west, south, east, north = study_area(study).bounds
    margin = study.landscape.margin_degrees
    return geographic_grid((west - margin, south - margin, east + margin, north + margin), arcsec)


# --- elevation ----------------------------------------------------------------------------------------------


def make_dem(study, rng):
    """Return the virtual elevation of the study area and its margin.

    Parameters
    ----------
    study : helpers.core.study.Study
    rng : numpy.random.Generator

    Returns
    -------
    elevation : numpy.ndarray of float32, shape (latitude, longitude)
        In m, see `testbed.relief`.
    geobox : odc.geo.geobox.GeoBox
    """
    geobox = landscape_grid(study, study.landscape.dem_arcsec)
    with rasterio.open(study.path("data/base/topography.tif")) as source:
        topography = source.read(1).astype(np.float32)
        coarse = GeoBox(topography.shape, source.transform, source.crs.to_wkt())
    return make_relief(topography, coarse, geobox, _layer(study, "land"), study.landscape.relief, rng), geobox


def write_dem(study):
    """Make and write the elevation; return its path."""
    elevation, geobox = make_dem(study, stream(study, "dem"))
    return write_raster(
        raw_files(study)["dem"],
        elevation,
        geobox,
        study=study,
        names="elevation",
        units="m",
        long_names="Virtual elevation: real topography at 5', simulated relief below",
    )


def _layer(study, name):
    import geopandas

    return geopandas.read_file(study.path("data/base/natural-earth.gpkg"), layer=name).geometry.tolist()


# --- the ground that Landsat and MODIS look at --------------------------------------------------------------


@dataclass(frozen=True)
class Surface:
    """Terrain and land cover in and near the study area, as vectors over the cells inside.

    Parameters
    ----------
    geobox : odc.geo.geobox.GeoBox
    inside : numpy.ndarray of bool, shape (y, x)
        Cells within the landscape's `edge_km` of the study area.
    latitude, elevation : numpy.ndarray of float32, shape (inside cells,)
        Degrees; m.
    lifted : numpy.ndarray of float32
        Height above the ground that ERA5 sees, means of 0.25 degrees, in m.
    northward, eastward : numpy.ndarray of float32
        Gradient of elevation.
    prominence : numpy.ndarray of float32
        Height above (negative: below) the mean of the ground around, as a share of `valley_depth`, squeezed
        into -1 to 1.
    cover : dict of str to numpy.ndarray of float32
        Share of each class of `COVER` in a cell; they sum to 1.
    """

    geobox: object
    inside: np.ndarray
    latitude: np.ndarray
    elevation: np.ndarray
    lifted: np.ndarray
    northward: np.ndarray
    eastward: np.ndarray
    prominence: np.ndarray
    cover: dict

    def image(self, values, outside=np.nan, dtype=None):
        """Return a vector over the cells inside as an image."""
        picture = np.full(self.inside.shape, outside, dtype or values.dtype)
        picture[self.inside] = values
        return picture

    @property
    def valley(self):
        """0 on slopes and ridges, towards 1 on valley floors."""
        return np.maximum(-self.prominence, 0)


def make_surface(study, arcsec=None):
    """Return terrain and land cover on the grid of Landsat, or on another one.

    Land cover follows climate (temperature lowered to the fine relief, de Martonne's humidity index), slope
    and valley position through logistic curves, with patches of fractal noise: forest where it is humid or
    steep, crops on warm plains, wetland on floors of humid valleys, sand and bare soil where it is dry, water
    in real lakes and in a few hollows of flat ground, burned forest in patches.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its DEM must have been written.
    arcsec : float, optional
        Cell size in seconds of arc; by default that of the Landsat scenes.

    Returns
    -------
    Surface
    """
    geobox = landscape_grid(study, arcsec or study.landscape.landsat_arcsec)
    inside = _near(study, geobox)
    elevation = warp(raw_files(study)["dem"], geobox, "average")
    climate, mesh = era5_layer(study, geobox)
    terrain = _terrain(study, elevation, geobox, mesh)
    terrain = {name: np.ascontiguousarray(values[inside]) for name, values in terrain.items()}
    annual = {
        name: on_cells(mesh, fold(climate[name].to_numpy(), axis=0), inside)
        for name, fold in (("air_temperature", np.mean), ("precipitation", np.sum))
    }
    cover = _cover(study, geobox, inside, terrain, annual)
    return Surface(geobox, inside, **terrain, cover=cover)


def _near(study, geobox):
    """Return which cells are in the study area or near it."""
    import geopandas

    outline = study_area(study, study.grid.crs).buffer(study.landscape.edge_km * 1000).simplify(500)
    outline = geopandas.GeoSeries([outline], crs=study.grid.crs).to_crs("EPSG:4326")
    return geometry_mask(outline, out_shape=geobox.shape, transform=geobox.transform, invert=True)


def era5_layer(study, geobox):
    """Return the monthly means on their own grid, and the mesh between it and a finer one."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/era5-monthly-means.nc")) as data:
        climate = data.load()
    return climate, Mesh(geobox, grid_of(climate))


def grid_of(data):
    """Return the grid of a dataset by its cell centres, the first row in the north."""
    step = round(float(data.longitude[1] - data.longitude[0]), 6)
    west, north = float(data.longitude[0]) - step / 2, float(data.latitude[0]) + step / 2
    return GeoBox(
        (data.sizes["latitude"], data.sizes["longitude"]), Affine(step, 0, west, 0, -step, north), "EPSG:4326"
    )


def on_cells(mesh, values, inside):
    """Return values of a mesh at the cells of the study area."""
    return np.ascontiguousarray(mesh.spread(np.asarray(values, np.float32))[inside])


def _terrain(study, elevation, geobox, mesh):
    """Return the terrain fields of a `Surface` as images."""
    cover = study.landscape.cover
    latitude = cell_centres(geobox)[1].astype(np.float32)[:, None]
    north_m = np.float32(geobox.transform.a * KM_PER_DEGREE * 1000)
    east_m = north_m * np.cos(np.radians(latitude))
    window = [max(3, round(cover.valley_window / float(m))) for m in (north_m, east_m.mean())]
    prominence = elevation - ndimage.uniform_filter(elevation, window)
    seen = np.nan_to_num(mesh.mean(elevation))
    return {
        "latitude": np.broadcast_to(latitude, elevation.shape),
        "elevation": elevation,
        "lifted": elevation - mesh.spread(seen),
        "northward": -np.gradient(elevation, north_m, axis=0),
        "eastward": np.gradient(elevation, axis=1) / east_m,
        "prominence": np.tanh(prominence / np.float32(cover.valley_depth)),
    }


def patches(geobox, rng, kilometres, hurst=0.4):
    """Return a fractal field of mean 0 and standard deviation 1; a large one is made on a coarser grid."""
    halvings = round(np.log2(_NOISE_COARSENING)) if min(geobox.shape) > 1000 else 0
    shape = [-(-n // 2**halvings) for n in geobox.shape]
    longest = kilometres / (KM_PER_DEGREE * geobox.transform.a * 2**halvings)
    field = fractal_noise(shape, rng, hurst, max(longest, 4.0), 0.69)
    for _ in range(halvings):
        field = refine(field)
    return field[: geobox.shape[0], : geobox.shape[1]]


def _rise(values, where):
    """Return a logistic curve that reaches 1/2 at the first number of `where`; the second is its softness."""
    return expit((values - np.float32(where[0])) / np.float32(where[1]))


def falling(values, where):
    """Return a logistic curve that falls from 1 to 0 around a value."""
    return expit((np.float32(where[0]) - values) / np.float32(where[1]))


def above_share(share):
    """Return the threshold that this share of a standard normal field exceeds; a float keeps float32."""
    return float(ndtri(1 - share))


def _cover(study, geobox, inside, terrain, annual):
    law, rngs = study.landscape.cover, stream(study, "cover").spawn(6)
    patch = [patches(geobox, r, law.patch_km)[inside] * np.float32(law.patch_logits) for r in rngs[:4]]
    pond, fire = (patches(geobox, r, law.patch_km, 0.8)[inside] for r in rngs[4:])
    warmth = annual["air_temperature"] - np.float32(law.lapse_rate / 1000) * terrain["lifted"]
    humidity = annual["precipitation"] / np.maximum(warmth + 10, 3)
    slope = np.degrees(np.arctan(np.hypot(terrain["northward"], terrain["eastward"])))
    flat = falling(slope, law.wet_slope)
    valley = np.maximum(-terrain["prominence"], 0)
    water = np.maximum(_lakes(study, geobox)[inside], expit(8 * (pond * flat - above_share(law.water_share))))
    wetland = flat * (0.15 + 0.85 * valley) * _rise(humidity + 4 * patch[0], law.wet_humidity)
    crop = (
        _rise(warmth + 0.5 * patch[1], law.crop_temperature)
        * falling(slope, law.crop_slope)
        * _rise(annual["precipitation"], law.crop_precipitation)
        * 0.9
    )
    forest = expit(
        (humidity - law.forest_humidity[0]) / law.forest_humidity[1]
        + law.forest_slope * np.minimum(slope, 4)
        + patch[2]
    )
    burned = expit(6 * (fire - above_share(law.burned_share)))
    bare = 0.05 + 0.75 * falling(humidity + 4 * patch[3], law.bare_humidity)
    return _shares(water, wetland, crop, forest, burned, bare)


def _shares(water, wetland, crop, forest, burned, bare):
    """Let the classes take their shares of what those before them left."""
    left, cover = np.float32(1), {}
    for name, share in (
        ("water", water),
        ("wetland", wetland),
        ("crop", crop),
        ("wood", forest),
        ("bare", bare),
    ):
        cover[name] = (left * share).astype(np.float32)
        left = left - cover[name]
    wood = cover.pop("wood")
    cover |= {"forest": wood * (1 - burned), "burned": wood * burned, "grass": left}
    return {name: cover[name].astype(np.float32) for name in COVER}


def _lakes(study, geobox):
    lakes = _layer(study, "lakes")
    sea = 1 - rasterize(_layer(study, "land"), geobox.shape, transform=geobox.transform, dtype="uint8")
    return np.maximum(rasterize(lakes, geobox.shape, transform=geobox.transform, dtype="uint8"), sea).astype(np.float32)


# --- Landsat ------------------------------------------------------------------------------------------------


def sunlight(surface, day_of_year, hour_angle):
    """Return the direct sun on the slope over that on flat ground, by the law of cosines; 0 in own shade."""
    declination = math.radians(23.44) * math.sin(2 * math.pi * (day_of_year - 81) / 365.25)
    hour, latitude = math.radians(hour_angle), np.radians(surface.latitude)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    sunny, level = math.sin(declination), math.cos(declination) * math.cos(hour)
    up, north, east = (
        sine * sunny + cosine * level,
        cosine * sunny - sine * level,
        -math.cos(declination) * math.sin(hour),
    )
    steep = np.sqrt(1 + surface.northward**2 + surface.eastward**2)
    facing = up - north * surface.northward - east * surface.eastward
    return np.maximum(facing, 0) / (steep * np.maximum(up, np.float32(0.1)))


# --- all of it ----------------------------------------------------------------------------------------------


def file_table(study):
    """Return what the raw folder holds.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    pandas.DataFrame
        A row a file: name, path within the raw folder, bands, type, unit, scale, offset, cell size in seconds
        of arc, size in MB, and whether its tags say SIMULATED.
    """
    rows = []
    for name, path in raw_files(study).items():
        with rasterio.open(path) as source:
            rows.append(
                {
                    "name": name,
                    "file": path.relative_to(study.raw_dir).as_posix(),
                    "bands": source.count,
                    "type": source.dtypes[0],
                    "unit": source.units[0],
                    "scale": source.scales[0],
                    "offset": source.offsets[0],
                    "arcsec": round(source.transform.a * 3600, 3),
                    "MB": round(path.stat().st_size / 1e6, 2),
                    "simulated": "SIMULATED" in source.tags(),
                }
            )
    return pd.DataFrame(rows).set_index("name")
