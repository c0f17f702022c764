"""tlcli cache list and tlcli cache prune."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal

cache_app = typer.Typer(help="Show or remove cached features.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.command("list", epilog="Example: tlcli cache list")
def cache_list(
    cache: options.CacheDirectory = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show the feature caches, last used first."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    from tlcli.commands.cache import cache_list as run
    from tlcli.console.listings import cache_listing

    caches = [listing.to_json() for listing in run(cache)]
    if not json_output:
        cache_listing(terminal, caches)
    finish(terminal, {"caches": caches})


@cache_app.command("prune", epilog="Example: tlcli cache prune --older-than 30")
def cache_prune(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Only caches not used for so many days.")
    ] = 0.0,
    cache: options.CacheDirectory = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Remove feature caches; they are computed again when they are needed."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    from tlcli.commands.cache import cache_prune as run
    from tlcli.console.summaries import prune_summary

    removed, busy = run(cache, older_than_days=older_than)
    result = {
        "removed": [listing.to_json() for listing in removed],
        "bytes": sum(listing.bytes for listing in removed),
        "busy": [listing.to_json() for listing in busy],
    }
    if terminal.summarizes:
        prune_summary(terminal, result)
    finish(terminal, result)
