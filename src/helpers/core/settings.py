"""The sections of a study file: every setting, its default and its range."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pyproj import CRS
from pyproj.exceptions import CRSError

from helpers.core.drivers import open_local

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder. Every path in a study file is relative to it."""

ALBERS = (
    "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
)

_WEB = r"^$|^https?://[^/?@]+(/|$)"  # of an address on the web, without a password

MOST = 10**9
"""Of any count, and of lengths in metres or kilometres: more cannot be meant."""

Positive = Annotated[float, Field(gt=0, le=MOST)]
NotNegative = Annotated[float, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Trees = Annotated[int, Field(gt=0, le=20_000)]
Repeats = Annotated[int, Field(gt=0, le=100_000)]
"""How often a bootstrap draws."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As numpy and scikit-learn take it."""
Year = Annotated[int, Field(ge=1950, le=2100)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=80)]
# Of a folder: of a run, or of a comparison of runs.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Mask = Literal["dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "water"]
Texture = Literal["peat", "clay", "silt", "sand", "gravel", "rock", "unknown"]
Value = TypeVar("Value")
Axis = Annotated[list[Value], Field(min_length=1)]
"""The values of one axis of a grid search."""


class Section(BaseModel):
    """A section of a study file: unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 1, and paths that no system has."""
        field = cls.model_fields[info.field_name or ""]
        free = get_origin(field.annotation) is dict
        if field.annotation is bool or Any in get_args(field.annotation):
            return value
        for one in _parts(value, free):
            if isinstance(one, bool):
                raise ValueError("a number or a word is needed here, not true or false")
            if isinstance(one, str) and any(sign < " " and sign not in "\n\t" for sign in one):
                raise ValueError("it has a sign that cannot be printed")
        return value


def _parts(value: Any, free: bool) -> Iterator[Any]:
    """Yield the plain values of a setting's lists, and of its dictionary if its keys are free."""
    items = value.values() if free and isinstance(value, dict) else value
    if isinstance(items, list | tuple) or items is not value:
        for one in items:
            yield from _parts(one, False)
    else:
        yield value


@cache
def source_makers() -> EntryPoints:
    """Return the study classes of packages that make raw rasters, by their ``source``."""
    return entry_points(group="ground_ice.sources")


def raster_grid(path: str) -> dict[str, Any]:
    """Return crs (WKT) and resolution (m) of a raster's grid, for `Grid.like`.

    ValueError if the file is missing or no raster, or if its grid is geographic, turned, not of
    square cells, or without a coordinate reference system.
    """
    from rasterio.errors import RasterioError  # takes a fifth of a second; few studies need it

    try:
        with open_local(ROOT / path) as source:
            crs, affine = source.crs, source.transform
    except RasterioError as error:
        raise ValueError(f"the raster {path} of `like` cannot be read: {error}") from None
    if crs is None:
        remedy = "give it that which it was made in (rio edit-info --crs)"
        raise ValueError(f"{path} has no coordinate reference system: {remedy}")
    if crs.is_geographic:
        raise ValueError(
            f"{path} is in degrees, and areas and distances need metres: "
            "warp it first (gdalwarp -t_srs EPSG:326<zone>), or give `crs` and `resolution`"
        )
    square = abs(abs(affine.e) - affine.a) <= 1e-6 * affine.a
    if affine.b or affine.d or affine.e >= 0 or not square:
        raise ValueError(f"{path} has no square cells with north on top: warp it (gdalwarp -tr)")
    return {"crs": crs.to_wkt(), "resolution": affine.a}


