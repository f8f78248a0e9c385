"""The site: `uv run --group docs sphinx-build -W docs site`."""

import shutil
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
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks hold their outputs; `python docs/notebooks.py` makes them anew
exclude_patterns = ["notebooks/gainfinder-demo", "**/.ipynb_checkpoints"]  # what a reader leaves beside the notebooks
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_use_rtype = False
# Types of the package that are not part of the reference, and those of other packages, have no page to link to.
nitpicky = False


def read(_app: Sphinx, page: str, source: list[str]) -> None:
    """A page's text as Sphinx goes on with it."""
    source[0] = generated.notebook(page, source[0]) if page.startswith("notebooks/") else generated.filled(source[0])


def copy_gallery(app: Sphinx, error: Exception | None) -> None:
    """Whole pages, which have nothing of the site: they lie where `gallery.md` links them."""
    if error is None and app.builder.format == "html":
        shutil.copytree(Path(app.srcdir) / "gallery", Path(app.outdir) / "gallery", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """What is generated goes into its page before the page is read; the gallery's pages are copied as they are."""
    app.connect("source-read", read)
    app.connect("build-finished", copy_gallery)
    # before napoleon, which listens to the same event
    app.connect("autodoc-process-docstring", generated.as_restructured_text, priority=100)
