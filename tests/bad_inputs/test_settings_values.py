"""Settings that cannot be meant: a sentence each when the file is read."""

import locale

import pytest
from refusals import assert_refused

from helpers.core.settings import Section
from helpers.core.study import Study, StudyError
from launcher.batch import run_batch
from launcher.sweep import Sweep, SweepError
from testbed.settings import VirtualStudy

TRUTH = "source: virtual\ncampaign: {truth: {%s}}"
NESTED = "&a [x, x, x, x, x, x, x, x, x]"
LAUGHS = "\n".join(
    ["a: " + NESTED, *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in ("ab", "bc", "cd"))]
)

VALUES = {
    "truth value as trees": ("forest: {n_estimators: true}", "`forest.n_estimators`", "not true"),
    "word as trees": ("forest: {n_estimators: yes}", "`forest.n_estimators`", "'yes'"),
    "truth value as threshold": ("domain: {above: true}", "`domain.above`", "not true"),
    "truth value in a layer": ("layers: [[true, 3]]", "`layers`", "not true"),
    "truth value as features": ("forest: {max_features: [true]}", "max_features", "not true"),
    "truth value as error": ("covariates: {climate: {lst_max_error: true}}", "lst_max_error"),
    "truth value as code": (
        "compare_with: [{name: x, file: a.tif, classes: {a: true}}]",
        "`compare_with.0.classes`",
    ),
    "NaN in a map": ("compare_with: [{name: x, file: a.tif, above: .nan}]", "compare_with.0.above"),
    "infinity in a map": ("compare_with: [{name: x, file: a.tif, above: .inf}]", "finite"),
    "NaN ice cap": (TRUTH % "ice_cap: .nan", "`campaign.truth.ice_cap`", "finite"),
    "ice above one": (TRUTH % "ice_cap: 1.5", "`campaign.truth.ice_cap`", "1.5"),
    "infinite spread": (TRUTH % "hidden_ice: [.inf, 1]", "`campaign.truth.hidden_ice.0`"),
    "NaN domain": ("domain: {above: .nan}", "`domain.above`", "finite"),
    "infinite margin": ("grid: {margin: .inf}", "`grid.margin`", "finite"),
    "huge resolution": ("grid: {resolution: 1e300}", "`grid.resolution`"),
    "tiny resolution": ("grid: {resolution: 1e-9}", "`grid.resolution`"),
    "no radii": ("covariates: {terrain: {tpi_radii: []}}", "tpi_radii", "at least 1"),
    "infinite radius": ("covariates: {terrain: {tpi_radii: [.inf]}}", "tpi_radii.0", "finite"),
    "radii of one file": (
        "covariates: {terrain: {tpi_radii: [1000, 1000.0001]}}",
        "two radii have one file",
    ),
    "no scenes": ("source: {kind: virtual, scene_dates: []}", "`source.scene_dates`", "at least 1"),
    "no noise": ("source: {kind: virtual, relief: {noise: []}}", "`source.relief.noise`"),
    "no routings": ("source: {kind: virtual, relief: {routings: []}}", "relief.routings"),
    "no such day": ("source: {kind: virtual, scene_dates: ['2023-13-45']}", "scene_dates.0"),
    "no such day, bare": ("source: {kind: virtual, scene_dates: [2023-13-45]}", "month must be"),
    "layers of one name": (
        "layers: [[2, 2.0000001], [2.0000001, 2.0000002]]",
        "two layers have one name, 2-2m",
    ),
    "layer to the core": ("layers: [[2, 1e308]]", "`layers.0.1`", "2000"),
    "layer upwards": ("layers: [[3, 2]]", "does not run downwards"),
    "negative seed": ("forest: {seed: -1}", "`forest.seed`", "greater than or equal to 0"),
    "huge seed": ("forest: {seed: 99999999999}", "`forest.seed`", "less than"),
    "seed of 500 digits": ("forest: {seed: %s}" % ("9" * 500), "`forest.seed`"),
    "seed of 5000 digits": ("forest: {seed: %s}" % ("9" * 5000), "not readable", "digits"),
    "a billion trees": ("forest: {n_estimators: 1000000000}", "`forest.n_estimators`", "20000"),
    "a million folds": ("folds: {number: 1000000}", "`folds.number`", "100"),
    "a billion draws": ("accuracy: {draws: 1000000000}", "`accuracy.draws`"),
    "run of 300 letters": ("run: " + "a" * 300, "`run`", "at most 80"),
    "title with a zero": ('samples: {sites: "a\\0b"}', "`samples.sites`", "cannot be printed"),
    "number as a key": ("1: 2", "no setting `1`"),
    "null as a key": ("~: 2", "no setting `null`"),
    "number as a key within": ("grid: {1: 2}", "`grid.1`", "strings"),
    "list as a key": ("? [1, 2]\n: 2", "unhashable key"),
    "section twice": ("grid: {margin: 1}\ngrid: {margin: 2}", "`grid` stands twice, in lines"),
    "nested 3000 times": ("title: " + "[" * 3000 + "]" * 3000, "not readable"),
    "nested in itself": ("layers: &x [*x]", "nested too deep"),
    "a billion laughs": (LAUGHS + "\nlayers: [*d, *d]", "mine.yaml"),
    "tag of Python": ("title: !!python/object/apply:os.getcwd []", "not readable", "tag"),
    "tag of a set": ("title: !!set {a}", "`title`"),
    "section as a list": ("grid: [1]", "`grid`", "dictionary"),
    "section as null": ("grid: ~", "`grid`", "dictionary"),
    "predictor twice": ("predictors: [twi, twi]", "two predictors have one name, twi"),
    "own predictors of one name": (
        "predictors: [{name: x, file: a.tif}, {name: x, file: b.tif}]",
        "two predictors have one name, x",
    ),
    "NaN box": ("area: {box: [.nan, 1, 2, 3]}", "`area.box.0`", "finite"),
    "list as raster": ("grid: {like: [1]}", "`grid.like`"),
    "missing raster": ("grid: {like: data/none.tif}", "data/none.tif", "not there"),
    "folder as raster": ("grid: {like: data/base}", "data/base", "is a folder"),
    "year 0": (
        "source: {kind: stac, api: 'https://a.b', dem: {collection: c, years: [0, 9], licence: l}}",
        "source.dem.years.0",
    ),
}


