"""tlcli compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import CompareSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli compare runs/head runs/tail --out compare.html")
@takes(CompareSettings)
def compare(settings: CompareSettings, terminal: Terminal) -> None:
    """Compare the accuracy of two runs on images that neither was trained on, and test whether they differ.

    Without DATA, compares the predictions that both runs stored for images they held out, matched by digest.
    """
    from tlcli.commands.compare import compare as run
    from tlcli.console.comparison import compare_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        compare_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.failures))
