"""The run's sample table as a file."""

from pathlib import Path
from typing import Any

import pandas as pd

from helpers.core.errors import listed
from helpers.core.files import write_json, write_table
from helpers.core.study import Study
from helpers.prepare.registry import predictor_names
from helpers.samples.columns import SampleError

SAMPLE_COLUMNS = (
    "site_id", "group", "layer", "longitude", "latitude", "easting", "northing", "ice_type",
    "ice_content", "permafrost_share", "ice_fraction", "sampled_share", "reason", "in_domain",
    "split",
)  # fmt: skip
"""Columns of the sample table before its predictors."""

_LATER_COLUMNS = ("group", "easting", "northing", "in_domain", "split")
LABEL_COLUMNS = [name for name in SAMPLE_COLUMNS if name not in _LATER_COLUMNS]


def samples_path(study: Study) -> Path:
    """Return the file of the run's sample table."""
    return study.results_dir / "samples" / "samples.csv"


def labels_path(study: Study) -> Path:
    """Return the file of the labels of a run's boreholes."""
    return study.results_dir / "samples" / "labels.csv"


def write_labels(
    study: Study, sites: pd.DataFrame, labels: pd.DataFrame, lost: pd.DataFrame
) -> Path:
    """Write all pairs of site and layer as one table, in the order of the sites.

    Labels and lost pairs are those of `helpers.samples.labels.label_layers`. A pair without a label
    has no `ice_type`, and its `reason` says why.
    """
    places = sites.set_index("site_id")[["longitude", "latitude", *study.samples.more_columns]]
    pairs = pd.concat([labels, lost.join(places, on="site_id")], ignore_index=True)
    order = pairs["site_id"].map({name: n for n, name in enumerate(sites["site_id"])})
    pairs = pairs.iloc[order.argsort(kind="stable")]
    write_table(labels_path(study), pairs[[*LABEL_COLUMNS, *study.samples.more_columns]])
    return labels_path(study)


def read_labels(study: Study) -> pd.DataFrame:
    """Read what `write_labels` wrote; no rows where the study has no boreholes."""
    if not study.has_boreholes:
        return pd.DataFrame(columns=LABEL_COLUMNS)
    path = labels_path(study)
    if not path.is_file():
        raise SampleError(f"This run has no {path.name}.", "run 02-boreholes for this study")
    text = dict.fromkeys(("site_id", "layer", "reason", *study.samples.more_columns), str)
    missing = dict.fromkeys(text, ()) | dict.fromkeys(set(LABEL_COLUMNS) - set(text), "")
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=missing)


def split_labels(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs of site and layer with a label, and site_id, layer and reason of others."""
    labelled = pairs["ice_type"].notna()
    labels = pairs[labelled].astype({"ice_type": int}).reset_index(drop=True)
    return labels, pairs.loc[~labelled, ["site_id", "layer", "reason"]].reset_index(drop=True)


def write_samples(study: Study, table: pd.DataFrame, counts: dict[str, Any] | None = None) -> Path:
    """Write the sample table, the `counts_by_reason` and the settings to the run's folder.

    `table` has the columns of `SAMPLE_COLUMNS` and all predictors; others are left out.
    """
    path, more = samples_path(study), study.samples.more_columns
    columns = [*SAMPLE_COLUMNS, *more, *predictor_names(study)]
    if lacking := [name for name in columns if name not in table]:
        message = f"The sample table lacks {listed(lacking)}."
        raise SampleError(message, "extract covariates and split sites first")
    # Samples without a value, such as those of training areas, have the name of their group.
    filled = {
        name: table[name].where(table[name].fillna("") != "", table["group"]) for name in more
    }
    write_table(path, table.assign(**filled)[columns])
    study.write(path.parents[1] / "study.yaml")  # also of a run made by hand in JupyterLab
    if counts is not None:
        write_json(path.with_name("counts.json"), counts)
    return path


def read_samples(study: Study) -> pd.DataFrame:
    """Read the sample table of a run, as it was handed to `write_samples` to the last digit."""
    path = samples_path(study)
    if not path.is_file():
        remedy = "run notebooks/02-extract-samples.ipynb for this study"
        raise SampleError(f"This run has no {path.name}.", remedy)
    more = study.samples.more_columns
    text = dict.fromkeys(("site_id", "group", "layer", "reason", "split", *more), str)
    kinds = text | {"ice_type": int, "in_domain": bool}
    # No text, such as a site called NA, is a missing value.
    empty = dict.fromkeys(("ice_content", "ice_fraction", "sampled_share"), "")
    missing = dict.fromkeys(text, ()) | empty
    table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=missing)
    return table.astype({name: float for name in table if name not in kinds})
