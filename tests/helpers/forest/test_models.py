"""The forest: search, importance, and model files that cannot do harm."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SOURCE
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from sklearn.ensemble import RandomForestClassifier

from helpers.accuracy import report
from helpers.accuracy.importance import _shuffled, importance
from helpers.core import study as core_study
from helpers.core.files import file_hash
from helpers.core.scores import confusion_matrix, kappa
from helpers.core.settings import Samples
from helpers.core.study import Study
from helpers.folds.units import deal_units
from helpers.forest.cards import ModelError, load_hurdle, load_model, save_forests, save_model
from helpers.forest.file import forest_bytes
from helpers.forest.grid_search import SEARCH_SCORES, SEARCHED, search
from helpers.forest.models import class_probabilities, fit
from helpers.forest.paths import model_path
from helpers.samples.rows import CLASSES, ForestError, layer_rows, predictor_values

PREDICTORS = ["elevation", "slope", "twi", "ndvi", "lst_mean"]
CARD = {"predictors": PREDICTORS, "seed": 3}
LAYERS = ["2-3m", "3-5m"]
SMALL = {
    "n_estimators": 20,
    "search_sizes": [10],
    "max_depth": [3, None],
    "min_samples_split": [2, 20],
    "max_features": ["sqrt"],
}


def make_table(sites=240, seed=0, noise=0.4):
    """Samples as of notebook 02: permafrost where it is high, ice from wetness, both with noise."""
    rng = np.random.default_rng(seed)
    values = pd.DataFrame(rng.normal(size=(sites, len(PREDICTORS))), columns=PREDICTORS)
    split = np.where(rng.random(sites) < 0.3, "test", "train")
    parts = []
    for layer in LAYERS:
        frozen = values["elevation"] + noise * rng.normal(size=sites) > 0.2
        content = 1 / (1 + np.exp(1.0 - values["twi"] - noise * rng.normal(size=sites)))
        kind = np.where(frozen, np.digitize(content, [0.10, 0.20, 0.30, 0.50]) + 1, 0)
        known = {
            "site_id": [f"S{n:03d}" for n in range(sites)],
            "group": [f"S{n:03d}" for n in range(sites)],
            "layer": layer,
            "easting": 5000.0 * np.arange(sites),
            "northing": 0.0,
            "ice_type": kind,
            "ice_content": np.where(frozen, content, np.nan),
            "permafrost_share": np.where(frozen, 1.0, 0.0),
            "ice_fraction": np.where(frozen, content, 0.0),
            "in_domain": values["elevation"] > -1,
            "split": split,
        }
        parts.append(pd.DataFrame(known).join(values))
    return pd.concat(parts, ignore_index=True)


def in_project(patch, folder):
    """Return a function that gives a study in a folder of its own, with its sample table."""
    patch.setattr(core_study, "ROOT", folder)

    def make(table, **changes):
        study = Study(
            name="mine",
            source=SOURCE,
            predictors=PREDICTORS,
            layers=[(2, 3), (3, 5)],
            forest={**SMALL, **changes},
        )
        path = study.results_dir / "samples" / "samples.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
        return study

    return make


@pytest.fixture
def project(tmp_path, monkeypatch):
    return in_project(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def made(table, tmp_path_factory):
    """The search and the forests of one layer, made once."""
    with pytest.MonkeyPatch.context() as patch:
        study = in_project(patch, tmp_path_factory.mktemp("made"))(table)
        found = search(study, table, "2-3m", n_jobs=1)
        cards = save_forests(study, table, found, n_jobs=1)
        folder = study.results_dir / "models"
    return study, found, {path.name: card for path, card in cards.items()}, folder


# Search


def test_the_search_finds_what_is_there_among_forests_of_full_size(made):
    found = made[1]
    assert found.table["n_estimators"].tolist() == [10, 20] * 4
    assert set(found.params) == set(SEARCHED)
    full = found.table[found.table["n_estimators"] == 20]
    best = full.loc[full["kappa"].idxmax()]
    assert best["rank"] == 1
    assert found.table["chosen"].sum() == 1
    assert best["chosen"]
    assert best["max_depth"] == (found.params["max_depth"] or "unlimited")
    assert found.scores["kappa"] > 0.4
    assert set(found.table) >= {name + end for name in SEARCH_SCORES for end in ("", "_se")}


def test_out_of_fold_probabilities_are_those_of_forests_grown_without_the_fold(project, table):
    study = project(table, max_depth=[None], min_samples_split=[2])
    found = search(study, table, "2-3m", n_jobs=1)
    rows = layer_rows(table, "2-3m", "train")
    values = predictor_values(rows, PREDICTORS)
    away = found.fold != 2
    plain = RandomForestClassifier(
        20, class_weight="balanced", random_state=study.forest.seed, **found.params
    )
    expected = plain.fit(values[away], found.reference[away]).predict_proba(values[~away])
    assert np.array_equal(found.out_of_fold[~away], expected)


def test_the_simplest_within_one_standard_error_may_be_asked_for(project, table):
    grid = {"max_depth": [1, 2, 3, 5, None], "max_features": ["sqrt", 3]}
    plain, simple = (
        search(project(table, one_standard_error=rule, **grid), table, "2-3m", n_jobs=1)
        for rule in (False, True)
    )
    best, chosen = (found.table[found.table["chosen"]].iloc[0] for found in (plain, simple))
    assert chosen["leaves"] < best["leaves"]
    assert best["kappa"] - best["kappa_se"] <= chosen["kappa"] <= best["kappa"]


def test_the_search_never_looks_at_the_test_samples(project, table):
    study = project(table)
    spoiled = table.copy()
    test = spoiled["split"] == "test"
    spoiled.loc[test, PREDICTORS] = np.nan
    spoiled.loc[test, "ice_type"] = 5
    found, other = (search(study, t, "3-5m", n_jobs=1) for t in (table, spoiled))
    pd.testing.assert_frame_equal(found.table, other.table)
    assert np.array_equal(found.out_of_fold, other.out_of_fold)


def test_same_seed_same_forest_on_one_and_two_processes(project, table):
    study = project(table)
    kept = []
    for n_jobs in (1, 2):
        found = search(study, table, "2-3m", n_jobs=n_jobs)
        with parallel_config(
            backend="threading"
        ):  # processes would not know the folder of the test
            cards = save_forests(study, table, found, n_jobs=n_jobs)
        kept.append((found, [path.read_bytes() for path in cards]))
    (one, files), (two, others) = kept
    assert one.params == two.params
    pd.testing.assert_frame_equal(one.table, two.table, check_exact=True)
    assert np.array_equal(one.out_of_fold, two.out_of_fold)
    assert files == others


@pytest.mark.parametrize("score", ["macro_f1", "log_loss"])
def test_another_score_may_decide(project, table, score):
    found = search(project(table, score=score), table, "2-3m", n_jobs=1)
    full = found.table[found.table["n_estimators"] == 20]
    best = full[score].min() if score == "log_loss" else full[score].max()
    assert (
        full.loc[full["chosen"], score].item() == full.loc[full["rank"] == 1, score].item() == best
    )


def test_random_labels_have_kappa_about_0(project, table):
    shuffled = table.assign(ice_type=np.random.default_rng(1).permutation(table["ice_type"]))
    assert abs(search(project(shuffled), shuffled, "2-3m", n_jobs=1).scores["kappa"]) < 0.15


def test_labels_that_follow_from_a_predictor_have_kappa_1(project, table):
    told = table.assign(ice_type=np.digitize(table["lst_mean"], [0.0]) * 3)
    assert search(project(told), told, "2-3m", n_jobs=1).scores["kappa"] > 0.95


def test_a_class_with_one_member_and_one_without_any(project, table):
    rare = table[table["ice_type"] != 5].copy()
    rare.loc[rare.index[(rare["split"] == "train") & (rare["layer"] == "2-3m")][0], "ice_type"] = 5
    rare = rare[rare["ice_type"] != 1]
    with pytest.raises(ForestError, match="only one training site has the class"):
        search(project(rare), rare, "2-3m", n_jobs=1)
    study = project(rare).model_copy(update={"samples": Samples(rare_classes="keep")})
    found = search(study, rare, "2-3m", n_jobs=1)
    assert np.allclose(found.out_of_fold.sum(axis=1), 1)
    for path, card in save_forests(study, rare, found, n_jobs=1).items():
        if path.name.startswith("forest"):
            assert card["class_counts"][1] == 0
            assert load_model(path)[0].classes_.tolist() == [0, 2, 3, 4, 5]
        else:
            types = np.array(load_hurdle(path)[0].types)
            assert np.flatnonzero(types.any(axis=0)).tolist() == [2, 3, 4, 5]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=40, max_size=120),
    st.integers(2, 6),
)
def test_folds_never_part_a_site_and_have_one_size(samples, folds):
    sites, types = np.transpose(samples)
    if len(np.unique(sites)) < folds:
        with pytest.raises(ForestError, match="cannot be dealt"):
            deal_units(sites, types, folds, 1)
        return
    fold = deal_units(sites, types, folds, 1)
    one = pd.DataFrame({"site": sites, "fold": fold}).drop_duplicates()
    assert one["site"].is_unique
    counts = one["fold"].value_counts()
    assert len(counts) == folds
    assert counts.max() - counts.min() <= 1


def test_folds_have_like_shares_of_every_class():
    types = np.repeat(CLASSES, [200, 11, 30, 30, 20, 9])
    fold = deal_units(np.arange(300), types, 5, seed=7)
    counts = pd.crosstab(types, fold)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert not np.array_equal(fold, deal_units(np.arange(300), types, 5, seed=8))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda t: t[t["layer"] != "2-3m"], "no samples of the layer 2-3m.*3-5m", id="no layer"
        ),
        pytest.param(
            lambda t: t.assign(ice_type=0), "All 1.. samples.*no permafrost", id="one class"
        ),
        pytest.param(lambda t: t.assign(ice_type=9), r"ice types \[9\]", id="unknown class"),
        pytest.param(lambda t: t.drop(columns="ndvi"), "no column ndvi", id="no predictor"),
        pytest.param(lambda t: t.assign(ndvi=np.nan), "lack a finite value.*ndvi at S0", id="nan"),
        pytest.param(lambda t: t.assign(ndvi=1e300), "lack a finite value.*ndvi", id="too large"),
        pytest.param(
            lambda t: t.assign(ndvi=0.5, twi=1.0),
            "one value at all 1.. samples.*: twi, ndvi",
            id="constant",
        ),
        pytest.param(
            lambda t: t[t["split"] == "train"].groupby(["layer", "ice_type"]).head(1).iloc[:3],
            "sites cannot be dealt into 5 folds",
            id="fewer sites than folds",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_samples_that_cannot_be_used_are_refused(project, table, change, expected):
    changed = change(table)
    with pytest.raises(ForestError, match=expected) as caught:
        search(project(changed), changed, "2-3m", n_jobs=1)
    assert "Remedy: " in str(caught.value)


def test_a_grid_that_asks_for_more_predictors_than_there_are_is_refused(project, table):
    with pytest.raises(ForestError, match="asks for 6 predictors at a split, and there are 5"):
        search(project(table, max_features=["sqrt", 6]), table, "2-3m", n_jobs=1)


# What a forest tells


def test_importance_finds_the_predictor_that_matters_and_equals_one_by_one(project, table):
    told = table.assign(ice_type=np.digitize(table["lst_mean"], [0.0]) * 3)
    study = project(told)
    model = fit(study, told, "2-3m", {"max_depth": None, "min_samples_split": 2}, "train")
    rows = layer_rows(told, "2-3m", "test")
    values, types = predictor_values(rows, PREDICTORS), rows["ice_type"].to_numpy()
    found = importance(study, model, CARD, rows)
    assert found.loc[0, "predictor"] == "lst_mean"
    assert found.loc[0, "mean"] > 0.7
    assert found["mean"].iloc[1:].abs().max() < 0.1
    again = importance(study, model, CARD, rows)
    pd.testing.assert_frame_equal(found, again)

    whole = kappa(confusion_matrix(types, model.predict(values), CLASSES))
    falls = []
    for part in np.split(_shuffled(values, [4], 3, 10), 10):
        assert sorted(part[:, 4]) == sorted(values[:, 4])
        falls.append(whole - kappa(confusion_matrix(types, model.predict(part), CLASSES)))
    assert found.loc[0, ["mean", "sd"]].tolist() == pytest.approx(
        [np.mean(falls), np.std(falls, ddof=1)]
    )


def test_importance_of_predictors_that_tell_the_same(project, table):
    # Either of two copies can stand in for the other: alone they matter less than together.
    told = table.assign(ice_type=np.digitize(table["lst_mean"], [0.0]) * 3, slope=table["lst_mean"])
    study = project(told)
    model = fit(study, told, "2-3m", {"max_depth": None, "min_samples_split": 2}, "train")
    rows = layer_rows(told, "2-3m", "test")
    values = predictor_values(rows, PREDICTORS)
    single = importance(study, model, CARD, rows).set_index("predictor")
    pair = importance(study, model, CARD, rows, [["lst_mean", "slope"]]).loc[0]
    assert pair["predictor"] == "lst_mean + slope"
    assert pair["mean"] > 1.2 * single.loc["lst_mean", "mean"] > 0
    assert pair["lower"] < pair["mean"] < pair["upper"]
    shuffled = _shuffled(values, [0, 1], 3, 1)
    assert {*map(tuple, shuffled[:, :2])} == {*map(tuple, values[:, :2])}
    none = importance(study, model, CARD, rows, [])
    assert len(none) == 0


# Files


@pytest.fixture
def saved(project, table, made):
    study = project(table)
    models = study.results_dir / "models"
    shutil.copytree(made[3], models)
    return study, made[1], {models / name: card for name, card in made[2].items()}


def test_forests_and_cards_of_a_layer(saved, table):
    study, found, cards = saved
    folder = study.results_dir / "models"
    names = [f"{kind}_2-3m{which}" for kind in ("forest", "ice") for which in ("", "_train")]
    files = {name + end for name in names for end in (".json", ".npz")}
    assert {path.name for path in folder.iterdir()} == files
    model, card = load_model(model_path(study, "2-3m"))
    assert card == cards[folder / "forest_2-3m.npz"]
    assert (card["fit"], card["predictors"], card["classes"]) == ("all", PREDICTORS, list(CLASSES))
    assert card["params"]["max_depth"] == found.params["max_depth"]
    assert card["grid"] == {
        "n_estimators": [10, 20],
        "max_depth": [3, None],
        "min_samples_split": [2, 20],
        "max_features": ["sqrt"],
        "min_samples_leaf": [1],
        "criterion": ["gini"],
    }
    assert (card["decided_by"], card["scores"]) == ("kappa", found.scores)
    slope = table.loc[table["layer"] == "2-3m", "slope"]
    assert card["covariates"]["slope"] == {
        "unit": "degrees",
        "minimum": slope.min(),
        "maximum": slope.max(),
    }
    assert list(card["covariates"]) == PREDICTORS
    assert card["samples_sha256"] == file_hash(study.results_dir / "samples" / "samples.csv")
    assert card["n_samples"] == sum(card["class_counts"]) == (table["layer"] == "2-3m").sum()
    fresh = fit(study, table, "2-3m", found.params)
    values = predictor_values(layer_rows(table, "2-3m"), PREDICTORS)
    assert np.array_equal(model.predict_proba(values), fresh.predict_proba(values))
    assert np.array_equal(
        np.asarray(CLASSES)[class_probabilities(model, values).argmax(axis=1)],
        model.predict(values),
    )


def test_the_test_is_made_with_a_forest_that_never_saw_it(saved, table):
    study, found, _ = saved
    test = layer_rows(table, "2-3m", "test")
    kept, card = load_model(model_path(study, "2-3m", "train"))
    probabilities = class_probabilities(kept, predictor_values(test, PREDICTORS))
    assert card["fit"] == "train"
    result = report.evaluate(study, test, probabilities, probabilities.argmax(axis=1))
    model = fit(study, table, "2-3m", found.params, "train")
    mapped = model.predict(predictor_values(test, PREDICTORS))
    whole, inside = result["whole"], result["potential_permafrost"]
    assert whole["overall_accuracy"] == pytest.approx((mapped == test["ice_type"]).mean())
    assert inside["n"] == test["in_domain"].sum() < whole["n"] == len(test)
    nowhere = test.assign(in_domain=False)
    empty = report.evaluate(study, nowhere, probabilities, mapped)["potential_permafrost"]
    assert (empty["n"], empty["kappa"], empty["log_loss"]) == (0, None, None)


def test_one_forest_where_the_map_is_made_from_the_training_samples(project, table):
    study = project(table, map_fit="train")
    cards = save_forests(study, table, search(study, table, "3-5m", n_jobs=1), n_jobs=1)
    paths = [model_path(study, "3-5m", "train", kind) for kind in ("forest", "ice")]
    assert (
        list(cards) == paths == [model_path(study, "3-5m", kind=kind) for kind in ("forest", "ice")]
    )
    assert {card["fit"] for card in cards.values()} == {"train"}


def test_a_model_with_any_byte_changed_is_refused(saved):
    path = model_path(saved[0], "2-3m")
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 50):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ModelError, match="SHA-256 differs"):
            load_model(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_model(path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda path: path.unlink(), "no model forest_2-3m.npz", id="no model"),
        pytest.param(
            lambda path: path.with_suffix(".json").unlink(), "no model card", id="no card"
        ),
        pytest.param(
            lambda path: path.with_suffix(".json").write_text("{"), "is no model card", id="no json"
        ),
        pytest.param(
            lambda path: path.with_suffix(".json").write_text("[]"),
            "is no model card",
            id="no dict",
        ),
        pytest.param(
            lambda path: rewrite(path, versions={"scikit-learn": "0.1"}),
            "scikit-learn 0.1",
            id="old",
        ),
        pytest.param(
            lambda path: rewrite(path, predictors=["a"]), "forest of 1 predictors", id="predictors"
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(saved, spoil, expected):
    path = model_path(saved[0], "2-3m")
    spoil(path)
    with pytest.raises(ModelError, match=expected) as caught:
        load_model(path)
    assert "Remedy: " in str(caught.value)


def rewrite(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | changes))


LOAD = """
import sys
import numpy as np
from pathlib import Path
from helpers.forest import cards as forest

