"""What the self-contained pages have in common: the template environment, and packaged files to include."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup


def page_environment() -> jinja2.Environment:
    """Return the environment of the templates in this package, which escapes all names."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcli", "reports"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f}\u00a0%"
    environment.filters["points"] = lambda share: f"{100 * share:+.1f}"
    environment.filters["thousands"] = "{:,}".format
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def file_address(path: str) -> str | None:
    """Return the address of a file for a link, or None if there is no such file here."""
    return Path(os.path.abspath(path)).as_uri() if os.path.isfile(path) else None  # noqa: PTH100, PTH113


def read_asset(name: str) -> Markup:
    """Read a packaged file for inclusion in a page, without its reference to a source map."""
    text = files("tlcli.reports").joinpath(name).read_text("utf8")
    return Markup(text.partition("//# sourceMappingURL")[0])
