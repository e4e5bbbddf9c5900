"""Units, as in `helpers.samples.together`, and how they are dealt at random."""

import numpy as np
import numpy.typing as npt

from helpers.samples.together import FoldError


def unit_centres(points: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the middle of each unit's points, shape (units, 2); units are numbers without gaps.

    Examples
    --------
    >>> unit_centres(np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]]), np.array([0, 0, 1])).tolist()
    [[1.0, 0.0], [9.0, 9.0]]
    """
    sums = np.stack([np.bincount(unit, column) for column in points.T], axis=1)
    return sums / np.bincount(unit)[:, np.newaxis]


def check_enough(number: int, folds: int, what: str) -> None:
    """Raise FoldError where there are fewer units than folds.

    Examples
    --------
    >>> check_enough(3, 5, "blocks")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    helpers.samples.together.FoldError: 3 blocks cannot be dealt into 5 folds.
    Remedy: set fewer folds.number, ...
    """
    if number < folds:
        raise FoldError(
            f"{number} {what} cannot be dealt into {folds} folds.",
            "set fewer folds.number, or smaller folds.block_km or folds.min_separation_km; "
            "or give more sites",
        )


def deal_units(unit: npt.ArrayLike, types: npt.ArrayLike, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each sample: units are dealt at random, with like shares of every class.

    Unit and class (`types`) of each sample have the shape (n,). A unit counts as its highest class.

    Examples
    --------
    >>> unit = ["a", "a", "b", "c", "d"]
    >>> fold = deal_units(unit, types=[0, 0, 0, 1, 1], folds=2, seed=0)
    >>> bool(fold[0] == fold[1]), np.bincount(fold[1:]).tolist()  # a stays whole; two units each
    (True, [2, 2])
    """
    names, number = np.unique(np.asarray(unit), return_inverse=True)
    check_enough(len(names), folds, "sites")
    highest = np.full(len(names), -1)
    np.maximum.at(highest, number, np.asarray(types))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    # One round of dealing for all classes: the next class goes on where the last one stopped, so
    # that folds have one size.
    order = shuffled[np.argsort(highest[shuffled], kind="stable")]
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(names)) % folds
    return fold[number]
