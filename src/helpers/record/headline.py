"""The headline numbers of a run in one file, which README, figures and record read."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import __version__
from helpers.accuracy.predictions import MAPS
from helpers.core.classes import NO_TYPE, layer_name
from helpers.core.code import package_digest
from helpers.core.errors import CompendiumError
from helpers.core.files import read_json, write_json
from helpers.core.grid import area_mask, cell_areas, grid_windows, reference_grid
from helpers.core.ice import ICE_DENSITY, WATER_DENSITY
from helpers.core.study import Study
from helpers.mapping.files import interval_files, map_files, open_rasters
from helpers.samples.store import read_samples

ESTIMATES = ("test", "random", "random_adjusted", "blocks", "cells")
"""The estimates of accuracy that are headline numbers; see `helpers.accuracy.estimates`."""

_SCORES = (
    "n", "overall_accuracy", "overall_accuracy_lower", "overall_accuracy_upper", "kappa",
    "kappa_lower", "kappa_upper",
)  # fmt: skip

_KINDS = dict(zip(MAPS, ("_reference", ""), strict=True))
"""What the name of a raster of classes has after the target's name, by map."""


class RecordError(CompendiumError):
    """A record that cannot be made from what there is."""


def headline_path(study: Study) -> Path:
    """Return the file of a run's headline numbers."""
    return study.results_dir / "tables" / "headline.json"


def read_headline(study: Study) -> dict[str, Any]:
    """Return a run's headline numbers; RecordError if the run has none."""
    return _read(headline_path(study))


def write_headline(study: Study) -> dict[str, Any]:
    """Write and return the headline numbers of a run, from its tables and maps.

    Returns
    -------
    numbers
        The keys `study`, `title`, `run`, `label`, `version` and `code`; `domain`, for which
        accuracy is given, and `interval`, the probability of all intervals of accuracy;
        `predictors`, with their number and valid cells; `area`, km2 of the study area, and of it
        without data in any layer; `total`, ice of all layers with its interval, or None where
        the study has no ice contents; and `layers`. Each layer has its `samples` and independent
        `groups` by part of the split, the share of the domain outside the area of applicability,
        its ice, and two `maps`: the area with permafrost of each, and for each of `ESTIMATES` that
        there is the number of samples and scores with the ends of their interval.
    """
    storage = _read(study.results_dir / "tables" / "storage.json") if study.has_storage else {}
    summary = _read(study.processed_dir / "summary.json")
    counted = ("resolution_m", "predictors", "fewest_valid_cells", "most_valid_cells")
    permafrost, area = _areas(study)
    numbers = {
        "study": study.name,
        "title": study.title,
        "run": study.run,
        "label": study.label,
        "version": __version__,
        "code": package_digest(),
        "domain": study.domains[-1],
        "interval": study.accuracy.interval,
        "predictors": {key: summary[key] for key in counted},
        "area": area,
        "total": _total(study, storage) if storage else None,
        "layers": {
            layer: _layer(study, layer, storage) | {"maps": _maps(study, layer, permafrost)}
            for layer in map(layer_name, study.layers)
        },
    }
    write_json(headline_path(study), numbers)
    return read_headline(study)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise RecordError(f"There is no {path.name} of this run.", "run `make map` first")
    return read_json(path)


def _areas(study: Study) -> tuple[dict[str, float], dict[str, float]]:
    """Return the permafrost of each raster of classes, km2 by file name; and the study area."""
    geobox = reference_grid(study)
    inside = area_mask(study, geobox)
    target = study.target_classes
    layers = map(layer_name, study.layers)
    names = [f"{target.file_name}{kind}_{one}" for one in layers for kind in _KINDS.values()]
    sums = np.zeros(2 + len(names))  # of the study area, of what is mapped, of permafrost
    with open_rasters([map_files(study)[name] for name in names]) as maps:
        for part in grid_windows(geobox):
            area = cell_areas(geobox, part)
            codes = [source.read(1, window=part) for source in maps]
            complete = inside[part] & np.all([code != NO_TYPE for code in codes], axis=0)
            frozen = [~np.isin(code, [*target.free, NO_TYPE]) for code in codes]
            sums += [area[cells].sum() for cells in (inside[part], complete, *frozen)]
    whole, mapped, *frozen = sums.tolist()
    permafrost = dict(zip(names, frozen, strict=True))
    area = {"km2": whole, "no_data_km2": whole - mapped, "no_data_share": 1 - mapped / whole}
    return permafrost, area


def _total(study: Study, storage: dict[str, Any]) -> dict[str, Any]:
    """Return the ice of all layers, its interval, and what it assumes of the sites."""
    whole = storage["regions"]["all"]
    interval = _read(interval_files(study)["record"])
    ends = interval["regions"]["all"]
    return {
        "depth_m": storage["depth_m"],
        "ice_km3": whole["ice_km3"],
        "ice_km3_lower": ends["lower"],
        "ice_km3_upper": ends["upper"],
        "interval": interval["probability"],
        "water_km3": whole["water_km3"],
        "sites": storage["sites"],
    }


def _layer(study: Study, layer: str, storage: dict[str, Any]) -> dict[str, Any]:
    """Return samples, trust and ice of one layer."""
    samples = read_samples(study).query("layer == @layer")
    trust = pd.read_csv(study.results_dir / "tables" / "applicability.csv")
    outside = trust.query("layer == @layer and `group` == 'outside'")["share"].sum()
    numbers = {
        "samples": samples["split"].value_counts().sort_index().to_dict(),
        "groups": samples.groupby("split")["group"].nunique().to_dict(),
        "outside_applicability_share": outside,
    }
    if storage:
        numbers["ice_km3"] = storage["regions"]["all"][f"ice_km3_{layer}"]
        numbers["water_km3"] = numbers["ice_km3"] * ICE_DENSITY / WATER_DENSITY
    return numbers


def _maps(study: Study, layer: str, permafrost: dict[str, float]) -> dict[str, Any]:
    """Return permafrost area and accuracy of both maps of a layer."""
    validation = _read(study.results_dir / "tables" / "validation.json")
    maps = {}
    for name, kind in _KINDS.items():
        estimates = validation[name][layer][study.domains[-1]]
        maps[name] = {
            "permafrost_km2": permafrost[f"{study.target_classes.file_name}{kind}_{layer}"],
            "accuracy": {
                one: {key: estimates[one]["samples"][key] for key in _SCORES}
                for one in ESTIMATES
                if one in estimates
            },
        }
    return maps
