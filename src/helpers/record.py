"""What a run leaves behind for people: the summary of its covariates, and the numbers of the README."""

import json

from helpers.digest import write_text
from helpers.errors import CompendiumError
from helpers.study import ROOT

BEGIN, END = "<!-- results:begin", "<!-- results:end -->"


class RecordError(CompendiumError):
    """A record that is missing, or a README without a place for it."""


def write_summary(study, coverage, frost_area, correlation):
    """Write the headline numbers of the covariates as JSON beside them.

    Parameters
    ----------
    study : helpers.study.Study
    coverage : pandas.DataFrame
        From `helpers.covariates.registry.coverage_table`.
    frost_area : float
        Area with an air frost number of at least 0.5, 10^4 km2.
    correlation : float
        Of NDWI with NDVI.

    Returns
    -------
    dict
    """
    from helpers.grid import reference_grid

    predictors = coverage[coverage["role"] == "predictor"]
    grid = reference_grid(study)
    summary = {
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "resolution_m": study.grid.resolution,
        "predictors": len(predictors),
        "fewest_valid_cells": int(predictors["valid_cells"].min()),
        "most_valid_cells": int(predictors["valid_cells"].max()),
        "frost_area_1e4_km2": round(frost_area, 2),
        "correlation_ndwi_ndvi": round(correlation, 3),
    }
    write_text(study.processed_dir / "summary.json", json.dumps(summary, indent=1))
    return summary


def readme_block(study):
    """Return the README's results as Markdown, read from the records of the study's last run.

    Parameters
    ----------
    study : helpers.study.Study

    Returns
    -------
    str

    Raises
    ------
    RecordError
        A stage has not run.
    """
    raw = _read(study.raw_dir / "00-virtual-landscape.json")
    processed, summary = (
        _read(study.processed_dir / "01-prepare-data.json"),
        _read(study.processed_dir / "summary.json"),
    )
    size = sum(path.stat().st_size for path in study.raw_dir.rglob("*.tif")) / 1e6
    cells = f"{summary['fewest_valid_cells']:,} to {summary['most_valid_cells']:,}"
    rows = [
        ("`00-virtual-landscape`", raw["seconds"], f"raw rasters of the whole study area, {size:.0f} MB"),
        (
            "`01-prepare-data`",
            processed["seconds"],
            f"{summary['predictors']} predictors with {cells} valid cells of {summary['resolution_m']:g} m",
        ),
    ]
    lines = ["| notebook | seconds on 2 cores | makes |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.0f} | {text} |" for name, seconds, text in rows]
    made = f"Version {processed['version']}, code {processed['code_digest']}."
    frost = (
        f"From the committed ERA5 means, {summary['frost_area_1e4_km2']:g} x 10^4 km2 have an air frost number >= 0.5."
    )
    return "\n".join([*lines, "", f"{frost} {made}"])


def write_readme(study, path=ROOT / "README.md"):
    """Replace the results in the README by those of the study's last run."""
    text = path.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise RecordError(f"{path.name} has no place for results.", f"put the lines `{BEGIN} -->` and `{END}` into it")
    head = text[: text.index("\n", begin) + 1]
    write_text(path, f"{head}{readme_block(study)}\n{text[end:]}")


def _read(path):
    if not path.is_file():
        raise RecordError(f"There is no {path.name} of this study.", "run `make map` first")
    return json.loads(path.read_text(encoding="utf-8"))
