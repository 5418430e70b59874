"""How Sphinx builds the site: `make docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import catalogue  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

project = "A benchmark of visual explanations"
author = "the authors of this repository"
copyright = author  # noqa: A001

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_use_ivar = True

catalogue.write_pages(HERE / "generated")
catalogue.copy_pages(HERE.parent, HERE / "generated")


def setup(app: Sphinx) -> None:
    """Let links to the pages that were copied lead there."""
    app.connect("source-read", catalogue.link_copies)
