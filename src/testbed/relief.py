"""Relief of the virtual landscape: real topography at 5 arc minutes, carved into valleys that drain.

The law, worked up a pyramid of grids, each twice as fine as the one before:

1. fractal noise of the wavelengths that the grid adds, in proportion to how much the real topography changes
   between neighbouring 5' cells there (so mountains get relief and plains stay flat);
2. flow paths (pyflwdir), depressions breached along them;
3. cycles of river incision (stream power law, implicit scheme of Braun and Willett 2013, Geomorphology
   180-181:170), hillslope diffusion, and an uplift that brings the means of the 5' cells back to the real
   ones.

The finest grid gets noise only: its valleys are those of the grid before.
"""

import numpy as np
from affine import Affine
from numba import njit
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from scipy import fft, ndimage, sparse

from helpers.core.errors import CompendiumError

KM_PER_DEGREE = 111.2


_FFT_THREADS = 2


_SEA = np.float32(-9999)  # what pyflwdir takes for no data: flow paths end there


_LOWEST_LAND = 0.5  # m


_ROUNDING = 8  # steps a metre; a power of two leaves empty bits, so that the file compresses


class ReliefError(CompendiumError):
    """Relief that cannot be made for the area asked for."""


class Mesh:
    """A fine longitude-latitude grid over the cells of a coarse one.

    All operations are sparse matrices, one an axis; they give the same result on any number of threads.

    Parameters
    ----------
    geobox : odc.geo.geobox.GeoBox
        The fine grid.
    coarse : odc.geo.geobox.GeoBox
        The coarse grid, larger on all sides.

    Raises
    ------
    ReliefError
        The fine grid reaches beyond the coarse one.
    """

    def __init__(self, geobox, coarse):
        self.shape, self.coarse_shape = tuple(geobox.shape), tuple(coarse.shape)
        fine_affine, affine = geobox.transform, coarse.transform
        rows = _positions(geobox.shape[0], fine_affine.f - affine.f, fine_affine.e, affine.e)
        columns = _positions(geobox.shape[1], fine_affine.c - affine.c, fine_affine.a, affine.a)
        for places, size in ((rows, coarse.shape[0]), (columns, coarse.shape[1])):
            if places[0] < -0.5 or places[-1] > size - 0.5:
                raise ReliefError(
                    "The landscape reaches beyond the real topography in data/base/.",
                    "give a smaller `landscape.margin_degrees`, or another study area",
                )
        step = fine_affine.a / affine.a
        self._spread = [_cubic_weights(places, n) for places, n in zip((rows, columns), coarse.shape, strict=True)]
        self._means = [_overlaps(places, step, n) for places, n in zip((rows, columns), coarse.shape, strict=True)]
        shares = [np.asarray(matrix.sum(axis=1)).ravel() for matrix in self._means]
        self._shares = np.outer(*shares)
        self.covered = self._shares > 0.999
        """Coarse cells that lie wholly inside the fine grid."""

    def spread(self, values):
        """Return coarse values on the fine grid, by cubic convolution (Keys 1981)."""
        rows, columns = self._spread
        return np.ascontiguousarray((columns @ (rows @ values).T).T)

    def mean(self, values):
        """Return means of fine values over coarse cells, of the part that they cover; NaN where none."""
        rows, columns = self._means
        total = (columns @ (rows @ values).T).T
        missing = np.full(self.coarse_shape, np.nan, np.float32)
        return np.divide(total, self._shares, out=missing, where=self._shares > 0, casting="same_kind")

    def uplift(self, values, target):
        """Return fine values raised or lowered smoothly so that their means come close to the target's."""
        lack = np.where(self._shares > 0, target - self.mean(values), 0).astype(np.float32)
        return values + self.spread(lack)


def _positions(size, shift, step, coarse_step):
    """Return cell centres in units of coarse cells, 0 being the centre of the first one."""
    return (shift + (np.arange(size) + 0.5) * step) / coarse_step - 0.5


def _cubic_weights(places, size):
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
    return sparse.csr_array((entries, (rows.ravel(), columns.ravel())), shape=(places.size, size))


def _overlaps(places, step, size):
    """Return the matrix that averages cells of width `step` over cells of width 1."""
    nearest = np.rint(places).astype(int)
    cells = nearest + np.arange(-1, 2)[:, None]
    width = np.minimum(places + step / 2, cells + 0.5) - np.maximum(places - step / 2, cells - 0.5)
    keep = (width > 1e-9) & (cells >= 0) & (cells < size)
    columns = np.broadcast_to(np.arange(places.size), cells.shape)[keep]
    return sparse.csr_array((width[keep].astype(np.float32), (cells[keep], columns)), shape=(size, places.size))


