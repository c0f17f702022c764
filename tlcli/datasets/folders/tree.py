"""Walk a folder on this machine or at a URL: its images in a fixed order, and counts of all that is skipped.

Every command lists folders through `walk`, so none reads an image that another one drops.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tlcli.datasets.image_files import has_image_suffix, other_suffix, skipped_file, skipped_folder
from tlcli.datasets.path_filter import EXCLUDED, PathFilter
from tlcli.storage.stored import StoredPath

LINKED_TWICE = "linked twice"
"""Reason to skip a link to a folder that is reached by another path as well."""


@dataclass(kw_only=True)
class Entries:
    """What a folder holds, by name."""

    files: Mapping[str, str]
    """Paths of the files."""
    folders: list[str]
    linked: set[str] = field(default_factory=set)
    """Those of the folders that are links."""
    odd: dict[str, str] = field(default_factory=dict)
    """Reasons to skip files that cannot be images, whatever their names are."""


class Tree(Protocol):
    """A folder and everything below it."""

    root: str

    def entries(self, below: str) -> Entries:
        """List a folder, given its path below the root (empty, or ending with a slash). Raises OSError."""

    def enters(self, below: str, *, linked: bool, is_walked: Callable[[str], bool]) -> bool:
        """Return whether to walk a folder; false if it is a link to one that is reached by another path.

        Args:
            below: Path of the folder below the root, ending with a slash.
            linked: Whether it is a link.
            is_walked: Returns whether a path below the root is walked, by its names.
        """


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder that was walked, without its subfolders."""

    below: str
    """Path below the root: empty for the root itself, otherwise ending with a slash."""
    images: list[str]
    """Paths of the images in it, sorted by name."""
    dropped: int
    """Number of files and folders in it that `--include` and `--exclude` dropped."""


def walk(tree: Tree, paths: PathFilter, skipped: Counter[str], on_error: Callable[[OSError], None]) -> Iterator[Folder]:
    """Yield the folders of a tree, each before its subfolders, which are sorted.

    Links to files and folders are followed. A folder that is reached by several paths is walked once: by its own path
    if that is below the root, otherwise by the first link. A broken link with the name of an image, or a file in a
    folder that can be listed but not entered, counts as an image, which then cannot be read.

    Args:
        tree: The folder to walk.
        paths: Drops files by their path below the root.
        skipped: Counts skipped files and folders by reason.
        on_error: Called with the error of each folder that cannot be listed.
    """

    def is_walked(below: str) -> bool:
        parts = below.rstrip("/").split("/")
        return not any(map(skipped_folder, parts)) and not paths.drops_folder(below.rstrip("/"))

    pending: list[tuple[str, str | None]] = [("", None)]  # a folder, and the reason to skip all files in it
    while pending:
        below, reason = pending.pop()
        try:
            entries = tree.entries(below)
        except OSError as error:
            if reason is None:
                on_error(error)
            continue
        subfolders: list[tuple[str, str | None]] = []
        dropped = 0
        for name in sorted(entries.folders):
            inner = f"{below}{name}/"
            excluded = EXCLUDED if paths and paths.drops_folder(f"{below}{name}") else None
            why = reason or skipped_folder(name) or excluded
            linked = name in entries.linked
            dropped += why == EXCLUDED
            if why == "hidden folders":
                skipped[why] += 1
            elif why is None and not tree.enters(inner, linked=linked, is_walked=is_walked):
                skipped[LINKED_TWICE] += 1
            elif why is not None and linked:
                skipped[why] += 1
            else:
                subfolders.append((inner, why))
        pending += reversed(subfolders)
        if reason is None:
            images, files_dropped = _images(entries, below, paths, skipped)
            yield Folder(below=below, images=images, dropped=dropped + files_dropped)
        else:
            skipped[reason] += len(entries.files)
            if reason == EXCLUDED:
                for name in entries.files:  # so that a pattern for files in excluded folders counts as used
                    paths.keeps(below + name)


def _images(entries: Entries, below: str, paths: PathFilter, skipped: Counter[str]) -> tuple[list[str], int]:
    """Return the paths of a folder's images, and the number of files that the filter dropped."""
    images, dropped = [], 0
    for name, path in sorted(entries.files.items()):
        excluded = bool(paths) and not paths.keeps(below + name)
        reason = skipped_file(name) or (EXCLUDED if excluded else entries.odd.get(name))
        if reason is None and not has_image_suffix(name):
            reason = other_suffix(name)
        if reason is None:
            images.append(path)
        else:
            dropped += reason == EXCLUDED
            skipped[reason] += 1
    return images, dropped


class LocalTree:
    """A folder on this machine.

    Args:
        root: Path of the folder, as typed; empty for the working directory, so that paths start with no `./`.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._prefix = os.path.join(root, "")  # noqa: PTH118 - keep the path as typed
        self._seen: set[tuple[int, int]] = set()
        self._beyond: tuple[str, ...] = ()
        """Links that are followed to places where no other path below the root leads."""

    def entries(self, below: str) -> Entries:
        """See `Tree`."""
        folder = self._prefix + below
        found = Entries(files={}, folders=[])
        files: dict[str, str] = {}
        with os.scandir(folder.rstrip("/") or folder or ".") as listing:
            for entry in listing:
                if entry.is_file(follow_symlinks=False):
                    files[entry.name] = folder + entry.name
                elif entry.is_dir(follow_symlinks=False):
                    found.folders.append(entry.name)
                elif not entry.is_symlink():
                    files[entry.name] = folder + entry.name
                    found.odd[entry.name] = "no ordinary files"
                elif (mode := _mode(folder + entry.name)) is not None and stat.S_ISDIR(mode):
                    found.folders.append(entry.name)
                    found.linked.add(entry.name)
                else:
                    files[entry.name] = folder + entry.name
                    if mode is not None and not stat.S_ISREG(mode):
                        found.odd[entry.name] = "no ordinary files"
                    elif mode is None and not has_image_suffix(entry.name):
                        found.odd[entry.name] = "broken links"
        found.files = files
        return found

    def enters(self, below: str, *, linked: bool, is_walked: Callable[[str], bool]) -> bool:
        """See `Tree`."""
        if not linked and not below.startswith(self._beyond):
            return True  # no second path leads here: links to it are not followed
        path = self._prefix + below
        if linked:
            root, target = os.path.realpath(self.root or "."), os.path.realpath(path)
            if os.path.commonpath([root, target]) == target:  # the root, or a folder above it
                return False
            inside = os.path.relpath(target, root)
            if os.path.commonpath([root, target]) == root and is_walked(inside):
                return False
            self._beyond += (below,)
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            return True  # listing it reports the reason
        if (found.st_dev, found.st_ino) in self._seen:
            return False
        self._seen.add((found.st_dev, found.st_ino))
        return True


def _mode(path: str) -> int | None:
    """Return the mode of what a link leads to, or None."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return None


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
            folder, slash, name = key.rpartition("/")
            self._files[folder + slash][name] = stored
            while folder:
                parent, slash, name = folder.rpartition("/")
                if name in self._folders[parent + slash]:
                    break
                self._folders[parent + slash].add(name)
                folder = parent

    def entries(self, below: str) -> Entries:
        """See `Tree`."""
        return Entries(files=self._files[below], folders=list(self._folders[below]))

    def enters(self, below: str, *, linked: bool, is_walked: Callable[[str], bool]) -> bool:
        """See `Tree`; a listing has no links."""
        return True
