"""tlcli similar."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.errors import UsageError
from tlcli.settings import SimilarSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli similar runs/photos query.jpg --in photos --out nearest.html")
@takes(SimilarSettings)
def similar(settings: SimilarSettings, terminal: Terminal) -> None:
    """Find the images of DATA that are nearest to each query, by the cosine of their features."""
    if settings.out == "-" and terminal.json_output:
        raise UsageError("--out - and --json both write to standard output. Remove one of them, or give --out FILE.")
    if not settings.out:
        settings = replace(settings, out=None if terminal.json_output else "-")
    from tlcli.commands.similar import similar as run
    from tlcli.console.listings import similar_summary

    result = run(settings, terminal, stdout=terminal.rows())
    if terminal.summarizes:
        similar_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.failed) + len(result.unusable) + len(result.unlisted))
