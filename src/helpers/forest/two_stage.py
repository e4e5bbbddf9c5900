"""A classifier of two random forests: permafrost or none, then its ice type."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from helpers.core.classes import TARGETS
from helpers.core.scores import mapped_class
from helpers.samples.rows import ForestError


class TwoStageForest(RandomForestClassifier):
    """Random forests in two stages, with the hyperparameters and methods of one.

    The first forest says whether there is permafrost; the second, grown on the permafrost samples
    alone, says the type. The probability of class 0 is the first one's, that of a type the first
    one's of permafrost times the second one's of the type.

    Attributes
    ----------
    stages_
        The two forests; the classes of the first are 0 and 1, which is permafrost.
    """

    def fit(
        self,
        values: np.ndarray,
        types: npt.ArrayLike,
        grow: Callable[..., RandomForestClassifier] = RandomForestClassifier.fit,
    ) -> "TwoStageForest":
        """Grow both forests; class 0 is no permafrost.

        `grow` takes a forest, predictors and classes, and returns the forest grown.
        """
        types = np.asarray(types)
        frozen = types > 0
        if not frozen.any():
            raise ForestError(
                "There is no permafrost among the samples that a two-stage forest is grown from.",
                "give more sites with permafrost, or set `target` to ice_type",
            )
        first, second = (RandomForestClassifier(**self.get_params()) for _ in range(2))
        self.stages_ = [
            grow(first, values, frozen.astype(int)),
            grow(second, values[frozen], types[frozen]),
        ]
        return self

    @property
    def classes_(self) -> np.ndarray:
        """Class 0, and those of the second forest."""
        return np.append(0, self.stages_[1].classes_)

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        """Return probabilities of `classes_`, shape (n, classes)."""
        return self.combined(*(stage.predict_proba(values) for stage in self.stages_))

    @staticmethod
    def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return probabilities of all classes from those of both forests, shapes (..., classes)."""
        # The last class of the first forest is permafrost, also where all samples had it.
        permafrost = first[..., -1:]
        return np.concatenate([1 - permafrost, permafrost * second], axis=-1)

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Return the mapped class, shape (n,): permafrost or none, then its type."""
        return self.classes_[mapped_class(self.predict_proba(values), TARGETS["two_stage"])]
