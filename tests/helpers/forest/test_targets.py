"""Targets: how ice types become classes, forests in two stages, and maps of each target."""

import json
from importlib.metadata import version
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import rasterio
from sklearn.ensemble import RandomForestClassifier

from helpers.accuracy import importance
from helpers.accuracy.report import evaluate
from helpers.core import classes, scores
from helpers.core.grid import area_mask, reference_grid
from helpers.core.study import Study
from helpers.forest import cards, class_means, grid_search, models
from helpers.forest.cards import ModelError
from helpers.forest.file import forest_bytes
from helpers.forest.paths import model_path
from helpers.forest.two_stage import TwoStageForest
from helpers.mapping import predict
from helpers.mapping.files import map_files
from helpers.prepare.registry import write_covariates
from helpers.samples.rows import ForestError, layer_rows, predictor_values

PREDICTORS = ["elevation", "twi"]
FEW = {"n_estimators": 10, "max_depth": [None], "min_samples_split": [2]}
PARAMS = {"max_depth": None, "min_samples_split": 2}
TOLD = {  # classes of the ice types 0-5
    "ice_type": [0, 1, 2, 3, 4, 5],
    "permafrost": [0, 1, 1, 1, 1, 1],
    "ice_level": [0, 1, 1, 2, 2, 2],
    "two_stage": [0, 1, 2, 3, 4, 5],
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


def test_ice_of_each_class_by_hand():
    rows = pd.DataFrame({"class": [0, 0, 1, 1, 1], "ice_fraction": [0.0, 0.0, 0.1, 0.2, 0.6]})
    assert class_means.class_means(rows, (0, 1)) == pytest.approx([0, 0.3])
    assert class_means.class_means(rows, (0, 1, 2)) == pytest.approx([0, 0.3, 0])
    assert class_means.class_sds(rows, (0, 1, 2)) == pytest.approx([0, 0.07**0.5, 0])


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
    report = evaluate(study, rows, probabilities, card["calibration"])["whole"]
    assert report["permafrost"]["kappa"] == 1
    assert report["kappa"] == 1
    assert np.trace(report["confusion_matrix"]) == 60
    assert len(report["support"]) == len(codes)
    fall = importance.importance(study, model, card, rows).set_index("predictor")["mean"]
    assert fall["elevation"] > 0.8 > fall["twi"] == 0


# Two stages


def noisy(types, seed=1):
    rng = np.random.default_rng(seed)
    return (types[:, np.newaxis] + rng.normal(0, 1.5, (len(types), 2))).astype(np.float32)


def test_probabilities_of_two_stages_multiply_and_add_up_to_one():
    types = np.repeat([0, 1, 2, 4], [60, 20, 40, 20])  # neither type 3 nor 5 was seen
    values, settings = (
        noisy(types),
        {"n_estimators": 20, "class_weight": "balanced", "random_state": 3},
    )
    model, cells = TwoStageForest(**settings).fit(values, types), noisy(types, 2)
    found = models.class_probabilities(model, cells)
    first = RandomForestClassifier(**settings).fit(values, types > 0)
    second = RandomForestClassifier(**settings).fit(values[types > 0], types[types > 0])
    frozen = first.predict_proba(cells)
    np.testing.assert_allclose(found[:, 0], frozen[:, 0], atol=1e-12)
    np.testing.assert_allclose(
        found[:, [1, 2, 4]], frozen[:, 1:] * second.predict_proba(cells), atol=1e-12
    )
    assert (found[:, [3, 5]] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    expected = np.where(frozen[:, 1] > 0.5, second.predict(cells), 0)
    assert np.array_equal(model.predict(cells), expected)
    assert np.array_equal(scores.mapped_class(found, classes.TARGETS["two_stage"]), expected)


def test_permafrost_is_decided_before_its_type():
    shares = np.array([[0.4, 0.2, 0.1, 0.3, 0, 0], [0.6, 0.4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    assert scores.mapped_class(shares, classes.TARGETS["two_stage"]).tolist() == [3, 0, 5]
    assert scores.mapped_class(shares).tolist() == [0, 0, 5]


def test_one_type_of_ice_is_enough_and_no_permafrost_is_refused():
    types = np.array([0, 3] * 20)
    found = TwoStageForest(5, random_state=1).fit(noisy(types), types).predict_proba(noisy(types))
    assert found.shape == (40, 2)
    always = (
        TwoStageForest(5, random_state=1).fit(noisy(types), types + 1).predict_proba(noisy(types))
    )
    assert (always[:, 0] == 0).all()
    with pytest.raises(ForestError, match="no permafrost"):
        TwoStageForest(5).fit(noisy(types), 0 * types)


@pytest.fixture
def pair(tmp_path):
    """A two-stage forest, its card, and the path that it is saved to."""
    types = np.repeat(np.arange(6), 15)
    model = TwoStageForest(6, random_state=1, n_jobs=1).fit(noisy(types), types)
    path = tmp_path / "forest.npz"
    versions = {"scikit-learn": version("scikit-learn")}
    card = {"target": "two_stage", "predictors": PREDICTORS, "versions": versions}
    card["classes"] = list(range(6))
    card = cards.save_model(path, forest_bytes(model), card)
    return model, card, path


def test_two_stages_come_back_as_they_were_saved(pair):
    model, card, path = pair
    kept, read = cards.load_model(path, "two_stage")
    values = noisy(np.zeros(50))
    assert type(kept) is TwoStageForest
    assert read == card
    assert np.array_equal(kept.predict_proba(values), model.predict_proba(values))


def spoiled_tree(stages):
    tree = stages[1].estimators_[2].tree_
    state = tree.__getstate__()
    state["nodes"]["feature"][0] = 10**6
    tree.__setstate__(state)
    return stages


def knows_no_permafrost(stages):
    values = noisy(np.zeros(9))
    return [RandomForestClassifier(2, n_jobs=1).fit(values, np.zeros(9, int)), stages[1]]


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        pytest.param(lambda stages: stages[1:], "not 2 forests", id="one forest"),
        pytest.param(lambda stages: stages * 2, "not 2 forests", id="four forests"),
        pytest.param(lambda stages: stages[::-1], "unknown classes", id="turned round"),
        pytest.param(knows_no_permafrost, "knows no permafrost", id="one class"),
        pytest.param(spoiled_tree, "tree 2 is damaged", id="tree damaged"),
    ],
)
def test_forged_stages_are_refused(pair, forge, expected):
    model, card, path = pair
    model.stages_ = forge(model.stages_)
    cards.save_model(path, forest_bytes(model), card)
    with pytest.raises(ModelError, match=expected):
        cards.load_model(path)


def test_a_changed_file_and_another_target_are_refused(pair):
    _, card, path = pair
    with pytest.raises(ModelError, match="of the target two_stage, and the study's is permafrost"):
        cards.load_model(path, "permafrost")
    path.with_suffix(".json").write_text(json.dumps(card | {"target": "ice_type"}))
    with pytest.raises(ModelError, match="not 1 forests"):
        cards.load_model(path)
    path.with_suffix(".json").write_text(json.dumps(card | {"target": "gold"}))
    with pytest.raises(ModelError, match="no model card"):
        cards.load_model(path)
    path.with_suffix(".json").write_text(json.dumps(card))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        cards.load_model(path)


# Maps


@targets
def test_maps_have_the_classes_of_the_target(target, make, table, monkeypatch):
    study, told = make(target), classes.TARGETS[target]
    cards.save_forests(study, table, grid_search.search(study, table, "2-3m", n_jobs=1), n_jobs=1)
    geobox = reference_grid(study)
    cells = np.flatnonzero(area_mask(study, geobox))[100:160]
    fields = {name: np.full(geobox.shape, np.nan, np.float32) for name in PREDICTORS}
    fields["elevation"].ravel()[cells], fields["twi"].ravel()[cells] = (
        np.arange(60) // 10,
        0,
    )  # ten of each ice type
    write_covariates(study, fields)
    told_cells = predict.map_layer(study, (2, 3))["cells"]
    assert told_cells == dict(enumerate(np.bincount(np.repeat(TOLD[target], 10)).tolist()))
    files = map_files(study)
    maps = {}
    for kind, file in (("class", told.file_name), ("ice_content", "ice_content")):
        with rasterio.open(files[f"{file}_2-3m"]) as source:
            maps[kind] = source.read(1)
    assert maps["class"].ravel()[cells].tolist() == np.repeat(TOLD[target], 10).tolist()
    assert (maps["class"] != classes.NO_TYPE).sum() == 60
    name = {"two_stage": "ice_type"}.get(target, target)
    with rasterio.open(study.results_dir / "maps" / f"{name}_2-3m.tif") as source:
        assert np.array_equal(source.read(1), maps["class"])
        for kind in told.classes:
            assert source.tags(1)[f"class_{kind.code}"] == kind.name
            assert "#{:02x}{:02x}{:02x}".format(*source.colormap(1)[kind.code]) == kind.colour
        assert f"class_{len(told.classes)}" not in source.tags(1)
    with rasterio.open(study.results_dir / "maps" / "class_probability_2-3m.tif") as source:
        shares = source.read().reshape(len(told.classes), -1)[:, cells].astype(int)
        assert source.descriptions == tuple(kind.name for kind in told.classes)
    assert (shares.sum(axis=0) == 10_000).all()
    assert shares.argmax(axis=0).tolist() == np.repeat(TOLD[target], 10).tolist()
    means = (
        table.assign(known=np.array(TOLD[target])[table["ice_type"]])
        .groupby("known")["ice_fraction"]
        .mean()
    )
    content = maps["ice_content"].ravel()[cells]
    np.testing.assert_allclose(content, means.to_numpy() @ (shares / 1e4), atol=1e-3)
