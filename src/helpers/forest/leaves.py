"""What a grown forest says of many cells: means of leaves, and the most probable class.

scikit-learn walks a row of predictors down nodes of 64 bytes. Here they have 12, so that a tree
stays in the cache beside the rows: less than two thirds of the time. Sums are in its order, so
that results are equal to the last bit. Values are finite; trees of scikit-learn do the same with a
value that is missing only if they met one when they grew.
"""

from typing import Protocol

import numpy as np
from numba import njit
from sklearn.ensemble import RandomForestClassifier

_NODE = np.dtype([("threshold", "f4"), ("feature", "u4"), ("right", "u4")])

_ROWS = 8_000  # rows that go down the trees together: they stay in the cache

_TREES = 50  # after which is looked again which rows are decided


class Grown(Protocol):
    """A grown forest: scikit-learn's, or the same one in what else predicts with it."""

    classes_: np.ndarray
    n_classes_: int

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        """Return probabilities, shape (n, k), with columns in the order of `classes_`."""
        ...


def leaf_means(model: Grown, values: np.ndarray) -> np.ndarray:
    """Return what `predict_proba` does in one thread, equal to the last bit, shape (n, k).

    Columns are `model.classes_`. A forest that is not scikit-learn's predicts by itself.

    Examples
    --------
    >>> values, types = [[0], [0], [0], [0], [1]], [0, 0, 0, 1, 1]
    >>> tree = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(values, types)
    >>> leaf_means(tree, [[0], [1]]).tolist()  # a quarter of the samples at 0 is of class 1
    [[0.75, 0.25], [0.0, 1.0]]
    """
    values = np.ascontiguousarray(values, np.float32)
    if not isinstance(model, RandomForestClassifier):
        return model.predict_proba(values)
    nodes, roots, shares = _packed(model)
    total = np.zeros((len(values), model.n_classes_))
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        _add_leaves(nodes, roots, shares, values[rows], total[rows])
    total /= len(roots)
    return total


def most_probable(model: Grown, values: np.ndarray) -> np.ndarray:
    """Return the most probable class of each row, shape (n,): of equal ones the first.

    A class that leads by more than the trees that are left could give another one wins, so that
    these are not asked: a third of them in the default study.

    Examples
    --------
    >>> values = np.arange(20, dtype=np.float32)[:, np.newaxis]
    >>> model = RandomForestClassifier(99, random_state=1).fit(values, values[:, 0] > 9)
    >>> most_probable(model, values[[0, 19]]).tolist(), model.predict(values[[0, 19]]).tolist()
    ([False, True], [False, True])
    """
    values = np.ascontiguousarray(values, np.float32)
    if not isinstance(model, RandomForestClassifier):
        return model.classes_[model.predict_proba(values).argmax(axis=1)]
    best = np.zeros(len(values), int)
    if len(model.classes_) == 1:
        return model.classes_[best]
    nodes, roots, shares = _packed(model)
    most = shares.max()  # that a tree can give
    for start in range(0, len(values), _ROWS):
        block = values[start : start + _ROWS]
        rows = np.arange(start, start + len(block))
        total = np.zeros((len(block), model.n_classes_))
        for first in range(0, len(roots), _TREES):
            _add_leaves(nodes, roots[first : first + _TREES], shares, block, total)
            left = max(len(roots) - first - _TREES, 0)
            # Before the half of the trees no class can lead by the others.
            if 2 * left > len(roots):
                continue
            second, leader = np.partition(total, -2, axis=1)[:, -2:].T
            open_rows = leader - second < left * most + 1e-6  # sums are rounded
            # Of the means, of which two may be equal where their sums are not.
            best[rows] = (total / len(roots)).argmax(axis=1)
            block, rows, total = block[open_rows], rows[open_rows], total[open_rows]
    return model.classes_[best]


def _packed(model: RandomForestClassifier) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes of all trees, where each tree begins, and the shares of classes at each node.

    The left child of a node comes next, as scikit-learn grows trees. A leaf is its own right child,
    and no value is below NaN, its threshold. Other thresholds are the largest 32-bit number that is
    no larger than scikit-learn's: values have 32 bits, too.
    """
    trees = [grown.tree_ for grown in model.estimators_]
    ends = np.cumsum([tree.node_count for tree in trees])
    roots = ends - [tree.node_count for tree in trees]
    nodes = np.zeros(ends[-1], _NODE)
    for tree, root in zip(trees, roots, strict=True):
        part, own = nodes[root : root + tree.node_count], np.arange(tree.node_count)
        leaf = tree.children_left < 0
        if (tree.children_left != own + 1)[~leaf].any():
            raise ValueError("the nodes of a tree are not in the order of depth")
        part["right"] = root + np.where(leaf, own, tree.children_right)
        part["feature"] = np.where(leaf, 0, tree.feature)
        rounded = tree.threshold.astype(np.float32)
        less = np.nextafter(rounded, np.float32(-np.inf))
        part["threshold"] = np.where(rounded > tree.threshold, less, rounded)
        part["threshold"][leaf] = np.nan
    shares = np.concatenate([tree.value[:, 0] for tree in trees])
    return nodes, roots.astype(np.uint64), np.ascontiguousarray(shares)


@njit(cache=True, nogil=True)
def _add_leaves(
    nodes: np.ndarray, roots: np.ndarray, shares: np.ndarray, values: np.ndarray, total: np.ndarray
) -> None:
    """Add to the total of each row the shares of its leaf in each tree, one tree after the other.

    Places are unsigned: a signed one could count from the end, which takes time to tell.
    """
    for root in roots:
        for row in range(np.uint64(len(values))):
            place = root
            while True:
                node = nodes[place]
                if values[row, np.uint64(node.feature)] <= node.threshold:
                    place += np.uint64(1)
                elif place == node.right:
                    break
                else:
                    place = np.uint64(node.right)
            for column in range(np.uint64(shares.shape[1])):
                total[row, column] += shares[place, column]