class OpenData(Section):
    """Open data that are fetched: items of a STAC collection, or rasters at an address."""

    collection: str = ""  # of the STAC API of the source
    assets: list[str] = []  # of its items; those that the covariates need by default
    years: tuple[Year, Year] | None = None  # first and last; a collection without dates has none
    months: list[Annotated[int, Field(ge=1, le=12)]] = []  # all by default
    platforms: list[str] = []  # such as landsat-8, or terra; all by default
    cloud: Annotated[float, Field(ge=0, le=100)] = 100  # % of an item at most
    leave_out: list[str] = []  # ids of items
    # Of a raster, or of a service that cuts out a window. Names in braces are filled in:
    # {variable}, {depth}; {west}, {south}, {east}, {north} in degrees; {first}, {last}: the years.
    address: Annotated[str, Field(pattern=_WEB)] = ""
    licence: Annotated[str, Field(min_length=1)]  # goes into the tags of what is made of it

    def __str__(self) -> str:
        """Return the collection, or the address without its query."""
        return self.collection or self.address.partition("?")[0]

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.collection) == bool(self.address):
            raise ValueError("open data need either a `collection` or an `address`")
        if self.years and self.years[0] > self.years[1]:
            raise ValueError("`years` are the first and the last one: [2023, 2024]")
        return self


