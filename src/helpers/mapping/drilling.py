"""Where to drill next: holes in ground that is unlike the samples, or that tell most of the total.

The first goal is ground that the samples say nothing of: each hole is put where it lowers the mean
dissimilarity index of the domain most. To choose one by one is within 1 - 1/e of the best set
(Nemhauser et al. 1978).

The other goal is the total of ice. A new hole says something of it where the refitted models
(`helpers.mapping.redraw`) disagree on both in the same way. What they say of places and of the
total, draw by draw, is a joint sample; conditioned on what a hole will find, the total's variance
falls by

    cov(total, hole)^2 / (var(hole) + noise),

where the noise is that of a single hole: its own scatter, and the residual field, which
neighbouring holes share. The first hole is the one that lowers it most, the second the one that
lowers most of what is left, and so on (Ancell and Hakim 2007, with observations one after another).

That is at best: models grown again with the hole learn less. `benchmarks/drilling.py` drills in
hidden worlds what is advised.

Ancell, B., Hakim, G. J. (2007). Comparing adjoint- and ensemble-sensitivity analysis with
applications to observation targeting. Monthly Weather Review 135, 4117-4134.
Nemhauser, G. L., Wolsey, L. A., Fisher, M. L. (1978). An analysis of approximations for maximizing
submodular set functions. Mathematical Programming 14, 265-294.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyproj
from rasterio.features import rasterize
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from helpers.core.classes import layer_name
from helpers.core.features import read_features
from helpers.core.files import write_aside, write_json, write_table
from helpers.core.grid import crs_wkt, named_crs, reference_grid, reprojected
from helpers.core.parallel import show_progress
from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.mapping.applicability import Applicability
from helpers.mapping.cells import Cells, cells_at, sample_cells, study_ground
from helpers.mapping.files import (
    MapError,
    advised_from,
    drilling_files,
    map_files,
    trust_files,
)
from helpers.mapping.interval import residual_field
from helpers.mapping.redraw import LayerModels, Redraw, layer_models, redraw
from helpers.mapping.trust import layer_space
from helpers.prepare.domain import domain_of_cells
from helpers.samples.store import read_samples

Goal = Literal["total", "dissimilarity"]

CANDIDATES = 2000
"""Cells among which holes are chosen, evenly taken from those allowed."""


@dataclass(frozen=True)
class Question:
    """How many holes, for what, and where they may be.

    Parameters
    ----------
    holes
        How many.
    goal
        Whether they shall lower the dissimilarity, or the error of the total.
    near
        A file of features, such as roads, from which a hole lies at most `within_km`.
    outside
        A file of polygons, such as nature reserves, in which no hole lies.
    """

    holes: int = 30
    goal: Goal = "dissimilarity"
    near: str = ""
    within_km: float = 5.0
    outside: str = ""


@dataclass(frozen=True, eq=False)
class Advice:
    """Advised holes, the first one first.

    Parameters
    ----------
    holes
        Columns `hole` (from 1), `longitude`, `latitude` (WGS 84), `easting`, `northing` (m),
        `region`, `nearest_site_km`, what the map says there (`permafrost_probability_<layer>`,
        `dissimilarity_index_<layer>`, with storage `ice_storage_m`), and `left`: what is left,
        after this hole, of the mean dissimilarity of the domain, or at best of the standard error
        of the total by sites, as a share.
    now
        What it is before the first hole: the index itself, or km3.
    """

    question: Question
    holes: pd.DataFrame
    now: float


def advise(study: Study, question: Question) -> Advice:
    """Return where to drill next.

    Raises
    ------
    MapError
        If too few cells are left where holes may be, or the study has no storage of ice and the
        goal is its total.
    FeatureError
        If a file of features cannot be read.
    """
    if not 0 < question.holes <= CANDIDATES:
        raise MapError(f"{question.holes} holes cannot be advised.", f"ask for 1 to {CANDIDATES}")
    if not 0 < question.within_km < np.inf:
        raise MapError(f"Holes cannot be within {question.within_km:g} km.", "give a distance")
    if question.goal == "total" and not study.has_storage:
        raise MapError(
            f"{study.name} has no storage of ice, so no error of a total.",
            "set the goal dissimilarity",
        )
    places = candidates(study, question)
    if question.goal == "total":
        rng = np.random.default_rng(study.uncertainty.seed)
        drawn = redraw(study, read_samples(study), rng)
        layers = layer_models(study, drawn.table)
        order, left, now = for_total(study, drawn, layers, places, question.holes)
    else:
        spaces = [layer_space(study, layer_name(layer))[1:] for layer in study.layers]
        order, left, now = for_dissimilarity(study, spaces, places, question.holes)
    return Advice(question, _described(study, places, order).assign(left=left), now)


# Where holes may be -------------------------------------------------------------------------------


def candidates(study: Study, question: Question) -> Cells:
    """Return cells of the domain where holes may be, evenly taken."""
    allowed = domain_of_cells(study) & (study_ground(study).share > 0)
    if question.near:
        allowed = allowed & _inside(study, question.near, 1000 * question.within_km)
    if question.outside:
        allowed = allowed & ~_inside(study, question.outside, 0)
    flat = np.flatnonzero(allowed)
    step = max(1, -(-len(flat) // CANDIDATES))
    places = cells_at(study, *np.divmod(flat[step // 2 :: step], allowed.shape[1]))
    if len(places.values) < question.holes:
        raise MapError(
            f"Holes may be in {len(places.values)} cells of the potential-permafrost domain that "
            f"were looked at, of {len(flat)}, and {question.holes} holes are asked for.",
            "ask for fewer holes, or allow more ground",
        )
    return places


def _inside(study: Study, file: str, distance: float) -> np.ndarray:
    """Return which cells of the grid have their centre in features, or so many m from them."""
    features = read_features(study.path(file))
    if features.empty or features.crs is None:
        lack = "no feature" if features.empty else "no coordinate reference system"
        raise MapError(f"{file} has {lack}.", "write the layer again with both")
    geobox = reference_grid(study)
    shapes = reprojected(features.geometry, crs_wkt(geobox), study.grid.resolution)
    if distance == 0 and not shapes.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        raise MapError(f"{file} has features that are no polygons.", "give the area as polygons")
    shapes = shapes.make_valid() if distance == 0 else shapes.buffer(distance)
    burnt = rasterize(
        [shape for shape in shapes if shape is not None and not shape.is_empty],
        geobox.shape.yx,
        transform=geobox.transform,
        dtype="uint8",
    )
    return burnt == 1


def _described(study: Study, places: Cells, order: Sequence[int]) -> pd.DataFrame:
    """Return what the map says where holes are advised, in their order."""
    points = places.points[order]
    back = pyproj.Transformer.from_crs(named_crs(study.grid.crs), "EPSG:4326", always_xy=True)
    longitude, latitude = back.transform(*points.T)
    sites = read_samples(study).drop_duplicates("site_id")[["easting", "northing"]].to_numpy()
    table = pd.DataFrame(
        {
            "hole": np.arange(1, len(points) + 1),
            "longitude": longitude.round(5),
            "latitude": latitude.round(5),
            "easting": points[:, 0],
            "northing": points[:, 1],
            "region": [places.names[number] for number in places.region[order]],
            "nearest_site_km": cdist(points, sites).min(axis=1) / 1000,
        }
    )
    files = map_files(study) | trust_files(study)
    for name in (layer_name(layer) for layer in study.layers):
        for kind in ("permafrost_probability", "dissimilarity_index"):
            table[f"{kind}_{name}"] = values_at(files[f"{kind}_{name}"], *points.T)
    if study.has_storage:
        table["ice_storage_m"] = values_at(files["ice_storage"], *points.T)
    return table


# Which of them ------------------------------------------------------------------------------------

Choice = tuple[list[int], np.ndarray, float]
"""Numbers of the candidates, the first one first; what is left after each; what there is now."""


def for_total(
    study: Study, drawn: Redraw, layers: Sequence[LayerModels], places: Cells, holes: int
) -> Choice:
    """Choose the holes that tell most of the total's error by sites; ``now`` is in km3."""
    cells = sample_cells(study, study.uncertainty.cells)
    variogram, between = residual_field(study, layers)
    total, signal, scatter = 0.0, 0.0, []
    # Products of matrices add up in another order on more cores.
    with threadpool_limits(1):
        for layer in show_progress(layers, len(layers), "layers"):
            (chance, content), (there, holds) = layer.redrawn(study, drawn, cells, places)
            total = total + layer.volume(chance * content, cells).sum(axis=1)
            held = places.ground.holds(there * holds, layer.depths)
            signal = signal + layer.thickness * held
            spread = places.ground.holds(layer.expected(study, places).ice_sd, layer.depths)
            scatter.append(layer.thickness * spread)
    inflation = study.uncertainty.refit_inflation
    scatter = np.array(scatter)
    mixed = between @ scatter

    def noise(hole: int) -> np.ndarray:
        """Return the covariance of a hole's scatter with that of all candidates, m2."""
        away = np.hypot(*(places.points - places.points[hole]).T)
        shared = variogram.partial_sill * np.exp(-away / variogram.reach)
        shared[hole] += variogram.nugget
        return shared * (scatter * mixed[:, [hole]]).sum(axis=0)

    own = (scatter * mixed).sum(axis=0)
    with threadpool_limits(1):
        order, left = most_telling(inflation * total, inflation * signal, own, noise, holes)
    return order, left, float(inflation * total.std(ddof=1))


