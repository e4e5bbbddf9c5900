"""QGIS styles: a ``.qml`` beside a raster, which QGIS takes by itself when the raster is opened."""

from xml.etree import ElementTree

from helpers.core.files import write_text

_STOPS = 9


_VERSION = "3.28"  # of the format; later releases read it


def write_class_style(path, legend):
    """Write the style of a raster of classes.

    Parameters
    ----------
    path : pathlib.Path
        The raster; its style has the ending ``.qml``.
    legend : dict of int to (str, str)
        Name and hexadecimal colour of each class.
    """
    root, renderer = _renderer("paletted")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for code, (name, colour) in legend.items():
        ElementTree.SubElement(palette, "paletteEntry", value=str(code), color=colour, alpha="255", label=name)
    _write(path, root)


def write_ramp_style(path, top, unit, cmap="devon_r", bottom=0.0):
    """Write the style of a raster of a quantity, of which the first band is shown.

    Parameters
    ----------
    path : pathlib.Path
        The raster; its style has the ending ``.qml``.
    top : float
        The value that gets the last colour.
    unit : str
    cmap : str
        A colour map of cmcrameri.
    bottom : float
        The value that gets the first colour.
    """
    from cmcrameri import cm
    from matplotlib.colors import to_hex

    bottom, top = float(bottom), float(top)
    ends = {"minimumValue": repr(bottom), "maximumValue": repr(top)}
    root, renderer = _renderer("singlebandpseudocolor", classificationMin=repr(bottom), classificationMax=repr(top))
    shader = ElementTree.SubElement(ElementTree.SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib |= {"colorRampType": "INTERPOLATED", "clip": "0"} | ends
    for stop in range(_STOPS):
        share = stop / (_STOPS - 1)
        value, colour = bottom + (top - bottom) * share, to_hex(getattr(cm, cmap)(share))
        label = f"{value:.3g} {unit}"
        ElementTree.SubElement(shader, "item", value=repr(value), color=colour, alpha="255", label=label)
    _write(path, root)


def _renderer(kind, **more):
    root = ElementTree.Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    return root, ElementTree.SubElement(
        pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1", **more
    )


def _write(path, root):
    ElementTree.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    write_text(path.with_suffix(".qml"), head + ElementTree.tostring(root, encoding="unicode") + "\n")
