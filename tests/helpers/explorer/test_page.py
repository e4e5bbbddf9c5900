"""The page of a small study: what it holds, and in a browser what it shows and answers."""

import json
import re
import shutil
import urllib.parse

import numpy as np
import pytest
import rasterio
from hand_made import places_of_sites, settings, write_maps, write_sites
from rasterio.warp import transform

from helpers.core.classes import layer_name
from helpers.core.grid import cell_areas, cell_centres, reference_grid
from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.explorer.bands import ExplorerError, unpack
from helpers.explorer.page import write_explorer
from helpers.explorer.points import site_points
from helpers.explorer.points import unpack as unpack_points
from helpers.mapping.cells import study_ground
from helpers.mapping.files import layer_files, map_files

ICE = "ice_content", "ice_content_range", "class_probability", "permafrost_probability"


@pytest.fixture(scope="module", params=["ice", "plain"])
def finished(request, tmp_path_factory):
    """A study with maps, and its truth by name if it has one."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "processed_dir", property(lambda self: folder / "processed"))
        patch.setattr(Study, "results_dir", property(lambda self: folder / "results"))
        study = Study(**settings(request.param))
        names = ["ice_type_2-3m", "ice_fraction_2-3m"] if study.has_storage else []
        truth = {name: folder / f"truth/{name}.tif" for name in names}
        write_maps(study, truth)
        if study.has_storage:
            write_sites(study)
        yield study, truth


@pytest.fixture(scope="module")
def page(finished):
    return write_explorer(*finished)


def read_page(page):
    """Return what a page says of its study, and its bands."""
    text = page.read_text(encoding="utf-8")
    about = json.loads(re.search(r'id="about">(.*?)</script>', text).group(1))
    width = about["grid"]["columns"]
    packed = dict(re.findall(r'id="band-([^"]+)">(.*?)</script>', text))
    return about, {name: unpack(about["bands"][name], one, width) for name, one in packed.items()}


def test_the_page_has_the_maps_within_their_steps(finished, page):
    study, _ = finished
    about, bands = read_page(page)
    for layer in study.layers:
        name = layer_name(layer)
        expected = {f"{kind}_{name}": path for kind, path in _names(study, name).items()}
        for band, (path, index) in expected.items():
            with rasterio.open(path) as source:
                read = source.read(index, masked=True).astype(float).filled(np.nan)
                values = read * source.scales[0]
            error = about["bands"][band]["step"] / 2 + 1e-6
            assert error < 0.005 or "type" in band or "reference" in band
            np.testing.assert_allclose(bands[band], values, rtol=0, atol=error, err_msg=band)
    classes = about["classes"]
    assert [one["name"]["en"] for one in classes] == study.target_classes.names


def _names(study, name):
    """Return file and number of the band by the name that the page has for it."""
    files = map_files(study)
    kind = study.target_classes.file_name
    names = {
        "type": (files[f"{kind}_{name}"], 1),
        "reference": (files[f"{kind}_reference_{name}"], 1),
    }
    names["permafrost"] = files[f"permafrost_probability_{name}"], 1
    for code in study.target_classes.codes:
        names[f"chance_{code}"] = files[f"class_probability_{name}"], code + 1
    if study.has_storage:
        names["ice"] = files[f"ice_content_{name}"], 1
        names |= {
            q: (files[f"ice_content_range_{name}"], n)
            for n, q in enumerate(("p10", "p50", "p90"), 1)
        }
    return names


def test_a_study_shows_only_what_it_has(finished, page):
    study, truth = finished
    shown = {layer["id"] for layer in read_page(page)[0]["layers"]}
    always = {"type", "reference", "permafrost", "trust", "dissimilarity"}
    of_ice = {"ice", "p10", "p50", "p90", "storage"}
    of_truth = {"true_type", "true_ice"}
    assert shown == always | (of_ice if study.has_storage else set()) | (
        of_truth if truth else set()
    )


def test_the_page_asks_nothing_of_the_network(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:)', text)
    assert "Tiny <b>" not in text


def test_the_page_has_the_sites_of_a_study_that_publishes_them(finished, page):
    study, _ = finished
    about = read_page(page)[0]
    packed = {one["id"]: unpack_points(one["packed"]) for one in about["points"]}
    assert packed == ({"sites": site_points(study)} if study.has_storage else {})
    assert about["hides_sites"] != bool(packed)


@pytest.mark.parametrize("kind", ["rounded", "none"])
def test_a_page_tells_no_position_that_the_study_does_not_publish(finished, kind):
    study, truth = finished
    path = study.results_dir / "explorer.html"
    kept = path.read_bytes() if path.is_file() else b""
    hidden = study.changed({"record.publish_coordinates": kind})
    text = write_explorer(hidden, truth).read_text(encoding="utf-8")
    about, bands = read_page(path)
    path.write_bytes(kept)
    assert about["points"] == []
    assert about["hides_sites"]
    places = [number for place in places_of_sites() for number in place]
    if study.has_storage:
        places += [number for one in site_points(study) for number in one["place"]]
        assert not any(one["name"] in text for one in site_points(study))
    # Also to a tenth of a degree, or to a metre.
    told = {f"{number:.{digits}f}" for number in places for digits in (5, 3, 2)}
    told |= {f"{number:.0f}" for number in places if number > 1000}
    assert not [one for one in told if one in json.dumps(about)]
    for name, values in bands.items():
        if name.startswith("dissimilarity"):
            found = values[np.isfinite(values)]
            assert (found == found.min()).mean() > 0.09


def test_a_missing_map_is_named_and_the_old_page_stays(finished, page):
    study, truth = finished
    path, old = map_files(study)[f"ice_type_{layer_name(study.layers[-1])}"], page.read_bytes()
    path.rename(path.with_suffix(".away"))
    with pytest.raises(ExplorerError, match=path.name):
        write_explorer(study, truth)
    path.with_suffix(".away").rename(path)
    assert page.read_bytes() == old


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a browser that finds no host, and notes what is asked for."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    found = bool(chromium and driver)
    assert found, "make test-browser needs Chromium and ChromeDriver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = ["headless=new", "no-sandbox", "disable-gpu", "no-first-run", "window-size=1400,900"]
    flags += ["host-resolver-rules=MAP * ~NOTFOUND", "disable-background-networking"]
    flags += [f"user-data-dir={tmp_path_factory.mktemp('profile')}"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        chrome.set_script_timeout(60)
        yield chrome


def open_page(browser, page, **state):
    """Open a page in a state, and wait until all of it is shown."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#{urllib.parse.urlencode(state)}")
    wait_for(browser, "return document.getElementById('explorer')?.dataset.ready")
    return WebDriverWait(browser, 30)


