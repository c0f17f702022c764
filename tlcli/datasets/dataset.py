"""DATA: a folder, a table or tars of labeled images, as samples with classes and splits.

Nothing is decoded here; the images' bytes are read later, once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from tlcli.datasets.folder_tree import ListedTree, LocalTree, Tree, under
from tlcli.datasets.image_files import SUFFIXES_FOR_PEOPLE, has_image_suffix, is_hidden
from tlcli.datasets.tables import SPLIT_NAMES, TABLE_SUFFIXES, LabeledImage, default_to_train, read_table
from tlcli.datasets.tars import expand_shards, is_tar, open_tars
from tlcli.datasets.webdataset import labeled_in
from tlcli.errors import DataError, UsageError
from tlcli.storage.remote import listing
from tlcli.storage.urls import Location, Url


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labeled image."""

    path: str
    """The file, relative to the working directory or absolute, as DATA was typed."""
    label: int
    """Index into `Dataset.classes`."""
    split: str | None = None
    """`train`, `validation` or `test`; None where DATA makes no splits."""
    group: str | None = None
    """Images of one group stay on one side of every split that we make."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What DATA holds."""

    root: Location
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    skipped: dict[str, int]
    """Files that were passed over, by reason."""
    in_folders: bool = False
    """Whether folders below `root` name the classes."""

    def has_split(self, split: str) -> bool:
        """Whether DATA itself names images of `split`."""
        return any(sample.split == split for sample in self.samples)


def open_dataset(data: Location, *, group_by: str | None = None, classes: tuple[str, ...] | None = None) -> Dataset:
    """List the labeled images of DATA.

    Args:
        data: `root/<class>/*`, `root/{train,val,test}/<class>/*`, a .csv, .jsonl or .parquet table, or WebDataset's
            shards, `shards-{000..099}.tar`; on this machine or at a URL.
        group_by: A regular expression searched for in each path below DATA; its first capture (or whole match) is the
            group.
        classes: The classes of a run, in its order; None derives them from what is there (see `_class_names`).

    Raises:
        DataError: there is no such DATA, or it is not of a known form, or a class is empty or unknown.
        UsageError: `group_by` is no regular expression, or matches none of the paths.
        MachineError: a folder cannot be listed, or a URL not be reached.
    """
    skipped: Counter[str] = Counter()
    tree = _tree(data)
    if tree is not None:
        rows = _folder_rows(tree, skipped, for_run=classes is not None)
    elif data.suffix.lower() in TABLE_SUFFIXES and (isinstance(data, Url) or data.is_file()):
        rows = read_table(data)
    elif is_tar(str(data)):
        rows = _tar_rows(str(data), skipped)
    elif isinstance(data, Url) or data.exists():
        raise DataError(
            f"{data} is neither a folder nor a table, nor a tar. Give a folder with one sub-folder a class, a .csv, "
            ".jsonl or .parquet file with the columns path and label, or WebDataset's shards.",
            path=data,
        )
    else:
        raise DataError(f"{data} does not exist. Give a folder with one sub-folder of images a class.", path=data)
    names = _class_names(data, rows, classes)
    number = {name: index for index, name in enumerate(names)}
    samples = tuple(Sample(path=row.path, label=number[row.label], split=row.split, group=row.group) for row in rows)
    if group_by is not None:
        samples = _grouped(samples, group_by, data if tree is not None else data.parent)
    return Dataset(
        root=data,
        in_folders=tree is not None,
        samples=samples,
        classes=names,
        skipped={k: n for k, n in skipped.items() if n},
    )


def data_exists(data: Location) -> bool:
    """Whether DATA can still be opened, as far as that shows without opening it."""
    return isinstance(data, Url) or all(map(os.path.exists, expand_shards(str(data))))


def _tree(data: Location) -> Tree | None:
    """DATA as a folder; None where it is none."""
    if isinstance(data, Path):
        return LocalTree(str(data)) if data.is_dir() else None
    if data.suffix.lower() in TABLE_SUFFIXES or is_tar(str(data)):
        return None
    found = listing(data)
    return ListedTree(str(data), found) if "" not in found else None


def _tar_rows(pattern: str, skipped: Counter[str]) -> list[LabeledImage]:
    rows = default_to_train([row for shard in open_tars(pattern) for row in labeled_in(shard, skipped)])
    if not rows:
        found = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items() if count) or "no files"
        raise DataError(
            f"{pattern} holds no labeled images ({found}). Expected key.jpg beside key.cls, or beside key.json with "
            "the class under label.",
            path=pattern,
        )
    return rows


