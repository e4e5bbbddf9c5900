"""The rasters of a map, and reading them by windows."""

import contextlib

import rasterio

from helpers.core import classes
from helpers.core.errors import CompendiumError

_WINDOW = 1024  # cells along a side of the windows that totals are summed up by


class MapError(CompendiumError):
    """A map that cannot be made from these covariates and forests."""


def map_files(study):
    """Return the rasters of the map by name.

    The rasters of classes are named after what the target tells: ``ice_type_<layer>``, also of the target two_stage,
    ``permafrost_<layer>`` or ``ice_level_<layer>``.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    dict of str to pathlib.Path
    """
    folder = study.results_dir / "maps"
    kinds = (classes.TARGETS[study.target].file_name, "class_probability", "ice_content")
    names = [f"{kind}_{classes.layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: folder / f"{name}.tif" for name in [*names, "ice_storage"]}


def grid_windows(geobox):
    """Return the rows and columns of windows of a grid, always the same ones."""
    starts = [range(0, size, _WINDOW) for size in geobox.shape]
    ends = geobox.shape
    return [
        tuple(slice(start, min(start + _WINDOW, end)) for start, end in zip(corner, ends, strict=True))
        for corner in ((row, column) for row in starts[0] for column in starts[1])
    ]


@contextlib.contextmanager
def open_bands(paths):
    """Give opened rasters, as functions that read the first band of a window."""
    if missing := [path for path in paths if not path.is_file()]:
        raise MapError(f"There is no {missing[0].name} of this run.", "run 05-map-ground-ice, or what is before it")
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(rasterio.open(path)) for path in paths]
        yield [lambda part, source=source: source.read(1, window=part) for source in sources]


def layer_files(study, kind):
    """Return the rasters of one kind, layer by layer."""
    files = map_files(study)
    return [files[f"{kind}_{classes.layer_name(layer)}"] for layer in study.layers]
