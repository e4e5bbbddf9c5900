"""Units that no split and no fold parts: samples of one cell or area, and sites close together."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from helpers.core.study import Study
from helpers.samples.rows import ForestError


class FoldError(ForestError):
    """Samples that cannot be dealt into the parts or folds that were asked for."""


def units(points: npt.ArrayLike, group: npt.ArrayLike, distance: float) -> np.ndarray:
    """Return the unit of each sample: a group, or all that steps of up to a distance join.

    Points have the shape (n, 2), groups and result (n,).

    Examples
    --------
    >>> units([[0, 0], [0, 1], [0, 5], [0, 9]], ["a", "b", "b", "c"], 2).tolist()
    [0, 0, 0, 1]
    """
    points = check_coordinates(points, "samples")
    near = cKDTree(points).query_pairs(distance, output_type="ndarray")
    return components(len(points), group, pairs=near)


def components(count: int, *labels: npt.ArrayLike, pairs: npt.ArrayLike = ()) -> np.ndarray:
    """Return each sample's connected component; equal labels connect samples, and so do pairs.

    Examples
    --------
    >>> components(4, ["a", "b", "b", "c"], pairs=[(2, 3)]).tolist()
    [0, 1, 1, 1]
    """
    links = [np.reshape(pairs, (-1, 2)).astype(int)]
    for label in labels:
        _, first, number = np.unique(label, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(count), first[number]], axis=1))
    one, other = np.concatenate(links).T
    graph = coo_matrix((np.ones(len(one)), (one, other)), (count, count))
    return connected_components(graph, directed=False)[1]


def sample_units(study: Study, rows: pd.DataFrame) -> np.ndarray:
    """Return the unit of each sample by the study's settings: see `units`."""
    group = column_values(rows, "group").astype(str)
    return units(coordinates(rows), group, 1000 * study.folds.min_separation_km)


def coordinates(rows: pd.DataFrame) -> np.ndarray:
    """Return easting and northing of samples, m, shape (n, 2)."""
    return np.stack([column_values(rows, "easting"), column_values(rows, "northing")], axis=1)


def column_values(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of the samples; raise FoldError if there is none of this name."""
    if name not in rows:
        raise FoldError(
            f"The samples have no column {name}.",
            "name it in samples.more_columns, or correct folds.column",
        )
    return rows[name].to_numpy()


def check_coordinates(points: npt.ArrayLike, what: str) -> np.ndarray:
    """Return coordinates, shape (n, 2); raise FoldError where some are not finite.

    Examples
    --------
    >>> check_coordinates([[0, 1], [2, np.nan]], "samples")
    Traceback (most recent call last):
        ...
    helpers.samples.together.FoldError: 1 samples have no finite coordinates.
    Remedy: drop them, as 02-extract-samples does
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise FoldError(
            f"Coordinates of {what} have the shape {points.shape}.",
            "give easting and northing of one or more",
        )
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise FoldError(
            f"{bad} {what} have no finite coordinates.", "drop them, as 02-extract-samples does"
        )
    return points
