"""The table of labels that `tlcli label` writes. It is DATA for `finetune`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import DataError
from tlcli.storage.appended_table import AppendedTable, Row
from tlcli.storage.files import from_portable_name, portable_name
from tlcli.storage.urls import is_url

LABEL_COLUMNS = ("path", "label", "source", "at", "proposed", "confidence")


@dataclass(frozen=True, kw_only=True)
class GivenLabel:
    """A label that a person has given."""

    path: str
    """The image, as it was listed."""
    label: str | None
    """None means that the image belongs to none of the classes."""
    source: str
    """Why the image was shown, such as `random` or `uncertain`."""
    at: str
    """The time, in UTC, ISO 8601."""
    proposed: str | None = None
    """The label that was proposed; None if there was no proposal yet."""
    confidence: float | None = None
    """The probability of the proposed label, in [0, 1]."""


class LabelTable:
    """Reads and writes a table of labels. Paths below its folder are relative to it, others absolute.

    Args:
        path: The CSV file, which need not exist.

    Raises:
        DataError: The file is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.absolute().parent
        self._table = AppendedTable(path, LABEL_COLUMNS)

    def read(self) -> list[GivenLabel]:
        """Return the labels that the table had when it was opened.

        Raises:
            DataError: A confidence is not a number.
        """
        labels = []
        for number, row in enumerate(self._table.rows, 1):
            try:
                labels.append(self.to_label(row))
            except ValueError as error:
                raise DataError(
                    f"{self.path}, row {number:,}: the confidence is {row[5]!r}; expected a number.", path=self.path
                ) from error
        return labels

    def append(self, labels: Iterable[GivenLabel]) -> None:
        """Append labels; they are on disk on return. Raises OSError, and DataError if another program changed it."""
        self._table.append(map(self.to_row, labels))

    def replace(self, labels: Iterable[GivenLabel]) -> None:
        """Replace all labels; they are on disk on return. Raises OSError; the old ones then remain."""
        self._table.replace(map(self.to_row, labels))

    def key(self, path: str) -> str:
        """Return what identifies an image in the table, however its path was typed."""
        return path_key(path)

    def name(self, key: str) -> str:
        """Return how the table names the image with this key."""
        return name_in_table(key, self._folder)

    def key_of(self, name: str) -> str:
        """Return the key of the image that the table names so."""
        return self.key(located(name, self._folder))

    def to_row(self, label: GivenLabel) -> Row:
        """Return the row of a label."""
        confidence = "" if label.confidence is None else f"{label.confidence:.4f}"
        values = (label.label or "", label.source, label.at, label.proposed or "", confidence)
        return (self.name(self.key(label.path)), *values)

    def to_label(self, row: Row) -> GivenLabel:
        """Return the label of a row. Raises ValueError if the confidence is not a number."""
        name, label, source, at, proposed, confidence = row
        return GivenLabel(
            path=located(name, self._folder),
            label=label or None,
            source=source,
            at=at,
            proposed=proposed or None,
            confidence=float(confidence) if confidence else None,
        )


def path_key(path: str) -> str:
    """Return a path in the only form that identifies its image: absolute, or a URL."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - keeps symbolic links


def path_in_table(key: str, folder: Path) -> str:
    """Return how a table in `folder` names an image: relative to the folder if the image is below it."""
    if is_url(key):
        return key
    below = os.path.relpath(key, folder)
    return key if Path(below).parts[0] == ".." else below


def name_in_table(key: str, folder: Path) -> str:
    """Return `path_in_table` as text; a `file://` URI, for names that are not UTF-8, is made of the absolute path."""
    name = portable_name(key)
    return name if name != key else path_in_table(key, folder)


def located(name: str, folder: Path) -> str:
    """Return the path or URL of an image that a table in `folder` names so."""
    path = from_portable_name(name)
    return path if is_url(path) else os.path.join(folder, path)  # noqa: PTH118 - keeps an absolute path


def is_label_table(path: Path | None) -> bool:
    """Return whether a file is a table of labels, by its header."""
    if path is None or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(1000).rstrip(b"\n") == ",".join(LABEL_COLUMNS).encode()
