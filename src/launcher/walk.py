"""The numbers of a study of polygons: those of the README, and of the lesson, `docs/yukon.md`."""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.accuracy.estimates import ESTIMATES
from helpers.core.classes import layer_name
from helpers.core.files import read_json
from helpers.core.study import Study
from helpers.forest.cards import card_params, read_card
from helpers.forest.paths import model_path
from helpers.mapping.trust import undecided
from helpers.samples.store import read_samples
from launcher.markdown import table
from launcher.stages import record_path, stages_of

_SHOWN = ("test", "random", "blocks", "cells")


def blocks_of_walk(study: Study, numbers: dict[str, Any]) -> dict[str, str]:
    """Return the blocks of the lesson by their names, from headline numbers and a run's tables."""
    parts = {
        "samples": samples_block(study),
        "forest": forest_block(study),
        "classes": classes_block(study),
        "distance": distance_block(study),
        "trust": trust_block(study),
    }
    blocks = {f"{study.name}-{name}": text for name, text in parts.items()}
    return {study.name: accuracy_block(study, numbers)} | blocks


def polygon_rows(numbers: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Give a row an estimate of a study with polygons: by whole ones first, then by cells."""
    (layer,) = numbers["layers"].values()
    accuracy = layer["maps"]["reference"]["accuracy"]
    for name in (name for name in _SHOWN if name in accuracy):
        scores = accuracy[name]
        ends = f"{scores['kappa_lower']:.2f} to {scores['kappa_upper']:.2f}"
        yield {
            "accuracy on": ESTIMATES[name],
            "polygons": str(layer["groups"]["test" if name == "test" else "train"]),
            "cells": str(scores["n"]),
            "overall accuracy": f"{scores['overall_accuracy']:.2f}",
            "kappa (90 % interval)": f"{scores['kappa']:.2f} ({ends})",
        }


def accuracy_block(study: Study, numbers: dict[str, Any]) -> str:
    """Return the estimates of accuracy side by side, and how long the notebooks take."""
    (layer,) = numbers["layers"].values()
    accuracy = layer["maps"]["reference"]["accuracy"]
    more = accuracy["cells"]["kappa"] - accuracy["random"]["kappa"]
    seconds = sum(read_json(record_path(study, name))["seconds"] for name in stages_of(study))
    note = (
        "Test samples and random folds are whole polygons. Folds of single cells split them, which "
        f"makes kappa {more:.2f} higher: neighbouring cells of one polygon are not independent "
        f"evidence. All notebooks together take {seconds:.0f} s on 2 cores."
    )
    return f"{table(polygon_rows(numbers))}\n\n{note}"


def samples_block(study: Study) -> str:
    """Return how many polygons and cells each class has, for training and for the test."""
    samples = read_samples(study)
    counted = samples.groupby(["ice_type", "split"])["group"].agg(["nunique", "size"])
    rows = [
        {
            "class": name,
            "polygons for training": str(counted.loc[(code, "train"), "nunique"]),
            "for the test": str(counted.loc[(code, "test"), "nunique"]),
            "cells for training": str(counted.loc[(code, "train"), "size"]),
            "cells for the test": str(counted.loc[(code, "test"), "size"]),
        }
        for code, name in enumerate(study.target_classes.names)
    ]
    lost = read_json(study.results_dir / "samples/counts.json")
    notes = [f"; {one['sites']} more gave none: {reason}" for reason, one in lost.items()]
    return f"{table(rows)}\n\n{samples['group'].nunique()} polygons gave samples{''.join(notes)}."


def forest_block(study: Study) -> str:
    """Return which forest was chosen, and how many others were as good."""
    (layer,) = (layer_name(one) for one in study.layers)
    chosen = card_params(read_card(model_path(study, layer, "train")))
    depth = chosen["max_depth"] or "any number of"
    search = pd.read_csv(study.results_dir / f"tables/search_{layer}.csv")
    best = search[search["chosen"]].iloc[0]
    near = search["kappa"] >= best["kappa"] - best["kappa_se"]
    return (
        f"{len(search)} combinations were scored out of fold. The chosen one has "
        f"{chosen['n_estimators']} trees of at most {depth} levels, and a kappa of "
        f"{best['kappa']:.2f} with a standard error of {best['kappa_se']:.2f}. "
        f"{near.sum()} of the {len(search)} are no more than one standard error below it."
    )


def classes_block(study: Study) -> str:
    """Return the accuracy of each class of the reference's map, beside its area in both maps."""
    tables = study.results_dir / "tables"
    accuracy = pd.read_csv(tables / "accuracy_by_class.csv").set_index("class")
    areas = {(one["map"], one["class"]): one for one in _records(tables / "class_areas.csv")}
    rows = []
    for one in _records(tables / "accuracy_by_class.csv"):
        code = one["class"]
        area, other = areas["reference", code], areas["expected", code]
        ends = f"{area['adjusted_lower']:.0f} to {area['adjusted_upper']:.0f}"
        rows.append(
            {
                "class": one["class_name"],
                "test cells": f"{one['support']:.0f}",
                "mapped as it": f"{accuracy[f'mapped_as_{code}'].sum():.0f}",
                "user's accuracy": f"{one['precision']:.2f}",
                "producer's accuracy": f"{one['recall']:.2f}",
                "mapped, km2": f"{area['mapped_km2']:.0f}",
                "estimated, km2 (90 % interval)": f"{area['adjusted_km2']:.0f} ({ends})",
                "in the map of the expected area, km2": f"{other['mapped_km2']:.0f}",
            }
        )
    most = accuracy.loc[accuracy["support"].idxmax()]
    share = most["support"] / accuracy["support"].sum()
    scores = pd.read_csv(tables / "accuracy.csv").set_index("map")
    first, second = (scores.loc[name] for name in ("reference", "expected"))
    return (
        f"{table(rows)}\n\nA map that says {most['class_name']} everywhere would be right in "
        f"{share:.2f} of the test cells, with a kappa of 0. The map of the reference's method is "
        f"right in {first['overall_accuracy']:.2f} (kappa {first['kappa']:.2f}), that of the "
        f"expected area in {second['overall_accuracy']:.2f} (kappa {second['kappa']:.2f})."
    )


def distance_block(study: Study) -> str:
    """Return the error of cells that were predicted from samples so far away."""
    return table(
        {
            "nearest sample of other folds": f"{one['from_km']:g} to {one['to_km']:g} km",
            "cells": str(one["n"]),
            "share wrong": f"{one['error']:.2f}",
        }
        for one in _records(study.results_dir / "tables/error_by_distance.csv")
        if one["estimate"] == "knndm"
    )


def trust_block(study: Study) -> str:
    """Return how much of the map lies in each level of trust, and what its sets of classes say."""
    tables = study.results_dir / "tables"
    rows = [
        {
            "level of trust": one["group"],
            "share of the map": f"{100 * one['share']:.0f} %",
            "expected share of wrong cells": f"{one['expected']:.2f}",
        }
        for one in _records(tables / "applicability.csv")
        if one["by"] == "trust"
    ]
    sizes = pd.read_csv(tables / "prediction_set_sizes.csv")
    least = undecided(len(study.target_classes.names))
    one = sizes.loc[sizes["classes"] == 1, "share"].sum()
    many = sizes.loc[sizes["classes"] >= least, "share"].sum()
    return (
        f"{table(rows)}\n\nA set of classes that holds the true one with a probability of "
        f"{100 * study.trust.coverage:.0f} % has a single class in {100 * one:.0f} % of the map, "
        f"and {least} or more, which says nothing, in {100 * many:.0f} %."
    )


def _records(path: Path) -> list[dict[Hashable, Any]]:
    return pd.read_csv(path).to_dict("records")
