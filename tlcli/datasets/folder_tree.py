"""Folder trees with one interface: folders on this machine, and folders listed at a URL."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from tlcli.datasets.image_files import has_image_suffix, is_hidden, walk_images
from tlcli.errors import MachineError
from tlcli.storage.stored import StoredPath


def join_path(folder: str, name: str) -> str:
    """Return the path of `name` in a folder; in the working directory, just `name`."""
    return name if folder == "." else os.path.join(folder, name)  # noqa: PTH118 - keep the slashes of URLs


class Tree(Protocol):
    """A folder and everything below it."""

    root: str

    def names(self, folder: str) -> list[str]:
        """Return the names of the files and folders in a folder, sorted."""

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder."""

    def images(self, folder: str, skipped: Counter[str]) -> Iterator[str]:
        """Yield the paths of the image files below a folder, as `walk_images` does."""


class LocalTree:
    """A folder on this machine. Raises MachineError if a folder in it cannot be listed."""

    def __init__(self, root: str) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See `Tree`."""
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - names instead of paths
        except PermissionError as error:
            raise MachineError(
                f"{folder} cannot be listed: {error.strerror}. Grant read access to it.", path=folder
            ) from error

    def is_folder(self, path: str) -> bool:
        """See `Tree`."""
        return os.path.isdir(path)  # noqa: PTH112

    def images(self, folder: str, skipped: Counter[str]) -> Iterator[str]:
        """See `Tree`."""

        def fail(problem: OSError) -> None:
            raise MachineError(
                f"{problem.filename} cannot be listed: {problem.strerror}. Grant read access to it, or move it out of "
                f"{self.root}.",
                path=problem.filename,
            )

        return walk_images(folder, skipped, fail)


class ListedTree:
    """A folder of which all files are listed already.

    Args:
        root: Prefix of all paths.
        found: Files by their path below `root`.
    """

    def __init__(self, root: str, found: Mapping[str, StoredPath]) -> None:
        self.root = root.rstrip("/")
        self._folders: defaultdict[str, set[str]] = defaultdict(set)
        self._files: defaultdict[str, dict[str, StoredPath]] = defaultdict(dict)
        for key, stored in found.items():
            folder, _, name = f"{self.root}/{key}".rpartition("/")
            self._files[folder][name] = stored
            while folder != self.root:
                folder, _, name = folder.rpartition("/")
                if name in self._folders[folder]:
                    break
                self._folders[folder].add(name)

    def names(self, folder: str) -> list[str]:
        """See `Tree`."""
        return sorted({*self._folders[folder], *self._files[folder]})

    def is_folder(self, path: str) -> bool:
        """See `Tree`."""
        folder, _, name = path.rpartition("/")
        return name in self._folders[folder]

    def images(self, folder: str, skipped: Counter[str]) -> Iterator[str]:
        """See `Tree`."""
        files = self._files[folder]
        for name in sorted(files):
            if is_hidden(name):
                skipped["hidden files"] += 1
            elif not has_image_suffix(name):
                skipped["not images by their suffix"] += 1
            else:
                yield files[name]
        for name in sorted(self._folders[folder]):
            if is_hidden(name):
                skipped["hidden folders"] += 1
            else:
                yield from self.images(f"{folder}/{name}", skipped)
