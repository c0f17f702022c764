"""Derive classes and splits from the folders of DATA, or refuse with the command that was probably meant.

The first rule that applies decides. F are the folders in DATA that have images in or below them:

| DATA holds | it is read as |
|---|---|
| only folders named like classes of the run (`evaluate`) | classes |
| two folders named like different splits, with subfolders | splits; other folders are named and not used |
| a folder named like train, with subfolders, and nothing else in F, or only folders named like splits, `unlabeled`, \
`examples`, ..., or with the same subfolders | splits |
| such a folder and one other folder, which has only images | refused: ambiguous |
| splits without train | refused, except in `evaluate` |
| only folders named like splits, without subfolders | refused: no classes |
| a single folder that has subfolders | refused: the wrong level |
| one folder with subfolders but no images of its own, and others named `examples`, `docs`, ..., or with few images | \
refused: the wrong level |
| only folders with the same subfolders, and no images of their own | refused: classes or parts? |
| anything else | classes; images in their subfolders count for them |
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from statistics import median

from tlcli.datasets.class_names import standard_name
from tlcli.datasets.folder_nodes import SHOWN, Node, count_images, names_of, path_of
from tlcli.datasets.split_folders import (
    MASK_NAME,
    NO_CLASS,
    SplitFolder,
    are_splits,
    choose_splits,
    folded,
    split_folders,
    split_of,
)
from tlcli.errors import DataError
from tlcli.storage.files import portable_name

_DATA_NAME = re.compile(
    r"(?:the[\W_]?)?(?:raw[\W_]?)?(?:data(?:[\W_]?sets?)?|images?|imgs?|photos?|pictures?)", re.IGNORECASE
)
"""Matches names of folders that are no classes when they hold subfolders."""
_DATE = re.compile(r"(?:19|20)\d\d(?:[-_. ]?\d\d){0,2}")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the class folders are, and what to tell about it."""

    levels: list[tuple[str | None, Node]]
    """Folders that hold class folders, each with its split; one without a split if DATA has none."""
    notes: list[str] = field(default_factory=list)
    beside: int = 0
    """Number of images in folders beside the splits."""


def find_layout(root: str, node: Node, classes: Collection[str] | None, find_table: Callable[[], str] = str) -> Layout:
    """Derive splits and class folders.

    Args:
        root: DATA as typed, for messages.
        node: The walked folder.
        classes: The classes of a run that is evaluated; None if they are to be derived.
        find_table: Returns a sentence about a table of labels beside the folders, empty if there is none.

    Raises:
        DataError: The folders cannot be read, or not without a doubt.
    """
    folders = node.with_images()
    known = set(map(standard_name, classes or ()))
    if folders and all(standard_name(folder.name) in known for folder in folders):
        return _as_classes(node, folders)
    candidates = split_folders(node.folders.values())
    chosen = choose_splits(root, candidates)
    others = [folder for folder in folders if all(folder is not split.node for split in chosen.values())]
    if chosen and are_splits(root, chosen, others, known):
        return _as_splits(root, chosen, others, for_run=classes is not None)
    named = {found[0] for folder in folders if (found := split_of(folder.name))}
    if folders and all(split_of(folder.name) for folder in folders):
        raise DataError(_flat_splits(root, folders, find_table()), path=root)
    if "train" in named and (len(named) > 1 or len(folders) == 1) and (table := find_table()):
        raise DataError(_flat_splits(root, folders, table), path=root)
    _refuse_wrong_level(root, node, folders)
    return _as_classes(node, folders)


def _as_splits(root: str, chosen: dict[str, SplitFolder], others: Sequence[Node], *, for_run: bool) -> Layout:
    if "train" not in chosen and not for_run:
        names = ", ".join(split.node.name for split in chosen.values())
        raise DataError(
            f"{root} has no train folder, only {names}. Add the training images as {root}/train/<class>/*.jpg"
            + (
                f", or, if they are all there is, pass {path_of(root, next(iter(chosen.values())).level)}."
                if len(chosen) == 1
                else "."
            ),
            path=root,
        )
    notes = []
    if any(split.named() != name for name, split in chosen.items()):
        notes.append(
            "splits: " + ", ".join(f"{portable_name(split.named())} -> {name}" for name, split in chosen.items())
        )
    if others:
        named = ", ".join(f"{portable_name(other.name)} ({count_images(other.total)})" for other in others)
        notes.append(f"not used, beside the splits: {named}")
    return Layout(
        levels=[(name, split.level) for name, split in chosen.items()],
        notes=notes + _merged([split.level for split in chosen.values()]),
        beside=sum(other.total for other in others),
    )


def _as_classes(node: Node, folders: Sequence[Node]) -> Layout:
    return Layout(levels=[(None, node)], notes=_merged([node]) if folders else [])