def fractal_noise(shape, rng, hurst, longest, stretch=1.0):
    """Return a Gaussian random field whose power falls with the wavenumber as that of a fractal surface.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator
    hurst : float
        Hurst exponent; power falls as k^-(2 hurst + 2).
    longest : float
        Wavelengths above this many cells (rows) are suppressed.
    stretch : float
        Width of a cell over its height on the ground.

    Returns
    -------
    numpy.ndarray of float32
        Mean 0, standard deviation 1; the same on any number of threads.
    """
    size = [fft.next_fast_len(n, real=True) for n in shape]
    spectrum = fft.rfft2(rng.standard_normal(size, np.float32), workers=_FFT_THREADS)
    rows = fft.fftfreq(size[0]).astype(np.float32)[:, None]
    columns = (fft.rfftfreq(size[1]) / stretch).astype(np.float32)
    wavenumber = np.hypot(rows, columns)
    wavenumber[0, 0] = 1
    spectrum *= wavenumber ** np.float32(-hurst - 1) / (1 + (wavenumber * np.float32(longest)) ** -4)
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, size, workers=_FFT_THREADS)[: shape[0], : shape[1]]
    return field / field.std()


def roughness(topography):
    """Return the root mean square step between neighbouring cells, smoothed over about three cells.

    Parameters
    ----------
    topography : numpy.ndarray of float32, shape (y, x)
        Elevation in m.

    Returns
    -------
    numpy.ndarray of float32
        In m.
    """
    squares = np.zeros_like(topography)
    for axis in (0, 1):
        padded = np.pad(np.diff(topography, axis=axis) ** 2, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], "edge")
        squares += (padded[1:] + padded[:-1] if axis == 0 else padded[:, 1:] + padded[:, :-1]) / 4
    return np.sqrt(ndimage.gaussian_filter(squares, 1.2))


def refine(values):
    """Return a grid twice as fine, by bilinear interpolation between cell centres; it keeps means."""
    padded = np.pad(values, 1, mode="edge")
    tall = np.empty((2 * values.shape[0], padded.shape[1]), np.float32)
    tall[0::2] = 0.75 * padded[1:-1] + 0.25 * padded[:-2]
    tall[1::2] = 0.75 * padded[1:-1] + 0.25 * padded[2:]
    fine = np.empty((2 * values.shape[0], 2 * values.shape[1]), np.float32)
    fine[:, 0::2] = 0.75 * tall[:, 1:-1] + 0.25 * tall[:, :-2]
    fine[:, 1::2] = 0.75 * tall[:, 1:-1] + 0.25 * tall[:, 2:]
    return fine


@njit(cache=True)
def _breach(elevation, downstream, sequence, share):
    """Remove depressions along flow paths, in place: by carving to this share, by filling for the rest."""
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
def _incise(elevation, downstream, sequence, factor):
    """Lower cells towards the one downstream, in place: an implicit step of the stream power law."""
    for cell in sequence:
        below = downstream[cell]
        if elevation[cell] > elevation[below]:
            elevation[cell] = (elevation[cell] + factor[cell] * elevation[below]) / (1 + factor[cell])


class _Valleys:
    """The flow paths of one state of the relief, and erosion along them."""

    def __init__(self, elevation, sea, geobox, settings, calm):
        import pyflwdir

        _, d8 = pyflwdir.dem.fill_depressions(np.where(sea, _SEA, elevation), nodata=_SEA)
        flow = pyflwdir.from_array(d8, ftype="d8", check_ftype=False)
        width = geobox.transform.a * KM_PER_DEGREE * np.sqrt(_stretch(geobox))
        # Cells count as equally large: exact areas matter little here, and cost seconds of compilation.
        area = np.maximum(flow.upstream_area("cell"), 0).ravel() * width**2
        factor = settings.incision * area**settings.area_exponent / width * (1 - calm.ravel())
        self.factor = (factor / (1 + factor / settings.incision_limit)).astype(np.float32)
        self.downstream, self.sequence = flow.idxs_ds, flow.idxs_seq
        self.settings, self.sea = settings, sea

    def breach(self, elevation):
        flat = elevation.ravel().copy()
        _breach(flat, self.downstream, self.sequence, np.float32(self.settings.breached_share))
        return flat.reshape(elevation.shape)

    def erode(self, elevation):
        flat = elevation.ravel().copy()
        _incise(flat, self.downstream, self.sequence, self.factor)
        smooth = ndimage.gaussian_filter(flat.reshape(elevation.shape), self.settings.diffusion, truncate=2)
        return np.where(self.sea, np.float32(0), smooth)


