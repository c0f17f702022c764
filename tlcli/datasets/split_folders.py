"""Which folders are splits, judging by their names and by what they hold: `Training`, `seg_test`, `cifar_val`, ..."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from tlcli.datasets.folder_nodes import Node
from tlcli.datasets.labeled_image import SPLIT_NAMES

_AFFIXES = (
    "set|sets|data|dataset|datasets|image|images|img|imgs|photo|photos|picture|pictures|pic|pics|seg|split|splits|"
    "subset|part|folder|dir|file|files|jpg|jpeg|png|cropped|resized"
)
_SPLIT = "|".join(sorted([*SPLIT_NAMES, "trainval"], key=len, reverse=True))
_WORD = re.compile(rf"(?:{_AFFIXES})*?({_SPLIT})(?:{_AFFIXES})*")
_AFFIX = re.compile(rf"(?:{_AFFIXES})+")
_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HOLD_OUT = re.compile(r"hold[\W_]*out", re.IGNORECASE)

MASK_NAME = re.compile(
    r"(?:.*[\W_])?(?:gt|mask|label|annotation|segmentation|ground[\W_]?truth|annot|matte|trimap)s?(?:[\W_\d].*)?",
    re.IGNORECASE,
)
"""Matches names of folders that hold masks or other annotations of images."""


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
    """What its name says besides the split, such as the name of the dataset."""

    @property
    def has_classes(self) -> bool:
        """Whether it holds class folders."""
        return bool(self.level.folders)

    def named(self) -> str:
        """Return the folder as it is shown: `seg_train/seg_train`."""
        return self.level.below.rstrip("/")


def split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the split that a folder's name means, and the other words in it; None if it means none.

    Digits, and words such as `set`, `data`, or `images`, are ignored.
    """
    if MASK_NAME.fullmatch(name):
        return None
    splits, rest = [], []
    for word in _LETTERS.findall(_CAMEL.sub(" ", _HOLD_OUT.sub("holdout", name))):
        folded = word.casefold()
        if match := _WORD.fullmatch(folded):
            splits.append(SPLIT_NAMES.get(match[1], "train"))
        elif not _AFFIX.fullmatch(folded):
            rest.append(folded)
    if sorted(splits) == ["train", "validation"]:  # what is trained on, besides a test set
        splits = ["train"]
    return (splits[0], tuple(rest)) if len(splits) == 1 else None


def split_folders(folders: Iterable[Node]) -> list[SplitFolder]:
    """Return those folders whose names are those of splits."""
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
    return unicodedata.normalize("NFC", name).strip().casefold()


def look_alike(one: Node, other: Node) -> bool:
    """Return whether two folders have subfolders of the same names."""
    return bool({folded(name) for name in one.folders} & {folded(name) for name in other.folders})
