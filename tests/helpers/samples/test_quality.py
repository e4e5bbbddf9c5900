"""Quality report: hand-made sites, distances, variance inflation, and what is written."""

import json
import warnings

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import SOURCE

from helpers.core.grid import area_mask, cell_centres, named_crs, reference_grid
from helpers.core.study import Study
from helpers.prepare.registry import covariates, predictor_names, write_covariates
from helpers.samples import collinearity, quality
from helpers.samples.collinearity import collinearity_table, rank_correlation, variance_inflation
from helpers.samples.columns import SampleError
from helpers.samples.labels import NOT_REACHED, TOO_LITTLE
from helpers.samples.quality import (
    SITE_STATUS,
    class_by_layer,
    compare_with_map,
    map_cells,
    site_status,
    write_quality,
)
from helpers.samples.selection import DUPLICATE

LAYERS = ("2-3m", "3-5m", "5-10m")


# --- Status of sites


def losses(*rows):
    return pd.DataFrame(rows, columns=["site_id", "layer", "reason"])


SITES = pd.DataFrame(
    {"site_id": list("ABCDEFGH"), "longitude": np.arange(118.0, 126.0), "latitude": 48.0}
)
TABLE = pd.DataFrame(
    [("A", "2-3m", "train"), ("A", "3-5m", "train"), ("B", "2-3m", "test")],
    columns=["site_id", "layer", "split"],
)
UNLABELLED = losses(
    ("A", "5-10m", NOT_REACHED), ("C", "2-3m", TOO_LITTLE), ("C", "3-5m", NOT_REACHED),
    ("C", "5-10m", NOT_REACHED), ("D", "5-10m", NOT_REACHED),
)  # fmt: skip
LOST = losses(
    ("D", "2-3m", "no data: ndvi"),
    ("E", "2-3m", "outlier: clay"),
    ("F", "2-3m", DUPLICATE),
    ("G", "2-3m", "too steep"),
)


def test_each_site_has_the_status_of_its_most_used_layer():
    status = site_status(SITES.head(7), TABLE, UNLABELLED, LOST).set_index("site_id")
    assert status["fate"].to_dict() == {
        "A": "training", "B": "test", "C": "no label", "D": "no data", "E": "outlier",
        "F": "duplicate", "G": "other reason",
    }  # fmt: skip
    assert status["layers"].to_dict() == {"A": 2, "B": 1, **dict.fromkeys("CDEFG", 0)}
    assert status.loc["A", "reason"] == NOT_REACHED
    assert status.loc["B", "reason"] == ""
    assert status.loc["C", "reason"] == f"{TOO_LITTLE}; {NOT_REACHED}"
    assert status.loc["D", "reason"] == f"no data: ndvi; {NOT_REACHED}"
    assert set(status["fate"]) <= set(SITE_STATUS)


def test_without_losses_all_sites_are_used():
    status = site_status(SITES.head(2), TABLE, losses(), losses())
    assert status["fate"].tolist() == ["training", "test"]


def test_a_site_in_none_of_the_tables_is_named():
    with pytest.raises(SampleError, match="Nothing is known of 1 sites, such as H"):
        site_status(SITES, TABLE, UNLABELLED, LOST)


def test_markers_and_colours_differ():
    markers, colours, _ = zip(*SITE_STATUS.values(), strict=True)
    assert len(set(markers)) == len(set(colours)) == len(SITE_STATUS)


def test_classes_are_counted_with_those_that_are_missing():
    rows = [("5-10m", 0, "train"), ("5-10m", 0, "train"), ("5-10m", 5, "test"), ("2-3m", 0, "test")]
    study = Study(name="a", layers=[(2, 3), (5, 10)])
    counts = class_by_layer(study, pd.DataFrame(rows, columns=["layer", "ice_type", "split"]))
    assert counts.columns.tolist() == [
        (layer, part) for layer in ("2-3m", "5-10m") for part in ("train", "test")
    ]
    assert counts.loc["0 no permafrost"].tolist() == [0, 1, 2, 0]
    assert counts.loc["3 ice-rich frozen soil"].tolist() == [0, 0, 0, 0]
    assert counts.loc["all"].tolist() == [0, 1, 2, 1]


# --- Distributions


@pytest.mark.parametrize(("shift", "distance"), [(0, 0), (2, 0.5), (100, 1)])
def test_distance_is_none_of_alike_and_one_of_apart(shift, distance):
    values = np.arange(1.0, 5)
    table = pd.DataFrame({"site_id": list("abcd"), "in_domain": True, "p": values})
    cells = pd.DataFrame({"in_domain": True, "p": [*values + shift, np.nan]})
    assert compare_with_map(table, cells).loc["p", "ks_map"] == distance


