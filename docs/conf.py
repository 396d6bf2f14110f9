"""The documentation as pages: `make docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # cli_help.py

project = "cnnbench"
copyright = "The cnnbench authors"
version = release = installed("cnnbench")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cli_help"]
exclude_patterns = ["notebooks"]
default_role = "code"  # docstrings have single backticks
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"cnnbench {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False

autodoc_member_order = "groupwise"
autodoc_inherit_docstrings = False  # Lightning says what its methods do
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
