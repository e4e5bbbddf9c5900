"""Folds and weights: distances by hand, kNNDM's published properties, and what is never parted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_score

from helpers.core.study import Study
from helpers.folds import blocks, distances, kinds, knndm
from helpers.folds.curves import fold_summary
from helpers.samples.rows import ForestError
from helpers.samples.together import FoldError

SIDE = 100
GRID = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), axis=-1).reshape(-1, 2)


def random_points(rng, count=200):
    return rng.uniform(0, SIDE, (count, 2))


def clustered_points(rng, count=200, clusters=15, radius=2.0):
    centres = rng.uniform(5, SIDE - 5, (clusters, 2))
    return centres[rng.integers(0, clusters, count)] + rng.uniform(-radius, radius, (count, 2))


def whole(label, fold):
    """Return whether no label is parted by folds."""
    return pd.DataFrame({"label": label, "fold": fold}).drop_duplicates()["label"].is_unique


def match(points, folds, seed, cells=GRID, **columns):
    """Return folds of kNNDM; each sample is a unit, of one class, and evaluated, by default."""
    count = len(points)
    defaults = {
        "unit": np.arange(count),
        "types": np.zeros(count, int),
        "evaluated": np.ones(count, bool),
    }
    samples = knndm.SamplePoints(np.asarray(points, float), **defaults | columns)
    return knndm.knndm(samples, cells, folds, seed)


seeds = st.integers(0, 10**6)


# Distances


def test_distances_on_a_line_by_hand():
    line = np.column_stack([[0, 1, 3, 7], np.zeros(4)])
    assert distances.neighbour_distances(line, range(4)).tolist() == [1, 1, 2, 4]
    assert distances.neighbour_distances(line, ["a", "a", "b", "b"]).tolist() == [3, 2, 2, 6]
    assert distances.neighbour_distances(line, [0, 0, 0, 0]).tolist() == [np.inf] * 4
    assert distances.prediction_distances(line, [[5, 0], [1, 2]]).tolist() == [2, 2]


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(2, 60), st.integers(1, 8))
def test_distances_are_those_of_the_whole_matrix(seed, count, labels):
    rng = np.random.default_rng(seed)
    points, label = rng.integers(0, 20, (count, 2)), rng.integers(0, labels, count)
    matrix = np.where(label[:, np.newaxis] == label, np.inf, cdist(points, points))
    assert distances.neighbour_distances(points, label) == pytest.approx(matrix.min(axis=1))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=40),
    st.lists(st.integers(-50, 50), min_size=1, max_size=40),
)
def test_the_wasserstein_distance_is_scipys(first, second):
    assert distances.Distribution(first).wasserstein(second) == pytest.approx(
        wasserstein_distance(first, second)
    )


# kNNDM


def test_a_random_sample_gives_random_folds():
    """Or, as the test of clustering errs in one of five, folds that match the map as well."""
    found = [match(random_points(np.random.default_rng(seed)), 5, seed) for seed in range(40)]
    by_chance = [one for one in found if one.clusters is None]
    assert len(by_chance) >= 28
    assert all(np.bincount(one.fold).tolist() == [40] * 5 for one in by_chance)
    others = [one.wasserstein for one in found if one.clusters is not None]
    assert max(others) < max(one.wasserstein for one in by_chance)


@pytest.mark.parametrize("seed", range(5))
def test_a_clustered_sample_gets_nearer_to_the_map_than_by_random_folds(seed):
    rng = np.random.default_rng(seed)
    points = clustered_points(rng)
    found = match(points, 5, seed)
    target = distances.Distribution(distances.prediction_distances(points, GRID))
    by_chance = [
        target.wasserstein(distances.neighbour_distances(points, rng.permutation(200) % 5))
        for _ in range(10)
    ]
    assert found.p_value < 0.05
    assert found.clusters >= 5
    assert found.wasserstein < min(by_chance) / 2
    assert found.wasserstein == pytest.approx(
        target.wasserstein(distances.neighbour_distances(points, found.fold))
    )
    assert found.wasserstein == pytest.approx(
        wasserstein_distance(found.distances["Gj*"], found.distances["Gij"])
    )


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 6), st.integers(1, 20))
def test_no_fold_is_empty_or_holds_over_half_of_the_samples_and_no_unit_is_parted(
    seed, folds, clusters
):
    rng = np.random.default_rng(seed)
    points, unit = clustered_points(rng, 80, clusters), rng.integers(0, 50, 80)
    unit = np.unique(unit, return_inverse=True)[1]
    assume(np.bincount(unit).max() < 20)
    found = match(points, folds, seed, unit=unit, types=rng.integers(0, 3, 80))
    assert sorted(set(found.fold.tolist())) == list(range(folds))
    assert np.bincount(found.fold).max() <= (40 if folds > 2 else 48)
    assert whole(unit, found.fold)


def test_the_domain_that_is_evaluated_decides():
    """Samples are dense in the west and sparse in the east, where cells are far from them."""
    rng = np.random.default_rng(3)
    west, east = (
        random_points(rng, 150) * [0.5, 1],
        clustered_points(rng, 50, 4) * [0.4, 1] + [60, 0],
    )
    points, west_cells = np.concatenate([west, east]), GRID[GRID[:, 0] < 50]
    evaluated = np.arange(200) < 150
    inside = match(points, 5, 1, west_cells, evaluated=evaluated)
    outside = match(points, 5, 1, GRID[GRID[:, 0] > 60], evaluated=~evaluated)
    assert inside.clusters is None
    assert outside.clusters is not None
    assert len(inside.distances["Gj*"]) == 150
    assert len(outside.distances["Gj*"]) == 50


def test_a_class_in_one_place_is_not_left_to_one_fold():
    rng = np.random.default_rng(0)
    points = clustered_points(rng, 200, 12, 4)
    types = (np.hypot(*(points - points[0]).T) < 4).astype(int)
    found = match(points, 4, 1, types=types)
    held = {int(k) for k in found.fold[types == 1]}
    assert len(held) > 1


def test_a_summary_of_folds_names_the_classes_that_a_fold_lacks():
    rows = pd.DataFrame({"class": [1, 2, 1, 2, 2]})
    curves = dict.fromkeys(("prediction", "random", "blocks"), np.array([1.0]))
    folds = {"random": np.array([0, 0, 1, 1, 2]), "blocks": np.array([0, 0, 1, 1, 1])}
    lacking = fold_summary(study_with(), rows, folds, curves)["lacking"]
    assert lacking.to_dict() == {"random": "fold 2: ice-poor frozen soil", "blocks": ""}


def test_units_equally_far_apart_or_in_one_place_fill_all_folds():
    for points in ([[1, 1], [2, 1], [1, 2], [2, 2]], [[1, 1]] * 4):
        assert sorted(match(points, 3, 1).fold) in ([0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 2, 2])


def test_same_seed_same_folds():
    points = random_points(np.random.default_rng(1))
    one, two, other = (match(points, 5, seed).fold for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


# Blocks, columns


def test_a_block_holds_the_middle_of_a_unit():
    points = np.array([[1, 1], [9, 9], [11, 1], [19, 1], [9, 1], [13, 1]])
    assert blocks.blocks(points, [0, 1, 2, 3, 4, 4], 10).tolist() == [0, 0, 1, 1, 1, 1]


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(2, 5))
def test_groups_and_units_are_never_parted_and_no_fold_is_empty(seed, folds):
    rng = np.random.default_rng(seed)
    group, unit, types = rng.integers(0, 30, 60), rng.integers(0, 300, 60), rng.integers(0, 3, 60)
    try:
        fold = kinds.group_folds(group, types, folds, rng, unit)
    except FoldError:
        return
    assert sorted(set(fold.tolist())) == list(range(folds))
    assert whole(group, fold)
    assert whole(unit, fold)


def test_groups_are_dealt_so_that_no_fold_lacks_a_class():
    group, types = np.arange(40), np.repeat([0, 1], [30, 10])
    fold = kinds.group_folds(group, types, 5, np.random.default_rng(1), group)
    assert pd.crosstab(fold, types).all(axis=None)
    assert np.array_equal(fold, kinds.group_folds(group, types, 5, np.random.default_rng(1), group))


# By the study's settings


@pytest.fixture
def rows():
    """Samples of a layer: four campaigns, each in a corner of 1000 km."""
    rng = np.random.default_rng(0)
    campaign = np.arange(120) % 4
    places = 1e6 * np.column_stack([campaign % 2, campaign // 2]) + rng.uniform(0, 3e5, (120, 2))
    return pd.DataFrame(
        {
            "site_id": [f"S{n}" for n in range(120)],
            "group": [f"S{n // 2 * 2}" for n in range(120)],
            "easting": places[:, 0],
            "northing": places[:, 1],
            "in_domain": True,
            "campaign": campaign,
            "class": rng.integers(0, 3, 120),
        }
    )


def study_with(**folds):
    return Study(name="a", folds={"number": 4, **folds})


@pytest.fixture
def cells():
    return 1.3e4 * GRID, np.ones(len(GRID), bool)


@pytest.mark.parametrize("kind", ["random", "knndm", "blocks", "column"])
def test_every_kind_serves_scikit_learn_and_keeps_groups(rows, cells, kind):
    study = study_with(kind=kind, column="group", min_separation_km=30)
    fold = kinds.sample_folds(study, rows, cells=cells)
    assert np.array_equal(fold, kinds.sample_folds(study, rows, kind, cells))
    cv = PredefinedSplit(fold)
    assert cv.get_n_splits() == 4
    assert len(cross_val_score(DummyClassifier(), rows[["easting"]], rows["class"], cv=cv)) == 4
    assert whole(rows["group"], fold)
    places = rows[["easting", "northing"]].to_numpy()
    assert distances.neighbour_distances(places, fold).min() > 30_000


def test_a_column_leaves_its_values_out(rows, cells):
    loose = rows.assign(group=rows["site_id"])
    fold = kinds.sample_folds(study_with(kind="column", column="campaign"), loose)
    assert whole(loose["campaign"], fold)


@pytest.mark.parametrize(
    ("change", "folds", "error", "expected"),
    [
        pytest.param(
            lambda r: r.drop(columns="easting"),
            {},
            FoldError,
            "no column easting",
            id="no coordinates",
        ),
        pytest.param(
            lambda r: r.assign(easting=np.nan),
            {},
            FoldError,
            "120 samples have no finite",
            id="nan",
        ),
        pytest.param(
            lambda r: r.head(4),
            {},
            ForestError,
            "2 sites cannot be dealt into 4 folds",
            id="random, few",
        ),
        pytest.param(
            lambda r: r.head(4),
            {"kind": "knndm"},
            FoldError,
            "2 units .* into 4 folds",
            id="knndm, few",
        ),
        pytest.param(
            lambda r: r,
            {"kind": "blocks", "block_km": 9000},
            FoldError,
            "1 groups .* 4",
            id="one block",
        ),
        pytest.param(
            lambda r: r,
            {"kind": "column", "column": "region"},
            FoldError,
            "no column region",
            id="no column",
        ),
        pytest.param(
            lambda r: r.assign(in_domain=False),
            {"kind": "knndm"},
            FoldError,
            "None of",
            id="none evaluated",
        ),
        pytest.param(
            lambda r: r.assign(group=np.where(r.index < 90, "one", r["site_id"])),
            {"kind": "knndm"},
            FoldError,
            "One unit holds 90 of 120",
            id="giant unit",
        ),
    ],
)
def test_samples_that_cannot_be_dealt_are_refused(rows, cells, change, folds, error, expected):
    with pytest.raises(error, match=expected) as caught:
        kinds.sample_folds(study_with(**folds), change(rows), cells=cells)
    assert "Remedy: " in str(caught.value)