def test_sites_are_compared_once_each_and_within_the_domain():
    table = pd.DataFrame(
        {
            "site_id": ["a", "a", "b", "c"],
            "in_domain": [True, True, True, False],
            "p": [1.0, 1, 2, 4],
        }
    )
    cells = pd.DataFrame(
        {"p": [1.0, 2, 3, 4, 5, 9], "in_domain": [True, True, False, False, True, False]}
    )
    compared = compare_with_map(table, cells).loc["p"]
    assert compared["ks_domain"] == pytest.approx(1 / 3)  # a and b against 1, 2 and 5
    assert compared["outside_domain"] == pytest.approx(1 / 3)  # 5 is more than c's 4
    assert compared["outside_map"] == pytest.approx(2 / 6)
    assert compared[["median_sites", "median_domain", "median_map"]].tolist() == [2, 2, 3.5]


def test_no_site_in_the_domain_is_no_number():
    table = pd.DataFrame({"site_id": ["a"], "in_domain": [False], "p": [1.0]})
    cells = pd.DataFrame({"p": [1.0, 2.0], "in_domain": [False, False]})
    compared = compare_with_map(table, cells).loc["p"]
    assert np.isnan(compared[["ks_domain", "outside_domain"]].astype(float)).all()
    assert compared["outside_map"] == 0.5


# --- Collinearity


@pytest.mark.parametrize("r", [0.0, 0.5, -0.9])
def test_two_predictors_are_inflated_by_their_correlation(r):
    x, e = _uncorrelated(*np.random.default_rng(3).normal(size=(2, 40)))
    factors, partners = variance_inflation(
        np.column_stack([5 + 2 * x, r * x + np.sqrt(1 - r**2) * e])
    )
    np.testing.assert_allclose(factors, 1 / (1 - r**2), rtol=1e-9)
    assert partners == [[], []]


def _uncorrelated(x, e):
    """Return both with mean 0 and length 1, at right angles."""
    x, e = x - x.mean(), e - e.mean()
    x /= np.linalg.norm(x)
    e -= (e @ x) * x
    return x, e / np.linalg.norm(e)


def test_inflation_equals_statsmodels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from statsmodels.stats.outliers_influence import variance_inflation_factor

    rng = np.random.default_rng(4)
    values = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 10
    design = np.column_stack([np.ones(200), values])
    expected = [variance_inflation_factor(design, number) for number in range(1, 7)]
    np.testing.assert_allclose(variance_inflation(values)[0], expected, rtol=1e-8)


def test_what_follows_wholly_is_infinite_and_named_and_the_rest_is_not_touched():
    rng = np.random.default_rng(5)
    sand, clay = rng.uniform(10, 45, (2, 300))
    rest = rng.normal(size=300) + 0.05 * sand
    table = pd.DataFrame(
        {"site_id": np.arange(300), "sand": sand, "silt": 100 - sand - clay, "clay": clay}
    )
    table = table.astype(np.float32).assign(rest=rest, flat=7.3)
    names = ["sand", "silt", "clay", "rest", "flat"]
    compared = collinearity_table(table, names)
    assert np.isinf(compared["vif"][:3]).all()
    assert compared.loc["silt", "remark"] == "follows from sand, clay"
    alone = variance_inflation(table[["sand", "clay", "rest"]])[0][2]
    assert compared.loc["rest", "vif"] == pytest.approx(alone, rel=1e-4)
    assert compared.loc["rest", "remark"] == ""
    assert np.isnan(compared.loc["flat", "vif"])
    assert compared.loc["flat", ["nearest", "remark"]].tolist() == ["", "constant"]
    assert compared.loc["rest", "nearest"] == "sand"


@pytest.mark.parametrize(
    "values", [np.empty((0, 2)), np.zeros((5, 2)), np.ones((1, 3))], ids=["none", "zeros", "one"]
)
def test_too_little_to_know_gives_no_number(values):
    assert np.isnan(variance_inflation(values)[0]).all()


def test_fewer_sites_than_predictors_is_wholly_collinear():
    factors, _ = variance_inflation(np.random.default_rng(6).normal(size=(4, 8)))
    assert np.isinf(factors).all()


