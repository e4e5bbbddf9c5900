"""Known shares of ground with permafrost, and probabilities that agree with them.

People drill where they expect ice, and nothing in the samples tells. Other knowledge can: a survey
or a map may say which share of the ground of a stratum (a region, a belt of elevation, or all of
it) has permafrost in a depth layer. The log-odds of permafrost are then shifted, stratum by
stratum, until their mean probability over the cells of the map is this share.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from scipy.optimize import brentq
from scipy.special import expit, logit

from helpers.core.classes import layer_name
from helpers.core.errors import listed
from helpers.core.grid import reference_grid, study_regions
from helpers.core.study import Study
from helpers.prepare.columns import forest_columns
from helpers.prepare.registry import used_predictors
from helpers.samples.columns import SampleError
from helpers.samples.readers import csv_records, nearest

COLUMNS = ("region", "from_m", "to_m", "layer", "share", "low", "high", "source")
"""Columns of the table."""

_SHARES = ["low", "share", "high"]
_BELT = ["from_m", "to_m"]


def run_table(study: Study) -> Path:
    """Return the table in the run's own folder, which counts where the study names no samples."""
    return study.results_dir / "samples" / "prevalence.csv"


def read_prevalence(study: Study) -> pd.DataFrame | None:
    """Read and check the table of known shares of ground with permafrost.

    It is `samples.prevalence` of the study, or `run_table` where the samples are those of the run's
    folder, too. A share is of the cells of the potential-permafrost domain in a stratum.

    Returns
    -------
    pandas.DataFrame or None
        One row a stratum and layer, with the columns `COLUMNS`. ``region`` is a name, or empty for
        all; ``from_m`` and ``to_m`` are m, infinite where a belt is open; a row of the file
        without ``layer`` is there once for each. None without a table, or if it has no rows.

    Raises
    ------
    SampleError
        The table is missing or not readable, lacks a column, has a row that cannot be used, or two
        rows for one cell; it names file, columns and rows.
    """
    samples = study.samples
    path = study.path(samples.prevalence) if samples.prevalence else run_table(study)
    own = not (samples.sites or samples.intervals or samples.areas) and path.is_file()
    if not (samples.prevalence or own):
        return None
    text = _read_text(path)
    if text.empty:
        return None
    table = text.copy()
    table[_SHARES + _BELT] = text[_SHARES + _BELT].apply(pd.to_numeric, errors="coerce")
    _check_rows(study, path.name, text, table)
    table = table.fillna({"from_m": -np.inf, "to_m": np.inf})
    layers = [layer_name(layer) for layer in study.layers]
    table["layer"] = [[name] if name else layers for name in table["layer"]]
    table = table.explode("layer")
    _check_overlaps(path.name, table)
    return table.reset_index(drop=True)


def _read_text(path: Path) -> pd.DataFrame:
    """Return the columns of the table as text, indexed by the row in the file."""
    if not path.is_file():
        message = f"The table of shares, {path.name}, does not exist."
        raise SampleError(message, "correct samples.prevalence in the study file")
    try:
        records = csv_records(path)
    except Exception as error:  # as in `helpers.samples.readers.read_table`
        reason = " ".join(str(error).split())
        message = f"{path.name} is not readable as a table: {reason}"
        raise SampleError(message, "save it as CSV (UTF-8)") from None
    rows = {row: line for row, line in enumerate(records, 1) if any(line)}
    header = [name.lower() for name in rows.pop(min(rows))] if rows else []
    if [name for name in COLUMNS if header.count(name) != 1]:
        message = f"{path.name} has the columns {listed(header)}."
        raise SampleError(message, f"it needs each of these once: {', '.join(COLUMNS)}")
    width = len(header)
    if longer := [row for row, line in rows.items() if any(line[width:])]:
        message = f"{path.name}, rows {listed(longer)}: more values than columns."
        raise SampleError(message, "write decimals with a point, and text with a comma in quotes")
    lines = [(line + [""] * width)[:width] for line in rows.values()]
    return pd.DataFrame(lines, list(rows), header, dtype=object)[list(COLUMNS)]


