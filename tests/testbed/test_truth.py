"""The rasters of the truth: each cell's own type, and what a borehole in it would find."""

import numpy as np

from helpers.core.classes import NO_TYPE
from helpers.core.rasters import read_band


def test_a_borehole_in_each_cell_finds_types_in_their_shares_but_not_always_the_cell_s_own(quick):
    for layer in ("2-3m", "3-5m", "5-10m"):
        own, borehole, fraction = (
            read_band(quick / f"results/quick/main/truth/{name}_{layer}.tif")
            for name in ("ice_type", "borehole_type", "ice_fraction")
        )
        inside = own != NO_TYPE
        assert np.array_equal(inside, borehole != NO_TYPE)
        frozen = fraction[inside] > 0
        # But for its error, the table that a borehole measures is that of its place.
        assert (borehole[inside] > 0)[~frozen].mean() < 0.005
        assert 0.4 < (own == borehole)[inside & (own > 0)].mean() < 0.9
        # Five types share what is frozen: no permafrost is most of a cell more often than it is
        # found.
        assert (own[inside] > 0).mean() < (borehole[inside] > 0).mean() < frozen.mean()
