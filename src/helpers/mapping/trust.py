"""How far the map may be believed, by cell and layer.

These are the dissimilarity index and local point density of each layer, the set of classes that are
possible at the stated probability, and one map of four plain levels.
"""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import cpu_count

from helpers.core import qgis
from helpers.core.classes import layer_name
from helpers.core.grid import reference_grid
from helpers.core.plot import colour_map
from helpers.core.rasters import BLOCK, open_raster
from helpers.core.settings import Trust
from helpers.core.study import Study
from helpers.folds.kinds import sample_folds
from helpers.forest import out_of_fold
from helpers.forest.cards import card_params, read_card
from helpers.forest.hurdle import PROBABILITY_SCALE, predict_held_out
from helpers.forest.paths import model_path
from helpers.mapping import conformal
from helpers.mapping.applicability import Applicability, fit, importance_weights
from helpers.mapping.files import (
    MISSING,
    Part,
    grid_windows,
    layer_files,
    open_rasters,
    trust_files,
)
from helpers.prepare.columns import column_values, predictor_of, predictors_of
from helpers.prepare.domain import domain_covariates
from helpers.prepare.registry import covariate_files
from helpers.samples.rows import layer_rows, predictor_values

LEVELS = {
    1: ("unlike the samples", "#b2182b"),
    2: ("permafrost in doubt", "#fdae61"),
    3: ("permafrost sure, class in doubt", "#9ecae1"),
    4: ("sure", "#08519c"),
}
"""Levels of trust by code: name and colour.

Sure is a calibrated probability of at least `trust.coverage`; a class may be where it is in the
prediction set.
"""

MEANINGS = {
    1: "Too few samples are like this cell: the forest extrapolates.",
    2: "Samples are like it, but neither permafrost nor none is sure.",
    3: "It surely has permafrost, and may be of more than one class.",
    4: "It surely has no permafrost, or surely has permafrost of one class.",
}


@dataclass(frozen=True, eq=False)
class LayerTrust:
    """What a layer's samples say about where its forest may be believed.

    Parameters
    ----------
    weights
        Weight of each predictor.
    limits : shape (k,)
        From `helpers.mapping.conformal.set_limits`; NaN for a class of too few samples.
    rows
        The samples that the map's forest was grown from.
    members : shape (n, k)
        Their prediction sets, by other folds alone.
    has_limit : shape (n,)
        Whether other folds have enough samples of their class.
    """

    layer: str
    applicability: Applicability
    weights: dict[str, float]
    limits: np.ndarray
    rows: pd.DataFrame
    members: np.ndarray
    has_limit: np.ndarray


def fit_trust(study: Study, table: pd.DataFrame) -> list[LayerTrust]:
    """Return what the samples say about where the map may be believed, layer by layer.

    Weights are permutation importances (`helpers.forest.out_of_fold.out_of_fold_importance`).
    Prediction sets are calibrated on all samples of the map's models, each predicted by models of
    other folds (`folds.kind`), which never part what belongs together. So the sets are those of a
    model from a few samples less.
    """
    cards = [read_card(model_path(study, layer_name(layer))) for layer in study.layers]
    jobs = []
    for card in cards:
        rows = layer_rows(table, card["layer"], card["fit"], study.target_classes)
        jobs.append((rows, sample_folds(study, rows), card_params(card)))
    strata = [read_card(model_path(study, card["layer"], kind="ice"))["strata"] for card in cards]
    parts = [(rows, fold, one) for (rows, fold, _), one in zip(jobs, strata, strict=True)]
    probabilities = predict_held_out(study, parts)
    importances = out_of_fold.out_of_fold_importance(study, jobs)
    coverage = study.trust.coverage
    trust = []
    fitted = zip(jobs, cards, probabilities, importances, strict=True)
    for (rows, fold, _), card, held_out, importance in fitted:
        types = rows["class"].to_numpy()
        chances = held_out.classes
        names = card["predictors"]
        weights = importance_weights(importance, names)
        members, has_limit = conformal.held_out_sets(chances, types, fold, coverage)
        one = LayerTrust(
            layer=card["layer"],
            applicability=fit(predictor_values(rows, names), names, weights, fold),
            weights=dict(zip(names, weights.tolist(), strict=True)),
            limits=conformal.set_limits(chances, types, coverage),
            rows=rows,
            members=members,
            has_limit=has_limit,
        )
        trust.append(one)
    return trust


# The map ------------------------------------------------------------------------------------------


