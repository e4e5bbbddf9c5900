"""Random forests as numpy arrays: read in a tenth of a second, and nothing in a file is ever run.

A file is a zip of ``.npy`` arrays, as `numpy.savez` writes it; `numpy.load` opens it without
pickle. Of each forest it holds the nodes of all trees, as scikit-learn's trees keep them, one after
another. Every node is checked before a tree is made of it, because a damaged one would take the
process down in its first prediction.
"""

import io
import json
import zipfile
from collections.abc import Sequence

import numpy as np
from numba import njit
from sklearn.ensemble import RandomForestClassifier

from helpers.forest.trees import NODES, forest_of_trees, make_tree

_ARRAYS = ("params", "predictors", "classes", "counts", "nodes", "values")

_MAX_DEPTH = 10_000  # levels; no tree of real samples has so many


def forest_bytes(*forests: RandomForestClassifier) -> bytes:
    """Return the file of one or more forests."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number, forest in enumerate(forests):
            for name, array in zip(_ARRAYS, _arrays(forest), strict=True):
                # Opened by name a part is dated 1980: the same forest has the same bytes.
                with file.open(f"{number}_{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)
    return target.getvalue()


def _arrays(forest: RandomForestClassifier) -> tuple[np.ndarray, ...]:
    """Return what a file holds of a forest, in the order of `_ARRAYS`."""
    trees = [grown.tree_ for grown in forest.estimators_]
    states = [tree.__getstate__() for tree in trees]
    return (
        np.array(json.dumps(forest.get_params())),
        np.array(forest.n_features_in_),
        np.asarray(forest.classes_, np.int64),
        np.array([tree.node_count for tree in trees], np.int64),
        np.concatenate([state["nodes"] for state in states]),
        np.concatenate([state["values"] for state in states]),
    )


def read_forests(
    data: bytes, predictors: int, classes: Sequence[Sequence[int]]
) -> list[RandomForestClassifier]:
    """Return the forests of a file, which predict what was written to the last bit, with one job.

    Classes are all that each forest may have. ValueError if the file does not hold exactly such
    forests, of so many predictors, or they are not sound.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if len(file.files) != len(classes) * len(_ARRAYS):
            raise ValueError(f"not {len(classes)} forests")
        return [
            _checked([file[f"{number}_{name}"] for name in _ARRAYS], predictors, allowed)
            for number, allowed in enumerate(classes)
        ]


def _checked(
    arrays: list[np.ndarray], predictors: int, allowed: Sequence[int]
) -> RandomForestClassifier:
    """Return a sound forest of its arrays; otherwise raise ValueError."""
    params, number, classes, counts, nodes, values = arrays
    if number.shape != () or number != predictors or not len(classes):
        raise ValueError(f"no random forest of {predictors} predictors")
    # One class does no harm: the permafrost samples of a layer may all be of one type.
    if not set(classes.tolist()) <= set(allowed) or (np.diff(classes) <= 0).any():
        raise ValueError("unknown classes")
    fits = nodes.dtype == NODES and nodes.ndim == 1 and values.dtype == np.float64
    fits = fits and values.shape == (len(nodes), 1, len(classes))
    fits = fits and counts.dtype == np.int64 and counts.ndim == 1 and len(counts)
    # Sums of forged counts may overflow; none is larger than all nodes.
    fits = fits and ((counts > 0) & (counts <= len(nodes))).all() and counts.sum() == len(nodes)
    if not fits:
        raise ValueError("nodes and trees do not fit")
    sound = np.isfinite(nodes["threshold"]) & (nodes["feature"] < predictors)
    sound &= (nodes["feature"] >= 0) | (nodes["left_child"] == -1)
    sound &= (np.isfinite(values) & (values >= 0)).all(axis=(1, 2))
    sound &= values.sum(axis=(1, 2)) > 0
    trees = []
    for tree, (count, end) in enumerate(zip(counts, np.cumsum(counts), strict=True)):
        part = slice(end - count, end)
        depth = _depth(nodes["left_child"][part], nodes["right_child"][part])
        if depth < 0 or not sound[part].all():
            raise ValueError(f"tree {tree} is damaged")
        trees.append(make_tree(nodes[part], values[part], depth, predictors))
    # Threads run side by side over chunks of cells, and each adds up a whole forest in one order.
    params = {**json.loads(params.item()), "n_estimators": len(trees), "n_jobs": 1}
    return forest_of_trees(RandomForestClassifier(**params), predictors, trees, classes)


@njit(cache=True)
def _depth(left: np.ndarray, right: np.ndarray) -> int:
    """Return the depth of a tree; -1 if a prediction could leave it or not end, or it is too deep.

    scikit-learn sets memory aside by the depth, which is therefore counted, not read.
    """
    level = np.full(len(left), -1)
    level[0] = 0
    for node in range(len(left)):
        if level[node] < 0 or level[node] > _MAX_DEPTH:
            return -1
        if left[node] == -1 and right[node] == -1:
            continue
        # The left child is the next node: trees are walked that way (`helpers.forest.leaves`).
        if left[node] != node + 1:
            return -1
        for child in (left[node], right[node]):
            # After its parent and in the same tree, with no other parent: no circles.
            if child <= node or child >= len(left) or level[child] >= 0:
                return -1
            level[child] = level[node] + 1
    return level.max()
