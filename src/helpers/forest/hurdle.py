"""Ice as expected: where permafrost is, and what it holds there.

A hurdle model: P, the probability of permafrost in the layer, and the distribution of ice contents
where there is permafrost. The expected ice of a cell is P times the mean of that distribution, and
stays where it is expected. Both are learned within the potential-permafrost domain, since outside
of it there is none by rule; so no sample has to be weighted by the area that it stands for.

The log-odds of P are the mean of a random forest's, which is not balanced, and a logistic
regression's: the one bends, the other does not flatten at the ends. The contents are a forest's
that regresses the ice fraction; its leaves hold how many samples are in each bin of contents
(Meinshausen 2006). Classes without an ice content take the place of bins. `benchmarks/ice_ways.py`
sets this beside other ways.

Cragg, J. (1971). Some statistical models for limited dependent variables. Econometrica 39, 829-844.
Meinshausen, N. (2006). Quantile regression forests. J. Mach. Learn. Res. 7, 983-999.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit, logit
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from helpers.core.scores import PROBABILITY_FLOOR
from helpers.core.study import Study
from helpers.forest.leaves import Grown, leaf_means
from helpers.forest.trees import grow, with_leaves
from helpers.samples.extract import cell_points, evaluation_cells
from helpers.samples.prevalence import Strata, fit_shifts, read_prevalence, shift_at, shifted
from helpers.samples.rows import ForestError, forest_predictors
from helpers.samples.together import coordinates

LEAST_SAMPLES = 30
"""Units of samples in the domain, below which a layer is refused."""

TREES = 100
"""Trees of each of the two forests, as in what was measured of the model."""

_BINS = 16  # of ice contents, with about as many samples each; 8 and 24 are as good
_LEAST_IN_BIN = 5

_LEAF = {"permafrost": 3, "contents": 10}  # samples of a leaf; contents: somewhat better than 5

PULL = 1.0
"""C of the logistic regression: 0.1 blurs the limit of permafrost, 10 is as good."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is expected of places, arrays of shape (n, ...).

    Parameters
    ----------
    permafrost : shape (n,)
        P, the probability of permafrost in the layer.
    classes : shape (n, k)
        Probabilities of all classes; they add up to 1.
    bins : shape (n, bins)
        Distribution of ice contents where there is permafrost.
    content, square : shape (n,)
        Mean ice fraction where there is permafrost, m3 of ice per m3 of the layer, and of its
        square.

    Examples
    --------
    >>> half = np.array([0.5])  # permafrost or none; if any, 40 % of it is ice
    >>> content = np.array([0.4])
    >>> place = Prediction(half, np.array([[0.5, 0.5]]), np.array([[1.0]]), content, content**2)
    >>> place.ice.round(2).tolist(), place.ice_sd.round(2).tolist()  # 0 or 0.4, one as often
    ([0.2], [0.2])
    """

    permafrost: np.ndarray
    classes: np.ndarray
    bins: np.ndarray
    content: np.ndarray
    square: np.ndarray

    @property
    def ice(self) -> np.ndarray:
        """Expected ice fraction, shape (n,): P times the content."""
        return self.permafrost * self.content

    @property
    def ice_sd(self) -> np.ndarray:
        """Standard deviation of a borehole's ice fraction, shape (n,)."""
        return np.sqrt(np.maximum(self.permafrost * self.square - self.ice**2, 0))


