"""cache list and cache prune: what lies in the feature cache, and making room."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tlcli.errors import MachineError
from tlcli.features.listing import CacheListing, list_caches
from tlcli.progress import Silent
from tlcli.storage.locks import Held, locked
from tlcli.storage.urls import default_cache

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
        try:
            with locked(listing.directory / ".lock", Silent()):
                _remove(listing.directory)
        except Held:
            busy.append(listing)
        except PermissionError as error:
            raise MachineError(
                f"{listing.directory} cannot be removed: {error.strerror}.", path=listing.directory
            ) from error
        else:
            removed.append(listing)
    return removed, busy


def _remove(directory: Path) -> None:
    """Remove a cache so that what a kill leaves is found again, by its `cache.json`."""
    last = (".lock", "cache.json")
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in last:
            path.unlink()
    for name in last:
        (directory / name).unlink(missing_ok=True)
    directory.rmdir()
