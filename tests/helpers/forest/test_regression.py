"""The regression twin: known answers, no leak between folds, safe files, a storage map."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from conftest import SOURCE

from helpers.accuracy import regressed_ice
from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.study import Study, StudyError
from helpers.forest import cards, class_means, grid_search, regression
from helpers.forest.file import forest_bytes
from helpers.forest.paths import model_path
from helpers.mapping.files import map_files
from helpers.mapping.predict import map_layer, remove_chunks
from helpers.mapping.storage import compare_totals, map_storage, write_totals
from helpers.prepare.registry import write_covariates
from helpers.samples.extract import read_predictors
from helpers.samples.rows import ForestError, layer_rows, predictor_values
from launcher import stages

NAMES = ["elevation", "twi"]
LAYER = "2-3m"
PARAMS = {"max_depth": None, "min_samples_split": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study of one layer on a coarse grid; ice is linear in elevation where that is high."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
        patch.setattr(Study, "results_dir", property(lambda self: folder / "results" / self.run))
        study = Study(
            name="tiny",
            source=SOURCE,
            grid={"resolution": 20_000, "fine_resolution": 10_000},
            layers=[(2, 3)],
            predictors=NAMES,
            folds={"number": 3, "estimators": 20, "min_separation_km": 0, "block_km": 300},
            covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
            forest={"n_estimators": 20},
            regression={"max_features": 1.0, "min_samples_leaf": 1},
        )
        rng, geobox = np.random.default_rng(0), reference_grid(study)
        inside = area_mask(study, geobox)
        fields = {name: rng.uniform(0, 1, geobox.shape) for name in NAMES}
        fields["air_frost_number"] = 0.2 + 0.5 * fields["elevation"]
        write_covariates(
            study,
            {name: np.where(inside, v, np.nan).astype(np.float32) for name, v in fields.items()},
        )
        chosen = rng.choice(np.flatnonzero(inside), 600, replace=False)
        easting, northing = cell_centres(geobox)
        row, column = np.unravel_index(chosen, geobox.shape)
        values = {name: field.ravel()[chosen].astype(np.float32) for name, field in fields.items()}
        ice = np.maximum(values["elevation"] - 0.3, 0).astype(float)
        table = pd.DataFrame(
            {
                "site_id": [f"S{n}" for n in range(600)],
                "group": [f"S{n}" for n in range(600)],
                "layer": LAYER,
                "easting": easting[column],
                "northing": northing[row],
                "in_domain": values["elevation"] > 0.48,
                "ice_type": np.where(ice > 0, np.digitize(ice, [0.1, 0.2, 0.3, 0.5]) + 1, 0),
                "ice_fraction": ice,
                "split": np.where(np.arange(600) % 4 == 0, "test", "train"),
                **values,
            }
        )
        yield study, table


@pytest.fixture(scope="module")
def predicted(world):
    return regressed_ice.predict_samples(*world, {LAYER: PARAMS}, n_jobs=1)


def rows_of(table, **columns):
    return layer_rows(table, LAYER, "train").assign(**columns)


def test_a_clear_relation_is_found_without_bias(predicted):
    found = regressed_ice.score_ice(Study(name="a"), predicted, np.random.default_rng(0)).set_index(
        ["domain", "model"]
    )
    assert found.loc[("whole", "regression"), "n"] == 450
    regressed = found.xs("regression", level="model")
    assert (regressed["r2"] > 0.99).all()
    assert (regressed["bias"].abs() < 0.002).all()
    # Six classes are coarser than the relation itself.
    assert found.loc[("whole", "classes"), "r2"] > 0.9
    assert (regressed["rmse_high"] < 0).all()


def test_scores_by_hand():
    predicted = pd.DataFrame(
        {
            "layer": LAYER,
            "in_domain": [True, True, True, False],
            "block": [1, 1, 7, 9],
            "ice_fraction": [0.0, 0.2, 0.4, 0.2],
            "classes": [0.1, 0.3, 0.5, 0.3],
            "regression": 0.2,
            "low": [0.0, 0.1, 0.1, 0.3],
            "high": [0.1, 0.2, 0.3, 0.4],
        }
    )
    found = regressed_ice.score_ice(Study(name="a"), predicted, np.random.default_rng(0)).set_index(
        ["domain", "model"]
    )
    shifted, mean = found.loc[("whole", "classes")], found.loc[("whole", "regression")]
    assert (shifted["n"], shifted["rmse"], shifted["bias"]) == (
        4,
        pytest.approx(0.1),
        pytest.approx(0.1),
    )
    assert shifted["r2"] == pytest.approx(1 - 0.04 / 0.08)
    assert (mean["r2"], mean["bias"], mean["coverage"]) == (pytest.approx(0), pytest.approx(0), 0.5)
    assert mean["rmse"] == pytest.approx(0.08**0.5 / 2)
    assert mean["width"] == pytest.approx(0.125)
    assert mean["rmse_difference"] == pytest.approx(0.08**0.5 / 2 - 0.1)
    assert mean["rmse_low"] < mean["rmse_difference"] < mean["rmse_high"]
    assert found.loc[("potential_permafrost", "regression"), "n"] == 3


def test_the_interval_covers_pure_noise_as_often_as_it_says(world):
    study, table = world
    study = study.changed({"regression.min_samples_leaf": 20, "folds.estimators": 100})
    rows = rows_of(table, ice_fraction=np.random.default_rng(5).uniform(0, 1, 450))
    _, low, high = regression.regress_out_of_fold(study, rows, np.arange(450) % 3, n_jobs=1).T
    assert ((low <= rows["ice_fraction"]) & (rows["ice_fraction"] <= high)).mean() == pytest.approx(
        0.9, abs=0.03
    )


def test_one_value_everywhere_is_predicted_and_has_no_r2(world):
    study, table = world
    rows = rows_of(table, ice_fraction=0.3)
    found = regression.regress_out_of_fold(study, rows, np.arange(450) % 3, n_jobs=1)
    np.testing.assert_allclose(found, 0.3, rtol=1e-12)
    predicted = rows.assign(block=0, classes=0.3, regression=0.3, low=0.3, high=0.3)
    scores = regressed_ice.score_ice(study, predicted, np.random.default_rng(0))
    assert scores["r2"].isna().all()
    assert (scores["rmse"] < 1e-12).all()
    assert scores["coverage"].dropna().eq(1).all()


def test_the_mean_is_that_of_the_forest_which_makes_the_map(world):
    study, table = world
    rows = rows_of(table, weight=np.random.default_rng(2).uniform(0.2, 3, 450))
    values = predictor_values(rows, NAMES)
    plain, quantiles = (
        regression.fit(study, rows, "weight", quantiles=kind) for kind in (False, True)
    )
    found = regression.predict_interval(quantiles, values, 0.9)
    np.testing.assert_allclose(found[:, 0], plain.predict(values), rtol=0, atol=1e-12)
    assert (found[:, 1] <= found[:, 2]).all()


def test_no_fold_learns_from_itself(world):
    study, table = world
    rows, fold = rows_of(table), np.arange(450) % 3
    rng, held = np.random.default_rng(1), np.arange(450) % 3 == 1
    chances = rng.dirichlet(np.ones(6), 450)
    other = rows.assign(
        ice_fraction=rows["ice_fraction"].where(~held, rng.permutation(rows["ice_fraction"]))
    )
    for predict in (
        lambda part: regression.regress_out_of_fold(study, part, fold, n_jobs=1),
        lambda part: regression.expected_ice(study, part, chances, fold),
    ):
        before, after = predict(rows), predict(other)
        np.testing.assert_array_equal(before[held], after[held])
        assert (before[~held] != after[~held]).any()


def test_sure_classes_let_expect_their_mean_ice(world):
    study, table = world
    rows = rows_of(table)
    rows = rows.assign(ice_fraction=np.array([0, 0.05, 0.15, 0.25, 0.4, 0.6])[rows["class"]])
    found = regression.expected_ice(study, rows, np.eye(6)[rows["class"]], np.arange(450) % 3)
    np.testing.assert_allclose(found, rows["ice_fraction"], atol=0.01)


def test_the_same_seed_gives_the_same_result_on_any_number_of_cores(world, predicted):
    study, table = world
    two = regressed_ice.predict_samples(study, table, {LAYER: PARAMS}, n_jobs=2)
    pd.testing.assert_frame_equal(predicted, two, check_exact=True)
    first, second = (
        regressed_ice.score_ice(study, part, np.random.default_rng(3)) for part in (predicted, two)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert regressed_ice.plot_regressed_ice(study, two).get_size_inches()[0] == pytest.approx(
        180 / 25.4
    )


@pytest.mark.parametrize(
    ("spoil", "error", "expected"),
    [
        pytest.param(
            {"ice_fraction": np.nan},
            ForestError,
            "450 samples have no ice",
            id="missing",
        ),
        pytest.param(
            {"ice_fraction": 1.2},
            ForestError,
            "between 0 and 1, such as S1",
            id="per cent",
        ),
        pytest.param({"twi": np.nan}, ForestError, "lack a finite value", id="predictor"),
    ],
)
def test_samples_that_cannot_be_regressed_are_named(world, spoil, error, expected):
    with pytest.raises(error, match=expected):
        regression.fit(world[0], rows_of(world[1], **spoil))


def test_a_table_without_ice_and_impossible_settings_are_refused(world):
    with pytest.raises(ForestError, match="no column ice_fraction"):
        regression.fit(world[0], rows_of(world[1]).drop(columns="ice_fraction"))
    for name, value in {
        "storage_from": "both",
        "regression.interval": 1,
        "regression.max_features": 0,
    }.items():
        with pytest.raises(StudyError, match=f"`{name}`"):
            world[0].changed({name: value})


@pytest.fixture(scope="module")
def mapped(world):
    """The study with its storage from a regression: forests of notebook 03, and the map."""
    study, table = world
    study = study.changed({"storage_from": "regression", "run": "regressed"})
    (study.results_dir / "samples").mkdir(parents=True)
    table.to_csv(study.results_dir / "samples" / "samples.csv", index=False)
    known = rows_of(table)["class"].to_numpy()
    found = grid_search.Search(LAYER, PARAMS, None, np.arange(450) % 3, known, np.eye(6)[known])
    cards.save_forests(study, table, found, n_jobs=1)
    regression.save_forests(study, table)
    return study, read_maps(study)


def read_maps(study):
    """Make the map of the layer; return its classes and its ice content."""
    map_layer(study, (2, 3))
    remove_chunks(study)
    files, found = map_files(study), {}
    for name, file in (("class", "ice_type_2-3m"), ("ice_content", "ice_content_2-3m")):
        with rasterio.open(files[file]) as source:
            found[name] = source.read(1)
    return found


def test_the_storage_map_is_made_from_the_regression(mapped, world):
    study, maps = mapped
    model, card = cards.load_model(model_path(study, LAYER, "regression"), class_means.REGRESSED)
    assert (card["target"], card["n_samples"], card["params"]["n_estimators"]) == (
        "ice_fraction",
        600,
        20,
    )
    values, cells = read_predictors(study, NAMES)
    expected = model.predict(values).astype(np.float32)
    np.testing.assert_allclose(expected, np.maximum(values[:, 0] - 0.3, 0), atol=0.03)
    # Moved into the extent of permafrost, the total stays, and here hardly any moves.
    content = maps["ice_content"].ravel()[cells]
    assert content.sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert np.sqrt(np.mean((content - expected) ** 2)) < 0.01
    assert np.isnan(np.delete(maps["ice_content"].ravel(), cells)).all()
    with rasterio.open(map_storage(study)) as storage:
        assert np.nansum(storage.read(1), dtype=float) == pytest.approx(
            expected.sum(dtype=float), rel=1e-4
        )
    plain = read_maps(study.changed({"storage_from": "classes"}))
    np.testing.assert_array_equal(plain["class"], maps["class"])
    assert not np.array_equal(plain["ice_content"], maps["ice_content"], equal_nan=True)


def test_both_ways_to_the_totals_are_told_side_by_side(mapped, world):
    study, maps = mapped
    ways = compare_totals(study, world[1], cells=10**6).set_index(["layer", "region"])
    assert set(ways.columns) == {"classes", "regression"}
    np.testing.assert_allclose(ways.loc["all"], ways.loc[LAYER])
    np.testing.assert_allclose(ways.loc[(LAYER, "all")], ways.loc[LAYER].drop("all").sum())
    # Every cell is looked at, so that totals are those of the maps.
    cell = study.grid.resolution**2 / 1e9
    plain = read_maps(study.changed({"storage_from": "classes"}))
    for way, rel, ice in (("classes", 1e-3, plain), ("regression", 0.02, maps)):
        total = np.nansum(ice["ice_content"], dtype=float) * cell
        assert ways.loc[("all", "all"), way] == pytest.approx(total, rel=rel), way


def test_the_forest_is_an_output_of_the_search_only_where_the_map_needs_it(mapped, world):
    path = model_path(mapped[0], LAYER, "regression")
    assert path in stages.stage_outputs(mapped[0], "03-grid-search")
    assert path not in stages.stage_outputs(
        mapped[0].changed({"storage_from": "classes"}), "03-grid-search"
    )


def far_child(model):
    tree = model.estimators_[3].tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**9
    tree.__setstate__(state)


def too_much_ice(model):
    model.estimators_[3].tree_.value[0] = 1.5


@pytest.mark.parametrize("spoil", [far_child, too_much_ice])
def test_a_forged_regression_forest_is_refused(mapped, tmp_path, spoil):
    model, card = cards.load_model(model_path(mapped[0], LAYER, "regression"))
    spoil(model)
    cards.save_model(tmp_path / "forged.npz", forest_bytes(model), card)
    with pytest.raises(cards.ModelError, match="holds no sound forest: tree 3 is damaged"):
        cards.load_model(tmp_path / "forged.npz")


def test_a_changed_or_exchanged_regression_forest_is_refused(mapped, tmp_path):
    study = mapped[0]
    model, card = cards.load_model(model_path(study, LAYER, "regression"))
    path = tmp_path / "forest.npz"
    cards.save_model(path, forest_bytes(model), card)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(cards.ModelError, match="SHA-256 differs"):
        cards.load_model(path)
    classifier, of_classes = cards.load_model(model_path(study, LAYER))
    cards.save_model(path, forest_bytes(classifier), card)
    with pytest.raises(cards.ModelError, match="no random forest of 2 predictors"):
        cards.load_model(path, class_means.REGRESSED)
    cards.save_model(path, forest_bytes(model), of_classes)
    with pytest.raises(cards.ModelError, match="no random forest of 2 predictors"):
        cards.load_model(path, "ice_type")
    with pytest.raises(cards.ModelError, match="of the target ice_type"):
        cards.load_model(path, class_means.REGRESSED)


def test_storage_totals_say_where_they_come_from(mapped):
    study = mapped[0]
    write_totals(study, {"regions": pd.DataFrame({"ice_km3": [1.0]}, index=["all"])})
    record = json.loads((study.results_dir / "tables" / "storage.json").read_text())
    assert record["storage_from"] == "regression"
