"""A survey of the virtual study: how much ground has permafrost, known but for a factor."""

import numpy as np
import pandas as pd

from helpers.core.classes import NO_TYPE, layer_name
from helpers.core.files import write_table
from helpers.prepare.domain import domain_of_cells
from helpers.samples.prevalence import COLUMNS, run_table
from testbed.settings import VirtualStudy
from testbed.truth import Rasters

_LEAST = 1e-3  # some ground has permafrost, and some has none: the table takes neither 0 nor 1


def write_survey(study: VirtualStudy, truth: Rasters, rng: np.random.Generator) -> pd.DataFrame:
    """Write the table of the shares of ground with permafrost that a survey finds, and return it.

    There is a row for each layer of the potential-permafrost domain. The truth is that of boreholes
    at random places, from `testbed.truth.true_rasters`; shares are off by one factor between 1 - e
    and 1 + e, where e is `campaign.survey_error`, and their ranges hold the true ones. Without a
    survey the table has no rows, which counts as no table.
    """
    error = study.campaign.survey_error
    factor = rng.uniform(1 - error, 1 + error) if error else 1  # one survey errs in one direction
    rows = []
    for layer in map(layer_name, study.layers if error else []):
        types = truth[f"borehole_type_{layer}"]
        true = (types[domain_of_cells(study) & (types != NO_TYPE)] > 0).mean()
        share = true * factor
        found = {"low": share / (1 + error), "share": share, "high": share / (1 - error)}
        found = {name: np.clip(value, _LEAST, 1 - _LEAST) for name, value in found.items()}
        rows.append({"layer": layer, "source": "SIMULATED survey", **found})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    write_table(run_table(study), table)
    return table