def most_telling(
    total: np.ndarray,
    signal: np.ndarray,
    scatter: np.ndarray,
    noise: Callable[[int], np.ndarray],
    holes: int,
) -> tuple[list[int], np.ndarray]:
    """Choose observations, one after the other, that lower the variance of a total most.

    Parameters
    ----------
    total : shape (draws,)
        Joint draws with `signal`.
    signal : shape (draws, n)
        What is to be observed, without the observation's own scatter.
    scatter : shape (n,)
        Variance of that scatter.
    noise
        Returns its covariance between one observation and all, shape (n,).
    holes
        How many are chosen.

    Returns
    -------
    order
        Numbers of the observations.
    left : shape (holes,)
        Standard deviation of the total after each, as a share of what it was.

    Examples
    --------
    Of two places that the total follows alike, the one with less scatter is asked first.

    >>> total = np.array([-1.0, 0.0, 1.0])
    >>> signal, scatter = np.stack([total, total], axis=1), np.array([3.0, 1.0])
    >>> most_telling(total, signal, scatter, lambda hole: scatter * (np.arange(2) == hole), 1)
    ([1], array([0.70710678]))
    """
    draws = len(total) - 1
    total, signal = total - total.mean(), signal - signal.mean(axis=0)
    follows = total @ signal / draws
    variance = (signal**2).sum(axis=0) / draws + scatter
    rest = first = (total**2).sum() / draws
    known: list[np.ndarray] = []
    order: list[int] = []
    left = []
    for _ in range(holes):
        gain = np.divide(follows**2, variance, out=np.zeros_like(variance), where=variance > 0)
        gain[order] = -1
        hole = int(gain.argmax())
        column = signal.T @ signal[:, hole] / draws + noise(hole)
        for earlier in known:
            column = column - earlier * earlier[hole]
        column = column / np.sqrt(column[hole])
        told = follows[hole] / np.sqrt(variance[hole])
        follows = follows - told * column
        variance = np.maximum(variance - column**2, 1e-12)
        rest = rest - told**2
        known.append(column)
        order.append(hole)
        left.append(np.sqrt(max(rest, 0) / first))
    return order, np.array(left)


