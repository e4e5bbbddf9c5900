"""The checks of sample tables against planted defects: recall of each kind, and false flags."""

from collections import Counter
from functools import cache

import defects
import numpy as np
import pandas as pd
import pytest
from defects import DEFECTS, INTERVALS, NEEDS, SITES, WHOLE, clean_tables, judge, plant, schedule

from helpers.core.grid import reference_grid
from helpers.core.ice import content_of_cores
from helpers.core.settings import ROOT
from helpers.core.study import Study
from helpers.core.warp import warp
from helpers.prepare.registry import write_covariates
from helpers.samples import labels
from helpers.samples.tables import find_problems, read_tables
from testbed.settings import VirtualStudy

SEEDS = 20
FEW = 40  # sites
LEAST_RECALL, MOST_FALSE = 0.95, 0.01


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A coarse study with the real heights, whose tables lie in a folder of its own."""
    folder = tmp_path_factory.mktemp("defects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
        patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
        named = {"sites": str(folder / SITES), "intervals": str(folder / INTERVALS)}
        grid = {"resolution": 20_000, "fine_resolution": 10_000}
        study = VirtualStudy(name="t", grid=grid, samples=named)
        height = warp(ROOT / "data" / "base" / "topography.tif", reference_grid(study), "average")
        write_covariates(study, {"elevation": height.astype(np.float32)})
        yield study


@pytest.fixture(scope="module")
def drawn(study):
    """Return a function from a seed to clean tables, of 120 sites or another number."""
    once = cache(lambda seed, sites: clean_tables(study, np.random.default_rng([7, seed]), sites))
    return lambda seed, sites=120: once(seed, sites).copy()


def hands(seeds=SEEDS):
    return schedule(seeds, np.random.default_rng(20_240_606))


def found(study, tables):
    """Write the tables and return all problems that the checks find in them."""
    tables.write(study.path(study.samples.sites).parent)
    return find_problems(study)


# --- The checks


def trial(study, drawn, seeds):
    """Return recall by kind, the share of rows with a false flag, and both as text."""
    missed, planted, rows, false = {}, Counter(), 0, []
    for seed, kinds in enumerate(hands(seeds)):
        tables = drawn(seed)
        plants = plant(tables, np.random.default_rng([8, seed]), kinds)
        lost, wrong = judge(found(study, tables), plants, tables)
        for kind, cells in plants.items():
            planted[kind] += len(cells)
            missed.setdefault(kind, []).extend(
                (seed, *cell[:3], tables.text(*cell[:3])) for cell in lost[kind]
            )
        false += [(seed, *finding) for finding in wrong]
        rows += len(tables.sites) + len(tables.intervals) + 2  # with the headers
    recall = pd.DataFrame(
        [(kind, n, 1 - len(missed[kind]) / n, missed[kind][:3]) for kind, n in planted.items()],
        columns=["kind", "planted", "recall", "missed"],
    ).set_index("kind")
    share = len({finding[:3] for finding in false}) / rows
    counts = dict(Counter(finding[3] for finding in false))
    with pd.option_context("display.max_colwidth", 160):
        told = f"{recall.sort_values('recall').to_string()}\n"
    return (
        recall["recall"],
        share,
        f"{told}false flags on {share:.3%} of {rows} rows: {counts} {sorted(false)[:5]}",
    )


@pytest.mark.parametrize("seeds", [SEEDS, pytest.param(10 * SEEDS, marks=pytest.mark.soak)])
def test_recall_of_each_kind_and_false_flags(study, drawn, seeds):
    recall, false, told = trial(study, drawn, seeds)
    assert set(recall.index) == set(DEFECTS)
    assert recall.min() >= LEAST_RECALL, told
    assert false <= MOST_FALSE, told


def test_untouched_tables_have_no_problem(study, drawn):
    for seed in range(SEEDS):
        problems = found(study, drawn(seed))
        assert problems.empty, problems.drop(columns=["problem", "remedy"]).to_string()


def test_a_file_with_all_coordinates_swapped(study, drawn):
    tables = drawn(0)
    plants = {
        "swapped coordinates": DEFECTS["swapped coordinates"](tables, np.random.default_rng(1), 1.0)
    }
    problems = found(study, tables)
    assert set(problems["kind"]) == {"swapped coordinates"}
    whole = (problems["row"] == WHOLE).any()
    assert whole or not judge(problems, plants, tables)[0]["swapped coordinates"]


# --- The generator


def test_clean_tables_are_read_and_look_like_real_ones(study, drawn):
    tables = drawn(0)
    tables.write(study.path(study.samples.sites).parent)
    sites, intervals, problems = read_tables(study)
    assert problems.empty
    assert len(sites) == 120
    assert 600 < len(intervals) < 2000
    assert set(sites["permafrost"]) == {"yes", "no", "unknown"}
    assert labels.label_layers(study, sites, intervals)[0]["ice_type"].nunique() == 6
    water, density = (pd.to_numeric(intervals[name]) for name in ("water_content", "dry_density"))
    assert (water > 1).sum() > 5  # peat and ice layers
    closed = density.isna() & water.notna()
    assert 10 < closed.sum() < water.notna().sum() / 4
    known = (water > 0.1) & (intervals["frozen"] == "yes")
    solids = np.where(intervals["texture"] == "peat", 1.5, 2.65)

    def content(rows, unfrozen):
        return content_of_cores(water[rows], unfrozen, density[rows], solids[rows])

    assert (content(known, 0.1) < 0.96).all()
    both = known & intervals["ice_content"].notna() & density.notna()
    np.testing.assert_allclose(content(both, 0.075), intervals.loc[both, "ice_content"], atol=0.05)


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_planted_cell_differs_and_nothing_else_does(drawn, kind):
    for seed, share in ((1, 0.001), (2, 0.1)):
        before, tables = drawn(seed, FEW), drawn(seed, FEW)
        plants = DEFECTS[kind](tables, np.random.default_rng(seed), share)
        assert plants
        for file in (SITES, INTERVALS):
            told = {p.row for p in plants if p.file == file}
            assert len({p[:3] for p in plants}) == len(plants)
            if WHOLE in told:
                columns = {p.column for p in plants if p.file == file}
                columns |= {c for p in plants if p.file == file for _, c in p.also}
                same = [c for c in before[file] if c not in columns]
                assert before[file][same].equals(tables[file][same])
                assert not any(
                    c in tables[file] and before[file][c].equals(tables[file][c]) for c in columns
                )
                continue
            common = before[file].index
            changed = set(common[(before[file] != tables[file].loc[common]).any(axis=1)])
            changed |= set(tables[file].index) - set(common)
            assert changed == told
            if kind not in ("duplicated site", "overlapping intervals"):  # copies of rows
                for p in plants:
                    places = {(p.row, p.column), *p.also} if p.file == file else ()
                    assert not places or any(
                        before[file].loc[x] != tables[file].loc[x] for x in places
                    )


def test_a_row_is_damaged_once_and_the_same_seed_gives_the_same(drawn):
    for seed, kinds in enumerate(hands()):
        tables = drawn(seed, FEW)
        plants = plant(tables, np.random.default_rng(seed), kinds)
        rows = [{(p.file, p.row) for p in cells if p.row != WHOLE} for cells in plants.values()]
        assert sum(map(len, rows)) == len(set().union(*rows))
        again = drawn(seed, FEW)
        assert plant(again, np.random.default_rng(seed), kinds) == plants
        pd.testing.assert_frame_equal(again.intervals, tables.intervals)
        for kind in plants:
            assert all(tables.has(*place) for place in NEEDS.get(kind, ()))


def test_each_kind_is_dealt_twice_at_least_and_one_to_five_come_together():
    dealt = hands()
    assert {len(hand) for hand in dealt} == {1, 2, 3, 4, 5}
    assert min(Counter(kind for hand in dealt for kind in hand).values()) >= 2
    assert len(DEFECTS) > 15
    assert not set(defects.EQUIVALENT) - set(DEFECTS)
