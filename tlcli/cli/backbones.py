"""tlcli backbones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal


@app.command(epilog="Example: tlcli backbones 'efficientnet_lite*'")
def backbones(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help="A part of the name, or a pattern with * and ?.")
    ] = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """List backbones: parameters, input size, and whose weights are on this machine."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    from tlcli.commands.backbones import backbones as run
    from tlcli.console.listings import backbone_listing

    listings = [asdict(listing) for listing in run(pattern)]
    if not json_output:
        backbone_listing(terminal, listings)
    finish(terminal, {"backbones": listings})
