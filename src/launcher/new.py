"""A new study: its file, with comments that say what to fill in, and empty tables of boreholes."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from helpers.core.errors import listed
from helpers.core.files import write_text
from helpers.core.settings import ROOT, Area, Name
from helpers.core.study import Study, StudyError

_HEAD = """\
# The study {name}. Fill in what follows; a line that begins with # is off: take the # away.
# Paths are from the project's folder. All settings: src/helpers/core/settings.py
name: {name}
title: {name}  # stands on figures

{place}
# Predictors: your own rasters, in any projection and of any cell size (GeoTIFF, VRT or NetCDF, or
# a folder of tiles). Without this section they are all covariates that `source` gives.
# predictors:
#   - {{name: elevation, file: {own}/elevation.tif, unit: m}}  # a number
#   - {{name: vegetation, file: {own}/vegetation.tif, kind: category}}  # codes
#   - {{name: aspect, file: {own}/aspect.tif, kind: circular}}  # degrees
#   - ndvi  # a covariate of `source`, by its name

# Raw rasters, of which covariates are made. Leave out what you do not have.
# source:
#   kind: files
#   dem: {own}/dem.tif  # elevation, m: terrain
#   landsat: {own}/landsat  # folder of scenes as downloaded: vegetation
#   lst: {own}/modis  # folder of monthly MOD11: surface temperature
#   air_temperature: {own}/air.tif  # 12 bands, degC
#   precipitation: {own}/precipitation.tif # 12 bands, mm
#   soil: {own}/soil  # folder of SoilGrids: sand, silt, clay, soc

{samples}
# The domain: where permafrost is possible at all. Empty is the whole area.
domain:
  covariate: ""  # such as air_frost_number, from air_temperature
  # above: 0.44  # cells with more are in the domain

# For an area of less than some hundred km: blocks of about a tenth of its width.
# folds: {{block_km: 10}}  # also min_separation_km: nearer sites stay together
# accuracy: {{block_km: 10}}
# uncertainty: {{block_km: 10}}
"""

_LIKE = """\
# The map has the cells and the extent of this raster.
grid:
  like: {like}
"""

_PLACE = """\
# {about} Lengths of the grid are in metres.
{area}grid:
{crs}  resolution: {resolution:g}  # cells of the map
  fine_resolution: {fine:g}  # of terrain and indices; divides the resolution
"""

_CLASSES = """\
# Samples: {kind} with a class. {about}
samples:
  {setting}: {own}/{file}
  class_column: ice_type  # the column with the class
  rare_classes: stop  # where a class has few samples; or merge, or keep

# Your classes, from little to much ice: an example. `words` are other names in the file.
classes:
  - {{name: unfrozen, name_zh: 融区, colour: "#d9d9d9", permafrost: false, words: []}}
  - {{name: ice-poor, name_zh: 少冰冻土, colour: "#ffffcc"}}  # ice_content: 0.1 gives storage, too
  - {{name: ice-rich, name_zh: 富冰冻土, colour: "#41b6c4"}}

layers: [upper metres]  # a name, as the classes have no depths; or [[2, 3]], m
"""

_SAMPLES = {
    "cores": """\
# Samples: fill in the two tables; data/samples/README.md says what their columns mean.
samples:
  sites: {own}/sites.csv  # a row a borehole or pit
  intervals: {own}/intervals.csv  # a row a piece of core
  epsg: 4326  # of the coordinates; 4490 is CGCS2000
  rare_classes: stop  # where an ice type has few sites; or merge, or keep

