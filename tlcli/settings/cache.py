"""Settings of the feature cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.settings.options import CACHE, Option
from tlcli.storage.urls import cache_directory, default_cache

CACHE_OPTION = Option(
    help="Directory of cached features.",
    metavar="DIR",
    flag="--cache",
    panel=CACHE,
    unset="$TLCLI_CACHE, else ~/.cache/tlcli/features",
    parse=cache_directory,
)


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Where features are cached."""

    directory: Path | None = field(default=None, metadata=CACHE_OPTION)
    enabled: bool = field(
        default=True,
        metadata=Option(
            help="Write nothing to the cache. With --freeze N, features are then recomputed in every epoch.",
            flag="--no-cache",
            panel=CACHE,
            negated=True,
        ),
    )
    verify: bool = field(
        default=False,
        metadata=Option(help="Read every image again, even if its file is unchanged.", panel=CACHE),
    )

    def __post_init__(self) -> None:
        for flag, given in (("--cache", self.directory is not None), ("--verify", self.verify)):
            if given and not self.enabled:
                raise UsageError(f"{flag} has no effect with --no-cache. Remove one of them.")

    def root(self) -> Path:
        """Return the directory of the cache."""
        return self.directory if self.directory is not None else default_cache()
