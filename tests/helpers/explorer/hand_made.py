"""Finished maps of small studies, made by hand."""

import numpy as np
import pandas as pd

from helpers.core.files import write_json, write_table
from helpers.core.grid import area_mask, reference_grid
from helpers.core.rasters import write_raster
from helpers.mapping.files import interval_files, map_files, trust_files
from helpers.prepare.registry import GROUND_SHARE, covariate_files
from helpers.samples.labels import label_layers
from helpers.samples.store import SAMPLE_COLUMNS, write_labels
from helpers.samples.tables import read_tables

CLASSES = [
    {"name": "Unfrozen", "name_zh": "融区", "colour": "#d9d9d9", "permafrost": False},
    {"name": "Ice-poor", "name_zh": "少冰冻土", "colour": "#ffffcc"},
    {"name": "Ice-rich", "name_zh": "富冰冻土", "colour": "#41b6c4"},
]
# A hole with permafrost from 2.5 m, one that met none, and a pit that reaches no layer.
SITES = """\
site_id,longitude,latitude,date,method,depth_reached_m,permafrost,permafrost_table_m,permafrost_base_m
Mohe-1,122.50123,53.01234,2023-05-02,borehole,6,yes,2.5,
Mohe-2,124.10123,51.51234,,borehole,12,no,,
Pit-3,121.50123,50.01234,,pit,1.5,yes,1.2,
"""
INTERVALS = """\
site_id,top_m,bottom_m,frozen,ice_content
Mohe-1,0,1,no,
Mohe-1,1,2.5,no,
Mohe-1,2.5,3,yes,0.4
Mohe-1,3,6,yes,0.25
Mohe-2,0,12,no,
"""
COVER = {"name": "cover", "file": "cover.tif", "kind": "category", "no_ice": [80], "long_name": "c"}


def settings(kind):
    """Return the settings of a study: of ice by depth, or of classes without depths in UTM."""
    coarse = {"resolution": 20_000, "fine_resolution": 10_000}
    terrain = {"terrain": {"tpi_radii": [20_000], "relief_window_km2": 1600}}
    if kind == "ice":
        return {"name": "tiny", "title": "Tiny <b>", "label": "SIMULATED", "grid": coarse,
                "record": {"publish_coordinates": "exact"}, "covariates": terrain,
                "predictors": ["elevation", COVER]}  # fmt: skip
    grid = {"crs": "EPSG:32607", "resolution": 5000, "fine_resolution": 2500}
    box = {"box": (-141, 62, -135, 64)}
    covariates = {"terrain": {"tpi_radii": [5000], "relief_window_km2": 100}}
    return {"name": "plain", "grid": grid, "area": box, "classes": CLASSES,
            "layers": ["upper metres"], "covariates": covariates}  # fmt: skip


def places_of_sites():
    """Return longitude and latitude of each of the sites."""
    rows = [line.split(",")[1:3] for line in SITES.splitlines()[1:]]
    return [(float(longitude), float(latitude)) for longitude, latitude in rows]


def write_sites(study):
    """Write the tables of boreholes, and what a run makes of them, with a drawn absence."""
    folder = study.results_dir / "samples"
    folder.mkdir(parents=True)
    (folder / "sites.csv").write_text(SITES, encoding="utf-8")
    (folder / "intervals.csv").write_text(INTERVALS, encoding="utf-8")
    sites, intervals, _ = read_tables(study)
    labels, lost = label_layers(study, sites, intervals)
    write_labels(study, sites, labels, lost)
    drawn = labels.tail(1).assign(site_id="absence-1", reason="pseudo-absence")
    point = labels.head(1).assign(
        site_id="point-1", ice_type=1, reason="known point", longitude=123.0, latitude=52.0
    )
    samples = pd.concat([labels, drawn, point])
    own = {"easting": 0.0, "northing": 0.0, "in_domain": True, "split": "train"}
    samples = samples.assign(group=samples["site_id"], **own)
    write_table(folder / "samples.csv", samples[list(SAMPLE_COLUMNS)])
    used = {"Mohe-1": "training", "Mohe-2": "test", "Pit-3": "no label", "point-1": "training"}
    places = pd.concat([sites, samples]).drop_duplicates("site_id").set_index("site_id")
    fates = places.loc[[*used, "absence-1"], ["longitude", "latitude"]].reset_index()
    fates["fate"] = fates["site_id"].map(used).fillna("training")
    fates.to_csv(folder / "fates.csv", index=False)


def write_maps(study, truth):
    """Write rasters and records as a run does, of random numbers."""
    rng, geobox = np.random.default_rng(1), reference_grid(study)
    inside = area_mask(study, geobox) & (rng.random(geobox.shape) > 0.05)
    number = len(study.target_classes.codes)

    def write(path, *bands, none=None, **described):
        values = np.stack(
            [np.where(inside, band, np.nan if none is None else none) for band in bands]
        )
        dtype = {255: "uint8", 0: "uint8", 65535: "uint16", None: "float32"}[none]
        described = {"names": "x", "units": "1", "nodata": none} | described
        write_raster(path, values.astype(dtype), geobox, study=study, **described)

    made = map_files(study) | trust_files(study)
    for name, path in [*made.items(), *truth.items()]:
        shares = rng.dirichlet(np.ones(number), geobox.shape)
        if "type" in name:
            write(path, rng.integers(number, size=geobox.shape), none=255)
        elif name == "trust":
            write(path, rng.integers(1, 6, size=geobox.shape), none=0)
        elif name.startswith("class_probability"):
            bands = np.rint(np.moveaxis(shares, -1, 0) * 1e4)
            write(path, *bands, none=65535, scale=1e-4)
        elif name.startswith("permafrost_probability"):
            write(path, np.rint(shares[..., 0] * 1e4), none=65535, scale=1e-4)
        elif name.startswith("ice_content_range"):
            bands = np.sort(rng.integers(10_000, size=(4, *geobox.shape)), axis=0)
            write(path, *bands, none=65535, scale=1e-4)
        elif name.startswith(("ice", "dissimilarity_index")):
            write(path, *(rng.random((2, *geobox.shape)) ** 4 * (3 if name[0] == "d" else 0.4)))
    cover = covariate_files(study).get(GROUND_SHARE)
    if cover:
        write(cover, rng.random(geobox.shape))
    limits = {"layers": {path: {"threshold": 0.2} for path in ("2-3m", "3-5m", "5-10m")}}
    if not study.has_storage:
        limits = {"layers": {"upper-metres": {"threshold": 0.2}}}
    write_json(study.results_dir / "tables/applicability.json", limits)
    whole = {"km3": 4.0, "lower": 3.0, "upper": 5.0}
    write_json(interval_files(study)["record"], {"probability": 0.9, "regions": {"all": whole}})
