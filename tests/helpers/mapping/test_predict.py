"""The map: results by hand, equal in any chunks and after any kill; files say what they hold."""

import json
import os
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
from sklearn.ensemble import RandomForestClassifier

from helpers.core import classes
from helpers.core.grid import area_mask, cell_centres, reference_grid
from helpers.core.rasters import write_raster
from helpers.core.study import Study
from helpers.forest import cards, class_means, grid_search, models, regression
from helpers.forest.calibration import fit_calibration
from helpers.forest.paths import model_path
from helpers.mapping import extent, predict
from helpers.mapping.files import MapError, map_files
from helpers.mapping.storage import map_storage
from helpers.prepare.registry import CovariateError, covariate_files, write_covariates
from helpers.samples import extract, rows

STUDY = Study.open("config/quick.yaml")
NAMES = [classes.layer_name(layer) for layer in STUDY.layers]


def test_prediction_has_the_forest_s_class_and_probabilities_that_add_up():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(333, 4)).astype(np.float32)
    types = rng.integers(0, 6, 333)
    model = RandomForestClassifier(20, random_state=1, n_jobs=2).fit(values, types)
    calibration = fit_calibration(models.class_probabilities(model, values), types)
    predicted, probabilities = predict.predict(model, calibration, values)
    np.testing.assert_array_equal(predicted, model.predict(values))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


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
                "in_domain": True,
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
        regression.save_forests(study, table)
        yield study


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
    summary = predict.map_layer(world, LAYER, threads=1, block=(400, 400))
    result = read_all(world)
    predict.remove_chunks(world)
    return world, summary, result


def test_a_map_is_what_its_forest_says(mapped):
    study, summary, maps = mapped
    model, card = cards.load_model(model_path(study, "2-3m"))
    values, cells = extract.read_predictors(study, PREDICTORS)
    types, probabilities = predict.predict(model, card["calibration"], values)
    flat = {name: bands.reshape(len(bands), -1)[:, cells] for name, bands in maps.items()}
    np.testing.assert_array_equal(flat["ice_type_2-3m"][0], types)
    assert summary["cells"] == {k: n for k, n in enumerate(np.bincount(types).tolist()) if n}
    assert (summary["chunks"], summary["kept"]) == (1, 0)
    shares = flat["class_probability_2-3m"] / 1e4
    np.testing.assert_allclose(shares.T, probabilities, atol=6e-4)
    means, sds = np.array(card["class_means"]), np.array(card["class_sds"])
    plain = means @ shares
    expected = extent.confine_to_permafrost(plain, 1 - shares[0])
    np.testing.assert_allclose(flat["ice_content_2-3m"][0], expected, atol=1e-6)
    # The law of total variance: within classes, and between them.
    variance = sds**2 @ shares + ((means[:, np.newaxis] - plain) ** 2 * shares).sum(axis=0)
    np.testing.assert_allclose(flat["ice_content_2-3m"][1], np.sqrt(variance), atol=1e-6)


def test_cells_without_a_covariate_have_no_map(mapped):
    study, _, maps = mapped
    with rasterio.open(covariate_files(study)["twi"]) as source:
        missing = np.isnan(source.read(1))
    assert missing[area_mask(study, reference_grid(study))].any()
    assert (maps["ice_type_2-3m"][0] == 255).tolist() == missing.tolist()
    assert (maps["class_probability_2-3m"] == 65535).all(axis=0).tolist() == missing.tolist()
    assert np.isnan(maps["ice_content_2-3m"]).all(axis=0).tolist() == missing.tolist()


def test_the_standard_deviation_of_sure_cells_is_that_of_their_class():
    columns = np.eye(3, dtype=np.uint16).reshape(3, 1, 3) * 10_000
    means, sds = np.array([0, 0.2, 0.5]), np.array([0, 0.03, 0.1])
    content, sd = predict._ice_content(columns, [0], means, (means, sds), (5000, 1.0))
    np.testing.assert_allclose(content[0], means, rtol=1e-6)
    np.testing.assert_allclose(sd[0], sds, atol=1e-7)


