"""The registry: what is written can be read, and says what it is."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import SOURCE

from helpers.core import grid
from helpers.core.rasters import read_band
from helpers.core.settings import Source
from helpers.core.study import Study, StudyError
from helpers.folds.distances import map_cells
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


@pytest.mark.parametrize("most", [10_000, 300, 40])
def test_of_a_large_grid_every_so_many_th_cell_is_read(study, monkeypatch, most):
    """The same cells by the registry, by a raster, and of the map; none of the rest is kept."""
    geobox = grid.reference_grid(study)
    monkeypatch.setattr(grid, "MOST_CELLS", most)
    step = grid.grid_step(study)
    assert (step == 1) == (most > np.prod(geobox.shape))
    assert (-(-np.array(geobox.shape) // step)).prod() <= most * (1 + 2 / np.sqrt(most)) ** 2
    values = np.random.default_rng(0).normal(size=geobox.shape).astype(np.float32)
    registry.write_covariates(study, {"sand": values})
    data = registry.read_covariates(study, ["sand"], step)
    inside = grid.area_mask(study, geobox)
    whole = np.where(inside, values, np.float32(np.nan))
    found = data["sand"].to_numpy()
    np.testing.assert_array_equal(found, whole[::step, ::step])
    assert step == 1 or found.base is None or found.base.size == found.size
    path = registry.covariate_files(study)["sand"]
    np.testing.assert_array_equal(read_band(path, step=step), found)
    table = registry.coverage_table(study, data)
    assert table.loc["sand", "valid_cells"] == step**2 * np.isfinite(found).sum()
    assert table.loc["sand", "share_of_area"] == 1
    assert geobox.zoom_out(step).shape == found.shape
    places, in_domain = map_cells(study.changed({"domain.covariate": ""}))
    assert in_domain.all()
    row, column = (~geobox.transform * tuple(places.T))[::-1]
    cells = np.zeros_like(inside)
    cells[row.astype(int), column.astype(int)] = True
    np.testing.assert_array_equal(cells[::step, ::step], inside[::step, ::step])
    assert cells.sum() == inside[::step, ::step].sum()


def test_unknown_names_and_shapes_are_refused_before_anything_is_written(study):
    geobox = grid.reference_grid(study)
    with pytest.raises(registry.CovariateError, match="no covariate peat"):
        registry.write_covariates(
            study, {"sand": np.zeros(geobox.shape), "peat": np.zeros(geobox.shape)}
        )
    with pytest.raises(registry.CovariateError, match=r"sand has \(3, 3\) cells, its part"):
        registry.write_covariates(study, {"sand": np.zeros((3, 3))})
    assert not list(study.processed_dir.glob("*"))


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
    names = registry.predictor_names(Study(name="default", source=SOURCE))
    assert {"tpi_1km", "tpi_5km"} < set(names)
    assert len(names) >= 18


def test_a_study_has_the_covariates_of_its_raw_rasters_and_its_own(tmp_path):
    path = tmp_path / "snow.tif"
    affine = Affine(1000, 0, 0, 0, -1000, 0)
    shape = {"count": 1, "height": 2, "width": 2, "dtype": "float32", "transform": affine}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32651", **shape) as target:
        target.units = ["mm"]
    own = [
        {"name": "snow", "file": str(path), "long_name": "Water in snow"},
        {"name": "wind", "file": "nothing.tif", "kind": "circular"},
    ]
    study = Study(
        name="t", source={"air_temperature": "a.tif", "dem": "b"}, predictors=["twi", *own]
    )
    layers = registry.covariates(study)
    families = {layer.family for layer in layers.values()}
    assert families == {"terrain", "climate", "own"}
    assert "air_frost_number" in layers
    assert not {"precipitation", "lst_mean", "ndvi", "sand"} & set(layers)
    assert (layers["snow"].title, layers["snow"].unit) == ("Water in snow", "mm")
    assert (layers["wind_sin"].title, layers["wind_sin"].unit) == ("Wind, sine", "1")
    assert registry.predictor_names(study) == ["twi", "snow", "wind_sin", "wind_cos"]
    assert "elevation" in registry.predictor_names(study.model_copy(update={"predictors": "all"}))
    without = study.model_copy(update={"source": Source(air_temperature="a.tif")})
    assert registry.fine_files(without) == {}
    assert (
        study.processed_key
        != Study(name="t", source=study.source, predictors=["twi"]).processed_key
    )


def test_two_covariates_of_one_name_are_refused():
    own = {"name": "elevation", "file": "a.tif"}
    with pytest.raises(StudyError, match="two covariates have the name elevation"):
        registry.covariates(Study(name="t", source=SOURCE, predictors=[own]))
    assert list(registry.covariates(Study(name="t", predictors=[own]))) == ["elevation"]
