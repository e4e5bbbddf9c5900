"""Vegetation and water indices from Landsat 8 and 9 Collection 2 Level 2 scenes.

Digital numbers and quality bits are read by nearest neighbour and never averaged: a pixel is
masked, scaled, made into indices scene by scene, and only then composed over dates and averaged
over a cell.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

from helpers.core.errors import listed
from helpers.core.grid import area_mask, block_mean, crs_wkt, fine_grid, reference_grid
from helpers.core.rasters import THREADS
from helpers.core.study import Study
from helpers.core.user_rasters import Reading, blocks, open_source, source_crs
from helpers.core.warp import warp
from helpers.prepare import products
from helpers.prepare.registry import CovariateError, on_grid

INDICES = ("ndvi", "evi", "ndwi", "ndmi")

Days = Mapping[str, Mapping[str, Mapping[str, Path]]]
"""Files of scenes: by date, scene and asset."""

_LEAST_SHARE = 0.25  # of a reference cell's fine cells; below, its indices are missing
_FILL = 1 << products.QA_BITS["fill"]  # QA_PIXEL of what no scene covers
_CLEAR = 1 << products.QA_BITS["clear"]
_CLOUD = 1 << products.QA_BITS["cloud"] | 1 << products.QA_BITS["dilated_cloud"]
_MOST_WRONG = 0.01  # of the pixels' flags; delivered files have none
_MOST_PIXELS = 32_000_000  # of a band that are in memory at once; a scene has 60 million
_VALUES_AT_ONCE = 1_000_000  # of an index, of all dates, whose medians are in memory at once
_MOST_VALUES = 100_000_000  # of all indices and dates that are in memory at once


def clear_pixels(qa: np.ndarray, masked: Iterable[str]) -> np.ndarray:
    """Return which QA_PIXEL values, uint16, have none of the bits named; ``fill`` is always one."""
    bits = sum(1 << products.QA_BITS[name] for name in {"fill", *masked})
    return (qa & np.uint16(bits)) == 0


def normalised_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (first - second) / (first + second), NaN where the sum is not positive."""
    total = first + second
    return np.divide(first - second, total, out=np.full_like(total, np.nan), where=total > 0)


