"""The rasters of a record: ice by depth layer as the reference has it, and all other maps."""

import shutil
from pathlib import Path

import numpy as np

from helpers.core import ice, qgis
from helpers.core.classes import layer_name
from helpers.core.grid import grid_windows, reference_grid
from helpers.core.rasters import open_raster
from helpers.core.study import Study
from helpers.mapping.cells import study_ground
from helpers.mapping.files import (
    difference_files,
    layer_files,
    map_files,
    open_rasters,
    trust_files,
)
from helpers.record.coordinates import copy_hidden, marks_samples


def copy_maps(study: Study, folder: Path) -> None:
    """Write all rasters of a record, each with its QGIS style, into a folder."""
    folder.mkdir(parents=True)
    made = {**map_files(study), **trust_files(study), **difference_files(study)}
    for path in made.values():
        if marks_samples(study, path):
            copy_hidden(study, path, folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
        for beside in (path.with_suffix(".qml"), path.with_name(f"{path.name}.aux.xml")):
            if beside.is_file():
                shutil.copyfile(beside, folder / beside.name)
    if study.has_storage:
        _write_layers(study, folder)


def _write_layers(study: Study, folder: Path) -> None:
    """Write the ice of each depth layer, m: the rasters that the reference data set has.

    Together they are the first band of ``ice_storage.tif``.
    """
    geobox = reference_grid(study)
    for layer, content in zip(study.depths, layer_files(study, "ice_content"), strict=True):
        path = folder / f"ground_ice_{layer_name(layer)}.tif"
        described = {
            "names": "ground_ice",
            "units": "m",
            "long_names": f"thickness of ground ice between {layer[0]:g} and {layer[1]:g} m below "
            "the surface",
            "overviews": "average",
        }
        highest = 0.0
        with (
            open_rasters([content]) as (source,),
            open_raster(path, geobox, 1, "float32", study=study, **described) as target,
        ):
            for part in grid_windows(geobox):
                fraction = study_ground(study, part).holds(source.read(1, window=part), layer)
                thickness = ice.thickness([fraction], [layer])
                highest = np.nanmax(thickness, initial=highest)
                target.write(thickness.astype(np.float32), 1, window=part)
        qgis.write_ramp_style(path, float(highest) or 1.0, "m")
