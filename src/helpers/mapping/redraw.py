"""What the models of the ice would say of cells if other sites had been drilled.

Sites are resampled by square blocks, because neighbours are not independent. The logistic
regression is fitted anew, and so is what the leaves of both forests hold; the trees stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier

from helpers.core.classes import layer_name
from helpers.core.study import Study
from helpers.folds.blocks import study_blocks
from helpers.folds.kinds import far_folds
from helpers.forest.cards import load_hurdle
from helpers.forest.hurdle import PULL, Hurdle, Prediction, joined, learning_rows, predict_held_out
from helpers.forest.paths import model_path
from helpers.mapping.cells import Cells
from helpers.mapping.files import MapError
from helpers.samples.prevalence import shift_at, shift_to, shifted, strata_at
from helpers.samples.rows import forest_predictors, layer_rows

_NEWTON = 6  # steps from the fit of all samples; a test holds log-odds to scikit-learn's


@dataclass(frozen=True, eq=False)
class Redraw:
    """How often each block of sites is drawn.

    Parameters
    ----------
    table
        All samples, with `block`.
    counts : shape (draws, blocks)
    shares : shape (draws,)
        Where in its range each known share of permafrost lies, 0 to 1: one source errs one way
        everywhere. How far it may err is its own word, so that what multiplies the deviations of
        refitted models (`uncertainty.refit_inflation`) is taken out of it.
    """

    table: pd.DataFrame
    counts: np.ndarray
    shares: np.ndarray


def redraw(study: Study, table: pd.DataFrame, rng: np.random.Generator) -> Redraw:
    """Draw the blocks of the sites of a table of samples; MapError if there are fewer than four."""
    settings = study.uncertainty
    table = table.assign(block=study_blocks(study, table, settings.block_km))
    blocks = int(table["block"].max()) + 1
    if blocks < 4:
        raise MapError(
            f"The sites lie in {blocks} blocks of {settings.block_km:g} km: "
            "too few to be resampled.",
            "set a smaller uncertainty.block_km",
        )
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), settings.draws)
    shares = 0.5 + (rng.random(settings.draws) - 0.5) / settings.refit_inflation
    return Redraw(table, counts, shares)


@dataclass(frozen=True, eq=False)
class LayerModels:
    """A layer's models, and what draws of them are made from.

    Parameters
    ----------
    rows
        All samples of the layer, with `block`.
    learnt
        Those that the hurdle model has learned from.
    at_samples
        What is expected of the samples by models without their fold, of folds that are as far
        from each other as the cells are from the samples: near ones would hide what the models do
        not know where there is no sample.
    depths
        Top and bottom of the layer, m.
    """

    rows: pd.DataFrame
    learnt: pd.DataFrame
    hurdle: Hurdle
    at_samples: Prediction
    depths: tuple[float, float]

    @property
    def thickness(self) -> float:
        """Thickness of the layer, m."""
        return self.depths[1] - self.depths[0]

    def expected(self, study: Study, cells: Cells) -> Prediction:
        """Return what the map's models expect of cells."""
        shift = shift_at(study, self.hurdle.strata, cells.values, cells.points)
        return self.hurdle.predict(cells.values, cells.in_domain, shift)

    def redrawn(
        self, study: Study, drawn: Redraw, cells: Cells, *others: Cells
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return P and contents by how often each block is drawn, (draws, cells), of each `Cells`.

        The first of them stand for the map: where shares of permafrost are known, P of these agrees
        with the share of each draw, and P of the others is shifted as much.
        """
        parts = [cells, *others]
        answers = [self._refitted(study, drawn, part.values) for part in parts]
        strata = [strata_at(study, self.hurdle.strata, part.values, part.points) for part in parts]
        places = [
            [
                np.flatnonzero((of == number) & part.in_domain)
                for of, part in zip(strata, parts, strict=True)
            ]
            for number in range(len(self.hurdle.strata))
        ]
        for row, inside in zip(self.hurdle.strata, places, strict=True):
            if not inside[0].size:  # a stratum between the cells of the sample
                continue
            known = np.interp(drawn.shares, [0, 0.5, 1], [row["low"], row["share"], row["high"]])
            shifts = [
                shift_to(one[inside[0]], share)
                for one, share in zip(answers[0][0], known, strict=True)
            ]
            for (chance, _), place in zip(answers, inside, strict=True):
                chance[:, place] = shifted(chance[:, place], np.array(shifts)[:, np.newaxis])
        return answers

    def _refitted(
        self, study: Study, drawn: Redraw, cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return P and contents by the refitted models, before any share, (draws, cells)."""
        values = forest_predictors(study, self.learnt)
        count = drawn.counts[:, self.learnt["block"]].astype(float)
        frozen = study.target_classes.permafrost[self.learnt["class"]]
        fraction = self.learnt["ice_fraction"].to_numpy(float)
        forest, contents = self.hurdle.forests[:2]
        votes = _redrawn_leaves(forest, values, frozen.astype(float), count, cells)
        iced = values[frozen], fraction[frozen], count[:, frozen]
        content = _redrawn_leaves(contents, *iced, cells)
        return joined(votes, self._logistic(values, frozen, count, cells)), content

    def _logistic(
        self, values: np.ndarray, frozen: np.ndarray, count: np.ndarray, cells: np.ndarray
    ) -> np.ndarray:
        """Return the log-odds of the cells by the logistic regression of each draw, (draws, cells).

        By Newton's method, from the fitted one, all draws at once.
        """
        mean, sd = values.mean(axis=0, dtype=float), values.std(axis=0, dtype=float)
        sd[sd == 0] = 1
        at, to = (
            np.column_stack([np.ones(len(part)), (part - mean) / sd]) for part in (values, cells)
        )
        first = self.hurdle.intercept + np.dot(self.hurdle.slope, mean)
        fitted = np.tile(np.append(first, self.hurdle.slope * sd), (len(count), 1))
        pull = np.append(0, np.full(len(mean), 1 / PULL))
        for _ in range(_NEWTON):
            chance = expit(fitted @ at.T)
            slope = (count * (chance - frozen)) @ at + pull * fitted
            weight = count * np.maximum(chance * (1 - chance), 1e-6)
            curve = np.einsum("dn,np,nq->dpq", weight, at, at, optimize=True) + np.diag(pull)
            fitted = fitted - np.linalg.solve(curve, slope[:, :, np.newaxis])[:, :, 0]
        return fitted @ to.T

    def volume(self, content: np.ndarray, cells: Cells) -> np.ndarray:
        """Return km3 of ice by region, (draws, regions), from ice fractions (draws, cells)."""
        inside = np.where(cells.in_domain, cells.ground.holds(content, self.depths), 0)
        sums = [np.bincount(cells.region, one, len(cells.names)) for one in inside]
        return np.stack(sums) * (self.thickness * cells.side**2 / 1e9)


def _redrawn_leaves(
    forest: RandomForestClassifier,
    values: np.ndarray,
    target: np.ndarray,
    count: np.ndarray,
    cells: np.ndarray,
) -> np.ndarray:
    """Return a forest's mean of a target by how often samples are drawn: (draws, cells).

    Of a leaf without a drawn sample, it is that of all samples.
    """
    total = np.zeros((len(count), len(cells)))
    for grown in forest.estimators_:
        leaf = grown.tree_.apply(values)
        there, place = np.unique(leaf, return_inverse=True)
        own = np.eye(len(there))[place]
        number = count @ own
        usual = own.T @ target / own.sum(axis=0)
        mean = np.where(number > 0, (count * target) @ own / np.maximum(number, 1), usual)
        total += mean[:, np.searchsorted(there, grown.tree_.apply(cells))]
    return total / len(forest.estimators_)


def layer_models(
    study: Study, table: pd.DataFrame, hurdles: Sequence[Hurdle] | None = None
) -> list[LayerModels]:
    """Return all layers; the table is that of `Redraw`, hurdle models are by default the map's."""
    rows = [
        layer_rows(table, layer_name(layer), study.forest.map_fit, study.target_classes)
        for layer in study.depths
    ]
    if hurdles is None:
        paths = [model_path(study, layer_name(layer), kind="ice") for layer in study.depths]
        hurdles = [load_hurdle(path, study.target)[0] for path in paths]
    jobs = [
        (part, far_folds(study, part), hurdle.strata)
        for part, hurdle in zip(rows, hurdles, strict=True)
    ]
    layers = []
    of_layers = zip(rows, hurdles, predict_held_out(study, jobs), study.depths, strict=True)
    for part, hurdle, held_out, depths in of_layers:
        learnt = learning_rows(study, part)
        layers.append(LayerModels(part, learnt, hurdle, held_out, depths))
    return layers