class Source(Section):
    """Where the raw rasters come from: files, open data, or a package with settings of its own.

    Each file is a raster or a folder of tiles. What has no file is not made, such as vegetation
    indices without Landsat scenes. With ``kind: stac`` any of them may be open data instead.
    """

    kind: str = "files"  # files, stac, or the name of a package's source such as virtual
    dem: str | OpenData = ""  # m
    # Folder of scenes, Collection 2 Level 2, as they are downloaded
    landsat: str | OpenData = ""
    # Folder of monthly MOD11 rasters, or of 8-day composites (MOD11A2, MYD11A2), as GeoTIFF:
    # LST_Day_1km, QC_Day, LST_Night_1km, QC_Night
    lst: str | OpenData = ""
    air_temperature: str | OpenData = ""  # 12 bands, a band a month, degC
    precipitation: str | OpenData = ""  # 12 bands, mm
    soil: str | OpenData = ""  # folder of sand, silt, clay and soc of SoilGrids
    api: Annotated[str, Field(pattern=_WEB)] = ""  # root of the STAC API
    # Address of what gives a token for a collection, named after it; empty: no signing.
    sign: Annotated[str, Field(pattern=_WEB)] = ""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Take ``source: files`` for ``source: {kind: files}``."""
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("kind")
    @classmethod
    def _has_maker(cls, kind: str) -> str:
        if kind not in ("files", "stac", *source_makers().names):
            names = ", ".join(["files", "stac", *sorted(source_makers().names)])
            raise ValueError(f"no source has this name; there are {names}")
        return kind

    @property
    def open_data(self) -> dict[str, OpenData]:
        """The fields that are open data.

        Examples
        --------
        >>> dem = OpenData(collection="cop-dem-glo-30", licence="free")
        >>> list(Source(kind="stac", dem=dem, landsat="data/scenes").open_data)
        ['dem']
        """
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in fields if isinstance(value, OpenData)}


class Area(Section):
    """Where the map is made: polygons, a box, or by neither the whole raster of `grid.like`."""

    polygons: str = "data/base/study-area.gpkg"  # GeoPackage, GeoJSON or shapefile
    layer: str = ""  # the first by default
    regions_layer: str = "regions"  # with a column `name`; without such a layer all is one region
    box: tuple[float, float, float, float] | None = None  # degrees: west, south, east, north

    @model_validator(mode="before")
    @classmethod
    def _box_alone(cls, value: Any) -> Any:
        """Take no polygons where a box is given."""
        if isinstance(value, dict) and value.get("box"):
            return {"polygons": "", **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.box:
            west, south, east, north = self.box
            if self.polygons:
                raise ValueError("give either `polygons` or a `box`")
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ValueError("a box is west, south, east, north in degrees")
        return self


CellSize = Annotated[float, Field(ge=0.1, le=1e6)]


class Grid(Section):
    """The reference grid, and the finer one of terrain and indices; lengths in metres.

    With `like` the reference grid is that of a raster, which gives the other settings.
    """

    like: str = ""  # raster whose grid it is
    crs: str = ALBERS  # projected system in metres: EPSG:32651 or a PROJ string
    resolution: CellSize = 1000  # cells of the map
    fine_resolution: CellSize = 500  # cells of terrain and indices; divides `resolution`
    # around the area, for terrain and catchments
    margin: Annotated[float, Field(ge=0, le=1e6)] = 40_000

    @property
    def divisor(self) -> int:
        """Fine cells along a side of a reference cell."""
        return round(self.resolution / self.fine_resolution)

    @model_validator(mode="before")
    @classmethod
    def _as_raster(cls, value: Any) -> Any:
        """Complete the settings of a grid that is that of a raster."""
        if not (isinstance(value, dict) and value.get("like") and isinstance(value["like"], str)):
            return value
        own = raster_grid(value["like"])
        for name in ("crs", "resolution"):
            if value.get(name, own[name]) != own[name]:
                raise ValueError(f"`like` gives the {name}; leave {name} out")
        return {"fine_resolution": own["resolution"], "margin": 0, **own, **value}

    @field_validator("crs")
    @classmethod
    def _in_metres(cls, text: str) -> str:
        try:
            crs = CRS.from_user_input(text)
        except CRSError:
            raise ValueError("no coordinate reference system has this name") from None
        if not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1:
            raise ValueError("a projected system in metres is needed: EPSG:32651 or a PROJ string")
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution % self.fine_resolution:
            fine, coarse = self.fine_resolution, self.resolution
            raise ValueError(f"fine_resolution {fine:g} m does not divide {coarse:g} m evenly")
        return self


def refuse_equal(names: Iterable[str], what: str, shared: str = "one name") -> None:
    """Raise ValueError where two things have a name in common, and with it their files.

    Examples
    --------
    >>> refuse_equal(["slope", "ndvi", "ndvi"], "predictors")
    Traceback (most recent call last):
        ...
    ValueError: two predictors have one name, ndvi: leave one out, or change it
    """
    counts = Counter(names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"two {what} have {shared}, {twice[0]}: leave one out, or change it")


METRES = {"m": 1.0, "cm": 0.01}
"""Units of a depth to bedrock, in metres."""


class OwnPredictor(Section):
    """A raster of the user that is a predictor: a number, a category, or degrees of a circle."""

    # of its files and columns
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=80)]
    file: str | OpenData  # GeoTIFF, VRT or NetCDF, or a folder of tiles; or fetched
    kind: Literal["number", "category", "circular"] = "number"  # circular: degrees
    band: Count = 1  # the first is 1
    variable: str = ""  # of a NetCDF file with several
    long_name: str = ""  # in tables and figures
    long_name_zh: str = ""  # the same in Chinese
    unit: str = ""  # by default that of the file's own tags
    # Onto a grid of other cells; by default `average` from finer cells, `bilinear` from coarser
    # ones, and of a category the most frequent one or the nearest.
    resampling: Literal["", "nearest", "bilinear", "cubic", "average", "mode"] = ""
    valid_range: tuple[float, float] | None = None  # other values are no data
    nearest_code: bool = False  # of a category whose codes somebody averaged: the nearest one
    no_ice: tuple[int, ...] = ()  # codes where there is no ground ice: water, built-up land, rock
    bedrock: bool = False  # whether it is the depth to bedrock: see `ice.rock`

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for setting in ("nearest_code", "no_ice"):
            if getattr(self, setting) and self.kind != "category":
                raise ValueError(f"{self.name} is no category, which {setting} is for")
        if self.bedrock and (self.kind != "number" or self.unit not in METRES):
            raise ValueError(f"{self.name} is the depth to bedrock: give its `unit`, m or cm")
        if self.kind == "category" and self.resampling not in ("", "nearest", "mode"):
            raise ValueError(f"the category {self.name} has no {self.resampling}: nearest or mode")
        if isinstance(self.file, OpenData) and self.kind == "number" and not self.unit:
            raise ValueError(f"{self.name} is fetched: give its `unit`")
        if self.valid_range and self.valid_range[0] >= self.valid_range[1]:
            raise ValueError(f"valid_range of {self.name} does not go from low to high")
        return self


class Terrain(Section):
    """Terrain covariates; lengths in metres."""

    # outer radii of the topographic position index, one covariate each
    tpi_radii: Annotated[list[Positive], Field(min_length=1)] = [1000, 5000]
    tpi_inner_share: Share = 0.5  # inner radius of its ring, as a share of the outer one
    relief_window_km2: Positive = 4.0  # km2, of the relief amplitude
    slope_floor: Positive = 0.001  # least tangent of the slope in the wetness index
    flat_slope_degrees: Annotated[float, Field(ge=0, lt=90)] = 0.01  # flatter cells have no aspect

    @field_validator("tpi_radii")
    @classmethod
    def _of_different_names(cls, radii: list[float]) -> list[float]:
        refuse_equal((f"{radius / 1000:g}km" for radius in radii), "radii", "one file")
        return radii


class Vegetation(Section):
    """Vegetation and water indices from Landsat scenes."""

    # what the quality bits say that is no data
    mask: list[Mask] = ["dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"]


class Climate(Section):
    """Land surface temperature, thawing and freezing index, precipitation."""

    lst_max_error: Literal[1, 2, 3] = 2  # K; poorer values by the quality bits are no data
    # with a value, for a cell to have a mean and indices
    minimum_months: Annotated[int, Field(ge=5, le=12)] = 8
    # of the year, by which missing months are filled
    harmonics: Annotated[int, Field(ge=1, le=2)] = 2


class Covariates(Section):
    """How covariates are made from raw rasters."""

    terrain: Terrain = Terrain()
    vegetation: Vegetation = Vegetation()
    climate: Climate = Climate()


class Ice(Section):
    """Ice types by volumetric ice content, and when a layer counts as sampled."""

    # Class limits of the volumetric rule. SCIENCE.md section 2 marks them as to be confirmed.
    thresholds: list[Share] = [0.10, 0.20, 0.30, 0.50]
    richest: Share = 0.70  # upper end of the richest type, for cores with a type and no content
    minimum_passed_share: Share = 0.5  # of a layer, by the hole
    minimum_sampled_share: Share = 0.2  # of what the hole passed of the permafrost, by samples
    spot_reach: Positive = 0.25  # m; a sample of a single depth stands for no more on either side
    # degC, of cores whose own was not measured: of each depth layer, or one of all.
    layer_temperatures: list[Annotated[float, Field(lt=0, ge=-273.15)]] = [-1.0]
    # Unfrozen water is alpha |T|^-beta of the dry mass, T in degC: alpha, its value at -1 degC, and
    # beta. Orders of magnitude [M]: Anderson and Tice (1972) give both by specific surface area;
    # replace them by those of your own laboratory.
    unfrozen_water: dict[Texture, tuple[Share, NotNegative]] = {
        "peat": (0.20, 0.35),
        "clay": (0.10, 0.33),
        "silt": (0.06, 0.40),
        "sand": (0.02, 0.60),
        "gravel": (0.01, 0.60),
        "rock": (0.0, 0.0),
        "unknown": (0.05, 0.45),
    }
    rock: Share = 0.03  # most ice of bedrock, m3 m-3, in its cracks and pores [M]
    organic_density: Positive = 1.5  # of peat's solids, relative to water

    @field_validator("unfrozen_water")
    @classmethod
    def _for_every_texture(cls, laws: dict[Texture, Any]) -> dict[Texture, Any]:
        return cls.model_fields["unfrozen_water"].default | laws

    @field_validator("thresholds")
    @classmethod
    def _increasing(cls, limits: list[float]) -> list[float]:
        if len(limits) != 4 or any(b <= a for a, b in itertools.pairwise(limits)):
            raise ValueError("four increasing limits between five ice types are needed, each 0-1")
        return limits


class StudyClass(Section):
    """A class of the study's own, in place of the default ice types."""

    name: Annotated[str, Field(min_length=1)]  # as tables have it
    name_zh: str = ""  # the same in Chinese
    # hexadecimal, of the maps
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    permafrost: bool = True  # false: no permafrost
    ice_content: Share | None = None  # m3 m-3; of all permafrost classes, or of none
    words: list[str] = []  # what tables call it, too


