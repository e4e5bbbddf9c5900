"""The notebooks in JupyterLab, in a real browser: opened, run, compared with papermill."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import open_server
import pytest
import yaml
from project import assert_same_rasters, environment

from helpers.core.files import write_text
from helpers.core.study import Study
from launcher.stages import STAGES, stages_of

pytestmark = pytest.mark.browser

MENU = "//div[@class='lm-MenuBar-itemLabel' and text()='Run']"
NOTEBOOKS = [*STAGES, "07-compare-runs"]
EXPLORE = "09-explore"
OPEN = "00-open-data"


def set_study(project, old, new):
    """Change the study file that all notebooks name."""
    for name in [*NOTEBOOKS, EXPLORE]:
        path = project / "notebooks" / f"{name}.ipynb"
        text = path.read_text(encoding="utf-8").replace(old, new)
        path.write_text(text.replace("batches/seeds", "batches/lab"), encoding="utf-8")


@pytest.fixture
def lab(quick, tmp_path):
    """Return a project copy without data, and the address of a JupyterLab started elsewhere."""
    project = tmp_path / "project"
    shutil.copytree(
        quick, project, ignore=shutil.ignore_patterns("raw", "processed", "results", ".run")
    )
    set_study(project, "config/virtual.yaml", "config/quick.yaml")
    # One run alone has nothing to be compared with, which the notebook must survive.
    run = {
        "run": "main",
        "folder": "results/quick/main",
        "values": {},
        "status": "done",
        "error": "",
    }
    write_text(project / "results/batches/lab/batch.json", json.dumps({"axes": [], "runs": [run]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
    ]
    command += [
        f"--ServerApp.root_dir={project / 'notebooks'}",
        "--IdentityProvider.token=",
        "--LabApp.news_url=",
    ]
    (tmp_path / "elsewhere").mkdir()
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(
            command,
            cwd=tmp_path / "elsewhere",
            env=environment(project),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield project, f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    found = bool(chromium and driver)
    assert found, (
        "make test-browser needs Chromium and ChromeDriver (Debian: chromium chromium-driver)"
    )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.unhandled_prompt_behavior = "accept"  # "leave this page?"
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
    ):
        options.add_argument(f"--{flag}")
    for flag in (
        "disable-component-update",
        "disable-sync",
        "disable-quic",
        "window-size=1400,1800",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


def wait_for_server(address):
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=2):
            return
        time.sleep(0.3)
    raise AssertionError("JupyterLab did not start")


def run_all(browser, address, path):
    """Open a notebook, choose Run > Run All Cells, and save until every cell has run.

    None if that takes too long.
    """
    from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.expected_conditions import element_to_be_clickable
    from selenium.webdriver.support.ui import WebDriverWait

    # While the page is drawn, an element may be replaced before its state is asked for.
    wait = WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException])
    place = path.as_posix().rpartition("/notebooks/")[2]
    browser.get(f"{address}/lab/tree/{place}?reset")
    # The kernel must be there before cells are sent to it.
    wait.until(
        element_to_be_clickable((By.CSS_SELECTOR, ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell"))
    )
    wait.until(
        lambda b: b.find_elements(
            By.CSS_SELECTOR, ".jp-Notebook-ExecutionIndicator[data-status='idle']"
        )
    )
    asked, end = -60.0, time.monotonic() + 150
    cells = []
    while time.monotonic() < end:
        # JupyterLab may ask whether to overwrite what it has just saved itself; until answered,
        # nothing is saved.
        for button in browser.find_elements(
            By.CSS_SELECTOR, ".jp-Dialog button.jp-mod-warn, .jp-Dialog .jp-mod-accept"
        ):
            with contextlib.suppress(WebDriverException):
                button.click()
        # A click while the kernel still connects is lost: ask again as long as nothing has run.
        if not any(cell.execution_count for cell in cells) and time.monotonic() - asked > 60:
            with contextlib.suppress(
                WebDriverException
            ):  # a dialog came in between: the next round answers it
                wait.until(element_to_be_clickable((By.XPATH, MENU))).click()
                wait.until(
                    element_to_be_clickable((By.CSS_SELECTOR, "li[data-command='runmenu:run-all']"))
                ).click()
            asked = time.monotonic()
        time.sleep(2)
        with contextlib.suppress(WebDriverException):  # the page was drawn anew meanwhile
            browser.find_element(By.TAG_NAME, "body").send_keys(Keys.CONTROL, "s")
        with contextlib.suppress(nbformat.reader.NotJSONError):  # JupyterLab is writing it
            cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        errors = [o for c in cells for o in c.outputs if o.output_type == "error"]
        if errors or (cells and all(cell.execution_count for cell in cells)):
            return cells, errors
    browser.save_screenshot(str(path.with_suffix(".png")))
    return None


def run_notebooks(browser, address, project, names):
    """Run notebooks one after the other; each must end without an error and show a figure."""
    for name in names:
        path = project / "notebooks" / f"{name}.ipynb"
        clean = path.read_text(encoding="utf-8")
        # A page that lost its kernel, or cells to the question for one, is opened once more, as a
        # person would.
        for _ in range(2):
            path.write_text(clean, encoding="utf-8")
            cells, errors = run_all(browser, address, path) or ([], ["nothing"])
            if not errors:
                break
        assert cells, f"{name} did not finish; see {path.with_suffix('.png')}"
        browser.save_screenshot(str(path.with_suffix(".png")))
        assert not errors, f"{name}: {errors[0].ename}: {errors[0].evalue}"
        assert any("image/png" in o.get("data", {}) for cell in cells for o in cell.outputs), (
            f"{name} shows no figure"
        )
        path.write_text(clean, encoding="utf-8")


def explain_a_cell(browser, address, project):
    """Run the notebook with the view of the map; a click on the map must be explained at once."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    path = project / "notebooks" / f"{EXPLORE}.ipynb"
    cells, errors = run_all(browser, address, path) or ([], [])
    assert cells, f"{EXPLORE} did not finish; see {path.with_suffix('.png')}"
    assert not errors
    wait = WebDriverWait(browser, 30)
    view = wait.until(lambda b: b.find_element(By.CSS_SELECTOR, ".explorer[data-ready] .map"))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", view)

    def told():
        parts = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output .widget-output")
        return "".join(part.text for part in parts)

    def seconds(offset):
        before, start = told(), time.monotonic()
        place = ActionChains(browser).move_to_element_with_offset(view, offset, -60)
        place.click().perform()
        wait.until(lambda _: "of the votes" in told() and told() != before)
        return time.monotonic() - start

    assert "of the votes" not in told()
    seconds(0)  # reads the forest, too
    # Some tenths of a second on an idle machine; on a busy one the quickest of three says it.
    assert min(seconds(offset) for offset in (20, 40, 60)) < 5
    browser.save_screenshot(str(path.with_suffix(".png")))


def test_the_notebooks_run_in_jupyterlab_with_the_same_results(lab, browser, quick, open_world):
    project, address = lab
    wait_for_server(address)
    run_notebooks(browser, address, project, [name for name in NOTEBOOKS if name != OPEN])
    assert_same_rasters(project, quick, "data/raw", "data/processed", "results/quick")
    explain_a_cell(browser, address, project)
    # A study of polygons and the user's rasters, which has fewer notebooks.
    set_study(project, "config/quick.yaml", "config/yukon.yaml")
    study = Study.open("config/yukon.yaml")
    run_notebooks(browser, address, project, stages_of(study))
    assert (project / "results/yukon/main/maps/ice_type_upper-metres.tif").is_file()
    # Open data, from servers on loopback.
    _, server, api = open_world
    settings = open_server.settings(api, server.url, f"{server.url}/token") | {"name": "open"}
    text = yaml.safe_dump(json.loads(json.dumps(settings)))
    write_text(project / "config/open.yaml", text)
    set_study(project, "config/northeast-china.yaml", "config/open.yaml")
    run_notebooks(browser, address, project, [OPEN])
    assert len(list((project / "data/raw").glob("open-*/landsat/*/*/*.TIF"))) == 24