def _stretch(geobox):
    box = geobox.boundingbox
    return float(np.cos(np.radians((box.bottom + box.top) / 2)))


def pyramid(geobox, coarsest_arcsec):
    """Return grids of the same area, each twice as fine as the one before.

    Parameters
    ----------
    geobox : odc.geo.geobox.GeoBox
        The finest grid.
    coarsest_arcsec : float
        No grid is coarser than this, unless the finest is already.

    Returns
    -------
    list of odc.geo.geobox.GeoBox
        From coarse to fine; the last one has the upper left corner of `geobox` and is at least as large.
    """
    step = geobox.transform.a
    levels = max(0, int(np.floor(np.log2(coarsest_arcsec / 3600 / step + 1e-9))))
    rows, columns = (-(-n // 2**levels) for n in geobox.shape)
    corner = geobox.transform.c, geobox.transform.f
    grids = []
    for level in range(levels, -1, -1):
        size, factor = step * 2**level, 2 ** (levels - level)
        affine = Affine(size, 0, corner[0], 0, -size, corner[1])
        grids.append(GeoBox((rows * factor, columns * factor), affine, "EPSG:4326"))
    return grids


def make_relief(topography, coarse, geobox, land, settings, rng):
    """Return elevation on a fine grid.

    Parameters
    ----------
    topography : numpy.ndarray of float32, shape (y, x)
        Real elevation in m.
    coarse : odc.geo.geobox.GeoBox
        Its grid.
    geobox : odc.geo.geobox.GeoBox
        The grid that is wanted, inside the coarse one.
    land : sequence of shapely geometries
        Land in longitude and latitude; the sea is at 0 m.
    settings : testbed.settings.Relief
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray of float32, shape of `geobox`
        Elevation in m, rounded to 1/8 m.
    """
    grids = pyramid(geobox, settings.coarsest_arcsec)
    streams = rng.spawn(len(grids))
    rough = roughness(topography)
    calm = 1 / (1 + (rough / np.float32(settings.calm_roughness)) ** 2)
    rough = rough * (1 - calm)
    elevation = None
    for level, (grid, stream) in enumerate(zip(grids, streams, strict=True)):
        mesh, sea = Mesh(grid, coarse), _sea(grid, land)
        last = level == len(grids) - 1 and level > 0
        elevation = mesh.uplift(mesh.spread(topography), topography) if elevation is None else refine(elevation)
        share = settings.noise[min(level, len(settings.noise) - 1)]
        longest = settings.longest_arcmin / 60 / grid.transform.a if level == 0 else 4.0
        texture = _band(grid, stream, settings.hurst, longest, share)
        elevation += texture * (_valley_damped(elevation, rough, mesh) if last else mesh.spread(rough).clip(0))
        elevation[sea] = 0
        if not last:
            elevation = _carve(elevation, sea, grid, mesh, topography, mesh.spread(calm).clip(0, 1), settings, level)
    elevation = mesh.uplift(elevation, topography)[: geobox.shape[0], : geobox.shape[1]]
    sea = sea[: geobox.shape[0], : geobox.shape[1]]
    return np.where(
        sea, np.float32(0), np.rint(np.maximum(elevation, _LOWEST_LAND) * _ROUNDING) / np.float32(_ROUNDING)
    )


def _band(grid, rng, hurst, longest, share):
    """Return the fractal noise that a level of the pyramid adds, in units of the roughness at 5'."""
    wavelength = min(1.0, longest * grid.transform.a * 12)  # of 5'
    amplitude = np.float32(share * wavelength**hurst)
    return amplitude * fractal_noise(grid.shape, rng, hurst, longest, _stretch(grid))


def _valley_damped(elevation, rough, mesh):
    """Return the roughness, less on ground lower than around it: the last noise leaves valley floors even."""
    above = elevation - ndimage.uniform_filter(elevation, 9)
    scale = mesh.spread(rough).clip(1)
    return scale * (0.5 + 0.5 * np.tanh(2 * above / scale))


def _carve(elevation, sea, grid, mesh, topography, calm, settings, level):
    """Return the relief after routing and cycles of erosion and uplift."""
    for _ in range(settings.routings[min(level, len(settings.routings) - 1)]):
        valleys = _Valleys(elevation, sea, grid, settings, calm)
        elevation = valleys.breach(elevation)
        for _ in range(settings.cycles):
            elevation = mesh.uplift(valleys.erode(elevation), topography)
            elevation[sea] = 0
    return elevation


def _sea(geobox, land):
    return geometry_mask(land, out_shape=geobox.shape, transform=geobox.transform)
