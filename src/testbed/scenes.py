"""Virtual Landsat scenes with clouds, shadow, snow and gaps."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox
from scipy import ndimage
from scipy.special import expit

from helpers.core.grid import cell_centres
from helpers.core.rasters import write_raster
from helpers.prepare.products import (
    LANDSAT_BANDS,
    LANDSAT_REFLECTANCE,
    QA_BITS,
    raw_files,
    scene_days,
)
from testbed.landscape import OVERPASSES, THREADS, Surface, above_share, patches, stream, sunlight
from testbed.relief import KM_PER_DEGREE
from testbed.settings import Scenes, VirtualStudy

QA_LOW_CONFIDENCE = 0b0101010100000000
"""Low confidence of cloud, shadow, snow and cirrus (bits 8-15): what real QA_PIXEL has on all but
fill."""

# The bit that makes low confidence high.
_QA_CONFIDENCE = {"cloud": 9, "cloud_shadow": 11, "snow": 13, "cirrus": 15}


_Mixture = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A band's brown reflectance, and what full green adds to it by nature and by crops."""

_Sky = tuple[dict[str, np.ndarray], np.ndarray]
"""What the sensor looks through: masks by name of the QA bit, and the opacity of clouds."""


def write_landsat(study: VirtualStudy, surface: Surface) -> list[Path]:
    """Render and write all scenes: five bands of reflectance and QA_PIXEL for each date.

    A cell's reflectance mixes the green and the brown spectrum of its cover classes by the season,
    which comes later in the north and higher up; times the sunlight on its slope; plus noise.
    Swaths leave tilted gaps. Clouds are fractal, with a dilated rim, and a shadow displaced away
    from the sun; cirrus brightens; snow lies on the highest ground of the first and the last date.
    """
    rngs = stream(study, "landsat").spawn(len(study.source.scene_dates))
    mixtures = [_mixture(study, surface, band) for band in range(len(LANDSAT_BANDS))]
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [
            pool.submit(_write_scene, study, surface, mixtures, number, rng)
            for number, rng in enumerate(rngs)
        ]
        return [path for job in jobs for path in job.result()]


def _mixture(study: VirtualStudy, surface: Surface, band: int) -> _Mixture:
    law = study.source.scenes
    brown, nature, crops = (np.zeros_like(surface.elevation) for _ in range(3))
    for name, share in surface.cover.items():
        low = law.brown[name][band]
        high = law.green[name][band]
        brown += np.float32(low) * share
        gain = crops if name == "crop" else nature
        gain += np.float32(high - low) * share
    return brown, nature, crops


def _season(
    day_of_year: int,
    latitude: np.ndarray,
    green_up: tuple[float, float],
    senescence: tuple[float, float],
) -> np.ndarray:
    """Return how green nature or crops are, 0-1."""
    start, end = (day + per_degree * (latitude - 45) for day, per_degree in (green_up, senescence))
    return expit((day_of_year - start) / 8) * expit((end - day_of_year) / 8)


def _write_scene(
    study: VirtualStudy,
    surface: Surface,
    mixtures: list[_Mixture],
    number: int,
    rng: np.random.Generator,
) -> list[Path]:
    law = study.source.scenes
    files = raw_files(study)
    date = study.source.scene_dates[number]
    day = scene_days(study)[number]
    sky_rng, *band_rngs = rng.spawn(1 + len(mixtures))
    sky = _sky(study, surface, number, sky_rng)
    day_of_year = date.timetuple().tm_yday
    latitude = surface.latitude + surface.elevation / np.float32(law.metres_per_degree)
    green = _season(day_of_year, latitude, law.green_up, law.senescence)
    crop_green = _season(day_of_year, latitude, law.crop_green_up, law.crop_senescence)
    sun = (0.2 + 0.8 * sunlight(surface, day_of_year, OVERPASSES["landsat"])).clip(0.3, 1.6)
    common = {"study": study, "units": "1", "tags": {"acquired": f"{date}"}}
    written = []
    for band, (asset, band_rng) in enumerate(zip(LANDSAT_BANDS, band_rngs, strict=True)):
        brown, nature, crops = mixtures[band]
        ground = (brown + green * nature + crop_green * crops) * sun
        reflectance = _through(sky, ground, law, band, band_rng)
        path = write_raster(
            files[f"landsat_{day}_{asset}"],
            surface.image(LANDSAT_REFLECTANCE.encode(reflectance), 0),
            surface.geobox,
            names=asset,
            long_names=f"Virtual surface reflectance, Landsat 8 {LANDSAT_BANDS[asset]}",
            nodata=LANDSAT_REFLECTANCE.fill,
            scale=LANDSAT_REFLECTANCE.scale,
            offset=LANDSAT_REFLECTANCE.offset,
            **common,
        )
        written.append(path)
    quality = _qa_pixel(sky[0], surface.cover["water"] > 0.5)
    path = write_raster(
        files[f"landsat_{day}_qa_pixel"],
        surface.image(quality, 1, np.uint16),
        surface.geobox,
        names="qa_pixel",
        long_names="Virtual QA_PIXEL, bits as in Landsat Collection 2",
        nodata=1,
        **common,
    )
    return [*written, path]


