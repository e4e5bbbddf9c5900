"""The data dictionary of a record: every band of its rasters and every column of its tables."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from helpers.core.rasters import reading
from helpers.core.study import Study
from helpers.prepare.registry import covariates

COLUMNS = ("file", "name", "type", "unit", "meaning", "meaning_zh", "no_data", "scale", "values")

_TABLES = (
    "accuracy", "accuracy_by_class", "accuracy_permafrost", "accuracy_folds", "validation",
    "class_areas", "reliability", "calibration_error", "error_by_distance", "morans_i",
    "importance", "importance_groups", "applicability", "prediction_sets",
    "prediction_set_sizes", "search_*", "storage_interval",
)  # fmt: skip
"""Tables of a run that go into its record; none of them has a row for a single sample."""


def published_tables(study: Study) -> list[Path]:
    """Return the tables of a run's results that go into its record as they are."""
    folder = study.results_dir / "tables"
    return [path for name in _TABLES for path in sorted(folder.glob(f"{name}.csv"))]


def make_dictionary(study: Study, folder: Path) -> pd.DataFrame:
    """Return a row for each band and column of a record's files, with the columns `COLUMNS`."""
    rows = [row for path in sorted(folder.rglob("*.tif")) for row in _bands(folder, path)]
    known = _known()
    for path in sorted(folder.rglob("*.csv")):
        rows += _columns(study, path.relative_to(folder).as_posix(), pd.read_csv(path), known)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _bands(folder: Path, path: Path) -> Iterator[dict[str, object]]:
    """Give a row a band, by what the file itself says."""
    name = path.relative_to(folder).as_posix()
    meanings = pd.read_csv(Path(__file__).with_name("bands.csv"), index_col="raster")["meaning_zh"]
    chinese = next((text for key, text in meanings.items() if path.stem.startswith(key)), "")
    with reading(path) as source:
        for band in source.indexes:
            tags = source.tags(band)
            classes = {k[6:]: v for k, v in tags.items() if k.startswith("class_")}
            yield {
                "file": name,
                "name": source.descriptions[band - 1],
                "type": source.dtypes[band - 1],
                "unit": source.units[band - 1],
                "meaning": tags["long_name"],
                "meaning_zh": chinese,
                "no_data": source.nodata,
                "scale": source.scales[band - 1],
                "values": "; ".join(f"{code}: {text}" for code, text in classes.items()),
            }


def _known() -> dict[str, dict[str, str]]:
    table = pd.read_csv(Path(__file__).with_name("columns.csv"), keep_default_na=False)
    return table.set_index("column").to_dict("index")


def _columns(
    study: Study, file: str, table: pd.DataFrame, known: dict[str, dict[str, str]]
) -> Iterator[dict[str, object]]:
    """Give a row a column; ends such as ``_lower``, and ``macro_``, are told by the rest."""
    for name in table:
        meaning = _meaning(name, known)
        if meaning is None and (one := covariates(study).get(name)):
            meaning = {"unit": one.unit, "meaning": one.long_name, "meaning_zh": one.long_name}
        own = {"unit": "", "meaning": "a column of the study's own tables", "meaning_zh": "自有列"}
        kind = {"f": "number", "i": "whole number", "b": "true or false"}
        type_ = kind.get(table[name].dtype.kind, "text")
        yield {"file": file, "name": name, "type": type_, "no_data": "empty"} | (meaning or own)


def _meaning(name: str, known: dict[str, dict[str, str]]) -> dict[str, str] | None:
    """Return unit and meaning of a column; None for one that no table of ours has."""
    if name in known:
        return known[name]
    for pattern, (text, chinese) in _PARTS.items():
        if (found := re.fullmatch(pattern, name)) and (rest := _meaning(found[1], known)):
            more = {"meaning": text.format(rest["meaning"])}
            return rest | more | {"meaning_zh": chinese.format(rest["meaning_zh"])}
    return None


_PARTS = {
    r"(.+)_lower": ("{}, lower end of its interval", "{}，区间下限"),
    r"(.+)_upper": ("{}, upper end of its interval", "{}，区间上限"),
    r"(.+)_se": ("{}, standard error", "{}，标准误"),
    r"macro_(.+)": ("{}, mean of the classes", "{}，各类平均"),
    r"weighted_(.+)": ("{}, mean weighted by samples of the classes", "{}，按各类样本数加权平均"),
    r"adjusted_(.+)": ("{}, by mapped area", "{}，按制图面积校正"),
    r"(mapped_as)_\d+": ("{}", "{}"),
    r"(.+)_\d[^_]*m": ("{}, of one depth layer", "{}，单个深度层"),
}
"""Parts of the names of columns, and what they add to the meaning of the rest."""
