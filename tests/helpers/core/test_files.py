"""Files that are whole or not there."""

import json

import numpy as np
import pandas as pd
import pytest

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