def spectral_indices(
    blue: np.ndarray, green: np.ndarray, red: np.ndarray, nir08: np.ndarray, swir16: np.ndarray
) -> dict[str, np.ndarray]:
    """Return vegetation and water indices of surface reflectance, float32, NaN where it is missing.

    Returns
    -------
    indices
        ``ndvi`` (near infrared and red); ``evi``, the three-band enhanced vegetation index, clipped
        to [-1, 1]; ``ndwi`` of McFeeters (1996), green and near infrared; ``ndmi``, the moisture
        index that Gao (1996) called NDWI, near and shortwave infrared.

    References
    ----------
    Huete et al. (2002), Remote Sensing of Environment 83, 195-213. McFeeters (1996), International
    Journal of Remote Sensing 17, 1425-1432. Gao (1996), Remote Sensing of Environment 58, 257-266.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        evi = np.clip(2.5 * (nir08 - red) / (nir08 + 6 * red - 7.5 * blue + 1), -1, 1)
    return {
        "ndvi": normalised_difference(nir08, red),
        "evi": evi,
        "ndwi": normalised_difference(green, nir08),
        "ndmi": normalised_difference(nir08, swir16),
    }


def median_over_dates(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median of float32 arrays, one a date, passing over NaN; NaN where all are.

    `numpy.nanmedian` gives the same, many times slower.
    """
    ranked = np.stack(values, axis=-1)
    ranked.sort(axis=-1)  # missing values come last
    count = np.isfinite(ranked).sum(axis=-1)

    def at(place: np.ndarray) -> np.ndarray:
        return np.take_along_axis(ranked, place[..., np.newaxis], axis=-1)[..., 0]

    return (at(np.maximum(count - 1, 0) // 2) + at(count // 2)) / 2


def index_correlation(layers: Mapping[str, npt.ArrayLike]) -> float:
    """Return Pearson's correlation of NDWI with NDVI over the cells that have both.

    Over forest, NDWI of McFeeters is nearly the mirror image of NDVI, for the near infrared
    dominates both.
    """
    ndwi, ndvi = (np.asarray(layers[name]).ravel() for name in ("ndwi", "ndvi"))
    both = np.isfinite(ndwi) & np.isfinite(ndvi)
    return float(np.corrcoef(ndwi[both].astype(np.float64), ndvi[both].astype(np.float64))[0, 1])


def make(study: Study) -> dict[str, np.ndarray]:
    """Make the indices and the share of valid pixels, float32, NaN outside of the study area.

    None without a source of scenes. CovariateError if there is no scene, or none on the grid.
    """
    if not products.has_raw(study, "landsat"):
        return {}
    days = products.landsat_scenes(study)
    if not days:
        raise CovariateError(
            "The study has no Landsat scene.",
            "put scenes named such as LC08_L2SP_121024_20230618_20230623_02_T1_SR_B4.TIF into the "
            "folder `source.landsat`, or list dates as source.scene_dates",
        )
    inside = area_mask(study, reference_grid(study))
    layers = {name: np.full(inside.shape, np.nan, np.float32) for name in INDICES}
    layers["landsat_valid_share"] = layers["ndvi"].copy()
    found = False
    reach = _rows_of_scenes(study, days)
    dates = np.zeros(len(inside), int)  # that have a scene in a row
    for scenes in days.values():
        within = np.zeros(len(inside), bool)
        for scene in scenes:
            within[reach[scene]] = True
        dates += within
    for rows in _row_blocks(inside, dates * (_divisor(study) ** 2 * len(INDICES))):
        near = {
            day: {
                scene: files
                for scene, files in scenes.items()
                if reach[scene].start < rows.stop and rows.start < reach[scene].stop
            }
            for day, scenes in days.items()
        }
        part, any_scene = _compose(study, near, inside[rows], rows)
        found |= any_scene
        for name, values in part.items():
            layers[name][rows] = values
    if not found:
        names = listed([scene for scenes in days.values() for scene in scenes], 3)
        raise CovariateError(
            f"None of the Landsat scenes overlaps the grid: {names}.",
            "give scenes of the study area",
        )
    if not np.isfinite(layers["ndvi"]).any():
        raise CovariateError(
            f"No pixel of the Landsat scenes on the grid is clear: {len(days)} dates.",
            "give scenes of other dates, or fewer names in `covariates.vegetation.mask`",
        )
    return layers


def _divisor(study: Study) -> int:
    return round(study.grid.resolution / study.grid.fine_resolution)


def _rows_of_scenes(study: Study, days: Days) -> dict[str, slice]:
    """Return the rows of the reference grid that each scene may reach, none if it lies beside it.

    So that of many scenes only those are opened again that lie in a block of rows.
    """
    geobox = reference_grid(study)
    reach = {}
    for scene, files in ((one, files) for scenes in days.values() for one, files in scenes.items()):
        with open_source(next(iter(files.values())), Reading()) as source:
            bounds = transform_bounds(source_crs(source), crs_wkt(geobox), *source.bounds)
        edges = (geobox.boundingbox.top - np.array([bounds[3], bounds[1]])) / geobox.resolution.x
        first, last = np.clip([np.floor(edges[0]) - 1, np.ceil(edges[1]) + 1], 0, geobox.shape[0])
        reach[scene] = slice(int(first), int(last))
    return reach


def _row_blocks(inside: np.ndarray, values_each: np.ndarray) -> Iterator[slice]:
    """Give blocks of rows whose cells in the study area have no more values than fit in memory.

    `values_each` are those of a cell of each row.
    """
    so_far = np.cumsum(inside.sum(axis=1) * values_each)
    start = 0
    while start < len(so_far):
        limit = (so_far[start - 1] if start else 0) + _MOST_VALUES
        stop = max(start + 1, int(np.searchsorted(so_far, limit, side="right")))
        yield slice(start, stop)
        start = stop


def _compose(
    study: Study, days: Days, inside: np.ndarray, rows: slice
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the layers of some rows of the reference grid, and whether any scene lies there."""
    divisor = _divisor(study)
    cells = _fine_cells(inside, divisor)
    geobox = fine_grid(study)[rows.start * divisor : rows.stop * divisor, :]
    found = [day for scenes in days.values() if (day := _day(study, scenes, geobox, cells))]
    if not found:
        empty = on_grid(np.nan, inside)
        return {**dict.fromkeys(INDICES, empty), "landsat_valid_share": on_grid(0, inside)}, False

    def layer(name: str) -> np.ndarray:
        means, step = [], max(1, _VALUES_AT_ONCE // (len(found) * divisor**2))
        for start in range(0, max(len(cells), 1), step):
            part = slice(start, start + step)
            composite = median_over_dates([day[name][part] for day in found])
            means.append(block_mean(composite, divisor, _LEAST_SHARE)[:, 0, 0])
        return on_grid(np.concatenate(means), inside)

    with ThreadPoolExecutor(THREADS) as pool:
        layers = dict(zip(INDICES, pool.map(layer, INDICES), strict=True))
    valid = sum(np.isfinite(day["ndvi"]).mean(axis=(1, 2)) for day in found) / len(days)
    layers["landsat_valid_share"] = on_grid(valid, inside)
    return layers, True


def _fine_cells(inside: np.ndarray, divisor: int) -> np.ndarray:
    """Return flat indices of the fine cells in the study area, shape (cell, divisor, divisor).

    Working on these alone spares the half of the grid that lies outside.
    """
    rows, columns = inside.shape
    index = np.arange(inside.size * divisor**2, dtype=np.int64)
    return index.reshape(rows, divisor, columns, divisor).swapaxes(1, 2)[inside]


def _day(
    study: Study, scenes: Mapping[str, Mapping[str, Path]], geobox: GeoBox, cells: np.ndarray
) -> dict[str, np.ndarray] | None:
    """Return a date's indices in the cells of `_fine_cells`, NaN where no scene has a clear pixel.

    Where scenes of the date overlap, the first clear pixel is taken. None if no scene lies there.
    """
    masked = study.covariates.vegetation.mask
    numbers = None
    for files in scenes.values():
        paths = list(files.values())
        with open_source(paths[0], Reading(), geobox) as source:
            parts = list(blocks(source, geobox, _MOST_PIXELS, math.inf))
        for rows, columns, _ in parts:
            stack = warp(paths, geobox[rows, columns])
            _check_flags(stack[0], paths[0])
            if numbers is None:
                numbers = np.zeros((len(stack), *geobox.shape), stack.dtype)
                numbers[0] = _FILL
            part = numbers[:, rows, columns]
            new = (part[0] == _FILL) & _usable(stack, masked)
            np.copyto(part, stack, where=new)
    if numbers is None:
        return None
    bands = [band.take(cells) for band in numbers]
    clear = bands.pop(0) != _FILL
    reflectance = [products.LANDSAT_REFLECTANCE.decode(band) for band in bands]
    indices = spectral_indices(*reflectance)
    return {name: np.where(clear, values, np.float32(np.nan)) for name, values in indices.items()}


def _check_flags(qa: np.ndarray, path: Path) -> None:
    """Raise CovariateError where QA_PIXEL contradicts itself, as means of flags do.

    Its bit ``clear`` is set just where neither cloud nor dilated cloud is. Overviews that somebody
    made by averaging would be read as if they were flags.
    """
    covered = ((qa & np.uint16(_FILL)) == 0) & (qa != 0)  # 0 beyond files that declare no nodata
    cloud, clear = ((qa & np.uint16(bits)) != 0 for bits in (_CLOUD, _CLEAR))
    wrong = np.count_nonzero(covered & (cloud == clear))
    if wrong > _MOST_WRONG * np.count_nonzero(covered):
        raise CovariateError(
            f"{path.name}: quality bits of {wrong} pixels say both clear and cloud, or neither: "
            "the file or its overviews were averaged.",
            "give the file as the USGS delivers it, or remove its overviews (gdaladdo -clean)",
        )


def _usable(stack: np.ndarray, masked: Iterable[str]) -> np.ndarray:
    """Return where quality bits and five bands, stacked, are clear and in their valid range."""
    usable = clear_pixels(stack[0], masked)
    for band in stack[1:]:
        usable &= products.LANDSAT_REFLECTANCE.is_valid(band)
    return usable