def _merged(levels: Sequence[Node]) -> list[str]:
    """Return a note about the classes that have subfolders, whose images are theirs."""
    merged = {
        folder.below.rstrip("/"): len(folder.with_images())
        for level in levels
        for folder in level.with_images()
        if folder.with_images()
    }
    if not merged:
        return []
    shown = [f"{portable_name(name)} ({count})" for name, count in list(merged.items())[:SHOWN]]
    more = [f"{len(merged) - SHOWN} more"] if len(merged) > SHOWN else []
    return [f"subfolders merged into their class: {', '.join(shown + more)}"]


def _flat_splits(root: str, folders: Sequence[Node], table: str) -> str:
    names = names_of([folder.name for folder in folders])
    if any(folder.folders for folder in folders):
        return (
            f"{root} holds folders named like splits ({names}), but train has no class folders. Expected "
            f"{root}/train/<class>/*.jpg and the same classes in the others."
        )
    expected = f"Expected {root}/{folders[0].name}/<class>/*.jpg, or a table with the columns path and label."
    return (
        f"{root} holds images directly in folders named like splits ({names}), so no folder tells their class. "
        f"{table or expected}"
    )


def _refuse_wrong_level(root: str, node: Node, folders: Sequence[Node]) -> None:
    """Refuse folders that are not classes, because the classes are deeper.

    Raises:
        DataError: So it is, with the path that was probably meant.
    """
    if len(folders) == 1:
        if (meant := _meant(root, folders[0])) is not None:
            raise _WrongLevelError(root, folders[0], meant, "")
        return
    nested = [folder for folder in folders if not folder.images and folder.folders]
    parted = [folder for folder in nested if len(folder.with_images()) > 1 and not MASK_NAME.fullmatch(folder.name)]
    if len(parted) == len(folders):
        _refuse_same_subfolders(root, folders)
    for folder in nested:
        inner, beside = folder.with_images(), [other for other in folders if other is not folder]
        per_class = median(node.total for node in inner)
        few = len(inner) > 2 and all(not other.folders and other.total < per_class / 2 for other in beside)
        no_classes = all(NO_CLASS.fullmatch(other.name) or MASK_NAME.fullmatch(other.name) for other in beside)
        is_data = len(nested) == 1 and _DATA_NAME.fullmatch(folder.name)
        is_level = (no_classes or few or is_data) and not all(map(_is_date, folder.folders))
        if is_level and (meant := _meant(root, folder)) is not None:
            names = ", ".join(f"{other.name} ({count_images(other.total)})" for other in beside[:SHOWN])
            raise _WrongLevelError(root, folder, meant, f", beside {names},")


class _WrongLevelError(DataError):
    """A folder is not a class, because the classes are deeper."""

    def __init__(self, root: str, folder: Node, meant: Node, beside: str) -> None:
        path = portable_name(path_of(root, meant))
        super().__init__(
            f"{root}: {folder.name}{beside} is not a class, but holds the class folders. They seem to be in {path} "
            f"({names_of(list(meant.folders))}). Pass that folder instead: {shlex.quote(path)}.",
            path=path_of(root, meant),
        )
        self.meant = meant


def _refuse_same_subfolders(root: str, folders: Sequence[Node]) -> None:
    sets = [
        {folded(inner.name) for inner in folder.with_images() if not MASK_NAME.fullmatch(inner.name)}
        for folder in folders
    ]
    union, common = set.union(*sets), set.intersection(*sets)
    if len(common) < 2 or len(common) * 2 < len(union) or all(map(_is_date, common)):
        return
    outer, inner = names_of([folder.name for folder in folders]), names_of(sorted(common))
    if all(split_of(name) for name in common):
        advice = f"Move the images to {root}/<split>/<class>/, such as {root}/train/{folders[0].name}/."
    else:
        path = shlex.quote(portable_name(path_of(root, folders[0])))
        advice = (
            f"If the classes are {inner}, pass one of the folders, such as {path}, or name the splits train, val, and "
            f"test. If the classes are {outer}, move the images up, or keep one subfolder of each, such as with "
            f"--exclude {shlex.quote(sorted(common)[-1] + '/')}."
        )
    raise DataError(f"{root}: its folders ({outer}) all have the same subfolders ({inner}). {advice}", path=root)


def _meant(root: str, node: Node) -> Node | None:
    """Return the first folder from `node` downward that holds several classes; None if there is none."""
    inner = sorted(node.with_images(), key=lambda folder: -folder.total)
    if not inner:
        return None
    try:
        layout = find_layout(path_of(root, node), node, None)
    except _WrongLevelError as error:
        return error.meant
    except DataError:  # it says what is wrong once this folder is passed
        return node
    if len({name for _, level in layout.levels for name in level.folders}) > 1:
        return node
    return next((found for folder in inner if (found := _meant(root, folder))), None)


def _is_date(name: str) -> bool:
    return bool(_DATE.fullmatch(name))
