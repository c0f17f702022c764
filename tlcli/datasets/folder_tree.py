"""Folders of images, on this machine or listed at a URL, as `dataset` and `inputs` go through them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from tlcli.datasets.image_files import has_image_suffix, is_hidden, walk_images
from tlcli.errors import MachineError
from tlcli.storage.stored import StoredPath


def under(folder: str, name: str) -> str:
    """The path of what lies in a folder; of the working directory, its bare name."""
    return name if folder == "." else os.path.join(folder, name)  # noqa: PTH118 - a URL's slashes stay


class Tree(Protocol):
    """A folder and all below it."""

    root: str

    def names(self, folder: str) -> list[str]:
        """What lies in a folder, sorted."""

    def is_folder(self, path: str) -> bool:
        """Whether this is a folder."""

    def images(self, folder: str, skipped: Counter[str]) -> Iterator[str]:
        """As `walk_images`."""


class LocalTree:
    """A folder on this machine. Raises MachineError where something below it cannot be listed."""

    def __init__(self, root: str) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See `Tree`."""
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
        except PermissionError as error:
            raise MachineError(
                f"{folder} cannot be listed: {error.strerror}. Grant access to it.", path=folder
            ) from error

    def is_folder(self, path: str) -> bool:
        """See `Tree`."""
        return os.path.isdir(path)  # noqa: PTH112

    def images(self, folder: str, skipped: Counter[str]) -> Iterator[str]:
        """See `Tree`."""

        def unreadable(problem: OSError) -> None:
            raise MachineError(
                f"{problem.filename} cannot be listed: {problem.strerror}. Grant access to it, or move it out of "
                f"{self.root}.",
                path=problem.filename,
            )

        return walk_images(folder, skipped, unreadable)


class ListedTree:
    """A folder that was listed as a whole.

    Args:
        root: Its name, in front of all paths.
        found: Each file by its path below `root`.
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