@dataclass(frozen=True, eq=False)
class Hurdle:
    """A layer's hurdle model.

    Parameters
    ----------
    forests
        Of permafrost, with the classes 0 and 1; of contents, whose classes are bins; and of the
        classes without permafrost, where there are several.
    slope, intercept
        Of the logistic regression, for predictors as they are.
    mean, square : shape (bins,)
        Mean ice fraction of each bin's samples, and of its square; 0 without ice contents.
    edges : shape (bins + 1,)
        Ends of the bins; 0 without ice contents.
    types : shape (bins, k)
        Shares of the classes in each bin.
    free
        Codes of the classes without permafrost.
    strata
        Known shares of permafrost, with the shift of log-odds that agrees with each.
    """

    forests: Sequence[Grown]
    slope: np.ndarray
    intercept: float
    mean: np.ndarray
    square: np.ndarray
    edges: np.ndarray
    types: np.ndarray
    free: Sequence[int]
    strata: Strata

    def predict(
        self, values: np.ndarray, inside: np.ndarray, shift: npt.ArrayLike = 0.0
    ) -> Prediction:
        """Return what is expected of places. One thread does it, in one order.

        Parameters
        ----------
        values : shape (n, predictors)
        inside : shape (n,)
            Whether each place lies in the potential-permafrost domain.
        shift
            Of the log-odds of permafrost, one or shape (n,): see `helpers.samples.prevalence`.
        """
        values = np.ascontiguousarray(values, np.float32)
        permafrost = np.zeros(len(values))
        if inside.any():
            forest = leaf_means(self.forests[0], values[inside])[:, 1]
            # einsum adds up in one order on any number of cores; a matrix product does not.
            score = np.einsum("np,p->n", values[inside], self.slope) + self.intercept
            permafrost[inside] = joined(forest, score)
            permafrost = shifted(permafrost, shift)
        bins = leaf_means(self.forests[1], values)
        classes = permafrost[:, np.newaxis] * np.einsum("nb,bk->nk", bins, self.types)
        classes[:, self.free[0]] = 1 - permafrost
        for forest in self.forests[2:]:
            none = (1 - permafrost)[:, np.newaxis] * leaf_means(forest, values)
            classes[:, self.free] = 0
            classes[:, forest.classes_] = none
        content, square = (np.einsum("nb,b->n", bins, part) for part in (self.mean, self.square))
        return Prediction(permafrost, classes, bins, content, square)

    def quantile(self, prediction: Prediction, level: float) -> np.ndarray:
        """Return a quantile of a borehole's ice fraction, shape (n,): 0 where P is no more.

        Contents are evenly spread within a bin.
        """
        above = np.maximum(level - (1 - prediction.permafrost), 0)
        left = np.divide(above, prediction.permafrost, out=np.zeros_like(above), where=above > 0)
        values = np.full(len(left), self.edges[0])
        for share, width in zip(prediction.bins.T, np.diff(self.edges), strict=True):
            filled = np.divide(left, share, out=np.ones_like(left), where=share > left)
            values += np.where(left > 0, filled * width, 0)
            left = np.maximum(left - share, 0)
        return np.where(above > 0, values, 0)

    def exceeding(self, prediction: Prediction, content: float) -> np.ndarray:
        """Return the probability that a borehole's ice fraction exceeds a content, shape (n,)."""
        lower, width = self.edges[:-1], np.diff(self.edges)
        over = np.divide(
            self.edges[1:] - content, width, out=(lower > content).astype(float), where=width > 0
        )
        share = np.einsum("nb,b->n", prediction.bins, np.clip(over, 0, 1))
        return prediction.permafrost * share