layers: [[2, 3], [3, 5], [5, 10]]  # depths that are mapped, m
""",
    "points": _CLASSES.replace("{setting}", "points")
    .replace("{file}", "points.csv")
    .replace("{about}", "A table has longitude and latitude; or a GeoPackage."),
    "polygons": _CLASSES.replace("{setting}", "areas")
    .replace("{file}", "areas.gpkg")
    .replace("{about}", "A GeoPackage, GeoJSON or shapefile."),
}


def new_study(
    name: str,
    like: str = "",
    polygon: str = "",
    box: tuple[float, float, float, float] | None = None,
    resolution: float = 1000,
    labels: str = "cores",
) -> None:
    """Write a study file with comments, and empty tables for cores; say what to do next.

    The area is that of a raster, of polygons or of a box in degrees; by default Northeast China.
    StudyError, and no file is written, if one is there already or a value is impossible.

    Parameters
    ----------
    resolution
        Of the grid, m, where no raster gives it.
    labels
        What the samples are: ``cores``, ``points`` or ``polygons``.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise StudyError(
            f"A study cannot have the name '{name}'.",
            "use small letters (a-z), digits and hyphens, and no hyphen first: my-area",
        ) from None
    path, own = ROOT / "config" / f"{name}.yaml", f"data/own/{name}"
    place = _place(like, polygon, box, resolution)
    samples = _SAMPLES[labels].format(own=own, kind=labels)
    text = _aligned(_HEAD.format(name=name, own=own, place=place, samples=samples))
    tables = _empty_tables(ROOT / own) if labels == "cores" else {}
    if there := [str(one.relative_to(ROOT)) for one in (path, *tables) if one.exists()]:
        message = f"Nothing was written: there is {listed(there)} already."
        raise StudyError(message, "choose another name, or move the old file away")
    try:
        write_text(path, text)
        Study.open(path)
        for table, header in tables.items():
            write_text(table, header)
    except BaseException as error:
        for one in (path, *tables):
            one.unlink(missing_ok=True)
        if isinstance(error, StudyError):
            raise StudyError(error.message, "give other options; nothing was written") from None
        raise
    shown = f"config/{name}.yaml"
    print(f"{shown} is written{f', and two empty tables in {own}/' if tables else ''}.")
    print(f"1. Fill in {shown}{' and the tables' if tables else ''}; its comments say what.")
    print(f"2. See what is missing:  python -m launcher check {shown}")
    print(f"3. Make the map:         make map STUDY={shown}")


def _aligned(text: str) -> str:
    """Set the comments behind settings in one column."""
    lines = []
    for line in text.split("\n"):
        left, mark, comment = line.rpartition("  # ")
        lines.append(f"{left.rstrip():<43} # {comment}" if mark and left.strip() else line)
    return "\n".join(lines)


def _empty_tables(folder: Path) -> dict[Path, str]:
    """Return the files of both tables of boreholes, and their headers."""
    from helpers.samples.columns import COLUMNS

    return {
        folder / f"{kind}.csv": ",".join(column.name for column in columns) + "\n"
        for kind, columns in COLUMNS.items()
    }


def _place(
    like: str, polygon: str, box: tuple[float, float, float, float] | None, resolution: float
) -> str:
    """Return the sections of area and grid."""
    if sum(map(bool, (like, polygon, box))) > 1:
        message = "A study has one area, and several are given."
        raise StudyError(message, "give one of --like, --polygon and --box")
    if like:
        return _LIKE.format(like=json.dumps(like, ensure_ascii=False))
    sizes = {"resolution": resolution, "fine": resolution / 2}
    if not (polygon or box):
        about = "The area is Northeast China (data/base/study-area.gpkg)."
        return _PLACE.format(about=about, area="", crs="", **sizes)
    if box:
        bounds, area = box, f"box: {list(box)}  # degrees: west, south, east, north"
    else:
        from helpers.core.grid import study_area

        bounds = study_area(Study(name="new", area=Area(polygons=polygon))).bounds
        area = f"polygons: {json.dumps(polygon, ensure_ascii=False)}"
    west, south, east, north = bounds
    zone = min(max(int(((west + east) / 2 + 180) // 6) + 1, 1), 60)
    epsg = (32600 if south + north >= 0 else 32700) + zone
    crs = f"  crs: EPSG:{epsg}  # UTM zone of the area's centre; for an area of some 10 degrees\n"
    return _PLACE.format(about="The area.", area=f"area:\n  {area}\n", crs=crs, **sizes)
