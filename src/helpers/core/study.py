"""The study file: the only source of settings and of paths."""

import difflib
import itertools
from datetime import date
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers.core.code import file_hash, short_hash, write_text
from helpers.core.errors import CompendiumError

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder; every path in a study file is relative to it, whatever the working directory."""


ALBERS = "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


Positive = Annotated[float, Field(gt=0)]


Share = Annotated[float, Field(ge=0, le=1)]


Value = TypeVar("Value")


Axis = Annotated[list[Value], Field(min_length=1)]  # values of one axis of a grid search


class StudyError(CompendiumError):
    """A study file that cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Area(_Section):
    """Where the map is made."""

    polygons: str = "data/base/study-area.gpkg"
    layer: str = "study_area"
    regions_layer: str = "regions"


class Grid(_Section):
    """The reference grid, and the finer grid on which terrain and indices are computed; lengths in metres."""

    crs: str = ALBERS
    resolution: Positive = 1000
    fine_resolution: Positive = 500
    margin: Annotated[float, Field(ge=0)] = 40_000

    @field_validator("crs")
    @classmethod
    def _in_metres(cls, text):
        from pyproj import CRS
        from pyproj.exceptions import CRSError

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


class Relief(_Section):
    """Constants of the relief below 5 arc minutes, set by the looks and the slopes of the result."""

    coarsest_arcsec: Positive = 120  # coarsest grid of the pyramid
    longest_arcmin: Positive = 7.5  # longest wavelength of the noise; real topography carries what is longer
    hurst: Share = 0.75  # Hurst exponent of natural topography, 0.7-0.8 [M]
    noise: list[Annotated[float, Field(ge=0)]] = [3.5, 1.5, 0.5, 0.2]  # by level, in steps of the topography
    calm_roughness: Positive = 15  # m; steps of the topography well below it bring hardly any noise
    incision: Positive = 0.12  # km^(1 - 2 area_exponent) a cycle
    incision_limit: Positive = 40  # largest ratio of the drop cut in a cycle to the drop left
    area_exponent: Share = 0.8  # above a river's 0.4-0.5 [M], as small cells are hillslopes
    diffusion: Positive = 0.45  # cells, standard deviation of the hillslope smoothing in a cycle
    breached_share: Share = 0.9  # the rest of a depression is filled
    cycles: Annotated[int, Field(ge=1)] = 7  # of erosion and uplift after a routing
    routings: list[Annotated[int, Field(ge=1)]] = [3, 2, 1]  # by level


Months = Annotated[list[float], Field(min_length=12, max_length=12)]


Spectrum = Annotated[list[float], Field(min_length=5, max_length=5)]


class Cover(_Section):
    """Constants of the virtual land cover [M]: where a class reaches half, and how sharp its edge is.

    Humidity is de Martonne's index: annual precipitation in mm / (mean annual air temperature in degC + 10).
    """

    lapse_rate: Positive = 5.0  # K km-1, of annual means
    valley_depth: Positive = 15  # m below the mean of the ground within valley_window
    valley_window: Positive = 6000  # m
    forest_humidity: tuple[Positive, Positive] = (37, 5)
    forest_slope: float = 0.8  # logits a degree of slope
    crop_temperature: tuple[float, Positive] = (1.5, 0.8)  # degC
    crop_slope: tuple[float, Positive] = (2.0, 0.4)  # degrees
    crop_precipitation: tuple[Positive, Positive] = (400, 30)  # mm
    wet_slope: tuple[float, Positive] = (1.5, 0.4)  # degrees
    wet_humidity: tuple[Positive, Positive] = (38, 4)
    bare_humidity: tuple[Positive, Positive] = (18, 3)
    water_share: Share = 0.01  # of the flat ground
    burned_share: Share = 0.06  # of the ground that carries forest
    patch_km: Positive = 30  # longest wavelength of patches
    patch_logits: Positive = 1.2  # standard deviation of what patches add


