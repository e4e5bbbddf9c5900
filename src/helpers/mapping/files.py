"""The files of a map, and reading its rasters by windows."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rasterio.io import DatasetReader

from helpers.core import classes
from helpers.core.errors import CompendiumError
from helpers.core.files import file_hash, short_hash
from helpers.core.rasters import reading
from helpers.core.study import Study

MISSING = 65535
"""No probability, in rasters and chunks of them."""


class MapError(CompendiumError):
    """A map that cannot be made or compared, or of which no interval or area follows."""


def map_files(study: Study) -> dict[str, Path]:
    """Return the rasters of the map by name.

    Those of classes have the name of the target: ``ice_type_<layer>``, ``permafrost_<layer>`` or
    ``ice_level_<layer>``; by the reference's method ``ice_type_reference_<layer>``.
    """
    folder = study.results_dir / "maps"
    name = study.target_classes.file_name
    kinds = [f"{name}_reference", name, "permafrost_probability", "class_probability"]
    kinds += ["ice_content", "ice_content_range"] if study.has_storage else []
    names = [f"{kind}_{classes.layer_name(layer)}" for layer in study.layers for kind in kinds]
    names += ["ice_storage"] if study.has_storage else []
    return {name: folder / f"{name}.tif" for name in names}


def layer_files(study: Study, kind: str) -> list[Path]:
    """Return the rasters of one kind, layer by layer."""
    files = map_files(study)
    return [files[f"{kind}_{classes.layer_name(layer)}"] for layer in study.layers]


def trust_files(study: Study) -> dict[str, Path]:
    """Return the rasters of `map_trust` by name."""
    folder = study.results_dir / "maps"
    kinds = ("dissimilarity_index", "expected_error", "point_density", "prediction_set")
    names = [f"{kind}_{classes.layer_name(layer)}" for layer in study.layers for kind in kinds]
    return {name: folder / f"{name}.tif" for name in [*names, "trust"]}


def difference_files(study: Study) -> dict[str, Path]:
    """Return the rasters of differences by the names of the other maps."""
    return {
        other.name: study.results_dir / "maps" / f"difference_{other.name.replace('-', '_')}.tif"
        for other in study.compare_with
    }


def interval_files(study: Study) -> dict[str, Path]:
    """Return the files of the interval by name: `table` as CSV, `record` as JSON."""
    folder = study.results_dir / "tables"
    return {"table": folder / "storage_interval.csv", "record": folder / "storage_interval.json"}


def drilling_files(study: Study) -> dict[str, Path]:
    """Return the files of advice on drilling by name: `table`, `layer`, `waypoints`, `record`."""
    folder = study.results_dir / "drilling"
    endings = {"table": "csv", "layer": "gpkg", "waypoints": "gpx", "record": "json"}
    return {name: folder / f"holes.{ending}" for name, ending in endings.items()}


def advised_from(study: Study) -> str:
    """Return a short hash of what advice on drilling rests on: samples, weights and interval."""
    tables = study.results_dir / "tables"
    names = [study.results_dir / "samples" / "samples.csv", tables / "applicability.json"]
    files = [*names, interval_files(study)["record"]]
    return short_hash([file_hash(path) if path.is_file() else "" for path in files])


@contextlib.contextmanager
def open_rasters(paths: Sequence[Path]) -> Iterator[list[DatasetReader]]:
    """Give opened rasters; MapError for a missing one, RasterError for a damaged one."""
    if missing := [path for path in paths if not path.is_file()]:
        raise MapError(
            f"There is no {missing[0].name} of this run.",
            "run 05-map-ground-ice, or what is before it",
        )
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(reading(path)) for path in paths]
