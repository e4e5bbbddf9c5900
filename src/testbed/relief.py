"""Relief of the virtual landscape: real topography at 5 arc minutes, carved into draining valleys.

The law, worked up a pyramid of grids, each twice as fine as the one before:

1. fractal noise of the wavelengths that the grid adds, in proportion to how much the real
   topography changes between neighbouring 5' cells there (so mountains get relief and plains stay
   flat);
2. flow paths (pyflwdir), depressions breached along them;
3. cycles of river incision (stream power law, implicit scheme of Braun and Willett 2013,
   Geomorphology 180-181:170), hillslope diffusion, and an uplift that brings the means of the 5'
   cells back to the real ones.

The finest grid gets noise only: its valleys are those of the grid before.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from scipy import fft, ndimage, sparse
from shapely.geometry.base import BaseGeometry

from helpers.core.errors import CompendiumError
from testbed.settings import Relief

KM_PER_DEGREE = 111.2

_FFT_THREADS = 2
_SEA = np.float32(-9999)  # what pyflwdir takes for no data: flow paths end there
_LOWEST_LAND = 0.5  # m
_ROUNDING = 8  # steps a metre; a power of two leaves empty bits, so that the file compresses


class ReliefError(CompendiumError):
    """Relief that cannot be made for the area asked for."""


class Mesh:
    """A fine longitude-latitude grid over the cells of a coarse one, which is larger on all sides.

    All operations are sparse matrices, one an axis; they give the same result on any number of
    threads. ReliefError if the fine grid reaches beyond the coarse one.
    """

    def __init__(self, geobox: GeoBox, coarse: GeoBox) -> None:
        fine, affine = geobox.transform, coarse.transform
        rows = _positions(geobox.shape[0], fine.f - affine.f, fine.e, affine.e)
        columns = _positions(geobox.shape[1], fine.c - affine.c, fine.a, affine.a)
        axes = list(zip((rows, columns), coarse.shape, strict=True))
        for places, size in axes:
            if places[0] < -0.5 or places[-1] > size - 0.5:
                raise ReliefError(
                    "The landscape reaches beyond the real topography in data/base/.",
                    "choose an area in Northeast China, or rasters of your own: `source: files`",
                )
        self.coarse_shape = tuple(coarse.shape)
        self._spread = [_cubic_weights(places, size) for places, size in axes]
        self._means = [_overlaps(places, fine.a / affine.a, size) for places, size in axes]
        self._shares = np.outer(*(np.asarray(part.sum(axis=1)).ravel() for part in self._means))
        self.covered = self._shares > 0.999
        """Coarse cells that lie wholly inside the fine grid."""

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return coarse values on the fine grid, by cubic convolution (Keys 1981)."""
        rows, columns = self._spread
        return np.ascontiguousarray((columns @ (rows @ values).T).T)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return means of fine values over the covered part of coarse cells; NaN where none."""
        rows, columns = self._means
        total = (columns @ (rows @ values).T).T
        missing = np.full(self.coarse_shape, np.nan, np.float32)
        covered = self._shares > 0
        return np.divide(total, self._shares, out=missing, where=covered, casting="same_kind")

    def uplift(self, values: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return fine values raised or lowered smoothly, so that their means near the target's."""
        lack = np.where(self._shares > 0, target - self.mean(values), 0).astype(np.float32)
        return values + self.spread(lack)


def _positions(size: int, shift: float, step: float, coarse_step: float) -> np.ndarray:
    """Return cell centres in units of coarse cells, 0 being the centre of the first one."""
    return (shift + (np.arange(size) + 0.5) * step) / coarse_step - 0.5


def _cubic_weights(places: np.ndarray, size: int) -> sparse.csr_array:
    first = np.floor(places).astype(int)
    u = places - first
    weights = [
        -0.5 * u + u**2 - 0.5 * u**3,
        1 - 2.5 * u**2 + 1.5 * u**3,
        0.5 * u + 2 * u**2 - 1.5 * u**3,
        -0.5 * u**2 + 0.5 * u**3,
    ]
    columns = np.clip(first + np.arange(-1, 3)[:, None], 0, size - 1)
    rows = np.broadcast_to(np.arange(places.size), columns.shape)
    entries = np.asarray(weights, np.float32).ravel()
    shape = (places.size, size)
    return sparse.csr_array((entries, (rows.ravel(), columns.ravel())), shape=shape)


def _overlaps(places: np.ndarray, step: float, size: int) -> sparse.csr_array:
    """Return the matrix that averages cells of width `step` over cells of width 1."""
    cells = np.rint(places).astype(int) + np.arange(-1, 2)[:, None]
    right = np.minimum(places + step / 2, cells + 0.5)
    width = right - np.maximum(places - step / 2, cells - 0.5)
    keep = (width > 1e-9) & (cells >= 0) & (cells < size)
    columns = np.broadcast_to(np.arange(places.size), cells.shape)[keep]
    entries = width[keep].astype(np.float32)
    return sparse.csr_array((entries, (cells[keep], columns)), shape=(size, places.size))


