"""The virtual landscape: raw rasters in the formats of the real products, on the real base layers.

Real: topography at 5 arc minutes, coast, lakes, monthly temperature and precipitation (ERA5), topsoil (HWSD).
Simulated, each by the law in its function's docstring: relief below 5', land cover, Landsat scenes, surface
temperature. The constants are in `helpers.core.study.Landscape`. Every product draws from a stream of its own, so
that a change of one never shifts another, and gives the same numbers on any number of threads.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, ndtri

from helpers.core.grid import cell_centres, geographic_grid, study_area, warp, write_raster
from helpers.prepare.products import (
    LANDSAT_BANDS,
    LANDSAT_REFLECTANCE,
    MODIS_LST,
    MONTHLY_PRECIPITATION,
    MONTHLY_TEMPERATURE,
    MONTHS,
    QA_BITS,
    SOIL_CARBON,
    SOIL_FRACTION,
    SOIL_LAYERS,
    raw_files,
    scene_days,
)
from testbed.relief import KM_PER_DEGREE, Mesh, fractal_noise, make_relief, refine

PRODUCTS = ("dem", "cover", "landsat", "lst")
"""Products with random draws; the position of a name decides its stream, so new names come last."""


COVER = ("forest", "grass", "crop", "wetland", "burned", "bare", "water")


COVER_COLOURS = ("#1b5e20", "#c5c76a", "#f2b134", "#4fa3a5", "#7b3f00", "#e8d8b0", "#2b5c9e")


QA_LOW_CONFIDENCE = 0b0101010100000000
"""Low confidence of cloud, shadow, snow and cirrus (bits 8-15): what real QA_PIXEL has on all but fill."""


_QA_CONFIDENCE = {
    "cloud": 9,
    "cloud_shadow": 11,
    "snow": 13,
    "cirrus": 15,
}  # the bit that makes low confidence high


_QC_CLOUD, _QC_NOT_PRODUCED = 0b10, 0b11


_OVERPASSES = {"landsat": -27.0, "lst": -15.0}  # hour angle of the sun in degrees: 10:12 and 11:00 solar time


_THREADS = 2


_NOISE_COARSENING = 4


ZERO_CELSIUS = 273.15


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
    import rasterio
    from odc.geo.geobox import GeoBox

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
    climate, mesh = _era5(study, geobox)
    terrain = _terrain(study, elevation, geobox, mesh)
    terrain = {name: np.ascontiguousarray(values[inside]) for name, values in terrain.items()}
    annual = {
        name: _on_cells(mesh, fold(climate[name].to_numpy(), axis=0), inside)
        for name, fold in (("air_temperature", np.mean), ("precipitation", np.sum))
    }
    cover = _cover(study, geobox, inside, terrain, annual)
    return Surface(geobox, inside, **terrain, cover=cover)


def _near(study, geobox):
    """Return which cells are in the study area or near it."""
    import geopandas
    from rasterio.features import geometry_mask

    outline = study_area(study, study.grid.crs).buffer(study.landscape.edge_km * 1000).simplify(500)
    outline = geopandas.GeoSeries([outline], crs=study.grid.crs).to_crs("EPSG:4326")
    return geometry_mask(outline, out_shape=geobox.shape, transform=geobox.transform, invert=True)


def _era5(study, geobox):
    """Return the monthly means on their own grid, and the mesh between it and a finer one."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/era5-monthly-means.nc")) as data:
        climate = data.load()
    return climate, Mesh(geobox, _grid_of(climate))


