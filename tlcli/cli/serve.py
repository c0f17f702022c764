"""tlcli serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app
from tlcli.cli.signature import takes
from tlcli.settings import ServeSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli serve runs/photos --port 8000")
@takes(ServeSettings)
def serve(settings: ServeSettings, terminal: Terminal) -> None:
    """Serve a run over HTTP: predictions for programs, and a page for people. Ctrl-C stops; SIGHUP reloads the run."""
    from tlcli.commands.serve import serve as run
    from tlcli.console.summaries import announce_server

    stopping = "Ctrl-C stops; requests in progress are answered first."
    run(settings, terminal, announce=lambda address: announce_server(terminal, address.url, address.token, stopping))
