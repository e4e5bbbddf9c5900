"""What a run leaves behind for people: the numbers of README and docs, from the run's files."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.accuracy.predictions import MAPS
from helpers.core.files import read_json, write_json, write_text
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.record.headline import read_headline
from launcher.chinese import in_chinese
from launcher.markdown import table, with_blocks
from launcher.records import require_whole
from launcher.region import paper_estimate
from launcher.stages import RunError, record_path, stages_of
from launcher.walk import blocks_of_walk

_BETWEEN = 60  # seconds at most between two notebooks of a run


def write_readme(path: str | Path) -> None:
    """Replace a study's results in README and docs by those of its last run.

    They stand between two lines with its name. The README, English and Chinese, has the headline
    numbers, which are copied to the study's figures; `docs/results.md` has the rest, and those of
    the last coverage study, if there is one; and a study of polygons may have a page of its own.
    RunError if a stage has not run, a file of the run is damaged, or a page has no such lines.
    """
    study = Study.open(path)
    require_whole(study)
    numbers = read_headline(study)
    others: dict[str, dict[str, str]] = {"results.md": {}}
    if study.samples.areas:
        lesson = blocks_of_walk(study, numbers)
        front = {study.name: lesson[study.name]}
        if (ROOT / "docs" / f"{study.name}.md").is_file():
            others[f"{study.name}.md"] = lesson
    else:
        seconds, total = _seconds(study)
        front = {study.name: _results(study, numbers), f"{study.name}-time": _time(total)}
        others["results.md"][f"{study.name}-run"] = _run(seconds, total, numbers)
        scale, place = ROOT / "docs" / "scale.md", f"{study.name}-region"
        if scale.is_file() and place in scale.read_text(encoding="utf-8"):
            others["scale.md"] = {place: paper_estimate(study)}
    if (coverage := ROOT / "results/batches/replicates/coverage.json").is_file():
        others["results.md"]["replicates"] = _coverage(read_json(coverage))
    pages = {
        ROOT / "README.md": front,
        ROOT / "README.zh-CN.md": {name: in_chinese(block) for name, block in front.items()},
        **{ROOT / "docs" / name: blocks for name, blocks in others.items() if blocks},
    }
    texts = {page: with_blocks(page, its_blocks) for page, its_blocks in pages.items()}
    write_json(ROOT / "figures" / study.name / "headline.json", numbers)
    for page, text in texts.items():
        write_text(page, text)


def _seconds(study: Study) -> tuple[dict[str, float], float]:
    """Return how long each notebook of a study took, s, and all of them by the clock.

    Some run side by side, and some may have run anew on another day. What lies between two of a
    run, such as the start of a process, counts.
    """
    records = {name: _read(record_path(study, name)) for name in stages_of(study)}
    seconds = {name: record["seconds"] for name, record in records.items()}
    ends = {
        name: datetime.fromisoformat(record["finished"]).timestamp()
        for name, record in records.items()
    }
    total, until = 0.0, 0.0
    for begin, end in sorted((ends[name] - seconds[name], ends[name]) for name in records):
        start = until if begin - until < _BETWEEN else begin
        total += max(0.0, end - start)
        until = max(until, end)
    return seconds, total


def _time(total: float) -> str:
    return f"`make map` takes {total / 60:.0f} min on 2 cores once its environment is there."


def _run(seconds: dict[str, float], total: float, numbers: dict[str, Any]) -> str:
    """Return how long the notebooks took, and what predictors there are."""
    shown = {f"`{name}`": one for name, one in seconds.items()}
    shown["all, some side by side"] = total
    rows = ({"notebook": name, "seconds on 2 cores": f"{s:.0f}"} for name, s in shown.items())
    return f"{table(rows)}\n\n{sentences(numbers)[0]}."


def _results(study: Study, numbers: dict[str, Any]) -> str:
    tables = study.results_dir / "tables"
    truth, rows = "", list(layer_rows(numbers))
    if (file := tables / "true_storage.json").is_file():
        true = read_json(file)["true_km3"]
        truth = f"; the truth over the same cells is {true:.0f} km3 of ice"
        _add_ceilings(tables, rows)
    parts = [
        "" if study.target == "ice_type" else f"Target: {study.target}.",
        table(rows),
        f"{sentences(numbers)[1]}{truth}. Version {numbers['version']}, code {numbers['code']}.",
    ]
    return "\n\n".join(part for part in parts if part)


def layer_rows(numbers: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Give a row a layer and map: test scores, and the estimate by mapped area."""
    for layer, parts in numbers["layers"].items():
        for name, title in MAPS.items():
            own = parts["maps"][name]
            test, best = (own["accuracy"][way] for way in ("test", "random_adjusted"))
            value, lower, upper = (
                best[f"overall_accuracy{end}"] for end in ("", "_lower", "_upper")
            )
            yield {
                "layer": layer,
                "map": title,
                "permafrost, 1000 km2": f"{own['permafrost_km2'] / 1000:.0f}",
                "overall accuracy of the test": f"{test['overall_accuracy']:.2f}",
                "kappa": f"{test['kappa']:.2f}",
                "accuracy by mapped area (90 % interval)": f"{value:.2f} ({lower:.2f}-{upper:.2f})",
            }


def _add_ceilings(tables: Path, rows: list[dict[str, str]]) -> None:
    """Add the accuracy of a forest that was shown the true cells to the rows of `layer_rows`."""
    table = pd.read_csv(tables / "true_accuracy.csv")
    best = table[(table["map"] == "ceiling") & (table["reference"] == "samples")]
    most = best.set_index("layer")["overall_accuracy"]
    for row in rows:
        row["by area, best case: a random forest of true cells"] = f"{most[row['layer']]:.2f}"


def sentences(numbers: dict[str, Any]) -> tuple[str, str]:
    """Return what the README says of the predictors, and of the total."""
    grid, total = numbers["predictors"], numbers["total"]
    cells = f"{grid['fewest_valid_cells']:,} to {grid['most_valid_cells']:,} valid cells"
    return (
        f"{grid['predictors']} predictors with {cells} of {grid['resolution_m']:g} m",
        f"Ground ice of the layers: {total['ice_km3']:.0f} km3 of ice "
        f"({total['water_km3']:.0f} km3 of water), {100 * total['interval']:.0f} % "
        f"interval {total['ice_km3_lower']:.0f} to {total['ice_km3_upper']:.0f}",
    )


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
    return f"{title} (`make batch SWEEP=replicates`):\n\n{table(rows)}"


def _read(path: Path) -> Any:
    if not path.is_file():
        raise RunError(f"There is no {path.name} of this study.", "run `make map` first")
    return read_json(path)
