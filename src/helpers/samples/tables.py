"""Field tables of boreholes and test pits: read as they come, and checked.

The tables are *sites* (one row a borehole or pit) and *intervals* (one row a piece of core), as
CSV, Excel (xlsx) or GeoPackage; `data/samples/README.md` describes their columns. Depths are metres
below the surface. A row's number is the one that a spreadsheet shows: the header is row 1, and a
problem of a whole column stands there.

What can only be meant one way is converted and listed, such as a column in percent; what is unclear
is an error.
"""

import difflib
from pathlib import Path

import pandas as pd

from helpers.core.errors import listed
from helpers.core.study import Study, StudyError
from helpers.samples.checks import CHECKS
from helpers.samples.columns import COLUMNS, KINDS, SampleError
from helpers.samples.readers import RawTable, named_column, read_table

_PROBLEM_COLUMNS = [
    *("file", "row", "column", "header", "value", "kind", "problem", "remedy", "severity"),
]


def table_paths(study: Study) -> tuple[Path, Path]:
    """Return the paths of the sites table and of the intervals table.

    They are those that the study names, or `sites.csv` and `intervals.csv` in the run's folder
    `samples` where it names none. SampleError if it names one and not the other.
    """
    named = {kind: getattr(study.samples, kind) for kind in COLUMNS}
    if not any(named.values()):
        sites, intervals = (study.results_dir / "samples" / f"{kind}.csv" for kind in named)
        return sites, intervals
    for kind, path in named.items():
        if not path:
            raise SampleError(
                f"The study file names one table of samples, but samples.{kind} is empty.",
                "name your two tables there; data/samples/ has a template of each",
            )
    return study.path(named["sites"]), study.path(named["intervals"])


def read_tables(study: Study) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read and check both tables.

    Returns
    -------
    sites
        One row a borehole or pit, with all columns of `COLUMNS`; numbers as float, NaN where empty;
        `longitude` and `latitude` in WGS 84 degrees, whatever the file has.
    intervals
        One row a piece of core; `texture` in the words of `TEXTURES` where it holds one of them.
    problems
        As from `find_problems`: what was converted, what was dropped, and what looks odd.

    Raises
    ------
    SampleError
        A table is not readable, or has problems of severity ``error``; one error names all.
    """
    tables, problems = _checked(study)
    _refuse(problems[problems["severity"] == "error"])
    dropped = problems[problems["severity"] == "drop"]
    sites, intervals = (
        table.frame.drop(index=dropped.loc[dropped["file"] == table.file, "row"])
        for table in tables
    )
    if sites.empty:
        remedy = "fill in one row a borehole or pit, as the template shows"
        raise SampleError(f"{tables[0].file} has no usable site.", remedy)
    intervals = intervals[intervals["site_id"].isin(sites["site_id"])]
    return sites.reset_index(drop=True), intervals.reset_index(drop=True), problems


def find_problems(study: Study) -> pd.DataFrame:
    """Return all problems of both tables, of any severity: file, row, column, value and kind.

    The column header has the file's own name of the column. The columns problem and
    remedy say what is wrong and what to do, severity is ``error``, ``drop`` or ``warn``.
    """
    return _checked(study)[1]


def _checked(study: Study) -> tuple[list[RawTable], pd.DataFrame]:
    """Return both tables, converted, and their problems."""
    _check_severities(study)
    paths = table_paths(study)
    shown = [path.name for path in paths]
    if paths[0] == paths[1]:
        shown = [f"{paths[0].name} ({kind})" for kind in COLUMNS]
    elif shown[0] == shown[1]:
        shown = [f"{path.parent.name}/{path.name}" for path in paths]
    epsg = study.samples.epsg
    tables = [read_table(*args, epsg) for args in zip(paths, shown, COLUMNS, strict=True)]
    rows = [problem for check in CHECKS for problem in check(study, *tables)]
    problems = pd.DataFrame(rows, columns=_PROBLEM_COLUMNS)
    severities = {name: kind.severity for name, kind in KINDS.items()} | study.samples.severity
    problems["severity"] = problems["kind"].map(severities)
    # The header cannot be dropped: what is wrong with a whole column is wrong with the table.
    whole_column = (problems["row"] == 1) & (problems["severity"] == "drop")
    problems.loc[whole_column, "severity"] = "error"
    problems = problems.drop_duplicates(["file", "row", "column", "kind"])
    number = problems["file"].map(shown.index)
    order = problems.assign(file=number).sort_values(["file", "row"], kind="stable").index
    return tables, problems.loc[order].reset_index(drop=True)


def _check_severities(study: Study) -> None:
    for kind, severity in study.samples.severity.items():
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            raise StudyError(
                f"samples.severity names '{kind}', which is no kind of problem.",
                f"choose from {', '.join(near or KINDS)}",
            )
        if KINDS[kind].severity == "error" and severity == "warn":
            raise StudyError(
                f"samples.severity lets '{kind}' pass, but such rows would give wrong samples.",
                "use drop, which leaves the rows out, or error",
            )


def _refuse(errors: pd.DataFrame) -> None:
    """Raise SampleError with all errors of the tables, if there are any."""
    if errors.empty:
        return
    parts, remedies = [], {}
    groups = errors.groupby(["file", "column", "header", "problem", "remedy"], sort=False)
    for (file, column, header, problem, remedy), rows in groups:
        values = ", ".join([f"'{value}'" for value in dict.fromkeys(rows["value"]) if value][:3])
        where = f"row{'s' if len(rows) > 1 else ''} {listed(rows['row'])}"
        text = f"{file}, column {named_column(column, header)}, {where}: {problem}"
        parts.append(f"{text} ({values})" if values else text)
        remedies.setdefault(remedy, []).append(named_column(column, header))
    number = f"{len(errors)} problem{'s' if len(errors) > 1 else ''}"
    each = [f"{', '.join(dict.fromkeys(names))}: {remedy}" for remedy, names in remedies.items()]
    error = SampleError(f"{number} in the sample tables: {'; '.join(parts)}", "; ".join(each))
    error.problems = errors.reset_index(drop=True)
    raise error
