"""The virtual study: settings of its landscape, hidden truth and boreholes, with their defaults."""

from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from helpers.core.settings import NotNegative, Positive, Probability, Section, Seed, Share
from helpers.core.study import Study

Number = Annotated[int, Field(ge=1, le=10_000)]
Arcsec = Annotated[float, Field(ge=0.1, le=3600)]
Months = Annotated[list[float], Field(min_length=12, max_length=12)]
Spectrum = Annotated[list[float], Field(min_length=5, max_length=5)]


class Relief(Section):
    """Constants of the relief below 5 arc minutes, chosen by looks and slopes of the result."""

    coarsest_arcsec: Positive = 120  # coarsest grid of the pyramid
    longest_arcmin: Positive = 7.5  # wavelength of the noise; real topography has what is longer
    hurst: Share = 0.75  # Hurst exponent of natural topography, 0.7-0.8 [M]
    noise: Annotated[list[NotNegative], Field(min_length=1)] = [
        3.5,
        1.5,
        0.5,
        0.2,
    ]  # by level, in steps of the topography
    calm_roughness: Positive = 15  # m; steps of the topography well below it bring hardly any noise
    incision: Positive = 0.12  # km^(1 - 2 area_exponent) a cycle
    incision_limit: Positive = 40  # largest ratio of the drop cut in a cycle to the drop left
    area_exponent: Share = 0.8  # above a river's 0.4-0.5 [M], as small cells are hillslopes
    diffusion: Positive = 0.45  # cells, standard deviation of the hillslope smoothing in a cycle
    breached_share: Share = 0.9  # the rest of a depression is filled
    cycles: Number = 7  # of erosion and uplift after a routing
    routings: Annotated[list[Number], Field(min_length=1)] = [3, 2, 1]  # by level


