"""tlcli check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import CheckSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli check photos --out findings.csv")
@takes(CheckSettings)
def check(settings: CheckSettings, terminal: Terminal) -> None:
    """Find problems in a dataset: unreadable images, duplicates, leaks between splits, wrong labels. Changes nothing.

    Labels are compared with out-of-fold predictions. The exit code is 3 if there are findings.
    """
    from tlcli.commands.check import check as run
    from tlcli.console.check import check_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        check_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.findings))