def for_dissimilarity(
    study: Study,
    spaces: Sequence[tuple[Sequence[str], Applicability]],
    places: Cells,
    holes: int,
) -> Choice:
    """Choose the holes that lower the mean dissimilarity index of the domain most.

    Of each layer there are the columns of the predictors, and the space of dissimilarity.
    """
    cells = sample_cells(study, study.uncertainty.cells)
    apart, now = [], []
    for columns, space in spaces:
        used = [columns.index(column) for column in space.predictors]
        ours, theirs = (part.values[part.in_domain][:, used] for part in (cells, places))  # noqa: PD011
        now.append(space.measure(ours)[0])
        ours, theirs = ((part - space.centre) * space.factor for part in (ours, theirs))
        apart.append(cdist(theirs, ours).astype(np.float32))
    order, left = nearest_to_most(np.concatenate(apart, axis=1), np.concatenate(now), holes)
    return order, left, float(np.mean(now))


def nearest_to_most(apart: np.ndarray, now: np.ndarray, holes: int) -> tuple[list[int], np.ndarray]:
    """Choose places, one after the other, that lower the mean distance to the nearest most.

    Parameters
    ----------
    apart : shape (places, n)
        Distance of each place to each of n cells.
    now : shape (n,)
        Distance of the cells to what is nearest now.
    holes
        How many are chosen.

    Returns
    -------
    order
        Numbers of the places.
    left : shape (holes,)
        Mean distance after each, as a share of what it was.

    Examples
    --------
    >>> nearest_to_most(np.array([[0.0, 4.0], [3.0, 1.0]]), np.array([2.0, 4.0]), 2)
    ([1, 0], array([0.5       , 0.16666667]))
    """
    nearest, first = now.copy(), now.sum()
    order: list[int] = []
    left = []
    for _ in range(holes):
        gain = np.maximum(nearest - apart, 0).sum(axis=1)
        gain[order] = -1
        order.append(int(gain.argmax()))
        nearest = np.minimum(nearest, apart[order[-1]])
        left.append(nearest.sum() / first)
    return order, np.array(left)


# Files --------------------------------------------------------------------------------------------


def write_advice(study: Study, advice: Advice) -> dict[str, Path]:
    """Write the advice as CSV, GeoPackage and GPX, and what was asked; return the files."""
    import geopandas

    files = drilling_files(study)
    table = advice.holes.round(6)
    points = geopandas.points_from_xy(table["longitude"], table["latitude"], crs="EPSG:4326")
    layer = geopandas.GeoDataFrame(table, geometry=points)
    ways = layer[["geometry"]].assign(
        name=[f"{study.label} {hole}".strip() for hole in table["hole"]],
        desc=[f"{study.title or study.name}: hole {hole}" for hole in table["hole"]],
    )
    files["table"].parent.mkdir(parents=True, exist_ok=True)
    write_table(files["table"], table)
    with write_aside(files["layer"]) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The filename extension")  # of the part
        layer.to_file(part, driver="GPKG", layer="holes")
    with write_aside(files["waypoints"]) as part:
        ways.to_file(part, driver="GPX", layer="waypoints")
    record = {
        "label": study.label,
        "question": asdict(advice.question),
        "of": advised_from(study),
        "now": advice.now,
        "unit": "km3 of ice" if advice.question.goal == "total" else "dissimilarity index",
        "left": advice.holes["left"].tolist(),
    }
    write_json(files["record"], record)
    return files
