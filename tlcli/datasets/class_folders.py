"""DATA as folders: `root/<class>/*`, or `root/{train,val,test}/<class>/*`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from tlcli.datasets.folder_tree import ListedTree, LocalTree, Tree, join_path
from tlcli.datasets.image_files import COMMON_SUFFIXES, has_image_suffix, is_hidden
from tlcli.datasets.labeled_image import SPLIT_NAMES, LabeledImage
from tlcli.datasets.tables import TABLE_SUFFIXES
from tlcli.datasets.tars import is_tar
from tlcli.errors import DataError
from tlcli.storage.remote import listing
from tlcli.storage.urls import Location


def open_tree(data: Location) -> Tree | None:
    """Return DATA as a folder; None if it is not a folder."""
    if isinstance(data, Path):
        return LocalTree(str(data)) if data.is_dir() else None
    if data.suffix.lower() in TABLE_SUFFIXES or is_tar(str(data)):
        return None
    found = listing(data)
    return ListedTree(str(data), found) if "" not in found else None


def read_class_folders(tree: Tree, skipped: Counter[str], *, for_run: bool) -> list[LabeledImage]:
    """Read the images of class folders.

    Args:
        tree: The folder that contains the class folders.
        skipped: Counts skipped files and folders by reason.
        for_run: Accept a missing train folder and empty class folders, because the classes of a run are known.

    Raises:
        DataError: There are no class folders with images, no train folder, an empty class folder, or two folders for
            one split or class.
        MachineError: A folder cannot be listed.
    """
    root, split_folders = tree.root, _split_folders(tree)
    class_folders: dict[str, str] = {}
    if split_folders and "train" not in split_folders and not for_run:
        names = ", ".join(split_folders.values())
        raise DataError(
            f"{root} has no train folder, only {names}. Add the training images as {root}/train/<class>/*.jpg.",
            path=root,
        )
    if not split_folders:
        images = _read_classes(tree, root, None, skipped, class_folders, may_be_empty=for_run)
        if not images:
            shards = next((name for name in tree.names(root) if is_tar(name)), None)
            raise DataError(
                f"{root} holds no class folders with images. Expected {root}/<class>/*.jpg (or .png, ...), or "
                f"{root}/train/<class>/*.jpg." + f" To use its tar shards, pass them: {root}/{shards}" * bool(shards),
                path=root,
            )
        return images
    for name in tree.names(root):
        if name not in split_folders.values() and not is_hidden(name):
            skipped["beside the split folders"] += 1
    return [
        image
        for split, name in split_folders.items()
        for image in _read_classes(
            tree,
            join_path(root, name),
            split,
            skipped,
            class_folders,
            may_be_empty=for_run or split != "train",
        )
    ]


def _split_folders(tree: Tree) -> dict[str, str]:
    """Return the names of the folders of train, validation, and test that contain class folders, by split.

    Empty if the root contains class folders: it has no train folder, but folders that are not named like splits.
    """
    found: dict[str, str] = {}
    folders = [name for name in tree.names(tree.root) if tree.is_folder(join_path(tree.root, name))]
    for name in folders:
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            continue
        folder = join_path(tree.root, name)
        if not any(tree.is_folder(join_path(folder, inner)) for inner in tree.names(folder) if not is_hidden(inner)):
            continue
        if split in found:
            raise DataError(
                f"{tree.root} has two folders for {split}: {found[split]} and {name}. Keep one of them.", path=tree.root
            )
        found[split] = name
    if "train" not in found and sum(not is_hidden(name) for name in folders) > len(found):
        return {}
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _read_classes(
    tree: Tree,
    root: str,
    split: str | None,
    skipped: Counter[str],
    class_folders: dict[str, str],
    *,
    may_be_empty: bool,
) -> list[LabeledImage]:
    """Read the images of the class folders in `root`; `class_folders` holds the first folder of each class."""
    images: list[LabeledImage] = []
    for name in tree.names(root):
        folder = join_path(root, name)
        if is_hidden(name):
            skipped["hidden folders" if tree.is_folder(folder) else "hidden files"] += 1
        elif not tree.is_folder(folder):
            reason = "images outside the class folders" if has_image_suffix(name) else "not images by their suffix"
            skipped[reason] += 1
        else:
            paths = list(tree.images(folder, skipped))
            if not paths and not may_be_empty:
                raise DataError(
                    f"{folder} holds no images (looked for {COMMON_SUFFIXES}). Add some or remove the folder.",
                    path=folder,
                )
            label = _class_name(name)
            other = class_folders.setdefault(label, folder)
            if os.path.basename(other) != name:  # noqa: PTH119 - may be any bytes
                raise DataError(
                    f"{other} and {folder} would be one class, {label!r}, because a name that is not UTF-8 is "
                    "percent-encoded. Rename one of them.",
                    path=folder,
                )
            images.extend(LabeledImage(path=path, label=label, split=split) for path in paths)
    return images


def _class_name(folder_name: str) -> str:
    """Return a folder's name as text, percent-encoded if it is not UTF-8."""
    try:
        folder_name.encode("utf8")
    except UnicodeEncodeError:
        return quote(os.fsencode(folder_name))
    return folder_name
