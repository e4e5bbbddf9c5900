"""QGIS styles: a ``.qml`` beside a raster, which QGIS takes by itself when the raster is opened."""

from xml.etree import ElementTree

from helpers.digest import write_text

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


def write_ramp_style(path, top, unit, cmap="devon_r"):
    """Write the style of a raster of a quantity from 0 upwards, of which the first band is shown.

    Parameters
    ----------
    path : pathlib.Path
        The raster; its style has the ending ``.qml``.
    top : float
        The value that gets the last colour.
    unit : str
    cmap : str
        A colour map of cmcrameri.
    """
    from cmcrameri import cm
    from matplotlib.colors import to_hex

    root, renderer = _renderer("singlebandpseudocolor", classificationMin="0", classificationMax=repr(top))
    shader = ElementTree.SubElement(ElementTree.SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib |= {"colorRampType": "INTERPOLATED", "clip": "0", "minimumValue": "0", "maximumValue": repr(top)}
    for stop in range(_STOPS):
        share = stop / (_STOPS - 1)
        label, colour = f"{top * share:.3g} {unit}", to_hex(getattr(cm, cmap)(share))
        ElementTree.SubElement(shader, "item", value=repr(top * share), color=colour, alpha="255", label=label)
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
