"""The hurdle model of ice: known answers, what must always hold, and files."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from joblib import parallel_config
from scipy.special import expit, logit
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.forest import cards
from helpers.forest.grid_search import Search
from helpers.forest.hurdle import (
    LEAST_SAMPLES,
    UNITS,
    Hurdle,
    Prediction,
    agree_with_shares,
    bins_of,
    check_enough,
    fit_hurdle,
    learning_rows,
    mapped_types,
    permafrost_cut,
    predict_held_out,
    predict_rows,
)
from helpers.forest.paths import model_path
from helpers.forest.trees import with_leaves
from helpers.samples.extract import cell_points, evaluation_cells
from helpers.samples.prevalence import COLUMNS, shift_at
from helpers.samples.rows import ForestError, forest_predictors, layer_rows

LAYER = "2-3m"
FEW = 30  # trees
COLOURS = ["#d9d9d9", "#bdbdbd", "#a1dab4", "#41b6c4", "#225ea8", "#081d58"]


def own_classes(free=1, contents=True):
    """Return six classes of a study's own; the first ones are no permafrost."""
    return [
        {"name": f"class {code}", "colour": colour, "permafrost": code >= free}
        | ({"ice_content": code / 10} if contents and code >= free else {})
        for code, colour in enumerate(COLOURS)
    ]


KINDS = {
    "ice types": {},
    "permafrost": {"target": "permafrost"},
    "two without permafrost": {"classes": own_classes(free=2)},
    "no contents": {"classes": own_classes(contents=False)},
}


@pytest.fixture(scope="module")
def samples(world):
    """The samples of the layer: their ice grows with elevation, and varies."""
    rng = np.random.default_rng(7)
    table = world[1].copy()
    odds = table["elevation"] - 1 + rng.normal(0, 0.5, len(table))
    frozen = table["ice_type"] > 0
    kind = np.where(frozen, 1 + np.digitize(expit(odds), [0.1, 0.2, 0.3, 0.5]), table["twi"] > 0.8)
    table["ice_type"] = kind.astype(int)
    return table.assign(ice_fraction=np.where(frozen, expit(odds), 0.0))


@pytest.fixture(scope="module", params=KINDS)
def fitted(request, world, samples):
    """A study of each kind, its samples and their hurdle, and 300 places, half in the domain."""
    study = world[0].changed(KINDS[request.param])
    rows = layer_rows(samples, LAYER, target=study.target_classes)
    values = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    return study, rows, fit_hurdle(study, rows, FEW), values, np.arange(300) % 2 == 0


@pytest.fixture(scope="module")
def plain(world, samples):
    """The study of ice types, its samples, and their hurdle."""
    rows = layer_rows(samples, LAYER)
    return world[0], rows, fit_hurdle(world[0], rows, FEW)


def by_hand(permafrost, bins, edges):
    """Return a hurdle of nothing but bins, and a prediction."""
    edges = np.array(edges, float)
    none = np.zeros(len(edges) - 1)
    hurdle = Hurdle([], np.zeros(1), 0.0, none, none, edges, np.zeros((len(none), 6)), [0], [])
    permafrost = np.atleast_1d(np.array(permafrost, float))
    bins = np.tile(bins, (len(permafrost), 1))
    return hurdle, Prediction(permafrost, None, bins, 0 * permafrost, 0 * permafrost)


# What is expected


def test_log_odds_of_forest_and_logistic_regression_are_averaged_within_the_domain(fitted):
    study, rows, hurdle, values, inside = fitted
    rows = learning_rows(study, rows)
    frozen = study.target_classes.permafrost[rows["class"]]
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-8))
    logistic.fit(forest_predictors(study, rows).astype(float), frozen)
    votes = np.clip(hurdle.forests[0].predict_proba(values)[:, 1], 0.001, 0.999)
    expected = expit((logit(votes) + logistic.decision_function(values.astype(float))) / 2)
    found = hurdle.predict(values, inside).permafrost
    assert found == pytest.approx(np.where(inside, expected, 0), abs=1e-5)
    shifted = hurdle.predict(values, inside, np.log(3)).permafrost[inside]
    assert shifted / (1 - shifted) == pytest.approx(3 * found[inside] / (1 - found[inside]))
    nowhere = hurdle.predict(values, np.zeros(300, bool))
    assert not nowhere.permafrost.any()
    assert not nowhere.ice.any()


