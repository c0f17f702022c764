"""Read a table of corrections: the digest of an image's file, the label that it has, and its correct label."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tlcli.datasets.class_names import standard_name
from tlcli.datasets.tables.columns import check_names
from tlcli.datasets.tables.headers import header_key
from tlcli.datasets.tables.paths import written_paths
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.read import load_table
from tlcli.datasets.tables.values import labels, optional_labels
from tlcli.errors import DataError
from tlcli.storage.urls import Location, absolute, is_url

CORRECTION_COLUMNS = ("path", "digest", "old", "new")
"""Columns of a table of corrections; others are ignored."""
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A row of a table of corrections."""

    path: str
    """Path of the image as written: absolute, a URL, or relative to the table's folder."""
    digest: bytes
    """SHA-256 of its file."""
    old: str
    """Its class in DATA."""
    new: str | None
    """Its correct class; None leaves it out of the dataset."""


@dataclass(frozen=True, kw_only=True)
class CorrectionTable:
    """A table of corrections."""

    file: Location
    rows: tuple[Correction, ...]
    describe_row: Callable[[int], str]
    """Returns the position of the row of an index for messages, such as `row 3 (line 4)`."""

    def locate(self, row: Correction) -> str:
        """Return the absolute path, or the URL, that a row names."""
        written = row.path
        whole = is_url(written) or written.startswith("/")
        return absolute(written if whole else str(self.file.parent / written))


def read_corrections(file: Location) -> CorrectionTable:
    """Read a table of corrections, which may be of any form that tables of images may have.

    Raises:
        DataError: The table cannot be read, lacks a column, or is empty; a path, digest, or old label is missing or
            malformed; or two rows with the same digest have different new labels.
    """
    table = load_table(file)
    rows = tuple(_read_rows(table))
    if not rows:
        raise DataError(f"{file} has no rows. Add corrections, or remove --corrections.", path=file)
    first: dict[bytes, int] = {}
    for index, row in enumerate(rows):
        other = first.setdefault(row.digest, index)
        if rows[other].new != row.new:
            raise DataError(
                f"{file}: {table.describe_row(other)} and {table.describe_row(index)} have the same digest, but "
                f"different new labels: {_quoted(rows[other].new)} and {_quoted(row.new)}. Remove one of them.",
                path=file,
            )
    return CorrectionTable(file=file, rows=rows, describe_row=table.describe_row)


def _read_rows(table: RawTable) -> Iterator[Correction]:
    check_names(table)
    names = {header_key(name): name for name in table.names}
    if missing := [column for column in CORRECTION_COLUMNS if column not in names]:
        raise DataError(
            f"{table.path} lacks the column {missing[0]}; it has {', '.join(table.names) or 'none'}. Expected "
            f"{', '.join(CORRECTION_COLUMNS)}: the path of an image, the SHA-256 of its file, its label in DATA, and "
            "its correct label.",
            path=table.path,
        )
    path, digest, old, new = (names[column] for column in CORRECTION_COLUMNS)
    columns = (written_paths(table, path), table.column(digest), labels(table, old), optional_labels(table, new))
    for index, (written, value, before, after) in enumerate(zip(*columns, strict=True)):
        text = str(value).strip().lower()
        if not DIGEST.fullmatch(text):
            raise DataError(
                f"{table.path}, {table.describe_row(index)}: the digest is {str(value)[:80]!r}; expected the SHA-256 "
                "of the image's file, in 64 hexadecimal digits (sha256sum FILE).",
                path=table.path,
            )
        yield Correction(
            path=written,
            digest=bytes.fromhex(text),
            old=before,
            new=None if after is None else standard_name(after),
        )


def _quoted(label: str | None) -> str:
    return "none" if label is None else repr(label)
