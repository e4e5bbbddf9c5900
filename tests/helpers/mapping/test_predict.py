"""The map: results by hand, equal in any chunks and after any kill; files say what they hold."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import rasterio
from conftest import SOURCE
from scipy.special import logit

from helpers.core import classes
from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.forest import cards, grid_search
from helpers.forest.hurdle import Prediction, steps
from helpers.forest.paths import model_path
from helpers.mapping import predict
from helpers.mapping.files import MapError, map_files
from helpers.mapping.storage import map_storage
from helpers.prepare.domain import domain_of_cells
from helpers.prepare.registry import CovariateError, covariate_files, write_covariates
from helpers.samples import extract, rows
from helpers.samples.prevalence import COLUMNS

STUDY = Study.open("config/quick.yaml")
NAMES = [classes.layer_name(layer) for layer in STUDY.layers]


PERMAFROST = np.arange(6) > 0


@pytest.mark.parametrize("permafrost", [0, 2.55e-4, 0.4, 1])
def test_steps_of_the_classes_add_up_and_none_is_below_zero(permafrost):
    """Each of five classes of 0.51 steps would be rounded up, to 5 steps of 3."""
    chance = np.array([permafrost])
    classes = np.column_stack([1 - chance, *[chance / 5] * 5])
    nothing = np.zeros(1)
    prediction = Prediction(chance, classes, nothing, nothing, nothing)
    frozen, *shares = predict._shares(prediction, PERMAFROST)
    assert frozen == steps(chance)
    assert sum(shares) == 10_000
    assert sum(shares[1:]) == frozen
    assert np.abs(np.ravel(shares) - classes * 1e4).max() <= 1


# A study of one layer -----------------------------------------------------------------------------

PREDICTORS = ["elevation", "twi"]
LAYER = (2.0, 3.0)
BLOCK = (16, 32)


def open_study(folder, **settings):
    """Return a study of one layer on a coarse grid, with all its folders in one."""
    Study.processed_dir = property(lambda self: Path(folder) / "processed")
    Study.results_dir = property(lambda self: Path(folder) / self.run)
    return Study(
        name="tiny",
        source=SOURCE,
        grid={"resolution": 20_000, "fine_resolution": 10_000},
        layers=[LAYER],
        predictors=PREDICTORS,
        forest={"n_estimators": 20, "map_fit": "train"},
        folds={"number": 3},
        covariates={"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}},
        **settings,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The study with covariates and forests, and gaps in one covariate."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("processed_dir", "results_dir"):
            patch.setattr(Study, name, getattr(Study, name))  # to be put back
        study = open_study(tmp_path_factory.mktemp("world"))
        rng, geobox = np.random.default_rng(0), reference_grid(study)
        inside = area_mask(study, geobox)
        fields = {
            name: rng.uniform(0, 1, geobox.shape).astype(np.float32)
            for name in (*PREDICTORS, "air_frost_number")
        }
        chosen = rng.choice(np.flatnonzero(inside), 300, replace=False)
        values = {name: field.ravel()[chosen] for name, field in fields.items()}
        fraction = np.clip(values["elevation"] - 0.3 + rng.normal(0, 0.1, 300), 0, 1) * (
            values["elevation"] > 0.3
        )
        easting, northing = (axis.ravel()[chosen] for axis in np.meshgrid(*cell_centres(geobox)))
        sites = [f"S{n}" for n in range(300)]
        table = pd.DataFrame(
            {
                "site_id": sites,
                "group": sites,
                "layer": "2-3m",
                "easting": easting,
                "northing": northing,
                "in_domain": values["air_frost_number"] > study.domain.above,
                "ice_fraction": fraction,
                "split": np.where(np.arange(300) % 3, "train", "test"),
                "ice_type": np.where(
                    fraction > 0, np.digitize(fraction, [0.1, 0.2, 0.3, 0.5]) + 1, 0
                ),
                **values,
            }
        )
        fields["twi"].ravel()[np.flatnonzero(inside)[::50]] = np.nan
        write_covariates(study, fields)
        (study.results_dir / "samples").mkdir(parents=True)
        table.to_csv(study.results_dir / "samples" / "samples.csv", index=False)
        types = rows.layer_rows(table, "2-3m", "train")["class"].to_numpy()
        smoothed = 0.8 * np.eye(6)[types] + 0.2 / 6
        result = grid_search.Search(
            "2-3m", {"max_depth": 6}, None, np.arange(200) % 3, types, smoothed
        )
        cards.save_forests(study, table, result, n_jobs=1)
        yield study, table, result


def read_all(study):
    """Return all bands of the layer's rasters by name."""
    result = {}
    for name, path in map_files(study).items():
        if path.is_file():
            with rasterio.open(path) as source:
                result[name] = source.read()
    return result