def test_probabilities_of_permafrost_classes_add_up_to_p_and_all_to_1(fitted):
    study, _, hurdle, values, inside = fitted
    found, permafrost = hurdle.predict(values, inside), study.target_classes.permafrost
    assert found.classes.shape == (300, len(permafrost))
    assert found.classes.sum(axis=1) == pytest.approx(1)
    assert found.classes[:, permafrost].sum(axis=1) == pytest.approx(found.permafrost)
    assert (found.classes >= 0).all()
    assert found.bins.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(found.ice, found.permafrost * found.content)
    assert found.content == pytest.approx(found.bins @ hurdle.mean)


def test_classes_without_permafrost_share_what_is_not_p(world, samples):
    study = world[0].changed(KINDS["two without permafrost"])
    rows = layer_rows(samples, LAYER, target=study.target_classes)
    # Of those outside of the domain it is learned, too.
    rows["class"] = np.where(rows["class"] < 2, np.where(rows["twi"] > 0, 1, 0), rows["class"])
    hurdle = fit_hurdle(study, rows, FEW)
    values = np.random.default_rng(1).normal(size=(99, 2)).astype(np.float32)
    for inside in (np.ones(99, bool), np.zeros(99, bool)):
        found = hurdle.predict(values, inside)
        own = (1 - found.permafrost)[:, np.newaxis] * hurdle.forests[2].predict_proba(values)
        assert found.classes[:, :2] == pytest.approx(own)
    assert ((found.classes[:, 1] > 0.5) == (values[:, 1] > 0)).mean() > 0.9
    one = rows[rows["class"] != 1]
    alone = fit_hurdle(study, one, FEW).predict(values, np.ones(99, bool))
    assert not alone.classes[:, 1].any()
    assert alone.classes[:, 0] == pytest.approx(1 - alone.permafrost)


def test_without_ice_contents_classes_take_the_place_of_bins(world, samples):
    study = world[0].changed(KINDS["no contents"])
    rows = layer_rows(samples.drop(columns="ice_fraction"), LAYER, target=study.target_classes)
    hurdle = fit_hurdle(study, rows, FEW)
    values = forest_predictors(study, rows)
    found = hurdle.predict(values, np.ones(len(rows), bool))
    frozen = np.unique(rows["class"])[1:]
    own = found.permafrost[:, np.newaxis] * hurdle.forests[1].predict_proba(values)
    assert found.classes[:, frozen] == pytest.approx(own)
    for nothing in (found.ice, found.ice_sd, hurdle.quantile(found, 0.9)):
        assert not nothing.any()
    same = rows.assign(**{"class": np.where(rows["class"] > 0, 3, 0)})
    alone = fit_hurdle(study, same, FEW).predict(values, np.ones(len(rows), bool))
    assert np.array_equal(alone.classes[:, 3], alone.permafrost)


def test_bins_are_the_samples_of_the_leaves(plain):
    study, rows, hurdle = plain
    rows = learning_rows(study, rows)
    rows = rows[rows["class"] > 0]
    fraction = rows["ice_fraction"].to_numpy()
    place, _ = bins_of(fraction)
    values, cells = forest_predictors(study, rows), np.random.default_rng(2).normal(size=(40, 2))
    found = hurdle.predict(cells, np.ones(40, bool))
    leaves, at = hurdle.forests[1].apply(values), hurdle.forests[1].apply(cells)
    shares = np.zeros((40, place.max() + 1))
    for cell, of_cell in enumerate(at):
        for tree, leaf in enumerate(of_cell):
            own = np.bincount(place[leaves[:, tree] == leaf], minlength=shares.shape[1])
            shares[cell] += own / own.sum() / FEW
    assert found.bins == pytest.approx(shares)
    means = [[fraction[place == number].mean() for number in range(shares.shape[1])]]
    assert found.content == pytest.approx((shares * means).sum(axis=1))


