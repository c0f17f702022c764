"""cache list and cache prune: what lies in the feature cache, and making room."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import filelock

from tlcli.errors import MachineError
from tlcli.features.caches import CacheListing, list_caches
from tlcli.settings import default_cache

SECONDS_A_DAY = 86_400.0


def cache_list(root: Path | None = None) -> list[CacheListing]:
    """The feature caches in a directory, last used first."""
    return list_caches(root or default_cache())


def cache_prune(
    root: Path | None = None, *, older_than_days: float = 0.0
) -> tuple[list[CacheListing], list[CacheListing]]:
    """Remove the feature caches that were not used for some days.

    Returns:
        The removed caches, and those that were left since somebody is writing them.

    Raises:
        MachineError: a cache can't be removed.
    """
    limit = time.time() - older_than_days * SECONDS_A_DAY
    removed, busy = [], []
    for listing in cache_list(root):
        if listing.used > limit:
            continue
        lock = filelock.FileLock(listing.directory / ".lock")
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(listing.directory)
        except filelock.Timeout:
            busy.append(listing)
        except PermissionError as error:
            raise MachineError(
                f"{listing.directory} cannot be removed: {error.strerror}.", path=listing.directory
            ) from error
        else:
            removed.append(listing)
    return removed, busy