class Samples(Section):
    """Boreholes and test pits: the tables, what is dropped, and the split."""

    sites: str = ""  # CSV, xlsx or GeoPackage; both empty: those in the run's folder
    intervals: str = ""  # cores of the sites; the same file types
    epsg: Count = 4326  # of the sites' coordinates: 4490 is CGCS2000; may be a projected system
    datum: Literal["wgs84", "gcj02", "bd09"] = "wgs84"  # Chinese web maps shift coordinates
    severity: dict[str, Literal["error", "drop", "warn"]] = {}  # of kinds of problems
    elevation_tolerance: Positive = 100.0  # m, beyond the relief around the site
    more_columns: list[str] = []  # of the sites table that samples keep, as for `folds.column`
    points: str = ""  # places with a class: CSV, xlsx, GeoPackage, GeoJSON or shapefile
    areas: str = ""  # polygons with a class: GeoPackage, GeoJSON or shapefile
    # CSV of known shares of ground with permafrost (`helpers.samples.prevalence`); empty: none, or
    # the one beside the tables in the run's folder.
    prevalence: str = ""
    class_column: str = "ice_type"  # of points and polygons
    cells_per_area: Count = 20  # at most so many cells of a polygon are samples
    same_cell: Literal["together", "merge"] = "together"  # sites of a cell: one group or one sample
    absences: Literal["refuse", "mask", "pseudo"] = "refuse"  # where all sites have permafrost
    permafrost_mask: str = ""  # raster, 0 where there is none
    absence_sites: Count = 100  # drawn from the mask, or outside of the domain
    # of each type in each layer; see `rare_classes`
    minimum_class_sites: Annotated[int, Field(ge=0, le=MOST)] = 15
    rare_classes: Literal["stop", "merge", "keep"] = "stop"  # with fewer sites in a layer
    outlier_limit: Positive = 20.0  # robust standard deviations, which are small for soil maps
    correlated: Share = 0.7  # predictors of a larger absolute rank correlation are one group
    test_share: Probability = 0.3  # of the groups, for the test
    probability_sample: bool = False  # sites drawn at random; else accuracy by area is indicative
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of training groups; learning curves
    seed: Seed = 20240602  # of the split and of drawn absences

    @field_validator("epsg")
    @classmethod
    def _of_places(cls, code: int) -> int:
        try:
            system = CRS.from_epsg(code)
        except CRSError:
            raise ValueError(f"there is no coordinate reference system EPSG:{code}") from None
        if len(system.axis_info) != 2 or not (system.is_geographic or system.is_projected):
            raise ValueError(f"EPSG:{code} has no longitude and latitude, or easting and northing")
        return code