def test_leaves_with_a_bin_for_each_sample_are_the_weights_of_a_regression():
    rng = np.random.default_rng(0)
    values, cells = rng.normal(size=(2, 60, 3)).astype(np.float32)
    ice = rng.random(60)
    peer = RandomForestRegressor(10, min_samples_leaf=4, max_features=1, bootstrap=False)
    weights = with_leaves(peer.fit(values, ice), values, np.arange(60)).predict_proba(cells)
    assert weights @ ice == pytest.approx(peer.predict(cells))


# Contents of a borehole


def test_quantiles_of_one_evenly_spread_bin():
    hurdle, prediction = by_hand([0.5, 1, 0], [1.0], [0.2, 0.6])
    for level, expected in {0: [0, 0, 0], 0.5: [0, 0.4, 0], 0.75: [0.4, 0.5, 0]}.items():
        assert hurdle.quantile(prediction, level) == pytest.approx(expected)
    assert hurdle.quantile(prediction, 1) == pytest.approx([0.6, 0.6, 0])
    for content, expected in {0.1: 0.5, 0.3: 0.375, 0.4: 0.25, 0.6: 0, 0.7: 0}.items():
        found = hurdle.exceeding(prediction, content)
        assert found == pytest.approx([expected, 2 * expected, 0])


def test_a_bin_of_equal_contents_has_no_width():
    hurdle, prediction = by_hand(1, [0.5, 0.5], [0.3, 0.3, 0.5])
    assert hurdle.quantile(prediction, 0.4) == 0.3
    assert hurdle.quantile(prediction, 0.75) == pytest.approx(0.4)
    assert hurdle.exceeding(prediction, 0.29) == 1
    assert hurdle.exceeding(prediction, 0.3) == 0.5


@st.composite
def distributions(draw):
    """Return bins, ends of bins and P."""
    parts = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6))
    shares, widths = np.array(parts, float).T
    shares[draw(st.integers(0, len(parts) - 1))] += 1
    edges = np.cumsum([draw(st.integers(0, 9)), *widths])
    return shares / shares.sum(), edges / 100, draw(st.floats(0.001, 1))


@given(distributions(), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_increase_and_are_exceeded_as_often_as_they_say(drawn, one, other):
    bins, edges, permafrost = drawn
    hurdle, prediction = by_hand(permafrost, bins, edges)
    low, high = (hurdle.quantile(prediction, level)[0] for level in sorted((one, other)))
    assert 0 <= low <= high <= edges[-1] + 1e-12
    if one <= 1 - permafrost:
        assert hurdle.quantile(prediction, one) == 0
    else:
        content = hurdle.quantile(prediction, one)[0]
        assert content >= edges[0]
        assert hurdle.exceeding(prediction, content) == pytest.approx(1 - one, abs=1e-9)
    assert hurdle.exceeding(prediction, edges[0] - 1e-6) == pytest.approx(permafrost)
    assert hurdle.exceeding(prediction, edges[-1]) == 0


def test_the_standard_deviation_is_that_of_boreholes():
    half = np.array([0.5])
    square = np.mean(np.square([[0.2, 0.4]]), axis=1)
    found = Prediction(half, None, None, np.array([0.3]), square)
    assert found.ice == pytest.approx(0.15)
    assert found.ice_sd == pytest.approx(np.std([0, 0, 0.2, 0.4]))


@given(hnp.arrays(float, st.integers(1, 200), elements=st.integers(0, 40).map(lambda n: n / 40)))
def test_bins_hold_their_samples_and_part_no_equal_ones(fraction):
    place, edges = bins_of(fraction)
    assert (np.diff(edges) >= 0).all()
    assert (edges[place] <= fraction).all()
    assert (fraction <= edges[place + 1]).all()
    assert (edges[0], edges[-1]) == (fraction.min(), fraction.max())
    assert np.array_equal(np.unique(place), np.arange(len(edges) - 1))
    assert len({*zip(fraction, place, strict=True)}) == len(np.unique(fraction))


@pytest.mark.parametrize(("samples", "bins"), [(4, 1), (9, 1), (23, 4), (80, 16), (500, 16)])
def test_bins_have_about_as_many_samples(samples, bins):
    place, _ = bins_of(np.random.default_rng(0).random(samples))
    counts = np.bincount(place)
    assert len(counts) == bins
    assert np.ptp(counts) <= 1


# Samples


def test_only_samples_of_the_domain_teach_unless_it_has_no_absence(plain):
    study, rows, _ = plain
    inside = rows["in_domain"].to_numpy()
    assert learning_rows(study, rows).equals(rows[inside])
    none_inside = rows[~inside | (rows["class"] > 0)]
    taught = learning_rows(study, none_inside)
    assert taught.equals(none_inside[none_inside["in_domain"] | (none_inside["class"] == 0)])
    assert not taught["in_domain"].all()
    with pytest.raises(ForestError, match=r"of 2-3m in the .* is without permafrost"):
        learning_rows(study, rows[rows["class"] > 0])
    with pytest.raises(ForestError, match=r"of 2-3m in the .* is with permafrost"):
        learning_rows(study, rows[~inside | (rows["class"] == 0)])


def test_a_layer_of_too_few_places_in_the_domain_is_refused(plain):
    study, rows, _ = plain
    inside = rows[rows["in_domain"]].sort_values("class")
    enough = inside.iloc[: LEAST_SAMPLES - 1]
    enough = pd.concat([enough, inside.tail(1)])
    check_enough(study, enough)
    # Neither a second sample of a place nor one outside of the domain is one more.
    few = pd.concat([enough.iloc[1:], enough.tail(1), rows[~rows["in_domain"]]])
    with pytest.raises(ForestError, match=r"^2-3m has samples of 29 places .* needs 30"):
        check_enough(study, few)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.2])
