"""Why the map says what it says in a cell: by its forest, and by the samples that are like it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.accuracy.importance import shapley_explainer
from helpers.core.classes import layer_title
from helpers.core.errors import listed
from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.forest.cards import load_model
from helpers.forest.paths import model_path
from helpers.mapping.files import trust_files
from helpers.mapping.trust import MEANINGS, OUTSIDE, layer_space
from helpers.prepare.columns import column_title, column_values, predictor_of, predictors_of
from helpers.prepare.registry import covariate_files, covariates

SHOWN = 5
"""Samples that are told as nearest."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a layer's map of a cell rests on: a sentence, and tables by their captions.

    ``parts`` is the whole table of predictors, by the columns of the forest.
    """

    summary: str
    parts: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]


class Explainer:
    """Explains cells of one layer; forest and samples are read once.

    Parameters
    ----------
    study
        A finished run.
    layer
        The name of a layer, such as ``2-3m``.

    Raises
    ------
    ModelError, ExplorerError or SampleError
        If a model, a table or samples of the run are missing.
    """

    def __init__(self, study: Study, layer: str) -> None:
        self.study, self.layer = study, layer
        self.forest, self.card = load_model(model_path(study, layer), study.target)
        self.rows, self.columns, self.space = layer_space(study, layer)
        self.explainer = shapley_explainer(self.forest)

    def at(self, easting: float, northing: float) -> Explanation:
        """Explain the cell that holds a point, in m or degrees of the grid.

        Notes
        -----
        Votes are those of the balanced forest of the reference's map. What its predictors add to
        the votes for permafrost are Shapley values (`helpers.accuracy.importance`). The
        dissimilarity index is the distance to the nearest sample; its square is a sum over
        predictors, of which each has a share.
        """
        values = self._values(easting, northing)
        title = layer_title(self.layer)
        if missing := [name for name, value in values.items() if np.isnan(value)]:
            summary = f"{title}: no data here of {listed(missing, 5)}."
            return Explanation(summary, pd.DataFrame(), {})
        one = np.array([column_values(name, values[predictor_of(name)]) for name in self.columns])
        cell = one.astype(np.float32)[np.newaxis]
        permafrost = self.study.target_classes.permafrost[self.forest.classes_]
        votes = float(self.forest.predict_proba(cell)[0, permafrost].sum())
        base = float(np.asarray(self.explainer.expected_value)[permafrost].sum())
        added = self.explainer.shap_values(cell)[0][:, permafrost].sum(axis=-1)
        apart = self._apart(cell)
        distance = np.sqrt((apart**2).sum(axis=1))
        nearest = int(distance.argmin())
        share = np.zeros(len(self.columns))
        places = [self.columns.index(name) for name in self.space.predictors]
        share[places] = apart[nearest] ** 2 / max(distance[nearest] ** 2, 1e-300)
        parts = pd.DataFrame(
            {"column": self.columns, "value": one, "adds": added, "share": share, "base": base}
        )
        (level,) = values_at(trust_files(self.study)["trust"], [easting], [northing])
        rule = f"{MEANINGS[OUTSIDE]} The forest itself: " if level == OUTSIDE else ""
        limit = self.space.threshold
        like = "like" if distance[nearest] <= limit else "unlike"
        summary = (
            f"{title}: {rule}{100 * votes:.0f} % of the votes are for permafrost, "
            f"{100 * base:.0f} % without any predictor. Dissimilarity index "
            f"{distance[nearest]:.2f}, {like} the samples (limit {limit:.2f})."
        )
        samples = self._samples(easting, northing, distance)
        tables = {
            "What predictors add to the votes for permafrost, and to the dissimilarity": (
                self._by_predictor(parts, values)
            ),
            "Nearest samples in predictors": samples.nsmallest(SHOWN, "dissimilarity"),
            "Nearest samples on the ground": samples.nsmallest(SHOWN, "km"),
        }
        return Explanation(summary, parts, tables)

    def _values(self, easting: float, northing: float) -> dict[str, float]:
        """Return the predictors of the cell that holds a point, NaN where there is none."""
        files = covariate_files(self.study)
        return {
            name: float(values_at(files[name], [easting], [northing])[0])
            for name in predictors_of(self.columns)
        }

    def _apart(self, cell: np.ndarray) -> np.ndarray:
        """Return how far samples are from a cell along each predictor with a weight, (n, p)."""
        space = self.space
        places = [self.columns.index(name) for name in space.predictors]
        return (cell[:, places] - space.centre) * space.factor - space.points

    def _samples(self, easting: float, northing: float, distance: np.ndarray) -> pd.DataFrame:
        """Return class and distances of each sample."""
        names = np.array(self.study.target_classes.names)
        away = np.hypot(self.rows["easting"] - easting, self.rows["northing"] - northing)
        columns = {"site_id": self.rows["site_id"], "class": names[self.rows["class"]]}
        return pd.DataFrame(columns | {"dissimilarity": distance, "km": away / 1000})

    def _by_predictor(self, parts: pd.DataFrame, values: dict[str, float]) -> pd.DataFrame:
        """Return the table of predictors, the columns of a category together, largest first."""
        table = parts.groupby(parts["column"].map(predictor_of), sort=False)[
            ["adds", "share"]
        ].sum()
        units = [covariates(self.study)[name].unit for name in table.index]
        table.insert(0, "predictor", [column_title(self.study, name) for name in table.index])
        table.insert(1, "value", [values[name] for name in table.index])
        table.insert(2, "unit", ["" if unit == "1" else unit for unit in units])
        return table.sort_values("adds", key=abs, ascending=False)