class Scenes(_Section):
    """Constants of the virtual Landsat scenes [M]; spectra are in blue, green, red, nir08, swir16."""

    green: dict[str, Spectrum] = {
        "forest": [0.020, 0.042, 0.026, 0.300, 0.130],
        "grass": [0.040, 0.075, 0.065, 0.260, 0.220],
        "crop": [0.030, 0.065, 0.040, 0.380, 0.180],
        "wetland": [0.030, 0.060, 0.045, 0.270, 0.120],
        "burned": [0.035, 0.055, 0.060, 0.160, 0.210],
        "bare": [0.110, 0.160, 0.210, 0.280, 0.360],
        "water": [0.050, 0.060, 0.040, 0.020, 0.010],
    }
    brown: dict[str, Spectrum] = {
        "forest": [0.035, 0.055, 0.065, 0.170, 0.180],
        "grass": [0.070, 0.100, 0.140, 0.220, 0.300],
        "crop": [0.070, 0.095, 0.120, 0.190, 0.260],
        "wetland": [0.050, 0.070, 0.080, 0.170, 0.150],
        "burned": [0.035, 0.050, 0.060, 0.110, 0.230],
        "bare": [0.110, 0.160, 0.210, 0.280, 0.360],
        "water": [0.050, 0.060, 0.040, 0.020, 0.010],
    }
    snow: Spectrum = [0.80, 0.80, 0.78, 0.70, 0.12]
    green_up: tuple[float, float] = (135, 3)  # day of the year at 45 N, 0 m; days a degree of latitude
    senescence: tuple[float, float] = (264, -3)
    crop_green_up: tuple[float, float] = (178, 2)
    crop_senescence: tuple[float, float] = (260, -2)
    metres_per_degree: Positive = 250  # of elevation that count as a degree of latitude
    cloud_share: Share = 0.20
    cirrus_share: Share = 0.05
    cloud_km: Positive = 250  # longest wavelength of clouds
    shadow_km: tuple[float, float] = (1.8, -1.5)  # north, east, of a shadow from its cloud
    gap_share: Share = 0.08  # between swaths
    swath_km: Positive = 185
    snow_line: tuple[float, float] = (2300, -100)  # m at 42 N on the first and last date; m a degree
    noise: tuple[float, float] = (0.003, 0.02)  # standard deviation: constant, share of the reflectance


class SurfaceTemperature(_Section):
    """Constants of the virtual land surface temperature [M]; lists run from January to December."""

    lapse_rate: Months = [2.5, 3.5, 5.0, 6.0, 6.2, 6.0, 5.5, 5.5, 5.5, 5.0, 4.0, 2.5]  # K km-1
    cold_pool: Months = [6.0, 5.0, 3.5, 2.5, 2.0, 1.5, 1.5, 2.0, 2.5, 3.0, 4.5, 6.0]  # K, valleys, night
    cold_pool_day: Share = 0.25  # of the one at night
    warm_belt: Share = 0.2  # of the cold pool: warming of ground above its surroundings
    day_excess: Months = [4, 6, 10, 13, 14, 14, 12, 11, 11, 9, 6, 4]  # K, bare dry ground over air
    night_deficit: Months = [4, 4, 5, 6, 6, 5, 4, 4, 5, 5, 4, 4]  # K
    day_cooling: dict[str, Share] = {
        "forest": 0.65,
        "crop": 0.5,
        "wetland": 0.6,
        "grass": 0.2,
        "burned": 0.3,
        "water": 0.9,
    }  # share of the day's excess
    night_warming: dict[str, Share] = {"forest": 0.45, "wetland": 0.2, "water": 0.8}
    sun: Months = [8, 8, 7, 5, 4, 3, 3, 4, 6, 7, 8, 8]  # K for twice the sun of flat ground
    snow_cooling: float = 1.0  # K
    snow_temperature: tuple[float, Positive] = (-3, 2)  # degC of the month's air; softness in K
    cloudy: Months = [0.01, 0.01, 0.015, 0.02, 0.02, 0.03, 0.04, 0.035, 0.02, 0.015, 0.015, 0.015]  # no value
    poorer: tuple[Share, Share, Share] = (0.01, 0.025, 0.20)  # more shares, of errors above 3, 2 and 1 K
    noise: tuple[float, float, float, float] = (0.5, 1.0, 1.8, 2.8)  # K, by error class
    cloud_km: Positive = 400
    persistence: Share = 0.2  # correlation of cloudiness from one month to another