def test_ice_that_is_no_fraction_is_named(plain, wrong):
    study, rows, _ = plain
    spoiled = rows.assign(ice_fraction=rows["ice_fraction"].where(rows["class"] == 0, wrong))
    with pytest.raises(ForestError, match="no ice fraction between 0 and 1, such as S"):
        fit_hurdle(study, spoiled, FEW)


def test_held_out_samples_are_predicted_by_a_hurdle_that_never_saw_them(plain):
    study, rows, _ = plain
    fold = np.arange(len(rows)) % 3
    strata = [{"region": "", "from_m": None, "to_m": None, "shift": 0.7}]
    jobs = [(rows, fold, []), (rows, fold, strata)]
    (found, shifted), again = (predict_held_out(study, jobs, n_jobs) for n_jobs in (1, 2))
    held = fold == 1
    own = fit_hurdle(study, rows[~held], study.folds.estimators)
    expected = predict_rows(study, own, rows[held])
    moved = predict_rows(study, replace(own, strata=strata), rows[held])
    for name in ("permafrost", "classes", "content", "square"):
        assert np.array_equal(getattr(found, name)[held], getattr(expected, name))
        assert np.array_equal(getattr(shifted, name)[held], getattr(moved, name))
        assert np.array_equal(getattr(found, name), getattr(again[0], name))
    inside = rows["in_domain"].to_numpy()
    assert logit(shifted.permafrost[inside]) == pytest.approx(logit(found.permafrost[inside]) + 0.7)
    assert not shifted.permafrost[~inside].any()


def test_p_agrees_with_known_shares_of_each_belt(plain, tmp_path):
    study, _, hurdle = plain
    assert agree_with_shares(study, hurdle, LAYER) is hurdle
    path = tmp_path / "shares.csv"
    lines = [",".join(COLUMNS), ",,0.7,,0.3,0.2,0.4,a map", ",0.7,,,0.95,0.9,0.99,a map"]
    path.write_text("\n".join(lines))
    study = study.changed({"samples.prevalence": str(path)})
    agreed = agree_with_shares(study, hurdle, LAYER)
    values, cells, inside = evaluation_cells(study)
    shift = shift_at(study, agreed.strata, values, cell_points(study, cells))
    chance = agreed.predict(values, inside, shift).permafrost
    low = values[:, 0] < 0.7
    assert chance[inside & low].mean() == pytest.approx(0.3)
    assert chance[inside & ~low].mean() == pytest.approx(0.95)
    assert not chance[~inside].any()


