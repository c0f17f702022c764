"""A dataset: the labeled images of DATA with their classes, splits, and groups.

Images are only listed here. Their bytes are read later, once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tlcli.datasets.class_names import unify_class_names
from tlcli.datasets.corrections import AppliedCorrections, Corrections, correct_labels
from tlcli.datasets.folders.class_folders import open_tree, read_class_folders
from tlcli.datasets.folders.mask_pairs import MaskPairs, find_mask_pairs
from tlcli.datasets.folders.tree import Tree
from tlcli.datasets.labeled_image import LabeledImage
from tlcli.datasets.path_filter import EXCLUDED, PathFilter
from tlcli.datasets.tables.read import read_table
from tlcli.datasets.tables.suffixes import is_table
from tlcli.datasets.tars import expand_shards, is_tar
from tlcli.datasets.webdataset import read_shards
from tlcli.errors import DataError, UsageError
from tlcli.settings.columns import NO_COLUMN, TableColumns
from tlcli.settings.filters import PathPatterns
from tlcli.storage.urls import Location, Url


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labeled image of a dataset."""

    path: str
    """Path of the file as DATA was typed: relative to the working directory or absolute."""
    label: int
    """Index into `Dataset.classes`."""
    split: str | None = None
    """`train`, `validation`, or `test`; None if DATA has no splits."""
    group: str | None = None
    """Images of one group are never separated by a split."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The labeled images of DATA."""

    root: Location
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    skipped: dict[str, int]
    """Number of skipped files and folders by reason."""
    notes: tuple[str, ...] = ()
    """How DATA was read where that is not obvious, such as the columns of a table, one sentence each."""
    masks: tuple[MaskPairs, ...] = ()
    """Which images may be masks of others, by their names."""
    filters: PathPatterns = field(default_factory=PathPatterns)
    """The filters that DATA was read with."""
    corrections: AppliedCorrections | None = None
    """The corrections of labels that were applied."""
    in_folders: bool = False
    """Whether folders below `root` name the classes."""

    def has_split(self, split: str) -> bool:
        """Return whether DATA itself assigns images to `split`."""
        return any(sample.split == split for sample in self.samples)

    def options(self) -> str:
        """Return the options that chose and corrected the images, each after a space, to append to a command."""
        return self.filters.options() + (self.corrections.option() if self.corrections else "")


def open_dataset(
    data: Location,
    *,
    group_by: str | None = None,
    classes: tuple[str, ...] | None = None,
    filters: PathPatterns | None = None,
    columns: TableColumns | None = None,
    corrections: Corrections | None = None,
) -> Dataset:
    """List the labeled images of DATA.

    Args:
        data: `root/<class>/*`, `root/{train,val,test}/<class>/*`, a table (see `TABLE_SUFFIXES`), or WebDataset shards
            such as `shards-{000..099}.tar`; on this machine or at a URL.
        group_by: Regular expression to search in each path below DATA. Its first capture group, or else the whole
            match, names the group of the image.
        classes: The classes of a run, in its order; None derives them from the training images.
        filters: Drops files by their path below DATA, before classes and splits are derived; None keeps all.
        columns: The columns of a table to read; None recognizes common headers.
        corrections: Applied before classes, splits, and groups are derived; see `correct_labels`.

    Raises:
        DataError: DATA does not exist or has an unknown form, a class is empty or unknown, or corrections do not fit.
        UsageError: `group_by` is not a regular expression or matches no path, a filter matches no file, or `columns`
            has no effect or names a column that the table lacks.
        MachineError: A folder cannot be listed, or a URL cannot be reached.
    """
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    paths = PathFilter(filters)
    columns = columns or TableColumns()
    tree = open_tree(data)
    _check_columns(data, columns, group_by, is_in_table=tree is None and is_table(data))
    images = _list_images(data, tree, columns, paths, skipped, notes, classes=classes)
    if paths:
        paths.check_used(str(data), os.path.relpath(images[0].path, data) if images and tree is not None else None)
    images = unify_class_names(images, classes, notes)
    applied: AppliedCorrections | None = None
    if corrections is not None:
        images, applied = correct_labels(images, corrections, data, classes)
    names = _class_names(data, images, classes)
    index = {name: number for number, name in enumerate(names)}
    samples = tuple(
        Sample(path=image.path, label=index[image.label], split=image.split, group=image.group) for image in images
    )
    if group_by is not None:
        samples = _assign_groups(samples, group_by, data if tree is not None else data.parent)
    return Dataset(
        root=data,
        in_folders=tree is not None,
        samples=samples,
        classes=names,
        skipped={reason: count for reason, count in skipped.items() if count},
        notes=tuple(notes),
        filters=filters or PathPatterns(),
        corrections=applied,
        masks=tuple(find_mask_pairs(sample.path for sample in samples)),
    )


