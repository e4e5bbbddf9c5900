"""Study files: what is refused and how, and what the folder keys depend on."""

import pytest

from helpers.core.study import Study, StudyError
from testbed.settings import VirtualStudy


def study_file(tmp_path, text, name="mine.yaml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("name: a\nsede: 3", ["no setting `sede`"], id="unknown"),
        pytest.param(
            "name: a\ngrid: {resolutoin: 500}",
            ["`grid.resolutoin`", "`grid.resolution`"],
            id="typo",
        ),
        pytest.param(
            "name: a\nresolution: 500",
            ["`resolution`", "did you mean `grid.resolution`"],
            id="misplaced",
        ),
        pytest.param("title: a", ["setting `name` is missing"], id="missing"),
        pytest.param(
            "name: a\ngrid: {resolution: -1}",
            ["`grid.resolution`", "greater than", "given: -1"],
            id="range",
        ),
        pytest.param(
            "name: a\nforest: {folds: 3}", ["`forest.folds` is now `folds.number`"], id="renamed"
        ),
        pytest.param(
            "name: a\nsource: virtual\nlandscape: {seed: 3}",
            ["`landscape` is now `source`"],
            id="renamed section",
        ),
        pytest.param(
            "name: a\nsource: virtual\ntruth: {seed: 3}\nboreholes: {sites: 90}",
            ["`truth` is now `campaign.truth`", "`boreholes` is now `campaign.boreholes`"],
            id="renamed sections",
        ),
        pytest.param(
            "name: a\nsource: vitrual",
            ["`source.kind`", "there are files, stac, virtual", "given: 'vitrual'"],
            id="unknown source",
        ),
        pytest.param(
            "name: a\nsource: {kind: virtual, seeed: 3}",
            ["`source.seeed`", "did you mean `source.seed`"],
            id="setting of a source",
        ),
        pytest.param(
            "name: a\nfolds: {kind: column}", ["`folds`", "as `column`"], id="folds without column"
        ),
        pytest.param(
            "name: a\ngrid: {fine_resolution: 300}",
            ["300 m does not divide", "1000 m"],
            id="misfit",
        ),
        pytest.param("name: a\nrun: ../b", ["`run`", "../b"], id="path in a name"),
        pytest.param("name: a\ngrid: {crs: Alberts}", ["`grid.crs`", "Alberts"], id="crs"),
        pytest.param(
            "name: a\ngrid: {crs: 'EPSG:4326'}", ["`grid.crs`", "metres"], id="geographic crs"
        ),
        pytest.param(
            "name: a\nforest: {min_samples_split: [1]}",
            ["`forest.min_samples_split.0`", "equal to 2", "given: 1"],
            id="grid of splits",
        ),
        pytest.param(
            "name: a\nforest: {max_features: [sqrt, 1.5]}",
            ["`forest.max_features`", "1.5"],
            id="features",
        ),
        pytest.param(
            "name: a\nforest: {max_features: [root]}",
            ["'root' is neither sqrt, log2"],
            id="no features",
        ),
        pytest.param(
            "name: a\nforest: {max_depth: []}",
            ["`forest.max_depth`", "at least 1 item"],
            id="empty grid",
        ),
        pytest.param("name: a\nforest: {score: beauty}", ["`forest.score`", "kappa"], id="score"),
        pytest.param("- a", ["holds no settings"], id="no mapping"),
        pytest.param("a: [", ["not readable as YAML"], id="no yaml"),
        pytest.param("extends: b.yaml", ["extends b.yaml, which does not exist"], id="no parent"),
        pytest.param(
            "extends: mine.yaml\nname: a", ["extends mine.yaml, which extends itself"], id="circle"
        ),
    ],
)
def test_a_bad_study_file_is_refused_with_its_cause(tmp_path, text, expected):
    with pytest.raises(StudyError) as caught:
        Study.open(study_file(tmp_path, text))
    for part in ("mine.yaml", "Remedy: ", *expected):
        assert part in str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path):
    with pytest.raises(StudyError) as caught:
        Study.open(study_file(tmp_path, "title: a\nnane: b\ngrid: {resolution: x}"))
    assert str(caught.value).count(";") >= 2


def test_a_missing_file_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"config/virtual\.yaml"):
        Study.open("config/virtul.yaml")


def test_the_working_directory_does_not_matter(tmp_path, monkeypatch):
    here = Study.open("config/quick.yaml")
    monkeypatch.chdir(tmp_path)
    assert Study.open("config/quick.yaml") == here


def test_a_file_extends_another(tmp_path):
    study_file(tmp_path, "name: base\ngrid: {margin: 7000, resolution: 2000}", "base.yaml")
    study = Study.open(
        study_file(tmp_path, "extends: base.yaml\nname: mine\ngrid: {resolution: 3000}")
    )
    assert (study.name, study.grid.margin, study.grid.resolution) == ("mine", 7000, 3000)


