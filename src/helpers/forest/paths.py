"""Where the forests of a run are kept."""

from pathlib import Path
from typing import Literal

from helpers.core.study import Study


def model_path(
    study: Study, layer: str, which: str = "map", kind: Literal["forest", "ice"] = "forest"
) -> Path:
    """Return the file of a layer's model; its card lies beside it, with the ending ``.json``.

    It is that of the map, or of the training samples alone (train; the same where
    ``forest.map_fit`` is train): the balanced forest of classes, or the hurdle model of ice.
    """
    folder = study.results_dir / "models"
    apart = which == "train" and study.forest.map_fit == "all"
    return folder / f"{kind}_{layer}{'_train' if apart else ''}.npz"
