"""`tlcli cache list` and `tlcli cache prune`: list and remove feature caches."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tlcli.errors import MachineError
from tlcli.features.listing import CacheListing, list_caches
from tlcli.progress import Silent
from tlcli.storage.locks import LockHeldError, locked
from tlcli.storage.urls import default_cache

SECONDS_PER_DAY = 86_400.0


def cache_list(root: Path | None = None) -> list[CacheListing]:
    """List the feature caches in a directory (None: the default one), most recently used first."""
    return list_caches(root or default_cache())


def cache_prune(
    root: Path | None = None, *, older_than_days: float = 0.0
) -> tuple[list[CacheListing], list[CacheListing]]:
    """Remove feature caches that have not been used for some days.

    Args:
        root: Directory of the caches; None for the default one.
        older_than_days: Days since the last use; 0 removes all caches.

    Returns:
        The removed caches, and those that were kept because a process is writing to them.

    Raises:
        MachineError: A cache cannot be removed.
    """
    limit = time.time() - older_than_days * SECONDS_PER_DAY
    removed, busy = [], []
    for listing in cache_list(root):
        if listing.used > limit:
            continue
        try:
            with locked(listing.directory / ".lock", Silent()):
                _remove(listing.directory)
        except LockHeldError:
            busy.append(listing)
        except PermissionError as error:
            raise MachineError(
                f"{listing.directory} cannot be removed: {error.strerror}.", path=listing.directory
            ) from error
        else:
            removed.append(listing)
    return removed, busy


def _remove(directory: Path) -> None:
    """Remove a cache. An interrupted removal leaves `cache.json`, so that the cache is still listed."""
    last = (".lock", "cache.json")
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in last:
            path.unlink()
    for name in last:
        (directory / name).unlink(missing_ok=True)
    directory.rmdir()