def test_a_written_study_is_the_same_study(tmp_path):
    study = Study.open("config/quick.yaml")
    path = tmp_path / "deep" / "study.yaml"
    study.write(path)
    assert Study.open(path) == study
    assert Study.open(path).processed_dir == study.processed_dir
    time = path.stat().st_mtime_ns
    study.write(path)
    assert path.stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("truth.seed", "campaign.truth.seed"),
        ("truth.unseen_ice", "campaign.truth.hidden_ice"),
        ("boreholes.hole_scatter", "campaign.boreholes.borehole_scatter"),
        ("boreholes.design", "campaign.boreholes.design"),
        ("landscape.relief.hurst", "source.relief.hurst"),
        ("folds.together_km", "folds.min_separation_km"),
    ],
)
def test_an_old_name_names_the_new_one(old, new):
    study = Study.open("config/quick.yaml")
    assert study.has_setting(new)
    with pytest.raises(StudyError, match=f"the setting `{old}` is now `{new}`"):
        study.changed({old: 1})


def test_a_source_decides_the_class_and_files_need_none(tmp_path):
    assert isinstance(Study.open("config/quick.yaml"), VirtualStudy)
    text = "name: mine\nsource: {kind: files, dem: a.tif}"
    study = Study.open(study_file(tmp_path, text))
    assert type(study) is Study
    assert study.source.kind == "files"
    assert not study.label
    assert study.changed({"source.dem": "b.tif"}).raw_key != study.raw_key


def test_a_changed_source_changes_the_class(tmp_path):
    study = Study.open(study_file(tmp_path, "name: mine"))
    virtual = {"source.kind": "virtual", "label": "SIMULATED"}
    assert isinstance(study.changed(virtual), VirtualStudy)
    with pytest.raises(StudyError, match="there are files, stac, virtual"):
        study.changed({"source.kind": "moon"})


@pytest.mark.parametrize(
    ("change", "raw", "processed"),
    [
        pytest.param({"source": {"seed": 5}}, True, True, id="landscape"),
        pytest.param(
            {"covariates": {"terrain": {"slope_floor": 0.002}}}, False, True, id="terrain"
        ),
        pytest.param({"grid": {"margin": 50_000}}, False, True, id="grid"),
        pytest.param({"title": "another"}, False, False, id="title"),
        pytest.param({"run": "second"}, False, False, id="run"),
    ],
)
def test_keys_change_with_what_they_depend_on_and_nothing_else(change, raw, processed):
    one, other = VirtualStudy(name="a"), VirtualStudy(name="a", **change)
    assert (one.raw_key != other.raw_key, one.processed_key != other.processed_key) == (
        raw,
        processed,
    )


def test_another_label_is_another_result(study):
    other = study.changed({"label": "DRAFT"})
    assert other.raw_key != study.raw_key
    assert other.key != study.key


SOIL = {"name": "soil", "file": "soil.tif", "kind": "category"}
OWN = [
    {"name": "Unfrozen", "colour": "#d9d9d9", "permafrost": False},
    {"name": "Ice-poor", "name_zh": "少冰冻土", "colour": "#ffffcc", "words": ["poor"]},
    {"name": "Ice-rich", "colour": "#41b6c4"},
]


def test_classes_of_its_own_are_the_target_of_a_study():
    study = Study(name="a", classes=OWN, layers=["upper metres"])
    target = study.target_classes
    assert target.names == ["Unfrozen", "Ice-poor", "Ice-rich"]
    assert (target.free, target.permafrost.tolist()) == ([0], [False, True, True])
    assert target.legend[1] == ("Ice-poor", "#ffffcc")
    assert (study.has_storage, study.depths, study.domains) == (
        False,
        [],
        ("whole", "potential_permafrost"),
    )
    assert Study(name="a", domain={"covariate": ""}).domains == ("whole",)


@pytest.mark.parametrize(
    ("contents", "depths", "expected"),
    [(0.2, [(1, 2)], True), (0.2, ["top"], False), (None, [(1, 2)], False)],
)
def test_storage_needs_contents_and_depths(contents, depths, expected):
    classes = [OWN[0], *({**kind, "ice_content": contents} for kind in OWN[1:])]
    assert Study(name="a", classes=classes, layers=depths).has_storage == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"classes": [*OWN, *({**OWN[1], "name": str(n), "words": []} for n in range(6))]},
            "at most 8",
        ),
        ({"classes": OWN[1:]}, "must be permafrost, and some not"),
        ({"classes": [*OWN, OWN[1]]}, "two classes have one name"),
        ({"classes": [*OWN[:2], {**OWN[2], "ice_content": 0.3}]}, "an ice_content, or none"),
        ({"classes": OWN, "target": "permafrost"}, "not of `classes`"),
        ({"classes": OWN, "samples": {"sites": "a.csv"}}, "name samples.points or samples.areas"),
        ({"layers": ["top", [1, 2]]}, "stands alone"),
        ({"area": {"polygons": ""}}, "no area"),
        (
            {
                "predictors": [
                    {"name": "g", "file": "g.tif", "kind": "category", "resampling": "cubic"}
                ]
            },
            "nearest or mode",
        ),
        ({"predictors": [{"name": "g", "file": "g.tif", "nearest_code": True}]}, "is no category"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed, expected):
    with pytest.raises(StudyError, match=expected):
        Study(name="a").changed(changed)