# The limit of permafrost


@given(
    hnp.arrays(int, st.integers(1, 60), elements=st.integers(0, UNITS) | st.sampled_from([0, 9]))
)
def test_the_mapped_area_is_the_expected_one_within_a_step(chance):
    counts = np.bincount(chance, minlength=UNITS + 1)
    cut = permafrost_cut(counts)
    assert cut >= 1  # a cell without a chance is never mapped
    area, expected = (chance >= cut).sum(), chance.sum() / UNITS
    assert abs(area - expected) <= counts[1:].max(initial=0) / 2 + 1e-9


def test_the_type_is_the_most_probable_one_on_its_side_of_the_limit():
    shares = np.array([[0.3, 0.3, 0.25, 0.15], [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1], [1, 0, 0, 0]])
    permafrost = np.array([False, False, True, True])
    for frozen, expected in {True: [2, 3, 3, 2], False: [0, 1, 0, 0]}.items():
        found = mapped_types(shares, np.full(4, frozen), permafrost)
        assert found.tolist() == expected


# Files


@pytest.fixture(scope="module")
def saved(world, samples):
    """The study of ice types, its samples, and the function that saves its models."""
    study = world[0].changed({"forest.map_fit": "train"})
    path = study.results_dir / "samples" / "samples.csv"
    path.parent.mkdir(parents=True)
    samples.to_csv(path, index=False)
    rows = layer_rows(samples, LAYER, "train")
    known = rows["class"].to_numpy()
    params = {"max_depth": None, "min_samples_split": 2}
    found = Search(LAYER, params, None, np.arange(len(rows)) % 3, known, np.eye(6)[known])

    def save(n_jobs):
        cards.save_forests(study, samples, found, n_jobs)
        return model_path(study, LAYER, kind="ice")

    save(1)
    return study, rows, save


def test_a_hurdle_comes_back_as_it_was_saved_on_any_number_of_threads(saved):
    study, rows, save = saved
    path = model_path(study, LAYER, kind="ice")
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    hurdle, card = cards.load_hurdle(path, "ice_type")
    assert (card["layer"], card["n_samples"], card["strata"]) == (LAYER, len(rows), [])
    found, expected = (predict_rows(study, one, rows) for one in (hurdle, fit_hurdle(study, rows)))
    for name in ("permafrost", "classes", "bins", "content", "square"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    # Processes would not know the folder of the test.
    with parallel_config(backend="threading"):
        save(2)
    assert before == (path.read_bytes(), path.with_suffix(".json").read_bytes())


def changed_byte(path, card):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def without(name):
    def spoil(path, card):
        path.with_suffix(".json").write_text(
            json.dumps({k: v for k, v in card.items() if k != name})
        )

    return spoil


def fewer_bins(path, card):
    path.with_suffix(".json").write_text(json.dumps(card | {"types": card["types"][:-1]}))


@pytest.mark.parametrize(
    ("spoil", "target", "expected"),
    [
        pytest.param(changed_byte, "ice_type", "SHA-256 differs", id="byte"),
        pytest.param(lambda *_: None, "permafrost", "of the target ice_type", id="target"),
        pytest.param(fewer_bins, "ice_type", "no sound forest: unknown classes", id="bins"),
        *(
            pytest.param(without(name), "ice_type", "is no hurdle model", id=name)
            for name in ("types", "slope", "edges", "intercept", "strata")
        ),
    ],
)
def test_a_spoiled_hurdle_is_refused(saved, tmp_path, spoil, target, expected):
    own = model_path(saved[0], LAYER, kind="ice")
    path, card = tmp_path / own.name, cards.read_card(own)
    path.write_bytes(own.read_bytes())
    path.with_suffix(".json").write_text(json.dumps(card))
    spoil(path, card)
    with pytest.raises(cards.ModelError, match=expected):
        cards.load_hurdle(path, target)


def test_a_forest_of_classes_is_no_hurdle(saved):
    path = model_path(saved[0], LAYER)
    with pytest.raises(cards.ModelError, match=r"forest_2-3m\.npz is no hurdle model"):
        cards.load_hurdle(path)
