"""Vegetation and water indices from Landsat 8 and 9 Collection 2 Level 2 scenes.

Digital numbers and quality bits are read by nearest neighbour and never averaged: a pixel is
masked, scaled, made into indices scene by scene, and only then composed over dates and averaged
over a cell.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

from helpers.core.errors import listed
from helpers.core.grid import Part, area_mask, block_mean, crs_wkt, fine_grid
from helpers.core.rasters import THREADS
from helpers.core.study import Study
from helpers.core.user_rasters import Reading, blocks, halves_of, open_source, source_crs
from helpers.core.warp import warp
from helpers.prepare import products
from helpers.prepare.registry import CovariateError, ElsewhereError, NoValuesError, on_grid

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
    """Return which QA_PIXEL values, uint16, have none of the bits named; ``fill`` is always one.

    Examples
    --------
    >>> quality = np.array([1 << 6, 1 << 3, 1 << 4], np.uint16)  # clear, cloud, shadow
    >>> clear_pixels(quality, ["cloud"]).tolist()
    [True, False, True]
    """
    bits = sum(1 << products.QA_BITS[name] for name in {"fill", *masked})
    return (qa & np.uint16(bits)) == 0


def normalised_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (first - second) / (first + second), NaN where the sum is not positive.

    Examples
    --------
    >>> normalised_difference(np.array([0.4, 0.0]), np.array([0.1, 0.0])).round(2).tolist()
    [0.6, nan]
    """
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

    Examples
    --------
    >>> forest = [np.array([band], np.float32) for band in (0.02, 0.04, 0.03, 0.35, 0.15)]
    >>> {name: round(float(value[0]), 2) for name, value in spectral_indices(*forest).items()}
    {'ndvi': 0.84, 'evi': 0.58, 'ndwi': -0.79, 'ndmi': 0.4}
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

    `numpy.nanmedian` gives the same, two to five times slower.

    Examples
    --------
    >>> dates = np.array([[0.2, np.nan], [0.9, np.nan], [0.3, np.nan]], np.float32)
    >>> print(median_over_dates(dates))
    [0.3 nan]
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

    Examples
    --------
    >>> ndvi, ndwi = [0.2, 0.5, 0.8, np.nan], [-0.1, -0.4, -0.7, 0.9]  # the last cell has no NDVI
    >>> round(index_correlation({"ndvi": ndvi, "ndwi": ndwi}), 2)
    -1.0
    """
    ndwi, ndvi = (np.asarray(layers[name]).ravel() for name in ("ndwi", "ndvi"))
    both = np.isfinite(ndwi) & np.isfinite(ndvi)
    return float(np.corrcoef(ndwi[both].astype(np.float64), ndvi[both].astype(np.float64))[0, 1])


def make(study: Study, geobox: GeoBox) -> dict[str, np.ndarray]:
    """Make the indices and the share of valid pixels, float32 on a part of the reference grid.

    NaN outside of the study area. CovariateError if the study has no scene, NoValuesError if the
    part has none, or no clear pixel.
    """
    days = products.landsat_scenes(study)
    if not days:
        raise CovariateError(
            "The study has no Landsat scene.",
            "put scenes named such as LC08_L2SP_121024_20230618_20230623_02_T1_SR_B4.TIF into the "
            "folder `source.landsat`, or list dates as source.scene_dates",
        )
    inside = area_mask(study, geobox)
    layers = {name: np.full(inside.shape, np.nan, np.float32) for name in INDICES}
    layers["landsat_valid_share"] = layers["ndvi"].copy()
    found = False
    boxes = _scene_boxes(days, geobox)
    for block in _blocks(inside, boxes, len(INDICES) * study.grid.divisor**2):
        near = {day: {one: days[day][one] for one in scenes} for day, scenes in block.days.items()}
        fine = fine_grid(study, part=geobox[block.place])
        part, any_scene = _compose(study, near, len(days), inside[block.place], fine)
        found |= any_scene
        for name, values in part.items():
            layers[name][block.place] = values
    if not found:
        names = listed([scene for scenes in days.values() for scene in scenes], 3)
        raise ElsewhereError(
            f"None of the Landsat scenes overlaps the grid: {names}.",
            "give scenes of the study area",
        )
    if not np.isfinite(layers["ndvi"]).any():
        raise NoValuesError(
            f"No pixel of the Landsat scenes on the grid is clear: {len(days)} dates.",
            "give scenes of other dates, or fewer names in `covariates.vegetation.mask`",
        )
    return layers


@dataclass(frozen=True)
class _Block:
    """A part of the reference grid, and by date the scenes that may lie there."""

    place: Part
    days: Mapping[str, Sequence[str]]


def _scene_boxes(days: Days, geobox: GeoBox) -> dict[str, dict[str, np.ndarray]]:
    """Return by date and scene the first row and column that it may reach, and the last ones.

    So that of many scenes only those are opened again that lie in a block.
    """
    boxes: dict[str, dict[str, np.ndarray]] = {}
    for day, scenes in days.items():
        for scene, files in scenes.items():
            path = next(iter(files.values()))
            modified = path.stat().st_mtime_ns if path.is_file() else None
            bounds = _bounds(path, crs_wkt(geobox), modified)
            corners = [~geobox.transform * corner for corner in (bounds[:2], bounds[2:])]
            low, high = np.sort(corners, axis=0)
            box = np.array([np.floor(low[::-1]) - 1, np.ceil(high[::-1]) + 1])
            boxes.setdefault(day, {})[scene] = box
    return boxes


@cache  # the parts of a grid ask for the same scenes
def _bounds(path: Path, crs: str, _modified: int | None) -> tuple[float, ...]:
    with open_source(path, Reading()) as source:
        return transform_bounds(source_crs(source), crs, *source.bounds)


def _blocks(
    inside: np.ndarray,
    boxes: Mapping[str, Mapping[str, np.ndarray]],
    values_each: int,
    place: Part | None = None,
) -> Iterator[_Block]:
    """Give blocks whose cells in the study area have no more values than fit in memory.

    The grid is halved until they fit; `values_each` are those of a cell and date.
    """
    rows, columns = place or tuple(slice(0, size) for size in inside.shape)
    first, end = np.array([rows.start, columns.start]), np.array([rows.stop, columns.stop])
    days = {
        day: [
            one for one, (low, high) in scenes.items() if (low < end).all() and (first < high).all()
        ]
        for day, scenes in boxes.items()
    }
    days = {day: scenes for day, scenes in days.items() if scenes}
    cells = np.count_nonzero(inside[rows, columns])
    height, width = end - first
    small = cells * len(days) * values_each <= _MOST_VALUES
    small &= height * width * values_each <= _MOST_VALUES * 4  # numbers of all cells of the box
    if small or not days or height * width == 1:
        yield _Block((rows, columns), days)
        return
    halves = [(half, columns) for half in halves_of(rows)]
    if width > height:
        halves = [(rows, half) for half in halves_of(columns)]
    for half in halves:
        yield from _blocks(inside, boxes, values_each, half)


def _compose(
    study: Study, days: Days, number: int, inside: np.ndarray, geobox: GeoBox
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the layers of a block of the reference grid, and whether any scene lies there.

    `number` is that of all dates, also of those that have no scene there; `geobox` is the fine grid
    of the block.
    """
    divisor, found = study.grid.divisor, []
    if days:
        cells = _fine_cells(inside, divisor)
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
    valid = sum(np.isfinite(day["ndvi"]).mean(axis=(1, 2)) for day in found) / number
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
