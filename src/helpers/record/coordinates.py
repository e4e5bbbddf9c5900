"""What a record gives away of where samples lie: positions as they are, rounded, or none.

A position stands not only in the columns of coordinates. The values of the predictors at a site,
or its distance from the samples, tell its cell to whoever has the same rasters; its name may be
that of a village or a kilometre of a road.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.core.files import short_hash
from helpers.core.grid import reference_grid
from helpers.core.rasters import reading, write_raster
from helpers.core.study import Study
from helpers.mapping.applicability import hide_samples
from helpers.mapping.files import trust_files
from helpers.samples.store import SAMPLE_COLUMNS

DIGITS = 1
"""Decimal digits of a rounded coordinate in degrees: some 10 km."""

_POSITIONS = ["longitude", "latitude"]
_PLACES = {*_POSITIONS, "easting", "northing"}


def published_samples(study: Study) -> dict[str, pd.DataFrame]:
    """Return the tables of samples as they may be published, by file name.

    Unless positions are published as they are, sites have numbers in place of their names, in an
    order that tells nothing; predictors, own columns and scores of single samples are left out.
    """
    folder = study.results_dir
    names = {"samples": folder / "samples/samples.csv", "fates": folder / "samples/fates.csv"}
    if study.publishes_sites:
        names["residuals"] = folder / "tables/residuals.csv"
    text = {"site_id": str, "group": str}
    tables = {n: pd.read_csv(path, dtype=text) for n, path in names.items() if path.is_file()}
    if study.publishes_sites:
        return tables
    sites = pd.concat([table["site_id"] for table in tables.values()]).unique()
    numbers = _numbers(study, sites)
    groups = _numbers(study, tables["samples"]["group"].unique())
    return {name: _hidden(study, table, numbers, groups) for name, table in tables.items()}


def _numbers(study: Study, names: np.ndarray) -> Mapping[str, int]:
    """Return a number for each name, in an order that comes from hashes of all names."""
    order = sorted(names, key=lambda name: short_hash([study.key, list(names), name], 32))
    return {name: number for number, name in enumerate(order, start=1)}


def _hidden(
    study: Study, table: pd.DataFrame, sites: Mapping[str, int], groups: Mapping[str, int]
) -> pd.DataFrame:
    kept = table[[name for name in table if name in {*SAMPLE_COLUMNS, "fate", "layers"}]].copy()
    kept["site_id"] = kept["site_id"].map(sites)
    if "group" in kept:
        kept["group"] = kept["group"].map(groups)
    if study.record.publish_coordinates == "rounded":
        kept = kept.drop(columns=["easting", "northing"], errors="ignore")
        positions = [name for name in _POSITIONS if name in kept]
        kept[positions] = kept[positions].round(DIGITS)
    else:
        kept = kept.drop(columns=[name for name in kept if name in _PLACES])
    return kept.sort_values(["site_id", *(["layer"] if "layer" in kept else [])])


def copy_hidden(study: Study, path: Path, target: Path) -> None:
    """Write a raster of dissimilarity so that its lowest values no longer mark the samples."""
    with reading(path) as source:
        bands = source.read()
        described = {
            "names": source.descriptions,
            "units": source.units,
            "long_names": [source.tags(band)["long_name"] for band in source.indexes],
        }
    tags = {"lowest_tenth": "set to one value, so that it does not mark the samples"}
    hidden, geobox = hide_samples(bands), reference_grid(study)
    write_raster(target, hidden, geobox, study=study, tags=tags, overviews="average", **described)


def marks_samples(study: Study, path: Path) -> bool:
    """Return whether a raster marks the cells of samples, and may not be published as it is."""
    dissimilarity = {
        file for name, file in trust_files(study).items() if name.startswith("dissimilarity_index")
    }
    return not study.publishes_sites and path in dissimilarity