@pytest.mark.parametrize("text", VALUES.values(), ids=VALUES)
def test_what_cannot_be_meant_is_refused_when_the_file_is_read(tmp_path, text):
    settings, *parts = text
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: a\n{settings}", encoding="utf-8")
    assert_refused(lambda: Study.open(path), tmp_path, StudyError, "mine.yaml", *parts)


FILES = {
    "empty": (b"", "holds no settings"),
    "blank": (b"\n\n  \n", "holds no settings"),
    "null": (b"~", "holds no settings"),
    "a word": (b"abc", "holds no settings"),
    "zeros": (b"\0\0\0", "not readable"),
    "not UTF-8": (b"name: \xff\xfe", "not readable"),
    "GBK": ("name: a\ntitle: 冻土".encode("gbk"), "not readable"),
    "an image": (b"\x89PNG\r\n\x1a\n", "not readable"),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_what_is_no_study_file_is_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content[0])
    assert_refused(lambda: Study.open(path), tmp_path, StudyError, "mine.yaml", content[1])


def test_a_folder_is_no_study_file(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    path = tmp_path / "mine.yaml"
    assert_refused(lambda: Study.open(path), tmp_path, StudyError, "mine.yaml", "name one")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/etc", "A b", "a" * 300, "a\n", ""])
def test_names_of_studies_stay_in_their_folder(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: {name!r}".replace("\\n", "\n"), encoding="utf-8")
    if name == "a\n":
        path.write_text('name: "a\\n"', encoding="utf-8")
    assert_refused(lambda: Study.open(path), tmp_path, StudyError, "`name`")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/etc", ".hidden", "a b", "a{b}"])
def test_names_of_runs_stay_in_their_folder(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: a\nrun: '{name}'", encoding="utf-8")
    assert_refused(lambda: Study.open(path), tmp_path, StudyError, "`run`", name)


SWEEPS = {
    "range as a seed": ("axes: {samples.seed: 1-5}", "no run of it is possible", "samples.seed"),
    "negative seed": ("replicates: {settings: [forest.seed], seeds: [-1]}", "replicates.seeds.0"),
    "section twice": ("axes: {forest.seed: [1]}\naxes: {folds.seed: [1]}", "`axes` stands twice"),
    "no such setting": ("axes: {forest.sed: [1]}", "forest.sed"),
    "number as a key": ("1: 2", "odd.yaml"),
    "no such day": ("title: 2023-13-45", "odd.yaml"),
    "empty": ("", "odd.yaml"),
}


@pytest.mark.parametrize("text", SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_that_cannot_be_meant_is_refused(tmp_path, text, capsys):
    path = tmp_path / "odd.yaml"
    settings, *parts = text
    base = "base: config/quick.yaml\n" if settings else ""
    path.write_text(base + settings, encoding="utf-8")
    assert_refused(lambda: run_batch(path, dry_run=True), tmp_path, SweepError, *parts)


def test_010_is_ten(tmp_path):
    path = tmp_path / "ten.yaml"
    path.write_text("base: config/quick.yaml\naxes: {forest.seed: [010]}", encoding="utf-8")
    assert Sweep.open(path).axes == {"forest.seed": [10]}


def test_every_number_of_every_section_is_finite():
    def sections(one):
        yield one
        for value in vars(one).values():
            if isinstance(value, Section):
                yield from sections(value)

    for one in sections(VirtualStudy(name="a")):
        assert one.model_config["allow_inf_nan"] is False


def test_a_study_file_is_utf8_in_any_locale(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: a\ntitle: 多年冻土", encoding="utf-8")
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "C")
        assert Study.open(path).title == "多年冻土"
        path.write_text("name: a\ntitel: 多年冻土", encoding="utf-8")
        assert_refused(lambda: Study.open(path), tmp_path, StudyError, "titel", "title")
    finally:
        locale.setlocale(locale.LC_ALL, before)
