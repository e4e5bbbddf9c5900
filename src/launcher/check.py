"""What a study lacks, and what its run takes: said in seconds, before anything is computed."""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from helpers.core.classes import layer_name
from helpers.core.errors import CompendiumError
from helpers.core.files import read_json
from helpers.core.grid import area_mask, named_crs, reference_grid
from helpers.core.points import projected
from helpers.core.settings import OwnPredictor
from helpers.core.study import Study, relative_path
from helpers.mapping.files import map_files, trust_files
from helpers.prepare.domain import domain_covariates
from helpers.prepare.own import describe_own, own_at, read_own
from helpers.prepare.products import field_of, landsat_scenes, user_files
from helpers.prepare.registry import covariate_files, used_predictors
from helpers.samples.areas import datum_remarks, label_features
from helpers.samples.columns import SampleError
from helpers.samples.labels import label_layers
from helpers.samples.prevalence import describe, read_prevalence
from helpers.samples.readers import read_table
from helpers.samples.tables import find_problems, read_tables, table_paths
from launcher.run import show_stale
from launcher.stages import STAGES, RunError, fine_share, memory_mb, stages_of

_DEFAULT_CELLS = 1.44e6  # of the default study, inside its area

_LEAST_SECONDS = 10  # of a stage, however small the grid is

_USUAL_SHARE = 0.5  # of the seconds that stages may take

_SCENE_SECONDS = 0.5  # of a Landsat scene in cells of 250 m; 1,170 of them took 573 s

_BY_CELLS = 300  # MB a million cells: stages that need more take longer on larger grids

_MOST_CODES = 30  # whole numbers that look like categories

_MOST_PLACES = 3000  # are looked up in each raster

Problems = list[CompendiumError]


def check_study(path: str | Path, full: bool = False) -> int:
    """Print what a study has and lacks, what its run takes, and which stages would run.

    `full` adds the stages of ``make full``. All problems are told at once, a line each; returns how
    many there are. RunError as from `launcher.run.show_stale`, after all that.
    """
    study, problems = Study.open(path), Problems()
    missing = {name: file for name, file in _user_files(study) if not file.exists()}
    for name, file in missing.items():
        message = f"There is no {relative_path(file)}, which `{name}` names."
        problems.append(RunError(message, "put it there, or correct its path in the study file"))
    geobox = None
    if "area.polygons" not in missing:
        with _noted(problems):
            geobox = reference_grid(study)
            _show_all(study, geobox, set(missing), problems, full)
    told = list(dict.fromkeys(f"problem: {one.message} Remedy: {one.remedy}" for one in problems))
    for line in told:
        print(line)
    if geobox and not told:
        show_stale(path, full)
    return len(told)


def _show_all(
    study: Study, geobox: GeoBox, missing: Set[str], problems: Problems, full: bool
) -> None:
    """Print all that does not need the files of the missing settings."""
    cells = int(area_mask(study, geobox).sum())
    sides = f"{geobox.shape[0]} rows x {geobox.shape[1]} columns of {study.grid.resolution:g} m"
    crs = named_crs(study.grid.crs).name
    print(f"grid: {sides}, {crs}; {cells:,} cells in the area")
    _show_open_data(study)
    there = study.open_data_list.is_file()
    own = [
        one
        for one in study.own_predictors
        if f"predictors.{one.name}" not in missing and (there or isinstance(one.file, str))
    ]
    own = _show_predictors(study, geobox, own, problems)
    places = _show_samples(study, missing, problems)
    _show_coverage(study, geobox, own, places, problems)
    for needed in (used_predictors, domain_covariates):
        with _noted(problems):
            needed(study)
    _show_costs(study, geobox, cells, full)


@contextmanager
def _noted(problems: Problems) -> Iterator[None]:
    """Take down a problem instead of stopping."""
    try:
        yield
    except CompendiumError as error:
        problems.append(error)


