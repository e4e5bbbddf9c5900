"""The documentation site: `make docs` builds it without a network, and runs no notebook."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

sys.path.insert(0, str(Path(__file__).parent))
from pages import write_pages

import helpers

project = "Ground-ice compendium"
version = release = helpers.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pages.py"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # they would be fetched
suppress_warnings = [
    "mystnb.unknown_mime_type",  # states of widgets in executed notebooks
    "misc.highlighting_failure",  # commands with placeholders
]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "sidebar_width": "230px", "fixed_sidebar": True}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]


ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")


def _visit_math(translator: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers draw themselves: MathJax would be fetched."""
    block = node.tagname == "math_block"
    formula = "".join(map(str, tex2mathml(node.astext(), as_block=block)))
    translator.body.append(f"<div class='math'>{formula}</div>" if block else formula)
    raise SkipNode


def _link_out(app: Sphinx, page: str, source: list[str]) -> None:
    """Make files of links to Markdown outside of the site, such as the README."""
    if "/" not in page:
        source[0] = re.sub(r"\]\(\.\./([^)#]+\.md)(#[^)]*)?\)", r"](path:../\1)", source[0])


def _short_types(app: Sphinx, what: str, name: str, thing: Any, options: Any, *texts: Any) -> Any:
    """Give numpy's type of what an array can be made of its name, which is three lines else."""
    return tuple(text and text.replace(ARRAY_LIKE, "ArrayLike") for text in texts)


def setup(app: Sphinx) -> None:
    """Write the pages that are made of the code, and register formulas in MathML."""
    write_pages(Path(app.srcdir) / "generated")
    app.connect("source-read", _link_out)
    app.connect("autodoc-process-signature", _short_types)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
