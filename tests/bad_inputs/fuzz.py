"""Random damage to what a user hands over: nothing may come of it but a result or our own error.

``python tests/bad_inputs/fuzz.py KIND EXAMPLES`` tries one kind. It is a process of its own, since
a damaged raster or forest could take down the process that reads it.
"""

import copy
import io
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import rasterio
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from sklearn.ensemble import RandomForestClassifier

from helpers.core.errors import CompendiumError
from helpers.core.study import Study
from helpers.core.warp import warp
from helpers.forest.file import forest_bytes, read_forests
from helpers.samples.tables import find_problems
from launcher.stages import stages_of

ROOT = Path(__file__).parents[2]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["../..", "/", "", "no", "1e999", "2023-13-45", "a: b", "~", ".nan"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
CELLS = st.text(max_size=12) | st.sampled_from(
    ["1e308", "-1", "nan", "inf", "０.５", "1,5", "2-3", "=A1", "45°30'", "", "\0", "1" * 400]
)


def places(values, above=()):
    """Return the keys of all settings of a study, nested ones as tuples."""
    found = []
    for key, value in values.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += places(value, (*above, key))
    return found


def fuzz_settings(folder):
    """Return a test: a study file with one to three settings replaced by anything."""
    whole = yaml.safe_load(Study.open(ROOT / "config/virtual.yaml").as_yaml())
    written = yaml.safe_load((ROOT / "config/quick.yaml").read_text(encoding="utf-8"))
    file = folder / "study.yaml"

    @given(st.lists(st.tuples(st.sampled_from(places(whole)), VALUES), min_size=1, max_size=3))
    def one(changes):
        study = copy.deepcopy(written)  # all else are defaults: a long file is read slowly
        for place, value in changes:
            inner = study
            for key in place[:-1]:
                inner = inner.setdefault(key, {}) if isinstance(inner.get(key, {}), dict) else {}
            inner[place[-1]] = value
        file.write_text(yaml.safe_dump(study, allow_unicode=True), encoding="utf-8")
        made = Study.open(file)
        made.as_yaml()
        stages_of(made)
        _ = made.results_dir, made.processed_dir, made.raw_dir, made.target_classes

    return one


def fuzz_yaml(folder):
    """Return a test: a study file with characters replaced anywhere."""
    text = (ROOT / "config/quick.yaml").read_text(encoding="utf-8")
    file = folder / "study.yaml"
    piece = st.tuples(st.integers(0, len(text)), st.integers(0, 4), st.text(max_size=4))

    @given(st.lists(piece, min_size=1, max_size=4))
    def one(changes):
        damaged = text
        for start, length, new in changes:
            damaged = damaged[:start] + new + damaged[start + length :]
        file.write_bytes(damaged.encode("utf-8", "surrogatepass"))
        stages_of(Study.open(file))

    return one


def fuzz_tables(folder):
    """Return a test: field tables with cells, headers or bytes replaced."""
    tables = {
        kind: (ROOT / "data/samples" / f"{kind}.csv").read_bytes().decode("utf-8-sig")
        for kind in ("sites", "intervals")
    }
    samples = {kind: str(folder / f"{kind}.csv") for kind in tables}
    study = Study.open(ROOT / "config/virtual.yaml")
    study = study.changed({f"samples.{kind}": path for kind, path in samples.items()})
    place = st.tuples(st.sampled_from(list(tables)), st.integers(0, 40), st.integers(0, 20), CELLS)
    byte = st.tuples(st.sampled_from(list(tables)), st.integers(0, 2000), st.binary(max_size=3))

    @given(st.lists(place, min_size=1, max_size=5), st.lists(byte, max_size=2))
    def one(cells, bytes_):
        for kind, text in tables.items():
            lines = [line.split(",") for line in text.splitlines()]
            for of, row, column, value in cells:
                if of == kind:
                    line = lines[row % len(lines)]
                    line[column % len(line)] = value
            data = "\n".join(",".join(line) for line in lines).encode("utf-8", "surrogatepass")
            for of, start, new in bytes_:
                if of == kind:
                    data = data[:start] + new + data[start + len(new) :]
            Path(samples[kind]).write_bytes(data)
        find_problems(study)

    return one


def fuzz_rasters(folder):
    """Return a test: a GeoTIFF with bytes of its header replaced, read onto a grid."""
    file = folder / "own.tif"
    geobox = GeoBox.from_bbox(
        (500_000, 5_500_000, 510_000, 5_510_000), "epsg:32651", resolution=1000
    )
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": 12, "height": 12, "count": 2, "dtype": "float32"}
    profile |= {"crs": "epsg:32651", "transform": geobox.transform, "nodata": -9999}
    with rasterio.open(file, "w", **profile) as target:
        target.write(rng.normal(size=(2, 12, 12)).astype(np.float32))
    sound = file.read_bytes()
    head = sound.find(b"\0" * 64) if b"\0" * 64 in sound[:800] else 800
    head = max(head, 400)
    change = st.tuples(st.integers(0, head), st.integers(0, 255))

    @given(st.lists(change, min_size=1, max_size=6), st.integers(0, len(sound)))
    def one(changes, end):
        data = bytearray(sound)
        for place, value in changes:
            data[place] = value
        file.write_bytes(bytes(data[: end if end > 100 else len(data)]))
        warp(file, geobox, "bilinear")

    return one


def fuzz_models(folder):
    """Return a test: a forest with bytes of its arrays replaced, read and asked to predict."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)).astype(np.float32)
    forest = RandomForestClassifier(4, random_state=0, n_jobs=1)
    forest.fit(values, rng.integers(0, 3, 60))
    with zipfile.ZipFile(io.BytesIO(forest_bytes(forest))) as file:
        sound = {name: file.read(name) for name in file.namelist()}
    change = st.tuples(st.sampled_from(sorted(sound)), st.integers(0, 10**6), st.integers(0, 255))

    @given(st.lists(change, min_size=1, max_size=4))
    def one(changes):
        parts = {name: bytearray(data) for name, data in sound.items()}
        for name, place, value in changes:
            parts[name][place % len(parts[name])] = value
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as file:
            for name, part in parts.items():
                file.writestr(name, bytes(part))
        try:
            (read,) = read_forests(data.getvalue(), 3, [[0, 1, 2]])
        except Exception:  # as `helpers.forest.cards` takes it: it is no model
            return
        assert np.isfinite(read.predict_proba(values)).all()

    return one


KINDS = {
    "settings": fuzz_settings,
    "yaml": fuzz_yaml,
    "tables": fuzz_tables,
    "rasters": fuzz_rasters,
    "models": fuzz_models,
}


def main(kind, examples):
    """Try a kind; another error than our own is raised with the example that led to it."""
    with tempfile.TemporaryDirectory() as folder:
        test = KINDS[kind](Path(folder))
        inner = test.hypothesis.inner_test

        def allowed(*arguments, **named):
            try:
                inner(*arguments, **named)
            except CompendiumError as error:
                if not (str(error) and error.remedy):
                    raise AssertionError("an error without a message or remedy") from error

        test.hypothesis.inner_test = allowed
        checks = list(HealthCheck)
        settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)(
            test
        )()
    print(f"{kind}: {examples} examples, nothing but results and our own errors")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
