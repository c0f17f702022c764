"""tlcli inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import InspectSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli inspect tf_efficientnet_lite0 photos --layer 5 --layer conv_head --units 16")
@takes(InspectSettings)
def inspect(settings: InspectSettings, terminal: Terminal) -> None:
    """Show the image patches that activate a network's units most, and the pixels that contribute.

    For a run that trained layers, show the same units before and after training.

    Writes inspect.html, one PNG per layer, and units.jsonl with one line per patch.
    """
    from tlcli.commands.inspect import inspect as run
    from tlcli.console.listings import inspect_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        inspect_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.failures))
