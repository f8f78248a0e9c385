"""The site: `uv run --group docs sphinx-build -W docs site`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated
from sphinx.application import Sphinx

from gainfinder import __version__

project = "gainfinder"
copyright = "the authors of gainfinder; Apache-2.0"
version = release = __version__
html_title = f"gainfinder {__version__}"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_use_rtype = False
# Types of the package that are not part of the reference, and those of other packages, have no page to link to.
nitpicky = False


def setup(app: Sphinx) -> None:
    """What is generated goes into its page before the page is read."""
    app.connect("source-read", lambda _app, _page, source: source.__setitem__(0, generated.filled(source[0])))
    # before napoleon, which listens to the same event
    app.connect("autodoc-process-docstring", generated.as_restructured_text, priority=100)