def _grid_of(data):
    """Return the grid of a dataset by its cell centres, the first row in the north."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    step = round(float(data.longitude[1] - data.longitude[0]), 6)
    west, north = float(data.longitude[0]) - step / 2, float(data.latitude[0]) + step / 2
    return GeoBox(
        (data.sizes["latitude"], data.sizes["longitude"]), Affine(step, 0, west, 0, -step, north), "EPSG:4326"
    )


def _on_cells(mesh, values, inside):
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


def _patches(geobox, rng, kilometres, hurst=0.4):
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


def _fall(values, where):
    return expit((np.float32(where[0]) - values) / np.float32(where[1]))


def _above(share):
    """Return the threshold that this share of a standard normal field exceeds; a float keeps float32."""
    return float(ndtri(1 - share))


def _cover(study, geobox, inside, terrain, annual):
    law, rngs = study.landscape.cover, stream(study, "cover").spawn(6)
    patch = [_patches(geobox, r, law.patch_km)[inside] * np.float32(law.patch_logits) for r in rngs[:4]]
    pond, fire = (_patches(geobox, r, law.patch_km, 0.8)[inside] for r in rngs[4:])
    warmth = annual["air_temperature"] - np.float32(law.lapse_rate / 1000) * terrain["lifted"]
    humidity = annual["precipitation"] / np.maximum(warmth + 10, 3)
    slope = np.degrees(np.arctan(np.hypot(terrain["northward"], terrain["eastward"])))
    flat = _fall(slope, law.wet_slope)
    valley = np.maximum(-terrain["prominence"], 0)
    water = np.maximum(_lakes(study, geobox)[inside], expit(8 * (pond * flat - _above(law.water_share))))
    wetland = flat * (0.15 + 0.85 * valley) * _rise(humidity + 4 * patch[0], law.wet_humidity)
    crop = (
        _rise(warmth + 0.5 * patch[1], law.crop_temperature)
        * _fall(slope, law.crop_slope)
        * _rise(annual["precipitation"], law.crop_precipitation)
        * 0.9
    )
    forest = expit(
        (humidity - law.forest_humidity[0]) / law.forest_humidity[1]
        + law.forest_slope * np.minimum(slope, 4)
        + patch[2]
    )
    burned = expit(6 * (fire - _above(law.burned_share)))
    bare = 0.05 + 0.75 * _fall(humidity + 4 * patch[3], law.bare_humidity)
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
    from rasterio.features import rasterize

    lakes = _layer(study, "lakes")
    sea = 1 - rasterize(_layer(study, "land"), geobox.shape, transform=geobox.transform, dtype="uint8")
    return np.maximum(rasterize(lakes, geobox.shape, transform=geobox.transform, dtype="uint8"), sea).astype(np.float32)


# --- Landsat ------------------------------------------------------------------------------------------------


def _sunlight(surface, day_of_year, hour_angle):
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


def write_landsat(study, surface):
    """Render and write all scenes: five bands of reflectance and QA_PIXEL for each date.

    A cell's reflectance mixes the green and the brown spectrum of its cover classes by the season, which
    comes later in the north and higher up; times the sunlight on its slope; plus noise. Swaths leave tilted
    gaps. Clouds are fractal, with a dilated rim, and a shadow displaced away from the sun; cirrus brightens;
    snow lies on the highest ground of the first and the last date.

    Parameters
    ----------
    study : helpers.core.study.Study
    surface : Surface
        On the grid of the scenes.

    Returns
    -------
    list of pathlib.Path
    """
    rngs = stream(study, "landsat").spawn(len(study.landscape.scene_dates))
    mixtures = [_mixture(study, surface, band) for band in range(len(LANDSAT_BANDS))]
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = [pool.submit(_write_scene, study, surface, mixtures, number, rng) for number, rng in enumerate(rngs)]
        return [path for job in jobs for path in job.result()]


def _mixture(study, surface, band):
    """Return a band's brown reflectance, and what full green adds to it by nature and by crops."""
    law = study.landscape.scenes
    zero = np.zeros_like(surface.elevation)
    brown, nature, crops = zero.copy(), zero.copy(), zero
    for name, share in surface.cover.items():
        low, high = law.brown[name][band], law.green[name][band]
        brown += np.float32(low) * share
        if high != low:
            gain = crops if name == "crop" else nature
            gain += np.float32(high - low) * share
    return brown, nature, crops