def _folder_rows(tree: Tree, skipped: Counter[str], *, for_run: bool) -> list[LabeledImage]:
    """Rows of a folder; `for_run` takes DATA without train or with empty classes, since a run knows its classes."""
    root, split_folders = tree.root, _split_folders(tree)
    named: dict[str, str] = {}
    if split_folders and "train" not in split_folders and not for_run:
        names = ", ".join(split_folders.values())
        raise DataError(
            f"{root} has no train folder, only {names}. Expected {root}/train/<class>/*.jpg beside it.", path=root
        )
    if not split_folders:
        rows = _class_rows(tree, root, None, skipped, named, may_be_empty=for_run)
        if not rows:
            shards = next((name for name in tree.names(root) if is_tar(name)), None)
            raise DataError(
                f"{root} holds no class folders with images. Expected {root}/<class>/*.jpg (or .png, ...), or "
                f"{root}/train/<class>/*.jpg." + (f" Its tars are DATA by their names: {root}/{shards}" * bool(shards)),
                path=root,
            )
        return rows
    for name in tree.names(root):
        if name not in split_folders.values() and not is_hidden(name):
            skipped["beside the split folders"] += 1
    return [
        row
        for split, name in split_folders.items()
        for row in _class_rows(tree, under(root, name), split, skipped, named, may_be_empty=for_run or split != "train")
    ]


def _split_folders(tree: Tree) -> dict[str, str]:
    """The names of the folders of train, validation and test with class folders in them.

    Empty where the root holds classes: where it has no train, and another folder beside those named like splits.
    """
    found: dict[str, str] = {}
    folders = [name for name in tree.names(tree.root) if tree.is_folder(under(tree.root, name))]
    for name in folders:
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            continue
        folder = under(tree.root, name)
        if not any(tree.is_folder(under(folder, inner)) for inner in tree.names(folder) if not is_hidden(inner)):
            continue
        if split in found:
            raise DataError(
                f"{tree.root} has two folders for {split}: {found[split]} and {name}. Keep one of them.", path=tree.root
            )
        found[split] = name
    if "train" not in found and sum(not is_hidden(name) for name in folders) > len(found):
        return {}
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _class_rows(
    tree: Tree, root: str, split: str | None, skipped: Counter[str], named: dict[str, str], *, may_be_empty: bool
) -> list[LabeledImage]:
    """Rows of a folder of class folders; `named` has the first folder of each class, in any split."""
    rows: list[LabeledImage] = []
    for name in tree.names(root):
        folder = under(root, name)
        if is_hidden(name):
            skipped["hidden folders" if tree.is_folder(folder) else "hidden files"] += 1
        elif not tree.is_folder(folder):
            reason = "images outside the class folders" if has_image_suffix(name) else "not images by their suffix"
            skipped[reason] += 1
        else:
            paths = list(tree.images(folder, skipped))
            if not paths and not may_be_empty:
                raise DataError(
                    f"{folder} holds no images (looked for {SUFFIXES_FOR_PEOPLE}). Add some or remove the folder.",
                    path=folder,
                )
            label = _text(name)
            if os.path.basename(other := named.setdefault(label, folder)) != name:  # noqa: PTH119 - may be any bytes
                raise DataError(
                    f"{other} and {folder} would be one class, {label!r}, since a name that isn't UTF-8 is "
                    "percent-encoded. Rename one of them.",
                    path=folder,
                )
            rows.extend(LabeledImage(path=path, label=label, split=split) for path in paths)
    return rows


def _text(name: str) -> str:
    """A folder's name as text: percent-encoded where it isn't UTF-8."""
    try:
        name.encode("utf8")
    except UnicodeEncodeError:
        return quote(os.fsencode(name))
    return name


def _class_names(data: Location, rows: list[LabeledImage], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes of train, sorted as plain strings (DESIGN: nobody re-derives them)."""
    split_made = any(row.split is not None for row in rows)
    if rows and split_made and not any(row.split == "train" for row in rows) and not given:
        raise DataError(f"{data} has no images of train, only of its other splits.", path=data)
    known = given or tuple(sorted({row.label for row in rows if not split_made or row.split == "train"}))
    names = set(known)
    for row in rows:
        if row.label not in names:
            if given:
                where, expected = "the run", "Evaluate with the classes that it was trained on"
            else:
                where, expected = "train", "Add images of it to train, or remove it"
            raise DataError(
                f"class {row.label!r} of {row.path} ({row.split or data}) is not one of the {len(known)} classes of "
                f"{where}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}. {expected}.",
                path=row.path,
            )
    if not rows:
        raise DataError(f"{data} lists no images.", path=data)
    if len(known) < 2:
        raise DataError(
            f"{data} has only one class, {known[0]!r}; a classifier needs at least two. Expected one sub-folder "
            "a class.",
            path=data,
        )
    return known


def _grouped(samples: tuple[Sample, ...], group_by: str, root: Location) -> tuple[Sample, ...]:
    """Search each path below `root`, so that it doesn't matter where DATA lies or how it was typed."""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(f"--group-by {group_by!r} is no regular expression: {error}.") from error
    paths = [os.path.relpath(sample.path, root) for sample in samples]
    matches = [pattern.search(path) for path in paths]
    if not any(matches):
        raise UsageError(f"--group-by {group_by!r} matches none of the {len(samples)} paths, such as {paths[0]}.")
    return tuple(
        replace(sample, group=match.group(1 if pattern.groups else 0)) if match else sample
        for sample, match in zip(samples, matches, strict=True)
    )
