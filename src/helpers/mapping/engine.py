"""What forests of a map predict with: scikit-learn on the cores, or nvForest on a GPU.

An H200 takes a hundredth of the time of 16 cores. nvForest is an optional extra (``pip install
.[gpu]``) that knows forests of scikit-learn, in double precision; no class of a map depends on
which of both it is. This module is the only one that knows of it.
"""

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import sklearn

from helpers.forest.hurdle import Hurdle
from helpers.forest.leaves import Grown
from helpers.mapping.files import MapError


@dataclass(frozen=True, eq=False)
class _Converted:
    """A grown forest that nvForest has taken over; threads take turns, since there is one GPU."""

    classes_: np.ndarray
    n_classes_: int
    model: Any
    _turn: Lock = field(default_factory=Lock)

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        with self._turn:
            return np.asarray(self.model.predict_proba(values), float)


def engine(wanted: str) -> str:
    """Return what forests predict with on this machine: the engine's name, version and device.

    `wanted` is ``compute.engine``: ``auto`` is nvForest where it is installed and finds a GPU. On
    cores it is slower than scikit-learn.

    Raises
    ------
    MapError
        If nvForest is asked for and not installed.
    """
    installed = find_spec("nvforest") is not None
    if wanted == "nvforest" and not installed:
        raise MapError(
            "`compute.engine` is nvforest, which is not installed.",
            "install it (pip install .[gpu]), or set compute.engine to auto",
        )
    gpu = _gpu() if installed and wanted != "scikit-learn" else ""
    if gpu or wanted == "nvforest":
        import nvforest

        return f"nvForest {nvforest.__version__} on {gpu or 'cores'}"
    return f"scikit-learn {sklearn.__version__}"


def _gpu() -> str:
    """Return the name of the first GPU, or nothing if there is none that works."""
    try:
        from cupy.cuda import runtime  # comes with nvForest
    except ImportError:  # a library of CUDA is missing
        return ""
    try:
        return runtime.getDeviceProperties(0)["name"].decode()
    except runtime.CUDARuntimeError:  # no GPU, no driver, or one that is too old
        return ""


def on_engine(wanted: str, forest: Grown, hurdle: Hurdle) -> tuple[Grown, Hurdle]:
    """Return a layer's models, grown by scikit-learn, as the `engine` has them."""
    name = engine(wanted)
    forests = [converted(one, name) for one in hurdle.forests]
    return converted(forest, name), replace(hurdle, forests=forests)


def converted(forest: Grown, name: str) -> Grown:
    """Return a forest of scikit-learn as the engine of this name has it (`engine`)."""
    # A forest of one class says 1 everywhere, and nvForest takes none.
    if name.startswith("scikit-learn") or forest.n_classes_ == 1:
        return forest
    import nvforest

    device = "cpu" if name.endswith("cores") else "gpu"
    model = nvforest.load_from_sklearn(forest, device=device, precision="double")
    return _Converted(forest.classes_, forest.n_classes_, model)
