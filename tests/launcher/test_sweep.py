"""Sweep files: which runs a batch has, and what is refused."""

from pathlib import Path

import pytest

from helpers.core.study import Study
from launcher.sweep import Sweep, SweepError, planned_runs

ROOT = Path(__file__).parents[2]


def sweep_file(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"base: config/quick.yaml\n{text}", encoding="utf-8")
    return path


def plan(tmp_path, text):
    return planned_runs(Sweep.open(sweep_file(tmp_path, text)))


def test_a_grid_has_every_combination(tmp_path):
    runs = plan(tmp_path, "axes: {forest.seed: [1, 2, 3], samples.test_share: [0.2, 0.4]}")
    settings = [(one.study.forest.seed, one.study.samples.test_share) for one in runs]
    assert settings == [(seed, share) for seed in (1, 2, 3) for share in (0.2, 0.4)]
    assert len({one.study.run for one in runs}) == 6


def test_a_list_has_its_own_runs(tmp_path):
    runs = plan(
        tmp_path,
        "design: list\nruns:\n  - {forest.seed: 1}\n  - {samples.seed: 2, domain.above: 0.4}",
    )
    assert [one.values for one in runs] == [
        {"forest.seed": "1"},
        {"samples.seed": "2", "domain.above": "0.4"},
    ]


def test_random_designs_repeat_and_draw_from_all_levels(tmp_path):
    text = "design: random\nsize: 20\nseed: {}\n"
    text += "axes: {{forest.seed: [" + ", ".join(map(str, range(1000))) + "], folds.seed: [1, 2]}}"
    runs, again, other = (plan(tmp_path, text.format(seed)) for seed in (1, 1, 2))
    seeds = [[one.study.forest.seed for one in drawn] for drawn in (runs, again, other)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(runs) == 20
    assert {one.study.folds.seed for one in runs} == {1, 2}


def test_labels_stand_for_values(tmp_path):
    runs = plan(tmp_path, "axes:\n  left_out: {nothing: [], no relief: [terrain]}")
    assert [(one.values["left_out"], one.study.left_out) for one in runs] == [
        ("nothing", []),
        ("no relief", ["terrain"]),
    ]


def test_replicates_get_numbers_of_their_own(tmp_path):
    text = "replicates: {settings: [campaign.truth.seed, campaign.boreholes.seed], seeds: [7, 8]}"
    runs, again = plan(tmp_path, text), plan(tmp_path, text)
    numbers = [(one.study.campaign.truth.seed, one.study.campaign.boreholes.seed) for one in runs]
    assert len({number for pair in numbers for number in pair}) == 4
    assert [one.study.run for one in runs] == [one.study.run for one in again]
    assert [one.values for one in runs] == [{"replicate": "7"}, {"replicate": "8"}]


def test_equal_runs_are_one_run(tmp_path):
    seed = Study.open("config/quick.yaml").forest.seed
    runs = plan(
        tmp_path,
        f"design: list\nruns:\n  - {{forest.seed: {seed}}}\n  - {{samples.same_cell: together}}",
    )
    assert len(runs) == 1


def test_the_key_is_of_what_results_depend_on():
    study = Study.open("config/quick.yaml")
    for names in (
        {"title": "Another"},
        {"run": "another"},
        {"compute": {"scheduler": "tcp://there:1"}},
    ):
        assert study.changed(names).key == study.key
    for settings in ({"forest.seed": 1}, {"left_out": ["soil"]}, {"grid.margin": 0}):
        assert study.changed(settings).key != study.key


def test_the_key_knows_the_content_of_given_files(tmp_path):
    table = tmp_path / "sites.csv"
    table.write_text("a")
    one = Study(name="a", samples={"sites": str(table)}).key
    table.write_text("b")
    assert Study(name="a", samples={"sites": str(table)}).key != one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "axes: {forest.sede: [1]}", ["`forest.sede`", "did you mean `forest.seed`"], id="axis"
        ),
        pytest.param(
            "axes: {seeed: [1]}", ["`seeed`", "did you mean `"], id="axis without its section"
        ),
        pytest.param("axes: {forest.seed.x: [1]}", ["`forest.seed.x`"], id="below a number"),
        pytest.param(
            "design: list\nruns: [{smples.seed: 1}]",
            ["did you mean `samples.seed`"],
            id="in a list",
        ),
        pytest.param(
            "replicates: {settings: [campaign.truth.sed], seeds: [1]}",
            ["`campaign.truth.seed`"],
            id="in replicates",
        ),
        pytest.param(
            "axes: {truth.seed: [1]}",
            ["the setting `truth.seed` is now `campaign.truth.seed`"],
            id="renamed section",
        ),
        pytest.param(
            "axes: {landscape.scenes.cloud_share: [0.1]}",
            ["is now `source.scenes.cloud_share`"],
            id="below a renamed section",
        ),
        pytest.param(
            "replicates: {settings: [boreholes.hole_scatter], seeds: [1]}",
            ["is now `campaign.boreholes.borehole_scatter`"],
            id="renamed in a renamed section",
        ),
        pytest.param(
            "design: random\naxes: {folds.block_km: {low: 20, high: 90, log: true}}",
            ["`folds.block_km` is a range", "list its values"],
            id="range",
        ),
        pytest.param("axes: {run: [a, b]}", ["`run` cannot vary"], id="name"),
        pytest.param("axis: {forest.seed: [1]}", ["`axis`"], id="key"),
        pytest.param("design: grid", ["nothing to vary"], id="empty"),
        pytest.param("design: list", ["needs `runs`"], id="empty list"),
        pytest.param("axes: [", ["not readable"], id="no yaml"),
        pytest.param(
            "axes: {samples: [{seed: 3}]}", ["`samples` is a section", "`samples."], id="section"
        ),
        pytest.param(
            "axes: {covariates.terrain: [{}]}",
            ["`covariates.terrain` is a section"],
            id="inner section",
        ),
        pytest.param(
            "axes: {forest.seed: []}", ["`forest.seed` has no values"], id="axis without values"
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\nreplicates: {settings: [forest.seed], seeds: [1]}",
            ["`forest.seed` is an axis and"],
            id="axis and replicates",
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\nruns: [{forest.seed: 2}]",
            ["does not read `runs`"],
            id="runs of no list",
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\ndesign: list\nruns: [{forest.seed: 2}]",
            ["does not read `axes`"],
            id="axes of a list",
        ),
        pytest.param(
            "axes: {forest.seed: [1]}\nuntil: 05-mapp", ["`until`", "05-map-ground-ice"], id="stage"
        ),
    ],
)
def test_a_bad_sweep_is_refused_before_anything_runs(tmp_path, text, expected):
    with pytest.raises(Exception, match="Remedy: ") as caught:
        plan(tmp_path, text)
    for part in expected:
        assert part in str(caught.value)


