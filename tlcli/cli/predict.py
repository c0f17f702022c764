"""tlcli predict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.errors import UsageError
from tlcli.settings import PredictSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli predict runs/photos inbox --min-confidence 0.9 --out labels.csv")
@takes(PredictSettings)
def predict(settings: PredictSettings, terminal: Terminal) -> None:
    """Predict the class of each image: one row per image, in input order, including unreadable images."""
    if settings.out == "-" and terminal.json_output:
        raise UsageError("--out - and --json both write to standard output. Remove one of them, or give --out FILE.")
    if not settings.out:
        settings = replace(settings, out=None if terminal.json_output else "-")
    from tlcli.commands.predict import predict as run
    from tlcli.console.summaries import predict_summary

    result = run(settings, terminal, stdout=terminal.rows())
    if terminal.summarizes:
        predict_summary(terminal, result.to_json(), result.failures)
    finish(terminal, result.to_json(), failed=0 if result.was_finished else result.failed + len(result.unlisted))
