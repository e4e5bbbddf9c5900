"""Categories as columns of a forest: what tables and rasters give is the same."""

import numpy as np
import pandas as pd
import pytest

from helpers.core.grid import reference_grid
from helpers.core.study import Study
from helpers.prepare import columns
from helpers.prepare.registry import CovariateError, write_covariates
from helpers.samples.extract import read_predictors
from helpers.samples.rows import predictor_values

PREDICTORS = [
    {"name": "depth", "file": "depth.tif"},
    {"name": "soil", "file": "soil.tif", "kind": "category"},
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A study of a number and a category with the codes 3, 7 and 12, and both as arrays."""
    monkeypatch.setattr(Study, "processed_dir", property(lambda self: tmp_path))
    box = {"box": [122, 50, 122.3, 50.2]}
    study = Study(name="t", predictors=PREDICTORS, area=box, grid={"crs": "EPSG:32651"})
    rng = np.random.default_rng(0)
    shape = reference_grid(study).shape
    arrays = {"depth": rng.normal(size=shape), "soil": rng.choice([3.0, 7.0, 12.0], shape)}
    write_covariates(study, arrays)
    return study, arrays


def test_a_category_is_one_column_a_code(own):
    study, _ = own
    assert columns.forest_columns(study) == ["depth", "soil=3", "soil=7", "soil=12"]


def test_rasters_and_tables_give_the_same_columns(own):
    study, arrays = own
    names = columns.forest_columns(study)
    values, cells = read_predictors(study, names)
    table = pd.DataFrame({name: array.ravel()[cells] for name, array in arrays.items()})
    np.testing.assert_array_equal(values, predictor_values(table, names))
    np.testing.assert_array_equal(values[:, 1:].sum(axis=1), 1)
    some, places = read_predictors(study, names, step=3)
    np.testing.assert_array_equal(some, values[np.isin(cells, places)])
    assert len(places) < len(cells) / 8
    # Codes are names: others in the same order give the same columns.
    renamed = table.assign(soil=table["soil"].map({3.0: 101, 7.0: 102, 12.0: 103}))
    others = ["depth", "soil=101", "soil=102", "soil=103"]
    np.testing.assert_array_equal(values, predictor_values(renamed, others))


def test_a_raster_that_is_not_there_is_named(own):
    study, _ = own
    (study.processed_dir / "soil.tif").unlink()
    with pytest.raises(CovariateError, match="soil is missing"):
        columns.forest_columns(study)


def test_columns_know_their_predictor():
    names = ["depth", "soil=3", "soil=7"]
    assert columns.predictors_of(names) == ["depth", "soil"]
    assert columns.places_of(names, ["soil"]) == [1, 2]
    assert columns.column_values("soil=3", np.array([3, 7, np.nan])).tolist()[:2] == [1, 0]
