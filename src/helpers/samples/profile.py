"""One borehole as a profile: the ice of its cores by depth, beside the permafrost and a layer."""

import pandas as pd
from matplotlib.figure import Figure

from helpers.core.plot import mark_label, panels
from helpers.core.study import Study


def plot_profile(
    study: Study, site: pd.Series, cores: pd.DataFrame, layer: tuple[float, float]
) -> Figure:
    """Draw the cores of a site by depth, m, with their ice content, m3 m-3.

    `site` is a row of the table of sites, `cores` its rows of `helpers.samples.labels.core_ice`.
    Grey is the layer that gets the label, the dashed line the permafrost table.
    """
    figure, axes = panels(1, 1, 80, width_mm=80)
    (axis,) = axes.flat
    axis.axhspan(*layer, color="0.9", label="layer", zorder=0)
    middle = (cores["top_m"] + cores["bottom_m"]) / 2
    look = {"color": "#9ecae1", "edgecolor": "0.3", "linewidth": 0.3, "label": "cores"}
    axis.barh(middle, cores["ice_content"], cores["bottom_m"] - cores["top_m"], **look)
    if pd.notna(site["permafrost_table_m"]):
        look = {"color": "#08519c", "linestyle": "--", "linewidth": 1}
        axis.axhline(site["permafrost_table_m"], label="permafrost table", **look)
    axis.set(xlabel="ice content (m³ m⁻³)", ylabel="depth (m)", xlim=(0, None), title=site.name)
    axis.set_ylim(max(site["depth_reached_m"], layer[1]), 0)
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    mark_label(figure, study.label)
    return figure