class Cover(Section):
    """Constants of the virtual land cover [M].

    Pairs are where a class reaches half, and how sharp its edge is. Humidity is de Martonne's
    index: annual precipitation in mm / (mean annual air temperature in degC + 10).
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


class Scenes(Section):
    """Constants of the virtual Landsat scenes [M].

    Spectra are in blue, green, red, nir08, swir16.
    """

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
    snow: Spectrum = [0.80, 0.80, 0.78, 0.70, 0.12]  # spectrum of snow
    green_up: tuple[float, float] = (135, 3)  # day of the year at 45 N, 0 m; days a degree north
    senescence: tuple[float, float] = (264, -3)
    crop_green_up: tuple[float, float] = (178, 2)
    crop_senescence: tuple[float, float] = (260, -2)
    metres_per_degree: Positive = 250  # of elevation that count as a degree of latitude
    cloud_share: Share = 0.20  # of a scene
    cirrus_share: Share = 0.05  # of a scene
    cloud_km: Positive = 250  # longest wavelength of clouds
    shadow_km: tuple[float, float] = (1.8, -1.5)  # north, east, of a shadow from its cloud
    gap_share: Share = 0.08  # between swaths
    swath_km: Positive = 185
    snow_line: tuple[float, float] = (2300, -100)  # m at 42 N on first and last date; m a degree
    noise: tuple[float, float] = (0.003, 0.02)  # sd: constant, share of the reflectance


class SurfaceTemperature(Section):
    """Constants of the virtual land surface temperature [M].

    Lists of twelve run from January to December.
    """

    lapse_rate: Months = [2.5, 3.5, 5.0, 6.0, 6.2, 6.0, 5.5, 5.5, 5.5, 5.0, 4.0, 2.5]  # K km-1
    cold_pool: Months = [6.0, 5.0, 3.5, 2.5, 2.0, 1.5, 1.5, 2.0, 2.5, 3.0, 4.5, 6.0]  # K, at night
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
    # Shares without a value, and of errors above 3, 2 and 1 K; then the errors of four classes, K.
    cloudy: Months = [0.01, 0.01, 0.015, 0.02, 0.02, 0.03, 0.04, 0.035, 0.02, 0.015, 0.015, 0.015]
    poorer: tuple[Share, Share, Share] = (0.01, 0.025, 0.20)
    noise: tuple[float, float, float, float] = (0.5, 1.0, 1.8, 2.8)
    cloud_km: Positive = 400
    persistence: Share = 0.2  # correlation of cloudiness from one month to another


class VirtualSource(Section):
    """The virtual landscape: the raw rasters in the formats of the real products."""

    kind: Literal["virtual"] = "virtual"  # of the source
    seed: Seed = 20240601  # of the landscape
    dem_arcsec: Arcsec = 15  # cells of the elevation model
    landsat_arcsec: Arcsec = 30  # cells of the scenes
    lst_arcsec: Arcsec = 30  # cells of the surface temperature
    margin_degrees: Annotated[float, Field(gt=0, le=20)] = 0.75  # around the study area
    # days of the Landsat scenes
    scene_dates: Annotated[list[date], Field(min_length=1)] = [
        date(2023, 6, 18),
        date(2023, 7, 20),
        date(2023, 8, 21),
        date(2024, 9, 8),
    ]
    edge_km: Positive = 20  # Landsat and surface temperature reach so far beyond the study area
    relief: Relief = Relief()
    cover: Cover = Cover()
    scenes: Scenes = Scenes()
    temperature: SurfaceTemperature = SurfaceTemperature()


class Truth(Section):
    """Constants of the law of the ground (`testbed.ground`), fixed before any model is fitted.

    They are ours: orders of magnitude follow the literature, none is a measurement of this region.
    """

    seed: Seed = 20240604  # of the hidden world
    lapse_rate: float = 5.5  # K per km, from the height that ERA5 has to the ground's
    inversion: float = 4.5  # K that winter nights take off on valley floors, at the fullest
    past_cooling: float = 1.5  # K; the colder climate that left relict permafrost
    thawing_n_factor: tuple[float, float] = (0.95, 0.62)  # bare dry ground, closed forest on peat
    freezing_n_factor: tuple[float, float] = (0.62, 0.42)  # little snow, much snow
    snow_half: Positive = 35.0  # mm of water in November to March at which the factor lies half-way
    conductivity_ratio: tuple[float, float] = (0.95, 0.50)  # thawed to frozen: mineral, wet peat
    insolation: float = 0.10  # share of the thawing index that a 10 degree slope to the south gains
    hidden_temperature: tuple[float, float] = (0.20, 0.60)  # K, sd of fields: of 40 km, of a cell
    relict_limit: float = 0.7  # degC; ground now warmer than this has lost its relict permafrost
    stefan: tuple[float, float] = (0.060, 0.030)  # m per root of a degC d: dry mineral, wet peat
    burnt_share: Share = 0.12  # of the ground, in patches; fire lets it thaw deeper
    burnt_table: float = 1.2  # m deeper table where it burnt
    thickness_per_kelvin: Positive = 32.0  # m of permafrost for each K below 0 degC at its top
    ice_cap: Share = 0.80  # m3 m-3
    ice_intercept: float = -2.6  # log-odds of ice content over the cap, dry coarse ground at 2 m
    ice_wetness: float = 1.9  # log-odds from dry to wet ground
    ice_peat: float = 1.3  # log-odds of peat
    ice_fines: float = 1.2  # log-odds of fine texture
    ice_transition: float = 1.0  # at the permafrost table; falls to 1/e within `transition_depth`
    transition_depth: Positive = 1.5  # m
    ice_decline: float = 0.14  # for each metre below 2 m
    hidden_ice: tuple[float, float] = (1.00, 1.20)  # sd of log-odds, fields of 25 and 2 km
    rock_ice: Share = 0.03  # m3 m-3, in bedrock
    soil_depth: tuple[float, float] = (2.5, 22.0)  # m to bedrock: steep ridge, valley floor


class Boreholes(Section):
    """How boreholes and pits sample the truth of the virtual study."""

    seed: Seed = 20240605  # of the places
    sites: Annotated[int, Field(ge=30, le=1_000_000)] = 720  # boreholes and pits
    pit_share: Share = 0.35  # of the sites are pits
    domain_share: Share = 0.78  # of the sites lie in the potential-permafrost domain
    # how places are chosen
    design: Literal["random", "clustered", "roadside", "ice_seeking"] = "clustered"
    ice_odds: tuple[Positive, Positive] = (4, 1)  # ice_seeking: of permafrost; of its icier half
    clusters: Number = 90  # of the design `clustered`
    cluster_radius: Positive = 6000  # m
    lowest_of: Number = 2  # places considered for a cluster: the nearest to a valley floor is taken
    road_share: Share = 0.4  # of the clusters lie along roads, the others in valleys
    towns: Annotated[Number, Field(ge=3)] = 70  # that roads join
    duplicates: Share = 0.01  # sites that were entered twice
    mistakes: Share = 0.005  # rows with a typing mistake
    ice_error: NotNegative = 0.03  # m3 m-3, sd of a measured interval
    borehole_scatter: NotNegative = 0.35  # sd of log-odds between a borehole and its fine cell
    table_error: NotNegative = 0.2  # m


class Campaign(Section):
    """The hidden truth, and the boreholes and the survey that sample it."""

    truth: Truth = Truth()
    boreholes: Boreholes = Boreholes()
    # Relative error of a survey of the share of ground with permafrost; without it no survey
    survey_error: Probability | None = None


class VirtualStudy(Study):
    """A study of the virtual landscape; to `helpers` it is a study like any other.

    `pyproject.toml` names it as the class of ``source: virtual``, so that `Study.open` returns it.
    """

    renamed: ClassVar[dict[str, str]] = Study.renamed | {
        "landscape": "source",
        "truth.unseen_temperature": "campaign.truth.hidden_temperature",
        "truth.unseen_ice": "campaign.truth.hidden_ice",
        "truth": "campaign.truth",
        "boreholes.hole_scatter": "campaign.boreholes.borehole_scatter",
        "boreholes": "campaign.boreholes",
    }

    label: Literal["SIMULATED"] = "SIMULATED"
    source: VirtualSource = VirtualSource()
    campaign: Campaign = Campaign()

    @property
    def own_figures(self) -> dict[str, tuple[str, str]]:
        """What was promised beside the truth."""
        return {"promised": ("true_accuracy", "testbed.against_truth:promised")}

    @property
    def draws_boreholes(self) -> bool:
        """Whether the truth is sampled; false where the study names sample tables of its own."""
        return not (self.samples.sites or self.samples.intervals or self.samples.areas)
