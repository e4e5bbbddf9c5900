"""The record of the quick study: whole, valid, and giving away no more than it may."""

import csv
import hashlib
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import yaml
from conftest import ROOT
from project import environment
from pystac.validation import stac_validator

import helpers.figures
from helpers.core.files import read_json
from helpers.core.study import Study
from helpers.record.folder import _aside, write_record
from helpers.record.headline import RecordError
from helpers.record.stac import EXTENSIONS

KINDS = ("exact", "rounded", "none")

_MAKE = """
import shutil, sys
from launcher import record
from helpers.core.study import Study
whole = Study.open("config/quick.yaml")
people = [
    {"family_name": "Li", "given_name": "Hua", "name_zh": "李华", "orcid": "0000-0002-1825-0097",
     "affiliation": "An institute", "affiliation_zh": "某研究所"},
    {"family_name": "An institute"},
]
funding = [{"funder": "A fund", "funder_zh": "某基金", "number": "42001"}]
Study.open = lambda path: path
for kind in sys.argv[1:]:
    settings = {"publish_coordinates": kind, "authors": people, "funding": funding}
    settings |= {"keywords": ["Xing'an"], "keywords_zh": ["兴安"], "abstract": "More."}
    study = whole.changed({f"record.{key}": value for key, value in settings.items()})
    record.record_study(study)
    folder = study.results_dir / "record"
    shutil.move(folder, folder.with_name(f"record-{kind}"))
"""


@pytest.fixture(scope="module")
def records(quick, tmp_path_factory):
    """The folders of three records of the quick study, by what they tell of positions."""
    project = tmp_path_factory.mktemp("record") / "copy"
    shutil.copytree(quick, project, symlinks=True)
    command = [sys.executable, "-c", _MAKE, *KINDS]
    told = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=project, env=environment(project), **told)
    assert done.returncode == 0, done.stderr[-2000:]
    return {kind: project / f"results/quick/main/record-{kind}" for kind in KINDS}


@pytest.fixture
def record(records):
    return records["none"]


def test_a_study_without_authors_is_refused():
    study = Study.open("config/yukon.yaml")
    with pytest.raises(RecordError, match="names no authors"):
        write_record(study, [], datetime.now(UTC))


def write_half(folder):
    with _aside(folder) as part:
        (part / "a").write_text("half")
        raise KeyError


def test_a_record_is_whole_or_the_old_one(tmp_path):
    folder = tmp_path / "record"
    with _aside(folder) as part:
        (part / "a").write_text("first")
    with pytest.raises(KeyError):
        write_half(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert (folder / "a").read_text() == "first"
    # Killed after the old one was put aside.
    folder.rename(tmp_path / ".record.old")
    with pytest.raises(KeyError):
        write_half(folder)
    assert (folder / "a").read_text() == "first"


def test_every_file_has_its_checksum_and_its_place_in_the_crate(record):
    lines = (record / "checksums.sha256").read_text().splitlines()
    named = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.relative_to(record).as_posix() for p in record.rglob("*") if p.is_file()}
    assert set(named) == files - {"checksums.sha256"}
    for name, digest in named.items():
        assert hashlib.sha256((record / name).read_bytes()).hexdigest() == digest
    graph = {one["@id"]: one for one in read_json(record / "ro-crate-metadata.json")["@graph"]}
    assert files - set(graph) == {"checksums.sha256"}
    assert graph["ro-crate-metadata.json"]["conformsTo"]["@id"] == "https://w3id.org/ro/crate/1.2"
    actions = [one for one in graph.values() if one["@type"] == "CreateAction"]
    made = [result["@id"] for action in actions for result in action["result"]]
    assert len(made) == len(set(made))
    results = {name for name in files if not name.startswith("notebooks/")}
    assert set(made) == results - {"checksums.sha256", "ro-crate-metadata.json"}
    storage = graph["#05-storage"]
    assert {"@id": "tables/storage.csv"} in storage["result"]
    assert storage["instrument"]["@id"] == "notebooks/05-storage.ipynb"
    assert {"@id": "maps/ice_content_2-3m.tif"} in storage["object"]
    for action in actions:
        ends = action["startTime"], action["endTime"]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", end) for end in ends)


def test_ice_of_the_layers_adds_up_to_the_storage(record):
    layers = sorted((record / "maps").glob("ground_ice_*.tif"))
    assert len(layers) == 3
    with rasterio.open(record / "maps/ice_storage.tif") as source:
        whole = source.read(1)
        place = source.crs, source.transform, source.shape
    parts = []
    for path in layers:
        with rasterio.open(path) as source:
            assert (source.crs, source.transform, source.shape) == place
            assert source.units == ("m",)
            parts.append(source.read(1))
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5, atol=1e-6)


def test_rasters_are_cloud_optimised_and_have_a_legend(record):
    from rio_cogeo.cogeo import cog_validate

    rasters = sorted((record / "maps").glob("*.tif"))
    own = sorted((record.parent / "maps").glob("*.tif"))
    layers = [f"ground_ice_{layer}.tif" for layer in ("2-3m", "3-5m", "5-10m")]
    assert {path.name for path in rasters} == {*(path.name for path in own), *layers}
    for path in rasters:
        assert path.with_suffix(".qml").read_text().startswith("<!DOCTYPE qgis")
        assert cog_validate(path)[0], path.name


