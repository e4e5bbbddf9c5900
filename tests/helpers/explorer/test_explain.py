"""Why a cell has its class: parts that add up, and the distances that the rasters have."""

import numpy as np
import pytest

from helpers.core.points import values_at
from helpers.core.study import Study
from helpers.explorer.explain import SHOWN, Explainer
from helpers.explorer.page import study_bands
from helpers.explorer.widget import MapView
from helpers.mapping.files import trust_files

LAYER = "2-3m"


@pytest.fixture
def explainer(quick, monkeypatch):
    monkeypatch.setattr("helpers.core.study.ROOT", quick)
    return Explainer(Study.open("config/quick.yaml"), LAYER)


def test_parts_add_up_to_votes_and_to_the_raster_of_dissimilarity(explainer):
    study, rows = explainer.study, explainer.rows
    raster = trust_files(study)[f"dissimilarity_index_{LAYER}"]
    # Cells beside samples, which are in the domain as a rule, and unlike them.
    places = rows[["easting", "northing"]].to_numpy()[::40] + 3 * study.grid.resolution
    indices = values_at(raster, *places.T)
    found = 0
    for (easting, northing), index in zip(places, indices, strict=True):
        told = explainer.at(easting, northing)
        if told.parts.empty or np.isnan(index):
            continue
        found += 1
        permafrost = study.target_classes.permafrost[explainer.forest.classes_]
        value = told.parts["value"].to_numpy(np.float32)[np.newaxis]
        votes = explainer.forest.predict_proba(value)[0, permafrost].sum()
        assert told.parts["base"][0] + told.parts["adds"].sum() == pytest.approx(votes, abs=1e-6)
        assert told.parts["share"].sum() == pytest.approx(1)
        _, alike, near = told.tables.values()
        assert len(alike) == len(near) == SHOWN
        assert alike["dissimilarity"].iloc[0] == pytest.approx(index, abs=0.005)
        assert alike["dissimilarity"].is_monotonic_increasing
        assert near["km"].is_monotonic_increasing
        assert near["km"].iloc[0] <= 3 * np.sqrt(2) * study.grid.resolution / 1000 + 1
    assert found > 3


def test_a_sample_is_like_itself_and_the_sea_has_no_data(explainer):
    row = explainer.rows.iloc[0]
    told = explainer.at(row["easting"], row["northing"])
    first = told.tables["Nearest samples in predictors"].iloc[0]
    assert first["dissimilarity"] == pytest.approx(0, abs=1e-6)
    assert first["km"] < explainer.study.grid.resolution / 1000
    nowhere = explainer.at(row["easting"] + 1e8, row["northing"])
    assert "no data here of elevation" in nowhere.summary
    assert not nowhere.tables


def test_the_view_gets_the_bands_that_it_asks_for_and_no_others(explainer, monkeypatch):
    about, texts = study_bands(explainer.study)
    view = MapView(about, texts.__getitem__)
    sent = []
    monkeypatch.setattr(view, "send", sent.append)
    view._answer(view, {"band": "trust"}, [])
    view._answer(view, {"band": "../secret"}, [])
    view._answer(view, {}, [])
    assert sent == [{"band": "trust", "text": texts["trust"]}]
