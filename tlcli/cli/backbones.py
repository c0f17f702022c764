"""tlcli backbones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings.options import Option

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class BackbonesOptions:
    """Options of `backbones`."""

    pattern: str | None = field(
        default=None,
        metadata=Option(help="Part of the name, or a pattern with * and ?.", metavar="[PATTERN]", positional=True),
    )


@app.command(epilog="Example: tlcli backbones 'efficientnet_lite*'")
@takes(BackbonesOptions)
def backbones(options: BackbonesOptions, terminal: Terminal) -> None:
    """List backbones with their parameters, input size, and whether their weights are on this machine."""
    from tlcli.commands.backbones import backbones as run
    from tlcli.console.listings import backbone_listing

    listings = [asdict(listing) for listing in run(options.pattern)]
    if not terminal.json_output:
        backbone_listing(terminal, listings)
    finish(terminal, {"backbones": listings})
