"""Figures as files: PDF and PNG at print size, in the languages of a study."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from helpers.core.chinese import CHINESE
from helpers.core.errors import CompendiumError
from helpers.core.files import write_aside
from helpers.core.language import translate
from helpers.core.study import Study
from helpers.figures import ending, figure_functions
from helpers.mapping.files import interval_files
from helpers.prepare.registry import covariates

PRINT_DPI = 600
_PREVIEW = 3  # print pixels of a pixel of the preview, so 200 dpi


class UnknownFigureError(CompendiumError):
    """A figure that a study does not have."""


def draw(study: Study, name: str) -> Figure:
    """Draw one figure of a study, in English; UnknownFigureError for a name that it lacks."""
    functions = figure_functions(study)
    if name not in functions:
        near = difflib.get_close_matches(name, functions, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join(functions)
        raise UnknownFigureError(f"There is no figure {name}{hint}", f"choose from {names}")
    return resolve_name(functions[name])(study)


def publish(study: Study, name: str) -> Figure:
    """Write one figure in the languages of a study; return it, in the last of them.

    In the study's folder of figures are a PDF and a PNG of 200 dpi for screens, and in ``print``
    in it a PNG of 600 dpi. Those in Chinese end in ``-zh``.
    """
    figure = draw(study, name)
    for language in study.languages:
        if language == "zh":
            translate(figure, study_names(study))
        _write(figure, study.figures_dir, f"{name}{ending(language)}")
    return figure


def publish_all(path: str, only: Sequence[str] = (), language: str | None = None) -> None:
    """Write the figures of a finished run, or only some, in a language or in the study's own."""
    study = Study.open(path)
    if language:
        study = study.changed({"language": language})
    for name in only or figure_functions(study):
        plt.close(publish(study, name))
        print(name)


def study_names(study: Study) -> dict[str, str]:
    """Return the Chinese of a study's own names; regions and predictors of a user keep theirs."""
    own = {layer.title for layer in covariates(study).values() if layer.family == "own"}
    own |= {predictor.name for predictor in study.own_predictors} | {study.title, study.label}
    if study.has_storage and interval_files(study)["table"].is_file():
        own |= set(pd.read_csv(interval_files(study)["table"])["region"])
    own |= {layer for layer in study.layers if isinstance(layer, str)}
    names = {name: CHINESE.get(name, name) for name in own}
    return names | {kind.name: kind.chinese_name for kind in study.target_classes.classes}


def _write(figure: Figure, folder: Path, name: str) -> None:
    with write_aside(folder / f"{name}.pdf") as part:
        figure.savefig(part, format="pdf", dpi=PRINT_DPI // 2, metadata={"CreationDate": None})
    large = folder / "print" / f"{name}.png"
    quick = {"compress_level": 1}
    with write_aside(large) as part:
        look = {"metadata": {"Software": None}, "pil_kwargs": quick}
        figure.savefig(part, format="png", dpi=PRINT_DPI, **look)
    with write_aside(folder / f"{name}.png") as part:
        dpi = PRINT_DPI / _PREVIEW
        with Image.open(large) as image:
            image.convert("RGB").reduce(_PREVIEW).save(part, format="png", dpi=(dpi, dpi))