def _user_files(study: Study) -> Iterator[tuple[str, Path]]:
    """Yield the setting that names a file of the user, and the file or folder."""
    named = {"area.polygons": study.area.polygons}
    kinds = ("sites", "intervals", "points", "areas", "permafrost_mask", "prevalence")
    named |= {f"samples.{kind}": getattr(study.samples, kind) for kind in kinds}
    own = {f"predictors.{one.name}": one.file for one in study.own_predictors}
    named |= {name: file for name, file in own.items() if isinstance(file, str)}
    named |= {f"compare_with.{one.name}": one.file for one in study.compare_with}
    yield from ((name, study.path(file)) for name, file in named.items() if file)
    for name, file in user_files(study).items():
        yield f"source.{field_of(name)}", file


def _show_open_data(study: Study) -> None:
    """Print a line for each setting of open data, and how much of it is there; asks no server."""
    rows = []
    for setting, one in study.open_data.items():
        place = urlsplit(one.address or study.source.api).netloc
        years = "-".join(map(str, dict.fromkeys(one.years or ())))
        rows.append([f"{setting}:", one.collection or "", f"from {place}", years, one.licence])
    print_rows("open data", rows)
    if not rows:
        return
    if study.open_data_list.is_file():
        parts = read_json(study.open_data_list)["parts"]
        size = sum(part["bytes"] for part in parts) / 1e6
        there = sum((study.raw_dir / part["file"]).is_file() for part in parts if part["bytes"])
        beside = sum(not part["bytes"] for part in parts)
        print(f"open data: {there + beside:,} of {len(parts):,} files are there, {size:,.0f} MB")
    else:
        print(
            f"open data: not all fetched; 00-open-data lists them, with sizes and hours at "
            f"{study.compute.bandwidth:g} Mbit/s, and fetches them"
        )


def _show_predictors(
    study: Study, geobox: GeoBox, own: Sequence[OwnPredictor], problems: Problems
) -> list[OwnPredictor]:
    """Print a line a predictor; return those without a problem."""
    rows, good, codes = [], [], []
    for one in own:
        with _noted(problems):
            facts = describe_own(study, one, geobox)
            if facts["minimum"] is None:
                read_own(study, one, geobox)  # says why it has no value
            as_is = facts["resampling"] == "none"
            row = {
                "name": f"{one.name}:",
                "kind": one.kind,
                "files": f"{facts['files']} file{'s' if facts['files'] > 1 else ''}",
                "cells": f"cells of {facts['cell_size']}",
                "crs": facts["crs"],
                "how": "taken as is" if as_is else f"resampled ({facts['resampling']})",
                "range": f"{facts['minimum']:g} to {facts['maximum']:g} {facts['unit']}",
                "share": f"{facts['share_of_grid']:.0%} of the grid",
            }
            rows.append(list(row.values()))
            good.append(one)
            if one.kind == "number" and not as_is and 1 < facts["codes"] <= _MOST_CODES:
                codes.append(f"{one.name} has {facts['codes']} whole numbers, which are averaged")
    print_rows("predictor", rows)
    for text in codes:
        print(f"remark: {text}; if they are codes of categories, write `kind: category`")
    return good


def _show_samples(study: Study, missing: Set[str], problems: Problems) -> pd.DataFrame:
    """Print how many samples there are; return longitude and latitude of their places."""
    found = []
    cores = study.has_boreholes and not STAGES["testbed/2-boreholes"].applies(study)
    if cores and not {"samples.sites", "samples.intervals"} & missing:
        with _noted(problems):
            severity, path = find_problems(study)["severity"], table_paths(study)[0]
            errors = (severity == "error").sum()
            number = len(read_table(path, path.name, "sites", study.samples.epsg).text)
            print(
                f"samples: {number} sites in {path.name}; "
                f"{errors} errors and {len(severity) - errors} remarks in the tables"
            )
            if errors:
                message = f"The tables of boreholes have errors: {errors}."
                raise SampleError(message, "correct them: `python -m launcher tables` lists all")
            sites, intervals, _ = read_tables(study)
            found.append(sites)
            labels = label_layers(study, sites, intervals)[0]
            print_rows("samples", units_by_class(study, labels.assign(group=labels["site_id"])))
    for kind, other in (("points", "areas"), ("areas", "points")):
        if getattr(study.samples, kind) and f"samples.{kind}" not in missing:
            with _noted(problems):
                alone = study.changed({f"samples.{other}": ""})  # whose problem would hide this
                labels = label_features(alone, np.random.default_rng(study.samples.seed))
                found.append(labels[labels["ice_type"].notna()])
                print_rows(f"samples.{kind}", units_by_class(study, found[-1]))
                for text in datum_remarks(alone):
                    print(f"remark: {text}")
    if study.samples.prevalence and "samples.prevalence" not in missing:
        with _noted(problems):
            print(f"samples: {describe(read_prevalence(study))}")
    places = [table[["longitude", "latitude"]] for table in found]
    return pd.concat([pd.DataFrame(columns=["longitude", "latitude"]), *places]).drop_duplicates()


