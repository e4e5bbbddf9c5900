"""Ice types, contents and storage against hand-computed values and laws that hold everywhere."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.core.classes import ICE_TYPES, NO_TYPE, layer_name
from helpers.core.ice import (
    IceError,
    content_of_cores,
    ice_type,
    layer_mean,
    mass,
    permafrost_part,
    thickness,
    unfrozen_water,
    water_equivalent,
)

LIMITS = [0.10, 0.20, 0.30, 0.50]
LAYERS = [(2, 3), (3, 5), (5, 10)]
shares = st.floats(0, 1)
increasing_limits = st.lists(
    st.floats(0.01, 0.99, allow_subnormal=False).map(lambda v: round(v, 6)),
    min_size=4,
    max_size=4,
    unique=True,
).map(sorted)


@st.composite
def cores(draw, empty_values=False):
    """Pieces of core that do not overlap: top, bottom, ice content."""
    cuts = sorted(draw(st.lists(st.integers(0, 1200), min_size=2, max_size=14, unique=True)))
    values = st.one_of(shares, st.just(np.nan)) if empty_values else shares
    pieces = [
        (a / 100, b / 100, draw(values)) for a, b in itertools.pairwise(cuts) if draw(st.booleans())
    ]
    return np.array(pieces).reshape(-1, 3)


# --- Types


def test_the_six_types_are_ordered_and_told_apart():
    assert [t.code for t in ICE_TYPES] == [0, 1, 2, 3, 4, 5]
    assert len({t.name for t in ICE_TYPES}) == len({t.chinese_name for t in ICE_TYPES}) == 6
    assert all(re.fullmatch(r"#[0-9a-f]{6}", t.colour) for t in ICE_TYPES)


VISION = {  # Machado et al. 2009, linear RGB
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("matrix", VISION.values(), ids=VISION.keys())
def test_colours_darken_with_ice_and_differ_for_every_eye(matrix):
    rgb = np.array([[int(t.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for t in ICE_TYPES])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(
        matrix
    )
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    f = np.cbrt(np.clip(linear, 0, 1) @ to_xyz.T / [0.9505, 1, 1.089])
    lab = np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
    assert (np.diff(lab[1:, 0]) < -10).all()  # lightness of the five types
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(6, 1)]
    assert distances.min() > 10  # just noticeable is 2.3


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (0, 1),
        (0.0999, 1),
        (0.1, 2),
        (0.2, 3),
        (0.3, 4),
        (0.1 + 0.2, 4),
        (0.4999, 4),
        (0.5, 5),
        (1, 5),
        (np.nan, NO_TYPE),
    ],
)
def test_a_content_on_a_limit_has_the_type_above(content, code):
    assert ice_type(content, LIMITS) == code
    assert ice_type([content], LIMITS).dtype == np.uint8


def test_mean_of_equal_contents_keeps_its_type():
    pieces = [[2.0, 2.1, 0.3], [2.1, 2.4, 0.3], [2.4, 3.0, 0.3]]
    assert ice_type(layer_mean(pieces, 2, 3)[0], LIMITS) == 4


@given(st.lists(shares, min_size=2), increasing_limits)
def test_type_is_monotone_in_ice_content(contents, limits):
    codes = ice_type(np.sort(contents), limits).astype(int)
    assert (np.diff(codes) >= 0).all()
    assert codes.min() >= 1
    assert codes.max() <= 5


@pytest.mark.parametrize("content", [-0.01, 1.01, 30.0])
def test_impossible_content_is_refused(content):
    with pytest.raises(IceError, match="ice content lie outside 0-1"):
        ice_type([0.2, content], LIMITS)


@pytest.mark.parametrize(
    ("layer", "name"),
    [((2, 3), "2-3m"), ((5.0, 10.0), "5-10m"), ((0, 0.5), "0-0.5m")],
    ids=lambda v: str(v),
)
def test_layer_names(layer, name):
    assert layer_name(layer) == name


# --- Ice content of a core


def ice_content(water, unfrozen, density=np.nan, solids=2.65):
    """Return the ice content of one core."""
    return content_of_cores(water, unfrozen, density, solids).item()


def test_saturated_closure_known_answer():
    assert ice_content(0.25, 0.08) == pytest.approx(0.288, abs=5e-4)


def test_measured_density_known_answer():
    assert ice_content(0.25, 0.08, 1500) == pytest.approx(1500 * 0.17 / 917)


def test_saturated_ground_gives_the_same_by_both_formulas():
    # Ice, solids and unfrozen water fill the ground: the density of solids over all three.
    density = 2650 / (1 + 0.17 * 2.65 / 0.917 + 0.08 * 2.65)
    assert ice_content(0.25, 0.08, density) == pytest.approx(ice_content(0.25, 0.08))


def test_closure_fills_in_where_a_density_is_missing():
    both = content_of_cores([0.25] * 2, 0.08, [1500, np.nan], 2.65)
    np.testing.assert_allclose(both, [1500 * 0.17 / 917, ice_content(0.25, 0.08)])


def test_peat_may_hold_more_water_than_solids():
    assert 0.6 < ice_content(3.0, 0.5, solids=1.5) < 1


@given(theta=st.floats(0, 0.95), unfrozen=st.floats(0, 0.5), solids=st.floats(1.2, 2.8))
def test_saturated_closure_inverts(theta, unfrozen, solids):
    ice_volume = theta * (1 + unfrozen * solids) / (1 - theta)
    water = unfrozen + ice_volume * 0.917 / solids
    assert ice_content(water, unfrozen, solids=solids) == pytest.approx(theta, abs=1e-12)


@given(theta=shares, unfrozen=st.floats(0, 0.5), density=st.floats(300, 2000))
def test_measured_density_inverts(theta, unfrozen, density):
    water = unfrozen + theta * 917 / density
    assert ice_content(water, unfrozen, density) == pytest.approx(theta, abs=1e-12)


def test_unfrozen_water_known_answers():
    found = unfrozen_water([-1, -4, -0.1, 0, 3], 0.06, 0.4)
    np.testing.assert_allclose(found[:2], [0.06, 0.06 * 4**-0.4])
    np.testing.assert_allclose(found[2:], 0.06 * 10**0.4)  # no warmer than -0.1 degC


# --- The permafrost part of a layer, and the mean over it


@pytest.mark.parametrize(
    ("table", "base", "part"),
    [
        (1.0, np.nan, (3, 5, 1)),
        (4.0, np.nan, (4, 5, 0.5)),
        (3.5, 4.0, (3.5, 4, 0.25)),
        (5.0, np.nan, (np.nan, np.nan, 0)),
        (1.0, 3.0, (np.nan, np.nan, 0)),
        (np.nan, np.nan, (np.nan, np.nan, np.nan)),
    ],
    ids=["whole", "lower half", "inside", "below", "above", "unknown table"],
)
def test_permafrost_part_of_3_to_5_m(table, base, part):
    np.testing.assert_allclose(permafrost_part(3, 5, table, base), part)


def test_permafrost_part_takes_arrays():
    upper, lower, share = permafrost_part([2, 3, 5], [3, 5, 10], 4.0, 7.5)
    np.testing.assert_allclose(share, [0, 0.5, 0.5])
    np.testing.assert_allclose(upper, [np.nan, 4, 5])
    np.testing.assert_allclose(lower, [np.nan, 5, 7.5])


def test_layer_mean_known_answer():
    # 0.5 m of 0.2, a gap of 0.25 m, 0.25 m of 0.5; outside the layer nothing counts.
    mean, share = layer_mean([[1.0, 2.5, 0.2], [2.75, 4.0, 0.5], [4.0, 9.0, 0.9]], 2, 3)
    assert mean == pytest.approx((0.5 * 0.2 + 0.25 * 0.5) / 0.75)
    assert share == pytest.approx(0.75)


def test_layer_without_core_is_not_sampled():
    mean, share = layer_mean(np.empty((0, 3)), 2, 3)
    assert np.isnan(mean)
    assert share == 0


@given(cores(empty_values=True), st.sampled_from(LAYERS))
def test_layer_mean_lies_within_the_pieces(pieces, layer):
    mean, share = layer_mean(pieces, *layer)
    assert 0 <= share <= 1
    assert np.isnan(mean) == (share == 0)
    if share:
        inside = pieces[(pieces[:, 1] > layer[0]) & (pieces[:, 0] < layer[1]), 2]
        assert np.nanmin(inside) <= mean <= np.nanmax(inside)


@given(cores(), st.sampled_from(LAYERS), st.data())
def test_splitting_a_piece_changes_nothing(pieces, layer, data):
    assume(len(pieces))
    index = data.draw(st.integers(0, len(pieces) - 1))
    top, bottom, value = pieces[index]
    cut = top + (bottom - top) * data.draw(st.floats(0.01, 0.99))
    parts = np.vstack([np.delete(pieces, index, axis=0), [[top, cut, value], [cut, bottom, value]]])
    np.testing.assert_allclose(
        layer_mean(parts, *layer), layer_mean(pieces, *layer), rtol=0, atol=1e-12
    )


# --- Storage


def test_storage_of_three_cells_known_answer():
    fraction = np.array([[0.2, 0.0, 0.1], [0.3, 0.0, 0.2], [0.1, 0.04, 0.05]])  # (layer, cell)
    ice = thickness(fraction, LAYERS)
    np.testing.assert_allclose(ice, [0.2 + 0.6 + 0.5, 0.2, 0.1 + 0.4 + 0.25])
    np.testing.assert_allclose(mass(ice), [917 * 1.3, 917 * 0.2, 917 * 0.75])
    np.testing.assert_allclose(water_equivalent(ice), [0.917 * 1.3, 0.917 * 0.2, 0.917 * 0.75])


def test_cells_outside_the_map_hold_no_ice():
    ice = thickness(np.array([[0.2, np.nan], [0.3, 0.1], [0.1, 0.1]], np.float32), LAYERS)
    np.testing.assert_allclose(ice, [1.3, np.nan], rtol=1e-6)


def test_layers_must_match():
    with pytest.raises(ValueError, match="2 arrays of ice fraction for 3 layers"):
        thickness([0.1, 0.2], LAYERS)
