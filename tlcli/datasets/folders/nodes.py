"""A walked folder as a tree of nodes, from which classes and splits are derived."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tlcli.datasets.folders.tree import Folder
from tlcli.storage.files import portable_name

SHOWN = 5
"""Number of folders to name in a message."""


@dataclass(kw_only=True)
class Node:
    """A folder with its images and subfolders."""

    name: str
    below: str
    """Path below the root of DATA: empty for the root itself, otherwise ending with a slash."""
    images: list[str] = field(default_factory=list)
    """Paths of the images in the folder itself."""
    folders: dict[str, Node] = field(default_factory=dict)
    total: int = 0
    """Number of images in the folder and below it."""

    def all_images(self) -> list[str]:
        """Return the paths of all images in the folder and below it; files come before subfolders."""
        found, pending = [], [self]
        while pending:
            node = pending.pop()
            found += node.images
            pending += reversed(node.folders.values())
        return found

    def with_images(self) -> list[Node]:
        """Return the subfolders that have images in or below them."""
        return [inner for inner in self.folders.values() if inner.total]


def build_nodes(folders: Iterable[Folder]) -> Node:
    """Return the root of a walked folder. Folders whose files were all dropped by a filter are left out."""
    root = Node(name="", below="")
    nodes = {"": root}
    emptied: set[str] = set()
    for folder in folders:
        if folder.below:
            node = Node(name=folder.below.rstrip("/").rpartition("/")[2], below=folder.below)
            nodes[folder.below] = nodes[_parent(folder.below)].folders[node.name] = node
        nodes[folder.below].images = folder.images
        if folder.dropped:
            emptied.add(folder.below)
    for below, node in reversed(nodes.items()):  # subfolders first
        node.total = len(node.images) + sum(inner.total for inner in node.folders.values())
        if below in emptied and below and not node.total:
            del nodes[_parent(below)].folders[node.name]
            emptied.add(_parent(below))
    return root


def _parent(below: str) -> str:
    folder, slash, _ = below.rstrip("/").rpartition("/")
    return folder + slash


def path_of(root: str, node: Node) -> str:
    """Return the path of a folder as DATA was typed."""
    if root == ".":
        return node.below.rstrip("/") or root
    return f"{root.rstrip('/')}/{node.below}".rstrip("/") or "/"


def names_of(names: Sequence[str]) -> str:
    """Return the first names, for messages."""
    shown = [portable_name(name) for name in names[:SHOWN]]
    return ", ".join(shown + ([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []))


def count_images(count: int) -> str:
    """Return a number of images, for messages."""
    return "1 image" if count == 1 else f"{count:,} images"
