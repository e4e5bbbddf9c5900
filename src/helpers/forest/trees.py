"""Trees: grown without scikit-learn's checks, read at any depth, and put together as forests.

It is the one module with private names of scikit-learn, which were checked on version 1.9. With any
other version `grow` falls back on the public `fit`. `Tree` and `NODE_DTYPE` are the public type and
state of a fitted `tree_`, under their private names.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import numpy as np
import sklearn
from numba import njit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._classes import CRITERIA_CLF, CRITERIA_REG
from sklearn.tree._splitter import BestSplitter
from sklearn.tree._tree import NODE_DTYPE, DepthFirstTreeBuilder, Tree

NODES = np.promote_types(NODE_DTYPE, NODE_DTYPE)
"""Type of a tree's nodes, without gaps between them."""

_LIGHT_VERSION = "1.9."  # of scikit-learn, whose trees `_LightTree` grows

_LIGHT_PARAMS = ("n_estimators", "max_depth", "min_samples_split", "min_samples_leaf")
_LIGHT_PARAMS += ("max_features", "random_state", "n_jobs")

_UNLIMITED = np.iinfo(np.int32).max


Forest = TypeVar("Forest", RandomForestClassifier, RandomForestRegressor)


def grow(estimator: Forest, values: np.ndarray, target: np.ndarray) -> Forest:
    """Fit a copy of a forest: the trees of its own `fit`, in a third of the time where possible.

    Values are finite 32-bit floats, shape (n, predictors); the target is classes or numbers, shape
    (n,).
    """
    light = _light(estimator)
    if light is None:
        return clone(estimator).fit(values, target)
    light.fit(values, target)
    trees = [grown.tree_ for grown in light.estimators_]
    return forest_of_trees(
        clone(estimator), values.shape[1], trees, getattr(light, "classes_", None)
    )


def make_tree(nodes: np.ndarray, values: np.ndarray, depth: int, predictors: int) -> Tree:
    """Return a tree of its nodes, their `values` of shape (nodes, 1, classes), and its depth."""
    tree = Tree(predictors, np.array([values.shape[2]], np.intp), 1)
    state = {"max_depth": depth, "node_count": len(nodes), "values": values}
    tree.__setstate__(state | {"nodes": nodes.astype(NODE_DTYPE)})
    return tree


def with_leaves(
    model: RandomForestRegressor, values: np.ndarray, place: np.ndarray
) -> RandomForestClassifier:
    """Return a forest that predicts how many samples of a grown one's leaves are in each bin.

    Samples are those that it was grown from: their predictors, shape (n, predictors), and bins,
    (n,), without gaps.
    """
    kinds = np.eye(place.max() + 1)[place]
    trees = []
    for grown in model.estimators_:
        tree = grown.tree_
        shares = np.zeros((tree.node_count, kinds.shape[1]))
        np.add.at(shares, tree.apply(values), kinds)
        total = shares.sum(axis=1, keepdims=True)
        # What is no leaf is never read; a reader of files asks for shares all the same.
        shares = np.where(total > 0, shares / np.maximum(total, 1), 1 / kinds.shape[1])
        nodes = tree.__getstate__()["nodes"].astype(NODES)
        shares = shares[:, np.newaxis]
        trees.append(make_tree(nodes, shares, tree.max_depth, values.shape[1]))
    params = {"n_estimators": len(trees), "random_state": model.random_state, "n_jobs": 1}
    forest = RandomForestClassifier(**params)
    return forest_of_trees(forest, values.shape[1], trees, np.arange(kinds.shape[1]))


def forest_of_trees(
    model: Forest,
    predictors: int,
    trees: Sequence[Tree],
    classes: np.ndarray | None,
) -> Forest:
    """Give grown trees to a forest that has none, with its number of predictors and its classes.

    A regression has no classes.
    """
    model.estimator_ = clone(model.estimator)
    params = {name: getattr(model, name) for name in model.estimator_params}
    first = clone(model.estimator).set_params(**params)
    model.n_features_in_ = first.n_features_in_ = predictors
    model.n_outputs_ = first.n_outputs_ = 1
    if classes is not None:
        model.classes_ = classes
        # The trees of a forest number its classes.
        first.classes_ = np.arange(len(classes), dtype=float)
        model.n_classes_ = first.n_classes_ = len(classes)
    model.estimators_ = [copy(first) for _ in trees]
    for grown, tree in zip(model.estimators_, trees, strict=True):
        grown.tree_ = tree
    return model


def _light(estimator: Forest) -> "_LightForest | _LightRegression | None":
    """Return a forest that grows light trees, or none: hyperparameters they lack have defaults."""
    params = estimator.get_params()
    classifies = isinstance(estimator, RandomForestClassifier)
    defaults = type(estimator)().get_params()
    known = (*_LIGHT_PARAMS, *(("criterion", "class_weight") if classifies else ()))
    fits = (
        sklearn.__version__.startswith(_LIGHT_VERSION)
        and defaults | {name: params[name] for name in known} == params
        and isinstance(params["min_samples_leaf"], int)
        and isinstance(params["min_samples_split"], int)
        and params["max_features"] is not None
    )
    return (_LightForest if classifies else _LightRegression)(**params) if fits else None


