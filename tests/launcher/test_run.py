"""The launcher on copies of the project: what reruns, what a failure says, what survives a kill."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from conftest import SECRET
from project import assert_same_rasters, environment, front_door

from helpers.core.study import Study
from launcher import run
from launcher.notebooks import _cell_error, _Progress, execute
from launcher.run import StageProgress
from launcher.stages import (
    STAGES,
    RunError,
    missing_file,
    stage_dir,
    stage_fingerprint,
    stages_before,
    stages_of,
)

QUICK = "config/quick.yaml"
ALL = [name for name in STAGES if name in stages_of(Study.open(QUICK))]
FROM_01 = ALL[1:]


def since(name):
    """Return the stages of a study of its own boreholes from one on."""
    return ALL[ALL.index(name) :]


PREPARE = ("--until", "01-prepare-data")
"""What runs that are started to be stopped reach for: the same machinery in a third of the time."""


def snapshot(project):
    """Return size and time of every file that a run may write."""
    folders = [project / name for name in ("data", "results", "figures")]
    files = [p for folder in folders if folder.exists() for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(project)): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def stale(project, study=QUICK):
    status, out, err = front_door(project, "check", study)
    assert status == 0, err
    return [line.split()[0] for line in out if "would run: " in line]


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def edit_cell(path, heading, new):
    notebook = nbformat.read(path, as_version=4)
    under = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            under = heading in cell.source
        elif cell.cell_type == "code" and under:
            cell.source = new(cell.source)
            break
    else:
        raise AssertionError(f"no code cell under {heading}")
    nbformat.write(notebook, path)


def test_a_second_run_touches_nothing_and_full_adds_what_judges_the_map(quick):
    """One test, since tests that start the launcher at once would lock each other out."""
    before = snapshot(quick)
    status, out, err = front_door(quick, "map", QUICK)
    assert status == 0, err
    assert [line for line in out if "up to date: nothing to do" in line]
    assert snapshot(quick) == before
    status, out, err = front_door(quick, "check", "--full", QUICK)
    assert status == 0, err
    told = [line for line in out if "would run: " in line or line.endswith("is up to date")]
    stages = [line.split()[0] for line in told]
    assert stages == stages_of(Study.open(QUICK), full=True)
    assert [line.split()[0] for line in out if "would run: " in line] == ["08-baselines"]


def test_results_record_version_code_and_settings(quick):
    (path,) = (quick / "data/processed").glob("quick-*/01-prepare-data.json")
    record = json.loads(path.read_text())
    assert record["label"] == "SIMULATED"
    assert re.fullmatch("[0-9a-f]{12}", record["code_digest"])
    assert record["settings"]["grid"]["resolution"] == 6000


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        pytest.param(
            "src/helpers/prepare/terrain.py",
            "import numpy",
            "EDITED = 1\nimport numpy",
            FROM_01,
            id="helper of 01",
        ),
        pytest.param(
            "src/helpers/prepare/products.py",
            "0.0000275",
            "0.0000276",
            ALL,
            id="constant of the landscape and of 01",
        ),
        pytest.param(QUICK, "number: 3", "number: 4", since("03-grid-search"), id="setting of 03"),
    ],
)
def test_an_edit_reruns_exactly_what_depends_on_it(copy, file, old, new, expected):
    replace(copy / file, old, new)
    assert stale(copy) == expected


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("source.dem_arcsec", 120, ALL),
        ("covariates.terrain.relief_window_km2", 576, FROM_01),
        ("samples.seed", 3, since("02-extract-samples")),
        ("target", "ice_level", since("02-extract-samples")),
        ("folds.min_separation_km", 2, since("02-extract-samples")),
        ("folds.number", 4, since("03-grid-search")),
        ("maps.exceeded", 0.4, since("05-map-ground-ice")),
        ("trust.coverage", 0.8, since("05-map-ground-ice")),
        ("title", "Another", []),
    ],
)
def test_a_setting_changes_what_reads_it(setting, value, expected):
    old = Study.open(QUICK)
    new = old.changed({setting: value})
    changed = []
    for name in stages_of(new):
        places, made_of = (
            [of(study, name) for study in (old, new)] for of in (stage_dir, stage_fingerprint)
        )
        read = set(stages_before(new, name)) & set(changed)
        if read or len(set(places)) > 1 or len(set(made_of)) > 1:
            changed.append(name)
    assert changed == expected


def test_docstrings_the_launcher_and_the_title_rerun_nothing(copy):
    replace(copy / "src/helpers/prepare/products.py", "Formats of", "The formats of")
    replace(copy / "src/launcher/processes.py", "MESSAGE_LENGTH = 400", "MESSAGE_LENGTH = 401")
    replace(copy / QUICK, "coarse grid for tests", "for tests")
    assert stale(copy) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/processed/quick-*/slope.tif", FROM_01),
        ("results/quick/main/samples/samples.csv", since("02-extract-samples")),
        ("results/quick/main/notebooks/06-publication-figures.json", ["06-publication-figures"]),
    ],
)
def test_a_changed_output_reruns_its_stage_whatever_its_time(copy, pattern, expected):
    """A bit of a raster or table that is another, or a record that cannot be read."""
    (path,) = copy.glob(pattern)
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(b"" if path.suffix == ".json" else content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stale(copy) == expected


def test_outputs_of_tomorrow_and_another_seed(copy):
    """By their times all is up to date."""
    tomorrow = time.time() + 86_400
    for path in [*(copy / "data").rglob("*"), *(copy / "results").rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    edited = yaml.safe_load((copy / QUICK).read_text())
    edited.setdefault("forest", {})["seed"] = 77
    (copy / QUICK).write_text(yaml.safe_dump(edited))
    assert stale(copy) == since("03-grid-search")
    status, out, err = front_door(copy, "map", QUICK, "--until", "03-grid-search")
    assert status == 0, err
    assert "03-grid-search" in out[0]
    cards = list((copy / "results/quick/main/models").glob("*.json"))
    assert {json.loads(card.read_text())["seed"] for card in cards} == {77}
    assert stale(copy) == since("04-evaluate-accuracy")


def test_an_edited_notebook_reruns_itself(copy):
    edit_cell(
        copy / "notebooks/01-prepare-data.ipynb",
        "Make the covariates",
        lambda source: source + "\nedited = 1",
    )
    assert stale(copy) == FROM_01


def test_a_lost_file_is_made_again(copy):
    (covariate,) = (copy / "data/processed").glob("quick-*/slope.tif")
    covariate.unlink()
    assert stale(copy) == FROM_01


def test_a_mistake_in_a_cell_ends_in_six_lines(copy):
    edit_cell(
        copy / "notebooks/01-prepare-data.ipynb",
        "Make the covariates",
        lambda source: 'raise ValueError("the slope of cell 17 is negative")',
    )
    status, out, err = front_door(copy, "map", QUICK)
    assert status == 1
    assert len(out) + len(err) <= 6
    text = "\n".join(err)
    for part in (
        "01-prepare-data",
        "Make the covariates",
        "ValueError: the slope of cell 17 is negative",
        "Remedy:",
    ):
        assert part in text
    failed = copy / text.split("Failed notebook: ")[1].strip()
    assert "the slope of cell 17" in failed.read_text()
    assert not list((copy / "data/processed").glob("quick-*/01-prepare-data.ipynb"))


def test_progress_keeps_two_stages_apart():
    progress = StageProgress()
    one, other = "testbed/3-against-the-truth", "06-publication-figures"
    for stage in (one, other):
        assert progress({"stage": stage, "event": "start", "since": time.time()}) == ""
    progress({"stage": one, "event": "cell", "cell": "Totals"})
    progress({"stage": other, "event": "cell", "cell": "Maps"})
    assert re.fullmatch(rf"{one} .* of 30 s  Totals; {other} .* of 25 s  Maps", progress.now())
    progress({"stage": one, "event": "failure"})
    assert progress.now().startswith(other)
    assert progress({"stage": other, "event": "end", "seconds": 3}).startswith(other)
    assert progress.now() == ""


def test_a_bar_of_a_cell_is_handed_on_and_nothing_else_that_it_prints():
    told = []
    bars = _Progress(told.append)
    bars.heading = "Fetch"
    bars.write("forests: 12\n")
    bars.write("\r0.0 MB:   0%|          | 0/72\r7.2 MB:  58%|#####     | 42/72 ")
    bars.write("\n")
    assert told == ["Fetch: 7.2 MB:  58%|#####     | 42/72"]


@pytest.mark.soak
def test_of_two_stages_at_once_one_fails_and_the_other_ends(copy):
    edit_cell(
        copy / "notebooks/06-publication-figures.ipynb",
        "Settings",
        lambda source: 'raise ValueError("no ink")',
    )
    edit_cell(
        copy / "notebooks/testbed/3-against-the-truth.ipynb",
        "What is compared",
        lambda source: source + "\nedited = 1",
    )
    status, out, err = front_door(copy, "map", QUICK, "--cores", "2")
    assert status == 1
    assert [line.split()[0] for line in out] == ["testbed/3-against-the-truth"]
    assert err[0].startswith("06-publication-figures failed after")
    assert "ValueError: no ink" in err
    lines = (copy / ".run/quick/main/events.jsonl").read_text().splitlines()
    kinds = [event["event"] for event in map(json.loads, lines) if event["event"] != "cell"]
    assert kinds == ["start", "start", "failure", "end"]
    assert stale(copy) == ["06-publication-figures"]


def test_the_error_of_a_helper_keeps_its_remedy():
    value = "dem.tif is empty\nRemedy: fetch it again"
    error = _cell_error("01-prepare-data", "Make the covariates", "RasterError", value)
    assert error.message.endswith("RasterError: dem.tif is empty")
    assert error.remedy == "fetch it again"


def test_an_unknown_parameter_is_refused(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("study = 1")])
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(RunError, match="no parameter sutdy; it has study"):
        execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {"sutdy": 2})
    assert not (tmp_path / "b.ipynb").exists()


def test_a_failure_of_snakemake_itself_is_no_success(tmp_path, monkeypatch):
    """As when it finds outputs older than their inputs after a stage has ended."""
    events = [{"run": "main", "stage": "01-prepare-data", "event": "start", "since": 0}]
    events.append(events[0] | {"event": "end", "seconds": 3})
    lines = "".join(json.dumps(event) + "\n" for event in events)
    code = f"import os, sys; open(os.environ['FILE'], 'w').write({lines!r}); sys.exit('clock skew')"
    monkeypatch.setattr(run, "_command", lambda job: [sys.executable, "-c", code])
    monkeypatch.setattr(run, "environment", lambda group, path: {"FILE": str(path)})
    monkeypatch.setattr(run, "state_dir", lambda group: tmp_path)
    monkeypatch.setattr(run, "guard", lambda *runs: contextlib.nullcontext())
    monkeypatch.setattr(run, "relative_path", str)
    progress = StageProgress()
    with pytest.raises(RunError, match="Snakemake stopped: clock skew"):
        run.launch(run.Job([], tmp_path, []), progress)
    assert [event["event"] for event in progress.events] == ["start", "end"]


def test_a_raster_of_tomorrow_is_named_before_anything_runs(tmp_path):
    path = tmp_path / "relief.tif"
    study = Study.open("config/yukon.yaml")
    own = [study.own_predictors[0].model_copy(update={"file": str(path)})]
    study = study.model_copy(update={"predictors": own})
    assert "There is no" in missing_file(study, ["01-prepare-data"]).message
    path.touch()
    assert missing_file(study, ["01-prepare-data"]) is None
    os.utime(path, (time.time() + 86_400,) * 2)
    assert "relief.tif, which 01-prepare-data reads, is in the future" in str(
        missing_file(study, ["01-prepare-data"])
    )


def test_two_launchers_never_write_one_run(copy):
    shutil.rmtree(copy / "data/processed")
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", "map", QUICK, *PREPARE],
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.DEVNULL,
    ) as first:
        wait_for(lambda: processes(copy, "snakemake"))
        status, _, err = front_door(copy, "map", QUICK)
        assert status == 1
        assert f"is being written by process {first.pid}" in err[0]
        assert first.poll() is None
        first.terminate()


def processes(project, word=""):
    """Return the living processes of a project's runs whose command line holds a word."""
    found = []
    for process in psutil.process_iter():
        try:
            run = process.environ().get("GROUND_ICE_RUN", "")
            if run.startswith(str(project)) and any(word in part for part in process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def forget(project):
    for name in ("data/raw", "data/processed", "results", ".run"):
        shutil.rmtree(project / name, ignore_errors=True)


def start_and_kill(project, target, moment):
    """Start a run, kill `target` after `moment` seconds, and check that soon nothing is left."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launcher", "map", QUICK, *PREPARE],
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    if target == "group":
        os.killpg(launcher.pid, signal.SIGKILL)
    elif target == "launcher":
        launcher.kill()
    else:
        word = {"snakemake": "snakemake", "papermill": "stage"}[target]
        wait_for(lambda: processes(project, word) or launcher.poll() is not None)
        for process in processes(project, word):
            process.kill()
    launcher.wait()
    wait_for(lambda: not processes(project), seconds=10)


def check_next_run(project, reference):
    status, _, err = front_door(project, "map", QUICK, *PREPARE)
    assert status == 0, err
    assert not processes(project)
    assert not list(project.rglob(".*.part"))
    assert_same_rasters(project, reference)


TARGETS = ("launcher", "snakemake", "papermill", "group")


def test_a_kill_at_a_random_moment_leaves_no_lock_and_no_half_file(copy):
    """Kill a part of a run; `make soak` kills all of them, at all moments, and runs again."""
    shutil.rmtree(copy / "data/processed")
    start_and_kill(copy, random.choice(TARGETS), random.uniform(0.5, 9))
    assert stale(copy) == FROM_01
    assert all(path.stat().st_size for path in (copy / "data/processed").rglob("*.tif"))


@pytest.mark.soak
@pytest.mark.parametrize("moment", [0.3, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18])
@pytest.mark.parametrize("target", TARGETS)
def test_the_next_run_works_after_a_kill_at_any_moment(copy, quick, target, moment):
    forget(copy)
    start_and_kill(copy, target, moment)
    check_next_run(copy, quick)


def test_ctrl_c_ends_the_run_and_says_so(copy):
    shutil.rmtree(copy / "data/processed")
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launcher", "map", QUICK, *PREPARE],
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: processes(copy, "stage"))
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert "Stopped by SIGINT" in err
    assert not processes(copy)


def test_a_secret_of_the_environment_is_in_no_file(quick):
    secret = SECRET["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in quick.rglob("*") if path.is_file()]
    assert len(files) > 200
    found = [path for path in files if secret in path.read_bytes()]
    for path in (path for path in files if path.suffix in (".npz", ".xlsx")):
        with zipfile.ZipFile(path) as parts:
            found += [path for name in parts.namelist() if secret in parts.read(name)]
    assert found == []


def test_nothing_of_a_run_listens_beyond_this_machine(copy):
    shutil.rmtree(copy / "data/processed")
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", "map", QUICK, *PREPARE],
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        heard = wait_for(lambda: listening(copy))
        os.killpg(run.pid, signal.SIGKILL)
    wait_for(lambda: not processes(copy), seconds=10)
    assert heard == {"127.0.0.1"}  # the kernel, which takes signed messages alone


def listening(project):
    """Return the addresses at which a project's runs listen."""
    found = set()
    for process in processes(project):
        with contextlib.suppress(psutil.Error):
            places = process.net_connections("inet")
            found |= {place.laddr.ip for place in places if place.status == psutil.CONN_LISTEN}
    return found


def test_sources_hold_no_machine_paths():
    root = Path(__file__).parents[2]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True
    ).stdout.split()
    texts = [
        p for p in tracked if p.endswith((".py", ".md", ".yaml", ".ipynb", "Makefile", "Snakefile"))
    ]
    assert not [p for p in texts if str(root) in (root / p).read_text(encoding="utf-8")]