def _sky(study: VirtualStudy, surface: Surface, number: int, rng: np.random.Generator) -> _Sky:
    law = study.source.scenes
    geobox = surface.geobox
    cloud_rng, cirrus_rng, swath_rng, snow_rng = rng.spawn(4)
    thickness = patches(geobox, cloud_rng, law.cloud_km, 0.5) - above_share(law.cloud_share)
    cloud = thickness > 0
    rim = ndimage.maximum_filter(cloud, 3)
    veil = patches(geobox, cirrus_rng, law.cloud_km, 0.8) > above_share(law.cirrus_share)
    images = {
        "fill": _gaps(law, geobox, swath_rng),
        "cloud": cloud,
        "dilated_cloud": rim & ~cloud,
        "cloud_shadow": _shadow(cloud, law, geobox) & ~rim,
        "cirrus": veil & ~rim,
    }
    masks = {name: mask[surface.inside] for name, mask in images.items()}
    clear = ~(masks["cloud"] | masks["dilated_cloud"])
    masks["snow"] = _snow(study, surface, number, snow_rng) & clear
    opacity = (0.6 + 0.5 * thickness[surface.inside]).clip(0.6, 1) * masks["cloud"]
    return masks, opacity + 0.15 * masks["dilated_cloud"]


def _shadow(cloud: np.ndarray, law: Scenes, geobox: GeoBox) -> np.ndarray:
    """Return the clouds moved away from the sun, by two cells at least, to come out of the rim."""
    cells = np.asarray(law.shadow_km) / (KM_PER_DEGREE * geobox.transform.a) / (1, 0.69)
    north, east = (int(np.sign(n) * max(2, round(abs(n)))) for n in cells)
    moved = np.roll(cloud, (-north, east), axis=(0, 1))
    moved[-north or moved.shape[0] :] = False
    if east < 0:
        moved[:, east:] = False
    return moved


def _gaps(law: Scenes, geobox: GeoBox, rng: np.random.Generator) -> np.ndarray:
    """Return the cells between swaths, which run from north-north-east to south-south-west."""
    longitude, latitude = (values.astype(np.float32) for values in cell_centres(geobox))
    swath = law.swath_km / KM_PER_DEGREE
    eastward = longitude * (0.69 / swath) + rng.random(dtype=np.float32)
    across = eastward[None, :] - (latitude * (0.22 / swath))[:, None]
    return across - np.floor(across) > 1 - law.gap_share


def _snow(
    study: VirtualStudy, surface: Surface, number: int, rng: np.random.Generator
) -> np.ndarray:
    dates = study.source.scene_dates
    if dates[number] not in (min(dates), max(dates)):
        return np.zeros(surface.elevation.shape, bool)
    height, per_degree = study.source.scenes.snow_line
    line = height + per_degree * (surface.latitude - 42)
    return surface.elevation + 100 * rng.standard_normal(line.shape, np.float32) > line


def _through(
    sky: _Sky, ground: np.ndarray, law: Scenes, band: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the reflectance of a band as the sensor sees it; NaN between the swaths."""
    masks, opacity = sky
    seen = np.where(masks["snow"], np.float32(law.snow[band]), ground)
    seen = np.where(masks["cloud_shadow"], np.float32(0.4) * seen, seen)
    cloud = np.float32(0.75 if band < 4 else 0.5)
    seen = seen + opacity * (cloud - seen) + np.float32(0.03) * masks["cirrus"]
    constant, share = map(np.float32, law.noise)
    seen += (constant + share * seen) * rng.standard_normal(seen.shape, np.float32)
    seen = seen.clip(0.0, 0.9999)
    seen[masks["fill"]] = np.nan
    return seen


def _qa_pixel(masks: dict[str, np.ndarray], water: np.ndarray) -> np.ndarray:
    """Return QA_PIXEL with the real product's bits: 21824 is clear land, 22280 cloud, 1 fill."""
    quality = np.full(water.shape, QA_LOW_CONFIDENCE, np.uint16)
    for name in ("dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"):
        bits = 1 << QA_BITS[name]
        if name in _QA_CONFIDENCE:
            bits |= 1 << _QA_CONFIDENCE[name]
        quality[masks[name]] |= np.uint16(bits)
    clear = ~(masks["cloud"] | masks["dilated_cloud"])
    quality[clear] |= np.uint16(1 << QA_BITS["clear"])
    quality[water & ~masks["cloud"] & ~masks["snow"]] |= np.uint16(1 << QA_BITS["water"])
    quality[masks["fill"]] = 1 << QA_BITS["fill"]
    return quality
