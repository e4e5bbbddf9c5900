"""How far the map may be believed, by cell and layer.

These are the dissimilarity index and local point density of each layer, the expected error of its
class, the set of classes that are possible at the stated probability, and one map of four plain
levels.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.isotonic import IsotonicRegression

from helpers.core import qgis
from helpers.core.classes import layer_name
from helpers.core.files import read_json
from helpers.core.grid import Part, grid_windows, reference_grid
from helpers.core.parallel import in_parallel
from helpers.core.plot import colour_map
from helpers.core.rasters import BLOCK, open_raster
from helpers.core.settings import Trust
from helpers.core.study import Study
from helpers.folds.kinds import far_folds, sample_folds
from helpers.forest import out_of_fold
from helpers.forest.cards import card_params, read_card
from helpers.forest.hurdle import PROBABILITY_SCALE, predict_held_out
from helpers.forest.paths import model_path
from helpers.mapping import conformal
from helpers.mapping.applicability import Applicability, fit, importance_weights
from helpers.mapping.files import (
    MISSING,
    MapError,
    layer_files,
    open_rasters,
    trust_files,
)
from helpers.prepare.columns import column_values, predictor_of, predictors_of
from helpers.prepare.domain import in_domain_at
from helpers.prepare.registry import covariate_files
from helpers.samples.rows import layer_rows, predictor_values
from helpers.samples.store import read_samples

OUTSIDE = 5
"""The code of ground outside of the potential-permafrost domain."""

LEVELS = {
    1: ("unlike the samples", "#b2182b"),
    2: ("permafrost in doubt", "#fdae61"),
    3: ("permafrost sure, type in doubt", "#9ecae1"),
    4: ("no permafrost for sure", "#08519c"),
    OUTSIDE: ("outside of the domain", "#e0e0e0"),
}
"""Levels of trust by code: name and colour; the last one is none, but ground without permafrost by
rule.

