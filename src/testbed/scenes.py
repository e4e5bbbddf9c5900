"""Virtual Landsat scenes with clouds, shadow, snow and gaps."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import rasterio
from scipy import ndimage
from scipy.special import expit

from helpers.core.grid import cell_centres
from helpers.core.rasters import write_raster
from helpers.prepare.products import LANDSAT_BANDS, LANDSAT_REFLECTANCE, QA_BITS, raw_files, scene_days
from testbed.landscape import OVERPASSES, THREADS, above_share, patches, stream, sunlight
from testbed.relief import KM_PER_DEGREE

QA_LOW_CONFIDENCE = 0b0101010100000000
"""Low confidence of cloud, shadow, snow and cirrus (bits 8-15): what real QA_PIXEL has on all but fill."""


_QA_CONFIDENCE = {
    "cloud": 9,
    "cloud_shadow": 11,
    "snow": 13,
    "cirrus": 15,
}  # the bit that makes low confidence high


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
    with ThreadPoolExecutor(THREADS) as pool:
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
    sun = (0.2 + 0.8 * sunlight(surface, day_of_year, OVERPASSES["landsat"])).clip(0.3, 1.6)
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
    thickness = patches(geobox, cloud_rng, law.cloud_km, 0.5) - above_share(law.cloud_share)
    cloud = thickness > 0
    rim = ndimage.maximum_filter(cloud, 3)
    shift = _shadow_cells(law, geobox)
    shadow = _shifted(cloud, shift)
    veil = patches(geobox, cirrus_rng, law.cloud_km, 0.8) > above_share(law.cirrus_share)
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
    labels = [label for label, _ in QUALITY_CLASSES.values()]
    rows = {}
    for day in scene_days(study):
        with rasterio.open(raw_files(study)[f"landsat_{day}_qa_pixel"]) as source:
            codes = quality_classes(source.read(1)[surface.inside])
        rows[day] = np.bincount(codes, minlength=len(labels)) / codes.size
    return pd.DataFrame.from_dict(rows, orient="index", columns=labels).rename_axis("date")
