"""Helpers of the ground-ice research compendium; modules are imported by their full names."""

import os

__version__ = "0.1.0"

# Formats in which a file is no more than a reference to a service on the web, to a database or to
# other files. Without their drivers, none is followed, in whatever a user's file is disguised.
_SKIPPED = (
    "WMS WCS WMTS HTTP EEDA EEDAI OGCAPI DAAS PLMOSAIC PLSCENES NGW GDALG STACIT STACTA GTI WFS "
    "OAPIF CSW Elasticsearch Carto AmigoCloud ADBC OGR_VRT MapML"
)
os.environ["GDAL_SKIP"] = " ".join(filter(None, (os.environ.get("GDAL_SKIP"), _SKIPPED)))
