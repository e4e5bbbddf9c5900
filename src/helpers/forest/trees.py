"""Trees grown without scikit-learn's checks, and read at any depth and size; the one module with private names."""

from copy import copy
from math import ceil

import numpy as np
import sklearn
from numba import njit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._classes import CRITERIA_CLF
from sklearn.tree._splitter import BestSplitter
from sklearn.tree._tree import DepthFirstTreeBuilder, Tree

from helpers.forest.file import forest_of_trees
from helpers.forest.two_stage import TwoStageForest

UNLIMITED = np.iinfo(np.int32).max


_LIGHT_VERSION = "1.9."  # of scikit-learn, whose trees `_LightTree` is known to grow


def read_forest(model, values, rules, sizes):
    """Return the probabilities of each size and rule, shape (sizes, rules, n, classes), and leaves a tree by rule."""
    if isinstance(model, TwoStageForest):
        (first, leaves), (second, more) = (read_forest(stage, values, rules, sizes) for stage in model.stages_)
        return model.combined(first, second), leaves + more
    depths = np.array([UNLIMITED if depth is None else depth for depth, _ in rules], np.int64)
    splits = np.array([as_number(split, model._n_samples, 2) for _, split in rules], np.int64)
    total, leaves = np.zeros((len(rules), len(values), model.n_classes_)), np.ones(len(rules))
    leaves *= len(model.estimators_)
    found = np.empty((len(sizes), *total.shape))
    for number, grown in enumerate(model.estimators_, start=1):
        tree = grown.tree_
        # Contiguous also where a tree is one node, so that there is one compiled form.
        nodes = (tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.n_node_samples)
        _follow(*map(np.ascontiguousarray, nodes), tree.value[:, 0], values, depths, splits, total, leaves)
        if number in sizes:
            found[sizes.index(number)] = total / number
    return found, leaves / len(model.estimators_)


@njit(cache=True)
def _follow(left, right, feature, threshold, size, value, samples, depths, splits, total, leaves):
    """Add a tree's class distribution at the node where each rule stops each sample, and the leaves under each rule.

    A rule makes a leaf of a node at its depth, or with fewer samples (`n_node_samples`, which counts those drawn, each
    once, whatever its weight) than its smallest split, as scikit-learn's tree builder does.
    """
    level = np.zeros(len(left), np.int64)
    for node in range(len(left)):
        if left[node] >= 0:
            level[left[node]] = level[right[node]] = level[node] + 1
            for rule in range(len(depths)):
                # Nodes above a split have less depth and more samples: it stands where its own node splits.
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


# Growing ----------------------------------------------------------------------------------------------------


def grow(estimator, values, y, weight=None):
    """Fit a forest: the very trees of its own `fit`, in a third of the time where this scikit-learn is a known one.

    Parameters
    ----------
    estimator : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
        It stays as it is.
    values : numpy.ndarray of float32, shape (n, predictors)
    y : numpy.ndarray of int, shape (n,)
        Classes.
    weight : numpy.ndarray, shape (n,), optional

    Returns
    -------
    RandomForestClassifier or TwoStageForest
    """
    if isinstance(estimator, TwoStageForest):
        model = clone(estimator)
        return model.fit(values, y, weight, _grow_one)
    return _grow_one(estimator, values, y, weight)


def _grow_one(estimator, values, y, weight):
    light = sklearn.__version__.startswith(_LIGHT_VERSION) and type(estimator) is RandomForestClassifier
    if not light or estimator.monotonic_cst is not None or estimator.oob_score:
        return clone(estimator).fit(values, y, weight)
    params = estimator.get_params()
    model = _LightForest(**params).fit(values, y, weight)
    trees = [grown.tree_ for grown in model.estimators_]
    plain = forest_of_trees(RandomForestClassifier, params, model.n_features_in_, model.classes_, trees)
    plain._n_samples, plain._n_samples_bootstrap = model._n_samples, model._n_samples_bootstrap
    return plain


def grow_and_predict(estimator, values, y, others):
    """Grow a forest that is not kept, and return its classes and its probabilities of other samples.

    Parameters
    ----------
    estimator : sklearn.ensemble.RandomForestClassifier or helpers.forest.two_stage.TwoStageForest
    values, others : numpy.ndarray of float32, shape (n, predictors)
    y : numpy.ndarray, shape (n,)

    Returns
    -------
    classes : numpy.ndarray, shape (k,)
    probabilities : numpy.ndarray, shape (n, k)
        Those of scikit-learn.
    """
    model = grow(estimator, values, y)
    return model.classes_, read_forest(model, others, [(None, 2)], [estimator.n_estimators])[0][0, 0]


class _LightForest(RandomForestClassifier):
    """The same forest in less than half of the time, for the search alone.

    On some hundreds of samples scikit-learn spends most of a tree's time on copying and checking its parameters.
    Draws, criterion, splitter and builder are scikit-learn's own.
    """

    def _make_estimator(self, append=True, random_state=None):
        if not hasattr(self, "_first"):
            self._first = _LightTree(**{name: getattr(self, name) for name in self.estimator_params})
            self._first._generator = np.random.RandomState()
        tree = copy(self._first)
        tree.random_state = random_state.randint(np.iinfo(np.int32).max)
        return tree


class _LightTree(DecisionTreeClassifier):
    """A tree that trusts its forest: classes are numbers, values finite.

    Its `random_state` is one generator for all copies, seeded anew whenever it is asked for, which costs a tenth of a
    new one and draws the same.
    """

    @property
    def random_state(self):
        self._generator.seed(self._seed)
        return self._generator

    @random_state.setter
    def random_state(self, seed):
        self._seed = seed

    def _fit(self, X, y, sample_weight=None, check_input=False, missing_values_in_feature_mask=None):
        n, predictors = X.shape
        leaf, split = as_number(self.min_samples_leaf, n, 1), as_number(self.min_samples_split, n, 2)
        weight = None if sample_weight is None else np.asarray(sample_weight, float)
        least = self.min_weight_fraction_leaf * (n if weight is None else weight.sum())
        classes = np.array([int(y.max()) + 1], np.intp)
        features = {None: predictors, "sqrt": int(np.sqrt(predictors)), "log2": int(np.log2(predictors))}
        features = features.get(self.max_features) or as_number(self.max_features, predictors, 1, int)
        criterion = CRITERIA_CLF[self.criterion](1, classes)
        splitter = BestSplitter(criterion, features, leaf, least, self.random_state, None)
        depth = UNLIMITED if self.max_depth is None else self.max_depth
        self.tree_ = Tree(predictors, classes, 1)
        builder = DepthFirstTreeBuilder(splitter, split, leaf, least, depth, self.min_impurity_decrease)
        builder.build(self.tree_, X, y, weight, None)
        return self


def as_number(value, whole, least, rounded=ceil):
    """Return a number of samples or predictors that may be given as a share of all of them."""
    return value if isinstance(value, int | np.integer) else max(least, rounded(value * whole))
