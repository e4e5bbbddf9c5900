"""Numbers of the raw products, and the values that they stand for."""

from datetime import date

import numpy as np
import pytest

from helpers.core.settings import Source
from helpers.prepare.products import LANDSAT_REFLECTANCE, raw_files, scene_days


def test_a_digital_number_of_the_product_guide():
    reflectance = LANDSAT_REFLECTANCE.decode(np.array([18639, 0], np.uint16))
    assert reflectance[0] == pytest.approx(0.3126, rel=2e-4)
    assert np.isnan(reflectance[1])


@pytest.mark.parametrize("number", [0, 7272, 43637, 65535])
def test_reflectance_out_of_the_valid_range_is_missing(number):
    assert np.isnan(LANDSAT_REFLECTANCE.decode(np.array([number], np.uint16)))[0]


@pytest.mark.parametrize("day", ["2023-06-18", date(2023, 6, 18)], ids=["text", "date"])
def test_scenes_are_named_by_their_dates(study, day):
    study = study.model_copy(update={"source": Source(scene_dates=[day])})
    assert scene_days(study) == ["20230618"]
    assert raw_files(study)["landsat_20230618_red"].name == "LC08_L2SP_20230618_red.tif"