def _check_rows(study: Study, file: str, text: pd.DataFrame, table: pd.DataFrame) -> None:
    """Raise SampleError with all that is wrong with single rows."""
    problems = []
    for column, names in _names(study, text).items():
        unknown = ~text[column].isin(["", *names])
        near = {word: nearest([word], names, 0.0) for word in text.loc[unknown, column]}
        remedy = "; ".join(f"for {word} write {name}" for word, name in near.items())
        problems.append((column, unknown, f"no {column} of the study", remedy))
    for column in _SHARES + _BELT:
        needed = (text[column] != "") | (column in _SHARES)
        remedy = "write a plain number with a decimal point"
        problems.append((column, needed & table[column].isna(), "no number", remedy))
    shares, source = table[_SHARES], text["source"] == ""
    outside = ((shares <= 0) | (shares >= 1)).any(axis=1)
    turned = (table["low"] > table["share"]) | (table["share"] > table["high"])
    empty = table["from_m"] >= table["to_m"]
    belts = (text[_BELT] != "").any(axis=1) & ("elevation" not in used_predictors(study))
    three, two = ", ".join(_SHARES), ", ".join(_BELT)
    problems += [
        (three, outside, "not between 0 and 1", "write shares, such as 0.4 for 40 %"),
        (three, turned, "they do not increase", "write low <= share <= high"),
        (two, empty, "the belt is empty", "write from_m < to_m"),
        (two, belts, "the study has no predictor elevation", "leave belts empty"),
        ("source", source, "there is no value", "say where the share is from"),
    ]
    found = [problem for problem in problems if problem[1].any()]
    if found:
        parts = [
            f"column {column}, rows {listed(text.index[rows])}: {what}"
            for column, rows, what, _ in found
        ]
        remedies = dict.fromkeys(remedy for *_, remedy in found)
        raise SampleError(f"{file}, {'; '.join(parts)}.", "; ".join(remedies))


def _names(study: Study, text: pd.DataFrame) -> dict[str, list[str]]:
    """Return the names that may stand in a column; regions are read only if there are any."""
    regions = (text["region"] != "").any()
    return {
        "region": study_regions(study, reference_grid(study))[0] if regions else [],
        "layer": [layer_name(layer) for layer in study.layers],
    }


def _check_overlaps(file: str, table: pd.DataFrame) -> None:
    """Raise SampleError if two rows of one layer, indexed by the row in the file, have a cell."""
    for layer, part in table.groupby("layer", sort=False):
        for one, other in itertools.combinations(part.itertuples(), 2):
            same = one.region == other.region or not (one.region and other.region)
            if same and max(one.from_m, other.from_m) < min(one.to_m, other.to_m):
                message = f"{file}, rows {one.Index} and {other.Index}, have ground of {layer} in "
                raise SampleError(f"{message}common.", "let regions and belts not overlap")


def stratum_of(rows: pd.DataFrame, region: npt.ArrayLike, elevation: npt.ArrayLike) -> np.ndarray:
    """Return the stratum of each cell or sample: the place of its row in a table, -1 for none.

    Parameters
    ----------
    rows
        Of one layer, from `read_prevalence`.
    region : shape (n,)
        Names of regions, as `helpers.core.grid.study_regions` has them.
    elevation : shape (n,)
        m, NaN where it is not known: such a cell lies in no belt.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Integers. The domain is not looked at: leave out cells beyond it.

    Examples
    --------
    >>> rows = {"region": ["North", ""], "from_m": [-np.inf, 800], "to_m": [np.inf, 1e4]}
    >>> stratum_of(pd.DataFrame(rows), ["North", "South", "South"], [500, 900, 500]).tolist()
    [0, 1, -1]
    """
    region, elevation = np.asarray(region, object), np.asarray(elevation)
    stratum = np.full(region.shape, -1)
    for number, row in enumerate(rows.itertuples()):
        within = (elevation >= row.from_m) & (elevation < row.to_m)
        within |= row.from_m == -np.inf and row.to_m == np.inf
        stratum[within & ((region == row.region) | (row.region == ""))] = number
    return stratum


def shifted(probability: npt.ArrayLike, shift: npt.ArrayLike) -> np.ndarray:
    """Return probabilities whose log-odds are shifted; 0, 1 and NaN stay, and so does their order.

    Shapes are broadcast. Single precision stays single with a plain number as the shift.

    Examples
    --------
    >>> shifted([0.1, 0.5, 1], np.log(4)).round(2).tolist()  # odds are four times as large
    [0.31, 0.8, 1.0]
    """
    return expit(logit(probability) + shift)


