"""Sphinx configuration for the pages and the docstrings: `make docs`."""

import dataclasses
import re

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring

import tlcli
from tlcli.settings.options import own_options

project = "tlcli"
author = project_copyright = "The tlcli authors"
release = tlcli.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_markdown_builder"]
# `make docs` renders reference.rst to reference.md, for readers on a code hosting site.
exclude_patterns = ["reference.md"]
html_theme = "alabaster"
html_theme_options = {
    "page_width": "1200px",
    "body_max_width": "none",
    "description": "Transfer learning from the command line",
}
html_show_sourcelink = html_copy_source = False
default_role = "literal"  # `name` is code in docstrings
highlight_language = "none"  # for blocks without a language
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
myst_heading_anchors = 3
markdown_anchor_sections = markdown_anchor_signatures = True


def google(app, what, name, obj, options, lines):
    """Convert Google-style sections. Skip attributes: Napoleon would take text before a colon for a type."""
    if what not in {"attribute", "property"}:
        lines[:] = GoogleDocstring(list(lines), Config(), app, what, name, obj, options).lines()


def list_options(app, what, name, obj, options, lines):
    """List the fields of a settings class that declare an option, with its help, as attributes."""
    declared = own_options(obj) if what == "class" and dataclasses.is_dataclass(obj) else []
    if declared:
        lines += ["", "Attributes:"]
    for field in declared:
        text = f"If False: {field.option['help']}" if field.option.get("negated") else field.option["help"]
        default = f" Default: {field.option['unset']}." if "unset" in field.option else ""
        lines.append(f"    {field.name}: {text}{default}".replace("*", r"\*"))


def to_source(app, name, source):
    """Link to reference.rst instead of the rendered page, and remove links to files outside docs/."""
    source[0] = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", source[0].replace("(reference.md)", "(reference.rst)"))


def through(self, node):
    """Render the node of a lone * in a signature, which the Markdown builder does not support."""


def setup(app):
    app.connect("autodoc-process-docstring", list_options)
    app.connect("autodoc-process-docstring", google)
    app.connect("source-read", to_source)
    app.add_node(nodes.abbreviation, override=True, markdown=(through, through))
