"""The sections of a study file: every setting, its default and its range."""

import itertools
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pyproj import CRS
from pyproj.exceptions import CRSError

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder; every path in a study file is relative to it, whatever the working directory."""


ALBERS = "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


Positive = Annotated[float, Field(gt=0)]


Share = Annotated[float, Field(ge=0, le=1)]


Value = TypeVar("Value")


Axis = Annotated[list[Value], Field(min_length=1)]  # values of one axis of a grid search


class Section(BaseModel):
    """A section of a study file: unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Area(Section):
    """Where the map is made."""

    polygons: str = "data/base/study-area.gpkg"
    layer: str = "study_area"
    regions_layer: str = "regions"


class Grid(Section):
    """The reference grid, and the finer grid on which terrain and indices are computed; lengths in metres."""

    crs: str = ALBERS
    resolution: Positive = 1000
    fine_resolution: Positive = 500
    margin: Annotated[float, Field(ge=0)] = 40_000

    @field_validator("crs")
    @classmethod
    def _in_metres(cls, text):
        try:
            crs = CRS.from_user_input(text)
        except CRSError:
            raise ValueError("no coordinate reference system is known by this name") from None
        if not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1:
            raise ValueError("a projected system in metres is needed, such as EPSG:32651 or a PROJ string")
        return text

    @model_validator(mode="after")
    def _fits(self):
        if self.resolution % self.fine_resolution:
            raise ValueError(
                f"fine_resolution {self.fine_resolution:g} m does not divide resolution {self.resolution:g} m evenly"
            )
        return self


class Terrain(Section):
    """Terrain covariates; lengths in metres."""

    tpi_radii: list[Positive] = [1000, 5000]
    tpi_inner_share: Share = 0.5
    relief_window_km2: Positive = 4.0
    slope_floor: Positive = 0.001
    flat_slope_degrees: Annotated[float, Field(ge=0)] = 0.01


