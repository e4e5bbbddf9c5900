"""What a random forest must beat, what its choices cost: baselines, choice of covariates, nested cross-validation.

All of it is judged in the same folds as the forest, on pooled out-of-fold predictions of the training samples.
"""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from helpers.core.classes import TARGETS, layer_name
from helpers.core.scores import DOMAINS, HEADLINE_SCORES, bootstrap_matrices, mapped_class, matrix_scores
from helpers.folds import blocks, kinds, units
from helpers.forest import grid_search, models
from helpers.forest.out_of_fold import out_of_fold
from helpers.prepare.registry import used_predictors
from helpers.samples.rows import layer_rows, predictor_values

MODELS = {
    "forest": "random forest",
    "most_frequent": "most frequent class",
    "frost_number": "frost-number threshold",
    "logistic": "multinomial logistic regression",
    "boosting": "gradient-boosted trees",
    "neighbours": "nearest neighbours in space",
}
"""The forest and its baselines, by their keys in ``baselines.csv``."""


_NEIGHBOURS = 5


def _estimators(study):
    """Return each baseline's estimator and the columns of the samples that it sees."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    names, seed = used_predictors(study), study.folds.seed
    linear = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000))
    boosting = HistGradientBoostingClassifier(class_weight="balanced", early_stopping=False, random_state=seed)
    return {
        "most_frequent": (DummyClassifier(), names),
        # A tree of one split is a threshold, the best one of the training samples.
        "frost_number": (DecisionTreeClassifier(max_depth=1, random_state=seed), ["air_frost_number"]),
        "logistic": (linear, names),
        "boosting": (boosting, names),
        "neighbours": (KNeighborsClassifier(_NEIGHBOURS, weights="distance"), ["easting", "northing"]),
    }


def compare_models(study, table, params, kind=None, n_jobs=-1):
    """Judge the forest and its baselines in the same folds.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples of all layers, with air_frost_number; only training samples are looked at.
    params : dict of str to dict
        The forest's hyperparameters of each layer. The baselines have scikit-learn's defaults.
    kind : str, optional
        Of folds, as `helpers.folds.kinds.sample_folds` takes it.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a layer, domain and model (a key of `MODELS`): n, the scores, and for baselines how much lower than the
        forest's each score is, with its 95 % interval (``kappa_difference``, ``kappa_low``, ``kappa_high``).

    Notes
    -----
    The interval is of a bootstrap that draws square blocks of `folds.block_km`, not samples: neighbours are not
    independent. Both models are scored on the same draws.
    """
    layers, classes = [layer_name(layer) for layer in study.layers], TARGETS[study.target].codes
    rows = {layer: layer_rows(table, layer, "train", study.target) for layer in layers}
    folds = {layer: kinds.sample_folds(study, rows[layer], kind) for layer in layers}
    grown = out_of_fold(study, [(rows[layer], folds[layer], params[layer]) for layer in layers], n_jobs)
    found = []
    for layer, probabilities in zip(layers, grown, strict=True):
        part, fold, known = rows[layer], folds[layer], rows[layer]["class"].to_numpy()
        mapped = {"forest": mapped_class(probabilities, study.target)}
        for name, (estimator, columns) in _estimators(study).items():
            mapped[name] = _predicted(estimator, part[columns].to_numpy(float), known, fold)
        places, unit = part[["easting", "northing"]].to_numpy(float), units.sample_units(study, part)
        block = blocks.blocks(places, unit, 1000 * study.folds.block_km)
        for domain, inside in zip(DOMAINS, (np.ones(len(part), bool), part["in_domain"].to_numpy(bool)), strict=True):
            if inside.any():
                drawn = _drawn_scores(mapped, known, inside, block, classes, np.random.default_rng(study.folds.seed))
                found += _rows({"layer": layer, "domain": domain, "n": int(inside.sum())}, drawn)
    return pd.DataFrame(found)


def _predicted(estimator, values, known, fold):
    from sklearn.base import clone

    mapped = np.empty_like(known)
    for number in np.unique(fold):
        held = fold == number
        if len(np.unique(known[~held])) < 2:
            mapped[held] = known[~held][0]  # nothing is to be told apart
            continue
        # Samples are few: threads would wait for one another, on a busy machine thirty times as long as they work.
        with threadpool_limits(1):
            mapped[held] = clone(estimator).fit(values[~held], known[~held]).predict(values[held])
    return mapped


def _drawn_scores(mapped, known, inside, block, classes, rng):
    """Return each model's `SCORES` of all samples (first) and of bootstrap draws of whole blocks, shape (1 + draws, 3).

    Kappa counts as 0 where one class alone is mapped and in the reference.
    """
    draws, found = blocks.sample_blocks(block[inside], blocks.DRAWS, rng), {}
    for name, predicted in mapped.items():
        matrices = bootstrap_matrices(known[inside], predicted[inside], len(classes), draws)
        found[name] = np.nan_to_num(np.column_stack([matrix_scores(matrices)[score] for score in HEADLINE_SCORES]))
    return found


def _rows(first, drawn):
    rows = []
    for name, scores in drawn.items():
        row = first | {"model": name} | dict(zip(HEADLINE_SCORES, scores[0].tolist(), strict=True))
        if name != "forest":
            less = drawn["forest"] - scores
            low, high = np.percentile(less[1:], [2.5, 97.5], axis=0)
            for place, score in enumerate(HEADLINE_SCORES):
                row |= {f"{score}_difference": less[0, place], f"{score}_low": low[place], f"{score}_high": high[place]}
        rows.append(row)
    return rows


def selection_optimism(study, table, layer, search=grid_search.search):
    """Measure by how much a search's winner scores too high, because it was chosen for its score.

    The whole search is repeated without each fold in turn, and its winner predicts that fold: a nested
    cross-validation. Its score, less than the winner's own by the optimism, is fair.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        Samples; only the layer's training samples are looked at.
    layer : str
    search : callable
        As `helpers.forest.grid_search.search`, of study, table and layer.

    Returns
    -------
    pandas.DataFrame
        Index score: ``winner``, ``nested`` and their difference ``optimism``, on pooled out-of-fold predictions.
    """
    rows = layer_rows(table, layer, "train", study.target)
    winner, nested = search(study, table, layer), np.empty((len(rows), len(TARGETS[study.target].codes)))
    for number in np.unique(winner.fold):
        held = winner.fold == number
        others = table[~table["site_id"].isin(rows.loc[held, "site_id"])]
        model = models.fit(study, others, layer, search(study, others, layer).params, "train")
        values = predictor_values(rows[held], used_predictors(study))
        nested[held] = models.class_probabilities(model, values, TARGETS[study.target].codes)
    scores = {
        "winner": winner.scores,
        "nested": grid_search.score_probabilities(winner.reference, nested, study.target),
    }
    found = pd.DataFrame(scores).rename_axis("score")
    return found.assign(optimism=found["winner"] - found["nested"])


def forward_selection(study, table, layer, params, kind="knndm", n_jobs=-1):
    """Choose predictors one by one: the one that raises kappa most is added, until none raises it.

    Spatial folds are what makes this worth while: predictors that only tell where a sample lies help in random folds
    and do not on the map (Meyer et al. 2019). Scores of the chosen ones are optimistic; judge them on other samples.

    Parameters
    ----------
    study : helpers.core.study.Study
        Forests have `folds.estimators` trees.
    table : pandas.DataFrame
        Samples; only the layer's training samples are looked at.
    layer : str
    params : dict
        The forest's hyperparameters.
    kind : str
        Of folds, as `helpers.folds.kinds.sample_folds` takes it.
    n_jobs : int
        Processes at once. The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row a step: ``predictor`` added, and ``kappa`` with it and all before it. The last step is the best.

    References
    ----------
    Meyer, H., Reudenbach, C., Woellauer, S., Nauss, T. (2019). Importance of spatial predictor variable selection in
    machine learning applications: moving from data reproduction to spatial prediction. Ecol. Model. 411, 108815.
    https://doi.org/10.1016/j.ecolmodel.2019.108815
    """
    from joblib import Parallel, delayed

    rows = layer_rows(table, layer, "train", study.target)
    fold, left, steps = kinds.sample_folds(study, rows, kind), used_predictors(study), []
    with Parallel(n_jobs) as pool:
        while left:
            chosen = [step["predictor"] for step in steps]
            tried = [study.model_copy(update={"predictors": [*chosen, name]}) for name in left]
            kappas = pool(delayed(_kappa)(one, rows, fold, params) for one in tried)
            best = int(np.argmax(kappas))
            if steps and kappas[best] <= steps[-1]["kappa"]:
                break
            steps.append({"predictor": left.pop(best), "kappa": kappas[best]})
    return pd.DataFrame(steps)


def _kappa(study, rows, fold, params):
    (probabilities,) = out_of_fold(study, [(rows, fold, params)], n_jobs=1)
    return grid_search.score_probabilities(rows["class"], probabilities, study.target)["kappa"]
