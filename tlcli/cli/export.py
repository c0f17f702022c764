"""tlcli export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import ExportSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli export runs/photos --format onnx --with-preprocessing --out photos.onnx")
@takes(ExportSettings)
def export(settings: ExportSettings, terminal: Terminal) -> None:
    """Export a run for use without tlcli. The export is kept only if it agrees with the run on real images."""
    from tlcli.commands.export import export as run
    from tlcli.console.summaries import export_summary

    result = run(settings, terminal).to_json()
    if terminal.summarizes:
        export_summary(terminal, result)
    finish(terminal, result)
