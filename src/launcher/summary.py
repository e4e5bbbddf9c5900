"""What the launcher says of a finished run: what was found, how far to trust it, what to open."""

from collections.abc import Iterator
from typing import Any

from helpers.core.study import Study, relative_path
from helpers.record.headline import headline_path, read_headline

LEAST_TEST_SAMPLES = 30
"""Independent test samples of a layer, with fewer of which its test scores say little."""

MOST_OUTSIDE = 0.5
"""Share of the domain outside the area of applicability, above which a map is mostly a guess."""

MOST_NO_DATA = 0.02
"""Share of the study area without data, above which totals are too small."""


def summary(study: Study) -> list[str]:
    """Return what the last lines of a run say; empty if it has no headline numbers yet."""
    if not headline_path(study).is_file():
        return []
    numbers = read_headline(study)
    accuracy = _accuracy_of_polygons if study.samples.areas else _accuracy
    lines = [_total(numbers), accuracy(numbers), _outside(numbers)]
    lines += [f"warning: {warning}" for warning in warnings(numbers)]
    figures, maps = study.figures_dir, study.results_dir / "maps"
    lines.append(f"open next: {relative_path(figures)}, {relative_path(maps)}")
    return [line for line in lines if line]


def _total(numbers: dict[str, Any]) -> str:
    total = numbers["total"]
    if not total:
        return ""
    ends = f"{total['ice_km3_lower']:.3g} to {total['ice_km3_upper']:.3g}"
    return f"ice: {total['ice_km3']:.3g} km3, {100 * total['interval']:g} % interval {ends}"


def _accuracy(numbers: dict[str, Any]) -> str:
    return _scores(numbers, "expected", "random_adjusted", "accuracy by mapped area")


def _accuracy_of_polygons(numbers: dict[str, Any]) -> str:
    """Return the accuracy in folds that part no polygon, as the README has it."""
    return _scores(numbers, "reference", "random", "accuracy in folds of whole polygons")


def _scores(numbers: dict[str, Any], which: str, estimate: str, title: str) -> str:
    parts = []
    for layer, values in numbers["layers"].items():
        scores = values["maps"][which]["accuracy"][estimate]
        ends = (f"{scores[f'overall_accuracy_{end}']:.2f}" for end in ("lower", "upper"))
        parts.append(f"{scores['overall_accuracy']:.2f} ({' to '.join(ends)}) {layer}")
    where = numbers["domain"].replace("_", " ")
    return f"{title}, {where}: {', '.join(parts)}"


def _outside(numbers: dict[str, Any]) -> str:
    shares = [
        f"{100 * values['outside_applicability_share']:.0f} % {layer}"
        for layer, values in numbers["layers"].items()
    ]
    return f"outside the area of applicability: {', '.join(shares)}"


def warnings(numbers: dict[str, Any]) -> Iterator[str]:
    """Give what makes a result thin, from headline numbers."""
    for layer, values in numbers["layers"].items():
        if (tested := values["groups"].get("test", 0)) < LEAST_TEST_SAMPLES:
            yield f"{layer} has {tested} independent test samples: scores say little"
        if (share := values["outside_applicability_share"]) > MOST_OUTSIDE:
            yield f"{100 * share:.0f} % of {layer} is unlike all samples: the map is a guess there"
    if (share := numbers["area"]["no_data_share"]) > MOST_NO_DATA:
        yield f"{100 * share:.0f} % of the study area has no data: see tables/storage.json"