def fractal_noise(
    shape: Sequence[int],
    rng: np.random.Generator,
    hurst: float,
    longest: float,
    stretch: float = 1.0,
) -> np.ndarray:
    """Return a Gaussian random field whose power falls with the wavenumber as of a fractal surface.

    Its mean is 0 and its standard deviation 1; it is the same on any number of threads.

    Parameters
    ----------
    hurst
        Hurst exponent; power falls as k^-(2 hurst + 2).
    longest
        Wavelengths above this many cells (rows) are suppressed.
    stretch
        Width of a cell over its height on the ground.
    """
    size = [fft.next_fast_len(n, real=True) for n in shape]
    spectrum = fft.rfft2(rng.standard_normal(size, np.float32), workers=_FFT_THREADS)
    rows = fft.fftfreq(size[0]).astype(np.float32)[:, None]
    columns = (fft.rfftfreq(size[1]) / stretch).astype(np.float32)
    wavenumber = np.hypot(rows, columns)
    wavenumber[0, 0] = 1
    power = wavenumber ** np.float32(-hurst - 1)
    spectrum *= power / (1 + (wavenumber * np.float32(longest)) ** -4)
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, size, workers=_FFT_THREADS)[: shape[0], : shape[1]]
    return field / field.std()


def roughness(topography: np.ndarray) -> np.ndarray:
    """Return the root mean square step between neighbours, smoothed over about three cells, m."""
    squares = np.zeros_like(topography)
    for axis in (0, 1):
        ends = [(1, 1) if a == axis else (0, 0) for a in (0, 1)]
        steps = np.pad(np.diff(topography, axis=axis) ** 2, ends, "edge")
        both = steps[1:] + steps[:-1] if axis == 0 else steps[:, 1:] + steps[:, :-1]
        squares += both / 4
    return np.sqrt(ndimage.gaussian_filter(squares, 1.2))


def refine(values: np.ndarray) -> np.ndarray:
    """Return a grid twice as fine, by bilinear interpolation between cell centres; means stay."""
    padded = np.pad(values, 1, mode="edge")
    tall = np.empty((2 * values.shape[0], padded.shape[1]), np.float32)
    tall[0::2] = 0.75 * padded[1:-1] + 0.25 * padded[:-2]
    tall[1::2] = 0.75 * padded[1:-1] + 0.25 * padded[2:]
    fine = np.empty((2 * values.shape[0], 2 * values.shape[1]), np.float32)
    fine[:, 0::2] = 0.75 * tall[:, 1:-1] + 0.25 * tall[:, :-2]
    fine[:, 1::2] = 0.75 * tall[:, 1:-1] + 0.25 * tall[:, 2:]
    return fine


@njit(cache=True)
def _breach(
    elevation: np.ndarray, downstream: np.ndarray, sequence: np.ndarray, share: np.float32
) -> None:
    """Remove depressions along flow paths, in place: by carving to this share, else by filling."""
    carved = elevation.copy()
    for cell in sequence[::-1]:
        below = downstream[cell]
        if carved[below] > carved[cell]:
            carved[below] = carved[cell]
    for cell in sequence:
        below = downstream[cell]
        if elevation[cell] < elevation[below]:
            elevation[cell] = elevation[below]
    for cell in sequence:
        elevation[cell] = share * carved[cell] + (1 - share) * elevation[cell]


@njit(cache=True)
def _incise(
    elevation: np.ndarray, downstream: np.ndarray, sequence: np.ndarray, factor: np.ndarray
) -> None:
    """Lower cells towards the one downstream, in place: a step of the stream power law."""
    for cell in sequence:
        below = downstream[cell]
        if elevation[cell] > elevation[below]:
            elevation[cell] = (elevation[cell] + factor[cell] * elevation[below]) / (
                1 + factor[cell]
            )


