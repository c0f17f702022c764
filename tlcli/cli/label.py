"""tlcli label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app
from tlcli.cli.signature import takes
from tlcli.settings import LabelSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli label inbox --classes car,bus,bicycle")
@takes(LabelSettings)
def label(settings: LabelSettings, terminal: Terminal) -> None:
    """Label images in the browser, with the network's proposals. Ctrl-C stops; every label is saved at once."""
    from tlcli.commands.label import label as run
    from tlcli.console.summaries import announce_server

    stopping = "Ctrl-C stops; everything is saved at once."
    run(settings, terminal, announce=lambda address: announce_server(terminal, address.url, address.token, stopping))