class Landscape(_Section):
    """The virtual landscape: the raw products that notebook 00 makes where no real ones are given."""

    seed: int = 20240601
    dem_arcsec: Positive = 15
    landsat_arcsec: Positive = 30
    lst_arcsec: Positive = 30
    margin_degrees: Positive = 0.75
    scene_dates: list[date] = [date(2023, 6, 18), date(2023, 7, 20), date(2023, 8, 21), date(2024, 9, 8)]
    edge_km: Positive = 20  # Landsat and surface temperature reach this far beyond the study area
    relief: Relief = Relief()
    cover: Cover = Cover()
    scenes: Scenes = Scenes()
    temperature: SurfaceTemperature = SurfaceTemperature()


class Terrain(_Section):
    """Terrain covariates; lengths in metres."""

    tpi_radii: list[Positive] = [1000, 5000]
    tpi_inner_share: Share = 0.5
    relief_window_km2: Positive = 4.0
    slope_floor: Positive = 0.001
    flat_slope_degrees: Annotated[float, Field(ge=0)] = 0.01


class Vegetation(_Section):
    """Vegetation and water indices from Landsat scenes."""

    mask: list[Literal["dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "water"]] = [
        "dilated_cloud",
        "cirrus",
        "cloud",
        "cloud_shadow",
        "snow",
    ]


class Climate(_Section):
    """Land surface temperature, thawing and freezing index, precipitation."""

    lst_max_error: Literal[1, 2, 3] = 2
    minimum_months: Annotated[int, Field(ge=5, le=12)] = 8
    harmonics: Annotated[int, Field(ge=1, le=2)] = 2


class Covariates(_Section):
    """How covariates are made from raw rasters."""

    terrain: Terrain = Terrain()
    vegetation: Vegetation = Vegetation()
    climate: Climate = Climate()


class Ice(_Section):
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


class Truth(_Section):
    """Constants of the law behind the virtual study (`sources/boreholes.py`), fixed before any model is fitted.

    They are ours: orders of magnitude follow the literature, none is a measurement of this region.
    """

    seed: int = 20240604
    lapse_rate: float = 5.5  # K per km, from the height that ERA5 sees to the ground's
    inversion: float = 4.5  # K that winter nights take off on valley floors, at the fullest
    past_cooling: float = 1.5  # K; the colder climate that left relict permafrost
    thawing_n_factor: tuple[float, float] = (0.95, 0.62)  # bare dry ground, closed forest on peat
    freezing_n_factor: tuple[float, float] = (0.62, 0.42)  # little snow, much snow
    snow_half: float = 35.0  # mm of water in November to March at which the factor lies half-way
    conductivity_ratio: tuple[float, float] = (0.95, 0.50)  # thawed over frozen: dry mineral ground, wet peat
    insolation: float = 0.10  # share of the thawing index that a 10 degree slope to the south gains
    unseen_temperature: tuple[float, float] = (0.20, 0.60)  # K, sd of unseen fields: of 40 km, and cell by cell
    relict_limit: float = 0.7  # degC; ground now warmer than this has lost its relict permafrost
    stefan: tuple[float, float] = (0.060, 0.030)  # m per root of a degC d: dry mineral ground, wet peat
    burnt_share: float = 0.12  # of the ground, in patches; fire lets it thaw deeper
    burnt_table: float = 1.2  # m deeper table where it burnt
    thickness_per_kelvin: float = 32.0  # m of permafrost for each K below 0 degC at its top
    ice_cap: float = 0.80  # m3 m-3
    ice_intercept: float = -2.6  # log-odds of ice content over the cap, dry coarse ground at 2 m
    ice_wetness: float = 1.9
    ice_peat: float = 1.3
    ice_fines: float = 1.2
    ice_transition: float = 1.0  # at the permafrost table; falls to 1/e within `transition_depth`
    transition_depth: float = 1.5  # m
    ice_decline: float = 0.14  # for each metre below 2 m
    unseen_ice: tuple[float, float] = (1.00, 1.20)  # sd of log-odds, fields of 25 and 2 km
    rock_ice: float = 0.03  # m3 m-3, in bedrock
    soil_depth: tuple[float, float] = (2.5, 22.0)  # m to bedrock: steep ridge, valley floor


class Boreholes(_Section):
    """How boreholes and pits sample the truth of the virtual study."""

    seed: int = 20240605
    sites: Annotated[int, Field(ge=30)] = 720
    pit_share: Share = 0.35
    domain_share: Share = 0.78  # of the sites lie in the potential-permafrost domain
    design: Literal["random", "clustered", "roadside"] = "clustered"
    clusters: Annotated[int, Field(gt=0)] = 90
    cluster_radius: Positive = 6000  # m
    lowest_of: Annotated[int, Field(ge=1)] = (
        2  # places considered for a cluster; the one nearest a valley floor is taken
    )
    road_share: Share = 0.4  # of the clusters lie along roads, the others in valleys
    towns: Annotated[int, Field(ge=3)] = 70
    duplicates: Share = 0.01  # sites that were entered twice
    mistakes: Share = 0.005  # rows with a typing mistake
    ice_error: Annotated[float, Field(ge=0)] = 0.03  # m3 m-3, sd of a measured interval
    hole_scatter: Annotated[float, Field(ge=0)] = 0.35  # sd of log-odds between a hole and its 500 m cell
    table_error: Annotated[float, Field(ge=0)] = 0.2  # m


class Samples(_Section):
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
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        try:
            system = CRS.from_epsg(code)
        except CRSError:
            raise ValueError(f"there is no coordinate reference system EPSG:{code}") from None
        if len(system.axis_info) != 2 or not (system.is_geographic or system.is_projected):
            raise ValueError(f"EPSG:{code} has no longitude and latitude, or easting and northing")
        return code


class Forest(_Section):
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


class Regression(_Section):
    """The regression twin: a quantile regression forest of the ice fraction, with `forest.n_estimators` trees.

    Defaults are those that Breiman's random forest has for regression.
    """

    max_features: Annotated[float, Field(gt=0, le=1)] = 0.33  # share of the predictors that is tried at a split
    min_samples_leaf: Annotated[int, Field(gt=0)] = 5
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.9  # probability of the interval


class Folds(_Section):
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


class Uncertainty(_Section):
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


class Accuracy(_Section):
    """Intervals of accuracy, by a bootstrap that draws square blocks of samples."""

    interval: Annotated[float, Field(gt=0, lt=1)] = 0.9  # probability of the intervals
    draws: Annotated[int, Field(gt=0)] = 1000
    block_km: Positive = 100  # side of a block
    bins: Annotated[int, Field(gt=1)] = 10  # of probabilities in the reliability diagram
    shapley_sites: Annotated[int, Field(gt=0)] = 300  # at most so many samples of a layer get Shapley values
    seed: int = 20240608


class Domain(_Section):
    """The potential-permafrost domain: a rule on one covariate, fixed before any model."""

    covariate: str = "air_frost_number"
    above: float = 0.44  # colder than about +1.5 degC on average; permafrost of this region needs more cold


class Maps(_Section):
    """How storage is summed up."""

    elevation_band: Positive = 200  # m


class Trust(_Section):
    """How far the map may be believed."""

    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.9  # of sets of classes, and probability that is sure
    similar_samples: Annotated[int, Field(gt=0)] = 1  # fewer than so many like it, and a cell counts as extrapolated


class OtherMap(_Section):
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


class Compute(_Section):
    """Where runs in one process, and the map's chunks, are computed; no result depends on it."""

    # Address of a dask.distributed scheduler, such as tcp://10.0.0.5:8786; empty: this machine.
    scheduler: Annotated[str, Field(pattern=r"^$|://.|:\d+$")] = ""


class Study(_Section):
    """All settings of one study, validated, and the paths that follow from them.

    Open one with :meth:`open`; every field has a default but the name.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str = ""
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "main"
    source: Literal["virtual"] = "virtual"
    area: Area = Area()
    grid: Grid = Grid()
    landscape: Landscape = Landscape()
    covariates: Covariates = Covariates()

    predictors: Annotated[list[str], Field(min_length=1)] | Literal["all"] = "all"
    left_out: list[str] = []  # covariates, or families of them such as terrain, that are no predictors
    forward_selection: bool = False  # let notebook 08 choose predictors one by one
    layers: Annotated[list[tuple[float, float]], Field(min_length=1)] = [(2, 3), (3, 5), (5, 10)]
    target: Literal["ice_type", "permafrost", "ice_level", "two_stage"] = "ice_type"  # helpers.core.ice.TARGETS
    ice: Ice = Ice()
    truth: Truth = Truth()
    boreholes: Boreholes = Boreholes()
    samples: Samples = Samples()
    forest: Forest = Forest()
    storage_from: Literal["classes", "regression"] = "classes"  # what the ice content of a cell is expected from
    regression: Regression = Regression()
    folds: Folds = Folds()
    accuracy: Accuracy = Accuracy()
    domain: Domain = Domain()
    uncertainty: Uncertainty = Uncertainty()
    maps: Maps = Maps()
    trust: Trust = Trust()
    compare_with: list[OtherMap] = [OtherMap(name="air-frost-number", covariate="air_frost_number", above=0.5)]
    compute: Compute = Compute()

    @field_validator("name")
    @classmethod
    def _no_batch(cls, name):
        if name == "batches":
            raise ValueError("results/batches/ holds comparisons; give the study another name")
        return name

    @field_validator("layers")
    @classmethod
    def _from_top_to_bottom(cls, layers):
        for top, bottom in layers:
            if not 0 <= top < bottom:
                raise ValueError(f"the layer {top:g}-{bottom:g} m does not run downwards from the surface")
        for (_, bottom), (top, _) in itertools.pairwise(layers):
            if top < bottom:
                raise ValueError(f"layers overlap: one ends at {bottom:g} m and the next begins at {top:g} m")
        return layers

    @field_validator("compare_with")
    @classmethod
    def _one_of_each_name(cls, others):
        names = [other.name for other in others]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two maps have the name {twice[0]}")
        return others

    @classmethod
    def open(cls, path):
        """Read, complete and check a study file.

        Parameters
        ----------
        path : path-like
            A YAML file. Relative paths are taken from the project's folder, or from the working directory where only
            that one has the file. ``extends: other.yaml`` takes all settings that the file leaves out from another file
            beside it.

        Returns
        -------
        Study

        Raises
        ------
        StudyError
            The file is missing, is no YAML, or has unknown or impossible settings; all of them are named at once.
        """
        path = _find(path)
        try:
            return cls(**_read(path))
        except ValidationError as error:
            shown = _relative(path)
            raise StudyError(f"{shown}: {_explain(error)}", f"correct {shown} and run again") from None

    def has_setting(self, name):
        """Return whether there is a setting of a dotted name; the keys of a setting that is a dictionary count, too."""
        names, value = valid_names(type(self)), self.model_dump(mode="json")
        parent, _, last = name.rpartition(".")
        if name in names or parent not in names:
            return name in names
        open_keys = not any(other.startswith(f"{parent}.") for other in names)
        return open_keys and isinstance(reduce(dict.__getitem__, parent.split("."), value), dict) and bool(last)

    def changed(self, settings):
        """Return this study with other values of some settings, checked like a study file.

        Parameters
        ----------
        settings : dict
            Dotted names of settings, such as ``forest.seed``, to values.

        Returns
        -------
        Study

        Raises
        ------
        StudyError
            A setting is unknown, or a value impossible.
        """
        whole = self.model_dump(mode="json")
        for name, value in settings.items():
            if not self.has_setting(name):
                raise StudyError(f"{unknown_setting(name)}.", "correct the name")
            *sections, last = name.split(".")
            reduce(dict.__getitem__, sections, whole)[last] = value
        try:
            return type(self)(**whole)
        except ValidationError as error:
            raise StudyError(f"{_explain(error)}.", "correct the value") from None

    def write(self, path):
        """Write the study with every default spelled out; an unchanged file is left alone."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        path = Path(path)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    @property
    def simulated(self):
        """Whether the study stands on the virtual landscape, so that everything made from it says SIMULATED."""
        return self.source == "virtual"

    @property
    def draws_boreholes(self):
        """Whether the study draws truth and boreholes itself: a virtual one without tables of its own."""
        return self.simulated and not (self.samples.sites or self.samples.intervals or self.samples.areas)

    def path(self, relative):
        """Return a path of a study file as an absolute one."""
        return ROOT / relative

    def base_files(self):
        """Return the committed base layers, which every study may read."""
        folder = ROOT / "data" / "base"
        return [p for p in sorted(folder.iterdir()) if p.suffix in {".tif", ".nc", ".gpkg"}]

    @cached_property
    def _base_hashes(self):
        return {p.name: file_hash(p) for p in self.base_files()}

    @cached_property
    def raw_key(self):
        """Short hash of all that raw rasters depend on: their settings and the base layers."""
        return short_hash([self.source, self.landscape.model_dump(mode="json"), self._base_hashes])

    @cached_property
    def processed_key(self):
        """Short hash of all that covariates depend on: raw rasters, area, grid and rules."""
        polygons = file_hash(self.path(self.area.polygons))
        sections = [self.area, self.grid, self.covariates]
        return short_hash([self.raw_key, polygons, *(s.model_dump(mode="json") for s in sections)])

    @property
    def given_files(self):
        """The files that the user gave as samples: both tables, training areas and permafrost mask."""
        given = (self.samples.sites, self.samples.intervals, self.samples.areas, self.samples.permafrost_mask)
        return [self.path(path) for path in given if path]

    @property
    def _other_maps(self):
        return [self.path(other.file) for other in self.compare_with if other.file]

    @cached_property
    def inputs(self):
        """SHA-256 of every file that a run reads and none writes, by its path; empty where the file is missing."""
        files = [*self.base_files(), self.path(self.area.polygons), *self.given_files, *self._other_maps]
        return {_relative(path): file_hash(path) if path.is_file() else "" for path in files}

    @cached_property
    def other_inputs(self):
        """Of `inputs` those that are maps which ours is compared with."""
        names = {_relative(path) for path in self._other_maps}
        return {name: digest for name, digest in self.inputs.items() if name in names}

    @cached_property
    def key(self):
        """Short hash of all that results depend on but the code: every setting apart from names, and the input files.

        Runs of a batch lie in folders named after it, so that equal runs are one and different ones never meet.
        """
        settings = self.model_dump(mode="json", exclude={"name", "title", "run", "compute"})
        return short_hash([settings, self.inputs])

    @property
    def raw_dir(self):
        """Folder of the raw rasters, shared by all runs with the same settings upstream."""
        return ROOT / "data" / "raw" / f"{self.name}-{self.raw_key}"

    @property
    def processed_dir(self):
        """Folder of the covariates, shared like `raw_dir`."""
        return ROOT / "data" / "processed" / f"{self.name}-{self.processed_key}"

    @property
    def figures_dir(self):
        """Folder of this run's figures: those of the main run are the study's, and the default study's are in git."""
        return ROOT / "figures" / self.name if self.run == "main" else self.results_dir / "figures"

    @property
    def results_dir(self):
        """Folder of this run's results."""
        return ROOT / "results" / self.name / self.run


def _relative(path):
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _find(path):
    for candidate in (ROOT / path, Path.cwd() / path):
        if candidate.is_file():
            return candidate
    known = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "config").glob("*.yaml"))]
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.3) or known
    raise StudyError(
        f"There is no study file {path}.", f"name one that exists, such as {', '.join(near) or 'your own'}"
    )