def assert_equal_maps(first, second):
    assert first.keys() == second.keys()
    for name, bands in first.items():
        for one, other in zip(bands, second[name], strict=True):
            assert np.array_equal(one, other, equal_nan=bands.dtype.kind == "f"), name


@pytest.fixture(scope="module")
def mapped(world):
    """The study, what `map_layer` returned, and its rasters."""
    study = world[0]
    summary = predict.map_layer(study, LAYER, threads=1, block=(400, 400))
    result = read_all(study)
    predict.remove_chunks(study)
    return study, summary, result


@pytest.fixture(scope="module")
def predicted(mapped):
    """The hurdle model, what it expects of all cells, and the rasters there."""
    study, _, maps = mapped
    hurdle, _ = cards.load_hurdle(model_path(study, "2-3m", kind="ice"))
    values, cells = extract.read_predictors(study, PREDICTORS)
    prediction = hurdle.predict(values, domain_of_cells(study).ravel()[cells])
    flat = {name: bands.reshape(len(bands), -1)[:, cells] for name, bands in maps.items()}
    return hurdle, prediction, values, flat


def test_the_reference_s_map_is_what_its_forest_says(mapped, predicted):
    study, summary, _ = mapped
    _, _, values, flat = predicted
    model, _ = cards.load_model(model_path(study, "2-3m"))
    types = model.predict(values)
    np.testing.assert_array_equal(flat["ice_type_reference_2-3m"][0], types)
    counts = np.bincount(types).tolist()
    assert summary["cells"]["reference"] == {k: n for k, n in enumerate(counts) if n}
    assert (summary["chunks"], summary["kept"]) == (1, 0)


def test_probabilities_and_ice_are_what_the_hurdle_expects(predicted):
    hurdle, prediction, _, flat = predicted
    chance = flat["permafrost_probability_2-3m"][0] / 1e4
    np.testing.assert_allclose(chance, prediction.permafrost, atol=5.1e-5)
    shares = flat["class_probability_2-3m"] / 1e4
    np.testing.assert_allclose(shares.T, prediction.classes, atol=1.1e-4)
    ice, content = flat["ice_content_2-3m"]
    np.testing.assert_allclose(content, prediction.content, atol=5.1e-5)
    np.testing.assert_allclose(ice, prediction.ice, atol=1e-4)
    np.testing.assert_allclose(ice, chance * content, atol=1e-6)
    of_borehole = [hurdle.quantile(prediction, level) for level in (0.1, 0.5, 0.9)]
    of_borehole.append(hurdle.exceeding(prediction, 0.3))
    np.testing.assert_array_equal(flat["ice_content_range_2-3m"], steps(np.array(of_borehole)))


def test_permafrost_is_mapped_where_it_is_most_probable_over_its_expected_area(mapped, predicted):
    _, summary, _ = mapped
    _, prediction, _, flat = predicted
    types, chance = flat["ice_type_2-3m"][0], flat["permafrost_probability_2-3m"][0]
    assert chance[types == 0].max() < round(summary["cut"] * 1e4) <= chance[types > 0].min()
    # Cells of one step of P are in or out together.
    ties = (chance == chance[types > 0].min()).sum()
    assert abs((types > 0).sum() - prediction.permafrost.sum()) <= 0.5 + ties
    shares = flat["class_probability_2-3m"][:, types > 0]
    np.testing.assert_array_equal(1 + shares[1:].argmax(axis=0), types[types > 0])
    counts = np.bincount(types).tolist()
    assert summary["cells"]["expected"] == {k: n for k, n in enumerate(counts) if n}


def test_a_map_agrees_with_a_known_share_of_permafrost(world, mapped, tmp_path):
    study, table, result = world
    path = tmp_path / "shares.csv"
    path.write_text(f"{','.join(COLUMNS)}\n,,,,0.45,0.4,0.5,a survey\n")
    shared = study.changed({"run": "shared", "samples.prevalence": str(path)})
    shutil.copytree(study.results_dir / "samples", shared.results_dir / "samples")
    cards.save_forests(shared, table, result, n_jobs=1)
    predict.map_layer(shared, LAYER, block=BLOCK)
    maps = read_all(shared)
    inside = domain_of_cells(study) & (maps["ice_type_2-3m"][0] != 255)
    chance, before = (one["permafrost_probability_2-3m"][0][inside] for one in (maps, mapped[2]))
    assert chance.mean() / 1e4 == pytest.approx(0.45, abs=1e-4)
    assert abs(before.mean() / 1e4 - 0.45) > 0.05
    # All log-odds are moved by as much, and contents stay.
    doubtful = (chance > 1000) & (before < 9000)
    moved = logit(chance[doubtful] / 1e4) - logit(before[doubtful] / 1e4)
    assert np.ptp(moved) < 5e-3
    content, plain = (one["ice_content_2-3m"][1] for one in (maps, mapped[2]))
    np.testing.assert_array_equal(content, plain)


