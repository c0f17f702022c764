"""tlcli evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import EvaluateSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli evaluate runs/photos photos --split test")
@takes(EvaluateSettings)
def evaluate(settings: EvaluateSettings, terminal: Terminal) -> None:
    """Evaluate a run on labeled images: accuracy with interval, per-class metrics, confusion matrix, calibration."""
    from tlcli.commands.evaluate import evaluate as run
    from tlcli.console.summaries import evaluate_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        evaluate_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
