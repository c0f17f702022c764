"""Derive classes and splits from the folders of DATA, or refuse with the command that was probably meant.

The first rule that applies decides. F are the folders in DATA that have images in or below them:

| DATA holds | it is read as |
|---|---|
| only folders named like classes of the run (`evaluate`) | classes |
| two folders named like different splits, with subfolders | splits; other folders are listed but not used |
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
from tlcli.datasets.folder_names import MASK_NAME, NO_CLASS, is_date, split_of
from tlcli.datasets.folders.nodes import SHOWN, Node, count_images, names_of, path_of
from tlcli.datasets.folders.split_folders import SplitFolder, are_splits, choose_splits, folded, split_folders
from tlcli.errors import DataError
from tlcli.storage.files import portable_name

_DATA_NAME = re.compile(r"(?:the[\W_]?)?(?:raw[\W_]?)?(?:data(?:[\W_]?sets?)?|images?|imgs?)", re.IGNORECASE)
"""Matches names of folders that are not classes if they have subfolders."""


FEW_IMAGES = 20
"""A folder with fewer images may hold examples beside a folder of class folders."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the class folders are, and notes about them."""

    levels: list[tuple[str | None, Node]]
    """Folders that hold class folders, each with its split; one without a split if DATA has none."""
    notes: list[str] = field(default_factory=list)
    beside: int = 0
    """Number of images in folders beside the splits."""


def find_layout(root: str, node: Node, classes: Collection[str] | None, find_table: Callable[[], str] = str) -> Layout:
    """Derive splits and class folders.

    Args:
        root: DATA as typed, for messages.
        node: The walked folder: that of DATA, or one in it.
        classes: The classes of a run that is evaluated; None if they are to be derived.
        find_table: Returns a sentence about a table of labels beside the folders, empty if there is none.

    Raises:
        DataError: The class folders are missing, elsewhere, or ambiguous.
    """
    folders, here = node.with_images(), path_of(root, node)
    known = set(map(standard_name, classes or ()))
    if folders and all(standard_name(folder.name) in known for folder in folders):
        return _as_classes(node, folders)
    candidates = split_folders(node.folders.values())
    chosen = choose_splits(here, candidates)
    others = [folder for folder in folders if all(folder is not split.node for split in chosen.values())]
    if chosen and are_splits(here, chosen, others, known):
        return _as_splits(root, chosen, others, for_run=classes is not None)
    named = {found[0] for folder in folders if (found := split_of(folder.name))}
    if folders and all(split_of(folder.name) for folder in folders):
        raise DataError(_flat_splits(here, folders, find_table()), path=here)
    if "train" in named and (len(named) > 1 or len(folders) == 1) and (table := find_table()):
        raise DataError(_flat_splits(here, folders, table), path=here)
    _refuse_wrong_level(root, node, folders)
    _refuse_splits_in_classes(here, folders)
    _refuse_repeated_classes(root, node)
    return _as_classes(node, folders)


def _as_splits(root: str, chosen: dict[str, SplitFolder], others: Sequence[Node], *, for_run: bool) -> Layout:
    if "train" not in chosen and not for_run:
        names = ", ".join(split.node.name for split in chosen.values())
        paths = [shlex.quote(portable_name(path_of(root, split.level))) for split in chosen.values()]
        raise DataError(
            f"{root} has no train folder, only {names}. Add the training images as {root}/train/<class>/*.jpg, or pass "
            f"one of its folders to train on: {' or '.join(paths)}.",
            path=root,
        )
    for split in chosen.values():
        _refuse_repeated_classes(root, split.level)
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
    """Return a note about classes with subfolders, which are merged into them."""
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
    train = next((folder for folder in folders if (split_of(folder.name) or ("",))[0] == "train"), folders[0])
    expected = f"Expected {root}/{train.name}/<class>/*.jpg, or a table with the columns path and label."
    return (
        f"{root} holds images directly in folders named like splits ({names}), so their classes are unknown. "
        f"{table or expected}"
    )