def _season(law, day_of_year, latitude, rise, fall):
    start, end = (first + per_degree * (latitude - 45) for first, per_degree in (rise, fall))
    return expit((day_of_year - start) / 8) * expit((end - day_of_year) / 8)


def _write_scene(study, surface, mixtures, number, rng):
    law, files = study.landscape.scenes, raw_files(study)
    date, day = study.landscape.scene_dates[number], scene_days(study)[number]
    sky_rng, *band_rngs = rng.spawn(1 + len(mixtures))
    sky = _sky(study, surface, number, sky_rng)
    day_of_year = date.timetuple().tm_yday
    later = surface.latitude + surface.elevation / np.float32(law.metres_per_degree)
    green = _season(law, day_of_year, later, law.green_up, law.senescence)
    crop_green = _season(law, day_of_year, later, law.crop_green_up, law.crop_senescence)
    sun = (0.2 + 0.8 * _sunlight(surface, day_of_year, _OVERPASSES["landsat"])).clip(0.3, 1.6)
    written = []
    for band, (asset, rng) in enumerate(zip(LANDSAT_BANDS, band_rngs, strict=True)):
        brown, nature, crops = mixtures[band]
        ground = (brown + green * nature + crop_green * crops) * sun
        seen = _through(sky, ground, law, band, rng)
        numbers = surface.image(LANDSAT_REFLECTANCE.encode(seen), 0)
        written.append(
            write_raster(
                files[f"landsat_{day}_{asset}"],
                numbers,
                surface.geobox,
                study=study,
                names=asset,
                units="1",
                long_names=f"Virtual surface reflectance, Landsat 8 {LANDSAT_BANDS[asset]}",
                nodata=LANDSAT_REFLECTANCE.fill,
                scale=LANDSAT_REFLECTANCE.scale,
                offset=LANDSAT_REFLECTANCE.offset,
                tags={"acquired": f"{date}"},
            )
        )
    quality = surface.image(_qa_pixel(sky, surface.cover["water"] > 0.5), 1, np.uint16)
    written.append(
        write_raster(
            files[f"landsat_{day}_qa_pixel"],
            quality,
            surface.geobox,
            study=study,
            names="qa_pixel",
            units="1",
            long_names="Virtual QA_PIXEL, bits as in Landsat Collection 2",
            nodata=1,
            tags={"acquired": f"{date}"},
        )
    )
    return written


def _sky(study, surface, number, rng):
    """Return what the sensor looks through: masks by name of the QA bit, and the clouds' opacity."""
    law, geobox, inside = study.landscape.scenes, surface.geobox, surface.inside
    cloud_rng, cirrus_rng, swath_rng, snow_rng = rng.spawn(4)
    thickness = _patches(geobox, cloud_rng, law.cloud_km, 0.5) - _above(law.cloud_share)
    cloud = thickness > 0
    rim = ndimage.maximum_filter(cloud, 3)
    shift = _shadow_cells(law, geobox)
    shadow = _shifted(cloud, shift)
    veil = _patches(geobox, cirrus_rng, law.cloud_km, 0.8) > _above(law.cirrus_share)
    sky = {
        "fill": _gaps(law, geobox, swath_rng),
        "cloud": cloud,
        "dilated_cloud": rim & ~cloud,
        "cloud_shadow": shadow & ~rim,
        "cirrus": veil & ~rim,
    }
    sky = {name: mask[inside] for name, mask in sky.items()}
    sky["snow"] = _snow(study, surface, number, snow_rng) & ~(sky["cloud"] | sky["dilated_cloud"])
    sky["opacity"] = (0.6 + 0.5 * thickness[inside]).clip(0.6, 1) * sky["cloud"] + 0.15 * sky["dilated_cloud"]
    return sky


