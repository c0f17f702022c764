"""tlcli cache list and tlcli cache prune."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings.cache import CACHE_OPTION
from tlcli.settings.options import Option

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal

cache_app = typer.Typer(help="List or remove cached features.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@dataclass(frozen=True, kw_only=True)
class CacheListOptions:
    """Options of `cache list`."""

    directory: Path | None = field(default=None, metadata=CACHE_OPTION)


@dataclass(frozen=True, kw_only=True)
class CachePruneOptions:
    """Options of `cache prune`."""

    older_than: float = field(
        default=0.0,
        metadata=Option(help="Remove only caches unused for this many days.", metavar="DAYS", minimum=0),
    )
    directory: Path | None = field(default=None, metadata=CACHE_OPTION)


@cache_app.command("list", epilog="Example: tlcli cache list")
@takes(CacheListOptions)
def cache_list(options: CacheListOptions, terminal: Terminal) -> None:
    """List the feature caches, most recently used first."""
    from tlcli.commands.cache import cache_list as run
    from tlcli.console.listings import cache_listing

    caches = [listing.to_json() for listing in run(options.directory)]
    if not terminal.json_output:
        cache_listing(terminal, caches)
    finish(terminal, {"caches": caches})


@cache_app.command("prune", epilog="Example: tlcli cache prune --older-than 30")
@takes(CachePruneOptions)
def cache_prune(options: CachePruneOptions, terminal: Terminal) -> None:
    """Remove feature caches. Features are recomputed when they are needed."""
    from tlcli.commands.cache import cache_prune as run
    from tlcli.console.summaries import prune_summary

    removed, busy = run(options.directory, older_than_days=options.older_than)
    result = {
        "removed": [listing.to_json() for listing in removed],
        "bytes": sum(listing.bytes for listing in removed),
        "busy": [listing.to_json() for listing in busy],
    }
    if terminal.summarizes:
        prune_summary(terminal, result)
    finish(terminal, result)