class Forest(Section):
    """The random forest and its grid search.

    Final forests have `n_estimators` trees. Of the combinations with so many, the one with the best
    `score` is taken.
    """

    n_estimators: Trees = 1000  # trees of the final forests
    search_sizes: list[Trees] = [250, 500]  # trees; also scored where n_estimators is more
    max_depth: Axis[Count | None] = [4, 6, 8, 12, None]  # of the trees; null: no limit
    # samples that a node needs to be split
    min_samples_split: Axis[Annotated[int, Field(ge=2)]] = [2, 5, 10, 20]
    # predictors tried at a split: sqrt, log2, a number or a share
    max_features: Axis[str | int | float] = ["sqrt", 0.33]
    min_samples_leaf: Axis[Count] = [1]  # samples of a leaf at least
    criterion: Axis[Literal["gini", "entropy"]] = ["gini"]  # impurity by which nodes are split
    # by which combinations are compared, out of fold
    score: Literal["kappa", "macro_f1", "log_loss"] = "kappa"
    one_standard_error: bool = False  # the simplest combination this near to the best
    seed: Seed = 20240603  # of forests and hurdle models
    # samples of the map's forest: all, or those of the training
    map_fit: Literal["all", "train"] = "all"

    @field_validator("max_features")
    @classmethod
    def _of_predictors(cls, values: list[str | int | float]) -> list[str | int | float]:
        for value in values:
            count = isinstance(value, int) and value > 0
            share = isinstance(value, float) and 0 < value <= 1
            if not (count or share or value in ("sqrt", "log2")):
                kinds = "sqrt, log2, a number of predictors, nor a share of them (0-1)"
                raise ValueError(f"{value!r} is neither {kinds}")
        return values