def _shadow_cells(law, geobox):
    """Return by how many cells north and east a shadow is moved: by two at least, to come out of the rim."""
    cells = np.asarray(law.shadow_km) / (KM_PER_DEGREE * geobox.transform.a) / (1, 0.69)
    return [int(np.sign(n) * max(2, round(abs(n)))) for n in cells]


def _shifted(mask, shift):
    """Return a mask moved north and east by whole cells, False where nothing moved in."""
    north, east = shift
    moved = np.roll(mask, (-north, east), axis=(0, 1))
    moved[-north or moved.shape[0] :] = False
    if east < 0:
        moved[:, east:] = False
    return moved


def _gaps(law, geobox, rng):
    """Return the cells between swaths, which run from north-north-east to south-south-west."""
    longitude, latitude = (values.astype(np.float32) for values in cell_centres(geobox))
    swath = law.swath_km / KM_PER_DEGREE
    across = (longitude * (0.69 / swath) + rng.random(dtype=np.float32))[None, :] - (latitude * (0.22 / swath))[:, None]
    return across - np.floor(across) > 1 - law.gap_share


def _snow(study, surface, number, rng):
    law, dates = study.landscape.scenes, study.landscape.scene_dates
    if dates[number] not in (min(dates), max(dates)):
        return np.zeros(surface.elevation.shape, bool)
    line = law.snow_line[0] + law.snow_line[1] * (surface.latitude - 42)
    return surface.elevation + 100 * rng.standard_normal(line.shape, np.float32) > line


def _through(sky, ground, law, band, rng):
    """Return the reflectance of a band as the sensor sees it; NaN between the swaths."""
    seen = np.where(sky["snow"], np.float32(law.snow[band]), ground)
    seen = np.where(sky["cloud_shadow"], np.float32(0.4) * seen, seen)
    cloud = np.float32(0.75 if band < 4 else 0.5)
    seen = seen + sky["opacity"] * (cloud - seen) + np.float32(0.03) * sky["cirrus"]
    constant, share = law.noise
    seen += (np.float32(constant) + np.float32(share) * seen) * rng.standard_normal(seen.shape, np.float32)
    seen = seen.clip(0.0, 0.9999)
    seen[sky["fill"]] = np.nan
    return seen


def _qa_pixel(sky, water):
    """Return QA_PIXEL with the bits of the real product: 21824 is clear land, 22280 cloud, 1 fill."""
    quality = np.full(water.shape, QA_LOW_CONFIDENCE, np.uint16)
    for name in ("dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"):
        bits = 1 << QA_BITS[name] | (1 << _QA_CONFIDENCE[name] if name in _QA_CONFIDENCE else 0)
        quality[sky[name]] |= np.uint16(bits)
    quality[~(sky["cloud"] | sky["dilated_cloud"])] |= np.uint16(1 << QA_BITS["clear"])
    quality[water & ~sky["cloud"] & ~sky["snow"]] |= np.uint16(1 << QA_BITS["water"])
    quality[sky["fill"]] = 1 << QA_BITS["fill"]
    return quality


QUALITY_CLASSES = {
    0: ("between swaths", "#ffffff"),
    1: ("clear", "#7fae6b"),
    2: ("water", "#2b5c9e"),
    3: ("snow", "#b3e5fc"),
    4: ("cloud shadow", "#555555"),
    5: ("cirrus", "#d7b5d8"),
    6: ("dilated cloud", "#f5c16c"),
    7: ("cloud", "#d7301f"),
}
"""What a map of QA_PIXEL shows, by code: label and colour."""


def quality_classes(quality):
    """Return the code of `QUALITY_CLASSES` for each QA_PIXEL; of several bits the highest code."""
    codes = np.ones(quality.shape, np.uint8)
    for code, (label, _) in list(QUALITY_CLASSES.items())[2:]:
        codes[(quality >> QA_BITS[label.replace(" ", "_")]) & 1 == 1] = code
    codes[quality & 1 == 1] = 0
    return codes


