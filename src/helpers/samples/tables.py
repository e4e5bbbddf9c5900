"""Field tables of boreholes and test pits: read as they come, and checked; all problems are told at once.

The tables are *sites* (one row a hole) and *intervals* (one row a piece of core), as CSV, Excel (xlsx) or GeoPackage;
`data/samples/README.md` describes their columns. Depths are metres below the surface. A row's number is the one that a
spreadsheet shows: the header is row 1, and a problem of a whole column stands there.

What is unmistakable is converted and told, such as a column in percent; what is not is an error.
"""

import difflib

import pandas as pd

from helpers.core.study import StudyError
from helpers.samples.checks import CHECKS
from helpers.samples.columns import COLUMNS, KINDS, PROBLEM_COLUMNS, SampleError
from helpers.samples.readers import read_table, refuse_table


def table_paths(study):
    """Return the paths of the sites table and of the intervals table.

    Parameters
    ----------
    study : helpers.core.study.Study
        Where `samples.sites` or `samples.intervals` is empty, the table that a virtual study draws for a run.

    Returns
    -------
    tuple of pathlib.Path

    Raises
    ------
    SampleError
        One table is named and the other is not, or the study is not virtual and names none.
    """
    drawn = study.results_dir / "samples"
    given = {"sites": study.samples.sites, "intervals": study.samples.intervals}
    lacking = [f"samples.{name}" for name, path in given.items() if not path]
    if lacking and not study.draws_boreholes:
        raise SampleError(
            f"The study file names no table of boreholes: {' and '.join(lacking)} {_are(lacking)} empty.",
            "name your two tables there; data/samples/ has a template of each",
        )
    return tuple(study.path(path) if path else drawn / f"{name}.csv" for name, path in given.items())


def _are(names):
    return "are" if len(names) > 1 else "is"


def read_tables(study):
    """Read and check both tables.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    sites : pandas.DataFrame
        One row a hole, with all columns of `COLUMNS`; numbers as float, NaN where empty; `longitude` and `latitude`
        in WGS 84 degrees, whatever the file has.
    intervals : pandas.DataFrame
        One row a piece of core; `texture` in the words of `TEXTURES` where it holds one of them.
    problems : pandas.DataFrame
        What was converted, what was dropped, and what looks odd: file, row, column, value, kind, problem, remedy,
        severity.

    Raises
    ------
    SampleError
        A table is missing or not readable, or rows have problems of severity ``error``; one error names them all, and
        has them as a table in `problems`.
    """
    tables, problems = _checked(study)
    refuse_table(problems[problems["severity"] == "error"])
    kept = []
    for table in tables:
        dropped = problems.loc[(problems["severity"] == "drop") & (problems["file"] == table.file), "row"]
        kept.append(table.frame.drop(index=dropped))
    kept[1] = kept[1][kept[1]["site_id"].isin(kept[0]["site_id"])]
    if kept[0].empty:
        raise SampleError(
            f"{tables[0].file} has no usable site.", "fill in one row a borehole or pit, as the template shows"
        )
    return *(frame.reset_index(drop=True) for frame in kept), problems


def find_problems(study):
    """Return all problems of both tables, of any severity, as `read_tables` does, and refuse nothing."""
    return _checked(study)[1]


def _checked(study):
    """Return both tables, converted, and their problems."""
    for kind in study.samples.severity:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            message = f"samples.severity names '{kind}', which is no kind of problem."
            raise StudyError(message, f"choose from {', '.join(near or KINDS)}")
        if KINDS[kind][0] == "error" and study.samples.severity[kind] == "warn":
            message = f"samples.severity lets '{kind}' pass, but such rows would give wrong samples."
            raise StudyError(message, "use drop, which leaves the rows out, or error")
    paths = table_paths(study)
    same = paths[0].name == paths[1].name
    shown = [f"{path.parent.name}/{path.name}" if same else path.name for path in paths]
    if paths[0] == paths[1]:
        shown = [f"{paths[0].name} ({kind})" for kind in COLUMNS]
    tables = [read_table(*args) for args in zip(paths, shown, COLUMNS, strict=True)]
    found = [problem for check in CHECKS for problem in check(study, *tables)]
    problems = pd.DataFrame(found, columns=PROBLEM_COLUMNS)
    problems["severity"] = problems["kind"].map({k: v[0] for k, v in KINDS.items()} | study.samples.severity)
    # The header cannot be dropped: what is wrong with a whole column is wrong with the table.
    problems.loc[(problems["row"] == 1) & (problems["severity"] == "drop"), "severity"] = "error"
    problems = problems.drop_duplicates(["file", "row", "column", "kind"])
    order = {table.file: number for number, table in enumerate(tables)}
    problems = problems.sort_values(
        ["file", "row"], key=lambda c: c.map(order) if c.name == "file" else c, kind="stable", ignore_index=True
    )
    return tables, problems