def _refuse_wrong_level(root: str, node: Node, folders: Sequence[Node]) -> None:
    """Refuse folders that are not classes, because the classes are deeper.

    Raises:
        DataError: A folder is not a class; the message has the path that was probably meant.
    """
    if len(folders) == 1:
        if (meant := _meant(root, folders[0])) is not None:
            raise _WrongLevelError(root, node, folders[0], meant)
        return
    nested = [folder for folder in folders if not folder.images and folder.folders]
    parted = [folder for folder in nested if len(folder.with_images()) > 1 and not MASK_NAME.fullmatch(folder.name)]
    if len(parted) == len(folders):
        _refuse_same_subfolders(root, path_of(root, node), folders)
    for folder in nested:
        inner, beside = folder.with_images(), [other for other in folders if other is not folder]
        per_class = median(node.total for node in inner)
        most = min(FEW_IMAGES, per_class / 2)
        few = len(inner) > 2 and all(not other.folders and other.total < most for other in beside)
        no_classes = all(NO_CLASS.fullmatch(other.name) or MASK_NAME.fullmatch(other.name) for other in beside)
        is_data = len(nested) == 1 and _DATA_NAME.fullmatch(folder.name)
        is_level = (no_classes or few or is_data) and not all(map(is_date, folder.folders))
        if is_level and (meant := _meant(root, folder)) is not None:
            names = ", ".join(f"{other.name} ({count_images(other.total)})" for other in beside[:SHOWN])
            raise _WrongLevelError(root, node, folder, meant, f", beside {names},")


class _WrongLevelError(DataError):
    """A folder is not a class, because the classes are deeper."""

    def __init__(self, root: str, node: Node, folder: Node, meant: Node, beside: str = "") -> None:
        here, path = path_of(root, node), portable_name(path_of(root, meant))
        super().__init__(
            f"{here}: {folder.name}{beside} is not a class, but holds the class folders. They seem to be in {path} "
            f"({names_of(list(meant.folders))}). Pass that folder instead: {shlex.quote(path)}."
            + f" If {folder.name} is a class, pass a table with the columns path and label."
            * bool(beside),
            path=path_of(root, meant),
        )
        self.meant = meant


def _refuse_splits_in_classes(here: str, folders: Sequence[Node]) -> None:
    for folder in folders:
        found = {split[0]: inner.name for inner in folder.with_images() if (split := split_of(inner.name))}
        if len(found) > 1:
            raise DataError(
                f"{here}/{folder.name} holds folders named like splits ({', '.join(found.values())}), but splits are "
                f"expected above classes. Move the images to {here}/<split>/<class>/, such as {here}/train/"
                f"{folder.name}/.",
                path=f"{here}/{folder.name}",
            )


def _refuse_repeated_classes(root: str, level: Node) -> None:
    """Refuse a folder beside class folders that holds the same class folders again, such as a copy or a split.

    Raises:
        DataError: There is such a folder.
    """
    names = {folded(name) for name in level.folders}
    for folder in level.with_images():
        inner = [node.name for node in folder.with_images()]
        repeated = [name for name in inner if folded(name) in names]
        if len(repeated) > 1 and len(repeated) * 2 >= len(inner) and not folder.images:
            pattern = shlex.quote(f"/{folder.below}")
            raise DataError(
                f"{path_of(root, folder)} is not a class, but holds folders with the same names as those beside it "
                f"({names_of(repeated)}). Leave it out with --exclude {pattern}, or move it out of "
                f"{path_of(root, level)}.",
                path=path_of(root, folder),
            )


def _refuse_same_subfolders(root: str, here: str, folders: Sequence[Node]) -> None:
    sets = [
        {folded(inner.name): inner.name for inner in folder.with_images() if not MASK_NAME.fullmatch(inner.name)}
        for folder in folders
    ]
    union, shared = set().union(*sets), set(sets[0]).intersection(*sets)
    common = sorted(sets[0][name] for name in shared)
    if len(common) < 2 or len(common) * 2 < len(union) or all(map(is_date, common)):
        return
    outer, inner = names_of([folder.name for folder in folders]), names_of(common)
    if all(split_of(name) for name in common):
        advice = f"Move the images to {here}/<split>/<class>/, such as {here}/train/{folders[0].name}/."
    else:
        path = shlex.quote(portable_name(path_of(root, folders[0])))
        advice = (
            f"If the classes are {inner}, pass one of the folders, such as {path}, or name the splits train, val, and "
            f"test. If the classes are {outer}, leave some subfolders out, such as with --exclude "
            f"{shlex.quote(common[-1] + '/')}, or pass a table with the columns path and label."
        )
    raise DataError(f"{here}: its folders ({outer}) all have the same subfolders ({inner}). {advice}", path=here)


def _meant(root: str, node: Node) -> Node | None:
    """Return the first folder from `node` downward that holds several classes; None if there is none.

    Raises:
        DataError: The class folders cannot be read either.
    """
    inner = sorted(node.with_images(), key=lambda folder: -folder.total)
    if not inner:
        return None
    try:
        layout = find_layout(root, node, None)
    except _WrongLevelError as error:
        return error.meant
    if len({name for _, level in layout.levels for name in level.folders}) > 1:
        return node
    return next((found for folder in inner if (found := _meant(root, folder))), None)