def quality_table(study, surface):
    """Return the share of each of `QUALITY_CLASSES` in the cells in and near the study area, a row a date."""
    import pandas as pd
    import rasterio

    labels = [label for label, _ in QUALITY_CLASSES.values()]
    rows = {}
    for day in scene_days(study):
        with rasterio.open(raw_files(study)[f"landsat_{day}_qa_pixel"]) as source:
            codes = quality_classes(source.read(1)[surface.inside])
        rows[day] = np.bincount(codes, minlength=len(labels)) / codes.size
    return pd.DataFrame.from_dict(rows, orient="index", columns=labels).rename_axis("date")


# --- land surface temperature -------------------------------------------------------------------------------


def write_lst(study, surface):
    """Make and write monthly land surface temperature by day and by night, with its quality.

    From the real monthly air temperature: the lapse rate of the month to the fine relief; cold air in
    valleys, strongest in winter nights; by day the excess of dry bare ground, less under plants and over
    water, and the sun on the slope; by night the deficit of clear nights; snow cools. Cloudiness correlated
    in space and from month to month decides where a value is missing and how large its error is.

    Parameters
    ----------
    study : helpers.core.study.Study
    surface : Surface
        On the grid of the surface temperature.

    Returns
    -------
    list of pathlib.Path
    """
    climate, mesh = _era5(study, surface.geobox)
    rngs = stream(study, "lst").spawn(1 + len(MONTHS))
    lasting = _cloudiness(study, surface, rngs[0])
    shape = (len(MONTHS), *surface.inside.shape)
    stacks = {name: np.full(shape, 0, np.uint16) for name in ("lst_day", "lst_night")}
    stacks |= {name: np.full(shape, _QC_NOT_PRODUCED, np.uint8) for name in ("qc_day", "qc_night")}

    def fill_month(month):
        air = _on_cells(mesh, climate["air_temperature"][month].to_numpy(), surface.inside)
        for time, rng in zip(("day", "night"), rngs[1 + month].spawn(2), strict=True):
            lst = surface_temperature(study, surface, air, month, time)
            numbers, flags = _observed(study, surface, lst, lasting, month, rng)
            stacks[f"lst_{time}"][month][surface.inside] = numbers
            stacks[f"qc_{time}"][month][surface.inside] = flags

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill_month, range(len(MONTHS))))
        return list(pool.map(lambda name: _write_months(study, surface.geobox, name, stacks[name]), stacks))


def _write_months(study, geobox, name, stack):
    overpass = name.split("_")[1]
    common = {"study": study, "names": [f"{name}_{month:02d}" for month in MONTHS]}
    if name.startswith("qc"):
        return write_raster(
            raw_files(study)[name],
            stack,
            geobox,
            units="1",
            long_names=f"Virtual quality flags, {overpass}, bits as in MOD11",
            **common,
        )
    return write_raster(
        raw_files(study)[name],
        stack,
        geobox,
        units="K",
        nodata=MODIS_LST.fill,
        scale=MODIS_LST.scale,
        long_names=f"Virtual land surface temperature, {overpass}, monthly mean",
        **common,
    )


def surface_for_lst(study, surface):
    """Return the ground on the grid of the surface temperature: the given one, if its grid is the same."""
    same = surface.geobox == landscape_grid(study, study.landscape.lst_arcsec)
    return surface if same else make_surface(study, study.landscape.lst_arcsec)


