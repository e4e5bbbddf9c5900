"""Random forests as numpy arrays: written and read in a tenth of a second, and nothing in a file is ever run.

A file is a zip of ``.npy`` arrays, as `numpy.savez` writes it; `numpy.load` opens it without pickle. Of each forest it
holds the nodes of all trees, as scikit-learn's trees keep them, one after another. Every node is checked before a tree
is made of it, because a damaged one would take the process down in its first prediction.
"""

import io
import json
import zipfile
from copy import copy

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

_ARRAYS = ("params", "predictors", "classes", "counts", "nodes", "values")


_MAX_DEPTH = 10_000  # levels; no tree of real samples has so many


def write_forests(forests):
    """Return the file of one or more forests.

    Parameters
    ----------
    forests : sequence of sklearn.ensemble.RandomForestClassifier or sklearn.ensemble.RandomForestRegressor

    Returns
    -------
    bytes
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number, model in enumerate(forests):
            for name, array in zip(_ARRAYS, _arrays(model), strict=True):
                # Opened by name a part is dated 1980: the same forest has the same bytes.
                with file.open(f"{number}_{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)
    return target.getvalue()


def read_forests(data, predictors, kinds):
    """Return the forests of a file, checked.

    Parameters
    ----------
    data : bytes
    predictors : int
        How many every forest must have.
    kinds : sequence of (sequence of int or None)
        For each forest the classes that it may know, or None of a regression forest of shares (0 to 1).

    Returns
    -------
    list of sklearn.ensemble.RandomForestClassifier or sklearn.ensemble.RandomForestRegressor
        Each with ``n_jobs=1``, predicting what was written to the last bit.

    Raises
    ------
    ValueError
        The file does not hold exactly such forests, or one of them is not sound.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if len(file.files) != len(kinds) * len(_ARRAYS):
            raise ValueError(f"not {len(kinds)} forests")
        return [
            _checked([file[f"{number}_{name}"] for name in _ARRAYS], predictors, known)
            for number, known in enumerate(kinds)
        ]


def forest_of_trees(kind, params, predictors, classes, trees):
    """Return a forest of grown trees.

    Parameters
    ----------
    kind : type
        `sklearn.ensemble.RandomForestClassifier` or `sklearn.ensemble.RandomForestRegressor`.
    params : dict
        Its hyperparameters.
    predictors : int
    classes : numpy.ndarray of int or None
        None of a regression forest.
    trees : sequence of sklearn.tree._tree.Tree

    Returns
    -------
    RandomForestClassifier or RandomForestRegressor
    """
    model = kind(**params)
    model.estimator_ = clone(model.estimator)
    first = clone(model.estimator).set_params(**{name: getattr(model, name) for name in model.estimator_params})
    model.n_features_in_ = first.n_features_in_ = predictors
    model.n_outputs_ = first.n_outputs_ = 1
    if classes is not None:
        model.classes_, model.n_classes_ = classes, len(classes)
        # A forest's trees tell classes apart by their numbers.
        first.classes_, first.n_classes_ = np.arange(len(classes), dtype=float), len(classes)
    model.estimators_ = [copy(first) for _ in trees]
    for grown, tree in zip(model.estimators_, trees, strict=True):
        grown.tree_ = tree
    return model


def _arrays(model):
    """Return what a file holds of a forest, in the order of `_ARRAYS`."""
    trees = [grown.tree_ for grown in model.estimators_]
    states = [tree.__getstate__() for tree in trees]
    return (
        np.array(json.dumps(model.get_params())),
        np.array(model.n_features_in_),
        np.asarray(getattr(model, "classes_", ()), np.int64),
        np.array([tree.node_count for tree in trees], np.int64),
        np.concatenate([state["nodes"] for state in states]),
        np.concatenate([state["values"] for state in states]),
    )


def _checked(arrays, predictors, known):
    """Return a sound forest of its arrays; otherwise raise ValueError."""
    params, ours, classes, counts, nodes, values = arrays
    if ours.shape != () or ours != predictors or bool(len(classes)) != (known is not None):
        raise ValueError(f"no random forest of {predictors} predictors")
    # One class is no harm: the permafrost samples of a layer may all be of one type.
    if known is not None and (not set(classes.tolist()) <= set(known) or (np.diff(classes) <= 0).any()):
        raise ValueError("unknown classes")
    columns = max(1, len(classes))
    fits = counts.dtype == np.int64 and counts.ndim == 1 and len(counts) and (counts > 0).all()
    fits = fits and _fields(nodes.dtype) == _fields(NODE_DTYPE) and values.dtype == np.float64
    # Sums of forged counts may overflow; none is larger than all nodes.
    if not (fits and (counts <= len(nodes)).all() and counts.sum() == len(nodes)) or nodes.ndim != 1:
        raise ValueError("nodes and trees do not fit")
    if values.shape != (len(nodes), 1, columns):
        raise ValueError("nodes and classes do not fit")
    nodes = nodes.astype(NODE_DTYPE)  # in the file without gaps between nodes
    depths = _depths(counts, nodes, values[:, 0], predictors, voting=known is not None)
    sizes, trees, end = np.array([columns], np.intp), [], 0
    for count, depth in zip(counts.tolist(), depths.tolist(), strict=True):
        part, end = slice(end, end + count), end + count
        tree = Tree(predictors, sizes, 1)
        tree.__setstate__({"max_depth": depth, "node_count": count, "nodes": nodes[part], "values": values[part]})
        trees.append(tree)
    kind = RandomForestRegressor if known is None else RandomForestClassifier
    # Threads run side by side over chunks of cells, and each adds up a whole forest in one order.
    params = {**json.loads(params.item()), "n_estimators": len(trees), "n_jobs": 1}
    return forest_of_trees(kind, params, predictors, classes if known is not None else None, trees)


def _fields(dtype):
    return [(name, dtype[name]) for name in dtype.names or ()]


def _depths(counts, nodes, values, predictors, voting):
    """Return the depth of each tree; raise ValueError if a prediction could leave a tree or never end."""
    tree = np.repeat(np.arange(len(counts)), counts)
    offset = np.cumsum(counts) - counts
    number, size = np.arange(len(nodes)) - offset[tree], counts[tree]
    left, right = nodes["left_child"], nodes["right_child"]
    inner = left != -1
    # A child after its parent, in the same tree: no circles.
    sound = np.where(inner, (left > number) & (left < size) & (right > number) & (right < size), right == -1)
    feature = nodes["feature"]
    sound &= ~inner | ((feature >= 0) & (feature < predictors) & np.isfinite(nodes["threshold"]))
    sound &= np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1)
    sound &= (values.sum(axis=1) > 0) if voting else (values <= 1).all(axis=1)
    if not sound.all():
        raise ValueError(f"tree {tree[(~sound).argmax()]} is damaged")
    children = np.concatenate([(offset[tree] + side)[inner] for side in (left, right)])
    parents = np.bincount(children, minlength=len(nodes))
    if not np.array_equal(parents, number > 0):
        raise ValueError(f"tree {tree[(parents != (number > 0)).argmax()]} is damaged")
    # scikit-learn sets memory aside by the depth, which is counted here rather than believed.
    depths, level = np.zeros(len(counts), int), offset
    for depth in range(1, _MAX_DEPTH):
        level = level[inner[level]]
        if not len(level):
            return depths
        level = (offset[tree[level]] + np.stack([left[level], right[level]])).ravel()
        depths[tree[level]] = depth
    raise ValueError(f"a tree has more than {_MAX_DEPTH} levels")
