"""The registry: what is written can be read, and says what it is."""

import numpy as np
import pytest
import rasterio

from helpers.core import grid
from helpers.core.study import Study
from helpers.prepare import registry


def test_layers_come_back_inside_the_area_only(study):
    study = study.model_copy(update={"label": "TRIAL"})
    geobox = grid.reference_grid(study)
    inside = grid.area_mask(study, geobox)
    registry.write_covariates(
        study, {"sand": np.full(geobox.shape, 40.0), "clay": np.full(geobox.shape, 20)}
    )
    data = registry.read_covariates(study, ["sand", "clay"])
    np.testing.assert_array_equal(np.isfinite(data["sand"].to_numpy()), inside)
    assert data["sand"].attrs["units"] == "%"
    table = registry.coverage_table(study, data)
    assert table.loc["clay", "valid_cells"] == inside.sum()
    columns = ["share_of_area", "minimum", "median", "maximum"]
    assert table.loc["clay", columns].tolist() == [1, 20, 20, 20]
    with rasterio.open(registry.covariate_files(study)["sand"]) as source:
        assert source.units == ("%",)
        assert source.tags()["role"] == "predictor"
        assert source.tags()["LABEL"] == "TRIAL"


def test_unknown_names_and_shapes_are_refused_before_anything_is_written(study):
    geobox = grid.reference_grid(study)
    with pytest.raises(registry.CovariateError, match="no covariate peat"):
        registry.write_covariates(
            study, {"sand": np.zeros(geobox.shape), "peat": np.zeros(geobox.shape)}
        )
    with pytest.raises(registry.CovariateError, match="sand has"):
        registry.write_covariates(study, {"sand": np.zeros((3, 3))})
    assert not study.processed_dir.exists()


def test_missing_files_are_named(study):
    with pytest.raises(registry.CovariateError, match=r"missing from .*: clay"):
        registry.read_covariates(study, ["clay"])


def test_every_layer_is_described(study):
    for name, layer in registry.covariates(study).items():
        assert layer.name == name
        assert layer.title
        assert layer.long_name
        assert layer.unit
        assert layer.aggregation
        assert layer.source


def test_default_radii_name_their_layers():
    names = registry.predictor_names(Study(name="default"))
    assert {"tpi_1km", "tpi_5km"} < set(names)
    assert len(names) >= 18