def units_by_class(study: Study, labels: pd.DataFrame) -> list[list[str]]:
    """Return a row a layer and class: their names, numbers of units and of samples."""
    rows = []
    for layer in map(layer_name, study.layers):
        for kind in study.sample_types:
            groups = labels.loc[
                (labels["layer"] == layer) & (labels["ice_type"] == kind.code), "group"
            ]
            numbers = f"{groups.nunique()} units", f"{len(groups)} samples"
            rows.append([layer, f"{kind.name}:", *numbers])
    return rows


def _show_coverage(
    study: Study,
    geobox: GeoBox,
    own: Sequence[OwnPredictor],
    places: pd.DataFrame,
    problems: Problems,
) -> None:
    """Print how many places of samples have a value of each own predictor."""
    some = places.iloc[:: max(1, -(-len(places) // _MOST_PLACES))].astype(float)
    easting, northing = projected(some["longitude"], some["latitude"], named_crs(study.grid.crs))
    lost = {}
    for one in own:
        with _noted(problems):
            lost[one.name] = np.isnan(own_at(study, one, geobox, (easting, northing)))
    if not (len(some) and lost):
        return
    worst = max(lost, key=lambda name: lost[name].sum())
    kept = len(some) - np.any(list(lost.values()), axis=0).sum()
    most = f"; {worst} loses most, {lost[worst].sum()}" if kept < len(some) else ""
    print(f"samples: {kept} of {len(some)} places have a value of all own predictors{most}")


def _show_costs(study: Study, geobox: GeoBox, cells: int, full: bool) -> None:
    """Print about how long a run takes, and its memory and disk."""
    stages, growth = stages_of(study, full=full), cells / _DEFAULT_CELLS
    stages = [name for name in stages if name != "00-open-data"]  # it depends on the network
    seconds = sum(
        max(_LEAST_SECONDS, one.seconds * growth * fine_share(study, one.name))
        if one.memory_mb[1] > _BY_CELLS
        else one.seconds
        for one in map(STAGES.__getitem__, stages)
    )
    listed = not study.open_data or study.open_data_list.is_file()
    days = landsat_scenes(study) if listed else {}
    seconds = _USUAL_SHARE * seconds + _SCENE_SECONDS * sum(map(len, days.values()))
    memory = max(memory_mb(study, name) for name in stages)
    maps = [*map_files(study), *trust_files(study)]
    probabilities = sum(name.startswith("class_probability") for name in maps)
    bands = len(maps) + probabilities * (len(study.target_classes.codes) - 1)
    size = np.prod(geobox.shape) * (len(covariate_files(study)) + bands) * 4 / 1e6
    about = f"about {max(1, round(seconds / 60))} min on 2 cores, at most {memory:,} MB of memory"
    about = f"then {about}" if study.open_data else about
    about += "" if listed else f" (and {_SCENE_SECONDS} s a Landsat scene)"
    print(f"run: {about}, about {size:,.0f} MB of disk for covariates and maps")


def print_rows(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows as aligned columns, each after a title."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"{title} {line.rstrip()}")