class Vegetation(Section):
    """Vegetation and water indices from Landsat scenes."""

    mask: list[Literal["dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "water"]] = [
        "dilated_cloud",
        "cirrus",
        "cloud",
        "cloud_shadow",
        "snow",
    ]


class Climate(Section):
    """Land surface temperature, thawing and freezing index, precipitation."""

    lst_max_error: Literal[1, 2, 3] = 2
    minimum_months: Annotated[int, Field(ge=5, le=12)] = 8
    harmonics: Annotated[int, Field(ge=1, le=2)] = 2


class Covariates(Section):
    """How covariates are made from raw rasters."""

    terrain: Terrain = Terrain()
    vegetation: Vegetation = Vegetation()
    climate: Climate = Climate()


class Ice(Section):
    """Ice types by volumetric ice content, and when a layer counts as sampled."""

    # Class limits of the volumetric rule; SCIENCE.md section 2 marks them as to be confirmed, so they are settings.
    thresholds: list[Share] = [0.10, 0.20, 0.30, 0.50]
    richest: Share = 0.70  # the range of the ice-richest type ends here, where a core's type is given without a content
    minimum_sampled_share: Share = 0.5
    # Errors of measurement (standard deviations), and unfrozen water by texture at the usual -1 degC; orders of
    # magnitude from the literature, to be replaced by those of one's own laboratory.
    ice_content_error: Share = 0.03  # m3 m-3
    water_content_error: Annotated[float, Field(ge=0)] = 0.02  # fraction of the dry mass
    dry_density_error: Share = 0.05  # share of the density
    unfrozen_water_error: Annotated[float, Field(ge=0)] = 0.02  # fraction of the dry mass
    unfrozen_water: dict[Literal["peat", "clay", "silt", "sand", "gravel", "rock", "unknown"], Share] = {
        "peat": 0.20,
        "clay": 0.10,
        "silt": 0.06,
        "sand": 0.02,
        "gravel": 0.01,
        "rock": 0.0,
        "unknown": 0.05,
    }
    organic_density: Positive = 1.5  # of peat's solids, relative to water

    @field_validator("unfrozen_water")
    @classmethod
    def _for_every_texture(cls, given):
        return cls.model_fields["unfrozen_water"].default | given

    @field_validator("thresholds")
    @classmethod
    def _increasing(cls, limits):
        if len(limits) != 4 or any(b <= a for a, b in itertools.pairwise(limits)):
            raise ValueError(
                "four increasing limits between 0 and 1 are needed, one between each two of five ice types"
            )
        return limits


class Samples(Section):
    """Boreholes and test pits: the tables, what is dropped, and the split."""

    sites: str = ""  # CSV, xlsx or GeoPackage; empty: the virtual study draws its own
    intervals: str = ""
    epsg: Annotated[int, Field(gt=0)] = 4326  # of the sites' coordinates; 4490 is CGCS2000; projected ones work as well
    datum: Literal["wgs84", "gcj02", "bd09"] = "wgs84"  # Chinese web maps shift coordinates
    severity: dict[str, Literal["error", "drop", "warn"]] = {}  # kinds of problems to treat otherwise than usual
    elevation_tolerance: Positive = 100.0  # m, beyond the relief around the site
    more_columns: list[str] = []  # of the sites table, to be kept in the samples, such as a campaign for `folds.column`
    areas: str = ""  # polygons with a known ice type: GeoPackage, GeoJSON or shapefile
    class_column: str = "ice_type"  # of the polygons
    cells_per_area: Annotated[int, Field(gt=0)] = 20  # at most so many cells of a polygon are samples
    same_cell: Literal["together", "merge"] = "together"  # sites in one cell: one group, or one sample
    absences: Literal["refuse", "mask", "pseudo"] = "refuse"  # where no site is free of permafrost
    permafrost_mask: str = ""  # raster, 0 where there is none
    absence_sites: Annotated[int, Field(gt=0)] = 100  # drawn from the mask, or outside of the domain
    minimum_class_sites: Annotated[int, Field(ge=0)] = 15
    rare_classes: Literal["stop", "merge", "keep"] = "stop"  # ice types with fewer sites in a layer
    outlier_limit: Positive = 20.0  # robust standard deviations; soil maps have few values, so their spread is small
    correlated: Share = 0.7  # predictors whose absolute rank correlation is larger are shown as a group
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    probability_sample: bool = False  # sites were drawn at random: accuracy by area is not just indicative
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the training groups that is used: for learning curves
    seed: int = 20240602

    @field_validator("epsg")
    @classmethod
    def _of_places(cls, code):
        try:
            system = CRS.from_epsg(code)
        except CRSError:
            raise ValueError(f"there is no coordinate reference system EPSG:{code}") from None
        if len(system.axis_info) != 2 or not (system.is_geographic or system.is_projected):
            raise ValueError(f"EPSG:{code} has no longitude and latitude, or easting and northing")
        return code


class Forest(Section):
    """The random forest and its grid search.

    Final forests have `n_estimators` trees; of the combinations with so many, the one with the best `score` is taken.
    """

    n_estimators: Annotated[int, Field(gt=0)] = 1000
    search_sizes: list[Annotated[int, Field(gt=0)]] = [250, 500]  # trees; also scored where n_estimators is more
    max_depth: Axis[Annotated[int, Field(gt=0)] | None] = [4, 6, 8, 12, None]
    min_samples_split: Axis[Annotated[int, Field(ge=2)]] = [2, 5, 10, 20]
    max_features: Axis[str | int | float] = ["sqrt", 0.33]
    min_samples_leaf: Axis[Annotated[int, Field(gt=0)]] = [1]
    criterion: Axis[Literal["gini", "entropy"]] = ["gini"]
    score: Literal["kappa", "macro_f1", "log_loss"] = "kappa"
    one_standard_error: bool = False  # take the simplest combination within one standard error of the best
    seed: int = 20240603
    map_fit: Literal["all", "train"] = "all"

    @field_validator("max_features")
    @classmethod
    def _of_predictors(cls, given):
        for value in given:
            number = (isinstance(value, int) and value > 0) or (isinstance(value, float) and 0 < value <= 1)
            if not number and value not in ("sqrt", "log2"):
                raise ValueError(f"{value!r} is neither sqrt, log2, a number of predictors, nor a share of them (0-1)")
        return given


class Regression(Section):
    """The regression twin: a quantile regression forest of the ice fraction, with `forest.n_estimators` trees.

    Defaults are those that Breiman's random forest has for regression.
    """

    max_features: Annotated[float, Field(gt=0, le=1)] = 0.33  # share of the predictors that is tried at a split
    min_samples_leaf: Annotated[int, Field(gt=0)] = 5
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.9  # probability of the interval


class Folds(Section):
    """How training samples are dealt into folds, for the search, the calibration and estimates of accuracy."""

    kind: Literal["random", "knndm", "blocks", "column"] = "random"
    number: Annotated[int, Field(ge=2)] = 5
    judged: Literal["potential_permafrost", "whole"] = "potential_permafrost"  # the cells that kNNDM looks to
    block_km: Positive = 100  # side of a block
    column: str = ""  # of the samples: those with one value stay together; samples.more_columns may bring it
    together_km: Annotated[float, Field(ge=0)] = 1.0  # sites nearer to each other are never parted
    seed: int = 20240606
    estimators: Annotated[int, Field(gt=0)] = 200  # trees of a forest in the estimates; with more, scores hardly differ

    @model_validator(mode="after")
    def _has_column(self):
        if self.kind == "column" and not self.column:
            raise ValueError("folds by a column need its name as `column`")
        return self


class Uncertainty(Section):
    """The interval of a total (`helpers.mapping.interval`)."""

    interval: Annotated[float, Field(gt=0, lt=1)] = 0.9  # probability of the interval
    draws: Annotated[int, Field(ge=20)] = 400
    cells: Annotated[int, Field(ge=100)] = 3000  # about so many, of a systematic sample, serve for the draws
    block_km: Positive = 50  # side of the blocks of sites that are resampled
    bags: Annotated[int, Field(ge=2, multiple_of=2)] = 10  # half-samples of the blocks with a small forest each
    trees: Annotated[int, Field(gt=0)] = 20  # of such a forest
    # Standard deviation with all forests regrown over that with forests that stay, by benchmarks/storage_interval.py.
    regrown: Annotated[float, Field(ge=1)] = 1.1
    farthest_km: Positive = 200  # longest distance in the variogram of residuals
    seed: int = 20240607


class Accuracy(Section):
    """Intervals of accuracy, by a bootstrap that draws square blocks of samples."""

    interval: Annotated[float, Field(gt=0, lt=1)] = 0.9  # probability of the intervals
    draws: Annotated[int, Field(gt=0)] = 1000
    block_km: Positive = 100  # side of a block
    bins: Annotated[int, Field(gt=1)] = 10  # of probabilities in the reliability diagram
    shapley_sites: Annotated[int, Field(gt=0)] = 300  # at most so many samples of a layer get Shapley values
    seed: int = 20240608


class Domain(Section):
    """The potential-permafrost domain: a rule on one covariate, fixed before any model."""

    covariate: str = "air_frost_number"
    above: float = 0.44  # colder than about +1.5 degC on average; permafrost of this region needs more cold


class Maps(Section):
    """How storage is summed up."""

    elevation_band: Positive = 200  # m


class Trust(Section):
    """How far the map may be believed."""

    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.9  # of sets of classes, and probability that is sure
    similar_samples: Annotated[int, Field(gt=0)] = 1  # fewer than so many like it, and a cell counts as extrapolated


class OtherMap(Section):
    """A map that somebody already has, and what its values mean: a raster, polygons, or one of the covariates.

    Either `classes` says which class of ours each of its values is, or `above`, beyond which value it has permafrost.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    covariate: str = ""
    file: str = ""
    layer: str = ""  # of a GeoPackage; the first by default
    column: str = ""  # of polygons
    compares: Literal["permafrost", "class", "storage"] = "permafrost"  # yes or no, classes of a depth layer, m of ice
    depth: tuple[float, float] | None = None  # the depth layer of classes
    classes: dict[str, Annotated[int, Field(ge=0)]] = {}  # values of theirs to codes of ours; others are no data
    above: float | None = None

    @field_validator("classes", mode="before")
    @classmethod
    def _by_text(cls, given):
        return {f"{key:g}" if isinstance(key, int | float) else key: code for key, code in given.items()}

    @model_validator(mode="after")
    def _is_one_map(self):
        if bool(self.covariate) == bool(self.file):
            raise ValueError("a map to compare with needs either `file` or `covariate`")
        if self.compares == "class" and (self.depth is None or not self.classes):
            raise ValueError("classes are compared in one layer: give `depth`, such as [2, 3], and `classes`")
        if self.compares == "permafrost" and (self.above is None) == (not self.classes):
            raise ValueError("permafrost needs either `above`, a limit, or `classes`, values to 0 and 1")
        return self


class Compute(Section):
    """Where runs in one process, and the map's chunks, are computed; no result depends on it."""

    # Address of a dask.distributed scheduler, such as tcp://10.0.0.5:8786; empty: this machine.
    scheduler: Annotated[str, Field(pattern=r"^$|://.|:\d+$")] = ""
