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
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median

from tlcli.datasets.folder_nodes import Node
from tlcli.datasets.split_folders import MASK_NAME, SplitFolder, folded, look_alike, split_folders, split_of
from tlcli.errors import DataError
from tlcli.storage.files import portable_name

_NO_CLASS = re.compile(
    r"(?:un[\W_]?lab+el+ed|unsup(?:ervised)?|extra|examples?|samples?|demos?|docs?|documentation|assets|static|media|"
    r"fig(?:ure)?s?|screen[\W_]?shots?|readme|logos?|previews?|thumb(?:nail)?s?|notebooks?|scripts?|src|source|code|"
    r"models?|weights|checkpoints|results?|outputs?|runs|logs|tests?|annotations?|meta(?:data)?|gallery|misc|"
    r"(?:sample|example|demo|doc|readme|paper)[\W_]?(?:image|img|photo|picture|pic|figure|data)s?)",
    re.IGNORECASE,
)
"""Matches names of folders that are no classes when they lie beside a folder with many subfolders."""
_DATA_NAME = re.compile(
    r"(?:the[\W_]?)?(?:raw[\W_]?)?(?:data(?:[\W_]?sets?)?|images?|imgs?|photos?|pictures?)", re.IGNORECASE
)
"""Matches names of folders that are no classes when they hold subfolders."""
_DATE = re.compile(r"(?:19|20)\d\d(?:[-_. ]?\d\d){0,2}")
SHOWN = 5
"""Number of folders to name in a message."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the class folders are, and what to tell about it."""

    levels: list[tuple[str | None, Node]]
    """Folders that hold class folders, each with its split; one without a split if DATA has none."""
    notes: list[str] = field(default_factory=list)
    beside: int = 0
    """Number of images in folders beside the splits."""


def find_layout(root: str, node: Node, classes: Collection[str] | None) -> Layout:
    """Derive splits and class folders.

    Args:
        root: DATA as typed, for messages.
        node: The walked folder.
        classes: The classes of a run that is evaluated; None if they are to be derived.

    Raises:
        DataError: The folders cannot be read, or not without a doubt.
    """
    folders = node.with_images()
    if classes and folders and all(folder.name in classes for folder in folders):
        return _as_classes(node, folders)
    candidates = split_folders(node.folders.values())
    chosen = _choose(root, candidates)
    others = [folder for folder in folders if all(folder is not split.node for split in chosen.values())]
    if chosen and _are_splits(root, chosen, others, classes):
        return _as_splits(root, chosen, others, for_run=classes is not None)
    if folders and all(split_of(folder.name) for folder in folders):
        raise DataError(_flat_splits(root, folders), path=root)
    _refuse_wrong_level(root, node, folders)
    return _as_classes(node, folders)