def shift_to(probability: npt.ArrayLike, share: float) -> float:
    """Return the shift of log-odds after which the mean of probabilities is a share.

    Probabilities have any shape; NaN do not count. SampleError if no shift leads there, because too
    many are exactly 0 or 1.

    Examples
    --------
    >>> round(shift_to([0.5, 0.5], 0.75), 6)  # the log of 3
    1.098612
    """
    known = np.asarray(probability, float)
    odds = logit(known[~np.isnan(known)])
    free = odds[np.isfinite(odds)]
    mean = (share * odds.size - (odds == np.inf).sum()) / max(free.size, 1)
    if not (free.size and 0 < mean < 1):
        message = f"No shift of the log-odds of {odds.size} cells gives a mean of {share:g}."
        raise SampleError(message, "correct the share, or the stratum, in the table of shares")
    # A shift that brings the largest, or the smallest, log-odds to those of the mean.
    ends = logit(mean) - free.max() - 1, logit(mean) - free.min() + 1
    return float(brentq(lambda shift: expit(free + shift).mean() - mean, *ends))


Strata = list[dict[str, Any]]
"""Rows of one layer of the table with their ``shift``, as model cards have them."""


def fit_shifts(
    study: Study,
    rows: pd.DataFrame,
    probability: np.ndarray,
    values: np.ndarray,
    points: np.ndarray,
) -> Strata:
    """Return the rows of one layer of the table with the ``shift`` of each stratum.

    Cells stand for the domain of the map: their probability of permafrost has the shape (n,),
    predictors (n, predictors), easting and northing (n, 2). SampleError for a stratum without a
    cell.
    """
    strata = strata_at(study, rows.to_dict("records"), values, points)
    fitted = []
    for number, row in enumerate(rows.to_dict("records")):
        inside = strata == number
        if not inside.any():
            where = row["region"] or "this belt"
            message = f"The table of shares has a row for {where}, which has no cell of the domain."
            raise SampleError(message, "leave the row out, or correct its region and belt")
        fitted.append(row | {"shift": shift_to(probability[inside], row["share"])})
    return fitted


def shift_at(
    study: Study, strata: Strata, values: np.ndarray, points: np.ndarray
) -> np.ndarray | float:
    """Return the shift at places, shape (n,), by their predictors, easting and northing.

    It is 0 in no stratum.
    """
    if not strata:
        return 0.0
    shifts = np.array([*(one["shift"] for one in strata), 0.0])
    return shifts[strata_at(study, strata, values, points)]


def known_share(
    study: Study, strata: Strata, probability: np.ndarray, values: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Return the share of ground with permafrost at the low, given and high shares, shape (3,).

    Arguments are those of `fit_shifts`, but for probabilities that are shifted already: they count
    where no share is known.
    """
    stratum = strata_at(study, strata, values, points)
    ends = np.array([[one[name] for name in _SHARES] for one in strata])
    return np.where(stratum[:, np.newaxis] < 0, probability[:, np.newaxis], ends[stratum]).mean(0)


def strata_at(study: Study, strata: Strata, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the number of the stratum of each place, shape (n,), -1 for none.

    Arguments are those of `shift_at`.
    """
    rows = pd.DataFrame(strata, columns=[*COLUMNS, "shift"])
    if rows.empty:
        return np.full(len(values), -1)
    # JSON has no infinite numbers.
    rows = rows.astype({"from_m": float, "to_m": float}).fillna({"from_m": -np.inf, "to_m": np.inf})
    region = np.full(len(values), "", object)
    if (rows["region"] != "").any():
        names, shapes = study_regions(study, reference_grid(study))
        for name, (shape, _) in zip(names, shapes, strict=True):
            if name in set(rows["region"]):
                shapely.prepare(shape)
                region[shapely.contains_xy(shape, *points.T)] = name
    columns = forest_columns(study)
    elevation = np.full(len(values), np.nan)
    if "elevation" in columns:
        elevation = values[:, columns.index("elevation")]
    return stratum_of(rows, region, elevation)


def describe(table: pd.DataFrame | None) -> str:
    """Return what a report says of a table from `read_prevalence`, or of none, as one line."""
    if table is None:
        return "assumes that sites were not chosen for their ice"
    return f"permafrost shares from {'; '.join(table['source'].unique())}"