class Folds(Section):
    """How training samples get their folds, for search, calibration and estimates of accuracy."""

    # of search and calibration; estimates have all kinds
    kind: Literal["random", "knndm", "blocks", "column"] = "random"
    number: Annotated[int, Field(ge=2, le=100)] = 5  # of folds
    judged: Literal["potential_permafrost", "whole"] = "potential_permafrost"  # cells of kNNDM
    block_km: Positive = 100  # side of a block
    column: str = ""  # of the samples: those with one value stay together
    min_separation_km: NotNegative = 1.0  # nearer sites are never parted
    seed: Seed = 20240606  # of folds
    estimators: Trees = 200  # trees of a forest in the estimates; more hardly change scores

    @model_validator(mode="after")
    def _has_column(self) -> Self:
        if self.kind == "column" and not self.column:
            raise ValueError("folds by a column need its name as `column`")
        return self


class Uncertainty(Section):
    """The interval of a total (`helpers.mapping.interval`)."""

    interval: Probability = 0.9  # share of draws between its ends
    draws: Annotated[Repeats, Field(ge=20)] = 400  # of the total
    cells: Annotated[Count, Field(ge=100)] = 3000  # of a systematic sample, for the draws
    block_km: Positive = 50  # side of the blocks of sites that are resampled
    # By how much deviations by resampled sites are multiplied. With all models refitted they are
    # 1.0 to 1.2 times as large (benchmarks/storage_interval.py); the rest is such that nine in ten
    # intervals hold the total of hidden worlds (config/sweeps/replicates.yaml).
    refit_inflation: Annotated[float, Field(ge=1, le=100)] = 1.35
    farthest_km: Positive = 200  # longest distance in the variogram of residuals
    seed: Seed = 20240607  # of draws


class Accuracy(Section):
    """Intervals of accuracy, by a bootstrap that draws square blocks of samples."""

    interval: Probability = 0.9  # share of draws between its ends
    draws: Repeats = 1000  # of the bootstrap
    block_km: Positive = 100  # side of a block
    bins: Annotated[int, Field(gt=1, le=1000)] = 10  # of probabilities in the reliability diagram
    shapley_sites: Count = 300  # at most so many samples of a layer get Shapley values
    seed: Seed = 20240608  # of draws


class Domain(Section):
    """The potential-permafrost domain: a rule on one covariate, fixed before any model."""

    covariate: str = "air_frost_number"  # empty: the whole study area
    above: float = 0.44  # colder than about +1.5 degC on average; permafrost here needs more cold


class Maps(Section):
    """Of ice contents, and how storage is summed up."""

    exceeded: Probability = 0.3  # ice fraction whose probability of being exceeded is mapped
    elevation_band: Positive = 200  # m


class Trust(Section):
    """How far the map may be believed."""

    # Of sets of classes; and the probability from which a class counts as sure.
    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    similar_samples: Count = 1  # a cell with fewer samples like it counts as extrapolated


class OtherMap(Section):
    """An existing map, and what its values mean: a raster, polygons, or one of the covariates.

    Either `classes` says which class of ours each of its values is, or `above`, beyond which value
    it has permafrost.
    """

    name: Name  # of its tables and rasters
    covariate: str = ""  # a covariate of this study, instead of a file
    file: str = ""  # raster or polygons
    layer: str = ""  # of a GeoPackage; the first by default
    column: str = ""  # of polygons
    compares: Literal["permafrost", "class", "storage"] = "permafrost"  # storage in m of ice
    depth: tuple[float, float] | None = None  # the depth layer of classes
    classes: dict[str, Annotated[int, Field(ge=0)]] = {}  # their values to our codes; rest: no data
    above: float | None = None  # permafrost where values are larger

    @field_validator("classes", mode="before")
    @classmethod
    def _by_text(cls, classes: dict[Any, Any]) -> dict[Any, Any]:
        def text(key: Any) -> Any:
            number = isinstance(key, int | float) and not isinstance(key, bool)
            return f"{key:g}" if number else str(key)

        return {text(key): code for key, code in classes.items()}

    @model_validator(mode="after")
    def _is_one_map(self) -> Self:
        if bool(self.covariate) == bool(self.file):
            raise ValueError("a map to compare with needs either `file` or `covariate`")
        if self.compares == "class" and (self.depth is None or not self.classes):
            raise ValueError("classes of a layer: give `depth`, such as [2, 3], and `classes`")
        if self.compares == "permafrost" and (self.above is None) == (not self.classes):
            raise ValueError("permafrost needs either `above`, or `classes`: values to 0 and 1")
        return self


