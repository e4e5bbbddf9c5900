"""The run's sample table as a file."""

import json

import pandas as pd

from helpers.core.errors import listed
from helpers.core.files import write_text
from helpers.prepare.registry import predictor_names
from helpers.samples.columns import SampleError

SAMPLE_COLUMNS = (
    "site_id", "group", "layer", "longitude", "latitude", "easting", "northing", "ice_type", "ice_content",
    "ice_content_sd", "permafrost_share", "ice_fraction", "sampled_share", "reason", "in_domain", "split",
)  # fmt: skip
"""Columns of the sample table before its predictors."""


LABEL_COLUMNS = [c for c in SAMPLE_COLUMNS if c not in ("group", "easting", "northing", "in_domain", "split")]


def write_samples(study, table, counts=None):
    """Write the sample table, the counts by reason of loss, and the study's settings to the run's folder.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With the columns of `SAMPLE_COLUMNS` and all predictors; others are left out.
    counts : dict, optional
        As `counts_by_reason` returns them.

    Returns
    -------
    pathlib.Path
        Of the sample table.
    """
    path, more = samples_path(study), study.samples.more_columns
    columns = [*SAMPLE_COLUMNS, *more, *predictor_names(study)]
    if lacking := [name for name in columns if name not in table]:
        raise SampleError(f"The sample table lacks {listed(lacking)}.", "extract covariates and split sites first")
    # What has no value, as training areas, has its group's own.
    table = table.assign(**{name: table[name].where(table[name].fillna("") != "", table["group"]) for name in more})
    write_text(path, table[columns].to_csv(index=False, lineterminator="\n"))
    study.write(path.parents[1] / "study.yaml")  # a run made by hand in JupyterLab can be compared, too
    if counts is not None:
        write_text(path.with_name("counts.json"), json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    return path


def read_samples(study):
    """Read the sample table of a run.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    pandas.DataFrame
        As it was handed to `write_samples`: text, whole numbers, bool and float, to the last digit.

    Raises
    ------
    SampleError
        There is none yet.
    """
    path = samples_path(study)
    if not path.is_file():
        raise SampleError(f"This run has no {path.name}.", "run notebooks/02-extract-samples.ipynb for this study")
    text = dict.fromkeys(("site_id", "group", "layer", "reason", "split", *study.samples.more_columns), str)
    table = pd.read_csv(
        path,
        dtype=text | {"ice_type": int, "in_domain": bool},
        keep_default_na=False,
        na_values={name: [] for name in text} | {"ice_content": [""], "ice_content_sd": [""], "sampled_share": [""]},
    )
    floats = [name for name in table if name not in text and name not in ("ice_type", "in_domain")]
    return table.astype(dict.fromkeys(floats, float))


def samples_path(study):
    """Return the file of the run's sample table."""
    return study.results_dir / "samples" / "samples.csv"