def joined(forest: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return P by a forest's probabilities and the log-odds of a logistic regression.

    These are averaged. No forest is as sure as its votes: those of 0 or 1 count as a thousandth
    from it.

    Examples
    --------
    >>> print(joined(np.array([0.5, 1.0]), np.array([0.0, 0.0])).round(3))  # no vote is sure
    [0.5   0.969]
    """
    odds = logit(np.clip(forest, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))
    return expit((odds + score) / 2)


def learning_rows(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the samples that a hurdle learns from: those in the domain.

    Where none of these is without permafrost, absences outside teach where it ends. ForestError if
    there are none with permafrost, or none without.
    """
    inside = rows["in_domain"].to_numpy(bool)
    frozen = study.target_classes.permafrost[rows["class"]]
    chosen = inside if (inside & ~frozen).any() else inside | ~frozen
    layer = rows["layer"].iloc[0]
    if not (inside & frozen).any() or frozen[chosen].all():
        which = "with" if not (inside & frozen).any() else "without"
        raise ForestError(
            f"No sample of {layer} in the potential-permafrost domain is {which} permafrost.",
            "add such sites, set another rule in `domain`, or leave the layer out of `layers`",
        )
    return rows[chosen]


def check_enough(study: Study, rows: pd.DataFrame) -> None:
    """Raise ForestError for a layer of too few samples in the domain, or as `learning_rows`."""
    learning_rows(study, rows)
    number = rows.loc[rows["in_domain"], "group"].nunique()
    if number < LEAST_SAMPLES:
        raise ForestError(
            f"{rows['layer'].iloc[0]} has samples of {number} places in the potential-permafrost "
            f"domain; a map of ice needs {LEAST_SAMPLES}.",
            "give more sites there, join layers, or leave the layer out of `layers`",
        )


def fit_hurdle(study: Study, rows: pd.DataFrame, trees: int = TREES) -> Hurdle:
    """Learn a layer's hurdle model from samples with their ``class``.

    ForestError as from `learning_rows`.
    """
    everything = rows
    rows = learning_rows(study, rows)
    values = forest_predictors(study, rows)
    frozen = study.target_classes.permafrost[rows["class"]]
    common = {"n_estimators": trees, "random_state": study.forest.seed, "n_jobs": 1}
    of_classes = common | {"min_samples_leaf": _LEAF["permafrost"], "max_features": "sqrt"}
    forest = grow(RandomForestClassifier(**of_classes), values, frozen.astype(int))
    slope, intercept = _logistic(values, frozen)
    rows, values = rows[frozen], values[frozen]
    types = np.eye(len(study.target_classes.codes))[rows["class"]]
    if study.has_storage:
        fraction = _fraction(rows)
        place, edges = bins_of(fraction)
        leaf = min(_LEAF["contents"], max(1, len(rows) // 4))
        contents = RandomForestRegressor(max_features=0.33, min_samples_leaf=leaf, **common)
        contents = with_leaves(grow(contents, values, fraction), values, place)
    else:
        codes, place = np.unique(rows["class"], return_inverse=True)
        fraction, edges = np.zeros(len(rows)), np.zeros(len(codes) + 1)
        contents = grow(RandomForestClassifier(**of_classes), values, place)
    forests = [forest, contents]
    free = study.target_classes.free
    if len(free) > 1:
        none = everything[np.isin(everything["class"], free)]
        grown = forest_predictors(study, none), none["class"].to_numpy()
        forests.append(grow(RandomForestClassifier(**of_classes), *grown))
    number = np.bincount(place)
    mean, square = (np.bincount(place, fraction**power) / number for power in (1, 2))
    shares = np.stack([np.bincount(place, one) for one in types.T], axis=1)
    types = shares / number[:, np.newaxis]
    return Hurdle(forests, slope, intercept, mean, square, edges, types, free, [])


def agree_with_shares(study: Study, hurdle: Hurdle, layer: str) -> Hurdle:
    """Return a hurdle whose P agrees with the known shares of permafrost, if there are any.

    See `helpers.samples.prevalence`: shares hold for the cells of the domain.
    """
    table = read_prevalence(study)
    rows = pd.DataFrame() if table is None else table[table["layer"] == layer]
    if rows.empty:
        return hurdle
    values, cells, inside = evaluation_cells(study)
    values, points = values[inside], cell_points(study, cells[inside])
    chance = hurdle.predict(values, np.ones(len(values), bool)).permafrost
    return replace(hurdle, strata=fit_shifts(study, rows, chance, values, points))


def bins_of(fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each ice fraction, shape (n,), and the ends of all bins.

    Bins have about the same number of samples; equal fractions are in one.

    Examples
    --------
    >>> place, edges = bins_of(np.arange(10) / 10)
    >>> place.tolist(), edges.round(2).tolist()
    ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0.0, 0.45, 0.9])
    """
    number = int(np.clip(len(fraction) // _LEAST_IN_BIN, 1, _BINS))
    inner = np.unique(np.quantile(fraction, np.arange(1, number) / number))
    filled, place = np.unique(np.searchsorted(inner, fraction, side="right"), return_inverse=True)
    ends = np.append(inner, fraction.max())
    return place, np.concatenate([[fraction.min()], ends[filled]])


def _fraction(rows: pd.DataFrame) -> np.ndarray:
    fraction = rows["ice_fraction"].to_numpy(float)
    bad = ~((fraction >= 0) & (fraction <= 1))
    if bad.any():
        sites = ", ".join(rows.loc[bad, "site_id"].astype(str)[:5])
        raise ForestError(
            f"{bad.sum()} samples have no ice fraction between 0 and 1, such as {sites}.",
            "correct their ice content, or drop them",
        )
    return fraction


def _logistic(values: np.ndarray, frozen: np.ndarray) -> tuple[np.ndarray, float]:
    """Return slope and intercept of a logistic regression, for predictors as they are."""
    values = values.astype(float)
    mean, sd = values.mean(axis=0), values.std(axis=0)
    sd[sd == 0] = 1  # a category that no sample has
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        fitted = LogisticRegression(C=PULL, solver="newton-cholesky", max_iter=100)
        fitted.fit((values - mean) / sd, frozen)
    slope = fitted.coef_[0] / sd
    return slope, float(fitted.intercept_[0] - np.einsum("p,p->", slope, mean))


HurdleJob = tuple[pd.DataFrame, np.ndarray, Strata]
"""Samples of one layer with their class, their folds, and known shares (`Hurdle.strata`)."""


def predict_held_out(study: Study, jobs: Sequence[HurdleJob], n_jobs: int = -1) -> list[Prediction]:
    """Predict samples by hurdles that were learned without their fold, one prediction a job.

    Log-odds of permafrost are shifted as by the strata of the job. Bins differ by fold, so
    `Prediction.bins` is empty. The result does not depend on the number of threads.
    """
    parts = [
        (index, fold == number) for index, (_, fold, _) in enumerate(jobs) for number in set(fold)
    ]
    answers = Parallel(n_jobs, prefer="threads")(
        delayed(_held_out)(study, jobs[index], held) for index, held in parts
    )
    size = len(study.target_classes.codes)
    shapes: dict[str, tuple[int, ...]] = {"permafrost": (), "classes": (size,), "bins": (0,)}
    shapes |= {"content": (), "square": ()}
    arrays = [
        {name: np.zeros((len(rows), *shape)) for name, shape in shapes.items()} for rows, *_ in jobs
    ]
    for (index, held), answer in zip(parts, answers, strict=True):
        for name, whole in arrays[index].items():
            if name != "bins":
                whole[held] = getattr(answer, name)
    return [Prediction(**one) for one in arrays]


def _held_out(study: Study, job: HurdleJob, held: np.ndarray) -> Prediction:
    rows, _, strata = job
    if (known := _only_kind(study, rows[~held], rows[held])) is not None:
        return known
    hurdle = fit_hurdle(study, rows[~held], min(TREES, study.folds.estimators))
    return predict_rows(study, replace(hurdle, strata=strata), rows[held])


def _only_kind(study: Study, rows: pd.DataFrame, others: pd.DataFrame) -> Prediction | None:
    """Return what samples tell of others where all have permafrost, or none in the domain has.

    None where they have both, so that a hurdle can be learnt. Without permafrost, P and ice are 0;
    with permafrost alone, P is 1 in the domain. Types and contents are those of the samples, whose
    classes and contents are otherwise not told apart.
    """
    frozen = study.target_classes.permafrost[rows["class"]]
    permafrost = frozen & rows["in_domain"].to_numpy(bool)
    if permafrost.any() and not frozen.all():
        return None
    codes, free = len(study.target_classes.codes), study.target_classes.free
    chance = others["in_domain"].to_numpy(float) * permafrost.any()
    shares = []
    for of_kind, usual in ((permafrost, study.target_classes.codes[-1]), (~frozen, free[0])):
        number = np.bincount(rows.loc[of_kind, "class"], minlength=codes)
        shares.append(number / number.sum() if of_kind.any() else np.eye(codes)[usual])
    classes = np.outer(chance, shares[0]) + np.outer(1 - chance, shares[1])
    ice = _fraction(rows[permafrost]) if study.has_storage and permafrost.any() else np.zeros(1)
    content, square = (np.full(len(others), np.mean(ice**power)) for power in (1, 2))
    return Prediction(chance, classes, np.zeros((len(others), 0)), content, square)


def predict_rows(study: Study, hurdle: Hurdle, rows: pd.DataFrame) -> Prediction:
    """Return what a hurdle expects at samples."""
    values = forest_predictors(study, rows)
    shift = shift_at(study, hurdle.strata, values, coordinates(rows))
    return hurdle.predict(values, rows["in_domain"].to_numpy(bool), shift)


# The limit of permafrost --------------------------------------------------------------------------

PROBABILITY_SCALE = 1e-4
"""A step of the probabilities in rasters."""

UNITS = round(1 / PROBABILITY_SCALE)


def steps(probability: np.ndarray) -> np.ndarray:
    """Return probabilities in whole steps of the scale, int.

    Examples
    --------
    >>> steps(np.array([0.0, 0.12344, 1.0])).tolist()
    [0, 1234, 10000]
    """
    return np.rint(probability / PROBABILITY_SCALE).astype(int)


def permafrost_cut(counts: np.ndarray) -> int:
    """Return the least step of P that is mapped as permafrost.

    The cut is such that the mapped area is as large as the expected one: as many of the most
    probable cells as the probabilities of all cells add up to.

    Parameters
    ----------
    counts : shape (UNITS + 1,)
        Cells at each step of P. They say as much as single cells: rasters have no more steps.

    Examples
    --------
    >>> counts = np.zeros(UNITS + 1)
    >>> counts[[UNITS // 5, 3 * UNITS // 5]] = 50  # cells with a probability of 0.2 and of 0.6
    >>> permafrost_cut(counts) / UNITS  # 40 cells are expected: 50 above 0.2 are nearest
    0.2001
    """
    expected = (counts * np.arange(len(counts))).sum() / UNITS
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)  # cells at a step or above
    # Of two steps the one whose area is nearer; a cell without a chance is none.
    return max(int(np.abs(above - expected).argmin()), 1)


def mapped_types(classes: np.ndarray, frozen: np.ndarray, permafrost: np.ndarray) -> np.ndarray:
    """Return the most probable class of each place, shape (n,), by probabilities of all, (n, k).

    Of the permafrost classes, which `permafrost` tells, shape (k,), where a place is `frozen`, and
    of the others elsewhere.

    Examples
    --------
    >>> chances = np.array([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25]])  # no permafrost, and two types
    >>> mapped_types(chances, np.array([False, True]), np.array([False, True, True])).tolist()
    [0, 1]
    """
    allowed = np.where(permafrost == frozen[:, np.newaxis], classes, -1)
    return allowed.argmax(axis=1).astype(np.uint8)


HURDLE_ARRAYS = ("slope", "mean", "square", "edges", "types")
"""Fields of a hurdle that its card holds as lists."""

HURDLE_OTHERS = ("intercept", "free", "strata")
"""Fields that it holds as they are."""


def hurdle_card(hurdle: Hurdle) -> dict[str, Any]:
    """Return what the model card of a hurdle holds beside its forests."""
    arrays = {name: getattr(hurdle, name).tolist() for name in HURDLE_ARRAYS}
    others = {name: getattr(hurdle, name) for name in HURDLE_OTHERS}
    return arrays | others