def _choose(root: str, candidates: Sequence[SplitFolder]) -> dict[str, SplitFolder]:
    """Return one folder with class folders for each split, in order; those with other words only if need be.

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


def _are_splits(
    root: str, chosen: dict[str, SplitFolder], others: Sequence[Node], classes: Collection[str] | None
) -> bool:
    """Return whether folders named like splits are splits, not classes with such names."""
    if len(chosen) > 1 or not others:
        return True
    (split,) = chosen.values()
    if classes and any(name in classes for name in split.level.folders):
        return True
    if split.split != "train":
        return False
    if all(
        split_of(other.name) or _NO_CLASS.fullmatch(other.name) or MASK_NAME.fullmatch(other.name) for other in others
    ):
        return True
    if any(look_alike(split.level, other) for other in others):
        return True
    if len(others) == 1 and not others[0].folders:
        name = others[0].name
        raise DataError(
            f"{root} holds {split.node.name} with subfolders ({_names(list(split.level.folders))}), and {name} without "
            f"any. It is unclear whether {split.node.name} is a split or a class. If it is a split, pass --exclude "
            f"{shlex.quote(name + '/')}; if it is a class, move the images in its subfolders up, or rename it.",
            path=root,
        )
    return False


def _as_splits(root: str, chosen: dict[str, SplitFolder], others: Sequence[Node], *, for_run: bool) -> Layout:
    if "train" not in chosen and not for_run:
        names = ", ".join(split.node.name for split in chosen.values())
        raise DataError(
            f"{root} has no train folder, only {names}. Add the training images as {root}/train/<class>/*.jpg"
            + (
                f", or, if they are all there is, pass {_path(root, next(iter(chosen.values())).level)}."
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
        named = ", ".join(f"{portable_name(other.name)} ({_images(other.total)})" for other in others)
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


def _flat_splits(root: str, folders: Sequence[Node]) -> str:
    names = _names([folder.name for folder in folders])
    if any(folder.folders for folder in folders):
        return (
            f"{root} holds folders named like splits ({names}), but train has no class folders. Expected "
            f"{root}/train/<class>/*.jpg and the same classes in the others."
        )
    return (
        f"{root} holds images directly in {names}, which are named like splits, so the images have no class. Expected "
        f"{root}/{folders[0].name}/<class>/*.jpg, or a table with the columns path and label."
    )


def _refuse_wrong_level(root: str, node: Node, folders: Sequence[Node]) -> None:
    """Refuse folders that are not classes, because the classes are deeper.

    Raises:
        DataError: So it is, with the path that was probably meant.
    """
    nested = [folder for folder in folders if not folder.images and len(folder.with_images()) > 1]
    if len(folders) == 1:
        (folder,) = folders
        meant = _meant(root, folder)
        if meant is not None:
            raise _wrong_level(root, folder, meant, "")
        return
    if len(nested) == len(folders) and not any(MASK_NAME.fullmatch(folder.name) for folder in folders):
        _refuse_same_subfolders(root, folders)
    for folder in nested:
        beside = [other for other in folders if other is not folder]
        per_class = median(inner.total for inner in folder.with_images())
        few = len(folder.with_images()) > 2 and all(
            not other.folders and other.total < per_class / 2 for other in beside
        )
        no_classes = all(_NO_CLASS.fullmatch(other.name) or MASK_NAME.fullmatch(other.name) for other in beside)
        if not all(map(_is_date, folder.folders)) and (
            no_classes or few or (_DATA_NAME.fullmatch(folder.name) and len(nested) == 1)
        ):
            names = ", ".join(f"{other.name} ({_images(other.total)})" for other in beside[:SHOWN])
            raise _wrong_level(root, folder, _meant(root, folder) or folder, f", beside {names}")


def _wrong_level(root: str, folder: Node, meant: Node, beside: str) -> DataError:
    inner = _names(list(meant.folders))
    path = _path(root, meant)
    return DataError(
        f"{root}: {folder.name}{beside} is not a class, but holds the class folders. They seem to be in "
        f"{portable_name(path)} ({inner}). Pass that folder instead: {shlex.quote(portable_name(path))}.",
        path=path,
    )


def _refuse_same_subfolders(root: str, folders: Sequence[Node]) -> None:
    sets = [
        {folded(inner.name) for inner in folder.with_images() if not MASK_NAME.fullmatch(inner.name)}
        for folder in folders
    ]
    union, common = set.union(*sets), set.intersection(*sets)
    if len(common) < 2 or len(common) * 2 < len(union) or all(map(_is_date, common)):
        return
    outer, inner = _names([folder.name for folder in folders]), _names(sorted(common))
    if all(split_of(name) for name in common):
        advice = f"Move the images to {root}/<split>/<class>/, such as {root}/train/{folders[0].name}/."
    else:
        path = shlex.quote(portable_name(_path(root, folders[0])))
        advice = (
            f"If the classes are {inner}, pass one of the folders, such as {path}, or name the splits train, val, and "
            f"test. If the classes are {outer}, move the images up, or keep one subfolder of each, such as with "
            f"--exclude {shlex.quote(sorted(common)[-1] + '/')}."
        )
    raise DataError(f"{root}: its folders ({outer}) all have the same subfolders ({inner}). {advice}", path=root)


def _meant(root: str, node: Node) -> Node | None:
    """Return the first folder from `node` downward that can be read as DATA; larger ones first."""
    inner = sorted(node.with_images(), key=lambda folder: -folder.total)
    if not inner:
        return None
    try:
        layout = find_layout(_path(root, node), node, None)
    except DataError:
        layout = None
    if layout is not None and len({name for _, level in layout.levels for name in level.folders}) > 1:
        return node
    return next((found for folder in inner if (found := _meant(root, folder))), None)


def _is_date(name: str) -> bool:
    return bool(_DATE.fullmatch(name))


def _path(root: str, node: Node) -> str:
    return f"{root.rstrip('/') or '/'}/{node.below}".rstrip("/")


def _names(names: Sequence[str]) -> str:
    shown = [portable_name(name) for name in names[:SHOWN]]
    return ", ".join(shown + ([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