Sure is a probability of at least `trust.coverage`. There is no level for one sure type of
permafrost, since hardly any cell has it.
"""

MEANINGS = {
    1: "Too few samples are like this cell: the models extrapolate.",
    2: "Samples are like it, but neither permafrost nor none is sure.",
    3: "Samples are like it, and it surely has permafrost, of one type or another.",
    4: "Samples are like it, and it surely has no permafrost.",
    OUTSIDE: "Outside of the potential-permafrost domain: it has none by rule.",
}


_WINDOW = 30  # samples whose mean error is taken


def undecided(classes: int) -> int:
    """Return how many of so many classes a prediction set has at least that says nothing.

    Examples
    --------
    >>> [undecided(classes) for classes in (2, 3, 6)]
    [2, 2, 5]
    """
    return max(classes - 1, 2)


@dataclass(frozen=True, eq=False)
class LayerTrust:
    """What a layer's samples say about where its forest may be believed.

    Parameters
    ----------
    applicability, plain
        With weighted predictors, and with all alike.
    weights
        Weight of each predictor.
    profile : shape (2, points)
        Dissimilarity, and by how much the most probable class is wrong more often than its
        probability says: a line that never falls.
    limits : shape (k,)
        From `helpers.mapping.conformal.set_limits`; NaN for a class of too few samples.
    rows
        The samples in the domain that the map's models were grown from.
    members : shape (n, k)
        Their prediction sets, by other folds alone.
    has_limit : shape (n,)
        Whether other folds have enough samples of their class.
    """

    layer: str
    applicability: Applicability
    plain: Applicability
    weights: dict[str, float]
    profile: np.ndarray
    limits: np.ndarray
    rows: pd.DataFrame
    members: np.ndarray
    has_limit: np.ndarray


def fit_trust(study: Study, table: pd.DataFrame) -> list[LayerTrust]:
    """Return what the samples say about where the map may be believed, layer by layer.

    All of it is about the potential-permafrost domain: else what is unlike the samples would be the
    ends of climate, where nothing is in doubt. Weights are permutation importances
    (`helpers.forest.out_of_fold.out_of_fold_importance`). Prediction sets are calibrated on samples
    that were predicted by models of other folds (`folds.kind`), which never part what belongs
    together. So the sets are those of a model from a few samples less. The error profile has
    predictions by kNNDM folds, too: these are farther apart.
    """
    cards = [read_card(model_path(study, layer_name(layer))) for layer in study.layers]
    strata = [read_card(model_path(study, card["layer"], kind="ice"))["strata"] for card in cards]
    jobs = []
    for card in cards:
        rows = layer_rows(table, card["layer"], card["fit"], study.target_classes)
        rows = rows[rows["in_domain"]].reset_index(drop=True)
        jobs.append((rows, sample_folds(study, rows), card_params(card)))
    importances = out_of_fold.out_of_fold_importance(study, jobs)
    kinds = [fold for _, fold, _ in jobs], [far_folds(study, rows) for rows, *_ in jobs]
    held_out = [
        predict_held_out(
            study, [(job[0], *one) for job, *one in zip(jobs, folds, strata, strict=True)]
        )
        for folds in kinds
    ]
    trust = []
    for number, (card, (rows, fold, _)) in enumerate(zip(cards, jobs, strict=True)):
        types = rows["class"].to_numpy()
        names = card["predictors"]
        weights = importance_weights(importances[number], names)
        values = predictor_values(rows, names)
        parts = [
            (fit(values, names, weights, folds[number]).training, held[number].classes)
            for folds, held in zip(kinds, held_out, strict=True)
        ]
        chances = parts[0][1]
        members, has_limit = conformal.held_out_sets(chances, types, fold, study.trust.coverage)
        one = LayerTrust(
            layer=card["layer"],
            applicability=fit(values, names, weights, fold),
            plain=fit(values, names, np.ones(len(names)), fold),
            weights=dict(zip(names, weights.tolist(), strict=True)),
            profile=error_profile(types, parts),
            limits=conformal.set_limits(chances, types, study.trust.coverage),
            rows=rows,
            members=members,
            has_limit=has_limit,
        )
        trust.append(one)
    return trust


def layer_space(study: Study, layer: str) -> tuple[pd.DataFrame, list[str], Applicability]:
    """Return a layer's samples in the domain, its predictors, and the space of dissimilarity.

    They are those of a finished map; MapError if its table is missing.
    """
    path = study.results_dir / "tables" / "applicability.json"
    if not path.is_file():
        raise MapError(f"There is no {path.name} of this run.", "run 05-map-ground-ice")
    record = read_json(path)["layers"][layer]
    card = read_card(model_path(study, layer))
    rows = layer_rows(read_samples(study), layer, card["fit"], study.target_classes)
    rows = rows[rows["in_domain"]].reset_index(drop=True)
    names = card["predictors"]
    weights = [record["weights"][name] for name in names]
    # Which folds there are changes the threshold only, and that is the record's.
    space = fit(predictor_values(rows, names), names, weights, np.arange(len(rows)) % 2)
    return rows, names, replace(space, threshold=record["threshold"])


def error_profile(types: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return how much more often than expected the most probable class is wrong, by dissimilarity.

    A line that never falls, by isotonic regression, over means of `_WINDOW` samples each, in the
    order of their dissimilarity: their error, 0 or 1, less what their probabilities let expect. It
    begins at 0 or above. Of single samples it would end as high as the farthest one's error.

    Parameters
    ----------
    types : shape (n,)
        Classes of the samples.
    parts
        Of each kind of folds the samples' dissimilarity to other folds, (n,), and their
        probabilities, (n, k).

    Returns
    -------
    numpy.ndarray, shape (2, points)
        Dissimilarity and excess, for `numpy.interp`.

    References
    ----------
    After the error profiles of the package CAST, which fit the error itself.

    Examples
    --------
    >>> chances = np.array([[0.8, 0.2]] * 60)  # 1 in 5 is to be wrong: 6 of 30
    >>> types = np.repeat([1, 0, 1, 0], [6, 24, 15, 15])  # 6 of 30 near ones are, 15 of 30 far
    >>> error_profile(types, [(np.repeat([0.0, 1.0], 30), chances)]).round(2).tolist()
    [[0.0, 1.0], [0.0, 0.3]]
    """
    dissimilarity = np.concatenate([part for part, _ in parts])
    excess = np.concatenate(
        [(chances.argmax(axis=1) != types) - (1 - chances.max(axis=1)) for _, chances in parts]
    )
    order = dissimilarity.argsort(kind="stable")
    windows = np.array_split(order, max(1, len(order) // _WINDOW))
    means = [[part[window].mean() for window in windows] for part in (dissimilarity, excess)]
    line = IsotonicRegression(y_min=0, out_of_bounds="clip").fit(*means)
    return np.stack([line.X_thresholds_, line.y_thresholds_])


# The map ------------------------------------------------------------------------------------------


def level_of(
    density: npt.ArrayLike, permafrost: npt.ArrayLike, in_domain: npt.ArrayLike, trust: Trust
) -> np.ndarray:
    """Return the level of trust of cells in one layer, uint8, shape (cells,).

    Parameters
    ----------
    density : shape (cells,)
        Local point density; 0 is outside of the area of applicability.
    permafrost : shape (cells,)
        Probability of permafrost.
    in_domain : shape (cells,)
        Whether permafrost is possible by the climate.

    Examples
    --------
    >>> level_of([1, 1, 1, 0, 0], [0.05, 0.5, 0.95, 0.95, 0], [1, 1, 1, 1, 0], Trust()).tolist()
    [4, 2, 3, 1, 5]
    """
    chance = np.asarray(permafrost)
    sure = trust.coverage - PROBABILITY_SCALE / 2  # probabilities of a raster are rounded
    levels = np.where(1 - chance >= sure, 4, np.where(chance >= sure, 3, 2))
    levels = np.where(np.asarray(density) >= trust.similar_samples, levels, 1)
    return np.where(np.asarray(in_domain, bool), levels, 5).astype(np.uint8)


def map_trust(study: Study, trust: Sequence[LayerTrust]) -> None:
    """Write the rasters of `trust_files`, in one pass over the map, and their styles.

    Covariates and class probabilities must be there. Windows are computed side by side, on a dask
    cluster with ``compute.scheduler``, and written in their order: memory does not grow with the
    map, and the result does not depend on the number of cores.
    """
    geobox = reference_grid(study)
    parts = grid_windows(geobox, BLOCK)
    kinds = _raster_kinds(study)
    with contextlib.ExitStack() as stack:
        targets = {}
        for name, path in trust_files(study).items():
            count, dtype, described = kinds[name.rsplit("_", 1)[0]]
            described = {"study": study, "names": name, "units": "1"} | described
            target = open_raster(path, geobox, count, dtype, **described)
            targets[name] = stack.enter_context(target)
        computed = in_parallel(study, partial(_part_rasters, study, trust), parts)
        for part, rasters in zip(parts, computed, strict=True):
            for name, data in rasters.items():
                targets[name].write(data, window=part)
    _write_styles(study, trust)


def _raster_kinds(study: Study) -> dict[str, tuple[int, str, dict[str, Any]]]:
    """Return the number of bands, the type and the profile of each kind of raster."""
    nearest = "distance to the nearest sample by that between samples, predictors weighted"
    near = "samples within the threshold of the area of applicability"
    members = [
        f"classes in the {100 * study.trust.coverage:g} % prediction set",
        "the classes, sum of 2 to the power of each one's code",
    ]
    meanings = {f"meaning_{code}": text for code, text in MEANINGS.items()}
    names = ["dissimilarity_index", "unweighted"]
    titles = [nearest, "the same, all predictors alike"]
    distance = {"names": names, "long_names": titles, "overviews": "average"}
    wrong = "probability that the mapped class is wrong, by the error profile"
    density = {"long_names": near, "overviews": "average", "nodata": MISSING}
    sets = {"names": ["number of classes", "classes"], "long_names": members, "overviews": "mode"}
    levels = {"long_names": "how far the map may be believed", "overviews": "mode"}
    return {
        "dissimilarity_index": (2, "float32", distance),
        "expected_error": (1, "float32", {"long_names": wrong, "overviews": "average"}),
        "point_density": (1, "uint16", density),
        "prediction_set": (2, "uint8", {**sets, "nodata": 0}),
        "trust": (1, "uint8", {**levels, "nodata": 0, "legend": LEVELS, "tags": meanings}),
    }


def _part_rasters(study: Study, trust: Sequence[LayerTrust], part: Part) -> dict[str, np.ndarray]:
    """Return the rasters of a window by name."""
    files = covariate_files(study)
    names = list(trust[0].weights)
    target = study.target_classes
    with (
        open_rasters(layer_files(study, "class_probability")) as probabilities,
        open_rasters(layer_files(study, target.file_name)) as maps,
        open_rasters([files[name] for name in predictors_of(names)]) as predictors,
    ):
        chances = [layer.read(window=part) for layer in probabilities]
        classes = [layer.read(1, window=part) for layer in maps]
        mapped = np.all([layer[0] != MISSING for layer in chances], axis=0)
        read = [predictor.read(1, window=part)[mapped] for predictor in predictors]
        by_name = dict(zip(predictors_of(names), read, strict=True))
        values = [column_values(name, by_name[predictor_of(name)]) for name in names]
    in_domain, _ = in_domain_at(study, part, np.flatnonzero(mapped))
    values = np.stack(values, axis=1)

    def raster(data: np.ndarray, dtype: npt.DTypeLike, none: float) -> np.ndarray:
        whole = np.full((*data.shape[1:], *mapped.shape), none, dtype)
        whole[..., mapped] = data.T
        return whole.reshape(-1, *mapped.shape)

    rasters = {}
    lowest = np.full(len(values), 255, np.uint8)
    inner = values[in_domain]
    for one, layer, types in zip(trust, chances, classes, strict=True):
        used = [names.index(name) for name in one.applicability.predictors]
        dissimilarity = np.full((len(values), 2), np.nan)
        density = np.zeros(len(values), int)
        dissimilarity[in_domain, 0], density[in_domain] = one.applicability.measure(inner[:, used])
        used = [names.index(name) for name in one.plain.predictors]
        dissimilarity[in_domain, 1] = one.plain.measure(inner[:, used])[0]
        steps = layer[:, mapped].T
        members = conformal.prediction_sets(steps, np.rint(one.limits / PROBABILITY_SCALE))
        members[~in_domain] = steps[~in_domain] > 0
        chance = steps[:, target.permafrost].sum(axis=1) * PROBABILITY_SCALE
        levels = level_of(density, chance, in_domain, study.trust)
        lowest = np.minimum(lowest, levels)
        codes = members @ (1 << np.arange(members.shape[1]))
        sets = np.stack([members.sum(axis=1), codes], axis=1)
        density = np.where(in_domain, np.minimum(density, MISSING - 1), MISSING)
        own = np.take_along_axis(steps, types[mapped][:, np.newaxis].astype(int), axis=1)[:, 0]
        error = 1 - own * PROBABILITY_SCALE + np.interp(dissimilarity[:, 0], *one.profile)
        rasters[f"dissimilarity_index_{one.layer}"] = raster(dissimilarity, np.float32, np.nan)
        rasters[f"expected_error_{one.layer}"] = raster(np.minimum(error, 1), np.float32, np.nan)
        rasters[f"point_density_{one.layer}"] = raster(density, np.uint16, MISSING)
        rasters[f"prediction_set_{one.layer}"] = raster(sets, np.uint8, 0)
    rasters["trust"] = raster(lowest, np.uint8, 0)
    return rasters


def _write_styles(study: Study, trust: Sequence[LayerTrust]) -> None:
    """Write the QGIS styles of all rasters.

    Twice the threshold ends the dissimilarity, twice the samples' median the density.
    """
    from matplotlib.colors import to_hex

    files = trust_files(study)
    for one in trust:
        space = one.applicability
        dissimilarity = files[f"dissimilarity_index_{one.layer}"]
        qgis.write_ramp_style(dissimilarity, 2 * space.threshold, "", "lajolla_r")
        density = space.measure(predictor_values(one.rows, space.predictors))[1]
        top = max(2 * np.median(density), 1)
        qgis.write_ramp_style(files[f"point_density_{one.layer}"], top, "samples", "bamako_r")
        qgis.write_ramp_style(files[f"expected_error_{one.layer}"], 1.0, "", "lajolla_r")
        number = one.members.shape[1]
        colours = colour_map("batlow_r")(np.linspace(0, 1, number))
        legend = {
            size: (f"{size} class{'es' if size > 1 else ''}", to_hex(colour))
            for size, colour in enumerate(colours, start=1)
        }
        least = undecided(number)
        legend |= {size: ("undecided", to_hex(colours[-1])) for size in range(least, number + 1)}
        qgis.write_class_style(files[f"prediction_set_{one.layer}"], legend)
    qgis.write_class_style(files["trust"], LEVELS)
