"""A classifier of two random forests: the first tells permafrost, the second its ice type."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier

from helpers.core.scores import mapped_class
from helpers.samples.rows import ForestError


class TwoStageForest(ClassifierMixin, BaseEstimator):
    """Random forests in two stages, with the methods of one.

    The first forest tells whether there is permafrost; the second, grown on the permafrost samples alone, the type.
    The probability of class 0 is the first one's, that of a type the first one's of permafrost times the second one's
    of the type.

    Parameters
    ----------
    n_estimators, criterion, max_depth, min_samples_split, min_samples_leaf, max_features, class_weight, random_state, \
n_jobs
        Of both forests, as of `sklearn.ensemble.RandomForestClassifier`.

    Attributes
    ----------
    stages_ : list of sklearn.ensemble.RandomForestClassifier
        The two forests; the classes of the first are 0 and 1, which is permafrost.
    """

    def __init__(
        self,
        n_estimators=100,
        criterion="gini",
        max_depth=None,
        min_samples_split=2,
        min_samples_leaf=1,
        max_features="sqrt",
        class_weight=None,
        random_state=None,
        n_jobs=None,
    ):
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, values, types, sample_weight=None, grow=RandomForestClassifier.fit):
        """Grow both forests from predictors, classes and weights.

        Parameters
        ----------
        values : numpy.ndarray, shape (n, predictors)
        types : array_like of int, shape (n,)
            0 is no permafrost.
        sample_weight : numpy.ndarray, shape (n,), optional
        grow : callable
            Takes a forest and what its `fit` does, and returns it grown.

        Returns
        -------
        TwoStageForest
        """
        frozen = np.asarray(types) > 0
        if not frozen.any():
            raise ForestError(
                "There is no permafrost among the samples that a two-stage forest is to be grown from.",
                "give more sites with permafrost, or set `target` to ice_type",
            )
        weight = None if sample_weight is None else sample_weight[frozen]
        self.stages_ = [
            grow(RandomForestClassifier(**self.get_params()), values, frozen.astype(int), sample_weight),
            grow(RandomForestClassifier(**self.get_params()), values[frozen], np.asarray(types)[frozen], weight),
        ]
        return self

    @property
    def classes_(self):
        """Class 0, and those of the second forest."""
        return np.append(0, self.stages_[1].classes_)

    def predict_proba(self, values):
        """Return probabilities of `classes_`, shape (n, classes)."""
        return self.combined(*(stage.predict_proba(values) for stage in self.stages_))

    @staticmethod
    def combined(first, second):
        """Return probabilities of all classes from those of both forests, shapes (..., classes)."""
        # The last class of the first forest is permafrost, also where all samples had it.
        permafrost = first[..., -1:]
        return np.concatenate([1 - permafrost, permafrost * second], axis=-1)

    def predict(self, values):
        """Return the mapped class, shape (n,): permafrost or none, then its type."""
        return self.classes_[mapped_class(self.predict_proba(values), "two_stage")]
