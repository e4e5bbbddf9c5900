"""Figures as files: PDF and PNG at print size, in the languages of a study."""

import difflib
import warnings
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd
import PIL.Image
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from helpers.core.errors import CompendiumError
from helpers.core.files import write_aside
from helpers.core.fonts import FontError
from helpers.core.language import LanguageError, translate, translated, use_chinese_font
from helpers.core.study import Study
from helpers.figures import ending, figure_functions
from helpers.mapping.files import interval_files
from helpers.prepare.registry import covariates

PRINT_DPI = 600
SCREEN_DPI = 200
_NOTEBOOK_DPI = 110
_PDF_DPI = 300  # of rasters in a PDF; lines and letters have none


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


def publish(study: Study, name: str, large: bool = False) -> Path:
    """Write one figure in the languages of a study; return the PNG of the last of them.

    In the study's folder of figures are a PDF and a PNG of 200 dpi for screens; a large PNG, of 600
    dpi for journals that want no PDF, is in ``print`` in it. Names of those in Chinese end in
    ``-zh``.
    """
    figure = draw(study, name)
    use_chinese_font(figure)  # of names that a user gave, whatever the language
    for language in study.languages:
        if language == "zh":
            translate(figure, study_names(study))
        path = study.figures_dir / f"{name}{ending(language)}.png"
        _write(figure, path, large)
    plt.close(figure)
    return path


def show(study: Study, name: str) -> None:
    """Write one figure in the languages of a study, and show the file in a notebook."""
    from IPython.display import Image, display

    path = publish(study, name)
    with PIL.Image.open(path) as image:
        width = round(image.width * _NOTEBOOK_DPI / SCREEN_DPI)
    display(Image(path, width=width))


def publish_all(path: str, only: Sequence[str] = (), language: str | None = None) -> None:
    """Write the figures of a finished run, or some, also large, in one language or the study's."""
    study = Study.open(path)
    if language:
        study = study.changed({"language": language})
    for name in only or figure_functions(study):
        publish(study, name, large=True)
        print(name)


def study_names(study: Study) -> dict[str, str]:
    """Return the Chinese of a study's own names; regions and predictors of a user keep theirs."""
    layers = [layer for layer in covariates(study).values() if layer.family == "own"]
    own = {text for layer in layers for text in (layer.title, layer.unit)}
    own |= {predictor.name for predictor in study.own_predictors} | {study.title, study.label}
    if study.has_storage and interval_files(study)["table"].is_file():
        own |= set(pd.read_csv(interval_files(study)["table"])["region"])
    own |= {layer for layer in study.layers if isinstance(layer, str)}
    names = {name: _or_itself(name) for name in own}
    return names | {kind.name: kind.chinese_name for kind in study.target_classes.classes}


def _or_itself(name: str) -> str:
    try:
        return translated(name)
    except LanguageError:
        return name


def _write(figure: Figure, path: Path, large: bool) -> None:
    looks: dict[Path, dict[str, Any]] = {
        path.with_suffix(".pdf"): {"dpi": _PDF_DPI, "metadata": {"CreationDate": None}},
        path: {"dpi": SCREEN_DPI, "metadata": {"Software": None}},
    }
    if large:  # these are not for git: little compressed they are written three times as fast
        look = {"dpi": PRINT_DPI, "pil_kwargs": {"compress_level": 1}}
        looks[path.parent / "print" / path.name] = looks[path] | look
    for file, look in looks.items():
        with write_aside(file) as part, warnings.catch_warnings():
            warnings.filterwarnings("error", "Glyph .* missing")
            try:
                figure.savefig(part, format=file.suffix[1:], **look)
            except UserWarning as error:
                raise FontError(
                    f"No font has a character of the figure {path.stem}: {error}",
                    "give the name that has it in Latin or Chinese characters",
                ) from None
