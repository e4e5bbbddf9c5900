"""QGIS styles: a ``.qml`` beside a raster, which QGIS takes when the raster is opened."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from helpers.core.files import write_text
from helpers.core.plot import colour_map

_STOPS = 9
_VERSION = "3.28"  # of the format; later releases read it


def write_class_style(path: Path, legend: Mapping[int, tuple[str, str]]) -> None:
    """Write the style of a raster of classes, by code their names and hexadecimal colours."""
    root, renderer = _renderer("paletted")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for code, (name, colour) in legend.items():
        entry = {"value": str(code), "color": colour, "alpha": "255", "label": name}
        ElementTree.SubElement(palette, "paletteEntry", entry)
    _write(path, root)


def write_ramp_style(
    path: Path, top: float, unit: str, cmap: str = "devon_r", bottom: float = 0.0
) -> None:
    """Write the style of a raster of a quantity, by the values that get the end colours."""
    from matplotlib.colors import to_hex

    bottom, top = float(bottom), float(top)
    low, high = repr(bottom), repr(top)
    root, renderer = _renderer(
        "singlebandpseudocolor", classificationMin=low, classificationMax=high
    )
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"),
        "colorrampshader",
        {"colorRampType": "INTERPOLATED", "clip": "0", "minimumValue": low, "maximumValue": high},
    )
    for stop in range(_STOPS):
        share = stop / (_STOPS - 1)
        value = bottom + (top - bottom) * share
        entry = {"value": repr(value), "color": to_hex(colour_map(cmap)(share)), "alpha": "255"}
        ElementTree.SubElement(shader, "item", entry, label=f"{value:.3g} {unit}")
    _write(path, root)


def _renderer(kind: str, **more: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element("qgis", version=_VERSION, styleCategories="Symbology")
    look = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", **more}
    pipe = ElementTree.SubElement(root, "pipe")
    return root, ElementTree.SubElement(pipe, "rasterrenderer", look)


def _write(path: Path, root: ElementTree.Element) -> None:
    ElementTree.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    text = ElementTree.tostring(root, encoding="unicode")
    write_text(path.with_suffix(".qml"), f"{head}{text}\n")
