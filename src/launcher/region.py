"""What a region of a billion cells would take, on paper, by what the last run took a cell."""

from collections.abc import Iterator
from pathlib import Path

from helpers.core.files import read_json
from helpers.core.study import Study
from helpers.record.headline import read_headline
from launcher.markdown import table
from launcher.stages import executed_path, record_path, stage_outputs

CELLS = 1.6e9
"""Northeast China at 30 m."""

_MAP = "05-map-ground-ice"


def paper_estimate(study: Study) -> str:
    """Return in Markdown what a run's parts would take of time and disk for `CELLS` cells.

    Seconds are those of the last run's notebooks, and within that of the map of the cells that call
    `map_layer` and `map_trust`. All of them count as growing with the map, so that hours are rather
    too many.
    """
    cells = read_headline(study)["predictors"]["most_valid_cells"]
    rows = []
    for part, seconds in _parts(study):
        each = seconds / cells
        row = {"part": part, "microseconds a cell": f"{1e6 * each:.0f}"}
        rows.append(row | {"hours": f"{each * CELLS / 3600:.0f}"})
    sizes = [
        f"{sum(_size(path) for path in stage_outputs(study, stage)) / cells * CELLS / 1e9:.0f} GB"
        for stage in ("01-prepare-data", _MAP)
    ]
    return f"{table(rows)}\n\nDisk: predictors {sizes[0]}, maps {sizes[1]}."


def _parts(study: Study) -> Iterator[tuple[str, float]]:
    """Give what grows with the map, and its seconds."""
    whole = {"deriving predictors": "01-prepare-data", "totals and interval": "05-storage"}
    for name, stage in whole.items():
        yield name, read_json(record_path(study, stage))["seconds"]
    for cell in read_json(executed_path(study, _MAP))["cells"]:
        for call, name in (
            ("predict.map_layer(", "predicting and writing all layers, storage"),
            ("trust.map_trust(", "trust and its tables"),
        ):
            if cell["cell_type"] == "code" and call in "".join(cell["source"]):
                yield name, cell["metadata"]["papermill"]["duration"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
