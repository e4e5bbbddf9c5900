"""What `tables` prints: the problems of a study's tables, errors first, and what they label."""

import pandas as pd

from helpers.core.errors import listed
from helpers.core.study import Study
from helpers.samples.columns import SampleError
from helpers.samples.labels import label_layers
from helpers.samples.readers import named_column
from helpers.samples.selection import settle_rare_classes
from helpers.samples.tables import find_problems, read_tables, table_paths
from launcher.check import print_rows, units_by_class


def list_problems(path: str) -> int:
    """Print the problems of a study's tables, and samples by layer; return how many errors."""
    study = Study.open(path)
    problems = find_problems(study)
    for severity in ("error", "drop", "warn"):
        _print_problems(problems[problems["severity"] == severity])
    errors = (problems["severity"] == "error").sum()
    if not errors:
        try:
            _print_labels(study)
        except SampleError as error:
            errors = 1
            print(f"error  {error}")
    names = " and ".join(dict.fromkeys(path.name for path in table_paths(study)))
    print(f"{names}: {len(problems)} remarks, {errors} of them errors")
    if len(problems):
        print("the words in [] are the kinds that samples.severity of the study file takes")
    return errors


def _print_problems(problems: pd.DataFrame) -> None:
    """Print a line for each column and kind of problem, with its rows and first values."""
    groups = problems.groupby(["severity", "file", "column", "header", "kind"], sort=False)
    for (severity, file, column, header, kind), rows in groups:
        values = [f"'{value}'" for value in dict.fromkeys(rows["value"]) if value]
        place = f"{file}, {named_column(column, header)}, row {listed(rows['row'])}"
        what = f"{rows['problem'].iloc[0]} {listed(values, 3)}".rstrip()
        print(f"{severity:<5}  {place}: {what}; {rows['remedy'].iloc[0]} [{kind}]")


def _print_labels(study: Study) -> None:
    """Print how many sites have each class in each layer.

    SampleError where no site can be used, or where a class has too few and the study has no other
    samples.
    """
    sites, intervals, _ = read_tables(study)
    labels = label_layers(study, sites, intervals)[0].assign(group=lambda table: table["site_id"])
    print_rows("samples", units_by_class(study, labels))
    if not (study.samples.points or study.samples.areas):
        settle_rare_classes(study, labels)