def test_the_collection_is_valid(record, monkeypatch):
    """By pystac's own validation; whatever schema is not here would be asked of a network."""
    validator = stac_validator.JsonSchemaSTACValidator()
    for uri in EXTENSIONS:
        name, version = uri.split("/")[3:5]
        validator.schema_cache[uri] = read_json(ROOT / f"tests/schemas/{name}_{version}.json")
    monkeypatch.setattr(pystac.validation.RegisteredValidator, "_validator", validator)
    collection = pystac.Collection.from_file(record / "stac/collection.json")
    assert collection.validate_all() == 4
    items = {item.id: item for item in collection.get_items()}
    assert set(items) == {"2-3m", "3-5m", "5-10m", "all-layers"}
    hrefs = {asset.get_absolute_href() for one in items.values() for asset in one.assets.values()}
    assert {Path(href).resolve() for href in hrefs} == set((record / "maps").glob("*.tif"))
    assert "SIMULATED" in collection.description
    (band,) = items["2-3m"].assets["ice_type"].extra_fields["bands"]
    assert band["classification:classes"][0]["title"] == "no permafrost"
    broken = items["2-3m"].clone()
    broken.properties["proj:shape"] = [1]
    with pytest.raises(pystac.STACValidationError):
        broken.validate()


def datacite_schema():
    """Return the schema of DataCite 4.5 with what 4.6 added to its lists."""
    schema = read_json(ROOT / "tests/schemas/datacite-v4.5.json")
    added = {
        "contributorType": ["Translator"],
        "dateType": ["Coverage"],
        "relatedIdentifierType": ["CSTR", "RRID"],
        "relationType": ["HasTranslation", "IsTranslationOf"],
        "resourceTypeGeneral": ["Award", "Project"],
    }
    for name, words in added.items():
        schema["definitions"][name]["enum"] += words
    return schema


def test_datacite_and_citation(record):
    metadata = read_json(record / "datacite.json")
    jsonschema.Draft201909Validator(datacite_schema()).validate(metadata)
    assert [one["dateType"] for one in metadata["dates"]] == ["Created", "Coverage"]
    creators = metadata["creators"]
    assert creators[0]["nameIdentifiers"][0]["nameIdentifier"].endswith("0000-0002-1825-0097")
    assert [one["nameType"] for one in creators] == ["Personal", "Organizational"]
    assert "SIMULATED" in metadata["titles"][0]["title"]
    cited = yaml.safe_load((record / "CITATION.cff").read_text())
    assert cited["authors"][0]["given-names"] == "Hua"
    assert cited["type"] == "dataset"


def test_texts_have_the_headline_numbers_in_both_languages(record):
    numbers = read_json(record / "headline.json")
    total = numbers["total"]
    form = read_json(record / "form.json")
    pages = [(record / name).read_text() for name in ("README.md", "README.zh.md")]
    assert f"hold {total['ice_km3']:.0f} km3 of ice" in pages[0]
    assert f"总量为 {total['ice_km3']:.0f} km³" in pages[1]
    assert f"总量为 {total['ice_km3']:.0f} km³" in form["ds_abstract"]
    assert f"{total['ice_km3']:.0f} km3" in form["i18n"]["en"]["ds_abstract"]
    for layer, parts in numbers["layers"].items():
        area = f"{parts['maps']['expected']['permafrost_km2']:.0f}"
        title = f"{layer[:-1]} m"
        assert f"{title}: permafrost {area} km2" in pages[0]
        assert f"{title}：多年冻土面积 {area} km²" in pages[1]
    for text in (*pages, form["ds_abstract"], form["i18n"]["en"]["ds_abstract"]):
        assert "SIMULATED" in text
    pasted = {one: (record / f"form.{one}.txt").read_text() for one in ("en", "zh")}
    assert "[ds_abstract]\nSIMULATED: boreholes" in pasted["en"]
    assert "李华; Li, Hua; 0000-0002-1825-0097; 某研究所" in pasted["zh"]
    assert "某基金; 42001" in pasted["zh"]


def test_the_form_has_the_fields_of_the_guide_in_their_order(record):
    """The guide's table is what the data centre asks for."""
    guide = (ROOT / "docs/record.md").read_text(encoding="utf-8").partition("form's fields")[2]
    named = re.findall(r"^\| `(\w+)` \|", guide, re.M)
    assert list(read_json(record / "form.json")) == named


