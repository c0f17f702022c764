"""tlcli cache-features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import CacheFeaturesSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command("cache-features", epilog="Example: tlcli cache-features photos --export features.parquet")
@takes(CacheFeaturesSettings)
def cache_features(settings: CacheFeaturesSettings, terminal: Terminal) -> None:
    """Compute the features of the frozen layers for each image once, and cache them on disk.

    An interrupted command continues where it stopped. A later run computes only new and edited images.
    """
    from tlcli.commands.cache_features import cache_features as run
    from tlcli.console.summaries import cache_features_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        cache_features_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
