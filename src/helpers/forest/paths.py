"""Where the forests of a run are kept."""

from pathlib import Path

from helpers.core.study import Study


def model_path(study: Study, layer: str, which: str = "map") -> Path:
    """Return the file of a layer's forest; its card lies beside it, with the ending ``.json``.

    It is the forest of the map, of the training samples alone (train; the same where
    ``forest.map_fit`` is train), or of `helpers.forest.regression` (regression).
    """
    folder = study.results_dir / "models"
    if which == "regression":
        return folder / f"regression_{layer}.npz"
    apart = which == "train" and study.forest.map_fit == "all"
    return folder / f"forest_{layer}{'_train' if apart else ''}.npz"
