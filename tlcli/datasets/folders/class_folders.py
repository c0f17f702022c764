"""DATA as folders: `root/<class>/*`, or `root/{train,val,test}/<class>/*`."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from tlcli.datasets.class_names import standard_name
from tlcli.datasets.folders.label_table import describe_label_table
from tlcli.datasets.folders.layout import find_layout
from tlcli.datasets.folders.nodes import Node, build_nodes, path_of
from tlcli.datasets.folders.tree import ListedTree, LocalTree, Tree, walk
from tlcli.datasets.image_files import COMMON_SUFFIXES, describe_skipped
from tlcli.datasets.labeled_image import LabeledImage
from tlcli.datasets.path_filter import PathFilter
from tlcli.datasets.tables.suffixes import is_table
from tlcli.datasets.tars import is_tar
from tlcli.errors import DataError, MachineError
from tlcli.storage.remote import listing
from tlcli.storage.urls import Location


def open_tree(data: Location) -> Tree | None:
    """Return DATA as a folder; None if it is not a folder."""
    if isinstance(data, Path):
        return LocalTree("" if str(data) == "." else str(data)) if data.is_dir() else None
    if is_table(data) or is_tar(str(data)):
        return None
    found = listing(data)
    return ListedTree(str(data), found) if "" not in found else None


def read_class_folders(
    tree: Tree, paths: PathFilter, skipped: Counter[str], notes: list[str], *, classes: Collection[str] | None
) -> list[LabeledImage]:
    """Read the images of class folders.

    Args:
        tree: The folder that contains the class folders.
        paths: Drops files by their path below that folder.
        skipped: Counts skipped files and folders by reason.
        notes: Receives how the folders were read where that is not obvious.
        classes: The classes of a run, for which a missing train folder and empty class folders are accepted.

    Raises:
        DataError: There are no class folders with images, no train folder, an empty class folder, or two folders for
            one split or class, or the class folders are elsewhere.
        MachineError: A folder cannot be listed.
    """

    def fail(problem: OSError) -> None:
        raise MachineError(
            f"{problem.filename} cannot be listed: {problem.strerror}. Grant read access to it, move it out of {root}, "
            "or leave it out with --exclude.",
            path=problem.filename,
        ) from problem

    root = tree.root or "."
    node = build_nodes(walk(tree, paths, skipped, fail))
    if not node.with_images() and not (classes and node.folders):
        raise _no_images(tree, root, node, skipped)
    layout = find_layout(root, node, classes, lambda: describe_label_table(tree, node))
    if classes is None and len(node.with_images()) == 1 and layout.levels == [(None, node)]:
        (only,) = node.with_images()
        if table := describe_label_table(tree, node):
            raise DataError(f"{root} has a single folder with images, {only.name}. {table}", path=root)
    notes += layout.notes
    skipped["beside the split folders"] += layout.beside
    skipped["images outside the class folders"] += len(
        {path for level in (node, *(level for _, level in layout.levels)) for path in level.images}
    )
    first: dict[str, Node] = {}
    images: list[LabeledImage] = []
    for split, level in layout.levels:
        may_be_empty = classes is not None or split not in {None, "train"}
        for folder in level.folders.values():
            label = _check_class(root, folder, first, may_be_empty=may_be_empty)
            images += [LabeledImage(path=path, label=label, split=split) for path in folder.all_images()]
    return images


def _no_images(tree: Tree, root: str, node: Node, skipped: Counter[str]) -> DataError:
    names = sorted(tree.entries("").files)
    shards = next((name for name in names if is_tar(name)), None)
    if node.images and (table := describe_label_table(tree, node)):
        return DataError(f"{root} holds images, but no class folders. {table}", path=root)
    return DataError(
        f"{root} holds no class folders with images. Expected {root}/<class>/*.jpg (or .png, ...), or "
        f"{root}/train/<class>/*.jpg."
        + f" Skipped: {describe_skipped(skipped)}." * bool(skipped)
        + f" To use its tar shards, pass them: {root}/{shards}" * bool(shards),
        path=root,
    )


def _check_class(root: str, folder: Node, first: dict[str, Node], *, may_be_empty: bool) -> str:
    """Return the name of the class of a folder; `first` holds the first folder of each class."""
    path = path_of(root, folder)
    if not folder.total and not may_be_empty:
        raise DataError(
            f"{path} holds no images (looked for {COMMON_SUFFIXES}). Add some or remove the folder, or leave it out "
            f"with --exclude {shlex.quote(folder.name + '/')}.",
            path=path,
        )
    label = _class_name(folder.name)
    other = first.setdefault(label, folder)
    if other.name != folder.name:
        raise DataError(
            f"{path_of(root, other)} and {path} would be one class, {label!r}, because a name that is not UTF-8 is "
            "percent-encoded. Rename one of them.",
            path=path,
        )
    return label


def names_class(folder_name: str, label: str) -> bool:
    """Return whether a folder holds the images of a class."""
    return standard_name(_class_name(folder_name)) == standard_name(label)


def _class_name(folder_name: str) -> str:
    """Return a folder's name as text, percent-encoded if it is not UTF-8."""
    try:
        folder_name.encode("utf8")
    except UnicodeEncodeError:
        return quote(os.fsencode(folder_name))
    return folder_name
