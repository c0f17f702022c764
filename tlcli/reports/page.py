"""report.html: one self-contained page about a run."""

from __future__ import annotations

from typing import Any

import jinja2


def run_page(info: dict[str, Any], *, name: str) -> str:
    """The page for a run.

    Args:
        info: The content of `run.json`, checksums aside.
        name: The run's name, for the title.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcli", "reports"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    return environment.get_template("run.html").render(info=info, name=name)