class _Valleys:
    """The flow paths of one state of the relief, and erosion along them.

    `calm` is 1 on plains that hardly erode, towards 0 in mountains.
    """

    def __init__(
        self, elevation: np.ndarray, grid: GeoBox, sea: np.ndarray, calm: np.ndarray, law: Relief
    ) -> None:
        import pyflwdir

        ground = np.where(sea, _SEA, elevation)
        _, d8 = pyflwdir.dem.fill_depressions(ground, nodata=_SEA)
        flow = pyflwdir.from_array(d8, ftype="d8", check_ftype=False)
        width = grid.transform.a * KM_PER_DEGREE * np.sqrt(_stretch(grid))
        # Cells count as equally large: exact areas matter little here, and cost seconds to compile.
        area = np.maximum(flow.upstream_area("cell"), 0).ravel() * width**2
        factor = law.incision * area**law.area_exponent / width * (1 - calm.ravel())
        self._factor = (factor / (1 + factor / law.incision_limit)).astype(np.float32)
        self._downstream = flow.idxs_ds
        self._sequence = flow.idxs_seq
        self._sea = sea
        self._law = law

    def breach(self, elevation: np.ndarray) -> np.ndarray:
        flat = elevation.ravel().copy()
        share = np.float32(self._law.breached_share)
        _breach(flat, self._downstream, self._sequence, share)
        return flat.reshape(elevation.shape)

    def erode(self, elevation: np.ndarray) -> np.ndarray:
        flat = elevation.ravel().copy()
        _incise(flat, self._downstream, self._sequence, self._factor)
        flat = flat.reshape(elevation.shape)
        smooth = ndimage.gaussian_filter(flat, self._law.diffusion, truncate=2)
        return np.where(self._sea, np.float32(0), smooth)


def _stretch(geobox: GeoBox) -> float:
    """Return width over height of a cell on the ground, at the middle latitude."""
    box = geobox.boundingbox
    return float(np.cos(np.radians((box.bottom + box.top) / 2)))


def pyramid(geobox: GeoBox, coarsest_arcsec: float) -> list[GeoBox]:
    """Return grids of the same area, from coarse to fine, each twice as fine as the one before.

    None is coarser than `coarsest_arcsec`, unless `geobox`, the finest, is. The last one has the
    upper left corner of `geobox` and is at least as large.
    """
    step = geobox.transform.a
    levels = max(0, int(np.floor(np.log2(coarsest_arcsec / 3600 / step + 1e-9))))
    coarsest = geobox.zoom_out(2**levels)
    return [coarsest.zoom_out(1 / 2**level) for level in range(levels + 1)]


def make_relief(
    topography: np.ndarray,
    coarse: GeoBox,
    geobox: GeoBox,
    land: Sequence[BaseGeometry],
    settings: Relief,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return elevation on a fine grid, in m, rounded to 1/8 m.

    Parameters
    ----------
    topography : shape of `coarse`
        Real elevation, float32, m.
    geobox
        The grid that is wanted, inside the coarse one.
    land
        In longitude and latitude; the sea is at 0 m.
    """
    grids = pyramid(geobox, settings.coarsest_arcsec)
    streams = rng.spawn(len(grids))
    rough = roughness(topography)
    calm = 1 / (1 + (rough / np.float32(settings.calm_roughness)) ** 2)
    rough = rough * (1 - calm)
    elevation = topography
    for number, (grid, stream) in enumerate(zip(grids, streams, strict=True)):
        mesh = Mesh(grid, coarse)
        sea = geometry_mask(land, out_shape=grid.shape, transform=grid.transform)
        last = number == len(grids) - 1 and number > 0
        if number == 0:
            elevation = mesh.spread(topography)
            elevation = mesh.uplift(elevation, topography)
        else:
            elevation = refine(elevation)
        texture = _texture(grid, stream, settings, number)
        amplitude = _valley_damped(elevation, rough, mesh) if last else mesh.spread(rough).clip(0)
        elevation += texture * amplitude
        elevation[sea] = 0
        if not last:
            routings = settings.routings[min(number, len(settings.routings) - 1)]
            plain = mesh.spread(calm).clip(0, 1)
            for _ in range(routings):
                valleys = _Valleys(elevation, grid, sea, plain, settings)
                elevation = valleys.breach(elevation)
                for _ in range(settings.cycles):
                    elevation = mesh.uplift(valleys.erode(elevation), topography)
                    elevation[sea] = 0
    inside = np.s_[: geobox.shape[0], : geobox.shape[1]]
    elevation = np.maximum(mesh.uplift(elevation, topography)[inside], _LOWEST_LAND)
    rounded = np.rint(elevation * _ROUNDING) / np.float32(_ROUNDING)
    return np.where(sea[inside], np.float32(0), rounded)


def _texture(grid: GeoBox, rng: np.random.Generator, settings: Relief, number: int) -> np.ndarray:
    """Return the noise that a level of the pyramid adds, in units of the roughness at 5'."""
    share = settings.noise[min(number, len(settings.noise) - 1)]
    longest = settings.longest_arcmin / 60 / grid.transform.a if number == 0 else 4.0
    wavelength = min(1.0, longest * grid.transform.a * 12)  # of 5'
    amplitude = np.float32(share * wavelength**settings.hurst)
    return amplitude * fractal_noise(grid.shape, rng, settings.hurst, longest, _stretch(grid))


def _valley_damped(elevation: np.ndarray, rough: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Return the roughness, less on low ground: the last noise leaves valley floors even."""
    above = elevation - ndimage.uniform_filter(elevation, 9)
    scale = mesh.spread(rough).clip(1)
    return scale * (0.5 + 0.5 * np.tanh(2 * above / scale))
