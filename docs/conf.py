"""Sphinx configuration: the pages of this folder, and the API reference from the docstrings."""

from __future__ import annotations

import re
from typing import Any

import abcdeep_core

project = "abcdeep_core"
release = version = abcdeep_core.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_show_copyright = False
html_title = f"abcdeep_core {release}"
pygments_style = "tango"

myst_heading_anchors = 3

# A name in single backticks of a docstring is a link where it names something documented.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the numpydoc sections say it in words, with shapes and units
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def keep_asterisks(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Escape the asterisk of ``(..., *shape)`` in prose, which would begin an emphasis."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = re.sub(r"(?<=[\s(])\*(?=\w)", r"\\*", line)


def setup(app: Any) -> None:
    """Register what Sphinx calls, before napoleon reads a docstring."""
    app.connect("autodoc-process-docstring", keep_asterisks, priority=400)
