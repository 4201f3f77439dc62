"""How Sphinx makes the pages: the hand-written ones in this folder, and those that `pages` makes from docstrings."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # the package need not be installed

from pages import write_pages  # noqa: E402

from hpcddrl import __version__  # noqa: E402

project = "hpcddrl"
author = "hpcddrl developers"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["examples", "generated/measured.md"]  # the latter is part of another page
html_theme = "furo"
html_title = f"hpcddrl {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
myst_heading_anchors = 3
nitpicky = True  # a link that leads nowhere is a warning, and `make docs` takes warnings for errors

write_pages(HERE / "generated", HERE.parent / "benchmarks")