def level_of(
    density: npt.ArrayLike,
    none: npt.ArrayLike,
    members: np.ndarray,
    in_domain: npt.ArrayLike,
    trust: Trust,
) -> np.ndarray:
    """Return the level of trust of cells in one layer, uint8, shape (cells,).

    Parameters
    ----------
    density : shape (cells,)
        Local point density; 0 is outside of the area of applicability.
    none : shape (cells,)
        Calibrated probability of no permafrost.
    members : shape (cells, k)
        Which classes of permafrost are in the prediction sets.
    in_domain : shape (cells,)
        Whether permafrost is possible by the climate. Where it is not, no sample is needed to know
        that there is none.

    Examples
    --------
    >>> sets = np.array([[1, 0], [1, 0], [1, 1], [0, 1]], bool)
    >>> none = np.array([0.95, 0.5, 0.1, 0.1])
    >>> level_of(np.ones(4), none, sets, np.ones(4, bool), Trust()).tolist()
    [4, 2, 3, 4]
    >>> level_of(np.zeros(4), none, sets, np.zeros(4, bool), Trust()).tolist()
    [4, 1, 1, 1]
    """
    none = np.asarray(none)
    sure = trust.coverage - PROBABILITY_SCALE / 2  # probabilities of a raster are rounded
    free = none >= sure
    frozen = 1 - none >= sure
    levels = np.where(free, 4, np.where(frozen, np.where(members.sum(axis=1) > 1, 3, 4), 2))
    similar = np.asarray(density) >= trust.similar_samples
    return np.where(similar | (free & ~np.asarray(in_domain, bool)), levels, 1).astype(np.uint8)


def map_trust(study: Study, trust: Sequence[LayerTrust]) -> None:
    """Write the rasters of `trust_files`, in one pass over the map, and their styles.

    Covariates and class probabilities must be there. Windows are computed side by side and written
    in their order: memory does not grow with the map, and the result does not depend on the number
    of cores.
    """
    geobox = reference_grid(study)
    threads = cpu_count()
    parts = grid_windows(geobox, BLOCK)
    kinds = _raster_kinds(study)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        targets = {}
        for name, path in trust_files(study).items():
            count, dtype, described = kinds[name.rsplit("_", 1)[0]]
            described = {"study": study, "names": name, "units": "1"} | described
            target = open_raster(path, geobox, count, dtype, **described)
            targets[name] = stack.enter_context(target)
        for first in range(0, len(parts), 2 * threads):
            some = parts[first : first + 2 * threads]
            computed = pool.map(lambda part: _part_rasters(study, trust, part), some)
            for part, rasters in zip(some, computed, strict=True):
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
    distance = {"long_names": nearest, "overviews": "average"}
    density = {"long_names": near, "overviews": "average", "nodata": MISSING}
    sets = {"names": ["number of classes", "classes"], "long_names": members, "overviews": "mode"}
    levels = {"long_names": "how far the map may be believed", "overviews": "mode"}
    return {
        "dissimilarity_index": (1, "float32", distance),
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
        open_rasters([files[name] for name in predictors_of(names)]) as predictors,
        open_rasters([files[name] for name in domain_covariates(study)]) as rule,
    ):
        chances = [layer.read(window=part) for layer in probabilities]
        mapped = np.all([layer[0] != MISSING for layer in chances], axis=0)
        read = [predictor.read(1, window=part)[mapped] for predictor in predictors]
        by_name = dict(zip(predictors_of(names), read, strict=True))
        values = [column_values(name, by_name[predictor_of(name)]) for name in names]
        in_domain = np.ones(np.count_nonzero(mapped), bool)
        for covariate in rule:
            in_domain &= covariate.read(1, window=part)[mapped] > study.domain.above
    values = np.stack(values, axis=1)

    def raster(data: np.ndarray, dtype: npt.DTypeLike, none: float) -> np.ndarray:
        whole = np.full((*data.shape[1:], *mapped.shape), none, dtype)
        whole[..., mapped] = data.T
        return whole.reshape(-1, *mapped.shape)

    rasters = {}
    lowest = np.full(len(values), 255, np.uint8)
    for one, layer in zip(trust, chances, strict=True):
        used = [names.index(name) for name in one.applicability.predictors]
        dissimilarity, density = one.applicability.measure(values[:, used])
        steps = layer[:, mapped].T
        members = conformal.prediction_sets(steps, np.rint(one.limits / PROBABILITY_SCALE))
        none = steps[:, target.free].sum(axis=1) * PROBABILITY_SCALE
        icy = members[:, target.permafrost]
        levels = level_of(density, none, icy, in_domain, study.trust)
        lowest = np.minimum(lowest, levels)
        codes = members @ (1 << np.arange(members.shape[1]))
        sets = np.stack([members.sum(axis=1), codes], axis=1)
        density = np.minimum(density, MISSING - 1)
        rasters[f"dissimilarity_index_{one.layer}"] = raster(dissimilarity, np.float32, np.nan)
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
        colours = colour_map("batlow_r")(np.linspace(0, 1, one.members.shape[1]))
        legend = {
            size: (f"{size} class{'es' if size > 1 else ''}", to_hex(colour))
            for size, colour in enumerate(colours, start=1)
        }
        qgis.write_class_style(files[f"prediction_set_{one.layer}"], legend)
    qgis.write_class_style(files["trust"], LEVELS)
