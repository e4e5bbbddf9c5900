"""Where to drill next: the algebra by hand, and where holes may be."""

import geopandas
import numpy as np
import pytest
import shapely

from helpers.core.features import FeatureError
from helpers.core.grid import reference_grid
from helpers.mapping import drilling
from helpers.mapping.drilling import Question
from helpers.mapping.files import MapError


@pytest.fixture
def joint():
    """Draws of a total and of twelve places, and the covariance of the places' scatter."""
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12))
    total = signal @ rng.normal(size=12) + rng.normal(size=300)
    root = rng.normal(size=(12, 12))
    return total, signal, root @ root.T + 5 * np.eye(12)


def test_what_is_left_is_the_conditional_variance(joint):
    total, signal, noise = joint
    order, left = drilling.most_telling(total, signal, noise.diagonal(), noise.__getitem__, 5)
    assert len(set(order)) == 5
    both = np.cov(np.column_stack([total, signal]).T)
    for number in range(1, 6):
        chosen = order[:number]
        follows = both[0, 1:][chosen]
        known = both[1:, 1:][np.ix_(chosen, chosen)] + noise[np.ix_(chosen, chosen)]
        rest = both[0, 0] - follows @ np.linalg.solve(known, follows)
        assert left[number - 1] == pytest.approx(np.sqrt(rest / both[0, 0]), rel=1e-9)


def test_each_hole_is_the_one_that_tells_most_of_what_is_left(joint):
    total, signal, noise = joint
    order, _ = drilling.most_telling(total, signal, noise.diagonal(), noise.__getitem__, 2)
    both = np.cov(np.column_stack([total, signal]).T)
    tried = []
    for other in range(12):
        chosen = [order[0], other]
        known = both[1:, 1:][np.ix_(chosen, chosen)] + noise[np.ix_(chosen, chosen)]
        follows = both[0, 1:][chosen]
        if other != order[0]:
            tried.append((follows @ np.linalg.solve(known, follows), other))
    assert max(tried)[1] == order[1]


def test_places_that_tell_nothing_lower_nothing():
    total = np.array([-1.0, 0.0, 1.0])
    order, left = drilling.most_telling(
        total, np.zeros((3, 4)), np.ones(4), lambda hole: np.eye(4)[hole], 2
    )
    assert sorted(order) == [0, 1]
    np.testing.assert_array_equal(left, 1)


def test_a_place_in_the_middle_of_what_is_unlike_is_first():
    rng = np.random.default_rng(2)
    cells, places = rng.random((200, 2)), rng.random((30, 2))
    apart = np.linalg.norm(places[:, np.newaxis] - cells, axis=2)
    now = np.linalg.norm(cells, axis=1)  # one sample in a corner
    order, left = drilling.nearest_to_most(apart, now, 30)
    assert sorted(order) == list(range(30))
    means = [np.minimum(now, one).mean() for one in apart]
    assert order[0] == np.argmin(means)
    assert left[0] == pytest.approx(min(means) / now.mean())
    assert left[-1] == pytest.approx(np.minimum(now, apart.min(axis=0)).mean() / now.mean())
    assert (np.diff(left) <= 0).all()


# Where holes may be -------------------------------------------------------------------------------


@pytest.fixture
def written(world, tmp_path):
    """Write shapes of the world's grid as a file of features; return its path as a text."""

    def write(*shapes):
        path = tmp_path / f"shapes-{len(list(tmp_path.iterdir()))}.gpkg"
        geopandas.GeoDataFrame(geometry=list(shapes), crs=world[0].grid.crs).to_file(path)
        return str(path)

    return write


def test_holes_are_near_the_roads_and_outside_of_the_reserve(world, written):
    study = world[0]
    west, south, east, north = reference_grid(study).boundingbox.bbox
    middle = (west + east) / 2
    road = written(shapely.LineString([(west, (south + north) / 2), (east, (south + north) / 2)]))
    reserve = written(shapely.box(west, south, middle, north))
    anywhere = drilling.candidates(study, Question(holes=1))
    assert anywhere.in_domain.all()
    near = drilling.candidates(study, Question(holes=1, near=road, within_km=100)).points
    away = np.abs(anywhere.points[:, 1] - (south + north) / 2)
    assert {*map(tuple, near)} == {*map(tuple, anywhere.points[away < 100_000])}
    free = drilling.candidates(study, Question(holes=1, outside=reserve)).points
    assert {*map(tuple, free)} == {*map(tuple, anywhere.points[anywhere.points[:, 0] > middle])}


def test_where_no_hole_may_be_is_told(world, written):
    study = world[0]
    west, south, east, north = reference_grid(study).boundingbox.bbox
    everywhere = written(shapely.box(west, south, east, north))
    with pytest.raises(MapError, match=r"0 cells .* 3 holes") as raised:
        drilling.candidates(study, Question(holes=3, outside=everywhere))
    assert raised.value.remedy == "ask for fewer holes, or allow more ground"
    line = written(shapely.LineString([(west, south), (east, north)]))
    with pytest.raises(MapError, match="no polygons"):
        drilling.candidates(study, Question(outside=line))
    with pytest.raises(MapError, match="no feature"):
        drilling.candidates(study, Question(near=written()))
    with pytest.raises(FeatureError, match=r"There is no file roads\.gpkg"):
        drilling.candidates(study, Question(near="data/own/roads.gpkg"))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(holes=0), "0 holes"),
        (Question(within_km=float("nan")), "within nan km"),
        (Question(holes=2001), "2001 holes"),
    ],
)
def test_what_cannot_be_asked_is_refused(world, question, message):
    with pytest.raises(MapError, match=message):
        drilling.advise(world[0], question)