def test_an_unknown_sweep_names_the_nearest():
    with pytest.raises(SweepError, match="such as seeds"):
        Sweep.open("seedz")


def test_keys_of_a_dictionary_can_vary(tmp_path):
    (one,) = plan(tmp_path, "axes: {ice.unfrozen_water.peat: [[0.3, 0.4]]}")
    assert one.study.ice.unfrozen_water["peat"] == (0.3, 0.4)


def test_levels_may_be_labelled_low_and_high(tmp_path):
    runs = plan(
        tmp_path,
        "axes: {ice.thresholds: {low: [0.1, 0.2, 0.3, 0.5], high: [0.15, 0.25, 0.35, 0.55]}}",
    )
    assert [one.values for one in runs] == [{"ice.thresholds": "low"}, {"ice.thresholds": "high"}]


def test_impossible_settings_are_named_and_the_others_run(tmp_path):
    runs = plan(tmp_path, "axes: {samples.test_share: [0.3, 1.5]}")
    assert [one.error == "" for one in runs] == [True, False]
    assert "`samples.test_share`" in runs[1].error
    assert "1.5" in runs[1].error


def test_the_worlds_of_ice_seekers_are_surveyed_and_not():
    runs = planned_runs(Sweep.open("replicates"))
    surveys = [
        one.study.campaign.survey_error
        for one in runs
        if one.study.campaign.boreholes.design == "ice_seeking"
    ]
    assert surveys.count(None) == surveys.count(0.1) == 70
    assert len(runs) == 5 * 70


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config/sweeps").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_sweep_of_ours_is_sound(path):
    assert not [one.error for one in planned_runs(Sweep.open(path)) if one.error]
