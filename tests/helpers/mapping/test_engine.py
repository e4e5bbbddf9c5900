"""What the map's forests predict with. The real nvForest is tried by ``benchmarks/gpu.py``."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from helpers.forest.models import class_probabilities
from helpers.mapping import engine
from helpers.mapping.files import MapError


def install(monkeypatch, gpu):
    """Put a stand-in for nvForest where it is imported from; return what it was asked for."""
    asked = []

    def load_from_sklearn(forest, device, precision):
        asked.append((device, precision))
        return SimpleNamespace(predict_proba=forest.predict_proba)

    class CUDARuntimeError(RuntimeError):
        pass

    def device_properties(number):
        if not gpu:
            raise CUDARuntimeError
        return {"name": gpu.encode()}

    runtime = {"CUDARuntimeError": CUDARuntimeError, "getDeviceProperties": device_properties}
    modules = {
        "nvforest": {"__version__": "26.10.0", "load_from_sklearn": load_from_sklearn},
        "cupy": {},
        "cupy.cuda": {"runtime": SimpleNamespace(**runtime)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return asked


@pytest.mark.parametrize(
    ("wanted", "gpu", "found"),
    [
        ("auto", "H200", "nvForest 26.10.0 on H200"),
        ("auto", "", "scikit-learn"),
        ("nvforest", "H200", "nvForest 26.10.0 on H200"),
        ("nvforest", "", "nvForest 26.10.0 on cores"),
        ("scikit-learn", "H200", "scikit-learn"),
    ],
)
def test_nvforest_is_taken_where_it_finds_a_gpu_or_is_asked_for(monkeypatch, wanted, gpu, found):
    install(monkeypatch, gpu)
    assert engine.engine(wanted).startswith(found)


def test_without_nvforest_it_is_scikit_learn_unless_nvforest_is_asked_for(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert engine.engine("auto").startswith("scikit-learn")
    with pytest.raises(MapError, match="not installed") as caught:
        engine.engine("nvforest")
    assert "compute.engine" in caught.value.remedy


@pytest.mark.parametrize("gpu", ["H200", ""])
def test_a_forest_predicts_the_same_on_either(monkeypatch, gpu):
    asked = install(monkeypatch, gpu)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 3)).astype(np.float32)
    for classes, calls in ([0, 2, 5], 1), ([4], 0):
        forest = RandomForestClassifier(5, random_state=0).fit(values, rng.choice(classes, 80))
        other = engine.converted(forest, engine.engine("nvforest"))
        np.testing.assert_allclose(
            class_probabilities(other, values), class_probabilities(forest, values), atol=1e-12
        )
        assert asked == [("gpu" if gpu else "cpu", "double")] * calls
        asked.clear()