def wait_for(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda b: b.execute_script(script))


def text_of(browser, selector):
    return browser.execute_script(f"return document.querySelector('{selector}').innerText")


@pytest.mark.browser
def test_layers_switch_and_no_request_leaves(finished, page, browser):
    study, _ = finished
    open_page(browser, page, lang="en")
    about = read_page(page)[0]
    for layer in about["layers"]:
        browser.execute_script(f"document.querySelector('input[value={layer['id']}]').click()")
        depth = layer_name(study.layers[0])
        wanted = f"{layer['id']} {depth}"
        wait_for(
            browser, f"return document.getElementById('explorer').dataset.shown === '{wanted}'"
        )
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    events = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    # Others are of the browser's own first page.
    ours = [one for one in events if one["documentURL"].startswith(page.as_uri())]
    schemes = {urllib.parse.urlsplit(one["request"]["url"]).scheme for one in ours}
    assert "file" in schemes
    assert schemes <= {"file", "data", "blob"}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    label = browser.execute_script("return document.querySelector('.label')?.innerText ?? ''")
    assert label == study.label
    assert browser.execute_script("return document.body.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_a_click_answers_with_the_values_of_the_files(finished, page, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    study, _ = finished
    open_page(browser, page, lang="en", depth=layer_name(study.layers[-1]))
    ActionChains(browser).move_to_element(
        browser.find_element(By.CSS_SELECTOR, ".map")
    ).click().perform()
    wait_for(browser, "return document.querySelector('.explorer .chances')")
    link = wait_for(browser, "return location.hash.includes('cell=') && location.hash")
    longitude, latitude = map(float, urllib.parse.parse_qs(link[1:])["cell"][0].split(","))
    name = layer_name(study.layers[-1])

    def values(kind):
        with rasterio.open(map_files(study)[f"{kind}_{name}"]) as source:
            (x,), (y,) = transform("EPSG:4326", source.crs, [longitude], [latitude])
            return next(source.sample([(x, y)])) * source.scales[0]

    rows = browser.find_elements(By.CSS_SELECTOR, ".explorer .chances tbody tr")
    shown = [float(row.find_elements(By.TAG_NAME, "td")[0].text.rstrip(" %")) / 100 for row in rows]
    np.testing.assert_allclose(shown, values("class_probability"), rtol=0, atol=0.005)
    if study.has_storage:
        said = text_of(browser, ".explorer .chosen td:last-child")
        ice, low, high = re.search(r"([\d.]+)\s+10–90 %: ([\d.]+)–([\d.]+)", said).groups()
        expected = [values("ice_content")[0], *values("ice_content_range")[[0, 2]]]
        np.testing.assert_allclose([float(ice), float(low), float(high)], expected, atol=0.005)


@pytest.mark.browser
def test_a_site_is_shown_beside_the_map(finished, page, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    study, _ = finished
    longitude, latitude = places_of_sites()[0]
    open_page(browser, page, lang="en", view=f"{longitude},{latitude},3")
    if not study.has_storage:
        assert not browser.find_elements(By.CSS_SELECTOR, "[data-points]")
        assert "does not publish" in text_of(browser, ".layers")
        return
    chart = browser.find_element(By.CSS_SELECTOR, ".map")
    ActionChains(browser).move_to_element(chart).click().perform()
    wait_for(browser, "return document.querySelector('.explorer .profile svg[role=img]')")
    said = text_of(browser, ".side")
    assert "Borehole Mohe-1" in said
    assert "permafrost table 2.5 m" in said
    hole = site_points(study)[0]
    path = map_files(study)[f"ice_content_{layer_name(study.layers[0])}"]
    (expected,) = values_at(path, *([number] for number in hole["place"]))
    shown = re.search(r"2-3 m\s+ice-saturated.*?([\d.]+)\s+map: ([\d.]+)", said, re.DOTALL)
    assert [float(number) for number in shown.groups()] == pytest.approx([0.2, expected], abs=6e-4)
    assert "point=sites:Mohe-1" in browser.execute_script("return location.hash")
    answered = "return document.querySelector('.side').innerText.includes('{}')"
    # By its name, and by the keyboard in the middle of the map.
    Select(browser.find_element(By.CSS_SELECTOR, "[data-points=sites]")).select_by_value("Mohe-2")
    wait_for(browser, answered.format("Borehole Mohe-2"))
    Select(browser.find_element(By.CSS_SELECTOR, "[data-points=sites]")).select_by_value("Pit-3")
    wait_for(browser, answered.format("Test pit Pit-3"))
    open_page(browser, page, lang="zh", view=f"{longitude},{latitude},3")
    browser.find_element(By.CSS_SELECTOR, ".map").send_keys(Keys.ENTER)
    wait_for(browser, answered.format("钻孔 Mohe-1"))
    # Without its list, a click asks the cell alone.
    open_page(browser, page, lang="en", hide="sites", view=f"{longitude},{latitude},3")
    browser.find_element(By.CSS_SELECTOR, ".map").send_keys(Keys.ENTER)
    wait_for(browser, "return document.querySelector('.explorer .chances')")
    assert "Borehole" not in text_of(browser, ".side")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_an_area_sums_up_to_the_total_of_the_files(finished, page, browser):
    study, _ = finished
    geobox = reference_grid(study)
    west, south, east, north = geobox.boundingbox.bbox
    left, right = west + 0.31 * (east - west), west + 0.72 * (east - west)
    bottom, top = south + 0.43 * (north - south), south + 0.91 * (north - south)
    area = ";".join(
        f"{x:.0f},{y:.0f}" for x, y in ((left, bottom), (right, bottom), (right, top), (left, top))
    )
    open_page(browser, page, lang="en", area=area)
    eastings, northings = cell_centres(geobox)
    inside = np.outer(
        (northings > bottom) & (northings < top), (eastings > left) & (eastings < right)
    )
    areas = np.where(inside, cell_areas(geobox), 0)
    shown = text_of(browser, ".area strong").replace(",", "").removesuffix(" km²")
    assert float(shown) == pytest.approx(areas.sum(), rel=1e-3)
    if not study.has_storage:
        assert "km³" not in text_of(browser, ".area")
        return
    ground, total = study_ground(study), 0.0
    for path, layer in zip(layer_files(study, "ice_content"), study.depths, strict=True):
        with rasterio.open(path) as source:
            held = ground.holds(np.nan_to_num(source.read(1)), layer)
        total += (areas * held).sum() * np.ptp(layer) / 1000
    shown = browser.execute_script("return document.querySelector('[data-total]').dataset.total")
    assert float(shown) == pytest.approx(total, rel=1e-3)


@pytest.mark.browser
def test_the_address_holds_language_layer_and_cell(finished, page, browser):
    study, _ = finished
    open_page(browser, page, lang="zh", layer="trust", depth=layer_name(study.layers[-1]))
    assert "可信度" in text_of(browser, ".legend")
    assert browser.execute_script("return document.documentElement.lang") == "zh"
    browser.execute_script("document.querySelector('header button').click()")
    assert "Trust" in text_of(browser, ".legend")
    said = browser.execute_script("return location.hash")
    assert "lang=en" in said
    assert "layer=trust" in said