@pytest.mark.parametrize(("threads", "block"), [(2, BLOCK), (2, (7, 400)), (1, (64, 13))])
def test_no_result_depends_on_chunks_or_threads(mapped, threads, block):
    study, summary, maps = mapped
    assert predict.map_layer(study, LAYER, threads, block)["cells"] == summary["cells"]
    predict.remove_chunks(study)
    assert_equal_maps(maps, read_all(study))


def test_a_dask_cluster_makes_the_same_map(mapped, tmp_path):
    from distributed import LocalCluster

    study, summary, maps = mapped
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        scheduled = study.model_copy(
            update={"compute": type(study.compute)(scheduler=cluster.scheduler_address)}
        )
        assert predict.map_layer(scheduled, LAYER, block=BLOCK)["cells"] == summary["cells"]
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
    # Another covariate: no chunk is what it was.
    os.utime(covariate_files(study)["twi"])
    assert predict.map_layer(study, LAYER, block=BLOCK)["kept"] == 0
    assert len(list(predict._chunks_dir(study).iterdir())) == 1
    predict.remove_chunks(study)
    assert not predict._chunks_dir(study).exists()


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


def test_storage_from_the_regression_has_its_total(mapped):
    study, _, maps = mapped
    regressed = study.changed({"storage_from": "regression"})
    predict.map_layer(regressed, LAYER, block=BLOCK)
    result = read_all(study)
    predict.remove_chunks(study)
    predict.map_layer(study, LAYER)
    model, _ = cards.load_model(model_path(study, "2-3m", "regression"), class_means.REGRESSED)
    values, _ = extract.read_predictors(study, PREDICTORS)
    total = np.nansum(result["ice_content_2-3m"][0], dtype=float)
    assert total == pytest.approx(model.predict(values).sum(), rel=1e-4)
    np.testing.assert_array_equal(result["ice_content_2-3m"][1], maps["ice_content_2-3m"][1])


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
            "covariate twi of the forest is missing",
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
    import shutil

    shutil.copytree(world.processed_dir, tmp_path / "processed")
    shutil.copytree(world.results_dir, tmp_path / "main")
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
        assert not path.with_name(f".{path.name}.part").exists()


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
    tops = {
        "class_probability_2-3m": 1.0,
        "ice_content_2-3m": float(np.nanmax(maps["ice_content_2-3m"][0])),
    }
    for name, top in (tops | {"ice_storage": tops["ice_content_2-3m"]}).items():
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
def test_type_maps_hold_classes_names_and_colours(quick, layer):
    types, source = read(quick, f"ice_type_{layer}")
    assert source.nodata == 255
    assert types.dtype == np.uint8
    assert set(np.unique(types)) <= {*range(6), 255}
    with rasterio.open(source.name) as raster:
        assert raster.colormap(1)[5][:3] == (0x25, 0x34, 0x94)
        assert raster.tags(1)["class_4"] == "ice-saturated frozen soil"
        assert raster.tags()["LABEL"] == STUDY.label


@pytest.mark.parametrize("layer", NAMES)
def test_probabilities_add_up_and_contents_follow_from_them(quick, layer):
    shares, source = read(quick, f"class_probability_{layer}")
    content, _ = read(quick, f"ice_content_{layer}")
    valid = shares[0] != 65535
    assert source.count == 6
    assert (shares[:, valid].astype(int).sum(axis=0) == 10_000).all()
    card = json.loads((quick / f"results/quick/main/models/forest_{layer}.json").read_text())
    expected = np.tensordot(card["class_means"], shares / 1e4, axes=1)[valid]
    np.testing.assert_allclose(content[0][valid].mean(), expected.mean(), rtol=1e-3)
    some = content[0][valid] > 0
    assert some.sum() == pytest.approx((1 - shares[0][valid] / 1e4).sum(), rel=0.01)
    ratio = content[0][valid][some] / expected[some]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.02)
    assert np.isnan(content[0][~valid]).all()