def surface_temperature(study, surface, air, month, time):
    """Return the true monthly land surface temperature, before clouds and errors.

    Parameters
    ----------
    study : helpers.core.study.Study
    surface : Surface
    air : numpy.ndarray of float32
        Monthly mean air temperature of ERA5 on the cells inside, in degC.
    month : int
        From 0.
    time : {'day', 'night'}

    Returns
    -------
    numpy.ndarray of float32
        In degC.
    """
    law = study.landscape.temperature
    day = time == "day"
    air = air - np.float32(law.lapse_rate[month] / 1000) * surface.lifted
    pool = np.float32(law.cold_pool[month] * (law.cold_pool_day if day else 1))
    relief = pool * np.where(surface.prominence < 0, surface.prominence, np.float32(law.warm_belt) * surface.prominence)
    snow = np.float32(law.snow_cooling) * _fall(air, law.snow_temperature)
    if not day:
        deficit = np.float32(law.night_deficit[month]) * (1 - _weighted(surface.cover, law.night_warming))
        return air + relief - deficit - snow
    excess = np.float32(law.day_excess[month]) * (1 - _weighted(surface.cover, law.day_cooling))
    sun = _sunlight(surface, 30.4 * month + 15, _OVERPASSES["lst"]).clip(0, 2.5) - 1
    return air + relief + excess + np.float32(law.sun[month]) * sun - snow


def _weighted(cover, weights):
    return sum(np.float32(weight) * cover[name] for name, weight in weights.items())


def _cloudiness(study, surface, rng):
    return _patches(surface.geobox, rng, study.landscape.temperature.cloud_km, 0.6)[surface.inside]


def _observed(study, surface, lst, lasting, month, rng):
    """Return digital numbers of surface temperature and of its quality as the sensor gives them."""
    law = study.landscape.temperature
    keep = law.persistence
    cloud_rng, noise_rng = rng.spawn(2)
    cloudy = math.sqrt(keep) * lasting + math.sqrt(1 - keep) * _cloudiness(study, surface, cloud_rng)
    missing = law.cloudy[month]
    limits = ndtri(1 - (missing + np.cumsum([0, *law.poorer])))[::-1].astype(
        np.float32
    )  # errors above 1, 2 and 3 K; missing
    level = np.searchsorted(limits, cloudy).astype(np.uint8)
    noise = np.asarray([*law.noise, np.nan], np.float32)[level]
    numbers = MODIS_LST.encode(
        lst + np.float32(ZERO_CELSIUS) + noise * noise_rng.standard_normal(lst.shape, np.float32)
    )
    flags = np.asarray([0b00000000, 0b01000101, 0b10000101, 0b11000101, _QC_CLOUD], np.uint8)
    return numbers, flags[level]


# --- climate and soil: real layers, encoded -----------------------------------------------------------------


def write_climate(study):
    """Write the real monthly means of ERA5 in the encodings of monthly climate grids; return the paths."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/era5-monthly-means.nc")) as data:
        climate = data.load()
    encodings = {"air_temperature": MONTHLY_TEMPERATURE, "precipitation": MONTHLY_PRECIPITATION}
    return [
        _write_encoded(
            study,
            name,
            climate[name].to_numpy(),
            _grid_of(climate),
            encoding,
            [f"{name}_{month:02d}" for month in MONTHS],
            climate[name].attrs.get("long_name", name),
        )
        for name, encoding in encodings.items()
    ]


def write_soil(study):
    """Write the real topsoil of HWSD in SoilGrids' encodings, missing where HWSD is; return the paths."""
    import xarray as xr

    with xr.open_dataset(study.path("data/base/hwsd-topsoil.nc")) as data:
        soil = data.load()
    written = []
    for name in SOIL_LAYERS:
        values = soil["organic_carbon" if name == "soc" else name]
        encoding = SOIL_CARBON if name == "soc" else SOIL_FRACTION
        written.append(
            _write_encoded(
                study,
                name,
                values.to_numpy(),
                _grid_of(soil),
                encoding,
                name,
                values.attrs.get("long_name", name),
            )
        )
    return written


def _write_encoded(study, name, values, geobox, encoding, names, long_name):
    return write_raster(
        raw_files(study)[name],
        encoding.encode(values),
        geobox,
        study=study,
        names=names,
        units=encoding.unit,
        long_names=long_name,
        nodata=encoding.fill,
        scale=encoding.scale,
        offset=encoding.offset,
    )


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
    import pandas as pd
    import rasterio

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