def test_cells_without_a_covariate_have_no_map(mapped):
    study, _, maps = mapped
    with rasterio.open(covariate_files(study)["twi"]) as source:
        missing = np.isnan(source.read(1))
    assert missing[area_mask(study, reference_grid(study))].any()
    for name, bands in maps.items():
        if name == "ice_storage":
            continue
        empty = {"u1": 255, "u2": 65535}.get(bands.dtype.str[1:])
        none = np.isnan(bands) if empty is None else bands == empty
        assert (none == missing).all(), name


@pytest.mark.parametrize(("threads", "block"), [(2, BLOCK), (2, (7, 400)), (1, (64, 13))])
def test_no_result_depends_on_chunks_or_threads(mapped, threads, block):
    study, summary, maps = mapped
    assert predict.map_layer(study, LAYER, threads, block)["cells"] == summary["cells"]
    predict.remove_chunks(study)
    assert_equal_maps(maps, read_all(study))


def test_finished_chunks_are_not_predicted_again(mapped, monkeypatch):
    study, _, maps = mapped
    summary = predict.map_layer(study, LAYER, block=BLOCK)
    chunks = sorted(predict._chunks_dir(study).glob("*/*.npy"))
    assert len(chunks) == summary["chunks"] > 10
    for path in chunks[3:8]:
        path.unlink()
    predicted, plain = [], predict._predict_chunk
    monkeypatch.setattr(
        predict, "_predict_chunk", lambda *args: predicted.append(args) or plain(*args)
    )
    assert predict.map_layer(study, LAYER, block=BLOCK)["kept"] == summary["chunks"] - 5
    assert len(predicted) == 5
    assert_equal_maps(maps, read_all(study))
    predict.remove_chunks(study)
    assert not predict._chunks_dir(study).exists()


def test_what_a_map_depends_on_leaves_no_chunk_as_it_was(mapped):
    study, _, maps = mapped

    def chance(of):
        assert predict.map_layer(of, LAYER, block=BLOCK)["kept"] == 0
        return read_all(of)["permafrost_probability_2-3m"][0]

    plain = chance(study)
    warmer = study.changed({"domain.above": 0.6})
    assert set(np.unique(chance(warmer)[~domain_of_cells(warmer)])) <= {0, 65535}
    # Known shares change the card of a model, and not its forests.
    card = model_path(study, "2-3m", kind="ice").with_suffix(".json")
    text = card.read_text()
    row = dict.fromkeys(COLUMNS) | {"region": "", "shift": -1.0}
    card.write_text(json.dumps(json.loads(text) | {"strata": [row]}))
    shifted = chance(study)
    card.write_text(text)
    assert (shifted <= plain).all()
    assert (shifted < plain).any()
    chance(study)
    os.utime(covariate_files(study)["twi"])
    chance(study)
    assert_equal_maps(maps, read_all(study))
    assert len(list(predict._chunks_dir(study).iterdir())) == 1
    predict.remove_chunks(study)


def test_a_killed_map_continues(mapped):
    """Killed by SIGKILL in the middle of a slow forest's work, in a process of its own."""
    study, _, maps = mapped
    code = (
        "import sys, time; sys.path[:0] = sys.argv[3:]; import test_predict as t\n"
        "from helpers.mapping import predict as mapping\n"
        "plain = mapping._predict_chunk\n"
        "mapping._predict_chunk = lambda *args: time.sleep(0.1) or plain(*args)\n"
        "mapping.map_layer(t.open_study(sys.argv[2]), t.LAYER, threads=2, block=t.BLOCK)"
    )
    folder = predict._chunks_dir(study)
    tests = [str(folder) for folder in Path(__file__).parents[:3]]
    arguments = ["", str(study.results_dir.parent), *tests]
    run = subprocess.Popen([sys.executable, "-c", code, *arguments])
    while len(list(folder.glob("*/*.npy"))) < 6:
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    finished = len(list(folder.glob("*/[!.]*.npy")))
    summary = predict.map_layer(study, LAYER, block=BLOCK)
    predict.remove_chunks(study)
    assert summary["kept"] == finished < summary["chunks"]
    assert_equal_maps(maps, read_all(study))