# --- Cells, figures and files


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A coarse study with covariates of noise, sites in its area, and their table."""
    import pyproj

    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("quality")
    patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
    patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
    study = Study(
        name="t",
        source=SOURCE,
        grid={"resolution": 20_000, "fine_resolution": 10_000},
        covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
    )
    geobox, rng = reference_grid(study), np.random.default_rng(7)
    arrays = {name: rng.normal(size=geobox.shape).astype(np.float32) for name in covariates(study)}
    arrays["air_frost_number"] = rng.uniform(0.2, 0.7, geobox.shape).astype(np.float32)
    arrays["ndvi"][::5] = np.nan
    arrays["sand"][:] = 40  # constant on the whole map
    write_covariates(study, arrays)
    inside = np.argwhere(area_mask(study, geobox) & np.isfinite(arrays["ndvi"]))
    chosen = inside[rng.choice(len(inside), 60, replace=False)]
    easting, northing = cell_centres(geobox)
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(easting[chosen[:, 1]], northing[chosen[:, 0]])
    sites = pd.DataFrame(
        {"site_id": [f"S{i}" for i in range(60)], "longitude": longitude, "latitude": latitude}
    )
    values = pd.DataFrame({name: array[tuple(chosen.T)] for name, array in arrays.items()})
    table = pd.concat([sites, values], axis=1).merge(pd.DataFrame({"layer": LAYERS}), how="cross")
    table["in_domain"] = table["air_frost_number"] > study.domain.above
    table["ice_type"] = rng.integers(0, 6, len(table))
    table["split"] = np.where(table["site_id"].str.endswith("3"), "test", "train")
    yield study, sites, table, arrays
    patch.undo()


def test_cells_are_those_of_the_map(mapped):
    study, _, _, arrays = mapped
    cells = map_cells(study)
    inside = area_mask(study, reference_grid(study)) & np.isfinite(arrays["ndvi"])
    assert list(cells) == [*predictor_names(study), "in_domain"]
    np.testing.assert_array_equal(cells["ndvi"], arrays["ndvi"][inside])
    np.testing.assert_array_equal(
        cells["in_domain"], arrays["air_frost_number"][inside] > study.domain.above
    )


def test_a_draw_of_cells_is_the_same_each_time(mapped):
    study = mapped[0]
    first, second = (map_cells(study, np.random.default_rng(8), most=500) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert 300 < len(first) <= 500


def test_the_domain_rule_need_not_be_a_predictor(mapped):
    study = mapped[0].model_copy(update={"predictors": ["slope", "twi"]})
    assert list(map_cells(study)) == ["slope", "twi", "in_domain"]


def test_the_report_is_drawn_and_written(mapped):
    study, sites, table, _ = mapped
    used, dropped = table[table["site_id"] != "S5"], losses(("S5", "2-3m", "outlier: clay"))
    names = predictor_names(study)
    status, classes, cells = (
        site_status(sites, used, losses(), dropped),
        class_by_layer(study, used),
        map_cells(study),
    )
    compared, shared = compare_with_map(used, cells), collinearity_table(used, names)
    for width in (90, 180):
        figure = quality.plot_site_status(study, status, width)
        texts = [
            text.get_text()
            for axes in figure.axes
            if axes.get_legend()
            for text in axes.get_legend().texts
        ]
        assert texts == ["training (53)", "test (6)", "outlier (1)"]
    figures = [quality.plot_distributions(study, used, cells, compared)]
    figures.append(collinearity.plot_correlation(study, rank_correlation(used, names)))
    assert sum(
        bool(axes.get_title()) or bool(axes.get_title("left")) for axes in figures[0].axes
    ) == len(names)
    plt.close("all")
    write_quality(study, status, classes, compared, shared)
    written = json.loads(
        (study.results_dir / "samples" / "quality.json").read_text(encoding="utf-8")
    )
    assert {k: n for k, n in written["sites"].items() if n} == {
        "training": 53,
        "test": 6,
        "outlier": 1,
    }
    assert written["constant"] == ["sand"]
    assert written["predictors"]["sand"]["vif"] is None
    assert sum(written["samples"]["2-3m"]["test"].values()) == 6
    back = pd.read_csv(study.results_dir / "samples" / "fates.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(back, status, check_dtype=False)


def test_tables_to_browse_need_no_network_and_little_room(tmp_path):
    from nbclient import NotebookClient

    source = """
import pandas as pd
from helpers.samples import quality
sites = pd.DataFrame({"site_id": [f"S<{i}>" for i in range(3000)]})
quality.browse({"Remarks": pd.DataFrame(), "Sites": sites})
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output["data"]["text/html"] for output in notebook.cells[0].outputs]
    assert all(output["output_type"] == "display_data" for output in notebook.cells[0].outputs)
    assert not any("unpkg" in html or "cdn." in html for html in shown)
    assert sum(map(len, shown)) < 1_200_000
    assert "S&lt;2999&gt;" in shown[-1] or "S<2999>" in shown[-1]  # none is left out


def test_groups_of_predictors_that_are_alike():
    rng = np.random.default_rng(0)
    heat, wet = rng.normal(size=(2, 300))
    values = {
        "warm": heat,
        "cold": -heat,
        "warmer": heat + 0.1 * rng.normal(size=300),
        "wet": wet,
        "same": 1.0,
    }
    ranks = rank_correlation(pd.DataFrame(values).assign(site_id=range(300)), list(values))
    assert collinearity.correlated_groups(ranks, 0.7) == [["warm", "cold", "warmer"]]
    assert collinearity.correlated_groups(ranks, 0.999) == [["warm", "cold"]]
    assert collinearity.correlated_groups(ranks.iloc[:1, :1], 0.7) == []