def test_every_band_and_column_is_explained(record):
    with open(record / "data-dictionary.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    known = {(row["file"], row["name"]) for row in rows}
    for path in record.rglob("*.csv"):
        name = path.relative_to(record).as_posix()
        if name != "data-dictionary.csv":
            assert {(name, column) for column in pd.read_csv(path, nrows=0)} <= known
    assert {row["file"] for row in rows if row["file"].startswith("maps/")} == {
        f"maps/{path.name}" for path in record.glob("maps/*.tif")
    }
    for row in rows:
        assert row["meaning"], row
        assert row["meaning_zh"], row
        assert row["meaning"] != "a column of the study's own tables", row


# Positions of samples -----------------------------------------------------------------------------


def texts(folder):
    """Give the lines of all that can be read in a record, streams of PDF files unpacked."""
    for path in folder.rglob("*"):
        if path.suffix == ".pdf":
            for packed in re.findall(rb"stream\r?\n(.*?)endstream", path.read_bytes(), re.S):
                try:
                    text = zlib.decompress(packed.strip(b"\r\n"))
                except zlib.error:
                    text = packed
                yield from ((path, line) for line in text.decode("latin-1").splitlines())
        elif path.suffix == ".tif":
            with rasterio.open(path) as source:
                tags = [source.tags(), *(source.tags(band) for band in source.indexes)]
            yield path, json.dumps(tags)
        elif path.is_file() and path.suffix != ".png":
            yield from ((path, line) for line in path.read_text("utf-8").splitlines())


def positions_told(folder, sites, digits, near):
    """Return the lines that have both coordinates of a site, with more digits than allowed."""
    found = []
    first, second = (sites[name].to_numpy() for name in sites)
    for path, line in texts(folder):
        numbers = re.findall(r"-?\d+\.\d+", line)
        fine = np.array([float(n) for n in numbers if len(n.partition(".")[2]) > digits])
        fine = fine[(fine > min(first.min(), second.min()) - 1)]
        if len(fine) > 1 and len(fine) < 5000:
            one = np.abs(fine[:, np.newaxis] - first) < near
            other = np.abs(fine[:, np.newaxis] - second) < near
            if (one.any(axis=0) & other.any(axis=0)).any():
                found.append(f"{path.name}: {line[:80]}")
    return found


@pytest.mark.parametrize(("kind", "digits"), [("exact", 0), ("rounded", 1), ("none", 0)])
def test_no_file_tells_more_of_positions_than_it_may(records, kind, digits):
    folder = records[kind]
    results = folder.parent
    fates = pd.read_csv(results / "samples/fates.csv")[["longitude", "latitude"]]
    places = pd.read_csv(results / "samples/samples.csv")[["easting", "northing"]]
    told = positions_told(folder, fates, digits, 0.002)
    told += positions_told(folder, places, 0, 20.0)
    assert bool(told) == (kind == "exact"), told[:5]
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {
        ".tif", ".qml", ".xml", ".csv", ".json", ".yaml", ".md", ".txt", ".cff", ".ipynb", ".pdf",
        ".png", ".sha256",
    }  # fmt: skip


def test_rounded_positions_have_one_digit(records):
    table = pd.read_csv(records["rounded"] / "tables/samples.csv", dtype=str)
    for name in ("longitude", "latitude"):
        assert table[name].str.fullmatch(r"\d+\.\d").all()
    assert not {"easting", "northing", "elevation"} & set(table)


def test_names_and_predictors_of_hidden_sites_are_left_out(record):
    own = pd.read_csv(record.parent / "samples/samples.csv")
    table = pd.read_csv(record / "tables/samples.csv")
    assert len(table) == len(own)
    assert table["site_id"].nunique() == own["site_id"].nunique()
    assert not set(table["site_id"].astype(str)) & set(own["site_id"])
    assert not {"longitude", "latitude", "easting", "elevation", "ndvi"} & set(table)
    assert not (record / "tables/residuals.csv").exists()
    # The new order tells nothing of the old one.
    order = own.drop_duplicates("site_id")["ice_content"].to_numpy()
    assert not np.array_equal(table.drop_duplicates("site_id")["ice_content"].to_numpy(), order)


def test_dissimilarity_does_not_mark_the_samples(records):
    """As it is, it is 0 in the cells of the training samples and hardly elsewhere."""
    for kind in ("exact", "none"):
        with rasterio.open(records[kind] / "maps/dissimilarity_index_2-3m.tif") as source:
            values = source.read()
        for band in values:
            valid = band[np.isfinite(band)]
            lowest = (valid == valid.min()).mean()
            assert lowest > 0.09 if kind == "none" else lowest < 0.05


def test_figures_with_positions_are_named(records):
    """Whoever writes a figure with positions of samples adds its name to SHOW_SITES."""
    showing = set()
    for info in pkgutil.iter_modules(helpers.figures.__path__):
        module = importlib.import_module(f"helpers.figures.{info.name}")
        functions = (one for _, one in inspect.getmembers(module, inspect.isfunction))
        own = [one for one in functions if one.__module__ == module.__name__]
        showing |= {one.__name__ for one in own if '"easting"' in inspect.getsource(one)}
    # Of these, figure_functions calls two samples and folds; a notebook alone shows the third.
    assert showing == {"study_area", "fold_maps", "next_holes"}
    assert helpers.figures.SHOW_SITES == ("samples", "folds")
    for name in helpers.figures.SHOW_SITES:
        assert list((records["exact"] / "figures").glob(f"{name}*"))
        assert not list((records["none"] / "figures").glob(f"{name}*"))