def _list_images(
    data: Location,
    tree: Tree | None,
    columns: TableColumns,
    paths: PathFilter,
    skipped: Counter[str],
    notes: list[str],
    *,
    classes: tuple[str, ...] | None,
) -> list[LabeledImage]:
    if tree is not None:
        return read_class_folders(tree, paths, skipped, notes, classes=classes)
    if is_table(data) and (isinstance(data, Url) or data.is_file()):
        return read_table(data, columns, notes, _keeps(data, paths, skipped))
    if is_tar(str(data)):
        return read_shards(str(data), skipped, paths)
    raise _unknown_form(data)


def _keeps(table: Location, paths: PathFilter, skipped: Counter[str]) -> Callable[[str], bool] | None:
    """Return a predicate for whether an image of a table is used, by its path relative to the table's folder."""
    if not paths:
        return None
    dropped: set[str] = set()

    def keeps(path: str) -> bool:
        if paths.keeps(os.path.relpath(path, table.parent)):
            return True
        dropped.add(path)
        skipped[EXCLUDED] = len(dropped)
        return False

    return keeps


def _check_columns(data: Location, columns: TableColumns, group_by: str | None, *, is_in_table: bool) -> None:
    """Check that options that name columns have an effect."""
    if not is_in_table and (given := list(columns.given())):
        raise UsageError(f"{given[0]} has no effect: {data} is not a table. Remove the option.")
    if group_by is not None and columns.group_column not in {None, NO_COLUMN}:
        raise UsageError("--group-by and --group-column both define the groups. Remove one of them.")


def _unknown_form(data: Location) -> DataError:
    if isinstance(data, Url) or data.exists():
        return DataError(
            f"{data} is not a folder, a table, or a tar. Pass a folder with one subfolder per class, a .csv, .tsv, "
            ".jsonl, or .parquet table with the columns path and label (save a spreadsheet as CSV), or WebDataset "
            "shards.",
            path=data,
        )
    return DataError(
        f"{data} does not exist. Pass a folder with one subfolder of images per class, a table, or tar shards.",
        path=data,
    )


def data_exists(data: Location) -> bool:
    """Return whether DATA still exists, without opening it; a URL is assumed to exist."""
    return isinstance(data, Url) or all(map(os.path.exists, expand_shards(str(data))))


def _class_names(data: Location, images: list[LabeledImage], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes of the training images, sorted as plain strings, or `given`; check that they suffice."""
    has_splits = any(image.split is not None for image in images)
    if images and has_splits and not any(image.split == "train" for image in images) and not given:
        raise DataError(
            f"{data} has no training images, only images of other splits. Add images with the split train.", path=data
        )
    known = given or tuple(sorted({image.label for image in images if not has_splits or image.split == "train"}))
    names = set(known)
    for image in images:
        if image.label not in names:
            if given:
                owner, advice = "the run", "Use images of the classes that the run was trained on"
            else:
                owner, advice = "train", "Add training images of this class, or remove it"
            raise DataError(
                f"class {image.label!r} of {image.path} ({image.split or data}) is not one of the {len(known)} classes "
                f"of {owner}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}. {advice}.",
                path=image.path,
            )
    if not images:
        raise DataError(f"{data} lists no images. Add at least two classes of images.", path=data)
    if len(known) < 2:
        raise DataError(
            f"{data} has only one class, {known[0]!r}; a classifier needs at least two. Add images of another class; "
            "in folders, expected one subfolder per class.",
            path=data,
        )
    return known


def _assign_groups(samples: tuple[Sample, ...], group_by: str, root: Location) -> tuple[Sample, ...]:
    """Search each path relative to `root`, so that groups do not depend on where DATA is or how it was typed."""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(f"--group-by {group_by!r} is not a regular expression: {error}.") from error
    paths = [os.path.relpath(sample.path, root) for sample in samples]
    matches = [pattern.search(path) for path in paths]
    if not any(matches):
        raise UsageError(
            f"--group-by {group_by!r} matches none of the {len(samples)} paths, such as {paths[0]}. Change the pattern."
        )
    return tuple(
        replace(sample, group=match.group(1 if pattern.groups else 0)) if match else sample
        for sample, match in zip(samples, matches, strict=True)
    )
