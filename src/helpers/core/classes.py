"""Ice types and the other targets of a study: names, colours, and what is permafrost."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NO_TYPE = 255
"""Code of cells without an ice type, and nodata of the rasters."""


@dataclass(frozen=True)
class IceType:
    """One class of frozen soil, by default by its volumetric ice content.

    Its code in tables and rasters, its names (the default ones are those of GB/T 50324 and JTG/T
    D31-04), its hexadecimal colour on maps, and whether it is permafrost.
    """

    code: int
    name: str
    chinese_name: str
    colour: str
    permafrost: bool = True


ICE_TYPES = (
    IceType(0, "no permafrost", "非多年冻土", "#d9d9d9", permafrost=False),
    IceType(1, "ice-poor frozen soil", "少冰冻土", "#ffffcc"),
    IceType(2, "icy frozen soil", "多冰冻土", "#a1dab4"),
    IceType(3, "ice-rich frozen soil", "富冰冻土", "#41b6c4"),
    IceType(4, "ice-saturated frozen soil", "饱冰冻土", "#2c7fb8"),
    IceType(5, "ice layer with soil", "含土冰层", "#253494"),
)
"""The six classes by code: grey where there is no permafrost, then ColorBrewer's YlGnBu, which
darkens with the ice content and stays ordered for colour-blind readers."""


@dataclass(frozen=True)
class Target:
    """The classes between which a study's forests decide.

    Parameters
    ----------
    name
        In titles of maps and, with underscores, in their file names.
    classes
        In the order of their codes 0, 1, 2...; a code is also the class's column in all
        probabilities.
    of_type
        Class of each type that samples have: of `ICE_TYPES`, or of the study's own classes.
    ordered
        Whether classes go from little to much ice, so that it is worse to confuse distant ones.

    Examples
    --------
    >>> level = TARGETS["ice_level"]
    >>> level.names, level.free
    (['no permafrost', 'low ice content', 'high ice content'], [0])
    >>> level.of_type  # of the six ice types, from none to most ice
    (0, 1, 1, 2, 2, 2)
    """

    name: str
    classes: tuple[IceType, ...]
    of_type: tuple[int, ...]
    ordered: bool = True

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of the classes."""
        return tuple(kind.code for kind in self.classes)

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [kind.name for kind in self.classes]

    @cached_property
    def permafrost(self) -> np.ndarray:
        """Which classes are permafrost, shape (k,)."""
        return np.array([kind.permafrost for kind in self.classes])

    @property
    def free(self) -> list[int]:
        """Codes of the classes that are no permafrost."""
        return np.flatnonzero(~self.permafrost).tolist()

    @property
    def legend(self) -> dict[int, tuple[str, str]]:
        """Name and colour of each class by code."""
        return {kind.code: (kind.name, kind.colour) for kind in self.classes}

    @property
    def file_name(self) -> str:
        """The name as file names have it."""
        return self.name.replace(" ", "_")


_SAME = tuple(kind.code for kind in ICE_TYPES)

_PERMAFROST = (ICE_TYPES[0], IceType(1, "permafrost", "多年冻土", "#2c7fb8"))

# The codes of practice count the last three types as of high ice content.
_LEVELS = (
    ICE_TYPES[0],
    IceType(1, "low ice content", "低含冰量冻土", "#a1dab4"),
    IceType(2, "high ice content", "高含冰量冻土", "#2c7fb8"),
)

TARGETS = {
    "ice_type": Target("ice type", ICE_TYPES, _SAME),
    "permafrost": Target("permafrost", _PERMAFROST, (0, 1, 1, 1, 1, 1)),
    "ice_level": Target("ice level", _LEVELS, (0, 1, 1, 2, 2, 2)),
}
"""Targets by their name in the study file. Samples keep their ice type;
`helpers.samples.rows.layer_rows` recodes it."""

DEFAULT_TARGET = TARGETS["ice_type"]


Layer = tuple[float, float] | str
"""Top and bottom of a depth layer, m; or a name where the study has no depths."""


def layer_name(layer: Layer) -> str:
    """Return the name of a layer in files and tables.

    Examples
    --------
    >>> layer_name((0, 0.5))
    '0-0.5m'
    >>> layer_name("upper metres")
    'upper-metres'
    """
    if isinstance(layer, str):
        return layer.replace(" ", "-")
    top, bottom = layer
    return f"{top:g}-{bottom:g}m"


def layer_title(name: str) -> str:
    """Return a layer's name as figures show it.

    Examples
    --------
    >>> layer_title("2-3m"), layer_title("upper-metres")
    ('2-3 m', 'upper metres')
    """
    depths = name.removesuffix("m")
    return f"{depths} m" if depths[-1].isdigit() else name.replace("-", " ")