class _Light:
    """The same forest in less than half of the time.

    On some hundreds of samples scikit-learn spends most of a tree's time on copying and checking
    its parameters. Draws, criterion, splitter and builder are scikit-learn's own.
    """

    def _make_estimator(self, append: bool, random_state: np.random.RandomState) -> Any:
        if not hasattr(self, "_first"):
            params = {name: getattr(self, name) for name in self.estimator_params}
            self._first = self._tree(**params)
            self._first._generator = np.random.RandomState()
        tree = copy(self._first)
        tree.random_state = random_state.randint(np.iinfo(np.int32).max)
        return tree


class _LightTree:
    """A tree that trusts its forest: classes are numbers, values finite.

    Its `random_state` is one generator for all copies, seeded anew whenever it is asked for: that
    costs a tenth of a new generator, and draws the same.
    """

    @property
    def random_state(self) -> np.random.RandomState:
        self._generator.seed(self._seed)
        return self._generator

    @random_state.setter
    def random_state(self, seed: int | None) -> None:
        self._seed = seed

    def _fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any, **_: Any) -> "_LightTree":
        predictors = X.shape[1]
        features = self.max_features
        if features in ("sqrt", "log2"):
            features = max(1, int(getattr(np, features)(predictors)))
        elif isinstance(features, float):
            features = max(1, int(features * predictors))
        classes, criterion = self._target(y)
        leaf = self.min_samples_leaf
        splitter = BestSplitter(criterion, features, leaf, 0.0, self.random_state, None)
        depth = _UNLIMITED if self.max_depth is None else self.max_depth
        builder = DepthFirstTreeBuilder(splitter, self.min_samples_split, leaf, 0.0, depth, 0.0)
        self.tree_ = Tree(predictors, classes, 1)
        builder.build(self.tree_, X, y, np.asarray(sample_weight, float), None)
        return self


class _ClassTree(_LightTree, DecisionTreeClassifier):
    def _target(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        classes = np.array([int(y.max()) + 1], np.intp)
        return classes, CRITERIA_CLF[self.criterion](1, classes)


class _NumberTree(_LightTree, DecisionTreeRegressor):
    def _target(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        return np.array([1], np.intp), CRITERIA_REG[self.criterion](1, len(y))


class _LightForest(_Light, RandomForestClassifier):
    _tree = _ClassTree


class _LightRegression(_Light, RandomForestRegressor):
    _tree = _NumberTree


def read_forest(
    model: RandomForestClassifier,
    values: np.ndarray,
    rules: Sequence[tuple[int | None, int]],
    sizes: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a forest would predict if it had fewer trees, or trees that a rule had stopped.

    Rules are each a largest depth (None: no limit) and a smallest number of samples to split, sizes
    are numbers of trees. Probabilities have the shape (sizes, rules, n, classes); leaves, of a tree
    on average, (rules,).
    """
    depths = np.array([_UNLIMITED if depth is None else depth for depth, _ in rules], np.int64)
    splits = np.array([split for _, split in rules], np.int64)
    total = np.zeros((len(rules), len(values), model.n_classes_))
    leaves = np.full(len(rules), float(len(model.estimators_)))
    probabilities = np.empty((len(sizes), *total.shape))
    for number, grown in enumerate(model.estimators_, start=1):
        tree = grown.tree_
        nodes = (tree.children_left, tree.children_right, tree.feature, tree.threshold)
        nodes += (tree.n_node_samples, tree.value[:, 0])
        # Contiguous also where a tree is one node, so that there is one compiled form.
        nodes = tuple(map(np.ascontiguousarray, nodes))
        _follow(nodes, values, (depths, splits), total, leaves)
        if number in sizes:
            probabilities[sizes.index(number)] = total / number
    return probabilities, leaves / len(model.estimators_)


@njit(cache=True)
def _follow(
    nodes: tuple[np.ndarray, ...],
    samples: np.ndarray,
    rules: tuple[np.ndarray, np.ndarray],
    total: np.ndarray,
    leaves: np.ndarray,
) -> None:
    """Add a tree's class distribution where each rule stops each sample, and its leaves.

    A rule makes a leaf of a node at its depth, or with fewer samples (`n_node_samples`, which
    counts those drawn, each once, whatever its weight) than its smallest split, as scikit-learn's
    tree builder does.
    """
    left, right, feature, threshold, size, value = nodes
    depths, splits = rules
    level = np.zeros(len(left), np.int64)
    for node in range(len(left)):
        if left[node] >= 0:
            level[left[node]] = level[right[node]] = level[node] + 1
            for rule in range(len(depths)):
                # Nodes above a split have less depth and more samples, so they split, too.
                leaves[rule] += level[node] < depths[rule] and size[node] >= splits[rule]
    path = np.zeros(level.max() + 1, np.int64)
    for row in range(len(samples)):
        steps = node = 0
        while left[node] >= 0:
            node = left[node] if samples[row, feature[node]] <= threshold[node] else right[node]
            steps += 1
            path[steps] = node
        for rule in range(len(depths)):
            stop = 0
            while stop < steps and stop < depths[rule] and size[path[stop]] >= splits[rule]:
                stop += 1
            for column in range(value.shape[1]):
                total[rule, row, column] += value[path[stop], column]