for path in sorted(Path(sys.argv[1]).glob("*.npz")):
    try:
        model, card = forest.load_model(path)
        model.predict_proba(np.zeros((10, len(card["predictors"])), np.float32))
        print(path.stem, "was taken", flush=True)
    except forest.ModelError as error:
        print(path.stem, "was refused:", error.message, flush=True)
"""


def forged(data, how):
    """Return the file of a forest with what cannot be in its eighth tree, or in its arrays."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name.removeprefix("0_"): file[name].copy() for name in file.files}
    counts, nodes = arrays["counts"], arrays["nodes"]
    first, end = counts[:7].sum(), counts[:8].sum()
    inner = first + int(np.flatnonzero(nodes["left_child"][first:end] != -1)[-1])
    leaf = first + int(np.flatnonzero(nodes["left_child"][first:end] == -1)[-1])
    changes = {
        "child far away": (nodes["left_child"], inner, 10**9),
        "child in the next tree": (nodes["left_child"], inner, counts[7]),
        "child before all": (nodes["right_child"], inner, -7),
        "circle": (nodes["left_child"], inner, 0),
        "half a leaf": (nodes["right_child"], leaf, 1),
        "two parents": (nodes["left_child"], first, nodes["right_child"][first]),
        "feature": (nodes["feature"], inner, 10**6),
        "threshold": (nodes["threshold"], inner, np.nan),
        "value": (arrays["values"], leaf, np.nan),
        "no votes": (arrays["values"], leaf, 0),
        "less than none": (arrays["values"], leaf, -1),
        "longer tree": (counts, 7, counts[7] + 1),
        "trees without end": (counts, slice(0, 2), 2**62),
        "tree without nodes": (counts, 7, 0),
        "class": (arrays["classes"], -1, 99),
        "class twice": (arrays["classes"], 1, arrays["classes"][0]),
    }
    if how in changes:
        array, place, value = changes[how]
        array[place] = value
    others = {
        "function": ("nodes", np.array([fit], object)),
        "other nodes": ("nodes", nodes["threshold"].copy()),
        "fewer predictors": ("predictors", np.array(2)),
        "fewer classes": ("classes", arrays["classes"][:-1]),
        "no trees": ("counts", counts[:0]),
        "fewer values": ("values", arrays["values"][:-1]),
        "unknown parameter": ("params", np.array('{"trees": 3}')),
        "no parameters": ("params", np.array(3.0)),
    }
    if how in others:
        name, array = others[how]
        arrays[name] = array
    elif how == "depth":
        nodes = np.repeat(nodes[:1], 40_001)
        nodes["left_child"], nodes["right_child"] = 2 * np.arange(40_001) // 2 + 1, -1
        nodes["left_child"][1::2] = -1
        number = np.arange(0, 39_999, 2)
        nodes["left_child"][number], nodes["right_child"][number] = number + 1, number + 2
        nodes["left_child"][-1] = nodes["right_child"][-1] = -1
        values = np.ones((40_001, 1, len(arrays["classes"])))
        arrays |= {"counts": np.array([40_001]), "nodes": nodes, "values": values}
    target = io.BytesIO()
    np.savez(
        target, **{f"0_{name}": array for name, array in arrays.items() if how != f"no {name}"}
    )
    return target.getvalue()[:-9] if how == "cut off" else target.getvalue()


