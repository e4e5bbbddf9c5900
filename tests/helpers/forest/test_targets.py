"""Targets: how ice types become classes, and maps of each target."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
import rasterio

from helpers.accuracy import importance
from helpers.accuracy.report import evaluate
from helpers.core import classes
from helpers.core.grid import area_mask, reference_grid
from helpers.core.study import Study
from helpers.forest import cards, grid_search, models
from helpers.forest.paths import model_path
from helpers.mapping import predict
from helpers.mapping.files import map_files
from helpers.prepare.registry import write_covariates
from helpers.samples.rows import layer_rows, predictor_values

PREDICTORS = ["elevation", "twi"]
FEW = {"n_estimators": 10, "max_depth": [None], "min_samples_split": [2]}
PARAMS = {"max_depth": None, "min_samples_split": 2}
TOLD = {  # classes of the ice types 0-5
    "ice_type": [0, 1, 2, 3, 4, 5],
    "permafrost": [0, 1, 1, 1, 1, 1],
    "ice_level": [0, 1, 1, 2, 2, 2],
}
targets = pytest.mark.parametrize("target", TOLD)


@pytest.fixture(scope="module")
def table():
    """Samples whose elevation alone tells their ice type; every third is a test sample."""
    rng = np.random.default_rng(0)
    types = np.repeat(np.arange(6), 30)
    columns = {
        "site_id": [f"S{n:03d}" for n in range(180)],
        "group": [f"S{n:03d}" for n in range(180)],
        "layer": "2-3m",
        "easting": 5000.0 * np.arange(180),
        "northing": 0.0,
        "ice_type": types,
        "ice_fraction": np.array([0, 0.05, 0.15, 0.25, 0.4, 0.6])[types],
        "in_domain": True,
        "split": np.where(np.arange(180) % 3 == 0, "test", "train"),
        "elevation": types + rng.uniform(-0.2, 0.2, 180),
        "twi": (np.arange(180) == 1) * 1.0,
    }
    return pd.DataFrame(columns)


@pytest.fixture
def make(study, table, tmp_path, monkeypatch):
    """Return a function that gives a study of a target with the table on disk."""
    monkeypatch.setattr(Study, "results_dir", property(lambda self: tmp_path / self.target))

    def made(target):
        few = {"forest": type(study.forest)(**FEW), "folds": type(study.folds)(number=3)}
        changed = study.model_copy(update={"target": target, "predictors": PREDICTORS, **few})
        (tmp_path / target / "samples").mkdir(parents=True)
        table.to_csv(tmp_path / target / "samples" / "samples.csv", index=False)
        return changed

    return made


# Classes


def test_the_study_file_knows_every_target():
    field = Study.model_fields["target"]
    assert set(get_args(field.annotation)) == set(classes.TARGETS) == set(TOLD)
    assert Study(name="a").target == field.default == "ice_type"


@targets
def test_ice_types_become_the_classes_of_the_target(target, table):
    told, one_each = classes.TARGETS[target], table.groupby("ice_type").head(1)
    rows = layer_rows(one_each, "2-3m", target=classes.TARGETS[target])
    assert rows["class"].tolist() == TOLD[target]
    assert rows["ice_type"].tolist() == [0, 1, 2, 3, 4, 5]
    assert told.codes == tuple(range(len(told.classes))) == tuple(dict.fromkeys(TOLD[target]))
    # Colours are those of ice types, from light to dark; test_ice.py checks that they differ.
    colours = [kind.colour for kind in classes.ICE_TYPES]
    places = [colours.index(kind.colour) for kind in told.classes]
    assert places == sorted(set(places))
    assert places[0] == 0


@targets
def test_a_predictor_that_tells_all_gives_kappa_1(target, make, table):
    study, codes = make(target), classes.TARGETS[target].codes
    found = grid_search.search(study, table, "2-3m", n_jobs=1)
    assert found.scores["kappa"] == 1
    assert found.out_of_fold.shape == (120, len(codes))
    cards.save_forests(study, table, found, n_jobs=1)
    model, card = cards.load_model(model_path(study, "2-3m", "train"), target)
    assert (card["target"], card["classes"]) == (target, list(codes))
    assert card["class_names"] == [kind.name for kind in classes.TARGETS[target].classes]
    assert sum(card["class_counts"]) == 120
    rows = layer_rows(table, "2-3m", "test", classes.TARGETS[target])
    values = predictor_values(rows, PREDICTORS)
    probabilities = models.class_probabilities(model, values, card["classes"])
    report = evaluate(study, rows, probabilities, probabilities.argmax(axis=1))["whole"]
    assert report["permafrost"]["kappa"] == 1
    assert report["kappa"] == 1
    assert np.trace(report["confusion_matrix"]) == 60
    assert len(report["support"]) == len(codes)
    fall = importance.importance(study, model, card, rows).set_index("predictor")["mean"]
    assert fall["elevation"] > 0.8 > fall["twi"] == 0


# Maps


@targets
def test_maps_have_the_classes_of_the_target(target, make, table):
    study, told = make(target), classes.TARGETS[target]
    cards.save_forests(study, table, grid_search.search(study, table, "2-3m", n_jobs=1), n_jobs=1)
    geobox = reference_grid(study)
    cells = np.flatnonzero(area_mask(study, geobox))[100:160]
    types = np.arange(60) // 10  # ten of each ice type
    fields = {"elevation": types, "twi": 0 * types, "air_frost_number": 0.5 + 0 * types}
    rasters = {name: np.full(geobox.shape, np.nan, np.float32) for name in fields}
    for name, values in fields.items():
        rasters[name].ravel()[cells] = values
    write_covariates(study, rasters)
    expected = np.repeat(TOLD[target], 10)
    counts = dict(enumerate(np.bincount(expected).tolist()))
    assert predict.map_layer(study, (2, 3))["cells"] == {"reference": counts, "expected": counts}
    files = map_files(study)
    for name in (told.file_name, f"{told.file_name}_reference"):
        with rasterio.open(files[f"{name}_2-3m"]) as source:
            band = source.read(1)
            assert band.ravel()[cells].tolist() == expected.tolist()
            assert (band != classes.NO_TYPE).sum() == 60
            for kind in told.classes:
                assert source.tags(1)[f"class_{kind.code}"] == kind.name
                assert "#{:02x}{:02x}{:02x}".format(*source.colormap(1)[kind.code]) == kind.colour
            assert f"class_{len(told.classes)}" not in source.tags(1)
    with rasterio.open(files["class_probability_2-3m"]) as source:
        shares = source.read().reshape(len(told.classes), -1)[:, cells].astype(int)
        assert source.descriptions == tuple(kind.name for kind in told.classes)
    assert (shares.sum(axis=0) == 10_000).all()
    assert shares.argmax(axis=0).tolist() == expected.tolist()
    hurdle, _ = cards.load_hurdle(model_path(study, "2-3m", kind="ice"), target)
    values = np.stack([fields[name] for name in PREDICTORS], axis=1)
    found = hurdle.predict(values, np.ones(60, bool))
    with rasterio.open(files["ice_content_2-3m"]) as source:
        ice, content = source.read().reshape(2, -1)[:, cells]
    np.testing.assert_allclose(ice, found.ice, atol=2e-4)
    np.testing.assert_allclose(content, found.content, atol=1e-4)