# What is refused ----------------------------------------------------------------------------------


def change_card(of, **changes):
    path = model_path(of, "2-3m").with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def move(study):
    path = covariate_files(study)["twi"]
    with rasterio.open(path, "r+") as raster:
        raster.transform = raster.transform.translation(1000, 0) @ raster.transform


def change_unit(study):
    with rasterio.open(covariate_files(study)["elevation"], "r+") as raster:
        raster.units = ["ft"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda s: covariate_files(s)["twi"].unlink(),
            "covariate twi is missing",
            id="none",
        ),
        pytest.param(
            lambda s: covariate_files(s)["twi"].write_text("no"),
            r"twi\.tif cannot be read",
            id="damaged",
        ),
        pytest.param(move, r"twi\.tif is not on the reference grid", id="another grid"),
        pytest.param(
            change_unit, r"elevation\.tif is in ft, and the forest learnt elevation in m", id="unit"
        ),
        pytest.param(
            lambda s: change_card(s, study="else"), "forest of the study else, run main", id="study"
        ),
        pytest.param(
            lambda s: change_card(s, run="two"), "forest of the study tiny, run two", id="run"
        ),
        pytest.param(
            lambda s: change_card(s, samples_sha256="0"), "grown from other samples", id="samples"
        ),
        pytest.param(
            lambda s: change_card(s, predictors=PREDICTORS[::-1]), "in another order", id="order"
        ),
        pytest.param(
            lambda s: change_card(s, predictors=["twi", "slope"]),
            "other .* elevation, slope",
            id="others",
        ),
    ],
)
def test_what_does_not_fit_is_refused(world, tmp_path, monkeypatch, spoil, message):
    shutil.copytree(world[0].processed_dir, tmp_path / "processed")
    shutil.copytree(world[0].results_dir, tmp_path / "main")
    for name in ("processed_dir", "results_dir"):
        monkeypatch.setattr(Study, name, getattr(Study, name))
    study = open_study(tmp_path)
    spoil(study)
    with pytest.raises((MapError, CovariateError), match=message):
        predict.map_layer(study, LAYER)


# Files --------------------------------------------------------------------------------------------


def test_rasters_are_cloud_optimised(mapped):
    from rio_cogeo.cogeo import cog_validate

    study = mapped[0]
    map_storage(study)
    for path in map_files(study).values():
        valid, errors, warnings = cog_validate(path)
        assert valid, (path.name, errors, warnings)
        assert not list(path.parent.glob(".*.part"))


def test_overviews_keep_classes_and_average_the_rest(tmp_path, study):
    geobox = reference_grid(
        study.model_copy(update={"grid": type(study.grid)(resolution=1000, fine_resolution=500)})
    )
    data = np.zeros(geobox.shape, np.uint8)
    data[1::2] = 4
    data[::4, ::4] = 4
    for rule, kind in (("mode", np.uint8), ("average", np.float32)):
        path = write_raster(
            tmp_path / f"{rule}.tif",
            data.astype(kind),
            geobox,
            study=study,
            names="a",
            units="1",
            overviews=rule,
        )
        with rasterio.open(path, overview_level=0) as source:
            whole = source.read(1)[:-1, :-1]  # the last cells may be of odd numbers
        if rule == "mode":
            assert set(np.unique(whole)) <= {0, 4}
        else:
            assert whole.mean() == pytest.approx(data[:-1, :-1].mean(), rel=0.01)


def style(path):
    return ElementTree.parse(path.with_suffix(".qml")).getroot().find("pipe/rasterrenderer")


def test_styles_have_the_colours_and_values_of_their_rasters(mapped):
    study, _, maps = mapped
    map_storage(study)
    files = map_files(study)
    renderer = style(files["ice_type_2-3m"])
    assert renderer.get("type") == "paletted"
    names = ElementTree.parse(f"{files['ice_type_2-3m']}.aux.xml").findall(".//Category")
    with rasterio.open(files["ice_type_2-3m"]) as source:
        entries = renderer.findall("colorPalette/paletteEntry")
        assert len(entries) == 6
        for entry in entries:
            code = int(entry.get("value"))
            assert entry.get("color") == "#{:02x}{:02x}{:02x}".format(*source.colormap(1)[code][:3])
            assert entry.get("label") == source.tags(1)[f"class_{code}"] == names[code].text
    top = float(np.nanmax(maps["ice_content_2-3m"][0]))
    tops = dict.fromkeys(["class_probability_2-3m", "permafrost_probability_2-3m"], 1.0)
    tops |= dict.fromkeys(["ice_content_2-3m", "ice_content_range_2-3m", "ice_storage"], top)
    for name, top in tops.items():
        items = style(files[name]).findall("rastershader/colorrampshader/item")
        values = [float(item.get("value")) for item in items]
        assert (values[0], values[-1]) == (0, pytest.approx(top))
        assert values == sorted(values)
        assert len({item.get("color") for item in items}) == len(items)