FORGED = [
    "child far away",
    "child in the next tree",
    "child before all",
    "circle",
    "half a leaf",
    "two parents",
    "feature",
    "threshold",
    "value",
    "no votes",
    "less than none",
    "longer tree",
    "trees without end",
    "tree without nodes",
    "class",
    "class twice",
    "function",
    "other nodes",
    "fewer predictors",
    "fewer classes",
    "no trees",
    "fewer values",
    "unknown parameter",
    "no parameters",
    "no nodes",
    "depth",
    "cut off",
]


def test_a_forged_forest_is_refused_and_cannot_crash_the_process(saved, tmp_path):
    whole, card = load_model(model_path(saved[0], "2-3m"))
    for how in [*FORGED, "unchanged"]:
        save_model(tmp_path / f"{how}.npz", forged(forest_bytes(whole), how), card)
    environment = {**os.environ, "PYTHONPATH": str(Path(core_study.__file__).parents[2])}
    loading = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert loading.returncode == 0, (loading.returncode, loading.stdout, loading.stderr)
    told = dict(line.split(" was ", 1) for line in loading.stdout.splitlines())
    assert told.pop("unchanged") == "taken"
    assert sorted(told) == sorted(FORGED)
    for how, answer in told.items():
        assert "holds no sound forest" in answer, (how, answer)
