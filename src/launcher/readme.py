"""What a run leaves behind for people: the numbers of the README, read from the run's own files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.accuracy.estimates import ESTIMATES
from helpers.accuracy.predictions import MAPS
from helpers.core.files import read_json, write_text
from helpers.core.settings import ROOT
from helpers.core.study import DOMAINS, Study
from helpers.samples.store import read_samples
from launcher.stages import RunError, record_path, stages_of

_SHOWN = ("test", "random", "blocks", "cells")  # estimates of a study with polygons


def write_readme(path: str | Path) -> None:
    """Replace a study's results in the README by those of its last run.

    They stand between two lines with its name. Those of the last coverage study are replaced, too,
    if there is one. RunError if a stage has not run, or the README has no such lines.
    """
    study = Study.open(path)
    readme = ROOT / "README.md"
    blocks = {study.name: _polygons(study) if study.samples.areas else _results(study)}
    if (coverage := ROOT / "results/batches/replicates/coverage.json").is_file():
        blocks["replicates"] = _coverage(read_json(coverage))
    text = readme.read_text(encoding="utf-8")
    for name, results in blocks.items():
        opening, closing = f"<!-- {name}:begin", f"<!-- {name}:end -->"
        begin, end = text.find(opening), text.find(closing)
        if begin < 0 or end < begin:
            message = f"{readme.name} has no place for the results of {name}."
            raise RunError(message, f"put the lines `{opening} -->` and `{closing}` into it")
        head = text[: text.index("\n", begin) + 1]
        text = f"{head}{results}\n{text[end:]}"
    write_text(readme, text)


def _polygons(study: Study) -> str:
    """Return the accuracy of a study with polygons: by whole ones first, then by single cells."""
    samples = read_samples(study)
    estimates = _read(study.results_dir / "tables" / "validation.json")["reference"]
    (layer, domains), *_ = estimates.items()
    estimates = domains[study.domains[-1]]
    samples = samples[samples["layer"] == layer]
    rows = []
    for name in (name for name in _SHOWN if name in estimates):
        split = "test" if name == "test" else "train"
        scores = estimates[name]["samples"]
        ends = f"{scores['kappa_lower']:.2f} to {scores['kappa_upper']:.2f}"
        rows.append(
            {
                "accuracy on": ESTIMATES[name],
                "polygons": str(samples.loc[samples["split"] == split, "group"].nunique()),
                "cells": str(scores["n"]),
                "overall accuracy": f"{scores['overall_accuracy']:.2f}",
                "kappa (90 % interval)": f"{scores['kappa']:.2f} ({ends})",
            }
        )
    more = estimates["cells"]["samples"]["kappa"] - estimates["random"]["samples"]["kappa"]
    seconds = sum(_read(record_path(study, name))["seconds"] for name in stages_of(study))
    note = (
        "Test samples and random folds are whole polygons. Folds of single cells part them, which "
        f"makes kappa {more:.2f} higher: neighbouring cells of one polygon are no independent "
        f"evidence. All notebooks together take {seconds:.0f} s on 2 cores."
    )
    return f"{_table(rows)}\n\n{note}"


def _results(study: Study) -> str:
    tables = study.results_dir / "tables"
    records = {name: _read(record_path(study, name)) for name in stages_of(study)}
    seconds = {f"`{name}`": record["seconds"] for name, record in records.items()}
    seconds["all"] = sum(seconds.values())
    summary = _read(study.processed_dir / "summary.json")
    cells = f"{summary['fewest_valid_cells']:,} to {summary['most_valid_cells']:,} valid cells"
    last = list(records.values())[-1]
    parts = [
        _table({"notebook": name, "seconds on 2 cores": f"{s:.0f}"} for name, s in seconds.items()),
        f"{summary['predictors']} predictors with {cells} of {summary['resolution_m']:g} m.",
        "" if study.target == "ice_type" else f"Target: {study.target}.",
        _table(_layers(tables)),
        f"{_total(tables)}. Version {last['version']}, code {last['code_digest']}.",
    ]
    return "\n\n".join(part for part in parts if part)


def _layers(tables: Path) -> Iterator[dict[str, str]]:
    """Give a row a layer and map: test scores, the estimate by mapped area, and the ceiling."""
    maps = _read(tables / "validation.json")
    areas = pd.read_csv(tables / "class_areas.csv")
    ceilings = tables / "true_accuracy.csv"
    ceilings = pd.read_csv(ceilings) if ceilings.is_file() else pd.DataFrame({"map": []})
    ceilings = ceilings[ceilings["map"] == "ceiling"]
    domain = DOMAINS[1]
    for layer in maps["reference"]:
        for name, title in MAPS.items():
            scores = maps[name][layer][domain]
            test, best = (scores[way]["samples"] for way in ("test", "random_adjusted"))
            value, lower, upper = (
                best[f"overall_accuracy{end}"] for end in ("", "_lower", "_upper")
            )
            own = areas[(areas["map"] == name) & (areas["layer"] == layer)]
            frozen = own.query(f"domain == '{domain}' and `class` > 0")["mapped_km2"].sum()
            row = {
                "layer": layer,
                "map": title,
                "permafrost, 1000 km2": f"{frozen / 1000:.0f}",
                "overall accuracy of the test": f"{test['overall_accuracy']:.2f}",
                "kappa": f"{test['kappa']:.2f}",
                "accuracy by mapped area (90 % interval)": f"{value:.2f} ({lower:.2f}-{upper:.2f})",
            }
            best = ceilings[ceilings.get("layer") == layer] if len(ceilings) else ceilings
            if len(best):
                most = best.set_index("reference").loc["samples", "overall_accuracy"]
                row["by area, a forest shown the true cells"] = f"{most:.2f}"
            yield row


def _total(tables: Path) -> str:
    whole = _read(tables / "storage.json")["regions"]["all"]
    interval = _read(tables / "storage_interval.json")
    ends = interval["regions"]["all"]
    text = f"Ground ice of the layers: {whole['ice_km3']:.0f} km3 of ice "
    text += f"({whole['water_km3']:.0f} km3 of water), {100 * interval['probability']:.0f} % "
    text += f"interval {ends['lower']:.0f} to {ends['upper']:.0f}"
    truth = tables / "true_storage.json"
    if truth.is_file():
        text += f"; the truth over the same cells is {read_json(truth)['true_km3']:.0f} km3 of ice"
    return text


def _coverage(record: dict[str, Any]) -> str:
    """Return the result of a coverage study (`make batch SWEEP=replicates`)."""
    bias = pd.DataFrame(record["bias"]).query("score == 'overall_accuracy' and truth == 'holes'")
    bias = bias[(bias["map"] == "expected") & (bias["estimate"] == "random_adjusted")]
    best = bias.set_index("design")
    total = pd.DataFrame(record["total"])
    regions = total[(total["of"] != "all") & (total["true_km3"] > 5)]
    regions = regions[regions["given"] > regions["replicates"] / 2]  # layers have none
    regions = regions.groupby("design")["holds"]
    total = total[total["of"] == "all"].set_index("design").rename_axis("sites")
    unsampled = pd.DataFrame(record["withheld"]).set_index("design")
    difference, share = "{:+.3f}".format, "{:.0f} %".format
    low, high = (100 * getattr(regions, end)() for end in ("min", "max"))
    columns = {
        "worlds": total["replicates"].map(str),
        "accuracy by mapped area, less true": best["bias"].map(difference),
        "its 90 % intervals that hold": (100 * best["holds"]).map(share),
        "bias of the total": (100 * total["bias"]).map("{:+.1f} %".format),
        "the total's 90 % intervals that hold": (100 * total["holds"]).map(share),
        "those of regions above 5 km3": low.map("{:.0f}".format) + "-" + high.map(share),
        "ice where there is no permafrost": (100 * total["in_permafrost_free_cells"]).map(
            "{:.1f} %".format
        ),
        "error of a cell, m of ice": total["rmse_m"].map("{:.2f}".format),
        "worlds that err more where never sampled": (100 * unsampled["higher"]).map(share),
    }
    rows = pd.DataFrame(columns, index=total.index).reset_index().to_dict("records")
    title = "Estimated against true over hidden worlds drawn anew, on the coarse grid"
    return f"{title} (`make batch SWEEP=replicates`):\n\n{_table(rows)}"


def _table(rows: Iterable[Mapping[Any, str]]) -> str:
    """Return a table in Markdown, with the keys of rows as its heads."""
    rows = list(rows)
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], *(one.values() for one in rows))]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _read(path: Path) -> Any:
    if not path.is_file():
        raise RunError(f"There is no {path.name} of this study.", "run `make map` first")
    return read_json(path)