# The quick study ----------------------------------------------------------------------------------


def read(quick, name):
    with rasterio.open(quick / f"results/quick/main/maps/{name}.tif") as source:
        return source.read(), source


@pytest.mark.parametrize("layer", NAMES)
@pytest.mark.parametrize("kind", ["ice_type", "ice_type_reference"])
def test_type_maps_hold_classes_names_and_colours(quick, kind, layer):
    types, source = read(quick, f"{kind}_{layer}")
    assert source.nodata == 255
    assert types.dtype == np.uint8
    assert set(np.unique(types)) <= {*range(6), 255}
    with rasterio.open(source.name) as raster:
        assert raster.colormap(1)[5][:3] == (0x25, 0x34, 0x94)
        assert raster.tags(1)["class_4"] == "ice-saturated frozen soil"
        assert raster.tags()["LABEL"] == STUDY.label


@pytest.fixture(scope="module")
def covariate(quick):
    """Return a function that reads a covariate of the quick study."""
    (folder,) = (path.parent for path in (quick / "data/processed").glob("quick-*/slope.tif"))

    def read_one(name):
        with rasterio.open(folder / f"{name}.tif") as source:
            return source.read(1)

    return read_one


@pytest.mark.parametrize("layer", NAMES)
def test_rasters_of_a_layer_follow_from_each_other(quick, covariate, layer):
    kinds = ("permafrost_probability", "class_probability", "ice_type", "ice_content")
    chance, shares, types, ices = (read(quick, f"{kind}_{layer}")[0] for kind in kinds)
    (chance,), (types,), (ice, content) = chance, types, ices
    valid = chance != 65535
    assert (shares[0] != 65535).tolist() == valid.tolist()
    assert (shares[:, valid].astype(int).sum(axis=0) == 10_000).all()
    np.testing.assert_array_equal(shares[1:, valid].astype(int).sum(axis=0), chance[valid])
    # Cells have one area: that of permafrost is the expected one.
    permafrost = (types[valid] > 0).sum()
    assert permafrost == pytest.approx(chance[valid].sum(dtype=float) / 1e4, rel=0.01)
    np.testing.assert_allclose(ice[valid], chance[valid] / 1e4 * content[valid], atol=2e-4)
    assert np.isnan(ices[:, ~valid]).all()
    outside = valid & ~(covariate("air_frost_number") > STUDY.domain.above)
    assert outside.any()
    for band in (chance, types, ice):
        assert (band[outside] == 0).all()


@pytest.mark.parametrize("layer", NAMES)
def test_the_range_of_a_borehole_is_that_of_the_hurdle(quick, covariate, layer):
    bands, source = read(quick, f"ice_content_range_{layer}")
    with rasterio.open(source.name) as raster:
        assert raster.descriptions == ("p10", "p50", "p90", "above_0.3")
        assert set(raster.scales) == {1e-4}
    valid = bands[0] != 65535
    lowest, middle, highest, above = bands[:, valid].astype(int)
    assert (lowest <= middle).all()
    assert (middle <= highest).all()
    # A tenth of boreholes find more than the last quantile.
    assert (above[highest > 3000] >= 999).all()
    assert (above[highest < 2999] <= 1001).all()

    hurdle, card = cards.load_hurdle(quick / f"results/quick/main/models/ice_{layer}.npz")
    cells = np.flatnonzero(valid)[::2000]
    values = np.stack([covariate(name).ravel()[cells] for name in card["predictors"]], axis=1)
    in_domain = covariate("air_frost_number").ravel()[cells] > STUDY.domain.above
    prediction = hurdle.predict(values, in_domain)
    found = [hurdle.quantile(prediction, level) for level in (0.1, 0.5, 0.9)]
    found.append(hurdle.exceeding(prediction, STUDY.maps.exceeded))
    np.testing.assert_array_equal(bands.reshape(4, -1)[:, cells], steps(np.array(found)))
