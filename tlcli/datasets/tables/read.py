"""DATA and INPUT as a table: its images with their classes, splits, and groups, or just the paths of its images."""

from __future__ import annotations

from collections.abc import Callable

from tlcli.datasets.label_table import LABEL_COLUMNS
from tlcli.datasets.labeled_image import LabeledImage, default_to_train
from tlcli.datasets.tables.columns import choose_columns, choose_image_column
from tlcli.datasets.tables.delimited_table import read_delimited
from tlcli.datasets.tables.headers import header_key
from tlcli.datasets.tables.json_table import read_json_table
from tlcli.datasets.tables.parquet_table import read_parquet
from tlcli.datasets.tables.paths import existing_paths, find_images, written_paths
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.suffixes import JSON_SUFFIXES
from tlcli.datasets.tables.values import groups, labels, splits
from tlcli.errors import DataError
from tlcli.settings.columns import TableColumns
from tlcli.storage.remote import content_of
from tlcli.storage.urls import Location, Url


def read_table(
    path: Location,
    columns: TableColumns | None = None,
    notes: list[str] | None = None,
    is_used: Callable[[str], bool] | None = None,
) -> list[LabeledImage]:
    """Read a table of labeled images. Paths in it are relative to the table's folder.

    Args:
        path: A file with one of `TABLE_SUFFIXES`.
        columns: The columns to read; None recognizes common headers.
        notes: Receives how the table was read, where that is not obvious.
        is_used: Returns whether an image is used, by its path; others need not exist, and are left out. None uses all.

    Raises:
        DataError: The table cannot be read, lacks a column, has empty, ambiguous, or unknown values, or names missing
            files.
        UsageError: An option names a column that the table lacks.
    """
    table = load_table(path)
    notes = [] if notes is None else notes
    chosen = choose_columns(table, columns or TableColumns())
    if table.names == LABEL_COLUMNS:  # written by tlcli label
        table = _without_unlabeled(table, chosen.label, notes)
    written = written_paths(table, chosen.image)
    classes = labels(table, chosen.label)
    flag = header_key(chosen.split or "").removeprefix("is").removeprefix("_")
    none = [None] * len(written)
    split_names = splits(table, chosen.split, flag) if chosen.split is not None else none
    group_names = groups(table, chosen.group) if chosen.group is not None else none
    notes += filter(None, (", ".join(table.notes), chosen.note()))
    used = is_used or bool
    paths = existing_paths(table, written, notes, used)
    rows = zip(paths, classes, split_names, group_names, strict=True)
    return default_to_train(
        [
            LabeledImage(path=path, label=label, split=split, group=group)
            for path, label, split, group in rows
            if used(path)
        ]
    )


def _without_unlabeled(table: RawTable, column: str, notes: list[str]) -> RawTable:
    """Leave out the images that belong to none of the classes."""
    kept = [index for index, label in enumerate(table.column(column)) if label not in {None, ""}]
    if left_out := len(table.column(column)) - len(kept):
        notes.append(f"{left_out:,} images of none of the classes are left out")
    return table.select(kept)


def read_image_column(path: Location, columns: TableColumns) -> list[str]:
    """Return the paths of a table's images. Files that do not exist are reported when they are read.

    Raises:
        DataError: The table cannot be read, has no column of paths, or a path is empty.
        UsageError: `--image-column` names a column that the table lacks.
    """
    table = load_table(path)
    written = written_paths(table, choose_image_column(table, columns))
    return find_images(table, written, [])[0]


def images_of_no_class(table: Location) -> list[str]:
    """Return the paths of the images that `tlcli label` recorded as belonging to none of the classes.

    Args:
        table: Any table; those that `tlcli label` did not write have no such images.
    """
    content = load_table(table)
    if content.names != LABEL_COLUMNS:
        return []
    content = content.select([index for index, label in enumerate(content.column("label")) if label in {None, ""}])
    return find_images(content, written_paths(content, "path"), [])[0]


def load_table(path: Location) -> RawTable:
    """Read the columns of a table. Raises DataError."""
    content = content_of(path) if isinstance(path, Url) else None
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return read_parquet(path, content)
    try:
        text = content if content is not None or isinstance(path, Url) else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read as a {suffix} table: {error.strerror}.", path=path) from error
    return (read_json_table if suffix in JSON_SUFFIXES else read_delimited)(path, text or b"")