def _read(path, seen=()):
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{_relative(path)} is not readable as YAML: {reason}", "correct the file's syntax") from None
    if not isinstance(settings, dict):
        raise StudyError(
            f"{_relative(path)} holds no settings.", "write `name: value` lines, as in config/virtual.yaml"
        )
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    parent = path.parent / str(parent)
    if not parent.is_file() or parent in seen:
        why = "extends itself" if parent in seen else "does not exist"
        raise StudyError(f"{_relative(path)} extends {parent.name}, which {why}.", "name another file after `extends:`")
    return _merged(_read(parent, (*seen, path)), settings)


def _merged(base, over):
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            both[key] = _merged(base[key], over[key])
    return both


def valid_names(model, prefix=""):
    """Return the dotted names of all settings of a section and of the sections in it."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += valid_names(field.annotation, f"{prefix}{name}.")
    return names


_RENAMED = {"forest.folds": "folds.number"}


def unknown_setting(name):
    """Return what to say of a setting that no study has, with the nearest one that there is."""
    if name in _RENAMED:
        return f"the setting `{name}` is now `{_RENAMED[name]}`"
    names = valid_names(Study)
    by_leaf = {n.rsplit(".", 1)[-1]: n for n in reversed(names)}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    near = near or [by_leaf[m] for m in difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1)]
    return f"there is no setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


def _explain(error):
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_setting(name))
        elif problem["type"] == "missing":
            lines.append(f"the setting `{name}` is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = f" (given: {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
            lines.append(f"`{name}`: {message}{given}")
    return "; ".join(lines)
