"""Decide which folders are splits by their names and contents: `Training`, `seg_test`, `cifar_val`, ..."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tlcli.datasets.class_names import standard_name
from tlcli.datasets.folder_names import MASK_NAME, NO_CLASS, is_date, split_of
from tlcli.datasets.folders.nodes import SHOWN, Node, names_of
from tlcli.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SplitFolder:
    """A folder whose name is that of a split."""

    node: Node
    """The folder at the root of DATA."""
    level: Node
    """The folder that holds its class folders, or its images: `node`, or the only folder in it."""
    split: str
    """`train`, `validation`, or `test`."""
    rest: tuple[str, ...]
    """The other words of its name, such as the name of the dataset."""

    @property
    def has_classes(self) -> bool:
        """Whether it holds class folders."""
        return bool(self.level.folders)

    def named(self) -> str:
        """Return the folder as it is shown: `seg_train/seg_train`."""
        return self.level.below.rstrip("/")


def split_folders(folders: Iterable[Node]) -> list[SplitFolder]:
    """Return the folders whose names are those of splits."""
    return [
        SplitFolder(node=node, level=_class_level(node, found[0]), split=found[0], rest=found[1])
        for node in folders
        if (found := split_of(node.name))
    ]


def _class_level(node: Node, split: str) -> Node:
    """Return the folder that holds the class folders of a split: below `seg_train/seg_train`, `train/images`."""
    while not node.images and len(inner := node.with_images()) == 1:
        found = split_of(inner[0].name)
        is_split = found is not None and found[0] == split
        is_wrapper = not inner[0].images and len(inner[0].with_images()) > 1
        if not is_split and not is_wrapper:
            break
        node = inner[0]
    return node


def folded(name: str) -> str:
    """Return a form of a class name that is the same for names that look alike."""
    return standard_name(name).casefold()


def look_alike(one: Node, other: Node) -> bool:
    """Return whether two folders have subfolders of the same names, other than dates."""
    common = {folded(name) for name in one.folders} & {folded(name) for name in other.folders}
    return not all(map(is_date, common))


def choose_splits(root: str, candidates: Sequence[SplitFolder]) -> dict[str, SplitFolder]:
    """Return one folder with class folders for each split, in order; those with other words only if necessary.

    Raises:
        DataError: There are two folders for one split.
    """
    nested = [split for split in candidates if split.has_classes]
    groups: dict[tuple[str, ...], list[SplitFolder]] = {}
    for split in nested:
        groups.setdefault(split.rest, []).append(split)
    rank = {rest: ({"train"} <= {split.split for split in group}, len(group)) for rest, group in groups.items()}
    if not groups:
        return {}
    best = () if rank.get((), (False, 0))[0] else max(rank, key=lambda rest: rank[rest])
    with_train = [rest for rest in groups if rank[rest][0] and len(groups[rest]) > 1]
    if best and len(with_train) > 1:
        names = ", ".join(split.node.name for split in nested[:SHOWN])
        raise DataError(
            f"{root} has several sets of splits ({names}). Keep one of them with --include or --exclude, or move the "
            f"images to {root}/train/<class>/ and {root}/test/<class>/.",
            path=root,
        )
    found: dict[str, SplitFolder] = {}
    for split in groups[best] + [other for other in nested if other.rest != best]:
        known = found.get(split.split)
        if known is None and (
            split.rest == best or "train" not in found or look_alike(found["train"].level, split.level)
        ):
            found[split.split] = split
        elif known is not None and known.rest == split.rest:
            raise DataError(
                f"{root} has two folders for {split.split}: {known.node.name} and {split.node.name}. Leave one out "
                f"with --exclude {shlex.quote(split.node.name + '/')}, or merge them.",
                path=root,
            )
    return {name: found[name] for name in ("train", "validation", "test") if name in found}


def are_splits(root: str, chosen: dict[str, SplitFolder], others: Sequence[Node], known: Collection[str]) -> bool:
    """Return whether folders named like splits are splits, not classes with such names."""
    if len(chosen) > 1 or not others:
        return True
    (split,) = chosen.values()
    if any(standard_name(name) in known for name in split.level.folders):
        return True
    if split.split != "train":
        return False
    if all(
        split_of(other.name) or NO_CLASS.fullmatch(other.name) or MASK_NAME.fullmatch(other.name) for other in others
    ):
        return True
    if any(look_alike(split.level, other) for other in others):
        return True
    if len(others) == 1 and not others[0].folders:
        name, inner = others[0].name, names_of(list(split.level.folders))
        raise DataError(
            f"{root} holds {split.node.name} with subfolders ({inner}), and {name} without any. It is unclear whether "
            f"{split.node.name} is a split or a class. If it is a split, pass --exclude {shlex.quote(name + '/')}; if "
            "it is a class, move the images in its subfolders up, or rename it.",
            path=root,
        )
    return False
