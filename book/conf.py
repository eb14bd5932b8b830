"""Settings of Sphinx for the web book. `tools/book/build.py` writes the sources, calls Sphinx and checks the result."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.book import api  # noqa: E402
from tools.book.docstrings import process, signature  # noqa: E402

_pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_course = _pyproject["tool"]["fsl_course"]

project = "Few-shot learning, hands on"
author = _pyproject["project"]["authors"][0]["name"]
project_copyright = author
version = release = _pyproject["project"]["version"]
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
templates_path = ["_templates"]

# The book shows stored outputs and runs nothing. They hold the course's widgets as pictures, so the pages load no widget code.
# A page that stores the state of widgets, such as a teacher's own notebook, finds the widget manager here, without a network.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {"requirejs/require.js": {}, "@jupyter-widgets/html-manager/dist/embed-amd.js": {}}
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 4

autodoc_inherit_docstrings = False  # PyTorch's docstring of forward() says nothing about ours
autodoc_preserve_defaults = True  # a default as the source writes it: `supervised_loss`, not `<function ...>`
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
# References to what the API describes must resolve. Other names, of PyTorch or of our own insides, are shown as plain code.
nitpick_ignore_regex = [("py:.*", rf"(?!{api.described(ROOT)}).*")]

mathjax_path = "mathjax/es5/tex-chtml-full.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu would load files that the book does not have

highlight_language = "text"  # indented text in docstrings; cells of lessons name their language
html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "_static/icon.svg"
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}  # light or dark as the reader's system asks
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "repository_url": _course["repository"],
    "repository_branch": _course["branch"],
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    """Turns the plain text of docstrings into reStructuredText."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", signature)