class Author(Section):
    """An author of a record: a person, or by its family name alone an organisation."""

    family_name: Annotated[str, Field(min_length=1)]  # or the name of an organisation
    given_name: str = ""  # empty: an organisation
    name_zh: str = ""  # in Chinese
    orcid: str = ""  # 0000-0002-1825-0097
    affiliation: str = ""  # institute
    affiliation_zh: str = ""  # institute, in Chinese

    @field_validator("orcid")
    @classmethod
    def _has_check_digit(cls, orcid: str) -> str:
        """Refuse a mistyped one: its last character is a check digit (ISO 7064, MOD 11-2)."""
        digits = orcid.replace("-", "")
        total = 0
        for digit in digits[:-1]:
            total = 2 * (total + int(digit)) if digit.isdigit() else 0
        last = "0123456789X"[(12 - total % 11) % 11]
        groups = [len(group) for group in orcid.split("-")]
        if orcid and (groups != [4, 4, 4, 4] or digits[-1] != last):
            raise ValueError("no ORCID has these digits; it looks like 0000-0002-1825-0097")
        return orcid


class Funding(Section):
    """What paid for a study."""

    funder: Annotated[str, Field(min_length=1)]  # who paid
    funder_zh: str = ""  # the same in Chinese
    number: str = ""  # of the grant
    title: str = ""  # of the grant


class Record(Section):
    """What the record of a study says beside its results (`helpers.record`)."""

    title: str = ""  # by default that of the study
    title_zh: str = ""  # in Chinese
    authors: list[Author] = []  # at least one
    contact: str = ""  # an e-mail address
    abstract: str = ""  # sentences after those that are filled from results
    abstract_zh: str = ""  # the same in Chinese
    keywords: list[str] = []  # beside permafrost, ground ice and random forest
    keywords_zh: list[str] = []  # the same in Chinese
    place: str = ""  # name of the area
    place_zh: str = ""  # the same in Chinese
    period: tuple[int, int] | None = None  # first and last year of the data
    funding: list[Funding] = []  # what paid for it
    publisher: str = "National Cryosphere Desert Data Center"  # data centre
    doi: Annotated[str, Field(pattern=r"^$|^10\.\d{4,9}/\S+$")] = ""  # once there is one
    # Of boreholes and other samples: as they are, to a tenth of a degree, or not at all. The page
    # of the map, `explorer.html`, shows sites only where they are exact.
    publish_coordinates: Literal["exact", "rounded", "none"] = "none"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.period and self.period[0] > self.period[1]:
            raise ValueError("`period` is the first and the last year: [2023, 2024]")
        return self


class Compute(Section):
    """Where runs in one process, and the map's chunks, are computed; no result depends on it."""

    # Address of a dask.distributed scheduler, such as tcp://10.0.0.5:8786; empty: this machine.
    scheduler: Annotated[str, Field(pattern=r"^$|://.|:\d+$")] = ""
    # What the map's forests predict with: nvforest (`pip install .[gpu]`) where it finds a GPU, and
    # scikit-learn on the cores elsewhere; or always one of both.
    engine: Literal["auto", "scikit-learn", "nvforest"] = "auto"
    bandwidth: Positive = 20  # Mbit/s, to tell how long open data take
