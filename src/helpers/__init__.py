"""Helpers of the ground-ice research compendium; modules are imported by their full names."""

import os

__version__ = "0.1.0"

# MB of raster blocks that GDAL keeps. By default it keeps a twentieth of the machine's memory, in
# each process; here rasters are read and written by windows, which need few blocks at once.
os.environ.setdefault("GDAL_CACHEMAX", "256")
