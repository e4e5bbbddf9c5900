"""Files that are whole or not there."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.core import files


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "old")

    def fail():
        with files.write_aside(path) as part:
            part.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_json_and_csv_are_whole_and_json_has_no_nan(tmp_path):
    path = tmp_path / "tables" / "a.json"
    files.write_json(path, {"a": np.float32(0.5), "b": [np.nan, np.int64(3)], "c": np.eye(2)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [None, 3], "c": [[1, 0], [0, 1]]}
    table = pd.DataFrame({"layer": ["2-3m"], "kappa": [0.5]})
    files.write_table(tmp_path / "tables" / "a.csv", table)
    assert pd.read_csv(tmp_path / "tables" / "a.csv").equals(table)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.csv", "a.json"]


def test_words_and_numbers_of_yaml_are_those_of_1_2(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "{no: off, yes: on, n: 010, e: 1e-3, f: -.5, t: true, i: .inf, d: 2024-06-18, s: '1', z: ~}"
    )
    found = files.read_yaml(path)
    assert found.pop("d").isoformat() == "2024-06-18"
    expected = {"no": "off", "yes": "on", "n": 10, "e": 1e-3, "f": -0.5, "t": True}
    assert found == expected | {"i": np.inf, "s": "1", "z": None}
    assert isinstance(found["n"], int)


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")))
words |= st.sampled_from(["no", "on", "1e-3", "010", "1_000", "0x10", "12:30", "~", ".5", "true"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
        lambda inner: st.lists(inner) | st.dictionaries(words, inner),
    )
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_as_yaml_is_read_again(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(files.to_yaml(value), encoding="utf-8")
    assert files.read_yaml(path) == value


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "s:\n  a: 1\n  b: {}\n  a: 2\n"])
def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError, match=r"`a` stands twice, in lines \d and \d"):
        files.read_yaml(path)
